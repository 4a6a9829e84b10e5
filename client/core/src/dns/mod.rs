//! Names for the devices that this one may reach, answered by the data path itself.
//!
//! A question is a packet that the host sends to the network's first address ([`resolver`]), which no device ever
//! has. The worker that reads it answers it, from the table in force: there is no socket that anybody else could
//! reach, nothing is forwarded, and who is not in the table has no name.
//!
//! * [`domain`]: the domain of a network, and the domains of its addresses.
//! * [`message`]: questions and answers as bytes.
//! * [`zone`]: which answer a question has.
//! * [`responder`]: from a packet of the host to the packet that answers it.

pub mod domain;
mod message;
mod responder;
mod zone;

use gatereeve_shared::wire::map::{OverlayAddresses, OverlayPrefixes};

pub use domain::Domain;
pub(crate) use responder::{ROOM, answer};
pub(crate) use zone::Directory;

/// The addresses at which names are asked for. The first of a prefix are given to no device.
#[must_use]
pub fn resolver(prefixes: &OverlayPrefixes) -> OverlayAddresses {
    OverlayAddresses {
        v4: prefixes.v4.network(),
        v6: prefixes.v6.network(),
    }
}

#[cfg(test)]
mod tests;
