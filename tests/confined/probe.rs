//! Enters a daemon's own sandbox and tries one thing that it must not, or may. For the suite `netns`.
//!
//! `confined-probe ROLE DIRECTORY ATTEMPT` prints `done`, or the number of the error. ROLE is `client`,
//! `controller`, `collector`, or `nothing` for the control.

use std::fs;
use std::io::{self, IoSlice, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::libc;
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use nix::sys::socket::{
    AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockProtocol, SockType, SockaddrIn, sendmmsg,
    sendmsg, sendto, socket,
};
use nix::unistd::Pid;

use gatereeve_client::config as client;
use gatereeve_controller::config as controller;
use gatereeve_runtime::sandbox::{Access, Calls, Files, Sandbox};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, role, directory, attempt] = arguments.as_slice() else {
        say(
            &mut io::stderr(),
            "usage: confined-probe ROLE DIRECTORY ATTEMPT",
        );
        return ExitCode::from(2);
    };
    let directory = Path::new(directory);
    // Inside nobody may ask, or listen.
    let parent = Pid::parent();
    let listener = match TcpListener::bind("127.0.0.1:0") {
        Ok(listener) => listener,
        Err(error) => {
            say(&mut io::stderr(), &format!("cannot listen: {error}"));
            return ExitCode::FAILURE;
        }
    };
    if let Some(sandbox) = sandbox(role, directory) {
        let confinement = sandbox.enter();
        say(&mut io::stderr(), &format!("{confinement:?}"));
    }
    match attempted(attempt, directory, parent, &listener) {
        Ok(()) => say(&mut io::stdout(), "done"),
        Err(error) => {
            let number = error.raw_os_error().unwrap_or(-1).to_string();
            say(&mut io::stdout(), &number);
        }
    }
    ExitCode::SUCCESS
}

fn say(out: &mut impl io::Write, line: &str) {
    // Who listens may be gone.
    drop(writeln!(out, "{line}"));
}

fn sandbox(role: &str, directory: &Path) -> Option<Sandbox> {
    match role {
        "client" => {
            let config = client::Config {
                state_dir: directory.join("state"),
                config_dir: directory.join("config"),
                socket: directory.join("run/d.sock"),
                tun: "gatereeve0".into(),
                listen: Vec::new(),
                operator: None,
                operator_group: None,
                cipher: client::Cipher::Auto,
                offload: true,
                names: client::Names::Whole,
                posture_socket: PathBuf::new(),
                sandbox: true,
            };
            Some(gatereeve_client::daemon::confine::sandbox(
                &config,
                nix::unistd::geteuid().is_root(),
            ))
        }
        "controller" => {
            let config = controller::Config {
                state_dir: directory.join("state"),
                socket: directory.join("run/admin.sock"),
                admin_group: None,
                listen: Vec::new(),
                log_json: false,
                sandbox: true,
            };
            Some(gatereeve_controller::confine::sandbox(&config))
        }
        "collector" => Some(Sandbox {
            files: Files::none().allow(directory.join("config"), Access::Read),
            calls: Calls::Collector,
        }),
        _ => None,
    }
}

