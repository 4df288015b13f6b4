//! The circuit breaker of a region. It opens if media is worse than in other regions or openings fail. It becomes
//! half-open for a share of new rooms, and then closes, or opens again for longer.

use std::time::{Duration, Instant};

use evenkeel_model::{
    BreakerState, Breakers, CoreEvent, CoreSettings, Measures, Metric, NodeId, RegionId, RoomId,
};
use evenkeel_nodes::{Node, NodeTable};
use serde::{Deserialize, Serialize};

use crate::effects::{Effects, Timer};

/// Interval at which breakers weigh their evidence.
pub(crate) const WINDOW: Duration = Duration::from_secs(1);

/// Consecutive bad windows that open the breaker.
const OPENS_AFTER: u32 = 2;

/// Consecutive windows without a bad one that close a half-open breaker.
const CLOSES_AFTER: u32 = 5;

/// A breaker that stayed closed this long starts again with the shortest open time.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// Relapses that still double the open time; beyond them the maximum applies anyway.
const RELAPSES_MAX: u32 = 16;

/// Evidence about one region in a window of one second.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct RegionEvidence {
    pub(crate) sessions: u32,
    pub(crate) bad: u32,
    /// Sessions opened in the region.
    pub(crate) opened: u32,
    /// Sessions that could not be opened in the region.
    pub(crate) failed: u32,
}

/// The last window in which a session was counted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Judged {
    window: u32,
    bad: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RegionVerdict {
    /// Too few sessions to judge.
    Unknown,
    Sound,
    /// The share of bad sessions or failed openings exceeds the limit.
    Bad,
}

#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub(crate) struct Breaker {
    state: CircuitState,
    /// Consecutive bad windows; if half-open, consecutive windows that were not bad.
    row: u32,
    /// Recent openings of the breaker, which lengthen the next one.
    relapses: u32,
    #[serde(skip)]
    pub(crate) evidence: RegionEvidence,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
enum CircuitState {
    Closed {
        #[serde(with = "evenkeel_media::instant")]
        since: Instant,
    },
    Open {
        #[serde(with = "evenkeel_media::instant")]
        until: Instant,
    },
    HalfOpen,
}

/// Media is bad enough for a user to notice.
pub(crate) fn is_bad(measures: &Measures, settings: &Breakers) -> bool {
    let lossy = |metric| measures.measured(metric).is_some_and(|loss| loss >= settings.loss_ppm);
    let poor = measures.measured(Metric::RFactor).is_some_and(|r| r < settings.r_factor_centi);
    lossy(Metric::LossDown) || poor
}

impl RegionEvidence {
    /// Counts a session once per window. It counts as bad if any of its reports in the window was bad.
    pub(crate) fn hear(&mut self, judged: &mut Judged, window: u32, bad: bool) {
        if judged.window != window {
            *judged = Judged { window, bad };
            self.sessions += 1;
            self.bad += u32::from(bad);
        } else if bad && !judged.bad {
            judged.bad = true;
            self.bad += 1;
        }
    }

    /// The evidence of openings alone, without media.
    pub(crate) fn of_openings(&self) -> RegionEvidence {
        RegionEvidence { sessions: 0, bad: 0, ..*self }
    }

    /// Judges the evidence. Few sessions prove nothing: their own access networks may be bad.
    pub(crate) fn verdict(&self, settings: &Breakers) -> RegionVerdict {
        let most = |bad: u32, all: u32| bad * 100 >= all * settings.share_percent;
        let tried = self.opened + self.failed;
        let (heard, tried_enough) =
            (self.sessions >= settings.sessions_min, tried >= settings.sessions_min);
        match (heard, tried_enough) {
            (true, _) if most(self.bad, self.sessions) => RegionVerdict::Bad,
            (_, true) if most(self.failed, tried) => RegionVerdict::Bad,
            (false, false) => RegionVerdict::Unknown,
            _ => RegionVerdict::Sound,
        }
    }
}

impl Breaker {
    pub(crate) fn new(now: Instant) -> Breaker {
        let state = CircuitState::Closed { since: now };
        Breaker { state, row: 0, relapses: 0, evidence: RegionEvidence::default() }
    }

