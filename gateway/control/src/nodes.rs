//! The nodes: the listed ones, what was installed to reach them, operators' decisions on them, and what is known of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use evenkeel_config::{GatewayConfig, NodeConfig, NodeSrtp};
use evenkeel_core::{Gateway, GatewayRecord};
use evenkeel_dataplane::worker::TrunkSocket;
use evenkeel_drivers::{Clock, DriverAction, Drivers, NodeInput, set};
use evenkeel_forecast::Forecast;
use evenkeel_model::{
    CatalogEntry, FailureDomain, Hop, Impossible, NodeId, NotStarted, RegionId, RtcpPort, Zone,
    ZoneId,
};
use evenkeel_process::random::draw;
use evenkeel_process::sha256;
use tokio::sync::oneshot;

use crate::equipment::{Equipment, ListEquipment, equip, has_webhooks, node_needs_session_facts};
use crate::inherited::{Inherited, NamedSockets, SocketName};
use crate::messages::{ControlError, ForecastReport, NodeOrder, OrderStep};
use crate::names::NodeNames;
use crate::node_hooks::{HookFailed, NodeHooks};
use crate::node_list::{ListChange, ListedNode, ListedNodes, NodeList, NodeListChange, NotListed};
use crate::operations::{BreakerTarget, Operation, OperationLog, OperationTarget};
use crate::prober::{Mismatch, ProbeResult};
use crate::probes::Probes;
use crate::registry::SessionRegistry;
use crate::reporting::GatewayEvent;
use crate::signalling::NodeSignalling;
use crate::traces::{NodeHook, TraceRegistry};

/// The nodes of this gateway.
pub(crate) struct Nodes {
    listed: ListedNodes,
    names: Arc<NodeNames>,
    drivers: Drivers,
    signalling: NodeSignalling,
    /// Starts and stops of nodes.
    hooks: NodeHooks,
    probes: Probes,
    /// Duplicates of the trunks' sockets, by node and worker.
    trunks: Vec<Vec<OwnedFd>>,
    /// Operators' decisions, which outlive the process.
    operations: OperationLog,
    /// Traces of starts and stops.
    traces: Arc<TraceRegistry>,
    /// The warnings in force.
    forecasts: Vec<Forecast>,
}

/// A list that was applied, and what others do for it.
pub(crate) struct AppliedList {
    pub(crate) change: ListChange,
    /// New trunks, for the workers.
    pub(crate) trunks: Vec<(NodeId, Vec<TrunkSocket>)>,
    /// Policies are told of the nodes.
    pub(crate) changes_catalog: bool,
}

impl Nodes {
    /// No node is listed.
    pub(crate) fn new(
        names: Arc<NodeNames>,
        drivers: Drivers,
        signalling: NodeSignalling,
        hooks: NodeHooks,
        probes: Probes,
        operations: OperationLog,
        traces: Arc<TraceRegistry>,
    ) -> Nodes {
        Nodes {
            listed: ListedNodes::default(),
            names,
            drivers,
            signalling,
            hooks,
            probes,
            trunks: Vec::new(),
            operations,
            traces,
            forecasts: Vec::new(),
        }
    }

    pub(crate) fn listed(&self) -> &ListedNodes {
        &self.listed
    }

    pub(crate) fn signalling(&self) -> &NodeSignalling {
        &self.signalling
    }

    pub(crate) fn drivers(&self) -> &Drivers {
        &self.drivers
    }

    pub(crate) fn drivers_mut(&mut self) -> &mut Drivers {
        &mut self.drivers
    }

    pub(crate) fn probes(&self) -> &Probes {
        &self.probes
    }

    pub(crate) fn operations(&self) -> &OperationLog {
        &self.operations
    }

    pub(crate) fn operations_mut(&mut self) -> &mut OperationLog {
        &mut self.operations
    }

    pub(crate) fn forecasts(&self) -> &[Forecast] {
        &self.forecasts
    }

    /// Installs the resources of a node. Returns its trunks, for the workers.
    pub(crate) fn equip(
        &mut self,
        id: NodeId,
        node: Arc<NodeConfig>,
        equipment: Equipment,
    ) -> Vec<TrunkSocket> {
        let Equipment { probe, agent, canary, trunks, duplicates } = equipment;
        self.drivers.put(id, Some(&node));
        self.signalling.open(id, &node);
        self.listed.put(id, node);
        self.probes.set_prober(id, probe);
        self.probes.set_agent(id, agent);
        self.probes.set_canary(id, canary);
        set(&mut self.trunks, id, duplicates);
        trunks
    }

