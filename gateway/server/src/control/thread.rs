//! The thread that owns the core: what the world says goes in, what the core wants is done.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_core::{
    CloseReason, Event, Gateway, Hop, Identity, Ingress, NodeId, NotOpened, Offer, OfferId, Output,
    PolicyName, Refused, RtcpPort, SessionId, Stamp, WATCH_EVERY,
};
use ring::rand::SecureRandom;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::driver::{Act, Clock, Drivers, Wish};
use super::handle::{Caller, Failed, Opened, Request, Told, Wanted};
use super::homes::{Homeless, Homes};
use super::knock::Knocks;
use super::prober::{Probed, Prober};
use crate::policy::{Policies, Source, Word};
use crate::settings::Settings;
use crate::worker::{Bell, Command, Dscp, Install, Report, Stamps, Totals};

/// A worker tells what a session carried with its next pass; after this it is not waited for.
const TOTALS_WITHIN: Duration = Duration::from_secs(1);

/// A worker as control knows it.
pub(crate) struct WorkerLine {
    pub(crate) commands: crossbeam_channel::Sender<Command>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) stamps: Arc<Stamps>,
}

/// What control is made of.
pub(crate) struct Parts {
    pub(crate) settings: Arc<Settings>,
    pub(crate) gateway: Gateway,
    pub(crate) workers: Vec<WorkerLine>,
    pub(crate) homes: Homes,
    pub(crate) drivers: Drivers,
    /// By node: how and where it is probed, if it is.
    pub(crate) probes: Vec<Option<(SocketAddr, super::prober::Way)>>,
    pub(crate) policies: Policies,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) reports: mpsc::Receiver<Report>,
    pub(crate) words: mpsc::Receiver<Word>,
    pub(crate) events: broadcast::Sender<Arc<Told>>,
    pub(crate) quic_counters: Option<Arc<crate::quic::Counters>>,
    pub(crate) started: Instant,
}

pub(super) struct Control {
    pub(super) settings: Arc<Settings>,
    pub(super) gateway: Gateway,
    pub(super) workers: Vec<WorkerLine>,
    pub(super) homes: Homes,
    drivers: Drivers,
    probers: Vec<Option<Prober>>,
    pub(super) policies: Policies,
    events: broadcast::Sender<Arc<Told>>,
    pub(super) quic_counters: Option<Arc<crate::quic::Counters>>,
    pub(super) started: Instant,
    random: ring::rand::SystemRandom,
    offers: BTreeMap<OfferId, Pending>,
    next_offer: u64,
    /// Sessions that were told to end, and their event waits for what they carried.
    closing: BTreeMap<SessionId, Closing>,
    knocks: Knocks,
    pub(super) shutting_down: Vec<oneshot::Sender<()>>,
    core_finished: bool,
    rung: BTreeSet<u16>,
    pub(super) finished: bool,
}

/// An offer whose reply is awaited.
struct Pending {
    wanted: Wanted,
    arrived: Instant,
    homeless: Option<Homeless>,
    reply: Option<oneshot::Sender<Result<Opened, Failed>>>,
}

/// A session that ended, and of which its worker has not told yet what it carried.
struct Closing {
    event: Event,
    /// As was told last.
    totals: Totals,
    since: Instant,
}

/// Runs control until it is shut down, on the calling thread.
///
/// # Errors
/// Where the system gives no event loop or no sockets for probes.
pub(crate) fn run(parts: Parts) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, serve(parts))
}

