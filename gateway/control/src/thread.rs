//! The control thread: its inputs go into the core, whose effects are executed after each of them.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_config::GatewayConfig;
use evenkeel_core::{Gateway, NodeEvidence, WATCH_EVERY};
use evenkeel_dataplane::worker::{WorkerCommand, WorkerReport, WorkerStats};
use evenkeel_dataplane::{SendLease, quic};
use evenkeel_drivers::{Clock, Drivers, Fencing, Poster, TrunkPath};
use evenkeel_dtls::HandshakeFailure;
use evenkeel_media::srtp::{IndexGrant, SrtpKeys};
use evenkeel_model::forward::DropReason;
use evenkeel_model::{CloseReason, NodeId, SessionId, Stamp};
use evenkeel_policies::{PolicyReport, PolicyThreads};
use evenkeel_process::random::draw;
use evenkeel_revisions::WallClock;
use tokio::sync::{broadcast, mpsc};
use tokio::time::MissedTickBehavior;

use crate::control::{Control, Lifetime};
use crate::equipment::Equipment;
use crate::handle::ControlRequest;
use crate::history::HistoryWriter;
use crate::idempotency::KeyTable as IdempotencyKeys;
use crate::names::NodeNames;
use crate::node_hooks::NodeHooks;
use crate::nodes::NodeResources;
use crate::offers::OfferQueue;
use crate::operations::OperationLog;
use crate::policies::PolicyRunner;
use crate::prober::{Mismatch, ProbeEvent, ProbeResult};
use crate::probes::Probes;
use crate::records::Replication;
use crate::registry::SessionRegistry;
use crate::reporting::{Closings, Costs, EventRecord, GatewayEvent, MediaPause, Reporting};
use crate::signalling::NodeSignalling;
use crate::workers::{WorkerLine, WorkerLines};

/// Rounds of path probes are this many watches apart: 30 ms.
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

