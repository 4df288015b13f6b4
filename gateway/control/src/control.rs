//! `Control` owns the core: one thread gives it inputs, and executes its effects after each of them through the owners of sessions,
//! nodes, policies and continuity.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use evenkeel_config::{GatewayConfig, PolicySet};
use evenkeel_core::{Gateway, GatewayEffect, InstalledSession, NotOpened};
use evenkeel_dataplane::worker::{MediaDirection, WorkerCommand, WorkerReport, WorkerStats};
use evenkeel_dataplane::{SendLease, quic};
use evenkeel_drivers::{Clock, DriverAction, Drivers, Fencing, NodeInput, Transport};
use evenkeel_dtls::HandshakeFailure;
use evenkeel_http::{Poster, WebhookMessage};
use evenkeel_kept::Store;
use evenkeel_media::srtp::{IndexGrant, SrtpKeys};
use evenkeel_model::{
    CloseReason, CoreEvent, DropReason, Health, NodeId, Offer, RedundancyMode, RoomId, SessionId,
    Stamp,
};
use evenkeel_nodes::{NodeEffect, NodeEvidence};
use evenkeel_policies::{PolicyReport, PolicyThreads};
use evenkeel_process::random::draw;
use evenkeel_revisions::{Lifecycle, WallClock};
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc, oneshot};

use crate::continuity::Continuity;
use crate::equipment::Equipment;
use crate::handle::ControlRequest;
use crate::history::HistoryWriter;
use crate::idempotency::KeyTable as IdempotencyKeys;
use crate::judgements::Judgements;
use crate::lists::{ListCopy, PartialList};
use crate::messages::{
    AdmissionState, ControlError, NotSuspended, REQUESTS_MAX, Slice, SnapshotError, StatusReport,
    TakeoverReadiness,
};
use crate::names::NodeNames;
use crate::node_hooks::{HookFailed, NodeHooks};
use crate::node_list::{ListChange, NodeList, NodeListUpdate, NotListed};
use crate::nodes::{AppliedList, Nodes};
use crate::offers::{OfferReply, OfferedSession};
use crate::operations::OperationLog;
use crate::policies::PolicyRunner;
use crate::prober::{Mismatch, ProbeEvent, ProbeResult};
use crate::probes::Probes;
use crate::records::RecordOwners;
use crate::registry::SessionRegistry;
use crate::reloads::Reloads;
use crate::reporting::{Continuation, EventRecord, GatewayEvent, Reporting};
use crate::sessions::Sessions;
use crate::signalling::NodeSignalling;
use crate::watch_timer::WatchTimer;
use crate::workers::{WorkerLine, WorkerLines};

/// Limit of pending policy calls about offers. All calls may be of one policy, which must answer the last of them
/// within 2 ms. A plugin that takes 200 µs per call meets that.
const ASKED_AT_ONCE: usize = 8;

/// Maximum offers released per turn of control, so that the turn stays short.
const RELEASED_AT_ONCE: usize = 32;

/// Rounds in which the last reports of the workers may change their sessions: one is usual.
const ROUNDS_MAX: usize = 8;

/// Drivers are told of long bundles after this many watches, 30 ms: they probe the paths so often.
const PATHS_EVERY: u64 = 15;

/// Readings of the wall clock are this many watches apart: a second.
const WALL_CLOCK_EVERY: u64 = 500;

/// Reasons of drops that are this gateway's own fault.
const OWN_DROPS: [DropReason; 2] = [DropReason::RingFull, DropReason::BufferFull];

/// Answers of nodes that wait for control, of each kind.
const ANSWERS_MAX: usize = 4_096;

/// The parts of a gateway that control owns or uses.
pub struct ControlParts {
    /// The configuration.
    pub settings: Arc<GatewayConfig>,
    /// The core.
    pub gateway: Gateway,
    /// The packet workers, by number.
    pub workers: Vec<WorkerLine>,
    /// The registry of sessions.
    pub registry: SessionRegistry,
    /// The drivers of the nodes.
    pub drivers: Drivers,
    /// The ownership of a group that nodes are told.
    pub fencing: Arc<Fencing>,
    /// The time until which packets may be sent.
    pub lease: Arc<SendLease>,
    /// The indices of SRTP that a standby allows.
    pub grant: Arc<IndexGrant>,
    /// The configured nodes; their trunks are at the workers.
    pub equipment: Vec<Equipment>,
    /// A node uses a webhook.
    pub posts: bool,
    /// The threads of the policies.
    pub policies: PolicyThreads,
    /// The queue of [`Handle`](crate::Handle).
    pub requests: mpsc::Receiver<ControlRequest>,
    /// Reports of the workers.
    pub reports: mpsc::Receiver<WorkerReport>,
    /// Answers and reports of the policies.
    pub policy_reports: mpsc::Receiver<PolicyReport>,
    /// The channel of events.
    pub events: broadcast::Sender<Arc<EventRecord>>,
    /// The history of sessions.
    pub history: HistoryWriter,
    /// Operators' decisions.
    pub operations: OperationLog,
    /// Documents that outlive the process.
    pub kept: Store,
    /// Names of nodes and regions.
    pub names: Arc<NodeNames>,
    /// Keys of the API, with their answers.
    pub idempotency_keys: Arc<IdempotencyKeys>,
    /// Set when another process has replaced this one.
    pub is_replaced: Arc<AtomicBool>,
    /// Counters of the QUIC endpoint.
    pub quic_counters: Option<Arc<quic::Counters>>,
    /// Counts of the thread of handshakes.
    pub handshakes: Arc<WorkerStats>,
    /// First revisions are being compiled.
    pub awaits_policies: bool,
    /// The start of the gateway.
    pub started: Instant,
}

/// Runs control on the calling thread until shutdown.
pub fn run(parts: ControlParts) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, serve(parts))
}

/// The channels that control reads.
struct ControlInputs {
    requests: mpsc::Receiver<ControlRequest>,
    reports: mpsc::Receiver<WorkerReport>,
    policy_reports: mpsc::Receiver<PolicyReport>,
    probe_events: mpsc::Receiver<ProbeEvent>,
    failed_starts: mpsc::Receiver<HookFailed>,
    /// Of drivers.
    node_inputs: mpsc::Receiver<(NodeId, NodeInput)>,
}

