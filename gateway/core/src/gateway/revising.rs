//! Revisions of policies: which of them is asked about whom, what each reads, and whether one that is tried does harm.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Gateway;
use crate::judge::{Bad, Conduct, Count, Judge, Newcomer};
use crate::policy::{About, Asked};
use crate::rollout::unit;
use crate::rooms::Room;
use crate::sessions::Session;
use crate::timer::Timer;
use crate::{
    Arm, AskId, Breach, Event, Figure, Heard, Hook, Metric, Outcome, PolicyName, Revision,
    Revisions, RoomId, SessionId, State,
};

/// How often judges look whether a round is over.
const JUDGES_TURN: Duration = Duration::from_secs(1);

/// A revision goes where so many of its answers were not those of a fresh instance.
pub const HIDDEN_MAX: u32 = 2;

/// A policy's revisions, and those who watch them.
#[derive(Debug)]
pub(super) struct Revised {
    pub(super) now: Revisions,
    /// While one is tried.
    judge: Option<Judge>,
    /// While one is tried, or the one before may come back.
    conduct: Option<Conduct>,
    /// Of which arms it is told, once of each revision.
    told: [bool; 2],
}

impl Revised {
    /// Rooms or sessions that its judge knows.
    pub(super) fn known(&self) -> usize {
        self.judge.as_ref().map_or(0, Judge::known)
    }
}

/// How those fare who belong to one arm of a policy, for people to read.
#[derive(Clone, PartialEq, Debug)]
pub struct Cohort {
    /// Which.
    pub arm: Arm,
    /// Sessions that are live.
    pub sessions: u32,
    /// Rooms that stand somewhere.
    pub rooms: u32,
    /// Mean of the worse of both ways, parts per million; none where nobody is measured.
    pub loss_ppm: Option<u32>,
    /// Mean R-factor times 100; none where nobody is measured.
    pub r_factor_centi: Option<u32>,
    /// Mean rung times 100.
    pub rung_centi: u32,
    /// Those who got worse in this round, by figure, and of how many.
    pub worse: Vec<(Figure, Count)>,
}

impl Gateway {
    /// These are the revisions of a policy from now on. Rooms that another one routes are looked at with that one; what
    /// a candidate that is gone was asked is asked of the one in force, and what was asked with states that the one in force
    /// now cannot read, with those that it can.
    pub fn handle_revisions(&mut self, policy: &PolicyName, now: Revisions, at: Instant) {
        let before = self.revised.remove(policy);
        let was = before.as_ref().map(|before| &before.now);
        self.memos.entry(policy.clone()).or_default().turn(was, &now);
        let tried = |it: &Revisions| it.canary.as_ref().map(|it| Arc::clone(&it.revision.name));
        let share = |it: &Revisions| it.canary.as_ref().map(|it| it.percent);
        let (had, has) = (was.and_then(tried), tried(&now));
        let gone = had.is_some() && had != has && had.as_ref() != Some(&now.standing.name);
        let same = had == has && was.is_some_and(|was| was.standing.name == now.standing.name);
        let same_share = was.and_then(share) == share(&now);
        let back = was.is_some_and(|was| !now.standing.reads_what(&was.standing));
        let watched = now.canary.is_some() || now.kept.is_some();
        let (was, judge, conduct, told) = match before {
            Some(it) if same => (Some(it.now), it.judge, it.conduct, it.told),
            before => (before.map(|it| it.now), None, None, [false; 2]),
        };
        let judge = now.canary.as_ref().map(|canary| {
            let mut judge = judge.unwrap_or_else(|| Judge::new(canary.judging, at));
            if same && !same_share {
                judge.begin_round(at);
            }
            judge.judge_by(canary.judging);
            judge
        });
        let conduct = watched.then(|| conduct.unwrap_or_else(|| Conduct::new(at)));
        self.keeps_older |= watched;
        self.revised.insert(policy.clone(), Revised { now, judge, conduct, told });
        self.judged = self.revised.values().filter(|revised| revised.judge.is_some()).count();
        if self.judged > 0 {
            self.effects.set_if_idle(Timer::Judge, at + JUDGES_TURN);
        }
        if gone {
            self.ask_again(policy, Arm::Canary, at);
        }
        if back {
            self.ask_again(policy, Arm::Standing, at);
        }
        if had != has {
            self.quality.restart_ticks(policy, Arm::Canary);
        }
        self.reroute_others(policy, was.as_ref(), at);
    }

