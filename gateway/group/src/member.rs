//! The thread of this member: hands inputs to the core's state machine and executes its outputs.

mod operator;
mod reporting;
mod takeover_phases;

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_config::{GatewayConfig, PeerSettings};
use evenkeel_control::{CertificateChannels, Continuation, Handle, Suspended, SuspensionGuard};
use evenkeel_dataplane::{SendLease, quic};
use evenkeel_drivers::Fencing;
use evenkeel_media::srtp::IndexGrant;
use evenkeel_ownership::{
    Beat, BeatRole, Cluster, ClusterOutput, ClusterSettings, ContinuedOwnership, HoldDown, MaySend,
    PeerId, Reporter, TakeoverCause,
};
use evenkeel_telemetry::Instruments;
use takeover_phases::TakeoverTimes;
use tokio::sync::{mpsc, oneshot};

use super::address::AddressKeeper;
use super::beats::{BeatInput, Beats};
use super::fence::Fence;
use super::group::{
    GroupInbox, GroupRequest, GroupRole, HandOverError, HandOverResult, OwnershipState,
    TakeOverError, TakenOver,
};
use super::link::{Link, LinkEvent, LinkFrame, LinkedPeer};
use super::peer_agent::PeerAgent;
use super::preparation::TakeoverPreparation;
use super::records::{PendingChange, RecordExchange, finish};
use super::redundancy::Redundancy;
use super::refusals::RefusalLog;
use super::rehearsal::Rehearsal;
use super::votes::{Votes, VotingAgent};

/// Interval at which the API's view is renewed.
const SHOWN_EVERY: Duration = Duration::from_millis(100);

/// Beats that a process may send after it said which was its last: it ends within seconds.
const BEATS_MEANWHILE: u64 = 10_000;

/// A standby that its owner does not hear for a moment is a spare meanwhile.
const SPARE_KEEPS_COPY: Duration = Duration::from_secs(1);

/// The next beat of a peer that runs comes sooner.
const MISSED_AFTER: Duration = Duration::from_millis(7);

/// The reason for which a member ends.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MemberEnd {
    /// The peer took over.
    #[error(
        "{owner} owns the group's addresses since epoch {epoch}; this process ends, and its supervisor starts it as the standby"
    )]
    Replaced {
        /// The peer's name.
        owner: Arc<str>,
        /// Its epoch.
        epoch: u64,
    },
    /// Nothing can keep the addresses.
    #[error(
        "`evenkeel hold-addresses` has ended; this process ends, and its supervisor starts both again"
    )]
    NoHolder,
    /// The records could not be continued, for this reason.
    #[error("sessions of the group not continued: {0}")]
    NotRestored(String),
    /// The thread of the group panicked.
    #[error("the thread of the group ended")]
    ThreadEnded,
}

pub(super) struct MemberParts {
    pub(super) settings: evenkeel_config::GroupSettings,
    /// Of the process that this one replaces.
    pub(super) ownership: Option<OwnershipState>,
    pub(super) gateway: MemberGateway,
    pub(super) link: Link,
    pub(super) inbox: GroupInbox,
    pub(super) instruments: Arc<Instruments>,
}

/// The parts of a gateway that its member resumes, fences and stops.
pub struct MemberGateway {
    /// Control.
    pub handle: Handle,
    /// The time until which workers may send.
    pub lease: Arc<SendLease>,
    /// The indices of SRTP that the standby allows.
    pub grant: Arc<IndexGrant>,
    /// The epoch in messages to nodes.
    pub fencing: Arc<Fencing>,
    /// The QUIC thread; `None` without a QUIC listener.
    pub quic: Option<quic::Resumer>,
    /// Newer epochs that agents named when they refused a message.
    pub refused_epochs: mpsc::Receiver<u64>,
    /// The certificates that clients see, which the members share.
    pub certificates: CertificateChannels,
}

type GroupReply<T, E> = oneshot::Sender<Result<T, E>>;

