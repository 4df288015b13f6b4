//! Capacity of nodes, reserves, session shares and regional circuit breakers.

mod breaker;
mod gauge;
mod ledger;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::{Duration, Instant};

pub(crate) use breaker::{Breaker, Judged, RegionVerdict};
use breaker::{RegionEvidence, is_bad};
use evenkeel_model::{
    BreakerState, Breakers, CoreEvent, CoreSettings, GuardRule, Measures, Metric, NodeId, RegionId,
    RoomId, Row, SessionId,
};
use evenkeel_nodes::{Node, NodeTable};
pub(crate) use gauge::Gauge;
use ledger::CapacityLedger;
pub(crate) use ledger::{Holding, LedgerView};

use crate::effects::Effects;
use crate::timer::Timer;

/// Interval at which breakers weigh their evidence.
pub(crate) const WINDOW: Duration = Duration::from_secs(1);

/// The churn limit counts sessions moved by policies within this time.
const CHURN_WITHIN: Duration = Duration::from_secs(1);

/// Reduced sessions checked per call, which bounds the call's duration.
const REDUCED_AT_ONCE: usize = 256;

#[derive(Debug)]
pub(crate) struct Capacity {
    ledger: CapacityLedger,
    /// Indexed by region.
    breakers: Vec<Breaker>,
    settings: Breakers,
    /// The number of the breakers' current window.
    window: u32,
    /// Sessions that get less than they need, with the time since when.
    reduced: BTreeMap<SessionId, Instant>,
    reduced_last: SessionId,
    /// Moves by policies within [`CHURN_WITHIN`]: time, and number of sessions moved.
    churn: VecDeque<(Instant, usize)>,
}

impl Capacity {
    pub(crate) fn new(settings: &CoreSettings, now: Instant) -> Capacity {
        Capacity {
            ledger: CapacityLedger::new(
                settings.nodes.iter().map(|node| node.capacity_kbps).collect(),
            ),
            breakers: settings.regions.iter().map(|_| Breaker::new(now)).collect(),
            settings: settings.limits.breakers,
            window: 1,
            reduced: BTreeMap::new(),
            reduced_last: SessionId(0),
            churn: VecDeque::new(),
        }
    }

