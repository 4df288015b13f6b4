//! `Control` owns the core: it executes the core's effects through its parts, which keep the state.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_config::{GatewayConfig, NodeConfig};
use evenkeel_core::{Gateway, GatewayEffect, InstalledSession, NodeEffect, NotOpened};
use evenkeel_dataplane::flows::Home;
use evenkeel_dataplane::worker::{
    ClientAddressing, DscpMarks, Install, SessionPorts, SessionState, WorkerCommand,
};
use evenkeel_drivers::{Clock, DriverAction, OpenRequest, WebhookMessage, set};
use evenkeel_model::{CloseReason, CoreEvent, Hop, NodeId, Offer, RoomId, RtcpPort, SessionId};
use evenkeel_process::random::{draw, fill};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::equipment::{Equipment, ListEquipment, equip, has_webhooks, wants_briefs};
use crate::inherited::Inherited;
use crate::messages::ControlError;
use crate::nodes::{
    ListChange, ListedNode, NodeList, NodeListChange, NodeListUpdate, NodeResources, NotListed,
    ReloadReport, region_named,
};
use crate::offers::{OfferInProgress, OfferQueue, OfferReply, OfferedSession, SessionParts};
use crate::policies::PolicyRunner;
use crate::probes::Probes;
use crate::records::Replication;
use crate::registry::{Registered, SessionEntry, SessionRegistry};
use crate::reporting::{GatewayEvent, Reporting};
use crate::signalling::NodeSignalling;
use crate::traces::NodeHook;
use crate::workers::WorkerLines;

/// Limit of pending policy calls about offers. All calls may be of one policy, which must answer the last of them
/// within 2 ms. A plugin that takes 200 µs per call meets that.
const ASKED_AT_ONCE: usize = 8;

/// Maximum offers released per turn of control, so that the turn stays short.
const RELEASED_AT_ONCE: usize = 32;

pub(crate) struct Control {
    pub(crate) settings: Arc<GatewayConfig>,
    pub(crate) gateway: Gateway,
    pub(crate) registry: SessionRegistry,
    pub(crate) workers: WorkerLines,
    pub(crate) signalling: NodeSignalling,
    pub(crate) replication: Replication,
    pub(crate) nodes: NodeResources,
    pub(crate) probes: Probes,
    pub(crate) policies: PolicyRunner,
    pub(crate) reporting: Reporting,
    pub(crate) offers: OfferQueue,
    pub(crate) lifetime: Lifetime,
}

/// Start and end of control.
pub(crate) struct Lifetime {
    pub(crate) started: Instant,
    pub(crate) shutdown_replies: Vec<oneshot::Sender<()>>,
    /// The core has closed all sessions.
    pub(crate) core_finished: bool,
    pub(crate) finished: bool,
    pub(crate) last_reload: Option<(ReloadReport, SystemTime)>,
    /// Shared with [`Handle`](crate::Handle).
    pub(crate) is_replaced: Arc<AtomicBool>,
}

