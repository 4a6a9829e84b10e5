//! The command line. Every command but `daemon` is a question or a change sent to the daemon's socket.
//!
//! Answers go to standard output, as a table or with `--json` as one object; progress and errors go to
//! standard error. Nothing prompts.

pub mod bug_report;
mod client;
mod collect;
mod flows;
mod join;
mod log_level;
mod manual;
pub mod output;
mod repair;
pub mod target;

use gatereeve_runtime::words::in_words;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use gatereeve_client_core::api::{LocalReply, LocalRequest};
use gatereeve_manual::Shell;
use gatereeve_shared::text::printable;

pub use collect::CollectArgs;

use output::Printer;

const EXAMPLES: &str = "\
Examples:
  gatereeve join gatereeve-invite-1.…      take part in a network, with an invite
  gatereeve join - < invite.txt            the same, with the invite kept off the command line
  gatereeve join controller.example.com:8443 --key FINGERPRINT
                                           ask to take part, and wait for an administrator
  gatereeve status                         how it goes
  gatereeve peers                          whom this device may reach, and who may reach it
  gatereeve flows                          what passes, with whom and through which rule
  gatereeve why web:22                     may I reach it, through which rule, or what is missing
  gatereeve ping web -c 3                  round trips through the tunnel

Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 no such thing, 5 conflict,
6 the daemon or the controller cannot be reached.";

/// The Gatereeve client: a device's part in a zero-trust WireGuard overlay.
#[derive(Debug, Parser)]
#[command(name = "gatereeve", version, about, after_help = EXAMPLES)]
pub struct Cli {
    /// The daemon's socket.
    #[arg(
        long,
        global = true,
        env = "GATEREEVE_SOCKET",
        value_name = "PATH",
        default_value = "/run/gatereeve/gatereeve.sock"
    )]
    pub socket: PathBuf,
    /// Print one JSON object instead of a table.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service in the foreground.
    #[command(after_help = "Example: gatereeve daemon --listen 51840\n\n\
        Settings stand in CONFIG_DIR/client.toml: listen, tun, operator, operator_group, offload, cipher, names, search, sandbox. \
        For listen and tun the environment (GATEREEVE_LISTEN, GATEREEVE_TUN) goes over the file, and the flag over both.")]
    Daemon(DaemonArgs),
    /// Become a device of a network.
    #[command(
        after_help = "Examples:\n  gatereeve join gatereeve-invite-1.…\n  gatereeve join - < invite.txt\n  \
        gatereeve join controller.example.com:8443 --key FINGERPRINT"
    )]
    Join(JoinArgs),
    /// Leave the network and forget its keys.
    Leave,
    /// Take part.
    Up,
    /// Stop taking part, until `up`; holds over restarts.
    Down,
    /// How it goes: session, addresses, failing posture checks, warnings.
    Status,
    /// The peers of this device, and the rules between.
    Peers,
    /// The flows between this device and its peers: who, through which rule, and how much.
    #[command(after_help = flows::EXAMPLES)]
    Flows {
        /// Name, device ID or overlay address; without one, those of all peers.
        peer: Option<String>,
        /// How many to list, of those that have carried the most.
        #[arg(short = 'n', long, value_name = "COUNT", default_value_t = flows::USUAL, value_parser = clap::value_parser!(u32).range(0..=1_000))]
        limit: u32,
    },
    /// Send echo requests to a peer through the tunnel.
    #[command(after_help = "Example: gatereeve ping web -c 3")]
    Ping {
        /// Name, device ID or overlay address.
        peer: String,
        /// How many requests, a second apart at most.
        #[arg(short = 'c', long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
        count: u32,
    },
    /// May a destination be reached, through which rule, or what is missing?
    #[command(
        after_help = "Examples:\n  gatereeve why web\n  gatereeve why web:22\n  gatereeve why web:udp:53\n  gatereeve why web:icmp\n  \
        gatereeve why [fd00::1]:tcp:443"
    )]
    Why {
        /// PEER (is anything allowed?), PEER:PORT, PEER:tcp:PORT, PEER:udp:PORT or PEER:icmp.
        #[arg(value_name = "PEER[:PORT]", value_parser = target::Target::parse)]
        target: target::Target,
    },
    /// What this device reports of itself, and how it does on the checks.
    Posture,
    /// Which device and user is behind an overlay address.
    #[command(
        after_help = "Examples:\n  gatereeve whois 100.64.0.7\n  gatereeve whois 100.64.0.7:51234"
    )]
    Whois {
        /// The address; a port behind it is ignored.
        #[arg(value_name = "ADDRESS[:PORT]", value_parser = target::parse_address)]
        address: IpAddr,
    },
    /// Show what of ours is on this host (rules, routes, what is unreachable on purpose), mend it or remove it.
    #[command(after_help = repair::EXAMPLES)]
    Repair(RepairArgs),
    /// Show or switch what the daemon logs.
    #[command(
        after_help = "Examples:\n  gatereeve log-level\n  gatereeve log-level debug\n  \
        gatereeve log-level info,gatereeve_client::control=trace\n  gatereeve log-level configured\n\n\
        It holds until the next switch or restart. Only root and the daemon's own user may."
    )]
    LogLevel {
        /// A level (error, warn, info, debug, trace, off), directives, or `configured`.
        #[arg(value_name = "LEVEL|FILTER")]
        filter: Option<String>,
    },
    /// Collect what helps to find a bug, without secrets, names and addresses.
    #[command(
        after_help = "Examples:\n  gatereeve bug-report\n  gatereeve bug-report report.txt\n  \
        gatereeve bug-report - | less\n\n\
        In it: versions, machine and limits, the status in numbers, the last warnings, the configuration \
        without comments, names and sizes of the state's files. Read it before you send it."
    )]
    BugReport(bug_report::BugReportArgs),
    /// Print what makes a shell complete this command line.
    #[command(after_help = manual::COMPLETIONS)]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the man pages: what packages are built with.
    #[command(hide = true)]
    Man {
        /// The directory for them.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Collect posture and print it as JSON: the daemon's helper process.
    #[command(hide = true)]
    CollectPosture(CollectArgs),
    /// Do what the confined daemon cannot: its helper process.
    #[command(hide = true)]
    Helper {
        /// Holds `facts.d`.
        #[arg(long, default_value = "/etc/gatereeve")]
        config_dir: PathBuf,
        /// Answer one question, and end: what the helper process starts.
        #[arg(long)]
        answer: bool,
    },
}

