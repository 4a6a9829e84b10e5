//! Asks the kernel for its ruleset.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use thiserror::Error;

use super::judge::{Chain, Ruleset};
use super::parse::{Message, messages};

/// Seconds to wait for the kernel's word.
const PATIENCE: i64 = 2;
/// Attempts to read a ruleset that changes meanwhile.
const ATTEMPTS: usize = 5;
/// Datagrams of one dump; the kernel fills each with what fits.
const MAX_DATAGRAMS: usize = 16_384;
/// Larger than the kernel makes them.
const BUFFER: usize = 64 * 1024;

const REQUEST: u16 = 0x1;
const DUMP: u16 = 0x300;
const SUBSYSTEM: u16 = 10 << 8;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const GET_RULE: u16 = SUBSYSTEM | 7;
const GET_GENERATION: u16 = SUBSYSTEM | 16;

/// Why there is no ruleset.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The kernel refuses, or does not answer.
    #[error("the kernel does not show its nftables ruleset: {why}{}", advice(why))]
    Refused {
        /// What the kernel says.
        why: io::Error,
    },
    /// It changed at every attempt.
    #[error("the nftables ruleset changes too fast to be read")]
    Unsteady,
    /// It is longer than anything that is read here.
    #[error("the nftables ruleset is too long to be read")]
    TooLong,
}

fn advice(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        "; the daemon needs CAP_NET_ADMIN"
    } else {
        ""
    }
}

/// The whole ruleset as it was at one moment.
pub(super) fn read() -> Result<Ruleset, ReadError> {
    let mut kernel = match Kernel::open() {
        Ok(kernel) => kernel,
        // A kernel without nftables has no rules.
        Err(Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT) => return Ok(Ruleset::default()),
        Err(errno) => return Err(ReadError::Refused { why: errno.into() }),
    };
    for _ in 0..ATTEMPTS {
        match kernel.read_once() {
            Ok(ruleset) => return Ok(ruleset),
            Err(Trouble::Changed) => {}
            Err(Trouble::NoNftables) => return Ok(Ruleset::default()),
            Err(Trouble::TooLong) => return Err(ReadError::TooLong),
            Err(Trouble::Refused(errno)) => return Err(ReadError::Refused { why: errno.into() }),
        }
    }
    Err(ReadError::Unsteady)
}

#[derive(Debug)]
enum Trouble {
    Changed,
    NoNftables,
    TooLong,
    Refused(Errno),
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno)
    }
}

struct Kernel {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Kernel {
    fn open() -> Result<Self, Errno> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE, 0))?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER],
        })
    }

    fn read_once(&mut self) -> Result<Ruleset, Trouble> {
        let before = self.generation()?;
        let mut ruleset = Ruleset::default();
        for message in self.ask(GET_TABLE, DUMP, 0, &[])? {
            if let Message::Table(table) = message {
                ruleset.tables.push(table);
            }
        }
        for message in self.ask(GET_CHAIN, DUMP, 0, &[])? {
            if let Message::Chain(chain) = message {
                ruleset.chains.push(chain);
            }
        }
        // The rules of other chains can be many, and say nothing here.
        for chain in ruleset.chains.iter().filter(|chain| chain.sees_input()) {
            for message in self.ask(GET_RULE, DUMP, chain.family, &place(chain))? {
                if let Message::Rule(rule) = message {
                    ruleset.rules.push(rule);
                }
            }
        }
        if self.generation()? == before {
            Ok(ruleset)
        } else {
            Err(Trouble::Changed)
        }
    }

    fn generation(&mut self) -> Result<u32, Trouble> {
        let answer = match self.ask(GET_GENERATION, 0, 0, &[]) {
            // What the kernel answers for a subsystem that it does not have.
            Err(Trouble::Refused(Errno::EINVAL | Errno::EOPNOTSUPP)) => {
                return Err(Trouble::NoNftables);
            }
            answer => answer?,
        };
        let found = answer.into_iter().find_map(|message| {
            if let Message::Generation(generation) = message {
                Some(generation)
            } else {
                None
            }
        });
        found.ok_or(Trouble::Refused(Errno::EPROTO))
    }

    /// One request, and everything that answers it.
    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        attributes: &[u8],
    ) -> Result<Vec<Message>, Trouble> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(kind, flags, self.sequence, family, attributes);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut answer = Vec::new();
        for _ in 0..MAX_DATAGRAMS {
            let length = match recv(
                self.socket.as_raw_fd(),
                &mut self.buffer,
                MsgFlags::MSG_TRUNC,
            ) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let bytes = self.buffer.get(..length).ok_or(Trouble::TooLong)?;
            let received = messages(bytes);
            // Answers to a request that was given up earlier.
            for received in received
                .into_iter()
                .filter(|received| received.sequence == self.sequence)
            {
                if received.is_interrupted {
                    return Err(Trouble::Changed);
                }
                match received.message {
                    Message::End(0) => return Ok(answer),
                    // A chain that went between the dumps.
                    Message::End(errno) if errno == Errno::ENOENT as i32 => {
                        return Err(Trouble::Changed);
                    }
                    Message::End(errno) if errno == Errno::EINTR as i32 => {
                        return Err(Trouble::Changed);
                    }
                    Message::End(errno) => return Err(Errno::from_raw(errno).into()),
                    message @ Message::Generation(_) => return Ok(vec![message]),
                    message @ (Message::Table(_)
                    | Message::Chain(_)
                    | Message::Rule(_)
                    | Message::Other) => answer.push(message),
                }
            }
        }
        Err(Trouble::TooLong)
    }
}

fn place(chain: &Chain) -> Vec<u8> {
    [attribute(1, &chain.table), attribute(2, &chain.name)].concat()
}

fn request(kind: u16, flags: u16, sequence: u32, family: u8, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(20 + attributes.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((REQUEST | flags).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend([family, 0, 0, 0]);
    bytes.extend(attributes);
    bytes
}

/// A name as an attribute.
fn attribute(kind: u16, name: &str) -> Vec<u8> {
    let length = u16::try_from(5 + name.len()).unwrap_or(u16::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(name.bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
