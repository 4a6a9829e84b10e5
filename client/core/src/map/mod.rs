//! The network map on the device: put together from parts, checked, applied as a step from exactly
//! the map that is held, and turned into the table that the data path enforces.
//!
//! What does not fit is never guessed at. An update that is no step from the held map is answered
//! with a request for the whole one; one that goes back is refused, and the device goes on with what
//! it has. A peer whose keys do not hold up is left out, alone.

pub(crate) mod apply;
pub(crate) mod assemble;
pub(crate) mod check;
pub(crate) mod renew;
pub(crate) mod table;
