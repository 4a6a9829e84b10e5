//! Telling the service manager how it goes: the datagrams of `sd_notify(3)`, without a library.
//!
//! `READY=1` and `WATCHDOG=1` are proofs, not promises: they follow an answer of the main loop
//! ([`Heart`]) to a question of the task that sends them ([`Watch::run`]). A main loop that is stuck
//! answers nothing, the pings stop, and the service manager starts the program again.
//!
//! A child must not speak for its parent: whoever starts a process takes [`VARIABLES`] from its
//! environment.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the service manager sets for us, and nobody is to inherit.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// How often the main loop is asked where no watchdog says so: the status line is kept up to date.
const STATUS_EVERY: Duration = Duration::from_secs(30);
/// Shortest time between two questions.
const SHORTEST: Duration = Duration::from_millis(10);
/// Longest status line, in characters.
const STATUS: usize = 256;

/// The way to the service manager; leads nowhere where there is none.
#[derive(Debug)]
pub struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// What the environment of this process says.
    #[must_use]
    pub fn from_environment() -> Self {
        let [socket, usec, pid] = VARIABLES.map(std::env::var_os);
        Self::new(
            socket.as_deref(),
            usec.as_deref().and_then(OsStr::to_str),
            pid.as_deref().and_then(OsStr::to_str),
        )
    }

    /// A notifier for these values of [`VARIABLES`]. What makes no sense is said and left alone: a
    /// service manager that cannot be reached is no reason not to serve.
    #[must_use]
    pub fn new(socket: Option<&OsStr>, usec: Option<&str>, pid: Option<&str>) -> Self {
        let to = socket
            .filter(|socket| !socket.is_empty())
            .and_then(|socket| match connect(socket) {
                Ok(to) => Some(to),
                Err(error) => {
                    tracing::warn!(%error, "the service manager's socket cannot be used");
                    None
                }
            });
        let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        let watchdog = usec
            .filter(|_| is_ours && to.is_some())
            .and_then(|usec| usec.parse().ok())
            .filter(|usec| *usec > 0)
            .map(Duration::from_micros);
        Self { to, watchdog }
    }

    /// Sends one datagram. Never waits: a service manager that does not read loses it.
    fn send(&self, text: &str) {
        let Some((socket, address)) = &self.to else {
            return;
        };
        if let Err(error) = socket.send_to_addr(text.as_bytes(), address) {
            tracing::debug!(%error, "the service manager was not told");
        }
    }
}

fn connect(socket: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(socket)?,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "NOTIFY_SOCKET={} is neither a path nor an abstract name",
                    socket.display()
                ),
            ));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// A main loop's side: it is asked, and answers with a line about how it goes.
#[derive(Debug)]
pub struct Heart {
    asked: watch::Receiver<u64>,
    answered: watch::Sender<(u64, String)>,
}

impl Heart {
    /// Waits for the next question; for ever where nobody asks. Can be dropped at any moment.
    pub async fn asked(&mut self) {
        if self.asked.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Answers the last question.
    pub fn answer(&self, status: String) {
        let number = *self.asked.borrow();
        self.answered.send_replace((number, status));
    }
}

/// The asking side.
#[derive(Debug)]
pub struct Watch {
    notifier: Notifier,
    asked: watch::Sender<u64>,
    answered: watch::Receiver<(u64, String)>,
}

/// A main loop's heart, and the watch over it.
#[must_use]
pub fn pulse(notifier: Notifier) -> (Heart, Watch) {
    let (ask, asked) = watch::channel(0);
    let (answer, answered) = watch::channel((0, String::new()));
    let heart = Heart {
        asked,
        answered: answer,
    };
    let watch = Watch {
        notifier,
        asked: ask,
        answered,
    };
    (heart, watch)
}

impl Watch {
    /// Asks the main loop again and again, and tells the service manager of its answers, until
    /// `stop`. Without a service manager it ends at once, and the main loop is asked nothing.
    pub async fn run(mut self, stop: CancellationToken) {
        if self.notifier.to.is_none() {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.ask_on() => {}
        }
        self.notifier.send("STOPPING=1\nSTATUS=stopping");
    }

    async fn ask_on(&mut self) {
        // A third, so that one question may be late.
        let every = self
            .notifier
            .watchdog
            .map_or(STATUS_EVERY, |watchdog| watchdog / 3)
            .max(SHORTEST);
        let mut is_ready = false;
        let mut told = String::new();
        loop {
            let Some(status) = self.ask().await else {
                // The main loop is gone; whoever stops the process says so.
                return;
            };
            let mut lines = Vec::new();
            if !is_ready {
                lines.push("READY=1".to_owned());
                is_ready = true;
            }
            if self.notifier.watchdog.is_some() {
                lines.push("WATCHDOG=1".to_owned());
            }
            if status != told {
                lines.push(format!("STATUS={status}"));
                told = status;
            }
            if !lines.is_empty() {
                self.notifier.send(&lines.join("\n"));
            }
            tokio::time::sleep(every).await;
        }
    }

