//! The plot: one panel per figure, one bar per program, a dot per round.

use std::fmt::Write as _;

use serde_json::Value;

use crate::arguments::{Sessions, Wire};
use crate::figure::{Better, Figure, digits};
use crate::programs::Kind;
use crate::results::{Part, Results};
use crate::statistics::median;

const WIDTH: f64 = 1240.0;
const MARGIN: f64 = 24.0;
const HEAD: f64 = 84.0;
const COLUMNS: usize = 2;
const GAP: f64 = 36.0;
/// Room for the programs' names, and for the values after the bars.
const NAMES: f64 = 128.0;
const VALUES: f64 = 64.0;
const TITLE: f64 = 30.0;
const ROW: f64 = 21.0;
const BAR: f64 = 14.0;
const AXIS: f64 = 44.0;

/// Draws all figures that were asked for, those of one kind of cable after those of the one before.
pub(crate) fn plot(parts: &[Part], machine: &Value) -> String {
    let kinds = parts
        .first()
        .map_or_else(Vec::new, |part| part.results.kinds());
    let figures: Vec<(&Part, Figure)> = parts
        .iter()
        .flat_map(|part| {
            let figures = part.results.figures().into_iter();
            figures.map(move |figure| (part, figure))
        })
        .filter(|(part, figure)| part.arguments.wants(figure.test()))
        .collect();
    let panel = TITLE + ROW * count(kinds.len()) + AXIS;
    let rows = figures.len().div_ceil(COLUMNS);
    let height = HEAD + count(rows) * panel + MARGIN;
    let width = (WIDTH - 2.0 * MARGIN - GAP) / count(COLUMNS);
    let mut drawing = Drawing(String::new());
    drawing.line(&format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\" font-size=\"12\">"
    ));
    drawing.line(&format!(
        "<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>"
    ));
    drawing.text(
        MARGIN,
        34.0,
        "font-size=\"20\" font-weight=\"bold\"",
        "Gatereeve's data path beside others",
    );
    drawing.text(MARGIN, 56.0, "fill=\"#555555\"", &subtitle(parts, machine));
    for (number, (part, figure)) in figures.iter().enumerate() {
        let (column, row) = (number % COLUMNS, number / COLUMNS);
        let place = Place {
            x: MARGIN + count(column) * (width + GAP),
            y: HEAD + count(row) * panel,
            width,
        };
        drawing.panel(part, &kinds, *figure, place);
    }
    drawing.line("</svg>");
    drawing.0
}

fn subtitle(parts: &[Part], machine: &Value) -> String {
    let Some(Part { arguments, .. }) = parts.first() else {
        return String::new();
    };
    let fact = |name: &str| {
        let value = &machine[name];
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let wire = arguments.wire().name();
    let sessions = match arguments.sessions {
        Sessions::One => "",
        Sessions::Each => " · a session each",
    };
    format!(
        "bars: medians of {} interleaved rounds of {} s, dots: rounds · wire offload {wire} · TCP {} · {} × {} · Linux {} · both ends and iperf3 share the cores{sessions}",
        arguments.rounds,
        arguments.secs,
        arguments.congestion(),
        fact("cores"),
        fact("cpu"),
        fact("kernel"),
    )
}

/// Where a panel goes.
#[derive(Clone, Copy)]
struct Place {
    x: f64,
    y: f64,
    width: f64,
}

struct Drawing(String);

impl Drawing {
    fn line(&mut self, line: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{line}");
    }

    fn text(&mut self, x: f64, y: f64, style: &str, text: &str) {
        let text = escaped(text);
        self.line(&format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{text}</text>"
        ));
    }

    fn panel(&mut self, part: &Part, kinds: &[Kind], figure: Figure, place: Place) {
        let results = &part.results;
        let better = match figure.better() {
            Better::Higher => "more is better",
            Better::Lower => "less is better",
        };
        let title = match part.arguments.wire() {
            Wire::On => figure.label().to_owned(),
            other @ (Wire::Gro | Wire::Off) => {
                format!("{}, wire offload {}", figure.label(), other.name())
            }
        };
        self.text(
            place.x,
            place.y + 16.0,
            "font-size=\"14\" font-weight=\"bold\"",
            &title,
        );
        let end = place.x + place.width;
        self.text(
            end,
            place.y + 16.0,
            "fill=\"#777777\" text-anchor=\"end\"",
            better,
        );
        let scale = Scale {
            from: place.x + NAMES,
            length: place.width - NAMES - VALUES,
            most: most(results, kinds, figure),
        };
        let top = place.y + TITLE;
        let bottom = top + ROW * count(kinds.len());
        self.axis(&scale, figure, top, bottom);
        for (number, kind) in kinds.iter().enumerate() {
            let y = top + ROW * count(number);
            self.row(*kind, &results.values(*kind, figure), &scale, (place.x, y));
        }
    }

    fn axis(&mut self, scale: &Scale, figure: Figure, top: f64, bottom: f64) {
        for tick in ticks(scale.most) {
            let x = scale.at(tick);
            self.line(&format!(
                "<line x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#dddddd\"/>",
                bottom + 4.0
            ));
            let style = "font-size=\"11\" fill=\"#555555\" text-anchor=\"middle\"";
            self.text(x, bottom + 16.0, style, &plain(tick));
        }
        let style = "font-size=\"11\" fill=\"#555555\" text-anchor=\"start\"";
        self.text(
            scale.from + scale.length + 14.0,
            bottom + 16.0,
            style,
            figure.unit(),
        );
    }

    fn row(&mut self, kind: Kind, values: &[f64], scale: &Scale, (x, y): (f64, f64)) {
        let middle = y + ROW / 2.0;
        let weight = if kind == Kind::Gatereeve {
            "bold"
        } else {
            "normal"
        };
        let style = format!("text-anchor=\"end\" font-weight=\"{weight}\"");
        self.text(x + NAMES - 8.0, middle + 4.0, &style, kind.name());
        let Some(value) = median(values) else {
            self.text(
                scale.from + 4.0,
                middle + 4.0,
                "fill=\"#999999\"",
                "not measured",
            );
            return;
        };
        let length = scale.at(value.min(scale.most)) - scale.from;
        self.line(&format!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"{BAR}\" fill=\"{}\"/>",
            scale.from,
            middle - BAR / 2.0,
            colour(kind)
        ));
        for round in values.iter().filter(|round| **round <= scale.most) {
            self.line(&format!(
                "<circle cx=\"{:.1}\" cy=\"{middle:.1}\" r=\"2.2\" fill=\"#222222\" fill-opacity=\"0.55\"/>",
                scale.at(*round)
            ));
        }
        let beyond = if value > scale.most { "» " } else { "" };
        let furthest = values.iter().copied().fold(value, f64::max).min(scale.most);
        let after = scale.at(furthest) + 6.0;
        let style = format!("font-weight=\"{weight}\"");
        self.text(
            after,
            middle + 4.0,
            &style,
            &format!("{beyond}{}", digits(value)),
        );
    }
}

