//! The control thread, which owns the core: inputs go into the core, outputs are executed.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_config::GatewayConfig;
use evenkeel_core::{Gateway, NodeEvidence, WATCH_EVERY};
use evenkeel_dataplane::worker::{WorkerCommand, WorkerReport, WorkerStats};
use evenkeel_dataplane::{SendLease, Waker};
use evenkeel_drivers::{Clock, Drivers, Fencing, Ng, NgSocket, Posted, Poster};
use evenkeel_model::{NodeId, OfferId, Stamp};
use evenkeel_policies::{PolicyReport, PolicyThreads};
use evenkeel_process::random::draw;
use evenkeel_revisions::WallClock;
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
    pub(super) registry: SessionRegistry,
    pub(super) workers: WorkerLines,
    pub(super) signalling: NodeSignalling,
    pub(super) replication: Replication,
    pub(super) nodes: NodeResources,
    pub(super) probes: Probes,
    pub(super) policies: PolicyRunner,
    pub(super) reporting: Reporting,
    pub(super) offers: OfferQueue,
    pub(super) lifetime: Lifetime,
}

/// The channels to the packet workers.
pub(super) struct WorkerLines {
    pub(super) lines: Vec<WorkerLine>,
    pub(super) quic_counters: Option<Arc<evenkeel_dataplane::quic::Counters>>,
    pub(super) to_wake: BTreeSet<u16>,
}

/// Drivers, and the sockets and clients through which they reach nodes.
pub(super) struct NodeSignalling {
    pub(super) drivers: Drivers,
    pub(super) ng_sockets: Vec<Option<NgSocket>>,
    pub(super) ng_replies: mpsc::Sender<(NodeId, Ng)>,
    /// The webhook client, with the channel of its responses.
    pub(super) poster: Option<Poster>,
    pub(super) webhook_replies: mpsc::Sender<(NodeId, u64, Posted)>,
    pub(super) start_hooks: StartHooks,
}

/// The ownership of this gateway, and the followers of its records.
pub(super) struct Replication {
    pub(super) fencing: Arc<Fencing>,
    pub(super) lease: Arc<SendLease>,
    /// Set from the request for a suspension to its end.
    pub(super) suspension: Option<Suspension>,
    pub(super) following: Option<RecordFollower>,
}

/// The listed nodes, and what was installed to reach them.
pub(super) struct NodeResources {
    pub(super) listed: Vec<Option<ListedNode>>,
    pub(super) guard: DownstreamGuard,
    pub(super) reloader: Option<mpsc::Sender<ReloadRequest>>,
    /// Duplicates of the trunks' sockets, by node and worker.
    pub(super) trunks: Vec<Vec<OwnedFd>>,
}

/// Probes, agents, orders and canary sessions, by node.
pub(super) struct Probes {
    pub(super) probers: Vec<Option<Prober>>,
    pub(super) events: mpsc::Sender<ProbeEvent>,
    pub(super) agents: Vec<Option<Prober>>,
    /// Datagrams refused by either end, and when that was last logged.
    pub(super) mismatches: BTreeMap<(Mismatch, NodeId), (u64, Option<Instant>)>,
    /// Watches so far: agents beside nodes are asked in turn.
    pub(super) watches: u64,
    pub(super) orders: Orders,
    pub(super) canaries: Vec<Option<CanaryProbe>>,
}

/// Threads of policies and their rollouts.
pub(super) struct PolicyRunner {
    pub(super) threads: PolicyThreads,
    pub(super) counting: Option<Counting>,
    pub(super) rollouts: crossbeam_channel::Sender<Rolling>,
    /// Rollout settings by policy set.
    pub(super) settings: BTreeMap<Arc<str>, evenkeel_config::RolloutSettings>,
}

/// Events, history and names, for the API and telemetry.
pub(super) struct Reporting {
    pub(super) events: broadcast::Sender<Arc<EventRecord>>,
    pub(super) history: history::HistoryWriter,
    pub(super) names: Arc<NodeNames>,
    pub(super) closing: Closings,
    pub(super) costs: Costs,
}

