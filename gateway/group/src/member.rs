//! The thread of this member: hands inputs to the core's state machine and executes its outputs.

use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_config::GatewayConfig;
use evenkeel_control::{Handle, RecordBatch, Replica, Suspended, SuspensionGuard};
use evenkeel_dataplane::{SendLease, quic};
use evenkeel_drivers::Fencing;
use evenkeel_ownership::{
    self, Beat, BeatRole as PeerStanding, Blocked, Cluster, ClusterEvent, ClusterOutput,
    ClusterSettings, ContinuedOwnership, MaySend, Reporter, TakeoverCause,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::MemberEnd;
use super::beats::{BeatInput, Beats};
use super::group::{
    GatewayStanding, GroupInbox, GroupRequest, GroupRole, GroupStatus, HandOverError,
    HandOverResult, OwnershipState, TakeOverError, TakenOver,
};
use super::keeper::AddressKeeper;
use super::link::{Link, LinkEvent, LinkFrame};
use super::peer_agent::PeerAgent;
use super::votes::Votes;

/// Interval at which the API's view is renewed.
const SHOWN_EVERY: Duration = Duration::from_millis(100);

/// Beats that a process may send after it said which was its last: it ends within seconds.
const BEATS_MEANWHILE: u64 = 10_000;

/// The next beat of a peer that runs comes sooner.
const MISSED_AFTER: Duration = Duration::from_millis(7);

/// A copy is incomplete once the owner was heard for this long without a connection to it.
const STALE_AFTER: Duration = Duration::from_millis(100);

pub(super) struct MemberParts {
    pub(super) settings: evenkeel_config::GroupSettings,
    /// Of the process that this one replaces.
    pub(super) ownership: Option<OwnershipState>,
    pub(super) handle: Handle,
    pub(super) lease: Arc<SendLease>,
    pub(super) fencing: Arc<Fencing>,
    pub(super) quic: Option<quic::Resumer>,
    pub(super) link: Link,
    /// Newer epochs that agents named when they refused a message.
    pub(super) refused: mpsc::Receiver<u64>,
    pub(super) inbox: GroupInbox,
}

type GroupReply<T, E> = oneshot::Sender<Result<T, E>>;

/// A change of control that other inputs do not wait for.
type PendingChange<T> = Option<JoinHandle<Result<T, String>>>;

pub(super) struct GroupMember {
    settings: evenkeel_config::GroupSettings,
    core: Cluster,
    incarnation: u64,
    handle: Handle,
    lease: Arc<SendLease>,
    fencing: Arc<Fencing>,
    quic: Option<quic::Resumer>,
    keeper: AddressKeeper,
    beats: Beats,
    link: Link,
    votes: Votes,
    peer_agent: Option<PeerAgent>,
    refused: mpsc::Receiver<u64>,
    inbox: GroupInbox,
    replica: Replica,
    /// Batches for the peer, while this member owns and is connected.
    batches: Option<mpsc::Receiver<RecordBatch>>,
    following: PendingChange<mpsc::Receiver<RecordBatch>>,
    sent: u64,
    connected: bool,
    disconnected_at: Option<Instant>,
    refusal: Option<String>,
    /// The node lists differ.
    difference: Option<String>,
    heard: Option<Instant>,
    taking: PendingChange<usize>,
    /// Sessions that the last takeover continued.
    continued: usize,
    yielding: PendingChange<Suspended>,
    /// Kept while control is suspended for a hand-over.
    guard: Option<SuspensionGuard>,
    asked: Option<GroupReply<HandOverResult, HandOverError>>,
    /// An operator who made this member the owner.
    confirmed: Option<GroupReply<TakenOver, TakeOverError>>,
    /// Another process is to continue this member.
    rests: bool,
    resting: Option<oneshot::Sender<OwnershipState>>,
    lost: Option<MemberEnd>,
}

impl GroupMember {
    pub(super) fn new(
        parts: MemberParts,
        keeper: AddressKeeper,
        beats: Beats,
        votes: Votes,
        peer_agent: Option<PeerAgent>,
    ) -> GroupMember {
        let now = Instant::now();
        let started = evenkeel_process::unix_us(SystemTime::now());
        let incarnation = parts.ownership.map_or(started, |before| before.incarnation);
        let continued = parts.ownership.map(|before| ContinuedOwnership {
            sequence: before.sequence + BEATS_MEANWHILE,
            epoch: before.epoch,
            highest: before.highest,
        });
        let preferred = parts.settings.preferred;
        if let Some(before) = parts.ownership {
            parts.fencing.set_epoch(before.epoch);
            keeper.hold();
        }
        GroupMember {
            core: Cluster::new(ClusterSettings { preferred, incarnation, continued }, now),
            incarnation,
            keeper,
            replica: Replica::with_ports_at(parts.settings.port_legs()),
            settings: parts.settings,
            handle: parts.handle,
            lease: parts.lease,
            fencing: parts.fencing,
            quic: parts.quic,
            beats,
            link: parts.link,
            votes,
            peer_agent,
            refused: parts.refused,
            inbox: parts.inbox,
            batches: None,
            following: None,
            sent: 0,
            connected: false,
            disconnected_at: None,
            refusal: None,
            difference: None,
            heard: None,
            taking: None,
            continued: 0,
            yielding: None,
            guard: None,
            asked: None,
            confirmed: None,
            rests: false,
            resting: None,
            lost: None,
        }
    }

    /// Returns once this member has lost its ownership.
    pub(super) async fn run(mut self) -> MemberEnd {
        let mut shown = tokio::time::interval(SHOWN_EVERY);
        loop {
            while let Some(output) = self.core.poll_output() {
                self.execute(output);
            }
            if let Some(lost) = self.lost.take() {
                self.keeper.release().await;
                return lost;
            }
            self.answer_operator();
            let due = tokio::time::Instant::from_std(self.core.poll_timeout());
            // Input of others is handled before a timeout, so that this member's own lateness is no silence of others.
            tokio::select! {
                biased;
                heard = self.beats.recv() => self.handle_heard(heard),
                () = closed(&mut self.peer_agent, self.heard) => {
                    self.core.handle_peer_closed(Reporter::Agent, Instant::now());
                }
                witness = self.votes.recv() => self.core.handle_witness(&witness, Instant::now()),
                Some(epoch) = self.refused.recv() => {
                    self.core.handle_refused_epoch(epoch, Instant::now());
                }
                // Records do not delay beats. After each part of them the event loop looks at sockets and timers.
                () = tokio::time::sleep_until(due) => self.core.handle_timeout(Instant::now()),
                event = self.link.recv() => {
                    self.handle_link(event);
                    tokio::task::yield_now().await;
                }
                // Each beat looks for room again.
                batch = next(&mut self.batches), if self.link.has_room() => {
                    match batch {
                        Some(batch) => self.send_batch(&batch),
                        // Another follower replaced this one, or this one did not keep up.
                        None => self.batches = None,
                    }
                    tokio::task::yield_now().await;
                }
                // Fails only if control has ended, and the gateway with it.
                batches = done(&mut self.following) => self.batches = batches.ok(),
                taken = done(&mut self.taking) => self.handle_taken(taken),
                yielded = done(&mut self.yielding) => self.handle_yielded(yielded),
                Some(request) = self.inbox.requests.recv() => match request {
                    GroupRequest::HandOver { to, reply } => self.begin_hand_over(to, reply),
                    GroupRequest::TakeOver { down, reply } => self.begin_take_over(down, reply),
                    GroupRequest::Reload(settings) => self.reload(&settings),
                    GroupRequest::Rest(reply) => self.handle_suspend(Some(reply)),
                    GroupRequest::EndRest => self.handle_suspend(None),
                },
                _ = shown.tick() => {
                    self.look_after_copy();
                    self.follow_records();
                    self.look_after_agent();
                }
            }
            self.answer_rest();
            self.show();
        }
    }

    fn handle_heard(&mut self, heard: BeatInput) {
        let now = Instant::now();
        match heard {
            BeatInput::Beat(payload) => {
                // Of another version of the program.
                let Some(beat) = Beat::decode(&payload) else { return };
                self.heard = Some(now);
                self.core.handle_beat(beat, now);
            }
            BeatInput::Closed => self.core.handle_peer_closed(Reporter::Kernel, now),
        }
    }

    fn handle_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Connected => {
                tracing::info!(peer = %self.settings.peer.name, "connected to the group's other gateway");
                (self.connected, self.refusal) = (true, None);
                self.disconnected_at = None;
                self.follow_records();
            }
            LinkEvent::Disconnected => {
                self.core.handle_disconnected(Instant::now());
                (self.connected, self.batches, self.following) = (false, None, None);
                // The next follower's batches count from 1.
                self.inbox.acknowledged.send_replace(0);
                self.disconnected_at = Some(Instant::now());
            }
            LinkEvent::Refused(refused) => self.refusal = Some(refused.to_string()),
            LinkEvent::NodesDiffer(difference) => self.difference = difference,
            LinkEvent::Frame(LinkFrame::Batch(bytes)) => self.handle_batch(&bytes),
            LinkEvent::Frame(LinkFrame::Acknowledged(number)) => {
                self.inbox.acknowledged.send_replace(number);
            }
        }
    }

    /// The standby's copy.
    fn handle_batch(&mut self, bytes: &[u8]) {
        if self.core.is_owner() {
            return;
        }
        let batch =
            RecordBatch::decode(bytes, Some(Instant::now())).map_err(|error| error.to_string());
        let applied =
            batch.and_then(|batch| self.replica.apply(batch).map_err(|error| error.to_string()));
        match applied {
            Ok(()) => {
                let number = self.replica.number();
                self.core.handle_replica(self.replica.is_whole(), number, Instant::now());
                self.link.send(&LinkFrame::Acknowledged(number));
            }
            Err(reason) => {
                tracing::error!(%reason, "records of the owner refused");
                self.link.restart();
            }
        }
    }

    /// Sends all records to the peer, and then each that changes. A peer that is not heard gets none: after a takeover
    /// packets need the processor.
    fn follow_records(&mut self) {
        // The next process follows the records now.
        let follows = self.rests
            || self.batches.is_some()
            || self.following.is_some()
            || self.yielding.is_some()
            || self.guard.is_some();
        let reads = self.connected && self.core.peer(Instant::now()).is_some();
        if self.core.is_owner() && reads && self.taking.is_none() && !follows {
            let handle = self.handle.clone();
            // The numbers of batches begin again.
            self.inbox.acknowledged.send_replace(0);
            self.following = Some(tokio::spawn(async move {
                handle.follow_records(false).await.map_err(|_| "control ended".to_owned())
            }));
        }
    }

    fn send_batch(&mut self, batch: &RecordBatch) {
        self.sent = batch.number();
        if !self.link.send(&LinkFrame::Batch(batch.encode())) {
            // The peer does not read. The connection ends, and the next one begins with all records.
            self.batches = None;
        }
    }

    /// A copy that is not continued while the owner lives grows old.
    fn look_after_copy(&mut self) {
        let lives = |since: Instant| {
            since.elapsed() > STALE_AFTER
                && self.heard.is_some_and(|heard| heard > since + STALE_AFTER)
        };
        if !self.core.is_owner() && self.disconnected_at.is_some_and(lives) {
            self.disconnected_at = None;
            self.core.handle_replica(false, self.replica.number(), Instant::now());
        }
    }

    /// An agent that does not answer is noticed before it is needed.
    fn look_after_agent(&mut self) {
        if let Some(agent) = &mut self.peer_agent {
            agent.report_silence(self.core.peer(Instant::now()).is_some());
            agent.ask();
        }
    }

    fn execute(&mut self, output: ClusterOutput) {
        match output {
            ClusterOutput::Send(beat) => {
                self.beats.send(&beat.encode());
                let missed = self.heard.is_none_or(|heard| heard.elapsed() >= MISSED_AFTER);
                if let Some(agent) = self.peer_agent.as_mut().filter(|_| missed) {
                    agent.ask();
                }
            }
            ClusterOutput::Ask { to, vote } => self.votes.ask(to, vote),
            ClusterOutput::MaySend(MaySend::Never) => self.lease.end(),
            ClusterOutput::MaySend(MaySend::Until(until)) => self.lease.renew(until),
            ClusterOutput::MaySend(MaySend::Always) => self.lease.renew_forever(),
            ClusterOutput::Raise { epoch } => self.fencing.set_epoch(epoch),
            ClusterOutput::TakeOver { epoch, evidence } => self.take_over(epoch, evidence),
            ClusterOutput::StepDown { epoch } => self.step_down(epoch),
            ClusterOutput::Yield => self.begin_to_yield(),
            ClusterOutput::Event(event) => self.report(event),
        }
    }

    fn take_over(&mut self, epoch: u64, evidence: TakeoverCause) {
        let (since, sessions) = (Instant::now(), self.replica.sessions());
        tracing::warn!(epoch, ?evidence, sessions, "this gateway owns the group's addresses");
        self.fencing.set_epoch(epoch);
        self.keeper.hold();
        let (handle, quic) = (self.handle.clone(), self.quic.clone());
        let yielded = self.guard.take().is_some();
        let replica = std::mem::take(&mut self.replica);
        self.taking = Some(tokio::spawn(async move {
            let mut sessions = replica.sessions();
            // Without sessions too: ids and answered keys continue.
            if !yielded && replica.number() > 0 {
                let state = replica.snapshot_with_ports();
                let (snapshot, sockets) = state.ok_or("no record of a node came")?;
                let restored = handle.take_over(snapshot, sockets).await;
                sessions = restored.map_err(|error| error.to_string())?.sessions;
            } else {
                handle.resume().await.map_err(|_| "control ended".to_owned())?;
            }
            quic.iter().for_each(quic::Resumer::resume);
            let after_us = since.elapsed().as_micros() as u64;
            tracing::info!(epoch, sessions, after_us, "sessions continue at this gateway");
            Ok(sessions)
        }));
    }

    fn handle_taken(&mut self, taken: Result<usize, String>) {
        match taken {
            Ok(sessions) => {
                self.continued = sessions;
                self.follow_records();
            }
            Err(reason) => self.lost = Some(MemberEnd::NotRestored(reason)),
        }
    }

    fn step_down(&mut self, epoch: u64) {
        let owner = Arc::clone(&self.settings.peer.name);
        if let Some(guard) = self.guard.take() {
            guard.stay();
        }
        if let Some(reply) = self.asked.take() {
            // The client may have disconnected.
            let _ = reply.send(Ok(HandOverResult { gateway: Arc::clone(&owner), epoch }));
        }
        self.lost = Some(MemberEnd::Replaced { owner, epoch });
    }

    /// Keeps the standby disarmed, or ends that. Without ownership the reply is dropped.
    fn handle_suspend(&mut self, reply: Option<oneshot::Sender<OwnershipState>>) {
        self.rests = reply.is_some();
        self.core.set_resting(self.rests, Instant::now());
        self.resting = reply.filter(|_| self.core.is_owner());
    }

    fn answer_rest(&mut self) {
        if let Some(ContinuedOwnership { sequence, epoch, highest }) = self.core.continued()
            && let Some(reply) = self.resting.take()
        {
            let incarnation = self.incarnation;
            // The upgrade may have been given up.
            let _ = reply.send(OwnershipState { incarnation, sequence, epoch, highest });
        }
    }

    fn reload(&mut self, settings: &GatewayConfig) {
        self.link.apply(settings);
        for gone in self.votes.set_voters(super::voters(settings)) {
            self.core.handle_no_witness(gone);
        }
    }

    fn begin_hand_over(&mut self, to: String, reply: GroupReply<HandOverResult, HandOverError>) {
        let peer = &self.settings.peer.name;
        let refused = if *to == *self.settings.name {
            match self.core.is_owner() {
                true => Err(HandOverError::OwnerAlready(to)),
                false => Err(HandOverError::NotOwner(Arc::clone(peer))),
            }
        } else if *to != **peer {
            let members = format!("{}, {peer}", self.settings.name);
            Err(HandOverError::Unknown { found: to, members })
        } else if self.asked.is_some() || self.taking.is_some() {
            Err(HandOverError::UnderWay)
        } else {
            self.core.handle_hand_over(Instant::now()).map_err(|failed| match failed {
                evenkeel_ownership::HandOverRefusal::NotOwner => {
                    HandOverError::NotOwner(Arc::clone(peer))
                }
                evenkeel_ownership::HandOverRefusal::PeerSilent
                | evenkeel_ownership::HandOverRefusal::RecordsIncomplete => {
                    HandOverError::NotInSync(Arc::clone(peer))
                }
            })
        };
        match refused {
            Ok(()) => self.asked = Some(reply),
            // The client may have disconnected.
            Err(refused) => _ = reply.send(Err(refused)),
        }
    }

    fn begin_take_over(&mut self, down: String, reply: GroupReply<TakenOver, TakeOverError>) {
        let peer = Arc::clone(&self.settings.peer.name);
        let owned = self.core.is_owner();
        let refused = if *down != *peer {
            TakeOverError::NotPeer { found: down, peer }
        } else {
            match self.core.handle_take_over(Instant::now()) {
                Ok(()) => {
                    tracing::warn!(%peer, "an operator confirms that the peer is down");
                    self.confirmed = Some(reply);
                    if owned && self.taking.is_none() {
                        self.count_sessions();
                    }
                    return;
                }
                Err(evenkeel_ownership::TakeoverRefusal::OwnerAlready) => {
                    TakeOverError::OwnerAlready
                }
                Err(evenkeel_ownership::TakeoverRefusal::PeerOwns) => {
                    TakeOverError::PeerOwns { peer, here: Arc::clone(&self.settings.name) }
                }
                Err(evenkeel_ownership::TakeoverRefusal::PeerHeard) => {
                    TakeOverError::PeerHeard(peer)
                }
                Err(evenkeel_ownership::TakeoverRefusal::Joining) => TakeOverError::Joining(peer),
                Err(evenkeel_ownership::TakeoverRefusal::AgentsHearPeer) => {
                    TakeOverError::AgentsHearPeer(peer)
                }
            }
        };
        // The client may have disconnected.
        let _ = reply.send(Err(refused));
    }

    /// An owner that sends again continues its own sessions. It admits none until they are counted.
    fn count_sessions(&mut self) {
        let handle = self.handle.clone();
        self.taking = Some(tokio::spawn(async move {
            let status = handle.status().await.map_err(|_| "control ended".to_owned())?;
            Ok(status.sessions)
        }));
    }

    /// Answers the operator once the sessions continue here.
    fn answer_operator(&mut self) {
        if self.core.is_owner()
            && self.taking.is_none()
            && let Some(reply) = self.confirmed.take()
        {
            let (gateway, epoch) = (Arc::clone(&self.settings.name), self.core.epoch());
            let owner = HandOverResult { gateway, epoch };
            // The client may have disconnected.
            let _ = reply.send(Ok(TakenOver { owner, sessions: self.continued }));
        }
    }

    /// Stops the workers and sends the last records.
    fn begin_to_yield(&mut self) {
        let handle = self.handle.clone();
        self.yielding =
            Some(tokio::spawn(
                async move { handle.suspend().await.map_err(|error| error.to_string()) },
            ));
    }

    fn handle_yielded(&mut self, yielded: Result<Suspended, String>) {
        match yielded {
            Ok(Suspended { mut batch, descriptors: _, guard }) => {
                batch.precedes_packets();
                self.guard = Some(guard);
                self.send_batch(&batch);
                self.core.handle_yielded(self.sent, Instant::now());
                if self.core.is_owner() {
                    // The hand-over was given up: control resumes.
                    self.guard = None;
                }
            }
            Err(reason) => {
                self.fail_hand_over(reason);
                self.core.handle_not_yielded(Instant::now());
            }
        }
    }

    fn fail_hand_over(&mut self, reason: String) {
        if let Some(reply) = self.asked.take() {
            let peer = &self.settings.peer.name;
            tracing::error!(%peer, %reason, "hand-over failed; this gateway continues");
            // The client may have disconnected.
            let _ = reply.send(Err(HandOverError::Failed(reason)));
        }
    }

    fn report(&mut self, event: ClusterEvent) {
        let peer = Arc::clone(&self.settings.peer.name);
        match event {
            ClusterEvent::PeerHeard => tracing::info!(%peer, "peer heard"),
            ClusterEvent::PeerSilent => tracing::warn!(%peer, "peer silent"),
            ClusterEvent::PeerEnded { by } => {
                let reported_by = match by {
                    Reporter::Kernel => "kernel",
                    Reporter::Agent => "agent",
                };
                tracing::warn!(%peer, reported_by, "peer's process ended");
            }
            ClusterEvent::PeerRestarted => tracing::info!(%peer, "peer restarted"),
            ClusterEvent::Followed { epoch } => {
                tracing::info!(%peer, epoch, "this gateway is the standby");
            }
            ClusterEvent::Armed { voters } => {
                tracing::info!(%peer, voters = voters.len(), "standby may take over by silence");
            }
            ClusterEvent::Disarmed => tracing::info!(%peer, "standby may not take over by silence"),
            ClusterEvent::Barred => {
                tracing::warn!(%peer, "agents keep the silent peer from taking over");
            }
            ClusterEvent::LeaseLapsed => {
                self.keeper.drop_waiting();
                tracing::warn!("neither peer nor agents confirm the ownership: nothing is sent");
            }
            ClusterEvent::LeaseRenewed { after } => {
                let after_ms = after.as_millis() as u64;
                tracing::info!(after_ms, "ownership confirmed: packets are sent again");
            }
            ClusterEvent::HandOverFailed => {
                self.fail_hand_over(format!("{peer} did not take the sessions"));
            }
            ClusterEvent::TakeoverBlocked(blocked) => tracing::error!(
                %peer,
                reason = reason(blocked),
                "peer silent, and not replaced; if it is down, run `evenkeel gateway take-over --confirm-down {peer}`"
            ),
        }
    }

    fn show(&mut self) {
        let now = Instant::now();
        let addresses: Vec<IpAddr> =
            self.settings.addresses.iter().map(|moved| moved.address).collect();
        let (is_owner, epoch) = (self.core.is_owner(), self.core.epoch());
        let peer = self.core.peer(now);
        let peer_owns = peer.is_some_and(|beat| beat.standing == PeerStanding::Owner);
        let copies = self.replica.sessions();
        let is_doubting = is_owner && !self.lease.is_held(now);
        let blocked = match self.core.blocked() {
            _ if is_doubting && peer.is_none() => {
                Some("neither it nor a majority of the agents answers")
            }
            blocked => blocked.map(reason),
        };
        let here = GatewayStanding {
            gateway: Arc::clone(&self.settings.name),
            here: true,
            role: match () {
                () if is_doubting => GroupRole::Doubting,
                () if is_owner && self.taking.is_some() => GroupRole::Restoring,
                () if is_owner => GroupRole::Owner,
                () if epoch == 0 => GroupRole::Joining,
                () => GroupRole::Standby,
            },
            epoch,
            sessions: copies,
            in_sync: is_owner || self.replica.is_whole(),
            heard_ms: None,
            addresses: if is_owner { addresses.clone() } else { Vec::new() },
            refused: None,
            blocked: blocked
                .map(|reason| format!("{} is silent: {reason}", self.settings.peer.name)),
        };
        let there = GatewayStanding {
            gateway: Arc::clone(&self.settings.peer.name),
            here: false,
            role: match peer {
                None => GroupRole::Silent,
                Some(_) if peer_owns => GroupRole::Owner,
                Some(_) => GroupRole::Standby,
            },
            epoch: peer.map_or(0, |beat| beat.epoch),
            sessions: if peer_owns { copies } else { 0 },
            in_sync: peer_owns || self.core.is_followed(now),
            heard_ms: self.heard.map(|heard| (now - heard).as_millis() as u64),
            addresses: if peer_owns { addresses } else { Vec::new() },
            refused: self.refusal.clone().or_else(|| self.difference.clone()),
            blocked: None,
        };
        let standing = GroupStatus { gateways: vec![here, there] };
        self.inbox.standing.send_if_modified(|shown| {
            let changed = *shown != standing;
            if changed {
                *shown = standing;
            }
            changed
        });
    }
}

/// The reason for which the silent peer, "it", is not replaced.
fn reason(blocked: Blocked) -> &'static str {
    match blocked {
        Blocked::NotArmed => "its records are incomplete here, or it knows no agent",
        Blocked::OwnerHeard => "agents hear it",
        Blocked::NoAgent => "no agent answers this gateway",
        Blocked::Unknown => "this gateway has not followed it as the owner; it may own",
    }
}

async fn closed(agent: &mut Option<PeerAgent>, heard: Option<Instant>) {
    match agent {
        Some(agent) => agent.closed(heard).await,
        None => pending().await,
    }
}

async fn next<T>(receiver: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match receiver {
        Some(batches) => batches.recv().await,
        None => pending().await,
    }
}

async fn done<T>(change: &mut PendingChange<T>) -> Result<T, String> {
    let Some(task) = change else { return pending().await };
    let outcome = task.await.unwrap_or_else(|_| Err("a task panicked".to_owned()));
    *change = None;
    outcome
}