async fn serve(parts: Parts) -> std::io::Result<()> {
    let Parts { mut requests, mut reports, mut words, .. } = parts;
    let (told, mut probed) = mpsc::channel(4_096);
    let probers = (0..)
        .zip(parts.probes)
        .map(|(node, probe)| {
            probe
                .map(|(address, way)| Prober::start(NodeId(node), address, way, told.clone()))
                .transpose()
        })
        .collect::<std::io::Result<Vec<_>>>()?;
    let mut control = Control {
        settings: parts.settings,
        gateway: parts.gateway,
        workers: parts.workers,
        homes: parts.homes,
        drivers: parts.drivers,
        probers,
        policies: parts.policies,
        events: parts.events,
        quic_counters: parts.quic_counters,
        started: parts.started,
        random: ring::rand::SystemRandom::new(),
        offers: BTreeMap::new(),
        next_offer: 1,
        closing: BTreeMap::new(),
        knocks: Knocks::default(),
        shutting_down: Vec::new(),
        core_finished: false,
        rung: BTreeSet::new(),
        finished: false,
    };
    let mut watch = tokio::time::interval(WATCH_EVERY);
    watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !control.finished {
        // The watch goes first, so that nobody's flood of reports keeps it waiting; and what has arrived by then is
        // read before anything is judged by the clock.
        tokio::select! {
            biased;
            _ = watch.tick() => {
                for _ in 0..probed.len() {
                    probed.try_recv().into_iter().for_each(|probed| control.handle_probed(probed));
                }
                for _ in 0..reports.len() {
                    reports.try_recv().into_iter().for_each(|report| control.handle_report(report));
                }
                control.watch();
            }
            Some(probed) = probed.recv() => control.handle_probed(probed),
            Some(report) = reports.recv() => control.handle_report(report),
            Some(word) = words.recv() => control.handle_word(word),
            Some(request) = requests.recv() => control.handle_request(request),
        }
        control.drain();
    }
    control.stop_workers();
    Ok(())
}

impl Control {
    fn handle_probed(&mut self, probed: Probed) {
        match probed {
            Probed::Answered { node, sequence, at } => {
                self.gateway.handle_probe_answered(node, sequence, at);
            }
            Probed::Refused { node } => self.gateway.handle_kernel_error(node, Instant::now()),
        }
    }

    /// Every 2 ms: what workers saw, and what time it is.
    fn watch(&mut self) {
        let mut stamps = vec![Stamp::default(); self.settings.nodes.len()];
        let mut late = Duration::ZERO;
        for worker in &self.workers {
            worker.stamps.merge_into(&mut stamps);
            late = late.max(worker.stamps.take_longest_pass());
        }
        let now = Instant::now();
        self.gateway.handle_stamps(&stamps, late, now);
        self.tell_of_unheard(now);
        self.finish_if_told();
    }

    fn handle_word(&mut self, word: Word) {
        let now = Instant::now();
        match word {
            Word::Answered(ask, result) => self.gateway.handle_answer(ask, result, now),
            Word::Rolled(rollout) => {
                self.gateway.handle_policy_changed(&rollout.policy, now);
                self.tell_rollout(rollout);
            }
        }
    }

    fn handle_report(&mut self, report: Report) {
        let now = Instant::now();
        match report {
            Report::Refused { node } => self.gateway.handle_kernel_error(node, now),
            Report::PortClosed { session, hop } => {
                self.gateway.handle_port_closed(session, hop, now);
            }
            Report::Signed { node, message } => {
                let act = self.drivers.handle_signed(node, &message, Clock::read());
                self.act(act);
            }
            Report::Knock { listener, source, payload_type } => {
                self.knock(listener, source, payload_type, now);
            }
            Report::Summaries(summaries) => {
                for summary in summaries {
                    self.gateway.handle_summary(
                        summary.session,
                        summary.measures,
                        summary.last_heard,
                    );
                    if let Some(resident) = self.homes.get_mut(summary.session) {
                        resident.totals = summary.totals;
                    }
                }
            }
            Report::Shed { session, run } => {
                self.tell_happened(super::Happened::Shed { session, run });
            }
            Report::Removed { session, totals } => {
                if let Some(closing) = self.closing.remove(&session) {
                    self.tell(closing.event, Some(totals));
                }
            }
        }
    }

    /// A packet of nobody's came to an open listener: it opens a session, once.
    fn knock(&mut self, listener: u8, source: SocketAddr, payload_type: u8, now: Instant) {
        let scenario = self.homes.udp.get(usize::from(listener)).and_then(|udp| udp.open.clone());
        let Some(scenario) = scenario.filter(|_| self.knocks.is_new(listener, source, now)) else {
            return;
        };
        let wanted = super::knock::wanted(scenario, listener, source, payload_type);
        self.offer(wanted, None, now);
    }

