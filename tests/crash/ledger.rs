//! The writers' own record of what the controller has acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{anyhow, ensure};

use gatereeve_controller_core::command::Reply;
use gatereeve_shared::ids::InviteId;
use gatereeve_tests::cli::ControllerCli;

/// Shared by all writers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Arc<Mutex<Entries>>);

/// What was acknowledged. What was asked for and not answered may or may not have happened.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    /// Invites that were made, and not asked to be revoked.
    pub(crate) invites: BTreeSet<InviteId>,
    /// Invites whose revocation was acknowledged.
    pub(crate) revoked: BTreeSet<InviteId>,
    /// Texts of policy revisions that were applied and not checked yet.
    pub(crate) policies: BTreeMap<u64, String>,
    /// The newest generation that any answer named.
    pub(crate) newest: u64,
    /// How many changes were acknowledged.
    pub(crate) count: usize,
}

impl Ledger {
    pub(crate) fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.entries().count
    }

    /// Holds the controller's answers against the ledger. No writer may be running.
    pub(crate) fn check(&self, cli: &ControllerCli) -> anyhow::Result<()> {
        let mut entries = self.entries();
        let Reply::Invites { invites } = cli.ask(&["invite", "list"])? else {
            return Err(anyhow!("invite list answered something else"));
        };
        let there: BTreeSet<InviteId> = invites.iter().map(|invite| invite.id).collect();
        let lost: Vec<_> = entries.invites.difference(&there).collect();
        ensure!(lost.is_empty(), "invites are lost: {lost:?}");
        let back: Vec<_> = entries.revoked.intersection(&there).collect();
        ensure!(back.is_empty(), "revocations are lost: {back:?}");
        let Reply::Status(status) = cli.ask(&["status"])? else {
            return Err(anyhow!("status answered something else"));
        };
        ensure!(
            status.generation.n >= entries.newest,
            "generation {} after {} was acknowledged",
            status.generation.n,
            entries.newest
        );
        ensure!(status.warnings.is_empty(), "{:?}", status.warnings);
        let policies = std::mem::take(&mut entries.policies);
        // A few of the many: each answer is a process of its own.
        for (revision, text) in policies.iter().rev().take(3) {
            ensure!(
                status.policy_revision >= *revision,
                "revision {revision} is lost"
            );
            let shown = cli.ask(&["policy", "show", &revision.to_string()])?;
            let expected = Reply::Policy {
                revision: *revision,
                text: text.clone(),
            };
            ensure!(shown == expected, "revision {revision}: {shown:?}");
        }
        Ok(())
    }
}
