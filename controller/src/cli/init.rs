//! `init`

use anyhow::Context as _;
use clap::Args;
use gatereeve_runtime::exit::ExitStatus;
use gatereeve_shared::identity::fingerprint::Fingerprint;
use gatereeve_shared::wire::map::OverlayPrefixes;
use serde::Serialize;

use super::failure::Failure;
use super::output::Printer;
use crate::config::Config;
use crate::state_dir::StateDir;
use crate::state_dir::lock::StateLock;
use crate::state_dir::owner::become_owner;
use crate::state_dir::settings::{DEFAULT_V4, Settings, check_advertised, default_v6};
use crate::upgrade::FORMAT;

const EXAMPLES: &str = "\
Example:
  gatereeve-controller init --name example --advertise vpn.example.com:8443

There is no account and no password: whoever may use the admin socket administrates. Keep the
printed fingerprint; devices that join without an invite are given it.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct InitArgs {
    /// The network's name, for people
    #[arg(long, default_value = "gatereeve", value_parser = network_name)]
    name: String,
    /// IPv4 prefix of the overlay addresses
    #[arg(long, value_name = "PREFIX", default_value = DEFAULT_V4)]
    prefix_v4: String,
    /// IPv6 prefix of the overlay addresses [default: a random ULA /48]
    #[arg(long, value_name = "PREFIX")]
    prefix_v6: Option<String>,
    /// Where devices find this controller; invites carry it. Repeat for more [default: this host's
    /// name and port 8443]
    #[arg(long, value_name = "HOST:PORT", value_parser = check_advertised)]
    advertise: Vec<String>,
}

/// What `init --json` prints.
#[derive(Debug, Serialize)]
struct Initialised {
    kind: &'static str,
    state_dir: String,
    network: String,
    fingerprint: Fingerprint,
    prefixes: OverlayPrefixes,
    advertise: Vec<String>,
}

