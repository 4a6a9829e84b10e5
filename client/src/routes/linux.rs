//! Netlink on Linux. Works in the network namespace that the daemon runs in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, anyhow};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Handle, IpVersion, LinkUnspec, RouteMessageBuilder};

use super::{FWMARK, HostPlan, Place};

/// Metric of the route into the tunnel.
const TUNNEL_METRIC: u32 = 100;
/// Metric of the route that is left when the tunnel is gone.
const FALLBACK_METRIC: u32 = 4_000_000;
const EEXIST: i32 = 17;
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const EADDRNOTAVAIL: i32 = 99;

/// The host's network, through one netlink socket.
#[derive(Debug)]
pub struct HostNetwork {
    handle: Handle,
    place: Place,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for HostNetwork {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// One of our policy rules.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    priority: u32,
    from: Option<IpNet>,
    to: Option<IpNet>,
    mark: Option<u32>,
    /// `None` for a rule that answers "unreachable".
    table: Option<u32>,
}

impl HostNetwork {
    /// Opens the netlink socket; needs a tokio runtime.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub fn open(place: Place) -> Result<Self> {
        let (connection, handle, _) =
            rtnetlink::new_connection().context("cannot open a netlink socket")?;
        #[expect(clippy::disallowed_methods, reason = "aborted when this is dropped")]
        let connection = tokio::spawn(connection);
        Ok(Self {
            handle,
            place,
            connection,
        })
    }

