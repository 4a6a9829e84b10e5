//! `serve`

use std::net::SocketAddr;

use clap::Args;
use gatereeve_runtime::exit::ExitStatus;
use gatereeve_runtime::notify::Notifier;
use gatereeve_runtime::process;
use gatereeve_runtime::sandbox::Confinement;
use gatereeve_runtime::shutdown::Shutdown;
use gatereeve_runtime::telemetry;
use gatereeve_runtime::words::in_words;

use super::failure::Failure;
use super::output::Printer;
use crate::config::Config;
use crate::confine;
use crate::server::serve::{ServeOptions, serve};
use crate::state_dir::StateDir;
use crate::state_dir::lock::LockError;

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// UDP address and port where devices connect; repeat for more [default: [::]:8443]
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "GATEREEVE_CONTROLLER_LISTEN",
        value_delimiter = ','
    )]
    listen: Vec<SocketAddr>,
    /// A group whose members may administrate, besides root and the controller's own user
    #[arg(long, value_name = "GROUP", env = "GATEREEVE_CONTROLLER_ADMIN_GROUP")]
    admin_group: Option<String>,
}

pub(super) fn run(
    args: ServeArgs,
    config: Config,
    printer: &mut Printer<'_>,
) -> Result<ExitStatus, Failure> {
    let _logging = telemetry::init(config.log_json);
    if let Err(errno) = process::keep_memory_private() {
        tracing::warn!(%errno, "core dumps could not be switched off: keys could get into one");
    }
    // While there is one thread, and no key has been read.
    let confinement = if config.sandbox {
        confine::sandbox(&config).enter()
    } else {
        Confinement::switched_off()
    };
    let options = ServeOptions {
        confinement,
        state_dir: StateDir::new(config.state_dir),
        socket: config.socket,
        admin_group: args.admin_group.or(config.admin_group),
        listen: if args.listen.is_empty() {
            config.listen
        } else {
            args.listen
        },
        notifier: Notifier::from_environment(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(ExitStatus::FAILED, error.to_string()))?;
    let served = runtime.block_on(async {
        let shutdown = Shutdown::new();
        shutdown.on_signals()?;
        serve(options, shutdown, |line| printer.note(line)).await
    });
    match served {
        Ok(()) => Ok(ExitStatus::DONE),
        Err(error) if error.is::<LockError>() => {
            Err(Failure::new(ExitStatus::CONFLICT, in_words(&error)))
        }
        Err(error) => Err(error.into()),
    }
}