fn attempted(
    attempt: &str,
    directory: &Path,
    parent: Pid,
    listener: &TcpListener,
) -> io::Result<()> {
    let cloexec = SockFlag::SOCK_CLOEXEC;
    match attempt {
        "write-state" => fs::write(directory.join("state/file"), "x"),
        "rename-in-state" => {
            fs::write(directory.join("state/one"), "x")?;
            fs::rename(directory.join("state/one"), directory.join("state/two"))
        }
        "write-config" => fs::write(directory.join("config/file"), "x"),
        "write-elsewhere" => fs::write(directory.join("elsewhere/file"), "x"),
        "read-config" => fs::read(directory.join("config/there")).map(drop),
        "read-elsewhere" => fs::read(directory.join("elsewhere/there")).map(drop),
        "read-shadow" => fs::read("/etc/shadow").map(drop),
        "read-environment" => fs::read(format!("/proc/{parent}/environ")).map(drop),
        "execute" => {
            let arguments = [c"echo", c"done"];
            match nix::unistd::execv(c"/bin/echo", &arguments) {
                Ok(never) => match never {},
                Err(errno) => Err(errno.into()),
            }
        }
        "start-process" => Command::new("/bin/true").status().map(drop),
        "start-thread" => std::thread::Builder::new()
            .spawn(|| {})
            .map(|thread| drop(thread.join())),
        "udp-socket" => made(socket(
            AddressFamily::Inet,
            SockType::Datagram,
            cloexec,
            None,
        )),
        "packet-socket" => made(socket(AddressFamily::Packet, SockType::Raw, cloexec, None)),
        "raw-socket" => {
            let icmp = Some(SockProtocol::Icmp);
            made(socket(AddressFamily::Inet, SockType::Raw, cloexec, icmp))
        }
        "tcp-socket" => stream(libc::IPPROTO_TCP),
        "mptcp-socket" => stream(libc::IPPROTO_MPTCP),
        "connect-tcp" => TcpStream::connect(listener.local_addr()?).map(drop),
        "fast-open-sendto" | "fast-open-sendmsg" | "fast-open-sendmmsg" => {
            connect_by_sending(attempt, listener)
        }
        "send-datagram" => {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
            socket.send_to(b"x", socket.local_addr()?).map(drop)
        }
        "listen-on-any-tcp" => listen_unbound(),
        "listen-on-tcp" => TcpListener::bind("127.0.0.1:0").map(drop),
        // PTRACE_TRACEME is 0.
        "trace" => raw(libc::SYS_ptrace),
        "signal-others" => nix::sys::signal::kill(parent, None).map_err(io::Error::from),
        "unshare" => nix::sched::unshare(CloneFlags::CLONE_NEWUTS).map_err(io::Error::from),
        "enter-namespace" => {
            let own = fs::File::open("/proc/self/ns/uts")?;
            nix::sched::setns(own.as_fd(), CloneFlags::CLONE_NEWUTS).map_err(io::Error::from)
        }
        "mount" => {
            let nothing = None::<&str>;
            let target = &directory.join("elsewhere");
            let flags = MsFlags::empty();
            nix::mount::mount(Some("tmpfs"), target, Some("tmpfs"), flags, nothing)
                .and_then(|()| nix::mount::umount(target))
                .map_err(io::Error::from)
        }
        "become-another" => nix::unistd::setuid(nix::unistd::geteuid()).map_err(io::Error::from),
        "bpf" => raw(libc::SYS_bpf),
        "userfaultfd" => raw(libc::SYS_userfaultfd),
        "io_uring" => raw(libc::SYS_io_uring_setup),
        "keyctl" => raw(libc::SYS_keyctl),
        "perf" => raw(libc::SYS_perf_event_open),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn made(socket: nix::Result<std::os::fd::OwnedFd>) -> io::Result<()> {
    socket.map(drop).map_err(io::Error::from)
}

/// Sends to where nothing is connected to, with the flag that connects first. Done only if it really does.
fn connect_by_sending(call: &str, listener: &TcpListener) -> io::Result<()> {
    let flags = MsgFlags::from_bits_retain(libc::MSG_FASTOPEN);
    let SocketAddr::V4(target) = listener.local_addr()? else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let target = SockaddrIn::from(target);
    let cloexec = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Stream, cloexec, None)?;
    let number = socket.as_raw_fd();
    let content = [IoSlice::new(b"x")];
    match call {
        "fast-open-sendto" => sendto(number, b"x", &target, flags)?,
        "fast-open-sendmsg" => sendmsg(number, &content, &[], flags, Some(&target))?,
        _ => {
            let mut headers = MultiHeaders::preallocate(1, None);
            let slices = [content];
            let sent = sendmmsg(number, &mut headers, &slices, [Some(target)], [], flags)?;
            sent.count()
        }
    };
    let (mut taken, _) = listener.accept()?;
    taken.read_exact(&mut [0])
}

/// Listens at a port that the kernel chooses.
fn listen_unbound() -> io::Result<()> {
    let cloexec = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Stream, cloexec, None)?;
    nix::sys::socket::listen(&socket, nix::sys::socket::Backlog::new(1)?).map_err(io::Error::from)
}

/// A stream socket of IPv4 with that protocol.
fn stream(protocol: i32) -> io::Result<()> {
    #[expect(unsafe_code, reason = "nix does not know all protocols")]
    // SAFETY: numbers are all that is passed; the descriptor ends with the process, in a moment.
    let result = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, protocol) };
    Errno::result(result).map(drop).map_err(io::Error::from)
}

/// The call without arguments: where it is let through, the kernel finds fault with those.
fn raw(number: i64) -> io::Result<()> {
    #[expect(unsafe_code, reason = "there is no other way to make these calls")]
    // SAFETY: null pointers and zeros are all that is passed, so that nothing is read or written.
    let result = unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) };
    match Errno::result(result) {
        Ok(descriptor) => {
            // What came of it is no matter; the process ends in a moment.
            say(&mut io::stderr(), &format!("returned {descriptor}"));
            Ok(())
        }
        Err(Errno::EPERM) => Err(Errno::EPERM.into()),
        Err(errno) => {
            say(&mut io::stderr(), &format!("let through: {errno}"));
            Ok(())
        }
    }
}
