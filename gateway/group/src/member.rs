//! The thread of this member: hands inputs to the core's state machine and executes its outputs.

mod peer_watch;
mod state;
mod takeover;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use evenkeel_config::{GatewayConfig, GroupSettings, PeerSettings, SecretFile};
use evenkeel_contract::gateway::NewOwner;
use evenkeel_control::{
    CertificateChannels, GatewayEvent, GroupChange, Handle, RecordBatch, Suspended,
};
use evenkeel_dataplane::{SendLease, quic};
use evenkeel_drivers::Fencing;
use evenkeel_media::srtp::IndexGrant;
use evenkeel_ownership::{
    Beat, BeatRole, Blocked, Cluster, ClusterEvent, ClusterOutput, ClusterSettings,
    ContinuedOwnership, HandOverRefusal, HoldDown, MaySend, PeerId, Reporter, TakeoverCause,
    TakeoverRefusal,
};
use evenkeel_telemetry::Instruments;
use peer_watch::{PeerSign, PeerWatch};
pub use state::MemberEnd;
use state::{MemberState, Rest, StandingBy, TaskEnd};
use takeover::{HandOverRequest, TakenSessions, Takeover, TakeoverTimes};
use tokio::sync::{mpsc, oneshot};

use super::address::{AddressKeeper, KeeperSign};
use super::beats::{BeatInput, Beats};
use super::group::{
    GatewayStanding, GroupInbox, GroupRequest, GroupRole, GroupStatus, HandOverError,
    HandOverReply, HostWarning, OwnershipState, TakeOverError, TakeOverReply, blocked_reason,
};
use super::link::{Link, LinkEvent, LinkFrame, LinkedPeer};
use super::preparation::TakeoverPreparation;
use super::records::{RecordExchange, RecordInput};
use super::redundancy::{Redundancy, RedundancyLoss};
use super::refusals::RefusalLog;
use super::votes::{Votes, VotingAgent};

/// Interval at which the API's view is renewed.
const SHOWN_EVERY: Duration = Duration::from_millis(100);

/// Beats that a process may send after it said which was its last: it ends within seconds.
const BEATS_MEANWHILE: u64 = 10_000;

/// Time for a standby to announce the addresses, in a hand-over. Later the hand-over goes on, and packets on their way to this
/// member are lost.
const ANNOUNCED_WITHIN: Duration = Duration::from_millis(500);

/// Time in which packets that were sent before the announcement arrive, and are forwarded.
const DRAINED_WITHIN: Duration = Duration::from_millis(5);

/// A standby that its owner does not hear for a moment is a spare meanwhile.
const SPARE_KEEPS_COPY: Duration = Duration::from_secs(1);

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

pub(super) struct GroupMember {
    settings: GroupSettings,
    incarnation: u64,
    core: Cluster,
    state: MemberState,
    rest: Rest,
    gateway: MemberGateway,
    keeper: AddressKeeper,
    beats: Beats,
    watch: PeerWatch,
    records: RecordExchange,
    votes: Votes,
    inbox: GroupInbox,
    redundancy: Redundancy,
    instruments: Arc<Instruments>,
}

impl GroupMember {
    /// `before`: of the process that this one replaces. Must be called in an event loop.
    pub(super) fn new(
        settings: GroupSettings,
        before: Option<OwnershipState>,
        is_real_time: bool,
        gateway: MemberGateway,
        keeper: AddressKeeper,
        beats: Beats,
        link: Link,
        votes: Votes,
        inbox: GroupInbox,
        refusals: RefusalLog,
        instruments: Arc<Instruments>,
    ) -> io::Result<GroupMember> {
        let (now, peers) = (Instant::now(), &settings.peers);
        let started = evenkeel_process::unix_us(SystemTime::now());
        let incarnation = before.as_ref().map_or(started, |before| before.incarnation);
        let of_name = |name: &str| peers.iter().position(|peer| *peer.name == *name).map(PeerId);
        let continued = before.as_ref().map(|before| ContinuedOwnership {
            sequence: before.sequence + BEATS_MEANWHILE,
            epoch: before.epoch,
            highest: before.highest,
            takeovers: before.takeovers,
            standby: before.standby.as_deref().and_then(of_name),
        });
        let hold_down = HoldDown { first: settings.hold_down, longest: settings.hold_down_max };
        let cluster = ClusterSettings {
            members: peers.len() + 1,
            rank: settings.rank(),
            preferred: settings.preferred,
            incarnation,
            continued,
            hold_down,
        };
        let state = match before {
            Some(before) => {
                gateway.fencing.set_epoch(before.epoch);
                keeper.hold();
                MemberState::Owning
            }
            None => {
                let preparation = TakeoverPreparation::new(is_real_time);
                MemberState::StandingBy(StandingBy::new(preparation, now))
            }
        };
        let records = RecordExchange::new(
            link,
            &settings,
            &inbox,
            Arc::clone(&gateway.grant),
            gateway.certificates.clone(),
        );
        let mut member = GroupMember {
            watch: PeerWatch::new(peers.len(), refusals),
            settings,
            incarnation,
            core: Cluster::new(cluster, now),
            state,
            rest: Rest::Off,
            gateway,
            keeper,
            beats,
            records,
            votes,
            inbox,
            redundancy: Redundancy::default(),
            instruments,
        };
        member.watch_peer()?;
        Ok(member)
    }

