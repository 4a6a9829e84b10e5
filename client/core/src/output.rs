//! What the engine asks its shell to do.

use gatereeve_shared::posture::fact::FactValue;
use gatereeve_shared::time::Mono;
use gatereeve_shared::wire::client::ClientMessage;
use gatereeve_shared::wire::controller::EnrollReply;
use gatereeve_shared::wire::map::{OverlayAddresses, OverlayPrefixes};

use crate::api::WhyView;
use crate::datapath::TableSpec;
use crate::dns::Domain;
use crate::stored::Stored;

/// One thing to do. Their order is meaning: what closes access comes before what tells anyone of it.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time is made and carried out; an allocation would cost more than the copy"
)]
pub enum Output {
    /// Put this table in force, and report with [`Engine::handle_enforced`](crate::engine::Engine::handle_enforced)
    /// when every worker works with it. First of the outputs of a call.
    Publish(TableSpec),
    /// Write this to the state file, durably, before carrying out what follows. Where the write fails,
    /// try again, warn, and carry on meanwhile, but tell the controller of no generation. Of several only the last
    /// counts.
    Save(Box<Stored>),
    /// Nothing passes until the next [`Output::OpenUntil`].
    Shut,
    /// The data path may work until then: the engine's heartbeat.
    OpenUntil(Mono),
    /// What the host's interface and routes are to be.
    Host(HostConfig),
    /// Connect to a controller, and answer with `handle_connected` or `handle_disconnected`.
    Connect {
        /// Counts failed attempts in a row; use it to walk through the controllers.
        attempt: u32,
    },
    /// Close the control connection, or give up connecting, having sent what was to be sent. No
    /// answer is expected.
    Disconnect,
    /// Say this to the controller.
    Send(ClientMessage),
    /// Collect posture and answer with `handle_posture`.
    CollectPosture {
        /// Executables whose running is asked for.
        watched: Vec<String>,
    },
    /// The answer to `handle_why`.
    WhyAnswer {
        /// The shell's number.
        request: u64,
        /// The answer.
        view: WhyView,
    },
    /// How an enrollment went; it ends the waiting of `gatereeve join`.
    Enrolled(EnrollReply),
}

/// What the host's interface and routes are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// Whether the device takes part. If not, interface and routes go away.
    pub up: bool,
    /// The device's own addresses; `None` until the first map, and once it is revoked or deleted.
    pub addresses: Option<OverlayAddresses>,
    /// The network's addresses, which are routed to the interface.
    pub prefixes: Option<OverlayPrefixes>,
    /// The domain of its devices' names, which are asked for at the [resolver](crate::dns::resolver).
    pub domain: Option<Domain>,
    /// Largest packet of the interface, in bytes.
    pub mtu: u16,
}

/// One fact, as a collector found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedFact {
    /// Which; see [`gatereeve_shared::posture::fact::names`].
    pub id: String,
    /// The value.
    pub value: FactValue,
    /// Where it was read.
    pub source: String,
    /// When.
    pub observed: Mono,
}
