//! "May I reach this, and if not, why?": the controller's answer, or the map's where it is not there.

use std::collections::BTreeMap;
use std::time::Duration;

use gatereeve_shared::limits;
use gatereeve_shared::policy::port::{PortSpec, Protocol};
use gatereeve_shared::time::{Mono, Now};
use gatereeve_shared::wire::client::{ClientMessage, WhyRequest};
use gatereeve_shared::wire::controller::WhyReply;
use gatereeve_shared::wire::map::PeerEntry;

use super::{Engine, Timer};
use crate::api::{RuleStatus, WhyView};
use crate::output::Output;
use crate::wg::handshake_limit::Bucket;

/// The controller has this long to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Questions that wait at most; further ones are answered from the map at once.
const MOST: usize = 64;
/// Missing conditions that are shown.
const MOST_MISSING: usize = 64;

/// Questions put to the controller per second, and at once. It counts them with all else that this
/// device says, and anybody on the host may ask: they must not crowd out reports and keys.
const PER_SECOND: u64 = 8;
const BURST: u64 = 16;

/// Questions that wait for the controller, by the number they were given.
#[derive(Debug, Default)]
pub(super) struct Questions {
    open: BTreeMap<u64, Question>,
    /// How many more may be put to the controller; full when first needed.
    allowance: Option<Bucket>,
}

impl Questions {
    /// Whether one more may be put to the controller.
    fn admit(&mut self, now: Mono) -> bool {
        self.open.len() < MOST
            && self
                .allowance
                .get_or_insert_with(|| Bucket::new(PER_SECOND, BURST, now))
                .take(now)
    }
}

#[derive(Debug)]
struct Question {
    /// The shell's number.
    request: u64,
    peer: String,
    protocol: Protocol,
    port: u16,
    until: Mono,
}

impl Engine {
    /// Asks whether `peer` (name, device ID or overlay address) may be reached, at all for
    /// [`Protocol::Any`]. Answered by
    /// [`Output::WhyAnswer`] with the same `request`, within a few seconds.
    pub fn handle_why(
        &mut self,
        request: u64,
        peer: String,
        protocol: Protocol,
        port: u16,
        now: Now,
    ) {
        self.begin(now);
        let question = Question {
            request,
            peer,
            protocol,
            port,
            until: now.mono.saturating_add(PATIENCE),
        };
        let can_ask = self.link.attached().is_some()
            && question.peer.len() <= limits::TEXT
            && self.questions.admit(now.mono);
        if can_ask {
            let number = self.number();
            self.say(ClientMessage::Why(WhyRequest {
                request: number,
                peer: question.peer.clone(),
                protocol,
                port,
            }));
            self.timers.set_earlier(Timer::Why, question.until);
            self.questions.open.insert(number, question);
        } else {
            self.answer_from_map(&question, now);
        }
        self.settle(now);
    }

    pub(super) fn on_why(&mut self, reply: WhyReply, now: Now) {
        let Some(question) = self.questions.open.remove(&reply.request) else {
            return;
        };
        let missing = reply.missing.iter().take(MOST_MISSING);
        let missing = missing.map(|text| super::shown(text)).collect();
        let through = if reply.allowed {
            self.rules_for(&question, now)
        } else {
            Vec::new()
        };
        let view = WhyView {
            port: asked(&question),
            peer: question.peer,
            allowed: reply.allowed,
            through,
            rule: reply.rule,
            until: reply.until,
            missing,
            answered_by: "controller".into(),
        };
        self.turn.push(Output::WhyAnswer {
            request: question.request,
            view,
        });
    }

    pub(super) fn answer_overdue(&mut self, now: Now) {
        let overdue: Vec<u64> = self
            .questions
            .open
            .iter()
            .filter(|(_, question)| question.until <= now.mono)
            .map(|(number, _)| *number)
            .collect();
        for number in overdue {
            if let Some(question) = self.questions.open.remove(&number) {
                self.answer_from_map(&question, now);
            }
        }
        if let Some(next) = self.questions.open.values().map(|q| q.until).min() {
            self.timers.set(Timer::Why, next);
        }
    }

    pub(super) fn answer_all_from_map(&mut self, now: Now) {
        self.timers.clear(Timer::Why);
        for question in std::mem::take(&mut self.questions.open).into_values() {
            self.answer_from_map(&question, now);
        }
    }

    /// What the map held says; a name that it does not have and a peer that no rule allows are the
    /// same answer.
    fn answer_from_map(&mut self, question: &Question, now: Now) {
        let through = self.rules_for(question, now);
        let longest = through.iter().max_by_key(|rule| rule.until);
        let missing = match longest {
            Some(_) => Vec::new(),
            None => vec![
                "no rule in the map held here allows it; the controller, which could say more, does not answer"
                    .to_owned(),
            ],
        };
        let view = WhyView {
            peer: question.peer.clone(),
            port: asked(question),
            allowed: longest.is_some(),
            until: longest.map(|rule| rule.until),
            rule: longest.map(|rule| rule.rule.clone()),
            through,
            missing,
            answered_by: "map".into(),
        };
        self.turn.push(Output::WhyAnswer {
            request: question.request,
            view,
        });
    }

    /// The rules in force here that allow what is asked; all of the peer's for [`Protocol::Any`].
    fn rules_for(&self, question: &Question, now: Now) -> Vec<RuleStatus> {
        let leases = self.leases(now);
        let is_asked = |port: &PortSpec| {
            question.protocol == Protocol::Any || port.contains(question.protocol, question.port)
        };
        self.peer_named(&question.peer)
            .filter(|peer| self.in_table.contains(&peer.device))
            .into_iter()
            .flat_map(|peer| &peer.egress)
            .filter(|rule| rule.ports.iter().any(is_asked) && leases.deadline(rule).is_some())
            .map(|rule| RuleStatus {
                rule: rule.rule.clone(),
                ports: rule.ports.clone(),
                until: leases.end(rule),
            })
            .collect()
    }

    /// The held peer of this name, device ID or overlay address.
    fn peer_named(&self, name: &str) -> Option<&PeerEntry> {
        let map = self.stored.map.as_ref()?;
        if let Ok(device) = name.parse()
            && let Some(peer) = map.peers.get(&device)
        {
            return Some(peer);
        }
        let address = name.parse().ok();
        map.peers
            .values()
            .find(|peer| {
                peer.name.as_str() == name
                    || address.is_some_and(|address| super::status::owns(&peer.addresses, address))
            })
            .map(AsRef::as_ref)
    }
}

fn asked(question: &Question) -> PortSpec {
    PortSpec::new(question.protocol, question.port, question.port).unwrap_or(PortSpec::ANY)
}
