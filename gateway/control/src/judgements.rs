//! Error budgets and automatic breakers, as a process reads them that starts after this one and continues no session. Records of
//! sessions have their own.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_core::{BreakersRecord, Gateway};
use evenkeel_instant as instant;
use evenkeel_kept::{Document, Documents, Encoded, FollowerCopy, Kind, Row, Store};
use evenkeel_process::unix_us;
use evenkeel_slo::SloRecord;
use serde::{Deserialize, Serialize};

/// Scenarios with a row, more than a configuration has objectives.
const SCENARIOS_MAX: usize = 1_024;

/// Interval in which the windows are kept: the length of their shortest bucket.
const WINDOWS_EVERY: Duration = Duration::from_secs(10);

/// Scenarios of which the windows are kept in a turn: a millisecond of control. Of more the others follow in the next turns.
const WINDOWS_AT_ONCE: usize = 16;

/// Each kind of breakers has one row, with this key.
const ONE: &str = "";

/// The windows of a scenario. Times count from that of the row.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(transparent)]
struct KeptWindows(SloRecord);

impl Document for KeptWindows {
    const KIND: Kind =
        Kind { name: "slo-windows", version: 1, rows_max: SCENARIOS_MAX, copy: FollowerCopy::None };
}

/// The breakers. Times count from that of the row.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(transparent)]
struct KeptBreakers(BreakersRecord);

impl Document for KeptBreakers {
    const KIND: Kind = Kind { name: "breakers", version: 1, rows_max: 1, copy: FollowerCopy::None };
}

/// Keeps both.
#[derive(Debug)]
pub(crate) struct Judgements {
    windows: Documents<KeptWindows>,
    breakers: Documents<KeptBreakers>,
    /// The scenario that was kept last.
    scenario: Option<Arc<str>>,
    windows_last: Instant,
    /// The breakers that were kept last.
    kept: Option<BreakersRecord>,
}

impl Judgements {
    pub(crate) fn new(store: &Store, now: Instant) -> Judgements {
        Judgements {
            windows: store.documents(),
            breakers: store.documents(),
            scenario: None,
            windows_last: now,
            kept: None,
        }
    }

    /// Continues those of the process before, which left no session.
    pub(crate) fn restore(&self, gateway: &mut Gateway, now: Instant) {
        let windows = self.windows.rows();
        let mut windows: Vec<SloRecord> =
            windows.iter().filter_map(|row| decode(row, now)).map(|KeptWindows(it)| it).collect();
        if let Some(newest) = windows.pop() {
            windows.retain(|it| it.has_ticks_of(&newest));
            let all = windows.into_iter().chain([newest]);
            let all = all.fold(None, |merged, next| SloRecord::merged(merged, Some(next)));
            all.into_iter().for_each(|all| gateway.records().restore_slo_windows(all));
        }
        if let Some(row) = self.breakers.row(ONE)
            && let Some(KeptBreakers(breakers)) = decode(&row, now)
        {
            gateway.records().restore_breakers(breakers, now);
        }
    }

    /// Keeps breakers that changed and, in their interval, windows. A table that another thread has is left to the next call.
    pub(crate) fn keep(&mut self, gateway: &mut Gateway, now: Instant) {
        // Rows of a disk that answers late would be replaced.
        if self.windows.store().expects_late() {
            return;
        }
        if let Some(row) = self.changed_breakers(gateway, now)
            && !self.breakers.put_now(row)
        {
            self.kept = None;
        }
        if now.saturating_duration_since(self.windows_last) >= WINDOWS_EVERY {
            self.windows_last = now;
            let rows = self.next_windows(gateway, WINDOWS_AT_ONCE, now);
            rows.into_iter().for_each(|row| _ = self.windows.put_now(row));
        }
    }

    /// Keeps all at the end of the process.
    pub(crate) fn keep_last(&mut self, gateway: &mut Gateway, now: Instant) {
        if self.windows.store().expects_late() {
            return;
        }
        let breakers = self.changed_breakers(gateway, now);
        breakers.into_iter().for_each(|row| self.breakers.put_encoded(row));
        let windows = self.next_windows(gateway, usize::MAX, now);
        windows.into_iter().for_each(|row| self.windows.put_encoded(row));
    }

    fn changed_breakers(
        &mut self,
        gateway: &mut Gateway,
        now: Instant,
    ) -> Option<Encoded<KeptBreakers>> {
        let breakers = gateway.records().breakers();
        if self.kept.as_ref() == Some(&breakers) {
            return None;
        }
        self.kept = Some(breakers.clone());
        Some(instant::relative_to(now, || Encoded::new(ONE, &KeptBreakers(breakers))))
    }

    /// The windows of up to this many scenarios, each once.
    fn next_windows(
        &mut self,
        gateway: &mut Gateway,
        at_most: usize,
        now: Instant,
    ) -> Vec<Encoded<KeptWindows>> {
        let (records, mut first, mut rows) = (gateway.records(), None, Vec::new());
        while rows.len() < at_most
            && let Some(windows) = records.next_slo_record_once_ended(&mut self.scenario, now)
            && let Some(scenario) = self.scenario.clone().filter(|it| first.as_ref() != Some(it))
        {
            let row = || Encoded::new(&scenario, &KeptWindows(windows));
            rows.push(instant::relative_to(now, row));
            first.get_or_insert(scenario);
        }
        rows
    }
}

/// Reads a row with times that count from its last change. A clock that was set back since counts as none.
fn decode<D: Document>(row: &Row<D>, now: Instant) -> Option<D> {
    let age = unix_us(SystemTime::now()).saturating_sub(row.at_us);
    let reference = now.checked_sub(Duration::from_micros(age))?;
    let read = instant::relative_to(reference, || row.decode());
    read.map_err(|error| {
        tracing::warn!(document = D::KIND.name, key = %row.key, %error, "document cannot be read; continuing without");
    }).ok()
}

#[cfg(test)]
mod tests;
