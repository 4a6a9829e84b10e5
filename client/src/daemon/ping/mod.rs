//! Echo requests to a peer, from this device's own overlay address, through the data path itself.
//!
//! A socket of the kernel for echo takes CAP_NET_RAW, or a group that the host lets use them; the daemon has
//! neither. So a request is judged, sealed and sent like a packet of the host ([`Pinger`]), and its answer is
//! seen where it is delivered ([`EchoTap`]). What the host's own firewall would do to it is not tried.

mod echo;
mod tap;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use gatereeve_client_core::datapath::{Batch, Outbox};
use gatereeve_runtime::clock::Clock;

use super::workers::Shared;
use crate::udp::Sender;

pub use tap::EchoTap;

/// How long one answer may take.
const EACH: Duration = Duration::from_secs(1);
/// Pause behind an answer.
const PAUSE: Duration = Duration::from_millis(200);

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pings {
    /// Requests sent.
    pub sent: u32,
    /// Round trips of those answered, in milliseconds.
    pub round_trips_ms: Vec<f64>,
    /// What the data path said instead of an answer.
    pub error: Option<String>,
}

/// Puts echo requests into a running data path.
#[derive(Clone, Debug)]
pub struct Pinger {
    echo: Arc<EchoTap>,
    /// Not held: a ping must not keep an interface that is to go.
    shared: Weak<Shared>,
}

impl Pinger {
    /// For the data path of these workers.
    #[must_use]
    pub fn new(shared: &Arc<Shared>) -> Self {
        Self {
            echo: Arc::clone(&shared.echo),
            shared: Arc::downgrade(shared),
        }
    }

    /// Sends `count` requests from `own` to `peer`, one after the other, for as long as `is_wanted`. Blocks.
    ///
    /// # Errors
    /// When the device stops taking part, the system gives no random numbers, or the addresses are of two
    /// families.
    pub fn ping(
        &self,
        own: IpAddr,
        peer: IpAddr,
        count: u32,
        is_wanted: &AtomicBool,
    ) -> Result<Pings> {
        if own == peer {
            bail!("{peer} is this device itself; ping a peer");
        }
        let mut identifier = [0; 2];
        getrandom::fill(&mut identifier).context("no random numbers")?;
        let mut pings = Pings::default();
        for sequence in 1..=count {
            if !is_wanted.load(Ordering::Relaxed) {
                break;
            }
            // The command line stops at 1000, so that no number comes twice.
            let number = u16::try_from(sequence).unwrap_or(u16::MAX);
            let request = echo::request(own, peer, identifier, number)
                .context("an address of each family cannot be pinged from the other")?;
            let answer = self.echo.expect(peer, identifier, number);
            let sent_at = Clock::mono();
            pings.sent += 1;
            if self.send(&request)? {
                if answer.wait(EACH) {
                    let trip = Clock::mono().since(sent_at);
                    pings.round_trips_ms.push(trip.as_secs_f64() * 1000.0);
                } else {
                    continue;
                }
            } else {
                pings.error = Some("administratively prohibited".to_owned());
            }
            if sequence < count {
                std::thread::sleep(PAUSE);
            }
        }
        Ok(pings)
    }

    /// Puts one packet of the host into the data path. `false` where it was answered at once: refused.
    fn send(&self, request: &[u8]) -> Result<bool> {
        let shared = self
            .shared
            .upgrade()
            .context("the device does not take part any more; `gatereeve status` tells why")?;
        let mut batch = Batch::new(1, echo::LONGEST);
        let mut outbox = Outbox::new();
        batch.push(request, None);
        let mark = shared.datapath.worker();
        mark.begin();
        shared
            .datapath
            .outbound(&mut batch, Clock::mono(), &mut outbox);
        let runs = outbox.runs().chain(outbox.elsewhere());
        Sender::default().send(&shared.udp, 0, runs);
        for event in outbox.take_events() {
            if shared.events.try_send(event).is_err() {
                tracing::trace!("a hint of the data path is lost");
            }
        }
        mark.done();
        Ok(outbox.deliveries().next().is_none())
    }
}