async fn serve(parts: ControlParts) -> std::io::Result<()> {
    let ControlParts { mut requests, mut reports, .. } = parts;
    let (probe_sender, mut probe_events) = mpsc::channel(ANSWERS_MAX);
    // The capacity suffices: there is at most one failure per call, and one call per node.
    let (failed, mut failed_starts) = mpsc::channel(evenkeel_config::NODES_MAX);
    let (ng_sender, mut ng_replies) = mpsc::channel(ANSWERS_MAX);
    let (webhook_sender, mut webhook_replies) = mpsc::channel(ANSWERS_MAX);
    let poster = parts.posts.then(Poster::start).transpose()?;
    let node_hooks = NodeHooks::new(failed, poster.clone(), parts.settings.gateway.sandbox);
    let rollouts = evenkeel_config::rollout_settings(&parts.settings.sets);
    let session_data = (parts.settings.limits.session_data_mib as usize) << 20;
    let mut control = Control {
        settings: parts.settings,
        gateway: parts.gateway,
        registry: parts.registry,
        workers: WorkerLines {
            lines: parts.workers,
            handshakes: parts.handshakes,
            quic_counters: parts.quic_counters,
            to_wake: BTreeSet::new(),
        },
        signalling: NodeSignalling {
            drivers: parts.drivers,
            ng_sockets: Vec::new(),
            ng_replies: ng_sender,
            poster,
            webhook_replies: webhook_sender,
            node_hooks,
        },
        probes: Probes::new(probe_sender, Arc::clone(&parts.fencing)),
        replication: Replication::new(parts.fencing, parts.lease, parts.grant),
        nodes: NodeResources { operations: parts.operations, ..NodeResources::default() },
        policies: PolicyRunner::new(parts.policies, rollouts, parts.events.clone()),
        reporting: Reporting {
            events: parts.events,
            history: parts.history,
            names: parts.names,
            closing: Closings::default(),
            costs: Costs::default(),
            forecasts: Vec::new(),
            lists: VecDeque::new(),
        },
        offers: OfferQueue::new(parts.idempotency_keys, session_data, parts.awaits_policies),
        lifetime: Lifetime {
            started: parts.started,
            shutdown_replies: Vec::new(),
            core_finished: false,
            finished: false,
            last_reload: None,
            is_replaced: parts.is_replaced,
        },
    };
    for (id, equipment) in (0..).map(NodeId).zip(parts.equipment) {
        let node = Arc::new(control.settings.nodes[id.0 as usize].clone());
        control.equip(id, node, equipment);
    }
    let (settings, now) = (Arc::clone(&control.settings), Instant::now());
    control.nodes.repeat_operations(&settings, &mut control.gateway, now);
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
                if control.signalling.node_hooks.is_under_way(failed) {
                    let now = Instant::now();
                    control
                        .gateway
                        .change_nodes(now, |nodes| nodes.handle_start_failed(failed.node, now));
                }
            }
            Some(request) = requests.recv() => {
                control.handle_request(request);
                // A flood of requests delays no list.
                control.continue_list();
            }
            // If nothing else waits, the next rooms of dead nodes move, or the next slice of a list is copied. Tasks that read
            // sockets run before. It polls during a failover: batches are 250 µs apart, and tokio's timers 1 ms.
            () = tokio::task::yield_now(), if control.fails_over() => {}
            () = tokio::task::yield_now(), if !control.reporting.lists.is_empty() => {
                control.continue_list();
            }
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
    /// Executes outputs until there are none left, then wakes the workers that got commands. Returns whether there are
    /// such workers.
    pub(crate) fn drain(&mut self) -> bool {
        let mut clock = Clock::read();
        // The event of a node's death, for example, does not wait until timers have moved rooms.
        self.execute_outputs(clock);
        // Once: further batches of rooms wait until inputs are read, which may report another death.
        self.gateway.handle_timeout(clock.now);
        loop {
            self.execute_outputs(clock);
            clock = Clock::read();
            let Some(action) = self.signalling.drivers.handle_timeout(clock) else { break };
            self.act(Some(action));
        }
        self.workers.wake_workers()
    }

    fn execute_outputs(&mut self, clock: Clock) {
        while let Some(output) = self.gateway.poll_output() {
            self.execute(output, clock);
        }
    }

    /// Rooms of dead nodes wait to be moved, and control may decide.
    fn fails_over(&self) -> bool {
        self.gateway.fails_over() && !self.replication.is_suspended() && !self.is_in_doubt()
    }

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
        if let Some(result) = event.if_current() {
            self.handle_probe_result(result);
        }
    }

    fn handle_probe_result(&mut self, result: ProbeResult) {
        match result {
            ProbeResult::Evidence { node, evidence, at } => {
                self.gateway.handle_evidence(node, evidence, at);
            }
            ProbeResult::State { node, beside, load, at } => {
                if !beside {
                    self.signalling.drivers.handle_sessions(node, load.sessions, at);
                }
                self.probes.handle_state_report(node, beside, load, &mut self.gateway, at);
            }
            ProbeResult::Order { node, nonce, outcome } => {
                let answered = self.probes.handle_order_answer(node, nonce, outcome, &self.nodes);
                if let Some((order, step)) = answered {
                    self.reporting.send_event(GatewayEvent::NodeOrdered { node, order, step });
                }
            }
            ProbeResult::Process { node, nonce, report, at } => {
                self.probes.handle_process(node, (nonce, report), &mut self.gateway, at);
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
        // Between two watches the tasks that read answers may not have run.
        for node in self.gateway.node_table().overdue(now) {
            for result in self.probes.read_waiting(node) {
                self.handle_probe_result(result);
            }
        }
        self.gateway.handle_watch(&stamps, late, now);
        let dropped = OWN_DROPS.map(|reason| self.workers.sum(|stats| stats.drops(reason)));
        self.gateway.handle_own_drops(dropped.iter().sum(), now);
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
            WorkerReport::StreamRestarted { session, hop } => {
                self.signalling.drivers.renew_keys(session, hop, now);
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
                let mut pauses = Vec::new();
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
                    let (views, costs) = (self.gateway.views(), &mut self.reporting.costs);
                    if let Some((mode, legs)) = views.mode_of(summary.session)
                        && let Some(scenario) = views.scenario_of(summary.session)
                    {
                        costs.carried(mode, legs, scenario, &before, &summary.totals);
                        costs.count(scenario, &summary.counts);
                        pauses.extend(MediaPause::of(&summary, scenario));
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
        let Some(entry) = self.registry.get_mut(session) else { return };
        let told = result.as_ref().map(|keys| keys.profile()).map_err(Clone::clone);
        self.reporting.send_event(GatewayEvent::Handshake { session, result: told });
        match result {
            Ok(keys) => {
                entry.set_keys(&keys);
                let home = entry.home;
                self.gateway.records().note_session(session);
                self.workers.command(home.worker, WorkerCommand::SetKeys { home, keys });
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
}

#[cfg(test)]
mod tests;
