//! Follows the host's network by netlink, without polling: what [`interfaces`](super::interfaces) reads, again at
//! every change that matters.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::{Stream, StreamExt as _};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::RouteMessage;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use gatereeve_shared::wire::map::OverlayPrefixes;

use super::changes::NetworkChanges;
use super::interfaces::{NetworkView, address_of, list, name_of};
use super::netlink::{Netlink, NetworkThread};
use super::overlap::overlapped;
use super::underlay::leads_far;
use super::{route, rule};

/// Changes come in bursts; one look after the burst is enough.
const BURST: Duration = Duration::from_millis(100);
/// Changes that are taken before others of this thread have a turn: on a router they come without end.
const TURN: u32 = 64;
/// Time before a look that failed is tried again, and before a watch that ended is begun again.
const AGAIN: Duration = Duration::from_secs(2);

/// What the kernel is to tell of.
const GROUPS: [MulticastGroup; 7] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

fn open(thread: &NetworkThread) -> Result<Netlink> {
    Netlink::open(thread, &GROUPS).context("cannot watch the interfaces")
}

/// Reads the host's network now and at every change that matters, until the receiver is dropped. Routes are
/// compared with what `overlay` holds; `tun` is the name of the interface that is ours.
///
/// # Errors
/// When the kernel gives no netlink socket or does not list what there is.
pub async fn watch(
    thread: &NetworkThread,
    tun: &str,
    mut overlay: watch::Receiver<Option<OverlayPrefixes>>,
    changes: Arc<NetworkChanges>,
) -> Result<watch::Receiver<NetworkView>> {
    let source = open(thread)?;
    let prefixes = *overlay.borrow_and_update();
    let view = list(&source.handle, prefixes).await?;
    Ok(begin(thread.clone(), source, view, tun, overlay, changes))
}

fn begin(
    thread: NetworkThread,
    mut source: Netlink,
    view: NetworkView,
    tun: &str,
    overlay: watch::Receiver<Option<OverlayPrefixes>>,
    changes: Arc<NetworkChanges>,
) -> watch::Receiver<NetworkView> {
    let (sender, receiver) = watch::channel(view);
    let mut watcher = Watcher {
        tun: tun.to_owned(),
        overlay,
        sender,
        disturbed: 0,
        taken: 0,
        changes,
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "ends when the receiver is dropped"
    )]
    tokio::spawn(async move {
        let mut wait = None;
        watcher.changes.note();
        while let Ended::Deaf = watcher.follow(&mut source, wait).await {
            watcher.changes.lost();
            tracing::warn!("the kernel does not tell of changes any more; asking it anew");
            source = loop {
                tokio::time::sleep(AGAIN).await;
                match open(&thread) {
                    Ok(source) => break source,
                    Err(error) => {
                        tracing::warn!(%error, "changes of this host's network go unnoticed");
                    }
                }
                if watcher.sender.is_closed() {
                    return;
                }
            };
            // Nobody knows what has happened meanwhile.
            watcher.changes.note();
            watcher.disturbed += 1;
            wait = Some(BURST);
        }
    });
    receiver
}

/// What the kernel tells of.
type Change = NetlinkPayload<RouteNetlinkMessage>;

/// Why the following of one socket has ended.
enum Ended {
    /// Nobody wants to know any more.
    Unwanted,
    /// The netlink socket is closed.
    Deaf,
}

struct Watcher {
    tun: String,
    overlay: watch::Receiver<Option<OverlayPrefixes>>,
    sender: watch::Sender<NetworkView>,
    disturbed: u64,
    /// Changes that were taken, in turns of [`TURN`].
    taken: u32,
    changes: Arc<NetworkChanges>,
}

/// However it ends, nobody tells of changes then.
impl Drop for Watcher {
    fn drop(&mut self) {
        self.changes.lost();
    }
}

