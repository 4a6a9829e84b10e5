//! What of ours is on the host: shown, mended, removed; with and without a daemon.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use gatereeve_client_core::api::{LocalReply, LocalRequest, PlaceView, RepairView};

use super::output::{Printer, push_line};
use super::{Failure, RepairArgs, client};
use crate::config;
use crate::daemon::state_dir::wants_to_take_part;
use crate::routes::Place;
use crate::routes::netlink::NetworkThread;
use crate::routes::survey;
use gatereeve_runtime::words::in_words;

pub(super) const EXAMPLES: &str = "\
Without --apply or --remove nothing is changed, and no rights are needed.

Examples:
  gatereeve repair                 what is there
  gatereeve repair --apply         put it right: by the daemon, or, where none runs, remove what nothing needs
  gatereeve repair --remove        remove it all, so that the host is as if we had never been there
  gatereeve repair --remove --all  the same for every daemon on this host

Addresses, the interface and the nftables tables that guard them go with the daemon, however it ends.";

/// How long a daemon may take to show that it is alive.
const ALIVE: Duration = Duration::from_secs(5);

/// Whether a daemon serves the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Daemon {
    Runs,
    /// Somebody holds the socket and does not answer.
    Hangs,
    Absent,
}

pub(super) fn run(
    socket: &Path,
    arguments: &RepairArgs,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let daemon = look_for(socket);
    let changes = if arguments.remove {
        remove(daemon, arguments)?
    } else if arguments.apply {
        if daemon == Daemon::Runs {
            let reply = client::ask(socket, &LocalRequest::Repair)?;
            printer.reply(&reply)?;
            return Ok(0);
        }
        tidy(daemon, arguments)?
    } else {
        Vec::new()
    };
    let view = view(daemon == Daemon::Runs, changes)?;
    printer.reply(&LocalReply::Repair(view))?;
    Ok(0)
}

/// What `status` can tell while nobody answers.
pub(super) fn show_without_daemon(printer: &mut Printer) -> Result<(), Failure> {
    let view = view(false, Vec::new())?;
    printer.reply(&LocalReply::Repair(view))
}

fn look_for(socket: &Path) -> Daemon {
    match client::ask_within(socket, &LocalRequest::Status, ALIVE) {
        Ok(_) => Daemon::Runs,
        // Whoever cannot be talked to may be alive all the same.
        Err(_) if std::os::unix::net::UnixStream::connect(socket).is_ok() => Daemon::Hangs,
        Err(_) => Daemon::Absent,
    }
}

fn remove(daemon: Daemon, arguments: &RepairArgs) -> Result<Vec<String>, Failure> {
    if daemon != Daemon::Absent && !arguments.force {
        return Err(Failure {
            status: 5,
            message: "a daemon runs; `gatereeve down` takes its routes and rules away and keeps them away, or stop it first \
                      (--force removes them under it)"
                .to_owned(),
        });
    }
    // Which one is ours is in the configuration, which need not be understood to take all away.
    let own = (!arguments.all).then(|| place(arguments)).transpose()?;
    let found = survey_now()?;
    let mut places = BTreeSet::new();
    for view in found {
        let Some(at) = Place::of_table(view.table).filter(|at| own.is_none_or(|own| own == *at))
        else {
            continue;
        };
        if let Some(interface) = view.interface.filter(|_| !arguments.force) {
            return Err(Failure {
                status: 5,
                message: format!(
                    "table {} leads into {interface}: another daemon keeps it; stop that one first (its --socket names it), \
                     or --force removes it under that one",
                    view.table
                ),
            });
        }
        places.insert(at);
    }
    delete(places)
}

/// Without a daemon: what is there on purpose stays, what nothing needs goes.
fn tidy(daemon: Daemon, arguments: &RepairArgs) -> Result<Vec<String>, Failure> {
    if daemon == Daemon::Hangs {
        return Err(Failure {
            status: 6,
            message: "the daemon does not answer; restart it, and its start puts everything right"
                .to_owned(),
        });
    }
    let wanted = wants_to_take_part(&arguments.dirs.state_dir)
        .context("whether this device is to take part is not to be told; run as root, or name its --state-dir")
        .map_err(|error| Failure::failed(&error))?;
    if wanted {
        return Ok(Vec::new());
    }
    delete([place(arguments)?])
}

