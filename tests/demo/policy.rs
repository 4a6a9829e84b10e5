//! The policies of the demo.

use std::path::Path;

/// The first one. Whether the firewall is asked for depends on whether this machine has `nft`.
pub(crate) fn first(agent: &Path, with_firewall: bool) -> String {
    let firewall = if with_firewall {
        "firewall = true\n"
    } else {
        ""
    };
    let agent = agent.display();
    format!(
        r#"version = 1

[groups]
engineering = ["alice@example.com", "bob@example.com"]

[tags."tag:web"]
owners = ["admin@example.com"]

[tags."tag:db"]
owners = ["admin@example.com"]

[posture.workstation]
process = ["{agent}"]
custom.mdm_enrolled = true
{firewall}max_age = "15m"

[[allow]]
id = "web-to-db"
from = ["tag:web"]
to = ["tag:db"]
ports = ["tcp:5432", "tcp:5201", "udp:5432"]

[[allow]]
id = "engineers-to-web"
from = ["group:engineering"]
to = ["tag:web"]
ports = ["tcp:443", "udp:8125", "icmp"]
posture = ["workstation"]

[[allow]]
id = "admin-ssh"
from = ["admin@example.com"]
to = ["tag:web", "tag:db"]
ports = ["tcp:22", "udp:2222"]

[[test]]
from = "tag:web"
to = "tag:db"
ports = ["tcp:5432", "tcp:22"]
expect = ["allow", "deny"]

[[test]]
from = "alice@example.com"
to = "tag:db"
ports = ["tcp:5432"]
expect = ["deny"]
"#
    )
}

/// The same, without the admin's way to the database.
pub(crate) fn second(first: &str) -> String {
    first.replace(
        "to = [\"tag:web\", \"tag:db\"]\nports = [\"tcp:22\"",
        "to = [\"tag:web\"]\nports = [\"tcp:22\"",
    )
}
