//! Turns counters and states into metrics.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use evenkeel_api::CredentialEnd;
use evenkeel_config::GatewayConfig;
use evenkeel_control::{ControlError, Handle, LossLevels, NodeName, StatusReport, WorstLoss};
use evenkeel_core::{NodeStanding, SessionStanding};
use evenkeel_group::{Group, GroupOwnership, GroupRole, GroupStatus};
use evenkeel_model::{
    Arm, Impairment, Measures, Metric, NodeId, Op, PathSegment, RepairKind, SessionId,
};
use evenkeel_runtime::RunningGateway;
use evenkeel_slo::{SloStanding, SloWindow};
use evenkeel_telemetry::registry::{Attribute, Count, Histogram, Level};
use evenkeel_telemetry::{Instruments, LevelTable, NodeLevel, NodeLoad, date};

/// Interval at which counters and states are read.
const COUNTERS_EVERY: Duration = Duration::from_secs(1);

/// All sessions are read at every tenth reading of the counters, since that takes longer.
const SESSIONS_EVERY: u32 = 10;

/// Sessions that are read at a time.
const SESSIONS_AT_ONCE: usize = 1_000;

/// Policies are read as often, between two readings of the sessions.
const POLICIES_AT: u32 = 5;

/// Nodes that a reading of `evenkeel.scenario.impaired` names at most: the SDK merges series of a metric beyond 2,000.
const IMPAIRING_NODES_MAX: usize = 32;

/// The name of the nodes beyond them.
const OTHER_NODES: &str = "other";

/// A region and a zone of it, by name; both empty for sessions that no node carries.
type ZonePlace = (Arc<str>, Arc<str>);

/// Turns counters and states into metrics.
pub(super) struct CounterFollower {
    handle: Handle,
    instruments: Arc<Instruments>,
    group: Option<Group>,
    /// Certificates and tokens in use.
    credentials: Vec<CredentialEnd>,
    totals: TotalCounter,
    /// Scenarios that are configured or had sessions.
    scenarios: BTreeSet<Arc<str>>,
    /// The places of all nodes so far.
    places: BTreeSet<ZonePlace>,
    /// Sessions of each node at the last reading of all; `None` before the first.
    sessions_at: Option<BTreeMap<NodeId, u32>>,
    /// Those of the last reading. A reload may remove some.
    slos: Vec<SloStanding>,
}

impl CounterFollower {
    pub(super) fn new(
        handle: Handle,
        instruments: Arc<Instruments>,
        group: Option<Group>,
        credentials: Vec<CredentialEnd>,
    ) -> CounterFollower {
        CounterFollower {
            handle,
            totals: TotalCounter::new(Arc::clone(&instruments)),
            instruments,
            group,
            credentials,
            scenarios: BTreeSet::new(),
            places: BTreeSet::new(),
            sessions_at: None,
            slos: Vec::new(),
        }
    }

