//! How others speak with control: requests in, replies and events out. Never packets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{Explanation, PolicyName, RegionStanding, RoomStanding, Scenario, SessionId};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::messages::{
    Failed, NodeView, Opened, PolicyView, Rollout, SessionView, Status, Told, Wanted,
};
use super::modes::ModeView;
use super::names::Names;
use super::node_list::{ListChange, NodeList, NotListed};
use super::operations::{Operation, Place};
use super::orders::Order;
use super::walking::{Verb, Wish};
use crate::policy::{Recorder, Refusal, Rules, Source};

/// Requests that may wait; past it the caller is told that control is busy.
pub(crate) const REQUESTS_MAX: usize = 4_096;

/// Events a slow listener may fall behind before it misses some.
pub(crate) const EVENTS_MAX: usize = 8_192;

type Reply<T> = oneshot::Sender<T>;

/// What is asked of control.
#[derive(Debug)]
pub(crate) enum Request {
    Offer(Box<Wanted>, Reply<Result<Opened, Failed>>),
    Close(SessionId, Reply<Result<(), Failed>>),
    #[cfg(feature = "fault-injection")]
    Panic(SessionId, Reply<Result<(), Failed>>),
    Move {
        room: Arc<str>,
        node: Box<str>,
        reply: Reply<Result<(), Failed>>,
    },
    Operate(Operation, Reply<Result<(), Failed>>),
    Explain(SessionId, Reply<Option<Explanation>>),
    Regions(Reply<Vec<RegionStanding>>),
    Order {
        node: Box<str>,
        order: Order,
        reply: Reply<Result<(), Failed>>,
    },
    Sessions(Reply<Vec<SessionView>>),
    Session(SessionId, Reply<Option<SessionView>>),
    Rooms(Reply<Vec<RoomStanding>>),
    Nodes(Reply<Vec<NodeView>>),
    Policies(Reply<Vec<PolicyView>>),
    Recorder(Reply<Option<Recorder>>),
    /// Whose plugins are taken from now on, and what they may do.
    Govern(Box<Rules>, Reply<()>),
    /// A file of the configuration was refused before it was rolled out.
    NoteRefusal(Refusal),
    Refusals(Reply<Vec<Refusal>>),
    Status(Reply<Status>),
    Modes(Reply<Vec<ModeView>>),
    /// Scenarios say something else now; answered when that is in force, or on its way.
    Scenarios(BTreeMap<Arc<str>, Scenario>, Reply<()>),
    /// Nodes are listed anew.
    List(Box<NodeList>, Reply<Result<ListChange, NotListed>>),
    /// Somebody wants the configuration read again.
    Reload(Reload),
    /// Who does that.
    FollowReloads(mpsc::Sender<Reload>),
    Push {
        policy: PolicyName,
        bytes: Vec<u8>,
        settings: Option<serde_json::Value>,
        wish: Wish,
        reply: Reply<Result<Rollout, Failed>>,
    },
    RollOut {
        policy: PolicyName,
        source: Box<Source>,
        reply: Reply<Result<Rollout, Failed>>,
    },
    Rollback {
        policy: PolicyName,
        reply: Reply<Result<Rollout, Failed>>,
    },
    /// Somebody wants a revision that is on its way to go on, or to stay.
    Walk {
        policy: PolicyName,
        verb: Verb,
        reply: Reply<Result<Rollout, Failed>>,
    },
    /// How revisions come into force from now on, by set.
    Paces(BTreeMap<Arc<str>, crate::settings::Rollout>),
    Stop {
        policy: PolicyName,
        reply: Reply<Result<(), Failed>>,
    },
    /// The first revisions of all policies are in force.
    PoliciesStand,
    /// Answered once they are.
    AwaitPolicies(Reply<()>),
    Shutdown {
        within: Duration,
        done: Reply<()>,
    },
}

