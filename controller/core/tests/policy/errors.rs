//! What is wrong with a policy file is said with its place and what to do about it.

use std::collections::BTreeMap;

use gatereeve_controller_core::command::PolicyProblem;
use gatereeve_controller_core::policy::{MAX_BYTES, Policy};
use gatereeve_shared::ids::{DeviceId, DeviceName};

const GOOD: &str = r#"version = 1

[groups]
engineering = ["alice@example.com", "bob@example.com"]

[tags."tag:web"]
owners = ["group:engineering"]
[tags."tag:db"]

[posture.workstation]
disk_encrypted = true
firewall = true
os = { debian = ">= 12", ubuntu = ">= 22.04", macos = ">= 14.0", windows = ">= 10.0.19045" }
kernel = ">= 6.1"
pending_security_updates = "<= 0"
secure_boot = true
screen_lock = true
max_age = "15m"
process = ["/opt/edr/agent"]
custom.mdm_enrolled = true
custom.ring = "stable"
custom.agent = ">= 3"

[network]
lease = "8h"
key_expiry = "90d"
rotate_key = "12h"

[[allow]]
id = "web-to-db"
from = ["tag:web"]
to = ["tag:db"]
ports = ["tcp:5432"]

[[allow]]
id = "engineers-ssh"
from = ["group:engineering", "device:laptop"]
to = ["tag:web", "tag:db"]
ports = ["tcp:22", "udp:60000-61000", "icmp"]
posture = ["workstation"]
schedule = "Mon-Fri 08:00-19:00 Europe/Berlin"
until = 2027-06-30T00:00:00Z
lease = "1h"

[[test]]
from = "tag:web"
to = "tag:db"
ports = ["tcp:5432", "tcp:22"]
expect = ["allow", "deny"]
"#;

fn names() -> BTreeMap<DeviceName, DeviceId> {
    BTreeMap::from([(DeviceName::new("laptop").unwrap(), DeviceId([1; 20]))])
}

fn errors(text: &str) -> Vec<PolicyProblem> {
    match Policy::parse(text, &names()) {
        Ok(_) => panic!("the file passes:\n{text}"),
        Err(problems) => {
            assert!(problems.iter().any(|problem| !problem.is_warning));
            problems
        }
    }
}

/// Replaces `old` in the good file by `new`; the first error must lie at the text `at`.
#[track_caller]
fn refused(old: &str, new: &str, at: &str, message: &str, help: &str) {
    assert!(GOOD.contains(old), "{old:?}");
    let text = GOOD.replacen(old, new, 1);
    let problems = errors(&text);
    let first = &problems[0];
    let (start, len) = first.span;
    let place = &text[start..start + len];
    assert!(
        place.starts_with(at),
        "at {place:?} instead of {at:?}: {first:?}"
    );
    let line = text[..start].matches('\n').count() + 1;
    assert_eq!(first.line, line);
    let column = text[..start]
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    assert_eq!(first.column, column);
    assert!(
        first.message.contains(message),
        "{message:?} is not in {first:?}"
    );
    let found = first.help.clone().unwrap_or_default();
    assert!(found.contains(help), "{help:?} is not in {first:?}");
}

#[test]
fn the_good_file_passes() {
    let (policy, warnings) = Policy::parse(GOOD, &names()).unwrap();
    assert_eq!(warnings, []);
    assert_eq!((policy.rule_count(), policy.test_count()), (2, 1));
    assert_eq!(policy.text(), GOOD);
    assert_eq!(policy.pins(), &names());
    assert_eq!(policy.watched_processes(), ["/opt/edr/agent"]);
    assert_eq!(policy.lease().as_secs(), 8 * 3600);
    assert_eq!(policy.key_expiry().unwrap().as_secs(), 90 * 86_400);
    assert_eq!(policy.rotate_key().as_secs(), 12 * 3600);
    assert_eq!(policy.renew_every().as_secs(), 120);
}

