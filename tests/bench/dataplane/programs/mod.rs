//! The programs that are measured, and how each is set up on the two hosts.

mod ceiling;
mod gatereeve;
mod nebula;
mod wireguard;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use serde_json::Value;

use gatereeve_tests::binaries::{self, Binaries, Profile};
use gatereeve_tests::uapi::INTERFACE;

use crate::arguments::Arguments;
use crate::pair::Pair;
use crate::tool::Tools;

/// The port of all test traffic.
pub(crate) const PORT: u16 = 5201;
/// The MTU of every tunnel on a path of 1500.
const TUNNEL_MTU: u16 = 1420;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// This product: controller, two daemons, a policy
    Gatereeve,
    /// The same, with the library's cipher on whatever processor
    GatereeveAwsLc,
    /// wireguard-go of 2023 or later, with offloads, installed as `wireguard-go-new`
    WireguardGoNew,
    /// wireguard-go as the system's package has it
    WireguardGo,
    /// boringtun-cli
    Boringtun,
    /// gotatun
    Gotatun,
    /// nebula
    Nebula,
    /// The ceiling without a cipher
    CeilingNone,
    /// The ceiling with the library's cipher alone, on fixed keys
    CeilingCipher,
    /// The ceiling with boringtun's tunnel and the library's cipher
    CeilingTunn,
    /// The ceiling with boringtun's tunnel and the data path's own cipher
    CeilingTunnAvx512,
    /// The bare cable
    Veth,
}

impl Kind {
    /// What takes part unless told otherwise.
    pub(crate) const USUAL: [Self; 9] = [
        Self::Gatereeve,
        Self::WireguardGoNew,
        Self::WireguardGo,
        Self::Boringtun,
        Self::Gotatun,
        Self::Nebula,
        Self::CeilingTunn,
        Self::CeilingTunnAvx512,
        Self::Veth,
    ];

    /// Its name on the command line, in the table and in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gatereeve => "gatereeve",
            Self::GatereeveAwsLc => "gatereeve-aws-lc",
            Self::WireguardGoNew => "wireguard-go-new",
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun",
            Self::Gotatun => "gotatun",
            Self::Nebula => "nebula",
            Self::CeilingNone => "ceiling-none",
            Self::CeilingCipher => "ceiling-cipher",
            Self::CeilingTunn => "ceiling-tunn",
            Self::CeilingTunnAvx512 => "ceiling-tunn-avx512",
            Self::Veth => "veth",
        }
    }

    /// Whether it is somebody else's product: a candidate for "best peer".
    pub(crate) fn is_peer(self) -> bool {
        match self {
            Self::WireguardGoNew
            | Self::WireguardGo
            | Self::Boringtun
            | Self::Gotatun
            | Self::Nebula => true,
            Self::Gatereeve
            | Self::GatereeveAwsLc
            | Self::CeilingNone
            | Self::CeilingCipher
            | Self::CeilingTunn
            | Self::CeilingTunnAvx512
            | Self::Veth => false,
        }
    }

    /// The names of its program, and how to get it where there is none.
    fn installed_as(self) -> Option<(&'static [&'static str], &'static str)> {
        match self {
            Self::WireguardGoNew => Some((
                &["wireguard-go-new"],
                "take wireguard-go from Debian sid (`dpkg -x`) or `go install golang.zx2c4.com/wireguard@latest`, \
                 and put it on the PATH or in --tools as wireguard-go-new",
            )),
            Self::WireguardGo => Some((&["wireguard-go"], "apt-get install wireguard-go")),
            Self::Boringtun => Some((&["boringtun-cli"], "cargo install boringtun-cli")),
            Self::Gotatun => Some((&["gotatun"], "cargo install gotatun-cli")),
            Self::Nebula => Some((&["nebula"], "apt-get install nebula")),
            Self::Gatereeve
            | Self::GatereeveAwsLc
            | Self::CeilingNone
            | Self::CeilingCipher
            | Self::CeilingTunn
            | Self::CeilingTunnAvx512
            | Self::Veth => None,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A program that is there to be measured.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) kind: Kind,
    /// What it says of itself.
    pub(crate) version: String,
    parts: Parts,
}

#[derive(Clone, Debug)]
enum Parts {
    Gatereeve(Binaries),
    WireGuard {
        path: PathBuf,
        flags: &'static [&'static str],
    },
    Nebula {
        nebula: PathBuf,
        cert: PathBuf,
    },
    Ceiling {
        path: PathBuf,
        /// Which ceiling, and which cipher.
        modes: [&'static str; 2],
    },
    Nothing,
}

