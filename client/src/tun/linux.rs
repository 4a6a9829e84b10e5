//! `/dev/net/tun`: queues, with packets that are many in one where the kernel has them.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::uio::writev;
use nix::unistd::{read, write};
use tun_rs::{DeviceBuilder, SyncDevice};

use gatereeve_client_core::api::TunOffloads;
use gatereeve_client_core::datapath::{Batch, Joined, Outbox};
use gatereeve_client_core::packet::offload::{Offload, SegmentKind};

use super::join::Joining;
use super::steering::{Steering, UDP, mix};
use super::vnet::{self, HEADER};
use super::{Delivered, MTU, Tun, TunQueue};

/// Bytes that a batch should have at most before it is worked off, one packet more or less: three packets of bulk. They
/// stay in the cache until they are sent, and a packet of somebody else waits for them (`client/docs/data-path.md`).
const BATCH_BYTES: usize = 160 * 1024;
/// Where a packet begins in its buffer, behind its header: at a place that is aligned as well as the buffer's own.
const PACKET_AT: usize = 16;
/// Most pieces of one packet: both headers and what was joined to them.
const PIECES: usize = Joined::MAX_TAILS + 2;

/// Queues that each worker has. A flow keeps to one of them, so that a sparse flow waits behind a bulk one only
/// where they happen to share a queue: fair queueing by hash (McKenney 1990), done by the kernel.
const QUEUES_PER_WORKER: usize = 8;

const TCP: u8 = 6;

/// A TUN interface that lives as long as this value: when the process ends, however it does, the
/// interface goes, with its addresses and the routes through it.
#[derive(Debug)]
pub struct LinuxTun {
    name: String,
    index: u32,
    /// The worker with number `n` has those at `n`, `n + workers`, `n + 2 * workers` and so on.
    queues: Vec<Queue>,
    workers: usize,
    shared: Arc<Shared>,
    missing: Vec<String>,
}

/// What all queues have in common.
#[derive(Debug, Default)]
struct Shared {
    tso: bool,
    uso: bool,
    tcp: Joining,
    udp: Joining,
    fragments: Joining,
    steering: Steering,
    /// Packets with a header that is not known.
    unreadable: AtomicU64,
    /// Joined packets that the kernel did not understand.
    not_joined: AtomicU64,
}

struct Queue {
    device: SyncDevice,
    /// Where it is among all queues.
    position: usize,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl LinuxTun {
    /// Makes the interface `name`, down and without addresses, with queues for `workers` workers. With
    /// `offload` the kernel cuts and joins packets, as far as it can; what it cannot do is in [`Self::missing`].
    ///
    /// # Errors
    /// Where `/dev/net/tun` cannot be opened, the right (CAP_NET_ADMIN) is missing, or the name is taken.
    pub fn open(name: &str, workers: usize, offload: bool) -> Result<Self> {
        let mut missing = Vec::new();
        let workers = workers.max(1);
        let queues = workers.saturating_mul(QUEUES_PER_WORKER);
        let first = ensure_free(name)
            .and_then(|()| open_first(name, queues > 1, offload, &mut missing))
            .with_context(|| {
                format!("cannot make the TUN interface {name}; it takes CAP_NET_ADMIN, /dev/net/tun and a name that is free")
            })?;
        let index = if_nametoindex(name)
            .with_context(|| format!("the TUN interface {name} has gone at once"))?;
        let (tso, uso) = (first.tcp_gso(), first.udp_gso());
        if tso && !uso {
            missing.push("tun uso: the kernel does not have it (6.2 and later do)".to_owned());
        }
        let shared = Arc::new(Shared {
            tso,
            uso,
            udp: if uso {
                Joining::default()
            } else {
                Joining::refused()
            },
            fragments: if tso {
                Joining::default()
            } else {
                Joining::refused()
            },
            ..Shared::default()
        });
        let mut devices = vec![first];
        while devices.len() < queues {
            let Some(Ok(another)) = devices.first().map(SyncDevice::try_clone) else {
                break;
            };
            devices.push(another);
        }
        if devices.len() < queues {
            missing.push(format!(
                "tun queues: the kernel gives {} of {queues}",
                devices.len()
            ));
        }
        let mut all = Vec::with_capacity(devices.len());
        for (position, device) in devices.into_iter().enumerate() {
            device
                .set_nonblocking(true)
                .with_context(|| format!("cannot set up the TUN interface {name}"))?;
            all.push(Queue {
                device,
                position,
                shared: Arc::clone(&shared),
            });
        }
        Ok(Self {
            name: name.to_owned(),
            index,
            queues: all,
            workers,
            shared,
            missing,
        })
    }

    /// Whether the interface still has its name, in this network namespace: others can rename it, or move it away.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        match if_nametoindex(self.name.as_str()) {
            Ok(index) => index == self.index,
            Err(errno) => errno != Errno::ENODEV,
        }
    }

    /// The queues of `worker`.
    fn share(&self, worker: usize) -> impl ExactSizeIterator<Item = &Queue> {
        let from = if worker < self.workers {
            worker
        } else {
            usize::MAX
        };
        self.queues.iter().skip(from).step_by(self.workers)
    }

    /// As `worker` has to know of it, which wrote to the queue at `last` in the end.
    fn delivered(&self, worker: usize, refused: u64, last: Option<usize>) -> Delivered {
        let answers = last.and_then(|position| own_place(position, worker, self.workers));
        Delivered { refused, answers }
    }

    /// What of the kernel's help was asked for and is not used, and why.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let mut missing = self.missing.clone();
        let joining = [
            (self.shared.tso, &self.shared.tcp, "tcp"),
            (self.shared.uso, &self.shared.udp, "udp"),
            (self.shared.tso, &self.shared.fragments, "fragment"),
        ];
        for (is_there, joining, name) in joining {
            if is_there && !joining.is_on() {
                missing.push(format!("tun {name} joining: the kernel refuses it"));
            }
        }
        let refused = self.shared.not_joined.load(Ordering::Relaxed);
        if refused > 0 {
            missing.push(format!(
                "tun joining: {refused} joined packets went one by one"
            ));
        }
        missing
    }

    /// Packets lost between interface and data path, by reason.
    #[must_use]
    pub fn drops(&self) -> [(&'static str, u64); 1] {
        [(
            "tun_unreadable",
            self.shared.unreadable.load(Ordering::Relaxed),
        )]
    }
}

