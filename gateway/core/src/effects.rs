//! Effects: the parts push outputs, timers and notices here, in the order in which they decide.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::timer::{Timer, Timers};
use crate::{
    Accepted, Ask, CloseReason, Event, Hop, NodeId, Offer, OfferId, Plan, PolicyName, Refused,
    Remembered, Rollout, RoomId, RouteCell, SessionId,
};

/// Things that the server is to do.
#[derive(Clone, Debug)]
pub enum Output {
    /// Ask a policy. The answer comes back by [`crate::Gateway::handle_answer`].
    Ask(Ask),
    /// Give the session a home worker; its packets may come from now on.
    Install {
        session: SessionId,
        room: RoomId,
        offer: Arc<Offer>,
        route: Arc<RouteCell>,
        plan: Plan,
    },
    /// Have the driver open the session at a hop. The outcome comes back by [`crate::Gateway::handle_opened`].
    Open { session: SessionId, room: RoomId, hop: Hop },
    /// Have the driver close the session at a hop.
    CloseAt { session: SessionId, hop: Hop },
    /// Answer an offer.
    Reply { offer: OfferId, result: Result<Accepted, Refused> },
    /// The session gets something else from now on.
    Plan { session: SessionId, plan: Plan },
    /// Ask these senders for a key frame of each of their video streams.
    KeyFrame { sessions: Vec<SessionId> },
    /// Forget the session.
    End {
        session: SessionId,
        /// Why it ended.
        reason: CloseReason,
    },
    /// Call the hook that starts a node. The outcome comes back by [`crate::Gateway::handle_start_failed`], or the
    /// node answers probes.
    Start { node: NodeId },
    /// Probe a node's media port. Answers come back by [`crate::Gateway::handle_probe_answered`].
    Probe {
        node: NodeId,
        /// Comes back with the answer.
        sequence: u64,
    },
    /// Send a packet from one canary session at the node; it must come out at the other. The packet comes back by
    /// [`crate::Gateway::handle_canary_passed`], the node's word that both are open by
    /// [`crate::Gateway::handle_canary_open`].
    Canary {
        node: NodeId,
        /// Comes back with the packet.
        sequence: u64,
    },
    /// A node that was to go is gone: nothing leads there any more, and its number may be another's after 10 s.
    Forget { node: NodeId },
    /// A step in the life of a policy's revisions, for listeners.
    Rollout(Rollout),
    /// No question goes to the revision any more.
    Unload { policy: PolicyName, revision: Arc<str> },
    /// Facts about the policy's revisions that outlive the process changed.
    Remember { policy: PolicyName, remembered: Remembered },
    /// Something worth knowing happened.
    Event(Event),
    /// The shutdown is over: no session is left.
    Finished,
}

/// Why a request of an operator cannot be met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Impossible {
    NoSuchSession,
    NoSuchRoom,
    NoSuchNode,
    /// The room stands there already.
    AlreadyThere,
    /// The node is Down, draining, or full.
    NodeUnfit,
    NoSuchRegion,
    /// An operator ejected the node before.
    AlreadyEjected,
    /// The node is not Down.
    NotDown,
    /// The node is to go, and takes no rooms any more.
    NodeLeaves,
    /// The node itself wishes to be drained.
    NodeDrains,
    /// There are as many nodes as there may be.
    NoRoomForNodes,
}

/// Something that policies and quality are told of.
#[derive(Debug)]
pub(crate) enum Notice {
    /// The routing policy is to look at the room soon.
    Reroute(RoomId),
    /// The session became live, or its room moved: judges know it from now on.
    Enrol(SessionId),
    /// A move counts against the room's limit.
    MoveCounted(RoomId),
    Ended {
        session: SessionId,
        room: RoomId,
        scenario: Arc<str>,
    },
    Dissolved {
        room: RoomId,
        scenario: Arc<str>,
    },
}

#[derive(Default, Debug)]
pub(crate) struct Effects {
    outputs: VecDeque<Output>,
    timers: Timers,
    notices: VecDeque<Notice>,
}

impl Effects {
    pub(crate) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// The place of the next output, where an event that explains it can be [inserted](Effects::insert).
    pub(crate) fn place(&self) -> usize {
        self.outputs.len()
    }

    pub(crate) fn insert(&mut self, place: usize, event: Event) {
        self.outputs.insert(place, Output::Event(event));
    }

    pub(crate) fn pop(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        self.notices.push_back(notice);
    }

    pub(crate) fn pop_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.timers.set(timer, at);
    }

    pub(crate) fn set_if_idle(&mut self, timer: Timer, at: Instant) {
        self.timers.set_if_idle(timer, at);
    }

    pub(crate) fn cancel(&mut self, timer: &Timer) {
        self.timers.cancel(timer);
    }

    pub(crate) fn timers(&self) -> &Timers {
        &self.timers
    }

    pub(crate) fn pop_timer(&mut self, now: Instant) -> Option<Timer> {
        self.timers.pop(now)
    }
}
