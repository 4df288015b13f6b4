//! Service level objectives: the burn rate of each scenario's error budget.
//!
//! A burn rate is the share of bad sessions in a window, divided by the share that the objective allows. The sessions of a
//! window are those that were open in it, or offers that were answered in it; a session is bad if it missed the limit in
//! the window. It counts once per window, however often it misses the limit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{BreachCount, CoreSettings, OfferRefusal, ServiceObjective, SloIndicator};

use crate::counts::{MEDIA, SHORTEST, SessionCounts, SessionMarks, SessionMisses, TICK_S, WINDOWS};

/// A window with fewer sessions has no burn rate: one bad session would burn more than ten budgets of 1 %.
const SESSIONS_MIN: u32 = 10;

/// One indicator of a scenario's service level objective.
#[derive(Clone, PartialEq, Debug)]
pub struct SloStanding {
    /// The name of the scenario.
    pub scenario: Arc<str>,
    /// The property of sessions that is limited.
    pub slo: SloIndicator,
    /// The share of good sessions that is to be reached.
    pub objective: f64,
    /// The share of the longest window's error budget that is left; negative if it is overspent.
    pub budget: f64,
    /// From the shortest window to the longest.
    pub windows: [SloWindow; WINDOWS.len()],
}

/// The sessions of a window up to now.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SloWindow {
    /// The length: `5m`.
    pub window: &'static str,
    /// The time since sessions are counted; `None` if the window is not longer.
    pub counted: Option<Duration>,
    /// The number of sessions, or of answered offers.
    pub sessions: u32,
    /// The number of sessions or offers that missed the limit.
    pub bad: u32,
    /// The share of bad sessions as a multiple of the error budget; `None` if there are too few sessions.
    pub burn_rate: Option<f64>,
}

/// Sessions by scenario and indicator.
#[derive(Debug)]
pub struct SloTable {
    pub(crate) began: Instant,
    /// In the order of [`SloIndicator::ALL`].
    pub(crate) scenarios: BTreeMap<Arc<str>, [SessionCounts; SloIndicator::ALL.len()]>,
}

impl SloTable {
    /// Nothing is counted yet.
    pub fn new(now: Instant) -> SloTable {
        SloTable { began: now, scenarios: BTreeMap::new() }
    }

    /// Counts an offer that was opened this long after its arrival.
    pub fn note_opened(
        &mut self,
        scenario: &str,
        took: Duration,
        settings: &CoreSettings,
        now: Instant,
    ) {
        let Some((scenario, slo)) = settings.slo(scenario) else { return };
        if slo.refusals {
            self.note_offer(scenario, SloIndicator::Refusals, false, now);
        }
        if let Some(limit) = slo.set_up {
            self.note_offer(scenario, SloIndicator::SetUp, took > limit, now);
        }
    }

    /// Counts a refused offer, unless its client or an operator caused the refusal, or another gateway serves it.
    pub fn note_refused(
        &mut self,
        scenario: &str,
        reason: &OfferRefusal,
        settings: &CoreSettings,
        now: Instant,
    ) {
        match reason {
            OfferRefusal::Full { .. }
            | OfferRefusal::Rejected { .. }
            | OfferRefusal::NoNode { .. }
            | OfferRefusal::PlacementRefused { .. }
            | OfferRefusal::ClientsImpaired { .. }
            | OfferRefusal::NotOpened { .. } => self.note_turned_away(scenario, settings, now),
            OfferRefusal::UnknownScenario(_)
            | OfferRefusal::ScenarioOfRoom(_)
            | OfferRefusal::Draining
            | OfferRefusal::Redirected(_)
            | OfferRefusal::Closed => {}
        }
    }

    /// Counts an offer that was refused for lack of capacity or by a policy.
    pub fn note_turned_away(&mut self, scenario: &str, settings: &CoreSettings, now: Instant) {
        if let Some((scenario, slo)) = settings.slo(scenario)
            && slo.refusals
        {
            self.note_offer(scenario, SloIndicator::Refusals, true, now);
        }
    }

    fn note_offer(&mut self, scenario: &Arc<str>, of: SloIndicator, is_bad: bool, now: Instant) {
        let tick = self.tick(now);
        self.counts(scenario, of, tick).note_offer(is_bad, tick);
    }

    /// Counts a live session by the limits that it misses now. Returns true if its marks changed.
    pub fn note_media(
        &mut self,
        scenario: &Arc<str>,
        marks: &mut SessionMarks,
        misses: SessionMisses,
        now: Instant,
    ) -> bool {
        let (tick, mut changed) = (self.tick(now), false);
        for ((of, mark), misses) in MEDIA.into_iter().zip(&mut marks.0).zip(misses) {
            if let Some(next) = misses.and_then(|is_bad| mark.next(is_bad, tick)) {
                self.counts(scenario, of, tick).note(mark, next);
                changed = true;
            }
        }
        changed
    }