    /// Releases a node that the core has forgotten. Returns its name, if it was listed.
    pub(crate) fn forget(&mut self, id: NodeId) -> Option<Arc<str>> {
        self.drivers.put(id, None);
        self.hooks.release(id);
        self.signalling.close(id);
        self.probes.set_prober(id, None);
        self.probes.set_agent(id, None);
        self.probes.set_canary(id, None);
        set(&mut self.trunks, id, Vec::new());
        self.listed.take(id).map(|node| Arc::clone(&node.name))
    }

    /// Handles an input of a node's driver.
    pub(crate) fn handle_driver_input(
        &mut self,
        node: NodeId,
        input: NodeInput,
        clock: Clock,
    ) -> Option<DriverAction> {
        self.drivers.handle(node, input, &mut draw, clock)
    }

    /// Checks that the node of a room with this many sessions accepts a further one.
    pub(crate) fn admits_another(&self, hop: Hop, sessions: usize) -> Result<(), ControlError> {
        let node = self.listed.config(hop.node);
        match node.and_then(|node| Some((&node.name, node.driver.sessions_per_room?))) {
            Some((node, most)) if sessions >= most => {
                Err(ControlError::RoomFull { node: (**node).into(), most })
            }
            _ => Ok(()),
        }
    }

    /// Finds the nodes at which an offer names the client's addresses. All sessions share the copy of a name in the node
    /// list.
    pub(crate) fn find_named(
        &self,
        named: &mut [(Arc<str>, SocketAddr)],
        settings: &GatewayConfig,
    ) -> Result<Vec<(NodeId, SocketAddr)>, ControlError> {
        let mut nodes = Vec::new();
        for (name, address) in named {
            let node = self.listed.node_named(name);
            let node = node.ok_or_else(|| ControlError::UnknownNode((**name).into()))?;
            nodes.push((node, *address));
            if let Some(listed) = self.listed.config(node) {
                let networks = &settings.gateway.node_networks;
                let is_own = listed.address.ip().to_canonical() == address.ip().to_canonical();
                if !is_own && !networks.iter().any(|network| network.contains(address.ip())) {
                    let (node, address) = ((**name).into(), *address);
                    return Err(ControlError::OutsideNetworks { node, address });
                }
                *name = Arc::clone(&listed.name);
            }
        }
        Ok(nodes)
    }

    /// Checks that no two nodes share one of the client's addresses.
    pub(crate) fn check_addresses(
        &self,
        nodes: &[(NodeId, SocketAddr)],
        rtcp: RtcpPort,
    ) -> Result<(), ControlError> {
        let leaves = |node| self.listed.leaves(node);
        match self.drivers.shared_address(nodes, rtcp == RtcpPort::Own, leaves) {
            Some((one, other, address)) => {
                let nodes = [one, other].map(|node| self.listed.node_name(node));
                Err(ControlError::SharedNodeAddress { nodes, address })
            }
            None => Ok(()),
        }
    }

    /// Applies a list, all or nothing. Sockets are opened last, so that a refused list costs nothing. Control is blocked while
    /// many are opened.
    pub(crate) fn change_list(
        &mut self,
        list: &NodeList,
        settings: &GatewayConfig,
        registry: &SessionRegistry,
        workers: usize,
        gateway: &mut Gateway,
        now: Instant,
    ) -> Result<AppliedList, NotListed> {
        let held = self.listed.check(&list.nodes, now).err();
        if let Some(shrinks) = held.filter(|_| !list.force) {
            return Err(shrinks.into());
        }
        let steps = self.listed.changes_to(list);
        let (adding, room) = (steps.added.len(), gateway.node_table().vacancies(now));
        if adding > room {
            return Err(NotListed::Full { adding, room });
        }
        let changed = || steps.changed.iter().map(|(_, node)| &**node);
        let added = || steps.added.iter().map(|node| &**node);
        changed().try_for_each(|node| fits(node, false, settings, registry))?;
        added().try_for_each(|node| fits(node, true, settings, registry))?;
        let build = |node: &NodeConfig, workers| {
            let unfit = |why: String| NotListed::Unfit { node: Arc::clone(&node.name), why };
            let equipped = equip(settings, node, workers, &mut Inherited::default());
            equipped.map_err(|failure| unfit(failure.to_string()))
        };
        let changed = changed().map(|node| build(node, 0)).collect::<Result<_, _>>()?;
        let added = added().map(|node| build(node, workers)).collect::<Result<_, _>>()?;
        self.listed.replace(held.is_some(), now);
        let equipments = ListEquipment { added, changed };
        Ok(self.take_steps(steps, equipments, list.within, settings, gateway, now))
    }

