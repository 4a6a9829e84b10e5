//! The filters, compiled and installed.

use std::collections::BTreeMap;
use std::io;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::{Calls, list};

/// The kind of a socket, without SOCK_CLOEXEC and SOCK_NONBLOCK.
const KIND: u64 = 0xf;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;
type Error = Box<dyn std::error::Error>;

/// Installs both filters; the later one's answer counts where both refuse.
pub(super) fn restrict(calls: Calls) -> Result<usize, String> {
    install(calls).map_err(|error| error.to_string())
}

fn install(calls: Calls) -> Result<usize, Error> {
    let allowed = allowed(calls)?;
    let count = allowed.len();
    let needed = SeccompFilter::new(
        allowed,
        errno(libc::ENOSYS),
        SeccompAction::Allow,
        architecture()?,
    )?;
    let forbidden = SeccompFilter::new(
        forbidden()?,
        SeccompAction::Allow,
        errno(libc::EPERM),
        architecture()?,
    )?;
    seccompiler::apply_filter_all_threads(&BpfProgram::try_from(needed)?)?;
    apply_and_log(&BpfProgram::try_from(forbidden)?)?;
    Ok(count)
}

fn errno(code: i32) -> SeccompAction {
    SeccompAction::Errno(code.unsigned_abs())
}

fn architecture() -> Result<TargetArch, Error> {
    Ok(std::env::consts::ARCH.try_into()?)
}

/// What is needed, with the sockets that `calls` may open.
fn allowed(calls: Calls) -> Result<Rules, Error> {
    let mut rules: Rules = list::NEEDED
        .iter()
        .map(|call| (*call, Vec::new()))
        .collect();
    let sockets = match calls {
        Calls::Collector => Vec::new(),
        Calls::Controller => vec![
            socket(libc::AF_UNIX, libc::SOCK_STREAM)?,
            socket(libc::AF_UNIX, libc::SOCK_DGRAM)?,
            socket(libc::AF_INET, libc::SOCK_DGRAM)?,
            socket(libc::AF_INET6, libc::SOCK_DGRAM)?,
        ],
        Calls::Client => vec![
            socket(libc::AF_UNIX, libc::SOCK_STREAM)?,
            socket(libc::AF_UNIX, libc::SOCK_DGRAM)?,
            socket(libc::AF_INET, libc::SOCK_DGRAM)?,
            socket(libc::AF_INET6, libc::SOCK_DGRAM)?,
            netlink(libc::NETLINK_ROUTE)?,
            netlink(libc::NETLINK_NETFILTER)?,
        ],
    };
    if !sockets.is_empty() {
        rules.insert(libc::SYS_socket, sockets);
    }
    Ok(rules)
}

/// What is refused by name, whoever asks.
fn forbidden() -> Result<Rules, Error> {
    let mut rules: Rules = list::FORBIDDEN
        .iter()
        .map(|call| (*call, Vec::new()))
        .collect();
    let raw = |family| {
        SeccompRule::new(vec![
            argument(0, SeccompCmpOp::Eq, number(family)?)?,
            argument(1, SeccompCmpOp::MaskedEq(KIND), number(libc::SOCK_RAW)?)?,
        ])
        .map_err(Error::from)
    };
    let packets = SeccompRule::new(vec![argument(
        0,
        SeccompCmpOp::Eq,
        number(libc::AF_PACKET)?,
    )?])?;
    rules.insert(
        libc::SYS_socket,
        vec![packets, raw(libc::AF_INET)?, raw(libc::AF_INET6)?],
    );
    // A thread is one; a process is none.
    let thread = number(libc::CLONE_THREAD)?;
    let process = SeccompRule::new(vec![argument(0, SeccompCmpOp::MaskedEq(thread), 0)?])?;
    rules.insert(libc::SYS_clone, vec![process]);
    Ok(rules)
}

fn socket(family: i32, kind: i32) -> Result<SeccompRule, Error> {
    Ok(SeccompRule::new(vec![
        argument(0, SeccompCmpOp::Eq, number(family)?)?,
        argument(1, SeccompCmpOp::MaskedEq(KIND), number(kind)?)?,
    ])?)
}

fn netlink(protocol: i32) -> Result<SeccompRule, Error> {
    Ok(SeccompRule::new(vec![
        argument(0, SeccompCmpOp::Eq, number(libc::AF_NETLINK)?)?,
        argument(2, SeccompCmpOp::Eq, number(protocol)?)?,
    ])?)
}

fn argument(index: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, Error> {
    Ok(SeccompCondition::new(
        index,
        SeccompCmpArgLen::Dword,
        operator,
        value,
    )?)
}

fn number(value: i32) -> Result<u64, Error> {
    Ok(u64::try_from(value)?)
}

/// Installs a filter on all threads whose refusals the kernel logs, where it can (Linux 4.14).
fn apply_and_log(program: &BpfProgram) -> Result<(), Error> {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len())?,
        // The kernel only reads it. Both types are the kernel's `struct sock_filter`.
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    let flags = libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_LOG;
    #[expect(unsafe_code, reason = "seccompiler does not pass the flag for the log")]
    // SAFETY: `filter` points to `len` instructions that live until the call returns; the kernel copies
    // them and keeps no pointer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const filter,
        )
    };
    match result {
        0 => Ok(()),
        _ if result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) => {
            seccompiler::apply_filter_all_threads(program).map_err(Error::from)
        }
        _ if result < 0 => Err(io::Error::last_os_error().into()),
        thread => Err(format!("thread {thread} cannot be filtered").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_compiles_and_nothing_is_both_needed_and_forbidden() {
        for calls in [Calls::Controller, Calls::Client, Calls::Collector] {
            let allowed = allowed(calls).unwrap();
            assert!(allowed.contains_key(&libc::SYS_read));
            let architecture = architecture().unwrap();
            let filter =
                SeccompFilter::new(allowed, errno(1), SeccompAction::Allow, architecture).unwrap();
            assert!(BpfProgram::try_from(filter).unwrap().len() < 4096);
        }
        for call in list::FORBIDDEN {
            assert!(!list::NEEDED.contains(call), "{call}");
        }
        let forbidden = forbidden().unwrap();
        assert!(forbidden.contains_key(&libc::SYS_execve));
        assert!(!forbidden.contains_key(&libc::SYS_read));
    }
}
