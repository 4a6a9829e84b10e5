//! What a daemon gives up of its process at its start.

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

/// Nothing of this process's memory goes into a core dump, and no other process of its user may read
/// it: private keys are in there. What it starts is not concerned.
///
/// # Errors
/// What the kernel says.
pub fn keep_memory_private() -> Result<(), Errno> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    prctl::set_dumpable(false)
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::getrlimit;

    use super::*;

    #[test]
    fn nothing_is_dumped_afterwards() {
        assert_eq!(prctl::get_dumpable(), Ok(true), "the control");
        keep_memory_private().unwrap();
        assert_eq!(prctl::get_dumpable(), Ok(false));
        assert_eq!(getrlimit(Resource::RLIMIT_CORE), Ok((0, 0)));
        // Twice is no error: both are given up for good.
        keep_memory_private().unwrap();
    }
}
