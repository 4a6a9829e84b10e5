//! `bug-report`: what helps to find a bug, without secrets, names and addresses.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use gatereeve_client_core::api::{LocalReply, LocalRequest};
use gatereeve_runtime::clock::Clock;
use gatereeve_runtime::diagnostics::{FILTER_PATH, FilterRequest, WARNINGS_PATH, Warnings};
use gatereeve_runtime::report::Report;
use gatereeve_runtime::telemetry::LogFilter;

use super::client;
use super::output::Printer;
use super::{DirArgs, Failure};

/// Fields of the status that say who and where.
const SECRET: [&str; 10] = [
    "network",
    "fingerprint",
    "controllers",
    "device",
    "name",
    "addresses",
    "domain",
    "resolver",
    "wg_key",
    "user",
];

/// What to collect from, and where to put it.
#[derive(Clone, Debug, Args)]
pub struct BugReportArgs {
    /// The file to write, which must not exist yet; `-` for standard output.
    #[arg(value_name = "FILE|-")]
    pub file: Option<PathBuf>,
    /// Of the state, names, modes and sizes of files are reported; of the configuration, settings.
    #[command(flatten)]
    pub dirs: DirArgs,
}

/// What `bug-report --json` prints.
#[derive(Debug, Serialize)]
struct ReportedView {
    kind: &'static str,
    file: Option<String>,
    sections: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// Makes the report.
///
/// # Errors
/// When the file exists, or cannot be written.
pub(super) fn run(
    socket: &Path,
    arguments: &BugReportArgs,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let report = make(socket, arguments);
    let file = arguments.file.clone().unwrap_or_else(|| {
        PathBuf::from(format!("gatereeve-report-{}.txt", Clock::unix().0 / 1000))
    });
    let is_stream = file == Path::new("-");
    if !is_stream {
        report.save(&file).map_err(|error| Failure {
            status: if error.kind() == std::io::ErrorKind::AlreadyExists {
                5
            } else {
                1
            },
            message: format!(
                "cannot write {}: {error}; name another file",
                file.display()
            ),
        })?;
    }
    let view = ReportedView {
        kind: "reported",
        file: (!is_stream).then(|| file.display().to_string()),
        sections: report.titles().map(str::to_owned).collect(),
        text: is_stream.then(|| report.to_text()),
    };
    let text = view.text.clone().unwrap_or_else(|| {
        format!(
            "{} holds: {}.\nRead it before you send it.",
            file.display(),
            view.sections.join(", ")
        )
    });
    printer.show(&view, || text).map(|()| 0)
}

fn make(socket: &Path, arguments: &BugReportArgs) -> Report {
    let mut report = Report::new("gatereeve", env!("CARGO_PKG_VERSION"));
    let status = ask(socket, &LocalRequest::Status);
    if let Ok(status) = &status {
        hide_own_names(&mut report, status);
    }
    if let Ok(LocalReply::Peers { peers }) = client::ask(socket, &LocalRequest::Peers) {
        for (number, peer) in (1u64..).zip(peers) {
            report.hide(peer.name.as_str(), &format!("[peer {number}]"));
        }
    }
    report.add_answer("status", status, &SECRET);
    let filter = client::post::<LogFilter>(socket, FILTER_PATH, &FilterRequest::default());
    report.add("log filter", &or_why(filter.map(|filter| filter.filter)));
    let warnings = client::post::<Warnings>(socket, WARNINGS_PATH, &json!({}));
    let warnings = warnings.map(|warnings| warnings.warnings.join("\n"));
    report.add("last warnings", &or_why(warnings));
    let path = arguments.dirs.config_dir.join("client.toml");
    report.add_configuration("configuration", &path, &["operator", "operator_group"]);
    report.add_listing("files of the state", &arguments.dirs.state_dir);
    report
}

fn ask(socket: &Path, request: &LocalRequest) -> Result<Value, String> {
    let reply = client::ask(socket, request).map_err(|failure| failure.message)?;
    serde_json::to_value(reply).map_err(|error| error.to_string())
}

fn or_why(answer: Result<String, Failure>) -> String {
    answer.unwrap_or_else(|failure| format!("not known: {}", failure.message))
}

/// Names are known here, so they can be taken out wherever they occur.
fn hide_own_names(report: &mut Report, status: &Value) {
    for (key, stands_for) in [("name", "[this device]"), ("network", "[network]")] {
        if let Some(name) = status.get(key).and_then(Value::as_str) {
            report.hide(name, stands_for);
        }
    }
    let domain = status.pointer("/names/domain").and_then(Value::as_str);
    if let Some(domain) = domain {
        report.hide(domain, "[domain]");
    }
    let controllers = status.get("controllers").and_then(Value::as_array);
    for controller in controllers.into_iter().flatten().filter_map(Value::as_str) {
        let host = controller
            .rsplit_once(':')
            .map_or(controller, |(host, _)| host);
        report.hide(host, "[controller]");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_without_a_daemon_says_so_and_holds_no_key() {
        let root = tempfile::tempdir().unwrap();
        let key = [0xa7; 32];
        std::fs::write(root.path().join("identity.key"), key).unwrap();
        std::fs::write(
            root.path().join("client.toml"),
            "operator = \"alice\"\nlisten = 51840\n",
        )
        .unwrap();
        let arguments = BugReportArgs {
            file: None,
            dirs: DirArgs {
                state_dir: root.path().into(),
                config_dir: root.path().into(),
            },
        };
        let text = make(&root.path().join("none.sock"), &arguments).to_text();
        for there in [
            "gatereeve 0.",
            "not known:",
            "identity.key  mode",
            "listen = 51840",
        ] {
            assert!(text.contains(there), "{there} not in {text}");
        }
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let base64 = gatereeve_shared::text::base64(&key);
        for gone in ["alice", hex.as_str(), base64.trim_end_matches('=')] {
            assert!(!text.contains(gone), "{gone} in {text}");
        }
    }

    #[test]
    fn names_keys_and_addresses_of_a_status_are_taken_out() {
        let status = json!({
            "kind": "status", "version": "0.1.0", "network": "Acme Corp",
            "names": {"domain": "acme-corp.internal", "resolver": {"v4": "100.64.0.0", "v6": "fd00::"}, "state": "in_use"}, "name": "laptop",
            "fingerprint": "deadbeefdeadbeef", "controllers": ["vpn.example.com:8443"],
            "addresses": {"v4": "100.64.0.7", "v6": "fd00::7"}, "wg_key": "q83vEjRWeJqrze8SNFZ4mg==",
            "peers": 3, "last_error": "vpn.example.com:8443 (192.0.2.9:8443) does not answer",
            "warnings": ["laptop of Acme Corp is slow", "names in acme-corp.internal are asked for elsewhere"],
        });
        let mut report = Report::new("gatereeve", "0.1.0");
        hide_own_names(&mut report, &status);
        report.add_answer("status", Ok(status.clone()), &SECRET);
        let text = report.to_text();
        for gone in [
            "Acme",
            "acme",
            "laptop",
            "deadbeef",
            "vpn.example",
            "100.64",
            "fd00::",
            "q83v",
            "192.0.2",
        ] {
            assert!(status.to_string().contains(gone), "the control");
            assert!(!text.contains(gone), "{gone} in {text}");
        }
        assert!(
            text.contains("\"peers\": 3") && text.contains("does not answer"),
            "{text}"
        );
    }
}
