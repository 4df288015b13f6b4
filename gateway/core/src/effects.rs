//! Effects: the core's parts append outputs, timers and notices here, in the order in which they decide.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use evenkeel_model::{
    AcceptedOffer, Ask, AskId, CloseReason, CoreEvent, Hop, MediaDescription, NodeId, Offer,
    OfferId, OfferRefusal, Plan, PolicyName, RoomId, RouteCell, SessionId,
};
use evenkeel_nodes::{NodeEffect, NodeOutput, NodeTable, NodeTimer};
use evenkeel_revisions::RolloutReport;

/// Instructions to the server.
#[derive(Clone, Debug)]
pub enum GatewayEffect {
    /// Ask a policy. The answer returns through [`crate::Gateway::handle_answer`].
    Ask(Ask),
    /// Assign the session of an offer to a worker. Its packets may arrive from now on.
    Install(InstalledSession, Arc<Offer>),
    /// Assign a session of another process's record to a worker. It is live.
    Restore(InstalledSession),
    /// Have the driver open the session at a hop. The outcome returns through [`crate::Gateway::handle_opened`].
    Open {
        /// The number of the session.
        session: SessionId,
        /// The number of the room at nodes.
        room: RoomId,
        /// The node, in one incarnation.
        hop: Hop,
    },
    /// Have the driver close the session at a hop.
    CloseAt {
        /// The number of the session.
        session: SessionId,
        /// The node, in one incarnation.
        hop: Hop,
    },
    /// Answer an offer.
    Reply {
        /// The offer that is answered.
        offer: OfferId,
        /// The session, or the reason of the refusal.
        result: Result<AcceptedOffer, OfferRefusal>,
    },
    /// The session's plan changed.
    Plan {
        /// The number of the session.
        session: SessionId,
        /// The degradation decision in force.
        plan: Plan,
    },
    /// Ask these senders for a key frame of each of their video streams.
    KeyFrame(Vec<SessionId>),
    /// Forget the session.
    End {
        /// The number of the session.
        session: SessionId,
        /// The cause of the end.
        reason: CloseReason,
    },
    /// Carry out an instruction about a node. A failed start returns through [`crate::NodeController::handle_start_failed`].
    Node(NodeEffect),
    /// An event in the rollout of a policy's revision, for subscribers.
    Rollout(RolloutReport),
    /// No more questions go to this revision.
    Unload {
        /// The policy, by set and hook.
        policy: PolicyName,
        /// The name of the revision: a hash of plugin and settings.
        revision: Arc<str>,
    },
    /// The record of the policy's revisions changed.
    PolicyChanged(PolicyName),
    /// An event for telemetry and subscribers.
    Event(CoreEvent),
    /// The shutdown is over: no session is left.
    Finished,
}

/// The facts of a session that its worker needs.
#[derive(Clone, Debug)]
pub struct InstalledSession {
    /// The number of the session.
    pub session: SessionId,
    /// The number of the room at nodes.
    pub room: RoomId,
    /// The cell of the route, which packets read.
    pub route: Arc<RouteCell>,
    /// The degradation decision in force.
    pub plan: Plan,
    /// The streams of the client.
    pub media: Arc<MediaDescription>,
    /// The name of the scenario.
    pub scenario: Arc<str>,
    /// The session was opened by its first packet.
    pub of_first_packet: bool,
}

/// A change that policies and quality tracking must learn of.
#[derive(Debug)]
pub(crate) enum RoomNotice {
    /// The routing policy should look at the room soon.
    Reroute(RoomId),
    /// The session became live, or its room moved: rollout judges count it from now on.
    Enrol(SessionId),
    /// A move counts towards the room's limit of moves.
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
    outputs: VecDeque<GatewayEffect>,
    pub(crate) notices: VecDeque<RoomNotice>,
    /// Pending timers. Each reason occurs at most once.
    timers_by_time: BTreeSet<(Instant, Timer)>,
    timer_due: BTreeMap<Timer, Instant>,
}

impl Effects {
    pub(crate) fn push(&mut self, output: GatewayEffect) {
        self.outputs.push_back(output);
    }

    pub(crate) fn event(&mut self, event: CoreEvent) {
        self.outputs.push_back(GatewayEffect::Event(event));
    }

    /// The index of the next output, where an event that explains it can be [inserted](Effects::insert).
    pub(crate) fn place(&self) -> usize {
        self.outputs.len()
    }

    pub(crate) fn insert(&mut self, place: usize, event: CoreEvent) {
        self.outputs.insert(place, GatewayEffect::Event(event));
    }

