//! The tables, for people.

use std::fmt::Write as _;

use crate::arguments::Arguments;
use crate::figure::{Figure, digits};
use crate::machine;
use crate::programs::Kind;
use crate::results::{Part, Results};
use crate::statistics::Spread;
use crate::targets;

/// A table of figures for each kind of cable, the marks, which are set for the first of them, and what went wrong.
pub(crate) fn tables(parts: &[Part]) -> String {
    let mut text = String::from(
        "Medians over the rounds; in brackets what gatereeve has of it, round by round.\n",
    );
    for Part { arguments, results } in parts {
        // Writing to a string does not fail.
        let _ = writeln!(text, "\nWire offload {}\n", arguments.wire().name());
        text.push_str(&figures(results, arguments));
    }
    text.push_str(&noise(parts));
    if let Some(Part { arguments, results }) = parts.first() {
        let wire = arguments.wire().name();
        let _ = writeln!(text, "\nWhat it must show (wire offload {wire})\n");
        text.push_str(&marks(results, arguments));
    }
    let failures = parts.iter().flat_map(|part| part.results.failures());
    let failures: Vec<_> = failures.collect();
    if !failures.is_empty() {
        text.push_str("\nWhat failed\n\n");
        for failure in failures {
            // Writing to a string does not fail.
            let _ = writeln!(text, "- {failure}");
        }
    }
    text
}

/// How much else the machine had to do.
fn noise(parts: &[Part]) -> String {
    let turns = parts.iter().flat_map(|part| &part.results.turns);
    let busy: Vec<f64> = turns.map(|turn| turn.busy_before).collect();
    let Some(Spread { median, most, .. }) = Spread::of(&busy) else {
        return String::new();
    };
    let verdict = if median > machine::QUIET {
        ": do not believe these figures"
    } else {
        ""
    };
    format!(
        "\nBefore the turns the machine was busy with other things to {median:.0} % (at most {most:.0} %){verdict}.\n"
    )
}

fn figures(results: &Results, arguments: &Arguments) -> String {
    let kinds = results.kinds();
    let mut rows = vec![
        ["metric", "unit"]
            .into_iter()
            .chain(kinds.iter().map(|kind| kind.name()))
            .map(str::to_owned)
            .collect::<Vec<_>>(),
    ];
    let shown = results.figures().into_iter();
    for figure in shown.filter(|figure| arguments.wants(figure.test())) {
        let cells = kinds.iter().map(|kind| cell(results, *kind, figure));
        let names = [figure.label().to_owned(), figure.unit().to_owned()];
        rows.push(names.into_iter().chain(cells).collect());
    }
    aligned(&rows, 2)
}

fn cell(results: &Results, kind: Kind, figure: Figure) -> String {
    let Some(median) = results.median(kind, figure) else {
        return "-".to_owned();
    };
    let ratio = (kind != Kind::Gatereeve)
        .then(|| results.ratio(figure, Kind::Gatereeve, kind))
        .flatten();
    match ratio {
        Some(ratio) => format!("{} ({:.2}x)", digits(median), ratio.median),
        None => digits(median),
    }
}

fn marks(results: &Results, arguments: &Arguments) -> String {
    let head = ["metric", "relative to", "solid", "go on to", "measured", ""];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for line in targets::lines(results, arguments.peers) {
        rows.push(vec![
            line.metric.to_owned(),
            line.relative_to,
            line.solid,
            line.further,
            line.measured,
            line.verdict.word().to_owned(),
        ]);
    }
    aligned(&rows, 2)
}

/// A table that reads well as it is, and as Markdown. The first `left` columns are aligned left.
fn aligned(rows: &[Vec<String>], left: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (column, width) in widths.iter().enumerate() {
            let cell = row.get(column).map_or("", String::as_str);
            let _ = if column < left {
                write!(text, "| {cell:<width$} ")
            } else {
                write!(text, "| {cell:>width$} ")
            };
        }
        text.push_str("|\n");
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                let _ = if column < left {
                    write!(text, "|{}", "-".repeat(width + 2))
                } else {
                    write!(text, "|{}:", "-".repeat(width + 1))
                };
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::made;

    #[test]
    fn columns_line_up_and_ratios_are_ours_over_theirs() {
        let programs: &[(Kind, &[f64])] = &[
            (Kind::Gatereeve, &[3000.0, 3300.0, 2700.0]),
            (Kind::WireguardGo, &[600.0, 600.0, 600.0]),
            (Kind::Nebula, &[]),
        ];
        let results = made(Figure::Tcp1, programs);
        let rows: Vec<Vec<String>> = vec![
            vec!["metric".into(), "x".into()],
            vec!["a".into(), "10".into()],
        ];
        assert_eq!(
            aligned(&rows, 1),
            "| metric |  x |\n|--------|---:|\n| a      | 10 |\n"
        );
        assert_eq!(
            cell(&results, Kind::WireguardGo, Figure::Tcp1),
            "600 (5.00x)"
        );
        assert_eq!(cell(&results, Kind::Gatereeve, Figure::Tcp1), "3000");
        assert_eq!(cell(&results, Kind::Nebula, Figure::Tcp1), "-");
    }
}