    fn take_steps(
        &mut self,
        steps: NodeListChange,
        equipments: ListEquipment,
        within: Option<Duration>,
        settings: &GatewayConfig,
        gateway: &mut Gateway,
        now: Instant,
    ) -> AppliedList {
        let (mut change, mut changes_catalog) = (ListChange::default(), false);
        let mut trunks = Vec::new();
        let changing = steps.changed.iter().map(|(_, node)| node);
        if steps.added.iter().chain(changing).any(|node| has_webhooks(node)) {
            self.signalling.start_posting().into_iter().for_each(|it| self.hooks.set_poster(it));
        }
        for (id, node) in steps.kept {
            // Cannot fail: the node exists and is being removed.
            let _ = gateway.change_nodes(now, |nodes| nodes.handle_node_kept(id, now));
            change.added.push(Arc::clone(&node.name));
            self.listed.put(id, node);
        }
        for ((id, node), equipment) in steps.changed.into_iter().zip(equipments.changed) {
            if let Some(core) = core(&node, settings, gateway) {
                let _ = gateway.change_nodes(now, |nodes| nodes.handle_node_changed(id, core, now));
            }
            let before = self.listed.config(id).cloned();
            let before = before.as_ref().map(|node| (node.agent.clone(), node.canary));
            if before.as_ref().is_none_or(|(agent, _)| *agent != node.agent) {
                self.probes.set_agent(id, equipment.agent);
                gateway.change_nodes(now, |nodes| nodes.handle_agent_lost(id, now));
            }
            if before.is_none_or(|(_, canary)| canary != node.canary) {
                self.probes.set_canary(id, equipment.canary);
            }
            change.changed.push(Arc::clone(&node.name));
            self.names.change(id, &node);
            changes_catalog = true;
            self.listed.put(id, node);
        }
        // Nodes are added before others are removed, so that displaced rooms can move to the new nodes.
        for (node, equipment) in steps.added.into_iter().zip(equipments.added) {
            let Some(core) = core(&node, settings, gateway) else { continue };
            // The limit was checked before.
            let Ok(id) = gateway.change_nodes(now, |nodes| nodes.handle_node_added(core, now))
            else {
                continue;
            };
            change.added.push(Arc::clone(&node.name));
            if let Some(cell) = gateway.board().cell(id) {
                self.names.come(Hop { node: id, incarnation: cell.incarnation }, &node);
            }
            for old in self.listed.listed_at(node.address) {
                // Cannot fail: both nodes exist.
                let _ = gateway.change_nodes(now, |nodes| nodes.handle_same_machine(id, old));
            }
            let is_old =
                |id: &&NodeId| self.listed.config(**id).is_some_and(|it| it.name == node.name);
            if let Some(&old) = steps.removed.iter().find(is_old) {
                // Cannot fail: both nodes exist.
                let _ = gateway.change_nodes(now, |nodes| nodes.handle_takes_place(id, old, now));
            }
            changes_catalog = true;
            trunks.push((id, self.equip(id, node, equipment)));
        }
        for (id, node) in self.listed.begin_removal(&steps.removed) {
            // Nodes that are being removed already get the deadline too.
            if steps.removed.contains(&id) || within.is_some() {
                change.removed.push(Arc::clone(&node.name));
                let _ =
                    gateway.change_nodes(now, |nodes| nodes.handle_node_removed(id, within, now));
            }
        }
        AppliedList { change, trunks, changes_catalog }
    }

    /// Regions, zones and nodes, as policies know them.
    pub(crate) fn catalog(&self, settings: &GatewayConfig, gateway: &Gateway) -> Vec<CatalogEntry> {
        let regions = settings.regions.iter().map(|name| &**name);
        let table = gateway.node_table();
        let zones = table.zones().iter().map(|zone| (zone.region, &*zone.name));
        let listed = table.iter().filter(|node| self.listed.config(node.id).is_some());
        let nodes = listed.map(|node| (node.id, &node.settings));
        evenkeel_policies::catalog(table.home(), regions, zones, nodes)
    }

