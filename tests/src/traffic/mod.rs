//! Real traffic inside namespaces: sockets are opened in the namespace and stay there, whichever
//! thread uses them afterwards.

pub mod bulk;
pub mod dns;
pub mod handshakes;
pub mod icmp;
pub mod order;
pub mod probe;
pub mod sniff;
pub mod tcp;
pub mod trickle;
pub mod udp;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::Context as _;

use crate::netns::Namespace;

/// A socket in `namespace` that receives on `port`, both families.
fn udp_port(namespace: &Namespace, port: u16) -> anyhow::Result<UdpSocket> {
    namespace.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).context("bind a UDP port"))
}

/// A socket in `namespace` that can send to `to`.
fn udp_socket(namespace: &Namespace, to: SocketAddr) -> anyhow::Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    namespace.run(|| UdpSocket::bind(any).context("bind a UDP port"))
}

/// A thread that works until it is dropped.
#[derive(Debug)]
struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts `work`; it has to look at the flag several times a second.
    fn start(work: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || work(&flag));
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic was printed where it happened, and its counters stand still.
            drop(thread.join());
        }
    }
}

fn is_stopped(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed)
}
