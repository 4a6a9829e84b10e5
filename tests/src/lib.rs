//! The system tested as a whole: what the suites, the demo and the benchmarks share.
//!
//! * [`netns`]: network namespaces that leave nothing behind, and the links between them.
//! * [`interrupt`]: Ctrl-C leaves nothing behind.
//! * [`process`]: the daemons as child processes that never outlive this one.
//! * [`binaries`]: builds the two programs once, the way cargo would.
//! * [`world`]: a controller and devices, each in a namespace with its own state.
//! * [`cli`]: the two command lines, typed.
//! * [`rights`]: daemons with few rights, and what the kernel says of them.
//! * [`random`]: choices that a printed seed brings back.
//! * [`fake_tunnel`]: a tunnel without cryptography, in virtual time.
//! * [`stock`]: a device with stock WireGuard, enrolled through the real protocol.
//! * [`strangers`]: devices that enroll and are never heard of again.
//! * [`uapi`]: a userspace WireGuard as a child process, configured over its own interface.
//! * [`traffic`]: real TCP, UDP and ICMP through the tunnels, counted.
//! * [`suite`]: a runner whose tests can say that the machine lacks what they need.
//!
//! Everything here returns errors instead of panicking, so that the demo can use it too.

pub mod binaries;
pub mod cli;
pub mod clock;
pub mod fake_tunnel;
pub mod held;
pub mod interrupt;
pub mod netns;
pub mod process;
pub mod random;
pub mod rights;
pub mod stock;
pub mod strangers;
pub mod suite;
pub mod traffic;
pub mod uapi;
pub mod world;
