//! The engine under virtual time, through its public surface alone.

mod clocks;
mod enrollment;
mod gate;
mod keys;
mod maps;
mod oracle;
mod order;
mod peers;
mod posture;
mod support;
mod why;
