//! One process: its gateway, and its records as they travel.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_control::{BreakerTarget, Operation, OperationTarget, Operations};
use evenkeel_core::{
    ChangedRecords, Gateway, GatewayEffect, GatewayRecord, RoomRecord, SessionRecord,
};
use evenkeel_instant as instant;
use evenkeel_model::{
    CoreSettings, FailureDomain, Hook, Impossible, MediaDescription, NodeId, PolicyName, RegionId,
    RoomId, SessionId, ZoneId,
};
use evenkeel_nodes::NodeEffect;
use evenkeel_revisions::{LifecycleRecord, PolicyStatus, RolloutRules, WallClock};
use serde::de::DeserializeOwned;

use super::journal::Decisions;

/// Of `evenkeel.toml` and the policy sets.
#[derive(Clone)]
pub(super) struct Configuration {
    pub(super) settings: CoreSettings,
    pub(super) rules: RolloutRules,
}

/// The policies of each gateway.
pub(super) fn policies() -> Vec<PolicyName> {
    let hooks = [("call", Hook::Routing), ("call", Hook::Admission), ("live", Hook::Degradation)];
    hooks.map(|(set, hook)| PolicyName { set: set.into(), hook }).into()
}

/// What a restart finds, as the product writes it: records as JSON, with times that count from the write.
#[derive(Clone, Default)]
pub(super) struct Disk {
    pub(super) policies: BTreeMap<PolicyName, Vec<u8>>,
    pub(super) operations: Operations,
}

/// A part of the records, as it travels to a follower.
pub(super) struct Batch {
    pub(super) number: u64,
    pub(super) whole: bool,
    core: Vec<u8>,
    ended: Vec<SessionId>,
    dissolved: Vec<RoomId>,
    has_nodes: bool,
    operations: Option<Operations>,
    policies: Vec<(PolicyName, Vec<u8>)>,
}

/// Follows the records of the owner.
pub(super) struct Follower {
    pub(super) number: u64,
    pub(super) policies: BTreeSet<PolicyName>,
    /// Nodes and the operations in force are to be sent.
    pub(super) nodes: bool,
    pub(super) whole: bool,
}

/// The records that a follower has.
#[derive(Default)]
pub(super) struct Copy {
    pub(super) whole: bool,
    common: Option<GatewayRecord>,
    rooms: BTreeMap<RoomId, RoomRecord>,
    sessions: BTreeMap<SessionId, (SessionRecord, Arc<MediaDescription>)>,
}

pub(super) struct Process {
    pub(super) gateway: Gateway,
    pub(super) operations: Operations,
    pub(super) sessions: Vec<SessionId>,
}

impl Process {
    pub(super) fn start(configuration: &Configuration, now: Instant) -> Process {
        let mut gateway = Gateway::new(configuration.settings.clone(), now);
        let clock = WallClock { instant: now, time: SystemTime::UNIX_EPOCH };
        for policy in policies() {
            gateway.handle_policy(&policy, configuration.rules.clone(), clock);
        }
        Process { gateway, operations: Operations::default(), sessions: Vec::new() }
    }

    /// Continues what an earlier process wrote. A standby waits for its owner's operations.
    pub(super) fn read(&mut self, disk: &Disk, serves: bool, now: Instant) {
        for (policy, written) in &disk.policies {
            let record = instant::relative_to(now, || serde_json::from_slice(written));
            let record = record.expect("the product reads what it wrote");
            self.gateway.restore_policy(policy, record, |_| true, now);
        }
        if serves {
            self.repeat(&disk.operations, now);
        }
    }

    /// Executes the operations of an earlier process. Those that fail are in force no more.
    pub(super) fn repeat(&mut self, operations: &Operations, now: Instant) {
        for operation in operations.iter() {
            let _ = self.operate(operation.clone(), now);
        }
    }