    /// Rooms whose routing another revision answers for than before.
    fn reroute_others(&mut self, policy: &PolicyName, before: Option<&Revisions>, now: Instant) {
        let Some(revised) = self.revised.get(policy).filter(|_| policy.hook == Hook::Routing)
        else {
            return;
        };
        let by = |revisions: &Revisions, id: RoomId| -> Arc<str> {
            Arc::clone(&revisions.of(revisions.arm(id.0)).name)
        };
        let of_set = |room: &Room| {
            self.settings
                .scenarios
                .get(&room.scenario)
                .is_some_and(|scenario| scenario.set == policy.set)
        };
        let others: Vec<RoomId> = self
            .rooms
            .values()
            .filter(|room| room.is_placed() && of_set(room))
            .map(|room| room.id)
            .filter(|id| before.is_none_or(|before| by(before, *id) != by(&revised.now, *id)))
            .collect();
        for room in others {
            self.want_reroute(room, now);
        }
    }

    /// Questions to an arm whose revision is gone, where they tell the next one nothing: it would take everybody for a
    /// newcomer, and what was kept for it would be lost over its answer. What is said of them is of no use any more.
    fn ask_again(&mut self, policy: &PolicyName, arm: Arm, now: Instant) {
        let of_arm = |asked: &Asked| asked.policy == *policy && asked.arm == arm;
        let ids: Vec<AskId> =
            self.questions.in_flight().filter(|it| of_arm(it)).map(|asked| asked.id).collect();
        for id in ids {
            self.effects.cancel(&Timer::AskLate(id));
            let Some(Asked { policy, arm, about, at: asked, .. }) = self.questions.take(id) else {
                continue;
            };
            let (session, room) = match about {
                About::Resolve(session) | About::Admit(session) => {
                    (Some(session), self.sessions.get(&session).map(|session| session.room))
                }
                About::Place(room) => (None, Some(room)),
                About::Reroute(_) | About::Tick(_) => (None, None),
            };
            self.effects.event(Event::Decided {
                ask: id,
                policy,
                arm,
                revision: None,
                outcome: Outcome::Stale,
                reason: None,
                session,
                room,
                rows: about.rows(),
                asked,
                took: Duration::ZERO,
                notes: Vec::new(),
            });
            match about {
                About::Resolve(session) => self.ask_scenario(session, now),
                About::Admit(session) => self.ask_admission(session, now),
                About::Place(room) => self.place_again(room, now),
                About::Reroute(rooms) => {
                    rooms.into_iter().for_each(|(room, _)| self.want_reroute(room, now));
                }
                About::Tick(_) => {}
            }
        }
    }

    fn place_again(&mut self, id: RoomId, now: Instant) {
        if let Some(room) = self.rooms.get_mut(&id) {
            room.placing = false;
            if !room.is_placed() {
                self.place(id, false, now);
            }
        }
    }

    /// The revisions of a policy, if they are known.
    pub(super) fn revisions(&self, policy: &PolicyName) -> Option<&Revisions> {
        self.revised.get(policy).map(|revised| &revised.now)
    }

    /// Which revision is asked about the room or session of this number.
    pub(super) fn arm(&self, policy: &PolicyName, unit: u64) -> Arm {
        self.revisions(policy).map_or(Arm::Standing, |revisions| revisions.arm(unit))
    }

