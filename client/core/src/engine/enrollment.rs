//! How the device stands with the network, and how it becomes one of its devices.

use std::time::Duration;

use gatereeve_shared::ids::InviteId;
use gatereeve_shared::invite::InviteSecret;
use gatereeve_shared::limits;
use gatereeve_shared::time::Now;
use gatereeve_shared::wire::client::{ClientMessage, Enroll};
use gatereeve_shared::wire::controller::{EnrollReply, Refusal, RefusalCode, Standing};

use super::{Engine, Timer, shown};
use crate::control::link::Phase;
use crate::output::Output;
use crate::stored::Enrollment;

/// Wait for the first facts before an attach.
const FACTS: Duration = Duration::from_secs(3);

impl Engine {
    /// Become a device of the network: with an invite, or by waiting for approval. Kept over
    /// restarts until it is through. Answered by [`Output::Enrolled`], at once where the device is
    /// one already.
    pub fn handle_enroll(
        &mut self,
        invite: Option<(InviteId, InviteSecret)>,
        hostname: &str,
        now: Now,
    ) {
        self.begin(now);
        let mut name: String = hostname.chars().take(limits::TEXT / 4).collect();
        name.retain(|c| !c.is_control());
        self.stored.enrollment = Some(Enrollment { invite, name });
        self.dirty.save = true;
        match self.link.session().map(|session| session.standing) {
            Some(Standing::Approved | Standing::Quarantined) => self.finish_enrollment(),
            Some(Standing::Unknown | Standing::Pending | Standing::Expired | Standing::Revoked) => {
                self.ask_to_enroll();
            }
            None => {}
        }
        self.settle(now);
    }

    /// The controller says how the device stands. Anything but approved closes everything at once,
    /// and on disk, so that no restart brings it back.
    pub(super) fn take_standing(&mut self, standing: Standing, now: Now) {
        let is_news = self.stored.standing != Some(standing);
        self.stored.standing = Some(standing);
        if standing != Standing::Approved {
            self.drop_map();
        }
        if matches!(standing, Standing::Revoked | Standing::Unknown) {
            // Its addresses will be somebody else's.
            self.stored.this = None;
        }
        if is_news {
            tracing::info!(?standing, "standing with the network");
            self.dirty.table = true;
            self.dirty.save = true;
        }
        let Some(session) = self.link.session_mut() else {
            return;
        };
        session.standing = standing;
        let phase = session.phase;
        match standing {
            Standing::Approved | Standing::Quarantined => {
                self.finish_enrollment_if_any();
                if phase == Phase::Waiting {
                    self.attach_soon(now);
                }
            }
            Standing::Unknown | Standing::Pending | Standing::Expired | Standing::Revoked => {
                self.stop_session_proper(standing, now);
            }
        }
        if standing != Standing::Approved {
            // There is nothing to hold anything back for.
            self.release_gate(now);
        }
    }

    /// What a device that is none may do: ask to become one, or wait.
    fn stop_session_proper(&mut self, standing: Standing, now: Now) {
        if let Some(session) = self.link.session_mut() {
            session.phase = Phase::Waiting;
        }
        self.checks.clear();
        self.timers.clear(Timer::Attach);
        self.timers.clear(Timer::Quiet);
        self.answer_all_from_map(now);
        self.last_error = match standing {
            Standing::Unknown if self.stored.enrollment.is_some() => {
                self.ask_to_enroll();
                None
            }
            Standing::Unknown => Some(
                "the controller does not know this device: join again with a new invite".into(),
            ),
            Standing::Expired => Some(
                "this device's key has expired: leave, and join again with a new invite".into(),
            ),
            Standing::Revoked => {
                Some("this device was revoked: leave, and join again with a new invite".into())
            }
            Standing::Pending => {
                let has_invite = |e: &Enrollment| e.invite.is_some();
                if self.stored.enrollment.as_ref().is_some_and(has_invite) {
                    self.ask_to_enroll();
                }
                None
            }
            Standing::Approved | Standing::Quarantined => self.last_error.take(),
        };
    }

    /// Waits for facts where there are none, so that the first report does not fail every check.
    fn attach_soon(&mut self, now: Now) {
        if self.posture.is_fresh(now) {
            self.attach(now);
        } else if let Some(session) = self.link.session_mut() {
            session.phase = Phase::Collecting;
            self.timers
                .set(Timer::Attach, now.mono.saturating_add(FACTS));
        }
    }

    fn drop_map(&mut self) {
        if self.stored.map.take().is_some() {
            self.dirty.table = true;
            self.dirty.save = true;
        }
        self.assembler.clear();
        self.problems.clear();
        self.learned.clear();
        self.confirmed.clear();
        self.enforced = None;
        self.published.clear();
    }

    fn ask_to_enroll(&mut self) {
        let Some(enrollment) = self.stored.enrollment.clone() else {
            return;
        };
        let keys = self
            .keys
            .update(&self.config.identity, &self.config.network);
        self.say(ClientMessage::Enroll(Enroll {
            invite: enrollment.invite,
            name: enrollment.name,
            binding: keys.current,
        }));
    }

    pub(super) fn on_enrolled(&mut self, reply: EnrollReply, now: Now) {
        if self.stored.enrollment.is_none() {
            return;
        }
        match reply {
            EnrollReply::Done(standing) => {
                if matches!(standing, Standing::Approved | Standing::Quarantined) {
                    self.stored.enrollment = None;
                } else {
                    self.forget_invite();
                }
                self.dirty.save = true;
                self.turn
                    .push(Output::Enrolled(EnrollReply::Done(standing)));
                self.take_standing(standing, now);
            }
            EnrollReply::Refused(refusal) => self.refused(refusal, now),
        }
    }

    /// A refusal: shown, and the end of an enrollment that trying again cannot help.
    pub(super) fn refused(&mut self, refusal: Refusal, now: Now) {
        self.last_error = Some(shown(&refusal.message));
        let is_waiting = self.stored.enrollment.is_some()
            && self
                .link
                .session()
                .is_some_and(|session| session.phase == Phase::Waiting);
        if !is_waiting {
            return;
        }
        match refusal.code {
            RefusalCode::RateLimited | RefusalCode::Unavailable => {
                // Asked again with the next session, which is not soon.
                self.slow_down = true;
                self.lose_session(&refusal.message, now);
            }
            RefusalCode::ShuttingDown | RefusalCode::Replaced => {}
            RefusalCode::Invite
            | RefusalCode::Binding
            | RefusalCode::Protocol
            | RefusalCode::Standing
            | RefusalCode::Version => {
                self.stored.enrollment = None;
                self.dirty.save = true;
                self.turn
                    .push(Output::Enrolled(EnrollReply::Refused(refusal)));
            }
        }
    }

    /// An invite that was used is no secret worth keeping, and no use the second time.
    fn forget_invite(&mut self) {
        if let Some(enrollment) = &mut self.stored.enrollment
            && enrollment.invite.take().is_some()
        {
            self.dirty.save = true;
        }
    }

    fn finish_enrollment_if_any(&mut self) {
        if self.stored.enrollment.is_some() {
            self.finish_enrollment();
        }
    }

    fn finish_enrollment(&mut self) {
        self.stored.enrollment = None;
        self.dirty.save = true;
        let standing = self.stored.standing.unwrap_or(Standing::Approved);
        self.turn
            .push(Output::Enrolled(EnrollReply::Done(standing)));
    }
}