    pub(super) fn offer(
        &mut self,
        wanted: Wanted,
        reply: Option<oneshot::Sender<Result<Opened, Failed>>>,
        now: Instant,
    ) {
        let refuse = |reply: Option<oneshot::Sender<_>>, failed| {
            if let Some(reply) = reply {
                let _ = reply.send(Err(failed));
            }
        };
        if let Err(homeless) = self.homes.admits(&wanted.ingress) {
            return refuse(reply, failed(homeless));
        }
        let mut nodes = Vec::new();
        for (name, address) in &wanted.nodes {
            match self.node_named(name) {
                Some(node) => nodes.push((node, *address)),
                None => return refuse(reply, Failed::UnknownNode(name.clone())),
            }
        }
        let id = OfferId(self.next_offer);
        self.next_offer += 1;
        let offer = Offer {
            id,
            scenario: wanted.scenario.clone(),
            room: wanted.room.clone(),
            labels: wanted.labels.clone(),
            ingress: wanted.ingress.clone(),
            media: wanted.media.clone(),
            nodes,
        };
        let pending = Pending { wanted, arrived: now, homeless: None, reply };
        self.offers.insert(id, pending);
        self.gateway.handle_offer(offer, now);
    }

    pub(super) fn node_named(&self, name: &str) -> Option<NodeId> {
        let place = self.settings.nodes.iter().position(|node| *node.name == *name)?;
        Some(NodeId(place as u32))
    }

    /// Does what the core wants, until it wants nothing more, and wakes the workers that were told something.
    fn drain(&mut self) {
        loop {
            let clock = Clock::read();
            self.gateway.handle_timeout(clock.now);
            while let Some(output) = self.gateway.poll_output() {
                self.obey(output, clock);
            }
            match self.drivers.handle_timeout(clock) {
                Some(act) => self.act(Some(act)),
                None => break,
            }
        }
        for worker in std::mem::take(&mut self.rung) {
            self.workers[usize::from(worker)].bell.ring();
        }
    }

    fn obey(&mut self, output: Output, clock: Clock) {
        match output {
            Output::Ask(ask) => {
                if let Err((id, fault)) = self.policies.ask(ask) {
                    self.gateway.handle_answer(id, Err(fault), clock.now);
                }
            }
            Output::Install { session, room: _, offer, route, plan } => {
                self.install(session, &offer, route, plan, clock.now);
            }
            Output::Open { session, room, hop } => {
                let wish = self.wish(session, room, hop);
                let random = &self.random;
                let act =
                    wish.and_then(|wish| self.drivers.open(&wish, &mut || draw(random), clock));
                match act {
                    Some(act) => self.act(Some(act)),
                    None => self.gateway.handle_opened(session, hop, Err(NotOpened), clock.now),
                }
            }
            Output::CloseAt { session, hop } => {
                let act = self.drivers.close(session, hop, clock);
                self.act(act);
                if let Some(home) = self.homes.get(session).map(|resident| resident.home) {
                    self.command(home.worker, Command::Detach { home, hop });
                }
            }
            Output::Reply { offer, result } => self.reply(offer, result),
            Output::Plan { session, plan } => {
                self.with_home(session, |home| Command::Plan { home, plan });
            }
            Output::KeyFrame { sessions } => {
                for session in sessions {
                    self.with_home(session, |home| Command::KeyFrame { home });
                }
            }
            Output::End { session, reason } => self.end(session, reason),
            Output::Probe { node, sequence } => self.probe(node, sequence, clock),
            Output::Event(event) => self.tell_or_hold(event),
            Output::Finished => {
                self.core_finished = true;
            }
        }
    }

    fn wish(&self, session: SessionId, room: evenkeel_core::RoomId, hop: Hop) -> Option<Wish> {
        let resident = self.homes.get(session)?;
        let named = resident.nodes.iter().find(|(node, _)| *node == hop.node);
        let rtcp_apart = resident.rtcp == RtcpPort::Own;
        Some(Wish { session, room, hop, address: named.map(|(_, address)| *address), rtcp_apart })
    }

