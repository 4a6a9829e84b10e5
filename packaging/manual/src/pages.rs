//! One page a command.

use std::io;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::notes;

/// System administration tools and daemons.
const SECTION: &str = "8";

/// A program's manual.
#[derive(Clone, Copy, Debug)]
pub struct Manual<'a> {
    /// Files that the program reads or writes: the path, and what it is.
    pub files: &'a [(&'a str, &'a str)],
    /// Pages of other programs, as `name(section)`.
    pub see_also: &'a [&'a str],
}

impl Manual<'_> {
    /// Writes the pages of `program` and of all its commands that are not hidden into `directory`, and
    /// returns their paths.
    ///
    /// # Errors
    /// Where the directory or a file cannot be written.
    pub fn write(&self, program: Command, directory: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::create_dir_all(directory)?;
        let mut program = program.disable_help_subcommand(true);
        program.build();
        let mut paths = Vec::new();
        self.write_tree(&program, None, directory, &mut paths)?;
        Ok(paths)
    }

    fn write_tree(
        &self,
        command: &Command,
        parent: Option<&str>,
        directory: &Path,
        paths: &mut Vec<PathBuf>,
    ) -> io::Result<()> {
        let path = directory.join(format!("{}.{SECTION}", page_name(command)));
        std::fs::write(&path, self.page(command, parent)?)?;
        paths.push(path);
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            self.write_tree(sub, Some(page_name(command)), directory, paths)?;
        }
        Ok(())
    }

    fn page(&self, command: &Command, parent: Option<&str>) -> io::Result<Vec<u8>> {
        let man = Man::new(command.clone())
            .title(page_name(command).to_uppercase())
            .section(SECTION)
            .source("Gatereeve")
            .manual("Gatereeve manual");
        let mut page = Vec::new();
        man.render_title(&mut page)?;
        man.render_name_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
        if command.get_subcommands().any(|sub| !sub.is_hide_set()) {
            man.render_subcommands_section(&mut page)?;
        }
        let after = command
            .get_after_long_help()
            .or_else(|| command.get_after_help());
        if let Some(after) = after {
            page.extend(notes::render(&after.to_string()).into_bytes());
        }
        self.ending(command, parent).to_writer(&mut page)?;
        Ok(page)
    }

    /// Files, and where to read on.
    fn ending(&self, command: &Command, parent: Option<&str>) -> Roff {
        let mut roff = Roff::new();
        if parent.is_none() && !self.files.is_empty() {
            roff.control("SH", ["FILES"]);
            for (path, what) in self.files {
                roff.control("TP", []);
                roff.text([bold(*path)]);
                roff.text([roman(*what)]);
            }
        }
        let own = parent.map(|parent| format!("{parent}({SECTION})"));
        let others: Vec<String> = if parent.is_none() {
            let subs = command.get_subcommands().filter(|sub| !sub.is_hide_set());
            subs.map(|sub| format!("{}({SECTION})", page_name(sub)))
                .chain(self.see_also.iter().map(ToString::to_string))
                .collect()
        } else {
            Vec::new()
        };
        let all: Vec<String> = own.into_iter().chain(others).collect();
        if !all.is_empty() {
            roff.control("SH", ["SEE ALSO"]);
            roff.text([roman(all.join(", "))]);
        }
        roff
    }
}

/// Such as `gatereeve-join`.
fn page_name(command: &Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}
