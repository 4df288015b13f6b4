//! Sessions from their offer to their end.

mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Index, RangeBounds};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{Decider, PolicyName, SessionId};
pub(crate) use session::{LegState, Session, SessionOpening, SessionPhase, SessionRequest, WHOLE};

use crate::interner::Interner;
use crate::record::changes::Changes;

/// Maximum sessions checked for silence at a time: 20,000 per second, the rate at which workers report that many.
const SWEPT_AT_ONCE: usize = 1_024;

#[derive(Debug)]
pub(crate) struct SessionTable {
    all: BTreeMap<SessionId, Box<Session>>,
    next: u64,
    live: usize,
    requests: Interner<SessionRequest>,
    deciders: Interner<Decider>,
    /// The last session that was checked for silence.
    pub(crate) swept_last: SessionId,
    /// Maximum age of the workers' last report on a session.
    pub(crate) told_within: Duration,
    /// Live sessions by their degradation policy.
    ticked: BTreeMap<PolicyName, BTreeSet<SessionId>>,
    /// Sessions with another record.
    pub(crate) changes: Changes<SessionId>,
    /// Random source for the jitter of retry times.
    rng: fastrand::Rng,
}

impl SessionTable {
    pub(crate) fn new() -> SessionTable {
        SessionTable {
            all: BTreeMap::new(),
            next: 1,
            live: 0,
            requests: Interner::default(),
            deciders: Interner::default(),
            swept_last: SessionId(0),
            told_within: Duration::ZERO,
            ticked: BTreeMap::new(),
            changes: Changes::default(),
            rng: fastrand::Rng::with_seed(0),
        }
    }

    pub(crate) fn seed(&mut self, seed: u64) {
        self.rng = fastrand::Rng::with_seed(seed);
    }

    /// `wait` extended at random up to twice its length, so that clients refused together do not return together.
    pub(crate) fn jittered(&mut self, wait: Duration) -> Duration {
        wait.saturating_add(wait.mul_f64(self.rng.f64()))
    }

    pub(crate) fn next_id(&self) -> SessionId {
        SessionId(self.next)
    }

    pub(crate) fn request(&mut self, request: SessionRequest) -> Arc<SessionRequest> {
        self.requests.intern(request)
    }

    pub(crate) fn decider(&mut self, by: Decider) -> Arc<Decider> {
        self.deciders.intern(by)
    }

    /// Adds the session under the [next number](Sessions::next_id).
    pub(crate) fn insert(&mut self, session: Session) {
        self.next += 1;
        self.all.insert(session.id, Box::new(session));
    }

    pub(crate) fn follow(&mut self) {
        self.changes.follow(self.all.keys().copied());
    }

    /// Continues the numbers of another process.
    pub(crate) fn resume_numbers(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// Adds a live session of another process under its own number.
    pub(crate) fn restore(&mut self, session: Session) {
        self.all.insert(session.id, Box::new(session));
    }

    pub(crate) fn remove(&mut self, id: SessionId) -> Option<Box<Session>> {
        let session = self.all.remove(&id)?;
        self.changes.note(id);
        if session.phase == SessionPhase::Live {
            self.live -= 1;
            self.ticked.values_mut().for_each(|ours| _ = ours.remove(&id));
        }
        Some(session)
    }

    /// Marks the session live and adds it to its policy's ticks.
    pub(crate) fn set_live(&mut self, id: SessionId, ticks: Option<PolicyName>) {
        self.changes.note(id);
        if let Some(session) = self.all.get_mut(&id) {
            session.phase = SessionPhase::Live;
            self.live += 1;
            if let Some(policy) = ticks {
                self.ticked.entry(policy).or_default().insert(id);
            }
        }
    }

    pub(crate) fn live(&self) -> usize {
        self.live
    }

    pub(crate) fn ticked(&self, policy: &PolicyName) -> Option<&BTreeSet<SessionId>> {
        self.ticked.get(policy)
    }

    /// The largest number of sessions of one degradation policy.
    pub(crate) fn most_ticked(&self) -> usize {
        self.ticked.values().map(BTreeSet::len).max().unwrap_or(0)
    }

    /// The next silent sessions to handle, and the session where the sweep continues.
    pub(crate) fn sweep(&self, now: Instant) -> (Vec<SessionId>, Option<SessionId>) {
        let after = (Bound::Excluded(self.swept_last), Bound::Unbounded);
        let turn: Vec<&Session> =
            self.range(after).take(SWEPT_AT_ONCE).map(|(_, session)| session).collect();
        let goes_on = (turn.len() == SWEPT_AT_ONCE).then(|| turn[SWEPT_AT_ONCE - 1].id);
        let silent = turn.into_iter().filter(|session| session.is_silent(now, self.told_within));
        (silent.map(|session| session.id).collect(), goes_on)
    }

    pub(crate) fn get(&self, id: &SessionId) -> Option<&Session> {
        self.all.get(id).map(|session| &**session)
    }

    /// For a change of the session's record.
    pub(crate) fn get_mut(&mut self, id: &SessionId) -> Option<&mut Session> {
        self.changes.note(*id);
        self.unrecorded_mut(id)
    }

    /// For the policy's state, which may change with each tick: its record is deferred.
    pub(crate) fn deferred_mut(&mut self, id: &SessionId) -> Option<&mut Session> {
        self.changes.defer(*id);
        self.unrecorded_mut(id)
    }

    /// For measures, which are not in the session's record, and the time at which it was heard last, which the record
    /// may contain late.
    pub(crate) fn unrecorded_mut(&mut self, id: &SessionId) -> Option<&mut Session> {
        self.all.get_mut(id).map(|session| &mut **session)
    }

    pub(crate) fn contains_key(&self, id: &SessionId) -> bool {
        self.all.contains_key(id)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &SessionId> {
        self.all.keys()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Session> {
        self.all.values().map(|session| &**session)
    }

    pub(crate) fn range(
        &self,
        range: impl RangeBounds<SessionId>,
    ) -> impl Iterator<Item = (&SessionId, &Session)> {
        self.all.range(range).map(|(id, session)| (id, &**session))
    }

    pub(crate) fn range_mut(
        &mut self,
        range: impl RangeBounds<SessionId>,
    ) -> impl Iterator<Item = (&SessionId, &mut Session)> {
        let changes = &mut self.changes;
        self.all.range_mut(range).map(|(id, session)| {
            changes.note(*id);
            (id, &mut **session)
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

impl Index<&SessionId> for SessionTable {
    type Output = Session;

    fn index(&self, id: &SessionId) -> &Session {
        &self.all[id]
    }
}
