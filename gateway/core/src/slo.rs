//! Service level objectives: the burn rate of each scenario's error budget.
//!
//! A burn rate is the share of bad sessions in a window, divided by the share that the objective allows. The sessions of a
//! window are those that were open in it, or offers that were answered in it; a session is bad if it missed the limit in
//! the window. It counts once per window, however often it misses the limit.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{CoreSettings, OfferRefusal, ServiceObjective, SloIndicator};
use serde::Serialize;

/// Length of a bucket in seconds: a thirtieth of the shortest window.
const BUCKET_S: u64 = 10;

/// Windows as multiwindow alerts use them (*The Site Reliability Workbook*, chapter 5).
const WINDOWS: [WindowLength; 3] = [
    WindowLength { name: "5m", buckets: 30 },
    WindowLength { name: "1h", buckets: 360 },
    WindowLength { name: "6h", buckets: 2_160 },
];

/// The buckets of the longest window: 17 KiB per indicator of a scenario.
const BUCKETS: usize = WINDOWS[WINDOWS.len() - 1].buckets as usize;

/// A window with fewer sessions has no burn rate: one bad session would burn more than ten budgets of 1 %.
const SESSIONS_MIN: u32 = 10;

#[derive(Clone, Copy)]
struct WindowLength {
    name: &'static str,
    buckets: u32,
}

/// One indicator of a scenario's service level objective.
#[derive(Clone, PartialEq, Debug, Serialize)]
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
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct SloWindow {
    /// The length: `5m`.
    pub window: &'static str,
    /// The number of sessions, or of answered offers.
    pub sessions: u32,
    /// The number of sessions or offers that missed the limit.
    pub bad: u32,
    /// The share of bad sessions as a multiple of the error budget; `None` if there are too few sessions.
    pub burn_rate: Option<f64>,
}

/// Sessions by scenario and indicator.
#[derive(Debug)]
pub(crate) struct SloTable {
    began: Instant,
    /// In the order of [`SloIndicator::ALL`].
    scenarios: BTreeMap<Arc<str>, [SessionCounts; SloIndicator::ALL.len()]>,
}

/// How a session is counted by the indicators of its media, in the order of [`MEDIA`].
pub(crate) type SessionMarks = [SessionMark; MEDIA.len()];

/// Tells by each of [`MEDIA`] if a session misses the limit; `None` without a limit or a measure.
pub(crate) type SessionMisses = [Option<bool>; MEDIA.len()];

/// Indicators that are judged while a session is open.
const MEDIA: [SloIndicator; 2] = [SloIndicator::Gap, SloIndicator::RFactor];

/// How a session is counted by one indicator.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct SessionMark {
    is_counted: bool,
    /// The number of the bucket in which the session missed the limit last.
    bad_in: Option<u32>,
}

impl SloTable {
    pub(crate) fn new(now: Instant) -> SloTable {
        SloTable { began: now, scenarios: BTreeMap::new() }
    }

