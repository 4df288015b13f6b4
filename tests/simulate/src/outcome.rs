//! What came of a world.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_core::{BreakerState, Cause, Event, Health, Hop, Output};
use serde::Serialize;

use crate::check::Violation;
use crate::fault::Episode;
use crate::lost_flows::LostFlows;

/// A longer gap is one that is noticed: more than a packet of voice is missing, or late.
const NOTICED: Duration = Duration::from_millis(30);

/// What came of a world.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Promises that were broken.
    pub violations: Vec<Violation>,
    /// Virtual time.
    pub lasted: Duration,
    /// Packets that clients sent.
    pub packets: u64,
    /// Packets that reached clients.
    pub delivered: u64,
    /// Packets that had no hop, or none that was open.
    pub dropped: u64,
    /// Sessions that were admitted, and offers that were refused.
    pub admitted: u64,
    /// Offers that were refused.
    pub refused: u64,
    /// Questions to policies.
    pub asked: u64,
    /// Moves by cause.
    pub moves: BTreeMap<&'static str, u64>,
    /// Moves of sessions: those of rooms, times who was in them.
    pub session_moves: u64,
    /// When each session moved, since the world began, by its number.
    pub moved: BTreeMap<u64, Vec<Duration>>,
    /// Nodes that were found dead.
    pub deaths: u64,
    /// Gaps by kind of fault: the worst of each who heard somebody then, and what was lost.
    pub gaps: BTreeMap<&'static str, Vec<Duration>>,
    /// Packets lost by kind of fault.
    pub lost: BTreeMap<&'static str, u64>,
    /// From a death to the flip, by kind of fault.
    pub detected: BTreeMap<&'static str, Vec<Duration>>,
    /// How often each kind of fault began.
    pub begun: BTreeMap<&'static str, u64>,
    /// Nodes that a hook started.
    pub started: u64,
    /// Breakers that opened.
    pub breakers: u64,
    /// Hops that a room was struck off, by why.
    pub struck: u64,
    /// How the list of nodes changed.
    pub listed: Listed,
    /// Rooms that lost a flow, and those beside them.
    pub flows: LostFlows,
    /// Drains that were told to be over.
    pub drained: u64,
    /// Who accused those that were condemned.
    pub witnesses: BTreeMap<&'static str, u64>,
    /// Deaths that were known in their time, by what there was to know them by.
    pub known: BTreeMap<&'static str, u64>,
    /// Nodes that were condemned while they could answer.
    pub false_deaths: u64,
    /// Live sessions whose room stood nowhere at the end.
    pub homeless: u64,
    /// The highest load of a node there ever was, thousandths of what it can carry.
    pub peak_permille: u64,
    /// All gaps longer than 30 ms, without the 20 ms that are none, together.
    pub outage: Duration,
    /// Who heard somebody where something went wrong, and noticed: how many.
    pub noticed: u64,
    /// Order and time of the core's outputs. Two versions of the core that behave alike have equal digests for a seed.
    pub digest: Digest,
    kinds: Vec<&'static str>,
}

/// FNV-1a over numbers: names may change without changing it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digest(pub u64);

