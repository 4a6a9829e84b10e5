//! The ceiling of a userspace tunnel: the least that a program can do that carries packets between
//! a TUN and a UDP socket with every offload there is, for two ends that know each other.
//!
//! ```text
//! ceiling none|cipher|tunn aws-lc|avx512 left|right ADDRESS/LEN MTU LISTEN:PORT PEER:PORT
//! ```
//!
//! `none` seals nothing, `cipher` uses the cipher on fixed keys and checks no replays, `tunn` is
//! boringtun's tunnel with handshake, replay window and timers. The cipher is the library's or, with
//! `avx512`, which needs a processor that has it, the data path's own. None of them filters, routes, asks a
//! controller or falls back where an offload is missing: it is what the data path is measured
//! against, and no program to use.

mod checksum;
mod cipher;
mod join;
mod link;
mod receive;
mod send;
mod super_packet;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tun_rs::DeviceBuilder;

use cipher::{Cipher, Side};
use gatereeve_cipher::{Implementation, implementation, use_aws_lc};
use link::Link;

const INTERFACE: &str = "ceiling0";
/// How often the tunnel's timers are looked after.
const TICK: Duration = Duration::from_millis(250);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "{error:?}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, cipher, side, address, mtu, listen, peer] = &arguments[..] else {
        bail!(
            "ceiling none|cipher|tunn aws-lc|avx512 left|right ADDRESS/LEN MTU LISTEN:PORT PEER:PORT"
        );
    };
    let side = match side.as_str() {
        "left" => Side::Left,
        "right" => Side::Right,
        other => bail!("{other} is neither left nor right"),
    };
    match cipher.as_str() {
        "aws-lc" => use_aws_lc(),
        "avx512" if implementation() == Implementation::Avx512 => {}
        "avx512" => bail!("this processor has no AVX-512"),
        other => bail!("{other} is neither aws-lc nor avx512"),
    }
    let (address, prefix) = address.split_once('/').context("ADDRESS/LEN")?;
    let device = DeviceBuilder::new()
        .name(INTERFACE)
        .ipv4(address.parse::<Ipv4Addr>()?, prefix.parse::<u8>()?, None)
        .mtu(mtu.parse()?)
        .offload(true)
        .build_sync()
        .context("make the TUN interface")?;
    device.set_nonblocking(true)?;
    let device = Arc::new(device);
    let cipher = Arc::new(Cipher::new(mode, side)?);
    let link = Arc::new(Link::open(listen.parse::<SocketAddr>()?, peer.parse()?)?);
    for work in [send::run, receive::run] {
        let (device, cipher, link) = (device.clone(), cipher.clone(), link.clone());
        std::thread::spawn(move || report(work(&device, &cipher, &link)));
    }
    writeln!(std::io::stdout(), "ready")?;
    loop {
        std::thread::sleep(TICK);
        cipher.tick(&link);
    }
}

/// A thread that ended did so for a reason.
fn report(result: anyhow::Result<()>) {
    if let Err(error) = result {
        drop(writeln!(std::io::stderr(), "{error:?}"));
    }
}