fn network_name(text: &str) -> Result<String, String> {
    let is_plain = text
        .chars()
        .all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ' '));
    if text.trim().is_empty() || text.len() > 63 || !is_plain {
        return Err("it takes 1 to 63 letters, digits, spaces, ., - and _".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn run(
    args: InitArgs,
    config: &Config,
    printer: &mut Printer<'_>,
) -> Result<ExitStatus, Failure> {
    let dir = StateDir::new(&config.state_dir);
    let shown = dir.root().display();
    check_free(&dir)?;
    // Everything that can be wrong with the arguments is found before anything is made.
    let v4 = args.prefix_v4.parse().map_err(|error| {
        let message = format!(
            "--prefix-v4 {:?} is no IPv4 prefix: {error}",
            args.prefix_v4
        );
        Failure::new(ExitStatus::USAGE, message)
    })?;
    let v6_of = |text: &str| {
        text.parse().map_err(|error| {
            let message = format!("--prefix-v6 {text:?} is no IPv6 prefix: {error}");
            Failure::new(ExitStatus::USAGE, message)
        })
    };
    let chosen_v6 = args.prefix_v6.as_deref().map(v6_of).transpose()?;
    check_prefixes(&OverlayPrefixes {
        v4,
        v6: match chosen_v6 {
            Some(v6) => v6,
            // Any network's own prefix is as good as another's.
            None => v6_of(&default_v6(&Fingerprint([0; 32])))?,
        },
    })?;
    let (advertise, is_guess) = if args.advertise.is_empty() {
        (vec![own_address()?], true)
    } else {
        (args.advertise, false)
    };

    become_owner(dir.root())?;
    dir.create()
        .with_context(|| format!("cannot make {shown}"))?;
    let lock = StateLock::take(&dir.lock()).map_err(anyhow::Error::from)?;
    let network_key = dir.make_keys().map_err(anyhow::Error::from)?;
    let fingerprint = Fingerprint::of(&network_key.public());
    let v6 = match chosen_v6 {
        Some(v6) => v6,
        None => v6_of(&default_v6(&fingerprint))?,
    };
    let settings = Settings {
        name: args.name,
        advertise,
        prefixes: OverlayPrefixes { v4, v6 },
    };
    FORMAT
        .write(dir.root(), FORMAT.current)
        .with_context(|| format!("cannot write to {shown}"))?;
    // Written last: with it the state counts as made.
    settings.save(&dir.settings())?;
    drop(lock);

    let answer = Initialised {
        kind: "initialised",
        state_dir: shown.to_string(),
        network: settings.name,
        fingerprint,
        prefixes: settings.prefixes,
        advertise: settings.advertise,
    };
    printer.answer(&answer, || text(&answer, is_guess))?;
    Ok(ExitStatus::DONE)
}

/// Room for devices, and nothing that is in use elsewhere for other ends.
fn check_prefixes(prefixes: &OverlayPrefixes) -> Result<(), Failure> {
    let usage = |message: &str| Err(Failure::new(ExitStatus::USAGE, message));
    if prefixes.v4.prefix_len() < 8 || prefixes.v4.prefix_len() > 28 {
        return usage("--prefix-v4 takes a length from /8 to /28");
    }
    if prefixes.v6.prefix_len() < 16 || prefixes.v6.prefix_len() > 96 {
        return usage("--prefix-v6 takes a length from /16 to /96");
    }
    let v4 = prefixes.v4.network();
    if v4.is_loopback()
        || v4.is_multicast()
        || v4.is_link_local()
        || v4.octets().first() == Some(&0)
    {
        return usage("--prefix-v4 must not be loopback, link-local or multicast");
    }
    let v6 = prefixes.v6.network();
    if v6.is_loopback() || v6.is_multicast() || v6.is_unicast_link_local() || v6.is_unspecified() {
        return usage("--prefix-v6 must not be loopback, link-local or multicast");
    }
    Ok(())
}

/// An `init` that was interrupted may be repeated; anything else is left alone.
fn check_free(dir: &StateDir) -> Result<(), Failure> {
    let shown = dir.root().display();
    let conflict = |message: String| Err(Failure::new(ExitStatus::CONFLICT, message));
    if dir.is_initialised() {
        return conflict(format!(
            "{shown} already holds a network's state, and nothing was changed. \
             Use another --state-dir, or move it away"
        ));
    }
    let entries = match std::fs::read_dir(dir.root()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return conflict(format!("cannot use {shown}: {error}")),
    };
    let ours = ["network.key", "tls.key", "lock", "journal", "format"];
    for entry in entries {
        let name = entry.map_err(anyhow::Error::from)?.file_name();
        if !ours.iter().any(|known| name == *known) {
            return conflict(format!(
                "{shown} is not empty (it holds {name:?}), and nothing was changed. \
                 Use another --state-dir"
            ));
        }
    }
    Ok(())
}

/// This host's name, and the port that is listened on unless told otherwise.
fn own_address() -> Result<String, Failure> {
    let name = nix::unistd::gethostname()
        .map_err(|errno| anyhow::anyhow!("cannot tell this host's name: {errno}"))?;
    let address = format!("{}:8443", name.to_string_lossy());
    check_advertised(&address).map_err(|error| {
        let message =
            format!("{error}; say where devices find this controller with --advertise HOST:PORT");
        Failure::new(ExitStatus::USAGE, message)
    })
}

fn text(made: &Initialised, is_guess: bool) -> String {
    let advertise = made.advertise.join(", ");
    let guess = if is_guess {
        "  (a guess: this host's name. If devices cannot find it by that, edit `advertise` in the\n  \
         state directory's file `config` before making invites)\n"
    } else {
        ""
    };
    format!(
        "Network {} is made, in {}.\n\n\
         \x20 Fingerprint  {}\n\
         \x20 Addresses    {} and {}\n\
         \x20 Devices find it at {advertise}\n{guess}\n\
         Nothing may reach anything until a policy allows it. Next:\n\
         \x20 1. gatereeve-controller serve                       run it\n\
         \x20 2. gatereeve-controller invite create --tag web     then `gatereeve join` on the device\n\
         \x20 3. gatereeve-controller policy apply policy.toml    say who may reach what\n\n\
         {}/network.key is the network: whoever has it can stand in for this controller.\n\
         Keep a backup: gatereeve-controller backup FILE\n",
        made.network,
        made.state_dir,
        made.fingerprint,
        made.prefixes.v4,
        made.prefixes.v6,
        made.state_dir,
    )
}