    pub(crate) fn duplicate_trunks(&self) -> io::Result<NamedSockets> {
        let mut duplicates = NamedSockets::new();
        for (id, ListedNode { node, .. }) in self.listed.iter().filter(|(_, it)| !it.leaves) {
            let trunks = self.trunks.get(id.0 as usize).into_iter().flatten();
            for (worker, trunk) in trunks.enumerate() {
                let (node, address) = (Arc::clone(&node.name), node.address);
                let name = SocketName::Trunk { node, address, worker };
                duplicates.push((name, trunk.try_clone()?));
            }
        }
        Ok(duplicates)
    }

    /// Names the nodes as another process identifies them.
    pub(crate) fn name_nodes(&self, core: &mut GatewayRecord) {
        for node in &mut core.nodes {
            if let Some(listed) = self.listed.config(node.hop.node) {
                node.name = identity(listed).into();
            }
        }
    }

    /// The nodes that stay, by their identities.
    pub(crate) fn by_identity(&self) -> BTreeMap<String, NodeId> {
        let stays = self.listed.iter().filter(|(_, listed)| !listed.leaves);
        stays.map(|(id, listed)| (identity(&listed.node), id)).collect()
    }

    /// Notes forecasts, and tells the core what is expected. Returns the events of warnings that begin or end.
    pub(crate) fn note_forecasts(
        &mut self,
        report: ForecastReport,
        settings: &GatewayConfig,
        gateway: &mut Gateway,
        now: Instant,
    ) -> impl Iterator<Item = GatewayEvent> + use<> {
        let ForecastReport { forecasts, changes, exhausted, expected, decays } = report;
        self.forecasts = forecasts;
        gateway.change_nodes(now, |nodes| {
            decays.iter().for_each(|(node, permille)| nodes.handle_decay(*node, *permille));
        });
        for (region, kbps) in expected {
            if let Ok(region) = region_named(settings, &region) {
                gateway.change_nodes(now, |nodes| nodes.handle_expected_load(region, kbps, now));
            }
        }
        for region in exhausted {
            if let Ok(region) = region_named(settings, &region) {
                gateway.change_nodes(now, |nodes| nodes.handle_exhaustion(region, now));
            }
        }
        changes.into_iter().map(GatewayEvent::Forecast)
    }

    /// Calls the hook that starts the node.
    pub(crate) fn start(&mut self, node: NodeId) {
        let trace = self.traces.begin_hook(NodeHook::Start, node);
        if let Some(listed) = self.listed.config(node)
            && let Some(start) = &listed.start
        {
            self.hooks.start(node, &listed.name, start, draw(), trace);
        }
    }

    pub(crate) fn end_start(&mut self, node: NodeId, why: NotStarted) {
        self.hooks.give_up(node);
        if let Some(listed) = self.listed.config(node)
            && let Some(start) = &listed.start
            && why == NotStarted::Late
        {
            let within = start.within;
            tracing::warn!(node = %listed.name, "node did not answer within {within:?}; start given up");
        }
    }

    /// Calls the hook that stops the node.
    pub(crate) fn stop(&mut self, node: NodeId) {
        let trace = self.traces.begin_hook(NodeHook::Stop, node);
        if let Some(listed) = self.listed.config(node)
            && let Some(start) = &listed.start
        {
            self.hooks.stop(node, &listed.name, start, draw(), trace);
        }
    }

    pub(crate) fn end_stop(&mut self, node: NodeId) {
        self.hooks.end_stop(node);
    }

    /// Returns true for a failure of the node's current start.
    pub(crate) fn is_start_under_way(&self, failed: HookFailed) -> bool {
        self.hooks.is_under_way(failed)
    }

    /// Leaves the programs that started nodes running, for the process that continues the sessions.
    pub(crate) fn leave_running(&mut self) {
        self.hooks.leave_running();
    }

    /// Answers all orders as after their deadline: agents may have executed them.
    pub(crate) fn give_up_orders(&mut self) {
        self.probes.give_up_orders(&self.listed);
    }

