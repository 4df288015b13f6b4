//! The control thread: its inputs go into the core, whose effects are executed after each of them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use evenkeel_config::GatewayConfig;
use evenkeel_core::{
    Gateway, Impossible, NodeEvidence, RoomStanding, SessionStanding, WATCH_EVERY,
};
use evenkeel_dataplane::worker::{MediaDirection, WorkerReport};
use evenkeel_dataplane::{SendLease, quic};
use evenkeel_drivers::{Clock, Drivers, Fencing, Poster, TrunkPath};
use evenkeel_model::forward::DropReason;
use evenkeel_model::{NodeId, RedundancyMode, Stamp};
use evenkeel_policies::{PolicyReport, PolicyThreads};
use evenkeel_process::random::draw;
use evenkeel_revisions::{Lifecycle, WallClock};
use tokio::sync::{broadcast, mpsc};
use tokio::time::MissedTickBehavior;

use crate::control::{Control, Lifetime};
use crate::equipment::Equipment;
use crate::handle::ControlRequest;
use crate::history::HistoryWriter;
use crate::idempotency::KeyTable as IdempotencyKeys;
use crate::messages::{
    AdmissionState, ControlError, NotSuspended, SessionView, Slice, StatusReport,
};
use crate::names::NodeNames;
use crate::nodes::NodeResources;
use crate::offers::OfferQueue;
use crate::policies::PolicyRunner;
use crate::prober::{Mismatch, ProbeEvent, ProbeResult};
use crate::probes::Probes;
use crate::records::Replication;
use crate::registry::{SessionEntry, SessionRegistry};
use crate::reporting::{Closings, Costs, EventRecord, GatewayEvent, Reporting};
use crate::signalling::NodeSignalling;
use crate::start_hooks::StartHooks;
use crate::workers::{WorkerLine, WorkerLines};

/// Rounds of path probes are this many watches apart: 30 ms.
const PATHS_EVERY: u64 = 15;

/// Readings of the wall clock are this many watches apart: a second.
const WALL_CLOCK_EVERY: u64 = 500;

/// Copying this many ids of a room's sessions takes as long as copying the view of one session.
const SESSIONS_PER_COST: usize = 100;

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
    /// Names of nodes and regions.
    pub names: Arc<NodeNames>,
    /// Keys of the API, with their answers.
    pub idempotency_keys: Arc<IdempotencyKeys>,
    /// Set when another process has replaced this one.
    pub is_replaced: Arc<AtomicBool>,
    /// Counters of the QUIC endpoint.
    pub quic_counters: Option<Arc<quic::Counters>>,
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

