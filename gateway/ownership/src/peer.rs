//! Evidence about the other members.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use evenkeel_model::Since;

use crate::messages::{BEAT_EVERY, Beat, BeatRole, Echo, PeerId, Reporter};

/// Beats that are remembered. Echoes of older ones renew no lease.
const BEATS_MAX: usize = 32;

/// The newest beats that this member sent.
#[derive(Default, Debug)]
pub(super) struct SentBeats(VecDeque<(u64, Instant)>);

impl SentBeats {
    pub(super) fn push(&mut self, sequence: u64, now: Instant) {
        if self.0.len() == BEATS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((sequence, now));
    }

    /// The time at which this beat was sent; none if it is too old.
    pub(super) fn at(&self, sequence: u64) -> Option<Instant> {
        self.0.iter().find(|(number, _)| *number == sequence).map(|(_, at)| *at)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The other members. The current one is the standby if this member is the owner, and otherwise the owner.
#[derive(Debug)]
pub(super) struct Peers {
    states: Vec<PeerState>,
    current: PeerId,
}

impl Peers {
    pub(super) fn new(others: usize, current: PeerId, now: Instant) -> Peers {
        Peers { states: (0..others).map(|_| PeerState::new(now)).collect(), current }
    }

    pub(super) fn current_id(&self) -> PeerId {
        self.current
    }

    pub(super) fn current(&self) -> &PeerState {
        &self.states[self.current.0]
    }

    pub(super) fn current_mut(&mut self) -> &mut PeerState {
        &mut self.states[self.current.0]
    }

    pub(super) fn change(&mut self, current: PeerId) {
        self.current = current;
    }

    /// None for a member that the settings do not have.
    pub(super) fn get_mut(&mut self, member: PeerId) -> Option<&mut PeerState> {
        self.states.get_mut(member.0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PeerId, &PeerState)> {
        self.states.iter().enumerate().map(|(at, state)| (PeerId(at), state))
    }

    pub(super) fn excuse(&mut self, late: Duration) {
        self.states.iter_mut().for_each(|state| state.last_beat.excuse(late));
    }
}

/// Timers of a process that runs are late by less.
pub(crate) const PUNCTUAL: Duration = Duration::from_millis(2);

/// The least time between two reports of a closed port that show the end of the process. A running one has the port open, and one
/// that starts anew may open it in between.
const ENDED_TWICE: Duration = Duration::from_millis(4);

/// Silence with which one report of a closed port shows the end of the process.
const ENDED_SILENT: Duration = Duration::from_millis(10);

/// The same once the connection to the peer has ended, as it does with the process: a beat of one that runs is overdue.
const ENDED_DISCONNECTED: Duration = BEAT_EVERY.saturating_add(PUNCTUAL);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BeatOrder {
    /// A beat that was heard before, or one of an earlier process.
    Old,
    New,
    /// The first beat of another process, so the one before has ended.
    Restarted,
}

#[derive(Debug)]
pub(super) struct PeerState {
    newest: Option<Beat>,
    /// The last beat, or the start.
    last_beat: Since,
    closed: Option<Closed>,
    /// The connection to the peer has ended since its last beat.
    disconnected: bool,
}

/// Reports of a closed port since the last beat.
#[derive(Clone, Copy, Debug)]
struct Closed {
    first: Instant,
    last: Instant,
    /// Of the last one.
    by: Reporter,
}

impl PeerState {
    pub(super) fn new(now: Instant) -> PeerState {
        PeerState { newest: None, last_beat: Since::new(now), closed: None, disconnected: false }
    }

    pub(super) fn handle_beat(&mut self, beat: Beat, now: Instant) -> BeatOrder {
        let known = self.newest.as_ref().map(|newest| (newest.incarnation, newest.sequence));
        if known.is_some_and(|known| (beat.incarnation, beat.sequence) <= known) {
            return BeatOrder::Old;
        }
        let restarted = known.is_some_and(|(incarnation, _)| beat.incarnation > incarnation);
        self.newest = Some(beat);
        self.last_beat = Since::new(now);
        (self.closed, self.disconnected) = (None, false);
        if restarted { BeatOrder::Restarted } else { BeatOrder::New }
    }

    pub(super) fn handle_closed(&mut self, by: Reporter, now: Instant) {
        let first = self.closed.map_or(now, |closed| closed.first);
        self.closed = Some(Closed { first, last: now, by });
    }

    pub(super) fn handle_disconnected(&mut self) {
        self.disconnected = true;
    }

    pub(super) fn is_disconnected(&self) -> bool {
        self.disconnected
    }

    pub(super) fn newest(&self) -> Option<&Beat> {
        self.newest.as_ref()
    }

    pub(super) fn echo(&self) -> Echo {
        self.newest().map_or(Echo::default(), |beat| Echo {
            incarnation: beat.incarnation,
            sequence: beat.sequence,
        })
    }

    pub(super) fn silence(&self, now: Instant) -> Duration {
        self.last_beat.lasted(now)
    }

    /// The peer is heard, and its standing is this one.
    pub(super) fn is(&self, standing: BeatRole, now: Instant) -> bool {
        self.silence(now) < 4 * BEAT_EVERY
            && self.newest().is_some_and(|beat| beat.role == standing)
    }

    pub(super) fn hears(&self, incarnation: u64) -> bool {
        self.newest().is_some_and(|beat| beat.echo.incarnation == incarnation)
    }

    /// The peer's host shows that its process has ended.
    pub(super) fn has_ended(&self, now: Instant) -> bool {
        self.ended_by(now).is_some()
    }

    /// The last reporter, if the peer's process has ended.
    pub(super) fn ended_by(&self, now: Instant) -> Option<Reporter> {
        let silent = if self.disconnected { ENDED_DISCONNECTED } else { ENDED_SILENT };
        let closed = self.closed.filter(|closed| {
            closed.last.saturating_duration_since(closed.first) >= ENDED_TWICE
                || self.silence(now) >= silent
        });
        closed.map(|closed| closed.by)
    }
}