async fn serve(parts: ControlParts) -> std::io::Result<()> {
    // The inputs are dropped before control, so that no policy thread blocks on its reports while control joins these threads.
    let (mut control, mut inputs) = Control::new(parts)?;
    let mut watch = WatchTimer::start();
    while !control.lifetime.has_ended() {
        // The watch comes first, so that a flood of reports cannot delay it. Inputs that have arrived are read before
        // the detector runs.
        tokio::select! {
            biased;
            () = watch.tick() => {
                for _ in 0..inputs.probe_events.len() {
                    inputs.probe_events.try_recv().into_iter().for_each(|event| control.handle_probe(event));
                }
                for _ in 0..inputs.reports.len() {
                    inputs.reports.try_recv().into_iter().for_each(|report| control.handle_report(report));
                }
                if !control.is_in_doubt() {
                    control.watch();
                }
            }
            Some(event) = inputs.probe_events.recv() => control.handle_probe(event),
            Some(report) = inputs.reports.recv() => control.handle_report(report),
            Some((node, input)) = inputs.node_inputs.recv() => {
                let action = control.nodes.handle_driver_input(node, input, Clock::read());
                control.execute_action(action);
            }
            Some(report) = inputs.policy_reports.recv() => {
                control.handle_policy_report(report);
            }
            Some(failed) = inputs.failed_starts.recv() => {
                if control.nodes.is_start_under_way(failed) {
                    let now = Instant::now();
                    control
                        .gateway
                        .change_nodes(now, |nodes| nodes.handle_start_failed(failed.node, now));
                }
            }
            Some(request) = inputs.requests.recv() => {
                control.handle_request(request);
                // A flood of requests delays no list.
                control.sessions.continue_list(&control.gateway);
            }
            // If nothing else waits, the next rooms of dead nodes move, or the next slice of a list is copied. Tasks that read
            // sockets run before. It polls during a failover: batches are 250 µs apart, and tokio's timers 1 ms.
            () = tokio::task::yield_now(), if control.fails_over() => {}
            () = tokio::task::yield_now(), if control.sessions.has_lists() => {
                control.sessions.continue_list(&control.gateway);
            }
        }
        if !control.continuity.is_suspended() && !control.is_in_doubt() {
            control.drain();
            control.release_some();
            control.policies.count_some(&control.gateway);
            let (continuity, mut owners) = control.record_owners();
            continuity.replication().send_changes(&mut owners, Instant::now());
            control.suspend_when_idle(&mut inputs.reports);
        }
        if control.continuity.is_suspended() {
            control.serve_suspended(&mut inputs.requests).await;
            // Answers that came meanwhile are not late.
            while let Ok(report) = inputs.policy_reports.try_recv() {
                control.handle_policy_report(report);
            }
        }
    }
    // The documents of a process that was replaced are those of the next one.
    if !control.continuity.is_suspended() {
        control.judgements.keep_last(&mut control.gateway, Instant::now());
    }
    Ok(())
}

/// How far the gateway is from its end.
enum Lifetime {
    Serving,
    /// The core closes the sessions. Callers wait for the end.
    ShuttingDown(Vec<oneshot::Sender<()>>),
    /// The core has closed all sessions. Their final totals may be missing.
    AllClosed(Vec<oneshot::Sender<()>>),
    Ended,
}

impl Lifetime {
    fn has_ended(&self) -> bool {
        matches!(self, Lifetime::Ended)
    }

    /// The reply is sent at the end.
    fn shut_down(&mut self, reply: oneshot::Sender<()>) {
        match self {
            Lifetime::Serving => *self = Lifetime::ShuttingDown(vec![reply]),
            Lifetime::ShuttingDown(replies) | Lifetime::AllClosed(replies) => replies.push(reply),
            Lifetime::Ended => {}
        }
    }

    fn handle_all_closed(&mut self) {
        if let Lifetime::ShuttingDown(replies) = self {
            *self = Lifetime::AllClosed(std::mem::take(replies));
        }
    }

    /// Ends the gateway once all sessions are closed.
    fn end_closed(&mut self) {
        if let Lifetime::AllClosed(replies) = self {
            // Fails only for a caller that has gone.
            replies.drain(..).for_each(|reply| _ = reply.send(()));
            *self = Lifetime::Ended;
        }
    }
}

/// The owners of a gateway's state.
struct Control {
    settings: Arc<GatewayConfig>,
    gateway: Gateway,
    sessions: Sessions,
    nodes: Nodes,
    policies: PolicyRunner,
    continuity: Continuity,
    reporting: Reporting,
    reloads: Reloads,
    judgements: Judgements,
    started: Instant,
    lifetime: Lifetime,
}

impl Control {
    fn new(parts: ControlParts) -> std::io::Result<(Control, ControlInputs)> {
        let ControlParts { settings, gateway, registry, events, names, fencing, .. } = parts;
        let (probe_sender, probe_events) = mpsc::channel(ANSWERS_MAX);
        // The capacity suffices: there is at most one failure per call, and one call per node.
        let (failed, failed_starts) = mpsc::channel(evenkeel_config::NODES_MAX);
        let (input_sender, node_inputs) = mpsc::channel(ANSWERS_MAX);
        let poster = parts.posts.then(Poster::start).transpose()?;
        let signalling = NodeSignalling::new(poster.clone(), input_sender);
        let hooks = NodeHooks::new(failed, poster, settings.gateway.sandbox);
        let probes = Probes::new(probe_sender, Arc::clone(&fencing));
        let (traces, operations) = (Arc::clone(registry.traces()), parts.operations);
        let rollouts = evenkeel_config::rollout_settings(&settings.sets);
        let session_data = (settings.limits.session_data_mib as usize) << 20;
        let workers = WorkerLines::new(parts.workers, parts.handshakes, parts.quic_counters);
        let judgements = Judgements::new(&parts.kept, Instant::now());
        let mut control = Control {
            sessions: Sessions::new(
                registry,
                workers,
                parts.idempotency_keys,
                session_data,
                parts.awaits_policies,
            ),
            nodes: Nodes::new(
                Arc::clone(&names),
                parts.drivers,
                signalling,
                hooks,
                probes,
                operations,
                traces,
            ),
            policies: PolicyRunner::new(parts.policies, rollouts, events.clone()),
            continuity: Continuity::new(
                fencing,
                parts.lease,
                parts.grant,
                parts.kept,
                parts.is_replaced,
            ),
            reporting: Reporting::new(events, parts.history, names),
            reloads: Reloads::default(),
            judgements,
            started: parts.started,
            lifetime: Lifetime::Serving,
            settings,
            gateway,
        };
        for (id, equipment) in (0..).map(NodeId).zip(parts.equipment) {
            let node = Arc::new(control.settings.nodes[id.0 as usize].clone());
            let trunks = control.nodes.equip(id, node, equipment);
            control.sessions.workers_mut().add_trunks(id, trunks);
        }
        control.continue_kept(Instant::now());
        let inputs = ControlInputs {
            requests: parts.requests,
            reports: parts.reports,
            policy_reports: parts.policy_reports,
            probe_events,
            failed_starts,
            node_inputs,
        };
        Ok((control, inputs))
    }

    /// Continues what an earlier process kept that left no session.
    fn continue_kept(&mut self, now: Instant) {
        self.judgements.restore(&mut self.gateway, now);
        self.nodes.repeat_operations(&self.settings, &mut self.gateway, now);
    }

    /// The owner of the follower of records, and the owners of the records.
    fn record_owners(&mut self) -> (&mut Continuity, RecordOwners<'_>) {
        let owners = RecordOwners {
            settings: &self.settings,
            gateway: &mut self.gateway,
            sessions: &mut self.sessions,
            nodes: &mut self.nodes,
            policies: &mut self.policies,
            history: self.reporting.history().kept(),
        };
        (&mut self.continuity, owners)
    }