pub(super) struct GroupMember {
    settings: evenkeel_config::GroupSettings,
    core: Cluster,
    incarnation: u64,
    gateway: MemberGateway,
    keeper: AddressKeeper,
    beats: Beats,
    records: RecordExchange,
    votes: Votes,
    peer_agent: Option<PeerAgent>,
    refusals: RefusalLog,
    inbox: GroupInbox,
    instruments: Arc<Instruments>,
    /// The last beat of each other member.
    heard: Vec<Option<Instant>>,
    /// The last beat of an owner.
    owner_heard: Option<Instant>,
    /// Only a real-time thread does: otherwise the work of control would delay beats.
    pub(super) prepares_takeovers: bool,
    preparation: TakeoverPreparation,
    taking: PendingChange<usize>,
    /// Of the takeover under way.
    times: Option<TakeoverTimes>,
    /// Sessions that the last takeover continued.
    continued: usize,
    yielding: PendingChange<Suspended>,
    /// Kept while control is suspended for a hand-over.
    guard: Option<SuspensionGuard>,
    hand_over_reply: Option<GroupReply<HandOverResult, HandOverError>>,
    /// The operator who had this standby ask for the ownership, and the time by which it comes.
    wanted: Option<(GroupReply<HandOverResult, HandOverError>, Instant)>,
    /// An operator who made this member the owner.
    confirmed: Option<GroupReply<TakenOver, TakeOverError>>,
    /// Another process is to continue this member.
    rests: bool,
    resting: Option<oneshot::Sender<OwnershipState>>,
    lost: Option<MemberEnd>,
    /// The process that holds the addresses has ended.
    has_no_holder: bool,
    fence: Option<Fence>,
    spare_since: Option<Instant>,
    redundancy: Redundancy,
    rehearsal: Rehearsal,
    /// Of the last event.
    published: Option<(GroupRole, Vec<Arc<str>>)>,
}

impl GroupMember {
    pub(super) fn new(
        parts: MemberParts,
        keeper: AddressKeeper,
        beats: Beats,
        votes: Votes,
        refusals: RefusalLog,
    ) -> io::Result<GroupMember> {
        let now = Instant::now();
        let started = evenkeel_process::unix_us(SystemTime::now());
        let before = parts.ownership.as_ref();
        let incarnation = before.map_or(started, |before| before.incarnation);
        let (peers, rank) = (&parts.settings.peers, parts.settings.rank());
        let of_name = |name: &str| peers.iter().position(|peer| *peer.name == *name).map(PeerId);
        let continued = parts.ownership.as_ref().map(|before| ContinuedOwnership {
            sequence: before.sequence + BEATS_MEANWHILE,
            epoch: before.epoch,
            highest: before.highest,
            takeovers: before.takeovers,
            standby: before.standby.as_deref().and_then(of_name),
        });
        let (members, preferred) = (peers.len() + 1, parts.settings.preferred);
        let hold_down =
            HoldDown { first: parts.settings.hold_down, longest: parts.settings.hold_down_max };
        if let Some(before) = before {
            parts.gateway.fencing.set_epoch(before.epoch);
            keeper.hold();
        }
        let settings =
            ClusterSettings { members, rank, preferred, incarnation, continued, hold_down };
        let heard = vec![None; peers.len()];
        let mut member = GroupMember {
            core: Cluster::new(settings, now),
            incarnation,
            keeper,
            records: RecordExchange::new(
                parts.link,
                &parts.settings,
                &parts.inbox,
                Arc::clone(&parts.gateway.grant),
                parts.gateway.certificates.clone(),
            ),
            settings: parts.settings,
            gateway: parts.gateway,
            beats,
            votes,
            peer_agent: None,
            refusals,
            inbox: parts.inbox,
            instruments: parts.instruments,
            heard,
            owner_heard: None,
            prepares_takeovers: false,
            preparation: TakeoverPreparation::default(),
            taking: None,
            times: None,
            continued: 0,
            yielding: None,
            guard: None,
            hand_over_reply: None,
            wanted: None,
            confirmed: None,
            rests: false,
            resting: None,
            lost: None,
            has_no_holder: false,
            fence: None,
            spare_since: None,
            redundancy: Redundancy::default(),
            rehearsal: Rehearsal::new(now),
            published: None,
        };
        member.watch_peer()?;
        Ok(member)
    }

    /// Of an owner its standby, of others the owner that they follow.
    fn peer(&self) -> &PeerSettings {
        &self.settings.peers[self.core.peer_id().0]
    }

