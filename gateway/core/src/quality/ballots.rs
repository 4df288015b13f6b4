//! Votes of rooms about their nodes, and the test on them that finds a node which loses more than its siblings.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use evenkeel_model::{FlowCounts, Hop, RoomId};

/// Packets after which a room votes: 800 ms of voice.
const VOTES_AFTER: u32 = 40;

/// The shortest interval between votes of a room, however many sessions it has.
const VOTES_EVERY: Duration = Duration::from_millis(400);

/// Loss between the gateway and the node, in ppm, from which a room votes against it.
const BAD_PPM: u64 = 50_000;

const COUNTS_FOR: Duration = Duration::from_secs(2);

/// A room that takes longer than this to see enough packets starts its tally again, because the old packets are
/// outdated.
const BEGINS_ANEW: Duration = Duration::from_secs(2);

/// A room that came from another hop counts from this time on: all rooms have moved, and its streams continue.
const SETTLES_IN: Duration = Duration::from_secs(1);

/// A report covers the time since the previous report: at most 5 s · 1.5 / 1.21828 (RFC 3550, 6.3.1), plus half a
/// second of transit. Earlier reports partly describe the previous hop.
const REPORTS_SETTLE_IN: Duration = Duration::from_millis(6_700);

/// Rooms that siblings must carry to serve as a comparison or as an alternative.
const SIBLINGS_MIN: u32 = 5;

/// The share of bad rooms always attributed to chance, and the share attributed to chance without siblings.
const CHANCE_MIN: f64 = 0.05;
const CHANCE_ALONE: f64 = 0.3;

const CHANCE_MAX: f64 = 0.5;

/// Minimum difference between the shares of bad rooms at a node and at its siblings, regardless of certainty.
const DIFFERS: f64 = 0.3;

/// The share of bad rooms at a node that rooms should leave.
const WORSE: f64 = 0.9;

/// Log-likelihood ratios that accuse (ln 10⁶) and withdraw (ln 0.01).
const ACCUSES: f64 = 13.815_510_557_964_274;
const WITHDRAWS: f64 = -4.605_170_185_988_091;

/// Packets that a room has seen since its last vote.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoomTally {
    hop: Hop,
    /// The time at which the room came from another hop.
    arrived: Option<Instant>,
    began: Instant,
    expected: u32,
    lost: u32,
    reported_ppm: u64,
    reports: u64,
}

impl RoomTally {
    pub(crate) fn new(hop: Hop, now: Instant) -> RoomTally {
        RoomTally {
            hop,
            arrived: None,
            began: now,
            expected: 0,
            lost: 0,
            reported_ppm: 0,
            reports: 0,
        }
    }

    /// Sets the room's current hop. A new hop resets the tally.
    pub(crate) fn stands_at(&mut self, hop: Hop, now: Instant) {
        if self.hop != hop {
            *self = RoomTally { arrived: Some(now), ..RoomTally::new(hop, now) };
        }
    }

    /// A fresh tally for the same room at the same hop.
    pub(crate) fn restarted(&self, now: Instant) -> RoomTally {
        RoomTally { arrived: self.arrived, ..RoomTally::new(self.hop, now) }
    }

    fn is_here_for(&self, time: Duration, now: Instant) -> bool {
        self.arrived.is_none_or(|arrived| now.saturating_duration_since(arrived) >= time)
    }

    /// Adds one session's flow. Returns true once there are enough packets for a vote.
    pub(crate) fn add(&mut self, flow: &FlowCounts, now: Instant) -> bool {
        if !self.is_here_for(SETTLES_IN, now) {
            return false;
        }
        if now.saturating_duration_since(self.began) >= BEGINS_ANEW {
            *self = self.restarted(now);
        }
        self.expected = self.expected.saturating_add(flow.expected);
        self.lost = self.lost.saturating_add(flow.lost);
        if let Some(ppm) = flow.reported_ppm
            && self.is_here_for(REPORTS_SETTLE_IN, now)
        {
            self.reported_ppm += u64::from(ppm);
            self.reports += 1;
        }
        self.expected >= VOTES_AFTER && now.saturating_duration_since(self.began) >= VOTES_EVERY
    }

