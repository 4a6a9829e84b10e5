//! Landlock: which files, TCP ports and processes are in reach.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus,
    PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _,
    RulesetStatus, Scope,
};

/// The newest ABI whose rights are handled. What an older kernel does not know is left to the rest.
const NEWEST: ABI = ABI::V6;

/// What a process may do below a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// List directories.
    List,
    /// Read files and list directories.
    Read,
    /// Read, and make, write, rename and remove regular files and directories.
    Write,
    /// Make and remove Unix sockets.
    Sockets,
    /// Use a device.
    Device,
}

/// One path and what may be done there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// A directory, with all below it; or one file, where it is never replaced.
    pub path: PathBuf,
    /// What may be done.
    pub access: Access,
    /// Whether it is worth a word that it is not there.
    pub is_expected: bool,
}

/// All that is in reach; anything else is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    grants: Vec<Grant>,
}

impl Files {
    /// Nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// And this path, which should be there.
    #[must_use]
    pub fn allow(self, path: impl Into<PathBuf>, access: Access) -> Self {
        self.grant(path, access, true)
    }

    /// And this path, where it is there.
    #[must_use]
    pub fn allow_if_there(self, path: impl Into<PathBuf>, access: Access) -> Self {
        self.grant(path, access, false)
    }

    /// And what looking up users, groups and host names by the system's libraries takes.
    ///
    /// These files are replaced by rename, so that the directory would have to be granted. For root that is
    /// every secret in /etc, so root gets the files as they are now: what changes there later is not seen until
    /// the next start. Other users are kept from secrets by the files' modes.
    #[must_use]
    pub fn allow_look_ups(self, is_root: bool) -> Self {
        let etc: &[&str] = if is_root {
            &[
                "/etc/group",
                "/etc/hosts",
                "/etc/nsswitch.conf",
                "/etc/passwd",
                "/etc/resolv.conf",
                "/etc/gai.conf",
                "/etc/host.conf",
                "/etc/ld.so.cache",
                "/etc/localtime",
            ]
        } else {
            &["/etc"]
        };
        let others = [
            // Modules of the name service switch, loaded when they are first used.
            "/lib",
            "/lib64",
            "/usr/lib",
            "/usr/lib64",
            // Where /etc/resolv.conf leads to, and the sockets and caches of name services.
            "/run/systemd/resolve",
            "/run/systemd/userdb",
            "/run/NetworkManager",
            "/run/resolvconf",
            "/run/nscd",
            "/var/lib/sss",
        ];
        etc.iter().chain(&others).fold(self, |files, path| {
            files.allow_if_there(*path, Access::Read)
        })
    }

    fn grant(mut self, path: impl Into<PathBuf>, access: Access, is_expected: bool) -> Self {
        self.grants.push(Grant {
            path: path.into(),
            access,
            is_expected,
        });
        self
    }

    /// Puts it in force. The ABI, or why there is none.
    pub(super) fn restrict(&self, missing: &mut Vec<String>) -> Result<i32, String> {
        self.restricted(missing).map_err(|error| error.to_string())
    }

    fn restricted(&self, missing: &mut Vec<String>) -> Result<i32, Box<dyn std::error::Error>> {
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::BindTcp | AccessNet::ConnectTcp)?
            .scope(Scope::AbstractUnixSocket | Scope::Signal)?
            .create()?;
        for grant in &self.grants {
            ruleset = match PathFd::new(&grant.path) {
                Ok(fd) => add(ruleset, fd, grant)?,
                Err(error) => {
                    if grant.is_expected {
                        missing.push(format!(
                            "{} is out of reach until the next start: {error}",
                            grant.path.display()
                        ));
                    }
                    ruleset
                }
            };
        }
        let status = ruleset.restrict_self()?;
        let abi = match status.landlock {
            LandlockStatus::Available { effective_abi, .. } => effective_abi as i32,
            LandlockStatus::NotEnabled => {
                return Err("Landlock is not switched on in this kernel (lsm=)".into());
            }
            LandlockStatus::NotImplemented => return Err(
                    "this kernel has no Landlock, or the service manager's SystemCallFilter= does not let it be used".into()),
        };
        if status.ruleset == RulesetStatus::NotEnforced {
            return Err("the kernel does not put it in force".into());
        }
        let (rights, since) = match abi {
            ..3 => ("truncating files, TCP ports, devices and signals", "6.12"),
            3 => ("TCP ports, devices and signals", "6.12"),
            4 => ("devices and signals", "6.12"),
            5 => ("signals", "6.12"),
            _ => return Ok(abi),
        };
        missing.push(format!(
            "this kernel's Landlock (ABI {abi}) does not cover {rights}; Linux {since} does"
        ));
        Ok(abi)
    }
}

fn add(
    ruleset: RulesetCreated,
    fd: PathFd,
    grant: &Grant,
) -> Result<RulesetCreated, Box<dyn std::error::Error>> {
    let mut rights = grant.access.rights();
    if !is_directory(&grant.path) {
        rights &= AccessFs::from_file(NEWEST);
    }
    Ok(ruleset.add_rule(PathBeneath::new(fd, rights))?)
}

fn is_directory(path: &Path) -> bool {
    path.is_dir()
}

impl Access {
    fn rights(self) -> BitFlags<AccessFs> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        match self {
            Self::List => AccessFs::ReadDir.into(),
            Self::Read => read,
            Self::Write => {
                read | AccessFs::WriteFile
                    | AccessFs::Truncate
                    | AccessFs::MakeReg
                    | AccessFs::MakeDir
                    | AccessFs::RemoveFile
                    | AccessFs::RemoveDir
                    | AccessFs::Refer
            }
            Self::Sockets => AccessFs::MakeSock | AccessFs::RemoveFile,
            Self::Device => AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev,
        }
    }
}