impl Control {
    pub(crate) fn execute(&mut self, output: GatewayEffect, clock: Clock) {
        match output {
            GatewayEffect::Ask(ask) => {
                if let Err((id, fault)) = self.policies.threads.ask(ask) {
                    self.gateway.handle_answer(id, Err(fault), clock.now);
                }
            }
            GatewayEffect::Install(session, offer) => self.install(session, &offer, clock.now),
            // Handled by the restore.
            GatewayEffect::Restore(_) => {}
            GatewayEffect::Open { session, room, hop } => {
                match open_request(&self.registry, &self.nodes, session, room, hop) {
                    Some(request) => {
                        let action = self.signalling.drivers.open(&request, &mut draw, clock);
                        self.act(action);
                    }
                    None => self.gateway.handle_opened(session, hop, Err(NotOpened), clock.now),
                }
            }
            GatewayEffect::CloseAt { session, hop } => {
                let act = self.signalling.drivers.close(session, hop, clock);
                self.act(act);
                self.with_home(session, |home| WorkerCommand::Detach { home, hop });
            }
            GatewayEffect::Reply { offer, result } => {
                if let Some(session) = self.offers.reply(offer, result) {
                    // Fails only if the session has ended.
                    let _ = self.gateway.handle_close(session, Instant::now());
                }
            }
            GatewayEffect::Plan { session, plan } => {
                self.with_home(session, |home| WorkerCommand::Plan { home, plan });
            }
            GatewayEffect::KeyFrame(sessions) => {
                for session in sessions {
                    self.with_home(session, WorkerCommand::KeyFrame);
                }
            }
            GatewayEffect::End { session, reason } => self.end(session, reason),
            GatewayEffect::Node(NodeEffect::Probe { node, sequence }) => {
                self.probes.probe(node, sequence, clock);
            }
            GatewayEffect::Node(NodeEffect::Canary { node, sequence }) => {
                self.probes.send_canary(node, sequence, clock);
            }
            GatewayEffect::Node(NodeEffect::Start(node)) => {
                let trace = self.registry.traces.begin_hook(NodeHook::Start, node);
                self.signalling.start(node, self.nodes.config(node), trace);
            }
            GatewayEffect::Node(NodeEffect::EndStart { node, why }) => {
                self.signalling.end_start(node, self.nodes.config(node), why);
            }
            GatewayEffect::Node(NodeEffect::Stop(node)) => {
                let trace = self.registry.traces.begin_hook(NodeHook::Stop, node);
                self.signalling.stop(node, self.nodes.config(node), trace);
            }
            GatewayEffect::Node(NodeEffect::EndStop(node)) => {
                self.signalling.node_hooks.end_stop(node);
            }
            GatewayEffect::Node(NodeEffect::Forget(node)) => self.forget_node(node),
            GatewayEffect::Rollout(rollout) => {
                self.reporting.send_event(GatewayEvent::Rollout(rollout));
            }
            GatewayEffect::Unload { policy, revision } => {
                self.policies.threads.unload(&policy, revision);
            }
            GatewayEffect::PolicyChanged(policy) => {
                self.policies.threads.keep(&policy, &self.gateway);
                self.replication.note_policy(policy);
            }
            GatewayEffect::Event(event @ CoreEvent::Closed { session, .. }) => {
                self.reporting.close(session, event, &self.registry);
            }
            GatewayEffect::Event(event) => {
                match &event {
                    CoreEvent::Decided { ask, outcome, .. } => {
                        self.policies.threads.note_decided(*ask, outcome);
                    }
                    CoreEvent::Opened { session, .. } => {
                        let mode = self.gateway.views().mode_of(*session);
                        self.reporting.open(&event, mode, &self.registry);
                    }
                    CoreEvent::Start { .. } | CoreEvent::Stop { .. } => {
                        self.nodes.keep_started(&self.gateway);
                    }
                    _ => {}
                }
                self.reporting.send(self.offers.event(event, &self.registry));
            }
            GatewayEffect::Finished => {
                self.lifetime.core_finished = true;
            }
        }
    }

    fn install(&mut self, installed: InstalledSession, offer: &Offer, now: Instant) {
        let session = installed.session;
        let pending = self.offers.in_progress.get_mut(&offer.id);
        let SessionParts { nodes, data, caller, srtp } =
            pending.map(OfferInProgress::take_for_session).unwrap_or_default();
        let registered = self.registry.register(session, offer, nodes, &mut fill);
        if let Some(entry) = self.registry.get_mut(session) {
            entry.data = data;
            srtp.into_iter().for_each(|keying| entry.set_srtp(keying));
            self.registry.note_caller(session, caller.as_ref());
        }
        match registered {
            Ok(Registered { home, client, ports, reached }) => {
                if let Some(pending) = self.offers.in_progress.get_mut(&offer.id) {
                    pending.ingress = Some(reached);
                }
                self.install_at(home, installed, client, ports, None);
            }
            Err(error) => {
                self.note_turned_away(&offer.scenario, &error, now);
                if let Some(pending) = self.offers.in_progress.get_mut(&offer.id) {
                    pending.not_registered = Some(error);
                }
                // The client cannot use the session. The refusal carries the reason.
                let _ = self.gateway.handle_close(session, now);
            }
        }
    }

