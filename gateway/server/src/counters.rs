//! Turns counters and states into metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_control::{ControlError, Handle, ScenarioTraffic, StatusReport};
use evenkeel_core::{NodeStanding, SessionStanding, SloStanding, SloWindow};
use evenkeel_group::Group;
use evenkeel_model::{Measures, Metric, PathSegment, SessionId};
use evenkeel_process::descriptors;
use evenkeel_process::host::{HostReading, ProcessorTime};
use evenkeel_telemetry::registry::{Attribute, Count, Histogram, Level};
use evenkeel_telemetry::{Instruments, NodeLevel, NodeLoad};

/// Interval at which counters and states are read.
const COUNTERS_EVERY: Duration = Duration::from_secs(1);

/// All sessions, and the host, are read at every tenth reading of the counters, since that takes longer.
const SESSIONS_EVERY: u32 = 10;

/// Sessions that are read at a time.
const SESSIONS_AT_ONCE: usize = 1_000;

/// Turns counters and states into metrics.
pub(super) struct CounterFollower {
    handle: Handle,
    instruments: Arc<Instruments>,
    group: Option<Group>,
    /// Compiled plugins, on the disk whose free space is reported.
    cache: Option<PathBuf>,
    before: BTreeMap<(Count, String), u64>,
    traffic: BTreeMap<Arc<str>, ScenarioTraffic>,
    processor: Option<ProcessorTime>,
    /// Scenarios that are configured or had sessions.
    scenarios: BTreeSet<Arc<str>>,
    /// Those of the last reading. A reload may remove some.
    slos: Vec<SloStanding>,
}

impl CounterFollower {
    pub(super) fn new(
        handle: Handle,
        instruments: Arc<Instruments>,
        group: Option<Group>,
        cache: Option<PathBuf>,
    ) -> CounterFollower {
        CounterFollower {
            handle,
            instruments,
            group,
            cache,
            before: BTreeMap::new(),
            traffic: BTreeMap::new(),
            processor: None,
            scenarios: BTreeSet::new(),
            slos: Vec::new(),
        }
    }

    pub(super) async fn follow(&mut self) {
        let mut every = tokio::time::interval(COUNTERS_EVERY);
        for number in (0..SESSIONS_EVERY).cycle() {
            every.tick().await;
            let sessions = async |follower: &mut CounterFollower| match number {
                0 => follower.read_sessions().await,
                _ => Ok(()),
            };
            if self.read().await.is_err() || sessions(self).await.is_err() {
                return;
            }
            if number == 0 {
                let host = HostReading::now(self.cache.as_deref());
                self.set_host(host, descriptors::left());
            }
        }
    }

    /// Reports the state of each policy once before the first event, even without a fault. Later changes come as
    /// events.
    pub(super) async fn begin(&self) {
        for view in self.handle.policies().await.unwrap_or_default() {
            let policy = view.policy.to_string();
            self.instruments.level(Level::PolicyFailing, 0.0, &[(Attribute::Policy, &policy)]);
        }
    }

    /// Reads the current states instead of summing up events, since some events may have been missed.
    async fn read(&mut self) -> Result<(), ControlError> {
        let names = self.handle.names();
        let nodes = self.handle.nodes().await?.into_iter().map(|node| {
            let NodeStanding { hop, health, draining, capacity_kbps, rooms, round_trip, .. } = node;
            let leaving = node.leaves;
            let share = f64::from(node.load_permille) / 1_000.0;
            let load = Some(NodeLoad { share, capacity_kbps, rooms, round_trip });
            let name = names.of_hop(hop);
            (hop.node, NodeLevel { name, leaving, health, draining, load })
        });
        self.instruments.nodes().set(nodes);
        let status = self.handle.status().await?;
        self.instruments.level(Level::SessionsActive, status.sessions as f64, &[]);
        self.instruments.level(Level::UplinkSuspect, f64::from(status.uplink_suspect), &[]);
        self.scenarios.extend(status.scenario_traffic.keys().cloned());
        self.set_slos(status.slos.clone());
        self.count(&status);
        if let Some(group) = &self.group {
            let (role, _) = group.role();
            self.instruments.level(Level::GroupRole, f64::from(role as u32), &[]);
            let warnings = group.status().warnings.len() as f64;
            self.instruments.level(Level::GroupWarnings, warnings, &[]);
        }
        for (reason, refused) in self.handle.tokens_refused.by_reason() {
            self.add(Count::ApiTokensRefused, Attribute::Reason, reason, refused);
        }
        Ok(())
    }

    fn set_host(&mut self, host: HostReading, descriptors_left: Option<u64>) {
        if let Some(now) = host.processor
            && let Some(before) = self.processor.replace(now)
        {
            let ProcessorTime { used, stolen, idle } = now.since(before);
            let share = stolen as f64 / (used + idle).max(1) as f64;
            self.instruments.level(Level::HostSteal, share, &[]);
        }
        for (level, value) in [
            (Level::HostMemory, host.memory_available),
            (Level::HostDisk, host.disk_free),
            (Level::HostDescriptors, descriptors_left),
        ] {
            if let Some(value) = value {
                self.instruments.level(level, value as f64, &[]);
            }
        }
        for (interface, drops) in host.interface_drops {
            self.add(Count::HostDrops, Attribute::Interface, &interface, drops);
        }
    }

    fn set_slos(&mut self, slos: Vec<SloStanding>) {
        let is_gone = |was: &&SloStanding| {
            !slos.iter().any(|it| (&it.scenario, it.slo) == (&was.scenario, was.slo))
        };
        for gone in self.slos.iter().filter(is_gone) {
            let windows = gone.windows.map(|it| SloWindow { burn_rate: None, ..it });
            self.set_slo(&SloStanding { budget: 1.0, windows, ..gone.clone() });
        }
        slos.iter().for_each(|slo| self.set_slo(slo));
        self.slos = slos;
    }