/// The configuration is to be read again, as an operator wishes.
#[derive(Debug)]
pub struct Reload {
    /// More nodes may go than the guard of the list lets go.
    pub force: bool,
    /// By when nodes that go are to be empty; none: as soon as others can take their rooms.
    pub within: Option<Duration>,
    /// What became of it.
    pub reply: oneshot::Sender<Result<Reloaded, NotReloaded>>,
}

/// What a reload changed, and what of it waits.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Reloaded {
    /// Of the nodes.
    pub nodes: ListChange,
    /// Keys that changed, and wait for a restart.
    pub waiting: Vec<String>,
    /// Policies that were to run otherwise, and run as they did.
    pub refused: Vec<PolicyRefused>,
}

/// A policy that a reload did not replace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyRefused {
    /// Which.
    pub policy: PolicyName,
    /// Why, in words.
    pub reason: String,
}

/// Why a reload changed nothing.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum NotReloaded {
    /// What the files say is not usable: each mistake with its place.
    #[error("{0}")]
    Invalid(String),
    /// What was tried before anything is taken broke, for no fault of the files.
    #[error("what was saved could not be tried, and nothing changed: {0}")]
    Untried(String),
    /// The list of nodes cannot be taken.
    #[error(transparent)]
    NodeList(#[from] NotListed),
    /// Nobody reads a configuration here.
    #[error("this gateway reads no configuration again")]
    Nobody,
}

/// Speaks with control. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) events: broadcast::Sender<Arc<Told>>,
    pub(crate) names: Arc<Names>,
}

