//! The state machine: what the world tells us goes in by `handle_*`, what we want done comes out by `poll_*`.
//!
//! One law: after every mutation, drain the outputs. All the branching is here, none of the computing.

mod accepting;
mod agents;
pub(crate) mod asking;
mod breaking;
pub(crate) mod calls;
mod canaries;
mod changing;
mod climbing;
pub(crate) mod cohorts;
pub(crate) mod draining;
mod explaining;
pub(crate) mod failing;
mod falling;
mod flows;
mod keeping;
mod listing;
mod moving;
pub(crate) mod noting;
mod offering;
mod opening;
mod pacing;
mod placing;
mod quality;
mod recording;
mod rerouting;
mod rescuing;
mod returning;
mod revising;
mod sparing;
mod standing;
mod starting;
mod uplink;
mod view;
mod watching;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::capacity::Capacity;
use crate::effects::Effects;
use crate::nodes::Nodes;
use crate::policy::Policy;
use crate::quality::Quality;
use crate::rollout::Memos;
use crate::room::Room;
use crate::rooms::Rooms;
use crate::session::Session;
use crate::sessions::Sessions;
use crate::settings::Settings;
use crate::timer::Timer;
use crate::{
    Accepted, Ask, Board, CloseReason, Decider, Event, Hook, Hop, NodeId, Offer, OfferId, Plan,
    PolicyName, Refused, RoomId, RouteCell, Scenario, SessionId,
};

/// How often workers' stamps are looked at.
pub const WATCH_EVERY: Duration = Duration::from_millis(2);

pub use agents::AgentWord;
pub use calls::names_one_apart;
pub use explaining::{Candidate, Explanation, Heading, RegionStanding, Why};
pub use keeping::Kept;
pub use noting::{Quarantine, Said};
pub use opening::NotOpened;
pub use recording::{MoveOutcome, MoveRecord, MoveUnderWay};
pub use returning::FailBack;
pub use revising::{Cohort, HIDDEN_MAX};
pub use view::{NodeStanding, RoomStanding, SessionStanding};

/// How often sessions are looked at for silence.
const SWEEP_EVERY: Duration = Duration::from_millis(500);

/// Sessions that are looked at together, so that a sweep stays short; the next ones after this: 20,000 a second, which is
/// as often as workers tell of so many.
const SWEPT_AT_ONCE: usize = 1_024;
const SWEEP_GOES_ON: Duration = Duration::from_millis(50);

/// How often rooms without a reserve are looked at.
const WEIGH_EVERY: Duration = Duration::from_millis(500);

/// What the core wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Ask a policy. The answer comes back by [`Gateway::handle_answer`].
    Ask(Ask),
    /// Give the session a home worker; its packets may come from now on.
    Install {
        /// The session.
        session: SessionId,
        /// Its room.
        room: RoomId,
        /// What it wants.
        offer: Arc<Offer>,
        /// Where its room's route stands.
        route: Arc<RouteCell>,
        /// What it gets.
        plan: Plan,
    },
    /// Have the driver open the session at a hop. The outcome comes back by [`Gateway::handle_opened`].
    Open {
        /// The session.
        session: SessionId,
        /// Its room.
        room: RoomId,
        /// Where.
        hop: Hop,
    },
    /// Have the driver close the session at a hop.
    CloseAt {
        /// The session.
        session: SessionId,
        /// Where.
        hop: Hop,
    },
    /// Answer an offer.
    Reply {
        /// Which.
        offer: OfferId,
        /// With what.
        result: Result<Accepted, Refused>,
    },
    /// The session gets something else from now on.
    Plan {
        /// The session.
        session: SessionId,
        /// What it gets.
        plan: Plan,
    },
    /// Ask these senders for a key frame of each of their video streams.
    KeyFrame {
        /// The senders.
        sessions: Vec<SessionId>,
    },
    /// Forget the session.
    End {
        /// The session.
        session: SessionId,
        /// Why it ended.
        reason: CloseReason,
    },
    /// Call the hook that starts a node. What becomes of it comes back by [`Gateway::handle_start_failed`], or the node
    /// answers probes.
    Start {
        /// The node.
        node: NodeId,
    },
    /// Probe a node's media port. Answers come back by [`Gateway::handle_probe_answered`].
    Probe {
        /// The node.
        node: NodeId,
        /// Comes back with the answer.
        sequence: u64,
    },
    /// Send a packet from one canary session at the node; it must come out at the other. That it did comes back by
    /// [`Gateway::handle_canary_passed`], that both are open by [`Gateway::handle_canary_open`].
    Canary {
        /// The node.
        node: NodeId,
        /// Comes back with the packet.
        sequence: u64,
    },
    /// A node that was to go is gone: nothing leads there any more, and its number may be another's after 10 s.
    Forget {
        /// The node.
        node: NodeId,
    },
    /// Something worth knowing happened.
    Event(Event),
    /// The shutdown is over: no session is left.
    Finished,
}