    /// Adds an event of a session before that of its end, which has the names of its room and scenario.
    pub(crate) fn explain_close(
        &mut self,
        id: SessionId,
        event: impl FnOnce(Arc<str>, Arc<str>) -> CoreEvent,
    ) {
        let closed =
            self.outputs.iter().enumerate().rev().find_map(|(place, output)| match output {
                GatewayEffect::Event(CoreEvent::Closed { session, room_name, closed, .. })
                    if *session == id =>
                {
                    Some((place, Arc::clone(room_name), Arc::clone(&closed.scenario)))
                }
                _ => None,
            });
        if let Some((place, room_name, scenario)) = closed {
            self.insert(place, event(room_name, scenario));
        }
    }

    /// Takes the outputs of the table of nodes.
    pub(crate) fn take(&mut self, nodes: &mut NodeTable) {
        while let Some(output) = nodes.poll_output() {
            match output {
                NodeOutput::Effect(effect) => self.push(GatewayEffect::Node(effect)),
                NodeOutput::Event(event) => self.event(event),
                NodeOutput::Set(timer, at) => self.set(timer.into(), at),
                NodeOutput::Cancel(timer) => self.cancel(&timer.into()),
            }
        }
    }

    pub(crate) fn pop(&mut self) -> Option<GatewayEffect> {
        self.outputs.pop_front()
    }

    pub(crate) fn notice(&mut self, notice: RoomNotice) {
        self.notices.push_back(notice);
    }

    /// The room's routing policy should look at the room soon.
    pub(crate) fn want_reroute(&mut self, room: RoomId) {
        self.notice(RoomNotice::Reroute(room));
    }

    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.cancel(&timer);
        self.timers_by_time.insert((at, timer.clone()));
        self.timer_due.insert(timer, at);
    }

    /// Sets the timer unless it is already set for any time.
    pub(crate) fn set_if_idle(&mut self, timer: Timer, at: Instant) {
        if !self.timer_due.contains_key(&timer) {
            self.set(timer, at);
        }
    }

    pub(crate) fn cancel(&mut self, timer: &Timer) {
        if let Some(at) = self.timer_due.remove(timer) {
            self.timers_by_time.remove(&(at, timer.clone()));
        }
    }

    pub(crate) fn due(&self, timer: &Timer) -> Option<Instant> {
        self.timer_due.get(timer).copied()
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers_by_time.first().map(|(at, _)| *at)
    }

    pub(crate) fn timers(&self) -> impl ExactSizeIterator<Item = &Timer> {
        self.timer_due.keys()
    }

    /// Removes and returns the earliest timer that is due.
    pub(crate) fn pop_timer(&mut self, now: Instant) -> Option<Timer> {
        if self.timers_by_time.first()?.0 > now {
            return None;
        }
        let (_, timer) = self.timers_by_time.pop_first()?;
        self.timer_due.remove(&timer);
        Some(timer)
    }
}

/// A reason to wake up. Limited to two words, since there is one per room; longer data is stored elsewhere.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    /// A node's media port is probed again.
    Probe(NodeId),
    /// The next canary goes into a node.
    Canary(NodeId),
    AskLate(AskId),
    /// A driver has not opened a session in time.
    OpenLate(SessionId),
    /// The hop that a make-before-break left is closed.
    LeavingEnds(RoomId),
    /// The room is reviewed: its routing policy asked for it, or it has avoided a hop long enough.
    RoomDue(RoomId),
    /// Rooms wait for a question to their routing policy.
    Reroute(Arc<PolicyName>),
    /// A degradation policy's next question is due.
    Tick(Arc<PolicyName>),
    /// The next rooms leave a draining node.
    Drain(NodeId),
    /// A removed node is forgotten, because no room leads there any more.
    Forget(NodeId),
    /// The next rooms of a dead node fail over.
    Failover,
    /// Rooms without a usable hop are tried again.
    Rescue,
    /// The next rooms take changed settings of their scenarios.
    Change,
    /// A node that a hook started has not answered in time.
    StartLate(NodeId),
    /// The next room returns to its native place.
    Failback,
    Breakers,
    /// Votes about nodes are weighed.
    Cohorts,
    /// Silent sessions are judged.
    Flows,
    /// A judge's round may be over.
    Judge,
    /// Due rollout steps are taken.
    Rollouts,
    /// Sessions are checked for silence.
    Sweep,
    /// Rooms without a reserve are weighed again.
    Weigh,
    /// The shutdown's deadline: all sessions are closed.
    ShutdownEnds,
}

impl From<NodeTimer> for Timer {
    fn from(timer: NodeTimer) -> Timer {
        match timer {
            NodeTimer::Probe(node) => Timer::Probe(node),
            NodeTimer::Canary(node) => Timer::Canary(node),
            NodeTimer::StartLate(node) => Timer::StartLate(node),
            NodeTimer::Drain(node) => Timer::Drain(node),
        }
    }
}

#[cfg(test)]
mod tests;
