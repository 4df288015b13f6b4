//! The control thread, which owns the core: inputs go into the core, outputs are executed.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_config::GatewayConfig;
use evenkeel_core::{Gateway, WATCH_EVERY};
use evenkeel_dataplane::SendLease;
use evenkeel_dataplane::worker::{Waker, WorkerCommand, WorkerReport, WorkerStats};
use evenkeel_drivers::{Clock, Drivers, Fencing, Ng, NgSocket, Posted, Poster};
use evenkeel_model::{NodeId, OfferId, Stamp};
use evenkeel_policies::{PolicyReport, PolicyThreads};
use evenkeel_revisions::WallClock;
use ring::rand::SecureRandom;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::canary::CanaryProbe;
use super::equipment::{Equipment, ListedNode};
use super::events::Closings;
use super::first_packets::FirstPackets;
use super::guard::DownstreamGuard;
use super::handle::{ControlRequest, ReloadRequest};
use super::held_offers::Waiting;
use super::interner::RequestInterner;
use super::messages::EventRecord;
use super::modes::Costs;
use super::names::NodeNames;
use super::offers::OfferInProgress;
use super::orders::Orders;
use super::prober::{Mismatch, ProbeEvent, ProbeResult, Prober};
use super::records::RecordFollower;
use super::registry::SessionRegistry;
use super::request::Counting;
use super::rollout::Rolling;
use super::start_hooks::StartHooks;
use super::suspension::Suspension;
use crate::{KeyTable as IdempotencyKeys, history};

/// Control's handle of a worker. The worker stops when the handle is dropped.
pub struct WorkerLine {
    pub commands: crossbeam_channel::Sender<WorkerCommand>,
    pub waker: Arc<Waker>,
    pub stats: Arc<WorkerStats>,
}

impl Drop for WorkerLine {
    fn drop(&mut self) {
        // Fails only for a worker that has ended.
        let _ = self.commands.send(WorkerCommand::Stop);
        self.waker.wake();
    }
}

/// Rounds of path probes are this many watches apart: 30 ms.
const PATHS_EVERY: u64 = 15;

/// Readings of the wall clock are this many watches apart: a second.
const WALL_CLOCK_EVERY: u64 = 500;

pub struct ControlParts {
    pub settings: Arc<GatewayConfig>,
    pub gateway: Gateway,
    pub workers: Vec<WorkerLine>,
    pub registry: SessionRegistry,
    pub drivers: Drivers,
    pub fencing: Arc<Fencing>,
    pub lease: Arc<SendLease>,
    /// The configured nodes; their trunks are at the workers.
    pub equipment: Vec<Equipment>,
    pub posts: bool,
    pub policies: PolicyThreads,
    pub requests: mpsc::Receiver<ControlRequest>,
    pub reports: mpsc::Receiver<WorkerReport>,
    pub policy_reports: mpsc::Receiver<PolicyReport>,
    pub events: broadcast::Sender<Arc<EventRecord>>,
    pub history: history::HistoryWriter,
    pub names: Arc<NodeNames>,
    pub idempotency_keys: Arc<IdempotencyKeys>,
    pub quic_counters: Option<Arc<evenkeel_dataplane::quic::Counters>>,
    /// First revisions are being compiled.
    pub awaits_policies: bool,
    pub started: Instant,
}

