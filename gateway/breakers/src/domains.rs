//! The circuit breakers of regions and of their zones. One opens if media is worse than elsewhere or openings fail.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use evenkeel_model::{
    BreakerMode, BreakerState, Breakers, CoreEvent, CoreSettings, FailureDomain, Measures, Metric,
    RegionId, Zone, ZoneId,
};

use crate::circuit::{Breaker, BreakerChange, BreakerEvidence, BreakerVerdict, JudgedWindow};

/// Load, in thousandths, below which a zone is an alternative for the newcomers of another one.
const TAKES_BELOW: u64 = 900;

/// While it takes them, a zone stays an alternative below this load: its load rises, and the breaker of the other zone must
/// not change with each room.
const KEEPS_BELOW: u64 = 950;

/// The breakers of all regions and zones.
#[derive(Debug)]
pub struct DomainBreakers {
    /// Breakers of regions, and of zones with nodes.
    breakers: BTreeMap<FailureDomain, Breaker>,
    /// Breakers that operators hold, of zones without nodes at present.
    held: Vec<(Zone, Breaker)>,
    /// The evidence in the current window.
    evidence: BTreeMap<ZoneId, BreakerEvidence>,
    settings: Breakers,
    window: u32,
}

/// A zone with nodes.
#[derive(Clone, Copy, Debug)]
pub struct JudgedZone {
    /// The number of the zone.
    pub zone: ZoneId,
    pub region: RegionId,
    /// False if all nodes there are being removed.
    pub is_listed: bool,
    /// Load and reserves of its least loaded node that accepts new rooms and loses few probes, in thousandths; `None` without such a node.
    pub load_permille: Option<u64>,
    /// All running nodes there lose many probes; `None` without a running node.
    pub loses: Option<bool>,
}

impl DomainBreakers {
    /// Closed breakers of the regions.
    pub fn new(settings: &CoreSettings, now: Instant) -> DomainBreakers {
        let regions = (0..settings.regions.len() as u32).map(RegionId);
        DomainBreakers {
            breakers: regions.map(|it| (FailureDomain::Region(it), Breaker::new(now))).collect(),
            held: Vec::new(),
            evidence: BTreeMap::new(),
            settings: settings.limits.breakers,
            window: 1,
        }
    }

    /// Counts a session's measures for the zone where its room is placed. Media is bad if a user would notice. A session without a
    /// measured loss to the client and without an R-factor, such as of video without receiver reports, is not counted.
    pub fn judge(&mut self, zone: ZoneId, judged: &mut JudgedWindow, measures: &Measures) {
        let Breakers { loss_ppm, r_factor_centi, .. } = self.settings;
        // Also losses between the zone's nodes and the gateway.
        let [_, left] = measures.losses_after_repair();
        let heard = measures.measured(Metric::LossHeard).or(left);
        let is_lossy = heard.map(|it| it >= loss_ppm);
        let is_poor = measures.measured(Metric::RFactor).map(|it| it < r_factor_centi);
        if let Some(bad) = is_lossy.max(is_poor) {
            self.evidence.entry(zone).or_default().add(judged.count(self.window, bad));
        }
    }

    /// Counts a successful or failed opening in the zone.
    pub fn note_opening(&mut self, zone: ZoneId, opened: bool) {
        let evidence = self.evidence.entry(zone).or_default();
        if opened {
            evidence.opened += 1;
        } else {
            evidence.failed += 1;
        }
    }