    fn peer_heard(&self) -> Option<Instant> {
        self.heard[self.core.peer_id().0]
    }

    /// Asks the agent beside the peer from now on, and fences this peer.
    fn watch_peer(&mut self) -> io::Result<()> {
        let peer = self.peer().clone();
        self.fence = peer.fence.clone().map(|words| Fence::new(words, Arc::clone(&peer.name)));
        self.peer_agent = None;
        self.peer_agent = PeerAgent::start(&peer, self.refusals.clone())?;
        Ok(())
    }

    /// Connects the owner and its standby. One that may be appointed again keeps its copy for a while.
    fn link_peer(&mut self) {
        let (id, now) = (self.core.peer_id(), Instant::now());
        let before = self.records.link.peer();
        self.spare_since = self.core.is_spare().then(|| self.spare_since.unwrap_or(now));
        let lingers = |since: Instant| {
            before.has_records && before.id == id && now - since < SPARE_KEEPS_COPY
        };
        let has_records = self.settings.peers.len() == 1 || self.spare_since.is_none_or(lingers);
        if self.records.link.set_peer(LinkedPeer { id, has_records }) {
            tracing::info!(peer = %self.peer().name, has_records, "peer in the group changed");
            if !self.core.is_owner() {
                self.records.discard_copy(&mut self.core);
            }
        }
    }

    /// Returns once this member has lost its ownership.
    pub(super) async fn run(mut self) -> MemberEnd {
        let mut shown = tokio::time::interval(SHOWN_EVERY);
        loop {
            while let Some(output) = self.core.poll_output() {
                self.execute(output);
            }
            self.link_peer();
            if let Some(lost) = self.lost.take() {
                self.keeper.release().await;
                return lost;
            }
            self.answer_operator();
            let due = tokio::time::Instant::from_std(self.core.poll_timeout());
            let peer_heard = self.peer_heard();
            // Input of others is handled before a timeout, so that this member's own lateness is no silence of others.
            tokio::select! {
                biased;
                heard = self.beats.recv() => self.handle_heard(heard),
                () = closed(&mut self.peer_agent, peer_heard) => {
                    let peer = self.core.peer_id();
                    self.core.handle_peer_closed(peer, Reporter::Agent, Instant::now());
                }
                witness = self.votes.recv() => self.core.handle_witness(&witness, Instant::now()),
                Some(epoch) = self.gateway.refused_epochs.recv() => {
                    self.core.handle_refused_epoch(epoch, Instant::now());
                }
                // Records do not delay beats. After each part of them the event loop looks at sockets and timers.
                () = tokio::time::sleep_until(due) => self.core.handle_timeout(Instant::now()),
                event = self.records.link.recv() => {
                    self.handle_link(event);
                    tokio::task::yield_now().await;
                }
                // Each beat looks for room again.
                batch = next(&mut self.records.batches), if self.records.link.has_room() => {
                    match batch {
                        Some(batch) => self.records.send(batch),
                        // Another follower replaced this one, or this one did not keep up.
                        None => self.records.batches = None,
                    }
                    tokio::task::yield_now().await;
                }
                // Fails only if control has ended, and the gateway with it.
                batches = finish(&mut self.records.following) => self.records.batches = batches.ok(),
                () = self.keeper.ended(), if !self.has_no_holder => self.handle_holder_ended(),
                taken = finish(&mut self.taking) => self.handle_taken(taken),
                yielded = finish(&mut self.yielding) => self.handle_yielded(yielded),
                fenced = fence_ended(&mut self.fence) => self.handle_fenced(fenced),
                () = self.rehearsal.ended() => {}
                Some(request) = self.inbox.requests.recv() => match request {
                    GroupRequest::HandOver { to, reply } => self.begin_hand_over(to, reply),
                    GroupRequest::TakeOver { down, reply } => self.begin_take_over(&down, reply),
                    GroupRequest::Reload(settings) => self.reload(&settings),
                    GroupRequest::Rest(reply) => self.handle_suspend(Some(reply)),
                    GroupRequest::EndRest => self.handle_suspend(None),
                },
                _ = shown.tick() => {
                    self.records.look_after_copy(peer_heard, &mut self.core);
                    self.follow_records();
                    if !self.core.is_owner() && !self.core.is_spare() {
                        self.records.confirm_copy(&mut self.core);
                        let replica = &mut self.records.replica;
                        self.rehearsal.begin(&self.gateway.handle, replica, Instant::now());
                    }
                    self.watch_redundancy();
                    self.fence_peer();
                    self.give_up_wanted();
                    // An agent that does not answer is noticed before it is needed.
                    if let Some(agent) = &mut self.peer_agent {
                        agent.report_silence(self.core.peer(Instant::now()).is_some());
                        agent.ask();
                    }
                }
            }
            self.prepare_takeover();
            self.answer_rest();
            self.records.note_alone(self.core.is_alone(Instant::now()));
            self.show();
        }
    }