    /// The breaker's state, with an empty window and bounded relapses.
    pub(crate) fn without_evidence(&self) -> Breaker {
        let relapses = self.relapses.min(RELAPSES_MAX);
        Breaker { state: self.state, row: self.row, relapses, evidence: RegionEvidence::default() }
    }

    pub(crate) fn state(&self) -> BreakerState {
        match self.state {
            CircuitState::Closed { .. } => BreakerState::Closed,
            CircuitState::Open { .. } => BreakerState::Open,
            CircuitState::HalfOpen => BreakerState::HalfOpen,
        }
    }

    /// An unplaced room may go to the region. A half-open breaker admits its share of rooms at random, decided once per
    /// room.
    pub(crate) fn admits(&self, room: RoomId, settings: &Breakers) -> bool {
        match self.state {
            CircuitState::Closed { .. } => true,
            CircuitState::Open { .. } => false,
            CircuitState::HalfOpen => {
                let lot = fastrand::Rng::with_seed(room.0).u32(0..100);
                lot < settings.half_open_percent
            }
        }
    }

    pub(crate) fn opens_until(&self) -> Option<Instant> {
        match self.state {
            CircuitState::Open { until } => Some(until),
            CircuitState::Closed { .. } | CircuitState::HalfOpen => None,
        }
    }

    /// Ends a window with the verdict on this region compared with others. Returns the change of state.
    pub(crate) fn weigh(
        &mut self,
        verdict: RegionVerdict,
        settings: &Breakers,
        now: Instant,
    ) -> Option<(BreakerState, BreakerState)> {
        let from = self.state();
        match (self.state, verdict) {
            (CircuitState::Closed { .. }, RegionVerdict::Bad) => {
                self.row += 1;
                if self.row >= OPENS_AFTER {
                    self.open(settings, now);
                }
            }
            (CircuitState::Closed { since }, _) => {
                self.row = 0;
                if now.saturating_duration_since(since) >= FORGIVEN_AFTER {
                    self.relapses = 0;
                }
            }
            (CircuitState::Open { until }, _) if until <= now => {
                (self.state, self.row) = (CircuitState::HalfOpen, 0);
            }
            (CircuitState::Open { .. }, _) => {}
            (CircuitState::HalfOpen, RegionVerdict::Bad) => self.open(settings, now),
            (CircuitState::HalfOpen, _) => {
                self.row += 1;
                if self.row >= CLOSES_AFTER {
                    (self.state, self.row) = (CircuitState::Closed { since: now }, 0);
                }
            }
        }
        let to = self.state();
        (from != to).then_some((from, to))
    }

    /// Opens for twice as long as the last time if that was recent.
    fn open(&mut self, settings: &Breakers, now: Instant) {
        let longer = settings.open_for.saturating_mul(1 << self.relapses);
        self.relapses = (self.relapses + 1).min(RELAPSES_MAX);
        self.state = CircuitState::Open { until: now + longer.min(settings.open_for_max) };
        self.row = 0;
    }
}

#[derive(Debug)]
pub(crate) struct RegionBreakers {
    /// Indexed by region.
    regions: Vec<Breaker>,
    settings: Breakers,
    window: u32,
}

impl RegionBreakers {
    pub(crate) fn new(settings: &CoreSettings, now: Instant) -> RegionBreakers {
        let regions = settings.regions.iter().map(|_| Breaker::new(now)).collect();
        RegionBreakers { regions, settings: settings.limits.breakers, window: 1 }
    }

    /// Counts a session's measures for the region where its room is placed.
    pub(crate) fn judge(&mut self, region: RegionId, judged: &mut Judged, measures: &Measures) {
        let bad = is_bad(measures, &self.settings);
        self.regions[region.0 as usize].evidence.hear(judged, self.window, bad);
    }

    /// Counts a successful or failed opening in the region.
    pub(crate) fn note_opening(&mut self, region: RegionId, opened: bool) {
        let evidence = &mut self.regions[region.0 as usize].evidence;
        if opened {
            evidence.opened += 1;
        } else {
            evidence.failed += 1;
        }
    }

