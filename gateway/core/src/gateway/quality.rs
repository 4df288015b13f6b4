//! How much quality each session gets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::accepting::{Batch, Part, Parts};
use super::asking::{About, Beside, mismatched};
use super::{Gateway, Output};
use crate::session::{Phase, Session};
use crate::timer::Timer;
use crate::{
    Answer, Arm, Decider, Event, Fault, Guard, Hook, Measures, Metric, Op, Outcome, Plan,
    PolicyName, Question, RoomId, Row, SessionId, SessionRow, State,
};

/// Sessions in one question; more follow with the next tick.
const SESSIONS_PER_ASK: usize = 4_096;

/// Sessions that are looked at for one question to a canary, most of which are not its own.
const SESSIONS_PASSED: usize = 16_384;

/// What becomes of sessions that an answer replans.
type Replans = BTreeMap<SessionId, Replan>;

struct Replan {
    before: Plan,
    /// What was done last of each action, in that order.
    last: Vec<(Op, u64)>,
}

impl Gateway {
    /// How old the last word of workers on a session may be.
    pub fn handle_summaries_within(&mut self, within: Duration) {
        self.sessions.told_within = within;
    }

    /// What workers measured of a session, and when it was last heard.
    pub fn handle_summary(
        &mut self,
        id: SessionId,
        measures: Measures,
        last_heard: Option<Instant>,
    ) {
        self.enrol(id);
        if let Some(session) = self.sessions.get_mut(&id) {
            let room = session.room;
            match &mut session.measures {
                Some(standing) => **standing = measures,
                None => session.measures = Some(Box::new(measures)),
            }
            session.last_heard =
                last_heard.map_or(session.last_heard, |at| at.max(session.last_heard));
            self.judge(id, room, &measures);
            self.weigh_session(id);
        }
    }

    /// The session is live: its degradation policy, if it has one, is asked about it from now on.
    pub(super) fn begin_ticking(&mut self, id: SessionId) {
        if let Some(policy) = self.sessions.get(&id).and_then(|session| self.ticks(session)) {
            self.sessions.ticked.entry(policy).or_default().insert(id);
        }
        self.enrol(id);
    }

    /// It is gone.
    pub(super) fn end_ticking(&mut self, session: &Session) {
        let policy = self.ticks(session);
        if let Some(ours) = policy.and_then(|policy| self.sessions.ticked.get_mut(&policy)) {
            ours.remove(&session.id);
        }
    }

    /// The degradation policy of the session's scenario.
    fn ticks(&self, session: &Session) -> Option<PolicyName> {
        let scenario = self.settings.scenarios.get(&session.wanted.scenario)?;
        scenario.binds(Hook::Degradation).then(|| scenario.policy(Hook::Degradation))
    }

    /// Asks about the next batch of the policy's sessions.
    pub(super) fn ask_tick(&mut self, policy: &PolicyName, now: Instant) {
        self.effects
            .set(Timer::Tick(Arc::new(policy.clone())), now + self.settings.limits.tick_every);
        for arm in self.arms(policy) {
            self.ask_tick_of(policy, *arm, now);
        }
    }

    fn ask_tick_of(&mut self, policy: &PolicyName, arm: Arm, now: Instant) {
        if self.is_asking(policy, arm, |about| matches!(about, About::Tick(_))) {
            return;
        }
        let Some(ours) = self.sessions.ticked.get(policy).filter(|ours| !ours.is_empty()) else {
            return;
        };
        let cursor = (policy.clone(), arm);
        let from = self.quality.tick_cursors.get(&cursor).copied().unwrap_or(SessionId(0));
        let revisions = self.revisions(policy);
        let asks = |id: &SessionId| revisions.map_or(Arm::Standing, |both| both.arm(id.0)) == arm;
        let (mut ids, mut next) = (Vec::new(), SessionId(0));
        for (passed, id) in ours.range(from..).enumerate() {
            if ids.len() == SESSIONS_PER_ASK || passed == SESSIONS_PASSED {
                next = *id;
                break;
            }
            if asks(id) {
                ids.push(*id);
            }
        }
        let reads = revisions.map(|revisions| revisions.of(arm));
        let of = ids.iter().filter_map(|id| self.sessions.get(id));
        let sessions: Vec<SessionRow> = of
            .map(|session| SessionRow {
                row: Row { id: session.id.0, measures: self.session_measures(session, now) },
                room: session.room,
                scenario: session.wanted.scenario.clone(),
                labels: session.wanted.labels.clone(),
                state: session.memory.read(reads).map(|state| State::clone(state)),
            })
            .collect();
        self.quality.tick_cursors.insert(cursor, next);
        if sessions.is_empty() {
            return;
        }
        let version = |id| self.sessions.get(&id).map_or(0, |session| session.plans);
        let ids = sessions.iter().map(|row| SessionId(row.row.id)).map(|id| (id, version(id)));
        let ids = ids.collect();
        let memo = self.memo(policy, arm);
        self.ask(&policy.set, arm, About::Tick(ids), Question::Tick { sessions, memo }, now);
    }

