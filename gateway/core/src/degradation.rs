//! Degradation: the turns of sessions that policies are asked about, the changes of plans by an answer, and the native ladder
//! that replaces a policy which fails.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    Arm, CoreEvent, Decider, DegradedSession, GuardRule, IdSet, Op, Plan, PolicyName, RoomId,
    SessionId, actions,
};

use crate::sessions::{PlanInForce, Session, SessionChange, SessionTable, TickedSessions};

/// Maximum sessions in one question; the others follow with the next tick.
const SESSIONS_PER_ASK: usize = 4_096;

/// Maximum sessions scanned for one question to a canary, most of which are outside its cohort.
const SESSIONS_PASSED: usize = 16_384;

/// Resting sessions in one question, at least.
const RESTING_PER_ASK: usize = 256;

/// Questions within which each resting session has its turn, if the others leave space: 30 s with a tick each 200 ms. A policy
/// may wait for a time of its own.
const RESTING_TURNS: usize = 150;

/// The next sessions that degradation policies are asked about, and the sessions on the native ladder.
#[derive(Default, Debug)]
pub(crate) struct DegradationTurns {
    tick_cursors: BTreeMap<(PolicyName, Arm), TickCursors>,
    /// Sessions that no policy answers for.
    climbs: BTreeMap<SessionId, NativeLadder>,
}

/// The sessions of each kind from which the next question goes on.
#[derive(Debug)]
struct TickCursors {
    awake: SessionId,
    resting: SessionId,
}

impl Default for TickCursors {
    fn default() -> TickCursors {
        TickCursors { awake: SessionId(0), resting: SessionId(0) }
    }
}

impl DegradationTurns {
    /// The next question to the policy's canary begins with the first session.
    pub(crate) fn restart_canary(&mut self, policy: &PolicyName) {
        self.tick_cursors.remove(&(policy.clone(), Arm::Canary));
    }

    /// No session is on the native ladder.
    pub(crate) fn is_idle(&self) -> bool {
        self.climbs.is_empty()
    }

    /// The ladder of a session, which enters it now if it is not on it.
    pub(crate) fn climb(&mut self, session: SessionId, now: Instant) -> &mut NativeLadder {
        self.climbs.entry(session).or_insert_with(|| NativeLadder::begin(now))
    }

    /// The session leaves the native ladder.
    pub(crate) fn end_climb(&mut self, session: SessionId) {
        self.climbs.remove(&session);
    }

    /// The next sessions of `ours` for a question to one arm of a degradation policy, in order.
    pub(crate) fn next_ticked(
        &mut self,
        cursor: (PolicyName, Arm),
        ours: &TickedSessions,
        asks: impl Fn(SessionId) -> bool,
    ) -> Vec<SessionId> {
        let cursors = self.tick_cursors.entry(cursor).or_default();
        // The others never take the whole question.
        let at_most = SESSIONS_PER_ASK - ours.resting().len().min(RESTING_PER_ASK);
        let mut ids = next_from(&mut cursors.awake, ours.awake(), at_most, &asks);
        let turn = ours.resting().len().div_ceil(RESTING_TURNS).max(RESTING_PER_ASK);
        let at_most = turn.min(SESSIONS_PER_ASK - ids.len());
        ids.extend(next_from(&mut cursors.resting, ours.resting(), at_most, &asks));
        ids.sort_unstable();
        ids
    }
}

/// The next sessions from the cursor on, which moves behind them.
fn next_from(
    cursor: &mut SessionId,
    sessions: &IdSet<SessionId>,
    at_most: usize,
    asks: &impl Fn(SessionId) -> bool,
) -> Vec<SessionId> {
    let (mut ids, mut next) = (Vec::new(), SessionId(0));
    for (passed, id) in sessions.range(*cursor..).enumerate() {
        if ids.len() == at_most || passed == SESSIONS_PASSED {
            next = id;
            break;
        }
        if asks(id) {
            ids.push(id);
        }
    }
    *cursor = next;
    ids
}

/// The plans that an answer changes, and the sessions that it ends.
#[derive(Default)]
pub(crate) struct Replans {
    plans: BTreeMap<SessionId, Replan>,
    ending: BTreeSet<SessionId>,
}

struct Replan {
    before: Plan,
    /// The last action of each kind, in the order given.
    last: Vec<(Op, u64)>,
}

/// A plan that an answer changed.
pub(crate) struct Replanned {
    session: SessionId,
    room: RoomId,
    in_force: PlanInForce,
    /// The last action of each kind that had an effect.
    actions: Vec<(Op, u64)>,
    cap_down_differs: bool,
    sees_again: bool,
}

impl Replanned {
    pub(crate) fn session(&self) -> SessionId {
        self.session
    }

    pub(crate) fn room(&self) -> RoomId {
        self.room
    }

    /// The cap on what the session receives has changed.
    pub(crate) fn cap_down_differs(&self) -> bool {
        self.cap_down_differs
    }

    /// The session receives video again.
    pub(crate) fn sees_again(&self) -> bool {
        self.sees_again
    }

    pub(crate) fn change(&self) -> SessionChange {
        SessionChange::to_plan(self.in_force)
    }

    /// An event for each action that had an effect.
    pub(crate) fn events(
        &self,
        room_name: &Arc<str>,
        by: &Decider,
    ) -> impl Iterator<Item = CoreEvent> {
        self.actions.iter().map(|(op, arg)| CoreEvent::Degraded {
            session: self.session,
            room_name: Arc::clone(room_name),
            op: *op,
            arg: *arg,
            rung: self.in_force.plan.rung(),
            by: by.clone(),
        })
    }
}