impl Watcher {
    /// Looks at every change that matters; the first time after `wait`, where that is given.
    async fn follow(&mut self, source: &mut Netlink, mut wait: Option<Duration>) -> Ended {
        loop {
            // Not taken for seen: what came while the last look was under way calls for another.
            let prefixes = *self.overlay.borrow();
            if wait.is_none() {
                tokio::select! {
                    () = self.sender.closed() => return Ended::Unwanted,
                    change = source.changes.next() => match change {
                        Some(change) if self.matters(&change, prefixes.as_ref()) => {}
                        Some(_) => continue,
                        None => return Ended::Deaf,
                    },
                    told = self.overlay.changed() => if told.is_err() { return Ended::Unwanted },
                }
            }
            // Where routes come and go without end, what is left is seen after the look.
            let end = Instant::now() + wait.unwrap_or(BURST);
            let overlay = prefixes.as_ref();
            if self
                .hear(&mut source.changes, end, overlay)
                .await
                .is_break()
            {
                return Ended::Deaf;
            }
            if self.sender.is_closed() {
                return Ended::Unwanted;
            }
            let prefixes = *self.overlay.borrow_and_update();
            let look = list(&source.handle, prefixes);
            tokio::pin!(look);
            let mut comes_late = false;
            let found = loop {
                tokio::select! {
                    found = &mut look => break found,
                    change = source.changes.next() => match change {
                        Some(change) => comes_late |= self.take(&change, prefixes.as_ref()).await,
                        None => return Ended::Deaf,
                    },
                }
            };
            wait = match found {
                Ok(found) => {
                    self.tell(found);
                    comes_late.then_some(BURST)
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot list the interfaces; trying again");
                    Some(AGAIN)
                }
            };
        }
    }

    /// Takes note of changes until `end`.
    async fn hear(
        &mut self,
        changes: &mut (impl Stream<Item = Change> + Unpin),
        end: Instant,
        overlay: Option<&OverlayPrefixes>,
    ) -> ControlFlow<()> {
        // Asked each time: as long as there is a change, the time-out does not look at the clock.
        while Instant::now() < end
            && let Ok(change) = timeout_at(end, changes.next()).await
        {
            let Some(change) = change else {
                return ControlFlow::Break(());
            };
            self.take(&change, overlay).await;
        }
        ControlFlow::Continue(())
    }

    /// As [`Self::matters`], and lets others of this thread have their turn now and then.
    async fn take(&mut self, change: &Change, overlay: Option<&OverlayPrefixes>) -> bool {
        self.taken = self.taken.wrapping_add(1);
        if self.taken.is_multiple_of(TURN) {
            tokio::task::yield_now().await;
        }
        self.matters(change, overlay)
    }

    fn tell(&self, mut found: NetworkView) {
        found.disturbed = self.disturbed;
        self.sender.send_if_modified(|held| {
            let changed = *held != found;
            *held = found;
            changed
        });
    }