    fn install(
        &mut self,
        session: SessionId,
        offer: &Offer,
        route: Arc<evenkeel_core::RouteCell>,
        plan: evenkeel_core::Plan,
        now: Instant,
    ) {
        let random = &self.random;
        let settled = self.homes.settle(session, offer, &mut |bytes| fill(random, bytes));
        match settled {
            Ok((home, client, ports)) => {
                if let (Some(pending), Some(resident)) =
                    (self.offers.get(&offer.id), self.homes.get_mut(session))
                {
                    let traceparent = pending.wanted.traceparent.clone();
                    resident.caller = Some(Caller { arrived: pending.arrived, traceparent });
                }
                let dscp = self.dscp(&offer.scenario);
                let media = offer.media.clone();
                let seed = draw(&self.random);
                let install =
                    Install { home, session, media, client, route, plan, dscp, ports, seed };
                self.command(home.worker, Command::Install(Box::new(install)));
            }
            Err(homeless) => {
                if let Some(pending) = self.offers.get_mut(&offer.id) {
                    pending.homeless = Some(homeless);
                }
                // It cannot be reached; the refusal tells why.
                let _ = self.gateway.handle_close(session, now);
            }
        }
    }

    fn dscp(&self, scenario: &str) -> Dscp {
        self.settings.scenario(scenario).map_or(Dscp::default(), |(_, scenario)| Dscp {
            voice: scenario.dscp.voice,
            video: scenario.dscp.video,
        })
    }

    fn reply(&mut self, offer: OfferId, result: Result<evenkeel_core::Accepted, Refused>) {
        let Some(pending) = self.offers.remove(&offer) else {
            return;
        };
        let Pending { wanted, arrived: _, homeless, reply } = pending;
        let answer = match result {
            Ok(accepted) => match self.homes.get(accepted.session) {
                Some(resident) => Ok(Opened {
                    session: accepted.session,
                    room: accepted.room,
                    ingress: resident.reached.clone(),
                    route: accepted.route.load().hops.iter().map(|(hop, _)| *hop).collect(),
                    admitted_by: accepted.admitted_by,
                    routed_by: accepted.routed_by,
                }),
                None => Err(Failed::Unavailable),
            },
            Err(refused) => Err(homeless.map_or(Failed::Refused(refused), failed)),
        };
        match reply {
            Some(reply) => {
                let opened = answer.as_ref().ok().map(|opened| opened.session);
                if reply.send(answer).is_err()
                    && let Some(session) = opened
                {
                    // Whoever asked is gone and will never use it.
                    let _ = self.gateway.handle_close(session, Instant::now());
                }
            }
            None => {
                if let Ingress::Udp(Identity::Open { address, listener }) = wanted.ingress {
                    self.knocks.settled(listener, address, answer.is_ok(), Instant::now());
                }
            }
        }
    }

    fn act(&mut self, act: Option<Act>) {
        match act {
            None => {}
            Some(Act::Sign { session, node, message }) => {
                // The session's own worker asks, so that the node learns where its packets go.
                if let Some(home) = self.homes.get(session).map(|resident| resident.home) {
                    self.command(home.worker, Command::Sign { node, message });
                }
            }
            Some(Act::Opened { session, hop, leg }) => {
                self.with_home(session, |home| Command::Attach { home, hop, leg });
                self.gateway.handle_opened(session, hop, Ok(()), Instant::now());
            }
            Some(Act::Refused { session, hop }) => {
                self.gateway.handle_opened(session, hop, Err(NotOpened), Instant::now());
            }
        }
    }

    fn probe(&mut self, node: NodeId, sequence: u64, clock: Clock) {
        let prober = self.probers.get(node.0 as usize).and_then(Option::as_ref);
        if prober.map(|prober| prober.probe(sequence, clock))
            == Some(Err(std::io::ErrorKind::ConnectionRefused))
        {
            self.gateway.handle_kernel_error(node, clock.now);
        }
    }

    fn end(&mut self, session: SessionId, reason: CloseReason) {
        if let Some(resident) = self.homes.evict(session) {
            let home = resident.home;
            self.command(home.worker, Command::Remove { home });
        }
        if reason == CloseReason::NotOpened {
            self.closing.remove(&session);
        }
    }

    fn with_home(
        &mut self,
        session: SessionId,
        command: impl FnOnce(crate::flows::Home) -> Command,
    ) {
        if let Some(home) = self.homes.get(session).map(|resident| resident.home) {
            self.command(home.worker, command(home));
        }
    }

