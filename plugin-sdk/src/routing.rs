//! The routing hook: selects the node that carries a room, and its spares in order.

use std::marker::PhantomData;
use std::time::Duration;

use crate::data::Document;
use crate::frame::{Frame, Table};
use crate::guest::{Loaded, Plugin, Policy};
use crate::id::{NodeId, RoomId};
use crate::keep::{self, Keep, Reading, StateTable};
use crate::labels::Labels;
use crate::newcomer::NewRoom;
use crate::node::Nodes;
use crate::reason::Reason;
use crate::registry::Metric;
use crate::room::{NO_HOP, Room, Rooms};
use crate::settings::Settings;
use crate::state::{Pack, State};
use crate::wit::routing::exports::evenkeel::policy::routing as abi;
use crate::wit::types;

/// A routing policy: implement it under [`#[routing]`](macro@crate::routing).
///
/// The attribute adds `type State = ()`, `type Memo = ()` and `type Reason = ()` if they are
/// missing.
pub trait Routing: Settings {
    /// State of a room.
    type State: State;
    /// State of the policy itself.
    type Memo: State;
    /// Reasons of the policy's placements.
    type Reason: Reason;
    /// Metrics that the policy reads; the gateway sends no others. Defaults to all metrics of rooms and nodes.
    const READS: &'static [Metric] = ROOMS_AND_NODES;
    /// Data documents in which the policy looks up. Defaults to none.
    const DATA: &'static [Document] = &[];

    /// Places a new room: returns nodes, best first. The data plane fails over along this list without a further call.
    fn place(&self, room: &NewRoom<'_>, nodes: &Nodes<'_>) -> Placement<Self::State>;

    /// Returns the first state of a room that this policy did not place. By default every field is 0, empty or `None`.
    fn open(&self, newcomer: &NewRoom<'_>) -> Self::State {
        let _ = newcomer;
        Pack::fresh()
    }

    /// Moves rooms after nodes changed, or when placements are due for review. A room that `out` does not move stays.
    fn reroute(
        &self,
        rooms: &Rooms<'_, Self::State>,
        nodes: &Nodes<'_>,
        out: &mut Moves<Self::State, Self::Memo>,
    );
}

const ROOMS_AND_NODES: &[Metric] = &{
    let mut both = [Metric::Delay; Metric::ROOM.len() + Metric::NODE.len()];
    let (mut at, mut i) = (0, 0);
    while at < Metric::ROOM.len() {
        both[at] = Metric::ROOM[at];
        at += 1;
    }
    while i < Metric::NODE.len() {
        both[at + i] = Metric::NODE[i];
        i += 1;
    }
    both
};

/// The placement of a new room.
#[derive(Clone, PartialEq, Debug)]
pub struct Placement<S = ()> {
    hops: Vec<NodeId>,
    ttl: Duration,
    reason: u32,
    state: S,
}

impl<S: State> Placement<S> {
    /// Places the room on these nodes, best first. An empty list means no opinion.
    pub fn on(hops: impl IntoIterator<Item = NodeId>) -> Placement<S> {
        let hops = hops.into_iter().collect();
        Placement { hops, ttl: Duration::ZERO, reason: 0, state: S::fresh() }
    }

    /// Has no opinion: the native default decides.
    pub fn abstain() -> Placement<S> {
        Placement::on([])
    }

    /// Refuses the room: no node may carry it. Its client gets the reason, and may try again after this time; with zero,
    /// after a time that the gateway chooses.
    pub fn refuse(reason: impl Reason, retry_after: Duration) -> Placement<S> {
        Placement::on([NodeId(NO_HOP)]).because(reason).ask_again_after(retry_after)
    }

    /// Includes the room in a `reroute` after this time. With zero (the default), only when nodes change.
    #[must_use]
    pub fn ask_again_after(mut self, ttl: Duration) -> Placement<S> {
        self.ttl = ttl;
        self
    }

    /// Adds the reason.
    #[must_use]
    pub fn because(mut self, reason: impl Reason) -> Placement<S> {
        self.reason = reason.number();
        self
    }

    /// Sets the room's state.
    #[must_use]
    pub fn keep(mut self, state: S) -> Placement<S> {
        self.state = state;
        self
    }
}

/// Moves and states of rooms; begin with [`Moves::of`].
#[derive(Debug)]
pub struct Moves<S = (), M = ()> {
    moves: Vec<abi::Move>,
    keep: Keep<M>,
    state: PhantomData<S>,
}

impl<S: State, M: State> Moves<S, M> {
    /// Selects a room.
    pub fn of(&mut self, room: &Room<'_, S>) -> RoomMove<'_, S, M> {
        RoomMove { row: room.row as u32, moves: self }
    }

    /// Returns the policy's own state.
    pub fn memo(&self) -> &M {
        self.keep.memo()
    }

    /// Returns the policy's own state, mutable.
    pub fn memo_mut(&mut self) -> &mut M {
        self.keep.memo_mut()
    }
}

/// The answer about one room.
#[derive(Debug)]
pub struct RoomMove<'a, S, M> {
    row: u32,
    moves: &'a mut Moves<S, M>,
}

