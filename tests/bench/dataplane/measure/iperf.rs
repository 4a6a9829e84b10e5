//! iperf3 from the left host to the right one, a fresh server for every run.

use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use gatereeve_tests::clock::wait_for;

use super::Subject;
use crate::programs::PORT;
use crate::tool::Started;

/// What a run may take beyond its own time.
const SLACK: Duration = Duration::from_secs(15);

impl Subject<'_> {
    /// Runs it for `secs` with these options and returns what it says at the end.
    ///
    /// # Errors
    /// Where it fails twice: a lossy tunnel can lose its control connection.
    pub(super) fn iperf(&self, secs: u32, options: &[String]) -> anyhow::Result<Value> {
        self.iperf_once(secs, options).or_else(|first| {
            self.iperf_once(secs, options)
                .map_err(|error| error.context(format!("again, after: {first:#}")))
        })
    }

    fn iperf_once(&self, secs: u32, options: &[String]) -> anyhow::Result<Value> {
        let target = self.target()?.to_string();
        let _server = self.iperf_server(&target)?;
        let fixed = [
            "--json",
            "--client",
            &target,
            "--port",
            &PORT.to_string(),
            "--time",
            &secs.to_string(),
            "--connect-timeout",
            "5000",
        ];
        let arguments: Vec<&str> = fixed
            .into_iter()
            .chain(options.iter().map(String::as_str))
            .collect();
        let left = Some(&self.pair.left.namespace);
        let text = self
            .tools
            .start(left, "iperf3", self.tools.iperf(), &arguments)?
            .finish(Duration::from_secs(secs.into()) + SLACK)?
            .text;
        // Warnings may stand before or after the document.
        let document = text
            .find('{')
            .zip(text.rfind('}'))
            .and_then(|(from, to)| text.get(from..=to))
            .with_context(|| format!("iperf3 said: {text}"))?;
        let mut report: Value = serde_json::from_str(document)?;
        if let Some(error) = report.get("error") {
            bail!("iperf3: {error}");
        }
        Ok(report["end"].take())
    }

    fn iperf_server(&self, address: &str) -> anyhow::Result<Started> {
        let port = PORT.to_string();
        let arguments = ["--server", "--one-off", "--bind", address, "--port", &port];
        let right = Some(&self.pair.right.namespace);
        let mut server =
            self.tools
                .start(right, "iperf3 server", self.tools.iperf(), &arguments)?;
        wait_for("iperf3 to listen", Duration::from_secs(5), || {
            if !server.process.is_running() {
                bail!("it has ended: {}", server.written());
            }
            // A look at the table, since it would take a connection for its one client.
            let wanted = format!(":{PORT:04X} ");
            let listens = ["tcp", "tcp6"].iter().any(|table| {
                let path = format!("/proc/{}/net/{table}", server.process.id());
                let text = std::fs::read_to_string(path).unwrap_or_default();
                text.lines()
                    .any(|line| line.contains(&wanted) && line.contains(" 0A "))
            });
            Ok(listens.then_some(()))
        })?;
        Ok(server)
    }
}

/// A number in iperf3's report.
///
/// # Errors
/// Where there is none of this name.
pub(super) fn number(report: &Value, path: [&str; 2]) -> anyhow::Result<f64> {
    let [part, name] = path;
    report[part][name]
        .as_f64()
        .with_context(|| format!("iperf3 did not say {part}.{name}"))
}
