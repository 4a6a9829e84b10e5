//! The command line: one variant per noun, and one way in for the binary and for tests.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};
use gatereeve_manual::Shell;
use gatereeve_runtime::exit::ExitStatus;

use crate::config::{Config, Overrides};
use output::{Printer, Streams};

mod ask;
mod audit;
mod backup;
mod bug_report;
mod device;
mod doctor;
pub mod failure;
mod init;
mod invite;
mod log_level;
mod manual;
pub mod output;
mod policy;
mod posture;
mod render;
mod restore;
mod serve;
mod status;
mod upgrade;

use failure::Failure;

const EXAMPLES: &str = "\
Examples:
  gatereeve-controller init --name example --advertise vpn.example.com:8443
  gatereeve-controller serve
  gatereeve-controller invite create --tag web
  gatereeve-controller policy apply policy.toml --wait
  gatereeve-controller policy explain laptop web tcp:22

Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 no such thing, 5 conflict,
6 the controller cannot be reached, 7 committed but not confirmed by every device.";

/// Coordination server of a Gatereeve network, and its admin command line.
#[derive(Debug, Parser)]
#[command(name = "gatereeve-controller", version, after_help = EXAMPLES, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Args)]
struct Global {
    /// Directory of keys, journal and tables [default: /var/lib/gatereeve-controller]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "GATEREEVE_CONTROLLER_STATE_DIR"
    )]
    state_dir: Option<PathBuf>,
    /// Admin socket [default: /run/gatereeve-controller/admin.sock]
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "GATEREEVE_CONTROLLER_SOCKET"
    )]
    socket: Option<PathBuf>,
    /// Configuration file [default: /etc/gatereeve/controller.toml]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "GATEREEVE_CONTROLLER_CONFIG"
    )]
    config: Option<PathBuf>,
    /// Print one JSON object for machines
    #[arg(long, global = true, action = ArgAction::SetTrue)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a network: its keys, its addresses, an empty state
    Init(init::InitArgs),
    /// Run the controller
    Serve(serve::ServeArgs),
    /// What the controller is doing
    Status,
    /// Let devices enroll
    #[command(subcommand)]
    Invite(invite::InviteVerb),
    /// The devices of the network
    #[command(subcommand)]
    Device(device::DeviceVerb),
    /// Who may reach what
    #[command(subcommand)]
    Policy(policy::PolicyVerb),
    /// What devices report of themselves
    #[command(subcommand)]
    Posture(posture::PostureVerb),
    /// What happened, and proof that nobody changed the record of it
    #[command(subcommand)]
    Audit(audit::AuditVerb),
    /// Write the whole state to one file, also while the controller runs
    Backup(backup::BackupArgs),
    /// Make a state directory from a backup
    Restore(restore::RestoreArgs),
    /// What this version would make of the state
    #[command(subcommand)]
    Upgrade(upgrade::UpgradeVerb),
    /// Whether all is well, and what to do where it is not
    Doctor(doctor::DoctorArgs),
    /// Show or switch what a running controller logs
    LogLevel(log_level::LogLevelArgs),
    /// Collect what helps to find a bug, without secrets, names and addresses
    BugReport(bug_report::BugReportArgs),
    /// Print what makes a shell complete this command line
    #[command(after_help = manual::COMPLETIONS)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the man pages: what packages are built with
    #[command(hide = true)]
    Man {
        /// The directory for them
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// Runs one command line; what it prints goes to `streams`.
pub fn main_with(args: impl IntoIterator<Item = OsString>, streams: &mut Streams) -> ExitStatus {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return streams.usage(&error),
    };
    let mut printer = Printer::new(streams, cli.global.json);
    match run(cli, &mut printer) {
        Ok(status) => status,
        Err(failure) => printer.failure(&failure),
    }
}

fn run(cli: Cli, printer: &mut Printer<'_>) -> Result<ExitStatus, Failure> {
    let overrides = Overrides {
        config: cli.global.config,
        state_dir: cli.global.state_dir,
        socket: cli.global.socket,
    };
    let file = overrides.config.clone();
    let config = Config::load(overrides);
    match cli.verb {
        // These two have something to say about a configuration that is not understood.
        Verb::Doctor(_) => doctor::run(&config, printer),
        Verb::BugReport(args) => bug_report::run(args, file, &config, printer),
        Verb::Init(args) => init::run(args, &config?, printer),
        Verb::Serve(args) => serve::run(args, config?, printer),
        Verb::Status => status::run(&config?, printer),
        Verb::Invite(verb) => invite::run(verb, &config?, printer),
        Verb::Device(verb) => device::run(verb, &config?, printer),
        Verb::Policy(verb) => policy::run(verb, &config?, printer),
        Verb::Posture(verb) => posture::run(verb, &config?, printer),
        Verb::Audit(verb) => audit::run(verb, &config?, printer),
        Verb::Backup(args) => backup::run(&args, &config?, printer),
        Verb::Restore(args) => restore::run(&args, &config?, printer),
        Verb::Upgrade(verb) => upgrade::run(verb, &config?, printer),
        Verb::LogLevel(args) => log_level::run(args, &config?, printer),
        Verb::Completions { shell } => manual::print_completions(shell, printer),
        Verb::Man { out } => manual::write_pages(&out),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_tree_of_commands_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wait_takes_a_time_or_none() {
        let wait = |flag: &str| {
            let args = ["gatereeve-controller", "device", "revoke", "x", flag];
            let Verb::Device(device::DeviceVerb::Revoke(revoke)) =
                Cli::try_parse_from(args).unwrap().verb
            else {
                panic!("another verb");
            };
            revoke.wait.millis()
        };
        assert_eq!(wait("--wait"), Some(30_000));
        assert_eq!(wait("--wait=2s"), Some(2_000));
        assert_eq!(wait("--json"), None);
        for bad in ["--wait=x", "--wait=2h"] {
            assert!(
                Cli::try_parse_from(["gatereeve-controller", "device", "delete", "x", bad])
                    .is_err()
            );
        }
    }
}