async fn serve(parts: ControlParts) -> std::io::Result<()> {
    let ControlParts { mut requests, mut reports, .. } = parts;
    let (probe_sender, mut probe_events) = mpsc::channel(ANSWERS_MAX);
    // The capacity suffices: there is at most one failure per call, and one call per node.
    let (failed, mut failed_starts) = mpsc::channel(evenkeel_config::NODES_MAX);
    let (ng_sender, mut ng_replies) = mpsc::channel(ANSWERS_MAX);
    let (webhook_sender, mut webhook_replies) = mpsc::channel(ANSWERS_MAX);
    let poster = parts.posts.then(Poster::start).transpose()?;
    let start_hooks = StartHooks::new(failed, poster.clone());
    let rollouts = evenkeel_config::rollout_settings(&parts.settings.sets);
    let session_data = (parts.settings.limits.session_data_mib as usize) << 20;
    let mut control = Control {
        settings: parts.settings,
        gateway: parts.gateway,
        registry: parts.registry,
        workers: WorkerLines {
            lines: parts.workers,
            quic_counters: parts.quic_counters,
            to_wake: BTreeSet::new(),
        },
        signalling: NodeSignalling {
            drivers: parts.drivers,
            ng_sockets: Vec::new(),
            ng_replies: ng_sender,
            poster,
            webhook_replies: webhook_sender,
            start_hooks,
        },
        probes: Probes::new(probe_sender, Arc::clone(&parts.fencing)),
        replication: Replication::new(parts.fencing, parts.lease),
        nodes: NodeResources::default(),
        policies: PolicyRunner::start(parts.policies, rollouts, parts.events.clone())?,
        reporting: Reporting {
            events: parts.events,
            history: parts.history,
            names: parts.names,
            closing: Closings::default(),
            costs: Costs::default(),
        },
        offers: OfferQueue::new(parts.idempotency_keys, session_data, parts.awaits_policies),
        lifetime: Lifetime {
            started: parts.started,
            shutdown_replies: Vec::new(),
            core_finished: false,
            finished: false,
            is_replaced: parts.is_replaced,
        },
    };
    for (id, equipment) in (0..).map(NodeId).zip(parts.equipment) {
        let node = Arc::new(control.settings.nodes[id.0 as usize].clone());
        control.equip(id, node, equipment);
    }
    // The receiver is dropped before control, so that no policy thread blocks on this channel while control joins these
    // threads.
    let mut policy_reports = parts.policy_reports;
    let mut watch = tokio::time::interval(WATCH_EVERY);
    watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !control.lifetime.finished {
        // The watch comes first, so that a flood of reports cannot delay it. Inputs that have arrived are read before
        // the detector runs.
        tokio::select! {
            biased;
            _ = watch.tick() => {
                for _ in 0..probe_events.len() {
                    probe_events.try_recv().into_iter().for_each(|event| control.handle_probe(event));
                }
                for _ in 0..reports.len() {
                    reports.try_recv().into_iter().for_each(|report| control.handle_report(report));
                }
                if !control.is_in_doubt() {
                    control.watch();
                }
            }
            Some(event) = probe_events.recv() => control.handle_probe(event),
            Some(report) = reports.recv() => control.handle_report(report),
            Some((node, number, answer)) = webhook_replies.recv() => {
                control.signalling.drivers.handle_posted(node, number, answer);
            }
            Some((node, ng)) = ng_replies.recv() => {
                control.signalling.drivers.handle_ng(node, &ng, Clock::read());
            }
            Some(report) = policy_reports.recv() => {
                control.policies.threads.handle_report(report, &mut control.gateway, Instant::now());
            }
            Some(failed) = failed_starts.recv() => {
                if control.signalling.start_hooks.is_under_way(failed) {
                    let now = Instant::now();
                    control
                        .gateway
                        .change_nodes(now, |nodes| nodes.handle_start_failed(failed.node, now));
                }
            }
            Some(request) = requests.recv() => control.handle_request(request),
        }
        if !control.replication.is_suspended() && !control.is_in_doubt() {
            control.drain();
            control.release_some();
            control.policies.count_some(&control.gateway);
            let (replication, mut source) = control.record_source();
            replication.send_changes(&mut source, Instant::now());
            control.suspend_when_idle(&mut reports);
        }
        if control.replication.is_suspended() {
            control.serve_suspended(&mut requests).await;
            // Answers that came meanwhile are not late.
            while let Ok(report) = policy_reports.try_recv() {
                control.policies.threads.handle_report(
                    report,
                    &mut control.gateway,
                    Instant::now(),
                );
            }
        }
    }
    Ok(())
}

impl Control {
    /// An owner without the lease may have been replaced, for example while it was stopped. Until it knows, control
    /// decides nothing, as if it were stalled: sessions that fell silent here may live at another gateway. One that
    /// hands over or shuts down knows.
    fn is_in_doubt(&self) -> bool {
        self.replication.fencing.owner().is_some()
            && !self.replication.lease.is_held(Instant::now)
            && self.replication.suspension.is_none()
            && self.lifetime.shutdown_replies.is_empty()
    }