impl Handle {
    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Failed> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| Failed::Unavailable)?;
        answer.await.map_err(|_| Failed::Unavailable)
    }

    /// Opens a session.
    ///
    /// # Errors
    /// Why it was refused.
    pub async fn offer(&self, wanted: Wanted) -> Result<Opened, Failed> {
        self.ask(|reply| Request::Offer(Box::new(wanted), reply)).await?
    }

    /// Ends a session.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn close(&self, session: SessionId) -> Result<(), Failed> {
        self.ask(|reply| Request::Close(session, reply)).await?
    }

    /// Makes the worker panic over the session's next packet.
    ///
    /// # Errors
    /// There is no such session.
    #[cfg(feature = "fault-injection")]
    pub async fn panic_session(&self, session: SessionId) -> Result<(), Failed> {
        self.ask(|reply| Request::Panic(session, reply)).await?
    }

    /// Moves a room to a node, make-before-break. Returns once it is on its way.
    ///
    /// # Errors
    /// Where room or node do not exist, or the node cannot take it.
    pub async fn move_room(&self, room: Arc<str>, node: Box<str>) -> Result<(), Failed> {
        self.ask(|reply| Request::Move { room, node, reply }).await?
    }

    /// Drains a node, or lets it take rooms again.
    ///
    /// # Errors
    /// Where there is no such node.
    pub async fn drain_node(&self, node: Box<str>, draining: bool) -> Result<(), Failed> {
        let place = Place::Node(node);
        self.operate(Operation::Drain { place, draining, within: None }).await
    }

    /// Does what an operator wants. Returns once it is on its way.
    ///
    /// # Errors
    /// Where there is no such node or region, or it cannot be.
    pub async fn operate(&self, operation: Operation) -> Result<(), Failed> {
        self.ask(|reply| Request::Operate(operation, reply)).await?
    }

    /// Why a live session is where it is, if there is one with this id.
    ///
    /// # Errors
    /// See [`sessions`](Handle::sessions).
    pub async fn explain(&self, session: SessionId) -> Result<Option<Explanation>, Failed> {
        self.ask(|reply| Request::Explain(session, reply)).await
    }

    /// Every region.
    ///
    /// # Errors
    /// See [`sessions`](Handle::sessions).
    pub async fn regions(&self) -> Result<Vec<RegionStanding>, Failed> {
        self.ask(Request::Regions).await
    }

    /// Tells the agent beside a node to start its process, or to break it in a drill. Returns when it is done.
    ///
    /// # Errors
    /// Where there is no such node, it has no agent, or that does not do it.
    pub async fn order(&self, node: Box<str>, order: Order) -> Result<(), Failed> {
        self.ask(|reply| Request::Order { node, order, reply }).await?
    }

    /// Every live session.
    ///
    /// # Errors
    /// [`Failed::Unavailable`], as for all that follow.
    pub async fn sessions(&self) -> Result<Vec<SessionView>, Failed> {
        self.ask(Request::Sessions).await
    }

    /// One live session, if there is one with this id.
    ///
    /// # Errors
    /// See [`sessions`](Handle::sessions).
    pub async fn session(&self, session: SessionId) -> Result<Option<SessionView>, Failed> {
        self.ask(|reply| Request::Session(session, reply)).await
    }

    /// Every room.
    ///
    /// # Errors
    /// See [`sessions`](Handle::sessions).
    pub async fn rooms(&self) -> Result<Vec<RoomStanding>, Failed> {
        self.ask(Request::Rooms).await
    }

    /// Every node.
    ///
    /// # Errors
    /// See [`sessions`](Handle::sessions).
    pub async fn nodes(&self) -> Result<Vec<NodeView>, Failed> {
        self.ask(Request::Nodes).await
    }

    /// Every policy.
    ///
    /// # Errors
    /// See [`sessions`](Handle::sessions).
    pub async fn policies(&self) -> Result<Vec<PolicyView>, Failed> {
        self.ask(Request::Policies).await
    }

    /// Who writes down what policies are asked, if somebody does.
    ///
    /// # Errors
    /// See [`sessions`](Handle::sessions).
    pub(crate) async fn recorder(&self) -> Result<Option<Recorder>, Failed> {
        self.ask(Request::Recorder).await
    }

    /// The gateway as a whole.
    ///
    /// # Errors
    /// See [`sessions`](Handle::sessions).
    pub async fn status(&self) -> Result<Status, Failed> {
        self.ask(Request::Status).await
    }

    /// Each mode, as measured on this gateway.
    ///
    /// # Errors
    /// See [`sessions`](Handle::sessions).
    pub async fn modes(&self) -> Result<Vec<ModeView>, Failed> {
        self.ask(Request::Modes).await
    }

    /// Has rooms take what their scenarios say now: their mode, and what goes with it.
    ///
    /// # Errors
    /// See [`sessions`](Handle::sessions).
    pub async fn change_scenarios(
        &self,
        scenarios: BTreeMap<Arc<str>, Scenario>,
    ) -> Result<(), Failed> {
        self.ask(|reply| Request::Scenarios(scenarios, reply)).await
    }

    /// Lists nodes anew: those that are new come, those that are missing go, as soon as they are empty, and those that
    /// changed change.
    ///
    /// # Errors
    /// Why none of it was done.
    pub async fn list_nodes(
        &self,
        list: NodeList,
    ) -> Result<Result<ListChange, NotListed>, Failed> {
        self.ask(|reply| Request::List(Box::new(list), reply)).await
    }

    /// Has the configuration read again, and taken as far as it can be taken live.
    ///
    /// # Errors
    /// [`Failed::NotReloaded`].
    pub async fn reload(&self, force: bool, within: Option<Duration>) -> Result<Reloaded, Failed> {
        let asked = |reply| Request::Reload(Reload { force, within, reply });
        self.ask(asked).await?.map_err(Failed::NotReloaded)
    }

    /// Who reads the configuration again is asked there from now on.
    ///
    /// # Errors
    /// Where control is gone.
    pub(crate) async fn follow_reloads(&self, asked: mpsc::Sender<Reload>) -> Result<(), Failed> {
        let request = Request::FollowReloads(asked);
        self.requests.send(request).await.map_err(|_| Failed::Unavailable)
    }

    /// Replaces a policy's plugin, and its settings where some are given. A refusal is an outcome, no error.
    ///
    /// # Errors
    /// Where there is no such policy, or its first revision is still compiled.
    pub async fn push_policy(
        &self,
        policy: PolicyName,
        bytes: Vec<u8>,
        settings: Option<serde_json::Value>,
    ) -> Result<Rollout, Failed> {
        self.push_policy_as(policy, bytes, settings, Wish::default()).await
    }

    /// The same, into force by the steps that are wished.
    ///
    /// # Errors
    /// See [`push_policy`](Handle::push_policy).
    pub async fn push_policy_as(
        &self,
        policy: PolicyName,
        bytes: Vec<u8>,
        settings: Option<serde_json::Value>,
        wish: Wish,
    ) -> Result<Rollout, Failed> {
        self.ask(|reply| Request::Push { policy, bytes, settings, wish, reply }).await?
    }

    /// Has a revision that is on its way go on, stay, or go.
    ///
    /// # Errors
    /// Where there is no such policy, or none is on its way.
    pub async fn walk_policy(&self, policy: PolicyName, verb: Verb) -> Result<Rollout, Failed> {
        self.ask(|reply| Request::Walk { policy, verb, reply }).await?
    }

    /// Sets' revisions come into force like this from now on.
    ///
    /// # Errors
    /// Where control is gone.
    pub async fn change_paces(
        &self,
        paces: BTreeMap<Arc<str>, crate::settings::Rollout>,
    ) -> Result<(), Failed> {
        let request = Request::Paces(paces);
        self.requests.send(request).await.map_err(|_| Failed::Unavailable)
    }

    /// The last plugins that were not taken, oldest first.
    ///
    /// # Errors
    /// See [`sessions`](Handle::sessions).
    pub async fn refusals(&self) -> Result<Vec<Refusal>, Failed> {
        self.ask(Request::Refusals).await
    }

    /// Rollouts that begin from now on keep these rules.
    pub(crate) async fn govern(&self, rules: Rules) -> Result<(), Failed> {
        self.ask(|reply| Request::Govern(Box::new(rules), reply)).await
    }

    /// Keeps a refusal that no rollout led to.
    pub(crate) async fn note_refusal(&self, refusal: Refusal) {
        // Control is gone, and the gateway with it, where that fails.
        let _ = self.requests.send(Request::NoteRefusal(refusal)).await;
    }

    /// Returns once the first revisions of all policies are in force.
    ///
    /// # Errors
    /// See [`sessions`](Handle::sessions).
    pub(crate) async fn policies_stand(&self) -> Result<(), Failed> {
        self.ask(Request::AwaitPolicies).await
    }

    /// Rolls out a revision that the configuration names.
    ///
    /// # Errors
    /// Where there is no such policy, or its first revision is still compiled.
    pub(crate) async fn roll_out(
        &self,
        policy: PolicyName,
        source: Source,
    ) -> Result<Rollout, Failed> {
        let source = Box::new(source);
        self.ask(|reply| Request::RollOut { policy, source, reply }).await?
    }

    /// Lets the revision go that is on its way or, where none is, puts the one before in force again.
    ///
    /// # Errors
    /// Where there is no such policy, or no revision before; nothing changes then.
    pub async fn rollback_policy(&self, policy: PolicyName) -> Result<Rollout, Failed> {
        self.ask(|reply| Request::Rollback { policy, reply }).await?
    }

    /// Ends a policy's thread, as a drill does: its hook falls back to the native default.
    ///
    /// # Errors
    /// Where there is no such policy.
    pub async fn stop_policy(&self, policy: PolicyName) -> Result<(), Failed> {
        self.ask(|reply| Request::Stop { policy, reply }).await?
    }

    /// Admits nobody any more; returns when the last session ended, or what was left was closed at the deadline.
    ///
    /// # Errors
    /// See [`sessions`](Handle::sessions).
    pub async fn shut_down(&self, within: Duration) -> Result<(), Failed> {
        self.ask(|done| Request::Shutdown { within, done }).await
    }

    /// What nodes and regions are called: those of now, and those that what happens may still speak of.
    pub fn names(&self) -> Arc<Names> {
        Arc::clone(&self.names)
    }

    /// What happens from now on.
    pub fn events(&self) -> broadcast::Receiver<Arc<Told>> {
        self.events.subscribe()
    }
}
