//! The machine: what it is, and what others do on it.

use std::time::Duration;

use serde_json::{Value, json};

use gatereeve_tests::clock::unix_millis;

use crate::measure::usage::CpuTime;

/// How long to look at what others do.
const LOOK: Duration = Duration::from_millis(300);

/// Percent of the machine that others may use without spoiling the figures.
pub(crate) const QUIET: f64 = 5.0;

/// Facts for whoever compares two runs.
pub(crate) fn facts() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |path: &str, key: &str| {
        let text = read(path);
        let line = text.lines().find(|line| line.starts_with(key));
        let value = line.and_then(|line| line.split_once(':'));
        value.map(|(_, value)| value.trim().to_owned())
    };
    json!({
        "unix_ms": unix_millis().0,
        "cpu": field("/proc/cpuinfo", "model name"),
        "cores": cores(),
        "memory": field("/proc/meminfo", "MemTotal"),
        // Whose build it is says little, and names the machine.
        "kernel": read("/proc/sys/kernel/osrelease").trim().split('-').next(),
        "load_average": read("/proc/loadavg").trim(),
        "rmem_max": read("/proc/sys/net/core/rmem_max").trim(),
        "wmem_max": read("/proc/sys/net/core/wmem_max").trim(),
        // Whether the processors are shared between sessions, or between all threads.
        "sched_autogroup": read("/proc/sys/kernel/sched_autogroup_enabled").trim(),
    })
}

/// How TCP finds its rate where nobody says otherwise. Namespaces take it from the machine.
pub(crate) fn congestion_control() -> String {
    let name = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control");
    name.map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

/// What a person should know before believing the figures.
pub(crate) fn warnings() -> Vec<String> {
    let mut warnings = Vec::new();
    for name in ["rmem_max", "wmem_max"] {
        let path = format!("/proc/sys/net/core/{name}");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let bytes: u64 = text.trim().parse().unwrap_or(0);
        if bytes < 4 << 20 {
            warnings.push(format!(
                "net.core.{name} is {bytes}: iperf3 itself will lose UDP packets (sysctl -w net.core.{name}=4194304)"
            ));
        }
    }
    warnings
}

/// How busy the machine is with other things, in percent of all cores.
pub(crate) fn busy_percent() -> anyhow::Result<f64> {
    let before = CpuTime::now(&[])?;
    std::thread::sleep(LOOK);
    let used = CpuTime::now(&[])?.since(before);
    let share = used.machine / LOOK.as_secs_f64() / f64::from(cores());
    Ok((share * 100.0).min(100.0))
}

fn cores() -> u32 {
    let found = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(found).unwrap_or(u32::MAX)
}
