//! Netlink on Linux. Works in the network namespace that the daemon runs in.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context as _, Result, anyhow};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute};
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol};
use rtnetlink::packet_route::rule::RuleMessage;
use rtnetlink::{Handle, IpVersion, LinkUnspec};

use super::netlink::{Netlink, NetworkThread};
use super::route::{Route, Via};
use super::rule::Rule;
use super::{HostPlan, PROTOCOL, Place};

const EEXIST: i32 = 17;
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const EADDRNOTAVAIL: i32 = 99;

/// The host's network, through one netlink socket.
#[derive(Debug)]
pub struct HostNetwork {
    socket: Netlink,
    place: Place,
}

impl HostNetwork {
    /// Opens the netlink socket, served by `thread`.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub fn open(thread: &NetworkThread, place: Place) -> Result<Self> {
        let socket = Netlink::open(thread, &[])?;
        Ok(Self { socket, place })
    }

    /// Makes the host's network what `plan` says, whatever an earlier run left. What was added and removed, in
    /// words; nothing where all was as it should be.
    ///
    /// The fallback and the rules come first: from the first moment overlay traffic goes into the tunnel
    /// or nowhere.
    ///
    /// # Errors
    /// When the kernel refuses; what was done so far stays, and [`Self::remove`] takes it away.
    pub async fn apply(&self, plan: &HostPlan) -> Result<Vec<String>> {
        let is_usable = |destination: &IpNet| destination.addr().is_ipv4() || has_ipv6();
        let mut changes = Vec::new();
        let mut wanted = Route::lasting(plan);
        wanted.retain(|route| is_usable(&route.destination));
        let present = own_routes(&self.socket.handle).await?;
        let present: BTreeSet<Route> = present
            .into_iter()
            .filter(|(table, ..)| *table == self.place.table)
            .filter_map(|(_, route, _)| route)
            .collect();
        for route in &wanted {
            self.add_route(route, &present, &mut changes).await?;
        }
        let mut rules = Rule::wanted(self.place, plan);
        rules.retain(|rule| rule.to.or(rule.from).as_ref().is_none_or(is_usable));
        let listed = own_rules(&self.socket.handle).await?;
        for rule in rules
            .iter()
            .filter(|rule| !listed.iter().any(|(present, _)| present == *rule))
        {
            if self.add_rule(rule).await? {
                changes.push(format!("added rule {rule}"));
            }
        }
        self.remove_rules(&rules, &mut changes).await?;

        let index = self.link_index(&plan.tun).await?;
        self.set_interface(index, plan).await?;
        for route in Route::into_tunnel(plan, index) {
            // Where the host has switched IPv6 off on new interfaces, its overlay traffic stays unreachable.
            if route.destination.addr().is_ipv6() && !interface_has_ipv6(&plan.tun) {
                continue;
            }
            self.add_route(&route, &present, &mut changes).await?;
            wanted.push(route);
        }
        self.remove_routes(&wanted, &mut changes).await?;
        Ok(changes)
    }

    /// Brings the interface up with its addresses.
    async fn set_interface(&self, index: u32, plan: &HostPlan) -> Result<()> {
        self.stay_silent(index).await;
        let up = LinkUnspec::new_with_index(index).mtu(plan.mtu).up().build();
        settled(self.socket.handle.link().set(up).execute().await, &[])
            .with_context(|| format!("cannot bring {} up", plan.tun))?;
        let addresses = [
            (IpAddr::V4(plan.addresses.v4), 32),
            (IpAddr::V6(plan.addresses.v6), 128),
        ];
        for (address, length) in addresses {
            if address.is_ipv6() && !interface_has_ipv6(&plan.tun) {
                tracing::warn!(%address, interface = plan.tun, "IPv6 is switched off on this host; the overlay has IPv4 only");
                continue;
            }
            let request = self.socket.handle.address().add(index, address, length);
            settled(request.execute().await, &[EEXIST])
                .with_context(|| format!("cannot give {} the address {address}", plan.tun))?;
        }
        self.remove_addresses(index, plan).await
    }

    /// Sets how many packets a queue of the interface `tun` holds, and the longest packet that the host hands
    /// over whole.
    ///
    /// # Errors
    /// When the kernel refuses; older ones know no limits of this kind.
    pub async fn tune(&self, tun: &str, queue: u32, longest: Option<u32>) -> Result<()> {
        let index = self.link_index(tun).await?;
        let limits = [
            Some(LinkAttribute::TxQueueLen(queue)),
            longest.map(LinkAttribute::GsoMaxSize),
        ];
        for limit in limits.into_iter().flatten() {
            let set = LinkUnspec::new_with_index(index).append_extra_attribute(limit.clone());
            settled(
                self.socket.handle.link().set(set.build()).execute().await,
                &[],
            )
            .with_context(|| format!("cannot set {limit:?} of {tun}"))?;
        }
        Ok(())
    }

    /// Takes away every rule and route of ours, the fallback included; what was there, in words. Addresses go
    /// with the TUN device.
    ///
    /// # Errors
    /// When the kernel refuses, with what is left named.
    pub async fn remove(&self) -> Result<Vec<String>> {
        let mut changes = Vec::new();
        let rules = self.remove_rules(&[], &mut changes).await;
        let routes = self.remove_routes(&[], &mut changes).await;
        rules.and(routes).map(|()| changes)
    }

    /// Whether it was not there.
    async fn add_rule(&self, rule: &Rule) -> Result<bool> {
        let result = match rule.family() {
            IpVersion::V4 => {
                let mut request = self.socket.handle.rule().add().v4().priority(rule.priority);
                rule.fill(request.message_mut());
                request.execute().await
            }
            IpVersion::V6 => {
                let mut request = self.socket.handle.rule().add().v6().priority(rule.priority);
                rule.fill(request.message_mut());
                request.execute().await
            }
        };
        settled(result, &[EEXIST]).with_context(|| format!("cannot add the rule {rule}"))
    }

    /// Removes every rule of our place that is not one of `keep`.
    async fn remove_rules(&self, keep: &[Rule], changes: &mut Vec<String>) -> Result<()> {
        for (rule, message) in own_rules(&self.socket.handle).await? {
            if Place::of_priority(rule.priority) != Some(self.place) || keep.contains(&rule) {
                continue;
            }
            let deleted = self.socket.handle.rule().del(message).execute().await;
            if settled(deleted, &[ENOENT])
                .with_context(|| format!("cannot remove the rule {rule}"))?
            {
                changes.push(format!("removed rule {rule}"));
            }
        }
        Ok(())
    }

    /// Adds a route to our table, unless it is `present`.
    async fn add_route(
        &self,
        route: &Route,
        present: &BTreeSet<Route>,
        changes: &mut Vec<String>,
    ) -> Result<()> {
        let table = self.place.table;
        if present.contains(route) {
            return Ok(());
        }
        let message = route.message(table);
        let added = settled(
            self.socket.handle.route().add(message).execute().await,
            &[EEXIST],
        );
        match added {
            Ok(true) => changes.push(format!("added route {route} to table {table}")),
            Ok(false) => {}
            // The interface of a network of the host's may have gone a moment ago: the next look tells.
            Err(error) if matches!(route.via, Via::Local(..)) => {
                tracing::info!(%error, %route, "a network of the host is not let be yet");
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot add the route {route} to table {table}"));
            }
        }
        Ok(())
    }

    /// Removes every route of our table that is not one of `keep`.
    async fn remove_routes(&self, keep: &[Route], changes: &mut Vec<String>) -> Result<()> {
        let keep: BTreeSet<&Route> = keep.iter().collect();
        for (table, route, message) in own_routes(&self.socket.handle).await? {
            if table != self.place.table || route.as_ref().is_some_and(|route| keep.contains(route))
            {
                continue;
            }
            let shown = route.map_or_else(
                || format!("{:?}", super::route::destination_of(&message)),
                |route| route.to_string(),
            );
            let deleted = self.socket.handle.route().del(message).execute().await;
            if settled(deleted, &[ESRCH])
                .with_context(|| format!("cannot remove the route {shown} from table {table}"))?
            {
                changes.push(format!("removed route {shown} from table {table}"));
            }
        }
        Ok(())
    }

    /// Removes addresses of our interface that are not in the plan, link-local ones aside.
    async fn remove_addresses(&self, index: u32, plan: &HostPlan) -> Result<()> {
        let query = self
            .socket
            .handle
            .address()
            .get()
            .set_link_index_filter(index);
        for message in listed(query.execute()).await? {
            let Some(address) = super::interfaces::address_of(&message) else {
                continue;
            };
            let stays = match address {
                IpAddr::V4(v4) => v4 == plan.addresses.v4,
                IpAddr::V6(v6) => v6 == plan.addresses.v6 || v6.is_unicast_link_local(),
            };
            if message.header.index == index && !stays {
                settled(
                    self.socket.handle.address().del(message).execute().await,
                    &[EADDRNOTAVAIL],
                )
                .with_context(|| format!("cannot remove the address {address}"))?;
            }
        }
        Ok(())
    }

    /// Keeps the kernel from giving the interface a link-local address, and from soliciting routers with
    /// it: such packets have no place in the overlay.
    async fn stay_silent(&self, index: u32) {
        let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let attribute = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![none])]);
        let message = LinkUnspec::new_with_index(index)
            .append_extra_attribute(attribute)
            .build();
        if let Err(error) = self.socket.handle.link().set(message).execute().await {
            tracing::debug!(%error, "the interface gets a link-local address");
        }
    }

    async fn link_index(&self, name: &str) -> Result<u32> {
        let mut links = std::pin::pin!(
            self.socket
                .handle
                .link()
                .get()
                .match_name(name.to_owned())
                .execute()
        );
        let link = links
            .try_next()
            .await
            .map_err(|error| anyhow!("{error}"))
            .with_context(|| format!("there is no interface {name}"))?;
        link.map(|message| message.header.index)
            .with_context(|| format!("there is no interface {name}"))
    }
}

