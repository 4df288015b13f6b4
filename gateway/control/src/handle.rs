//! The requests to control, and its interface for other threads.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use evenkeel_config::PolicySet;
use evenkeel_contract::gateway::Mode;
use evenkeel_contract::sessions::{EndedSession, SessionRating};
use evenkeel_core::{
    BlastRadius, Explanation, GatewayCopy, ModePrediction, NodeStanding, RegionStanding,
    RestoreError, RoomExplanation, RoomRecord, RoomStanding, SessionCopy,
};
use evenkeel_dataplane::client_probes::ClientProbes;
use evenkeel_kept::{Encoded, KeptPart, Row, Store};
use evenkeel_model::{ClientLabel, NodeId, PolicyName, RedundancyMode, RoomId, SessionId};
use evenkeel_policies::{
    PluginSource, PolicyRecorder, PolicyRecords, PolicyView, RefusalRecord, TrustRules,
};
use evenkeel_process::documents::UnwrittenDocuments;
use evenkeel_process::scheduling;
use evenkeel_revisions::{RolloutAction, RolloutReport};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};

use crate::alerts::AlertsRecord;
use crate::changes::KeptChange;
use crate::continuity::{OFFERS_WITHIN, Suspended};
use crate::failures::KeptFailure;
use crate::forecasts::KeptForecast;
use crate::history::SessionHistory;
use crate::idempotency::KeyTable as IdempotencyKeys;
use crate::inherited::NamedSockets;
use crate::last_states::LastStates;
use crate::messages::{
    ControlError, ForecastReport, LastChange, NodeOrder, NotSuspended, REQUESTS_MAX, Restored,
    SessionView, Slice, SnapshotError, StatusReport, TakeoverReadiness,
};
use crate::names::NodeNames;
use crate::node_list::{ListChange, NodeList, NotListed};
use crate::offers::{LaterOffer, OfferedSession, SessionAnswer};
use crate::operations::{LogFilterSender, Operation, OperationTarget, Operations};
use crate::policies::PushRequest;
use crate::registry::IngressAnswer;
use crate::reloads::{ReloadReport, ReloadRequest, Reloaded};
use crate::reporting::{Continuation, EventRecord, GatewayEvent};
use crate::session_urls::SessionUrls;
use crate::snapshot::{MediaStates, RecordBatch, Replica, Snapshot};
use crate::traces::TraceRegistry;

/// Length of a subscriber's event queue. A subscriber that is slower loses the oldest events.
const EVENTS_MAX: usize = 8_192;

/// The channel of a reply.
pub(crate) type ControlReply<T> = oneshot::Sender<T>;

