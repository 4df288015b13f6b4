//! Effects: the core's parts append outputs, timers and notices here, in the order in which they decide.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use evenkeel_model::{
    AcceptedOffer, Ask, CloseReason, CoreEvent, EvidenceSource, Health, Hop, MediaDescription,
    MediaLimits, Offer, OfferId, OfferRefusal, Plan, PolicyName, RoomId, RouteCell, SessionId,
};
use evenkeel_nodes::{NodeEffect, NodeOutput, NodeTable};
use evenkeel_revisions::RolloutReport;

pub(crate) use crate::timers::Timer;
use crate::timers::TimerQueue;

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
        /// The degradation in force.
        plan: Plan,
        /// The limits that workers follow.
        limits: MediaLimits,
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
    /// Carry out an instruction about a node. A failed start returns through [`crate::Gateway::handle_start_failed`].
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
    /// The degradation in force.
    pub plan: Plan,
    /// The limits that workers follow.
    pub limits: MediaLimits,
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
    /// A policy ended the session.
    End(SessionId),
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
    notices: VecDeque<RoomNotice>,
    timers: TimerQueue,
}

impl Effects {
    pub(crate) fn push(&mut self, output: GatewayEffect) {
        self.outputs.push_back(output);
    }

    pub(crate) fn event(&mut self, event: CoreEvent) {
        self.outputs.push_back(GatewayEffect::Event(event));
    }

    /// Reports the health of a node; `rooms` were there if it died.
    pub(crate) fn health_changed(
        &mut self,
        hop: Hop,
        from: Health,
        to: Health,
        witnesses: Vec<(EvidenceSource, Instant)>,
        last_heard: Option<Instant>,
        rooms: u32,
    ) {
        self.event(CoreEvent::Node { hop, from, to, witnesses, last_heard, rooms });
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

    pub(crate) fn take_notice(&mut self) -> Option<RoomNotice> {
        self.notices.pop_front()
    }

    /// Drops the notices about rooms and sessions that go on at another process.
    pub(crate) fn forget_notices(&mut self) {
        self.notices.clear();
    }

    /// The room's routing policy should look at the room soon.
    pub(crate) fn want_reroute(&mut self, room: RoomId) {
        self.notice(RoomNotice::Reroute(room));
    }

    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.timers.set(timer, at);
    }

    /// Sets the timer unless it is already set for any time.
    pub(crate) fn set_if_idle(&mut self, timer: Timer, at: Instant) {
        if self.due(&timer).is_none() {
            self.timers.set(timer, at);
        }
    }

    pub(crate) fn cancel(&mut self, timer: &Timer) {
        self.timers.cancel(timer);
    }

    /// The time of this timer, if it is set.
    pub(crate) fn due(&self, timer: &Timer) -> Option<Instant> {
        self.timers.due(timer)
    }

    /// The time of the next timer.
    pub(crate) fn next_timer_at(&self) -> Option<Instant> {
        self.timers.next_at()
    }

    /// Takes the next timer that is due.
    pub(crate) fn take_timer(&mut self, now: Instant) -> Option<Timer> {
        self.timers.pop(now)
    }

    #[cfg(test)]
    pub(crate) fn timers(&self) -> &TimerQueue {
        &self.timers
    }

    /// The number of timers that are set.
    pub(crate) fn timers_set(&self) -> usize {
        self.timers.len()
    }
}
