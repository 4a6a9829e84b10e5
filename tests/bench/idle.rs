//! What a client costs while nothing happens: wake-ups, CPU time and memory, beside other programs.
//!
//! ```text
//! cargo run --release -p gatereeve-tests --bin bench-idle -- --secs 60
//! ```
//!
//! Each program has one peer that it has reached once, and then no traffic. A wake-up is a context switch of
//! any of the process's threads: each is a time that the program ran.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use serde_json::{Value, json};

use gatereeve_tests::binaries::Profile;
use gatereeve_tests::clock::{Stopwatch, wait_for};
use gatereeve_tests::netns::links::{self, Switch};
use gatereeve_tests::netns::{Namespace, privilege};
use gatereeve_tests::process::Process;
use gatereeve_tests::traffic::icmp::ping;
use gatereeve_tests::uapi::{self, UserspaceWireGuard};
use gatereeve_tests::world::World;
use gatereeve_tests::{cli, interrupt};

const LIMIT: Duration = Duration::from_secs(30);
/// After the last packet: handshakes, and the timers that the packets have set off, come to rest.
const SETTLE: Duration = Duration::from_secs(20);

/// Clock ticks of `/proc` in a second, on every Linux.
const TICKS: f64 = 100.0;

/// Measures idle clients.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long to look at each
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=3600))]
    secs: u64,
    /// Only these: gatereeve, wireguard-go, nebula
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let measured = privilege::acquire()
        .and_then(|()| interrupt::clean_up_on_signals())
        .and_then(|()| measure(&arguments));
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "{error:?}"));
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let mut figures = Vec::new();
    let programs: [(&str, fn(u64) -> anyhow::Result<Option<Figure>>); 3] = [
        ("gatereeve", gatereeve),
        ("wireguard-go", wireguard_go),
        ("nebula", nebula),
    ];
    for (name, program) in programs {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|only| only == name) {
            continue;
        }
        match program(arguments.secs).with_context(|| name.to_owned())? {
            Some(figure) => figures.push((name, figure)),
            None => writeln!(std::io::stderr(), "{name} is not installed: left out")?,
        }
    }
    let mut out = std::io::stdout();
    if arguments.json {
        let rows: Vec<Value> = figures
            .iter()
            .map(|(name, figure)| figure.json(name))
            .collect();
        let report = json!({ "secs": arguments.secs, "programs": rows });
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
        return Ok(());
    }
    writeln!(
        out,
        "{:<14} {:>11} {:>9} {:>9}  wake-ups a second by thread",
        "program", "wake-ups/s", "CPU", "RSS"
    )?;
    for (name, figure) in &figures {
        writeln!(
            out,
            "{name:<14} {:>11.2} {:>8.3}% {:>6.1} MB  {}",
            figure.wakeups,
            figure.cpu_percent,
            figure.rss_kib / 1024.0,
            figure.by_thread()
        )?;
    }
    Ok(())
}

/// What one process cost.
#[derive(Debug)]
struct Figure {
    wakeups: f64,
    threads: BTreeMap<String, f64>,
    cpu_percent: f64,
    rss_kib: f64,
}

impl Figure {
    /// Looks at a process and all its threads for `secs`, after it has come to rest.
    fn of(process: u32, secs: u64) -> anyhow::Result<Self> {
        std::thread::sleep(SETTLE);
        let (before, ticks) = (switches(process)?, cpu_ticks(process)?);
        let watch = Stopwatch::start();
        std::thread::sleep(Duration::from_secs(secs));
        let (after, elapsed) = (switches(process)?, watch.elapsed().as_secs_f64());
        let cpu = cpu_ticks(process)?.saturating_sub(ticks);
        let mut threads = BTreeMap::new();
        for (id, (name, count)) in &after {
            let earlier = before.get(id).map_or(0, |(_, count)| *count);
            *threads.entry(name.clone()).or_insert(0.0) +=
                number(count.saturating_sub(earlier)) / elapsed;
        }
        Ok(Self {
            wakeups: threads.values().sum(),
            threads,
            cpu_percent: 100.0 * number(cpu) / TICKS / elapsed,
            rss_kib: number(field(&status(process, None)?, "VmRSS")?),
        })
    }