    /// Makes the host's network what `plan` says, whatever an earlier run left.
    ///
    /// The fallback and the rules come first: from the first moment overlay traffic goes into the tunnel
    /// or nowhere.
    ///
    /// # Errors
    /// When the kernel refuses; what was done so far stays, and [`Self::remove`] takes it away.
    pub async fn apply(&self, plan: &HostPlan) -> Result<()> {
        let mut wanted_rules = self.rules_of(plan);
        let mut prefixes = vec![IpNet::V4(plan.prefixes.v4), IpNet::V6(plan.prefixes.v6)];
        if !has_ipv6() {
            wanted_rules.retain(|rule| matches!(rule.family(), IpVersion::V4));
            prefixes.retain(|prefix| prefix.addr().is_ipv4());
        }
        for prefix in prefixes.iter().copied() {
            self.add_route(prefix, None)
                .await
                .with_context(|| format!("cannot add the unreachable route for {prefix}"))?;
        }
        for rule in &wanted_rules {
            self.add_rule(rule).await?;
        }
        self.remove_rules(&wanted_rules).await?;

        let index = self.link_index(&plan.tun).await?;
        self.stay_silent(index).await;
        let up = LinkUnspec::new_with_index(index).mtu(plan.mtu).up().build();
        settled(self.handle.link().set(up).execute().await, &[])
            .with_context(|| format!("cannot bring {} up", plan.tun))?;
        let addresses = [
            (IpAddr::V4(plan.addresses.v4), 32),
            (IpAddr::V6(plan.addresses.v6), 128),
        ];
        // Where the host has switched IPv6 off on new interfaces, its overlay traffic stays unreachable.
        let usable = |is_ipv6: bool| !is_ipv6 || interface_has_ipv6(&plan.tun);
        for (address, length) in addresses {
            if !usable(address.is_ipv6()) {
                tracing::warn!(%address, interface = plan.tun, "IPv6 is switched off on this host; the overlay has IPv4 only");
                continue;
            }
            let request = self.handle.address().add(index, address, length);
            settled(request.execute().await, &[EEXIST])
                .with_context(|| format!("cannot give {} the address {address}", plan.tun))?;
        }
        self.remove_addresses(index, plan).await?;
        for prefix in prefixes {
            if !usable(prefix.addr().is_ipv6()) {
                continue;
            }
            self.add_route(prefix, Some(index))
                .await
                .with_context(|| format!("cannot route {prefix} into {}", plan.tun))?;
        }
        self.remove_routes(&[plan.prefixes.v4.into(), plan.prefixes.v6.into()])
            .await
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
            settled(self.handle.link().set(set.build()).execute().await, &[])
                .with_context(|| format!("cannot set {limit:?} of {tun}"))?;
        }
        Ok(())
    }

    /// Takes away every rule and route of ours, the fallback included. Addresses go with the TUN device.
    ///
    /// # Errors
    /// When the kernel refuses, with what is left named.
    pub async fn remove(&self) -> Result<()> {
        let rules = self.remove_rules(&[]).await;
        let routes = self.remove_routes(&[]).await;
        rules.and(routes)
    }

    fn rules_of(&self, plan: &HostPlan) -> Vec<Rule> {
        let Place { table, priority } = self.place;
        let families = [
            (IpNet::V4(plan.prefixes.v4), IpAddr::V4(plan.addresses.v4)),
            (IpNet::V6(plan.prefixes.v6), IpAddr::V6(plan.addresses.v6)),
        ];
        families
            .into_iter()
            .flat_map(|(prefix, own)| {
                let to = Some(prefix.trunc());
                [
                    Rule {
                        priority,
                        from: None,
                        to,
                        mark: Some(FWMARK),
                        table: Some(MAIN),
                    },
                    Rule {
                        priority: priority + 1,
                        from: None,
                        to,
                        mark: None,
                        table: Some(table),
                    },
                    Rule {
                        priority: priority + 2,
                        from: Some(IpNet::from(own)),
                        to: None,
                        mark: None,
                        table: None,
                    },
                ]
            })
            .collect()
    }

    async fn add_rule(&self, rule: &Rule) -> Result<()> {
        let result = match rule.family() {
            IpVersion::V4 => {
                let mut request = self.handle.rule().add().v4().priority(rule.priority);
                rule.fill(request.message_mut());
                request.execute().await
            }
            IpVersion::V6 => {
                let mut request = self.handle.rule().add().v6().priority(rule.priority);
                rule.fill(request.message_mut());
                request.execute().await
            }
        };
        settled(result, &[EEXIST]).with_context(|| format!("cannot add the rule {rule:?}"))
    }

    /// Removes every rule of our priorities that is not one of `keep`.
    async fn remove_rules(&self, keep: &[Rule]) -> Result<()> {
        let ours = self.place.priority..self.place.priority + 3;
        for version in [IpVersion::V4, IpVersion::V6] {
            if matches!(version, IpVersion::V6) && !has_ipv6() {
                continue;
            }
            let rules = listed(self.handle.rule().get(version).execute()).await?;
            for message in rules {
                let Some(rule) = Rule::read(&message).filter(|r| ours.contains(&r.priority)) else {
                    continue;
                };
                if !keep.contains(&rule) {
                    settled(self.handle.rule().del(message).execute().await, &[ENOENT])
                        .with_context(|| format!("cannot remove the rule {rule:?}"))?;
                }
            }
        }
        Ok(())
    }

    /// Adds a route for `prefix` to our table: through the interface, or `unreachable`.
    async fn add_route(&self, prefix: IpNet, interface: Option<u32>) -> Result<()> {
        let mut message = match prefix.trunc() {
            IpNet::V4(net) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(net.addr(), net.prefix_len())
                .build(),
            IpNet::V6(net) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(net.addr(), net.prefix_len())
                .build(),
        };
        message.header.table = 0;
        message
            .attributes
            .push(RouteAttribute::Table(self.place.table));
        match interface {
            Some(index) => {
                message.attributes.push(RouteAttribute::Oif(index));
                message
                    .attributes
                    .push(RouteAttribute::Priority(TUNNEL_METRIC));
                message.header.scope = rtnetlink::packet_route::route::RouteScope::Link;
            }
            None => {
                message.header.kind = RouteType::Unreachable;
                message
                    .attributes
                    .push(RouteAttribute::Priority(FALLBACK_METRIC));
            }
        }
        settled(self.handle.route().add(message).execute().await, &[EEXIST])
    }

    /// Removes every route of our table whose destination is not one of `keep`.
    async fn remove_routes(&self, keep: &[IpNet]) -> Result<()> {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RouteMessage::default();
            query.header.address_family = family;
            for message in listed(self.handle.route().get(query).execute()).await? {
                if table_of(&message) != self.place.table
                    || destination_of(&message).is_some_and(|net| keep.contains(&net))
                {
                    continue;
                }
                let shown = destination_of(&message);
                settled(self.handle.route().del(message).execute().await, &[ESRCH])
                    .with_context(|| format!("cannot remove the route {shown:?}"))?;
            }
        }
        Ok(())
    }

    /// Removes addresses of our interface that are not in the plan, link-local ones aside.
    async fn remove_addresses(&self, index: u32, plan: &HostPlan) -> Result<()> {
        let query = self.handle.address().get().set_link_index_filter(index);
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
                    self.handle.address().del(message).execute().await,
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
        if let Err(error) = self.handle.link().set(message).execute().await {
            tracing::debug!(%error, "the interface gets a link-local address");
        }
    }

    async fn link_index(&self, name: &str) -> Result<u32> {
        let mut links = std::pin::pin!(
            self.handle
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
fn interface_has_ipv6(name: &str) -> bool {
    let switch = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    has_ipv6() && std::fs::read_to_string(switch).map_or(true, |off| off.trim() != "1")
}

/// The table `main`.
const MAIN: u32 = 254;

impl Rule {
    fn family(&self) -> IpVersion {
        match self.to.or(self.from) {
            Some(IpNet::V6(_)) => IpVersion::V6,
            Some(IpNet::V4(_)) | None => IpVersion::V4,
        }
    }

    fn fill(&self, message: &mut RuleMessage) {
        if let Some(net) = self.from {
            message.header.src_len = net.prefix_len();
            message.attributes.push(RuleAttribute::Source(net.addr()));
        }
        if let Some(net) = self.to {
            message.header.dst_len = net.prefix_len();
            message
                .attributes
                .push(RuleAttribute::Destination(net.addr()));
        }
        if let Some(mark) = self.mark {
            message.attributes.push(RuleAttribute::FwMark(mark));
        }
        message.header.table = 0;
        match self.table {
            Some(table) => {
                message.header.action = RuleAction::ToTable;
                message.attributes.push(RuleAttribute::Table(table));
            }
            None => message.header.action = RuleAction::Unreachable,
        }
    }

    /// The rule as the kernel lists it; `None` for one that has no priority.
    fn read(message: &RuleMessage) -> Option<Self> {
        let mut rule = Self {
            priority: 0,
            from: None,
            to: None,
            mark: None,
            table: (message.header.action == RuleAction::ToTable)
                .then_some(u32::from(message.header.table)),
        };
        let mut table = None;
        for attribute in &message.attributes {
            #[expect(clippy::wildcard_enum_match_arm, reason = "the kernel's list is open")]
            match attribute {
                RuleAttribute::Priority(priority) => rule.priority = *priority,
                RuleAttribute::Source(address) => {
                    rule.from = IpNet::new(*address, message.header.src_len).ok();
                }
                RuleAttribute::Destination(address) => {
                    rule.to = IpNet::new(*address, message.header.dst_len).ok();
                }
                RuleAttribute::FwMark(mark) => rule.mark = Some(*mark),
                RuleAttribute::Table(number) => table = Some(*number),
                _ => {}
            }
        }
        if rule.table.is_some() {
            rule.table = table.or(rule.table);
        }
        (rule.priority != 0).then_some(rule)
    }
}

fn table_of(message: &RouteMessage) -> u32 {
    let attribute = message.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Table(table) = attribute {
            Some(*table)
        } else {
            None
        }
    });
    attribute.unwrap_or_else(|| u32::from(message.header.table))
}

fn destination_of(message: &RouteMessage) -> Option<IpNet> {
    let length = message.header.destination_prefix_length;
    message.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Destination(destination) = attribute {
            #[expect(
                clippy::wildcard_enum_match_arm,
                reason = "other families are not ours"
            )]
            match destination {
                RouteAddress::Inet(v4) => IpNet::new((*v4).into(), length).ok(),
                RouteAddress::Inet6(v6) => IpNet::new((*v6).into(), length).ok(),
                _ => None,
            }
        } else {
            None
        }
    })
}

async fn listed<T>(items: impl Stream<Item = Result<T, rtnetlink::Error>>) -> Result<Vec<T>> {
    let items: Vec<_> = items.collect().await;
    items
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|error| anyhow!("netlink: {error}"))
}

/// `Ok` where the kernel did it, or refused with one of `fine`.
fn settled(result: Result<(), rtnetlink::Error>, fine: &[i32]) -> Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(rtnetlink::Error::NetlinkError(message)) if fine.contains(&-message.raw_code()) => {
            Ok(())
        }
        Err(rtnetlink::Error::NetlinkError(message)) => Err(message.to_io().into()),
        Err(error) => Err(anyhow!("netlink: {error}")),
    }
}
