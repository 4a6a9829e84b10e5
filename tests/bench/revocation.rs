//! How long after a commit the last packet arrives, when access is taken away.
//!
//! ```text
//! cargo run --profile demo -p gatereeve-tests --bin bench-revocation -- --devices 20 --trials 200
//! ```
//!
//! Each trial takes access from a device that sends 1,000 packets a second to a server, while every
//! other device goes on sending to it. The commit time is the controller's own; arrival times are
//! the kernel's receive timestamps at the server's end of the tunnel. Half of the promise is the
//! delay, the other half that nothing at all arrives after the command given `--wait` has returned.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use serde_json::json;

use gatereeve_controller_core::command::Committed;
use gatereeve_tests::binaries::Profile;
use gatereeve_tests::clock::{wait_for, wall};
use gatereeve_tests::traffic::tcp::{Download, TcpSource};
use gatereeve_tests::traffic::udp::{UdpReceiver, UdpSender};
use gatereeve_tests::world::{DeviceHost, World};
use gatereeve_tests::{interrupt, netns::privilege};

const PORT: u16 = 7000;
const LOAD_PORT: u16 = 7001;
/// The pace of the device that loses access, and of each of the others.
const FAST: Duration = Duration::from_millis(1);
const SLOW: Duration = Duration::from_millis(50);
/// How long to look for late packets.
const LOOK: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(30);
/// What is promised at the 99th percentile, in milliseconds.
const PROMISE_MS: f64 = 100.0;

/// Measures the last packet after a revocation and after a policy change.
#[derive(Debug, Parser)]
struct Arguments {
    /// Devices that send to the server
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(2..=200))]
    devices: u16,
    /// Trials of each kind
    #[arg(long, default_value_t = 200)]
    trials: usize,
    /// Revocations only
    #[arg(long, conflicts_with = "policies_only")]
    revocations_only: bool,
    /// Policy changes only
    #[arg(long)]
    policies_only: bool,
    /// TCP downloads from the server meanwhile, as fast as they go
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=16))]
    load: u16,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let measured = privilege::acquire()
        .and_then(|()| interrupt::clean_up_on_signals())
        .and_then(|()| measure(&arguments));
    match measured {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "{error:?}"));
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> anyhow::Result<bool> {
    let mut bench = Bench::new(arguments.devices)?;
    let load = bench.load(arguments.load)?;
    let began = wall();
    let mut report = json!({ "devices": arguments.devices, "trials": arguments.trials });
    let mut kept = true;
    if !arguments.policies_only {
        let figures = bench.trials("revocation", arguments.trials, Bench::revoke)?;
        kept &= figures.keep_the_promise();
        report["revocation"] = figures.to_json();
    }
    if !arguments.revocations_only {
        let figures = bench.trials("policy change", arguments.trials, Bench::change_policy)?;
        kept &= figures.keep_the_promise();
        report["policy_change"] = figures.to_json();
    }
    if let Some(load) = load {
        let bits: u64 = load
            .downloads
            .iter()
            .map(|download| download.bytes() * 8)
            .sum();
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = bits as f64 / 1e6 / wall().saturating_sub(began).as_secs_f64();
        report["load_mbit_per_s"] = rate.into();
    }
    report["kept"] = kept.into();
    drop(writeln!(std::io::stdout(), "{report:#}"));
    Ok(kept)
}

/// Downloads that keep the server's data path busy.
struct Load {
    downloads: Vec<Download>,
    _source: TcpSource,
    _device: DeviceHost,
}

struct Bench {
    world: World,
    server: DeviceHost,
    receiver: UdpReceiver,
    devices: Vec<DeviceHost>,
    senders: Vec<Option<UdpSender>>,
    /// Every trial has flow numbers of its own.
    flow: u32,
}

/// What one kind of trial came to.
#[derive(Default)]
struct Figures {
    /// Milliseconds from the commit to the last packet; 0 where the last came before it.
    delays: Vec<f64>,
    /// Packets after the command returned, of all trials.
    late: usize,
    /// Packets that the losing device still sent after the command returned, of all trials.
    still_sent: u64,
    /// Packets of the others that arrived meanwhile, of all trials: the positive control.
    control: u64,
    /// Trials in which not everybody concerned had confirmed.
    unconfirmed: usize,
}