    /// One question, and its answer; `None` where nobody is there to answer.
    async fn ask(&mut self) -> Option<String> {
        let mut number = 0;
        self.asked.send_modify(|asked| {
            *asked = asked.wrapping_add(1);
            number = *asked;
        });
        let answer = self.answered.wait_for(|(answered, _)| *answered == number);
        let status = answer.await.ok()?.1.clone();
        Some(one_line(&status))
    }
}

/// A status is one line: a second one would be an order to the service manager.
fn one_line(text: &str) -> String {
    let clean = gatereeve_shared::text::printable(text);
    clean
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(STATUS)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn next(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 1024];
        let length = socket.recv(&mut bytes).expect("a datagram in time");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    fn bound(address: &SocketAddr) -> UnixDatagram {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// A main loop that answers while `lives` says so.
    async fn main_loop(mut heart: Heart, lives: watch::Receiver<bool>) {
        let mut beats = 0;
        loop {
            heart.asked().await;
            if !*lives.borrow() {
                std::future::pending::<()>().await;
            }
            beats += 1;
            heart.answer(format!("beat {}\nWATCHDOG=trigger", beats / 3));
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
    }

    #[test]
    fn ready_pings_status_and_stopping_are_told_and_a_stuck_loop_stops_the_pings() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = bound(&SocketAddr::from_pathname(&path).unwrap());
        let notifier = Notifier::new(Some(path.as_os_str()), Some("150000"), None);
        let (heart, watch) = pulse(notifier);
        let (alive, lives) = watch::channel(true);
        let runtime = runtime();
        let stop = CancellationToken::new();
        let watching = runtime.spawn(watch.run(stop.clone()));
        let looping = runtime.spawn(main_loop(heart, lives));
        let first = next(&socket);
        assert!(
            first.starts_with("READY=1\nWATCHDOG=1\nSTATUS=beat 0"),
            "{first}"
        );
        // The second line of the status stayed in the first.
        assert_eq!(first.lines().count(), 3, "{first}");
        let pings: Vec<String> = (0..6).map(|_| next(&socket)).collect();
        assert!(
            pings.iter().all(|ping| ping.starts_with("WATCHDOG=1")),
            "{pings:?}"
        );
        assert!(pings.iter().any(|ping| ping == "WATCHDOG=1"), "{pings:?}");
        assert!(
            pings.iter().any(|ping| ping.contains("STATUS=beat 1")),
            "{pings:?}"
        );

        // The main loop hangs. One answer may be under way; then there is silence for many periods.
        alive.send_replace(false);
        socket
            .set_read_timeout(Some(Duration::from_millis(400)))
            .unwrap();
        let mut late = 0;
        let mut bytes = [0; 1024];
        while socket.recv(&mut bytes).is_ok() {
            late += 1;
        }
        assert!(late <= 2, "{late} pings of a loop that hangs");
        stop.cancel();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(next(&socket), "STOPPING=1\nSTATUS=stopping");
        runtime.block_on(watching).unwrap();
        looping.abort();
    }

    #[test]
    fn an_abstract_name_works_and_without_a_watchdog_there_are_no_pings() {
        let name = format!("gatereeve-notify-test-{}", std::process::id());
        let socket = bound(&SocketAddr::from_abstract_name(&name).unwrap());
        let variable = format!("@{name}");
        let notifier = Notifier::new(Some(OsStr::new(&variable)), None, None);
        let (heart, watch) = pulse(notifier);
        let (_alive, lives) = watch::channel(true);
        let runtime = runtime();
        let stop = CancellationToken::new();
        let watching = runtime.spawn(watch.run(stop.clone()));
        let looping = runtime.spawn(main_loop(heart, lives));
        let first = next(&socket);
        assert!(first.starts_with("READY=1\nSTATUS=beat 0"), "{first}");
        stop.cancel();
        assert_eq!(next(&socket), "STOPPING=1\nSTATUS=stopping");
        runtime.block_on(watching).unwrap();
        looping.abort();
    }

    #[test]
    fn a_watchdog_for_another_process_or_without_a_socket_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let ours = std::process::id().to_string();
        let of = |socket: Option<&OsStr>, usec, pid| Notifier::new(socket, usec, pid).watchdog;
        let socket = Some(path.as_os_str());
        let second = Some(Duration::from_secs(1));
        assert_eq!(of(socket, Some("1000000"), Some(&ours)), second);
        assert_eq!(of(socket, Some("1000000"), None), second);
        assert_eq!(of(socket, Some("1000000"), Some("1")), None);
        assert_eq!(of(socket, Some("0"), None), None);
        assert_eq!(of(socket, Some("soon"), None), None);
        assert_eq!(of(None, Some("1000000"), None), None);
        assert_eq!(
            of(Some(OsStr::new("vsock:2:1")), Some("1000000"), None),
            None
        );
    }

    #[tokio::test]
    async fn without_a_service_manager_nobody_is_asked() {
        let (mut heart, watch) = pulse(Notifier::new(None, None, None));
        watch.run(CancellationToken::new()).await;
        let asked = tokio::time::timeout(Duration::from_millis(20), heart.asked()).await;
        assert!(asked.is_err());
    }
}