    fn execute(&mut self, output: GatewayEffect, clock: Clock) {
        match output {
            GatewayEffect::Ask(ask) => {
                if let Err((id, fault)) = self.policies.threads().ask(ask) {
                    self.gateway.handle_answer(id, Err(fault), clock.now);
                }
            }
            GatewayEffect::Install(session, offer) => self.install(session, &offer, clock.now),
            // Handled by the restore.
            GatewayEffect::Restore(_) => {}
            GatewayEffect::Open { session, room, hop } => {
                let node = self.nodes.listed().config(hop.node).map(|node| &**node);
                match self.sessions.open_request(session, room, hop, node) {
                    Some(request) => {
                        let action = self.nodes.drivers_mut().open(&request, &mut draw, clock);
                        self.execute_action(action);
                    }
                    None => self.gateway.handle_opened(session, hop, Err(NotOpened), clock.now),
                }
            }
            GatewayEffect::CloseAt { session, hop } => {
                let act = self.nodes.drivers_mut().close(session, hop, clock);
                self.execute_action(act);
                self.sessions.command(session, |home| WorkerCommand::Detach { home, hop });
            }
            GatewayEffect::Reply { offer, result } => {
                if let Some(session) = self.sessions.offers_mut().reply(offer, result) {
                    // Fails only if the session has ended.
                    let _ = self.gateway.handle_close(session, Instant::now());
                }
            }
            GatewayEffect::Plan { session, plan: _, limits } => {
                self.sessions.command(session, |home| WorkerCommand::Limit { home, limits });
            }
            GatewayEffect::KeyFrame(sessions) => {
                for session in sessions {
                    self.sessions.command(session, WorkerCommand::KeyFrame);
                }
            }
            GatewayEffect::End { session, reason } => self.end(session, reason),
            GatewayEffect::Node(NodeEffect::Probe { node, sequence }) => {
                self.nodes.probes().probe(node, sequence, clock);
            }
            GatewayEffect::Node(NodeEffect::Canary { node, sequence }) => {
                self.nodes.probes().send_canary(node, sequence, clock);
            }
            GatewayEffect::Node(NodeEffect::Start(node)) => self.nodes.start(node),
            GatewayEffect::Node(NodeEffect::EndStart { node, why }) => {
                self.nodes.end_start(node, why);
            }
            GatewayEffect::Node(NodeEffect::Stop(node)) => self.nodes.stop(node),
            GatewayEffect::Node(NodeEffect::EndStop(node)) => self.nodes.end_stop(node),
            GatewayEffect::Node(NodeEffect::Forget(node)) => self.forget_node(node),
            GatewayEffect::Rollout(rollout) => {
                self.reporting.send_event(GatewayEvent::Rollout(rollout));
            }
            GatewayEffect::Unload { policy, revision } => {
                self.policies.threads_mut().unload(&policy, revision);
            }
            GatewayEffect::PolicyChanged(policy) => {
                self.policies.threads().keep(&policy, &self.gateway);
                self.continuity.replication().note_policy(policy);
            }
            GatewayEffect::Event(event @ CoreEvent::Closed { session, .. }) => {
                if let CoreEvent::Closed { room_name, closed, .. } = &event {
                    let (labels, media) = (&closed.labels, &closed.media);
                    let removed = self.sessions.streams_of(session, room_name, labels, media);
                    let events = removed.into_iter().map(GatewayEvent::StreamRemoved);
                    events.for_each(|event| self.reporting.send_event(event));
                }
                self.reporting.close(session, event, self.sessions.totals(session));
            }
            GatewayEffect::Event(event) => {
                match &event {
                    CoreEvent::Decided { ask, outcome, .. } => {
                        self.policies.threads().note_decided(*ask, outcome);
                    }
                    CoreEvent::Opened { session, .. } => {
                        let mode = self.gateway.views().mode_of(*session);
                        self.reporting.open(&event, mode, self.sessions.transport(*session));
                    }
                    CoreEvent::Start { .. } | CoreEvent::Stop { .. } => {
                        self.nodes.keep_started(&self.gateway);
                    }
                    _ => {}
                }
                let added = match &event {
                    CoreEvent::Opened { session, room_name, .. } => {
                        let streams = self.gateway.views().streams(*session);
                        streams.map_or_else(Vec::new, |(labels, media)| {
                            self.sessions.streams_of(*session, room_name, labels, media)
                        })
                    }
                    _ => Vec::new(),
                };
                self.reporting.send(self.sessions.event(event));
                let events = added.into_iter().map(GatewayEvent::StreamAdded);
                events.for_each(|event| self.reporting.send_event(event));
            }
            GatewayEffect::Finished => self.lifetime.handle_all_closed(),
        }
    }

    fn install(&mut self, installed: InstalledSession, offer: &Offer, now: Instant) {
        let session = installed.session;
        let scenario = self.settings.scenario(&installed.scenario).map(|(_, scenario)| scenario);
        let keeps_ssrc = self.keeps_ssrc(installed.room);
        let (sessions, gateway) = (&mut self.sessions, &self.gateway);
        if let Err(error) = sessions.install(installed, offer, scenario, gateway, keeps_ssrc) {
            self.note_turned_away(&offer.scenario, &error, now);
            // The client cannot use the session. The refusal carries the reason.
            let _ = self.gateway.handle_close(session, now);
        }
    }

    /// Returns true if all nodes of a room's route send streams on with the SSRCs of their senders.
    fn keeps_ssrc(&self, room: RoomId) -> bool {
        self.nodes.listed().keep_ssrc(&self.gateway.views().nodes_of(room))
    }

    /// Executes an effect of the drivers.
    fn execute_action(&mut self, action: Option<DriverAction>) {
        action.iter().for_each(|action| self.reporting.handle_signalled(action));
        match action {
            None => {}
            Some(DriverAction::Send { node, transport, bytes }) => match transport {
                Transport::Trunk { worker, of_sessions: sealed } => {
                    let message = bytes[..].into();
                    self.sessions
                        .workers_mut()
                        .command(worker, WorkerCommand::SendSigned { node, message, sealed });
                }
                Transport::Datagram => self.nodes.signalling().send_datagram(node, &bytes),
                Transport::Post { number, hook, session, within } => {
                    let trace = session.and_then(|id| self.sessions.registry().trace_headers(id));
                    let body = Bytes::from_owner(bytes);
                    let message = WebhookMessage { hook, body, trace };
                    self.nodes.signalling().post(node, number, message, within);
                }
            },
            Some(DriverAction::LimitBundles { worker, node, size_max }) => {
                let name = self.nodes.listed().node_name(node);
                tracing::info!(
                    node = %name,
                    worker,
                    bytes = size_max,
                    "bundle size limit changed"
                );
                self.sessions
                    .workers_mut()
                    .command(worker, WorkerCommand::LimitBundles { node, size_max });
            }
            Some(DriverAction::Opened { session, hop, leg }) => {
                self.sessions.command(session, |home| WorkerCommand::Attach { home, hop, leg });
                self.gateway.handle_opened(session, hop, Ok(()), Instant::now());
            }
            Some(DriverAction::Changed { session, hop, leg }) => {
                self.sessions.command(session, |home| WorkerCommand::Attach { home, hop, leg });
                self.gateway.records().note_session(session);
            }
            Some(DriverAction::Fenced { node, epoch }) => {
                self.continuity.handle_fenced(node, epoch);
            }
            Some(DriverAction::Refused { session, hop, unwilling, reason }) => {
                let now = Instant::now();
                let (node, reason) = (hop.node, Box::<str>::from(reason));
                let refusal = ControlError::NotOpened { node, reason: reason.clone() };
                self.sessions.note_not_opened(session, node, refusal);
                self.reporting.send_event(GatewayEvent::NotOpened { session, node, reason });
                if unwilling {
                    self.gateway.change_nodes(now, |nodes| nodes.handle_full(hop.node, now));
                }
                self.gateway.handle_opened(session, hop, Err(NotOpened), now);
            }
            // Offers of one room that came before a node carried it.
            Some(DriverAction::RoomFull { session, hop }) => {
                if let Err(refusal) = self.nodes.admits_another(hop, usize::MAX) {
                    self.sessions.note_not_opened(session, hop.node, refusal);
                }
                let reason = "the node joins no further session of the room".into();
                let event = GatewayEvent::NotOpened { session, node: hop.node, reason };
                self.reporting.send_event(event);
                self.gateway.handle_room_full(session, hop, Instant::now());
            }
        }
    }

