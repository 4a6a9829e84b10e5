//! The daemon's settings: file, environment and flags, checked once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::cli::DaemonArgs;

/// The port of the WireGuard socket unless told otherwise.
const DEFAULT_PORT: u16 = 51_840;
/// The TUN interface unless told otherwise.
const DEFAULT_TUN: &str = "gatereeve0";
/// Longest configuration file that is read, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// What `client.toml` may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    listen: Option<Listen>,
    tun: Option<String>,
    operator: Option<String>,
    operator_group: Option<String>,
    offload: Option<bool>,
    cipher: Option<Cipher>,
    names: Option<bool>,
    search: Option<bool>,
    sandbox: Option<bool>,
}

/// What seals and opens packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Cipher {
    /// AVX-512 where the processor has it, AWS-LC elsewhere.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// AWS-LC.
    #[serde(rename = "aws-lc")]
    AwsLc,
}

/// What the host's resolver is told of the names of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Nothing.
    Off,
    /// Where whole ones are asked for (`web.example.internal`).
    Whole,
    /// That those without a domain (`web`) may be meant, too.
    Search,
}

/// `listen` as a number or as text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Listen {
    Port(u16),
    Text(String),
}

/// Checked settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Identity, keys and the last map.
    pub state_dir: PathBuf,
    /// `client.toml` and `facts.d/`.
    pub config_dir: PathBuf,
    /// The local API.
    pub socket: PathBuf,
    /// The TUN interface.
    pub tun: String,
    /// Addresses of the WireGuard socket: one per family, with one port.
    pub listen: Vec<SocketAddr>,
    /// User who may make changes, besides root and the user that the daemon runs as.
    pub operator: Option<u32>,
    /// Group whose members may make changes too.
    pub operator_group: Option<u32>,
    /// Whether the kernel is to cut and join packets, where it can.
    pub offload: bool,
    /// What seals and opens packets.
    pub cipher: Cipher,
    /// What the host's resolver is told of the names of devices.
    pub names: Names,
    /// Where a posture collector listens, if one does.
    pub posture_socket: PathBuf,
    /// Whether the daemon confines itself.
    pub sandbox: bool,
}

impl Config {
    /// Puts flags (the environment is in them already) over the file.
    ///
    /// # Errors
    /// Names the setting and what is wrong with it.
    pub fn load(arguments: &DaemonArgs, socket: PathBuf) -> Result<Self> {
        let path = arguments.dirs.config_dir.join("client.toml");
        let raw = read(&path)?;
        let tun = arguments
            .tun
            .clone()
            .or(raw.tun)
            .unwrap_or_else(|| DEFAULT_TUN.into());
        check_interface_name(&tun)?;
        let listen = match (&arguments.listen, raw.listen) {
            (Some(text), _) => parse_listen(text).context("--listen")?,
            (None, Some(Listen::Text(text))) => {
                parse_listen(&text).with_context(|| format!("{}: listen", path.display()))?
            }
            (None, Some(Listen::Port(port))) => any(port),
            (None, None) => any(DEFAULT_PORT),
        };
        let operator = raw
            .operator
            .map(|name| uid_of(&name).with_context(|| format!("{}: operator", path.display())))
            .transpose()?;
        let operator_group = raw
            .operator_group
            .map(|name| {
                gid_of(&name).with_context(|| format!("{}: operator_group", path.display()))
            })
            .transpose()?;
        Ok(Self {
            state_dir: arguments.dirs.state_dir.clone(),
            config_dir: arguments.dirs.config_dir.clone(),
            socket,
            tun,
            listen,
            operator,
            operator_group,
            offload: raw.offload.unwrap_or(true),
            cipher: raw.cipher.unwrap_or_default(),
            names: match (raw.names.unwrap_or(true), raw.search.unwrap_or(false)) {
                (false, _) => Names::Off,
                (true, false) => Names::Whole,
                (true, true) => Names::Search,
            },
            posture_socket: arguments.posture_socket.clone(),
            sandbox: raw.sandbox.unwrap_or(true),
        })
    }
}

/// The TUN interface of the daemon with this configuration, for who works without it.
///
/// # Errors
/// Names what is wrong with the file or the name.
pub fn tun_of(flag: Option<&str>, config_dir: &Path) -> Result<String> {
    let tun = match flag {
        Some(tun) => tun.to_owned(),
        None => read(&config_dir.join("client.toml"))?
            .tun
            .unwrap_or_else(|| DEFAULT_TUN.into()),
    };
    check_interface_name(&tun)?;
    Ok(tun)
}

fn read(path: &Path) -> Result<RawConfig> {
    let text = match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > MAX_FILE => {
            bail!("{} is larger than {MAX_FILE} bytes", path.display())
        }
        Ok(_) => std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(RawConfig::default());
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))
}

fn any(port: u16) -> Vec<SocketAddr> {
    vec![
        SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
        SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port),
    ]
}

fn parse_listen(text: &str) -> Result<Vec<SocketAddr>> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok(any(port));
    }
    let address: SocketAddr = text.parse().with_context(|| {
        format!("{text:?} is neither a port nor an address with a port, such as 192.0.2.7:51840")
    })?;
    Ok(vec![address])
}