    /// Counts an offer that was opened this long after its arrival.
    pub(crate) fn note_opened(
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
    pub(crate) fn note_refused(
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
    pub(crate) fn note_turned_away(
        &mut self,
        scenario: &str,
        settings: &CoreSettings,
        now: Instant,
    ) {
        if let Some((scenario, slo)) = settings.slo(scenario)
            && slo.refusals
        {
            self.note_offer(scenario, SloIndicator::Refusals, true, now);
        }
    }

    fn note_offer(&mut self, scenario: &Arc<str>, of: SloIndicator, is_bad: bool, now: Instant) {
        let number = self.number(now);
        self.counts(scenario, of, number).note_offer(is_bad, number);
    }

    /// Counts a live session by the limits that it misses now.
    pub(crate) fn note_media(
        &mut self,
        scenario: &Arc<str>,
        marks: &mut SessionMarks,
        misses: SessionMisses,
        now: Instant,
    ) {
        let number = self.number(now);
        for ((of, mark), misses) in MEDIA.into_iter().zip(marks).zip(misses) {
            let changes =
                |is_bad: &bool| !mark.is_counted || *is_bad && mark.bad_in != Some(number);
            if let Some(is_bad) = misses.filter(changes) {
                self.counts(scenario, of, number).note(mark, is_bad, number);
            }
        }
    }

    /// The session ended.
    pub(crate) fn leave(&mut self, scenario: &Arc<str>, marks: &SessionMarks, now: Instant) {
        let number = self.number(now);
        for (of, mark) in MEDIA.into_iter().zip(marks) {
            if mark.is_counted {
                self.counts(scenario, of, number).leave(number);
            }
        }
    }

    /// All indicators of the scenarios that have an objective.
    pub(crate) fn standings(
        &self,
        settings: &CoreSettings,
        now: Instant,
    ) -> impl Iterator<Item = SloStanding> {
        let number = self.number(now);
        let with_slo =
            settings.scenarios.iter().filter_map(|(name, it)| Some((name, it.slo.as_ref()?)));
        with_slo.flat_map(move |(name, slo)| {
            let indicators = SloIndicator::ALL.into_iter().filter(|it| slo.has(*it));
            indicators.map(move |of| {
                let windows = WINDOWS.map(|length| self.window(name, of, slo, length, number));
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
    pub(crate) fn burn_centi(
        &self,
        scenario: &str,
        settings: &CoreSettings,
        now: Instant,
    ) -> Option<u64> {
        let (name, slo) = settings.slo(scenario)?;
        let (number, [shortest, ..]) = (self.number(now), WINDOWS);
        let indicators = SloIndicator::ALL.into_iter().filter(|of| slo.has(*of));
        let rates = indicators.map(|of| self.window(name, of, slo, shortest, number).burn_rate);
        rates.flatten().max_by(f64::total_cmp).map(|rate| (rate * 100.0).round() as u64)
    }

    fn window(
        &self,
        scenario: &str,
        of: SloIndicator,
        slo: &ServiceObjective,
        length: WindowLength,
        number: u32,
    ) -> SloWindow {
        let counts = self.scenarios.get(scenario).map(|counts| &counts[of as usize]);
        let (sessions, bad) = counts.map_or((0, 0), |counts| counts.within(length.buckets, number));
        let share = f64::from(bad) / f64::from(sessions.max(1));
        let burn_rate = (sessions >= SESSIONS_MIN).then(|| rounded(share / slo.error_budget()));
        SloWindow { window: length.name, sessions, bad, burn_rate }
    }

    fn number(&self, now: Instant) -> u32 {
        (now.saturating_duration_since(self.began).as_secs() / BUCKET_S) as u32
    }

    fn counts(&mut self, scenario: &Arc<str>, of: SloIndicator, number: u32) -> &mut SessionCounts {
        let counts = self.scenarios.entry(Arc::clone(scenario));
        let none = || SloIndicator::ALL.map(|_| SessionCounts::new(number));
        &mut counts.or_insert_with(none)[of as usize]
    }
}

/// Three places: objectives such as 0.99 have no exact binary form.
fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// Sessions of one scenario by one indicator.
#[derive(Debug)]
struct SessionCounts {
    /// Sessions that are open and measured.
    open: u32,
    /// Oldest first, at most [`BUCKETS`].
    buckets: VecDeque<Bucket>,
    /// The number of the last bucket.
    newest: u32,
}

#[derive(Clone, Copy, Default, Debug)]
struct Bucket {
    /// Sessions that ended, or offers that were answered.
    ended: u32,
    /// Sessions that missed the limit, and did not miss it again in a newer bucket.
    bad: u32,
}

impl SessionCounts {
    fn new(number: u32) -> SessionCounts {
        SessionCounts { open: 0, buckets: VecDeque::from([Bucket::default()]), newest: number }
    }

    /// The bucket of this number; `None` if it is older than all windows.
    fn bucket(&mut self, number: u32) -> Option<&mut Bucket> {
        let ahead = number.saturating_sub(self.newest);
        self.newest = self.newest.max(number);
        for _ in 0..BUCKETS.min(ahead as usize) {
            if self.buckets.len() == BUCKETS {
                self.buckets.pop_front();
            }
            self.buckets.push_back(Bucket::default());
        }
        let age = (self.newest - number) as usize;
        let place = self.buckets.len().checked_sub(age + 1)?;
        self.buckets.get_mut(place)
    }

    fn note_offer(&mut self, is_bad: bool, number: u32) {
        if let Some(bucket) = self.bucket(number) {
            bucket.ended += 1;
            bucket.bad += u32::from(is_bad);
        }
    }

    /// Counts an open session. One that missed the limit before moves to the bucket of this number.
    fn note(&mut self, mark: &mut SessionMark, is_bad: bool, number: u32) {
        if !mark.is_counted {
            mark.is_counted = true;
            self.open += 1;
        }
        if !is_bad {
            return;
        }
        if let Some(bucket) = self.bucket(number) {
            bucket.bad += 1;
        }
        if let Some(before) = mark.bad_in.replace(number)
            && let Some(bucket) = self.bucket(before)
        {
            bucket.bad -= 1;
        }
    }

    fn leave(&mut self, number: u32) {
        self.open -= 1;
        if let Some(bucket) = self.bucket(number) {
            bucket.ended += 1;
        }
    }

    /// The sessions of the last buckets up to this number, and the bad ones of them.
    fn within(&self, buckets: u32, number: u32) -> (u32, u32) {
        // Nothing was counted since the newest bucket.
        let kept = buckets.saturating_sub(number.saturating_sub(self.newest)) as usize;
        let skipped = self.buckets.len().saturating_sub(kept);
        let kept = self.buckets.range(skipped..);
        kept.fold((self.open, 0), |(sessions, bad), it| (sessions + it.ended, bad + it.bad))
    }
}

#[cfg(test)]
mod tests;
