//! A path that becomes narrower while it is used.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMetric};
use rtnetlink::{LinkUnspec, RouteMessageBuilder};

use gatereeve_tests::netns::Namespace;
use gatereeve_tests::netns::links::{UNDERLAY_INTERFACE, index};
use gatereeve_tests::suite::Skip;
use gatereeve_tests::traffic::bulk::{bursts, exchange, exchange_and};
use gatereeve_tests::traffic::tcp::TcpSource;
use gatereeve_tests::traffic::trickle::Trickle;
use gatereeve_tests::world::device::TUN;
use gatereeve_tests::world::host_state::ip;
use gatereeve_tests::world::{DeviceHost, World, firewall};

use crate::scene::{apply, rule, wait_open, world};

/// How long nothing may come in the middle of a transfer.
const LIMIT: Duration = Duration::from_secs(20);
/// The same where nobody says so: a silence of 15 seconds or the next question after 10, the search, and the next retransmission.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where silence has no part in it: the question comes after ten seconds.
const SHORTER: Duration = Duration::from_secs(40);
/// A router that tells nobody what it cannot send on.
const SILENT: &str = "table ip silent { chain out { type filter hook output priority 0; policy accept; \
    icmp type destination-unreachable counter drop; }; }";
/// Bytes in each direction: more than pass before the path becomes narrow.
const BYTES: usize = 24 << 20;
/// What the path carries then, in bytes: enough for the least packet of IPv6 in a tunnel.
const NARROW: u32 = 1380;
/// Not enough for it.
const NARROWER: u32 = 1300;
/// From one sign of life to the next.
const PACE: Duration = Duration::from_millis(500);
/// The bit of `RouteMetric::Mtu` in `RouteMetric::Lock`.
const LOCK_MTU: u32 = 1 << 2;
const SIZES: [usize; 4] = [64, 1000, 1200, 1392];

/// Two devices with a router between them.
struct Scene {
    client: DeviceHost,
    server: DeviceHost,
    router: Namespace,
    _world: World,
}

impl Scene {
    fn new() -> anyhow::Result<Self> {
        let mut world = world()?;
        let (router, router_underlay) = world.connect()?;
        forward(&router)?;
        let client = behind(&mut world, "client", router_underlay.v4)?;
        let server = behind(&mut world, "server", router_underlay.v4)?;
        for (from, to) in [(&client, &server), (&server, &client)] {
            route(
                &from.namespace,
                to.underlay.v4,
                Some(router_underlay.v4),
                None,
            )?;
        }
        let ports = r#"["tcp:80-81", "udp:53"]"#;
        apply(&world, &rule("tag:client", "tag:server", ports, ""))?;
        let source = TcpSource::start(&server.namespace, 81)?;
        wait_open(&client, &server, 81)?;
        drop(source);
        Ok(Self {
            client,
            server,
            router,
            _world: world,
        })
    }

    /// The router drops what is longer than `carries` from now on.
    fn become_narrow(&self, carries: u32) -> anyhow::Result<()> {
        route(&self.router, self.server.underlay.v4, None, Some(carries))?;
        route(&self.router, self.client.underlay.v4, None, Some(carries))
    }

    /// A flow is open when the path becomes narrow, and others open later.
    fn flows_go_on(&self, carries: u32, limit: Duration) -> anyhow::Result<()> {
        let (client, server) = (&self.client.namespace, &self.server.namespace);
        let to = self.server.v4(80)?;
        // The control: as long as it is wide, nothing is too big.
        exchange(client, server, to, BYTES, limit)?;
        ensure!(too_long(&self.router)? == (0, 0));
        let narrows = || self.become_narrow(carries);
        exchange_and(client, server, to, BYTES, limit, narrows).context("a flow that was open")?;
        for to in [self.server.v4(80)?, self.server.v6(80)?] {
            exchange(client, server, to, BYTES / 8, limit).context("a flow that opens later")?;
        }
        self.was_narrow()
    }

    /// The router had to drop something, and was not left to cut it into fragments: much on the way drops those.
    fn was_narrow(&self) -> anyhow::Result<()> {
        let (dropped, cut) = too_long(&self.router)?;
        ensure!(dropped > 0, "the path was not narrow");
        ensure!(cut == 0, "the router made fragments of {cut} datagrams");
        Ok(())
    }
}

/// Open flows and new ones go on when a router in between starts to drop what is longer, and says so.
pub(crate) fn a_narrower_path_loses_no_flow() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    scene.flows_go_on(NARROW, LIMIT)?;
    let (client, server) = (&scene.client.namespace, &scene.server.namespace);
    for to in [scene.server.v4(53)?, scene.server.v6(53)?] {
        bursts(client, server, to, &SIZES, LIMIT)?;
    }
    Ok(())
}