/// Whether the kernel speaks IPv6 at all.
fn has_ipv6() -> bool {
    std::path::Path::new("/proc/sys/net/ipv6").exists()
}

/// Whether IPv6 is on for the interface; one without the switch is taken to have it.
#[must_use]
pub fn interface_has_ipv6(name: &str) -> bool {
    let switch = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    has_ipv6() && std::fs::read_to_string(switch).map_or(true, |off| off.trim() != "1")
}

/// Every rule of ours on the host, at any place, with the message that names it.
pub(super) async fn own_rules(handle: &Handle) -> Result<Vec<(Rule, RuleMessage)>> {
    let mut found = Vec::new();
    for version in [IpVersion::V4, IpVersion::V6] {
        if matches!(version, IpVersion::V6) && !has_ipv6() {
            continue;
        }
        let rules = listed(handle.rule().get(version).execute()).await?;
        found.extend(
            rules
                .into_iter()
                .filter_map(|message| Rule::read(&message).map(|rule| (rule, message))),
        );
    }
    Ok(found)
}

/// A route of ours with its table; `None` where we would not write it so.
pub(super) type OwnRoute = (u32, Option<Route>, RouteMessage);

/// Every route of ours on the host, in any of our tables.
pub(super) async fn own_routes(handle: &Handle) -> Result<Vec<OwnRoute>> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut query = RouteMessage::default();
        query.header.address_family = family;
        query.header.protocol = RouteProtocol::Other(PROTOCOL);
        let mut routes = std::pin::pin!(handle.route().get(query).execute());
        // Not collected: a router has a million of others'.
        while let Some(message) = routes
            .try_next()
            .await
            .map_err(|error| anyhow!("netlink: {error}"))?
        {
            if let Some((table, route)) = Route::read(&message) {
                found.push((table, route, message));
            }
        }
    }
    Ok(found)
}

async fn listed<T>(items: impl Stream<Item = Result<T, rtnetlink::Error>>) -> Result<Vec<T>> {
    let items: Vec<_> = items.collect().await;
    items
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|error| anyhow!("netlink: {error}"))
}

/// Whether the kernel did it, or refused with one of `fine`.
fn settled(result: Result<(), rtnetlink::Error>, fine: &[i32]) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(rtnetlink::Error::NetlinkError(message)) if fine.contains(&-message.raw_code()) => {
            Ok(false)
        }
        Err(rtnetlink::Error::NetlinkError(message)) => Err(message.to_io().into()),
        Err(error) => Err(anyhow!("netlink: {error}")),
    }
}