impl Figures {
    fn percentile(&self, share: f64) -> f64 {
        let mut sorted = self.delays.clone();
        sorted.sort_by(f64::total_cmp);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of a small count"
        )]
        let at = ((sorted.len() as f64 * share).ceil() as usize).saturating_sub(1);
        sorted.get(at).copied().unwrap_or(f64::NAN)
    }

    fn keep_the_promise(&self) -> bool {
        self.percentile(0.99) <= PROMISE_MS
            && self.late == 0
            && self.control > 0
            && self.still_sent > 0
    }

    fn to_json(&self) -> serde_json::Value {
        json!({
            "p50_ms": self.percentile(0.5),
            "p99_ms": self.percentile(0.99),
            "max_ms": self.percentile(1.0),
            "packets_after_wait_returned": self.late,
            "packets_still_sent_meanwhile": self.still_sent,
            "positive_control_packets": self.control,
            "trials_not_confirmed_by_all": self.unconfirmed,
        })
    }
}

impl Bench {
    fn new(count: u16) -> anyhow::Result<Self> {
        let mut world = World::new(Profile::Demo)?;
        let server = world.device("server", &["--tag", "server"])?;
        let receiver = UdpReceiver::start(&server.namespace, PORT, false)?;
        let mut devices = Vec::new();
        for number in 0..count {
            progress(&format!("device {} of {count} joins", number + 1));
            let tag = format!("d{number}");
            devices.push(world.device(&tag, &["--tag", &tag])?);
        }
        let senders = devices.iter().map(|_| None).collect();
        let mut bench = Self {
            world,
            server,
            receiver,
            devices,
            senders,
            flow: 0,
        };
        bench
            .world
            .controller
            .cli
            .apply(&bench.policy(None), &["--wait"])?;
        for at in 0..bench.devices.len() {
            bench.send(at, SLOW)?;
        }
        Ok(bench)
    }

