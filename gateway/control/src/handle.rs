//! The interface of control for other threads.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evenkeel_core::{Explanation, NodeStanding, RegionStanding, RoomStanding};
use evenkeel_model::{PolicyName, RoomId, Scenario, SessionId};
use evenkeel_policies::{PluginSource, PolicyRecorder, PolicyView, RefusalRecord, TrustRules};
use evenkeel_revisions::{RolloutAction, RolloutReport};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::history::SessionHistory;
use crate::idempotency::KeyTable as IdempotencyKeys;
use crate::inherited::NamedSockets;
use crate::messages::{
    ControlError, ControlReply, ControlRequest, NodeOrder, NotSuspended, REQUESTS_MAX, Restored,
    SessionView, Slice, SnapshotError, StatusReport,
};
use crate::names::NodeNames;
use crate::nodes::{
    ListChange, NodeList, NotListed, Operation, OperationTarget, ReloadRequest, Reloaded,
};
use crate::offers::{OfferedSession, SessionAnswer};
use crate::policies::PushRequest;
use crate::records::{OFFERS_WITHIN, Suspended};
use crate::reporting::{EventRecord, ModeView};
use crate::snapshot::{MediaStates, RecordBatch, Snapshot};
use crate::suspension::LastStates;

/// Length of a subscriber's event queue. A subscriber that is slower loses the oldest events.
const EVENTS_MAX: usize = 8_192;

