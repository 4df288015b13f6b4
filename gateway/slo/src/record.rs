//! The windows of scenarios and the judged revisions, for the process that continues them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_instant as instant;
use evenkeel_model::{CoreSettings, SloIndicator};
use serde::{Deserialize, Serialize};

use crate::activation::{ActivationJudges, ActivationRecord};
use crate::counts::{BucketRing, SessionCounts, TICK_S, WINDOWS};
use crate::table::SloTable;

/// The windows of some scenarios, or of all: about a kilobyte per indicator. With them, all judged revisions.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct SloRecord {
    /// Ticks count from here.
    #[serde(with = "instant")]
    began: Instant,
    scenarios: BTreeMap<Arc<str>, Vec<WindowRecord>>,
    #[serde(default)]
    activations: Vec<ActivationRecord>,
}

/// A window of one indicator, by names: another version may have other indicators or windows.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
struct WindowRecord {
    slo: Box<str>,
    window: Box<str>,
    ring: BucketRing,
}

impl SloRecord {
    /// Replaces the scenarios of a record by those of a later one of the same process.
    pub fn merged(earlier: Option<SloRecord>, later: Option<SloRecord>) -> Option<SloRecord> {
        match (earlier, later) {
            (Some(mut record), Some(later)) => {
                (record.began, record.activations) = (later.began, later.activations);
                record.scenarios.extend(later.scenarios);
                Some(record)
            }
            (earlier, later) => earlier.or(later),
        }
    }

    /// Their ticks count from the same time: they are of one process, or of one that continued the other.
    pub fn has_ticks_of(&self, other: &SloRecord) -> bool {
        let distance = self.began.max(other.began) - self.began.min(other.began);
        distance < Duration::from_secs(TICK_S)
    }
}

impl SloTable {
    /// Returns the record of all scenarios; `None` if no session or offer was counted.
    pub fn record(&self, judges: &ActivationJudges) -> Option<SloRecord> {
        let scenarios = self.scenarios.iter().map(|(name, counts)| {
            (Arc::clone(name), windows_of(counts.iter().map(|counts| counts.windows.clone())))
        });
        let scenarios: BTreeMap<_, _> = scenarios.collect();
        (!scenarios.is_empty()).then(|| self.with_judges(scenarios, judges))
    }

    fn with_judges(
        &self,
        scenarios: BTreeMap<Arc<str>, Vec<WindowRecord>>,
        judges: &ActivationJudges,
    ) -> SloRecord {
        SloRecord { began: self.began, scenarios, activations: judges.records() }
    }

    /// Returns the record of the scenario after `last`, which it becomes, and of the first one after the last of all.
    pub fn next_record(
        &self,
        last: &mut Option<Arc<str>>,
        judges: &ActivationJudges,
    ) -> Option<SloRecord> {
        let (name, counts) = self.next_scenario(last)?;
        let windows = windows_of(counts.iter().map(|counts| counts.windows.clone()));
        Some(self.with_judges(BTreeMap::from([(name, windows)]), judges))
    }

    /// As [`SloTable::next_record`] for a process that continues no session: all have ended, and no revision is judged.
    pub fn next_record_once_ended(
        &self,
        last: &mut Option<Arc<str>>,
        now: Instant,
    ) -> Option<SloRecord> {
        let (name, counts) = self.next_scenario(last)?;
        let tick = self.tick(now);
        let windows = windows_of(counts.iter().map(|counts| counts.windows_once_ended(tick)));
        let scenarios = BTreeMap::from([(name, windows)]);
        Some(SloRecord { began: self.began, scenarios, activations: Vec::new() })
    }

    fn next_scenario(
        &self,
        last: &mut Option<Arc<str>>,
    ) -> Option<(Arc<str>, &[SessionCounts; SloIndicator::ALL.len()])> {
        let is_later = |name: &Arc<str>| last.as_ref().is_none_or(|last| name > last);
        let next = self.scenarios.iter().find(|(name, _)| is_later(name));
        let (name, counts) = next.or_else(|| self.scenarios.first_key_value())?;
        *last = Some(Arc::clone(name));
        Some((Arc::clone(name), counts))
    }

    /// Continues the windows of another process, of scenarios that have an objective here, and its judges.
    pub fn restore(
        &mut self,
        record: Option<SloRecord>,
        judges: &mut ActivationJudges,
        settings: &CoreSettings,
        now: Instant,
    ) {
        self.forget_restored(judges);
        let Some(record) = record else { return };
        let activations = record.activations.clone();
        self.restore_windows(record, settings);
        judges.restore(activations, self.tick(now));
    }

    /// Continues the windows of another process in place of its own, of scenarios that have an objective here.
    pub fn restore_windows(&mut self, record: SloRecord, settings: &CoreSettings) {
        self.scenarios.clear();
        self.began = record.began;
        for (name, windows) in record.scenarios {
            let Some((name, _)) = settings.slo(&name) else { continue };
            let counts = self.scenarios.entry(Arc::clone(name));
            let counts = counts.or_insert_with(|| SloIndicator::ALL.map(|_| SessionCounts::new(0)));
            for WindowRecord { slo, window, ring } in windows {
                let of = SloIndicator::ALL.into_iter().find(|it| it.name() == &*slo);
                let place = WINDOWS.iter().position(|length| length.name == &*window);
                let found = of.zip(place).filter(|(_, place)| ring.fits(WINDOWS[*place]));
                if let Some((of, place)) = found {
                    counts[of as usize].windows[place] = ring;
                }
            }
        }
    }

    /// Forgets what [`SloTable::restore`] continued: the other process goes on.
    pub fn forget_restored(&mut self, judges: &mut ActivationJudges) {
        self.scenarios.clear();
        *judges = ActivationJudges::default();
    }
}

/// The windows in which something was counted, of all indicators in their order.
fn windows_of(counted: impl Iterator<Item = [BucketRing; WINDOWS.len()]>) -> Vec<WindowRecord> {
    let windows = SloIndicator::ALL.into_iter().zip(counted).flat_map(|(of, rings)| {
        let windows = WINDOWS.into_iter().zip(rings).filter(|(_, ring)| !ring.is_empty());
        windows.map(move |(length, ring)| WindowRecord {
            slo: of.name().into(),
            window: length.name.into(),
            ring,
        })
    });
    windows.collect()
}