    /// Ends a window. `zones` has all zones with nodes, `names` those of all numbers. Returns an event for each breaker that
    /// changed.
    pub fn weigh(&mut self, zones: &[JudgedZone], names: &[Zone], now: Instant) -> Vec<CoreEvent> {
        self.window = self.window.wrapping_add(1).max(1);
        let mut events = self.forget_empty(|zone| zones.iter().any(|it| it.zone == zone), names);
        events.extend(zones.iter().filter_map(|it| self.enter(it.zone, names, now)));
        events.extend(self.close_without_alternative(zones, names, now));
        let evidence = std::mem::take(&mut self.evidence).into_iter();
        let mut heard: BTreeMap<FailureDomain, BreakerEvidence> =
            evidence.map(|(zone, evidence)| (FailureDomain::Zone(zone), evidence)).collect();
        let verdicts = self.verdicts(zones, &mut heard);
        let circuit = self.settings.circuit;
        for (place, breaker) in &mut self.breakers {
            let evidence = heard.get(place).copied().unwrap_or_default();
            let verdict = verdicts.get(place).copied().unwrap_or(BreakerVerdict::Unknown);
            // A half-open breaker stays open while all running nodes lose much and too few sessions have good media to
            // disprove it.
            let waits = verdict == BreakerVerdict::Unknown
                && breaker.state() == BreakerState::HalfOpen
                && evidence.bad * 2 >= evidence.sessions
                && loses(*place, zones);
            if !waits && let Some(change) = breaker.weigh(verdict, &circuit, now) {
                events.extend(event(*place, change, breaker.mode(), evidence, names));
            }
        }
        events
    }

    /// Judges zones beside the others of their region, and then regions, for which zones that explain their sessions by
    /// themselves do not count. Adds the evidence of regions.
    fn verdicts(
        &self,
        zones: &[JudgedZone],
        heard: &mut BTreeMap<FailureDomain, BreakerEvidence>,
    ) -> BTreeMap<FailureDomain, BreakerVerdict> {
        let circuit = self.settings.circuit;
        let listed = || zones.iter().filter(|it| it.is_listed);
        let regions: BTreeSet<RegionId> = listed().map(|it| it.region).collect();
        let is_closed = |place: &FailureDomain| self.state(*place) == BreakerState::Closed;
        let mut verdicts = BTreeMap::new();
        for region in &regions {
            let there = listed().filter(|it| it.region == *region);
            let there: Vec<FailureDomain> = there.map(|it| FailureDomain::Zone(it.zone)).collect();
            // The only zone of a region is judged as the region, and so are all while the region is bad.
            if there.len() < 2 || !is_closed(&FailureDomain::Region(*region)) {
                continue;
            }
            for (zone, mut verdict) in compare(&there, heard, |evidence| evidence.verdict(&circuit))
            {
                if !self.has_alternative(zone, zones) {
                    verdict = BreakerVerdict::Unknown;
                }
                verdicts.insert(zone, verdict);
            }
        }
        for JudgedZone { zone, region, .. } in zones {
            let zone = FailureDomain::Zone(*zone);
            let verdict = verdicts.get(&zone);
            let explains =
                verdict.is_some_and(|it| *it == BreakerVerdict::Bad || !is_closed(&zone));
            let evidence = heard.get(&zone).copied().unwrap_or_default();
            if !explains {
                heard.entry(FailureDomain::Region(*region)).or_default().add(evidence);
            }
        }
        let places = self.breakers.keys().copied();
        let places: Vec<FailureDomain> =
            places.filter(|place| matches!(place, FailureDomain::Region(_))).collect();
        // With only one region, bad media is no reason to refuse rooms: they have no alternative.
        let is_alone = regions.len() < 2;
        verdicts.extend(compare(&places, heard, |evidence| match is_alone {
            true => evidence.of_openings().verdict(&circuit),
            false => evidence.verdict(&circuit),
        }));
        verdicts
    }

    /// True if another zone of the region has capacity for the newcomers of the zone.
    fn has_alternative(&self, place: FailureDomain, zones: &[JudgedZone]) -> bool {
        let limit = match self.state(place) {
            BreakerState::Closed => TAKES_BELOW,
            BreakerState::Open | BreakerState::HalfOpen => KEEPS_BELOW,
        };
        let region = zones.iter().find(|it| FailureDomain::Zone(it.zone) == place);
        zones.iter().any(|other| {
            let zone = FailureDomain::Zone(other.zone);
            let is_near = zone != place && region.is_some_and(|it| it.region == other.region);
            let has_capacity = other.load_permille.is_some_and(|load| load < limit);
            is_near && has_capacity && self.state(zone) == BreakerState::Closed
        })
    }