    fn command(&mut self, worker: u16, command: Command) {
        // A worker that is gone takes no commands; the process is ending then.
        let _ = self.workers[usize::from(worker)].commands.send(command);
        self.rung.insert(worker);
    }

    /// Tells an event; that of a session's end waits for what it carried.
    fn tell_or_hold(&mut self, event: Event) {
        match event {
            Event::Closed { session, .. } => match self.homes.get(session) {
                Some(resident) => {
                    let totals = resident.totals;
                    let closing = Closing { event, totals, since: Instant::now() };
                    self.closing.insert(session, closing);
                }
                None => self.tell(event, None),
            },
            event => self.tell(event, None),
        }
    }

    /// A worker's last word on a session may be lost when many end at once; the one before will do.
    fn tell_of_unheard(&mut self, now: Instant) {
        let unheard =
            |closing: &Closing| now.saturating_duration_since(closing.since) >= TOTALS_WITHIN;
        let late: Vec<Closing> = self
            .closing
            .extract_if(.., |_, closing| unheard(closing))
            .map(|(_, late)| late)
            .collect();
        late.into_iter().for_each(|late| self.tell(late.event, Some(late.totals)));
    }

    fn tell(&self, event: Event, totals: Option<Totals>) {
        let caller = match &event {
            Event::Opened { session, .. } => {
                self.homes.get(*session).and_then(|resident| resident.caller.clone())
            }
            _ => None,
        };
        let told =
            Told { at: SystemTime::now(), event: super::Happened::Core(event), totals, caller };
        // Nobody listens, perhaps; that is no failure.
        let _ = self.events.send(Arc::new(told));
    }

    pub(super) fn tell_rollout(&self, rollout: super::Rollout) {
        self.tell_happened(super::Happened::Rollout(rollout));
    }

    fn tell_happened(&self, event: super::Happened) {
        let told = Told { at: SystemTime::now(), event, totals: None, caller: None };
        let _ = self.events.send(Arc::new(told));
    }

    /// The core is done. How sessions ended is told first.
    fn finish_if_told(&mut self) {
        if self.core_finished && self.closing.is_empty() {
            self.finished = true;
            for done in self.shutting_down.drain(..) {
                let _ = done.send(());
            }
        }
    }

    fn stop_workers(&mut self) {
        for worker in &self.workers {
            let _ = worker.commands.send(Command::Stop);
            worker.bell.ring();
        }
    }

    /// Prepares a revision on a thread of its own; the reply comes when it is decided.
    pub(super) fn roll_out(
        &mut self,
        policy: &PolicyName,
        source: Source,
        reply: Option<oneshot::Sender<Result<super::Rollout, Failed>>>,
    ) {
        let Some(workshop) = self.policies.workshop(policy) else {
            if let Some(reply) = reply {
                let _ =
                    reply.send(Err(Failed::Policy(format!("there is no policy {policy}").into())));
            }
            return;
        };
        let events = self.events.clone();
        let spawned = std::thread::Builder::new().name("rollout".into()).spawn(move || {
            let rollout = crate::policy::prepare(&workshop, source);
            if rollout.outcome == super::RolloutOutcome::Refused {
                let told = Told {
                    at: SystemTime::now(),
                    event: super::Happened::Rollout(rollout.clone()),
                    totals: None,
                    caller: None,
                };
                let _ = events.send(Arc::new(told));
            }
            if let Some(reply) = reply {
                let _ = reply.send(Ok(rollout));
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, %policy, "no thread for a rollout");
        }
    }

    pub(super) fn seed(&self) -> u64 {
        draw(&self.random)
    }
}

fn failed(homeless: Homeless) -> Failed {
    match homeless {
        Homeless::NoListener => Failed::NoListener,
        Homeless::AddressTaken(address) => Failed::AddressTaken(address),
        Homeless::NoResources => Failed::Unavailable,
    }
}

fn fill(random: &ring::rand::SystemRandom, bytes: &mut [u8]) {
    random.fill(bytes).expect("the system's random source works once it is there");
}

fn draw(random: &ring::rand::SystemRandom) -> u64 {
    let mut bytes = [0; 8];
    fill(random, &mut bytes);
    u64::from_be_bytes(bytes)
}