#[test]
fn an_empty_file_denies_everything() {
    for text in ["", "\n", "# nothing yet\n", "version = 1"] {
        let (policy, warnings) = Policy::parse(text, &names()).unwrap();
        assert_eq!((policy.rule_count(), warnings.len()), (0, 0));
    }
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_one() {
    refused(
        "ports = [\"tcp:5432\"]",
        "prots = [\"tcp:5432\"]",
        "",
        "",
        "",
    );
    refused(
        "[network]",
        "[netwrok]",
        "netwrok",
        "no key `netwrok`",
        "`network`",
    );
    refused(
        "lease = \"8h\"",
        "leese = \"8h\"",
        "leese",
        "leese",
        "`lease`",
    );
    refused(
        "firewall = true",
        "firewal = true",
        "firewal",
        "",
        "`firewall`",
    );
    refused(
        "id = \"web-to-db\"",
        "id = \"web-to-db\"\nbanana = 1",
        "banana",
        "banana",
        "its keys are",
    );
    refused(
        "expect =",
        "expects = 1\nexpect =",
        "expects",
        "expects",
        "`expect`",
    );
}

#[test]
fn unknown_names_are_refused_with_the_nearest_known_one() {
    refused(
        "from = [\"tag:web\"]",
        "from = [\"tag:wbe\"]",
        "\"tag:wbe\"",
        "no tag `wbe`",
        "`web`",
    );
    refused(
        "from = [\"tag:web\"]",
        "from = [\"tag:printer\"]",
        "\"tag:printer",
        "no tag",
        "declare it",
    );
    refused(
        "[\"group:engineering\", ",
        "[\"group:enginering\", ",
        "\"group:e",
        "no group",
        "`engineering`",
    );
    refused(
        "device:laptop",
        "device:laptpo",
        "\"device:laptpo",
        "no device",
        "`laptop`",
    );
    refused(
        "posture = [\"workstation\"]",
        "posture = [\"workstatoin\"]",
        "\"workstatoin\"",
        "no posture check",
        "`workstation`",
    );
    refused(
        "owners = [\"group:engineering\"]",
        "owners = [\"group:eng\"]",
        "\"group:eng\"",
        "no group",
        "[groups]",
    );
    refused(
        "from = \"tag:web\"",
        "from = \"tag:wen\"",
        "\"tag:wen\"",
        "no tag",
        "`web`",
    );
    refused(
        "from = [\"tag:web\"]",
        "from = [\"tags:web\"]",
        "\"tags:web\"",
        "no principal",
        "`tag`",
    );
    refused(
        "from = [\"tag:web\"]",
        "from = [\"alice\"]",
        "\"alice\"",
        "no principal",
        "name@domain",
    );
    refused(
        "from = [\"tag:web\"]",
        "from = [\"10.0.0.1\"]",
        "\"10.0.0.1\"",
        "no principal",
        "",
    );
    refused(
        "from = [\"tag:web\"]",
        "from = [\"fd00::1\"]",
        "\"fd00::1\"",
        "no principal",
        "not addresses",
    );
    refused(
        "from = [\"tag:web\"]",
        "from = [\"Alice@example.com\"]",
        "\"Alice@",
        "is not a user",
        "",
    );
}

#[test]
fn what_nothing_enforces_yet_is_refused() {
    refused(
        "[network]",
        "[segment.payments]\nmembers = [\"tag:web\"]\nmode = \"observe\"\n[network]",
        "segment",
        "not supported yet",
        "",
    );
    refused(
        "from = [\"tag:web\"]",
        "from = [\"segment:payments\"]",
        "\"segment",
        "not supported yet",
        "",
    );
    refused(
        "to = [\"tag:db\"]",
        "to = [\"subnet:lan\"]",
        "\"subnet",
        "not supported yet",
        "",
    );
}

#[test]
fn values_of_the_wrong_form_are_refused() {
    for port in [
        "tcp:0",
        "tcp:65536",
        "tcp:9-3",
        "sctp:1",
        "22",
        "tcp:",
        "*:22",
        "tcp:22,23",
        "TCP:22",
    ] {
        refused(
            "\"tcp:5432\"]\n\n[[allow]]",
            &format!("\"{port}\"]\n\n[[allow]]"),
            &format!("\"{port}"),
            "",
            "write tcp:22",
        );
    }
    refused(
        "\"Mon-Fri 08:00-19:00 Europe/Berlin\"",
        "\"Mon-Fri 08:00-19:00\"",
        "\"Mon",
        "time zone",
        "UTC",
    );
    refused(
        "Europe/Berlin",
        "Europe/Brelin",
        "\"Mon",
        "no time zone",
        "`Europe/Berlin`",
    );
    refused(
        "2027-06-30T00:00:00Z",
        "2027-06-30T00:00:00",
        "2027",
        "every time zone",
        "offset",
    );
    refused(
        "2027-06-30T00:00:00Z",
        "2027-06-30",
        "2027",
        "every time zone",
        "",
    );
    refused(
        "2027-06-30T00:00:00Z",
        "\"tomorrow\"",
        "\"tomorrow\"",
        "date and time",
        "",
    );
    refused(
        "max_age = \"15m\"",
        "max_age = \"15 minutes\"",
        "\"15 min",
        "no duration",
        "15m",
    );
    refused("max_age = \"15m\"", "max_age = 15", "15", "string", "");
    refused(
        "max_age = \"15m\"",
        "max_age = \"0s\"",
        "\"0s\"",
        "out of range",
        "",
    );
    refused(
        "kernel = \">= 6.1\"",
        "kernel = \"6.1\"",
        "\"6.1\"",
        "no version",
        ">= 12",
    );
    refused(
        "firewall = true",
        "firewall = false",
        "false",
        "only be asked to be true",
        "",
    );
    refused("debian = \">= 12\"", "debian = 12", "12", "string", "");
    refused("\"<= 0\"", "-1", "-1", "less than 0", "");
    refused("\"<= 0\"", "\"few\"", "\"few\"", "no number of updates", "");
    refused(
        "\"/opt/edr/agent\"",
        "\"agent\"",
        "\"agent\"",
        "no path",
        "whole path",
    );
    refused(
        "custom.agent = \">= 3\"",
        "custom.agent = \">= new\"",
        "\">= new\"",
        "no version",
        "",
    );
    refused(
        "custom.agent",
        "custom.\"a b\"",
        "\"a b\"",
        "not the name of a fact",
        "",
    );
    refused(
        "version = 1",
        "version = 2",
        "2",
        "version 1",
        "version = 1",
    );
    refused("version = 1\n", "", "", "which version", "version = 1");
    refused("[[allow]]", "[allow]", "", "", "");
    refused(
        "[tags.\"tag:web\"]",
        "[tags.web]",
        "web",
        "no tag",
        "tag:web",
    );
    refused(
        "[\"alice@example.com\"",
        "[\"group:all\"",
        "\"group:all\"",
        "not a user",
        "not groups",
    );
    refused(
        "expect = [\"allow\", \"deny\"]",
        "expect = [\"allow\"]",
        "[\"allow\"]",
        "2 ports and expects 1",
        "",
    );
    refused(
        "\"allow\", \"deny\"",
        "\"alow\", \"deny\"",
        "\"alow\"",
        "neither",
        "`allow`",
    );
}

#[test]
fn what_is_missing_is_named() {
    refused(
        "id = \"web-to-db\"\n",
        "",
        "[[allow]]",
        "no `id`",
        "add `id",
    );
    refused(
        "from = [\"tag:web\"]\n",
        "",
        "[[allow]]",
        "no `from`",
        "add `from",
    );
    refused(
        "ports = [\"tcp:5432\"]\n",
        "",
        "[[allow]]",
        "no `ports`",
        "add `ports",
    );
    refused("to = [\"tag:db\"]", "to = []", "[]", "`to` is empty", "");
    refused(
        "[network]",
        "[posture.empty]\n[network]",
        "empty",
        "asks for nothing",
        "",
    );
    refused(
        "[network]",
        "[posture.empty]\nmax_age = \"5m\"\n[network]",
        "empty",
        "asks for nothing",
        "",
    );
}

#[test]
fn duplicates_are_refused() {
    refused(
        "id = \"engineers-ssh\"",
        "id = \"web-to-db\"",
        "\"web-to-db\"",
        "line 29",
        "",
    );
    refused(
        "[network]",
        "[network]\nlease = \"1h\"\n[network]",
        "",
        "duplicate",
        "",
    );
}

#[test]
fn hostile_files_are_refused_cleanly() {
    let large = format!("# {}\n", "x".repeat(10 * MAX_BYTES));
    assert!(errors(&large)[0].message.contains("bytes"));
    let fits = format!("#{}\n", "x".repeat(MAX_BYTES - 2));
    assert!(Policy::parse(&fits, &names()).is_ok());
    for deep in [
        format!("version = {}1{}", "[".repeat(10_000), "]".repeat(10_000)),
        format!("x = {}1{}", "{a=".repeat(10_000), "}".repeat(10_000)),
        format!("{}a = 1", "a.".repeat(10_000)),
        format!("[{}a]", "a.".repeat(10_000)),
    ] {
        errors(&deep);
    }
    errors("version = 1\n\u{0}");
    errors("[[allow]\n");
    // As many problems as fit in a megabyte: the first are reported, and the answer stays small.
    let many = format!("version = 1\n{}", "[[allow]]\nid = 1\n".repeat(50_000));
    let problems = errors(&many);
    assert!(problems.len() <= 51);
    let keys: String = (0..100_000).map(|n| format!("k{n}=1\n")).collect();
    let problems = errors(&keys);
    assert_eq!(problems.len(), 51);
    assert_eq!(
        problems[50].message, "and 99951 more problems",
        "each key, and the version that is missing"
    );
}

#[test]
fn what_travels_to_devices_is_bounded() {
    let checks = |count: usize, body: &dyn Fn(usize) -> String| {
        let checks = (0..count).map(|n| format!("[posture.c{n}]\n{}\n", body(n)));
        format!("version = 1\n{}", checks.collect::<String>())
    };
    let facts = |from: usize, to: usize| -> String {
        (from..to)
            .map(|n| format!("custom.f{n} = true\n"))
            .collect()
    };
    let one = |_| "firewall = true".to_owned();
    assert!(Policy::parse(&checks(64, &one), &names()).is_ok());
    let messages = |text: &str| errors(text).remove(0).message;
    assert!(messages(&checks(65, &one)).contains("64 posture checks"));
    assert!(Policy::parse(&checks(1, &|_| facts(0, 256)), &names()).is_ok());
    assert!(messages(&checks(1, &|_| facts(0, 257))).contains("256 facts"));
    assert!(messages(&checks(5, &|_| facts(0, 256))).contains("1024 conditions"));
    let watch = |count: usize| {
        let paths: Vec<String> = (0..count).map(|n| format!("\"/bin/p{n}\"")).collect();
        checks(1, &|_| format!("process = [{}]", paths.join(",")))
    };
    assert!(Policy::parse(&watch(64), &names()).is_ok());
    assert!(messages(&watch(65)).contains("64 processes"));
    let ports = |count: usize| {
        let ports: Vec<String> = (1..=count).map(|n| format!("\"tcp:{n}\"")).collect();
        let ports = ports.join(",");
        format!("version = 1\n[[allow]]\nid = \"a\"\nfrom = \"*\"\nto = \"*\"\nports = [{ports}]\n")
    };
    assert!(Policy::parse(&ports(64), &names()).is_ok());
    assert!(messages(&ports(65)).contains("64 ports"));
}

#[test]
fn a_policy_is_rebuilt_from_its_pins() {
    let (policy, _) = Policy::parse(GOOD, &names()).unwrap();
    let rebuilt = Policy::from_pinned(GOOD, policy.pins()).unwrap();
    assert_eq!(rebuilt.pins(), policy.pins());
    assert_eq!(rebuilt.rule_count(), 2);
    assert!(Policy::from_pinned(GOOD, &BTreeMap::new()).is_err());
}

#[test]
fn suspicious_rules_are_warned_about() {
    let text = format!(
        "{GOOD}\n[[allow]]\nid = \"all\"\nfrom = [\"*\"]\nto = [\"*\"]\nports = [\"*\"]\n\
         [[allow]]\nid = \"web-again\"\nfrom = [\"tag:web\"]\nto = [\"tag:db\"]\nports = [\"tcp:5432\"]\n"
    );
    let (_, warnings) = Policy::parse(&text, &names()).unwrap();
    let messages: Vec<&str> = warnings.iter().map(|w| w.message.as_str()).collect();
    assert!(
        messages
            .iter()
            .any(|m| m.contains("`all` lets every device"))
    );
    assert!(
        messages
            .iter()
            .any(|m| m.contains("`web-to-db` allows nothing that `all`"))
    );
    assert!(
        messages
            .iter()
            .any(|m| m.contains("`web-again` allows nothing"))
    );
    assert!(warnings.iter().all(|warning| warning.is_warning));
}