    fn end(&mut self, session: SessionId, reason: CloseReason) {
        self.sessions.end(session);
        if reason == CloseReason::NotOpened {
            self.reporting.handle_not_opened(session);
        }
    }

    fn offer(&mut self, mut request: OfferedSession, reply: Option<OfferReply>, now: Instant) {
        match self.admit(&mut request) {
            Ok(data) => {
                let offer = self.sessions.offers_mut().begin(request, data, reply, now);
                self.gateway.handle_offer(offer, now);
            }
            Err(refusal) => {
                self.note_turned_away(&request.scenario, &refusal, now);
                let event = request.turned_away(&refusal, now);
                event.into_iter().for_each(|event| self.reporting.send(event));
                if let Some(reply) = reply {
                    let _ = reply.send(Err(refusal));
                }
            }
        }
    }

    /// Checks that a session can be registered: a listener takes the client, and the node of its room joins a further session. The
    /// spares of the route would refuse it too, and so leave the route of the sessions that are there. Returns its part of the limit
    /// `session_data_mib`.
    fn admit(&self, request: &mut OfferedSession) -> Result<OwnedSemaphorePermit, ControlError> {
        self.sessions.registry().admits(&request.ingress)?;
        if let Some((sessions, hop)) = self.gateway.views().occupancy(&request.room) {
            self.nodes.admits_another(hop, sessions)?;
        }
        let nodes = self.nodes.find_named(&mut request.nodes, &self.settings)?;
        let data = self.sessions.reserve_data(request)?;
        self.nodes.check_addresses(&nodes, request.media.rtcp)?;
        Ok(data)
    }

    /// Tells the core of a refusal for lack of capacity that it does not see.
    fn note_turned_away(&mut self, scenario: &str, refusal: &ControlError, now: Instant) {
        if matches!(refusal, ControlError::Full | ControlError::SessionDataFull) {
            self.gateway.handle_turned_away(scenario, now);
        }
    }

    /// Releases a few waiting offers. All offers at once would exceed the policies' time budget, and the native
    /// defaults would decide them.
    fn release_some(&mut self) {
        if self.continuity.holds_offers() {
            return;
        }
        for _ in 0..RELEASED_AT_ONCE {
            if self.gateway.offers_asked() >= ASKED_AT_ONCE {
                return;
            }
            let Some((request, reply)) = self.sessions.offers_mut().next_waiting() else { return };
            self.offer(*request, Some(reply), Instant::now());
            self.drain();
            if self.gateway.fails_over() {
                // Each further one would move rooms before inputs are read.
                return;
            }
        }
    }

    /// Applies a list, all or nothing, and emits its event.
    fn list(&mut self, list: &NodeList, now: Instant) -> Result<ListChange, NotListed> {
        let (registry, workers) = (self.sessions.registry(), self.sessions.workers().count());
        let applied =
            self.nodes.change_list(list, &self.settings, registry, workers, &mut self.gateway, now);
        let outcome = applied.map(|AppliedList { change, trunks, changes_catalog }| {
            for (node, trunks) in trunks {
                self.sessions.workers_mut().add_trunks(node, trunks);
            }
            if changes_catalog {
                self.pass_catalog_to_policies();
            }
            change
        });
        if !outcome.as_ref().is_ok_and(ListChange::is_empty) {
            let outcome = outcome.clone();
            let update = NodeListUpdate { by: list.by, forced: list.force, outcome };
            self.reporting.send_event(GatewayEvent::NodeList(update));
        }
        outcome
    }

    /// Releases a node that the core has forgotten.
    fn forget_node(&mut self, id: NodeId) {
        let listed = self.nodes.forget(id);
        self.sessions.workers_mut().command_all(|| WorkerCommand::RemoveNode(id));
        if let Some(name) = listed {
            self.reporting.send_event(GatewayEvent::NodeRemoved { node: id, name });
            self.pass_catalog_to_policies();
        }
    }

    fn pass_catalog_to_policies(&mut self) {
        let catalog = self.nodes.catalog(&self.settings, &self.gateway);
        self.policies.threads_mut().set_catalog(catalog);
    }

    /// Replaces the policy sets. Sessions keep the bit rates, silence and marks with which they were opened. Returns the scenarios that
    /// are gone, with the number of their open rooms.
    fn change_sets(
        &mut self,
        sets: Vec<PolicySet>,
        now: Instant,
    ) -> std::io::Result<BTreeMap<Arc<str>, usize>> {
        self.policies.change_sets(&self.settings.sets, &sets, &mut self.gateway, now)?;
        self.gateway.handle_scenarios(&self.settings.scenarios_of(&sets), now);
        self.settings = Arc::new(GatewayConfig { sets, ..(*self.settings).clone() });
        Ok(self.gateway.retired_scenarios())
    }

    fn handle_policy_report(&mut self, report: PolicyReport) {
        let (threads, gateway) = (self.policies.threads_mut(), &mut self.gateway);
        threads.handle_report(report, gateway, Instant::now());
    }

    /// Executes outputs until there are none left, then wakes the workers that got commands. Returns whether there are
    /// such workers.
    fn drain(&mut self) -> bool {
        let mut clock = Clock::read();
        // The event of a node's death, for example, does not wait until timers have moved rooms.
        self.execute_outputs(clock);
        // Once: further batches of rooms wait until inputs are read, which may report another death.
        self.gateway.handle_timeout(clock.now);
        loop {
            self.execute_outputs(clock);
            clock = Clock::read();
            let Some(action) = self.nodes.drivers_mut().poll(clock) else { break };
            self.execute_action(Some(action));
        }
        self.sessions.workers_mut().wake_workers()
    }

    fn execute_outputs(&mut self, clock: Clock) {
        while let Some(output) = self.gateway.poll_output() {
            self.execute(output, clock);
        }
    }

    /// Rooms of dead nodes wait to be moved, and control may decide.
    fn fails_over(&self) -> bool {
        self.gateway.fails_over() && !self.continuity.is_suspended() && !self.is_in_doubt()
    }

