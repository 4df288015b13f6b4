//! Sessions from their offer to their end.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Index, RangeBounds};
use std::time::Duration;

use crate::alike::Alike;
use crate::session::{Session, Wanted};
use crate::{PolicyName, SessionId};

#[derive(Debug)]
pub(crate) struct Sessions {
    pub(crate) all: BTreeMap<SessionId, Box<Session>>,
    pub(crate) next: u64,
    /// How many are live.
    pub(crate) live: usize,
    pub(crate) wants: Alike<Wanted>,
    /// The last session that was looked at for silence.
    pub(crate) swept_last: SessionId,
    /// How old the last word on a session may be.
    pub(crate) told_within: Duration,
    /// Live sessions that a degradation policy is asked about.
    pub(crate) ticked: BTreeMap<PolicyName, BTreeSet<SessionId>>,
    /// Jitter of retry times.
    pub(crate) rng: fastrand::Rng,
}

impl Sessions {
    pub(crate) fn new() -> Sessions {
        Sessions {
            all: BTreeMap::new(),
            next: 1,
            live: 0,
            wants: Alike::default(),
            swept_last: SessionId(0),
            told_within: Duration::ZERO,
            ticked: BTreeMap::new(),
            rng: fastrand::Rng::with_seed(0),
        }
    }

    pub(crate) fn get(&self, id: &SessionId) -> Option<&Session> {
        self.all.get(id).map(|session| &**session)
    }

    pub(crate) fn get_mut(&mut self, id: &SessionId) -> Option<&mut Session> {
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
        self.all.range_mut(range).map(|(id, session)| (id, &mut **session))
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

impl Index<&SessionId> for Sessions {
    type Output = Session;

    fn index(&self, id: &SessionId) -> &Session {
        &self.all[id]
    }
}
