//! Takes a sample of regions and nodes each minute, and reports what is expected.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use evenkeel_config::GatewayConfig;
use evenkeel_control::{
    ControlError, EventRecord, ForecastFile, ForecastReport, GatewayEvent, Handle, NodeName,
};
use evenkeel_core::NodeStanding;
use evenkeel_forecast::{
    ForecastChange, ForecastTable, Minute, NodeMinute, NodeSample, RegionSample,
};
use evenkeel_group::{Group, GroupOwnership};
use evenkeel_model::{CoreEvent, Health, Incarnation, NodeId};
use evenkeel_process::unix_us;
use evenkeel_telemetry::registry::{Attribute, Level};
use evenkeel_telemetry::{Instruments, Telemetry};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior};

const SAMPLED_EVERY: Duration = Duration::from_secs(60);

/// A process that is killed loses so many minutes at most.
const WRITTEN_EVERY_MINUTES: u64 = 10;

/// Kinds of warnings, for the metric.
const KINDS: [&str; 3] = ["load", "decay", "flap"];

/// Samples regions and nodes, and reports forecasts.
pub(super) struct ForecastFollower {
    handle: Handle,
    instruments: Arc<Instruments>,
    /// Only the owner of a group has sessions.
    group: Option<Group>,
    regions: Vec<Arc<str>>,
    /// Minutes.
    horizon: u64,
    enabled: bool,
    file: ForecastFile,
    /// `None` before the first sample: the process that this one replaces writes the file until its end.
    table: Option<ForecastTable>,
    events: Receiver<Arc<EventRecord>>,
    /// Changes of nodes' health since the last sample.
    changes: BTreeMap<NodeId, u32>,
    /// By the last sample.
    incarnations: BTreeMap<NodeId, Incarnation>,
    /// As control knows them, without zeros.
    decays: BTreeMap<NodeId, u16>,
    is_written: bool,
}

impl ForecastFollower {
    /// The folder is that of the cache, if there is one.
    pub(super) fn new(
        settings: &GatewayConfig,
        folder: Option<&Path>,
        handle: &Handle,
        telemetry: &Telemetry,
        group: Option<Group>,
    ) -> ForecastFollower {
        ForecastFollower {
            handle: handle.clone(),
            instruments: telemetry.instruments(),
            group,
            regions: settings.regions.clone(),
            horizon: settings.forecast.horizon.as_secs() / 60,
            enabled: settings.forecast.enabled,
            file: ForecastFile::new(folder, &settings.admin.socket),
            table: None,
            events: handle.events(),
            changes: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            decays: BTreeMap::new(),
            is_written: true,
        }
    }

    /// Returns when control has ended.
    pub(super) async fn follow(mut self) {
        if !self.enabled {
            return std::future::pending().await;
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
                    match self.sample(minute).await {
                        // Another process continues the sessions.
                        Ok(()) | Err(ControlError::Replaced) => {}
                        Err(_) => return,
                    }
                }
                event = self.events.recv() => match event {
                    Ok(record) => self.note(&record.event),
                    // Changes are missed only among very many, which are no link that flaps.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
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
        let standings = self.handle.nodes().await?;
        let names = self.handle.names();
        let changes = std::mem::take(&mut self.changes);
        let before = std::mem::take(&mut self.incarnations);
        let none = RegionSample { load_kbps: 0.0, capacity_kbps: 0.0 };
        let mut regions: BTreeMap<Arc<str>, RegionSample> =
            self.regions.iter().map(|name| (Arc::clone(name), none)).collect();
        let (mut nodes, mut ids) = (BTreeMap::new(), BTreeMap::new());
        for standing in &standings {
            let (id, incarnation) = (standing.hop.node, standing.hop.incarnation);
            let NodeName { node, region, .. } = names.of_hop(standing.hop);
            if let Some(region) = regions.get_mut(&region) {
                add_node(region, standing);
            }
            self.incarnations.insert(id, incarnation);
            let restarts = before.get(&id).map_or(0, |it| incarnation.0.saturating_sub(it.0));
            // No agent reports the memory of its node.
            let mut sample = NodeSample { restarts, ..NodeSample::default() };
            if runs(standing) {
                sample.round_trip_ms = standing.round_trip.map(|it| it.as_secs_f64() * 1_000.0);
                sample.loss = f64::from(standing.loss_ppm) / 1e6;
            }
            let changes = changes.get(&id).copied().unwrap_or_default();
            // Two nodes have one name while the older one is being removed.
            if !standing.leaves {
                nodes.insert(Arc::clone(&node), NodeMinute { sample, changes });
                ids.insert(node, id);
            }
        }
        let table = self.table.get_or_insert_with(|| self.file.read());
        let changes = table.sample(minute, &regions, &nodes, self.horizon);
        let decays: BTreeMap<NodeId, u16> = (table.decays())
            .filter_map(|(name, decay)| Some((*ids.get(name)?, decay)))
            .filter(|(_, decay)| *decay > 0)
            .collect();
        let ended = self.decays.keys().filter(|id| !decays.contains_key(*id)).map(|id| (*id, 0));
        let changed = decays.iter().filter(|(id, decay)| self.decays.get(*id) != Some(*decay));
        let changed = changed.map(|(id, decay)| (*id, *decay)).chain(ended).collect();
        self.decays = decays;
        changes.iter().for_each(log);
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
        self.is_written = false;
        if minute % WRITTEN_EVERY_MINUTES == 0 {
            self.write();
        }
        self.handle.note_forecasts(Box::new(report)).await
    }

    fn measure(&self, minute: Minute, report: &ForecastReport) {
        let exhaustions = self.table.iter().flat_map(ForecastTable::exhaustions);
        for (region, at) in exhaustions {
            let seconds = at.map_or(-1.0, |at| at.saturating_sub(minute) as f64 * 60.0);
            let labels = [(Attribute::Region, &**region)];
            self.instruments.level(Level::ForecastExhausted, seconds, &labels);
        }
        for kind in KINDS {
            let warnings = report.forecasts.iter().filter(|it| it.evidence.kind() == kind).count();
            let labels = [(Attribute::Reason, kind)];
            self.instruments.level(Level::ForecastWarnings, warnings as f64, &labels);
        }
    }

    fn write(&mut self) {
        if let Some(table) = &self.table
            && !std::mem::replace(&mut self.is_written, true)
        {
            self.file.write(table);
        }
    }
}

impl Drop for ForecastFollower {
    fn drop(&mut self) {
        self.write();
    }
}

fn runs(node: &NodeStanding) -> bool {
    !matches!(node.health, Health::Down | Health::Cold)
}

fn add_node(region: &mut RegionSample, node: &NodeStanding) {
    let NodeStanding { draining, leaves, ejected, capacity_kbps, load_permille, .. } = node;
    region.load_kbps += *capacity_kbps as f64 * f64::from(*load_permille) / 1_000.0;
    if runs(node) && !draining && !leaves && !ejected {
        region.capacity_kbps += *capacity_kbps as f64;
    }
}

fn log(change: &ForecastChange) {
    let (kind, subject) = (change.forecast.evidence.kind(), &change.forecast.subject);
    if change.is_over {
        tracing::info!(kind, %subject, "warning ended");
        return;
    }
    let (expected_us, evidence) = (change.forecast.expected_us, &change.forecast.evidence);
    let message = match kind {
        "load" => "capacity is expected to be exhausted",
        "decay" => "node decays and is expected to fail",
        _ => "link to the node flaps",
    };
    tracing::warn!(kind, %subject, expected_us, ?evidence, "{message}");
}

#[cfg(test)]
mod tests;
