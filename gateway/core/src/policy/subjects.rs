//! The sessions and rooms that policies decide for: their state when a judge enrols them, the cohorts they form, the last
//! decisions on them, and those that are quarantined.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    Arm, BreachCount, CoreEvent, CoreSettings, Decider, DecisionNote, DecisionOutcome, Figure,
    Hook, IsolatedRows, Metric, NodeId, PluginFault, PolicyName, RoomId, SessionId,
};
use evenkeel_revisions::{BadFigures, Judge, Judging, Revisions, is_by_room, unit};

use crate::collections::Interner;
use crate::effects::Effects;
use crate::flow::FlowTracker;
use crate::policy::questions::{AnswerDetails, FaultSubject, PartCounts, QuestionSubject};
use crate::rooms::RoomTable;
use crate::rooms::room::Room;
use crate::sessions::{Session, SessionTable};

#[derive(Clone, Copy)]
pub(crate) struct Subjects<'a> {
    settings: &'a CoreSettings,
    sessions: &'a SessionTable,
    rooms: &'a RoomTable,
}

/// Statistics of the sessions and rooms of one arm of a policy.
#[derive(Clone, PartialEq, Debug)]
pub struct ArmStatistics {
    /// The arm of the cohort.
    pub arm: Arm,
    /// The number of sessions.
    pub sessions: u32,
    /// The number of rooms.
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
    pub(crate) fn new(
        settings: &'a CoreSettings,
        sessions: &'a SessionTable,
        rooms: &'a RoomTable,
    ) -> Subjects<'a> {
        Subjects { settings, sessions, rooms }
    }

    /// The node that carries the session.
    pub(super) fn node_of(self, session: &Session) -> Option<NodeId> {
        self.rooms.get(&session.room())?.holding().on
    }

    /// Sessions after this one in order of their ids.
    pub(super) fn sessions_after(
        self,
        after: SessionId,
    ) -> impl Iterator<Item = (SessionId, &'a Session)> {
        self.sessions.range((Bound::Excluded(after), Bound::Unbounded))
    }

    fn set(self, scenario: &str) -> Option<&'a Arc<str>> {
        self.settings.scenarios.get(scenario).map(|scenario| &scenario.set)
    }

    /// The session, and the policy set of its scenario.
    pub(super) fn session(self, id: SessionId) -> Option<(&'a Session, &'a Arc<str>)> {
        let session = self.sessions.get(&id)?;
        Some((session, self.set(session.scenario())?))
    }

    /// Rooms of the policy's set.
    pub(crate) fn rooms_of(self, policy: &PolicyName) -> impl Iterator<Item = &'a Room> {
        self.rooms.values().filter(move |room| self.set(room.scenario()) == Some(&policy.set))
    }

    /// The session misses a limit of its scenario's objective. `missed` packets were missing when another hop took over.
    pub(super) fn misses_slo(self, session: &Session, missed: u32) -> bool {
        let slo = self.settings.slo(session.scenario());
        slo.is_some_and(|(_, slo)| session.misses(slo, missed).contains(&Some(true)))
    }

    /// The session's baseline. A session that is silent already is not at risk.
    fn bad_before(self, session: &Session, judging: &Judging) -> BadFigures {
        let track = session.track();
        session
            .bad_by_measures(judging)
            .with(Figure::Gap, track.is_some_and(FlowTracker::is_silent))
            .with(Figure::Loss, track.is_some_and(|track| track.loses(judging.loss_ppm)))
            .with(Figure::Slo, self.misses_slo(session, 0))
    }

    pub(super) fn enrol(
        self,
        session: &Session,
        hook: Hook,
        revisions: &Revisions,
        judge: &mut Judge,
    ) {
        let unit = unit(hook, session.room(), session.id());
        if !judge.knows(unit) {
            let judging = judge.judging();
            let bad = match is_by_room(hook) {
                true => self.bad_room(session.room(), judging),
                false => self.bad_before(session, judging),
            };
            judge.enrol(unit, revisions.arm(unit), bad);
        }
    }

    /// The baseline of a room: the worst of its sessions.
    fn bad_room(self, id: RoomId, judging: &Judging) -> BadFigures {
        let Some(room) = self.rooms.get(&id) else { return BadFigures::default() };
        let sessions = room.sessions().iter().filter_map(|id| self.sessions.get(id));
        let bad = sessions
            .fold(BadFigures::default(), |bad, session| bad.and(self.bad_before(session, judging)));
        bad.with(Figure::Moves, room.moves_noted() >= judging.moves_per_minute as usize)
    }

    /// Adds the session to the tally if it is of the policy's set.
    pub(super) fn tally(
        self,
        policy: &PolicyName,
        revisions: &Revisions,
        session: &Session,
        tally: &mut ArmTally,
    ) {
        if self.set(session.scenario()) != Some(&policy.set) {
            return;
        }
        // A room counts with its first session.
        let is_first = |room: &Room| room.sessions().iter().next() == Some(&session.id());
        let counts =
            is_by_room(policy.hook) && self.rooms.get(&session.room()).is_some_and(is_first);
        let arm = revisions.arm(unit(policy.hook, session.room(), session.id()));
        let sums = &mut tally.0[arm as usize];
        sums.sessions += 1;
        sums.rooms += u32::from(counts);
        let [up, down] = session.losses_after_repair();
        sums.loss.add(up.max(down));
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
    pub(super) fn bad_by_measures(&self, judging: &Judging) -> BadFigures {
        let losses = self.losses_after_repair().into_iter().flatten();
        let is_lossy = losses.max().is_some_and(|loss| loss >= judging.loss_ppm);
        let poor = self.measured(Metric::RFactor).is_some_and(|r| r < judging.r_factor_centi);
        BadFigures::default()
            .with(Figure::Loss, is_lossy)
            .with(Figure::RFactor, poor)
            .with(Figure::Rung, self.plan_now().rung() >= judging.rung)
    }
}

