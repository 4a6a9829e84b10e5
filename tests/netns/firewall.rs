//! The firewall, read by netlink, against rulesets that `nft` has made, and against what `nft` itself says.

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use gatereeve_client::posture::nftables::{self, Closed};
use gatereeve_tests::netns::Namespace;
use gatereeve_tests::suite::Skip;
use gatereeve_tests::world::firewall;

const BOTH: Closed = Closed { v4: true, v6: true };
const NONE: Closed = Closed {
    v4: false,
    v6: false,
};
const V4: Closed = Closed {
    v4: true,
    v6: false,
};

/// A chain at the input hook of a table `t`.
fn input(family: &str, policy: &str, rules: &str) -> String {
    format!(
        "table {family} t {{\n chain elsewhere {{\n counter drop\n }}\n chain incoming {{\n \
         type filter hook input priority filter; policy {policy};\n{rules}\n }}\n}}\n"
    )
}

pub(crate) fn netlink_shows_what_nft_has_made() -> anyhow::Result<()> {
    firewall::nft().ok_or_else(|| Skip("nft is not installed".into()))?;
    let ssh = "tcp dport 22 accept";
    let cases = [
        ("nothing", String::new(), NONE),
        ("policy drop", input("inet", "drop", ""), BOTH),
        ("policy accept", input("inet", "accept", ssh), NONE),
        ("one family", input("ip", "drop", ssh), V4),
        (
            "two tables",
            input("ip", "drop", "") + &input("ip6", "drop", ""),
            BOTH,
        ),
        (
            "last rule drops",
            input("inet", "accept", &format!("ct state established accept\n{ssh}\ncounter log prefix \"x\" drop")),
            BOTH,
        ),
        (
            "last rule rejects",
            input("inet", "accept", &format!("{ssh}\nreject with icmpx admin-prohibited comment \"the rest\"")),
            BOTH,
        ),
        (
            "accepts all first",
            input("inet", "drop", "counter accept\ndrop"),
            NONE,
        ),
        (
            "a jump is not followed",
            input("inet", "accept", "jump elsewhere"),
            NONE,
        ),
        (
            "a condition before the verdict",
            input("inet", "accept", "iifname \"eth0\" drop\nip saddr 10.0.0.0/8 drop\nlimit rate 1/second drop"),
            NONE,
        ),
        (
            "another hook",
            input("inet", "drop", "").replace("hook input", "hook forward"),
            NONE,
        ),
        (
            // The shape of ufw: policies, and chains to jump to.
            "ufw",
            ["ip", "ip6"].map(|family| input(family, "drop", "counter jump elsewhere\ntcp dport 22 counter accept")).concat(),
            BOTH,
        ),
        (
            // The shape of firewalld: a policy that accepts, and a last rule that rejects.
            "firewalld",
            input(
                "inet",
                "accept",
                "ct state { established, related } accept\niifname \"lo\" accept\njump elsewhere2\nct state invalid drop\nreject with icmpx admin-prohibited",
            )
            .replace("chain incoming ", "chain elsewhere2 {\n tcp dport 22 accept\n }\n chain incoming "),
            BOTH,
        ),
    ];
    for (name, ruleset, expected) in cases {
        let namespace = Namespace::new()?;
        if !ruleset.is_empty() {
            firewall::load(&namespace, &ruleset).context(name)?;
        }
        let read = namespace.run(|| Ok(nftables::read()?.closed()))?;
        ensure!(read == expected, "{name}: {read:?} and not {expected:?}");
        let described = by_description(&firewall::described(&namespace)?)?;
        ensure!(
            read == described,
            "{name}: {read:?}, and by nft's words {described:?}"
        );
    }
    Ok(())
}

/// A table that is switched off closes nothing, whatever it says; many rules are read to the last.
pub(crate) fn netlink_reads_long_rulesets_and_sleeping_tables() -> anyhow::Result<()> {
    firewall::nft().ok_or_else(|| Skip("nft is not installed".into()))?;
    let namespace = Namespace::new()?;
    let many: String = (1..2000)
        .map(|port| format!("tcp dport {port} counter accept\n"))
        .collect();
    firewall::load(&namespace, &input("inet", "accept", &format!("{many}drop")))?;
    ensure!(namespace.run(|| Ok(nftables::read()?.closed()))? == BOTH);
    firewall::load(&namespace, "add table inet t { flags dormant; }")?;
    ensure!(namespace.run(|| Ok(nftables::read()?.closed()))? == NONE);
    Ok(())
}

/// What `nft -j list ruleset` comes to: another reader of the same rulesets.
fn by_description(json: &str) -> anyhow::Result<Closed> {
    let described: Value = serde_json::from_str(json)?;
    let objects = described["nftables"].as_array().context("no list")?;
    let mut closed = NONE;
    for chain in objects.iter().filter_map(|object| object.get("chain")) {
        if chain["hook"] != "input" {
            continue;
        }
        let own = objects
            .iter()
            .filter_map(|object| object.get("rule"))
            .filter(|rule| {
                rule["family"] == chain["family"]
                    && rule["table"] == chain["table"]
                    && rule["chain"] == chain["name"]
            });
        let decided = own
            .filter_map(|rule| rule["expr"].as_array())
            .find_map(|expr| verdict(expr));
        if decided.unwrap_or(chain["policy"] == "drop") {
            let family = chain["family"].as_str().context("no family")?;
            match family {
                "inet" => closed = BOTH,
                "ip" => closed.v4 = true,
                "ip6" => closed.v6 = true,
                other => bail!("family {other}"),
            }
        }
    }
    Ok(closed)
}

fn verdict(expressions: &[Value]) -> Option<bool> {
    let mut verdict = None;
    for expression in expressions {
        let keys: Vec<&str> = expression.as_object()?.keys().map(String::as_str).collect();
        match keys.as_slice() {
            ["counter" | "log"] => {}
            ["drop" | "reject"] => verdict = Some(true),
            ["accept"] => verdict = Some(false),
            _ => return None,
        }
    }
    verdict
}