impl Replans {
    /// The session's plan after the action if it differs, or the rule that the action violates.
    pub(crate) fn after(
        session: &Session,
        op: u32,
        arg: u64,
        obeys_caps: impl FnOnce() -> bool,
    ) -> Result<Option<(Op, Plan)>, GuardRule> {
        let op = Replans::known(op)?;
        let plan = session.plan().after(op, arg, &session.facts())?;
        let (is_same, has_effect) = (plan == session.plan(), arg == 0 || plan.arg(op) > 0);
        if is_same && has_effect {
            return Ok(None);
        }
        if arg > 0 && actions::of(op).needs_obedience() && !obeys_caps() {
            return Err(GuardRule::CapUnsupported);
        }
        Ok((!is_same).then_some((op, plan)))
    }

    /// The action of this number.
    pub(crate) fn known(op: u32) -> Result<Op, GuardRule> {
        Op::from_number(op).ok_or(GuardRule::UnknownAction)
    }

    /// Has the session end, if the action does that. Returns whether it does.
    pub(crate) fn end(&mut self, id: SessionId, op: u32, arg: u64) -> bool {
        let ends = arg > 0 && Op::from_number(op).is_some_and(|op| actions::of(op).ends_session());
        if ends {
            self.ending.insert(id);
        }
        ends
    }

    /// Takes the sessions that end.
    pub(crate) fn take_ending(&mut self) -> BTreeSet<SessionId> {
        std::mem::take(&mut self.ending)
    }

    /// Changes the session's plan without its consequences.
    pub(crate) fn replan(&mut self, session: &mut Session, op: Op, arg: u64, plan: Plan) {
        let new = Replan { before: session.plan(), last: Vec::new() };
        let last = &mut self.plans.entry(session.id()).or_insert(new).last;
        last.retain(|(other, _)| *other != op);
        last.push((op, arg));
        session.replan(plan);
    }

    /// Returns each changed plan once, however many actions changed it.
    pub(crate) fn put_in_force(self, sessions: &mut SessionTable) -> Vec<Replanned> {
        let mut replanned = Vec::new();
        for (id, Replan { before, last }) in self.plans {
            let Some(session) = sessions.get_mut(&id).filter(|it| it.plan() != before) else {
                continue;
            };
            session.confirm_plan();
            let kept = session.plan();
            let limits = |plan: &Plan| plan.limits(&session.facts());
            let has_effect = |(op, _): &(Op, u64)| before.arg(*op) != kept.arg(*op);
            replanned.push(Replanned {
                session: id,
                room: session.room(),
                in_force: session.plan_in_force(),
                actions: last.into_iter().filter(has_effect).collect(),
                cap_down_differs: before.cap_down_kbps() != kept.cap_down_kbps(),
                sees_again: limits(&kept).restores(&limits(&before)),
            });
        }
        replanned
    }
}

/// Loss in ppm from which the native ladder steps down: 5 %, where speech begins to suffer.
const DOWN_AT_PPM: u32 = 50_000;

/// Loss in ppm up to which it climbs. Loss between the thresholds changes nothing, so a session that a rung helps stays
/// on it.
const UP_BELOW_PPM: u32 = 20_000;

/// Interval between two steps down, in which a cap takes effect and its loss is measured.
const DOWN_EVERY: Duration = Duration::from_secs(1);

/// Time of low loss before each step up. Climbing too early costs as much as it gains.
const UP_AFTER: Duration = Duration::from_secs(10);

/// The state of a session at a step of the native ladder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LadderInput<'a> {
    session: DegradedSession<'a>,
    /// The higher loss of both directions after repair; `None` without a measurement.
    loss_ppm: Option<u32>,
}

impl LadderInput<'_> {
    pub(crate) fn of(session: &Session, obeys_caps: bool) -> LadderInput<'_> {
        let [up, down] = session.losses_after_repair();
        LadderInput { session: session.degraded(obeys_caps), loss_ppm: down.max(up) }
    }
}

/// A session on the native ladder. It takes the actions in the order of their numbers, each to its end: caps halve its rate to
/// the floor, then its video is removed. Steps up reverse this slowly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NativeLadder {
    /// The earliest time of the next step down.
    down_from: Instant,
    /// The time since which loss is low and the rung unchanged.
    calm_since: Option<Instant>,
}

impl NativeLadder {
    pub(crate) fn begin(now: Instant) -> NativeLadder {
        NativeLadder { down_from: now, calm_since: None }
    }

    pub(crate) fn step(&mut self, look: LadderInput<'_>, now: Instant) -> Option<(Op, u64)> {
        let loss_ppm = look.loss_ppm?;
        if loss_ppm > UP_BELOW_PPM {
            self.calm_since = None;
            if loss_ppm < DOWN_AT_PPM || now < self.down_from {
                return None;
            }
            self.down_from = now + DOWN_EVERY;
            return look.down();
        }
        let calm_since = *self.calm_since.get_or_insert(now);
        if now.saturating_duration_since(calm_since) < UP_AFTER {
            return None;
        }
        self.calm_since = Some(now);
        look.up()
    }
}

impl LadderInput<'_> {
    fn down(&self) -> Option<(Op, u64)> {
        let step = |op| Some((op, u64::from(actions::of(op).lower(&self.session)?)));
        Op::ALL.into_iter().find_map(step)
    }

    fn up(&self) -> Option<(Op, u64)> {
        let step = |op| Some((op, u64::from(actions::of(op).raise(&self.session)?)));
        Op::ALL.into_iter().rev().find_map(step)
    }
}

#[cfg(test)]
mod tests;