    /// Where nobody obeys a cap, the lowest one that policies may ask for is none at all.
    fn session_measures(&self, session: &Session, now: Instant) -> Measures {
        let mut measures = session.measures(now);
        if let Some(room) = self.rooms.get(&session.room) {
            measures.set(Metric::Sessions, room.sessions.len() as u64);
        }
        if !self.obeys_caps(session) {
            measures.set(Metric::Floor, u64::from(session.bounds.ceiling_kbps));
        }
        measures
    }

    /// Whether a cap on the session holds anybody down: itself, or the other one in a room of two.
    pub(super) fn obeys_caps(&self, session: &Session) -> bool {
        if session.wanted.media.takes_remb() {
            return true;
        }
        let in_room =
            self.rooms.get(&session.room).into_iter().flat_map(|room| room.sessions.iter());
        let live = in_room.filter_map(|id| self.sessions.get(id));
        let live = live.filter(|other| other.phase == Phase::Live).take(3);
        let (count, taking) = live.fold((0, false), |(count, taking), other| {
            (count + 1, taking || other.wanted.media.takes_remb())
        });
        count == 2 && taking
    }

    /// A policy said what should change. Where it failed, and about whom it was not asked, every session keeps what it has,
    /// or goes by the native ladder after a while. A session whose plan changed since has what it was changed to.
    pub(super) fn ticked(
        &mut self,
        (policy, arm): (&PolicyName, Arm),
        sessions: &[(SessionId, u32)],
        answer: Result<Answer, Fault>,
        (by, beside): (&Decider, &Beside),
        now: Instant,
    ) -> Batch {
        let (actions, states, memo) = match answer {
            Ok(Answer::Actions { actions, states, memo }) => (actions, states, memo),
            Ok(_) => return Batch::one(mismatched()),
            Err(fault) => {
                self.climb_natively(policy, sessions, now);
                return Batch::one(Outcome::Faulted(fault));
            }
        };
        let fresh: Vec<Option<SessionId>> =
            sessions.iter().map(|row| self.unreplanned(*row)).collect();
        if !fresh.iter().any(Option::is_some) {
            return Batch::one(Outcome::Stale);
        }
        self.keep_memo((policy, arm), memo);
        let (mut parts, mut replans) = (Parts::default(), Replans::new());
        for action in actions {
            let part = match fresh.get(action.row as usize) {
                Some(Some(id)) => self.replan(*id, (action.op, action.arg), &mut replans),
                Some(None) => Err(Guard::Outdated),
                None => Err(Guard::UnknownRow),
            };
            parts.note(action.row, part);
        }
        self.put_plans_in_force(replans, by);
        parts.note_ungranted(beside.ungranted);
        self.tell_broken(policy, &parts);
        // A session that got nothing of what was decided for it keeps its state too.
        let revisions = self.revised.get(policy).map(|revised| &revised.now);
        for (row, state) in states {
            let id = fresh.get(row as usize).copied().flatten();
            let session = id.and_then(|id| self.sessions.get_mut(&id));
            if let Some(session) = session.filter(|_| parts.keeps_state(row)) {
                session.memory.write(self.policy.states.share(state), revisions);
            }
        }
        self.note_conduct(policy, arm, parts.count(), now);
        self.climb_left_out(sessions, beside, now);
        Batch { outcome: parts.outcome(), parts }
    }

