//! Names of devices: for those who may reach them, on their own host, for as long as the rule stands.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::ensure;

use gatereeve_tests::clock::wait_for;
use gatereeve_tests::traffic::dns::{Answer, Kind, ask};
use gatereeve_tests::traffic::sniff::Sniffer;
use gatereeve_tests::traffic::tcp::TcpSource;
use gatereeve_tests::world::DeviceHost;
use gatereeve_tests::world::host_state::ip;

use crate::scene::{LIMIT, QUIET, apply, open_pair, pair, rule, wait_open, world};

/// Where names are asked for.
const RESOLVER: &str = "100.64.0.0";

fn address(host: &DeviceHost, name: &str) -> anyhow::Result<Answer> {
    ask(&host.namespace, RESOLVER.parse()?, name, Kind::A, LIMIT)
}

fn v4(host: &DeviceHost) -> anyhow::Result<Answer> {
    Ok(Answer::Address(host.addresses()?.v4.into()))
}

fn reversed(host: &DeviceHost) -> anyhow::Result<String> {
    let [a, b, c, d] = host.addresses()?.v4.octets();
    Ok(format!("{d}.{c}.{b}.{a}.in-addr.arpa"))
}

/// A name is there while the rule is, for the side that may begin, and for nobody else; no question leaves the host.
pub(crate) fn a_name_is_had_by_who_may_use_it() -> anyhow::Result<()> {
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let sniffer = Sniffer::start(world.switch.namespace())?;
    let view = client.status()?.names;
    ensure!(
        view.as_ref()
            .is_some_and(|view| view.resolver.v4.to_string() == RESOLVER),
        "{view:?}"
    );
    let domain = view.map(|view| view.domain).unwrap_or_default();
    let name = |host: &str| format!("{host}.{domain}");
    ensure!(address(&client, &name("client"))? == v4(&client)?);
    ensure!(address(&client, &name("server"))? == Answer::NoName);
    ensure!(address(&client, &domain)? == Answer::Nothing);
    ensure!(address(&client, "www.example.com")? == Answer::Refused);
    ensure!(
        sniffer.handshakes() == 0 && sniffer.data() == 0,
        "somebody was asked"
    );

    apply(&world, &open_pair())?;
    ensure!(address(&client, &name("server"))? == v4(&server)?);
    let v6 = client
        .status()?
        .names
        .map(|view| IpAddr::V6(view.resolver.v6));
    let v6 = v6.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
    let answer = ask(&client.namespace, v6, &name("server"), Kind::Aaaa, LIMIT)?;
    ensure!(
        answer == Answer::Address(server.addresses()?.v6.into()),
        "{answer:?}"
    );
    // The server may not begin: it knows whom an address belongs to, and has nobody to call.
    ensure!(address(&server, &name("client"))? == Answer::NoName);
    let reverse = reversed(&client)?;
    let answer = ask(
        &server.namespace,
        RESOLVER.parse()?,
        &reverse,
        Kind::Ptr,
        LIMIT,
    )?;
    ensure!(answer == Answer::Name(name("client")), "{answer:?}");
    // And what it leads to is the server.
    let _source = TcpSource::start(&server.namespace, 80)?;
    wait_open(&client, &server, 80)?;

    apply(&world, &rule("tag:other", "tag:server", r#"["*"]"#, ""))?;
    ensure!(address(&client, &name("server"))? == Answer::NoName);
    let answer = ask(
        &client.namespace,
        RESOLVER.parse()?,
        &reversed(&server)?,
        Kind::Ptr,
        LIMIT,
    )?;
    ensure!(answer == Answer::NoName, "{answer:?}");
    Ok(())
}

/// Neighbours, and peers that may reach everything, ask in vain; a stopped daemon answers nobody.
pub(crate) fn nobody_else_asks() -> anyhow::Result<()> {
    let mut world = world()?;
    let (mut client, server) = pair(&mut world)?;
    apply(&world, &rule("tag:client", "tag:server", r#"["*"]"#, ""))?;
    let domain = client
        .status()?
        .names
        .map(|view| view.domain)
        .unwrap_or_default();
    let name = format!("server.{domain}");
    ensure!(address(&client, &name)? == v4(&server)?);
    // A machine without a tunnel on the same LAN, which sends what is for the overlay to the client.
    let (neighbour, _) = world.connect()?;
    let via = client.underlay.v4.to_string();
    ip(&neighbour, &["route", "add", "100.64.0.0/10", "via", &via])?;
    let asked = |patience| ask(&neighbour, RESOLVER.parse()?, &name, Kind::A, patience);
    let answer = asked(QUIET)?;
    ensure!(
        matches!(answer, Answer::Silence | Answer::Unreachable),
        "{answer:?}"
    );
    // Also where the host forwards for others.
    client
        .namespace
        .run(|| Ok(std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?))?;
    let answer = asked(QUIET)?;
    ensure!(
        matches!(answer, Answer::Silence | Answer::Unreachable),
        "{answer:?}"
    );
    ensure!(address(&client, &name)? == v4(&server)?);
    client.stop()?;
    wait_for("the end of names", Duration::from_secs(5), || {
        Ok((address(&client, &name)? == Answer::Unreachable).then_some(()))
    })
}
