//! The forecasts of one gateway: of its regions and nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    AlarmChange, DecayForecast, DecaySign, DecayWarning, DelayForecast, Exhaustion, FlapForecast,
    ForecastAlarm, LoadForecast, Minute, NodeSample, UnusualDelay,
};

/// Minutes without a cause after which a warning of a region ends.
pub const LOAD_HOLD_MINUTES: u64 = 30;
/// Minutes without a cause after which a warning of a node ends.
pub const NODE_HOLD_MINUTES: u64 = 60;

/// A decay of so much means that the trend reaches its limit in an hour; twice as much, that it has.
const DECAY_WARNED: u64 = 500;

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RegionSample {
    /// Load and reserves, kbit/s.
    pub load_kbps: f64,
    /// Load from which the region takes no new rooms, kbit/s; 0 if no node takes any.
    pub capacity_kbps: f64,
}

/// A sample of a node and of the link to it.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct NodeMinute {
    /// Delay and loss.
    pub sample: NodeSample,
    /// Changes of the node between up and down within the minute.
    pub changes: u32,
}

/// A warning of what is expected, with its evidence.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Forecast {
    /// Name of the region or node.
    pub subject: Arc<str>,
    /// Start of the warning, Unix time in microseconds.
    pub since_us: u64,
    /// The time at which the limit is expected to be reached; that of the newest sample, if it is.
    pub expected_us: u64,
    /// The values that led to the warning.
    pub evidence: ForecastEvidence,
}

/// The facts from which a warning follows.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ForecastEvidence {
    /// The capacity of a region will be exhausted.
    Load {
        /// Highest load expected within the horizon.
        load_kbps: u64,
        /// Load from which the region takes no new rooms.
        capacity_kbps: u64,
        /// Probability of it, by the errors of earlier forecasts.
        confidence_percent: u8,
    },
    /// A node decays.
    Decay {
        /// The value that rises.
        sign: DecaySign,
        /// The value now: milliseconds, or a share.
        value: f64,
        /// The value at which the node is of no use.
        limit: f64,
    },
    /// The link to a node flaps.
    Flap {
        /// Changes between up and down within the last hour.
        changes: u32,
    },
    /// The round trip to a node is far above the usual one of the hour.
    Delay {
        /// The round trip now, milliseconds.
        round_trip_ms: u32,
        /// The usual one, milliseconds.
        usual_ms: u32,
    },
}

impl ForecastEvidence {
    /// The name in events.
    pub fn kind(&self) -> &'static str {
        match self {
            ForecastEvidence::Load { .. } => "load",
            ForecastEvidence::Decay { .. } => "decay",
            ForecastEvidence::Flap { .. } => "flap",
            ForecastEvidence::Delay { .. } => "delay",
        }
    }
}

/// A warning that begins or ends.
#[derive(Clone, PartialEq, Debug)]
pub struct ForecastChange {
    /// The newest state of the warning.
    pub forecast: Forecast,
    /// The warning ends.
    pub is_over: bool,
}

/// Forecasts of all regions and nodes. Bounded by their number.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct ForecastTable {
    regions: BTreeMap<Arc<str>, RegionForecast>,
    nodes: BTreeMap<Arc<str>, NodeForecast>,
}

#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
struct RegionForecast {
    load: LoadForecast,
    warning: Warning,
    /// The capacity is expected to be exhausted, by the newest sample.
    #[serde(skip)]
    exhausted_at: Option<Minute>,
}

#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
struct NodeForecast {
    decay: DecayForecast,
    flap: FlapForecast,
    #[serde(default)]
    delay: DelayForecast,
    decay_warning: Warning,
    flap_warning: Warning,
    #[serde(default)]
    delay_warning: Warning,
    /// Thousandths, by the newest sample.
    #[serde(skip)]
    decay_permille: u16,
}

#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
struct Warning {
    alarm: ForecastAlarm,
    /// The newest forecast, while the warning holds.
    forecast: Option<Forecast>,
}

/// The forecasts of a region or node, with which another table continues.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ForecastRecord(Subject);

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Subject {
    Region { name: Arc<str>, forecast: Box<RegionForecast> },
    Node { name: Arc<str>, forecast: Box<NodeForecast> },
}

impl ForecastRecord {
    /// `region/NAME` or `node/NAME`.
    pub fn key(&self) -> String {
        match &self.0 {
            Subject::Region { name, .. } => format!("region/{name}"),
            Subject::Node { name, .. } => format!("node/{name}"),
        }
    }
}

impl ForecastTable {
    /// The number of regions and nodes.
    pub fn count(&self) -> usize {
        self.regions.len() + self.nodes.len()
    }

    /// The records of all regions, then of all nodes, by name.
    pub fn records(&self) -> impl Iterator<Item = ForecastRecord> {
        let regions = self.regions.iter().map(|(name, forecast)| {
            let (name, forecast) = (Arc::clone(name), Box::new(forecast.clone()));
            Subject::Region { name, forecast }
        });
        let nodes = self.nodes.iter().map(|(name, forecast)| {
            let (name, forecast) = (Arc::clone(name), Box::new(forecast.clone()));
            Subject::Node { name, forecast }
        });
        regions.chain(nodes).map(ForecastRecord)
    }

    /// Continues these records. One that has another form than this version writes is left out.
    pub fn from_records(records: impl IntoIterator<Item = ForecastRecord>) -> ForecastTable {
        let mut table = ForecastTable::default();
        for ForecastRecord(subject) in records {
            match subject {
                Subject::Region { name, forecast } if forecast.load.is_valid() => {
                    table.regions.insert(name, *forecast);
                }
                Subject::Region { .. } => {}
                Subject::Node { name, forecast } => _ = table.nodes.insert(name, *forecast),
            }
        }
        table
    }