impl<S: State, M: State> RoomMove<'_, S, M> {
    /// Sets the room's new route: nodes, best first, and the time until its next `reroute` (zero: only when nodes
    /// change).
    pub fn to(
        &mut self,
        hops: impl IntoIterator<Item = NodeId>,
        ask_again_after: Duration,
        reason: impl Reason,
    ) -> &mut Self {
        let hops = hops.into_iter().map(|hop| hop.0).collect();
        let (row, ttl_ms, reason) = (self.row, millis(ask_again_after), reason.number());
        self.moves.moves.push(abi::Move { row, hops, ttl_ms, reason });
        self
    }

    /// Adds a note on this room; see [`note`](crate::note).
    pub fn note(&mut self, key: &str, value: i64) -> &mut Self {
        crate::diag::note(self.row, key, value);
        self
    }

    /// Sets the room's state.
    pub fn keep(&mut self, state: &S) -> &mut Self {
        self.moves.keep.keep(self.row, state);
        self
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

pub(crate) fn place<P: Routing>(
    loaded: &Loaded<P>,
    now_us: u64,
    room: u64,
    scenario: &str,
    labels: &[types::Label],
    nodes: Table<'_>,
) -> abi::Placement {
    let room = RoomId(room);
    let room = NewRoom { room, scenario, labels: Labels(labels), catalog: &loaded.catalog };
    let placement = loaded.policy.place(&room, &nodes_of(loaded, now_us, nodes));
    abi::Placement {
        hops: placement.hops.into_iter().map(|hop| hop.0).collect(),
        ttl_ms: millis(placement.ttl),
        reason: placement.reason,
        state: crate::state::pack(&placement.state),
    }
}

pub(crate) fn open<P: Routing>(loaded: &Loaded<P>, newcomers: &[abi::Newcomer]) -> types::Blobs {
    let mut states = keep::no_blobs();
    for newcomer in newcomers {
        let newcomer = NewRoom {
            room: RoomId(newcomer.room),
            scenario: &newcomer.scenario,
            labels: Labels(&newcomer.labels),
            catalog: &loaded.catalog,
        };
        keep::push(&mut states, &loaded.policy.open(&newcomer));
    }
    states
}

/// The arguments of `reroute`.
pub(crate) struct Reroute<'a> {
    pub(crate) now_us: u64,
    pub(crate) nodes: Table<'a>,
    pub(crate) rooms: Table<'a>,
    pub(crate) width: u32,
    pub(crate) standing: &'a [u32],
    pub(crate) states: StateTable<'a>,
    pub(crate) memo: &'a [u8],
}

pub(crate) fn reroute<P: Routing>(loaded: &Loaded<P>, asked: &Reroute<'_>) -> abi::Answer {
    let rooms = Rooms {
        frame: Frame::new(asked.rooms, &loaded.subject, P::READS, asked.now_us),
        width: asked.width as usize,
        standing: asked.standing,
        states: asked.states,
        reading: Reading::default(),
        state: PhantomData,
    };
    let nodes = nodes_of(loaded, asked.now_us, asked.nodes);
    let keep = Keep::new(asked.memo, asked.states);
    let mut out = Moves { moves: Vec::new(), keep, state: PhantomData };
    loaded.policy.reroute(&rooms, &nodes, &mut out);
    abi::Answer { moves: out.moves, keep: out.keep.finish() }
}

fn nodes_of<'a, P: Routing>(loaded: &'a Loaded<P>, now_us: u64, nodes: Table<'a>) -> Nodes<'a> {
    let frame = Frame::new(nodes, &loaded.node, P::READS, now_us);
    Nodes { frame, catalog: &loaded.catalog, seed: loaded.seed }
}

impl<P: Routing + Policy> abi::Guest for Plugin<P> {
    fn place(
        now_us: u64,
        room: u64,
        scenario: String,
        labels: Vec<types::Label>,
        nodes: types::Frame,
    ) -> abi::Placement {
        let nodes = (&nodes).into();
        Loaded::<P>::with(|loaded| place(loaded, now_us, room, &scenario, &labels, nodes))
    }

    fn open(newcomers: Vec<abi::Newcomer>) -> types::Blobs {
        Loaded::<P>::with(|loaded| open(loaded, &newcomers))
    }

    fn reroute(
        now_us: u64,
        nodes: types::Frame,
        rooms: types::Frame,
        width: u32,
        standing: Vec<u32>,
        states: types::Blobs,
        memo: Vec<u8>,
    ) -> abi::Answer {
        let asked = Reroute {
            now_us,
            nodes: (&nodes).into(),
            rooms: (&rooms).into(),
            width,
            standing: &standing,
            states: (&states).into(),
            memo: &memo,
        };
        Loaded::<P>::with(|loaded| reroute(loaded, &asked))
    }
}