    fn prepare_takeover(&mut self) {
        if !self.core.is_owner() {
            let (now, replica) = (Instant::now(), &self.records.replica);
            let misses = self.prepares_takeovers && self.core.misses_owner(now);
            self.preparation.weigh(misses, replica, &self.gateway.handle, now);
        }
    }

    fn handle_heard(&mut self, heard: BeatInput) {
        let now = Instant::now();
        match heard {
            BeatInput::Beat(from, payload) => {
                // Of another version of the program.
                let Some(beat) = Beat::decode(&payload) else { return };
                self.heard[from.0] = Some(now);
                if beat.role == BeatRole::Owner {
                    self.owner_heard = Some(now);
                }
                self.core.handle_beat(from, beat, now);
            }
            BeatInput::Closed(of) => self.core.handle_peer_closed(of, Reporter::Kernel, now),
        }
    }

    fn handle_link(&mut self, event: LinkEvent) {
        if event == LinkEvent::Frame(LinkFrame::HandOver) {
            return self.handle_wanted();
        }
        let is_new = event == LinkEvent::Connected;
        self.records.handle(event, &mut self.core);
        self.records.pass_on(&self.gateway.handle);
        if is_new {
            self.follow_records();
        }
    }

    /// Sends the records to a standby that is heard. One that is not gets none: after a takeover packets need the processor.
    fn follow_records(&mut self) {
        // If this member rests, the next process sends them.
        let changes =
            self.rests || self.taking.is_some() || self.yielding.is_some() || self.guard.is_some();
        let reads = self.core.peer(Instant::now()).is_some();
        if self.core.is_owner() && reads && !changes {
            self.records.follow(&self.gateway.handle);
        }
    }

    fn execute(&mut self, output: ClusterOutput) {
        match output {
            ClusterOutput::ChangePeer(_) => {
                if let Err(error) = self.watch_peer() {
                    let peer = &self.peer().name;
                    tracing::error!(%peer, %error, "agent beside the peer not asked");
                }
            }
            ClusterOutput::Send(to, beat) => {
                self.beats.send(to, &beat.encode());
                let missed = self.peer_heard().is_none_or(|heard| heard.elapsed() >= MISSED_AFTER);
                let missed = missed && to == self.core.peer_id();
                if let Some(agent) = self.peer_agent.as_mut().filter(|_| missed) {
                    agent.ask();
                }
            }
            ClusterOutput::Ask { to, vote } => self.votes.ask(to, vote),
            ClusterOutput::MaySend(MaySend::Never) => self.gateway.lease.end(),
            ClusterOutput::MaySend(MaySend::Until(until)) => self.gateway.lease.renew(until),
            ClusterOutput::MaySend(MaySend::Always) => self.gateway.lease.renew_forever(),
            ClusterOutput::Raise(epoch) => self.gateway.fencing.set_epoch(epoch),
            ClusterOutput::TakeOver { epoch, evidence } => self.take_over(epoch, evidence),
            ClusterOutput::StepDown(epoch) => self.step_down(epoch),
            ClusterOutput::Yield => self.begin_to_yield(),
            ClusterOutput::Event(event) => self.report(event),
        }
    }