/// The same on a path that does not carry the least packet: the devices send fragments.
pub(crate) fn a_path_below_the_least_packet_is_sent_fragments() -> anyhow::Result<()> {
    let scene = Scene::new()?;
    scene.flows_go_on(NARROWER, LIMIT)?;
    let (_, cut) = too_long(&scene.client.namespace)?;
    ensure!(cut > 0, "the client sent no fragments");
    Ok(())
}

/// The same where the router does not say so: the flow stands still until the devices have found out themselves.
pub(crate) fn a_path_that_drops_in_silence_is_found_out() -> anyhow::Result<()> {
    let scene = silent()?;
    scene.flows_go_on(NARROW, PATIENCE)?;
    had_to_say(&scene.router)
}

/// And where short packets get through all the time, so that the peer is never silent.
pub(crate) fn a_silent_hole_for_long_packets_alone_is_found_out() -> anyhow::Result<()> {
    let scene = silent()?;
    let (client, server) = (&scene.client.namespace, &scene.server.namespace);
    let to = scene.server.v4(80)?;
    exchange(client, server, to, BYTES, LIMIT)?;
    let life = Trickle::start(client, server, scene.server.v4(81)?, PACE, LIMIT)?;
    scene.become_narrow(NARROW)?;
    exchange(client, server, to, BYTES / 8, SHORTER)?;
    let life = life.tally();
    let (silence, _) = life.longest_silence;
    ensure!(life.ended.is_none() && silence < LIMIT / 4, "{life:?}");
    scene.was_narrow()?;
    had_to_say(&scene.router)
}

