//! The two programs under test. Cargo builds a package's binaries only for its own tests, so the
//! harness asks cargo for them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, anyhow, ensure};

/// How the programs are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// As `cargo test` does.
    Dev,
    /// As `cargo demo` does: optimised.
    Demo,
    /// As it is shipped.
    Release,
}

impl Profile {
    /// Cargo's arguments for it.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Dev => &[],
            Self::Demo => &["--profile", "demo"],
            Self::Release => &["--release"],
        }
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `gatereeve-controller`.
    pub controller: PathBuf,
    /// `gatereeve`.
    pub client: PathBuf,
}

impl Binaries {
    /// Builds both, once for this process, or takes those in the directory `GATEREEVE_BIN_DIR`.
    ///
    /// # Errors
    /// Where cargo fails; its words go to standard error as they come.
    pub fn build(profile: Profile) -> anyhow::Result<Self> {
        static BUILT: Mutex<Option<(Profile, Binaries)>> = Mutex::new(None);
        let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        match &*built {
            Some((with, binaries)) if *with == profile => Ok(binaries.clone()),
            _ => {
                let binaries = Self::build_anew(profile)?;
                *built = Some((profile, binaries.clone()));
                Ok(binaries)
            }
        }
    }

    fn build_anew(profile: Profile) -> anyhow::Result<Self> {
        if let Some(dir) = std::env::var_os("GATEREEVE_BIN_DIR") {
            return Ok(Self::at(Path::new(&dir)));
        }
        // One after the other, as they are packaged: together each would have what the other needs of tokio.
        let build = |package: &str, name: &str| {
            let messages = cargo_build(profile, &["--bins", "-p", package])?;
            executable(&messages, name, "bin")
                .ok_or_else(|| anyhow!("cargo built no binary {name}"))
        };
        Ok(Self {
            controller: build("gatereeve-controller", "gatereeve-controller")?,
            client: build("gatereeve-client", "gatereeve")?,
        })
    }

    /// Those in a directory, built by somebody else.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self {
            controller: directory.join("gatereeve-controller"),
            client: directory.join("gatereeve"),
        }
    }
}

/// Builds an example of this package and says where it is.
///
/// # Errors
/// Where cargo fails; its words go to standard error as they come.
pub fn example(name: &str, profile: Profile) -> anyhow::Result<PathBuf> {
    let messages = cargo_build(profile, &["-p", env!("CARGO_PKG_NAME"), "--example", name])?;
    executable(&messages, name, "example").ok_or_else(|| anyhow!("cargo built no example {name}"))
}

/// Runs `cargo build` and returns its messages.
fn cargo_build(profile: Profile, what: &[&str]) -> anyhow::Result<Vec<u8>> {
    let cargo = std::env::var_os("CARGO")
        .or_else(|| option_env!("CARGO").map(Into::into))
        .unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "build",
            "--locked",
            "--message-format=json-render-diagnostics",
        ])
        .args(profile.arguments())
        .args(what)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("run cargo")?;
    ensure!(output.status.success(), "cargo build failed");
    Ok(output.stdout)
}

/// The executable of the target `name` of this kind in cargo's messages.
fn executable(messages: &[u8], name: &str, kind: &str) -> Option<PathBuf> {
    messages
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok())
        .find(|message| {
            message["reason"] == "compiler-artifact"
                && message["target"]["name"] == name
                && message["target"]["kind"][0] == kind
        })
        .and_then(|message| message["executable"].as_str().map(PathBuf::from))
}
