//! Everything, for machines.

use serde_json::{Value, json};

use crate::programs::{Kind, Program};
use crate::results::{Part, Results, Turn};
use crate::statistics::Spread;
use crate::together::{Together, together};
use crate::{figure::Figure, targets};

/// The whole session: the machine, what was asked for, every turn with its raw values, and what
/// follows from them.
/// With more than one kind of cable, what belongs to the first is at the top, and the others are below
/// `other_wires`.
pub(crate) fn document(machine: &Value, programs: &[Program], parts: &[Part]) -> Value {
    let mut parts = parts.iter();
    let mut document = parts.next().map_or_else(|| json!({}), of_part);
    document["machine"] = machine.clone();
    document["programs"] = programs
        .iter()
        .map(|program| json!({ "name": program.kind.name(), "version": program.version }))
        .collect();
    document["other_wires"] = parts
        .map(|part| {
            let mut document = of_part(part);
            // The marks are for the first.
            document.as_object_mut().map(|part| part.remove("targets"));
            document
        })
        .collect();
    document
}

fn of_part(Part { arguments, results }: &Part) -> Value {
    let kinds = results.kinds();
    json!({
        "arguments": {
            "rounds": arguments.rounds,
            "secs": arguments.secs,
            "probe_secs": arguments.probe_secs,
            "wire": arguments.wire().name(),
            "congestion": arguments.congestion(),
            "ipv6": arguments.ipv6,
            "sessions": format!("{:?}", arguments.sessions).to_lowercase(),
            "peers": arguments.peers,
            "tests": arguments.tests.iter().map(|test| test.name()).collect::<Vec<_>>(),
        },
        "medians": kinds
            .iter()
            .map(|kind| (kind.name().to_owned(), results.medians(*kind)))
            .collect::<serde_json::Map<_, _>>(),
        "ratios_of_gatereeve": kinds
            .iter()
            .filter(|kind| **kind != Kind::Gatereeve)
            .map(|kind| (kind.name().to_owned(), ratios(results, *kind)))
            .collect::<serde_json::Map<_, _>>(),
        "targets": targets::lines(results, arguments.peers)
            .into_iter()
            .map(|line| json!({
                "metric": line.metric,
                "relative_to": line.relative_to,
                "solid": line.solid,
                "go_on_to": line.further,
                "measured": line.measured,
                "verdict": line.verdict.word(),
            }))
            .collect::<Vec<_>>(),
        "turns": results.turns.iter().map(turn).collect::<Vec<_>>(),
    })
}

fn ratios(results: &Results, to: Kind) -> Value {
    let ratios = results.figures().into_iter().filter_map(|figure: Figure| {
        let Spread {
            median,
            least,
            most,
        } = results.ratio(figure, Kind::Gatereeve, to)?;
        let mut shown = json!({ "median": median, "least": least, "most": most });
        if let Some(Together { ratio, low, high }) = together(results, figure, Kind::Gatereeve, to)
        {
            shown["together"] = json!({ "ratio": ratio, "low": low, "high": high });
        }
        Some((figure.id().to_owned(), shown))
    });
    Value::Object(ratios.collect())
}

fn turn(turn: &Turn) -> Value {
    let figures = turn.record.figures.iter();
    json!({
        "round": turn.round,
        "program": turn.kind.name(),
        "figures": figures
            .map(|(figure, value)| (figure.id().to_owned(), json!(value)))
            .collect::<serde_json::Map<_, _>>(),
        "raw": turn.record.raw,
        "failures": turn.record.failures,
        "busy_before_percent": turn.busy_before,
        "seconds": turn.took.as_secs_f64(),
    })
}