    /// Closes the breaker of a zone once its newcomers have no alternative.
    fn close_without_alternative(
        &mut self,
        zones: &[JudgedZone],
        names: &[Zone],
        now: Instant,
    ) -> Vec<CoreEvent> {
        let places = zones.iter().map(|it| FailureDomain::Zone(it.zone));
        let lone: Vec<FailureDomain> =
            places.filter(|place| !self.has_alternative(*place, zones)).collect();
        let close = |place: FailureDomain| {
            let breaker = self.breakers.get_mut(&place)?;
            let change = breaker.close(now)?;
            event(place, change, breaker.mode(), BreakerEvidence::default(), names)
        };
        lone.into_iter().filter_map(close).collect()
    }

    /// The breaker of the zone begins closed, unless an operator holds it. Returns an event if it is open.
    fn enter(&mut self, zone: ZoneId, names: &[Zone], now: Instant) -> Option<CoreEvent> {
        let place = FailureDomain::Zone(zone);
        if self.breakers.contains_key(&place) {
            return None;
        }
        let name = names.get(zone.0 as usize);
        let held = self.held.iter().position(|(zone, _)| Some(zone) == name);
        let breaker = held.map_or_else(|| Breaker::new(now), |at| self.held.swap_remove(at).1);
        let (to, mode) = (breaker.state(), breaker.mode());
        self.breakers.insert(place, breaker);
        let change = BreakerChange { from: BreakerState::Closed, to };
        let is_changed = change.from != change.to;
        event(place, change, mode, BreakerEvidence::default(), names).filter(|_| is_changed)
    }

    /// Ends the breakers of zones without nodes, before their numbers go to other zones. Breakers that operators hold wait
    /// for the next node of the zone. Returns an event for each breaker that was not closed.
    pub fn forget_empty(
        &mut self,
        has_nodes: impl Fn(ZoneId) -> bool,
        names: &[Zone],
    ) -> Vec<CoreEvent> {
        let stays = |place: &FailureDomain| match place {
            FailureDomain::Zone(zone) => has_nodes(*zone),
            FailureDomain::Region(_) => true,
        };
        let all = std::mem::take(&mut self.breakers).into_iter();
        let (kept, empty): (BTreeMap<_, _>, BTreeMap<_, _>) =
            all.partition(|(place, _)| stays(place));
        self.breakers = kept;
        self.evidence.retain(|zone, _| has_nodes(*zone));
        for (place, breaker) in &empty {
            if let FailureDomain::Zone(zone) = place
                && breaker.mode() != BreakerMode::Auto
                && let Some(name) = names.get(zone.0 as usize)
            {
                self.held.push((name.clone(), breaker.clone()));
            }
        }
        let not_closed =
            empty.into_iter().filter(|(_, breaker)| breaker.state() != BreakerState::Closed);
        let closes = |(place, breaker): (FailureDomain, Breaker)| {
            let change = BreakerChange { from: breaker.state(), to: BreakerState::Closed };
            event(place, change, BreakerMode::Auto, BreakerEvidence::default(), names)
        };
        not_closed.filter_map(closes).collect()
    }

    /// Holds a breaker for an operator, or lets it judge again. Returns an event if its state changes.
    pub fn hold(
        &mut self,
        place: FailureDomain,
        mode: BreakerMode,
        names: &[Zone],
        now: Instant,
    ) -> Option<CoreEvent> {
        if let FailureDomain::Zone(zone) = place {
            self.held.retain(|(held, _)| Some(held) != names.get(zone.0 as usize));
        }
        let breaker = self.breakers.entry(place).or_insert_with(|| Breaker::new(now));
        let change = breaker.hold(mode, now)?;
        event(place, change, mode, BreakerEvidence::default(), names)
    }

