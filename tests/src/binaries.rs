//! The two programs under test. Cargo builds a package's binaries only for its own tests, so the
//! harness asks cargo for them.

use std::path::PathBuf;
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
            let dir = PathBuf::from(dir);
            return Ok(Self {
                controller: dir.join("gatereeve-controller"),
                client: dir.join("gatereeve"),
            });
        }
        let cargo = std::env::var_os("CARGO")
            .or_else(|| option_env!("CARGO").map(Into::into))
            .unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .args([
                "build",
                "--bins",
                "--locked",
                "--message-format=json-render-diagnostics",
            ])
            .args(["-p", "gatereeve-controller", "-p", "gatereeve-client"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit());
        if profile == Profile::Demo {
            command.args(["--profile", "demo"]);
        }
        let output = command.output().context("run cargo")?;
        ensure!(output.status.success(), "cargo build failed");
        let find = |name: &str| {
            executable(&output.stdout, name).ok_or_else(|| anyhow!("cargo built no binary {name}"))
        };
        Ok(Self {
            controller: find("gatereeve-controller")?,
            client: find("gatereeve")?,
        })
    }
}

/// The executable of the binary target `name` in cargo's messages.
fn executable(messages: &[u8], name: &str) -> Option<PathBuf> {
    messages
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok())
        .find(|message| {
            message["reason"] == "compiler-artifact"
                && message["target"]["name"] == name
                && message["target"]["kind"][0] == "bin"
        })
        .and_then(|message| message["executable"].as_str().map(PathBuf::from))
}
