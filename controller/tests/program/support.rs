//! A controller in this process, and its command line.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use gatereeve_controller::cli::output::Streams;
use gatereeve_controller::server::serve::{ServeOptions, serve};
use gatereeve_controller::state_dir::StateDir;
use gatereeve_runtime::notify::Notifier;
use gatereeve_runtime::sandbox::Confinement;
use gatereeve_runtime::shutdown::Shutdown;
use serde_json::Value;

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// The output as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The same, if it succeeded.
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.status, 0, "{self:?}");
        self
    }
}

/// A place for a controller.
pub(crate) struct Place {
    pub(crate) root: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    /// With a network in it.
    pub(crate) fn initialised() -> Self {
        let place = Self::new();
        place
            .run(&["init", "--name", "test", "--advertise", "127.0.0.1:8443"])
            .ok();
        place
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.root.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn socket(&self) -> PathBuf {
        self.root.path().join("admin.sock")
    }

    /// Runs a command line on this place.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        run_on(&self.state(), &self.socket(), args)
    }

    /// Runs a command line with `--json`.
    pub(crate) fn json(&self, args: &[&str]) -> Ran {
        self.run(&[args, &["--json"]].concat())
    }

    /// Starts the daemon, or returns why it does not start.
    pub(crate) fn start(&self) -> Result<Daemon, String> {
        self.start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// The same, at this address.
    pub(crate) fn start_at(&self, listen: SocketAddr) -> Result<Daemon, String> {
        self.start_with(listen, Notifier::new(None, None, None))
    }

    /// The same, with a service manager that is told how it goes.
    pub(crate) fn start_with(
        &self,
        listen: SocketAddr,
        notifier: Notifier,
    ) -> Result<Daemon, String> {
        let options = ServeOptions {
            state_dir: StateDir::new(self.state()),
            socket: self.socket(),
            admin_group: None,
            listen: vec![listen],
            notifier,
            confinement: Confinement::default(),
        };
        let shutdown = Shutdown::new();
        let stop = shutdown.clone();
        let (started, starting) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let ready = started.clone();
            let served = runtime.block_on(serve(options, stop, move |_| {
                ready.send(Ok(())).unwrap();
            }));
            if let Err(error) = served {
                drop(started.send(Err(format!("{error:#}"))));
            }
        });
        match starting.recv().unwrap() {
            Ok(()) => Ok(Daemon {
                shutdown,
                thread: Some(thread),
            }),
            Err(why) => {
                thread.join().unwrap();
                Err(why)
            }
        }
    }
}

/// Runs a command line in this process.
pub(crate) fn run_on(state: &Path, socket: &Path, args: &[&str]) -> Ran {
    let (out, err) = (Captured::default(), Captured::default());
    let mut streams = Streams::to(Box::new(out.clone()), Box::new(err.clone()));
    let mut line: Vec<OsString> = vec!["gatereeve-controller".into()];
    line.extend(["--state-dir".into(), state.into()]);
    line.extend(["--socket".into(), socket.into()]);
    line.extend(args.iter().map(OsString::from));
    let status = gatereeve_controller::main_with(line, &mut streams).0;
    Ran {
        status,
        out: out.text(),
        err: err.text(),
    }
}

/// A running controller; stops when dropped.
pub(crate) struct Daemon {
    shutdown: Shutdown,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.shutdown.trigger();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