    /// Continues the breaker of another process; without one, the breaker is as a new one. Returns an event if its state is new
    /// here.
    pub fn restore(
        &mut self,
        place: FailureDomain,
        other: Option<&Breaker>,
        names: &[Zone],
        now: Instant,
    ) -> Option<CoreEvent> {
        let breaker = self.breakers.entry(place).or_insert_with(|| Breaker::new(now));
        let change = match other {
            Some(other) => breaker.restore(other),
            None => breaker.restore(&Breaker::new(now)),
        };
        event(place, change?, breaker.mode(), BreakerEvidence::default(), names)
    }

    /// Returns the breaker; `None` for a zone that has not been judged.
    pub fn get(&self, place: FailureDomain) -> Option<&Breaker> {
        self.breakers.get(&place)
    }

    /// Returns the state of the breaker.
    pub fn state(&self, place: FailureDomain) -> BreakerState {
        self.get(place).map_or(BreakerState::Closed, Breaker::state)
    }

    /// Returns how the state of the breaker is decided.
    pub fn mode(&self, place: FailureDomain) -> BreakerMode {
        self.get(place).map_or(BreakerMode::Auto, Breaker::mode)
    }

    /// True if no breaker keeps newcomers out.
    pub fn are_all_closed(&self) -> bool {
        self.breakers.values().all(|breaker| breaker.state() == BreakerState::Closed)
    }

    /// True if the place admits the newcomer of this number.
    pub fn admits(&self, place: FailureDomain, newcomer: u64) -> bool {
        let breaker = self.get(place);
        breaker.is_none_or(|breaker| breaker.admits(newcomer, &self.settings.circuit))
    }

    /// The time until the place may admit a newcomer.
    pub fn admits_in(&self, place: FailureDomain, now: Instant) -> Duration {
        self.get(place).map_or(Duration::ZERO, |breaker| breaker.admits_in(now))
    }
}

/// Judges places that stand in for each other. If all are equally bad, the cause is elsewhere.
fn compare(
    places: &[FailureDomain],
    heard: &BTreeMap<FailureDomain, BreakerEvidence>,
    judge: impl Fn(BreakerEvidence) -> BreakerVerdict,
) -> Vec<(FailureDomain, BreakerVerdict)> {
    let evidence = |place: &FailureDomain| heard.get(place).copied().unwrap_or_default();
    let mut verdicts: Vec<(FailureDomain, BreakerVerdict)> =
        places.iter().map(|place| (*place, judge(evidence(place)))).collect();
    let known = verdicts.iter().filter(|(_, it)| *it != BreakerVerdict::Unknown).count();
    let bad = verdicts.iter().filter(|(_, it)| *it == BreakerVerdict::Bad).count();
    if known > 1 && bad == known {
        verdicts.iter_mut().for_each(|(_, it)| *it = BreakerVerdict::Unknown);
    }
    verdicts
}

/// All running nodes of the place lose many probes.
fn loses(place: FailureDomain, zones: &[JudgedZone]) -> bool {
    let there = zones.iter().filter(|it| match place {
        FailureDomain::Zone(zone) => it.zone == zone,
        FailureDomain::Region(region) => it.region == region,
    });
    let mut running = there.filter_map(|it| it.loses).peekable();
    running.peek().is_some() && running.all(|loses| loses)
}

fn event(
    place: FailureDomain,
    BreakerChange { from, to }: BreakerChange,
    mode: BreakerMode,
    BreakerEvidence { sessions, bad, opened, failed }: BreakerEvidence,
    names: &[Zone],
) -> Option<CoreEvent> {
    let (region, zone) = match place {
        FailureDomain::Region(region) => (region, None),
        FailureDomain::Zone(zone) => {
            let Zone { name, region } = names.get(zone.0 as usize)?;
            (*region, Some((**name).into()))
        }
    };
    Some(CoreEvent::Breaker { region, zone, from, to, mode, sessions, bad, opened, failed })
}

#[cfg(test)]
mod tests;