/// What a request of an operator broke on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Impossible {
    /// There is no such session.
    NoSuchSession,
    /// There is no such room.
    NoSuchRoom,
    /// There is no such node.
    NoSuchNode,
    /// The room stands there already.
    AlreadyThere,
    /// The node is Down, draining, or full.
    NodeUnfit,
    /// There is no such region.
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

/// The state machine.
#[derive(Debug)]
pub struct Gateway {
    settings: Settings,
    started: Instant,
    sessions: Sessions,
    rooms: Rooms,
    nodes: Nodes,
    capacity: Capacity,
    quality: Quality,
    policy: Policy,
    effects: Effects,
    /// What plugins wrote about themselves.
    memos: BTreeMap<PolicyName, Memos>,
    /// The revisions of each policy, as far as they are known.
    revised: BTreeMap<PolicyName, revising::Revised>,
    /// How many of them are judged.
    judged: usize,
    /// Whether more than the newest states may be kept somewhere.
    keeps_older: bool,
    shutting_down: bool,
    finished: bool,
}

impl Gateway {
    /// A gateway that begins now. All nodes are Up until evidence says otherwise.
    pub fn new(settings: Settings, now: Instant) -> Gateway {
        let nodes = watching::nodes(&settings, now);
        let kbps = settings.nodes.iter().map(|node| node.capacity_kbps).collect();
        let regions = settings.regions.len();
        let mut gateway = Gateway {
            started: now,
            sessions: Sessions::new(),
            rooms: Rooms::new(nodes.len(), regions),
            nodes: Nodes::new(nodes, &settings.limits),
            capacity: Capacity::new(kbps, regions, now),
            quality: Quality::default(),
            policy: Policy::new(),
            effects: Effects::default(),
            memos: BTreeMap::new(),
            revised: BTreeMap::new(),
            judged: 0,
            keeps_older: false,
            shutting_down: false,
            finished: false,
            settings,
        };
        gateway.condemn_the_cold(now);
        gateway.start_timers(now);
        gateway
    }

    fn start_timers(&mut self, now: Instant) {
        self.start_probing(now);
        self.start_canaries(now);
        self.effects.set(Timer::Sweep, now + SWEEP_EVERY);
        self.effects.set(Timer::Weigh, now + WEIGH_EVERY);
        self.effects.set(Timer::Breakers, now + breaking::WINDOW);
        for scenario in self.settings.scenarios.values() {
            if scenario.binds(Hook::Degradation) {
                let policy = Arc::new(scenario.policy(Hook::Degradation));
                self.effects
                    .set_if_idle(Timer::Tick(policy), now + self.settings.limits.tick_every);
            }
        }
    }

    /// What chance there is comes from this seed; 0 before.
    pub fn handle_seed(&mut self, seed: u64) {
        self.sessions.rng = fastrand::Rng::with_seed(seed);
    }