    /// An owner without the lease may have been replaced, for example while it was stopped. Until it knows, control
    /// decides nothing, as if it were stalled: sessions that fell silent here may live at another gateway. One that
    /// hands over or shuts down knows.
    fn is_in_doubt(&self) -> bool {
        self.continuity.lacks_lease() && matches!(self.lifetime, Lifetime::Serving)
    }

    fn handle_probe(&mut self, event: ProbeEvent) {
        if let Some(result) = event.if_current() {
            self.handle_probe_result(result);
        }
    }

    fn handle_probe_result(&mut self, result: ProbeResult) {
        if let ProbeResult::State { node, beside: false, load, at } = &result {
            let clock = Clock { now: *at, ..Clock::read() };
            let sessions = NodeInput::Sessions(load.sessions);
            let action = self.nodes.handle_driver_input(*node, sessions, clock);
            self.execute_action(action);
        }
        let event = self.nodes.handle_probe_result(result, &mut self.gateway);
        event.into_iter().for_each(|event| self.reporting.send_event(event));
    }

    /// Every 2 ms: workers' statistics and timers. Ends control once the core has finished and all sessions' ends were
    /// reported.
    fn watch(&mut self) {
        let mut stamps = vec![Stamp::default(); self.nodes.listed().numbers()];
        let mut late = Duration::ZERO;
        let workers = self.sessions.workers();
        for stats in workers.stats() {
            stats.merge_into(&mut stamps);
            late = late.max(stats.take_lateness(Instant::now()));
        }
        let now = Instant::now();
        let within = workers.stats().map(WorkerStats::sums_up_within).max();
        self.gateway.handle_summaries_within(within.unwrap_or_default());
        // Between two watches the tasks that read answers may not have run.
        for node in self.gateway.node_table().overdue(now) {
            for result in self.nodes.probes().read_waiting(node) {
                self.handle_probe_result(result);
            }
        }
        self.gateway.handle_watch(&stamps, late, now);
        let workers = self.sessions.workers();
        let dropped = OWN_DROPS.map(|reason| workers.sum(|stats| stats.drops(reason)));
        self.gateway.handle_own_drops(dropped.iter().sum(), now);
        let watches = self.nodes.probes().watches();
        if watches.is_multiple_of(PATHS_EVERY) {
            let mut long = Vec::new();
            for (worker, stats) in (0..).zip(self.sessions.workers().stats()) {
                long.extend(stats.take_long().map(|node| (node, worker)));
            }
            for (node, worker) in long {
                let input = NodeInput::LongBundle { worker };
                let action = self.nodes.handle_driver_input(node, input, Clock::read());
                self.execute_action(action);
            }
        }
        if watches.is_multiple_of(WALL_CLOCK_EVERY) {
            self.gateway.handle_wall_clock(WallClock { instant: now, time: SystemTime::now() });
            // The documents may be those of another process.
            if !self.continuity.is_suspended() {
                self.judgements.keep(&mut self.gateway, now);
            }
        }
        self.nodes.watch();
        self.reporting.send_late_closings(now);
        if !self.reporting.awaits_totals() {
            self.lifetime.end_closed();
        }
    }

    fn handle_report(&mut self, report: WorkerReport) {
        let now = Instant::now();
        match report {
            WorkerReport::Refused(node) => {
                self.gateway.handle_evidence(node, NodeEvidence::KernelError, now);
            }
            WorkerReport::Unreadable(node) => {
                self.nodes.note_mismatch(node, Mismatch::Encryption, now);
            }
            WorkerReport::PortClosed { session, hop } => {
                self.gateway.handle_port_closed(session, hop, now);
            }
            WorkerReport::CopiesDiffer { session, hops } => {
                self.gateway.handle_unalike(session, hops, now);
            }
            WorkerReport::StreamRestarted { session, hop } => {
                let input = NodeInput::StreamRestarted { session, hop };
                let action = self.nodes.handle_driver_input(hop.node, input, Clock::read());
                self.execute_action(action);
            }
            WorkerReport::Signed { node, message } => {
                let input = NodeInput::Signed(message);
                let action = self.nodes.handle_driver_input(node, input, Clock::read());
                self.execute_action(action);
            }
            WorkerReport::FirstPacket { listener, source, payload_type } => {
                // The source's next packet is reported again.
                if !self.continuity.holds_offers()
                    && let Some(request) =
                        self.sessions.first_packet(listener, source, payload_type, now)
                {
                    self.offer(request, None, now);
                }
            }
            WorkerReport::Summaries(summaries) => {
                let mut pauses = Vec::new();
                for summary in summaries {
                    self.gateway.handle_summary(
                        summary.session,
                        summary.measures,
                        summary.last_heard,
                    );
                    self.gateway.handle_flow(summary.session, &summary.flow, now);
                    let before = self.sessions.note_totals(summary.session, summary.totals);
                    let Some(before) = before else { continue };
                    let views = self.gateway.views();
                    if let Some((mode, legs)) = views.mode_of(summary.session)
                        && let Some(scenario) = views.scenario_of(summary.session)
                    {
                        let pause = (self.reporting)
                            .handle_summary(&summary, &before, mode, legs, scenario);
                        pauses.extend(pause);
                    }
                }
                if !pauses.is_empty() {
                    self.reporting.send_event(GatewayEvent::MediaPaused(pauses));
                }
            }
            WorkerReport::Shed { session, run } => {
                self.reporting.send_event(GatewayEvent::Shed { session, run });
            }
            WorkerReport::Ended(session, reason) => {
                self.gateway.handle_session_end(session, reason, now);
            }
            WorkerReport::Handshake { session, result } => {
                self.handle_handshake(session, result, now);
            }
            WorkerReport::Removed { session, mode, totals, counts } => {
                self.reporting.handle_removed(session, mode, totals, &counts);
            }
        }
    }

    /// Gives the keys to the session's record and to its worker, or ends the session.
    fn handle_handshake(
        &mut self,
        session: SessionId,
        result: Result<Arc<SrtpKeys>, HandshakeFailure>,
        now: Instant,
    ) {
        if self.sessions.registry().get(session).is_none() {
            return;
        }
        let told = result.as_ref().map(|keys| keys.profile()).map_err(Clone::clone);
        self.reporting.send_event(GatewayEvent::Handshake { session, result: told });
        match result {
            Ok(keys) => {
                self.sessions.set_keys(session, keys);
                self.gateway.records().note_session(session);
            }
            Err(failure) => {
                let reason = match failure {
                    HandshakeFailure::Lost => CloseReason::HandshakeLost,
                    _ => CloseReason::HandshakeFailed,
                };
                self.gateway.handle_session_end(session, reason, now);
            }
        }
    }