    fn handle_probe(&mut self, event: ProbeEvent) {
        let Some(result) = event.if_current() else { return };
        match result {
            ProbeResult::Evidence { node, evidence, at } => {
                self.gateway.handle_evidence(node, evidence, at);
            }
            ProbeResult::State { node, beside, load, at } => {
                self.probes.handle_state_report(node, beside, load, &mut self.gateway, at);
            }
            ProbeResult::Order { node, nonce, outcome } => {
                self.probes.handle_order_answer(node, nonce, outcome, &self.nodes);
            }
            ProbeResult::Mismatch { node, mismatch } => {
                self.probes.note_mismatch(node, mismatch, &self.nodes, Instant::now());
            }
            ProbeResult::Fenced { node, epoch } => {
                self.replication.fencing.handle_refused(node, epoch);
            }
        }
    }

    /// Every 2 ms: workers' statistics and timers. Ends control once the core has finished and all sessions' ends were
    /// reported.
    fn watch(&mut self) {
        let mut stamps = vec![Stamp::default(); self.nodes.nodes.len()];
        let mut late = Duration::ZERO;
        for worker in &self.workers.lines {
            worker.stats.merge_into(&mut stamps);
            late = late.max(worker.stats.take_lateness(Instant::now()));
        }
        let now = Instant::now();
        let within = self.workers.lines.iter().map(|worker| worker.stats.sums_up_within()).max();
        self.gateway.handle_summaries_within(within.unwrap_or_default());
        self.gateway.handle_watch(&stamps, late, now);
        if self.probes.watches.is_multiple_of(PATHS_EVERY) {
            // Path MTU discovery.
            for (number, worker) in (0..).zip(&self.workers.lines) {
                for node in worker.stats.take_long() {
                    let path = TrunkPath { node, worker: number };
                    self.signalling.drivers.sent_long(path, &mut draw, now);
                }
            }
            self.signalling.drivers.look_at_paths(now);
        }
        if self.probes.watches.is_multiple_of(WALL_CLOCK_EVERY) {
            self.gateway.handle_wall_clock(WallClock { instant: now, time: SystemTime::now() });
        }
        self.probes.ask_agents();
        self.probes.repeat_orders(&self.nodes);
        self.reporting.send_late_closings(now);
        if self.lifetime.core_finished && self.reporting.closing.is_empty() {
            self.lifetime.finished = true;
            for reply in self.lifetime.shutdown_replies.drain(..) {
                let _ = reply.send(());
            }
        }
    }

    pub(crate) fn handle_report(&mut self, report: WorkerReport) {
        let now = Instant::now();
        match report {
            WorkerReport::Refused(node) => {
                self.gateway.handle_evidence(node, NodeEvidence::KernelError, now);
            }
            WorkerReport::Unreadable(node) => {
                self.probes.note_mismatch(node, Mismatch::Encryption, &self.nodes, now);
            }
            WorkerReport::PortClosed { session, hop } => {
                self.gateway.handle_port_closed(session, hop, now);
            }
            WorkerReport::CopiesDiffer { session, hops } => {
                self.gateway.handle_unalike(session, hops, now);
            }
            WorkerReport::Signed { node, message } => {
                let action = self.signalling.drivers.handle_signed(node, &message, Clock::read());
                self.act(action);
            }
            WorkerReport::FirstPacket { listener, source, payload_type } => {
                // The source's next packet is reported again.
                if self.replication.suspension.is_none()
                    && let Some(request) = self.offers.first_packet(
                        &self.registry,
                        (listener, source),
                        payload_type,
                        now,
                    )
                {
                    self.offer(request, None, now);
                }
            }
            WorkerReport::Summaries(summaries) => {
                for summary in summaries {
                    self.gateway.handle_summary(
                        summary.session,
                        summary.measures,
                        summary.last_heard,
                    );
                    self.gateway.handle_flow(summary.session, &summary.flow, now);
                    let Some(entry) = self.registry.get_mut(summary.session) else { continue };
                    let before = entry.totals();
                    entry.note_totals(summary.totals);
                    if let Some((mode, legs)) = self.gateway.views().mode_of(summary.session) {
                        self.reporting.costs.carried(mode, legs, &before, &summary.totals);
                    }
                }
            }
            WorkerReport::Shed { session, run } => {
                self.reporting.send_event(GatewayEvent::Shed { session, run });
            }
            WorkerReport::Panicked(session) => self.gateway.handle_panicked(session, now),
            WorkerReport::Removed { session, mode, totals } => {
                self.reporting.handle_removed(session, mode, totals);
            }
        }
    }

