//! Gauges of which all series are replaced together. They are read when they are collected, so that missing series end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use super::registry::{Described, Level, MetricLabels};

/// These gauges.
const REPLACED: [Level; 2] = [Level::PolicyRevision, Level::ScenarioImpaired];

/// A series of a gauge.
#[derive(Clone, PartialEq, Debug)]
struct LevelSeries {
    labels: Vec<KeyValue>,
    value: f64,
}

/// The series of a gauge that replace the former ones.
#[derive(Clone, PartialEq, Debug)]
pub struct LevelTable {
    level: Level,
    series: Vec<LevelSeries>,
}

impl LevelTable {
    /// A table without series.
    pub fn new(level: Level) -> LevelTable {
        LevelTable { level, series: Vec::new() }
    }

    /// Adds a series.
    pub fn add(&mut self, labels: MetricLabels<'_>, value: f64) {
        let labels = self.level.described().points(labels);
        self.series.push(LevelSeries { labels, value });
    }
}

/// The present series of all these gauges. Clones share them.
#[derive(Clone, Default, Debug)]
pub(super) struct ReplacedLevels(Arc<Mutex<BTreeMap<Level, Vec<LevelSeries>>>>);

impl ReplacedLevels {
    pub(super) fn has(level: Level) -> bool {
        REPLACED.contains(&level)
    }

    pub(super) fn set(&self, LevelTable { level, series }: LevelTable) {
        debug_assert!(ReplacedLevels::has(level), "{}", level.described().name);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(level, series);
    }

    pub(super) fn observed_by(&self, meter: &Meter) {
        for level in REPLACED {
            let Described { name, unit, doc, .. } = level.described();
            let own = self.clone();
            let gauge = meter.f64_observable_gauge(name).with_unit(unit).with_description(doc);
            let observed = gauge.with_callback(move |observer| {
                let all = own.0.lock().unwrap_or_else(PoisonError::into_inner);
                for LevelSeries { labels, value } in all.get(&level).into_iter().flatten() {
                    observer.observe(*value, labels);
                }
            });
            // The meter keeps the callback.
            let _kept = observed.build();
        }
    }
}
