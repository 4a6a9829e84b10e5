//! The text under a command's help as sections of a page: examples stay as they are typed, the rest is
//! filled.

use clap_mangen::roff::{Roff, roman};

/// Turns `text` into sections: indented lines are verbatim, `Example:` and `Exit status:` begin
/// sections of their own, and everything else is notes.
pub(crate) fn render(text: &str) -> String {
    let mut page = Page::default();
    for line in text.lines() {
        page.line(line);
    }
    page.end_verbatim();
    page.roff.to_roff()
}

#[derive(Default)]
struct Page {
    roff: Roff,
    section: Option<&'static str>,
    is_verbatim: bool,
}

impl Page {
    fn line(&mut self, line: &str) {
        let text = line.trim();
        if text.is_empty() {
            self.end_verbatim();
            if self.section == Some("EXAMPLES") {
                self.section = None;
            } else {
                self.roff.control("PP", []);
            }
        } else if let Some(rest) = begins_examples(text) {
            self.begin("EXAMPLES");
            if !rest.is_empty() {
                self.verbatim(rest);
            }
        } else if let Some(rest) = text.strip_prefix("Exit status:") {
            self.begin("EXIT STATUS");
            self.roff.text([roman(rest.trim())]);
        } else {
            if self.section.is_none() {
                self.begin("NOTES");
            }
            if line.starts_with(' ') {
                self.verbatim(line.strip_prefix("  ").unwrap_or(text));
            } else {
                self.end_verbatim();
                self.roff.text([roman(text)]);
            }
        }
    }

    fn begin(&mut self, section: &'static str) {
        self.end_verbatim();
        self.roff.control("SH", [section]);
        self.section = Some(section);
    }

    fn verbatim(&mut self, line: &str) {
        if !self.is_verbatim {
            self.roff.control("nf", []);
            self.is_verbatim = true;
        }
        self.roff.text([roman(line)]);
    }

    fn end_verbatim(&mut self) {
        if self.is_verbatim {
            self.roff.control("fi", []);
            self.is_verbatim = false;
        }
    }
}

/// What stands behind `Example:` or `Examples:`.
fn begins_examples(text: &str) -> Option<&str> {
    ["Examples:", "Example:"]
        .iter()
        .find_map(|heading| text.strip_prefix(heading))
        .map(str::trim)
}