/// The daemon's directories.
#[derive(Clone, Debug, Args)]
pub struct DirArgs {
    /// The daemon's state: identity, keys and the last map.
    #[arg(
        long,
        env = "GATEREEVE_STATE_DIR",
        value_name = "DIR",
        default_value = "/var/lib/gatereeve"
    )]
    pub state_dir: PathBuf,
    /// Where `client.toml` and `facts.d/` are.
    #[arg(
        long,
        env = "GATEREEVE_CONFIG_DIR",
        value_name = "DIR",
        default_value = "/etc/gatereeve"
    )]
    pub config_dir: PathBuf,
}

/// Where the daemon keeps and finds its things.
#[derive(Clone, Debug, Args)]
pub struct DaemonArgs {
    /// Where its files are.
    #[command(flatten)]
    pub dirs: DirArgs,
    /// The TUN interface to make [default: gatereeve0].
    #[arg(long, env = "GATEREEVE_TUN", value_name = "NAME")]
    pub tun: Option<String>,
    /// Where the WireGuard socket listens: a port, or an address and a port [default: 51840].
    #[arg(long, env = "GATEREEVE_LISTEN", value_name = "PORT|ADDR:PORT")]
    pub listen: Option<String>,
    /// The posture collector's socket; without one there, the daemon's helper collects.
    #[arg(
        long,
        env = "GATEREEVE_POSTURE_SOCKET",
        value_name = "PATH",
        default_value = "/run/gatereeve-posture/collect.sock"
    )]
    pub posture_socket: PathBuf,
    /// Log as JSON lines.
    #[arg(long, env = "GATEREEVE_LOG_JSON")]
    pub log_json: bool,
}

/// What to do about what is on the host.
#[derive(Clone, Debug, Args)]
pub struct RepairArgs {
    /// Put right what differs from what it should be; changes nothing that is as it should be.
    #[arg(long, conflicts_with = "remove")]
    pub apply: bool,
    /// Remove every rule and route of ours, what is unreachable on purpose included.
    #[arg(long)]
    pub remove: bool,
    /// Those of every daemon on this host, not of the interface `--tun` alone; for purging.
    #[arg(long, requires = "remove")]
    pub all: bool,
    /// Although a daemon runs, such as one that hangs; one that does not puts them back.
    #[arg(long, requires = "remove")]
    pub force: bool,
    /// The daemon's files: they tell whether the device is to take part, and by which interface.
    #[command(flatten)]
    pub dirs: DirArgs,
    /// The daemon's TUN interface [default: the one in client.toml, or gatereeve0].
    #[arg(long, env = "GATEREEVE_TUN", value_name = "NAME")]
    pub tun: Option<String>,
}