    pub(super) async fn follow(&mut self) {
        let mut every = tokio::time::interval(COUNTERS_EVERY);
        for number in (0..SESSIONS_EVERY).cycle() {
            every.tick().await;
            let rarely = async |follower: &mut CounterFollower| match number {
                0 => follower.read_sessions().await,
                POLICIES_AT => follower.read_policies().await,
                _ => Ok(()),
            };
            if self.read().await.is_err() || rarely(self).await.is_err() {
                return;
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
        let mut nodes = Vec::new();
        for node in self.handle.nodes().await? {
            let NodeStanding { hop, health, draining, capacity_kbps, rooms, round_trip, .. } = node;
            let leaving = node.leaves;
            let counted = self.sessions_at.as_ref();
            let load = NodeLoad {
                share: f64::from(node.load_permille) / 1_000.0,
                capacity_kbps,
                rooms,
                sessions: counted.map(|at| at.get(&hop.node).copied().unwrap_or(0)),
                round_trip,
                loss: f64::from(node.loss_ppm) / 1e6,
            };
            let name = names.of_hop(hop);
            self.places.insert((Arc::clone(&name.region), Arc::clone(&name.zone)));
            nodes.push((hop.node, NodeLevel { name, leaving, health, draining, load: Some(load) }));
        }
        self.instruments.nodes().set(nodes);
        let status = self.handle.status().await?;
        self.instruments.level(Level::SessionsActive, status.sessions as f64, &[]);
        self.instruments.level(Level::UplinkSuspect, f64::from(status.uplink_suspect), &[]);
        self.scenarios.extend(status.scenario_traffic.keys().cloned());
        self.set_slos(status.slos.clone());
        self.count(&status);
        if let Some(group) = &self.group {
            self.set_group(group);
        }
        for CredentialEnd { credential, ends } in &self.credentials {
            let day = date(*ends);
            let labels = [(Attribute::Credential, *credential), (Attribute::Ends, &*day)];
            let left = seconds_left(*ends, SystemTime::now());
            self.instruments.level(Level::CredentialExpiry, left, &labels);
        }
        self.handle.kept.report_slow_disk();
        let unwritten = self.handle.unwritten.list();
        for document in self.handle.unwritten.documents() {
            let is_unwritten = unwritten.iter().any(|it| it.document == document);
            let labels = [(Attribute::Document, document)];
            self.instruments.level(Level::DocumentUnwritten, f64::from(is_unwritten), &labels);
        }
        for (reason, refused) in self.handle.tokens_refused.by_reason() {
            self.totals.add(Count::ApiTokensRefused, &[(Attribute::Reason, reason)], refused);
        }
        Ok(())
    }

    fn set_group(&self, group: &Group) {
        let ((role, _), GroupStatus { gateways, warnings, unready, .. }) =
            (group.role(), group.status());
        let owner = group.owner();
        let is_owned = matches!(owner, GroupOwnership::Here | GroupOwnership::Peer(_));
        // A doubting owner may be blocked, too.
        let is_blocked =
            owner == GroupOwnership::Unknown && gateways.iter().any(|it| it.blocked.is_some());
        for (level, value) in [
            (Level::GroupRole, f64::from(role as u32)),
            (Level::GroupWarnings, warnings.len() as f64),
            (Level::GroupUnready, unready as f64),
            (Level::GroupOwned, f64::from(is_owned)),
            (Level::GroupBlocked, f64::from(is_blocked)),
        ] {
            self.instruments.level(level, value, &[]);
        }
        if let Some(lag) = group.lag() {
            self.instruments.level(Level::GroupLag, lag.as_secs_f64(), &[]);
        }
        for other in gateways.iter().filter(|it| !it.here) {
            let labels = [(Attribute::Gateway, &*other.gateway)];
            let is_up = f64::from(other.role != GroupRole::Silent);
            self.instruments.level(Level::GroupMemberUp, is_up, &labels);
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

    /// Reads which revisions of policies are asked.
    async fn read_policies(&self) -> Result<(), ControlError> {
        let mut table = LevelTable::new(Level::PolicyRevision);
        for view in self.handle.policies().await? {
            let candidate = view.status.candidate.map(|candidate| candidate.revision);
            let policy = view.policy.to_string();
            for (arm, revision) in [(Arm::Standing, view.status.active), (Arm::Canary, candidate)] {
                let Some(revision) = revision else { continue };
                let labels = [
                    (Attribute::Policy, &*policy),
                    (Attribute::Arm, arm.name()),
                    (Attribute::Revision, &*revision),
                ];
                table.add(&labels, 1.0);
            }
        }
        self.instruments.replace(table);
        Ok(())
    }

    /// Samples the quality of each session, and counts the sessions of each scenario and node.
    async fn read_sessions(&mut self) -> Result<(), ControlError> {
        let names = self.handle.names();
        let mut counts: BTreeMap<Arc<str>, ScenarioCount> = BTreeMap::new();
        let mut sessions_at: BTreeMap<NodeId, u32> = BTreeMap::new();
        let mut after = SessionId(0);
        loop {
            let sessions = self.handle.sessions_after(after, SESSIONS_AT_ONCE).await?;
            let Some(last) = sessions.last() else { break };
            after = last.state.session;
            for session in sessions {
                let SessionStanding { scenario, hop, measures, plan, impairment, .. } =
                    session.state;
                let place = hop.map_or_else(ZonePlace::default, |hop| {
                    *sessions_at.entry(hop.node).or_default() += 1;
                    let name = names.of_hop(hop);
                    (name.region, name.zone)
                });
                self.sample(labels_of(&scenario, &place), &measures);
                let count = counts.entry(scenario).or_default();
                let [sessions, rungs @ ..] = count.places.entry(place).or_default();
                *sessions += 1;
                if let Some(rung) = plan.rung().checked_sub(1) {
                    rungs[usize::from(rung)] += 1;
                }
                for (op, sessions) in Op::ALL.into_iter().zip(&mut count.actions) {
                    *sessions += u32::from(plan.arg(op) > 0);
                }
                if let Some(Impairment { segment, .. }) = impairment {
                    let is_of_hop = matches!(segment, PathSegment::Leg | PathSegment::Node);
                    let node = hop.filter(|_| is_of_hop).map(|hop| hop.node);
                    *count.impaired.entry((segment, node)).or_default() += 1;
                }
            }
        }
        self.scenarios.extend(counts.keys().cloned());
        self.places.extend(counts.values().flat_map(|count| count.places.keys().cloned()));
        let named = most_impairing(counts.values());
        let mut impairments = LevelTable::new(Level::ScenarioImpaired);
        for scenario in &self.scenarios {
            let ScenarioCount { places, actions, impaired } =
                counts.remove(scenario).unwrap_or_default();
            for place in &self.places {
                let [sessions, rungs @ ..] = places.get(place).copied().unwrap_or_default();
                let labels = labels_of(scenario, place);
                self.instruments.level(Level::ScenarioSessions, f64::from(sessions), &labels);
                let [scenario, region, zone] = labels;
                for (rung, sessions) in (1..=RUNGS).zip(rungs) {
                    let rung = rung.to_string();
                    let labels = [scenario, region, zone, (Attribute::Rung, &rung)];
                    self.instruments.level(Level::ScenarioDegraded, f64::from(sessions), &labels);
                }
            }
            for (op, sessions) in Op::ALL.into_iter().zip(actions) {
                let labels = [(Attribute::Scenario, &**scenario), (Attribute::Op, op.key())];
                self.instruments.level(Level::ScenarioActions, f64::from(sessions), &labels);
            }
            self.add_impaired(&mut impairments, scenario, &impaired, &named);
        }
        self.instruments.replace(impairments);
        self.sessions_at = Some(sessions_at);
        Ok(())
    }

    /// Adds the series of a scenario: of each segment, of each of the `named` nodes, and of the others if they impair sessions.
    fn add_impaired(
        &self,
        table: &mut LevelTable,
        scenario: &str,
        impaired: &BTreeMap<(PathSegment, Option<NodeId>), u32>,
        named: &BTreeSet<NodeId>,
    ) {
        let names = self.handle.names();
        let mut add = |segment: PathSegment, [region, zone, node]: [&str; 3], sessions: u32| {
            let labels = [
                (Attribute::Scenario, scenario),
                (Attribute::Segment, segment.name()),
                (Attribute::Region, region),
                (Attribute::Zone, zone),
                (Attribute::Node, node),
            ];
            table.add(&labels, f64::from(sessions));
        };
        for segment in PathSegment::ALL {
            let of = |node| impaired.get(&(segment, node)).copied().unwrap_or(0);
            add(segment, [""; 3], of(None));
            if !matches!(segment, PathSegment::Leg | PathSegment::Node) {
                continue;
            }
            for node in named {
                let NodeName { node: name, region, zone, .. } = names.of_node(*node);
                add(segment, [&*region, &*zone, &*name], of(Some(*node)));
            }
            let is_other = |node: &NodeId| !named.contains(node);
            let others = impaired
                .iter()
                .filter(|((its, node), _)| *its == segment && node.as_ref().is_some_and(is_other));
            let sessions: u32 = others.map(|(_, sessions)| sessions).sum();
            if sessions > 0 {
                add(segment, ["", "", OTHER_NODES], sessions);
            }
        }
    }

    fn sample(&self, labels: [(Attribute, &str); 3], measures: &Measures) {
        if let Some(r) = measures.measured(Metric::RFactor) {
            self.instruments.value(Histogram::SessionR, f64::from(r) / 100.0, &labels);
        }
        let [scenario, region, zone] = labels;
        // In millionths of packets and of seconds.
        for (metric, histogram, direction) in [
            (Metric::LossUp, Histogram::SessionLoss, "up"),
            (Metric::LossDown, Histogram::SessionLoss, "down"),
            (Metric::JitterUp, Histogram::SessionJitter, "up"),
            (Metric::JitterDown, Histogram::SessionJitter, "down"),
        ] {
            if let Some(value) = measures.measured(metric) {
                let labels = [scenario, region, zone, (Attribute::Direction, direction)];
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
            self.totals.add(count, &[(Attribute::Direction, "up")], up);
            self.totals.add(count, &[(Attribute::Direction, "down")], down);
        }
        self.totals.add(Count::PacketsFromRoute, &[], status.from_route);
        for (scenario, now) in &status.scenario_traffic {
            let scenario = (Attribute::Scenario, &**scenario);
            for (count, direction, total) in [
                (Count::ScenarioPackets, "up", now.packets_up),
                (Count::ScenarioPackets, "down", now.packets_down),
                (Count::ScenarioBytes, "up", now.bytes_up),
                (Count::ScenarioBytes, "down", now.bytes_down),
                (Count::ScenarioLost, "up", now.lost_up),
                (Count::ScenarioLost, "down", now.lost_down),
                (Count::ScenarioRetransmissions, "up", now.requested),
                (Count::ScenarioRetransmissions, "down", now.answered),
            ] {
                self.totals.add(count, &[scenario, (Attribute::Direction, direction)], total);
            }
            for (kind, repairs) in RepairKind::ALL.into_iter().zip(now.repairs) {
                let repair = (Attribute::Repair, kind.name());
                for (count, direction, total) in [
                    (Count::ScenarioRepairPackets, "up", repairs.packets_up),
                    (Count::ScenarioRepairPackets, "down", repairs.packets_down),
                    (Count::ScenarioRepairBytes, "up", repairs.bytes_up),
                    (Count::ScenarioRepairBytes, "down", repairs.bytes_down),
                ] {
                    let labels = [scenario, (Attribute::Direction, direction), repair];
                    self.totals.add(count, &labels, total);
                }
            }
            for (count, total) in [
                (Count::ScenarioCopied, now.bytes_copied),
                (Count::ScenarioCachesRefused, now.caches_refused),
                (Count::ScenarioReplayed, now.replayed),
                (Count::ScenarioRedundancy, now.redundant_bytes),
                (Count::ScenarioRecovered, now.recovered),
                (Count::ScenarioKeyFramesGivenUp, now.key_frames_given_up),
                (Count::ScenarioThinned, now.thinned),
                (Count::ScenarioPoliced, now.policed),
                (Count::ScenarioParity, now.parity_bytes),
                (Count::ScenarioRepaired, now.repaired),
                (Count::ScenarioPaced, now.paced),
            ] {
                self.totals.add(count, &[scenario], total);
            }
        }
        for (&reason, &dropped) in &status.drops {
            self.totals.add(Count::PacketsDropped, &[(Attribute::Reason, reason)], dropped);
        }
        for (&reason, &refused) in &status.messages_refused {
            self.totals.add(Count::NodeMessagesRefused, &[(Attribute::Reason, reason)], refused);
        }
        for (&what, &counted) in &status.quic_counts {
            match what {
                "connections" => {
                    self.instruments.level(Level::QuicConnections, counted as f64, &[]);
                }
                "attached" => self.instruments.level(Level::QuicSessions, counted as f64, &[]),
                what => self.totals.add(Count::QuicCounts, &[(Attribute::Event, what)], counted),
            }
        }
    }
}

/// Counts the increases of totals.
pub(super) struct TotalCounter {
    instruments: Arc<Instruments>,
    /// By the values of all labels.
    before: BTreeMap<(Count, Vec<String>), u64>,
}

impl TotalCounter {
    pub(super) fn new(instruments: Arc<Instruments>) -> TotalCounter {
        TotalCounter { instruments, before: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, count: Count, labels: &[(Attribute, &str)], total: u64) {
        let values = labels.iter().map(|(_, value)| (*value).to_owned()).collect();
        let last = self.before.insert((count, values), total).unwrap_or(0);
        self.instruments.count(count, total.saturating_sub(last), labels);
    }
}

/// The certificates and tokens in use that end.
pub(super) fn credentials(
    settings: &GatewayConfig,
    gateway: &RunningGateway,
    webrtc_certificate_ends: Option<SystemTime>,
) -> Vec<CredentialEnd> {
    let token = settings.index.as_ref().and_then(|index| index.login.ends());
    let all = [
        ("quic-certificate", gateway.quic_certificate_ends()),
        ("webrtc-certificate", webrtc_certificate_ends),
        ("index-token", token),
    ];
    let known = all.into_iter();
    known.filter_map(|(credential, ends)| Some(CredentialEnd { credential, ends: ends? })).collect()
}

/// Whole seconds until the end, negative after it.
fn seconds_left(end: SystemTime, now: SystemTime) -> f64 {
    match end.duration_since(now) {
        Ok(left) => left.as_secs() as f64,
        Err(ended) => -(ended.duration().as_secs() as f64),
    }
}

/// The rungs of a degraded session: its caps are one, and each other action in force is one; `end` is never in force.
const RUNGS: usize = Op::ALL.len() - 3;

/// The sessions of a scenario.
#[derive(Default)]
struct ScenarioCount {
    /// Of each place all sessions, and those on each rung.
    places: BTreeMap<ZonePlace, [u32; 1 + RUNGS]>,
    /// In the order of [`Op::ALL`].
    actions: [u32; Op::ALL.len()],
    /// By the segment, and of a leg or node by the node.
    impaired: BTreeMap<(PathSegment, Option<NodeId>), u32>,
}

/// The nodes that impair most sessions now.
fn most_impairing<'a>(counts: impl Iterator<Item = &'a ScenarioCount>) -> BTreeSet<NodeId> {
    let mut by_node: BTreeMap<NodeId, u32> = BTreeMap::new();
    for ((_, node), sessions) in counts.flat_map(|count| &count.impaired) {
        if let Some(node) = node {
            *by_node.entry(*node).or_default() += sessions;
        }
    }
    let mut nodes: Vec<(NodeId, u32)> = by_node.into_iter().collect();
    nodes.sort_by_key(|(_, sessions)| Reverse(*sessions));
    nodes.into_iter().take(IMPAIRING_NODES_MAX).map(|(node, _)| node).collect()
}

fn labels_of<'a>(scenario: &'a str, (region, zone): &'a ZonePlace) -> [(Attribute, &'a str); 3] {
    [(Attribute::Scenario, scenario), (Attribute::Region, &**region), (Attribute::Zone, &**zone)]
}

/// Measures the losses that were checked.
pub(super) fn measure_losses(instruments: &Instruments, levels: &LossLevels) {
    for worst in &levels.worst {
        let WorstLoss { scope, unplaced_sessions, reduced_sessions, unprotected_rooms } = worst;
        let labels = [(Attribute::Scope, scope.name())];
        instruments.level(Level::LossUnplaced, f64::from(*unplaced_sessions), &labels);
        instruments.level(Level::LossReduced, f64::from(*reduced_sessions), &labels);
        instruments.level(Level::LossUnprotected, f64::from(*unprotected_rooms), &labels);
    }
    instruments.level(Level::RoomsUnprotected, f64::from(levels.rooms_unprotected), &[]);
}

#[cfg(test)]
mod tests;
