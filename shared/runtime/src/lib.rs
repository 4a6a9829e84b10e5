//! What both daemons need of the operating system and of the network, behind small doors.
//!
//! * [`clock`]: the only reader of clocks.
//! * [`keyfile`], [`atomic_file`]: keys and state in files that others cannot read and crashes cannot tear.
//! * [`tls`], [`quic`], [`framed`]: the control connection: raw public keys, limits, frames with deadlines.
//! * [`local_socket`]: HTTP and JSON over a Unix socket, with peer credentials.
//! * [`sandbox`]: what a process may do after it has started.
//! * [`shutdown`], [`telemetry`], [`exit`]: how a process ends, what it logs, what it tells its caller.
//! * [`notify`], [`process`]: what the service manager is told, and what the process gives up.
//! * [`words`]: errors as text for people.
//! * [`state_format`]: the number of a state directory's format. [`state_file`]: reading state that another user
//!   may have replaced.
//! * [`diagnostics`], [`redact`], [`report`]: looking into a daemon, and what of that may leave the machine.

#![warn(missing_docs)]

pub mod alarm;
pub mod atomic_file;
pub mod clock;
pub mod diagnostics;
pub mod exit;
pub mod framed;
pub mod keyfile;
pub mod local_socket;
mod log_output;
pub mod notify;
pub mod process;
pub mod quic;
pub mod redact;
pub mod report;
pub mod sandbox;
pub mod shutdown;
pub mod state_file;
pub mod state_format;
pub mod telemetry;
pub mod tls;
pub mod words;