    pub(super) fn operate(&mut self, operation: Operation, now: Instant) -> Result<(), Impossible> {
        let kept = operation.clone();
        let gateway = &mut self.gateway;
        let node =
            |gateway: &Gateway, name: &str| node_named(gateway, name).ok_or(Impossible::NoSuchNode);
        let region = |name: &str| RegionId(name.parse().expect("regions are numbered"));
        let zone = |name: &str| ZoneId(name.parse().expect("zones are numbered"));
        match operation {
            Operation::Drain { place: OperationTarget::Node(name), draining, within } => {
                let node = node(gateway, &name)?;
                gateway
                    .change_nodes(now, |nodes| nodes.handle_drain(node, draining, within, now))?;
            }
            Operation::Drain { place: OperationTarget::Region(name), draining, within } => {
                gateway.change_nodes(now, |nodes| {
                    nodes.handle_drain_domain(
                        FailureDomain::Region(region(&name)),
                        draining,
                        within,
                        now,
                    )
                })?;
            }
            Operation::Drain { place: OperationTarget::Zone(name), draining, within } => {
                let zone = FailureDomain::Zone(zone(&name));
                gateway.change_nodes(now, |nodes| {
                    nodes.handle_drain_domain(zone, draining, within, now)
                })?;
            }
            Operation::EjectZone(_) | Operation::ReturnZone(_) => {
                unreachable!("they are kept as those of nodes, and not drawn");
            }
            Operation::LogFilter(_) => unreachable!("the worlds have no log"),
            Operation::Eject(name) => {
                let node = node(gateway, &name)?;
                gateway.change_nodes(now, |nodes| nodes.handle_eject(node, now))?;
            }
            Operation::Return(name) => {
                let node = node(gateway, &name)?;
                gateway.change_nodes(now, |nodes| nodes.handle_return(node))?;
            }
            Operation::Failback(name, failback) => {
                gateway.handle_failback(name.map(|name| region(&name)), failback, now)?;
            }
            Operation::Breaker(BreakerTarget::Region(name), mode) => {
                gateway.hold_breaker(FailureDomain::Region(region(&name)), mode, now)?;
            }
            Operation::Breaker(BreakerTarget::Zone(name), mode) => {
                gateway.hold_breaker(FailureDomain::Zone(zone(&name)), mode, now)?;
            }
            Operation::Breaker(BreakerTarget::Clients(group), mode) => {
                gateway.hold_client_breaker(&group, mode, now)?;
            }
        }
        self.operations.add(kept);
        Ok(())
    }

    /// Executes the outputs of the core. Returns the policies whose records changed.
    pub(super) fn settle(&mut self, now: Instant) -> BTreeSet<PolicyName> {
        let mut changed = BTreeSet::new();
        while let Some(output) = self.gateway.poll_output() {
            match output {
                GatewayEffect::Open { session, hop, .. } => {
                    self.gateway.handle_opened(session, hop, Ok(()), now);
                }
                GatewayEffect::Reply { result: Ok(accepted), .. } => {
                    self.sessions.push(accepted.session);
                }
                GatewayEffect::Restore(restored) => self.sessions.push(restored.session),
                GatewayEffect::End { session, .. } => self.sessions.retain(|it| *it != session),
                GatewayEffect::PolicyChanged(policy) => _ = changed.insert(policy),
                GatewayEffect::Node(NodeEffect::Start(node)) => {
                    self.gateway.change_nodes(now, |nodes| nodes.handle_start_failed(node, now));
                }
                _ => {}
            }
        }
        changed
    }

    /// Everything that was decided about policies, nodes and regions.
    pub(super) fn decisions(&self, now: Instant) -> Decisions {
        let mut decisions = Decisions::new();
        for policy in policies() {
            let life = self.gateway.policy(&policy).expect("it was added");
            let PolicyStatus { active, candidate, previous, quarantined, .. } = life.status(now);
            let candidate = candidate.map(|it| (it.revision, it.staged.stage, it.staged.paused));
            if active.is_some() || candidate.is_some() {
                decisions.insert(
                    format!("{policy} revisions"),
                    format!("active {active:?}, candidate {candidate:?}, previous {previous:?}"),
                );
            }
            for harmful in quarantined {
                let revision = harmful.revision;
                let name = format!("{policy} quarantine of {revision}");
                decisions.insert(name, harmful.reason.into());
            }
            let accepted = life.record().remembered.accepted.into_iter();
            let accepted: Vec<_> = accepted.map(|it| it.revision).collect();
            if !accepted.is_empty() {
                decisions.insert(format!("{policy} accepted"), format!("{accepted:?}"));
            }
        }
        for node in self.gateway.views().nodes() {
            let id = node.hop.node;
            let facts = [("drain", node.draining), ("ejection", node.ejected)];
            for (fact, _) in facts.into_iter().filter(|(_, holds)| *holds) {
                decisions.insert(format!("node {id} {fact}"), "yes".to_owned());
            }
        }
        for zone in (0..self.gateway.node_table().zones().len() as u32).map(ZoneId) {
            if self.gateway.node_table().is_drained(FailureDomain::Zone(zone)) {
                decisions.insert(format!("zone {} drain", zone.0), "yes".to_owned());
            }
        }
        for region in self.gateway.views().regions(now) {
            let id = region.region.0;
            if self.gateway.node_table().is_drained(FailureDomain::Region(region.region)) {
                decisions.insert(format!("region {id} drain"), "yes".to_owned());
            }
            let failback = region.failback.name().to_owned();
            decisions.insert(format!("region {id} failback"), failback);
            let mode = region.breaker_mode.name().to_owned();
            decisions.insert(format!("region {id} breaker"), mode);
        }
        decisions
    }

    /// The records of policies, as the disk keeps them.
    pub(super) fn written_policies(&self, now: Instant) -> BTreeMap<PolicyName, Vec<u8>> {
        let written = |policy: PolicyName| {
            let record = self.gateway.policy_record(&policy).expect("it was added");
            let text = instant::relative_to(now, || serde_json::to_vec(&record));
            (policy, text.expect("a record is JSON"))
        };
        policies().into_iter().map(written).collect()
    }