    /// Takes the samples of a minute, and returns the warnings that begin or end. Regions and nodes without a sample are
    /// forgotten.
    pub fn sample(
        &mut self,
        minute: Minute,
        regions: &BTreeMap<Arc<str>, RegionSample>,
        nodes: &BTreeMap<Arc<str>, NodeMinute>,
        horizon: u64,
    ) -> Vec<ForecastChange> {
        let mut changes = Vec::new();
        self.regions.retain(|name, _| regions.contains_key(name));
        self.nodes.retain(|name, _| nodes.contains_key(name));
        for (name, sample) in regions {
            let region = self.regions.entry(Arc::clone(name)).or_default();
            let found = region.sample(minute, *sample, horizon);
            let found = found.map(|(at, evidence)| Forecast::of(name, minute, at, evidence));
            changes.extend(region.warning.update(found, LOAD_HOLD_MINUTES, minute));
        }
        for (name, sample) in nodes {
            let node = self.nodes.entry(Arc::clone(name)).or_default();
            let decay = node.decay.sample(minute, sample.sample);
            node.decay_permille = decay.map_or(0, |warning| permille(&warning, minute));
            let decay = decay.map(|DecayWarning { sign, value, limit, at }| {
                let [value, limit] = [value, limit].map(|it| (it * 1e4).round() / 1e4);
                Forecast::of(name, minute, at, ForecastEvidence::Decay { sign, value, limit })
            });
            changes.extend(node.decay_warning.update(decay, NODE_HOLD_MINUTES, minute));
            let flap = node.flap.sample(minute, sample.changes).map(|changes| {
                Forecast::of(name, minute, minute, ForecastEvidence::Flap { changes })
            });
            changes.extend(node.flap_warning.update(flap, NODE_HOLD_MINUTES, minute));
            let delay = node.delay.sample(minute, sample.sample.round_trip_ms);
            let delay = delay.map(|UnusualDelay { round_trip_ms, usual_ms }| {
                let evidence = ForecastEvidence::Delay { round_trip_ms, usual_ms };
                Forecast::of(name, minute, minute, evidence)
            });
            changes.extend(node.delay_warning.update(delay, NODE_HOLD_MINUTES, minute));
        }
        changes
    }

    /// The warnings in force.
    pub fn forecasts(&self) -> impl Iterator<Item = &Forecast> {
        let of_regions = self.regions.values().map(|region| &region.warning);
        let of_nodes = self
            .nodes
            .values()
            .flat_map(|node| [&node.decay_warning, &node.flap_warning, &node.delay_warning]);
        of_regions.chain(of_nodes).filter_map(|warning| warning.forecast.as_ref())
    }

    /// All regions, each with the minute at which its capacity is expected to be exhausted by the newest sample.
    pub fn exhaustions(&self) -> impl Iterator<Item = (&Arc<str>, Option<Minute>)> {
        self.regions.iter().map(|(name, region)| (name, region.exhausted_at))
    }

    /// All regions, each with the highest load that is expected within so many minutes, kbit/s.
    pub fn peaks(&self, horizon: u64) -> impl Iterator<Item = (&Arc<str>, u64)> {
        self.regions.iter().map(move |(name, region)| (name, region.load.peak(horizon) as u64))
    }

    /// All nodes with their decay in thousandths: 0 none; 500, the trend reaches its limit in an hour; 1,000, it has.
    pub fn decays(&self) -> impl Iterator<Item = (&Arc<str>, u16)> {
        self.nodes.iter().map(|(name, node)| (name, node.decay_permille))
    }
}

fn permille(warning: &DecayWarning, minute: Minute) -> u16 {
    let sooner = 60_u64.saturating_sub(warning.at.saturating_sub(minute));
    (DECAY_WARNED + DECAY_WARNED * sooner / 60) as u16
}

impl RegionForecast {
    fn sample(
        &mut self,
        minute: Minute,
        sample: RegionSample,
        horizon: u64,
    ) -> Option<(Minute, ForecastEvidence)> {
        let RegionSample { load_kbps, capacity_kbps } = sample;
        self.exhausted_at = None;
        // Without a node there is no load to learn from, and other warnings tell of the outage.
        if capacity_kbps <= 0.0 {
            return None;
        }
        self.load.sample(minute, load_kbps);
        let Exhaustion { at, load, confidence } = self.load.exhaustion(capacity_kbps, horizon)?;
        self.exhausted_at = Some(at);
        let evidence = ForecastEvidence::Load {
            load_kbps: load.round() as u64,
            capacity_kbps: capacity_kbps.round() as u64,
            confidence_percent: (confidence * 100.0).round() as u8,
        };
        Some((at, evidence))
    }
}

impl Forecast {
    fn of(subject: &Arc<str>, now: Minute, at: Minute, evidence: ForecastEvidence) -> Forecast {
        let [since_us, expected_us] = [now, at].map(|minute| minute * 60_000_000);
        Forecast { subject: Arc::clone(subject), since_us, expected_us, evidence }
    }
}

impl Warning {
    fn update(
        &mut self,
        found: Option<Forecast>,
        hold: u64,
        minute: Minute,
    ) -> Option<ForecastChange> {
        let change = self.alarm.update(found.is_some(), hold, minute);
        if let Some(found) = found {
            let since_us = self.forecast.as_ref().map_or(found.since_us, |before| before.since_us);
            self.forecast = Some(Forecast { since_us, ..found });
        }
        match change? {
            AlarmChange::Raised => {
                let forecast = self.forecast.clone()?;
                Some(ForecastChange { forecast, is_over: false })
            }
            AlarmChange::Cleared => {
                let forecast = self.forecast.take()?;
                Some(ForecastChange { forecast, is_over: true })
            }
        }
    }
}

#[cfg(test)]
mod tests;
