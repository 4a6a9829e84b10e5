//! The control protocol: one QUIC stream of frames in each direction.
//!
//! A frame is `[version u8][kind u16][length u32]`, big-endian, followed by the body. The header is
//! checked before anything is decoded; the body's type follows from the kind. Bodies are bincode
//! (see [`codec`]) and frozen by golden bytes under test: a released body is never edited, a new
//! form gets a new kind. Prose for readers: `shared/README.md`.
//!
//! The conversation: the client's [`client::ClientHello`] says nothing but versions; the
//! controller's [`controller::ControllerHello`] proves whose it is and tells the device its
//! standing. A device that is not approved may enroll, and learns nothing else. An approved one
//! attaches, and gets its network map and what follows.

pub mod client;
pub mod codec;
pub mod controller;
pub mod frame;
pub mod map;
mod message;

/// The ALPN protocol name of the control connection.
pub const ALPN: &[u8] = b"gatereeve/1";
/// The oldest minor version that this build speaks.
pub const MIN_MINOR: u16 = 1;
/// The newest minor version that this build speaks. Minor 1 is the first.
pub const MAX_MINOR: u16 = 1;
