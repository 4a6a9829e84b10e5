//! Everything the controller asks its shell to do, and the numbers that tie answers to questions.

use gatereeve_shared::identity::checkpoint::Checkpoint;
use gatereeve_shared::wire::controller::{ControllerMessage, Refusal};
use serde::{Deserialize, Serialize};

use crate::audit::chain::EncodedRecord;
use crate::command::{CommandError, Reply};

/// An admin request, chosen by the shell; comes back in [`Output::Reply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// One control connection, chosen by the shell and never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// Rows to put (`Some`) or delete (`None`), in one atomic batch.
pub type TableWrites = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// One effect. The order in which they come is the order in which they are carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Append to the journal, durably and in order; answer with `handle_appended`. Nobody is told
    /// of the change before.
    Append {
        /// Comes back in the answer. Tickets rise by one.
        ticket: u64,
        /// One or more records, all or none.
        records: Vec<EncodedRecord>,
    },
    /// Rows of the tables, as the journal's head now has them; one atomic batch.
    Tables(TableWrites),
    /// Rows that may be lost.
    Soft(TableWrites),
    /// Append to the checkpoint file.
    Checkpoint(Checkpoint),
    /// Send to a control session.
    Send {
        /// Which.
        session: SessionId,
        /// What.
        message: ControllerMessage,
    },
    /// Close a control session, behind what was sent to it.
    Close {
        /// Which.
        session: SessionId,
        /// What to say first, if anything.
        refusal: Option<Refusal>,
    },
    /// Answer an administrator.
    Reply {
        /// Which request.
        request: RequestId,
        /// The answer.
        result: Result<Reply, CommandError>,
    },
}
