//! nebula, with an authority of its own, each host told where the other is, and no lighthouse.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use gatereeve_tests::clock::wait_for;
use gatereeve_tests::netns::links;

use super::{Guard, Running, TUNNEL_MTU, own_addresses};
use crate::pair::Pair;
use crate::tool::{Started, Tools};

const INTERFACE: &str = "nebula0";
const UNDERLAY_PORT: u16 = 4242;
const LIMIT: Duration = Duration::from_secs(10);

impl Guard for Started {
    fn last_words(&self) -> String {
        let text = self.written();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(8)..);
        tail.unwrap_or_default().join("\n")
    }
}

pub(super) fn start(
    nebula: &Path,
    cert: &Path,
    pair: &Pair,
    tools: &Tools,
) -> anyhow::Result<Running> {
    let directory = tools.scratch("nebula");
    std::fs::create_dir_all(&directory)?;
    let at = |name: &str| directory.join(name).to_string_lossy().into_owned();
    let issue = |arguments: &[&str]| tools.run(None, "nebula-cert", cert, arguments, LIMIT);
    let (authority, authority_key) = (at("ca.crt"), at("ca.key"));
    issue(&[
        "ca",
        "-name",
        "benchmark",
        "-out-crt",
        &authority,
        "-out-key",
        &authority_key,
    ])?;
    let (v4, _) = own_addresses();
    let mut started = Vec::new();
    for (number, host) in pair.hosts().into_iter().enumerate() {
        let name = format!("host{number}");
        let address = format!("{}/24", v4[number]);
        let (crt, key) = (at(&format!("{name}.crt")), at(&format!("{name}.key")));
        issue(&[
            "sign",
            "-ca-crt",
            &authority,
            "-ca-key",
            &authority_key,
            "-name",
            &name,
            "-ip",
            &address,
            "-out-crt",
            &crt,
            "-out-key",
            &key,
        ])?;
        let other = 1 - number;
        let text = config(
            [&authority, &crt, &key],
            v4[other],
            pair.hosts()[other].underlay.v4,
        );
        let file = at(&format!("{name}.yml"));
        std::fs::write(&file, text)?;
        let running = tools.start(Some(&host.namespace), "nebula", nebula, &["-config", &file])?;
        wait_for("nebula's interface", LIMIT, || {
            host.namespace
                .netlink(async |netlink| links::index(&netlink, INTERFACE).await)
                .map(Some)
        })
        .map_err(|error| error.context(running.last_words()))?;
        started.push(running);
    }
    Ok(Running {
        v4,
        v6: None,
        daemons: started.iter().map(|one| one.process.id()).collect(),
        guards: started
            .into_iter()
            .map(|one| Box::new(one) as Box<dyn Guard>)
            .collect(),
    })
}

fn config(files: [&str; 3], peer: Ipv4Addr, at: Ipv4Addr) -> String {
    let [authority, crt, key] = files;
    format!(
        "pki: {{ca: {authority}, cert: {crt}, key: {key}}}\n\
         static_host_map: {{\"{peer}\": [\"{at}:{UNDERLAY_PORT}\"]}}\n\
         lighthouse: {{am_lighthouse: false, hosts: []}}\n\
         listen: {{host: 0.0.0.0, port: {UNDERLAY_PORT}}}\n\
         tun: {{dev: {INTERFACE}, mtu: {TUNNEL_MTU}}}\n\
         logging: {{level: warning}}\n\
         firewall:\n  \
         outbound: [{{port: any, proto: any, host: any}}]\n  \
         inbound: [{{port: any, proto: any, host: any}}]\n"
    )
}
