//! A device that nothing allows learns nothing of the others.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, ensure};

use gatereeve_tests::clock::wait_for;
use gatereeve_tests::traffic::tcp::TcpSource;
use gatereeve_tests::world::device::WIREGUARD_PORT;
use gatereeve_tests::world::{DeviceHost, PATIENCE};

use crate::scene::{apply, open_pair, pair, wait_open, world};

/// Neither its state on disk nor any answer of its daemon holds a name, key, address or endpoint.
pub(crate) fn an_outsider_learns_nothing() -> anyhow::Result<()> {
    let mut world = world()?;
    let (client, server) = pair(&mut world)?;
    let outsider = world.device("outsider", &["--tag", "tag:outsider"])?;
    let _source = TcpSource::start(&server.namespace, 80)?;
    apply(&world, &open_pair())?;
    wait_open(&client, &server, 80)?;

    let about_server = traces(&world.controller.device("server")?, &server)?;
    // Positive control: the client does hold all of these.
    for trace in &about_server {
        // What only adds to the map is written a little later.
        wait_for(&format!("the client to hold {trace:?}"), PATIENCE, || {
            Ok(knows(&client, trace)?.then_some(()))
        })?;
    }
    let about_client = traces(&world.controller.device("client")?, &client)?;
    for trace in about_server.iter().chain(&about_client) {
        ensure!(!knows(&outsider, trace)?, "the outsider holds {trace:?}");
    }
    ensure!(outsider.peers()?.is_empty());
    ensure!(outsider.status()?.peers == 0);

    // A name that exists and one that does not get the same answer.
    let (real, invented) = (outsider.why("server:80")?, outsider.why("nobody:80")?);
    ensure!(!real.allowed && real.rule.is_none(), "{real:?}");
    ensure!(
        real.missing == invented.missing,
        "{real:?} but {invented:?}"
    );
    let address = server.addresses()?.v4.to_string();
    let whois = outsider.cli.run(&["whois", &address])?;
    ensure!(whois.status == Some(4), "{whois:?}");
    ensure!(client.cli.run(&["whois", &address])?.status == Some(0));
    Ok(())
}

/// A trace of a device: text that `peers` would show, or bytes that the state would hold.
///
/// Any of its forms gives the device away; a peer in use shows only the one endpoint that it is reached at.
#[derive(Debug)]
struct Trace(Vec<Vec<u8>>);

impl Trace {
    fn text(text: &str) -> Self {
        Self(vec![text.as_bytes().to_vec()])
    }
}

fn traces(
    view: &gatereeve_controller_core::command::DeviceView,
    device: &DeviceHost,
) -> anyhow::Result<Vec<Trace>> {
    let key = view.wg_key.as_deref().context("the device has a key")?;
    let key = gatereeve_shared::text::from_base64(key).context("base64")?;
    let (v4, v6) = (device.underlay.v4.into(), device.underlay.v6.into());
    let endpoints = [v4, v6].map(|ip| SocketAddr::new(ip, WIREGUARD_PORT).to_string());
    Ok(vec![
        Trace::text(&device.name),
        Trace::text(&view.id.to_string()),
        Trace(vec![gatereeve_shared::text::base64(&key).into_bytes(), key]),
        Trace::text(&device.addresses()?.v4.to_string()),
        Trace::text(&device.addresses()?.v6.to_string()),
        Trace(endpoints.map(String::into_bytes).to_vec()),
    ])
}

/// Whether a device's daemon shows `trace` or its files hold it, in any form that these take.
fn knows(device: &DeviceHost, trace: &Trace) -> anyhow::Result<bool> {
    let mut seen = Vec::new();
    for arguments in [["peers"], ["status"], ["posture"]] {
        seen.extend(device.cli.run(&arguments)?.stdout.into_bytes());
    }
    collect_files(&device.directory().join("state"), &mut seen)?;
    let holds = |form: &Vec<u8>| seen.windows(form.len()).any(|window| window == form);
    Ok(trace.0.iter().any(holds))
}

fn collect_files(directory: &Path, into: &mut Vec<u8>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            collect_files(&path, into)?;
        } else {
            into.extend(std::fs::read(&path)?);
        }
    }
    Ok(())
}
