//! `invite create | list | revoke`

use std::time::Duration;

use clap::{Args, Subcommand};
use gatereeve_controller_core::command::Command;
use gatereeve_runtime::exit::ExitStatus;
use gatereeve_shared::ids::{InviteId, TagName, UserName};

use super::ask::{self, WaitArgs};
use super::failure::Failure;
use super::output::Printer;
use crate::config::Config;

const CREATE_EXAMPLES: &str = "\
Examples:
  gatereeve-controller invite create --tag web
  gatereeve-controller invite create --user alice@example.com --expires 8h
  gatereeve-controller invite create --tag ci --uses 100 --expires 30d --ephemeral

The invite is shown once: the controller keeps only a hash of its secret. On the device:
  gatereeve join -    (and paste it, so that it does not show in the list of processes)";

#[derive(Debug, Subcommand)]
pub(super) enum InviteVerb {
    /// Make an invite
    #[command(after_help = CREATE_EXAMPLES)]
    Create(CreateArgs),
    /// Invites that can still be used
    List,
    /// End an invite
    Revoke {
        /// The ID that `invite list` shows
        id: InviteId,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Tag that its devices get, with or without `tag:`; repeat for more
    #[arg(long = "tag", value_name = "TAG", value_parser = tag)]
    tags: Vec<TagName>,
    /// User whose devices they are
    #[arg(long, value_name = "USER@DOMAIN")]
    user: Option<UserName>,
    /// How many devices may use it
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
    /// How long it can be used, such as 30m, 8h or 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    expires: Duration,
    /// Devices vanish when they have been gone for a while
    #[arg(long)]
    ephemeral: bool,
    /// Devices wait for `device approve`
    #[arg(long)]
    approve: bool,
}

/// A tag, as the policy writes it or without the `tag:`.
pub(super) fn tag(text: &str) -> Result<TagName, String> {
    TagName::new(text.strip_prefix("tag:").unwrap_or(text)).map_err(|error| error.to_string())
}

pub(super) fn run(
    verb: InviteVerb,
    config: &Config,
    printer: &mut Printer<'_>,
) -> Result<ExitStatus, Failure> {
    match verb {
        InviteVerb::Create(args) => ask::show(
            config,
            Command::InviteCreate {
                tags: args.tags,
                user: args.user,
                uses: args.uses,
                expires_secs: args.expires.as_secs(),
                ephemeral: args.ephemeral,
                approve: args.approve,
            },
            printer,
        ),
        InviteVerb::List => ask::show(config, Command::InviteList, printer),
        InviteVerb::Revoke { id, wait } => {
            ask::change(config, Command::InviteRevoke { id }, wait, printer)
        }
    }
}