impl Program {
    /// Looks for it, and builds it where it is ours.
    ///
    /// # Errors
    /// How to get it.
    pub(crate) fn find(kind: Kind, arguments: &Arguments, tools: &Tools) -> anyhow::Result<Self> {
        let dir = arguments.bin_dir.as_deref();
        let path = || {
            let (names, hint) = kind.installed_as().context("nobody's program")?;
            tools.look(names).with_context(|| hint.to_owned())
        };
        let (parts, version) = match kind {
            Kind::Gatereeve | Kind::GatereeveAwsLc => {
                let binaries = match dir {
                    Some(dir) => Binaries::at(dir),
                    None => Binaries::build(Profile::Release)?,
                };
                let version = version(tools, &binaries.client, "--version")?;
                (Parts::Gatereeve(binaries), version)
            }
            Kind::WireguardGoNew | Kind::WireguardGo => {
                let path = path()?;
                let version = version(tools, &path, "--version")?;
                let flags = &["--foreground", INTERFACE];
                (Parts::WireGuard { path, flags }, version)
            }
            Kind::Boringtun | Kind::Gotatun => {
                let path = path()?;
                let version = version(tools, &path, "--version")?;
                // They would become a user that a user namespace does not have.
                let flags = &["--foreground", "--disable-drop-privileges", INTERFACE];
                (Parts::WireGuard { path, flags }, version)
            }
            Kind::Nebula => {
                let nebula = path()?;
                let cert = tools.look(&["nebula-cert"]);
                let cert = cert.context("nebula-cert, of the same package, is missing")?;
                let version = version(tools, &nebula, "-version")?;
                (Parts::Nebula { nebula, cert }, version)
            }
            Kind::CeilingNone => (ceiling(["none", "aws-lc"], dir)?, String::new()),
            Kind::CeilingCipher => (ceiling(["cipher", "aws-lc"], dir)?, String::new()),
            Kind::CeilingTunn => (ceiling(["tunn", "aws-lc"], dir)?, String::new()),
            Kind::CeilingTunnAvx512 => (ceiling(["tunn", "avx512"], dir)?, String::new()),
            Kind::Veth => (Parts::Nothing, String::new()),
        };
        Ok(Self {
            kind,
            version,
            parts,
        })
    }

    /// Whether there is anything to set up, or only the cable.
    pub(crate) fn has_daemons(&self) -> bool {
        self.kind != Kind::Veth
    }

    /// Sets it up on both hosts; when this returns, the first packet may be sent.
    ///
    /// # Errors
    /// Where it does not come up, with what it said.
    pub(crate) fn start(
        &self,
        pair: &Pair,
        arguments: &Arguments,
        tools: &Tools,
    ) -> anyhow::Result<Running> {
        match &self.parts {
            Parts::Gatereeve(binaries) => {
                let settings = if self.kind == Kind::GatereeveAwsLc {
                    "cipher = \"aws-lc\"\n"
                } else {
                    ""
                };
                gatereeve::start(binaries, settings, pair, arguments)
            }
            Parts::WireGuard { path, flags } => {
                wireguard::start(self.kind.name(), path, flags, pair, arguments)
            }
            Parts::Nebula { nebula, cert } => nebula::start(nebula, cert, pair, tools),
            Parts::Ceiling { path, modes } => ceiling::start(path, *modes, pair, tools),
            Parts::Nothing => Ok(Running {
                v4: pair.hosts().map(|host| host.underlay.v4),
                v6: Some(pair.hosts().map(|host| host.underlay.v6)),
                daemons: Vec::new(),
                guards: Vec::new(),
            }),
        }
    }
}

/// A program that is set up. Dropping it ends all of it.
pub(crate) struct Running {
    v4: [Ipv4Addr; 2],
    v6: Option<[Ipv6Addr; 2]>,
    /// The processes that carry packets.
    pub(crate) daemons: Vec<u32>,
    /// What has to live as long.
    guards: Vec<Box<dyn Guard>>,
}

/// Something that ends with its value, and can say what went wrong with it.
trait Guard: Sync {
    /// The last that it wrote.
    fn last_words(&self) -> String {
        String::new()
    }

    /// What it says of its own state.
    fn status(&self) -> Option<Value> {
        None
    }
}

impl Running {
    /// The tunnel's addresses, left and right.
    ///
    /// # Errors
    /// Where it has none of that family.
    pub(crate) fn addresses(&self, ipv6: bool) -> anyhow::Result<[IpAddr; 2]> {
        if ipv6 {
            let v6 = self.v6.context("it carries no IPv6")?;
            Ok(v6.map(IpAddr::V6))
        } else {
            Ok(self.v4.map(IpAddr::V4))
        }
    }

    /// What it says of its own state, where it says anything.
    pub(crate) fn status(&self) -> Option<Value> {
        self.guards.iter().find_map(|guard| guard.status())
    }

    /// The last that its processes wrote.
    pub(crate) fn last_words(&self) -> String {
        let words: Vec<String> = self.guards.iter().map(|guard| guard.last_words()).collect();
        words.join("\n").trim().to_owned()
    }
}

/// The ceiling in these modes, built where it is not at hand.
fn ceiling(modes: [&'static str; 2], dir: Option<&Path>) -> anyhow::Result<Parts> {
    let built = dir
        .iter()
        .flat_map(|dir| [dir.join("ceiling"), dir.join("examples/ceiling")])
        .find(|path| path.is_file());
    let path = match built {
        Some(path) => path,
        None => binaries::example("ceiling", Profile::Release)?,
    };
    Ok(Parts::Ceiling { path, modes })
}

/// The first line of what a program says of its version.
fn version(tools: &Tools, program: &Path, flag: &str) -> anyhow::Result<String> {
    let text = tools
        .start(None, "version", program, &[flag])?
        .finish(Duration::from_secs(10))?
        .text;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// The addresses of tunnels that do not choose their own.
fn own_addresses() -> ([Ipv4Addr; 2], [Ipv6Addr; 2]) {
    let v6 = |host| Ipv6Addr::new(0xfd98, 0, 0, 0, 0, 0, 0, host);
    (
        [Ipv4Addr::new(10, 98, 0, 1), Ipv4Addr::new(10, 98, 0, 2)],
        [v6(1), v6(2)],
    )
}