/// Subjects with a kept decision, about 2 MB: queries come soon after a decision. The oldest is dropped first.
const DECISIONS_MAX: usize = 8_192;

/// Notes kept per decision and subject: as many as fit on a screen.
const NOTES_MAX: usize = 8;

/// The last decision of a policy on a session, or on its room.
#[derive(Clone, PartialEq, Debug)]
pub struct SubjectDecision {
    /// The question that the policy answers.
    pub hook: Hook,
    /// The author of the decision.
    pub by: Decider,
    /// The plugin's name for its reason, or the number if it has no name; `None` without a reason.
    pub reason: Option<Arc<str>>,
    /// The result after validation.
    pub outcome: DecisionOutcome,
    /// The age of the decision.
    pub since: Duration,
    /// The plugin's first notes on the subject.
    pub notes: Box<[(Box<str>, i64)]>,
}

/// A session, or its room, that a revision is not asked about.
#[derive(Clone, PartialEq, Debug)]
pub struct SubjectQuarantine {
    /// The policy, by set and hook.
    pub policy: PolicyName,
    /// The name of the revision: a hash of plugin and settings.
    pub revision: Arc<str>,
    /// The failure of the plugin.
    pub fault: PluginFault,
    /// The time since the quarantine began.
    pub since: Duration,
}

#[derive(Debug)]
struct DecisionEntry {
    by: Arc<Decider>,
    reason: Option<Arc<str>>,
    outcome: DecisionOutcome,
    at: Instant,
    notes: Box<[(Box<str>, i64)]>,
}

#[derive(Debug)]
struct SubjectFault {
    policy: PolicyName,
    revision: Arc<str>,
    fault: PluginFault,
    since: Instant,
}

#[derive(Default, Debug)]
pub(crate) struct SubjectHistory {
    decisions: BTreeMap<(FaultSubject, Hook), DecisionEntry>,
    /// Keys by first decision, the oldest first; some may have been removed.
    order: VecDeque<(FaultSubject, Hook)>,
    faults: BTreeMap<(FaultSubject, Hook), SubjectFault>,
    deciders: Interner<Decider>,
}