    fn handle_request(&mut self, request: ControlRequest) {
        let now = Instant::now();
        // Replies fail only for a caller that has gone.
        match request {
            ControlRequest::Offer(request, reply) => {
                if self.sessions.offers().is_holding() || self.continuity.holds_offers() {
                    self.sessions.offers_mut().hold(request, reply);
                } else {
                    self.offer(*request, Some(reply), now);
                }
            }
            ControlRequest::RestorePolicies(records) => {
                self.policies.restore(records, &mut self.gateway, now);
            }
            ControlRequest::CopyHistory(records, ratings) => {
                self.reporting.history().copy(records, ratings);
            }
            ControlRequest::ReadKept => self.nodes.operations_mut().read(),
            ControlRequest::ReadLateKept => {
                if !self.gateway.has_sessions() {
                    self.judgements.restore(&mut self.gateway, now);
                }
                self.nodes.operations_mut().read();
                self.policies.threads().forget_others();
                self.sessions.idempotency_keys().read_kept();
                self.nodes.repeat_operations(&self.settings, &mut self.gateway, now);
            }
            ControlRequest::KeepAlerts(alerts, reply) => {
                let (done, written) = oneshot::channel();
                let done = move |result| _ = done.send(result);
                self.nodes.operations_mut().keep_alerts(alerts, done);
                let _ = reply.send(written);
            }
            ControlRequest::KeptAlerts(reply) => {
                let _ = reply.send(self.nodes.operations().alerts());
            }
            ControlRequest::PolicyRecords(reply) => {
                _ = reply.send(self.policies.threads().records(&self.gateway));
            }
            ControlRequest::PoliciesKept(reply) => self.policies.threads().await_kept(reply),
            ControlRequest::ConfiguredPolicies(reply) => {
                _ = reply.send(self.policies.threads().configured());
            }
            ControlRequest::PoliciesStand => self.sessions.offers_mut().handle_policies_active(),
            ControlRequest::AwaitPolicies(reply) => {
                self.sessions.offers_mut().await_policies(reply);
            }
            ControlRequest::Close(session, reply) => {
                let closed = self.gateway.handle_close(session, now);
                let _ = reply.send(closed.map_err(ControlError::Impossible));
            }
            ControlRequest::Renegotiate(offer, reply) => {
                let followed = match self.continuity.holds_offers() {
                    true => Err(ControlError::Unavailable),
                    false => {
                        let room = self.gateway.views().room_of(offer.session);
                        let keeps_ssrc = room.is_some_and(|room| self.keeps_ssrc(room));
                        self.sessions.renegotiate(*offer, &mut self.gateway, keeps_ssrc, now)
                    }
                };
                let _ = reply.send(followed.map(|(ingress, events)| {
                    events.into_iter().for_each(|event| self.reporting.send_event(event));
                    ingress
                }));
            }
            #[cfg(feature = "fault-injection")]
            ControlRequest::Panic(session, reply) => {
                let panicking = self.sessions.registry().get(session).map(|_| ());
                self.sessions.command(session, WorkerCommand::Panic);
                let none = ControlError::Impossible(evenkeel_model::Impossible::NoSuchSession);
                let _ = reply.send(panicking.ok_or(none));
            }
            ControlRequest::Move(room, node, reply) => {
                let (settings, gateway) = (&self.settings, &mut self.gateway);
                let _ = reply.send(self.nodes.move_room(&room, &node, settings, gateway, now));
            }
            ControlRequest::Operate(operation, reply) => {
                match self.nodes.operate(operation, &self.settings, &mut self.gateway, now) {
                    Ok(lasting) => {
                        let done = move |written: Result<(), Arc<str>>| {
                            _ = reply.send(written.map_err(ControlError::NotWritten));
                        };
                        self.nodes.operations_mut().keep(lasting, done);
                        self.continuity.replication().note_operation();
                    }
                    Err(refused) => _ = reply.send(Err(refused)),
                }
            }
            ControlRequest::Order(node, order, reply) => {
                let event = self.nodes.order(&node, order, reply, now);
                event.into_iter().for_each(|event| self.reporting.send_event(event));
            }
            ControlRequest::Explain(session, reply) => {
                _ = reply.send(self.gateway.views().explain(session, now));
            }
            ControlRequest::ExplainRoom(room, reply) => {
                _ = reply.send(self.gateway.views().explain_room(&room, now));
            }
            ControlRequest::CreatesRoom(scenario, room, reply) => {
                let _ = reply.send(self.gateway.views().creates_room(&scenario, &room));
            }
            ControlRequest::Regions(reply) => {
                _ = reply.send(self.gateway.views().regions(now).collect());
            }
            ControlRequest::Sessions(after, limit, reply) => {
                let list = PartialList::new(after, limit, reply);
                self.sessions.begin_list(ListCopy::Sessions(list));
            }
            ControlRequest::Session(session, reply) => {
                let standing = self.gateway.views().session(session, now);
                let _ = reply.send(standing.map(|standing| self.sessions.view(standing)));
            }
            ControlRequest::Rooms(after, limit, reply) => {
                let list = PartialList::new(after, limit, reply);
                self.sessions.begin_list(ListCopy::Rooms(list));
            }
            ControlRequest::CopyNodes(reply) => {
                let _ = reply.send(Box::new(self.gateway.records().copy_nodes()));
            }
            ControlRequest::CopyRooms { after, reply } => {
                let _ = reply.send(Slice::of(self.gateway.records().copy_rooms(after, now), |_| 1));
            }
            ControlRequest::CopySessions { after, reply } => {
                let _ = reply.send(Slice::of(self.gateway.records().copy_sessions(after), |_| 1));
            }
            ControlRequest::Nodes(reply) => _ = reply.send(self.gateway.views().nodes().collect()),
            ControlRequest::Govern(rules, reply) => {
                self.policies.threads_mut().govern(*rules, &mut self.gateway, now);
                let _ = reply.send(());
            }
            ControlRequest::NoteReload(report, reply) => {
                if self.reloads.note(&report) {
                    self.reporting.send_event(GatewayEvent::Reload(*report));
                }
                let _ = reply.send(());
            }
            ControlRequest::NoteForecasts(report, reply) => {
                let (settings, gateway) = (&self.settings, &mut self.gateway);
                let events = self.nodes.note_forecasts(*report, settings, gateway, now);
                events.for_each(|event| self.reporting.send_event(event));
                let _ = reply.send(());
            }
            ControlRequest::NoteRefusal(refusal) => {
                self.policies.threads().ledger().refuse(refusal);
            }
            ControlRequest::Refusals(reply) => {
                _ = reply.send(self.policies.threads().ledger().refusals());
            }
            ControlRequest::Policies(reply) => self.policies.view(reply),
            ControlRequest::Recorder(reply) => _ = reply.send(self.policies.threads().recorder()),
            ControlRequest::History(reply) => _ = reply.send(self.reporting.history().history()),
            ControlRequest::Status(reply) => _ = reply.send(self.status(now)),
            ControlRequest::Readiness(reply) => _ = reply.send(self.readiness()),
            ControlRequest::Modes(reply) => {
                let workers = self.sessions.workers();
                let view = |mode| self.reporting.mode_view(mode, &self.gateway, workers);
                let _ = reply.send(RedundancyMode::ALL.into_iter().map(view).collect());
            }
            ControlRequest::Sets(sets, reply) => _ = reply.send(self.change_sets(sets, now)),
            ControlRequest::List(list, reply) => _ = reply.send(self.list(&list, now)),
            ControlRequest::Reload(reload) => self.reloads.pass_on(reload),
            ControlRequest::FollowReloads(reloader) => self.reloads.follow(reloader),
            ControlRequest::Push { reply, .. }
            | ControlRequest::RollOut(.., reply)
            | ControlRequest::ActOnRollout(.., reply)
            | ControlRequest::Rollback(.., reply)
                if self.gateway.holds_rollouts() =>
            {
                let _ = reply.send(Err(ControlError::NotOwner));
            }
            // A further revision would supersede the policy's first one, and then the gateway might refuse it.
            ControlRequest::Push { reply, .. } | ControlRequest::RollOut(.., reply)
                if self.sessions.offers().awaits_policies() =>
            {
                let _ = reply.send(Err(ControlError::Starting));
            }
            // The record of another process would replace the decision.
            ControlRequest::Push { policy, reply, .. }
            | ControlRequest::RollOut(policy, _, reply)
            | ControlRequest::ActOnRollout(policy, _, reply)
            | ControlRequest::Rollback(policy, _, reply)
                if self.policies.threads().is_restoring(&policy) =>
            {
                let _ = reply.send(Err(ControlError::Starting));
            }
            ControlRequest::Push { policy, bytes, settings, push, reply } => {
                match self.policies.pushed(&policy, bytes, settings, push, &self.gateway) {
                    Ok(source) => {
                        self.policies.roll_out(&policy, source, reply, &mut self.gateway);
                    }
                    Err(refused) => _ = reply.send(Err(refused)),
                }
            }
            ControlRequest::RollOut(policy, source, reply) => {
                self.policies.roll_out(&policy, *source, reply, &mut self.gateway);
            }
            ControlRequest::ActOnRollout(policy, action, reply) => {
                let act = |life: &mut Lifecycle| life.handle_action(action, now);
                let _ = reply.send(self.policies.change(&policy, &mut self.gateway, now, act));
            }
            ControlRequest::Rollback(policy, force, reply) => {
                let starting =
                    self.sessions.offers().awaits_policies() && self.policies.is_known(&policy);
                let _ = reply.send(if starting {
                    Err(ControlError::Starting)
                } else {
                    let act = |life: &mut Lifecycle| life.handle_rollback(force, now);
                    self.policies.change(&policy, &mut self.gateway, now, act)
                });
            }
            ControlRequest::Stop(policy, reply) => {
                let stopped = self.policies.threads_mut().stop(&policy);
                let _ = reply.send(stopped.then_some(()).ok_or(ControlError::NoPolicy(policy)));
            }
            ControlRequest::Shutdown(within, done) => {
                self.lifetime.shut_down(done);
                self.gateway.handle_shutdown(within, now);
            }
            ControlRequest::Trunks(reply) => _ = reply.send(self.nodes.duplicate_trunks()),
            ControlRequest::RecordsSent(reply) => {
                let (continuity, mut owners) = self.record_owners();
                let _ = reply.send(continuity.replication().last_change(&mut owners));
            }
            ControlRequest::FollowRecords(hands_over, reply) => {
                let (continuity, mut owners) = self.record_owners();
                let batches = continuity.replication().follow(hands_over, &mut owners, now);
                let _ = reply.send(batches);
            }
            ControlRequest::Suspend(reply) => {
                let awaits_policies = self.sessions.offers().awaits_policies();
                let is_admitting = self.gateway.is_admitting();
                self.continuity.begin_suspension(reply, is_admitting, awaits_policies, now);
            }
            // Packets of a gateway that is not suspended go on.
            ControlRequest::SuspendPackets(reply) => {
                let is_suspended = self.continuity.is_suspended();
                let states = is_suspended.then(|| self.sessions.suspend_packets());
                let _ = reply.send(states.ok_or(NotSuspended::Unavailable));
            }
            ControlRequest::ContinueMedia { states, last } => {
                let (continuity, mut owners) = self.record_owners();
                continuity.continue_media(*states, last, &mut owners);
            }
            ControlRequest::Resume(cause, done) => self.resume(cause, || _ = done.send(())),
            ControlRequest::Restore { snapshot, descriptors, resume, reply } => {
                let (continuity, mut owners) = self.record_owners();
                match (continuity.restore(*snapshot, descriptors, &mut owners), resume) {
                    (Ok(restored), Some(cause)) => {
                        self.resume(cause, || _ = reply.send(Ok(restored)));
                    }
                    (restored, _) => _ = reply.send(restored),
                }
            }
            ControlRequest::Prepare(replica, reply) => {
                let snapshot = Arc::unwrap_or_clone(replica).snapshot();
                let empty = || SnapshotError::malformed("no record of a node came");
                let prepared = snapshot.ok_or_else(empty);
                let (continuity, mut owners) = self.record_owners();
                let prepared = prepared
                    .and_then(|snapshot| continuity.prepare(snapshot, Vec::new(), &mut owners));
                if prepared.is_err() {
                    self.forget_restored();
                }
                let _ = reply.send(prepared);
            }
            ControlRequest::ForgetRestored(done) => {
                self.forget_restored();
                let _ = done.send(());
            }
            // The sessions of a gateway that is not suspended belong to no other process.
            ControlRequest::Release(_) if !self.continuity.is_suspended() => {}
            ControlRequest::Release(done) => {
                self.nodes.give_up_orders();
                self.continuity.note_replaced();
                self.release();
                let _ = done.send(());
            }
            ControlRequest::Abandon(done) => {
                self.release();
                let _ = done.send(());
            }
        }
    }