    pub(crate) fn handle_request(&mut self, request: ControlRequest) {
        let now = Instant::now();
        // Replies fail only for a caller that has gone.
        match request {
            ControlRequest::Offer(request, reply) => {
                if self.offers.waiting.is_some() || self.replication.suspension.is_some() {
                    self.offers.hold(request, reply);
                } else {
                    self.offer(*request, Some(reply), now);
                }
            }
            ControlRequest::PoliciesStand => self.offers.handle_policies_active(),
            ControlRequest::AwaitPolicies(reply) => self.offers.await_policies(reply),
            ControlRequest::Close(session, reply) => {
                let closed = self.gateway.handle_close(session, now);
                let _ = reply.send(closed.map_err(ControlError::Impossible));
            }
            #[cfg(feature = "fault-injection")]
            ControlRequest::Panic(session, reply) => {
                let home = self.registry.get(session).map(|entry| entry.home);
                let panicking = home.map(|home| {
                    let panic = evenkeel_dataplane::worker::WorkerCommand::Panic(home);
                    self.workers.command(home.worker, panic);
                });
                let none = ControlError::Impossible(Impossible::NoSuchSession);
                let _ = reply.send(panicking.ok_or(none));
            }
            ControlRequest::Move(room, node, reply) => {
                let to = self.nodes.node_named(&node);
                let moved = match to {
                    Some(to) => self.gateway.handle_move(&room, to, now),
                    None => Err(Impossible::NoSuchNode),
                };
                let _ = reply.send(moved.map_err(|reason| self.why_impossible(reason, to)));
            }
            ControlRequest::Operate(operation, reply) => {
                let done = self.nodes.operate(operation, &self.settings, &mut self.gateway, now);
                let _ = reply.send(done.map_err(|reason| self.why_impossible(reason, None)));
            }
            ControlRequest::Order(node, order, reply) => match self.nodes.node_named(&node) {
                Some(node) => self.probes.order(node, order, reply, &self.nodes, now),
                None => {
                    let _ = reply.send(Err(self.why_impossible(Impossible::NoSuchNode, None)));
                }
            },
            ControlRequest::Explain(session, reply) => {
                _ = reply.send(self.gateway.views().explain(session, now));
            }
            ControlRequest::Regions(reply) => {
                _ = reply.send(self.gateway.views().regions(now).collect());
            }
            ControlRequest::Sessions { after, reply } => {
                let view = |standing| self.session_view(standing);
                let rest = self.gateway.views().sessions_after(after, now);
                let rest = rest.map(|(id, standing)| (id, standing.map(view)));
                let _ = reply.send(Slice::of(rest, |_| 1));
            }
            ControlRequest::Session(session, reply) => {
                let standing = self.gateway.views().session(session, now);
                let _ = reply.send(standing.map(|standing| self.session_view(standing)));
            }
            ControlRequest::Rooms { after, reply } => {
                let cost = |room: &RoomStanding| 1 + room.sessions.len() / SESSIONS_PER_COST;
                let _ = reply.send(Slice::of(self.gateway.views().rooms_after(after), cost));
            }
            ControlRequest::Nodes(reply) => _ = reply.send(self.gateway.views().nodes().collect()),
            ControlRequest::Govern(rules, reply) => {
                self.policies.threads.govern(*rules, &mut self.gateway, now);
                let _ = reply.send(());
            }
            ControlRequest::NoteRefusal(refusal) => self.policies.threads.ledger().refuse(refusal),
            ControlRequest::Refusals(reply) => {
                _ = reply.send(self.policies.threads.ledger().refusals());
            }
            ControlRequest::Policies(reply) => self.policies.view(reply),
            ControlRequest::Recorder(reply) => _ = reply.send(self.policies.threads.recorder()),
            ControlRequest::History(reply) => _ = reply.send(self.reporting.history.history()),
            ControlRequest::Status(reply) => _ = reply.send(self.status(now)),
            ControlRequest::Modes(reply) => {
                let view = |mode| self.reporting.mode_view(mode, &self.gateway, &self.workers);
                let _ = reply.send(RedundancyMode::ALL.into_iter().map(view).collect());
            }
            ControlRequest::Scenarios(scenarios, reply) => {
                self.gateway.handle_scenarios(&scenarios, now);
                let _ = reply.send(());
            }
            ControlRequest::List(list, reply) => _ = reply.send(self.list(&list, now)),
            ControlRequest::Reload(reload) => self.nodes.pass_on(reload),
            ControlRequest::FollowReloads(reloader) => self.nodes.reloader = Some(reloader),
            // A further revision would supersede the policy's first one, and then the gateway might refuse it.
            ControlRequest::Push { reply, .. } | ControlRequest::RollOut(.., reply)
                if self.offers.awaits_policies() =>
            {
                let _ = reply.send(Err(ControlError::Starting));
            }
            ControlRequest::Push { policy, bytes, settings, push, reply } => {
                let source = self.policies.pushed(&policy, bytes, settings, &push);
                self.policies.roll_out(&policy, source, reply, &mut self.gateway);
            }
            ControlRequest::RollOut(policy, source, reply) => {
                self.policies.roll_out(&policy, *source, reply, &mut self.gateway);
            }
            ControlRequest::ActOnRollout(policy, action, reply) => {
                let act = |life: &mut Lifecycle| life.handle_action(action, now);
                let _ = reply.send(self.policies.change(&policy, &mut self.gateway, now, act));
            }
            ControlRequest::RolloutSettings(settings, reply) => {
                self.policies.change_settings(settings, &mut self.gateway, now);
                let _ = reply.send(());
            }
            ControlRequest::Rollback(policy, reply) => {
                let starting = self.offers.awaits_policies() && self.policies.is_known(&policy);
                let _ = reply.send(if starting {
                    Err(ControlError::Starting)
                } else {
                    let act = |life: &mut Lifecycle| life.handle_rollback(now);
                    self.policies.change(&policy, &mut self.gateway, now, act)
                });
            }
            ControlRequest::Stop(policy, reply) => {
                let stopped = self.policies.threads.stop(&policy);
                let _ = reply.send(stopped.then_some(()).ok_or(ControlError::NoPolicy(policy)));
            }
            ControlRequest::Shutdown(within, done) => {
                self.lifetime.shutdown_replies.push(done);
                self.gateway.handle_shutdown(within, now);
            }
            ControlRequest::Trunks(reply) => _ = reply.send(self.nodes.duplicate_trunks()),
            ControlRequest::RecordsSent(reply) => {
                let (replication, mut source) = self.record_source();
                let _ = reply.send(replication.last_number(&mut source));
            }
            ControlRequest::FollowRecords(hands_over, reply) => {
                let (replication, mut source) = self.record_source();
                let _ = reply.send(replication.follow(hands_over, &mut source, now));
            }
            ControlRequest::Suspend(reply) => self.begin_suspension(reply, now),
            // Packets of a gateway that is not suspended go on.
            ControlRequest::SuspendPackets(reply) => {
                let is_suspended = self.replication.is_suspended();
                let states = is_suspended.then(|| self.suspend_packets());
                let _ = reply.send(states.ok_or(NotSuspended::Unavailable));
            }
            ControlRequest::ContinueMedia { states, last } => self.continue_media(*states, last),
            ControlRequest::Resume(done) => self.resume(|| _ = done.send(())),
            ControlRequest::Restore { snapshot, descriptors, resume, reply } => {
                match self.restore(*snapshot, descriptors) {
                    Ok(restored) if resume => self.resume(|| _ = reply.send(Ok(restored))),
                    restored => _ = reply.send(restored),
                }
            }
            // The sessions of a gateway that is not suspended belong to no other process.
            ControlRequest::Release(_) if !self.replication.is_suspended() => {}
            ControlRequest::Release(done) => {
                // Agents may have executed them.
                self.probes.give_up_orders(&self.nodes);
                self.lifetime.is_replaced.store(true, Ordering::Release);
                self.release();
                let _ = done.send(());
            }
            ControlRequest::Abandon(done) => {
                self.release();
                let _ = done.send(());
            }
        }
    }

