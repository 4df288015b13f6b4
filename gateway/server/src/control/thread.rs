//! The control thread, which owns the core: inputs go into the core, outputs are executed.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_core::{Gateway, NodeId, OfferId, Stamp, WATCH_EVERY, WallClock};
use evenkeel_dataplane::Lease;
use evenkeel_dataplane::worker::{Command, Report, Waker, WorkerStats};
use ring::rand::SecureRandom;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::canary::Canary;
use super::driver::{Clock, Drivers, Line, Ng, Posted};
use super::equipment::{Equipment, Listed};
use super::events::Closings;
use super::fencing::Fencing;
use super::first_packets::FirstPackets;
use super::guard::Guard;
use super::handle::{Reload, Request};
use super::held_offers::Waiting;
use super::interner::Interner;
use super::messages::EventRecord;
use super::modes::Costs;
use super::names::Names;
use super::offers::Pending;
use super::orders::Orders;
use super::prober::{Mismatch, ProbeEvent, Probed, Prober};
use super::records::Following;
use super::registry::SessionRegistry;
use super::request::Counting;
use super::rollout::Rolling;
use super::start_hooks::StartHooks;
use super::suspension::Suspension;
use crate::api::IdempotencyKeys;
use crate::history;
use crate::policy::{Policies, Word};
use crate::settings::{self, Settings};
use crate::webhook::Poster;

/// Control's handle of a worker. The worker stops when the handle is dropped.
pub(crate) struct WorkerLine {
    pub(crate) commands: crossbeam_channel::Sender<Command>,
    pub(crate) waker: Arc<Waker>,
    pub(crate) stats: Arc<WorkerStats>,
}

impl Drop for WorkerLine {
    fn drop(&mut self) {
        // Fails only for a worker that has ended.
        let _ = self.commands.send(Command::Stop);
        self.waker.wake();
    }
}

/// Rounds of path probes are this many watches apart: 30 ms.
const PATHS_EVERY: u64 = 15;

/// Readings of the wall clock are this many watches apart: a second.
const WALL_CLOCK_EVERY: u64 = 500;

pub(crate) struct Parts {
    pub(crate) settings: Arc<Settings>,
    pub(crate) gateway: Gateway,
    pub(crate) workers: Vec<WorkerLine>,
    pub(crate) registry: SessionRegistry,
    pub(crate) drivers: Drivers,
    pub(crate) fencing: Arc<Fencing>,
    pub(crate) lease: Arc<Lease>,
    /// The configured nodes; their trunks are at the workers.
    pub(crate) equipment: Vec<Equipment>,
    pub(crate) posts: bool,
    pub(crate) policies: Policies,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) reports: mpsc::Receiver<Report>,
    pub(crate) words: mpsc::Receiver<Word>,
    pub(crate) events: broadcast::Sender<Arc<EventRecord>>,
    pub(crate) history: history::Writer,
    pub(crate) names: Arc<Names>,
    pub(crate) idempotency_keys: Arc<IdempotencyKeys>,
    pub(crate) quic_counters: Option<Arc<evenkeel_dataplane::quic::Counters>>,
    /// First revisions are being compiled.
    pub(crate) awaits_policies: bool,
    pub(crate) started: Instant,
}

pub(super) struct Control {
    pub(super) settings: Arc<Settings>,
    pub(super) gateway: Gateway,
    pub(super) workers: Vec<WorkerLine>,
    pub(super) registry: SessionRegistry,
    pub(super) drivers: Drivers,
    pub(super) fencing: Arc<Fencing>,
    pub(super) lease: Arc<Lease>,
    pub(super) listed: Vec<Option<Listed>>,
    pub(super) guard: Guard,
    pub(super) reloader: Option<mpsc::Sender<Reload>>,
    pub(super) probers: Vec<Option<Prober>>,
    pub(super) told: mpsc::Sender<ProbeEvent>,
    pub(super) lines: Vec<Option<Line>>,
    pub(super) said: mpsc::Sender<(NodeId, Ng)>,
    /// The webhook client, with the channel of its responses.
    pub(super) poster: Option<Poster>,
    pub(super) posted: mpsc::Sender<(NodeId, u64, Posted)>,
    pub(super) agents: Vec<Option<Prober>>,
    /// Datagrams refused by either end, and when that was last logged.
    pub(super) mismatches: BTreeMap<(Mismatch, NodeId), (u64, Option<Instant>)>,
    /// Watches so far: agents beside nodes are asked in turn.
    pub(super) watches: u64,
    pub(super) orders: Orders,
    pub(super) canaries: Vec<Option<Canary>>,
    /// Duplicates of the trunks' sockets, by node and worker.
    pub(super) trunks: Vec<Vec<OwnedFd>>,
    pub(super) policies: Policies,
    pub(super) counting: Option<Counting>,
    pub(super) rollouts: crossbeam_channel::Sender<Rolling>,
    /// Rollout settings by policy set.
    pub(super) paces: BTreeMap<Arc<str>, settings::Rollout>,
    pub(super) events: broadcast::Sender<Arc<EventRecord>>,
    pub(super) history: history::Writer,
    pub(super) names: Arc<Names>,
    pub(super) idempotency_keys: Arc<IdempotencyKeys>,
    pub(super) quic_counters: Option<Arc<evenkeel_dataplane::quic::Counters>>,
    pub(super) started: Instant,
    pub(super) random: ring::rand::SystemRandom,
    pub(super) offers: BTreeMap<OfferId, Pending>,
    /// The bytes that are left for sessions' own data.
    pub(super) session_data: Arc<Semaphore>,
    pub(super) next_offer: u64,
    pub(super) interner: Interner,
    /// `None` after the last waiting offer was released.
    pub(super) waiting: Option<Waiting>,
    pub(super) closing: Closings,
    pub(super) first_packets: FirstPackets,
    pub(super) start_hooks: StartHooks,
    pub(super) costs: Costs,
    pub(super) shutting_down: Vec<oneshot::Sender<()>>,
    pub(super) core_finished: bool,
    pub(super) rung: BTreeSet<u16>,
    /// Set from the request for a suspension to its end.
    pub(super) suspension: Option<Suspension>,
    pub(super) following: Option<Following>,
    pub(super) finished: bool,
}