impl Default for Digest {
    fn default() -> Digest {
        Digest(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    pub(crate) fn add(&mut self, numbers: &[u64]) {
        for byte in numbers.iter().flat_map(|number| number.to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Folds in an output. Events are left out, and so is what concerns revisions of policies alone.
    pub(crate) fn add_output(&mut self, output: &Output, at: Duration) {
        let hop = |hop: &Hop| u64::from(hop.node.0) << 32 | u64::from(hop.incarnation.0);
        let at = at.as_nanos() as u64;
        match output {
            Output::Ask(ask) => self.add(&[1, at, ask.id.0]),
            Output::Install { session, room, plan, .. } => {
                self.add(&[2, at, session.0, room.0, u64::from(plan.cap_kbps)]);
            }
            Output::Open { session, hop: to, .. } => self.add(&[3, at, session.0, hop(to)]),
            Output::CloseAt { session, hop: to } => self.add(&[4, at, session.0, hop(to)]),
            Output::Reply { offer, result } => {
                self.add(&[5, at, offer.0, u64::from(result.is_ok())]);
            }
            Output::Plan { session, plan } => {
                let rung = u64::from(plan.rung());
                self.add(&[6, at, session.0, u64::from(plan.cap_kbps), rung]);
            }
            Output::KeyFrame { sessions } => {
                self.add(&[7, at]);
                sessions.iter().for_each(|session| self.add(&[session.0]));
            }
            Output::End { session, .. } => self.add(&[8, at, session.0]),
            Output::Start { node } => self.add(&[9, at, u64::from(node.0)]),
            Output::Probe { node, sequence } => self.add(&[10, at, u64::from(node.0), *sequence]),
            Output::Canary { node, sequence } => self.add(&[11, at, u64::from(node.0), *sequence]),
            Output::Forget { node } => self.add(&[12, at, u64::from(node.0)]),
            Output::Event(Event::Moved { room, sessions, .. }) => {
                self.add(&[13, at, room.0, sessions.len() as u64]);
            }
            Output::Finished => self.add(&[14, at]),
            Output::Event(_) => {}
        }
    }
}

/// How often the list of nodes changed, and how.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Listed {
    /// Nodes that came.
    pub added: u64,
    /// Those of them that took the number of one before.
    pub taken_again: u64,
    /// Nodes that were to go.
    pub removed: u64,
    /// Those of them that stayed after all.
    pub kept: u64,
    /// Those of them that nothing led to any more.
    pub forgotten: u64,
    /// Nodes that have another capacity, role, canary or zone.
    pub changed: u64,
}

impl std::ops::AddAssign for Listed {
    fn add_assign(&mut self, other: Listed) {
        let Listed { added, taken_again, removed, kept, forgotten, changed } = other;
        self.added += added;
        self.taken_again += taken_again;
        self.removed += removed;
        self.kept += kept;
        self.forgotten += forgotten;
        self.changed += changed;
    }
}

/// A distribution in milliseconds; all 0 of nothing.
#[derive(Clone, Copy, PartialEq, Default, Debug, Serialize)]
pub struct Spread {
    /// How many.
    pub n: usize,
    /// Half are at most this.
    pub p50: f64,
    /// 99 in 100 are at most this.
    pub p99: f64,
    /// All are at most this.
    pub max: f64,
}

impl Spread {
    /// The distribution of these, by nearest rank.
    pub fn of(times: &[Duration]) -> Spread {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let rank = |percent: usize| {
            let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
            sorted.get(at).map_or(0.0, |time| (time.as_secs_f64() * 1e5).round() / 100.0)
        };
        Spread { n: sorted.len(), p50: rank(50), p99: rank(99), max: rank(100) }
    }
}

fn begun(faults: &[Episode]) -> BTreeMap<&'static str, u64> {
    let mut begun = BTreeMap::new();
    for episode in faults {
        *begun.entry(episode.fault.name()).or_default() += 1;
    }
    begun
}

impl Outcome {
    pub(crate) fn new(seed: u64, faults: &[Episode]) -> Outcome {
        Outcome {
            seed,
            kinds: faults.iter().map(|episode| episode.fault.name()).collect(),
            begun: begun(faults),
            ..Outcome::default()
        }
    }

    pub(crate) fn gap(&mut self, episode: usize, gap: Duration, lost: u32) {
        let kind = self.kinds[episode];
        self.noticed += u64::from(gap > NOTICED);
        self.gaps.entry(kind).or_default().push(gap);
        *self.lost.entry(kind).or_default() += u64::from(lost);
    }

    /// A node was condemned so long after it could answer no more; nothing, where it still could.
    pub(crate) fn death(&mut self, episode: Option<usize>, after: Option<Duration>) {
        match (episode, after) {
            (Some(episode), Some(after)) => {
                self.detected.entry(self.kinds[episode]).or_default().push(after);
            }
            (_, None) => self.false_deaths += 1,
            (None, Some(_)) => {}
        }
    }

    /// Adds losses and gaps to the digest, at the end.
    pub(crate) fn close_digest(&mut self) {
        let lost = self.lost.values().sum();
        let mut gaps: Vec<u64> =
            self.gaps.values().flatten().map(|gap| gap.as_nanos() as u64).collect();
        gaps.sort_unstable();
        self.digest.add(&[self.packets, self.delivered, self.dropped, self.admitted, self.refused]);
        self.digest.add(&[self.asked, self.session_moves, self.deaths, self.struck, lost]);
        self.digest.add(&gaps);
    }

    /// Moves of the session that moved most within a minute.
    pub fn worst_minute(&self) -> usize {
        let within = |moves: &[Duration], first: &Duration| {
            let minute = *first..*first + Duration::from_secs(60);
            moves.iter().filter(|at| minute.contains(at)).count()
        };
        let of = |moves: &Vec<Duration>| moves.iter().map(|first| within(moves, first)).max();
        self.moved.values().filter_map(of).max().unwrap_or(0)
    }

    pub(crate) fn hear(&mut self, event: &Event, at: Duration) {
        match event {
            Event::Moved { room, from, cause, sessions, .. } => {
                self.flows.moved(*room, *from, at);
                *self.moves.entry(Cause::name(*cause)).or_default() += 1;
                self.session_moves += sessions.len() as u64;
                for session in sessions {
                    self.moved.entry(session.0).or_default().push(at);
                }
            }
            Event::Node { to: Health::Down, witnesses, .. } => {
                self.deaths += 1;
                for (witness, _) in witnesses {
                    *self.witnesses.entry(witness.name()).or_default() += 1;
                }
            }
            Event::Breaker { to: BreakerState::Open, .. } => self.breakers += 1,
            Event::Struck { .. } => self.struck += 1,
            Event::Drained { .. } => self.drained += 1,
            _ => {}
        }
    }
}