    fn set_slo(&self, standing: &SloStanding) {
        let SloStanding { scenario, slo, budget, windows, .. } = standing;
        let [scenario, slo] = [(Attribute::Scenario, &**scenario), (Attribute::Slo, slo.name())];
        self.instruments.level(Level::SloBudget, *budget, &[scenario, slo]);
        for SloWindow { window, burn_rate, .. } in windows {
            let labels = [scenario, slo, (Attribute::Window, window)];
            self.instruments.level(Level::SloBurnRate, burn_rate.unwrap_or(0.0), &labels);
        }
    }

    /// Samples the quality of each session, and counts the sessions of each scenario.
    async fn read_sessions(&mut self) -> Result<(), ControlError> {
        let mut counts: BTreeMap<Arc<str>, ScenarioCount> = BTreeMap::new();
        let mut after = SessionId(0);
        loop {
            let sessions = self.handle.sessions_after(after, SESSIONS_AT_ONCE).await?;
            let Some(last) = sessions.last() else { break };
            after = last.state.session;
            for session in sessions {
                let SessionStanding { scenario, measures, plan, impairment, .. } = session.state;
                self.sample(&scenario, &measures);
                let count = counts.entry(scenario).or_default();
                count.sessions += 1;
                count.degraded += u32::from(plan.rung() > 0);
                if let Some(impairment) = impairment {
                    count.impaired[impairment.segment as usize] += 1;
                }
            }
        }
        self.scenarios.extend(counts.keys().cloned());
        for scenario in &self.scenarios {
            let ScenarioCount { sessions, degraded, impaired } =
                counts.get(scenario).copied().unwrap_or_default();
            let labels = [(Attribute::Scenario, &**scenario)];
            self.instruments.level(Level::ScenarioSessions, f64::from(sessions), &labels);
            self.instruments.level(Level::ScenarioDegraded, f64::from(degraded), &labels);
            for (segment, impaired) in PathSegment::ALL.into_iter().zip(impaired) {
                let labels = [labels[0], (Attribute::Segment, segment.name())];
                self.instruments.level(Level::ScenarioImpaired, f64::from(impaired), &labels);
            }
        }
        Ok(())
    }

    fn sample(&self, scenario: &str, measures: &Measures) {
        let label = (Attribute::Scenario, scenario);
        if let Some(r) = measures.measured(Metric::RFactor) {
            self.instruments.value(Histogram::SessionR, f64::from(r) / 100.0, &[label]);
        }
        // In millionths of packets and of seconds.
        for (metric, histogram, direction) in [
            (Metric::LossUp, Histogram::SessionLoss, "up"),
            (Metric::LossDown, Histogram::SessionLoss, "down"),
            (Metric::JitterUp, Histogram::SessionJitter, "up"),
            (Metric::JitterDown, Histogram::SessionJitter, "down"),
        ] {
            if let Some(value) = measures.measured(metric) {
                let labels = [label, (Attribute::Direction, direction)];
                self.instruments.value(histogram, f64::from(value) / 1e6, &labels);
            }
        }
    }

    fn count(&mut self, status: &StatusReport) {
        for (count, up, down) in [
            (Count::Packets, status.packets_to_node, status.packets_to_client),
            (Count::Bytes, status.bytes_to_node, status.bytes_to_client),
            (Count::KeyFrameRequests, status.key_frames_to_node, status.key_frames_to_client),
        ] {
            self.add(count, Attribute::Direction, "up", up);
            self.add(count, Attribute::Direction, "down", down);
        }
        for (scenario, now) in &status.scenario_traffic {
            let before = self.traffic.insert(Arc::clone(scenario), *now).unwrap_or_default();
            let scenario = (Attribute::Scenario, &**scenario);
            for (count, direction, now, before) in [
                (Count::ScenarioPackets, "up", now.packets_up, before.packets_up),
                (Count::ScenarioPackets, "down", now.packets_down, before.packets_down),
                (Count::ScenarioBytes, "up", now.bytes_up, before.bytes_up),
                (Count::ScenarioBytes, "down", now.bytes_down, before.bytes_down),
            ] {
                let labels = [scenario, (Attribute::Direction, direction)];
                self.instruments.count(count, now.saturating_sub(before), &labels);
            }
            let copied = now.bytes_copied.saturating_sub(before.bytes_copied);
            self.instruments.count(Count::ScenarioCopied, copied, &[scenario]);
        }
        for (&reason, &dropped) in &status.drops {
            self.add(Count::PacketsDropped, Attribute::Reason, reason, dropped);
        }
        for (&reason, &refused) in &status.messages_refused {
            self.add(Count::NodeMessagesRefused, Attribute::Reason, reason, refused);
        }
        for (&what, &counted) in &status.quic_counts {
            match what {
                "connections" => {
                    self.instruments.level(Level::QuicConnections, counted as f64, &[]);
                }
                "attached" => self.instruments.level(Level::QuicSessions, counted as f64, &[]),
                what => self.add(Count::QuicCounts, Attribute::Event, what, counted),
            }
        }
    }

    fn add(&mut self, count: Count, attribute: Attribute, value: &str, total: u64) {
        let last = self.before.insert((count, value.to_owned()), total).unwrap_or(0);
        self.instruments.count(count, total.saturating_sub(last), &[(attribute, value)]);
    }
}

/// The sessions of a scenario.
#[derive(Clone, Copy, Default)]
struct ScenarioCount {
    sessions: u32,
    degraded: u32,
    /// In the order of [`PathSegment::ALL`].
    impaired: [u32; PathSegment::ALL.len()],
}

#[cfg(test)]
mod tests;