    /// Starts `count` downloads on a device of their own, which keeps its access.
    fn load(&mut self, count: u16) -> anyhow::Result<Option<Load>> {
        if count == 0 {
            return Ok(None);
        }
        let device = self.world.device("load", &["--tag", "load"])?;
        let source = TcpSource::start_unpaced(&self.server.namespace, LOAD_PORT)?;
        let from = self.server.v4(LOAD_PORT)?;
        let downloads = (0..count)
            .map(|_| {
                wait_for("a download to start", PATIENCE, || {
                    Ok(Download::start(&device.namespace, from, LOOK).ok())
                })
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Some(Load {
            downloads,
            _source: source,
            _device: device,
        }))
    }

    /// Everybody to the server, but for one.
    fn policy(&self, without: Option<usize>) -> String {
        let mut tags = String::new();
        for at in (0..self.devices.len()).filter(|at| Some(*at) != without) {
            tags.push_str(&format!("\"tag:d{at}\", "));
        }
        let tags = tags.trim_end_matches(", ");
        let declared: String = (0..self.devices.len())
            .map(|at| format!("[tags.\"tag:d{at}\"]\n"))
            .collect();
        format!(
            "version = 1\n[tags.\"tag:server\"]\n[tags.\"tag:load\"]\n{declared}\
             [[allow]]\nid = \"send\"\nfrom = [{tags}]\nto = [\"tag:server\"]\nports = [\"udp:{PORT}\"]\n\
             [[allow]]\nid = \"load\"\nfrom = [\"tag:load\"]\nto = [\"tag:server\"]\nports = [\"tcp:{LOAD_PORT}\"]\n"
        )
    }

    /// Starts a sender on a device and waits until its packets arrive.
    fn send(&mut self, at: usize, pace: Duration) -> anyhow::Result<u32> {
        self.flow += 1;
        let (flow, to) = (self.flow, self.server.v4(PORT)?);
        let device = self.devices.get(at).context("a device")?;
        let sender = UdpSender::start(&device.namespace, to, flow, pace)?;
        if let Some(slot) = self.senders.get_mut(at) {
            *slot = Some(sender);
        }
        wait_for("packets to arrive", PATIENCE, || {
            Ok((self.receiver.flow(flow).packets >= 3).then_some(()))
        })?;
        Ok(flow)
    }

    fn trials(
        &mut self,
        kind: &str,
        count: usize,
        take_away: fn(&mut Self, usize) -> anyhow::Result<(Committed, Duration)>,
    ) -> anyhow::Result<Figures> {
        let mut figures = Figures::default();
        for trial in 0..count {
            let at = trial % self.devices.len();
            self.trial(at, take_away, &mut figures)
                .with_context(|| format!("{kind}, trial {trial}"))?;
            let last = figures.delays.last().copied().unwrap_or_default();
            progress(&format!("{kind} {} of {count}: {last:.1} ms", trial + 1));
        }
        Ok(figures)
    }

    fn trial(
        &mut self,
        at: usize,
        take_away: fn(&mut Self, usize) -> anyhow::Result<(Committed, Duration)>,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let flow = self.send(at, FAST)?;
        wait_for("a running flow", PATIENCE, || {
            Ok((self.receiver.flow(flow).packets >= 50).then_some(()))
        })?;
        let all_before = self.receiver.packets();
        let (committed, returned) = take_away(self, at)?;
        let sent = |bench: &Self| {
            let sender = bench.senders.get(at).and_then(Option::as_ref);
            sender.map_or(0, |sender| sender.sent() + sender.errors())
        };
        let sent_at_return = sent(self);
        std::thread::sleep(LOOK);
        let end = self.receiver.flow(flow);
        let commit = Duration::from_millis(committed.at.0);
        figures
            .delays
            .push(end.last_at.saturating_sub(commit).as_secs_f64() * 1000.0);
        figures.late += self.receiver.after(flow, returned);
        figures.still_sent += sent(self) - sent_at_return;
        figures.control +=
            self.receiver.packets() - all_before - self.receiver.after(flow, commit) as u64;
        let victim = self.devices.get(at).context("a device")?.name.clone();
        let others = committed
            .unconfirmed
            .iter()
            .filter(|u| u.name.as_str() != victim);
        figures.unconfirmed += usize::from(others.count() > 0);
        self.restore(at)
    }

    /// Revokes a device's key.
    fn revoke(&mut self, at: usize) -> anyhow::Result<(Committed, Duration)> {
        let name = self.devices.get(at).context("a device")?.name.clone();
        let committed = self
            .world
            .controller
            .cli
            .change(&["device", "revoke", &name, "--wait"])?;
        Ok((committed, wall()))
    }

    /// Applies a policy that leaves a device out.
    fn change_policy(&mut self, at: usize) -> anyhow::Result<(Committed, Duration)> {
        let policy = self.policy(Some(at));
        let committed = self.world.controller.cli.apply(&policy, &["--wait"])?;
        Ok((committed, wall()))
    }

    /// Gives a device its access back: by a new key, and by the whole policy.
    fn restore(&mut self, at: usize) -> anyhow::Result<()> {
        if let Some(sender) = self.senders.get_mut(at) {
            *sender = None;
        }
        let name = self.devices.get(at).context("a device")?.name.clone();
        let cli = &self.world.controller.cli;
        let view = self.world.controller.device(&name)?;
        if view.status == gatereeve_controller_core::state::device::DeviceStatus::Revoked {
            cli.change(&["device", "delete", &name])?;
            let invite = cli.invite(&["--tag", &name])?;
            let device = self.devices.get_mut(at).context("a device")?;
            device.cli.ask(&["leave"])?;
            device.join(&invite)?;
        } else {
            let committed = cli.apply(&self.policy(None), &["--wait"])?;
            ensure!(committed.unconfirmed.is_empty(), "{committed:?}");
        }
        self.send(at, SLOW).map(drop)
    }
}

fn progress(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}
