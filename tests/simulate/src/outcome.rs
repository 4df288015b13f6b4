//! The result of a simulated world.

use std::collections::BTreeMap;
use std::time::Duration;

use evenkeel_core::{GatewayEffect, InstalledSession};
use evenkeel_model::{BreakerState, CoreEvent, Health, Hop, MoveCause, NodeId, RoomId};
use evenkeel_nodes::NodeEffect;
use serde::Serialize;

use crate::check::Violation;
use crate::fault::Episode;
use crate::group::GroupOutcome;
use crate::indices::IndicesOutcome;
use crate::losses::LossOutcome;
use crate::lost_flows::LostFlows;
use crate::records::RecordsOutcome;

/// With a longer gap, more than one audio packet is missing or late.
const NOTICED: Duration = Duration::from_millis(30);

#[derive(Clone, PartialEq, Default, Debug)]
pub struct Outcome {
    pub seed: u64,
    pub violations: Vec<Violation>,
    pub lasted: Duration,
    pub packets: u64,
    pub delivered: u64,
    /// Packets of rooms without a hop, or of sessions that are open at no hop.
    pub dropped: u64,
    pub admitted: u64,
    pub refused: u64,
    pub asked: u64,
    pub moves: BTreeMap<&'static str, u64>,
    /// Moves of rooms, multiplied by their sessions.
    pub session_moves: u64,
    /// The nodes that rooms of dead nodes took, in order.
    pub taken: BTreeMap<RoomId, Vec<NodeId>>,
    /// Times of moves by session, since the start.
    pub moved: BTreeMap<u64, Vec<Duration>>,
    pub deaths: u64,
    /// The worst gap of each receiver during a fault, by kind of fault.
    pub gaps: BTreeMap<&'static str, Vec<Duration>>,
    pub lost: BTreeMap<&'static str, u64>,
    /// Time from death to down, by kind of fault.
    pub detected: BTreeMap<&'static str, Vec<Duration>>,
    pub begun: BTreeMap<&'static str, u64>,
    pub started: u64,
    pub breakers: u64,
    /// Hops removed from a room's route.
    pub struck: u64,
    pub listed: Listed,
    pub flows: LostFlows,
    pub group: GroupOutcome,
    pub records: RecordsOutcome,
    pub indices: IndicesOutcome,
    pub losses: LossOutcome,
    /// Drains reported as ended.
    pub drained: u64,
    /// Witnesses of nodes marked down.
    pub witnesses: BTreeMap<&'static str, u64>,
    /// Deaths detected in time, by the applicable limit.
    pub known: BTreeMap<&'static str, u64>,
    /// Nodes marked down although they could answer.
    pub false_deaths: u64,
    /// Sessions at the end without a usable hop for their room.
    pub homeless: u64,
    /// The highest load of a node, in thousandths of its capacity.
    pub peak_permille: u64,
    /// The sum of all gaps above 30 ms, less 20 ms each.
    pub outage: Duration,
    /// Receivers with a gap above `NOTICED` during a fault.
    pub noticed: u64,
    /// Failed answers of policies, and parts of answers that the core rejected.
    pub faults: u64,
    /// The media of sessions, if the script has it rated.
    pub rating: Rating,
    /// Answers that were compared with those of another revision, and those that decide otherwise.
    pub compared: u64,
    pub differing: u64,
    /// Order and time of the core's outputs. Two versions of the core that behave alike have equal digests for a seed.
    pub digest: Digest,
    kinds: Vec<&'static str>,
}