    /// Those that there are.
    pub(super) fn arms(&self, policy: &PolicyName) -> &'static [Arm] {
        let tried = self.revisions(policy).is_some_and(|revisions| revisions.canary.is_some());
        if tried { &Arm::ALL } else { &[Arm::Standing] }
    }

    /// The revision that is asked, and by it what it can read.
    pub(super) fn reads(&self, policy: &PolicyName, arm: Arm) -> Option<&Revision> {
        self.revisions(policy).map(|revisions| revisions.of(arm))
    }

    pub(super) fn memo(&self, policy: &PolicyName, arm: Arm) -> Option<State> {
        self.memos.get(policy).and_then(|memos| memos.read(arm)).cloned()
    }

    /// With each turn of the sweep: sessions up to this one, and their rooms, keep only what somebody still may read.
    pub(super) fn forget_older_states(&mut self, until: Option<SessionId>) {
        let from = SessionId(self.sessions.swept_last().0.saturating_add(1));
        let until = until.unwrap_or(SessionId(u64::MAX));
        if !self.keeps_older || from > until {
            return;
        }
        let mut done: Vec<(RoomId, Revision)> = Vec::new();
        let settled = |name: &PolicyName| {
            let revisions = self.revised.get(name).map(|revised| &revised.now)?;
            let over = revisions.kept.is_none() && revisions.canary.is_none();
            over.then(|| revisions.standing.clone())
        };
        for session in self.sessions.range_mut(from..=until).map(|(_, session)| session) {
            let Some(scenario) = self.settings.scenarios.get(&session.wanted.scenario) else {
                continue;
            };
            if session.memory.keeps_other()
                && let Some(standing) = settled(&scenario.policy(Hook::Degradation))
            {
                session.memory.settle(&standing);
            }
            let room = self.rooms.get(&session.room).filter(|room| room.memory.keeps_other());
            if let Some(room) = room
                && let Some(standing) = settled(&scenario.policy(Hook::Routing))
            {
                done.push((room.id, standing));
            }
        }
        for (id, standing) in done {
            if let Some(room) = self.rooms.get_mut(&id) {
                room.memory.settle(&standing);
            }
        }
    }

    /// The session, or its room, is known to judges from now on: how it fares now is how it fared before.
    pub(super) fn enrol(&mut self, id: SessionId) {
        if self.judged == 0 {
            return;
        }
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let Some(set) = self.settings.scenarios.get(&session.wanted.scenario).map(|it| &it.set)
        else {
            return;
        };
        let mut revised = std::mem::take(&mut self.revised);
        for (policy, revised) in revised.iter_mut().filter(|(policy, _)| policy.set == *set) {
            let unit = unit(policy.hook, session.room, id);
            let arm = revised.now.arm(unit);
            if let Some(judge) = revised.judge.as_mut().filter(|judge| !judge.knows(unit)) {
                let bad = match policy.hook {
                    Hook::Routing | Hook::Scenario => self.bad_room(session.room, judge),
                    Hook::Admission | Hook::Degradation => bad_before(session, judge),
                };
                judge.enrol(unit, arm, bad);
            }
        }
        self.revised = revised;
    }

    /// How a room fares before anything is done to it: as the worst of its sessions.
    fn bad_room(&self, id: RoomId, judge: &Judge) -> Bad {
        let Some(room) = self.rooms.get(&id) else {
            return Bad::default();
        };
        let sessions = room.sessions.iter().filter_map(|id| self.sessions.get(id));
        let bad = sessions.fold(Bad::default(), |bad, session| bad.and(bad_before(session, judge)));
        bad.with(Figure::Moves, room.moves_noted() >= judge.judging().moves_per_minute as usize)
    }

    /// What was told of a session shows how it, or its room, fares.
    pub(super) fn weigh_session(&mut self, id: SessionId) {
        self.weigh_by(id, bad_session);
    }

    /// What went between a session and its node was told; so many packets were missing when another hop went on.
    pub(super) fn weigh_flow(&mut self, id: SessionId, missed: u32, now: Instant) {
        self.weigh_by(id, |session, judge| {
            let (judging, Some(track)) = (judge.judging(), &session.track) else {
                return Bad::default();
            };
            let gap = track.silent_for(now).max(track.lasts(missed));
            Bad::default()
                .with(Figure::Gap, gap >= judging.gap)
                .with(Figure::Loss, track.loses(judging.loss_ppm))
        });
    }

    fn weigh_by(&mut self, id: SessionId, bad: impl Fn(&Session, &Judge) -> Bad) {
        if self.judged == 0 {
            return;
        }
        self.enrol(id);
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let Some(set) = self.settings.scenarios.get(&session.wanted.scenario).map(|it| &it.set)
        else {
            return;
        };
        let mut breaches = Vec::new();
        for (policy, revised) in self.revised.iter_mut().filter(|(policy, _)| policy.set == *set) {
            if let Some(judge) = &mut revised.judge {
                let bad = bad(session, judge);
                let breach = judge.note(unit(policy.hook, session.room, id), bad);
                breaches.extend(breach.map(|breach| (policy.clone(), breach)));
            }
        }
        breaches
            .into_iter()
            .for_each(|(policy, breach)| self.breached(&policy, Arm::Canary, breach));
    }

    /// The room moved: where it does so too often, who routes it is to blame.
    pub(super) fn weigh_moves(&mut self, id: RoomId, now: Instant) {
        if self.judged == 0 {
            return;
        }
        let Some(room) = self.rooms.get_mut(&id) else {
            return;
        };
        let moves = room.recent_moves(now);
        let Some(scenario) = self.settings.scenarios.get(&room.scenario) else {
            return;
        };
        let policy = scenario.policy(Hook::Routing);
        let breach = self.revised.get_mut(&policy).and_then(|revised| {
            let judge = revised.judge.as_mut()?;
            let often = moves >= judge.judging().moves_per_minute as usize;
            judge.note(id.0, Bad::default().with(Figure::Moves, often))
        });
        if let Some(breach) = breach {
            self.breached(&policy, Arm::Canary, breach);
        }
    }

    /// A revision decided so much, of which so much broke a rule.
    pub(super) fn note_conduct(
        &mut self,
        policy: &PolicyName,
        arm: Arm,
        decided: Count,
        now: Instant,
    ) {
        let breach = self.revised.get_mut(policy).and_then(|revised| {
            let Revised { now: revisions, conduct, .. } = revised;
            // Of the one in force it matters only while the one before may come back.
            let matters = arm == Arm::Canary || revisions.kept.is_some();
            let breach = conduct.as_mut()?.note(arm, decided, &revisions.judging, now);
            breach.filter(|_| matters)
        });
        if let Some(breach) = breach {
            self.breached(policy, arm, breach);
        }
    }

    /// An admission policy answered about a newcomer.
    pub(super) fn weigh_newcomer(&mut self, policy: &PolicyName, newcomer: Newcomer, now: Instant) {
        let breach = self.revised.get_mut(policy).and_then(|revised| {
            let percent = revised.now.canary.as_ref()?.percent;
            revised.judge.as_mut()?.note_newcomer(newcomer, percent, now)
        });
        if let Some(breach) = breach {
            self.breached(policy, Arm::Canary, breach);
        }
    }

    /// So many of a revision's answers were not those of a fresh instance. Where no other may take over it goes on.
    pub(super) fn weigh_hidden_state(
        &mut self,
        policy: &PolicyName,
        revision: &str,
        answers: Count,
    ) {
        let Some(Revised { now: revisions, .. }) = self.revised.get(policy) else { return };
        let is_tried =
            revisions.canary.as_ref().is_some_and(|canary| *canary.revision.name == *revision);
        let may_go = *revisions.standing.name == *revision && revisions.kept.is_some();
        let arm = if is_tried { Arm::Canary } else { Arm::Standing };
        if answers.worse >= HIDDEN_MAX && (is_tried || may_go) {
            let (figure, rest) = (Figure::HiddenState, Count::default());
            self.breached(policy, arm, Breach { figure, canary: answers, rest });
        }
    }

    /// It is told of once: who hears it takes the revision away.
    fn breached(&mut self, policy: &PolicyName, arm: Arm, breach: Breach) {
        let Some(revised) = self.revised.get_mut(policy) else { return };
        if std::mem::replace(&mut revised.told[arm as usize], true) {
            return;
        }
        let revision = Arc::clone(&revised.now.of(arm).name);
        self.effects.event(Event::Breached { policy: policy.clone(), revision, breach });
    }

    pub(super) fn turn_judges(&mut self, now: Instant) {
        for judge in self.revised.values_mut().filter_map(|revised| revised.judge.as_mut()) {
            judge.turn(now);
        }
        if self.judged > 0 {
            self.effects.set(Timer::Judge, now + JUDGES_TURN);
        }
    }

    /// The session is gone.
    pub(super) fn leave_judges(&mut self, session: SessionId, scenario: &str) {
        if self.judged == 0 {
            return;
        }
        let Some(scenario) = self.settings.scenarios.get(scenario) else {
            return;
        };
        for policy in [Hook::Admission, Hook::Degradation].map(|hook| scenario.policy(hook)) {
            self.leave_judge_of(&policy, session.0);
        }
    }

    /// The room is gone.
    pub(super) fn leave_judge(&mut self, room: RoomId, scenario: &str) {
        if self.judged == 0 {
            return;
        }
        let Some(scenario) = self.settings.scenarios.get(scenario) else {
            return;
        };
        for policy in [Hook::Routing, Hook::Scenario].map(|hook| scenario.policy(hook)) {
            self.leave_judge_of(&policy, room.0);
        }
    }

    fn leave_judge_of(&mut self, policy: &PolicyName, unit: u64) {
        if let Some(judge) = self.revised.get_mut(policy).and_then(|it| it.judge.as_mut()) {
            judge.leave(unit);
        }
    }

    /// What is heard of a policy's canary: whether the walk may go on.
    pub fn heard(&self, policy: &PolicyName) -> Heard {
        let Some((revised, judge)) =
            self.revised.get(policy).and_then(|it| Some((it, it.judge.as_ref()?)))
        else {
            return Heard::default();
        };
        let least = judge.judging().cohort_min;
        let there = match policy.hook {
            Hook::Routing | Hook::Scenario => {
                let ours = self.rooms.values().filter(|room| self.is_of(room, policy));
                ours.filter(|room| revised.now.arm(room.id.0) == Arm::Canary).count()
            }
            Hook::Admission | Hook::Degradation => {
                let ours = self.sessions.values().filter(|it| self.belongs(it, policy));
                ours.filter(|session| revised.now.arm(session.id.0) == Arm::Canary).count()
            }
        };
        Heard { there: there as u32, measured: judge.cohort(), least }
    }

    fn is_of(&self, room: &Room, policy: &PolicyName) -> bool {
        self.settings
            .scenarios
            .get(&room.scenario)
            .is_some_and(|scenario| scenario.set == policy.set)
    }

    fn belongs(&self, session: &Session, policy: &PolicyName) -> bool {
        let scenario = self.settings.scenarios.get(&session.wanted.scenario);
        scenario.is_some_and(|scenario| scenario.set == policy.set)
    }

    /// How both cohorts of a policy fare, where one of its revisions is tried. It looks at every session and room.
    pub fn cohorts(&self, policy: &PolicyName) -> Option<[Cohort; 2]> {
        let revised = self.revised.get(policy)?;
        let judge = revised.judge.as_ref()?;
        Some(Arm::ALL.map(|arm| {
            let of_arm = |session: &&Session| {
                let unit = unit(policy.hook, session.room, session.id);
                self.belongs(session, policy) && revised.now.arm(unit) == arm
            };
            let sessions: Vec<&Session> = self.sessions.values().filter(of_arm).collect();
            let rooms = self.rooms.values().filter(|room| {
                let by_session = matches!(policy.hook, Hook::Admission | Hook::Degradation);
                self.is_of(room, policy) && !by_session && revised.now.arm(room.id.0) == arm
            });
            let of = |session: &Session, metric| session.measures.as_ref()?.measured(metric);
            let loss =
                |session: &&Session| of(session, Metric::LossUp).max(of(session, Metric::LossDown));
            let rungs: u64 = sessions.iter().map(|it| u64::from(it.plan_now().rung()) * 100).sum();
            let worse = judge.figures().map(|(figure, canary, rest)| match arm {
                Arm::Canary => (figure, canary),
                Arm::Standing => (figure, rest),
            });
            Cohort {
                arm,
                sessions: sessions.len() as u32,
                rooms: rooms.count() as u32,
                loss_ppm: mean(sessions.iter().filter_map(loss)),
                r_factor_centi: mean(sessions.iter().filter_map(|it| of(it, Metric::RFactor))),
                rung_centi: (rungs / (sessions.len() as u64).max(1)) as u32,
                worse: worse.collect(),
            }
        }))
    }
}