    /// Whether it is worth looking again after this notification. Counts those that something of ours is gone, or
    /// may be. Routes that have nothing to do with the overlay come in great numbers on some hosts.
    fn matters(&mut self, payload: &Change, overlay: Option<&OverlayPrefixes>) -> bool {
        self.changes.note();
        let overlaps = |message: &RouteMessage| {
            overlay
                .zip(route::destination_of(message))
                .is_some_and(|(overlay, network)| overlapped(overlay, network).is_some())
        };
        let is_inside =
            |address: &IpAddr| overlay.is_some_and(|overlay| overlay.contains(*address));
        // Our own interface, or one with a network within the overlay's range: routes of ours lead through no other.
        let has_routes = |link: &LinkMessage| {
            let held = self.sender.borrow();
            let is_this = |name: &str| name_of(link) == Some(name);
            is_this(&self.tun)
                || held
                    .addresses
                    .iter()
                    .any(|held| is_inside(&held.address) && is_this(&held.interface))
        };
        let NetlinkPayload::InnerMessage(message) = payload else {
            // The kernel had more to say than there was room for. What is lost may be about ours: look at everything.
            let is_overrun = matches!(payload, NetlinkPayload::Overrun(_));
            self.disturbed += u64::from(is_overrun);
            return is_overrun;
        };
        #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel's list is open")]
        let is_gone = match message {
            RouteNetlinkMessage::DelRule(gone) => rule::is_ours(gone),
            RouteNetlinkMessage::DelRoute(gone) => route::is_ours(gone),
            // With these the kernel takes IPv4 routes away and tells nobody. Where all is back before the next look,
            // that shows no difference.
            RouteNetlinkMessage::DelAddress(gone) => {
                address_of(gone).is_some_and(|address| is_inside(&address))
            }
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
                !link.header.flags.contains(LinkFlags::Up) && has_routes(link)
            }
            _ => false,
        };
        self.disturbed += u64::from(is_gone);
        #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel's list is open")]
        match message {
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                is_gone || leads_far(route) || (!route::is_ours(route) && overlaps(route))
            }
            // Of others they may lead elsewhere.
            RouteNetlinkMessage::NewRule(rule) | RouteNetlinkMessage::DelRule(rule) => {
                is_gone || !rule::is_ours(rule)
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
    use rtnetlink::packet_route::link::LinkAttribute;

    use super::super::interfaces::InterfaceAddress;
    use super::*;

    fn watcher(view: NetworkView) -> Watcher {
        Watcher {
            tun: "tun0".to_owned(),
            overlay: watch::channel(None).1,
            sender: watch::channel(view).0,
            disturbed: 0,
            taken: 0,
            changes: Arc::default(),
        }
    }

    #[test]
    fn what_was_lost_on_the_way_may_have_been_about_ours() {
        let mut watcher = watcher(NetworkView::default());
        let before = watcher.changes.now();
        assert!(watcher.matters(&NetlinkPayload::Overrun(Vec::new()), None));
        assert_ne!(watcher.changes.now(), before);
        assert_eq!(watcher.disturbed, 1);
        assert!(!watcher.matters(&NetlinkPayload::Noop, None));
        assert_eq!(watcher.disturbed, 1);
    }

    #[test]
    fn where_routes_go_in_silence_with_an_interface_or_an_address_they_are_looked_for() {
        let overlay = OverlayPrefixes {
            v4: "100.64.0.0/10".parse().unwrap(),
            v6: "fd12:3456:789a::/48".parse().unwrap(),
        };
        let held = |interface: &str, address: &str| InterfaceAddress {
            interface: interface.to_owned(),
            loopback: false,
            address: address.parse().unwrap(),
        };
        let mut watcher = watcher(NetworkView {
            // Ours has lost its addresses by the last view.
            addresses: vec![held("lan0", "100.64.7.1"), held("eth0", "192.0.2.1")],
            ..NetworkView::default()
        });
        let mut count = |message: RouteNetlinkMessage| {
            let before = watcher.disturbed;
            let payload = NetlinkPayload::InnerMessage(message);
            assert!(watcher.matters(&payload, Some(&overlay)), "it is looked at");
            watcher.disturbed - before
        };
        let link = |name: &str, flags| {
            let mut link = LinkMessage::default();
            link.header.flags = flags;
            link.attributes.push(LinkAttribute::IfName(name.to_owned()));
            link
        };
        let down = LinkFlags::empty();
        assert_eq!(count(RouteNetlinkMessage::NewLink(link("tun0", down))), 1);
        assert_eq!(count(RouteNetlinkMessage::DelLink(link("tun0", down))), 1);
        assert_eq!(count(RouteNetlinkMessage::NewLink(link("lan0", down))), 1);
        let up = LinkFlags::Up;
        assert_eq!(count(RouteNetlinkMessage::NewLink(link("tun0", up))), 0);
        assert_eq!(count(RouteNetlinkMessage::NewLink(link("eth0", down))), 0);
        let address = |address: &str| {
            let mut message = AddressMessage::default();
            let address = address.parse().unwrap();
            message.attributes.push(AddressAttribute::Local(address));
            message
        };
        let gone = |ip| RouteNetlinkMessage::DelAddress(address(ip));
        assert_eq!(count(gone("100.64.0.1")), 1);
        assert_eq!(count(gone("192.0.2.1")), 0);
        let new = RouteNetlinkMessage::NewAddress(address("100.64.0.1"));
        assert_eq!(count(new), 0);
    }

    /// On a router changes come without end.
    #[tokio::test]
    async fn what_comes_without_end_holds_up_neither_the_look_nor_others() {
        let mut watcher = watcher(NetworkView::default());
        let mut endless = futures_util::stream::repeat_with(|| Change::Noop);
        let end = Instant::now() + BURST;
        let heard = watcher.hear(&mut endless, end, None);
        // Which has its turn only where the other lets it.
        let heard = tokio::time::timeout(Duration::from_secs(30), heard).await;
        assert_eq!(heard, Ok(ControlFlow::Continue(())));
        assert!(watcher.taken > TURN);
        // Positive control: a stream that ends.
        let mut ended = futures_util::stream::empty();
        let end = Instant::now() + BURST;
        let heard = watcher.hear(&mut ended, end, None).await;
        assert_eq!(heard, ControlFlow::Break(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_ends_is_begun_again() {
        let thread = NetworkThread::start().unwrap();
        let source = open(&thread).unwrap();
        let (told, overlay) = watch::channel(None);
        let view = list(&source.handle, None).await.unwrap();
        source.cut();
        let changes = Arc::<NetworkChanges>::default();
        assert_eq!(changes.now(), None);
        let mut receiver = begin(thread, source, view, "tun0", overlay, Arc::clone(&changes));
        receiver.changed().await.unwrap();
        assert!(changes.now().is_some(), "others are told, too");
        assert_eq!(receiver.borrow_and_update().disturbed, 1);
        drop(told);
        assert!(receiver.changed().await.is_err(), "nobody asks any more");
        assert_eq!(changes.now(), None, "nor does anybody tell");
    }
}