/// What Linux takes as the name of an interface.
fn check_interface_name(name: &str) -> Result<()> {
    let fine = !name.is_empty()
        && name.len() <= 15
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !fine {
        bail!("tun: {name:?} is no interface name: 1 to 15 letters, digits, '-', '_' and '.'");
    }
    Ok(())
}

fn uid_of(name: &str) -> Result<u32> {
    let user = nix::unistd::User::from_name(name)
        .with_context(|| format!("cannot look up the user {name:?}"))?;
    user.map(|user| user.uid.as_raw())
        .with_context(|| format!("there is no user {name:?} on this host"))
}

fn gid_of(name: &str) -> Result<u32> {
    let group = nix::unistd::Group::from_name(name)
        .with_context(|| format!("cannot look up the group {name:?}"))?;
    group
        .map(|group| group.gid.as_raw())
        .with_context(|| format!("there is no group {name:?} on this host"))
}

#[cfg(test)]
mod tests {
    use crate::cli::DirArgs;

    use super::*;

    fn load(file: Option<&str>, tun: Option<&str>, listen: Option<&str>) -> Result<Config> {
        let directory = tempfile::tempdir().unwrap();
        if let Some(text) = file {
            std::fs::write(directory.path().join("client.toml"), text).unwrap();
        }
        let arguments = DaemonArgs {
            dirs: DirArgs {
                state_dir: "/state".into(),
                config_dir: directory.path().into(),
            },
            tun: tun.map(Into::into),
            listen: listen.map(Into::into),
            posture_socket: "/posture".into(),
            log_json: false,
        };
        Config::load(&arguments, "/socket".into())
    }

    #[test]
    fn the_packaged_file_says_the_defaults() {
        let packaged = include_str!("../../packaging/config/client.toml");
        let said = load(Some(packaged), None, None).unwrap();
        assert_eq!(said.listen, any(DEFAULT_PORT));
        assert_eq!(said.tun, DEFAULT_TUN);
        assert!(said.offload);
        assert_eq!(said.cipher, Cipher::Auto);
        assert!(said.sandbox);
        assert_eq!(said.names, Names::Whole);
    }

    #[test]
    fn no_file_means_defaults() {
        let config = load(None, None, None).unwrap();
        assert_eq!(config.tun, "gatereeve0");
        assert_eq!(config.listen, any(51_840));
        assert_eq!(config.operator, None);
        assert!(config.offload);
    }

    #[test]
    fn offloads_can_be_switched_off() {
        assert!(!load(Some("offload = false"), None, None).unwrap().offload);
    }

    #[test]
    fn the_cipher_can_be_the_librarys() {
        let cipher = |text: &str| load(Some(text), None, None).unwrap().cipher;
        assert_eq!(load(None, None, None).unwrap().cipher, Cipher::Auto);
        assert_eq!(cipher("cipher = \"auto\""), Cipher::Auto);
        assert_eq!(cipher("cipher = \"aws-lc\""), Cipher::AwsLc);
    }

    #[test]
    fn names_can_be_switched_off_and_shortened() {
        let names = |text: &str| load(Some(text), None, None).unwrap().names;
        assert_eq!(load(None, None, None).unwrap().names, Names::Whole);
        assert_eq!(names("names = false\nsearch = true"), Names::Off);
        assert_eq!(names("search = true"), Names::Search);
    }

    #[test]
    fn the_sandbox_can_be_switched_off() {
        assert!(load(None, None, None).unwrap().sandbox);
        assert!(!load(Some("sandbox = false"), None, None).unwrap().sandbox);
    }

    #[test]
    fn flags_go_over_the_file() {
        let file = "listen = 7000\ntun = \"gr1\"\noperator = \"root\"\noperator_group = \"root\"\n";
        let config = load(Some(file), None, None).unwrap();
        assert_eq!((config.tun.as_str(), config.operator), ("gr1", Some(0)));
        assert_eq!(config.listen, any(7000));
        assert_eq!(config.operator_group, Some(0));
        let config = load(Some(file), Some("gr2"), Some("192.0.2.7:9")).unwrap();
        assert_eq!(config.tun, "gr2");
        assert_eq!(
            config.listen,
            vec!["192.0.2.7:9".parse::<SocketAddr>().unwrap()]
        );
        let text = load(Some("listen = \"[2001:db8::1]:9\"\n"), None, None).unwrap();
        assert_eq!(
            text.listen,
            vec!["[2001:db8::1]:9".parse::<SocketAddr>().unwrap()]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let said = |file: &str| format!("{:#}", load(Some(file), None, None).unwrap_err());
        assert!(said("liste = 1").contains("unknown field `liste`"));
        assert!(said("listen = \"everywhere\"").contains("neither a port nor"));
        assert!(said("offload = \"maybe\"").contains("client.toml is not valid"));
        assert!(
            said("cipher = \"none\"")
                .contains("unknown variant `none`, expected `auto` or `aws-lc`")
        );
        assert!(said("listen = 70000").contains("client.toml is not valid"));
        assert!(said("operator = \"nobody-of-that-name\"").contains("no user"));
        assert!(said("operator_group = \"no-group-of-that-name\"").contains("no group"));
        assert!(said("tun = \"a/b\"").contains("no interface name"));
        assert!(load(None, Some("sixteen-letters-x"), None).is_err());
        assert!(load(None, None, Some("gatereeve")).is_err());
    }
}