    /// Suspends the gateway once no offer is in flight, or once the time for offers is over.
    fn suspend_when_idle(&mut self, reports: &mut mpsc::Receiver<WorkerReport>) {
        let is_idle = self.sessions.offers().is_idle();
        if !self.continuity.is_suspension_due(is_idle) {
            return;
        }
        let handed_out = if is_idle {
            self.settle_reports(reports);
            let (continuity, mut owners) = self.record_owners();
            continuity.hand_out(&mut owners)
        } else {
            Err(NotSuspended::Busy)
        };
        if !self.continuity.suspend(handed_out) {
            self.resume(Continuation::Upgrade, || {});
        }
    }

    /// Handles the last reports of the workers, until none of them changes a session.
    fn settle_reports(&mut self, reports: &mut mpsc::Receiver<WorkerReport>) {
        for _ in 0..ROUNDS_MAX {
            while let Ok(report) = reports.try_recv() {
                self.handle_report(report);
            }
            if !self.drain() {
                break;
            }
        }
    }

    /// Handles only requests that end the suspension, among them a shutdown, and the restore. Other requests wait.
    async fn serve_suspended(&mut self, requests: &mut mpsc::Receiver<ControlRequest>) {
        let mut held = Vec::new();
        while !self.lifetime.has_ended() && self.continuity.is_suspended() {
            let request = tokio::select! {
                biased;
                request = requests.recv() => request,
                () = self.continuity.guard_dropped() => {
                    tracing::warn!("the upgrade ended without a result; packets are read again");
                    self.resume(Continuation::Upgrade, || {});
                    continue;
                }
            };
            match request {
                Some(ControlRequest::Offer(offer, reply)) => {
                    self.sessions.offers_mut().hold(offer, reply);
                }
                Some(
                    request @ (ControlRequest::Suspend(_)
                    | ControlRequest::SuspendPackets(_)
                    | ControlRequest::ContinueMedia { .. }
                    | ControlRequest::Resume(..)
                    | ControlRequest::Restore { .. }
                    | ControlRequest::Prepare(..)
                    | ControlRequest::ForgetRestored(_)
                    | ControlRequest::Release(_)
                    | ControlRequest::Abandon(_)),
                ) => self.handle_request(request),
                // Control forgets prepared sessions, since the owner may live, and closes those of an upgrade under way.
                Some(request @ ControlRequest::Shutdown(..)) => {
                    self.forget_restored();
                    if self.continuity.is_suspended() {
                        self.resume(Continuation::Upgrade, || {});
                    }
                    self.handle_request(request);
                }
                Some(other) if held.len() < REQUESTS_MAX => held.push(other),
                // Too many wait: the caller gets an error, as with a full queue.
                Some(_) => {}
                // No caller is left that could end the suspension.
                None => self.lifetime = Lifetime::Ended,
            }
        }
        if !self.lifetime.has_ended() {
            held.into_iter().for_each(|request| self.handle_request(request));
        }
    }