    /// Of an owner its standby, of others the owner that they follow.
    fn peer(&self) -> &PeerSettings {
        &self.settings.peers[self.core.peer_id().0]
    }

    fn peer_heard(&self) -> Option<Instant> {
        self.watch.heard(self.core.peer_id())
    }

    /// Asks the agent beside the peer from now on, and fences this peer.
    fn watch_peer(&mut self) -> io::Result<()> {
        self.watch.set_peer(&self.settings.peers[self.core.peer_id().0])
    }

    /// Connects the owner and its standby. One that may be appointed again keeps its copy for a while.
    fn link_peer(&mut self) {
        let (id, before) = (self.core.peer_id(), self.records.peer());
        let spare_for = match &mut self.state {
            MemberState::StandingBy(standby) => {
                standby.spare_for(self.core.is_spare(), Instant::now())
            }
            _ => None,
        };
        let lingers = |spare_for: Duration| {
            before.has_records && before.id == id && spare_for < SPARE_KEEPS_COPY
        };
        let has_records = self.settings.peers.len() == 1 || spare_for.is_none_or(lingers);
        if self.records.set_peer(LinkedPeer { id, has_records }, &mut self.core) {
            tracing::info!(peer = %self.peer().name, has_records, "peer in the group changed");
        }
    }

    /// Returns once this member has lost its ownership.
    pub(super) async fn run(mut self) -> MemberEnd {
        let mut shown = tokio::time::interval(SHOWN_EVERY);
        loop {
            // The state is what the core has decided when anything else looks at it.
            self.execute_outputs();
            self.link_peer();
            self.prepare_takeover();
            self.answer_rest();
            self.records.note_alone(self.core.is_alone(Instant::now()));
            self.show();
            if let MemberState::Ended(end) = self.state {
                self.keeper.release().await;
                return end;
            }
            let due = tokio::time::Instant::from_std(self.core.poll_timeout());
            let peer = self.core.peer_id();
            // Timeouts come after the messages that wait: a member that runs late must not take others for silent.
            tokio::select! {
                biased;
                heard = self.beats.recv() => self.handle_heard(heard),
                sign = self.watch.sign(peer) => self.handle_sign(sign),
                witness = self.votes.recv() => self.core.handle_witness(&witness, Instant::now()),
                Some(epoch) = self.gateway.refused_epochs.recv() => {
                    self.core.handle_refused_epoch(epoch, Instant::now());
                }
                () = tokio::time::sleep_until(due) => self.core.handle_timeout(Instant::now()),
                // Records do not delay beats. After each part of them the event loop looks at sockets and timers.
                input = self.records.input() => {
                    self.handle_records(input);
                    tokio::task::yield_now().await;
                }
                sign = self.keeper.sign() => match sign {
                    KeeperSign::Announced => self.records.tell_announced(),
                    KeeperSign::Ended => self.handle_holder_ended(),
                },
                end = self.state.task_end() => self.handle_task_end(end),
                Some(request) = self.inbox.requests.recv() => match request {
                    GroupRequest::HandOver { to, reply } => self.hand_over(to, reply),
                    GroupRequest::TakeOver { down, reply } => self.take_over_from(&down, reply),
                    GroupRequest::Reload(settings) => self.reload(&settings),
                    GroupRequest::ReplaceSecrets(secrets) => self.replace_secrets(secrets),
                    GroupRequest::Rest(reply) => self.begin_rest(reply),
                    GroupRequest::EndRest => self.end_rest(),
                },
                _ = shown.tick() => self.handle_tick(),
            }
        }
    }

    fn handle_tick(&mut self) {
        let now = Instant::now();
        self.records.look_after_copy(self.peer_heard(), &mut self.core);
        self.follow_records();
        if let MemberState::StandingBy(standby) = &mut self.state
            && !self.core.is_spare()
        {
            self.records.confirm_copy(&mut self.core);
            standby.rehearsal.begin(&self.gateway.handle, self.records.copy_mut(), now);
        }
        self.redundancy.handle(self.redundancy_losses(now), now);
        self.fence_peer(now);
        if let Some(request) = self.state.take_late_request(now) {
            let peer = &self.peer().name;
            let reason = format!("{peer} did not hand over; its log has the reason");
            request.refuse(HandOverError::Failed(reason));
        }
        self.watch.check_agent(self.core.peer(now).is_some());
    }

