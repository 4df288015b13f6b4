//! The state that the packet path reads, the board of nodes and the route of a room, and the verdict on a packet: a pure function of
//! the packet, the session's limits, the route and the board.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::action::MediaLimits;
use crate::drop_reason::DropReason;
use crate::id::{Incarnation, NodeId, RoomId, SessionId};
use crate::offer::Decider;
use crate::plan::Plan;
use crate::settings::RedundancyMode;
use crate::sync::{ArcSwap, AtomicU64, Guard, Ordering};

/// One step of a route: a node in one of its incarnations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
pub struct Hop {
    /// The number of the node.
    pub node: NodeId,
    /// The node's incarnation when the hop was opened. Another incarnation of the node is another hop.
    pub incarnation: Incarnation,
}

/// The permission of packets to take a hop without asking the core.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum HopGrant {
    /// The room is admitted at this hop. In hitless mode the first two hops are admitted and both carry all packets.
    Admitted,
    /// Capacity is reserved at this hop for the death of the route's first node, and packets may use it then.
    Reserved,
    /// Packets skip the hop until the core admits the room there.
    Gated,
}

/// Maximum hops of a route: the carrying hop and three spares.
pub const HOPS_MAX: usize = 4;

/// An accepted placement of a room. Immutable: a new route with a higher version replaces it.
#[derive(Clone, PartialEq, Debug)]
pub struct Route {
    /// Version of the room's route, from 1; 0 before placement.
    pub version: u64,
    /// The redundancy mode in force.
    pub mode: RedundancyMode,
    /// Hops with their grants, best first; at most [`HOPS_MAX`].
    pub hops: Box<[(Hop, HopGrant)]>,
    /// The hop that a make-before-break leaves. Boxed, because few routes have one.
    pub left: Option<Box<LeftHop>>,
}

/// A hop that a make-before-break leaves.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LeftHop {
    /// The hop that the room leaves.
    pub hop: Hop,
    /// Packets from it still pass until this time.
    pub until: Instant,
    /// Lead of the route's first hop over this one: packets of the latter still arrive for this time. Zero if the first
    /// hop delivers later or the difference is unknown.
    pub lead: Duration,
}

/// The route version and hop that a session's packets take. Computed, never stored, and never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Epoch {
    /// Grows with each published route of the room.
    pub version: u64,
    /// The index of the first usable hop.
    pub index: u8,
}

/// The decision about a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForwardVerdict {
    /// Forward the packet. Towards a node: to this hop. Towards a client: it came from this hop.
    Pass {
        /// The hop to which the packet goes, or from which it came.
        hop: Hop,
        /// The packet came from the hop that a make-before-break is leaving.
        leaving: bool,
    },
    /// In hitless mode two hops carry all packets. Towards a node: send to both. Towards a client: the packet came from
    /// the first hop, and the second delivers a copy.
    Both([Hop; 2]),
    /// Drop the packet and count the reason.
    Drop(DropReason),
}

/// The cell that holds a room's route. All sessions of the room point to it, so a room is never split.
#[derive(Debug)]
pub struct RouteCell {
    route: ArcSwap<Route>,
    /// The first hop if packets take that hop only, as `incarnation:32 | node:32`; else 0, which is no incarnation. With
    /// it, almost every packet reads one cache line instead of three.
    first: AtomicU64,
}

impl Default for RouteCell {
    fn default() -> Self {
        let route = Route::new(0, RedundancyMode::default(), []);
        RouteCell { route: ArcSwap::from_pointee(route), first: AtomicU64::new(0) }
    }
}

impl RouteCell {
    /// A cell that holds this route, for tools that forward without a core.
    pub fn holding(route: Route) -> RouteCell {
        let cell = RouteCell::default();
        cell.publish(route);
        cell
    }

    /// Returns the current route without counting a reference.
    pub fn load(&self) -> Guard<Arc<Route>> {
        self.route.load()
    }

    /// The current route, as an owned reference.
    pub fn load_full(&self) -> Arc<Route> {
        self.route.load_full()
    }

