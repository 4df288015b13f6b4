//! The state machine: what the world tells us goes in by `handle_*`, what we want done comes out by `poll_*`.
//!
//! One law: after every mutation, drain the outputs. All the branching is here, none of the computing.

mod accepting;
mod agents;
mod asking;
mod breaking;
mod calls;
mod canaries;
mod changing;
mod climbing;
mod cohorts;
mod draining;
mod explaining;
mod failing;
mod falling;
mod flows;
mod keeping;
mod listing;
mod moving;
mod noting;
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

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use calls::Call;

use crate::alike::Alike;
use crate::breaker::Breaker;
use crate::ladder::Climb;
use crate::ledger::Ledger;
use crate::nodes::Nodes;
use crate::pace::Pace;
use crate::rollout::Memos;
use crate::room::Room;
use crate::session::{Session, Wanted};
use crate::settings::Settings;
use crate::timer::{Timer, Timers};
use crate::{
    Accepted, Arm, Ask, AskId, Board, CloseReason, Decider, Event, Hook, Hop, NodeId, Offer,
    OfferId, Plan, PolicyName, Refused, RegionId, RoomId, RouteCell, Scenario, SessionId, State,
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
    board: Arc<Board>,
    nodes: Nodes,
    ledger: Ledger,
    sessions: BTreeMap<SessionId, Box<Session>>,
    rooms: BTreeMap<RoomId, Box<Room>>,
    rooms_by_name: BTreeMap<Arc<str>, RoomId>,
    /// Calls whose sessions are rooms of their own, by name.
    calls: BTreeMap<Arc<str>, Call>,
    /// Rooms that have still to take what their scenarios say now.
    changing: BTreeSet<RoomId>,
    /// Rooms that stand somewhere.
    placed: usize,
    /// Rooms to ask about, by the routing policy that decides and which of its revisions; native ones under their set's
    /// name all the same.
    reroutes: BTreeMap<(PolicyName, Arm), BTreeSet<RoomId>>,
    /// Rooms whose route leads to a node, in force or under way, by the node's number.
    rooms_at: Vec<BTreeSet<RoomId>>,
    /// Rooms of the node that died last, as long as some have still to go on without it.
    herd: Option<failing::Herd>,
    /// Rooms without a usable hop: how often each was looked at in vain, its priority, its id.
    stranded: BTreeSet<(u32, Reverse<i64>, RoomId)>,
    /// The last of them that was looked at, where the next look begins behind it.
    rescued_last: Option<(u32, Reverse<i64>, RoomId)>,
    /// Rooms that would be stranded by the death of their node.
    unreserved: BTreeSet<RoomId>,
    /// The last of them that was weighed again.
    weighed_last: RoomId,
    /// The last session that was looked at for silence.
    swept_last: SessionId,
    /// Nodes that are being drained.
    drains: BTreeMap<NodeId, draining::Drain>,
    /// How many sessions each node opens at a time, by the node's number.
    paces: Vec<Pace>,
    /// Rooms without a usable hop wait until a node has opened more of others.
    paced: bool,
    /// By the region's number.
    breakers: Vec<Breaker>,
    /// Regions that an operator drains, with nodes that come there later.
    drained: BTreeSet<RegionId>,
    /// The number of the window in which regions are heard now.
    window: u32,
    /// Whether rooms go back there, by the region's number.
    fail_backs: Vec<FailBack>,
    /// Rooms that stand elsewhere than they natively would, and nobody meant it.
    away: BTreeSet<RoomId>,
    /// The last of them that went back, or was looked at.
    failed_back_last: RoomId,
    /// Sessions that get less than they need, and since when.
    sparing: BTreeMap<SessionId, Instant>,
    /// The last of them that was looked at for more.
    climbed_last: SessionId,
    /// For jitter, and nothing else.
    rng: fastrand::Rng,
    asks: BTreeMap<AskId, asking::Asked>,
    /// Who decides, what is wanted, and what plugins write: alike for many.
    deciders: Alike<Decider>,
    wants: Alike<Wanted>,
    states: Alike<State>,
    /// What plugins wrote about themselves.
    memos: BTreeMap<PolicyName, Memos>,
    /// The revisions of each policy, as far as they are known.
    revised: BTreeMap<PolicyName, revising::Revised>,
    /// How many of them are judged.
    judged: usize,
    /// Whether more than the newest states may be kept somewhere.
    keeps_older: bool,
    /// Live sessions that a degradation policy is asked about: those of other sets cost it nothing.
    ticked: BTreeMap<PolicyName, BTreeSet<SessionId>>,
    /// Where the next batch of a degradation policy starts.
    tick_cursors: BTreeMap<(PolicyName, Arm), SessionId>,
    /// Policies that failed us last time, and since when they do.
    failing: BTreeMap<PolicyName, Instant>,
    /// What they said of whom, and whom they are not asked about.
    noted: noting::Noted,
    /// Sessions on the native ladder.
    climbs: BTreeMap<SessionId, Climb>,
    /// When policies moved rooms, and of how many sessions, within the last second.
    churn: VecDeque<(Instant, usize)>,
    timers: Timers,
    outputs: VecDeque<Output>,
    last_watch: Option<Instant>,
    /// How old the last word on a session may be.
    told_within: Duration,
    /// Sessions that hear nothing any more, though they did steadily.
    silent: BTreeSet<(RoomId, SessionId)>,
    /// What rooms say of nodes.
    ballots: cohorts::Ballots,
    /// Rooms that left last a node that loses more than others.
    leave_cursors: BTreeMap<NodeId, RoomId>,
    /// Whether our own uplink is doubted.
    uplink_doubted: bool,
    /// When nobody at all was heard last, while it was.
    nobody_heard: Option<Instant>,
    /// Regions in which a node fell silent just now, and when.
    fell: BTreeMap<RegionId, Instant>,
    /// Whether we or a worker came late to the last watch.
    stalled: bool,
    shutting_down: bool,
    finished: bool,
    next_session: u64,
    /// Sessions that are live.
    live: usize,
    next_room: u64,
    next_ask: u64,
    next_probe: u64,
}