    pub(crate) fn ledger(&self) -> LedgerView<'_> {
        self.ledger.view()
    }

    /// The ledger as a room sees it that gives up this holding.
    pub(crate) fn ledger_without(&self, holding: Holding) -> LedgerView<'_> {
        self.ledger.without(holding)
    }

    pub(crate) fn ledger_mut(&mut self) -> &mut CapacityLedger {
        &mut self.ledger
    }

    pub(crate) fn set_reduced(&mut self, session: SessionId, since: Option<Instant>) {
        match since {
            Some(since) => _ = self.reduced.insert(session, since),
            None => _ = self.reduced.remove(&session),
        }
    }

    pub(crate) fn reduced_since(&self, session: SessionId) -> Option<Instant> {
        self.reduced.get(&session).copied()
    }

    /// The breaker of a region as other processes continue it.
    pub(crate) fn breaker_record(&self, region: RegionId) -> Breaker {
        self.breakers[region.0 as usize].without_evidence()
    }

    pub(crate) fn restore_breaker(&mut self, region: RegionId, breaker: &Breaker) {
        self.breakers[region.0 as usize] = breaker.without_evidence();
    }

    pub(crate) fn reduced(&self) -> usize {
        self.reduced.len()
    }

    /// The next sessions that have been reduced for at least `after`.
    pub(crate) fn next_reduced(&mut self, after: Duration, now: Instant) -> Vec<SessionId> {
        let from = (Bound::Excluded(self.reduced_last), Bound::Unbounded);
        let turn: Vec<(SessionId, Instant)> =
            self.reduced.range(from).take(REDUCED_AT_ONCE).map(|(id, at)| (*id, *at)).collect();
        let goes_on = turn.last().filter(|_| turn.len() == REDUCED_AT_ONCE);
        self.reduced_last = goes_on.map_or(SessionId(0), |(id, _)| *id);
        let due = |since: Instant| now.saturating_duration_since(since) >= after;
        turn.into_iter().filter(|(_, since)| due(*since)).map(|(id, _)| id).collect()
    }

    /// Checks that a policy may move this many sessions now. One room may always move, whatever its size.
    pub(crate) fn check_churn(
        &mut self,
        sessions: usize,
        allowed: usize,
        now: Instant,
    ) -> Result<(), GuardRule> {
        let past =
            |&mut (at, _): &mut (Instant, usize)| now.saturating_duration_since(at) >= CHURN_WITHIN;
        while self.churn.pop_front_if(past).is_some() {}
        let moved: usize = self.churn.iter().map(|(_, sessions)| sessions).sum();
        let fits = self.churn.is_empty() || moved + sessions <= allowed;
        if fits { Ok(()) } else { Err(GuardRule::Churn) }
    }

    pub(crate) fn note_churn(&mut self, sessions: usize, now: Instant) {
        self.churn.push_back((now, sessions));
    }

    /// Counts a session's measures for the region where its room is placed.
    pub(crate) fn judge(&mut self, region: RegionId, judged: &mut Judged, measures: &Measures) {
        let bad = is_bad(measures, &self.settings);
        self.breakers[region.0 as usize].evidence.hear(judged, self.window, bad);
    }

    /// Counts a successful or failed opening in the region.
    pub(crate) fn note_opening(&mut self, region: RegionId, opened: bool) {
        let evidence = &mut self.breakers[region.0 as usize].evidence;
        if opened {
            evidence.opened += 1;
        } else {
            evidence.failed += 1;
        }
    }

    /// Ends a window. Returns true if a breaker closed.
    pub(crate) fn weigh_breakers(
        &mut self,
        nodes: &NodeTable,
        now: Instant,
        effects: &mut Effects,
    ) -> bool {
        effects.set(Timer::Breakers, now + WINDOW);
        self.window = self.window.wrapping_add(1).max(1);
        let settings = self.settings;
        // With only one region, bad media is no reason to refuse rooms: they have no alternative.
        let mut listed = nodes.iter().filter(|node| !node.removed);
        let first = listed.next().map(|node| nodes.region_of(node.id));
        let alone = !listed.any(|node| Some(nodes.region_of(node.id)) != first);
        let heard: Vec<(RegionEvidence, RegionVerdict)> = self
            .breakers
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
            if let Some((from, to)) = self.breakers[place].weigh(verdict, &settings, now) {
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
        self.breaker(region) == BreakerState::HalfOpen
            && evidence.bad * 2 >= evidence.sessions
            && running.peek().is_some()
            && running.all(Node::loses)
    }

    pub(crate) fn breaker(&self, region: RegionId) -> BreakerState {
        self.breakers[region.0 as usize].state()
    }

    pub(crate) fn opens_until(&self, region: RegionId) -> Option<Instant> {
        self.breakers[region.0 as usize].opens_until()
    }

    /// The time at which the first region accepts new rooms again; `None` if one accepts them now.
    pub(crate) fn all_open_until(&self) -> Option<Instant> {
        let all = self.breakers.iter().all(|breaker| breaker.state() == BreakerState::Open);
        self.breakers.iter().filter_map(Breaker::opens_until).min().filter(|_| all)
    }

    pub(crate) fn may_enter(&self, room: RoomId, region: RegionId) -> bool {
        self.breakers[region.0 as usize].admits(room, &self.settings)
    }

    /// Nodes in regions that do not accept the room, except nodes for which `kept` is true.
    pub(crate) fn behind_breakers(
        &self,
        room: RoomId,
        kept: impl Fn(NodeId) -> bool,
        nodes: &NodeTable,
    ) -> Vec<NodeId> {
        if self.breakers.iter().all(|breaker| breaker.state() == BreakerState::Closed) {
            return Vec::new();
        }
        let shut = |node: &NodeId| !kept(*node) && !self.may_enter(room, nodes.region_of(*node));
        nodes.iter().map(|node| node.id).filter(shut).collect()
    }

    fn node_measures(&self, node: &Node) -> Measures {
        let mut measures = Measures::default();
        node.measure(&mut measures);
        measures.set(Metric::Capacity, self.ledger().capacity(node.id));
        // The node knows better than the ledger that it is full.
        let least = if node.welcomes_rooms() { 0 } else { 1_000 };
        measures.set(Metric::Load, self.ledger().permille(node.id).max(least));
        measures.set(Metric::Rooms, u64::from(self.ledger().rooms(node.id)));
        measures
    }

    pub(crate) fn node_rows(&self, nodes: &NodeTable) -> Vec<Row> {
        let row =
            |node: &Node| Row { id: u64::from(node.id.0), measures: self.node_measures(node) };
        nodes.iter().map(row).collect()
    }

    /// One row per region. A region's load is the sum over its nodes.
    pub(crate) fn region_rows(&self, nodes: &NodeTable) -> Vec<Row> {
        let row = |region: RegionId| {
            let takers = || nodes.in_region(region).filter(|node| node.welcomes_rooms());
            let capacity: u64 = takers().map(|node| self.ledger().capacity(node.id)).sum();
            let used =
                |node: &Node| self.ledger().permille(node.id) * self.ledger().capacity(node.id);
            let used: u64 = takers().map(used).sum();
            let mut measures = Measures::default();
            measures.set(Metric::Load, used.checked_div(capacity).unwrap_or(1_000));
            measures.set(Metric::NodesUp, takers().count() as u64);
            measures.set(Metric::Breaker, self.breaker(region) as u64);
            measures.set(Metric::Capacity, capacity);
            Row { id: u64::from(region.0), measures }
        };
        nodes.regions().map(row).collect()
    }
}

#[cfg(test)]
mod tests;