    fn json(&self, name: &str) -> Value {
        json!({
            "program": name,
            "wakeups_per_second": self.wakeups,
            "by_thread": self.threads,
            "cpu_percent": self.cpu_percent,
            "rss_kib": self.rss_kib,
        })
    }

    fn by_thread(&self) -> String {
        let busy = self.threads.iter().filter(|(_, rate)| **rate >= 0.005);
        let parts: Vec<_> = busy
            .map(|(name, rate)| format!("{name} {rate:.2}"))
            .collect();
        parts.join(", ")
    }
}

/// Context switches of every thread, voluntary and not.
fn switches(process: u32) -> anyhow::Result<BTreeMap<u32, (String, u64)>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|text| text.parse().ok()) else {
            continue;
        };
        // A thread may end meanwhile.
        let Ok(text) = status(process, Some(id)) else {
            continue;
        };
        let count =
            field(&text, "voluntary_ctxt_switches")? + field(&text, "nonvoluntary_ctxt_switches")?;
        let label = text
            .lines()
            .find_map(|line| line.strip_prefix("Name:"))
            .unwrap_or("?");
        found.insert(id, (label.trim().to_owned(), count));
    }
    Ok(found)
}

fn status(process: u32, thread: Option<u32>) -> anyhow::Result<String> {
    let path = match thread {
        Some(thread) => format!("/proc/{process}/task/{thread}/status"),
        None => format!("/proc/{process}/status"),
    };
    std::fs::read_to_string(&path).with_context(|| path)
}

fn field(text: &str, name: &str) -> anyhow::Result<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .with_context(|| format!("no {name}"))?;
    let number = line.split_whitespace().next().unwrap_or_default();
    number.parse().with_context(|| format!("{name}:{line}"))
}

/// User and system time of the process, in clock ticks.
fn cpu_ticks(process: u32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name in brackets may hold spaces.
    let (_, rest) = text.rsplit_once(')').context("/proc/PID/stat")?;
    let numbers: Vec<u64> = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|word| word.parse().ok())
        .collect();
    ensure!(numbers.len() == 2, "/proc/PID/stat: {rest}");
    Ok(numbers.iter().sum())
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}

/// A joined device with one peer, beside a real controller.
fn gatereeve(secs: u64) -> anyhow::Result<Option<Figure>> {
    let mut world = World::new(Profile::Release)?;
    let server = world.device("server", &["--tag", "tag:all"])?;
    let client = world.device("client", &["--tag", "tag:all"])?;
    let policy = "version = 1\n[tags.\"tag:all\"]\n[[allow]]\nid = \"all\"\nfrom = [\"tag:all\"]\nto = [\"tag:all\"]\nports = [\"icmp\"]\n";
    world.controller.cli.apply(policy, &["--wait"])?;
    let to = server.addresses()?.v4.into();
    wait_for("the first answer", LIMIT, || {
        Ok((ping(&client.namespace, to, 1, Duration::from_secs(1))? == 1).then_some(()))
    })?;
    let id = client.process().context("it runs")?.id();
    Figure::of(id, secs).map(Some)
}

fn installed(paths: &[&str]) -> Option<PathBuf> {
    paths.iter().map(PathBuf::from).find(|path| path.exists())
}

/// Two hosts, and their overlay addresses in `10.99.0.0/24`.
fn hosts() -> anyhow::Result<(Switch, [(Namespace, std::net::Ipv4Addr); 2])> {
    let switch = Switch::new()?;
    let (one, at_one) = switch.connect(1)?;
    let (two, at_two) = switch.connect(2)?;
    Ok((switch, [(one, at_one.v4), (two, at_two.v4)]))
}

