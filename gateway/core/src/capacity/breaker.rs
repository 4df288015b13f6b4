//! The circuit breakers of regions. One opens if media is worse than in other regions or openings fail.

use std::time::{Duration, Instant};

use evenkeel_breakers::{
    Breaker, BreakerChange, BreakerEvidence, BreakerVerdict, JudgedWindow, WINDOW,
};
use evenkeel_model::{
    BreakerMode, BreakerState, Breakers, CoreEvent, CoreSettings, FailureDomain, Measures, Metric,
    NodeId, RegionId, RoomId,
};
use evenkeel_nodes::{Node, NodeTable};

use crate::effects::{Effects, Timer};

/// Media is bad enough for a user to notice.
pub(crate) fn is_bad(measures: &Measures, settings: &Breakers) -> bool {
    let lossy = |metric| measures.measured(metric).is_some_and(|loss| loss >= settings.loss_ppm);
    let poor = measures.measured(Metric::RFactor).is_some_and(|r| r < settings.r_factor_centi);
    lossy(Metric::LossDown) || poor
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
    pub(crate) fn judge(
        &mut self,
        region: RegionId,
        judged: &mut JudgedWindow,
        measures: &Measures,
    ) {
        let bad = is_bad(measures, &self.settings);
        self.regions[region.0 as usize].evidence.add(judged.count(self.window, bad));
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
        let settings = self.settings.circuit;
        // With only one region, bad media is no reason to refuse rooms: they have no alternative.
        let mut listed = nodes.iter().filter(|node| !node.trust.removed);
        let first = listed.next().map(|node| nodes.region_of(node.id));
        let alone = !listed.any(|node| Some(nodes.region_of(node.id)) != first);
        let heard: Vec<(BreakerEvidence, BreakerVerdict)> = self
            .regions
            .iter_mut()
            .map(|breaker| std::mem::take(&mut breaker.evidence))
            .map(|evidence| match alone {
                true => (evidence, evidence.of_openings().verdict(&settings)),
                false => (evidence, evidence.verdict(&settings)),
            })
            .collect();
        let known = heard.iter().filter(|(_, verdict)| *verdict != BreakerVerdict::Unknown).count();
        let bad = heard.iter().filter(|(_, verdict)| *verdict == BreakerVerdict::Bad).count();
        // If all regions are equally bad, the cause is the gateway's own uplink, and no other region is better.
        let ours = known > 1 && bad == known;
        let mut closed = false;
        for (place, (evidence, verdict)) in heard.into_iter().enumerate() {
            let verdict = if ours { BreakerVerdict::Unknown } else { verdict };
            let region = RegionId(place as u32);
            if verdict == BreakerVerdict::Unknown && self.waits_for_probes(region, evidence, nodes)
            {
                continue;
            }
            if let Some(change) = self.regions[place].weigh(verdict, &settings, now) {
                effects.event(self.event(region, change, evidence));
                closed |= change.to == BreakerState::Closed;
            }
        }
        closed
    }

    fn event(
        &self,
        region: RegionId,
        BreakerChange { from, to }: BreakerChange,
        BreakerEvidence { sessions, bad, opened, failed }: BreakerEvidence,
    ) -> CoreEvent {
        let mode = self.of(region).mode();
        CoreEvent::Breaker { region, from, to, mode, sessions, bad, opened, failed }
    }

    /// Holds a breaker for an operator, or lets it judge again.
    pub(crate) fn hold(
        &mut self,
        region: RegionId,
        mode: BreakerMode,
        now: Instant,
        effects: &mut Effects,
    ) {
        let change = self.regions[region.0 as usize].hold(mode, now);
        self.report(region, change, effects);
    }

    /// Reports a change without evidence.
    fn report(&self, region: RegionId, change: Option<BreakerChange>, effects: &mut Effects) {
        if let Some(change) = change {
            effects.event(self.event(region, change, BreakerEvidence::default()));
        }
    }

    /// A half-open breaker stays open while all running nodes of the region lose much and too few sessions have good
    /// media to disprove it.
    fn waits_for_probes(
        &self,
        region: RegionId,
        evidence: BreakerEvidence,
        nodes: &NodeTable,
    ) -> bool {
        let there = nodes.in_domain(FailureDomain::Region(region));
        let mut running = there.filter(|node| node.runs()).peekable();
        self.of(region).state() == BreakerState::HalfOpen
            && evidence.bad * 2 >= evidence.sessions
            && running.peek().is_some()
            && running.all(Node::loses)
    }

    pub(crate) fn of(&self, region: RegionId) -> &Breaker {
        &self.regions[region.0 as usize]
    }

    /// The time until the first region accepts new rooms.
    pub(crate) fn admit_in(&self, now: Instant) -> Duration {
        self.regions.iter().map(|breaker| breaker.admits_in(now)).min().unwrap_or_default()
    }

    pub(crate) fn may_enter(&self, room: RoomId, region: RegionId) -> bool {
        self.of(region).admits(room.0, &self.settings.circuit)
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

    /// Continues the breaker of another process, and reports its state if that is new here.
    pub(crate) fn restore(&mut self, region: RegionId, breaker: &Breaker, effects: &mut Effects) {
        let change = self.regions[region.0 as usize].restore(breaker);
        self.report(region, change, effects);
    }
}

#[cfg(test)]
mod tests;