    /// Continues after a suspension, or starts workers that were suspended from the start. `served` is called once
    /// packets are served, before anything is decided. `cause` is that of restored sessions.
    fn resume(&mut self, cause: Continuation, served: impl FnOnce()) {
        let (continuity, mut owners) = self.record_owners();
        continuity.restore_unshared(&mut owners);
        self.resume_packets();
        served();
        self.resume_decisions(cause);
    }

    fn resume_packets(&mut self) {
        let clock = Clock::read();
        // Packets wait. Agents drop those that come before a signed message from the same address. Other drivers have
        // their turn in `drain`, after the core's outputs: a call with sessions that are opened again would be deleted
        // before.
        for node in self.nodes.drivers_mut().announcing() {
            while let Some(action) = self.nodes.drivers_mut().poll_node(node, clock) {
                self.execute_action(Some(action));
                self.sessions.workers_mut().wake_workers();
            }
        }
        self.sessions.workers_mut().command_all(|| WorkerCommand::Resume);
        self.sessions.workers_mut().wake_workers();
    }

    fn resume_decisions(&mut self, cause: Continuation) {
        let is_read = self.nodes.operations_mut().resume();
        self.policies.threads().forget_others();
        // Also those that the owner did not have.
        self.sessions.idempotency_keys().read_kept();
        if self.continuity.is_restored() {
            // Restored nodes are as the operations left them.
            self.nodes.keep_started(&self.gateway);
        } else if is_read {
            self.continue_kept(Instant::now());
        }
        self.gateway.release_rollouts(Instant::now());
        if let Some(since) = self.continuity.restored_since() {
            self.reporting.send_event(self.sessions.continued(cause, since));
        }
        // Some records were sent for the last time.
        let (continuity, mut owners) = self.record_owners();
        continuity.replication().unfollow(&mut owners);
        if let Some(effects) = continuity.end_suspension() {
            let clock = Clock::read();
            effects.into_iter().for_each(|effect| self.execute(effect, clock));
            self.gateway.settle_restored(clock.now);
        }
    }

    /// Forgets prepared sessions of a process that goes on, and ends the suspension.
    fn forget_restored(&mut self) {
        let (continuity, mut owners) = self.record_owners();
        let effects = continuity.forget_restored(&mut owners);
        let clock = Clock::read();
        effects.into_iter().for_each(|effect| self.execute(effect, clock));
    }

    /// Ends control; another process has the sessions. Callers that wait get an error.
    fn release(&mut self) {
        self.reporting.send_all_closings();
        self.nodes.leave_running();
        self.sessions.offers_mut().drop_waiting();
        self.lifetime = Lifetime::Ended;
    }

    fn readiness(&self) -> TakeoverReadiness {
        let mut nodes = self.gateway.views().nodes().peekable();
        let is_empty = nodes.peek().is_none();
        let living: Vec<u64> = (nodes
            .filter(|node| node.health != Health::Down && !node.draining && !node.ejected))
        .map(|node| node.capacity_kbps)
        .collect();
        let not_loaded = self.policies.threads().not_loaded();
        TakeoverReadiness {
            has_node: is_empty || !living.is_empty(),
            capacity_kbps: living.iter().fold(0, |sum: u64, kbps| sum.saturating_add(*kbps)),
            sessions_max: self.settings.limits.sessions as usize,
            not_loaded: not_loaded
                .map(|(policy, revision)| (policy.clone(), Arc::clone(revision)))
                .collect(),
        }
    }

    fn status(&self, now: Instant) -> StatusReport {
        use MediaDirection::{ToClient, ToNode};
        let (workers, registry) = (self.sessions.workers(), self.sessions.registry());
        let drops = DropReason::ALL.into_iter().filter_map(|reason| {
            let sum = workers.sum(|stats| stats.drops(reason));
            (sum > 0).then_some((reason.name(), sum))
        });
        let mut scenario_traffic = self.reporting.scenario_traffic();
        for (scenario, _) in self.gateway.scenarios() {
            scenario_traffic.entry(Arc::clone(scenario)).or_default();
        }
        StatusReport {
            state: match (self.gateway.is_admitting(), self.sessions.offers().awaits_policies()) {
                (true, true) => AdmissionState::Starting,
                (true, false) => AdmissionState::Serving,
                (false, _) => AdmissionState::Draining,
            },
            version: env!("CARGO_PKG_VERSION"),
            region: Arc::clone(&self.settings.gateway.region),
            uptime_ms: now.saturating_duration_since(self.started).as_millis() as u64,
            last_reload: self.reloads.last().cloned(),
            sessions: self.gateway.live(),
            rooms: self.gateway.standing_rooms(),
            uplink_suspect: self.gateway.node_table().doubts_uplink(),
            policies_failing: self.policies.failing(&self.gateway, now),
            slos: self.gateway.views().slos(now).collect(),
            client_breakers: self.gateway.views().client_breakers(now).collect(),
            provider_breakers: self.gateway.views().provider_breakers(now).collect(),
            forecasts: self.nodes.forecasts().to_vec(),
            packets_to_node: workers.sum(|stats| stats.packets(ToNode)),
            packets_to_client: workers.sum(|stats| stats.packets(ToClient)),
            bytes_to_node: workers.sum(|stats| stats.bytes(ToNode)),
            bytes_to_client: workers.sum(|stats| stats.bytes(ToClient)),
            key_frames_to_node: workers.sum(|stats| stats.key_frames(ToNode)),
            key_frames_to_client: workers.sum(|stats| stats.key_frames(ToClient)),
            from_route: workers.sum(WorkerStats::from_route),
            scenario_traffic,
            drops: drops.collect(),
            messages_refused: self.nodes.probes().messages_refused(),
            udp: registry.udp_addresses(),
            quic: registry.quic_address(),
            short_lived_sha256: registry.short_lived_sha256(),
            carriers: registry.carriers(),
            quic_counts: workers.quic_counts(),
        }
    }
}

#[cfg(test)]
mod tests;