    /// The next batch for a follower, if it lacks something.
    pub(super) fn next_batch(&mut self, follower: &mut Follower, now: Instant) -> Option<Batch> {
        let lacks = follower.nodes || !follower.policies.is_empty() || !follower.whole;
        if !lacks && self.gateway.records().changed() == 0 {
            return None;
        }
        let at_most = Some(if follower.whole { 128 } else { 8 });
        let ChangedRecords { mut core, ended, dissolved, whole } =
            self.gateway.records().take_changed(at_most, now);
        let has_nodes = std::mem::take(&mut follower.nodes);
        if has_nodes {
            let GatewayRecord { rooms, sessions, media, .. } = core;
            core = GatewayRecord { rooms, sessions, media, ..self.gateway.records().of_nodes() };
        }
        let policy = follower.policies.pop_first();
        let record = policy.and_then(|policy| {
            let record = self.gateway.policy_record(&policy)?;
            Some((policy, packed(&record, now)))
        });
        follower.number += 1;
        follower.whole |= whole && follower.policies.is_empty();
        Some(Batch {
            number: follower.number,
            whole: follower.whole,
            core: packed(&core, now),
            ended,
            dissolved,
            has_nodes,
            operations: has_nodes.then(|| self.operations.clone()),
            policies: record.into_iter().collect(),
        })
    }

    /// Takes a batch of the owner, which decides about revisions.
    pub(super) fn follow(&mut self, copy: &mut Copy, batch: Batch, now: Instant) {
        for (policy, record) in &batch.policies {
            let record: LifecycleRecord = unpacked(record, now);
            self.gateway.restore_policy(policy, record, |_| true, now);
        }
        if let Some(operations) = batch.operations.clone() {
            self.operations = operations;
        }
        copy.take(batch, now);
    }

    /// Continues the sessions and nodes of a record.
    pub(super) fn continue_record(&mut self, record: &GatewayRecord, now: Instant) {
        let record: GatewayRecord = unpacked(&packed(record, now), now);
        let known: BTreeMap<Box<str>, NodeId> = (self.gateway.node_table().iter())
            .map(|node| (node.settings.name.clone(), node.id))
            .collect();
        let node = |name: &str| known.get(name).copied();
        self.gateway.handle_record(record, node, now).expect("a record of the product");
        self.gateway.release_rollouts(now);
        self.settle(now);
        self.gateway.settle_restored(now);
    }
}

fn node_named(gateway: &Gateway, name: &str) -> Option<NodeId> {
    gateway.node_table().iter().find(|node| *node.settings.name == *name).map(|node| node.id)
}

impl Copy {
    fn take(&mut self, batch: Batch, now: Instant) {
        let mut core: GatewayRecord = unpacked(&batch.core, now);
        if batch.number == 1 {
            *self = Copy::default();
        }
        self.whole = batch.whole;
        for id in batch.ended {
            self.sessions.remove(&id);
        }
        for id in batch.dissolved {
            self.rooms.remove(&id);
        }
        let rooms = std::mem::take(&mut core.rooms);
        self.rooms.extend(rooms.into_iter().map(|room| (room.id, room)));
        let media = std::mem::take(&mut core.media);
        let sessions = std::mem::take(&mut core.sessions).into_iter();
        self.sessions.extend(sessions.map(|session| {
            let media = Arc::clone(&media[session.media as usize]);
            (session.id, (session, media))
        }));
        if let Some(before) = self.common.take().filter(|_| !batch.has_nodes) {
            core = core.with_nodes_of(before);
        }
        self.common = Some(core);
    }

    /// The record of all that came.
    pub(super) fn into_record(self) -> Option<GatewayRecord> {
        let Copy { common, mut rooms, sessions, .. } = self;
        let mut record = common?;
        for (mut session, media) in sessions.into_values() {
            session.media = record.media.len() as u32;
            record.media.push(media);
            record.sessions.push(session);
        }
        let inhabited: BTreeSet<RoomId> = record.sessions.iter().map(|it| it.room).collect();
        rooms.retain(|id, _| inhabited.contains(id));
        record.rooms = rooms.into_values().collect();
        Some(record)
    }
}

impl Follower {
    /// Gets everything from the beginning.
    pub(super) fn new() -> Follower {
        let policies = policies().into_iter().collect();
        Follower { number: 0, policies, nodes: true, whole: false }
    }

    /// The number of the batch with the last change.
    pub(super) fn last_number(&self, has_changed: bool) -> u64 {
        let batches = self.policies.len().max(usize::from(has_changed || self.nodes));
        self.number + batches as u64
    }
}

/// As records travel.
fn packed(record: &impl serde::Serialize, now: Instant) -> Vec<u8> {
    let packed = instant::relative_to(now, || rmp_serde::to_vec_named(record));
    packed.expect("a vector takes all bytes")
}

/// Times count from the arrival.
fn unpacked<T: DeserializeOwned>(packed: &[u8], now: Instant) -> T {
    let record = instant::relative_to(now, || rmp_serde::from_slice(packed));
    record.expect("the product reads what it wrote")
}

/// Longer than any world.
pub(super) const HOUR: Duration = Duration::from_secs(3_600);