/// Offers that have no answer yet.
pub(super) struct OfferQueue {
    pub(super) idempotency_keys: Arc<IdempotencyKeys>,
    pub(super) in_progress: BTreeMap<OfferId, OfferInProgress>,
    /// The bytes that are left for sessions' own data.
    pub(super) session_data: Arc<Semaphore>,
    pub(super) next: u64,
    pub(super) interner: RequestInterner,
    /// `None` after the last waiting offer was released.
    pub(super) waiting: Option<Waiting>,
    pub(super) first_packets: FirstPackets,
}

/// Start and end of control.
pub(super) struct Lifetime {
    pub(super) started: Instant,
    pub(super) shutdown_replies: Vec<oneshot::Sender<()>>,
    pub(super) core_finished: bool,
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
    let (said, mut ngs) = mpsc::channel(4_096);
    let (posted_in, mut posted) = mpsc::channel(4_096);
    let poster = parts.posts.then(Poster::start).transpose()?;
    let start_hooks = StartHooks::new(failed, poster.clone());
    let paces = evenkeel_config::paces(&parts.settings.sets);
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
            ng_replies: said,
            poster,
            webhook_replies: posted_in,
            start_hooks,
        },
        replication: Replication {
            fencing: parts.fencing,
            lease: parts.lease,
            suspension: None,
            following: None,
        },
        nodes: NodeResources {
            listed: Vec::new(),
            guard: DownstreamGuard::default(),
            reloader: None,
            trunks: Vec::new(),
        },
        probes: Probes {
            probers: Vec::new(),
            events: told,
            agents: Vec::new(),
            mismatches: BTreeMap::new(),
            watches: 0,
            orders: Orders::default(),
            canaries: Vec::new(),
        },
        policies: PolicyRunner {
            threads: parts.policies,
            counting: None,
            rollouts: super::rollout::start(parts.events.clone())?,
            settings: paces,
        },
        reporting: Reporting {
            events: parts.events,
            history: parts.history,
            names: parts.names,
            closing: Closings::default(),
            costs: Costs::default(),
        },
        offers: OfferQueue {
            idempotency_keys: parts.idempotency_keys,
            in_progress: BTreeMap::new(),
            session_data: Arc::new(Semaphore::new(session_data)),
            next: 1,
            interner: RequestInterner::default(),
            waiting: parts.awaits_policies.then(Waiting::default),
            first_packets: FirstPackets::default(),
        },
        lifetime: Lifetime {
            started: parts.started,
            shutdown_replies: Vec::new(),
            core_finished: false,
            finished: false,
        },
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
    while !control.lifetime.finished {
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
                control.signalling.drivers.handle_posted(node, number, answer);
            }
            Some((node, ng)) = ngs.recv() => control.signalling.drivers.handle_ng(node, &ng, Clock::read()),
            Some(word) = words.recv() => {
                control.policies.threads.handle_word(word, &mut control.gateway, Instant::now());
            }
            Some(failed) = not_started.recv() => {
                if control.signalling.start_hooks.is_under_way(failed) {
                    control.gateway.change_nodes(Instant::now(), |nodes| nodes.handle_start_failed(failed.node, Instant::now()));
                }
            }
            Some(request) = requests.recv() => control.handle_request(request),
        }
        if !control.replication.is_suspended() && !control.is_in_doubt() {
            control.drain();
            control.release_some();
            control.count_some();
            control.send_changes(Instant::now());
            control.suspend_when_idle(&mut reports);
        }
        if control.replication.is_suspended() {
            control.serve_suspended(&mut requests).await;
            // Answers that came meanwhile are not late.
            while let Ok(word) = words.try_recv() {
                control.policies.threads.handle_word(word, &mut control.gateway, Instant::now());
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
            && !self.replication.lease.is_held_now()
            && self.replication.suspension.is_none()
            && self.lifetime.shutdown_replies.is_empty()
    }

    fn handle_probed(&mut self, word: ProbeEvent) {
        let Some(probed) = word.if_current() else { return };
        match probed {
            ProbeResult::Answered { node, sequence, vouched: true, at } => {
                self.gateway.handle_evidence(node, NodeEvidence::ProbeAnswered(sequence), at);
            }
            ProbeResult::Answered { node, sequence, vouched: false, at } => {
                self.gateway.handle_evidence(node, NodeEvidence::AgentAnswered(sequence), at);
            }
            ProbeResult::Said { node, beside, load, at } => {
                self.handle_state_report(node, beside, load, at);
            }
            ProbeResult::Obeyed { node, nonce, outcome } => {
                self.handle_order_answer(node, nonce, outcome);
            }
            ProbeResult::CanaryPassed { node, sequence } => {
                self.gateway.handle_evidence(
                    node,
                    NodeEvidence::CanaryPassed(sequence),
                    Instant::now(),
                );
            }
            ProbeResult::CanaryOpen { node, at } => {
                self.gateway.handle_evidence(node, NodeEvidence::CanaryOpen, at);
            }
            ProbeResult::Mismatch { node, mismatch } => {
                self.note_mismatch(node, mismatch, Instant::now());
            }
            ProbeResult::Fenced { node, epoch } => {
                self.replication.fencing.handle_refused(node, epoch);
            }
            ProbeResult::Refused { node, sequence } => {
                self.gateway.handle_evidence(
                    node,
                    NodeEvidence::ProbeRefused(sequence),
                    Instant::now(),
                );
            }
        }
    }

    /// Every 2 ms: workers' statistics and timers.
    fn watch(&mut self) {
        let mut stamps = vec![Stamp::default(); self.nodes.listed.len()];
        let mut late = Duration::ZERO;
        for worker in &self.workers.lines {
            worker.stats.merge_into(&mut stamps);
            late = late.max(worker.stats.take_lateness(Instant::now()));
        }
        let now = Instant::now();
        let within = self.workers.lines.iter().map(|worker| worker.stats.sums_up_within()).max();
        self.gateway.handle_summaries_within(within.unwrap_or_default());
        self.gateway.handle_watch(&stamps, late, now);
        self.look_at_paths(now);
        if self.probes.watches.is_multiple_of(WALL_CLOCK_EVERY) {
            self.gateway.handle_wall_clock(WallClock { instant: now, time: SystemTime::now() });
        }
        self.probes.ask_agents();
        self.repeat_orders();
        self.send_late_closings(now);
        self.finish_when_closed();
    }

    /// Every 30 ms: path MTU discovery.
    fn look_at_paths(&mut self, now: Instant) {
        if !self.probes.watches.is_multiple_of(PATHS_EVERY) {
            return;
        }
        for (number, worker) in (0..).zip(&self.workers.lines) {
            for node in worker.stats.take_long() {
                self.signalling.drivers.sent_long((number, node), &mut draw, now);
            }
        }
        self.signalling.drivers.look_at_paths(now);
    }

    pub(super) fn handle_report(&mut self, report: WorkerReport) {
        let now = Instant::now();
        match report {
            WorkerReport::Refused { node } => {
                self.gateway.handle_evidence(node, NodeEvidence::KernelError, now);
            }
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
                let act = self.signalling.drivers.handle_signed(node, &message, Clock::read());
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
                self.reporting.send_event(super::GatewayEvent::Shed { session, run });
            }
            WorkerReport::Panicked { session } => self.gateway.handle_panicked(session, now),
            WorkerReport::Removed { session, mode, totals } => {
                if let Some((closed, before)) = self.reporting.closing.take(session) {
                    self.reporting.note_ended(mode, &before, &totals);
                    self.send_core_event(closed, Some(totals));
                }
            }
        }
    }

    /// Ends control once the core has finished and all sessions' ends were reported.
    fn finish_when_closed(&mut self) {
        if self.lifetime.core_finished && self.reporting.closing.is_empty() {
            self.lifetime.finished = true;
            for done in self.lifetime.shutdown_replies.drain(..) {
                let _ = done.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