    /// The route's first hop if packets take it alone: it is up and granted, and the route is not hitless.
    #[inline]
    pub fn first_if_usable(&self, board: &Board) -> Option<Hop> {
        let word = self.first.load(Ordering::Acquire);
        let hop = Hop { node: NodeId(word as u32), incarnation: Incarnation((word >> 32) as u32) };
        (hop.incarnation.0 > 0 && board.is_up(hop.node, hop.incarnation)).then_some(hop)
    }

    // Almost every packet takes the first hop. `#[inline]` here and in the board has the data plane, another crate, decide that
    // without a call.

    /// Sends a client's packet to the first usable hop of its room's route, and in hitless mode also to its twin.
    #[inline]
    pub fn forward_to_node(&self, board: &Board) -> ForwardVerdict {
        match self.first_if_usable(board) {
            Some(hop) => ForwardVerdict::Pass { hop, leaving: false },
            None => self.forward_past_first(board),
        }
    }

    /// Handles a route with a dead first hop or with two carrying hops.
    fn forward_past_first(&self, board: &Board) -> ForwardVerdict {
        let route = self.load();
        let Some((hop, _)) = route.first_usable(board) else {
            return ForwardVerdict::Drop(DropReason::NoHop);
        };
        match route.twin_of(hop, board) {
            Some(twin) => ForwardVerdict::Both([hop, twin]),
            None => ForwardVerdict::Pass { hop, leaving: false },
        }
    }

    /// Passes a node's packet to the client only from the hop that carries the room, or briefly from the hop that a
    /// make-before-break is leaving, and only within the session's limits. In hitless mode packets of both hops pass.
    /// `payload_type` is `None` for RTCP.
    #[inline]
    pub fn forward_to_client(
        &self,
        from: Hop,
        payload_type: Option<u8>,
        limits: &MediaLimits,
        board: &Board,
        now: Instant,
    ) -> ForwardVerdict {
        let verdict = if self.first_if_usable(board) == Some(from) {
            ForwardVerdict::Pass { hop: from, leaving: false }
        } else {
            self.forward_from_other(from, board, now)
        };
        match verdict {
            ForwardVerdict::Drop(_) => verdict,
            _ if payload_type.is_some_and(|number| limits.withholds(number)) => {
                ForwardVerdict::Drop(DropReason::Shed)
            }
            _ => verdict,
        }
    }

    /// Handles a packet of another hop than the first, or a route with a dead first hop or with two carrying hops.
    fn forward_from_other(&self, from: Hop, board: &Board, now: Instant) -> ForwardVerdict {
        let route = self.load();
        let Some((usable, _)) = route.first_usable(board) else {
            return ForwardVerdict::Drop(DropReason::NoHop);
        };
        let leaving = || route.leaving().is_some_and(|(old, until)| old == from && now < until);
        match route.twin_of(usable, board) {
            Some(twin) if usable == from => ForwardVerdict::Both([from, twin]),
            Some(twin) if twin == from => ForwardVerdict::Both([from, usable]),
            _ if usable == from => ForwardVerdict::Pass { hop: from, leaving: false },
            _ if leaving() && board.is_up(from.node, from.incarnation) => {
                ForwardVerdict::Pass { hop: from, leaving: true }
            }
            _ => ForwardVerdict::Drop(DropReason::StaleHop),
        }
    }

    /// The hop that packets take and, in hitless mode, the second hop that carries all of them.
    pub fn carriers(&self, board: &Board) -> Option<(Hop, Option<Hop>)> {
        if let Some(hop) = self.first_if_usable(board) {
            return Some((hop, None));
        }
        let route = self.load();
        let (hop, _) = route.first_usable(board)?;
        Some((hop, route.twin_of(hop, board)))
    }

    /// Replaces the route. Packets take the new one from now on.
    pub fn publish(&self, route: Route) {
        let first = match route.hops[..] {
            [(_, HopGrant::Admitted), (_, HopGrant::Admitted), ..] => 0,
            [(hop, HopGrant::Admitted), ..] => {
                u64::from(hop.incarnation.0) << 32 | u64::from(hop.node.0)
            }
            _ => 0,
        };
        // A concurrent reader that sees 0 loads the route itself, old or new.
        self.first.store(0, Ordering::Release);
        self.route.store(Arc::new(route));
        self.first.store(first, Ordering::Release);
    }
}

