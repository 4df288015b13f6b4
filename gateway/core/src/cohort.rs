//! Finds nodes that lose more than their siblings:
//!
//! rooms vote, and the likelihood of their votes decides. A room votes once it has seen enough packets: *bad* if 5 %
//! or more of them got lost between us and the node, that is more than its own clients' networks explain. Rooms vote
//! for themselves, so one bad publisher with a thousand listeners is one vote. Each look counts the votes of the last
//! 2 s, one a room, and the test ends as soon as they are clear enough: sequential, by likelihood ratios. The loss
//! that a node's death costs its rooms does not count against the node that takes them: a room that comes from another
//! hop begins to count a second later, and reports count once none of them can be of a time before. Beside siblings:
//! the votes are 10⁶ times as likely of two nodes that differ as of two that are alike (generalised ratio; where 8
//! rooms fare badly and 15 of siblings do not, Fisher's exact test says 2·10⁻⁶). Without siblings: 10⁶ times as likely
//! of a node where 90 % of the rooms fare badly as of one where 30 % do (Wald 1945). So a node that is like its
//! siblings is accused about once in 10⁶ windows of 2 s, or 23 days. On a node that loses 15 % a room votes wrongly
//! with a chance of 2 %. Votes a hundred times as likely of a good node withdraw the accusation.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::{Flow, Hop, RoomId};

/// Packets after which a room votes: of a voice, 800 ms.
const VOTES_AFTER: u32 = 40;

/// A room with many sessions votes no more often than this.
const VOTES_EVERY: Duration = Duration::from_millis(400);

/// Lost between us and the node, parts per million, from where a room votes against it.
const BAD_PPM: u64 = 50_000;

const COUNTS_FOR: Duration = Duration::from_secs(2);

/// A room that takes longer to see enough packets begins anew: what it saw is old.
const BEGINS_ANEW: Duration = Duration::from_secs(2);

/// A room that came from another hop has settled: its herd is in, and its streams go on.
const SETTLES_IN: Duration = Duration::from_secs(1);

/// A report covers the time since the one before: 5 s · 1.5 / 1.21828 at most (RFC 3550, 6.3.1), and half a second on
/// its way. Earlier reports on a room are in part about another hop.
const REPORTS_SETTLE_IN: Duration = Duration::from_millis(6_700);

/// Rooms that siblings must carry to be compared with, or to be avoided.
const SIBLINGS_MIN: u32 = 5;

/// The share of bad rooms that is always thought to be chance, and that which is where there are no siblings.
const CHANCE_MIN: f64 = 0.05;
const CHANCE_ALONE: f64 = 0.3;

const CHANCE_MAX: f64 = 0.5;

/// Least difference between the shares of bad rooms at a node and at its siblings, however certain it is.
const DIFFERS: f64 = 0.3;

/// The share of bad rooms of a node that is to be left.
const WORSE: f64 = 0.9;

/// ln 10⁶, and ln 0.01.
const ACCUSES: f64 = 13.815_510_557_964_274;
const WITHDRAWS: f64 = -4.605_170_185_988_091;

/// Packets that a room has seen since it voted last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally {
    hop: Hop,
    /// The time at which the room came from another hop.
    came: Option<Instant>,
    began: Instant,
    expected: u32,
    lost: u32,
    reported_ppm: u64,
    reports: u64,
}

impl Tally {
    pub(crate) fn new(hop: Hop, now: Instant) -> Tally {
        Tally { hop, came: None, began: now, expected: 0, lost: 0, reported_ppm: 0, reports: 0 }
    }

    /// The room stands there now: where that is another hop, what it saw before counts no more.
    pub(crate) fn stands_at(&mut self, hop: Hop, now: Instant) {
        if self.hop != hop {
            *self = Tally { came: Some(now), ..Tally::new(hop, now) };
        }
    }

    /// The same room at the same hop, before it saw anything more.
    pub(crate) fn anew(&self, now: Instant) -> Tally {
        Tally { came: self.came, ..Tally::new(self.hop, now) }
    }

