//! Tunnels under light traffic for a long time, over many renewals of their sessions.
//!
//! ```text
//! cargo run --profile demo -p gatereeve-tests --bin soak -- --minutes 30
//! ```
//!
//! A controller, three devices and `wireguard-go`, all paired: steady traffic both ways, one way, and
//! bursts between silences, each packet numbered and each byte of TCP checked. The underlay tells when
//! handshakes were done. A stretch without packets that is longer than `--bound-ms`, and that the protocol
//! does not explain, makes it fail. Nothing stays behind.

mod pair;
mod pattern;
mod report;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;

use gatereeve_tests::binaries::Profile;
use gatereeve_tests::clock::{Stopwatch, wall};
use gatereeve_tests::stock::StockPeer;
use gatereeve_tests::traffic::handshakes::HandshakeWatch;
use gatereeve_tests::world::{DeviceHost, World};
use gatereeve_tests::{interrupt, netns::privilege};

use pair::{Pair, Plan, Side};
use pattern::Pattern;
use report::{Frame, Report};

const TAG: &str = "tag:soak";
/// Ports of the pairs, two each.
const PORT: u16 = 7000;
/// Between two looks at who is to send.
const STEP: Duration = Duration::from_millis(10);
const BETWEEN_LINES: Duration = Duration::from_secs(30);
/// After the last packet was sent.
const SETTLE: Duration = Duration::from_secs(2);

/// Keeps tunnels busy, or idle, for a long time, and looks for gaps.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    minutes: u64,
    /// Milliseconds between two packets of one direction
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pace_ms: u64,
    /// Longest gap that needs no explanation, in milliseconds
    #[arg(long, default_value_t = 1000)]
    bound_ms: u64,
    /// Print one JSON object; progress goes to standard error in any case
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Rights first: the kernel moves only a process of one thread into a user namespace.
    let soaked = privilege::acquire()
        .and_then(|()| interrupt::clean_up_on_signals())
        .and_then(|()| soak(&arguments));
    match soaked {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("{error:?}"));
            ExitCode::FAILURE
        }
    }
}

/// Everybody and everything between them; what is dropped first must end first.
struct Scene {
    pairs: Vec<Pair>,
    watch: HandshakeWatch,
    devices: Vec<DeviceHost>,
    _stock: StockPeer,
    _world: World,
}

fn soak(arguments: &Arguments) -> anyhow::Result<bool> {
    let scene = Scene::new(Duration::from_millis(arguments.pace_ms))?;
    let watch = Stopwatch::start();
    let mut frame = Frame {
        began: wall(),
        elapsed: Duration::ZERO,
        bound: Duration::from_millis(arguments.bound_ms),
    };
    let end = Duration::from_secs(arguments.minutes.saturating_mul(60));
    let mut next_line = BETWEEN_LINES;
    while frame.elapsed < end {
        for pair in &scene.pairs {
            pair.conduct(frame.elapsed);
        }
        std::thread::sleep(STEP);
        frame.elapsed = watch.elapsed();
        if frame.elapsed >= next_line {
            next_line += BETWEEN_LINES;
            for line in report::progress(&scene.pairs, &scene.watch.messages(), frame) {
                say(&line);
            }
        }
    }
    for pair in &scene.pairs {
        pair.stop();
    }
    std::thread::sleep(SETTLE);
    let mut report = Report::new(&scene.pairs, &scene.watch.messages(), frame);
    scene.add_devices(&mut report)?;
    let text = if arguments.json {
        format!("{:#}", report.json)
    } else {
        report.lines.join("\n")
    };
    drop(writeln!(std::io::stdout(), "{text}"));
    for failure in &report.failures {
        say(&format!("not good: {failure}"));
    }
    Ok(report.failures.is_empty())
}

impl Scene {
    fn new(pace: Duration) -> anyhow::Result<Self> {
        let mut world = World::new(Profile::Demo)?;
        let mut devices = Vec::new();
        for name in ["one", "two", "three"] {
            say(&format!("{name} joins"));
            devices.push(world.device(name, &["--tag", TAG])?);
        }
        say("wireguard-go joins");
        let invite = world.controller.cli.invite(&["--tag", TAG])?;
        let stock = StockPeer::join(&mut world, "stock", &invite)?;
        let policy = format!(
            "version = 1\n[tags.\"{TAG}\"]\n[[allow]]\nid = \"soak\"\nfrom = [\"{TAG}\"]\nto = [\"{TAG}\"]\n\
             ports = [\"udp:{PORT}-{last}\", \"tcp:{PORT}-{last}\"]\n",
            last = PORT + 99
        );
        let committed = world.controller.cli.apply(&policy, &["--wait"])?;
        ensure!(committed.unconfirmed.is_empty(), "{committed:?}");
        stock.wait_peers(devices.len())?;
        let watch = HandshakeWatch::start(world.switch.namespace())?;
        let pairs = pairs(&sides(&devices, &stock)?, pace)?;
        Ok(Self {
            pairs,
            watch,
            devices,
            _stock: stock,
            _world: world,
        })
    }

    /// What the devices themselves say at the end.
    fn add_devices(&self, report: &mut Report) -> anyhow::Result<()> {
        for device in &self.devices {
            let status = device.status()?;
            report
                .lines
                .push(format!("{}: drops {:?}", device.name, status.drops));
            report.json["drops"][&device.name] = serde_json::to_value(&status.drops)?;
        }
        Ok(())
    }
}

fn sides(devices: &[DeviceHost], stock: &StockPeer) -> anyhow::Result<[Side; 4]> {
    let side = |device: &DeviceHost| -> anyhow::Result<Side> {
        Ok(Side {
            name: device.name.clone(),
            namespace: device.namespace.clone(),
            underlay: device.underlay,
            overlay: device.addresses()?,
        })
    };
    let [one, two, three] = devices else {
        anyhow::bail!("three devices are wanted");
    };
    let stock = Side {
        name: "stock".into(),
        namespace: stock.namespace.clone(),
        underlay: stock.underlay,
        overlay: stock.addresses()?,
    };
    Ok([side(one)?, side(two)?, side(three)?, stock])
}

/// All of them with each other: each kind of traffic between two of ours, and with `wireguard-go`.
fn pairs(sides: &[Side; 4], pace: Duration) -> anyhow::Result<Vec<Pair>> {
    let [one, two, three, stock] = sides;
    let plans = [
        (one, two, Pattern::Steady, false),
        (one, stock, Pattern::Steady, true),
        (one, three, Pattern::Alternating { offset: 0 }, true),
        (two, stock, Pattern::Alternating { offset: 2 }, false),
        (stock, three, Pattern::Alternating { offset: 5 }, true),
        (two, three, Pattern::OneWay, true),
    ];
    plans
        .into_iter()
        .zip((PORT..).step_by(2))
        .map(|((left, right, pattern, v6), port)| {
            let plan = Plan {
                pattern,
                v6,
                port,
                pace,
            };
            Pair::start(left, right, plan)
        })
        .collect()
}

fn say(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}
