//! Requests of an operator, and steps that the gateway takes itself.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_control::{BreakerTarget, Operation, OperationTarget};
use evenkeel_core::Failback;
use evenkeel_model::{
    BreakerMode, ClientIdentity, FeedbackSupport, IngressProtocol, MediaDescription, MediaStream,
    Offer, OfferId, PayloadType, PolicyName, RtcpPort, Srtp, StreamKind,
};
use evenkeel_revisions::{
    Actor, Lifecycle, Revision, RolloutAction, RolloutRequest, Strategy, Version,
};
use fastrand::Rng;

use super::process::{HOUR, policies};
use super::world::{Subject, World};
use crate::script::any_mode;

impl World {
    /// A random request to the owner, answered once its decision outlives the process.
    pub(super) fn operate(&mut self) {
        match self.rng.u8(0..12) {
            0..6 => self.decide_about_policy(),
            6..10 => {
                let operation =
                    draw_operation(&mut self.rng, self.configuration.settings.nodes.len());
                let now = self.now;
                self.say(|| format!("{operation:?}"));
                if self.owner.process.operate(operation, now).is_ok() {
                    self.decided(Subject::Places);
                }
            }
            10 if self.reloads => self.reload(),
            _ => self.offer_or_close(),
        }
    }

    fn decide_about_policy(&mut self) {
        let all = policies();
        let policy = all[self.rng.usize(0..all.len())].clone();
        let now = self.now;
        let begins = self.canaries && self.rng.bool();
        let strategy = begins.then(|| draw_strategy(&mut self.rng));
        self.revisions += 1;
        let new = revision(self.rng.u64(0..self.revisions));
        let force = self.rng.u8(0..4) == 0;
        let action = match self.rng.u8(0..9) {
            0..3 => None,
            3 => Some(RolloutAction::Promote),
            4 => Some(RolloutAction::PromoteAll),
            5 => Some(RolloutAction::Pause),
            6 => Some(RolloutAction::Resume),
            _ => Some(RolloutAction::Abort),
        };
        let other = self.rng.u8(0..4);
        let decide = |life: &mut Lifecycle| match (action, other) {
            (None, _) => {
                let push = life.next_push();
                let by = Actor::Operator;
                let (arrived, replace, returns) = (now, true, false);
                let request =
                    RolloutRequest { push, by, arrived, force, replace, strategy, returns };
                life.handle_compiled(&request, &new, now).is_ok()
                    && life.handle_ready(&request, new, None, (now, now)).is_ok()
            }
            (Some(_), 0) => life.handle_rollback(force, now).is_ok(),
            (Some(_), 1) => {
                harm(life, now);
                false
            }
            (Some(action), _) => life.handle_action(action, now).is_ok(),
        };
        let accepted = self.owner.process.gateway.change_policy(&policy, now, decide);
        self.say(|| format!("{policy} {action:?} {other} accepted: {accepted:?}"));
        match accepted == Some(true) {
            true => self.decided(Subject::Policy(policy)),
            false => self.settle(),
        }
    }

    /// Other modes, and other steps of rollouts that follow the set. Both members read the same files.
    fn reload(&mut self) {
        let before = self.owner.process.decisions(self.now);
        let regions = self.configuration.settings.regions.len() as u32;
        for scenario in self.configuration.settings.scenarios.values_mut() {
            any_mode(&mut self.rng, regions, scenario);
        }
        self.configuration.rules.strategy = draw_strategy(&mut self.rng);
        let (configuration, now) = (self.configuration.clone(), self.now);
        for member in [Some(&mut self.owner), self.standby.as_mut()].into_iter().flatten() {
            let gateway = &mut member.process.gateway;
            gateway.handle_scenarios(&configuration.settings.scenarios, now);
            for policy in policies() {
                let rules = configuration.rules.clone();
                gateway.change_policy(&policy, now, |life| life.set_rules(rules, now));
            }
        }
        let after = self.owner.process.decisions(self.now);
        if before != after {
            self.violate(format!("a reload changed {before:?} to {after:?}"));
        }
        self.settle();
    }