fn mean(values: impl Iterator<Item = u32>) -> Option<u32> {
    let (sum, count) =
        values.fold((0, 0), |(sum, count), value| (sum + u64::from(value), count + 1));
    sum.checked_div(count).map(|mean| mean as u32)
}

/// By which figures a session fares badly now, as it was measured last.
fn bad_session(session: &Session, judge: &Judge) -> Bad {
    let judging = judge.judging();
    let measured = |metric| session.measures.as_ref().and_then(|all| all.measured(metric));
    let lossy = |metric| measured(metric).is_some_and(|loss| loss >= judging.loss_ppm);
    let poor = measured(Metric::RFactor).is_some_and(|r| r < judging.r_factor_centi);
    Bad::default()
        .with(Figure::Loss, lossy(Metric::LossUp) || lossy(Metric::LossDown))
        .with(Figure::RFactor, poor)
        .with(Figure::Rung, session.plan_now().rung() >= judging.rung)
}

/// How a session fares before anything is done to it: one that is silent already is not at risk.
fn bad_before(session: &Session, judge: &Judge) -> Bad {
    let track = session.track.as_ref();
    bad_session(session, judge)
        .with(Figure::Gap, track.is_some_and(|track| track.is_silent()))
        .with(Figure::Loss, track.is_some_and(|track| track.loses(judge.judging().loss_ppm)))
}