    /// Gives the session to its worker, with the state that it had in another process.
    pub(crate) fn install_at(
        &mut self,
        home: Home,
        installed: InstalledSession,
        client: ClientAddressing,
        ports: Option<Box<SessionPorts>>,
        state: Option<Box<SessionState>>,
    ) {
        let InstalledSession { session, room: _, route, plan, media, scenario, of_first_packet } =
            installed;
        let scenario = self.settings.scenario(&scenario).map(|(_, scenario)| scenario);
        // The client of a session that a first packet opened has sent.
        let declared = scenario.filter(|_| !of_first_packet);
        let srtp = self.registry.get(session).and_then(SessionEntry::srtp).cloned();
        let install = Install {
            home,
            session,
            media,
            srtp,
            client,
            route,
            plan,
            dscp: scenario.map_or(DscpMarks::default(), |scenario| DscpMarks {
                voice: scenario.dscp.voice,
                video: scenario.dscp.video,
            }),
            ports,
            await_first_packet: declared.is_some_and(|scenario| scenario.await_first_packet),
            await_report: declared.is_some_and(|scenario| scenario.await_report),
            // The state contains the seed.
            seed: if state.is_some() { 0 } else { draw() },
            state,
        };
        self.workers.command(home.worker, WorkerCommand::Install(Box::new(install)));
    }

    /// Executes an effect of the drivers.
    pub(crate) fn act(&mut self, action: Option<DriverAction>) {
        action.iter().for_each(|action| self.reporting.costs.signalled(action));
        match action {
            None => {}
            Some(DriverAction::Sign { worker, node, message, of_sessions: sealed }) => {
                self.workers.command(worker, WorkerCommand::SendSigned { node, message, sealed });
            }
            Some(DriverAction::LimitBundles { worker, node, size_max }) => {
                let name = self.nodes.node_name(node);
                tracing::info!(
                    node = %name,
                    worker,
                    bytes = size_max,
                    "bundle size limit changed"
                );
                self.workers.command(worker, WorkerCommand::LimitBundles { node, size_max });
            }
            Some(DriverAction::Ng { node, datagram }) => self.signalling.send_ng(node, &datagram),
            Some(DriverAction::Post { node, number, hook, body, session, within }) => {
                let trace = session.and_then(|id| self.registry.trace_headers(id));
                self.signalling.post(node, number, WebhookMessage { hook, body, trace }, within);
            }
            Some(DriverAction::Opened { session, hop, leg }) => {
                self.with_home(session, |home| WorkerCommand::Attach { home, hop, leg });
                self.gateway.handle_opened(session, hop, Ok(()), Instant::now());
            }
            Some(DriverAction::Changed { session, hop, leg }) => {
                self.with_home(session, |home| WorkerCommand::Attach { home, hop, leg });
                self.gateway.records().note_session(session);
            }
            Some(DriverAction::Fenced { node, epoch }) => {
                self.replication.fencing.handle_refused(node, epoch);
            }
            Some(DriverAction::Refused { session, hop, unwilling, reason }) => {
                let now = Instant::now();
                let (node, reason) = (hop.node, Box::<str>::from(reason));
                let offer = self.registry.get(session).map(|entry| entry.offer);
                let pending = offer.and_then(|offer| self.offers.in_progress.get_mut(&offer));
                if let Some(pending) = pending {
                    pending.not_opened = Some((node, reason.clone()));
                }
                self.reporting.send_event(GatewayEvent::NotOpened { session, node, reason });
                if unwilling {
                    self.gateway.change_nodes(now, |nodes| nodes.handle_full(hop.node, now));
                }
                self.gateway.handle_opened(session, hop, Err(NotOpened), now);
            }
        }
    }

    fn end(&mut self, session: SessionId, reason: CloseReason) {
        if let Some(entry) = self.registry.remove(session) {
            let home = entry.home;
            self.workers.command(home.worker, WorkerCommand::Remove(home));
        }
        self.offers.idempotency_keys.end_session(session);
        if reason == CloseReason::NotOpened {
            self.reporting.closing.take(session);
        }
    }

    fn with_home(&mut self, session: SessionId, command: impl FnOnce(Home) -> WorkerCommand) {
        if let Some(home) = self.registry.get(session).map(|entry| entry.home) {
            self.workers.command(home.worker, command(home));
        }
    }