    /// Has control continue the sessions of the copy while the owner is missed.
    fn prepare_takeover(&mut self) {
        if let MemberState::StandingBy(standby) = &mut self.state {
            let now = Instant::now();
            let (misses, copy) = (self.core.misses_owner(now), self.records.copy());
            standby.preparation.weigh(misses, copy, &self.gateway.handle, now);
        }
    }

    fn handle_heard(&mut self, heard: BeatInput) {
        let now = Instant::now();
        match heard {
            BeatInput::Beat(from, payload) => {
                // Of another version of the program.
                let Some(beat) = Beat::decode(&payload) else { return };
                self.watch.note_beat(from, beat.role, now);
                self.core.handle_beat(from, beat, now);
            }
            BeatInput::Closed(of) => self.core.handle_peer_closed(of, Reporter::Kernel, now),
        }
    }

    fn handle_sign(&mut self, sign: PeerSign) {
        let peer = self.core.peer_id();
        match sign {
            PeerSign::Closed => {
                self.core.handle_peer_closed(peer, Reporter::Agent, Instant::now());
            }
            PeerSign::Fenced(fenced) => self.handle_fenced(fenced),
        }
    }

    fn handle_records(&mut self, input: RecordInput) {
        match input {
            RecordInput::Link(LinkEvent::Frame(LinkFrame::HandOver)) => {
                return self.handle_hand_over_request();
            }
            RecordInput::Link(LinkEvent::Frame(LinkFrame::Announce)) => {
                return self.announce_addresses();
            }
            RecordInput::Link(LinkEvent::Frame(LinkFrame::Announced)) => {
                return self.handle_announced();
            }
            _ => {}
        }
        let connects = matches!(input, RecordInput::Link(LinkEvent::Connected));
        self.records.handle(input, &mut self.core);
        self.records.pass_on(&self.gateway.handle);
        if connects {
            self.follow_records();
        }
    }

    /// Sends the records to a standby that is heard. One that is not gets none: after a takeover packets need the processor.
    fn follow_records(&mut self) {
        // If this member rests, the next process sends them.
        if let MemberState::Owning = self.state
            && !self.rest.is_on()
            && self.core.peer(Instant::now()).is_some()
        {
            self.records.follow(&self.gateway.handle);
        }
    }