/// The interface of a running control, for other threads.
#[derive(Clone, Debug)]
pub struct Handle {
    /// The queue of control.
    pub requests: mpsc::Sender<ControlRequest>,
    /// The channel of events.
    pub events: broadcast::Sender<Arc<EventRecord>>,
    /// Names of nodes and regions.
    pub names: Arc<NodeNames>,
    /// Counts of refused tokens.
    pub tokens_refused: Arc<TokensRefused>,
    /// Keys of the API, with their answers.
    pub idempotency_keys: Arc<IdempotencyKeys>,
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
    pub fn new(names: Arc<NodeNames>) -> (Handle, mpsc::Receiver<ControlRequest>) {
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let handle = Handle {
            requests,
            events: broadcast::channel(EVENTS_MAX).0,
            names,
            tokens_refused: Arc::default(),
            idempotency_keys: Arc::default(),
        };
        (handle, queue)
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(ControlReply<T>) -> ControlRequest,
    ) -> Result<T, ControlError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| ControlError::Unavailable)?;
        answer.await.map_err(|_| ControlError::Unavailable)
    }

    /// Opens a session. Returns once it can carry packets.
    pub async fn offer(&self, request: OfferedSession) -> Result<SessionAnswer, ControlError> {
        self.ask(|reply| ControlRequest::Offer(Box::new(request), reply)).await?
    }

    /// Closes a session.
    pub async fn close(&self, session: SessionId) -> Result<(), ControlError> {
        self.ask(|reply| ControlRequest::Close(session, reply)).await?
    }

    /// Makes the worker panic over the session's next packet.
    #[cfg(feature = "fault-injection")]
    pub async fn panic_session(&self, session: SessionId) -> Result<(), ControlError> {
        self.ask(|reply| ControlRequest::Panic(session, reply)).await?
    }

    /// Moves a room to a node, make-before-break. Returns once the move is in progress.
    pub async fn move_room(&self, room: Arc<str>, node: Box<str>) -> Result<(), ControlError> {
        self.ask(|reply| ControlRequest::Move { room, node, reply }).await?
    }

    /// Begins or ends the drain of a node, without a deadline.
    pub async fn drain_node(&self, node: Box<str>, draining: bool) -> Result<(), ControlError> {
        let place = OperationTarget::Node(node);
        self.operate(Operation::Drain { place, draining, within: None }).await
    }

    /// Starts an operation and returns once it is in progress.
    pub async fn operate(&self, operation: Operation) -> Result<(), ControlError> {
        self.ask(|reply| ControlRequest::Operate(operation, reply)).await?
    }

    /// Explains why a session is on its hop. Returns `None` if the session does not exist.
    pub async fn explain(&self, session: SessionId) -> Result<Option<Explanation>, ControlError> {
        self.ask(|reply| ControlRequest::Explain(session, reply)).await
    }

    /// All regions.
    pub async fn regions(&self) -> Result<Vec<RegionStanding>, ControlError> {
        self.ask(ControlRequest::Regions).await
    }

    /// Orders the agent beside a node to start its process or to inject a fault. Returns when it is done.
    pub async fn order(&self, node: Box<str>, order: NodeOrder) -> Result<(), ControlError> {
        self.ask(|reply| ControlRequest::Order { node, order, reply }).await?
    }

    /// Asks for one slice after the other: control serves other inputs between two.
    async fn list<Id: Copy, T>(
        &self,
        mut after: Id,
        limit: usize,
        request: impl Fn(Id, ControlReply<Slice<Id, T>>) -> ControlRequest,
    ) -> Result<Vec<T>, ControlError> {
        let mut all = Vec::new();
        loop {
            let Slice { items, last } = self.ask(|reply| request(after, reply)).await?;
            all.extend(items);
            match last {
                Some(last) if all.len() < limit => after = last,
                Some(_) | None => break,
            }
        }
        all.truncate(limit);
        Ok(all)
    }

    /// All live sessions.
    pub async fn sessions(&self) -> Result<Vec<SessionView>, ControlError> {
        self.sessions_after(SessionId(0), usize::MAX).await
    }

    /// Up to `limit` sessions after this one, in order of their ids.
    pub async fn sessions_after(
        &self,
        after: SessionId,
        limit: usize,
    ) -> Result<Vec<SessionView>, ControlError> {
        self.list(after, limit, |after, reply| ControlRequest::Sessions { after, reply }).await
    }

    /// The live session of this number.
    pub async fn session(&self, session: SessionId) -> Result<Option<SessionView>, ControlError> {
        self.ask(|reply| ControlRequest::Session(session, reply)).await
    }

    /// All placed rooms.
    pub async fn rooms(&self) -> Result<Vec<RoomStanding>, ControlError> {
        self.rooms_after(RoomId(0), usize::MAX).await
    }

    /// Up to `limit` rooms after this one, in order of their ids.
    pub async fn rooms_after(
        &self,
        after: RoomId,
        limit: usize,
    ) -> Result<Vec<RoomStanding>, ControlError> {
        self.list(after, limit, |after, reply| ControlRequest::Rooms { after, reply }).await
    }

    /// All nodes.
    pub async fn nodes(&self) -> Result<Vec<NodeStanding>, ControlError> {
        self.ask(ControlRequest::Nodes).await
    }

    /// All policies, with the statistics of canaries.
    pub async fn policies(&self) -> Result<Vec<PolicyView>, ControlError> {
        self.ask(ControlRequest::Policies).await
    }

    /// The recorder of policy questions, if recording is on.
    pub async fn recorder(&self) -> Result<Option<PolicyRecorder>, ControlError> {
        self.ask(ControlRequest::Recorder).await
    }

    /// The records of ended sessions.
    pub async fn history(&self) -> Result<Arc<SessionHistory>, ControlError> {
        self.ask(ControlRequest::History).await
    }

    /// The status of the gateway.
    pub async fn status(&self) -> Result<StatusReport, ControlError> {
        self.ask(ControlRequest::Status).await
    }

    /// Measured cost and benefit of each mode.
    pub async fn modes(&self) -> Result<Vec<ModeView>, ControlError> {
        self.ask(ControlRequest::Modes).await
    }

    /// Replaces scenarios; open rooms change mode too.
    pub async fn change_scenarios(
        &self,
        scenarios: BTreeMap<Arc<str>, Scenario>,
    ) -> Result<(), ControlError> {
        self.ask(|reply| ControlRequest::Scenarios(scenarios, reply)).await
    }

    /// Replaces the node list: new nodes are added, missing nodes are drained and removed, changed nodes are updated.
    /// A refused list changes nothing.
    pub async fn list_nodes(
        &self,
        list: NodeList,
    ) -> Result<Result<ListChange, NotListed>, ControlError> {
        self.ask(|reply| ControlRequest::List(Box::new(list), reply)).await
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

    /// Replaces a policy's plugin and, if given, its settings. A refusal is an outcome, not an error.
    pub async fn push_policy(
        &self,
        policy: PolicyName,
        bytes: Vec<u8>,
        settings: Option<serde_json::Value>,
    ) -> Result<RolloutReport, ControlError> {
        self.push_policy_as(policy, bytes, settings, PushRequest::default()).await
    }

    /// Like [`Handle::push_policy`], with rollout options of the caller.
    pub async fn push_policy_as(
        &self,
        policy: PolicyName,
        bytes: Vec<u8>,
        settings: Option<serde_json::Value>,
        push: PushRequest,
    ) -> Result<RolloutReport, ControlError> {
        self.ask(|reply| ControlRequest::Push { policy, bytes, settings, push, reply }).await?
    }

    /// Acts on the rollout of a policy.
    pub async fn act_on_rollout(
        &self,
        policy: PolicyName,
        action: RolloutAction,
    ) -> Result<RolloutReport, ControlError> {
        self.ask(|reply| ControlRequest::ActOnRollout { policy, action, reply }).await?
    }

    /// Replaces `[rollout]` of the policy sets.
    pub async fn change_rollout_settings(
        &self,
        settings: BTreeMap<Arc<str>, evenkeel_config::RolloutSettings>,
    ) -> Result<(), ControlError> {
        let request = ControlRequest::RolloutSettings(settings);
        self.requests.send(request).await.map_err(|_| ControlError::Unavailable)
    }

    /// The last refused plugins, oldest first.
    pub async fn refusals(&self) -> Result<Vec<RefusalRecord>, ControlError> {
        self.ask(ControlRequest::Refusals).await
    }

    /// Sets the trust rules for rollouts from now on.
    pub async fn govern(&self, rules: TrustRules) -> Result<(), ControlError> {
        self.ask(|reply| ControlRequest::Govern(Box::new(rules), reply)).await
    }

    /// Notes a refusal that belongs to no rollout.
    pub async fn note_refusal(&self, refusal: RefusalRecord) {
        // Fails only if control has ended.
        let _ = self.requests.send(ControlRequest::NoteRefusal(refusal)).await;
    }

    /// Returns once the first revisions of all policies are active.
    pub async fn policies_stand(&self) -> Result<(), ControlError> {
        self.ask(ControlRequest::AwaitPolicies).await
    }

    /// Replaces a policy's plugin from a file.
    pub async fn roll_out(
        &self,
        policy: PolicyName,
        source: PluginSource,
    ) -> Result<RolloutReport, ControlError> {
        let source = Box::new(source);
        self.ask(|reply| ControlRequest::RollOut { policy, source, reply }).await?
    }

    /// Aborts the rollout in progress or, without one, restores the previous revision.
    pub async fn rollback_policy(&self, policy: PolicyName) -> Result<RolloutReport, ControlError> {
        self.ask(|reply| ControlRequest::Rollback { policy, reply }).await?
    }

    /// Ends a policy's thread for a drill: its hook falls back to the native default.
    pub async fn stop_policy(&self, policy: PolicyName) -> Result<(), ControlError> {
        self.ask(|reply| ControlRequest::Stop { policy, reply }).await?
    }

    /// Refuses new sessions. Returns when the last session has ended or was closed at the deadline.
    pub async fn shut_down(&self, within: Duration) -> Result<(), ControlError> {
        self.ask(|done| ControlRequest::Shutdown { within, done }).await
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
        // The API stores an answer after control gave it: a client may repeat the offer to the next process. Control
        // judges offers that take longer.
        let _ = tokio::time::timeout(OFFERS_WITHIN, self.idempotency_keys.answered()).await;
        let suspended =
            self.ask(ControlRequest::Suspend).await.map_err(|_| NotSuspended::Unavailable)?;
        let mut suspended = suspended?;
        let keys = self.idempotency_keys.take_changed(usize::MAX);
        suspended.batch.changed.idempotency_keys.extend(keys);
        Ok(suspended)
    }

    /// All records in slices, and then batches of those that change. A follower that does not keep up is dropped: its
    /// channel ends, and it may follow again from the beginning. A new follower replaces the one before.
    ///
    /// A follower that `hands_over` is the next process on this machine: its first copy is urgent, and the channels of
    /// others end at once. It ends with the batch of [`Handle::suspend`].
    pub async fn follow_records(
        &self,
        hands_over: bool,
    ) -> Result<mpsc::Receiver<RecordBatch>, ControlError> {
        self.ask(|reply| ControlRequest::FollowRecords { hands_over, reply }).await
    }

    /// The number of a batch with all changes that were answered before the call; `None` without a follower.
    pub async fn records_sent(&self) -> Option<u64> {
        self.ask(ControlRequest::RecordsSent).await.ok().flatten()
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

    /// Continues a suspended gateway, or one that began suspended.
    pub async fn resume(&self) -> Result<(), ControlError> {
        self.ask(ControlRequest::Resume).await
    }

    /// Continues the sessions of another process. Nothing is read, sent or decided until [`Handle::resume`].
    pub async fn restore(
        &self,
        snapshot: Snapshot,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Restored, SnapshotError> {
        let snapshot = self.restore_keys(snapshot);
        let restored = self.ask(|reply| ControlRequest::Restore { snapshot, descriptors, reply });
        restored.await.map_err(|_| SnapshotError::Unavailable)?
    }

    /// Continues the sessions of another gateway. Returns once their packets are served.
    pub async fn take_over(
        &self,
        snapshot: Snapshot,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Restored, SnapshotError> {
        let snapshot = self.restore_keys(snapshot);
        let restored = self.ask(|reply| ControlRequest::TakeOver { snapshot, descriptors, reply });
        restored.await.map_err(|_| SnapshotError::Unavailable)?
    }

    /// Restores the API's part of a snapshot.
    fn restore_keys(&self, mut snapshot: Snapshot) -> Box<Snapshot> {
        self.idempotency_keys.restore(std::mem::take(&mut snapshot.idempotency_keys));
        Box::new(snapshot)
    }

    /// Ends a suspended gateway: its sessions continue at another process and are closed nowhere.
    pub async fn release(&self) -> Result<(), ControlError> {
        self.ask(ControlRequest::Release).await
    }

    /// Ends a gateway whose sessions another gateway has taken over: they are closed nowhere.
    pub async fn abandon(&self) -> Result<(), ControlError> {
        self.ask(ControlRequest::Abandon).await
    }

    /// Names of nodes and regions, including those that recent events mention.
    pub fn names(&self) -> Arc<NodeNames> {
        Arc::clone(&self.names)
    }

    /// Subscribes to events.
    pub fn events(&self) -> broadcast::Receiver<Arc<EventRecord>> {
        self.events.subscribe()
    }
}