/// FNV-1a over numbers, so that renaming does not change the digest.
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

    /// Adds an output. Events other than moves, and outputs about policy revisions only, are left out.
    pub(crate) fn add_output(&mut self, output: &GatewayEffect, at: Duration) {
        let hop = |hop: &Hop| u64::from(hop.node.0) << 32 | u64::from(hop.incarnation.0);
        let at = at.as_nanos() as u64;
        match output {
            GatewayEffect::Ask(ask) => self.add(&[1, at, ask.id.0]),
            GatewayEffect::Install(InstalledSession { session, room, plan, .. }, _) => {
                self.add(&[2, at, session.0, room.0, u64::from(plan.cap_kbps())]);
            }
            GatewayEffect::Open { session, hop: to, .. } => self.add(&[3, at, session.0, hop(to)]),
            GatewayEffect::CloseAt { session, hop: to } => self.add(&[4, at, session.0, hop(to)]),
            GatewayEffect::Reply { offer, result } => {
                self.add(&[5, at, offer.0, u64::from(result.is_ok())]);
            }
            GatewayEffect::Plan { session, plan, .. } => {
                let rung = u64::from(plan.rung());
                self.add(&[6, at, session.0, u64::from(plan.cap_kbps()), rung]);
            }
            GatewayEffect::KeyFrame(sessions) => {
                self.add(&[7, at]);
                sessions.iter().for_each(|session| self.add(&[session.0]));
            }
            GatewayEffect::End { session, .. } => self.add(&[8, at, session.0]),
            GatewayEffect::Node(NodeEffect::Start(node)) => self.add(&[9, at, u64::from(node.0)]),
            GatewayEffect::Node(NodeEffect::Probe { node, sequence }) => {
                self.add(&[10, at, u64::from(node.0), *sequence]);
            }
            GatewayEffect::Node(NodeEffect::Canary { node, sequence }) => {
                self.add(&[11, at, u64::from(node.0), *sequence]);
            }
            GatewayEffect::Node(NodeEffect::Forget(node)) => self.add(&[12, at, u64::from(node.0)]),
            GatewayEffect::Event(CoreEvent::Moved { room, sessions, .. }) => {
                self.add(&[13, at, room.0, sessions.len() as u64]);
            }
            GatewayEffect::Finished => self.add(&[14, at]),
            GatewayEffect::Restore(it) => self.add(&[15, at, it.session.0]),
            GatewayEffect::Event(_)
            | GatewayEffect::Node(NodeEffect::EndStart { .. })
            | GatewayEffect::Node(NodeEffect::Stop(_) | NodeEffect::EndStop(_))
            | GatewayEffect::Rollout(_)
            | GatewayEffect::Unload { .. }
            | GatewayEffect::PolicyChanged(_) => {}
        }
    }
}

/// Sums over the summaries of live sessions, ten a second.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Rating {
    pub samples: u64,
    /// R-factors, in hundredths; 0 without a usable node.
    pub r_hundredths: u64,
    /// The part of the highest rate of the scenario that a session may not send, in thousandths.
    pub withheld_permille: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Listed {
    pub added: u64,
    /// Nodes of `added` with a reused number.
    pub taken_again: u64,
    /// Nodes marked to leave.
    pub removed: u64,
    /// Nodes of `removed` that were kept after all.
    pub kept: u64,
    /// Nodes of `removed` that were forgotten, as nothing used them.
    pub forgotten: u64,
    /// Nodes with a changed capacity, role, canary or zone.
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

/// A distribution in milliseconds; all 0 without values.
#[derive(Clone, Copy, PartialEq, Default, Debug, Serialize)]
pub struct Spread {
    pub n: usize,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Spread {
    /// Selects percentiles by nearest rank.
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

    /// A node was marked down this long after it stopped answering; `None` if it still could answer.
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

    /// The most moves of a session within a minute.
    pub fn worst_minute(&self) -> usize {
        let within = |moves: &[Duration], first: &Duration| {
            let minute = *first..*first + Duration::from_secs(60);
            moves.iter().filter(|at| minute.contains(*at)).count()
        };
        let of = |moves: &Vec<Duration>| moves.iter().map(|first| within(moves, first)).max();
        self.moved.values().filter_map(of).max().unwrap_or(0)
    }

    pub(crate) fn hear(&mut self, event: &CoreEvent, at: Duration) {
        match event {
            CoreEvent::Moved { room, from, to, cause, sessions, .. } => {
                if let (true, Some(to)) = (cause.is_loss(), to) {
                    self.taken.entry(*room).or_default().push(to.node);
                }
                self.flows.moved(*room, *from, at);
                *self.moves.entry(MoveCause::name(*cause)).or_default() += 1;
                self.session_moves += sessions.len() as u64;
                for session in sessions {
                    self.moved.entry(session.0).or_default().push(at);
                }
            }
            CoreEvent::Node { to: Health::Down, witnesses, .. } => {
                self.deaths += 1;
                for (witness, _) in witnesses {
                    *self.witnesses.entry(witness.name()).or_default() += 1;
                }
            }
            CoreEvent::Breaker { to: BreakerState::Open, .. } => self.breakers += 1,
            CoreEvent::HopRemoved { .. } => self.struck += 1,
            CoreEvent::Drained { .. } => self.drained += 1,
            CoreEvent::Guarded { times, .. } => self.faults += u64::from(*times),
            _ => {}
        }
    }
}