    fn offer_or_close(&mut self) {
        let (now, number) = (self.now, self.offers);
        let process = &mut self.owner.process;
        if !process.sessions.is_empty() && self.rng.u8(0..3) == 0 {
            let session = process.sessions[self.rng.usize(0..process.sessions.len())];
            // It may be ending.
            let _ = process.gateway.handle_close(session, now);
        } else {
            self.offers += 1;
            process.gateway.handle_offer(offer(number, self.rng.u8(0..6)), now);
        }
        self.settle();
    }
}

/// The gateway itself finds harm in the candidate, or else in the active revision.
fn harm(life: &mut Lifecycle, now: std::time::Instant) {
    let revisions = life.revisions();
    let candidate = revisions.candidate.as_ref().map(|it| Arc::clone(&it.revision.name));
    if let Some(revision) = candidate.or_else(|| revisions.active_name()) {
        life.remove_harmful(&revision, "it did harm", now);
    }
}

pub(super) fn revision(number: u64) -> Revision {
    let version = Version::read(&format!("1.{number}.0"));
    Revision { name: format!("r{number}").into(), plugin: "p".into(), version, schema: 1 }
}

/// Stages that pass within the world, or last.
pub(super) fn draw_strategy(rng: &mut Rng) -> Strategy {
    let steps = vec![rng.u8(1..30), rng.u8(30..90)];
    let each = if rng.bool() { Duration::from_millis(rng.u64(100..3_000)) } else { HOUR };
    let shadow = Duration::from_millis(if rng.bool() { 0 } else { rng.u64(1..500) });
    let stays_in_shadow = rng.u8(0..8) == 0;
    Strategy { steps, each, shadow, stays_in_shadow, held: false }
}

fn draw_operation(rng: &mut Rng, nodes: usize) -> Operation {
    let node: Box<str> = format!("n{}", rng.usize(0..nodes)).into();
    let region: Box<str> = rng.u32(0..2).to_string().into();
    let within = rng.bool().then(|| Duration::from_millis(rng.u64(50..3_000)));
    let failbacks = [Failback::Auto, Failback::Force, Failback::Forbid];
    let zone: Box<str> = rng.u32(0..2).to_string().into();
    match rng.u8(0..12) {
        10 => Operation::Drain { place: OperationTarget::Zone(zone), draining: true, within },
        11 => {
            Operation::Drain { place: OperationTarget::Zone(zone), draining: false, within: None }
        }
        0..2 => Operation::Drain { place: OperationTarget::Node(node), draining: true, within },
        2 => Operation::Drain { place: OperationTarget::Node(node), draining: false, within: None },
        3 => Operation::Drain { place: OperationTarget::Region(region), draining: true, within },
        4 => {
            let place = OperationTarget::Region(region);
            Operation::Drain { place, draining: false, within: None }
        }
        5..7 => Operation::Eject(node),
        7 => Operation::Return(node),
        8 if within.is_some() => {
            let mode = BreakerMode::ALL[rng.usize(0..BreakerMode::ALL.len())];
            Operation::Breaker(BreakerTarget::Region(region), mode)
        }
        of => {
            let region = (of == 8).then_some(region);
            Operation::Failback(region, failbacks[rng.usize(0..failbacks.len())])
        }
    }
}

fn offer(number: u64, room: u8) -> Offer {
    let stream = MediaStream {
        kind: StreamKind::Audio,
        payload_types: vec![PayloadType::new(0, "x", 48_000)],
        feedback: FeedbackSupport::default(),
        bitrate_kbps: Some(64),
    };
    let address = ([10, 0, (number >> 8) as u8, number as u8], 4_000).into();
    Offer {
        id: OfferId(number),
        scenario: "call".into(),
        room: format!("room{room}").into(),
        labels: Vec::new().into(),
        ingress: IngressProtocol::Udp(ClientIdentity::Declared { address, rtcp: None }),
        media: Arc::new(MediaDescription::new(vec![stream], RtcpPort::Mux, Srtp::Plain)),
    }
}

/// The name of what a decision concerns, in [`Decisions`](super::journal::Decisions).
pub(super) fn concerns(policy: Option<&PolicyName>, name: &str) -> bool {
    match policy {
        Some(policy) => name.starts_with(&format!("{policy} ")),
        None => name.starts_with("node ") || name.starts_with("region "),
    }
}