    /// The session, if it gets what it got when it was asked about.
    fn unreplanned(&self, (id, plans): (SessionId, u32)) -> Option<SessionId> {
        self.sessions.get(&id).filter(|session| session.plans == plans).map(|session| session.id)
    }

    /// What the action changed, or the rule it broke. The native default changes nobody's quality.
    pub(super) fn act(
        &mut self,
        id: SessionId,
        op: u32,
        arg: u64,
        by: &Decider,
    ) -> Result<Part, Guard> {
        let mut replans = Replans::new();
        let part = self.replan(id, (op, arg), &mut replans);
        self.put_plans_in_force(replans, by);
        part
    }

    /// Changes the session's plan, and nothing that follows from it.
    fn replan(
        &mut self,
        id: SessionId,
        (op, arg): (u32, u64),
        replans: &mut Replans,
    ) -> Result<Part, Guard> {
        let op = Op::from_number(op).ok_or(Guard::UnknownAction)?;
        let obeyed = self.sessions.get(&id).is_some_and(|session| self.obeys_caps(session));
        let Some(session) = self.sessions.get_mut(&id) else {
            return Ok(Part::Kept);
        };
        let before = session.plan;
        let plan = before
            .after(op, arg, &session.wanted.media, session.bounds)
            .ok_or(Guard::CapOutOfBounds)?;
        if plan == before {
            return Ok(Part::Kept);
        }
        if op == Op::Cap && plan.cap_kbps > 0 && !obeyed {
            return Err(Guard::CapObeyedByNobody);
        }
        let last = &mut replans.entry(id).or_insert(Replan { before, last: Vec::new() }).last;
        last.retain(|(other, _)| *other != op);
        last.push((op, arg));
        self.enrol(id);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.plan = plan;
        }
        Ok(Part::Applied { differs: true })
    }

    /// What follows from an answer, once for each session and room, however often the answer changed its mind: rooms may be
    /// as large as a batch.
    fn put_plans_in_force(&mut self, replans: Replans, by: &Decider) {
        let (mut capped, mut see_again) = (BTreeSet::new(), BTreeMap::<_, Vec<_>>::new());
        for (id, Replan { before, last }) in replans {
            let Some(session) = self.sessions.get_mut(&id).filter(|s| s.plan != before) else {
                continue;
            };
            session.plans = session.plans.wrapping_add(1);
            let (room, kept, plan) = (session.room, session.plan, session.plan_now());
            self.effects.push(Output::Plan { session: id, plan });
            let room_name = self.name_of(room);
            for (op, arg) in last {
                let differs = match op {
                    Op::Cap => before.cap_kbps != kept.cap_kbps,
                    Op::VoiceOnly => before.shed != kept.shed,
                };
                if differs {
                    let (room_name, rung, by) = (room_name.clone(), plan.rung(), by.clone());
                    self.effects.event(Event::Degraded {
                        session: id,
                        room_name,
                        op,
                        arg,
                        rung,
                        by,
                    });
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
            self.settle_peer_caps(room);
        }
        for (room, who) in see_again {
            let mut senders = self.live_sessions(room);
            // Nobody sees himself.
            senders.retain(|sender| *who != [*sender]);
            if !senders.is_empty() {
                self.effects.push(Output::KeyFrame { sessions: senders });
            }
        }
    }

    /// In a room of two, what one hears is what the other sends: a cap holds both. A larger room's senders are not held
    /// down for one listener.
    pub(super) fn settle_peer_caps(&mut self, room: RoomId) {
        let live = self.live_sessions(room);
        let cap =
            |id: &SessionId| self.sessions.get(id).map_or(0, |session| session.plan_now().cap_kbps);
        let peer_caps: Vec<u32> = match &*live {
            [first, second] => vec![cap(second), cap(first)],
            others => vec![0; others.len()],
        };
        for (id, peer_cap_kbps) in live.into_iter().zip(peer_caps) {
            let Some(session) = self.sessions.get_mut(&id) else {
                continue;
            };
            if session.plan.peer_cap_kbps != peer_cap_kbps {
                session.plan.peer_cap_kbps = peer_cap_kbps;
                let plan = session.plan_now();
                self.effects.push(Output::Plan { session: id, plan });
            }
        }
    }
}
