//! Ratings of sessions by their users, beside the quality that the gateway measured.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_contract::sessions::{FeedbackRequest, SessionRating};
use evenkeel_kept::{Column, ColumnType, Record, RecordBatch, RecordTable};
use evenkeel_model::{ClosedSession, Decider, SessionId};
use evenkeel_process::unix_us;

use super::ended::{BYTES_MAX, RECORDS_MAX, bytes};
use super::recent::RecentRecords;
use crate::names::NodeNames;

/// A session can be rated for this time after its end: users answer a question at the end of a call, or never.
pub const RATABLE_FOR: Duration = Duration::from_secs(600);

/// A session that can be rated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RatableSession {
    pub session: SessionId,
    pub scenario: Arc<str>,
    /// The name of the node that carries it, or carried it.
    pub node: Option<Arc<str>>,
    /// The authors of its admission and of its route.
    pub decided_by: [String; 2],
    pub mean_r_centi: Option<u32>,
}

impl RatableSession {
    pub(super) fn ended(
        session: SessionId,
        closed: &ClosedSession,
        names: &NodeNames,
    ) -> RatableSession {
        RatableSession {
            session,
            scenario: Arc::clone(&closed.scenario),
            node: closed.node.map(|node| names.of_node(node).node),
            decided_by: [&*closed.admitted_by, &closed.routed_by].map(Decider::to_string),
            mean_r_centi: closed.mean_r_centi,
        }
    }

    /// The rating of the session. The caller has checked its bounds.
    pub fn rated(self, rating: u8, feedback: FeedbackRequest) -> SessionRating {
        let mut decided_by = Vec::from(self.decided_by.map(String::into_boxed_str));
        decided_by.dedup();
        SessionRating {
            id: self.session.to_string().into(),
            scenario: (*self.scenario).into(),
            node: self.node.map(|node| (*node).into()),
            decided_by,
            mean_r_centi: self.mean_r_centi,
            rated_us: unix_us(SystemTime::now()),
            rating,
            words: feedback.words,
        }
    }
}

/// The session has another rating by its user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AlreadyRated;

/// The newest ratings, and the sessions that ended lately.
#[derive(Default, Debug)]
pub(super) struct Ratings {
    rated: RecentRecords<SessionRating>,
    /// In the order of their ends.
    ended: VecDeque<(Instant, RatableSession)>,
}

impl Ratings {
    pub(super) fn note_ended(&mut self, session: RatableSession, now: Instant) {
        self.ended.push_back((now, session));
        let is_over = |at: Instant| now.saturating_duration_since(at) > RATABLE_FOR;
        while self.ended.front().is_some_and(|(at, _)| is_over(*at))
            || self.ended.len() > RECORDS_MAX
        {
            self.ended.pop_front();
        }
    }

    /// The session, if it ended within [`RATABLE_FOR`].
    pub(super) fn ended_lately(&self, id: SessionId, now: Instant) -> Option<RatableSession> {
        let mut newest = self.ended.iter().rev();
        let (at, session) = newest.find(|(_, session)| session.session == id)?;
        (now.saturating_duration_since(*at) <= RATABLE_FOR).then(|| session.clone())
    }

    /// Keeps the first rating of a session. The same one may come again.
    pub(super) fn rate(&mut self, rating: SessionRating) -> Result<(), AlreadyRated> {
        let mut records = self.rated.records.iter();
        if let Some((found, _)) = records.find(|(found, _)| found.id == rating.id) {
            let is_same = (found.rating, &found.words) == (rating.rating, &rating.words);
            return if is_same { Ok(()) } else { Err(AlreadyRated) };
        }
        self.push(rating);
        Ok(())
    }

    /// The newest first.
    pub(super) fn list(&self) -> impl Iterator<Item = &Arc<SessionRating>> {
        self.rated.records.iter().rev().map(|(rating, _)| rating)
    }

    /// Adds the ratings of earlier processes before those of this process. Returns the number of the first one of this process.
    pub(super) fn add_earlier(&mut self, earlier: Vec<SessionRating>) -> u64 {
        let next = self.rated.next();
        let mut own = std::mem::take(&mut self.rated);
        // Copies of the owner's ratings may have come again meanwhile.
        let known: HashSet<&str> = earlier.iter().map(|it| &*it.id).collect();
        own.records.retain(|(rating, _)| !known.contains(&*rating.id));
        // They get numbers that no reader has passed.
        self.rated.first = next;
        earlier.into_iter().for_each(|rating| self.push(rating));
        let first_own = self.rated.next();
        own.records.into_iter().for_each(|(rating, bytes)| self.rated.push(rating, bytes));
        first_own
    }

    /// The number of the next rating.
    pub(super) fn next(&self) -> u64 {
        self.rated.next()
    }

    /// Adds up to `limit` ratings from this number on, oldest first. Returns the number after them.
    pub(super) fn add_to(&self, batch: &mut RecordBatch, from: u64, limit: usize) -> u64 {
        let (next, ratings) = self.from(from, limit);
        ratings.for_each(|rating| batch.insert::<SessionRatings>(rating));
        next
    }

    /// Up to `limit` ratings from this number on, oldest first, and the number after them.
    pub(super) fn from(
        &self,
        from: u64,
        limit: usize,
    ) -> (u64, impl Iterator<Item = &Arc<SessionRating>>) {
        let ratings = self.rated.from(from, limit);
        (from.max(self.rated.first).saturating_add(ratings.len() as u64), ratings)
    }

    fn push(&mut self, rating: SessionRating) {
        let bytes = bytes(&rating);
        self.rated.push(Arc::new(rating), bytes);
    }
}

/// The ratings, as the API has them.
pub(super) struct SessionRatings;

impl Record for SessionRatings {
    type Value = SessionRating;

    const TABLE: RecordTable = RecordTable {
        name: "ratings",
        version: 1,
        columns: &[
            Column::new("id", ColumnType::Text),
            Column::new("scenario", ColumnType::Text),
            Column::new("node", ColumnType::Text),
            Column::new("decided_by", ColumnType::Json),
            Column::new("mean_r_centi", ColumnType::Integer),
            Column::new("rated_us", ColumnType::Integer),
            Column::new("rating", ColumnType::Integer),
            Column::new("words", ColumnType::Text),
        ],
        rows_max: RECORDS_MAX,
        bytes_max: BYTES_MAX,
        notes_life: false,
    };
}

#[cfg(test)]
mod tests;
