//! Takes a sample of regions and nodes each minute, and reports what is expected.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use evenkeel_config::GatewayConfig;
use evenkeel_control::{
    ControlError, EventRecord, ForecastReport, GatewayEvent, Handle, KeptForecast,
};
use evenkeel_core::{NodeStanding, RegionStanding};
use evenkeel_forecast::{
    ForecastChange, ForecastTable, Minute, NodeMinute, NodeSample, RegionSample,
};
use evenkeel_group::{Group, GroupOwnership};
use evenkeel_kept::{Documents, EarlierRead, Row};
use evenkeel_model::{CoreEvent, Health, NodeId};
use evenkeel_process::unix_us;
use evenkeel_telemetry::registry::{Attribute, Level};
use evenkeel_telemetry::{Instruments, Telemetry};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior};

const SAMPLED_EVERY: Duration = Duration::from_secs(60);

/// Regions and nodes that are kept each minute, up to 1 MiB. Of more the others follow in the next minutes, so that neither the disk nor
/// a standby gets all at once.
const KEPT_AT_ONCE: usize = 64;

/// Share of the capacity from which the shipped admission policies refuse new rooms, as `SHORT_FROM` of core.
const ADMITTED_SHARE: f64 = 0.9;

/// Kinds of warnings, for the metric.
const FORECAST_KINDS: [&str; 4] = ["load", "decay", "flap", "delay"];

/// Samples regions and nodes, and reports forecasts.
pub(super) struct ForecastFollower {
    handle: Handle,
    instruments: Arc<Instruments>,
    /// Only the owner of a group has sessions.
    group: Option<Group>,
    /// Minutes.
    horizon: u64,
    enabled: bool,
    kept: Documents<KeptForecast>,
    earlier: EarlierRead,
    table: ForecastTable,
    /// The place of the next region or node that is kept.
    keeps_next: usize,
    events: Receiver<Arc<EventRecord>>,
    /// Changes of nodes' health since the last sample.
    changes: BTreeMap<NodeId, u32>,
    /// As control knows them, without zeros.
    decays: BTreeMap<NodeId, u16>,
    clocks: StartClocks,
}

/// Both clocks at one time. Starts of processes keep their Unix time when the wall clock is set.
#[derive(Clone, Copy)]
struct StartClocks {
    monotonic: std::time::Instant,
    wall: SystemTime,
}

impl StartClocks {
    /// The Unix time of a start, seconds.
    fn unix_s(self, started: std::time::Instant) -> Option<u64> {
        let wall = match started.checked_duration_since(self.monotonic) {
            Some(later) => self.wall.checked_add(later),
            None => self.wall.checked_sub(self.monotonic.duration_since(started)),
        };
        Some(unix_us(wall?) / 1_000_000)
    }
}

impl ForecastFollower {
    pub(super) fn new(
        settings: &GatewayConfig,
        handle: &Handle,
        telemetry: &Telemetry,
        group: Option<Group>,
    ) -> ForecastFollower {
        ForecastFollower {
            handle: handle.clone(),
            instruments: telemetry.instruments(),
            group,
            horizon: settings.forecast.horizon.as_secs() / 60,
            enabled: settings.forecast.enabled,
            kept: handle.kept.documents(),
            earlier: EarlierRead::Nothing,
            table: ForecastTable::default(),
            keeps_next: 0,
            events: handle.events(),
            changes: BTreeMap::new(),
            decays: BTreeMap::new(),
            clocks: StartClocks { monotonic: std::time::Instant::now(), wall: SystemTime::now() },
        }
    }