/// Runs control on the calling thread until shutdown.
pub(crate) fn run(parts: Parts) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, serve(parts))
}

async fn serve(parts: Parts) -> std::io::Result<()> {
    let Parts { mut requests, mut reports, .. } = parts;
    let (told, mut probed) = mpsc::channel(4_096);
    // The capacity suffices: there is at most one failure per call, and one call per node.
    let (failed, mut not_started) = mpsc::channel(settings::NODES_MAX);
    let random = ring::rand::SystemRandom::new();
    let (said, mut ngs) = mpsc::channel(4_096);
    let (posted_in, mut posted) = mpsc::channel(4_096);
    let poster = parts.posts.then(Poster::start).transpose()?;
    let start_hooks = StartHooks::new(failed, poster.clone());
    let paces = settings::paces(&parts.settings.sets);
    let session_data = (parts.settings.limits.session_data_mib as usize) << 20;
    let mut control = Control {
        settings: parts.settings,
        gateway: parts.gateway,
        workers: parts.workers,
        registry: parts.registry,
        drivers: parts.drivers,
        fencing: parts.fencing,
        lease: parts.lease,
        listed: Vec::new(),
        guard: Guard::default(),
        reloader: None,
        probers: Vec::new(),
        told,
        lines: Vec::new(),
        said,
        poster,
        posted: posted_in,
        agents: Vec::new(),
        mismatches: BTreeMap::new(),
        watches: 0,
        orders: Orders::default(),
        canaries: Vec::new(),
        trunks: Vec::new(),
        policies: parts.policies,
        counting: None,
        rollouts: super::rollout::start(parts.events.clone())?,
        paces,
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
        interner: Interner::default(),
        waiting: parts.awaits_policies.then(Waiting::default),
        closing: Closings::default(),
        first_packets: FirstPackets::default(),
        start_hooks,
        costs: Costs::default(),
        shutting_down: Vec::new(),
        core_finished: false,
        rung: BTreeSet::new(),
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
    let mut words = parts.words;
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
            control.rest(&mut requests).await;
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
            Probed::Answered { node, sequence, vouched: true, at } => {
                self.gateway.handle_probe_answered(node, sequence, at);
            }
            Probed::Answered { node, sequence, vouched: false, at } => {
                self.gateway.handle_agent_answered(node, sequence, at);
            }
            Probed::Said { node, beside, load, at } => {
                self.handle_state_report(node, beside, load, at);
            }
            Probed::Obeyed { node, nonce, outcome } => {
                self.handle_order_answer(node, nonce, outcome);
            }
            Probed::CanaryPassed { node, sequence } => {
                self.gateway.handle_canary_passed(node, sequence);
            }
            Probed::CanaryOpen { node, at } => self.gateway.handle_canary_open(node, at),
            Probed::Mismatch { node, mismatch } => {
                self.note_mismatch(node, mismatch, Instant::now());
            }
            Probed::Fenced { node, epoch } => self.fencing.handle_refused(node, epoch),
            Probed::Refused { node, sequence } => {
                self.gateway.handle_probe_refused(node, sequence, Instant::now());
            }
        }
    }

    /// Every 2 ms: workers' statistics and timers.
    fn watch(&mut self) {
        let mut stamps = vec![Stamp::default(); self.listed.len()];
        let mut late = Duration::ZERO;
        for worker in &self.workers {
            worker.stats.merge_into(&mut stamps);
            late = late.max(worker.stats.take_lateness(Instant::now()));
        }
        let now = Instant::now();
        let within = self.workers.iter().map(|worker| worker.stats.sums_up_within()).max();
        self.gateway.handle_summaries_within(within.unwrap_or_default());
        self.gateway.handle_stamps(&stamps, late, now);
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

    pub(super) fn handle_report(&mut self, report: Report) {
        let now = Instant::now();
        match report {
            Report::Refused { node } => self.gateway.handle_kernel_error(node, now),
            Report::Unreadable { node } => self.note_mismatch(node, Mismatch::Encryption, now),
            Report::PortClosed { session, hop } => {
                self.gateway.handle_port_closed(session, hop, now);
            }
            Report::CopiesDiffer { session, hops } => {
                self.gateway.handle_unalike(session, hops, now);
            }
            Report::Signed { node, message } => {
                let act = self.drivers.handle_signed(node, &message, Clock::read());
                self.act(act);
            }
            Report::FirstPacket { listener, source, payload_type } => {
                self.offer_first_packet(listener, source, payload_type, now);
            }
            Report::Summaries(summaries) => {
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
            Report::Shed { session, run } => {
                self.send_event(super::GatewayEvent::Shed { session, run });
            }
            Report::Panicked { session } => self.gateway.handle_panicked(session, now),
            Report::Removed { session, mode, totals } => {
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

pub(crate) fn draw(random: &ring::rand::SystemRandom) -> u64 {
    let mut bytes = [0; 8];
    fill(random, &mut bytes);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests;
