//! `policy check | plan | apply | show | history | rollback | test | explain | reach`

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use gatereeve_controller_core::command::{Command, PlanView, Reply};
use gatereeve_runtime::exit::ExitStatus;
use gatereeve_shared::policy::port::PortSpec;

use super::ask::{self, WaitArgs};
use super::failure::Failure;
use super::output::Printer;
use crate::config::Config;

/// Largest policy file, in bytes: as JSON it must fit the admin socket's 1 MiB.
const LIMIT: u64 = 900 * 1024;

const APPLY_EXAMPLES: &str = "\
Examples:
  gatereeve-controller policy plan policy.toml
  gatereeve-controller policy apply policy.toml --wait
  gatereeve-controller policy apply policy.toml --if-generation 41 --wait=10s

`policy plan` shows the revision in force for --if-generation. A policy that does not parse,
names what nobody knows or fails one of its own tests changes nothing.";

#[derive(Debug, Subcommand)]
pub(super) enum PolicyVerb {
    /// Check a policy file and run its tests
    Check(FileArg),
    /// What a policy would open and close
    Plan(FileArg),
    /// Put a policy in force
    #[command(after_help = APPLY_EXAMPLES)]
    Apply(ApplyArgs),
    /// The policy in force, or an earlier revision
    Show {
        /// Which revision; the one in force if absent
        revision: Option<u64>,
    },
    /// All revisions, newest first
    History,
    /// Put an earlier revision in force, as a new one
    Rollback {
        /// Which revision
        revision: u64,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Run the tests of the policy in force
    Test,
    /// Whether and why one device reaches another
    #[command(after_help = "Example:\n  gatereeve-controller policy explain laptop web tcp:22")]
    Explain {
        /// Source: name, device ID or overlay address
        src: String,
        /// Destination
        dst: String,
        /// Protocol and port: tcp:22, udp:53 or icmp
        port: PortSpec,
    },
    /// All that a device can reach, directly and through others
    Reach {
        /// Name, device ID or overlay address
        device: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct FileArg {
    /// The policy file; `-` for standard input
    file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    /// The policy file; `-` for standard input
    file: PathBuf,
    /// Refuse (exit status 5) unless this revision is in force
    #[arg(long, value_name = "REVISION")]
    if_generation: Option<u64>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// A policy file and its name.
struct Source {
    name: String,
    text: String,
}

impl Source {
    fn read(path: &Path) -> Result<Self, Failure> {
        let usage = |message: String| Failure::new(ExitStatus::USAGE, message);
        let is_stdin = path == Path::new("-");
        let name = if is_stdin {
            "standard input".to_owned()
        } else {
            path.display().to_string()
        };
        let mut bytes = Vec::new();
        let take = LIMIT.saturating_add(1);
        let read = if is_stdin {
            std::io::stdin().take(take).read_to_end(&mut bytes)
        } else {
            std::fs::File::open(path).and_then(|file| file.take(take).read_to_end(&mut bytes))
        };
        read.map_err(|error| usage(format!("cannot read {name}: {error}")))?;
        if bytes.len() as u64 > LIMIT {
            return Err(usage(format!("{name} is larger than {LIMIT} bytes")));
        }
        let text = String::from_utf8(bytes)
            .map_err(|error| usage(format!("{name} is not UTF-8 text: {error}")))?;
        Ok(Self { name, text })
    }

    /// Asks, and shows problems and warnings where they are in the file.
    fn ask(
        &self,
        config: &Config,
        command: Command,
        wait: Option<u64>,
        printer: &mut Printer<'_>,
    ) -> Result<ExitStatus, Failure> {
        let reply = ask::ask(config, command, wait)
            .map_err(|failure| failure.in_file(&self.name, &self.text))?;
        let warnings = if let Reply::PolicyChecked { warnings, .. }
        | Reply::Plan(PlanView { warnings, .. }) = &reply
        {
            warnings.as_slice()
        } else {
            &[]
        };
        if !warnings.is_empty() && !printer.is_json() {
            printer.problems(warnings, &self.text, &self.name);
        }
        ask::print(&reply, printer)
    }
}

pub(super) fn run(
    verb: PolicyVerb,
    config: &Config,
    printer: &mut Printer<'_>,
) -> Result<ExitStatus, Failure> {
    let command = match verb {
        PolicyVerb::Check(FileArg { file }) => {
            let source = Source::read(&file)?;
            let text = source.text.clone();
            return source.ask(config, Command::PolicyCheck { text }, None, printer);
        }
        PolicyVerb::Plan(FileArg { file }) => {
            let source = Source::read(&file)?;
            let text = source.text.clone();
            return source.ask(config, Command::PolicyPlan { text }, None, printer);
        }
        PolicyVerb::Apply(args) => {
            let source = Source::read(&args.file)?;
            let command = Command::PolicyApply {
                text: source.text.clone(),
                if_generation: args.if_generation,
            };
            return source.ask(config, command, args.wait.millis(), printer);
        }
        PolicyVerb::Rollback { revision, wait } => {
            return ask::change(config, Command::PolicyRollback { revision }, wait, printer);
        }
        PolicyVerb::Show { revision } => Command::PolicyShow { revision },
        PolicyVerb::History => Command::PolicyHistory,
        PolicyVerb::Test => Command::PolicyTest,
        PolicyVerb::Explain { src, dst, port } => Command::PolicyExplain { src, dst, port },
        PolicyVerb::Reach { device } => Command::PolicyReach { device },
    };
    ask::show(config, command, printer)
}