    /// Takes the answer of a node, or of the agent beside it. Returns the event of an order.
    pub(crate) fn handle_probe_result(
        &mut self,
        result: ProbeResult,
        gateway: &mut Gateway,
    ) -> Option<GatewayEvent> {
        match result {
            ProbeResult::Evidence { node, evidence, at } => {
                gateway.handle_evidence(node, evidence, at);
            }
            ProbeResult::State { node, beside, load, at } => {
                self.probes.handle_state_report(node, beside, load, gateway, at);
            }
            ProbeResult::Order { node, nonce, outcome } => {
                let answered = self.probes.handle_order_answer(node, nonce, outcome, &self.listed);
                let event = |(order, step)| GatewayEvent::NodeOrdered { node, order, step };
                return answered.map(event);
            }
            ProbeResult::Process { node, nonce, report, at } => {
                self.probes.handle_process(node, nonce, report, gateway, at);
            }
            ProbeResult::Mismatch { node, mismatch } => {
                self.note_mismatch(node, mismatch, Instant::now());
            }
            ProbeResult::Fenced { node, epoch } => self.probes.handle_fenced(node, epoch),
        }
        None
    }

    /// Counts a datagram of a node that was refused.
    pub(crate) fn note_mismatch(&mut self, node: NodeId, mismatch: Mismatch, now: Instant) {
        self.probes.note_mismatch(node, mismatch, &self.listed, now);
    }

    /// Polls the next agents, and repeats or gives up orders; called with each watch.
    pub(crate) fn watch(&mut self) {
        self.probes.ask_agents();
        self.probes.repeat_orders(&self.listed);
    }

    /// Sends an order to the agent of a node; the reply is sent with its answer. Returns the event of an order that is sent.
    pub(crate) fn order(
        &mut self,
        node: &str,
        order: NodeOrder,
        reply: oneshot::Sender<Result<(), ControlError>>,
        now: Instant,
    ) -> Option<GatewayEvent> {
        let Some(node) = self.listed.node_named(node) else {
            // Fails only for a caller that has gone.
            let _ = reply.send(Err(self.no_such_node()));
            return None;
        };
        let is_sent = self.probes.order(node, order, reply, &self.listed, now);
        is_sent.then_some(GatewayEvent::NodeOrdered { node, order, step: OrderStep::Sent })
    }

    /// Executes an operation. Returns the operations that have the same effect at the next process.
    pub(crate) fn operate(
        &self,
        operation: Operation,
        settings: &GatewayConfig,
        gateway: &mut Gateway,
        now: Instant,
    ) -> Result<Vec<Operation>, ControlError> {
        let lasting = self.lasting(operation.clone(), settings, gateway);
        match self.execute(operation, settings, gateway, now) {
            Ok(()) => Ok(lasting),
            Err(reason) => Err(self.why_impossible(reason, None, settings, gateway)),
        }
    }

    /// Moves a room to a node, make-before-break.
    pub(crate) fn move_room(
        &self,
        room: &Arc<str>,
        node: &str,
        settings: &GatewayConfig,
        gateway: &mut Gateway,
        now: Instant,
    ) -> Result<(), ControlError> {
        let node = self.listed.node_named(node).ok_or_else(|| self.no_such_node())?;
        let moved = gateway.handle_move(room, node, now);
        moved.map_err(|reason| self.why_impossible(reason, Some(node), settings, gateway))
    }

    /// Executes the operations of an earlier process on nodes, zones and regions that are still configured, and continues the
    /// nodes that it started.
    pub(crate) fn repeat_operations(
        &mut self,
        settings: &GatewayConfig,
        gateway: &mut Gateway,
        now: Instant,
    ) {
        let mut operations = std::mem::take(&mut self.operations);
        operations.retain(|operation| {
            let executed = self.execute(operation.clone(), settings, gateway, now).is_ok();
            if executed {
                tracing::info!(?operation, "operator's decision continues");
            }
            executed
        });
        self.operations = operations;
        let started = self.operations.started_nodes();
        for node in started.iter().filter_map(|name| self.listed.node_named(name)) {
            gateway.change_nodes(now, |nodes| nodes.handle_started(node));
        }
    }

    /// Keeps the names of the nodes that the gateway has started for the next process.
    pub(crate) fn keep_started(&mut self, gateway: &Gateway) {
        let started = gateway.node_table().iter().filter(|node| node.is_started());
        let names = started.map(|node| self.listed.node_name(node.id)).collect();
        self.operations.keep_started_nodes(names);
    }

