//! A host's network as other programs see it, and other programs' marks on it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::firewall;
use crate::cli;
use crate::clock::wait_for;
use crate::netns::Namespace;
use crate::process::{self, Setting};
use crate::suite::Skip;
use crate::uapi::{self, UserspaceWireGuard};

/// Of `ip -j`: everything that a VPN client could change.
const QUESTIONS: [&[&str]; 6] = [
    &["-j", "-4", "rule"],
    &["-j", "-6", "rule"],
    &["-j", "-4", "route", "show", "table", "all"],
    &["-j", "-6", "route", "show", "table", "all"],
    &["-j", "address"],
    &["-j", "link"],
];

const LIMIT: Duration = Duration::from_secs(20);

/// The protocol number that our rules and routes carry, as `ip` prints it.
const OURS: &str = "82";

/// What the tools of the distribution say of a host, word for word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(Vec<(String, String)>);

impl Snapshot {
    /// What they say now.
    ///
    /// # Errors
    /// [`Skip`] where `ip` or `nft` is not installed; or what failed.
    pub fn take(namespace: &Namespace) -> anyhow::Result<Self> {
        let mut said = Vec::new();
        for question in QUESTIONS {
            said.push((question.join(" "), ip(namespace, question)?));
        }
        let rules = firewall::run(namespace, &["list", "ruleset"])?;
        said.push(("nft list ruleset".to_owned(), rules));
        // Absent is a state as well.
        let resolver = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        said.push(("/etc/resolv.conf".to_owned(), resolver));
        Ok(Self(said))
    }

    /// The same without rules and routes that carry our protocol number, and how many those are.
    ///
    /// # Errors
    /// Where `ip` printed no JSON.
    pub fn without_ours(&self) -> anyhow::Result<(Self, usize)> {
        let mut ours = 0;
        let mut said = Vec::new();
        for (question, text) in &self.0 {
            let is_list = question.contains("rule") || question.contains("route");
            if question.starts_with("-j") && is_list {
                let mut entries: Vec<Value> =
                    serde_json::from_str(text).with_context(|| format!("ip {question}: {text}"))?;
                let all = entries.len();
                entries.retain(|entry| entry["protocol"] != OURS);
                ours += all - entries.len();
                said.push((question.clone(), serde_json::to_string(&entries)?));
            } else {
                said.push((question.clone(), text.clone()));
            }
        }
        Ok((Self(said), ours))
    }

    /// Checks that it is the same as `before`, byte for byte.
    ///
    /// # Errors
    /// Names what differs.
    pub fn ensure_same(&self, before: &Self, when: &str) -> anyhow::Result<()> {
        for ((question, now), (_, then)) in self.0.iter().zip(&before.0) {
            ensure!(
                now == then,
                "{when}, {question} says\n{now}\nand said\n{then}"
            );
        }
        Ok(())
    }
}

/// Runs `ip` on a host.
///
/// # Errors
/// [`Skip`] where it is not installed; or its own words.
pub fn ip(namespace: &Namespace, arguments: &[&str]) -> anyhow::Result<String> {
    let program = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .ok_or_else(|| Skip("ip (iproute2) is not installed".to_owned()))?;
    let mut command = Command::new(program);
    command.args(arguments);
    let setting = Setting {
        namespace: Some(namespace.clone()),
        ..Setting::default()
    };
    process::prepare(&mut command, setting);
    let done = cli::run(command)?;
    if done.status != Some(0) {
        bail!("`{}`: {}", done.command, done.stderr);
    }
    Ok(done.stdout)
}

/// What other programs have set up on a host: rules at priorities beside ours and the same as ours, a route in
/// the table that we use, the rulesets of a host firewall and of a container engine with its bridge, and a VPN.
#[derive(Debug)]
pub struct Others {
    _vpn: UserspaceWireGuard,
}

impl Others {
    /// Sets all of it up.
    ///
    /// # Errors
    /// [`Skip`] where a program is not installed; or what failed.
    pub fn settle(namespace: &Namespace) -> anyhow::Result<Self> {
        let program = Path::new("/usr/bin/wireguard-go");
        if !program.exists() {
            return Err(Skip("wireguard-go is not installed".into()).into());
        }
        let arguments = ["--foreground", uapi::INTERFACE];
        let vpn = UserspaceWireGuard::start("wireguard-go", program, &arguments, namespace)?;
        for line in [
            "link add docker0 type bridge",
            "address add 172.17.0.1/16 dev docker0",
            "link set docker0 up",
            "address add 10.66.0.2/24 dev wg0",
            "link set wg0 up",
            "route add default dev wg0 table 51820",
            "rule add pref 32764 not fwmark 0xca6c lookup 51820",
            "rule add pref 32763 lookup main suppress_prefixlength 0",
            "rule add pref 5246 from 192.0.2.0/24 lookup 77",
            "rule add pref 5247 fwmark 0x1/0xff lookup 78",
            "rule add pref 5248 to 198.51.100.0/24 lookup 77",
            "rule add pref 5249 from 198.51.100.9 unreachable",
            "rule add pref 5250 to 203.0.113.0/24 lookup 77 protocol 83",
            "-6 rule add pref 5248 to 2001:db8:77::/48 lookup 77",
            "rule add pref 100 to 203.0.113.128/25 lookup 77 protocol 82",
            "route add 203.0.113.0/24 dev eth0 table 5247",
            "route add unreachable 203.0.113.0/24 table 77",
            "-6 route add unreachable 2001:db8:77::/48 table 5247",
        ] {
            ip(namespace, &line.split(' ').collect::<Vec<_>>())?;
        }
        firewall::run(namespace, &[RULESETS])?;
        // Carriers and link-local addresses come a moment later.
        let mut last = None;
        wait_for("the others to come to rest", LIMIT, || {
            std::thread::sleep(Duration::from_millis(300));
            let now = Snapshot::take(namespace)?;
            let is_same = last.as_ref() == Some(&now);
            last = Some(now);
            Ok(is_same.then_some(()))
        })?;
        Ok(Self { _vpn: vpn })
    }
}

/// What ufw, firewalld and Docker leave in the kernel, in small.
const RULESETS: &str = r#"
table ip filter {
  chain ufw-user-input { udp dport 51820 accept; tcp dport 22 accept; }
  chain INPUT {
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    iifname "gatereeve0" accept
    ct state established,related accept
    ip protocol icmp accept
    jump ufw-user-input
  }
  chain DOCKER-USER { return; }
  chain FORWARD {
    type filter hook forward priority filter; policy drop;
    jump DOCKER-USER
    iifname "docker0" oifname != "docker0" accept
  }
}
table ip nat {
  chain DOCKER { iifname "docker0" return; }
  chain POSTROUTING {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 172.17.0.0/16 oifname != "docker0" masquerade
  }
}
table inet firewalld {
  chain filter_INPUT {
    type filter hook input priority filter + 10; policy accept;
    ct state { established, related } accept
    ct state invalid drop
  }
  chain mangle_PREROUTING { type filter hook prerouting priority mangle + 10; policy accept; }
}
"#;