    fn execute_outputs(&mut self) {
        while let Some(output) = self.core.poll_output() {
            self.execute(output);
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
                if to == self.core.peer_id() {
                    self.watch.ask_if_missed(to);
                }
            }
            ClusterOutput::Ask { to, vote } => self.votes.ask(to, vote),
            ClusterOutput::MaySend(MaySend::Never) => self.gateway.lease.end(),
            ClusterOutput::MaySend(MaySend::Until(until)) => self.gateway.lease.renew(until),
            ClusterOutput::MaySend(MaySend::Always) => self.gateway.lease.renew_forever(),
            ClusterOutput::Raise(epoch) => self.gateway.fencing.set_epoch(epoch),
            ClusterOutput::TakeOver { epoch, evidence: cause } => self.take_over(epoch, cause),
            ClusterOutput::StepDown(epoch) => self.step_down(epoch),
            ClusterOutput::Yield => self.yield_sessions(),
            ClusterOutput::Event(event) => self.report(event),
        }
    }

    fn take_over(&mut self, epoch: u64, cause: TakeoverCause) {
        let copy = self.records.take_copy();
        let copied = copy.sessions();
        let (taken, request) = match self.state.take() {
            MemberState::StandingBy(StandingBy { preparation, request, .. }) => {
                (TakenSessions::Copied { copy, preparation }, request)
            }
            // Control resumes.
            MemberState::Yielded { .. } => (TakenSessions::Suspended, None),
            // It has ended.
            state => return self.state = state,
        };
        let owned = Instant::now();
        tracing::warn!(epoch, evidence = ?cause, sessions = copied, "this gateway owns the group's addresses");
        self.gateway.fencing.set_epoch(epoch);
        self.keeper.hold();
        let takeover = Takeover::begin(
            taken,
            request,
            epoch,
            cause,
            TakeoverTimes { owner_heard: self.watch.owner_heard(), owned },
            self.gateway.handle.clone(),
            self.gateway.quic.clone(),
            Arc::clone(&self.instruments),
        );
        self.state = MemberState::TakingOver(takeover);
    }

    fn step_down(&mut self, epoch: u64) {
        let gateway = Arc::clone(&self.peer().name);
        let operator = match self.state.take() {
            MemberState::Yielded { guard, operator } => {
                guard.stay();
                self.records.note_handed_over();
                operator
            }
            MemberState::Announcing { operator, .. } | MemberState::Yielding { operator, .. } => {
                operator
            }
            _ => None,
        };
        if let Some(operator) = operator {
            // The client may have disconnected.
            let _ = operator.send(Ok(NewOwner { gateway: Arc::clone(&gateway), epoch }));
        }
        self.state = MemberState::Ended(MemberEnd::Replaced { owner: gateway, epoch });
    }

    /// Stops the workers and sends the last records.
    fn yield_sessions(&mut self) {
        self.state = match self.state.take() {
            MemberState::Owning | MemberState::GivenUp { .. } => {
                let handle = self.gateway.handle.clone();
                let suspension = tokio::spawn(async move {
                    handle.suspend().await.map_err(|error| error.to_string())
                });
                MemberState::Yielding { suspension, operator: None }
            }
            state => state,
        };
    }

    fn handle_task_end(&mut self, end: TaskEnd) {
        match (self.state.take(), end) {
            (MemberState::TakingOver(takeover), TaskEnd::Continued(Ok(sessions))) => {
                self.state = MemberState::Owning;
                self.follow_records();
                takeover.answer(&self.owner_here(), sessions);
            }
            (MemberState::TakingOver(_), TaskEnd::Continued(Err(reason))) => {
                self.state = MemberState::Ended(MemberEnd::NotRestored(reason));
            }
            (MemberState::Announcing { operator, .. }, TaskEnd::AnnouncementOver) => {
                self.state = MemberState::Owning;
                match (self.yield_ownership(), operator) {
                    (Ok(place), operator) => *place = operator,
                    (Err(refused), operator) => {
                        self.fail_hand_over(operator, refused, MemberState::Owning);
                    }
                }
            }
            (MemberState::Yielding { operator, .. }, TaskEnd::Suspended(Ok(suspended))) => {
                self.send_last_records(*suspended, operator);
            }
            (MemberState::Yielding { operator, .. }, TaskEnd::Suspended(Err(reason))) => {
                let failed = HandOverError::Failed(reason);
                self.fail_hand_over(operator, failed, MemberState::Owning);
                self.core.handle_not_yielded(Instant::now());
            }
            (MemberState::GivenUp { .. }, TaskEnd::Suspended(Ok(suspended))) => {
                // A standby that still follows misses no change. Control resumes.
                self.send_last_batch(suspended.batch);
                self.state = MemberState::Owning;
            }
            (MemberState::GivenUp { .. }, TaskEnd::Suspended(Err(reason))) => {
                self.fail_hand_over(None, HandOverError::Failed(reason), MemberState::Owning);
            }
            (state, _) => self.state = state,
        }
    }

    fn reload(&mut self, settings: &GatewayConfig) {
        self.records.reload(settings);
        for gone in self.votes.set_voters(VotingAgent::all(settings)) {
            self.core.handle_no_witness(gone);
        }
    }

    fn replace_secrets(&mut self, secrets: Vec<SecretFile>) {
        if let Err(error) = self.records.replace_secrets(&secrets) {
            tracing::error!(%error, "cannot replace the secrets of the group; the previous ones stay");
            return;
        }
        self.settings.secrets = secrets;
        self.beats.replace_secrets(&self.settings);
        tracing::info!(secrets = self.settings.secrets.len(), "secrets of the group reloaded");
    }

    fn send_last_records(&mut self, suspended: Suspended, operator: Option<HandOverReply>) {
        let Suspended { batch, descriptors: _, guard } = suspended;
        let number = batch.number();
        self.send_last_batch(batch);
        self.core.handle_yielded(number, Instant::now());
        if self.core.is_owner() {
            // Control resumes.
            drop(guard);
            self.fail_hand_over(operator, self.not_taken(), MemberState::Owning);
        } else {
            self.state = MemberState::Yielded { guard, operator };
        }
    }

    fn send_last_batch(&mut self, mut batch: RecordBatch) {
        batch.precedes_packets();
        self.records.send(batch);
    }

    fn not_taken(&self) -> HandOverError {
        HandOverError::Failed(format!("{} did not take the sessions", self.peer().name))
    }

    /// The state is the `next` one, unless the addresses disappear.
    fn fail_hand_over(
        &mut self,
        operator: Option<HandOverReply>,
        failed: HandOverError,
        next: MemberState,
    ) {
        self.state = match self.keeper.has_ended() {
            true => MemberState::Ended(MemberEnd::NoHolder),
            false => next,
        };
        // The standby may have announced them.
        self.keeper.hold();
        tracing::error!(peer = %self.peer().name, reason = %failed, "hand-over failed");
        if let Some(operator) = operator {
            // The client may have disconnected.
            let _ = operator.send(Err(failed));
        }
    }

    /// Keeps the standby disarmed. Without ownership the reply is dropped.
    fn begin_rest(&mut self, reply: oneshot::Sender<OwnershipState>) {
        self.core.set_resting(true, Instant::now());
        self.rest = if self.core.is_owner() { Rest::Begins(reply) } else { Rest::On };
    }

    fn end_rest(&mut self) {
        self.rest = Rest::Off;
        self.core.set_resting(false, Instant::now());
    }

    fn answer_rest(&mut self) {
        if let MemberState::Announcing { .. } = self.state {
            return;
        }
        let Some(continued) = self.core.continued(Instant::now()) else { return };
        let ContinuedOwnership { sequence, epoch, highest, takeovers, .. } = continued;
        let (incarnation, standby) =
            (self.incarnation, &self.settings.peers[self.core.peer_id().0]);
        self.rest.confirm(|| {
            let standby = Some(standby.name.to_string());
            OwnershipState { incarnation, sequence, epoch, highest, takeovers, standby }
        });
    }

    /// The addresses disappear soon. A standby that has all records gets them before.
    fn handle_holder_ended(&mut self) {
        tracing::error!(
            "`evenkeel hold-addresses` has ended: the group's addresses disappear within 2 s"
        );
        let yields =
            matches!(self.state, MemberState::Announcing { .. } | MemberState::Yielding { .. });
        if !yields && self.begin_hand_over().is_err() {
            self.state = MemberState::Ended(MemberEnd::NoHolder);
        }
    }

    /// Begins to hand over to the standby, unless it has begun. Returns the place of an operator who waits for the result.
    ///
    /// The standby announces the addresses first, if its version can. Packets then wait in the buffers of its sockets, and those on
    /// their way to this member are forwarded before it stops.
    fn begin_hand_over(&mut self) -> Result<&mut Option<HandOverReply>, HandOverError> {
        if let MemberState::TakingOver(_)
        | MemberState::Announcing { operator: Some(_), .. }
        | MemberState::Yielding { operator: Some(_), .. }
        | MemberState::Yielded { operator: Some(_), .. } = self.state
        {
            return Err(HandOverError::UnderWay);
        }
        let now = Instant::now();
        if let Some(refusal) = self.core.hand_over_refusal(now) {
            return Err(self.refused_hand_over(refusal));
        }
        if let MemberState::Owning = self.state
            && self.records.ask_to_announce()
        {
            let until = now + ANNOUNCED_WITHIN;
            self.state = MemberState::Announcing { until, operator: None };
        }
        if !matches!(self.state, MemberState::Announcing { .. }) {
            return self.yield_ownership();
        }
        match &mut self.state {
            MemberState::Announcing { operator, .. } => Ok(operator),
            _ => Err(HandOverError::UnderWay),
        }
    }

    /// Stops sending, for the standby. Returns the place of an operator who waits for the result.
    fn yield_ownership(&mut self) -> Result<&mut Option<HandOverReply>, HandOverError> {
        let yielded = self.core.handle_hand_over(Instant::now());
        yielded.map_err(|refusal| self.refused_hand_over(refusal))?;
        self.execute_outputs();
        match &mut self.state {
            MemberState::Yielding { operator, .. } => Ok(operator),
            _ => Err(HandOverError::UnderWay),
        }
    }

    fn refused_hand_over(&self, refusal: HandOverRefusal) -> HandOverError {
        let silent_for = self.peer_heard().map(|heard| heard.elapsed());
        HandOverError::of(refusal, Arc::clone(&self.peer().name), silent_for)
    }

    /// The standby has announced the addresses.
    fn handle_announced(&mut self) {
        match self.state {
            // Too late: this member goes on.
            MemberState::Owning | MemberState::GivenUp { .. } => self.keeper.hold(),
            _ => self.state.note_announced(Instant::now() + DRAINED_WITHIN),
        }
    }

    /// The owner is about to hand over to this standby.
    fn announce_addresses(&mut self) {
        let owner = self.core.peer(Instant::now());
        if matches!(self.state, MemberState::StandingBy(_))
            && owner.is_some_and(|beat| beat.role == BeatRole::Owner)
            && !self.core.is_spare()
        {
            self.keeper.announce();
        }
    }

    /// An operator asks for a hand-over.
    fn hand_over(&mut self, to: Option<String>, reply: HandOverReply) {
        let (peer, is_owner) = (Arc::clone(&self.peer().name), self.core.is_owner());
        let other = if is_owner { &peer } else { &self.settings.name };
        let to = to.unwrap_or_else(|| other.to_string());
        let members = self.settings.members();
        let begun = if *to == *self.settings.name {
            match is_owner {
                true => Err(HandOverError::OwnerAlready(to)),
                false if self.core.is_spare() => Err(HandOverError::NotInSync(to.into())),
                false => return self.ask_for_hand_over(reply),
            }
        } else if !members.contains(&&*to) {
            Err(HandOverError::Unknown { members: members.join(", "), found: to })
        } else if *to != *peer {
            Err(match is_owner {
                true => HandOverError::Spare { found: to, peer },
                false => HandOverError::NotOwner(peer),
            })
        } else if self.core.peer(Instant::now()).is_some_and(|beat| beat.role == BeatRole::Owner) {
            Err(HandOverError::OwnerAlready(to))
        } else {
            self.begin_hand_over()
        };
        match begun {
            Ok(operator) => *operator = Some(reply),
            // The client may have disconnected.
            Err(refused) => _ = reply.send(Err(refused)),
        }
    }

    /// Asks the owner to hand over to this standby. The owner's log has the reason of a refusal.
    fn ask_for_hand_over(&mut self, reply: HandOverReply) {
        let (peer, now) = (Arc::clone(&self.peer().name), Instant::now());
        let owner = self.core.peer(now).filter(|beat| beat.role == BeatRole::Owner);
        let request = HandOverRequest::new(reply, now);
        match &mut self.state {
            MemberState::StandingBy(standby) if standby.request.is_some() => {
                request.refuse(HandOverError::UnderWay);
            }
            MemberState::StandingBy(standby)
                if owner.is_some() && self.records.ask_for_hand_over() =>
            {
                tracing::info!(%peer, "asking the owner to hand over");
                standby.request = Some(request);
            }
            _ => request.refuse(HandOverError::NotOwner(peer)),
        }
    }

    /// The standby asks for the ownership.
    fn handle_hand_over_request(&mut self) {
        let peer = Arc::clone(&self.peer().name);
        match self.begin_hand_over() {
            Ok(_) => tracing::info!(%peer, "the standby asks for the ownership"),
            Err(refused) => {
                tracing::warn!(%peer, %refused, "the standby asks for the ownership in vain");
            }
        }
    }

    /// An operator confirms that these members are down.
    fn take_over_from(&mut self, down: &str, reply: TakeOverReply) {
        let peer = |name: &str| {
            let place = self.settings.peers.iter().position(|peer| *peer.name == *name);
            place.map(PeerId).ok_or_else(|| {
                let peers = self.settings.peers.iter().map(|peer| format!("`{}`", peer.name));
                let peers = peers.collect::<Vec<_>>().join(" or ");
                TakeOverError::NotPeer { found: name.to_owned(), peers }
            })
        };
        let named: Result<Vec<PeerId>, _> = down.split(',').map(|name| peer(name.trim())).collect();
        if let Err(refused) = named.and_then(|down| self.confirm_down(&down)) {
            // The client may have disconnected.
            return drop(reply.send(Err(refused)));
        }
        tracing::warn!(%down, "an operator confirms that other gateways are down");
        self.execute_outputs();
        let mut takeover = match self.state.take() {
            MemberState::TakingOver(takeover) => takeover,
            MemberState::Owning | MemberState::GivenUp { .. } => {
                Takeover::of_own_sessions(self.gateway.handle.clone())
            }
            // It has ended, and drops the reply.
            state => return self.state = state,
        };
        takeover.confirm(reply);
        self.state = MemberState::TakingOver(takeover);
    }

    fn confirm_down(&mut self, down: &[PeerId]) -> Result<(), TakeOverError> {
        let name = |PeerId(id): PeerId| Arc::clone(&self.settings.peers[id].name);
        let taken = self.core.handle_take_over(down, Instant::now());
        taken.map_err(|refusal| match refusal {
            TakeoverRefusal::OwnerAlready => TakeOverError::OwnerAlready,
            TakeoverRefusal::PeerOwns(peer) => {
                let here = Arc::clone(&self.settings.name);
                TakeOverError::PeerOwns { peer: name(peer), here }
            }
            TakeoverRefusal::PeerHeard(peer) => TakeOverError::PeerHeard(name(peer)),
            TakeoverRefusal::Joining(peer) => TakeOverError::Joining(name(peer)),
            TakeoverRefusal::AgentsHearPeer => {
                TakeOverError::AgentsHearPeer(Arc::clone(&self.peer().name))
            }
            TakeoverRefusal::AlsoSilent(peer) => TakeOverError::AlsoSilent(name(peer)),
            TakeoverRefusal::HeldElsewhere(holder) => TakeOverError::HeldElsewhere(name(holder)),
        })
    }

    fn owner_here(&self) -> NewOwner {
        NewOwner { gateway: Arc::clone(&self.settings.name), epoch: self.core.epoch() }
    }

    /// No vote lets this standby take over from its silent peer.
    fn fence_peer(&mut self, now: Instant) {
        let is_blocked = self.core.blocked().is_some_and(|blocked| blocked != Blocked::Unknown);
        // A spare holds no records.
        if is_blocked
            && !self.core.is_spare()
            && self.core.takeover_refusal(&[self.core.peer_id()], now).is_none()
        {
            self.watch.fence(&self.gateway.handle, self.keeper.router_check(), now);
        }
    }

    fn handle_fenced(&mut self, fenced: Result<(), String>) {
        if self.core.is_owner() {
            // The end of the peer's process was seen before.
            return;
        }
        let (id, peer) = (self.core.peer_id(), Arc::clone(&self.peer().name));
        let taken = fenced.and_then(|()| {
            tracing::warn!(%peer, "the fence says that the peer is down");
            self.confirm_down(&[id]).map_err(|refused| refused.to_string())
        });
        if let Err(reason) = taken {
            tracing::error!(%peer, %reason, "silent peer not fenced");
        }
    }

    fn report(&mut self, event: ClusterEvent) {
        let peer = Arc::clone(&self.peer().name);
        match event {
            ClusterEvent::PeerHeard => tracing::info!(%peer, "peer heard"),
            ClusterEvent::PeerSilent => tracing::warn!(%peer, "peer silent"),
            ClusterEvent::PeerEnded(by) => {
                let reported_by = match by {
                    Reporter::Kernel => "kernel",
                    Reporter::Agent => "agent",
                };
                tracing::warn!(%peer, reported_by, "peer's process ended");
            }
            ClusterEvent::PeerRestarted => tracing::info!(%peer, "peer restarted"),
            ClusterEvent::Followed(epoch) => {
                tracing::info!(%peer, epoch, "this gateway is the standby");
            }
            ClusterEvent::Armed(voters) => {
                tracing::info!(%peer, voters = voters.len(), "standby may take over by silence");
            }
            ClusterEvent::Disarmed => tracing::info!(%peer, "standby may not take over by silence"),
            ClusterEvent::Barred => {
                tracing::warn!(%peer, "agents or witnesses keep the silent peer from taking over");
            }
            ClusterEvent::HeldDown(takeovers, left) => tracing::warn!(
                takeovers,
                held_s = left.as_secs_f64(),
                "takeovers by silence follow each other: none follows until the hold-down ends"
            ),
            ClusterEvent::LeaseLapsed => {
                self.keeper.drop_waiting();
                tracing::warn!(
                    "neither peer nor agents or witnesses confirm the ownership: nothing is sent"
                );
            }
            ClusterEvent::LeaseRenewed(after) => {
                let after_ms = after.as_millis() as u64;
                tracing::info!(after_ms, "ownership confirmed: packets are sent again");
            }
            ClusterEvent::HandOverFailed => match self.state.take() {
                MemberState::Yielding { suspension, operator } => {
                    let next = MemberState::GivenUp { suspension };
                    self.fail_hand_over(operator, self.not_taken(), next);
                }
                // A takeover follows.
                MemberState::Yielded { guard, operator } => {
                    let next = MemberState::Yielded { guard, operator: None };
                    self.fail_hand_over(operator, self.not_taken(), next);
                }
                // Its failure was reported.
                state => self.state = state,
            },
            ClusterEvent::TakeoverBlocked(blocked) => tracing::error!(
                %peer,
                reason = blocked_reason(blocked),
                "peer silent, and not replaced; if it is down, run `evenkeel gateway take-over --confirm-down {peer}`"
            ),
        }
    }

    fn redundancy_losses(&self, now: Instant) -> Vec<RedundancyLoss> {
        let [here, peer] = [&self.settings.name, &self.peer().name].map(Arc::clone);
        let is_spare = self.core.is_spare();
        let votes = self.votes.has_voters() && !self.rest.is_on();
        let loss = match (self.core.peer(now), self.core.is_owner()) {
            (None, true) => Some(RedundancyLoss::NoPeer(peer)),
            (Some(_), true) if !self.core.is_followed(now) => Some(RedundancyLoss::NotInSync(peer)),
            (Some(_), true) if votes && !self.core.is_standby_armed() => {
                let is_held_down = !self.core.held_down(now).is_zero();
                Some(if is_held_down { RedundancyLoss::HeldDown } else { RedundancyLoss::NoVoter })
            }
            (Some(_), false) if is_spare => None,
            (Some(_), false) if !self.records.copy().is_whole() => {
                Some(RedundancyLoss::NotInSync(here))
            }
            (Some(beat), false) if votes && beat.role == BeatRole::Owner => {
                beat.voters.is_empty().then_some(RedundancyLoss::NotArmed)
            }
            // A silent owner is reported as such.
            _ => None,
        };
        let differs = self.records.difference().map(RedundancyLoss::Differs);
        // After a takeover the check has not run again yet.
        let applies =
            |it: &HostWarning| matches!(it, HostWarning::Unchecked(_)) || !self.core.is_owner();
        let host = self.inbox.host_warning.borrow().clone().filter(applies);
        let host = host.map(RedundancyLoss::Host);
        // Of two members, the silent one is the peer.
        let others = self.settings.peers.iter().enumerate().map(|(at, peer)| (PeerId(at), peer));
        let silent = others
            .filter(|(id, _)| *id != self.core.peer_id() && self.core.member(*id, now).is_none());
        let silent = silent.map(|(_, peer)| RedundancyLoss::Silent(Arc::clone(&peer.name)));
        loss.into_iter()
            .chain(differs)
            .chain(host)
            .chain(silent)
            .chain(self.state.unready().iter().cloned().map(RedundancyLoss::Unready))
            .collect()
    }

    /// Sends the event of another role, or of other losses of redundancy.
    fn publish(&self, role: GroupRole, epoch: u64, warnings: &[Arc<str>]) {
        {
            let shown = self.inbox.standing.borrow();
            let was_role = shown.gateways.first().map(|here| here.role);
            if was_role == Some(role) && shown.warnings == warnings {
                return;
            }
        }
        self.gateway.handle.publish(GatewayEvent::Group(GroupChange {
            gateway: Arc::clone(&self.settings.name),
            role: role.name(),
            epoch,
            warnings: warnings.to_vec(),
        }));
    }

    fn show(&mut self) {
        let now = Instant::now();
        let (is_owner, epoch) = (self.core.is_owner(), self.core.epoch());
        let peer = self.core.peer(now);
        let peer_owns = peer.is_some_and(|beat| beat.role == BeatRole::Owner);
        let copies = self.records.copy().sessions();
        let is_doubting = is_owner && !self.gateway.lease.is_held(|| now);
        let blocked = match self.core.blocked() {
            _ if is_doubting && peer.is_none() => {
                Some("neither it nor a majority of the agents and witnesses answers")
            }
            blocked => blocked.map(blocked_reason),
        };
        let role = match () {
            () if is_doubting => GroupRole::Doubting,
            () if matches!(self.state, MemberState::TakingOver(_)) => GroupRole::Restoring,
            () if is_owner => GroupRole::Owner,
            () if epoch == 0 => GroupRole::Joining,
            () if self.core.is_spare() => GroupRole::Spare,
            () => GroupRole::Standby,
        };
        let here = GatewayStanding {
            gateway: Arc::clone(&self.settings.name),
            here: true,
            role,
            epoch,
            sessions: copies,
            in_sync: is_owner || self.records.copy().is_whole(),
            armed: !is_owner && peer_owns && peer.is_some_and(|beat| !beat.voters.is_empty()),
            heard_ms: None,
            addresses: if is_owner { self.addresses() } else { Vec::new() },
            refused: None,
            blocked: blocked.map(|reason| format!("{} is silent: {reason}", self.peer().name)),
        };
        let peers = (0..self.settings.peers.len()).map(|at| self.standing_of(PeerId(at), now));
        let gateways = std::iter::once(here).chain(peers).collect();
        let warnings = self.redundancy.warnings();
        self.publish(role, epoch, &warnings);
        let standing = GroupStatus { gateways, warnings, unready: self.state.unready().len() };
        let renew = |shown: &mut GroupStatus| std::mem::replace(shown, standing) != *shown;
        self.inbox.standing.send_if_modified(renew);
    }

    /// Another member as this one knows it.
    fn standing_of(&self, id: PeerId, now: Instant) -> GatewayStanding {
        let beat = self.core.member(id, now);
        let (owns, is_peer) =
            (beat.is_some_and(|beat| beat.role == BeatRole::Owner), id == self.core.peer_id());
        let copies = self.records.copy().sessions();
        // A member that does not own knows the standby by its copy.
        let is_standby = match self.core.is_owner() || self.settings.peers.len() == 1 {
            true => is_peer,
            false => beat.is_some_and(|beat| beat.whole),
        };
        GatewayStanding {
            gateway: Arc::clone(&self.settings.peers[id.0].name),
            here: false,
            role: match beat {
                None => GroupRole::Silent,
                Some(_) if owns => GroupRole::Owner,
                Some(_) if is_standby => GroupRole::Standby,
                Some(_) => GroupRole::Spare,
            },
            epoch: beat.map_or(0, |beat| beat.epoch),
            sessions: if owns { copies } else { 0 },
            in_sync: owns || is_peer && self.core.is_followed(now),
            armed: is_peer && self.core.is_standby_armed(),
            heard_ms: self.watch.heard(id).map(|heard| (now - heard).as_millis() as u64),
            addresses: if owns { self.addresses() } else { Vec::new() },
            refused: self.records.refused().filter(|_| is_peer),
            blocked: None,
        }
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.settings.addresses.iter().map(|moved| moved.address).collect()
    }
}

#[cfg(test)]
mod tests;
