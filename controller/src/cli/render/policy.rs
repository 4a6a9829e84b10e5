//! Policies, and what they make of the devices.

use gatereeve_controller_core::command::{
    ExplainView, FlowView, PlanView, ReachView, RevisionView, TestView,
};

use super::{finish, list, ports, table, when, yes_no};

pub(super) fn text(revision: u64, text: &str) -> String {
    if revision == 0 {
        "# No policy is in force: nothing may reach anything.\n".to_owned()
    } else {
        text.to_owned()
    }
}

pub(super) fn plan(plan: &PlanView) -> String {
    let mut text = format!(
        "Compared with revision {} (apply with --if-generation {0} to be sure it still is):\n",
        plan.revision
    );
    for (title, flows) in [("Opens", &plan.opens), ("Closes", &plan.closes)] {
        if flows.is_empty() {
            text.push_str(&format!("\n{title} nothing.\n"));
        } else {
            text.push_str(&format!("\n{title}:\n{}", flow_table(flows)));
        }
    }
    text
}

fn flow_table(flows: &[FlowView]) -> String {
    let mut rows = table(&["FROM", "TO", "PORTS", "RULES"]);
    for flow in flows {
        rows.add_row([
            flow.from.to_string(),
            flow.to.to_string(),
            ports(&flow.ports),
            list(&flow.rules),
        ]);
    }
    finish(&rows)
}

pub(super) fn history(revisions: &[RevisionView]) -> String {
    if revisions.is_empty() {
        return "No policy was ever applied.\n".to_owned();
    }
    let mut rows = table(&["REVISION", "APPLIED", "BY", "RULES", "IN FORCE"]);
    for revision in revisions {
        rows.add_row([
            revision.revision.to_string(),
            when(revision.at),
            revision.by.clone(),
            revision.rules.to_string(),
            yes_no(revision.in_force),
        ]);
    }
    finish(&rows)
}

pub(super) fn tests(results: &[TestView]) -> String {
    if results.is_empty() {
        return "The policy has no tests.\n".to_owned();
    }
    let word = |allowed: bool| if allowed { "allow" } else { "deny" };
    let mut rows = table(&["FROM", "TO", "PORT", "EXPECTED", "IS", "RESULT"]);
    for test in results {
        let passed = test.allowed == test.expect_allow;
        rows.add_row([
            test.from.clone(),
            test.to.clone(),
            test.port.to_string(),
            word(test.expect_allow).to_owned(),
            word(test.allowed).to_owned(),
            if passed { "passed" } else { "FAILED" }.to_owned(),
        ]);
    }
    let failed = results
        .iter()
        .filter(|test| test.allowed != test.expect_allow)
        .count();
    format!(
        "{}\n{} tests, {failed} failed.\n",
        finish(&rows),
        results.len()
    )
}

pub(super) fn explained(view: &ExplainView) -> String {
    let flow = format!("{} -> {} {}", view.from, view.to, view.port);
    let mut text = if view.allowed {
        let rule = view
            .rule
            .as_ref()
            .map_or_else(String::new, |rule| format!(" by rule {rule}"));
        let until = view.until.map_or_else(String::new, |until| {
            format!(", leased until {}", when(until))
        });
        format!("ALLOWED  {flow}{rule}{until}\n")
    } else {
        format!("DENIED   {flow}\n")
    };
    if !view.allowed {
        for missing in &view.missing {
            text.push_str(&format!("  missing: {missing}\n"));
        }
    }
    if !view.candidates.is_empty() {
        text.push_str("\nRules that name both devices and the port:\n");
        for candidate in &view.candidates {
            if candidate.missing.is_empty() {
                text.push_str(&format!(
                    "  {} (line {}): grants it\n",
                    candidate.rule, candidate.line
                ));
            } else {
                text.push_str(&format!(
                    "  {} (line {}): {}\n",
                    candidate.rule,
                    candidate.line,
                    candidate.missing.join("; ")
                ));
            }
        }
    }
    text
}

pub(super) fn reach(view: &ReachView) -> String {
    if view.reached.is_empty() {
        return format!(
            "{} can reach none of the {} other devices.\n",
            view.device, view.unreached
        );
    }
    let mut rows = table(&["DEVICE", "HOPS", "THROUGH", "PORTS", "RULES"]);
    for reached in &view.reached {
        rows.add_row([
            reached.device.to_string(),
            reached.hops.to_string(),
            list(&reached.through),
            ports(&reached.ports),
            list(&reached.rules),
        ]);
    }
    format!(
        "From {}:\n{}\n{} devices reached, {} out of reach.\n",
        view.device,
        finish(&rows),
        view.reached.len(),
        view.unreached
    )
}