/// How to join.
#[derive(Clone, Debug, Args)]
pub struct JoinArgs {
    /// An invite, `-` to read it from standard input, or the controller's HOST:PORT with `--key`.
    #[arg(value_name = "INVITE|-|HOST:PORT")]
    pub target: String,
    /// The network key's fingerprint, as the administrator told it; without an invite.
    #[arg(long, value_name = "FINGERPRINT")]
    pub key: Option<String>,
    /// Return as soon as the daemon has taken the request.
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait until the device takes part.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    pub timeout: std::time::Duration,
}

/// Why a command did not do what it should, with its exit status.
#[derive(Debug)]
pub struct Failure {
    /// One of the codes that `--help` lists.
    pub status: u8,
    /// What failed, why, and what to do next.
    pub message: String,
}

/// Runs the program with `arguments`, the first of which is its own name.
pub fn main_with<I, T>(arguments: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            return match error.print() {
                Ok(()) => ExitCode::from(code),
                Err(_) => ExitCode::FAILURE,
            };
        }
    };
    let mut printer = Printer::new(cli.json);
    match run(cli, &mut printer) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            printer.error(&failure.message);
            ExitCode::from(failure.status)
        }
    }
}

fn run(cli: Cli, printer: &mut Printer) -> Result<u8, Failure> {
    let request = match cli.command {
        Command::Daemon(arguments) => {
            return crate::daemon::run(&arguments, cli.socket).map(|()| 0);
        }
        Command::CollectPosture(arguments) => return collect::run(&arguments, printer),
        Command::Helper { config_dir, answer } => {
            let done = if answer {
                crate::helper::answer_one(&config_dir)
            } else {
                crate::helper::serve(&config_dir)
            };
            return done.map(|()| 0).map_err(|error| Failure::failed(&error));
        }
        Command::LogLevel { filter } => return log_level::run(&cli.socket, filter, printer),
        Command::BugReport(arguments) => return bug_report::run(&cli.socket, &arguments, printer),
        Command::Completions { shell } => return manual::print_completions(shell, printer),
        Command::Man { out } => return manual::write_pages(&out),
        Command::Join(arguments) => return join::run(&cli.socket, &arguments, printer),
        Command::Repair(arguments) => return repair::run(&cli.socket, &arguments, printer),
        Command::Leave => LocalRequest::Leave,
        Command::Up => LocalRequest::Up,
        Command::Down => LocalRequest::Down,
        Command::Status => LocalRequest::Status,
        Command::Peers => LocalRequest::Peers,
        Command::Flows { peer, limit } => LocalRequest::Flows { peer, limit },
        Command::Ping { peer, count } => LocalRequest::Ping { peer, count },
        Command::Why { target } => LocalRequest::Why {
            peer: target.peer,
            protocol: target.protocol,
            port: target.port,
        },
        Command::Posture => LocalRequest::Posture,
        Command::Whois { address } => LocalRequest::Whois { address },
    };
    let reply = match client::ask(&cli.socket, &request) {
        Err(failure) if failure.status == 6 && request == LocalRequest::Status => {
            repair::show_without_daemon(printer)?;
            return Err(failure);
        }
        answered => answered?,
    };
    printer.reply(&reply)?;
    Ok(status_of(&reply))
}

/// A ping that nobody answered failed; everything else that was answered is done.
fn status_of(reply: &LocalReply) -> u8 {
    match reply {
        LocalReply::Pinged { round_trips_ms, .. } => u8::from(round_trips_ms.is_empty()),
        LocalReply::Status(_)
        | LocalReply::Peers { .. }
        | LocalReply::Flows { .. }
        | LocalReply::Why(_)
        | LocalReply::Posture { .. }
        | LocalReply::Whois { .. }
        | LocalReply::Repair(_)
        | LocalReply::Done { .. } => 0,
    }
}

impl Failure {
    /// The command failed, with nothing more to tell about the kind.
    #[must_use]
    pub fn failed(error: &anyhow::Error) -> Self {
        Self {
            status: 1,
            message: printable(&in_words(error)),
        }
    }
}

#[cfg(test)]
mod tests;
