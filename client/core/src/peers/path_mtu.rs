//! How large a packet the path to a peer carries.

use std::net::SocketAddr;
use std::time::Duration;

use gatereeve_shared::time::Mono;

use crate::wg::{OVERHEAD, OVERLAY_MTU};

/// UDP header.
const UDP: usize = 8;
/// A path is believed to be narrow for so long, as Linux does by default (`net.ipv4.route.mtu_expires`).
const BELIEVED: Duration = Duration::from_secs(600);
/// The least packet that every path of IPv6 carries. A path that carries less than this with its headers is
/// sent datagrams in fragments; and who forges reports of narrow paths cannot make packets smaller.
const LEAST: usize = 1280;

/// What is known of one path. By default, as much as the overlay ever sends.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PathMtu(Option<Narrow>);

#[derive(Clone, Copy, Debug)]
struct Narrow {
    inner: usize,
    since: Mono,
}

impl PathMtu {
    /// The largest packet that goes through, before padding.
    pub(crate) fn inner(&self) -> usize {
        self.0.map_or(OVERLAY_MTU, |narrow| narrow.inner)
    }

    /// The path to `to` carries datagrams of `outer` bytes, IP header included.
    pub(crate) fn learn(&mut self, to: SocketAddr, outer: usize, now: Mono) {
        let ip = if to.is_ipv4() { 20 } else { 40 };
        // What is padded to 16 bytes must fit, too.
        let inner = outer.saturating_sub(ip + UDP + OVERHEAD) & !15;
        let inner = inner.max(LEAST);
        self.0 = (inner < OVERLAY_MTU).then_some(Narrow { inner, since: now });
    }

    /// When [`Self::forget`] will have something to forget.
    pub(crate) fn expires(&self) -> Option<Mono> {
        self.0.map(|narrow| narrow.since.saturating_add(BELIEVED))
    }

    /// A path that was narrow may have become wide again: the next packet that does not fit tells.
    pub(crate) fn forget(&mut self, now: Mono) {
        self.0 = self.0.filter(|narrow| now.since(narrow.since) < BELIEVED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_as_wide_as_was_learnt_for_ten_minutes() {
        let v4: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::1]:1".parse().unwrap();
        let mut path = PathMtu::default();
        assert_eq!(path.inner(), OVERLAY_MTU);
        path.learn(v4, 1400, Mono(0));
        // 1400 - 20 - 8 - 32, and room for padding.
        assert_eq!(path.inner(), 1328);
        path.learn(v6, 1400, Mono(0));
        assert_eq!(path.inner(), 1312);
        path.forget(Mono(599_000_000_000));
        assert_eq!(path.inner(), 1312);
        path.forget(Mono(600_000_000_000));
        assert_eq!(path.inner(), OVERLAY_MTU);
        path.learn(v4, 68, Mono(0));
        assert_eq!(path.inner(), LEAST, "nobody makes it useless");
        path.learn(v4, 9000, Mono(0));
        assert_eq!(path.inner(), OVERLAY_MTU);
    }
}