    /// The room's vote, true for bad. The arguments are the loss in its clients' own networks, in ppm.
    pub(crate) fn vote(&self, lost_up_ppm: u64, lost_down_ppm: u64) -> bool {
        let from_node = u64::from(self.lost) * 1_000_000 / u64::from(self.expected.max(1));
        // Packets lost before they reached the node cannot be sent on, and the reports may be about other clients.
        let from_node = from_node.saturating_sub(lost_up_ppm);
        let to_node = self.reported_ppm.checked_div(self.reports).unwrap_or(0);
        let to_node = to_node.saturating_sub(lost_up_ppm + lost_down_ppm);
        from_node.max(to_node) >= BAD_PPM
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct VoteCount {
    bad: u32,
    good: u32,
}

impl VoteCount {
    pub(crate) fn add(&mut self, other: VoteCount) {
        self.bad += other.bad;
        self.good += other.good;
    }

    pub(crate) fn less(self, other: VoteCount) -> VoteCount {
        VoteCount { bad: self.bad - other.bad, good: self.good - other.good }
    }

    fn all(self) -> u32 {
        self.bad + self.good
    }

    pub(crate) fn is_bad(self) -> bool {
        self.all() >= SIBLINGS_MIN && self.bad > self.good
    }

    fn share(self) -> f64 {
        f64::from(self.bad) / f64::from(self.all().max(1))
    }

    /// The log-likelihood of these votes if the share of bad rooms is the share observed here.
    fn likely(self) -> f64 {
        let term = |votes: u32| {
            let share = f64::from(votes) / f64::from(self.all().max(1));
            if votes == 0 { 0.0 } else { f64::from(votes) * share.ln() }
        };
        term(self.bad) + term(self.good)
    }

    fn of(&mut self, bad: bool) -> &mut u32 {
        if bad { &mut self.bad } else { &mut self.good }
    }
}

/// The votes about one node by rooms of one scenario.
#[derive(Default, Debug)]
pub(crate) struct NodeBallot {
    latest: BTreeMap<RoomId, (Instant, bool)>,
    order: VecDeque<(Instant, RoomId)>,
    count: VoteCount,
}

impl NodeBallot {
    /// Takes a room's vote, which replaces its previous one.
    pub(crate) fn vote(&mut self, room: RoomId, bad: bool, now: Instant) {
        self.order.push_back((now, room));
        *self.count.of(bad) += 1;
        if let Some((_, before)) = self.latest.insert(room, (now, bad)) {
            *self.count.of(before) -= 1;
        }
    }

    pub(crate) fn count(&mut self, now: Instant) -> VoteCount {
        let over = |at: Instant| now.saturating_duration_since(at) >= COUNTS_FOR;
        while let Some((at, room)) = self.order.pop_front_if(|(at, _)| over(*at)) {
            if let Some(&(_, bad)) = self.latest.get(&room).filter(|(latest, _)| *latest == at) {
                self.latest.remove(&room);
                *self.count.of(bad) -= 1;
            }
        }
        self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// The verdict on a node. Of verdicts by several kinds of rooms, the greatest applies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum CohortVerdict {
    /// The node is healthy.
    Well,
    Nothing,
    /// Most rooms are bad, and there are no siblings to compare with.
    Bad,
    WorseThanSiblings,
}

/// Weighs the votes about a node against those about its siblings.
pub(crate) fn weigh(own: VoteCount, siblings: VoteCount) -> CohortVerdict {
    let compared = siblings.all() >= SIBLINGS_MIN;
    // Adds two votes of each kind: a small sample leaves much to chance (Agresti and Coull 1998).
    let theirs = f64::from(siblings.bad + 2) / f64::from(siblings.all() + 4);
    let chance = if compared { theirs.clamp(CHANCE_MIN, CHANCE_MAX) } else { CHANCE_ALONE };
    let bad = f64::from(own.bad) * (WORSE / chance).ln();
    let good = f64::from(own.good) * ((1.0 - WORSE) / (1.0 - chance)).ln();
    let worse = own.bad > own.good && own.share() >= siblings.share() + DIFFERS;
    if compared && worse && differ(own, siblings) >= ACCUSES {
        CohortVerdict::WorseThanSiblings
    } else if !compared && bad + good >= ACCUSES {
        CohortVerdict::Bad
    } else if bad + good <= WITHDRAWS {
        CohortVerdict::Well
    } else {
        CohortVerdict::Nothing
    }
}

/// The log of the ratio between the likelihood of the votes if the two nodes differ and if they are alike.
fn differ(one: VoteCount, other: VoteCount) -> f64 {
    let mut both = one;
    both.add(other);
    one.likely() + other.likely() - both.likely()
}

#[cfg(test)]
mod tests;
