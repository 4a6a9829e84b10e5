//! Problems of a policy file, drawn into the lines they are about.

use std::fmt;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity,
    SourceCode,
};

use crate::command::PolicyProblem;

/// Columns that a report is wrapped to.
const WIDTH: usize = 100;

/// The problems with their source lines, carets and suggestions, as a terminal shows them.
///
/// `text` is the file that they are about; `color` asks for ANSI colors.
#[must_use]
pub fn render(problems: &[PolicyProblem], text: &str, file_name: &str, color: bool) -> String {
    let theme = if color {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(WIDTH)
        .with_links(false)
        .with_context_lines(1);
    let source = NamedSource::new(file_name, harmless(text));
    let mut drawn = String::new();
    for problem in problems {
        let shown = Shown {
            problem,
            source: &source,
            len: text.len(),
        };
        if handler.render_report(&mut drawn, &shown).is_err() {
            // Without the picture, the words still say where and what.
            let (line, column) = (problem.line, problem.column);
            drawn.push_str(&format!("{file_name}:{line}:{column}: {shown}\n"));
        }
    }
    drawn
}

/// The text with what could drive a terminal replaced byte by byte, so that spans keep their meaning.
fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_ascii_control() && c != '\n' && c != '\t' && c != '\r' {
                '?'
            } else {
                c
            }
        })
        .collect()
}

#[derive(Debug)]
struct Shown<'a> {
    problem: &'a PolicyProblem,
    source: &'a NamedSource<String>,
    len: usize,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn severity(&self) -> Option<Severity> {
        Some(if self.problem.is_warning {
            Severity::Warning
        } else {
            Severity::Error
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let help = self.problem.help.as_ref()?;
        Some(Box::new(help))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        (self.len > 0).then_some(self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let (start, len) = self.problem.span;
        let start = start.min(self.len);
        let len = len.min(self.len - start);
        let label = LabeledSpan::new(Some("here".to_owned()), start, len);
        Some(Box::new(std::iter::once(label)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::policy::Policy;

    #[test]
    fn a_problem_shows_line_column_caret_and_suggestion() {
        let text = "version = 1\n\n[[allow]]\nid = \"a\"\nfrom = [\"*\"]\nto = [\"*\"]\nprots = [\"tcp:22\"]\nports = [\"tcp:22\"]\n";
        let problems = Policy::parse(text, &BTreeMap::new()).unwrap_err();
        let drawn = render(&problems, text, "policy.toml", false);
        assert!(drawn.contains("a rule has no key `prots`"), "{drawn}");
        assert!(drawn.contains("policy.toml:7:1"), "{drawn}");
        assert!(drawn.contains("prots = [\"tcp:22\"]"), "{drawn}");
        assert!(drawn.contains("did you mean `ports`?"), "{drawn}");
        assert!(!drawn.contains('\u{1b}'), "{drawn}");
        assert!(render(&problems, text, "policy.toml", true).contains('\u{1b}'));
    }

    #[test]
    fn places_outside_of_the_text_are_drawn_all_the_same() {
        let problem = PolicyProblem {
            line: 9,
            column: 9,
            span: (900, 100),
            message: "odd".into(),
            help: None,
            is_warning: true,
        };
        for text in ["", "x", "a\u{e9}\n"] {
            let drawn = render(std::slice::from_ref(&problem), text, "p", false);
            assert!(drawn.contains("odd"), "{drawn}");
        }
    }

    #[test]
    fn the_file_cannot_drive_the_terminal() {
        let text = "a = \"\u{1b}[31m\"\n";
        let problems = Policy::parse(text, &BTreeMap::new()).unwrap_err();
        assert!(!render(&problems, text, "p", false).contains('\u{1b}'));
    }
}