impl Route {
    /// A route without a hop that is left.
    pub fn new(
        version: u64,
        mode: RedundancyMode,
        hops: impl Into<Box<[(Hop, HopGrant)]>>,
    ) -> Route {
        Route { version, mode, hops: hops.into(), left: None }
    }

    /// The hop that a make-before-break leaves, and the time until which its packets pass.
    pub fn leaving(&self) -> Option<(Hop, Instant)> {
        self.left.as_ref().map(|left| (left.hop, left.until))
    }

    /// The hop that packets take now, with its epoch.
    ///
    /// This is the first hop that is up and granted: one where the room is admitted, or the second hop if capacity is
    /// reserved there.
    pub fn first_usable(&self, board: &Board) -> Option<(Hop, Epoch)> {
        self.hops.iter().enumerate().find_map(|(index, &(hop, grant))| {
            let usable = grant != HopGrant::Gated && board.is_up(hop.node, hop.incarnation);
            usable.then_some((hop, Epoch { version: self.version, index: index as u8 }))
        })
    }

    /// The mode that the route can keep now. A hitless room is effectively hot if its second hop only reserves
    /// capacity. If packets may not take the second hop, or none exists, the room moves only after the death, as in
    /// cold mode.
    pub fn effective_mode(&self) -> RedundancyMode {
        let second = self.hops.get(1).map(|(_, grant)| *grant);
        match (self.mode, second) {
            (RedundancyMode::Hitless, Some(HopGrant::Reserved)) => RedundancyMode::Hot,
            (
                RedundancyMode::Hitless | RedundancyMode::Hot | RedundancyMode::ActiveActive,
                None | Some(HopGrant::Gated),
            ) => RedundancyMode::Cold,
            (mode, _) => mode,
        }
    }

    /// In hitless mode: the other hop that carries all packets besides `hop`, if it is up.
    pub fn twin_of(&self, hop: Hop, board: &Board) -> Option<Hop> {
        let carries = |(other, grant): &(Hop, HopGrant)| {
            *grant == HopGrant::Admitted
                && *other != hop
                && board.is_up(other.node, other.incarnation)
        };
        self.hops.iter().take(2).find(|other| carries(other)).map(|(other, _)| *other)
    }

    /// Returns true if some hop of the route is at the node.
    pub fn leads_to(&self, node: NodeId) -> bool {
        self.hops.iter().any(|(hop, _)| hop.node == node)
    }

    /// Returns true if the hop comes first in the route.
    pub fn is_first(&self, hop: Hop) -> bool {
        self.hops.first().is_some_and(|&(first, _)| first == hop)
    }

    /// Returns true if the hop is in the route.
    pub fn holds(&self, hop: Hop) -> bool {
        self.hops.iter().any(|&(mine, _)| mine == hop)
    }
}

/// A session that is open, for the reply to its offer.
#[derive(Clone, Debug)]
pub struct AcceptedOffer {
    /// The number of the session.
    pub session: SessionId,
    /// The number of the room.
    pub room: RoomId,
    /// The cell of the room's route, which the packet path reads.
    pub route: Arc<RouteCell>,
    /// The degradation in force.
    pub plan: Plan,
    /// The author of the admission.
    pub admitted_by: Decider,
    /// The author of the placement.
    pub routed_by: Decider,
}

/// Death times are stored relative to this long before the first death, so that no stored time is negative.
const BEFORE_FIRST: Duration = Duration::from_secs(3_600);

/// A fixed array of atomic cells, one per node, plus spare cells for nodes added later.
///
/// One store to a cell reroutes every session that used the node as its first usable hop, without work per session. A
/// cell never returns to `up` for the same incarnation, so epochs that packets compute from the board never go back.
#[derive(Debug)]
pub struct Board {
    cells: Box<[AtomicU64]>,
    /// Indexed by node: the time of the last death in microseconds since [`BEFORE_FIRST`] before `first_death`. Read
    /// once per session of a dead node, never per packet.
    deaths: Box<[AtomicU64]>,
    first_death: OnceLock<Instant>,
}