/// Which of the queues of `worker` the one at `position` among all is, if any.
fn own_place(position: usize, worker: usize, workers: usize) -> Option<usize> {
    let whose = position.checked_rem(workers)?;
    (whose == worker).then(|| position / workers)
}

/// A TUN interface of somebody else's with this name would be joined, not refused: packets would come to either
/// by chance.
fn ensure_free(name: &str) -> io::Result<()> {
    match if_nametoindex(name) {
        Ok(index) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("interface {index} has this name"),
        )),
        Err(_) => Ok(()),
    }
}

/// Opens the first queue with everything wanted, and with less where the kernel refuses that.
fn open_first(
    name: &str,
    multi_queue: bool,
    offload: bool,
    missing: &mut Vec<String>,
) -> io::Result<SyncDevice> {
    let open = |offload: bool, multi_queue: bool| {
        DeviceBuilder::new()
            .name(name)
            .mtu(u16::try_from(MTU).unwrap_or(u16::MAX))
            .enable(false)
            .offload(offload)
            .multi_queue(multi_queue)
            .build_sync()
    };
    let mut tries = vec![(offload, multi_queue)];
    tries.extend(multi_queue.then_some((offload, false)));
    tries.extend((offload && multi_queue).then_some((false, true)));
    tries.extend(offload.then_some((false, false)));
    let mut refusal = None;
    for (with_offload, with_queues) in tries {
        match open(with_offload, with_queues) {
            Ok(device) => {
                if let Some(why) = refusal {
                    if offload && !with_offload {
                        missing.push(format!("tun tso and uso: {why}"));
                    }
                    if multi_queue && !with_queues {
                        missing.push(format!("tun queues: {why}"));
                    }
                }
                return Ok(device);
            }
            // Only these can be about a flag that the kernel does not know.
            Err(error) if is_about_flags(&error) => {
                refusal.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(refusal.unwrap_or_else(|| io::Error::from(io::ErrorKind::InvalidInput)))
}

fn is_about_flags(error: &io::Error) -> bool {
    [Errno::EINVAL, Errno::EOPNOTSUPP, Errno::ENOTTY]
        .iter()
        .any(|errno| error.raw_os_error() == Some(*errno as i32))
}

impl Tun for LinuxTun {
    fn name(&self) -> &str {
        &self.name
    }

    fn queues(&self, worker: usize) -> Vec<&dyn TunQueue> {
        self.share(worker)
            .map(|queue| queue as &dyn TunQueue)
            .collect()
    }

    fn deliver(&self, worker: usize, outbox: &Outbox) -> Delivered {
        let share = self.share(worker).len();
        // Without queues of its own a worker writes to the first.
        let (first, share) = if share == 0 { (0, 1) } else { (worker, share) };
        // What a flow is answered by comes back by the queue that it was written to, which is one of this worker
        // but for UDP of which packets were read from another.
        let position_for = |packet: &[u8]| {
            self.shared.steering.queue_of(packet).unwrap_or_else(|| {
                let place = spread(packet) % share;
                first.saturating_add(place.saturating_mul(self.workers))
            })
        };
        if self.shared.tso
            && let Some(packet) = outbox.lone()
        {
            let position = position_for(packet.head);
            let queue = self.queues.get(position);
            let taken = queue.is_some_and(|queue| queue.write_packet(&packet).is_ok());
            return self.delivered(worker, u64::from(!taken), Some(position));
        }
        let last = Cell::new(None);
        let queue = |packet: &[u8]| {
            let position = position_for(packet);
            last.set(Some(position));
            self.queues.get(position)
        };
        // The interface takes a packet or drops it; waiting would hold up the packets behind.
        if !self.shared.tso {
            let refused = outbox.deliveries().filter(|packet| {
                let taken = queue(packet).is_some_and(|queue| write(&queue.device, packet).is_ok());
                !taken
            });
            let refused = refused.count() as u64;
            return self.delivered(worker, refused, last.get());
        }
        let mut refused = 0;
        let mut singles = outbox.deliveries();
        for packet in outbox.joined() {
            let singles = singles.by_ref().take(packet.count());
            refused += match queue(packet.head) {
                Some(queue) => queue.write_whole(&packet, singles),
                None => singles.count() as u64,
            };
        }
        self.delivered(worker, refused, last.get())
    }

    fn offloads(&self) -> TunOffloads {
        let Shared {
            tso, uso, tcp, udp, ..
        } = &*self.shared;
        TunOffloads {
            tso: *tso,
            uso: *uso,
            tcp_joining: *tso && tcp.is_on(),
            udp_joining: *uso && udp.is_on(),
            queues: self.queues.len(),
        }
    }
}

impl TunQueue for Queue {
    fn receive(&self, most: usize, batch: &mut Batch) -> io::Result<bool> {
        let (mut bytes, mut count) = (0, 0);
        while bytes < BATCH_BYTES && count < most {
            let Some(slot) = batch.slot() else { break };
            // In one piece: of several the kernel fills one after the other.
            let offset = if self.shared.tso {
                PACKET_AT - HEADER
            } else {
                0
            };
            let read = read(&self.device, slot.get_mut(offset..).unwrap_or_default());
            bytes += read.unwrap_or(0);
            count += 1;
            match read {
                Ok(len) if self.shared.tso => {
                    let header = slot.get(offset..).and_then(<[u8]>::first_chunk);
                    match (len.checked_sub(HEADER), header.and_then(vnet::decode)) {
                        (Some(len), Some(offload)) => {
                            self.remember(slot.get(PACKET_AT..).unwrap_or_default(), len);
                            batch.commit_offloaded(PACKET_AT, len, offload);
                        }
                        _ => {
                            self.shared.unreadable.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
                Ok(len) => {
                    self.remember(slot, len);
                    batch.commit(len, None);
                }
                Err(Errno::EAGAIN) => return Ok(false),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(true)
    }

    fn readable(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// A number that all packets of a flow have in common, from addresses and ports. Peers can have all their flows
/// get the same: they wait for each other then, and cost no more.
fn spread(packet: &[u8]) -> usize {
    let has_ports =
        |protocol: Option<&u8>| protocol.is_some_and(|number| [TCP, UDP].contains(number));
    let (addresses, ports) = match packet {
        // Whole, without options.
        [0x45, _, _, _, _, _, fragment, offset, ..] => {
            let is_whole = fragment & 0x3f == 0 && *offset == 0;
            let end = if is_whole && has_ports(packet.get(9)) {
                24
            } else {
                20
            };
            (12..20, 20..end)
        }
        [first, ..] if first >> 4 == 4 => (12..20, 20..20),
        _ => (8..40, 40..if has_ports(packet.get(6)) { 44 } else { 40 }),
    };
    let words = |range: std::ops::Range<usize>| {
        let bytes = packet.get(range).unwrap_or_default();
        bytes.as_chunks::<4>().0
    };
    let hash = words(addresses)
        .iter()
        .chain(words(ports))
        .fold(0_u64, |hash, word| mix(hash, u32::from_ne_bytes(*word)));
    usize::try_from(hash >> 40).unwrap_or(0)
}

/// What became of a packet that may be many in one.
enum Whole {
    Taken,
    Refused,
    /// The kernel does not take it in this form, or not now.
    NotUnderstood,
}

impl Queue {
    /// The first `len` bytes of `slot` are a packet that was read here.
    fn remember(&self, slot: &[u8], len: usize) {
        let packet = slot.get(..len).unwrap_or_default();
        self.shared.steering.read_by(self.position, packet);
    }

    /// Writes a packet that may be many in one; the same packets as `singles` where the kernel does not take it
    /// so. How many it did not take.
    fn write_whole<'a>(&self, packet: &Joined<'_>, singles: impl Iterator<Item = &'a [u8]>) -> u64 {
        let whole = self.write_joined(packet);
        let refused = singles.filter(|single| match whole {
            Whole::Taken => false,
            Whole::Refused => true,
            Whole::NotUnderstood => self.write(&Offload::default(), single, []).is_err(),
        });
        refused.count() as u64
    }

    fn write_joined(&self, packet: &Joined<'_>) -> Whole {
        let joining = packet.offload.segments.map(|segments| match segments.kind {
            SegmentKind::Tcp4 | SegmentKind::Tcp6 => &self.shared.tcp,
            SegmentKind::Udp => &self.shared.udp,
            SegmentKind::Fragments => &self.shared.fragments,
        });
        if joining.is_some_and(|joining| !joining.is_on()) {
            return Whole::NotUnderstood;
        }
        match (self.write_packet(packet), joining) {
            (Ok(()), None) => Whole::Taken,
            (Ok(()), Some(joining)) => {
                joining.taken();
                Whole::Taken
            }
            (Err(Errno::EINVAL), Some(joining)) => {
                self.shared.not_joined.fetch_add(1, Ordering::Relaxed);
                if joining.not_understood() {
                    tracing::info!(
                        segments = ?packet.offload.segments,
                        "the TUN interface does not take joined packets of this kind; it gets them one by one"
                    );
                }
                Whole::NotUnderstood
            }
            // No room for so much at once; there may be for less.
            (Err(Errno::ENOMEM), _) if packet.count() > 1 => Whole::NotUnderstood,
            (Err(_), _) => Whole::Refused,
        }
    }

    /// Writes a packet that may be many in one, as it is.
    fn write_packet(&self, packet: &Joined<'_>) -> Result<(), Errno> {
        // As what nothing was joined to is, as a rule: one copy for the kernel, and no list of pieces.
        match packet.behind_zeros(HEADER) {
            Some(whole) => write(&self.device, whole).map(drop),
            None => self.write(&packet.offload, packet.head, packet.tails()),
        }
    }

    /// Writes one packet, given in pieces, with its header.
    fn write<'a>(
        &self,
        offload: &Offload,
        head: &'a [u8],
        tails: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), Errno> {
        let header = vnet::encode(offload);
        let mut tails = tails.into_iter();
        let Some(first) = tails.next() else {
            // As most are: without a kilobyte of pieces that has to be filled first.
            let pieces = [IoSlice::new(&header), IoSlice::new(head)];
            return writev(&self.device, &pieces).map(drop);
        };
        let mut pieces = [IoSlice::new(&header); PIECES];
        let mut count = 1;
        for part in [head, first].into_iter().chain(tails) {
            let piece = pieces.get_mut(count).ok_or(Errno::EMSGSIZE)?;
            *piece = IoSlice::new(part);
            count += 1;
        }
        writev(&self.device, pieces.get(..count).unwrap_or_default()).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use gatereeve_runtime::words::in_words;

    use super::*;

    #[test]
    fn a_worker_knows_its_own_queues() {
        let queues = |worker| (0..5).map(move |position| own_place(position, worker, 2));
        assert!(queues(0).eq([Some(0), None, Some(1), None, Some(2)]));
        assert!(queues(1).eq([None, Some(0), None, Some(1), None]));
        // Without queues of its own it has no answers to look for.
        assert!(queues(2).eq([None; 5]));
        assert_eq!(own_place(0, 0, 0), None);
    }

    #[test]
    fn a_name_that_is_taken_is_refused_and_not_joined() {
        let refused = in_words(LinuxTun::open("lo", 1, true).unwrap_err());
        assert!(refused.contains("a name that is free"), "{refused}");
        assert!(refused.contains("interface 1 has this name"), "{refused}");
        assert!(ensure_free("no-such-name").is_ok());
    }
}
