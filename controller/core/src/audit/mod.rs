//! The audit log: it is the journal.
//!
//! Every durable change is one [`record::Record`], which carries its [`entry::AuditEntry`]; what
//! only needs to be known (an authentication, a refusal) is a record without a change. Records are
//! chained by hash ([`chain`]), and heads are signed as checkpoints. No secret is ever in an entry:
//! no invite secret, no private key, no fact that a device did not mean to report.

pub mod chain;
pub mod entry;
pub mod record;