    /// Ends a window. Returns true if a breaker closed.
    pub(crate) fn weigh(&mut self, nodes: &NodeTable, now: Instant, effects: &mut Effects) -> bool {
        effects.set(Timer::Breakers, now + WINDOW);
        self.window = self.window.wrapping_add(1).max(1);
        let settings = self.settings;
        // With only one region, bad media is no reason to refuse rooms: they have no alternative.
        let mut listed = nodes.iter().filter(|node| !node.trust.removed);
        let first = listed.next().map(|node| nodes.region_of(node.id));
        let alone = !listed.any(|node| Some(nodes.region_of(node.id)) != first);
        let heard: Vec<(RegionEvidence, RegionVerdict)> = self
            .regions
            .iter_mut()
            .map(|breaker| std::mem::take(&mut breaker.evidence))
            .map(|evidence| match alone {
                true => (evidence, evidence.of_openings().verdict(&settings)),
                false => (evidence, evidence.verdict(&settings)),
            })
            .collect();
        let known = heard.iter().filter(|(_, verdict)| *verdict != RegionVerdict::Unknown).count();
        let bad = heard.iter().filter(|(_, verdict)| *verdict == RegionVerdict::Bad).count();
        // If all regions are equally bad, the cause is the gateway's own uplink, and no other region is better.
        let ours = known > 1 && bad == known;
        let mut closed = false;
        for (place, (evidence, verdict)) in heard.into_iter().enumerate() {
            let verdict = if ours { RegionVerdict::Unknown } else { verdict };
            let region = RegionId(place as u32);
            if verdict == RegionVerdict::Unknown && self.waits_for_probes(region, evidence, nodes) {
                continue;
            }
            if let Some((from, to)) = self.regions[place].weigh(verdict, &settings, now) {
                let RegionEvidence { sessions, bad, opened, failed } = evidence;
                effects.event(CoreEvent::Breaker {
                    region,
                    from,
                    to,
                    sessions,
                    bad,
                    opened,
                    failed,
                });
                closed |= to == BreakerState::Closed;
            }
        }
        closed
    }

    /// A half-open breaker stays open while all running nodes of the region lose much and too few sessions have good
    /// media to disprove it.
    fn waits_for_probes(
        &self,
        region: RegionId,
        evidence: RegionEvidence,
        nodes: &NodeTable,
    ) -> bool {
        let mut running = nodes.in_region(region).filter(|node| node.runs()).peekable();
        self.of(region).state() == BreakerState::HalfOpen
            && evidence.bad * 2 >= evidence.sessions
            && running.peek().is_some()
            && running.all(Node::loses)
    }

    pub(crate) fn of(&self, region: RegionId) -> &Breaker {
        &self.regions[region.0 as usize]
    }

    /// The time at which the first region accepts new rooms again; `None` if one accepts them now.
    pub(crate) fn all_open_until(&self) -> Option<Instant> {
        let all = self.regions.iter().all(|breaker| breaker.state() == BreakerState::Open);
        self.regions.iter().filter_map(Breaker::opens_until).min().filter(|_| all)
    }

    pub(crate) fn may_enter(&self, room: RoomId, region: RegionId) -> bool {
        self.of(region).admits(room, &self.settings)
    }

    /// Nodes in regions that do not accept the room, except nodes for which `kept` is true.
    pub(crate) fn shut_nodes(
        &self,
        room: RoomId,
        kept: impl Fn(NodeId) -> bool,
        nodes: &NodeTable,
    ) -> Vec<NodeId> {
        if self.regions.iter().all(|breaker| breaker.state() == BreakerState::Closed) {
            return Vec::new();
        }
        let shut = |node: &NodeId| !kept(*node) && !self.may_enter(room, nodes.region_of(*node));
        nodes.iter().map(|node| node.id).filter(shut).collect()
    }

    pub(crate) fn restore(&mut self, region: RegionId, breaker: &Breaker) {
        self.regions[region.0 as usize] = breaker.without_evidence();
    }
}

#[cfg(test)]
mod tests;
