//! Bulk with contents that are checked to the last byte: TCP both ways at once, and bursts of UDP
//! datagrams of many sizes.

use std::collections::BTreeSet;
use std::io::{IoSlice, Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg, setsockopt, sockopt};

use super::{Worker, is_stopped, udp_port, udp_socket};
use crate::clock::Stopwatch;
use crate::netns::Namespace;
use crate::random::Random;

const POLL: Duration = Duration::from_millis(50);
/// Attempts to get every datagram of a burst through: UDP may lose some on a busy machine.
const ATTEMPTS: usize = 20;

/// Sends `bytes` bytes in each direction at once over one connection from `client` to `to` in `server`,
/// in writes of many sizes, and checks every byte at both ends.
///
/// # Errors
/// Where a byte is wrong or missing, or nothing comes for `limit`.
pub fn exchange(
    client: &Namespace,
    server: &Namespace,
    to: SocketAddr,
    bytes: usize,
    limit: Duration,
) -> anyhow::Result<()> {
    exchange_and(client, server, to, bytes, limit, || Ok(()))
}

/// The same, and does `midway` when half of what `client` sends is on its way.
///
/// # Errors
/// As [`exchange`], and where `midway` fails.
pub fn exchange_and(
    client: &Namespace,
    server: &Namespace,
    to: SocketAddr,
    bytes: usize,
    limit: Duration,
    midway: impl FnOnce() -> anyhow::Result<()> + Send,
) -> anyhow::Result<()> {
    let listener = server.run(|| {
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, to.port())).context("listen on a TCP port")
    })?;
    let near = client.run(|| {
        TcpStream::connect_timeout(&to, limit).with_context(|| format!("connect to {to}"))
    })?;
    let (far, _) = listener.accept()?;
    std::thread::scope(|scope| {
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(limit))?;
            stream.set_write_timeout(Some(limit))?;
        }
        let (near_writer, far_writer) = (near.try_clone()?, far.try_clone()?);
        let parts = [
            scope.spawn(move || send(near_writer, 1, bytes, midway)),
            scope.spawn(move || send(far_writer, 2, bytes, || Ok(()))),
            scope.spawn(move || check(near, 2, bytes)),
            scope.spawn(move || check(far, 1, bytes)),
        ];
        for part in parts {
            match part.join() {
                Ok(result) => result?,
                Err(_) => bail!("a thread of the exchange panicked"),
            }
        }
        Ok(())
    })
}

fn send(
    mut stream: TcpStream,
    seed: u64,
    bytes: usize,
    midway: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut midway = Some(midway);
    let mut contents = Contents::new(seed);
    let mut sizes = Random::new(seed ^ 0xffff);
    let mut buffer = vec![0; 200_000];
    let mut left = bytes;
    while left > 0 {
        if left <= bytes / 2
            && let Some(midway) = midway.take()
        {
            midway()?;
        }
        // Small ones leave segments that are not full, large ones many that are.
        let size = match sizes.below(3) {
            0 => 1 + sizes.below(100),
            1 => 1 + sizes.below(5_000),
            _ => 1 + sizes.below(200_000),
        };
        let chunk = size.min(left);
        let chunk = buffer.get_mut(..chunk).unwrap_or_default();
        contents.fill(chunk);
        stream.write_all(chunk).context("send")?;
        left -= chunk.len();
    }
    Ok(())
}

fn check(mut stream: TcpStream, seed: u64, bytes: usize) -> anyhow::Result<()> {
    let mut contents = Contents::new(seed);
    let (mut buffer, mut expected) = (vec![0; 100_000], vec![0; 100_000]);
    let mut got = 0;
    while got < bytes {
        let read = stream.read(&mut buffer).context("receive")?;
        ensure!(read > 0, "the connection ends after {got} bytes");
        let expected = expected.get_mut(..read).unwrap_or_default();
        contents.fill(expected);
        ensure!(
            buffer.get(..read) == Some(&*expected),
            "wrong bytes at {got}..{}",
            got + read
        );
        got += read;
    }
    Ok(())
}

/// Bytes that nothing but the same seed brings.
struct Contents {
    random: Random,
    word: [u8; 8],
    used: usize,
}

impl Contents {
    fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            word: [0; 8],
            used: 8,
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.used == self.word.len() {
                self.word = self.random.next_u64().to_le_bytes();
                self.used = 0;
            }
            *byte = self.word.get(self.used).copied().unwrap_or_default();
            self.used += 1;
        }
    }
}

/// Sends bursts of equal datagrams, from `client` to `to` in `server` and back, as many as one system call
/// takes: one burst for each of `sizes`, and a last datagram of half the size. All must come back as
/// they were sent.
///
/// # Errors
/// Where one comes back different, or not at all within `limit` and several attempts.
pub fn bursts(
    client: &Namespace,
    server: &Namespace,
    to: SocketAddr,
    sizes: &[usize],
    limit: Duration,
) -> anyhow::Result<()> {
    let echo = udp_port(server, to.port())?;
    echo.set_read_timeout(Some(POLL))?;
    setsockopt(&echo, sockopt::RcvBuf, &(4 << 20))?;
    let _echo = Worker::start(move |stop| {
        let mut buffer = [0; 65_536];
        while !is_stopped(stop) {
            if let Ok((length, from)) = echo.recv_from(&mut buffer) {
                // What is lost is sent again.
                drop(echo.send_to(buffer.get(..length).unwrap_or_default(), from));
            }
        }
    });
    let socket = udp_socket(client, to)?;
    socket.set_read_timeout(Some(POLL))?;
    setsockopt(&socket, sockopt::RcvBuf, &(4 << 20))?;
    for size in sizes {
        burst(&socket, to, *size, limit).with_context(|| format!("{size} bytes to {to}"))?;
    }
    Ok(())
}

fn burst(socket: &UdpSocket, to: SocketAddr, size: usize, limit: Duration) -> anyhow::Result<()> {
    let count = (60_000 / size.max(1)).clamp(1, 40);
    let mut bytes = vec![0; count * size + size / 2];
    Contents::new(size as u64).fill(&mut bytes);
    let sent: Vec<&[u8]> = bytes.chunks(size).collect();
    let mut missing: BTreeSet<&[u8]> = sent.iter().copied().collect();
    let segment = u16::try_from(size)?;
    let mut buffer = vec![0; 65_536];
    for _ in 0..ATTEMPTS {
        let control = [ControlMessage::UdpGsoSegments(&segment)];
        // One datagram, or one that has to be fragmented, is no burst to the kernel.
        if sent.len() > 1 && size <= 1_300 {
            let slices = [IoSlice::new(&bytes)];
            let to = SockaddrStorage::from(to);
            sendmsg(
                socket.as_raw_fd(),
                &slices,
                &control,
                MsgFlags::empty(),
                Some(&to),
            )
            .context("send a burst")?;
        } else {
            for datagram in &sent {
                socket.send_to(datagram, to)?;
            }
        }
        let watch = Stopwatch::start();
        while !missing.is_empty() && !watch.is_past(limit / 10) {
            let Ok(length) = socket.recv(&mut buffer) else {
                continue;
            };
            let datagram = buffer.get(..length).unwrap_or_default();
            ensure!(
                sent.contains(&datagram),
                "a datagram of {length} bytes that was not sent"
            );
            missing.remove(datagram);
        }
        if missing.is_empty() {
            // Answers to what was sent twice must not be taken for the next burst's.
            while socket.recv(&mut buffer).is_ok() {}
            return Ok(());
        }
    }
    bail!(
        "{} of {} datagrams never came back",
        missing.len(),
        sent.len()
    )
}
