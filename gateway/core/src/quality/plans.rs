//! Changes of session plans by actions of policies and of the native ladder.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_model::{CoreEvent, Decider, GuardRule, Op, Plan, SessionId};

use crate::GatewayEffect;
use crate::rooms::{Placement, Routes};
use crate::sessions::SessionTable;

#[derive(Default)]
pub(crate) struct Replans(BTreeMap<SessionId, Replan>);

struct Replan {
    before: Plan,
    /// The last action of each kind, in the order given.
    last: Vec<(Op, u64)>,
}

impl Replans {
    /// The session's plan after the action if it differs, or the rule that the action violates.
    pub(crate) fn after(
        state: Placement,
        id: SessionId,
        op: u32,
        arg: u64,
    ) -> Result<Option<(Op, Plan)>, GuardRule> {
        let op = Op::from_number(op).ok_or(GuardRule::UnknownAction)?;
        let Some(session) = state.sessions.get(&id) else {
            return Ok(None);
        };
        let plan = session
            .plan
            .after(op, arg, &session.request.media, session.bounds)
            .ok_or(GuardRule::CapOutOfBounds)?;
        if plan == session.plan {
            return Ok(None);
        }
        if op == Op::Cap && plan.cap_kbps > 0 && !state.obeys_caps(session) {
            return Err(GuardRule::CapUnsupported);
        }
        Ok(Some((op, plan)))
    }

    /// Changes the session's plan without its consequences.
    pub(crate) fn replan(
        &mut self,
        sessions: &mut SessionTable,
        id: SessionId,
        (op, arg): (Op, u64),
        plan: Plan,
    ) {
        if let Some(session) = sessions.get_mut(&id) {
            let new = Replan { before: session.plan, last: Vec::new() };
            let last = &mut self.0.entry(id).or_insert(new).last;
            last.retain(|(other, _)| *other != op);
            last.push((op, arg));
            session.plan = plan;
        }
    }

    /// Applies the consequences of an answer once per session and room, however many plans it changed: rooms may be as
    /// large as a batch.
    pub(crate) fn put_in_force(self, routes: &mut Routes, by: &Decider) {
        let (mut capped, mut see_again) = (BTreeSet::new(), BTreeMap::<_, Vec<_>>::new());
        for (id, Replan { before, last }) in self.0 {
            let Some(session) = routes.sessions.get_mut(&id).filter(|s| s.plan != before) else {
                continue;
            };
            session.plans = session.plans.wrapping_add(1);
            let (room, kept, plan) = (session.room, session.plan, session.plan_now());
            routes.effects.push(GatewayEffect::Plan { session: id, plan });
            let room_name = routes.rooms.name_of(room);
            for (op, arg) in last {
                let differs = match op {
                    Op::Cap => before.cap_kbps != kept.cap_kbps,
                    Op::VoiceOnly => before.shed != kept.shed,
                };
                if differs {
                    let (room_name, rung, by) = (room_name.clone(), plan.rung(), by.clone());
                    let degraded =
                        CoreEvent::Degraded { session: id, room_name, op, arg, rung, by };
                    routes.effects.event(degraded);
                }
            }
            if before.cap_kbps != kept.cap_kbps {
                capped.insert(room);
            }
            if before.shed != 0 && kept.shed == 0 {
                see_again.entry(room).or_default().push(id);
            }
        }
        for room in capped {
            routes.settle_peer_caps(room);
        }
        for (room, receivers) in see_again {
            let mut senders = routes.placement().live_sessions(room);
            // No session receives its own media.
            senders.retain(|sender| *receivers != [*sender]);
            if !senders.is_empty() {
                routes.effects.push(GatewayEffect::KeyFrame { sessions: senders });
            }
        }
    }
}