    /// Executes an operation.
    fn execute(
        &self,
        operation: Operation,
        settings: &GatewayConfig,
        gateway: &mut Gateway,
        now: Instant,
    ) -> Result<(), Impossible> {
        let node = |name: &str| self.listed.node_named(name).ok_or(Impossible::NoSuchNode);
        match operation {
            Operation::Drain { place: OperationTarget::Node(name), draining, within } => {
                let node = node(&name)?;
                gateway.change_nodes(now, |nodes| nodes.handle_drain(node, draining, within, now))
            }
            Operation::Drain { place: OperationTarget::Region(name), draining, within } => {
                let region = region_named(settings, &name)?;
                let domain = FailureDomain::Region(region);
                gateway.change_nodes(now, |nodes| {
                    nodes.handle_drain_domain(domain, draining, within, now)
                })
            }
            Operation::Drain { place: OperationTarget::Zone(name), draining, within } => {
                let domain = FailureDomain::Zone(self.zone_named(&name, settings, gateway)?);
                gateway.change_nodes(now, |nodes| {
                    nodes.handle_drain_domain(domain, draining, within, now)
                })
            }
            Operation::EjectZone(name) => {
                let zone = self.zone_named(&name, settings, gateway)?;
                gateway.change_nodes(now, |nodes| nodes.handle_eject_zone(zone, now))
            }
            Operation::ReturnZone(name) => {
                let zone = self.zone_named(&name, settings, gateway)?;
                gateway.change_nodes(now, |nodes| nodes.handle_return_zone(zone))
            }
            Operation::Eject(name) => {
                let node = node(&name)?;
                gateway.change_nodes(now, |nodes| nodes.handle_eject(node, now))
            }
            Operation::Return(name) => {
                let node = node(&name)?;
                gateway.change_nodes(now, |nodes| nodes.handle_return(node))
            }
            Operation::Failback(name, failback) => {
                let region = name.map(|name| region_named(settings, &name)).transpose()?;
                gateway.handle_failback(region, failback, now)
            }
            Operation::Breaker(BreakerTarget::Region(name), mode) => {
                let region = region_named(settings, &name)?;
                gateway.hold_breaker(FailureDomain::Region(region), mode, now)
            }
            Operation::Breaker(BreakerTarget::Zone(name), mode) => {
                let zone = self.zone_named(&name, settings, gateway)?;
                gateway.hold_breaker(FailureDomain::Zone(zone), mode, now)
            }
            Operation::Breaker(BreakerTarget::Clients(group), mode) => {
                gateway.hold_client_breaker(&group, mode, now)
            }
            // The log of operations tells the server.
            Operation::LogFilter(_) => Ok(()),
        }
    }

    /// The operations that have the same effect at the next process. An operation on a zone names its region, and the ejection
    /// of a zone is that of each node, which may return alone.
    fn lasting(
        &self,
        operation: Operation,
        settings: &GatewayConfig,
        gateway: &Gateway,
    ) -> Vec<Operation> {
        let found = |name: &str| self.zone_named(name, settings, gateway).ok();
        let of_nodes = |name: &str, of_node: fn(Box<str>) -> Operation| {
            let zone = found(name).map(FailureDomain::Zone).into_iter();
            let nodes = zone.flat_map(|zone| gateway.node_table().in_domain(zone));
            nodes.map(|node| of_node(self.listed.node_name(node.id))).collect()
        };
        let full = |name: Box<str>| match found(&name) {
            None => name,
            Some(id) => {
                let zone = &gateway.node_table().zones()[id.0 as usize];
                let region = &settings.regions[zone.region.0 as usize];
                format!("{region}/{}", zone.name).into()
            }
        };
        match operation {
            Operation::EjectZone(name) => of_nodes(&name, Operation::Eject),
            Operation::ReturnZone(name) => of_nodes(&name, Operation::Return),
            Operation::Drain { place: OperationTarget::Zone(name), draining, within } => {
                vec![Operation::Drain {
                    place: OperationTarget::Zone(full(name)),
                    draining,
                    within,
                }]
            }
            Operation::Breaker(BreakerTarget::Zone(name), mode) => {
                vec![Operation::Breaker(BreakerTarget::Zone(full(name)), mode)]
            }
            other => vec![other],
        }
    }