    fn is_here_for(&self, time: Duration, now: Instant) -> bool {
        self.came.is_none_or(|came| now.saturating_duration_since(came) >= time)
    }

    /// Adds one session's flow. Returns true once there is enough to vote.
    pub(crate) fn add(&mut self, flow: &Flow, now: Instant) -> bool {
        if !self.is_here_for(SETTLES_IN, now) {
            return false;
        }
        if now.saturating_duration_since(self.began) >= BEGINS_ANEW {
            *self = self.anew(now);
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

    /// Its vote, where its clients' own networks lose so much, parts per million: whether it fares badly.
    pub(crate) fn vote(&self, lost_up_ppm: u64, lost_down_ppm: u64) -> bool {
        let from_node = u64::from(self.lost) * 1_000_000 / u64::from(self.expected.max(1));
        // Packets that were lost before the node cannot have been sent on; and reports may be of others' clients.
        let from_node = from_node.saturating_sub(lost_up_ppm);
        let to_node = self.reported_ppm.checked_div(self.reports).unwrap_or(0);
        let to_node = to_node.saturating_sub(lost_up_ppm + lost_down_ppm);
        from_node.max(to_node) >= BAD_PPM
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Count {
    pub(crate) bad: u32,
    pub(crate) good: u32,
}

impl Count {
    pub(crate) fn add(&mut self, other: Count) {
        self.bad += other.bad;
        self.good += other.good;
    }

    pub(crate) fn less(self, other: Count) -> Count {
        Count { bad: self.bad - other.bad, good: self.good - other.good }
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

    /// The logarithm of how likely these votes are where the share of bad ones is what it is here.
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

/// The votes about one node of rooms of one kind.
#[derive(Default, Debug)]
pub(crate) struct Ballot {
    latest: BTreeMap<RoomId, (Instant, bool)>,
    order: VecDeque<(Instant, RoomId)>,
    count: Count,
}

impl Ballot {
    /// A room votes; what it said before counts no more.
    pub(crate) fn vote(&mut self, room: RoomId, bad: bool, now: Instant) {
        self.order.push_back((now, room));
        *self.count.of(bad) += 1;
        if let Some((_, before)) = self.latest.insert(room, (now, bad)) {
            *self.count.of(before) -= 1;
        }
    }

    pub(crate) fn count(&mut self, now: Instant) -> Count {
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

/// The verdict on a node; of several kinds of rooms the last one counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Word {
    /// It is as it should be.
    Well,
    Nothing,
    /// It is bad, and has no siblings to compare it with.
    Bad,
    WorseThanSiblings,
}

/// Weighs the votes about a node, beside those about its siblings.
pub(crate) fn weigh(own: Count, siblings: Count) -> Word {
    let compared = siblings.all() >= SIBLINGS_MIN;
    // Two more of either kind than voted: few votes leave much to chance (Agresti and Coull 1998).
    let theirs = f64::from(siblings.bad + 2) / f64::from(siblings.all() + 4);
    let chance = if compared { theirs.clamp(CHANCE_MIN, CHANCE_MAX) } else { CHANCE_ALONE };
    let bad = f64::from(own.bad) * (WORSE / chance).ln();
    let good = f64::from(own.good) * ((1.0 - WORSE) / (1.0 - chance)).ln();
    let worse = own.bad > own.good && own.share() >= siblings.share() + DIFFERS;
    if compared && worse && differ(own, siblings) >= ACCUSES {
        Word::WorseThanSiblings
    } else if !compared && bad + good >= ACCUSES {
        Word::Bad
    } else if bad + good <= WITHDRAWS {
        Word::Well
    } else {
        Word::Nothing
    }
}

/// The logarithm of how much more likely the votes are of two different nodes than of two that are alike.
fn differ(one: Count, other: Count) -> f64 {
    let mut both = one;
    both.add(other);
    one.likely() + other.likely() - both.likely()
}

#[cfg(test)]
mod tests;