/// Declares the requests. Each in `answered` and `refusable` has a method of [`Handle`] that sends it and returns the reply;
/// control may reply to the latter with an error. Methods of the `other` requests are written out.
macro_rules! requests {
    (
        answered { $($(#[$meta:meta])* $method:ident($($field:ident: $type:ty),*) = $variant:ident -> $reply:ty;)* }
        refusable { $($(#[$meta_r:meta])* $method_r:ident($($field_r:ident: $type_r:ty),*) = $variant_r:ident -> $reply_r:ty;)* }
        other { $($other:tt)* }
    ) => {
        /// A request to control; most carry the channel of the reply.
        #[derive(Debug)]
        pub enum ControlRequest {
            $($(#[$meta])* $variant($($type,)* ControlReply<$reply>),)*
            $($(#[$meta_r])* $variant_r($($type_r,)* ControlReply<Result<$reply_r, ControlError>>),)*
            $($other)*
        }

        impl Handle {
            $($(#[$meta])*
            pub async fn $method(&self, $($field: $type),*) -> Result<$reply, ControlError> {
                self.ask(|reply| ControlRequest::$variant($($field,)* reply)).await
            })*
            $($(#[$meta_r])*
            pub async fn $method_r(&self, $($field_r: $type_r),*) -> Result<$reply_r, ControlError> {
                self.ask(|reply| ControlRequest::$variant_r($($field_r,)* reply)).await?
            })*
        }
    };
}

requests! {
    answered {
        /// Explains why a session is on its hop. Returns `None` if the session does not exist.
        explain(session: SessionId) = Explain -> Option<Explanation>;
        /// Explains why the room with this name is on its hop. Returns `None` if there is no such room.
        explain_room(room: Arc<str>) = ExplainRoom -> Option<RoomExplanation>;
        /// Looks up a live session.
        session(session: SessionId) = Session -> Option<SessionView>;
        /// Up to `limit` sessions after this one, in order of their ids.
        sessions_after(after: SessionId, limit: usize) = Sessions -> Vec<SessionView>;
        /// Up to `limit` rooms after this one, in order of their ids.
        rooms_after(after: RoomId, limit: usize) = Rooms -> Vec<RoomStanding>;
        /// Tells if an offer with these names creates a room that sessions share.
        creates_room(scenario: Arc<str>, room: Arc<str>) = CreatesRoom -> bool;
        /// Lists the regions.
        regions() = Regions -> Vec<RegionStanding>;
        /// Lists the nodes.
        nodes() = Nodes -> Vec<NodeStanding>;
        /// Lists the policies, with the statistics of canaries.
        policies() = Policies -> Vec<PolicyView>;
        /// Lists the last refused plugins, oldest first.
        refusals() = Refusals -> Vec<RefusalRecord>;
        /// Gets the recorder of policy questions, if recording is on.
        recorder() = Recorder -> Option<PolicyRecorder>;
        /// Gets the records of ended sessions.
        history() = History -> Arc<SessionHistory>;
        /// Copies settings, nodes and regions, without rooms.
        copy_nodes() = CopyNodes -> Box<GatewayCopy>;
        /// Reports the status of the gateway.
        status() = Status -> StatusReport;
        /// Reports what a takeover would need of this gateway.
        readiness() = Readiness -> TakeoverReadiness;
        /// Reports measured cost and benefit of each mode.
        modes() = Modes -> Vec<Mode>;
        /// Replaces the policy sets: their scenarios, their `[rollout]`, and the hooks that they bind. Open rooms change mode too.
        /// Returns the scenarios that are gone, with the number of their open rooms, once the change is active or in progress. Policies
        /// that are bound anew have no revision yet. An error changes nothing.
        change_sets(sets: Vec<PolicySet>) = Sets -> io::Result<BTreeMap<Arc<str>, usize>>;
        /// Replaces the node list: new nodes are added, missing nodes are drained and removed, changed nodes are updated.
        /// A refused list changes nothing.
        list_nodes(list: Box<NodeList>) = List -> Result<ListChange, NotListed>;
        /// The records of all policies, for the process that replaces this one.
        policy_records() = PolicyRecords -> PolicyRecords;
        /// Returns once the records of policies are on the disk, or with the reason for which they cannot be written.
        policies_kept() = PoliciesKept -> Result<(), Arc<str>>;
        /// The bindings of policies that were rolled out last, by their identifications.
        configured_policies() = ConfiguredPolicies -> BTreeMap<PolicyName, Option<Arc<str>>>;
        /// Sets the trust rules for rollouts from now on.
        govern(rules: Box<TrustRules>) = Govern -> ();
        /// Notes the end of a reload.
        note_reload(report: Box<ReloadReport>) = NoteReload -> ();
        /// Reports forecasts, starts nodes before capacity is exhausted, and tells policies of nodes that decay.
        note_forecasts(report: Box<ForecastReport>) = NoteForecasts -> ();
        /// Keeps the alerts that are being sent for the process that continues this one. The reply comes once control has them, from
        /// a suspended gateway once it goes on, and then that they are on the disk, or the reason for which they cannot be written.
        keep_alerts(alerts: Encoded<AlertsRecord>) = KeepAlerts -> oneshot::Receiver<Result<(), Arc<str>>>;
        /// The alerts that this gateway, or the one that it continues, is sending.
        kept_alerts() = KeptAlerts -> Option<Row<AlertsRecord>>;
        /// Returns once the first revisions of all policies are active.
        policies_stand() = AwaitPolicies -> ();
        /// Refuses new sessions. Returns when the last session has ended or was closed at the deadline.
        shut_down(within: Duration) = Shutdown -> ();
        /// Sends all records in slices, and then batches of those that change. A follower that does not keep up is dropped:
        /// its channel ends, and it may follow again from the beginning. A new follower replaces the one before.
        ///
        /// A follower that `hands_over` is the next process on this machine: its first copy is urgent, and the channels of
        /// others end at once. It ends with the batch of [`Handle::suspend`].
        follow_records(hands_over: bool) = FollowRecords -> mpsc::Receiver<RecordBatch>;
        /// Tells the batch with the last of all changes that were answered before the call; `None` without a follower.
        records_sent() = RecordsSent -> Option<LastChange>;
        /// Continues the sessions of a gateway that may have failed, without their own ports. [`Handle::resume_prepared`] or
        /// [`Handle::forget_restored`] follows; most requests wait until then.
        prepare(replica: Arc<Replica>) = Prepare -> Result<Restored, SnapshotError>;
        /// Forgets the sessions that were prepared. The other gateway goes on with them.
        forget_restored() = ForgetRestored -> ();
        /// Continues a suspended gateway, or one that began suspended. The cause is that of restored sessions.
        resume(cause: Continuation) = Resume -> ();
        /// Ends a suspended gateway: its sessions continue at another process and are closed nowhere. Requests that wait, and
        /// later ones, fail with [`ControlError::Replaced`].
        release() = Release -> ();
        /// Ends this gateway after another one took over its sessions, without closing them at nodes.
        abandon() = Abandon -> ();
    }
    refusable {
        /// Closes a session.
        close(session: SessionId) = Close -> ();
        /// Follows a later offer of a session's WebRTC client. Returns the addresses and credentials for its answer.
        renegotiate(offer: Box<LaterOffer>) = Renegotiate -> IngressAnswer;
        /// Makes the worker panic over the session's next packet.
        #[cfg(feature = "fault-injection")]
        panic_session(session: SessionId) = Panic -> ();
        /// Moves a room to a node, make-before-break. Returns once the move is in progress.
        move_room(room: Arc<str>, node: Box<str>) = Move -> ();
        /// Starts an operation on a node, zone, region or breaker and returns once it is in progress.
        operate(operation: Operation) = Operate -> ();
        /// Orders the agent beside a node to start its process or to inject a fault. Returns when it is done.
        order(node: Box<str>, order: NodeOrder) = Order -> ();
        /// Replaces a policy's plugin from a file.
        roll_out(policy: PolicyName, source: Box<PluginSource>) = RollOut -> RolloutReport;
        /// Acts on the rollout of a policy.
        act_on_rollout(policy: PolicyName, action: RolloutAction) = ActOnRollout -> RolloutReport;
        /// Aborts the rollout in progress or, without one, restores the previous revision; a quarantined one only by `force`.
        rollback_policy(policy: PolicyName, force: bool) = Rollback -> RolloutReport;
        /// Ends a policy's thread for a drill: its hook falls back to the native default.
        stop_policy(policy: PolicyName) = Stop -> ();
    }
    other {
        /// Opens a session.
        Offer(Box<OfferedSession>, ControlReply<Result<SessionAnswer, ControlError>>),
        /// Copies the next rooms.
        CopyRooms {
            /// The id before the first one.
            after: RoomId,
            /// Takes one slice.
            reply: ControlReply<Slice<RoomId, RoomRecord>>,
        },
        /// Copies the next live sessions.
        CopySessions {
            /// The id before the first one.
            after: SessionId,
            /// Takes one slice.
            reply: ControlReply<Slice<SessionId, SessionCopy>>,
        },
        /// Reloads the configuration.
        Reload(ReloadRequest),
        /// Registers the task that reloads the configuration.
        FollowReloads(mpsc::Sender<ReloadRequest>),
        /// Notes a configuration file that was refused before its rollout.
        NoteRefusal(RefusalRecord),
        /// Replaces a policy's plugin for an operator.
        Push {
            /// The policy, by set and hook.
            policy: PolicyName,
            /// The plugin; `None` keeps that of the active revision.
            bytes: Option<Vec<u8>>,
            /// Its settings; `None` keeps those of the active revision.
            settings: Option<serde_json::Value>,
            /// Options of the rollout, and data documents.
            push: PushRequest,
            /// Replies with the decision.
            reply: ControlReply<Result<RolloutReport, ControlError>>,
        },
        /// Continues records of policies of the process that decides about their revisions.
        RestorePolicies(PolicyRecords),
        /// Records of ended sessions, and ratings, of the group's owner.
        CopyHistory(Vec<EndedSession>, Vec<SessionRating>),
        /// Reads the documents of the process that this one follows.
        ReadKept,
        /// Continues the documents of a disk that answered after the process went on without them.
        ReadLateKept,
        /// The first revisions of all policies are active.
        PoliciesStand,
        /// Duplicates the trunks' sockets.
        Trunks(ControlReply<io::Result<NamedSockets>>),
        /// Stops control, and hands out the records.
        Suspend(ControlReply<Result<Suspended, NotSuspended>>),
        /// Stops the workers of a suspended gateway.
        SuspendPackets(ControlReply<Result<LastStates, NotSuspended>>),
        /// Takes over newer states of restored sessions.
        ContinueMedia {
            /// The states.
            states: Box<MediaStates>,
            /// With the last part, and the result of all parts.
            last: Option<ControlReply<Result<(), SnapshotError>>>,
        },
        /// Takes over the state of another process.
        Restore {
            /// The state.
            snapshot: Box<Snapshot>,
            /// The sockets to which it refers.
            descriptors: Vec<OwnedFd>,
            /// Ends the suspension; `None` does not end it.
            resume: Option<Continuation>,
            /// Replies with the number of sessions; once packets are served, if the suspension ends.
            reply: ControlReply<Result<Restored, SnapshotError>>,
        },
    }
}

/// The interface of a running control, for other threads.
#[derive(Clone, Debug)]
pub struct Handle {
    /// The queue of control.
    pub requests: mpsc::Sender<ControlRequest>,
    /// The channel of events.
    pub events: broadcast::Sender<Arc<EventRecord>>,
    /// Names of nodes and regions.
    pub names: Arc<NodeNames>,
    /// Ids of the traces of sessions.
    pub traces: Arc<TraceRegistry>,
    /// Codes of the URLs of sessions, and of results of clients' probes.
    pub session_urls: Arc<SessionUrls>,
    /// Probes of clients, which workers answer.
    pub client_probes: Arc<ClientProbes>,
    /// Counts of refused tokens.
    pub tokens_refused: Arc<TokensRefused>,
    /// Keys of the API, with their answers.
    pub idempotency_keys: Arc<IdempotencyKeys>,
    /// Documents of this gateway that cannot be written.
    pub unwritten: UnwrittenDocuments,
    /// Documents that outlive the process.
    pub kept: Store,
    /// The log filter that an operator set.
    pub log_filter: LogFilterSender,
    /// Another process serves; dropped requests fail with [`ControlError::Replaced`].
    pub is_replaced: Arc<AtomicBool>,
    /// Permits one copy of the core at a time.
    pub(crate) copies: Arc<Semaphore>,
}

/// Counts requests over TCP that were refused for their token.
#[derive(Default, Debug)]
pub struct TokensRefused {
    missing: AtomicU64,
    wrong: AtomicU64,
}

impl TokensRefused {
    /// Counts a request without a token, or with a wrong one.
    pub fn count(&self, is_missing: bool) {
        let count = if is_missing { &self.missing } else { &self.wrong };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts by reason, as in metrics.
    pub fn by_reason(&self) -> [(&'static str, u64); 2] {
        let reasons = [("missing", &self.missing), ("wrong", &self.wrong)];
        reasons.map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
    }
}

impl Handle {
    /// A handle, with the queue of its requests.
    pub fn new(
        names: Arc<NodeNames>,
        traces: Arc<TraceRegistry>,
    ) -> (Handle, mpsc::Receiver<ControlRequest>) {
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let kept = Store::default();
        // Their owners begin later than the files of earlier versions are read, and than the first part of another process may come.
        kept.documents::<KeptForecast>();
        kept.documents::<KeptChange>();
        kept.documents::<KeptFailure>();
        // Control ends with the last handle.
        let late = requests.downgrade();
        kept.when_late(move || {
            if let Some(requests) = late.upgrade() {
                // Fails only once control has ended.
                let _ = requests.blocking_send(ControlRequest::ReadLateKept);
            }
        });
        let handle = Handle {
            requests,
            events: broadcast::channel(EVENTS_MAX).0,
            names,
            traces,
            session_urls: Arc::default(),
            client_probes: Arc::default(),
            tokens_refused: Arc::default(),
            idempotency_keys: Arc::new(IdempotencyKeys::keeping(&kept)),
            unwritten: UnwrittenDocuments::default(),
            kept,
            log_filter: LogFilterSender::default(),
            is_replaced: Arc::default(),
            copies: Arc::new(Semaphore::new(1)),
        };
        (handle, queue)
    }

    pub(crate) async fn ask<T>(
        &self,
        request: impl FnOnce(ControlReply<T>) -> ControlRequest,
    ) -> Result<T, ControlError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| self.unanswered())?;
        answer.await.map_err(|_| self.unanswered())
    }

    /// The error of a request that control dropped.
    fn unanswered(&self) -> ControlError {
        match self.is_replaced.load(Ordering::Acquire) {
            true => ControlError::Replaced,
            false => ControlError::Unavailable,
        }
    }

    /// Opens a session. Returns once it can carry packets.
    pub async fn offer(&self, request: OfferedSession) -> Result<SessionAnswer, ControlError> {
        self.ask(|reply| ControlRequest::Offer(Box::new(request), reply)).await?
    }

    /// Continues records of policies of the process that decides about their revisions, before any later request. Returns
    /// false if control is busy or gone.
    pub fn restore_policies(&self, records: PolicyRecords) -> bool {
        records.is_empty()
            || self.requests.try_send(ControlRequest::RestorePolicies(records)).is_ok()
    }

    /// Keeps records of ended sessions, and ratings, of the group's owner. Returns false if control is busy or gone.
    pub fn copy_history(&self, records: Vec<EndedSession>, ratings: Vec<SessionRating>) -> bool {
        let is_empty = records.is_empty() && ratings.is_empty();
        is_empty || self.requests.try_send(ControlRequest::CopyHistory(records, ratings)).is_ok()
    }

    /// Keeps documents of the process that this one follows. Returns false if control is busy or gone.
    pub fn copy_kept(&self, parts: Vec<KeptPart>) -> bool {
        // A busy owner changes idempotency keys with each offer, which control does not read.
        let has_operations = parts.iter().any(KeptPart::changes::<Operations>);
        parts.into_iter().for_each(|part| self.kept.add_part(part));
        !has_operations || self.requests.try_send(ControlRequest::ReadKept).is_ok()
    }

    /// Begins or ends the drain of a node, without a deadline.
    pub async fn drain_node(&self, node: Box<str>, draining: bool) -> Result<(), ControlError> {
        let place = OperationTarget::Node(node);
        self.operate(Operation::Drain { place, draining, within: None }).await
    }

    /// All live sessions.
    pub async fn sessions(&self) -> Result<Vec<SessionView>, ControlError> {
        self.sessions_after(SessionId(0), usize::MAX).await
    }

    /// All placed rooms.
    pub async fn rooms(&self) -> Result<Vec<RoomStanding>, ControlError> {
        self.rooms_after(RoomId(0), usize::MAX).await
    }

    /// Reloads the configuration, as far as it can change at run time.
    pub async fn reload(
        &self,
        force: bool,
        within: Option<Duration>,
    ) -> Result<Reloaded, ControlError> {
        let asked = |reply| ControlRequest::Reload(ReloadRequest { force, within, reply });
        self.ask(asked).await?.map_err(ControlError::NotReloaded)
    }

    /// Registers the task that reloads the configuration.
    pub async fn follow_reloads(
        &self,
        asked: mpsc::Sender<ReloadRequest>,
    ) -> Result<(), ControlError> {
        let request = ControlRequest::FollowReloads(asked);
        self.requests.send(request).await.map_err(|_| ControlError::Unavailable)
    }

    /// Replaces a policy's plugin, settings and data documents, as far as they are given. A refusal is an outcome, not an
    /// error.
    pub async fn push_policy(
        &self,
        policy: PolicyName,
        bytes: impl Into<Option<Vec<u8>>>,
        settings: Option<serde_json::Value>,
        push: PushRequest,
    ) -> Result<RolloutReport, ControlError> {
        let bytes = bytes.into();
        self.ask(|reply| ControlRequest::Push { policy, bytes, settings, push, reply }).await?
    }

    /// Notes a refusal that belongs to no rollout.
    pub async fn note_refusal(&self, refusal: RefusalRecord) {
        // Fails only if control has ended.
        let _ = self.requests.send(ControlRequest::NoteRefusal(refusal)).await;
    }

    /// Duplicates of the sockets of all trunks, for the process that replaces this one.
    pub async fn trunks(&self) -> io::Result<NamedSockets> {
        let ended = |_| io::Error::other("control ended");
        self.ask(ControlRequest::Trunks).await.map_err(ended)?
    }

    /// Stops control and hands out the records of all live sessions, or the last batch of a
    /// [follower](Handle::follow_records): nothing is decided until the gateway is resumed, restored or released. New
    /// offers wait meanwhile. Packets are forwarded until [`Handle::suspend_packets`].
    pub async fn suspend(&self) -> Result<Suspended, NotSuspended> {
        // Waits until the API has stored the answers that control gave: a client may repeat its offer to the next process.
        let _ = tokio::time::timeout(OFFERS_WITHIN, self.idempotency_keys.answered()).await;
        let suspended =
            self.ask(ControlRequest::Suspend).await.map_err(|_| NotSuspended::Unavailable)?;
        let mut suspended = suspended?;
        let keys = self.idempotency_keys.take_changed(usize::MAX);
        suspended.batch.changed.idempotency_keys.extend(keys);
        Ok(suspended)
    }

    /// Stops the packets of a suspended gateway, and hands out the states that changed since the records: nothing is
    /// read or sent after the last part.
    pub async fn suspend_packets(&self) -> Result<LastStates, NotSuspended> {
        self.ask(ControlRequest::SuspendPackets).await.map_err(|_| NotSuspended::Unavailable)?
    }

    /// Continues restored sessions in these newer states. Only the last part is waited for: its result is that of all
    /// parts.
    pub async fn continue_media(
        &self,
        states: MediaStates,
        is_last: bool,
    ) -> Result<(), SnapshotError> {
        let states = Box::new(states);
        if is_last {
            let asked =
                self.ask(|reply| ControlRequest::ContinueMedia { states, last: Some(reply) });
            return asked.await.map_err(|_| SnapshotError::Unavailable)?;
        }
        let sent = self.requests.send(ControlRequest::ContinueMedia { states, last: None }).await;
        sent.map_err(|_| SnapshotError::Unavailable)
    }

    /// Continues the sessions of another process. Nothing is read, sent or decided until [`Handle::resume`].
    pub async fn restore(
        &self,
        snapshot: Snapshot,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Restored, SnapshotError> {
        self.continue_sessions(snapshot, descriptors, None).await
    }

    /// Continues the sessions of another gateway. Returns once their packets are served.
    pub async fn take_over(
        &self,
        snapshot: Snapshot,
        descriptors: Vec<OwnedFd>,
        cause: Continuation,
    ) -> Result<Restored, SnapshotError> {
        self.continue_sessions(snapshot, descriptors, Some(cause)).await
    }

    /// Serves the sessions that were [prepared](Handle::prepare) from this replica.
    pub async fn resume_prepared(
        &self,
        replica: &Replica,
        cause: Continuation,
    ) -> Result<(), ControlError> {
        self.idempotency_keys.restore(replica.keys());
        self.resume(cause).await
    }

    async fn continue_sessions(
        &self,
        mut snapshot: Snapshot,
        descriptors: Vec<OwnedFd>,
        resume: Option<Continuation>,
    ) -> Result<Restored, SnapshotError> {
        self.idempotency_keys.restore(std::mem::take(&mut snapshot.idempotency_keys));
        let snapshot = Box::new(snapshot);
        self.ask(|reply| ControlRequest::Restore { snapshot, descriptors, resume, reply })
            .await
            .map_err(|_| SnapshotError::Unavailable)?
    }

    /// Computes the effect of each of these losses from one copy of the core: nodes first, then rooms and sessions in
    /// slices, each as it is then. Other callers wait meanwhile.
    ///
    /// # Errors
    /// Control is gone, the copied parts contradict each other, or no thread plays them.
    pub async fn blast(
        &self,
        losses: Vec<BTreeSet<NodeId>>,
    ) -> Result<Vec<BlastRadius>, ControlError> {
        self.play_copy(move |copy, now| losses.iter().map(|lost| copy.lose(lost, now)).collect())
            .await
    }

    /// Computes the spares, capacity, bandwidth and the effect of a loss in each redundancy mode, if all rooms had it, from one
    /// copy of the core.
    ///
    /// # Errors
    /// As [`Handle::blast`].
    pub async fn predict_modes(
        &self,
        lost: BTreeSet<NodeId>,
    ) -> Result<Vec<ModePrediction>, ControlError> {
        self.play_copy(move |copy, now| {
            let modes = RedundancyMode::ALL.into_iter();
            modes.map(|mode| copy.lose_in_mode(mode, &lost, now)).collect()
        })
        .await
    }

    /// Plays a copy of the core on a thread of its own.
    async fn play_copy<T: Send + 'static>(
        &self,
        play: impl FnOnce(&GatewayCopy, Instant) -> Result<T, RestoreError> + Send + 'static,
    ) -> Result<T, ControlError> {
        let unavailable = || ControlError::Unavailable;
        let turn = Arc::clone(&self.copies).acquire_owned().await.map_err(|_| unavailable())?;
        let copy = self.copy().await?;
        let (done, played) = oneshot::channel();
        let run = move || {
            // A caller that gave up frees no turn for another copy.
            let _turn = turn;
            scheduling::run_after_others();
            let _ = done.send(play(&copy, Instant::now()));
        };
        let thread = std::thread::Builder::new().name("blast".into()).spawn(run);
        thread.map_err(|_| unavailable())?;
        played.await.map_err(|_| unavailable())?.map_err(ControlError::NotCopied)
    }

    /// For each of these carriers, the live sessions of its clients with their rooms.
    ///
    /// # Errors
    /// Control is gone.
    pub async fn clients_of<'a>(
        &self,
        carriers: &BTreeSet<&'a str>,
    ) -> Result<BTreeMap<&'a str, BTreeMap<SessionId, RoomId>>, ControlError> {
        let mut found: BTreeMap<&str, BTreeMap<_, _>> =
            carriers.iter().map(|carrier| (*carrier, BTreeMap::new())).collect();
        let mut after = Some(SessionId(0));
        while let Some(session) = after {
            let request = |reply| ControlRequest::CopySessions { after: session, reply };
            let Slice { items, last } = self.ask(request).await?;
            for session in items.iter().map(SessionCopy::record) {
                let carrier = ClientLabel::Carrier.value(&session.labels);
                if let Some(clients) = carrier.and_then(|carrier| found.get_mut(carrier)) {
                    clients.insert(session.id, session.room);
                }
            }
            after = last;
        }
        Ok(found)
    }

    async fn copy(&self) -> Result<GatewayCopy, ControlError> {
        let mut copy = self.copy_nodes().await?;
        let mut after = Some(RoomId(0));
        while let Some(room) = after {
            let request = |reply| ControlRequest::CopyRooms { after: room, reply };
            let Slice { items, last } = self.ask(request).await?;
            items.into_iter().for_each(|room| copy.add_room(room));
            after = last;
        }
        let mut after = Some(SessionId(0));
        while let Some(session) = after {
            let request = |reply| ControlRequest::CopySessions { after: session, reply };
            let Slice { items, last } = self.ask(request).await?;
            items.into_iter().for_each(|session| copy.add_session(session));
            after = last;
        }
        Ok(*copy)
    }

    /// Names of nodes and regions, including those that recent events mention.
    pub fn names(&self) -> Arc<NodeNames> {
        Arc::clone(&self.names)
    }

    /// Sends an event of another thread than control.
    pub fn publish(&self, event: GatewayEvent) {
        // Fails only without subscribers.
        let _ = self.events.send(Arc::new(EventRecord::now(event)));
    }

    /// Subscribes to events.
    pub fn events(&self) -> broadcast::Receiver<Arc<EventRecord>> {
        self.events.subscribe()
    }
}