impl Gateway {
    /// A gateway that begins now. All nodes are Up until evidence says otherwise.
    pub fn new(settings: Settings, now: Instant) -> Gateway {
        let nodes = watching::nodes(&settings, now);
        let ledger = Ledger::new(settings.nodes.iter().map(|node| node.capacity_kbps).collect());
        let at_once = settings.limits.openings_at_once;
        let paces = nodes.iter().map(|_| Pace::new(at_once)).collect();
        let nodes_max = settings.limits.nodes_max;
        let mut gateway = Gateway {
            started: now,
            board: Arc::new(Board::with_room(nodes.len(), nodes_max)),
            ledger,
            sessions: BTreeMap::new(),
            rooms: BTreeMap::new(),
            rooms_by_name: BTreeMap::new(),
            calls: BTreeMap::new(),
            changing: BTreeSet::new(),
            placed: 0,
            reroutes: BTreeMap::new(),
            rooms_at: vec![BTreeSet::new(); nodes.len()],
            herd: None,
            stranded: BTreeSet::new(),
            rescued_last: None,
            unreserved: BTreeSet::new(),
            nodes: Nodes::new(nodes, nodes_max),
            weighed_last: RoomId(0),
            swept_last: SessionId(0),
            drains: BTreeMap::new(),
            paces,
            paced: false,
            breakers: settings.regions.iter().map(|_| Breaker::new(now)).collect(),
            drained: BTreeSet::new(),
            window: 1,
            fail_backs: vec![FailBack::default(); settings.regions.len()],
            away: BTreeSet::new(),
            failed_back_last: RoomId(0),
            sparing: BTreeMap::new(),
            climbed_last: SessionId(0),
            rng: fastrand::Rng::with_seed(0),
            asks: BTreeMap::new(),
            deciders: Alike::default(),
            wants: Alike::default(),
            states: Alike::default(),
            memos: BTreeMap::new(),
            revised: BTreeMap::new(),
            judged: 0,
            keeps_older: false,
            ticked: BTreeMap::new(),
            tick_cursors: BTreeMap::new(),
            failing: BTreeMap::new(),
            noted: noting::Noted::default(),
            climbs: BTreeMap::new(),
            churn: VecDeque::new(),
            timers: Timers::default(),
            outputs: VecDeque::new(),
            last_watch: None,
            told_within: Duration::ZERO,
            silent: BTreeSet::new(),
            ballots: BTreeMap::new(),
            leave_cursors: BTreeMap::new(),
            uplink_doubted: false,
            nobody_heard: None,
            fell: BTreeMap::new(),
            stalled: false,
            shutting_down: false,
            finished: false,
            next_session: 1,
            live: 0,
            next_room: 1,
            next_ask: 1,
            next_probe: 1,
            settings,
        };
        gateway.condemn_the_cold(now);
        gateway.start_timers(now);
        gateway
    }

    fn start_timers(&mut self, now: Instant) {
        self.start_probing(now);
        self.start_canaries(now);
        self.timers.set(Timer::Sweep, now + SWEEP_EVERY);
        self.timers.set(Timer::Weigh, now + WEIGH_EVERY);
        self.timers.set(Timer::Breakers, now + breaking::WINDOW);
        for scenario in self.settings.scenarios.values() {
            if scenario.binds(Hook::Degradation) {
                let policy = Arc::new(scenario.policy(Hook::Degradation));
                self.timers.set_if_idle(Timer::Tick(policy), now + self.settings.limits.tick_every);
            }
        }
    }

    /// What chance there is comes from this seed; 0 before.
    pub fn handle_seed(&mut self, seed: u64) {
        self.rng = fastrand::Rng::with_seed(seed);
    }

    /// What packets read.
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// The next thing to do. Drain it after every `handle_*`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`handle_timeout`](Gateway::handle_timeout) next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop(now) {
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
            self.event(Event::ShuttingDown);
        }
        self.timers.set(Timer::ShutdownEnds, deadline);
        self.finish_if_empty();
    }

    fn finish_if_empty(&mut self) {
        if self.shutting_down && self.sessions.is_empty() && !self.finished {
            self.finished = true;
            self.timers.cancel(&Timer::ShutdownEnds);
            self.outputs.push_back(Output::Finished);
        }
    }

    fn sweep(&mut self, now: Instant) {
        let after = (Bound::Excluded(self.swept_last), Bound::Unbounded);
        let turn: Vec<&Session> =
            self.sessions.range(after).take(SWEPT_AT_ONCE).map(|(_, session)| &**session).collect();
        let goes_on = (turn.len() == SWEPT_AT_ONCE).then(|| turn[SWEPT_AT_ONCE - 1].id);
        let silent = turn.into_iter().filter(|session| {
            session.is_silent(now, self.told_within) && !self.is_held(session.room, now)
        });
        let silent: Vec<SessionId> = silent.map(|session| session.id).collect();
        for session in silent {
            self.close(session, CloseReason::Silent, now);
        }
        self.forget_older_states(goes_on);
        self.swept_last = goes_on.unwrap_or(SessionId(0));
        let after = if goes_on.is_some() { SWEEP_GOES_ON } else { SWEEP_EVERY };
        self.timers.set(Timer::Sweep, now + after);
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
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