pub(super) struct Control {
    pub(super) settings: Arc<GatewayConfig>,
    pub(super) gateway: Gateway,
    pub(super) workers: Vec<WorkerLine>,
    pub(super) registry: SessionRegistry,
    pub(super) drivers: Drivers,
    pub(super) fencing: Arc<Fencing>,
    pub(super) lease: Arc<SendLease>,
    pub(super) listed_nodes: Vec<Option<ListedNode>>,
    pub(super) guard: DownstreamGuard,
    pub(super) reloader: Option<mpsc::Sender<ReloadRequest>>,
    pub(super) probers: Vec<Option<Prober>>,
    pub(super) probe_events: mpsc::Sender<ProbeEvent>,
    pub(super) ng_sockets: Vec<Option<NgSocket>>,
    pub(super) ng_replies: mpsc::Sender<(NodeId, Ng)>,
    /// The webhook client, with the channel of its responses.
    pub(super) poster: Option<Poster>,
    pub(super) webhook_replies: mpsc::Sender<(NodeId, u64, Posted)>,
    pub(super) agents: Vec<Option<Prober>>,
    /// Datagrams refused by either end, and when that was last logged.
    pub(super) mismatches: BTreeMap<(Mismatch, NodeId), (u64, Option<Instant>)>,
    /// Watches so far: agents beside nodes are asked in turn.
    pub(super) watches: u64,
    pub(super) orders: Orders,
    pub(super) canaries: Vec<Option<CanaryProbe>>,
    /// Duplicates of the trunks' sockets, by node and worker.
    pub(super) trunks: Vec<Vec<OwnedFd>>,
    pub(super) policies: PolicyThreads,
    pub(super) counting: Option<Counting>,
    pub(super) rollouts: crossbeam_channel::Sender<Rolling>,
    /// Rollout settings by policy set.
    pub(super) rollout_settings: BTreeMap<Arc<str>, evenkeel_config::RolloutSettings>,
    pub(super) events: broadcast::Sender<Arc<EventRecord>>,
    pub(super) history: history::HistoryWriter,
    pub(super) names: Arc<NodeNames>,
    pub(super) idempotency_keys: Arc<IdempotencyKeys>,
    pub(super) quic_counters: Option<Arc<evenkeel_dataplane::quic::Counters>>,
    pub(super) started: Instant,
    pub(super) random: ring::rand::SystemRandom,
    pub(super) offers: BTreeMap<OfferId, OfferInProgress>,
    /// The bytes that are left for sessions' own data.
    pub(super) session_data: Arc<Semaphore>,
    pub(super) next_offer: u64,
    pub(super) interner: RequestInterner,
    /// `None` after the last waiting offer was released.
    pub(super) waiting: Option<Waiting>,
    pub(super) closing: Closings,
    pub(super) first_packets: FirstPackets,
    pub(super) start_hooks: StartHooks,
    pub(super) costs: Costs,
    pub(super) shutting_down: Vec<oneshot::Sender<()>>,
    pub(super) core_finished: bool,
    pub(super) workers_to_wake: BTreeSet<u16>,
    /// Set from the request for a suspension to its end.
    pub(super) suspension: Option<Suspension>,
    pub(super) following: Option<RecordFollower>,
    pub(super) finished: bool,
}

/// Runs control on the calling thread until shutdown.
pub fn run(parts: ControlParts) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, serve(parts))
}