    /// What packets read.
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(&self.nodes.board)
    }

    /// The next thing to do. Drain it after every `handle_*`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.effects.outputs.pop_front()
    }

    /// When to call [`handle_timeout`](Gateway::handle_timeout) next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.effects.timers.next()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.effects.timers.pop(now) {
            match timer {
                Timer::Probe(node) => self.probe(node, now),
                Timer::Canary(node) => self.send_canary(node, now),
                Timer::AskLate(ask) => self.conclude_late(ask, now),
                Timer::OpenLate(session) => self.open_late(session, now),
                Timer::LeavingEnds(room) => self.close_left_hops(room, now),
                Timer::RoomDue(room) => self.room_due(room, now),
                Timer::Reroute(policy) => self.ask_reroute(&policy, now),
                Timer::Tick(policy) => self.ask_tick(&policy, now),
                Timer::Drain(node) => self.drain(node, now),
                Timer::Forget(node) => self.forget_node(node, now),
                Timer::Herd => self.lose_some(now),
                Timer::Rescue => self.rescue_stranded(now),
                Timer::Change => self.change_some(now),
                Timer::StartLate(node) => self.start_late(node, now),
                Timer::FailBack => self.fail_back(now),
                Timer::Breakers => self.weigh_breakers(now),
                Timer::Cohorts => self.weigh_cohorts(now),
                Timer::Flows => self.judge_flows(now),
                Timer::Judge => self.turn_judges(now),
                Timer::Sweep => self.sweep(now),
                Timer::Weigh => self.weigh_unreserved(now),
                Timer::ShutdownEnds => self.close_all(CloseReason::Shutdown, now),
            }
        }
    }

    /// Admits nobody any more, and finishes when the last session ended or, with what is left, at the deadline.
    pub fn handle_shutdown(&mut self, deadline: Instant) {
        if self.finished {
            return;
        }
        if !self.shutting_down {
            self.shutting_down = true;
            self.effects.event(Event::ShuttingDown);
        }
        self.effects.set(Timer::ShutdownEnds, deadline);
        self.finish_if_empty();
    }

    fn finish_if_empty(&mut self) {
        if self.shutting_down && self.sessions.is_empty() && !self.finished {
            self.finished = true;
            self.effects.cancel(&Timer::ShutdownEnds);
            self.effects.push(Output::Finished);
        }
    }

    fn sweep(&mut self, now: Instant) {
        let after = (Bound::Excluded(self.sessions.swept_last), Bound::Unbounded);
        let turn: Vec<&Session> =
            self.sessions.range(after).take(SWEPT_AT_ONCE).map(|(_, session)| session).collect();
        let goes_on = (turn.len() == SWEPT_AT_ONCE).then(|| turn[SWEPT_AT_ONCE - 1].id);
        let silent = turn.into_iter().filter(|session| {
            session.is_silent(now, self.sessions.told_within) && !self.is_held(session.room, now)
        });
        let silent: Vec<SessionId> = silent.map(|session| session.id).collect();
        for session in silent {
            self.close(session, CloseReason::Silent, now);
        }
        self.forget_older_states(goes_on);
        self.sessions.swept_last = goes_on.unwrap_or(SessionId(0));
        let after = if goes_on.is_some() { SWEEP_GOES_ON } else { SWEEP_EVERY };
        self.effects.set(Timer::Sweep, now + after);
    }

    /// What the room is called; its number if it is gone.
    fn name_of(&self, room: RoomId) -> Arc<str> {
        let name = self.rooms.get(&room).map(|room| Arc::clone(&room.name));
        name.unwrap_or_else(|| room.to_string().into())
    }

    fn now_us(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_micros() as u64
    }

    fn scenario_of(&self, room: &Room) -> Option<&Scenario> {
        self.settings.scenarios.get(&room.scenario)
    }
}

/// Who decided, if a revision answered.
fn decider(policy: &PolicyName, revision: Option<&Arc<str>>) -> Decider {
    revision.map_or(Decider::Native, |revision| Decider::Policy {
        policy: policy.clone(),
        revision: revision.clone(),
    })
}

#[cfg(test)]
mod tests;
