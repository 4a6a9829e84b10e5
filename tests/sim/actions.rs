//! What happens to the world, at random.

use std::time::Duration;

use gatereeve_controller_core::audit::entry::Actor;
use gatereeve_controller_core::command::{Command, Reply, Request};
use gatereeve_controller_core::output::RequestId;
use gatereeve_controller_core::state::device::DeviceStatus;
use gatereeve_shared::ids::{DeviceId, TagName};
use gatereeve_shared::invite::Invite;

use crate::device::Device;
use crate::model::{PORTS, Rules, TAGS};
use crate::packets::request;
use crate::world::{Event, World};

/// More devices than this make runs slow and find no more.
const DEVICES: usize = 9;

impl World {
    /// One action.
    pub(crate) fn act(&mut self) {
        match self.random.below(100) {
            0..50 => self.send_some(),
            50..58 => self.apply_policy(),
            58..68 => self.change_health(),
            68..74 => self.change_a_device(),
            74..77 => self.enroll(),
            77..84 => self.cut_or_mend(),
            84..88 => self.restart_a_device(),
            88..91 => self.crash_controller(),
            91..93 => self.is_disk_full = self.random.one_in(2),
            93..95 => self.loss = [0, 0, 20, 3][self.random.below(4)],
            _ => {
                let time = Duration::from_secs(self.random.below(90) as u64);
                self.run_for(time);
            }
        }
        let time = Duration::from_micros(self.random.below(400_000) as u64);
        self.run_for(time);
    }

    /// Asks the controller, and lets time pass until it has answered.
    fn ask(&mut self, command: Command) -> Option<Reply> {
        let request = self.next_request;
        self.next_request += 1;
        let actor = Actor::Local {
            uid: 0,
            user: "root".into(),
        };
        let command = Request {
            command,
            wait_ms: None,
        };
        self.controller
            .handle_command(RequestId(request), &actor, command, self.now);
        self.drain_controller();
        for _ in 0..50 {
            if let Some(result) = self.replies.remove(&request) {
                return result.ok();
            }
            self.run_for(Duration::from_millis(10));
        }
        None
    }

    /// A new device gets an invite and joins.
    pub(crate) fn enroll(&mut self) {
        if self.devices.len() >= DEVICES {
            return;
        }
        let tag = TagName::new(*self.random.pick(&TAGS).unwrap()).unwrap();
        let reply = self.ask(Command::InviteCreate {
            tags: vec![tag],
            user: None,
            uses: 1,
            expires_secs: 3600,
            ephemeral: false,
            approve: false,
        });
        let Some(Reply::Invite { invite, .. }) = reply else {
            return;
        };
        let invite: Invite = invite.parse().unwrap();
        let number = u16::try_from(self.devices.len() + 1).unwrap();
        let network = self.fingerprint();
        let mut device = Device::new(number, network, &mut self.random, self.now);
        let name = format!("device-{number}");
        device
            .engine
            .handle_enroll(Some((invite.id, invite.secret)), &name, self.now);
        self.devices.push(device);
        self.drain_device(self.devices.len() - 1);
    }

    /// Another policy.
    pub(crate) fn apply_policy(&mut self) {
        let rules = Rules::random(&mut self.random);
        let text = rules.text(self.policies.len());
        self.policies.insert(text.clone(), rules);
        self.ask(Command::PolicyApply {
            text,
            if_generation: None,
        });
    }

    /// Packets: half of them such as were allowed at some time, so that what was lost is tried too.
    fn send_some(&mut self) {
        for _ in 0..=self.random.below(8) {
            let below = self.random.below(6) as u64;
            let newest = self.mirror.generation().n;
            let then = self.snapshot(newest.saturating_sub(below)).everything();
            let (from, to, port) = match self.random.pick(&then).copied() {
                Some(chosen) if self.random.one_in(2) => chosen,
                _ => {
                    let devices: Vec<DeviceId> = self.devices.iter().map(|d| d.id).collect();
                    let from = *self.random.pick(&devices).unwrap();
                    let to = *self.random.pick(&devices).unwrap();
                    let port = u16::try_from(self.random.below(PORTS.len())).unwrap();
                    (from, to, PORTS.start + port)
                }
            };
            let of = |id: DeviceId| {
                self.mirror
                    .devices()
                    .get(&id)
                    .map(|device| device.addresses)
            };
            let (Some(source), Some(destination)) = (of(from), of(to)) else {
                continue;
            };
            // Now and then from an address that is not the sender's own.
            let others: Vec<_> = self
                .mirror
                .devices()
                .values()
                .map(|d| d.addresses)
                .collect();
            let is_forged = self.random.one_in(20);
            let claimed = self.random.pick(&others).copied().filter(|_| is_forged);
            let v6 = self.random.one_in(2);
            let at = self
                .devices
                .iter()
                .position(|device| device.id == from)
                .unwrap();
            self.send(
                at,
                &request(claimed.unwrap_or(source), destination, port, v6),
            );
        }
    }

    fn change_health(&mut self) {
        let at = self.random.below(self.devices.len());
        if let Some(device) = self.devices.get_mut(at) {
            device.is_healthy = !device.is_healthy;
            // What the shell's watch sees.
            self.later(Duration::from_millis(800), Event::Collected { device: at });
        }
    }

    fn change_a_device(&mut self) {
        let at = self.random.below(self.devices.len());
        let Some(id) = self.devices.get(at).map(|device| device.id) else {
            return;
        };
        let Some(status) = self.mirror.devices().get(&id).map(|device| device.status) else {
            return;
        };
        let device = id.to_string();
        let command = match self.random.below(6) {
            0 => Command::DeviceRevoke {
                device,
                reason: None,
            },
            1 | 2 => Command::DeviceQuarantine {
                device,
                lift: status == DeviceStatus::Quarantined,
                reason: None,
            },
            _ => {
                let mut tag = || TagName::new(*self.random.pick(&TAGS).unwrap()).unwrap();
                Command::DeviceTag {
                    device,
                    add: vec![tag()],
                    remove: vec![tag()],
                }
            }
        };
        self.ask(command);
    }

    /// The way to the controller breaks, or is whole again.
    fn cut_or_mend(&mut self) {
        let at = self.random.below(self.devices.len());
        let Some(device) = self.devices.get_mut(at) else {
            return;
        };
        device.is_cut_off = !device.is_cut_off;
        if device.is_cut_off
            && let Some(session) = device.session
        {
            // Both ends notice, each in its own time.
            let seconds = 1 + self.random.below(30) as u64;
            self.later(
                Duration::from_secs(seconds),
                Event::ClosedByController {
                    device: at,
                    session,
                },
            );
            let seconds = 1 + self.random.below(30) as u64;
            self.later(
                Duration::from_secs(seconds),
                Event::ClosedByDevice { session },
            );
        }
    }

    fn restart_a_device(&mut self) {
        let at = self.random.below(self.devices.len());
        let now = self.now;
        let Some(device) = self.devices.get_mut(at) else {
            return;
        };
        if let Some(session) = device.session.take() {
            self.later(Duration::from_millis(5), Event::ClosedByDevice { session });
        }
        self.devices[at].restart(&mut self.random, now);
        self.drain_device(at);
    }
}