fn place(arguments: &RepairArgs) -> Result<Place, Failure> {
    config::tun_of(arguments.tun.as_deref(), &arguments.dirs.config_dir)
        .map(|tun| Place::of(&tun))
        .map_err(|error| Failure {
            status: 2,
            message: in_words(&error),
        })
}

fn view(daemon: bool, changes: Vec<String>) -> Result<RepairView, Failure> {
    let places = survey_now()?;
    let notes = notes(daemon, &places);
    Ok(RepairView {
        daemon,
        places,
        changes,
        notes,
    })
}

fn notes(daemon: bool, places: &[PlaceView]) -> Vec<String> {
    let mut notes: Vec<String> = places
        .iter()
        .filter(|place| place.interface.is_none() && !place.blackhole.is_empty())
        .map(|place| {
            format!(
                "{} unreachable on purpose (table {}): overlay traffic fails instead of leaving in clear",
                place.blackhole.join(", "),
                place.table
            )
        })
        .collect();
    if !daemon && !notes.is_empty() {
        notes.push(
            "start the daemon to have the tunnel back, or `gatereeve repair --remove` as root to take it all away".to_owned(),
        );
    }
    notes
}

fn survey_now() -> Result<Vec<PlaceView>, Failure> {
    block_on(async { survey::survey(&NetworkThread::start()?).await })
        .map_err(|error| Failure::failed(&error))
}

fn delete(places: impl IntoIterator<Item = Place>) -> Result<Vec<String>, Failure> {
    let removed = block_on(async { survey::remove(&NetworkThread::start()?, places).await });
    removed.map_err(|error| {
        let refused = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
            .any(|cause| cause.kind() == std::io::ErrorKind::PermissionDenied);
        if refused {
            Failure {
                status: 3,
                message: format!("{}; run it as root", in_words(&error)),
            }
        } else {
            Failure::failed(&error)
        }
    })
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

/// For people.
pub(super) fn text(view: &RepairView) -> String {
    let mut text = String::new();
    push_line(
        &mut text,
        if view.daemon {
            "daemon: runs"
        } else {
            "daemon: does not run, or does not answer here"
        },
    );
    if view.places.is_empty() {
        push_line(&mut text, "on this host: no route and no rule of ours");
    }
    for place in &view.places {
        let owner = place.interface.as_ref().map_or_else(
            || "no tunnel".to_owned(),
            |interface| format!("tunnel {interface}"),
        );
        push_line(&mut text, &format!("table {}: {owner}", place.table));
        for rule in &place.rules {
            push_line(&mut text, &format!("  rule  {rule}"));
        }
        for route in &place.routes {
            push_line(&mut text, &format!("  route {route}"));
        }
    }
    for change in &view.changes {
        push_line(&mut text, &format!("done: {change}"));
    }
    for note in &view.notes {
        push_line(&mut text, note);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_behind() -> PlaceView {
        PlaceView {
            table: 5247,
            priority: 5247,
            interface: None,
            blackhole: vec!["100.64.0.0/10".into()],
            rules: Vec::new(),
            routes: vec!["unreachable 100.64.0.0/10".into()],
        }
    }

    #[test]
    fn what_is_unreachable_on_purpose_is_said_with_what_to_do() {
        let said = notes(false, &[left_behind()]).join("\n");
        assert!(
            said.contains("100.64.0.0/10 unreachable on purpose"),
            "{said}"
        );
        assert!(said.contains("repair --remove"), "{said}");
        let kept = PlaceView {
            interface: Some("gatereeve0".into()),
            ..left_behind()
        };
        assert!(notes(true, &[kept]).is_empty());
        assert!(notes(false, &[]).is_empty());
    }

    #[test]
    fn nobody_at_the_socket_is_told_from_somebody_who_does_not_answer() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        assert_eq!(look_for(&socket), Daemon::Absent);
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        // It closes the first connection, which is no answer, and takes no other.
        let closing = std::thread::spawn(move || {
            drop(listener.accept());
            listener
        });
        assert_eq!(look_for(&socket), Daemon::Hangs);
        drop(closing.join().unwrap());
        assert_eq!(look_for(&socket), Daemon::Absent);
    }
}