    pub(crate) fn offer(
        &mut self,
        mut request: OfferedSession,
        reply: Option<OfferReply>,
        now: Instant,
    ) {
        match self.admit(&mut request) {
            Ok(data) => {
                let offer = self.offers.begin(request, data, reply, now);
                self.gateway.handle_offer(offer, now);
            }
            Err(refusal) => {
                self.note_turned_away(&request.scenario, &refusal, now);
                self.reporting.send_turned_away(&request, &refusal, now);
                if let Some(reply) = reply {
                    let _ = reply.send(Err(refusal));
                }
            }
        }
    }

    /// Checks that a session can be registered. Returns its part of the limit `session_data_mib`.
    fn admit(&self, request: &mut OfferedSession) -> Result<OwnedSemaphorePermit, ControlError> {
        self.admits_client(request)?;
        let nodes = self.find_named(&mut request.nodes)?;
        let data = self.offers.reserve_data(request)?;
        let rtcp_apart = request.media.rtcp == RtcpPort::Own;
        let leaves = |node| self.nodes.leaves(node);
        match self.signalling.drivers.shared_address(&nodes, rtcp_apart, leaves) {
            Some((one, other, address)) => {
                let nodes = [one, other].map(|node| self.nodes.node_name(node));
                Err(ControlError::SharedNodeAddress { nodes, address })
            }
            None => Ok(data),
        }
    }

