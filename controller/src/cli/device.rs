//! `device list | show | approve | rename | tag | quarantine | revoke | delete`

use clap::{Args, Subcommand};
use gatereeve_controller_core::command::Command;
use gatereeve_runtime::exit::ExitStatus;
use gatereeve_shared::ids::{DeviceName, TagName, UserName};

use super::ask::{self, WaitArgs};
use super::failure::Failure;
use super::invite::tag;
use super::output::Printer;
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum DeviceVerb {
    /// All devices, pending ones included
    List,
    /// One device
    Show(Which),
    /// Let a pending device in
    #[command(
        after_help = "Example:\n  gatereeve-controller device approve laptop --user alice@example.com"
    )]
    Approve(ApproveArgs),
    /// Give a device another name
    Rename {
        /// Name or device ID
        device: String,
        /// The new name
        name: DeviceName,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Change a device's tags
    #[command(
        after_help = "Example:\n  gatereeve-controller device tag web-1 --add canary --remove old"
    )]
    Tag(TagArgs),
    /// Cut a device off from all peers, or lift that
    Quarantine(QuarantineArgs),
    /// End a device's key, for good
    Revoke(RevokeArgs),
    /// Forget a device; a revoked key stays refused
    Delete {
        /// Name or device ID
        device: String,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct Which {
    /// Name or device ID
    device: String,
}

#[derive(Debug, Args)]
pub(super) struct ApproveArgs {
    /// Device ID, or the name it asked for
    device: String,
    /// A name in place of the one it asked for
    #[arg(long)]
    name: Option<DeviceName>,
    /// Tag it gets, with or without `tag:`; repeat for more
    #[arg(long = "tag", value_name = "TAG", value_parser = tag)]
    tags: Vec<TagName>,
    /// User whose device it is
    #[arg(long, value_name = "USER@DOMAIN")]
    user: Option<UserName>,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
pub(super) struct TagArgs {
    /// Name or device ID
    device: String,
    /// Tag to add, with or without `tag:`; repeat for more
    #[arg(long, value_name = "TAG", value_parser = tag, required_unless_present = "remove")]
    add: Vec<TagName>,
    /// Tag to remove; repeat for more
    #[arg(long, value_name = "TAG", value_parser = tag)]
    remove: Vec<TagName>,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
pub(super) struct QuarantineArgs {
    /// Name or device ID
    device: String,
    /// Let it take part again
    #[arg(long)]
    lift: bool,
    /// Why, for the audit log
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// Name or device ID
    device: String,
    /// Why, for the audit log
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    pub(super) wait: WaitArgs,
}

pub(super) fn run(
    verb: DeviceVerb,
    config: &Config,
    printer: &mut Printer<'_>,
) -> Result<ExitStatus, Failure> {
    let (command, wait) = match verb {
        DeviceVerb::List => return ask::show(config, Command::DeviceList, printer),
        DeviceVerb::Show(Which { device }) => {
            return ask::show(config, Command::DeviceShow { device }, printer);
        }
        DeviceVerb::Approve(args) => (
            Command::DeviceApprove {
                device: args.device,
                name: args.name,
                tags: args.tags,
                user: args.user,
            },
            args.wait,
        ),
        DeviceVerb::Rename { device, name, wait } => (Command::DeviceRename { device, name }, wait),
        DeviceVerb::Tag(args) => (
            Command::DeviceTag {
                device: args.device,
                add: args.add,
                remove: args.remove,
            },
            args.wait,
        ),
        DeviceVerb::Quarantine(args) => (
            Command::DeviceQuarantine {
                device: args.device,
                lift: args.lift,
                reason: args.reason,
            },
            args.wait,
        ),
        DeviceVerb::Revoke(args) => (
            Command::DeviceRevoke {
                device: args.device,
                reason: args.reason,
            },
            args.wait,
        ),
        DeviceVerb::Delete { device, wait } => (Command::DeviceDelete { device }, wait),
    };
    ask::change(config, command, wait, printer)
}
