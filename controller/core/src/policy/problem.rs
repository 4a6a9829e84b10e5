//! Problems of a policy file, each with its place in it.

use std::ops::Range;

use crate::command::PolicyProblem;

use super::suggest;

/// Problems reported for one file; what comes behind them would bury the first ones.
const PROBLEMS: usize = 50;

/// Collects what is wrong with one file.
#[derive(Debug)]
pub(super) struct Problems<'t> {
    text: &'t str,
    /// Byte at which each line begins.
    lines: Vec<usize>,
    found: Vec<PolicyProblem>,
    errors: usize,
    left_out: usize,
}

impl<'t> Problems<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let mut lines = vec![0];
        lines.extend(newlines.map(|(at, _)| at + 1));
        Self {
            text,
            lines,
            found: Vec::new(),
            errors: 0,
            left_out: 0,
        }
    }

    /// The line of a byte, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|begin| *begin <= at).max(1)
    }

    /// Reports an error.
    pub(super) fn error(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        self.errors += 1;
        self.add(span, message.into(), help, false);
    }

    /// Reports an error about `word`, which is none of `known`; the nearest one is suggested.
    pub(super) fn unknown<'k>(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        word: &str,
        known: impl IntoIterator<Item = &'k str>,
        otherwise: Option<String>,
    ) {
        // The search is skipped for problems that nobody sees.
        let nearest = if self.found.len() < PROBLEMS {
            suggest::nearest(word, known)
        } else {
            None
        };
        let help = nearest
            .map(|name| format!("did you mean `{name}`?"))
            .or(otherwise);
        self.error(span, message, help);
    }

    /// Reports something that lets the file pass.
    pub(super) fn warning(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        self.add(span, message.into(), help, true);
    }

    fn add(&mut self, span: Range<usize>, message: String, help: Option<String>, is_warning: bool) {
        if self.found.len() >= PROBLEMS {
            self.left_out += 1;
            return;
        }
        let start = span.start.min(self.text.len());
        let line = self.line(start);
        let begin = line
            .checked_sub(1)
            .and_then(|index| self.lines.get(index))
            .copied()
            .unwrap_or_default();
        let column = self
            .text
            .get(begin..start)
            .map_or(1, |before| before.chars().count() + 1);
        self.found.push(PolicyProblem {
            line,
            column,
            span: (start, span.end.saturating_sub(start).max(1)),
            message,
            help,
            is_warning,
        });
    }

    /// Whether the file is refused.
    pub(super) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// All problems, in the order of the file; the last says how many were left out.
    pub(super) fn into_sorted(mut self) -> Vec<PolicyProblem> {
        self.found.sort_by_key(|problem| problem.span);
        if self.left_out > 0
            && let Some(last) = self.found.last().cloned()
        {
            self.found.push(PolicyProblem {
                message: format!("and {} more problems", self.left_out),
                help: None,
                ..last
            });
        }
        self.found
    }
}