    /// Continues the marks of a session of another process. It is counted anew if the windows of its scenario are not
    /// continued.
    pub fn resume(
        &mut self,
        scenario: &str,
        mut marks: SessionMarks,
        now: Instant,
    ) -> SessionMarks {
        let tick = self.tick(now);
        let Some(counts) = self.scenarios.get_mut(scenario) else {
            return SessionMarks::default();
        };
        for (of, mark) in MEDIA.into_iter().zip(&mut marks.0) {
            counts[of as usize].resume(mark, tick);
        }
        marks
    }

    /// The session ended.
    pub fn leave(&mut self, scenario: &Arc<str>, marks: &SessionMarks, now: Instant) {
        if marks.are_empty() {
            return;
        }
        let tick = self.tick(now);
        for (of, mark) in MEDIA.into_iter().zip(marks.0) {
            self.counts(scenario, of, tick).leave(mark, tick);
        }
    }

    /// All indicators of the scenarios that have an objective.
    pub fn standings(
        &self,
        settings: &CoreSettings,
        now: Instant,
    ) -> impl Iterator<Item = SloStanding> {
        let tick = self.tick(now);
        let with_slo =
            settings.scenarios.iter().filter_map(|(name, it)| Some((name, it.slo.as_ref()?)));
        with_slo.flat_map(move |(name, slo)| {
            let indicators = SloIndicator::ALL.into_iter().filter(|it| slo.has(*it));
            indicators.map(move |of| {
                let window = |place| self.window(name, of, slo, place, tick);
                let windows: [SloWindow; WINDOWS.len()] = std::array::from_fn(window);
                let [.., longest] = windows;
                SloStanding {
                    scenario: Arc::clone(name),
                    slo: of,
                    objective: slo.objective,
                    budget: rounded(1.0 - longest.burn_rate.unwrap_or(0.0)),
                    windows,
                }
            })
        })
    }

    /// The highest burn rate of a scenario's indicators in the shortest window, in hundredths.
    pub fn burn_centi(&self, scenario: &str, settings: &CoreSettings, now: Instant) -> Option<u64> {
        let (name, slo) = settings.slo(scenario)?;
        let tick = self.tick(now);
        let indicators = SloIndicator::ALL.into_iter().filter(|of| slo.has(*of));
        let rates = indicators.map(|of| self.window(name, of, slo, SHORTEST, tick).burn_rate);
        rates.flatten().max_by(f64::total_cmp).map(|rate| (rate * 100.0).round() as u64)
    }

    /// The sessions of a scenario in the last ticks, which the shortest window contains, and the bad ones of them.
    pub(crate) fn last_ticks(
        &self,
        scenario: &str,
        of: SloIndicator,
        ticks: u32,
        now: Instant,
    ) -> BreachCount {
        let counts = self.scenarios.get(scenario).map(|counts| &counts[of as usize]);
        let within = counts.map(|counts| counts.within(SHORTEST, ticks, self.tick(now)));
        within.map_or(BreachCount::default(), |(of, worse)| BreachCount { of, worse })
    }

    fn window(
        &self,
        scenario: &str,
        of: SloIndicator,
        slo: &ServiceObjective,
        window: usize,
        tick: u32,
    ) -> SloWindow {
        let (length, counts) = (WINDOWS[window], self.scenarios.get(scenario));
        let within = counts.map(|counts| counts[of as usize].within(window, length.buckets, tick));
        let (sessions, bad) = within.unwrap_or_default();
        let counted_s = u64::from(tick) * TICK_S;
        let counted = (counted_s < length.seconds()).then(|| Duration::from_secs(counted_s));
        let share = f64::from(bad) / f64::from(sessions.max(1));
        let burn_rate = (sessions >= SESSIONS_MIN).then(|| rounded(share / slo.error_budget()));
        SloWindow { window: length.name, counted, sessions, bad, burn_rate }
    }

    pub(crate) fn tick(&self, now: Instant) -> u32 {
        (now.saturating_duration_since(self.began).as_secs() / TICK_S) as u32
    }

    fn counts(&mut self, scenario: &Arc<str>, of: SloIndicator, tick: u32) -> &mut SessionCounts {
        let counts = self.scenarios.entry(Arc::clone(scenario));
        let none = || SloIndicator::ALL.map(|_| SessionCounts::new(tick));
        &mut counts.or_insert_with(none)[of as usize]
    }
}

/// Three places: objectives such as 0.99 have no exact binary form.
fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests;