    /// Finds the nodes at which an offer names the client's addresses. All sessions share the copy of a name in the node
    /// list.
    fn find_named(
        &self,
        named: &mut [(Arc<str>, SocketAddr)],
    ) -> Result<Vec<(NodeId, SocketAddr)>, ControlError> {
        let mut nodes = Vec::new();
        for (name, address) in named {
            let node = self.nodes.node_named(name);
            let node = node.ok_or_else(|| ControlError::UnknownNode((**name).into()))?;
            nodes.push((node, *address));
            if let Some(listed) = self.nodes.config(node) {
                let networks = &self.settings.gateway.node_networks;
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

    /// Releases a few waiting offers. All offers at once would exceed the policies' time budget, and the native
    /// defaults would decide them.
    pub(crate) fn release_some(&mut self) {
        if self.replication.suspension.is_some() {
            return;
        }
        for _ in 0..RELEASED_AT_ONCE {
            if self.gateway.offers_asked() >= ASKED_AT_ONCE {
                return;
            }
            let Some((request, reply)) = self.offers.next_waiting() else { return };
            self.offer(*request, Some(reply), Instant::now());
            self.drain();
            if self.gateway.fails_over() {
                // Each further one would move rooms before inputs are read.
                return;
            }
        }
    }

    /// Applies a list, all or nothing, and emits its event.
    pub(crate) fn list(&mut self, list: &NodeList, now: Instant) -> Result<ListChange, NotListed> {
        let outcome = self.take(list, now);
        if !outcome.as_ref().is_ok_and(ListChange::is_empty) {
            let outcome = outcome.clone();
            let update = NodeListUpdate { by: list.by, forced: list.force, outcome };
            self.reporting.send_event(GatewayEvent::NodeList(update));
        }
        outcome
    }

    /// Sockets are opened last, so that a refused list costs nothing. Control is blocked while many are opened.
    fn take(&mut self, list: &NodeList, now: Instant) -> Result<ListChange, NotListed> {
        let stands = self.nodes.nodes.iter().flatten().filter(|listed| !listed.leaves);
        let stands: Vec<_> = stands.map(|listed| Arc::clone(&listed.node)).collect();
        let held = self.nodes.guard.check(&list.nodes, &stands, now).err();
        if let Some(shrinks) = held.filter(|_| !list.force) {
            return Err(shrinks.into());
        }
        let steps = NodeListChange::of(list, &self.nodes.nodes);
        let (adding, room) = (steps.added.len(), self.gateway.node_table().vacancies(now));
        if adding > room {
            return Err(NotListed::Full { adding, room });
        }
        let equipments = self.equipments(&steps)?;
        match held {
            Some(_) => self.nodes.guard.restart(),
            None => self.nodes.guard.note(stands, now),
        }
        Ok(self.take_steps(steps, equipments, list.within, now))
    }

    /// The resources of added nodes, and of nodes whose agent or canary settings changed, if the existing sockets can
    /// reach all of them.
    fn equipments(&self, steps: &NodeListChange) -> Result<ListEquipment, NotListed> {
        let changed = || steps.changed.iter().map(|(_, node)| &**node);
        let added = || steps.added.iter().map(|node| &**node);
        changed().try_for_each(|node| self.fits(node, false))?;
        added().try_for_each(|node| self.fits(node, true))?;
        let build = |node: &NodeConfig, workers| {
            let unfit = |why: String| NotListed::Unfit { node: Arc::clone(&node.name), why };
            let equipped = equip(&self.settings, node, workers, &mut Inherited::default());
            equipped.map_err(|failure| unfit(failure.to_string()))
        };
        let changed = changed().map(|node| build(node, 0)).collect::<Result<_, _>>()?;
        let workers = self.workers.lines.len();
        let added = added().map(|node| build(node, workers)).collect::<Result<_, _>>()?;
        Ok(ListEquipment { added, changed })
    }

    /// Checks that the existing sockets can reach the node.
    fn fits(&self, node: &NodeConfig, is_new: bool) -> Result<(), NotListed> {
        let name = || Arc::clone(&node.name);
        if !self.settings.regions.contains(&node.region) {
            return Err(NotListed::NewRegion { node: name(), region: Arc::clone(&node.region) });
        }
        let unfit = |why: &str| Err(NotListed::Unfit { node: name(), why: why.to_owned() });
        if node.has_port_legs() && is_new && !self.registry.has_ports_to(node.address) {
            return unfit(
                "open sessions have no ports towards it: ports are reserved only if a node needs them at start; restart the gateway",
            );
        }
        if wants_briefs(node) && !self.registry.briefs {
            return unfit(
                "its driver needs descriptions of sessions, which are kept only if such a node is configured at start; restart the gateway",
            );
        }
        Ok(())
    }

    fn take_steps(
        &mut self,
        steps: NodeListChange,
        equipments: ListEquipment,
        within: Option<Duration>,
        now: Instant,
    ) -> ListChange {
        let (mut change, mut is_known_anew) = (ListChange::default(), false);
        let changing = steps.changed.iter().map(|(_, node)| node);
        if steps.added.iter().chain(changing).any(|node| has_webhooks(node)) {
            self.signalling.start_posting();
        }
        for (id, node) in steps.kept {
            // Cannot fail: the node exists and is being removed.
            let _ = self.gateway.change_nodes(now, |nodes| nodes.handle_node_kept(id, now));
            change.added.push(Arc::clone(&node.name));
            set(&mut self.nodes.nodes, id, Some(ListedNode { node, leaves: false }));
        }
        for ((id, node), equipment) in steps.changed.into_iter().zip(equipments.changed) {
            if let Some(core) = self.core(&node) {
                let _ = self
                    .gateway
                    .change_nodes(now, |nodes| nodes.handle_node_changed(id, core, now));
            }
            let before = self.nodes.config(id).cloned();
            let before = before.as_ref().map(|node| (node.agent.clone(), node.canary));
            if before.as_ref().is_none_or(|(agent, _)| *agent != node.agent) {
                self.probes.set_agent(id, equipment.agent);
                self.gateway.change_nodes(now, |nodes| nodes.handle_agent_lost(id, now));
            }
            if before.is_none_or(|(_, canary)| canary != node.canary) {
                self.probes.set_canary(id, equipment.canary);
            }
            change.changed.push(Arc::clone(&node.name));
            self.reporting.names.change(id, &node);
            is_known_anew = true;
            set(&mut self.nodes.nodes, id, Some(ListedNode { node, leaves: false }));
        }
        // Nodes are added before others are removed, so that displaced rooms can move to the new nodes.
        for (node, equipment) in steps.added.into_iter().zip(equipments.added) {
            let Some(core) = self.core(&node) else { continue };
            // The limit was checked before.
            let Ok(id) = self.gateway.change_nodes(now, |nodes| nodes.handle_node_added(core, now))
            else {
                continue;
            };
            change.added.push(Arc::clone(&node.name));
            if let Some(cell) = self.gateway.board().cell(id) {
                self.reporting.names.come(Hop { node: id, incarnation: cell.incarnation }, &node);
            }
            for old in self.nodes.listed_at(node.address) {
                // Cannot fail: both nodes exist.
                let _ = self.gateway.change_nodes(now, |nodes| nodes.handle_same_machine(id, old));
            }
            let is_old =
                |id: &&NodeId| self.nodes.config(**id).is_some_and(|it| it.name == node.name);
            if let Some(&old) = steps.removed.iter().find(is_old) {
                // Cannot fail: both nodes exist.
                let _ =
                    self.gateway.change_nodes(now, |nodes| nodes.handle_takes_place(id, old, now));
            }
            is_known_anew = true;
            self.equip(id, node, equipment);
        }
        for (id, listed) in (0..).map(NodeId).zip(&mut self.nodes.nodes) {
            let Some(listed) = listed else { continue };
            let is_removed = steps.removed.contains(&id);
            listed.leaves |= is_removed;
            // Nodes that are being removed already get the deadline too.
            if is_removed || listed.leaves && within.is_some() {
                change.removed.push(Arc::clone(&listed.node.name));
                let _ = self
                    .gateway
                    .change_nodes(now, |nodes| nodes.handle_node_removed(id, within, now));
            }
        }
        if is_known_anew {
            self.teach_policies();
        }
        change
    }

    fn core(&mut self, node: &NodeConfig) -> Option<evenkeel_model::NodeSettings> {
        let region = region_named(&self.settings, &node.region).ok()?;
        let zone = self.gateway.zone(&node.zone, region).ok()?;
        Some(node.core(zone))
    }

    /// Releases a node that the core has forgotten.
    pub(crate) fn forget_node(&mut self, id: NodeId) {
        self.signalling.unequip(id);
        self.probes.set_prober(id, None);
        self.probes.set_agent(id, None);
        self.probes.set_canary(id, None);
        set(&mut self.nodes.trunks, id, Vec::new());
        self.workers.command_all(|| WorkerCommand::RemoveNode(id));
        if let Some(listed) = self.nodes.nodes.get_mut(id.0 as usize).and_then(Option::take) {
            let name = Arc::clone(&listed.node.name);
            self.reporting.send_event(GatewayEvent::NodeRemoved { node: id, name });
            self.teach_policies();
        }
    }

    fn teach_policies(&mut self) {
        self.policies.threads.teach(self.nodes.catalog(&self.settings, &self.gateway));
    }

    /// Installs the resources of a node. Its trunks, if they are new, are given to the workers.
    pub(crate) fn equip(&mut self, id: NodeId, node: Arc<NodeConfig>, equipment: Equipment) {
        let Equipment { driver, probe, line, agent, canary, trunks, duplicates } = equipment;
        set(&mut self.nodes.nodes, id, Some(ListedNode { node, leaves: false }));
        self.signalling.equip(id, driver, line);
        self.probes.set_prober(id, probe);
        self.probes.set_agent(id, agent);
        self.probes.set_canary(id, canary);
        set(&mut self.nodes.trunks, id, duplicates);
        for (worker, trunk) in (0..).zip(trunks) {
            self.workers.command(worker, WorkerCommand::AddTrunk { node: id, trunk });
        }
    }
}

fn open_request<'a>(
    registry: &'a SessionRegistry,
    nodes: &NodeResources,
    session: SessionId,
    room: RoomId,
    hop: Hop,
) -> Option<OpenRequest<'a>> {
    let entry = registry.get(session)?;
    let node = nodes.config(hop.node);
    let address = node.and_then(|node| entry.address_at(&node.name));
    Some(OpenRequest {
        session,
        home: entry.home,
        room,
        hop,
        address,
        rtcp_apart: entry.rtcp == RtcpPort::Own,
        client_srtp: entry.client_srtp,
        srtp: node.map(|node| node.srtp).unwrap_or_default(),
        brief: entry.brief(),
    })
}

#[cfg(test)]
mod tests;
