//! The degradation of one session.

use serde::{Deserialize, Serialize};

use crate::action::{ActionArguments, ActionFacts, MediaLimits, lower_cap};
use crate::actions;
use crate::ask::GuardRule;
use crate::offer::MediaDescription;
use crate::registry::Op;

/// The degradation of one session: the actions in force.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Plan {
    actions: ActionArguments,
    /// The cap of the other session in a room of two, which also limits this session's sending; 0: none.
    peer_cap_kbps: u32,
}

impl Plan {
    /// The actions in force.
    pub fn actions(&self) -> ActionArguments {
        self.actions
    }

    /// The argument of the action; 0: not in force.
    pub fn arg(&self, op: Op) -> u32 {
        self.actions.of(op)
    }

    /// The cap on what the session sends, kbit/s; 0: none.
    pub fn cap_kbps(&self) -> u32 {
        lower_cap(self.arg(Op::Cap), self.arg(Op::CapUp))
    }

    /// The cap on what the session receives, kbit/s; 0: none.
    pub fn cap_down_kbps(&self) -> u32 {
        lower_cap(self.arg(Op::Cap), self.arg(Op::CapDown))
    }

    /// Number of rungs down the ladder: each action in force counts one, and all caps together; 0 is undegraded.
    pub fn rung(&self) -> u8 {
        let is_cap = |op| matches!(op, Op::Cap | Op::CapUp | Op::CapDown);
        let is_capped = self.cap_kbps() > 0 || self.cap_down_kbps() > 0;
        u8::from(is_capped) + self.actions.in_force().filter(|(op, _)| !is_cap(*op)).count() as u8
    }

    /// The limits that workers follow: those of the actions, of the other session, of the scenario and of the device.
    pub fn limits(&self, facts: &ActionFacts<'_>) -> MediaLimits {
        let device = facts.device;
        let mut limits = MediaLimits {
            send_kbps: self.peer_cap_kbps,
            ceiling_kbps: facts.bounds.ceiling_kbps,
            receive_kbps: device.kbps.unwrap_or(0),
            withheld: device.undecodable,
            ..MediaLimits::default()
        };
        self.limit(facts.media, &mut limits);
        limits
    }

    fn limit(&self, media: &MediaDescription, limits: &mut MediaLimits) {
        for (op, arg) in self.actions.in_force() {
            actions::of(op).limit(arg, media, limits);
        }
    }

    /// The plan after an action of a policy.
    ///
    /// # Errors
    /// Fails with the rule that the argument breaks.
    pub fn after(&self, op: Op, arg: u64, facts: &ActionFacts<'_>) -> Result<Plan, GuardRule> {
        let action = actions::of(op);
        if action.exceeds_device(arg, facts.device) {
            return Err(GuardRule::AboveDevice);
        }
        let arg = u32::try_from(arg).map_err(|_| GuardRule::ArgumentOutOfBounds)?;
        if arg > 0 && !action.range(facts).contains(&arg) {
            return Err(GuardRule::ArgumentOutOfBounds);
        }
        Ok(self.with(op, arg, facts.media))
    }

    /// The plan with this argument of an action, or without the action if that has no effect on the streams.
    #[must_use]
    pub fn with(mut self, op: Op, arg: u32, media: &MediaDescription) -> Plan {
        let mut limits = MediaLimits::default();
        if arg > 0 {
            actions::of(op).limit(arg, media, &mut limits);
        }
        let has_effect = limits != MediaLimits::default();
        self.actions.set(op, if has_effect { arg } else { 0 });
        self
    }

    /// The plan with a cap of at most this rate; 0: no further cap.
    #[must_use]
    pub fn capped(mut self, kbps: u32) -> Plan {
        self.actions.set(Op::Cap, lower_cap(self.arg(Op::Cap), kbps));
        self
    }

    /// The plan after a change of the session's streams. Actions without an effect on the new ones end.
    #[must_use]
    pub fn on(self, media: &MediaDescription) -> Plan {
        self.actions.in_force().fold(self, |plan, (op, arg)| plan.with(op, arg, media))
    }

    /// Sets the cap of the other session in a room of two; 0: none. Returns true if it was another one.
    pub fn set_peer_cap(&mut self, kbps: u32) -> bool {
        std::mem::replace(&mut self.peer_cap_kbps, kbps) != kbps
    }
}

/// A plan in a record. Builds up to a3d43ed3 have two actions, and read and write the first three fields only.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct PlanRecord {
    cap_kbps: u32,
    peer_cap_kbps: u32,
    /// Payload types that the actions withhold.
    shed: u128,
    /// The number and the argument of each action in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    actions: Vec<(u32, u32)>,
}

impl PlanRecord {
    /// The record of a plan for these streams.
    pub fn new(plan: Plan, media: &MediaDescription) -> PlanRecord {
        let mut limits = MediaLimits::default();
        plan.limit(media, &mut limits);
        PlanRecord {
            cap_kbps: plan.cap_kbps(),
            peer_cap_kbps: plan.peer_cap_kbps,
            shed: limits.withheld,
            actions: plan.actions.in_force().map(|(op, arg)| (op as u32, arg)).collect(),
        }
    }

    /// The plan. Actions of later builds are ignored.
    pub fn plan(&self) -> Plan {
        let PlanRecord { cap_kbps, peer_cap_kbps, shed, actions: numbers } = self;
        let mut actions = ActionArguments::default();
        if numbers.is_empty() {
            actions.set(Op::Cap, *cap_kbps);
            actions.set(Op::VoiceOnly, u32::from(*shed != 0));
        }
        for (number, arg) in numbers {
            if let Some(op) = Op::from_number(*number) {
                actions.set(op, *arg);
            }
        }
        Plan { actions, peer_cap_kbps: *peer_cap_kbps }
    }
}

#[cfg(test)]
mod tests;
