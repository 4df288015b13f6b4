//! The sessions and rooms that policies decide for: their state when a judge enrols them, and the cohorts they form.

use std::sync::Arc;

use evenkeel_model::{
    Arm, BreachCount, CoreSettings, Figure, Hook, Metric, PolicyName, RoomId, SessionId,
};
use evenkeel_revisions::{Bad, CohortSize, Judge, Judging, Revisions, is_by_room, unit};

use crate::rooms::{Room, RoomTable};
use crate::sessions::{Session, SessionTable};

#[derive(Clone, Copy)]
pub(crate) struct Subjects<'a> {
    pub(crate) settings: &'a CoreSettings,
    pub(crate) sessions: &'a SessionTable,
    pub(crate) rooms: &'a RoomTable,
}

/// Statistics of the sessions and rooms of one arm of a policy.
#[derive(Clone, PartialEq, Debug)]
pub struct ArmStatistics {
    pub arm: Arm,
    pub sessions: u32,
    pub rooms: u32,
    /// Mean over sessions of the worse direction, parts per million; `None` if no session is measured.
    pub loss_ppm: Option<u32>,
    /// Mean R-factor times 100; `None` if no session is measured.
    pub r_factor_centi: Option<u32>,
    /// Mean rung times 100.
    pub rung_centi: u32,
    /// Per figure, the count of rooms, sessions, decisions or newcomers that got worse in this round.
    pub worse: Vec<(Figure, BreachCount)>,
}

impl<'a> Subjects<'a> {
    fn set(self, scenario: &str) -> Option<&'a Arc<str>> {
        self.settings.scenarios.get(scenario).map(|scenario| &scenario.set)
    }

    /// The session, and the policy set of its scenario.
    pub(super) fn session(self, id: SessionId) -> Option<(&'a Session, &'a Arc<str>)> {
        let session = self.sessions.get(&id)?;
        Some((session, self.set(&session.request.scenario)?))
    }

    /// Rooms of the policy's set.
    pub(crate) fn rooms_of(self, policy: &PolicyName) -> impl Iterator<Item = &'a Room> {
        self.rooms.values().filter(move |room| self.set(&room.scenario) == Some(&policy.set))
    }

    fn sessions_of(self, policy: &PolicyName) -> impl Iterator<Item = &'a Session> {
        let is_of = move |it: &&Session| self.set(&it.request.scenario) == Some(&policy.set);
        self.sessions.values().filter(is_of)
    }

    pub(super) fn enrol(
        self,
        session: &Session,
        hook: Hook,
        revisions: &Revisions,
        judge: &mut Judge,
    ) {
        let unit = unit(hook, session.room, session.id);
        if !judge.knows(unit) {
            let judging = judge.judging();
            let bad = match is_by_room(hook) {
                true => self.bad_room(session.room, judging),
                false => session.bad_before(judging),
            };
            judge.enrol(unit, revisions.arm(unit), bad);
        }
    }

    /// The baseline of a room: the worst of its sessions.
    fn bad_room(self, id: RoomId, judging: &Judging) -> Bad {
        let Some(room) = self.rooms.get(&id) else { return Bad::default() };
        let sessions = room.sessions.iter().filter_map(|id| self.sessions.get(id));
        let bad =
            sessions.fold(Bad::default(), |bad, session| bad.and(session.bad_before(judging)));
        bad.with(Figure::Moves, room.moves_noted() >= judging.moves_per_minute as usize)
    }

    /// Visits every session or room.
    pub(super) fn cohort_size(
        self,
        policy: &PolicyName,
        revisions: &Revisions,
        judge: Option<&Judge>,
    ) -> CohortSize {
        let Some(judge) = judge else { return CohortSize::default() };
        let in_canary = |unit: &u64| revisions.arm(*unit) == Arm::Canary;
        let present = match is_by_room(policy.hook) {
            true => self.rooms_of(policy).map(|room| room.id.0).filter(in_canary).count(),
            false => self.sessions_of(policy).map(|it| it.id.0).filter(in_canary).count(),
        };
        let (measured, required) = (judge.cohort(), judge.judging().cohort_min);
        CohortSize { present: present as u32, measured, required }
    }

    /// Adds the session to the tally if it is of the policy's set.
    pub(super) fn tally(
        self,
        policy: &PolicyName,
        revisions: &Revisions,
        session: &Session,
        tally: &mut ArmTally,
    ) {
        if self.set(&session.request.scenario) != Some(&policy.set) {
            return;
        }
        // A room counts with its first session.
        let is_first = |room: &Room| room.sessions.iter().next() == Some(&session.id);
        let counts = is_by_room(policy.hook) && self.rooms.get(&session.room).is_some_and(is_first);
        let arm = revisions.arm(unit(policy.hook, session.room, session.id));
        let sums = &mut tally.0[arm as usize];
        sums.sessions += 1;
        sums.rooms += u32::from(counts);
        sums.loss.add(session.measured(Metric::LossUp).max(session.measured(Metric::LossDown)));
        sums.r_factor.add(session.measured(Metric::RFactor));
        sums.rung_centi.add(Some(u32::from(session.plan_now().rung()) * 100));
    }
}

/// Sums over the sessions of a policy, by arm.
#[derive(Clone, Default, Debug)]
pub struct ArmTally([Sums; 2]);

#[derive(Clone, Default, Debug)]
struct Sums {
    sessions: u32,
    rooms: u32,
    loss: Mean,
    r_factor: Mean,
    rung_centi: Mean,
}

#[derive(Clone, Default, Debug)]
struct Mean {
    sum: u64,
    count: u64,
}

impl Mean {
    fn add(&mut self, value: Option<u32>) {
        self.sum += u64::from(value.unwrap_or(0));
        self.count += u64::from(value.is_some());
    }

    fn value(&self) -> Option<u32> {
        self.sum.checked_div(self.count).map(|mean| mean as u32)
    }
}

impl ArmTally {
    pub(super) fn cohort(&self, arm: Arm, judge: &Judge) -> ArmStatistics {
        let sums = &self.0[arm as usize];
        let worse = judge.figures().map(|(figure, canary, rest)| match arm {
            Arm::Canary => (figure, canary),
            Arm::Standing => (figure, rest),
        });
        ArmStatistics {
            arm,
            sessions: sums.sessions,
            rooms: sums.rooms,
            loss_ppm: sums.loss.value(),
            r_factor_centi: sums.r_factor.value(),
            rung_centi: sums.rung_centi.value().unwrap_or(0),
            worse: worse.collect(),
        }
    }
}

impl Session {
    /// Figures by which the session is bad, according to its last measures.
    pub(super) fn bad_by_measures(&self, judging: &Judging) -> Bad {
        let lossy = |metric| self.measured(metric).is_some_and(|loss| loss >= judging.loss_ppm);
        let poor = self.measured(Metric::RFactor).is_some_and(|r| r < judging.r_factor_centi);
        Bad::default()
            .with(Figure::Loss, lossy(Metric::LossUp) || lossy(Metric::LossDown))
            .with(Figure::RFactor, poor)
            .with(Figure::Rung, self.plan_now().rung() >= judging.rung)
    }

    /// The session's baseline. A session that is silent already is not at risk.
    fn bad_before(&self, judging: &Judging) -> Bad {
        let track = self.track.as_ref();
        self.bad_by_measures(judging)
            .with(Figure::Gap, track.is_some_and(|track| track.is_silent()))
            .with(Figure::Loss, track.is_some_and(|track| track.loses(judging.loss_ppm)))
    }
}