    fn take_over(&mut self, epoch: u64, evidence: TakeoverCause) {
        let (since, sessions) = (Instant::now(), self.records.replica.sessions());
        tracing::warn!(epoch, ?evidence, sessions, "this gateway owns the group's addresses");
        self.gateway.fencing.set_epoch(epoch);
        self.keeper.hold();
        let replaces = evidence != TakeoverCause::Start;
        let times = TakeoverTimes { owner_heard: self.owner_heard, owned: since };
        self.times = replaces.then_some(times);
        let (handle, quic) = (self.gateway.handle.clone(), self.gateway.quic.clone());
        let yielded = self.guard.take().is_some();
        let cause = match evidence {
            TakeoverCause::HandOver => Continuation::HandOver,
            _ => Continuation::Takeover,
        };
        let replica = std::mem::take(&mut self.records.replica);
        let preparation = std::mem::take(&mut self.preparation);
        self.taking = Some(tokio::spawn(async move {
            let mut sessions = replica.sessions();
            if let Some(prepared) = preparation.finish(&replica, &handle).await {
                sessions = prepared;
                let resumed = handle.resume_prepared(&replica, cause).await;
                resumed.map_err(|_| "control ended".to_owned())?;
            } else if !yielded && replica.number() > 0 {
                // Without sessions too: ids and answered keys continue.
                let state = Arc::unwrap_or_clone(replica).snapshot_with_ports();
                let (snapshot, sockets) = state.ok_or("no record of a node came")?;
                let restored = handle.take_over(snapshot, sockets, cause).await;
                sessions = restored.map_err(|error| error.to_string())?.sessions;
            } else {
                handle.resume(cause).await.map_err(|_| "control ended".to_owned())?;
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
                if let Some(times) = self.times.take() {
                    times.record(&self.instruments, Instant::now());
                }
                self.follow_records();
            }
            Err(reason) => self.lost = Some(MemberEnd::NotRestored(reason)),
        }
    }

    fn step_down(&mut self, epoch: u64) {
        let owner = Arc::clone(&self.peer().name);
        if let Some(guard) = self.guard.take() {
            guard.stay();
            self.records.note_handed_over();
        }
        if let Some(reply) = self.hand_over_reply.take() {
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
        let continued = self.core.continued(Instant::now());
        if let Some(ContinuedOwnership { sequence, epoch, highest, takeovers, .. }) = continued
            && let Some(reply) = self.resting.take()
        {
            let (incarnation, standby) = (self.incarnation, Some(self.peer().name.to_string()));
            let state =
                OwnershipState { incarnation, sequence, epoch, highest, takeovers, standby };
            // The upgrade may have been given up.
            let _ = reply.send(state);
        }
    }

    fn reload(&mut self, settings: &GatewayConfig) {
        self.records.link.apply(settings);
        for gone in self.votes.set_voters(VotingAgent::all(settings)) {
            self.core.handle_no_witness(gone);
        }
    }

    /// The addresses disappear soon. A standby that has all records gets them before.
    fn handle_holder_ended(&mut self) {
        self.has_no_holder = true;
        tracing::error!(
            "`evenkeel hold-addresses` has ended: the group's addresses disappear within 2 s"
        );
        let is_handed_over = self.yielding.is_some()
            || self.core.is_owner() && self.core.handle_hand_over(Instant::now()).is_ok();
        if !is_handed_over {
            self.lost = Some(MemberEnd::NoHolder);
        }
    }

    /// Stops the workers and sends the last records.
    fn begin_to_yield(&mut self) {
        let handle = self.gateway.handle.clone();
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
                let number = batch.number();
                self.records.send(batch);
                self.core.handle_yielded(number, Instant::now());
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
        if self.has_no_holder {
            self.lost = Some(MemberEnd::NoHolder);
        }
        tracing::error!(peer = %self.peer().name, %reason, "hand-over failed");
        if let Some(reply) = self.hand_over_reply.take() {
            // The client may have disconnected.
            let _ = reply.send(Err(HandOverError::Failed(reason)));
        }
    }
}

async fn closed(agent: &mut Option<PeerAgent>, heard: Option<Instant>) {
    match agent {
        Some(agent) => agent.closed(heard).await,
        None => pending().await,
    }
}

async fn fence_ended(fence: &mut Option<Fence>) -> Result<(), String> {
    match fence {
        Some(fence) => fence.ended().await,
        None => pending().await,
    }
}

async fn next<T>(receiver: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match receiver {
        Some(batches) => batches.recv().await,
        None => pending().await,
    }
}