impl SubjectHistory {
    fn note_decision(&mut self, key: (FaultSubject, Hook), entry: DecisionEntry) {
        if self.decisions.insert(key, entry).is_some() {
            return;
        }
        if self.order.len() == DECISIONS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.decisions.remove(&oldest);
        }
        self.order.push_back(key);
    }

    /// The start of the quarantine.
    pub(crate) fn quarantined_since(&self, subject: FaultSubject, hook: Hook) -> Option<Instant> {
        self.faults.get(&(subject, hook)).map(|fault| fault.since)
    }

    pub(crate) fn forget(&mut self, subject: FaultSubject) {
        for hook in Hook::ALL {
            self.decisions.remove(&(subject, hook));
            self.faults.remove(&(subject, hook));
        }
    }

    pub(crate) fn decisions(&self, of: &[FaultSubject], now: Instant) -> Vec<SubjectDecision> {
        let keys = Hook::ALL.into_iter().flat_map(|hook| of.iter().map(move |it| (*it, hook)));
        let entries = keys.filter_map(|key| Some((key.1, self.decisions.get(&key)?)));
        entries
            .map(|(hook, entry)| SubjectDecision {
                hook,
                by: (*entry.by).clone(),
                reason: entry.reason.clone(),
                outcome: entry.outcome.clone(),
                since: now.saturating_duration_since(entry.at),
                notes: entry.notes.clone(),
            })
            .collect()
    }

    pub(crate) fn quarantines(&self, of: &[FaultSubject], now: Instant) -> Vec<SubjectQuarantine> {
        let keys = Hook::ALL.into_iter().flat_map(|hook| of.iter().map(move |it| (*it, hook)));
        keys.filter_map(|key| self.faults.get(&key))
            .map(|fault| SubjectQuarantine {
                policy: fault.policy.clone(),
                revision: fault.revision.clone(),
                fault: fault.fault.clone(),
                since: now.saturating_duration_since(fault.since),
            })
            .collect()
    }

    /// Quarantines the subjects on which the revision faults, and releases those that it answered.
    pub(crate) fn note_isolated(
        &mut self,
        about: &QuestionSubject,
        policy: &PolicyName,
        revision: &Arc<str>,
        isolated: Option<&IsolatedRows>,
        is_there: impl Fn(FaultSubject) -> bool,
        (now, effects): (Instant, &mut Effects),
    ) {
        if isolated.is_none() && self.faults.is_empty() {
            return;
        }
        self.faults.retain(|(subject, _), held| {
            let row = about.row_of(*subject).filter(|_| held.policy == *policy);
            row.is_none_or(|row| isolated.is_some_and(|isolated| isolated.leaves_out(row)))
        });
        for poisoned in isolated.into_iter().flat_map(|isolated| &isolated.poisoned) {
            let subject = about.subject(poisoned.row).filter(|subject| is_there(*subject));
            let Some(subject) = subject else { continue };
            let (fault, key) = (poisoned.fault.clone(), (subject, policy.hook));
            if self.faults.get(&key).is_some_and(|fault| fault.revision == *revision) {
                continue;
            }
            let (policy, revision) = (policy.clone(), revision.clone());
            let held = SubjectFault {
                policy: policy.clone(),
                revision: revision.clone(),
                fault: fault.clone(),
                since: now,
            };
            self.faults.insert(key, held);
            let (session, room) = match subject {
                FaultSubject::Session(session) => (Some(session), None),
                FaultSubject::Room(room) => (None, Some(room)),
            };
            effects.event(CoreEvent::Quarantined { policy, revision, session, room, fault });
        }
    }

    /// Keeps the decision on each subject that has a reason or a note, and the fault of a question about one subject. Returns
    /// the reason if the question had one subject.
    pub(crate) fn note_said(
        &mut self,
        about: &QuestionSubject,
        (by, outcome, parts): (&Decider, &DecisionOutcome, &PartCounts),
        given: &[(u32, u32)],
        beside: &AnswerDetails,
        is_there: impl Fn(FaultSubject) -> bool,
        now: Instant,
    ) -> Option<Arc<str>> {
        let batch = matches!(about, QuestionSubject::Reroute(_) | QuestionSubject::Tick(_));
        let of_row = |row| if batch { parts.outcome_of(row) } else { outcome.clone() };
        let mut notes: BTreeMap<u32, Vec<&DecisionNote>> = BTreeMap::new();
        for note in &beside.notes {
            notes.entry(note.row).or_default().push(note);
        }
        let mut reasons: BTreeMap<u32, u32> = BTreeMap::new();
        for (row, reason) in given {
            // A row without a change needs no reason. Most rows of a tick are unchanged.
            let worth_it = || notes.contains_key(row) || of_row(*row) != DecisionOutcome::Kept;
            if *reason != 0 && worth_it() {
                reasons.insert(*row, *reason);
            }
        }
        let word = |reason: &u32| beside.word_for(*reason);
        let faulted = !batch && matches!(outcome, DecisionOutcome::Faulted(_));
        let rows: std::collections::BTreeSet<u32> =
            notes.keys().chain(reasons.keys()).copied().chain(faulted.then_some(0)).collect();
        let by = self.deciders.intern(by.clone());
        for row in rows {
            let Some(subject) = about.subject(row).filter(|subject| is_there(*subject)) else {
                continue;
            };
            let notes = notes.remove(&row).unwrap_or_default().into_iter().take(NOTES_MAX);
            let entry = DecisionEntry {
                by: Arc::clone(&by),
                reason: reasons.get(&row).map(word),
                outcome: of_row(row),
                at: now,
                notes: notes.map(|note| (note.key.clone(), note.value)).collect(),
            };
            self.note_decision((subject, about.hook()), entry);
        }
        if batch { None } else { reasons.get(&0).map(word) }
    }
}

#[cfg(test)]
mod tests;
