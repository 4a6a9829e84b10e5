//! The two hosts and the cable between them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use gatereeve_tests::netns::Namespace;
use gatereeve_tests::netns::links::{self, UNDERLAY_INTERFACE, UnderlayAddresses};
use gatereeve_tests::traffic::icmp;

use crate::arguments::{Arguments, Wire};
use crate::tool::Tools;

/// One end of the cable.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// Its namespace.
    pub(crate) namespace: Namespace,
    /// Its addresses on the cable.
    pub(crate) underlay: UnderlayAddresses,
}

/// Two fresh hosts; test traffic goes from the left one to the right one.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) left: Host,
    pub(crate) right: Host,
}

impl Pair {
    /// Makes them, with neighbours resolved: a cold start is to measure the program alone.
    pub(crate) fn new(arguments: &Arguments, tools: &Tools) -> anyhow::Result<Self> {
        let [left, right] = links::cable()?.map(|(namespace, underlay)| Host {
            namespace,
            underlay,
        });
        if let Some(name) = &arguments.congestion {
            for host in [&left, &right] {
                set_congestion_control(host, name)?;
            }
        }
        if let Some(gro) = match arguments.wire() {
            Wire::On => None,
            Wire::Gro => Some("on"),
            Wire::Off => Some("off"),
        } {
            let ethtool = tools.ethtool()?;
            for host in [&left, &right] {
                one_mtu_per_packet(tools, ethtool, host, gro)?;
            }
        }
        for (from, to) in [(&left, &right), (&right, &left)] {
            let to: Ipv4Addr = to.underlay.v4;
            let replies = icmp::ping(&from.namespace, IpAddr::V4(to), 1, Duration::from_secs(2))?;
            ensure!(replies == 1, "the cable carries nothing");
        }
        Ok(Self { left, right })
    }

    /// Both, left first.
    pub(crate) fn hosts(&self) -> [&Host; 2] {
        [&self.left, &self.right]
    }
}

fn set_congestion_control(host: &Host, name: &str) -> anyhow::Result<()> {
    const SYSCTL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
    host.namespace.run(|| {
        std::fs::write(SYSCTL, name).with_context(|| {
            let read = |what: &str| {
                let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/tcp_{what}_congestion_control"));
                text.unwrap_or_default().trim().to_owned()
            };
            format!(
                "--congestion {name}: this kernel has {}, and lets namespaces have {} (net.ipv4.tcp_allowed_congestion_control)",
                read("available"),
                read("allowed")
            )
        })
    })
}

fn one_mtu_per_packet(tools: &Tools, ethtool: &Path, host: &Host, gro: &str) -> anyhow::Result<()> {
    let arguments = [
        "-K",
        UNDERLAY_INTERFACE,
        "gso",
        "off",
        "tso",
        "off",
        "tx-udp-segmentation",
        "off",
        "gro",
        gro,
    ];
    tools
        .run(
            Some(&host.namespace),
            "ethtool",
            ethtool,
            &arguments,
            Duration::from_secs(10),
        )
        .map(drop)
        .context("switch the cable's offloads off")
}