fn wireguard_go(secs: u64) -> anyhow::Result<Option<Figure>> {
    let (Some(program), Some(wg)) = (
        installed(&["/usr/bin/wireguard-go"]),
        installed(&["/usr/bin/wg"]),
    ) else {
        return Ok(None);
    };
    let (_switch, hosts) = hosts()?;
    let arguments = ["--foreground", uapi::INTERFACE];
    let key = |text: &str, input: Option<&str>| run_wg(&wg, text, input);
    let secrets = [key("genkey", None)?, key("genkey", None)?];
    let mut running = Vec::new();
    for (index, (namespace, _)) in hosts.iter().enumerate() {
        let daemon = UserspaceWireGuard::start("wireguard-go", &program, &arguments, namespace)?;
        let other = 1 - index;
        let public = key("pubkey", Some(&secrets[other]))?;
        let (_, endpoint) = &hosts[other];
        let text = format!(
            "set=1\nprivate_key={}\nlisten_port=51820\npublic_key={}\nendpoint={endpoint}:51820\nallowed_ip=10.99.0.{}/32\n\n",
            hex_of(&secrets[index])?,
            hex_of(&public)?,
            other + 1
        );
        let answer = daemon.talk(&text)?;
        ensure!(answer.contains("errno=0"), "{answer}");
        let own = format!("10.99.0.{}", index + 1).parse()?;
        uapi::bring_up(namespace, &[(own, 24)], 1420)?;
        running.push(daemon);
    }
    wait_for("the first answer", LIMIT, || {
        let to = "10.99.0.2".parse()?;
        Ok((ping(&hosts[0].0, to, 1, Duration::from_secs(1))? == 1).then_some(()))
    })?;
    Figure::of(running[0].process().id(), secs).map(Some)
}

/// `wg genkey` and `wg pubkey`.
fn run_wg(wg: &Path, what: &str, input: Option<&str>) -> anyhow::Result<String> {
    use std::process::Stdio;
    let mut child = Command::new(wg)
        .arg(what)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.unwrap_or_default().as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "wg {what} failed");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn hex_of(key: &str) -> anyhow::Result<String> {
    let bytes = gatereeve_shared::text::from_base64(key).context("a key in base64")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn nebula(secs: u64) -> anyhow::Result<Option<Figure>> {
    let (Some(nebula), Some(cert)) = (
        installed(&["/usr/bin/nebula"]),
        installed(&["/usr/bin/nebula-cert"]),
    ) else {
        return Ok(None);
    };
    let directory = tempfile::tempdir()?;
    interrupt::register(directory.path().to_owned());
    let at = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let issue = |line: &[&str]| -> anyhow::Result<()> {
        let mut command = Command::new(&cert);
        command.args(line);
        let done = cli::run(command)?;
        ensure!(done.status == Some(0), "{}: {}", done.command, done.stderr);
        Ok(())
    };
    let (ca, ca_key) = (at("ca.crt"), at("ca.key"));
    issue(&["ca", "-name", "bench", "-out-crt", &ca, "-out-key", &ca_key])?;
    let (_switch, hosts) = hosts()?;
    let mut running = Vec::new();
    for (index, (namespace, _)) in hosts.iter().enumerate() {
        let name = format!("h{index}");
        let own = format!("10.99.0.{}/24", index + 1);
        let (crt, key) = (at(&format!("{name}.crt")), at(&format!("{name}.key")));
        issue(&[
            "sign", "-ca-crt", &ca, "-ca-key", &ca_key, "-name", &name, "-ip", &own, "-out-crt",
            &crt, "-out-key", &key,
        ])?;
        let other = 1 - index;
        let (_, endpoint) = &hosts[other];
        let text = format!(
            "pki: {{ca: {ca}, cert: {crt}, key: {key}}}\nstatic_host_map: {{\"10.99.0.{}\": [\"{endpoint}:4242\"]}}\n\
             lighthouse: {{am_lighthouse: false, hosts: []}}\nlisten: {{host: 0.0.0.0, port: 4242}}\n\
             tun: {{dev: nebula0}}\nlogging: {{level: warning}}\nfirewall:\n  \
             outbound: [{{port: any, proto: any, host: any}}]\n  inbound: [{{port: any, proto: any, host: any}}]\n",
            other + 1
        );
        let file = at(&format!("{name}.yml"));
        std::fs::write(&file, text)?;
        let mut command = Command::new(&nebula);
        command.args(["-config", &file]);
        let log = directory.path().join(format!("{name}.log"));
        running.push(Process::start(
            "nebula",
            command,
            Some(namespace),
            Some(&log),
        )?);
        wait_for("nebula's interface", LIMIT, || {
            // It is not there at first.
            let found = namespace.netlink(async |netlink| links::index(&netlink, "nebula0").await);
            Ok(found.ok())
        })?;
    }
    wait_for("the first answer", LIMIT, || {
        let to = "10.99.0.2".parse()?;
        Ok((ping(&hosts[0].0, to, 1, Duration::from_secs(1))? == 1).then_some(()))
    })?;
    Figure::of(running[0].id(), secs).map(Some)
}