/// The interface has what fits into the host's way out, and follows it. So no packet of a connection is too long from the first one
/// on, also of what the other side sends, which does not know.
pub(crate) fn the_interface_follows_the_way_out() -> anyhow::Result<()> {
    let mut world = world()?;
    let server = world.device("server", &["--tag", "tag:server"])?;
    let mut client = world.host("client")?;
    set_mtu(&client.namespace, 1400)?;
    let invite = world.controller.cli.invite(&["--tag", "tag:client"])?;
    client.join(&invite)?;
    ensure!(
        (interface_mtu(&client)?, interface_mtu(&server)?) == (1312, 1420),
        "{:?}, {:?}",
        client.status()?.mtu,
        server.status()?.mtu
    );
    apply(
        &world,
        &rule("tag:client", "tag:server", r#"["tcp:80-81"]"#, ""),
    )?;
    let source = TcpSource::start(&server.namespace, 81)?;
    wait_open(&client, &server, 81)?;
    drop(source);
    let transfer = || {
        let (from, to) = (&client.namespace, &server.namespace);
        exchange(from, to, server.v4(80)?, BYTES, LIMIT)
    };
    transfer()?;
    for device in [&client, &server] {
        let drops = device.status()?.drops;
        ensure!(!drops.contains_key("too_big"), "{drops:?}");
    }
    // It changes while the device takes part: the link, and a default route that says less than its link.
    set_mtu(&client.namespace, 1500)?;
    client.wait_until("a wider interface", |status| status.mtu == Some(1420))?;
    ensure!(interface_mtu(&client)? == 1420);
    let router = server.underlay.v4;
    default_route(&client.namespace, router, 1380)?;
    client.wait_until("a narrower one", |status| status.mtu == Some(1296))?;
    ensure!(interface_mtu(&client)? == 1296);
    transfer()?;
    // Another program's table, as those of VPNs that take everything.
    let gateway = router.to_string();
    let route = [
        "route", "add", "default", "via", &gateway, "mtu", "1440", "table", "100",
    ];
    ip(&client.namespace, &route)?;
    ip(
        &client.namespace,
        &["rule", "add", "pref", "100", "lookup", "100"],
    )?;
    client.wait_until("what the other table's carries", |status| {
        status.mtu == Some(1360)
    })?;
    Ok(())
}

fn set_mtu(namespace: &Namespace, mtu: u32) -> anyhow::Result<()> {
    namespace.netlink(async |netlink| {
        let interface = index(&netlink, UNDERLAY_INTERFACE).await?;
        let link = LinkUnspec::new_with_index(interface).mtu(mtu).build();
        let set = netlink.link().set(link).execute().await;
        set.with_context(|| format!("an MTU of {mtu}"))
    })
}

fn default_route(from: &Namespace, gateway: Ipv4Addr, mtu: u32) -> anyhow::Result<()> {
    from.netlink(async |netlink| {
        let interface = index(&netlink, UNDERLAY_INTERFACE).await?;
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
            .output_interface(interface)
            .gateway(gateway)
            .build();
        let metrics = vec![RouteMetric::Mtu(mtu)];
        route.attributes.push(RouteAttribute::Metrics(metrics));
        let added = netlink.route().add(route).execute().await;
        added.context("a default route")
    })
}

/// What the kernel says, and `status` the same.
fn interface_mtu(device: &DeviceHost) -> anyhow::Result<u32> {
    let link = ip(&device.namespace, &["-o", "link", "show", TUN])?;
    let mut words = link.split_whitespace().skip_while(|word| *word != "mtu");
    let mtu = words.nth(1).with_context(|| link.clone())?.parse()?;
    ensure!(device.status()?.mtu == Some(mtu), "{mtu}");
    Ok(mtu)
}

/// Two devices, and a router between them that says nothing.
fn silent() -> anyhow::Result<Scene> {
    firewall::nft().ok_or_else(|| Skip("nft is not installed".into()))?;
    let scene = Scene::new()?;
    firewall::load(&scene.router, SILENT)?;
    Ok(scene)
}

/// The control: the router would have said something.
fn had_to_say(router: &Namespace) -> anyhow::Result<()> {
    let said = firewall::described(router)?;
    let packets = said.split("\"packets\": ").nth(1).context("no counter")?;
    ensure!(
        !packets.starts_with('0'),
        "the router had nothing to say: {said}"
    );
    Ok(())
}

/// A device that is reached over IPv4 only, where the routes are.
fn behind(world: &mut World, name: &str, router: Ipv4Addr) -> anyhow::Result<DeviceHost> {
    let mut device = world.host(name)?;
    device.namespace.run(|| {
        let path = format!("/proc/sys/net/ipv6/conf/{UNDERLAY_INTERFACE}/disable_ipv6");
        std::fs::write(&path, "1").context(path)
    })?;
    ensure!(router != device.underlay.v4);
    let tag = format!("tag:{name}");
    let invite = world.controller.cli.invite(&["--tag", &tag])?;
    device.join(&invite)?;
    Ok(device)
}

/// Makes a router, which does not tell its neighbours that they could do without it.
fn forward(router: &Namespace) -> anyhow::Result<()> {
    router.run(|| {
        let redirects = |scope: &str| format!("/proc/sys/net/ipv4/conf/{scope}/send_redirects");
        for (path, value) in [
            ("/proc/sys/net/ipv4/ip_forward".to_owned(), "1"),
            (redirects("all"), "0"),
            (redirects(UNDERLAY_INTERFACE), "0"),
        ] {
            std::fs::write(&path, value).context(path)?;
        }
        Ok(())
    })
}

/// A route to one host: through a gateway, or direct, carrying up to `mtu` bytes.
fn route(
    from: &Namespace,
    to: Ipv4Addr,
    gateway: Option<Ipv4Addr>,
    mtu: Option<u32>,
) -> anyhow::Result<()> {
    from.netlink(async |netlink| {
        let interface = index(&netlink, UNDERLAY_INTERFACE).await?;
        let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(to, 32)
            .output_interface(interface);
        if let Some(gateway) = gateway {
            route = route.gateway(gateway);
        }
        let mut route = route.build();
        if let Some(mtu) = mtu {
            let metrics = vec![RouteMetric::Lock(LOCK_MTU), RouteMetric::Mtu(mtu)];
            route.attributes.push(RouteAttribute::Metrics(metrics));
        }
        netlink
            .route()
            .add(route)
            .replace()
            .execute()
            .await
            .with_context(|| format!("a route to {to}"))
    })
}

/// Datagrams that were too long for their way on: those that were dropped, and their sender told, and those that were cut.
fn too_long(at: &Namespace) -> anyhow::Result<(u64, u64)> {
    at.run(|| {
        let counters = std::fs::read_to_string("/proc/thread-self/net/snmp")?;
        let mut lines = counters.lines().filter(|line| line.starts_with("Ip:"));
        let (names, values) = (
            lines.next().context("names")?,
            lines.next().context("values")?,
        );
        let counter = |name: &'static str| {
            let mut both = names.split_whitespace().zip(values.split_whitespace());
            let (_, value) = both.find(|(found, _)| *found == name).context(name)?;
            anyhow::Ok(value.parse()?)
        };
        Ok((counter("FragFails")?, counter("FragOKs")?))
    })
}