    fn zone_named(
        &self,
        name: &str,
        settings: &GatewayConfig,
        gateway: &Gateway,
    ) -> Result<ZoneId, Impossible> {
        let (region, zone) = match name.split_once('/') {
            Some((region, zone)) => (Some(region_named(settings, region)?), zone),
            None => (None, name),
        };
        let table = gateway.node_table();
        let zones = (0..).map(ZoneId).zip(table.zones());
        let is_it = |(id, known): &(ZoneId, &Zone)| {
            *known.name == *zone
                && region.is_none_or(|region| region == known.region)
                && table.in_domain(FailureDomain::Zone(*id)).next().is_some()
        };
        let mut found = zones.filter(is_it).map(|(id, _)| id);
        found.next().filter(|_| found.next().is_none()).ok_or(Impossible::NoSuchZone)
    }

    fn no_such_node(&self) -> ControlError {
        let known = self.listed.iter().map(|(_, listed)| (*listed.node.name).into()).collect();
        ControlError::Unfound { reason: Impossible::NoSuchNode, known }
    }

    /// The error of an operation, with the facts that its caller needs.
    fn why_impossible(
        &self,
        reason: Impossible,
        node: Option<NodeId>,
        settings: &GatewayConfig,
        gateway: &Gateway,
    ) -> ControlError {
        match reason {
            Impossible::NoSuchNode => self.no_such_node(),
            Impossible::NoSuchRegion => {
                let regions = settings.regions.iter();
                ControlError::Unfound {
                    reason,
                    known: regions.map(|name| (**name).into()).collect(),
                }
            }
            Impossible::NoSuchZone => {
                let nodes = self.listed.iter().map(|(_, listed)| &listed.node);
                let zones = nodes.map(|node| format!("{}/{}", node.region, node.zone).into());
                let known: BTreeSet<Box<str>> = zones.collect();
                ControlError::Unfound { reason, known: known.into_iter().collect() }
            }
            Impossible::NodeUnfit => {
                let standing =
                    gateway.views().nodes().find(|standing| Some(standing.hop.node) == node);
                standing.map_or(ControlError::Impossible(reason), |standing| ControlError::Unfit {
                    health: standing.health,
                    draining: standing.draining,
                    load_permille: standing.load_permille,
                    capacity_kbps: standing.capacity_kbps,
                })
            }
            reason => ControlError::Impossible(reason),
        }
    }
}

fn core(
    node: &NodeConfig,
    settings: &GatewayConfig,
    gateway: &mut Gateway,
) -> Option<evenkeel_model::NodeSettings> {
    let region = region_named(settings, &node.region).ok()?;
    let zone = gateway.zone(&node.zone, region).ok()?;
    Some(node.core(zone))
}

/// Checks that the existing sockets can reach the node.
fn fits(
    node: &NodeConfig,
    is_new: bool,
    settings: &GatewayConfig,
    registry: &SessionRegistry,
) -> Result<(), NotListed> {
    let name = || Arc::clone(&node.name);
    if !settings.regions.contains(&node.region) {
        return Err(NotListed::NewRegion { node: name(), region: Arc::clone(&node.region) });
    }
    let unfit = |why: &str| Err(NotListed::Unfit { node: name(), why: why.to_owned() });
    if node.has_port_legs() && is_new && !registry.has_ports_to(node.address) {
        return unfit(
            "open sessions have no ports towards it: ports are reserved only if a node needs them at start; restart the gateway",
        );
    }
    if node_needs_session_facts(node) && !registry.keeps_session_facts() {
        return unfit(
            "its driver needs descriptions of sessions, which are kept only if such a node is configured at start; restart the gateway",
        );
    }
    Ok(())
}

fn region_named(settings: &GatewayConfig, name: &str) -> Result<RegionId, Impossible> {
    let place = settings.regions.iter().position(|known| **known == *name);
    place.map(|place| RegionId(place as u32)).ok_or(Impossible::NoSuchRegion)
}

/// The properties of a node on which its sessions depend, as one text. A node of another process with the same text has
/// the sessions of this one.
fn identity(node: &NodeConfig) -> String {
    let driver = node.driver.name;
    let facts = HEXLOWER.encode(&sha256(&node.driver.facts())[..8]);
    let srtp = match node.srtp {
        NodeSrtp::Off => String::new(),
        srtp => format!(" srtp {}", srtp.name()),
    };
    format!("{} {} {driver} {facts}{srtp}", node.name, node.address)
}

#[cfg(test)]
mod tests;