async fn serve(parts: ControlParts) -> std::io::Result<()> {
    let ControlParts { mut requests, mut reports, .. } = parts;
    let (told, mut probed) = mpsc::channel(4_096);
    // The capacity suffices: there is at most one failure per call, and one call per node.
    let (failed, mut not_started) = mpsc::channel(evenkeel_config::NODES_MAX);
    let random = ring::rand::SystemRandom::new();
    let (said, mut ngs) = mpsc::channel(4_096);
    let (posted_in, mut posted) = mpsc::channel(4_096);
    let poster = parts.posts.then(Poster::start).transpose()?;
    let start_hooks = StartHooks::new(failed, poster.clone());
    let paces = evenkeel_config::paces(&parts.settings.sets);
    let session_data = (parts.settings.limits.session_data_mib as usize) << 20;
    let mut control = Control {
        settings: parts.settings,
        gateway: parts.gateway,
        workers: parts.workers,
        registry: parts.registry,
        drivers: parts.drivers,
        fencing: parts.fencing,
        lease: parts.lease,
        listed_nodes: Vec::new(),
        guard: DownstreamGuard::default(),
        reloader: None,
        probers: Vec::new(),
        probe_events: told,
        ng_sockets: Vec::new(),
        ng_replies: said,
        poster,
        webhook_replies: posted_in,
        agents: Vec::new(),
        mismatches: BTreeMap::new(),
        watches: 0,
        orders: Orders::default(),
        canaries: Vec::new(),
        trunks: Vec::new(),
        policies: parts.policies,
        counting: None,
        rollouts: super::rollout::start(parts.events.clone())?,
        rollout_settings: paces,
        events: parts.events,
        history: parts.history,
        names: parts.names,
        idempotency_keys: parts.idempotency_keys,
        quic_counters: parts.quic_counters,
        started: parts.started,
        random,
        offers: BTreeMap::new(),
        session_data: Arc::new(Semaphore::new(session_data)),
        next_offer: 1,
        interner: RequestInterner::default(),
        waiting: parts.awaits_policies.then(Waiting::default),
        closing: Closings::default(),
        first_packets: FirstPackets::default(),
        start_hooks,
        costs: Costs::default(),
        shutting_down: Vec::new(),
        core_finished: false,
        workers_to_wake: BTreeSet::new(),
        suspension: None,
        following: None,
        finished: false,
    };
    for (id, equipment) in (0..).map(NodeId).zip(parts.equipment) {
        let node = Arc::new(control.settings.nodes[id.0 as usize].clone());
        control.equip(id, node, equipment);
    }
    // The receiver is dropped before control, so that no policy thread blocks on this channel while control joins these
    // threads.
    let mut words = parts.policy_reports;
    let mut watch = tokio::time::interval(WATCH_EVERY);
    watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !control.finished {
        // The watch comes first, so that a flood of reports cannot delay it. Inputs that have arrived are read before
        // the detector runs.
        tokio::select! {
            biased;
            _ = watch.tick() => {
                for _ in 0..probed.len() {
                    probed.try_recv().into_iter().for_each(|probed| control.handle_probed(probed));
                }
                for _ in 0..reports.len() {
                    reports.try_recv().into_iter().for_each(|report| control.handle_report(report));
                }
                if !control.is_in_doubt() {
                    control.watch();
                }
            }
            Some(probed) = probed.recv() => control.handle_probed(probed),
            Some(report) = reports.recv() => control.handle_report(report),
            Some((node, number, answer)) = posted.recv() => {
                control.drivers.handle_posted(node, number, answer);
            }
            Some((node, ng)) = ngs.recv() => control.drivers.handle_ng(node, &ng, Clock::read()),
            Some(word) = words.recv() => {
                control.policies.handle_word(word, &mut control.gateway, Instant::now());
            }
            Some(failed) = not_started.recv() => {
                if control.start_hooks.is_under_way(failed) {
                    control.gateway.handle_start_failed(failed.node, Instant::now());
                }
            }
            Some(request) = requests.recv() => control.handle_request(request),
        }
        if !control.is_suspended() && !control.is_in_doubt() {
            control.drain();
            control.release_some();
            control.count_some();
            control.send_changes(Instant::now());
            control.suspend_when_idle(&mut reports);
        }
        if control.is_suspended() {
            control.serve_suspended(&mut requests).await;
            // Answers that came meanwhile are not late.
            while let Ok(word) = words.try_recv() {
                control.policies.handle_word(word, &mut control.gateway, Instant::now());
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
        self.fencing.owner().is_some()
            && !self.lease.is_held_now()
            && self.suspension.is_none()
            && self.shutting_down.is_empty()
    }

    fn handle_probed(&mut self, word: ProbeEvent) {
        let Some(probed) = word.if_current() else { return };
        match probed {
            ProbeResult::Answered { node, sequence, vouched: true, at } => {
                self.gateway.handle_probe_answered(node, sequence, at);
            }
            ProbeResult::Answered { node, sequence, vouched: false, at } => {
                self.gateway.handle_agent_answered(node, sequence, at);
            }
            ProbeResult::Said { node, beside, load, at } => {
                self.handle_state_report(node, beside, load, at);
            }
            ProbeResult::Obeyed { node, nonce, outcome } => {
                self.handle_order_answer(node, nonce, outcome);
            }
            ProbeResult::CanaryPassed { node, sequence } => {
                self.gateway.handle_canary_passed(node, sequence);
            }
            ProbeResult::CanaryOpen { node, at } => self.gateway.handle_canary_open(node, at),
            ProbeResult::Mismatch { node, mismatch } => {
                self.note_mismatch(node, mismatch, Instant::now());
            }
            ProbeResult::Fenced { node, epoch } => self.fencing.handle_refused(node, epoch),
            ProbeResult::Refused { node, sequence } => {
                self.gateway.handle_probe_refused(node, sequence, Instant::now());
            }
        }
    }

    /// Every 2 ms: workers' statistics and timers.
    fn watch(&mut self) {
        let mut stamps = vec![Stamp::default(); self.listed_nodes.len()];
        let mut late = Duration::ZERO;
        for worker in &self.workers {
            worker.stats.merge_into(&mut stamps);
            late = late.max(worker.stats.take_lateness(Instant::now()));
        }
        let now = Instant::now();
        let within = self.workers.iter().map(|worker| worker.stats.sums_up_within()).max();
        self.gateway.handle_summaries_within(within.unwrap_or_default());
        self.gateway.handle_watch(&stamps, late, now);
        self.look_at_paths(now);
        if self.watches.is_multiple_of(WALL_CLOCK_EVERY) {
            self.gateway.handle_wall_clock(WallClock { instant: now, time: SystemTime::now() });
        }
        self.ask_agents();
        self.repeat_orders();
        self.send_late_closings(now);
        self.finish_when_closed();
    }

    /// Every 30 ms: path MTU discovery.
    fn look_at_paths(&mut self, now: Instant) {
        if !self.watches.is_multiple_of(PATHS_EVERY) {
            return;
        }
        for (number, worker) in (0..).zip(&self.workers) {
            for node in worker.stats.take_long() {
                let random = &self.random;
                self.drivers.sent_long((number, node), &mut || draw(random), now);
            }
        }
        self.drivers.look_at_paths(now);
    }

    pub(super) fn handle_report(&mut self, report: WorkerReport) {
        let now = Instant::now();
        match report {
            WorkerReport::Refused { node } => self.gateway.handle_kernel_error(node, now),
            WorkerReport::Unreadable { node } => {
                self.note_mismatch(node, Mismatch::Encryption, now);
            }
            WorkerReport::PortClosed { session, hop } => {
                self.gateway.handle_port_closed(session, hop, now);
            }
            WorkerReport::CopiesDiffer { session, hops } => {
                self.gateway.handle_unalike(session, hops, now);
            }
            WorkerReport::Signed { node, message } => {
                let act = self.drivers.handle_signed(node, &message, Clock::read());
                self.act(act);
            }
            WorkerReport::FirstPacket { listener, source, payload_type } => {
                self.offer_first_packet(listener, source, payload_type, now);
            }
            WorkerReport::Summaries(summaries) => {
                for summary in summaries {
                    self.gateway.handle_summary(
                        summary.session,
                        summary.measures,
                        summary.last_heard,
                    );
                    self.gateway.handle_flow(summary.session, &summary.flow, now);
                    self.note_carried(summary.session, summary.totals);
                }
            }
            WorkerReport::Shed { session, run } => {
                self.send_event(super::GatewayEvent::Shed { session, run });
            }
            WorkerReport::Panicked { session } => self.gateway.handle_panicked(session, now),
            WorkerReport::Removed { session, mode, totals } => {
                if let Some((closed, before)) = self.closing.take(session) {
                    self.note_ended(mode, &before, &totals);
                    self.send_core_event(closed, Some(totals));
                }
            }
        }
    }

    /// Ends control once the core has finished and all sessions' ends were reported.
    fn finish_when_closed(&mut self) {
        if self.core_finished && self.closing.is_empty() {
            self.finished = true;
            for done in self.shutting_down.drain(..) {
                let _ = done.send(());
            }
        }
    }

    pub(super) fn seed(&self) -> u64 {
        draw(&self.random)
    }
}

pub(super) fn fill(random: &ring::rand::SystemRandom, bytes: &mut [u8]) {
    random.fill(bytes).expect("the system's random source works once it is there");
}

pub fn draw(random: &ring::rand::SystemRandom) -> u64 {
    let mut bytes = [0; 8];
    fill(random, &mut bytes);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests;