    fn session_view(&self, standing: SessionStanding) -> SessionView {
        let totals = self.registry.get(standing.session).map(SessionEntry::totals);
        SessionView { totals: totals.unwrap_or_default(), state: standing }
    }

    /// The error of an operation, with the facts that its caller needs.
    fn why_impossible(&self, reason: Impossible, node: Option<NodeId>) -> ControlError {
        match reason {
            Impossible::NoSuchNode => {
                let nodes = self.nodes.nodes.iter().flatten();
                let known = nodes.map(|listed| (*listed.node.name).into()).collect();
                ControlError::Unfound { reason, known }
            }
            Impossible::NoSuchRegion => {
                let regions = self.settings.regions.iter();
                ControlError::Unfound {
                    reason,
                    known: regions.map(|name| (**name).into()).collect(),
                }
            }
            Impossible::NodeUnfit => {
                let standing =
                    self.gateway.views().nodes().find(|standing| Some(standing.hop.node) == node);
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

    fn status(&self, now: Instant) -> StatusReport {
        use MediaDirection::{ToClient, ToNode};
        let workers = &self.workers;
        let drops = DropReason::ALL.into_iter().filter_map(|reason| {
            let sum = workers.sum(|stats| stats.drops(reason));
            (sum > 0).then_some((reason.name(), sum))
        });
        StatusReport {
            state: match (self.gateway.is_admitting(), self.offers.awaits_policies()) {
                (true, true) => AdmissionState::Starting,
                (true, false) => AdmissionState::Serving,
                (false, _) => AdmissionState::Draining,
            },
            version: env!("CARGO_PKG_VERSION"),
            region: Arc::clone(&self.settings.gateway.region),
            uptime_ms: now.saturating_duration_since(self.lifetime.started).as_millis() as u64,
            sessions: self.gateway.live(),
            rooms: self.gateway.standing_rooms(),
            uplink_suspect: self.gateway.node_table().doubts_uplink(),
            policies_failing: self.policies.failing(&self.gateway, now),
            packets_to_node: workers.sum(|stats| stats.packets(ToNode)),
            packets_to_client: workers.sum(|stats| stats.packets(ToClient)),
            bytes_to_node: workers.sum(|stats| stats.bytes(ToNode)),
            bytes_to_client: workers.sum(|stats| stats.bytes(ToClient)),
            key_frames_to_node: workers.sum(|stats| stats.key_frames(ToNode)),
            key_frames_to_client: workers.sum(|stats| stats.key_frames(ToClient)),
            drops: drops.collect(),
            messages_refused: self.probes.messages_refused(),
            udp: self.registry.udp.iter().map(|listener| listener.address).collect(),
            quic: self.registry.quic.map(|quic| quic.address),
            quic_counts: self
                .workers
                .quic_counters
                .iter()
                .flat_map(|counters| counters.read())
                .collect(),
        }
    }
}