/// One node's state on the board.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cell {
    /// The newest incarnation.
    pub incarnation: Incarnation,
    /// This incarnation carries packets. Once false, it stays false; only a new incarnation sets it to true.
    pub up: bool,
}

/// `incarnation:32 | unused:31 | up:1`.
impl Cell {
    fn pack(self) -> u64 {
        u64::from(self.incarnation.0) << 32 | u64::from(self.up)
    }

    #[inline]
    fn unpack(word: u64) -> Cell {
        Cell { incarnation: Incarnation((word >> 32) as u32), up: word & 1 == 1 }
    }
}

impl Board {
    /// Creates a board for nodes `0..nodes`, each up as incarnation 1.
    pub fn new(nodes: usize) -> Board {
        Board::with_room(nodes, nodes)
    }

    /// Creates a board with `slots` cells in all. Cells without a node are down with incarnation 0, which no node uses.
    pub fn with_room(nodes: usize, slots: usize) -> Board {
        let cell = |up, incarnation| Cell { incarnation: Incarnation(incarnation), up };
        let cell = |at| if at < nodes { cell(true, 1) } else { cell(false, 0) };
        let slots = nodes.max(slots);
        Board {
            cells: (0..slots).map(|at| AtomicU64::new(cell(at).pack())).collect(),
            deaths: (0..slots).map(|_| AtomicU64::new(0)).collect(),
            first_death: OnceLock::new(),
        }
    }

    /// `None` if no node has this number.
    #[inline]
    pub fn cell(&self, node: NodeId) -> Option<Cell> {
        let cell = self.cells.get(node.0 as usize)?;
        Some(Cell::unpack(cell.load(Ordering::Acquire)))
    }

    /// Returns true if the node is up as this incarnation.
    #[inline]
    pub fn is_up(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.cell(node).is_some_and(|cell| cell.up && cell.incarnation == incarnation)
    }

    /// The time of death of the hop, by the evidence. `None` while it carries packets, and after its node returns as
    /// another incarnation.
    pub fn died(&self, hop: Hop) -> Option<Instant> {
        let is_down = || {
            let cell = self.cell(hop.node)?;
            (cell.incarnation == hop.incarnation && !cell.up).then_some(())
        };
        is_down()?;
        let first = self.first_death.get()?;
        let since =
            Duration::from_micros(self.deaths.get(hop.node.0 as usize)?.load(Ordering::Acquire));
        // Else the time may be of the next incarnation, which has died as well.
        is_down()?;
        Some((*first + since).checked_sub(BEFORE_FIRST).unwrap_or(*first))
    }

    /// Marks this incarnation down for good. `since` is the time of death by the evidence.
    pub fn mark_down(&self, node: NodeId, since: Instant) {
        let first = *self.first_death.get_or_init(|| since);
        if let Some(death) = self.deaths.get(node.0 as usize) {
            let after = (since + BEFORE_FIRST).saturating_duration_since(first);
            death.store(after.as_micros() as u64, Ordering::Release);
        }
        self.update(node, |cell| Cell { up: false, ..cell });
    }

    /// Brings the node back as a new incarnation, which no existing route contains.
    pub fn reincarnate(&self, node: NodeId) -> Option<Incarnation> {
        let next = |cell: Cell| Incarnation(cell.incarnation.0 + 1);
        self.update(node, |cell| Cell { incarnation: next(cell), up: true });
        self.cell(node).map(|cell| cell.incarnation)
    }

    /// A load and a store suffice because the core is the only writer.
    fn update(&self, node: NodeId, change: impl FnOnce(Cell) -> Cell) {
        if let Some(cell) = self.cells.get(node.0 as usize) {
            let now = Cell::unpack(cell.load(Ordering::Relaxed));
            cell.store(change(now).pack(), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests;
