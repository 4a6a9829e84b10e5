//! What the demo prints: progress as it goes, and at the end one object or where to go next.

use std::io::Write as _;

use serde_json::{Map, Value, json};

/// Steps and figures, as they come.
#[derive(Debug)]
pub(crate) struct Report {
    json: bool,
    steps: Vec<Value>,
    figures: Map<String, Value>,
    failures: usize,
}

/// One finished step.
#[derive(Debug)]
pub(crate) struct Step {
    /// What it shows, in words.
    pub(crate) summary: String,
    /// More lines, such as reasons that the product gave.
    pub(crate) lines: Vec<String>,
    /// Measured and counted; every denial has its positive control here.
    pub(crate) facts: Value,
    /// What did not hold.
    pub(crate) broken: Vec<String>,
}

impl Step {
    /// A step that shows `summary`.
    pub(crate) fn new(summary: impl Into<String>) -> Self {
        Self {
            summary: summary.into(),
            lines: Vec::new(),
            facts: json!({}),
            broken: Vec::new(),
        }
    }

    /// Adds a line.
    pub(crate) fn line(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// Adds a figure or count.
    pub(crate) fn fact(&mut self, name: &str, value: impl Into<Value>) {
        if let Some(facts) = self.facts.as_object_mut() {
            facts.insert(name.to_owned(), value.into());
        }
    }

    /// Notes that `what` has to hold.
    pub(crate) fn must(&mut self, holds: bool, what: impl Into<String>) {
        if !holds {
            self.broken.push(what.into());
        }
    }
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            steps: Vec::new(),
            figures: Map::new(),
            failures: 0,
        }
    }

    /// Says what is being done.
    pub(crate) fn progress(&self, text: &str) {
        self.say(&format!("      {text}"));
    }

    /// Plays a step and prints how it went.
    pub(crate) fn step(
        &mut self,
        name: &str,
        play: impl FnOnce(&mut Self) -> anyhow::Result<Step>,
    ) {
        self.say(&format!("\n[{}] {name}", self.steps.len() + 1));
        match play(self) {
            Ok(step) => self.finish_step(name, step),
            Err(error) => self.fail(name, &error),
        }
    }

    /// Notes a step that could not be played to its end.
    pub(crate) fn fail(&mut self, name: &str, error: &anyhow::Error) {
        let mut step = Step::new("could not be played to its end");
        step.broken.push(format!("{error:?}"));
        self.finish_step(name, step);
    }

    /// Adds a figure to the final table.
    pub(crate) fn figure(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.insert(name.to_owned(), value.into());
    }

    /// Prints the end; whether every step held.
    pub(crate) fn finish(self) -> bool {
        let ok = self.failures == 0;
        if self.json {
            let object = json!({ "steps": self.steps, "figures": self.figures });
            // Where nobody reads any more there is nobody to tell.
            drop(writeln!(std::io::stdout(), "{object:#}"));
            return ok;
        }
        self.say("\nFigures");
        for (name, value) in &self.figures {
            self.say(&format!("      {:<34} {value}", name.replace('_', " ")));
        }
        if ok {
            self.say(&format!("\nAll {} steps held. {NEXT}", self.steps.len()));
        } else {
            self.say(&format!(
                "\n{} of {} steps did NOT hold.",
                self.failures,
                self.steps.len()
            ));
        }
        ok
    }

    fn finish_step(&mut self, name: &str, step: Step) {
        let ok = step.broken.is_empty();
        self.failures += usize::from(!ok);
        for line in &step.lines {
            self.say(&format!("      {line}"));
        }
        for broken in &step.broken {
            self.say(&format!("      DID NOT HOLD: {broken}"));
        }
        self.say(&format!(
            "  {} {}",
            if ok { "ok:" } else { "FAILED:" },
            step.summary
        ));
        let mut detail = json!({ "summary": step.summary, "lines": step.lines });
        if let (Some(detail), Value::Object(facts)) = (detail.as_object_mut(), step.facts) {
            detail.extend(facts);
            if !ok {
                detail.insert("broken".into(), step.broken.into());
            }
        }
        self.steps
            .push(json!({ "name": name, "ok": ok, "detail": detail }));
    }

    fn say(&self, text: &str) {
        if self.json {
            drop(writeln!(std::io::stderr(), "{text}"));
        } else {
            drop(writeln!(std::io::stdout(), "{text}"));
        }
    }
}

const NEXT: &str = "Everything was real: binaries, tunnels, packets.

Where to go from here
      README.md                               a controller and two machines of your own
      gatereeve-controller policy --help      check, plan, apply, explain, reach
      gatereeve --help                        what a device's user can ask
      controller/docs/policy-language.md      the policy, by example
      cargo test --workspace                  how all of it is shown to hold";