struct Scale {
    from: f64,
    length: f64,
    most: f64,
}

impl Scale {
    fn at(&self, value: f64) -> f64 {
        self.from + self.length * value / self.most
    }
}

/// The end of the scale: the longest bar, but not that of the bare cable where it would dwarf all
/// others; such a bar ends at the edge, marked.
fn most(results: &Results, kinds: &[Kind], figure: Figure) -> f64 {
    let longest = |with_cable: bool| {
        kinds
            .iter()
            .filter(|kind| with_cable || **kind != Kind::Veth)
            .flat_map(|kind| results.values(*kind, figure))
            .fold(0.0, f64::max)
    };
    let (all, programs) = (longest(true), longest(false));
    let most = if programs > 0.0 && all > programs * 1.5 {
        programs * 1.15
    } else {
        all
    };
    if most > 0.0 { most } else { 1.0 }
}

/// A handful of round numbers from 0 on.
fn ticks(most: f64) -> Vec<f64> {
    let rough = most / 4.0;
    let power = 10.0_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= rough)
        .unwrap_or(rough);
    (0..8_u8)
        .map(|number| f64::from(number) * step)
        .take_while(|tick| *tick <= most * 1.001)
        .collect()
}

/// A tick's number without zeros that say nothing.
fn plain(tick: f64) -> String {
    let text = format!("{tick:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::Gatereeve | Kind::GatereeveAwsLc => "#d9541e",
        Kind::CeilingNone | Kind::CeilingCipher | Kind::CeilingTunn | Kind::CeilingTunnAvx512 => {
            "#b9c4a0"
        }
        Kind::Veth => "#d5d5d5",
        Kind::WireguardGoNew
        | Kind::WireguardGo
        | Kind::Boringtun
        | Kind::Gotatun
        | Kind::Nebula => "#6f9bc8",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[expect(clippy::cast_precision_loss, reason = "a small count")]
fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::json;

    use super::*;
    use crate::arguments::Arguments;
    use crate::results::tests::made;

    #[test]
    fn ticks_are_round_and_end_within_the_scale() {
        assert_eq!(ticks(4700.0), [0.0, 2000.0, 4000.0]);
        assert_eq!(ticks(1.0), [0.0, 0.25, 0.5, 0.75, 1.0]);
        assert_eq!(plain(0.25), "0.25");
        assert_eq!(plain(2000.0), "2000");
    }

    #[test]
    fn every_program_and_value_is_drawn() {
        let results = made(
            Figure::Tcp1,
            &[
                (Kind::Gatereeve, &[4000.0, 4200.0, 4100.0]),
                (Kind::Nebula, &[900.0]),
                (Kind::Veth, &[40_000.0]),
            ],
        );
        let arguments = Arguments::parse_from(["bench-dataplane"]);
        let parts: Vec<Part> = arguments
            .by_wire()
            .into_iter()
            .map(|arguments| Part {
                arguments,
                results: results.clone(),
            })
            .collect();
        let drawing = plot(&parts, &json!({ "cpu": "A & B", "cores": 2 }));
        for wanted in [
            "gatereeve",
            "nebula",
            "4100",
            "900",
            "» 40000",
            "Mbit/s",
            "A &amp; B",
            "TCP, 1 stream<",
            "TCP, 1 stream, wire offload off",
        ] {
            assert!(drawing.contains(wanted), "{wanted} is missing");
        }
        assert_eq!(drawing.matches("<circle").count(), 2 * 4);
        assert!(drawing.starts_with("<svg") && drawing.ends_with("</svg>\n"));
    }
}