    /// Samples until it is dropped: a sample that fails ends no gateway.
    pub(super) async fn follow(mut self) -> Infallible {
        if !self.enabled {
            // Ends the subscription to events.
            drop(self);
            return pending().await;
        }
        let mut every = tokio::time::interval_at(Instant::now() + SAMPLED_EVERY, SAMPLED_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = every.tick() => {
                    let owns = |group: &Group| group.owner() == GroupOwnership::Here;
                    if !self.group.as_ref().is_none_or(owns) {
                        continue;
                    }
                    let minute = unix_us(SystemTime::now()) / 60_000_000;
                    // It fails if another process continues the sessions.
                    let _ = self.sample(minute).await;
                }
                event = self.events.recv() => match event {
                    Ok(record) => self.note(&record.event),
                    // Changes are missed only among very many, which are no link that flaps.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return pending().await,
                },
            }
        }
    }

    fn note(&mut self, event: &GatewayEvent) {
        if let GatewayEvent::Core(CoreEvent::Node { hop, from, to, .. }) = event
            && (*from == Health::Down) != (*to == Health::Down)
        {
            *self.changes.entry(hop.node).or_default() += 1;
        }
    }

    async fn sample(&mut self, minute: Minute) -> Result<(), ControlError> {
        let (standings, regions) = (self.handle.nodes().await?, self.handle.regions().await?);
        let names = self.handle.names();
        let regions = regions.iter().map(|it| (names.of_region(it.region), region_sample(it)));
        let regions: BTreeMap<Arc<str>, RegionSample> = regions.collect();
        let changes = std::mem::take(&mut self.changes);
        let (mut nodes, mut ids) = (BTreeMap::new(), BTreeMap::new());
        // Two nodes have one name while the older one is being removed.
        for standing in standings.iter().filter(|standing| !standing.leaves) {
            let (id, name) = (standing.hop.node, names.of_hop(standing.hop).node);
            let changes = changes.get(&id).copied().unwrap_or_default();
            nodes.insert(
                Arc::clone(&name),
                NodeMinute { sample: node_sample(standing, self.clocks), changes },
            );
            ids.insert(name, id);
        }
        if self.earlier.is_due(self.kept.store()) {
            self.table = self.kept_table();
        }
        let table = &mut self.table;
        let changes = table.sample(minute, &regions, &nodes, self.horizon);
        let decays: BTreeMap<NodeId, u16> = (table.decays())
            .filter_map(|(name, decay)| Some((*ids.get(name)?, decay)))
            .filter(|(_, decay)| *decay > 0)
            .collect();
        let ended = self.decays.keys().filter(|id| !decays.contains_key(*id)).map(|id| (*id, 0));
        let changed = decays.iter().filter(|(id, decay)| self.decays.get(*id) != Some(*decay));
        let changed = changed.map(|(id, decay)| (*id, *decay)).chain(ended).collect();
        self.decays = decays;
        changes.iter().for_each(log_change);
        let exhausted = table.exhaustions().filter(|(_, at)| at.is_some());
        let report = ForecastReport {
            exhausted: exhausted.map(|(name, _)| Arc::clone(name)).collect(),
            expected: table
                .peaks(self.horizon)
                .map(|(name, kbps)| (Arc::clone(name), kbps))
                .collect(),
            forecasts: table.forecasts().cloned().collect(),
            changes,
            decays: changed,
        };
        self.measure(minute, &report);
        self.keep();
        self.handle.note_forecasts(Box::new(report)).await
    }

    fn measure(&self, minute: Minute, report: &ForecastReport) {
        for (region, at) in self.table.exhaustions() {
            let seconds = at.map_or(-1.0, |at| at.saturating_sub(minute) as f64 * 60.0);
            let labels = [(Attribute::Region, &**region)];
            self.instruments.level(Level::ForecastExhausted, seconds, &labels);
        }
        for kind in FORECAST_KINDS {
            let warnings = report.forecasts.iter().filter(|it| it.evidence.kind() == kind).count();
            let labels = [(Attribute::Reason, kind)];
            self.instruments.level(Level::ForecastWarnings, warnings as f64, &labels);
        }
    }

    /// The table of the process before this one.
    fn kept_table(&self) -> ForecastTable {
        let rows = self.kept.rows();
        let (known, unknown): (Vec<_>, Vec<_>) =
            rows.iter().map(Row::decode).partition(Result::is_ok);
        if let Some(Err(error)) = unknown.first() {
            let rows = unknown.len();
            tracing::warn!(%error, rows, "forecasts cannot be read; learning anew");
        }
        ForecastTable::from_records(known.into_iter().flatten().map(|KeptForecast(record)| record))
    }

    /// Keeps the forecasts of some regions and nodes.
    fn keep(&mut self) {
        if self.keeps_next >= self.table.count() {
            self.keeps_next = 0;
        }
        for record in self.table.records().skip(self.keeps_next).take(KEPT_AT_ONCE) {
            self.kept.put(&record.key(), &KeptForecast(record));
        }
        self.keeps_next += KEPT_AT_ONCE;
    }
}

fn region_sample(region: &RegionStanding) -> RegionSample {
    RegionSample {
        load_kbps: region.load_kbps as f64,
        capacity_kbps: region.capacity_kbps as f64 * ADMITTED_SHARE,
    }
}

/// No value of a node that does not run: its last probes are old.
fn node_sample(node: &NodeStanding, clocks: StartClocks) -> NodeSample {
    let may_restart = node.draining || node.health == Health::Cold;
    if matches!(node.health, Health::Down | Health::Cold) {
        return NodeSample { may_restart, ..NodeSample::default() };
    }
    NodeSample {
        round_trip_ms: node.round_trip.map(|it| it.as_secs_f64() * 1_000.0),
        loss: f64::from(node.loss_ppm) / 1e6,
        memory: node.process.map(|process| f64::from(process.memory_permille) / 1e3),
        started_s: node.process.and_then(|process| clocks.unix_s(process.started)),
        may_restart,
    }
}

fn log_change(change: &ForecastChange) {
    let (kind, subject) = (change.forecast.evidence.kind(), &change.forecast.subject);
    if change.is_over {
        tracing::info!(kind, %subject, "warning ended");
        return;
    }
    let (expected_us, evidence) = (change.forecast.expected_us, &change.forecast.evidence);
    let message = match kind {
        "load" => "capacity is expected to be exhausted",
        "decay" => "node decays and is expected to fail",
        "delay" => "round trip to the node is far above the usual one of the hour",
        _ => "link to the node flaps",
    };
    tracing::warn!(kind, %subject, expected_us, ?evidence, "{message}");
}

#[cfg(test)]
mod tests;
