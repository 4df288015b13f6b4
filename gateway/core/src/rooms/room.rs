//! Rooms: sessions that are placed and moved together, and the route they share.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::capacity::Holding;
use crate::cohort::Tally;
use crate::policy::Memory;
use crate::small::SmallSet;
use crate::{
    Board, Cause, Decider, HOPS_MAX, Hop, Labels, Mode, MoveRecord, NodeId, RegionId, RoomId,
    Route, RouteCell, SessionId,
};

/// Moves of a room that are kept on record; the oldest gives way.
const RECORDED_MAX: usize = 8;

/// Damping counts moves within this.
const MOVES_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) id: RoomId,
    pub(crate) name: Arc<str>,
    pub(crate) scenario: Arc<str>,
    /// Of its first session.
    pub(crate) labels: Labels,
    /// The region of its first session, else the gateway's.
    pub(crate) region: RegionId,
    pub(crate) spares: u8,
    pub(crate) mode: Mode,
    /// The number by which nodes know it: sessions of a call have one number, however many rooms it is here.
    pub(crate) call: RoomId,
    /// Order of rescues; higher is earlier.
    pub(crate) priority: i64,
    pub(crate) sessions: SmallSet<SessionId>,
    pub(crate) cell: Arc<RouteCell>,
    pub(crate) placed_by: Arc<Decider>,
    /// The capacity that it counts on.
    pub(crate) holding: Holding,
    /// No hop is left that its packets may take.
    pub(crate) stranded: Option<Stranded>,
    /// A route with hops that are being opened.
    pub(crate) pending: Option<Box<Pending>>,
    /// Its routing policy is being asked to place it.
    pub(crate) placing: bool,
    /// State of the routing policy.
    pub(crate) memory: Memory,
    /// Milliseconds after which the routing policy is asked again; 0: never.
    pub(crate) ttl_ms: u32,
    /// Packets at its hop since it voted last.
    pub(crate) tally: Option<Box<Tally>>,
    /// Under which nodes the gateway lists it.
    pub(crate) listed: SmallSet<NodeId>,
    /// Facts that few rooms have.
    history: Option<Box<History>>,
}

#[derive(Default, Debug)]
struct History {
    /// Hops that did not take it, and until when it keeps away from them.
    struck: BTreeMap<Hop, Instant>,
    moves: VecDeque<Instant>,
    /// Hops that did not deliver copies of each other.
    unalike: Option<[Hop; 2]>,
    /// The last of its moves, as they are on record.
    record: VecDeque<MoveRecord>,
}

/// A room without a usable hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stranded {
    pub(crate) lost: Hop,
    pub(crate) since: Instant,
    /// Rooms with fewer attempts go first.
    pub(crate) attempts: u32,
}

/// A route on its way: published once its sessions are open where that matters.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Pending {
    /// Best first; never empty.
    pub(crate) hops: Vec<Hop>,
    /// Hops where all sessions are to be open before: where the room goes, or where it stays, its spares.
    pub(crate) awaited: BTreeSet<Hop>,
    pub(crate) waiting: BTreeSet<(SessionId, Hop)>,
    pub(crate) cause: Cause,
    pub(crate) by: Decider,
    pub(crate) started: Instant,
}

/// The facts of a new room.
pub(crate) struct Founding {
    pub(crate) name: Arc<str>,
    pub(crate) scenario: Arc<str>,
    pub(crate) labels: Labels,
    pub(crate) region: RegionId,
    pub(crate) spares: u8,
    pub(crate) mode: Mode,
    pub(crate) call: RoomId,
    pub(crate) priority: i64,
}

impl Room {
    pub(crate) fn new(id: RoomId, founding: Founding) -> Room {
        let Founding { name, scenario, labels, region, spares, mode, call, priority } = founding;
        Room {
            id,
            name,
            scenario,
            labels,
            region,
            spares,
            mode,
            call,
            priority,
            sessions: SmallSet::default(),
            cell: Arc::default(),
            placed_by: Arc::new(Decider::Native),
            holding: Holding::default(),
            stranded: None,
            pending: None,
            placing: false,
            memory: Memory::default(),
            ttl_ms: 0,
            tally: None,
            listed: SmallSet::default(),
            history: None,
        }
    }

    pub(crate) fn route(&self) -> Arc<Route> {
        self.cell.load_full()
    }

    /// The hop that its packets take now.
    pub(crate) fn stands_at(&self, board: &Board) -> Option<Hop> {
        self.route().first_usable(board).map(|(hop, _)| hop)
    }

    pub(crate) fn is_placed(&self) -> bool {
        self.route().version > 0
    }

    /// The nodes of its route, best first.
    pub(crate) fn standing(&self) -> Vec<NodeId> {
        self.route().hops.iter().map(|(hop, _)| hop.node).collect()
    }

    pub(crate) fn leads_to(&self, hop: Hop) -> bool {
        self.route().holds(hop) || self.heads_for(hop)
    }

    pub(crate) fn heads_for(&self, hop: Hop) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.hops.contains(&hop))
    }

    /// Hops where its sessions are opened: those of its route, in force and pending, but only the first of each if its
    /// mode opens none ahead. Its current hop comes first.
    pub(crate) fn hops_to_open(&self) -> Vec<Hop> {
        let each = if self.mode.opens_ahead() { HOPS_MAX } else { 1 };
        let route = self.route();
        let pending = self.pending.iter().flat_map(|pending| pending.hops.iter().take(each));
        let standing = if self.stranded.is_some() && each == 1 { 0 } else { each };
        route.hops.iter().map(|(hop, _)| hop).take(standing).chain(pending).copied().collect()
    }

    /// It survives its node in another way from now on. Spares under way that were not to be opened are no spares of a mode
    /// that opens them.
    pub(crate) fn take_mode(&mut self, mode: Mode) {
        if let Some(pending) = self.pending.as_mut()
            && mode.opens_ahead()
            && !self.mode.opens_ahead()
        {
            pending.hops.truncate(1);
        }
        self.mode = mode;
        if let Some(history) = &mut self.history {
            // Its nodes are given another chance.
            history.unalike = None;
        }
    }

    /// A route under way waits for nothing that its mode does not open.
    pub(crate) fn await_what_is_opened(&mut self) {
        if let Some(pending) = self.pending.as_mut().filter(|_| !self.mode.opens_ahead()) {
            let first = pending.hops[0];
            pending.awaited.retain(|hop| *hop == first);
            pending.waiting.retain(|(_, hop)| *hop == first);
        }
    }

    /// Every hop where its sessions are to be open at this time.
    pub(crate) fn hops_in_use(&self, now: Instant) -> BTreeSet<Hop> {
        let leaving = self.route().leaving.filter(|(_, until)| now < *until).map(|(hop, _)| hop);
        self.hops_to_open().into_iter().chain(leaving).collect()
    }

    /// These hops deliver no copies of each other. Returns true if that is news.
    pub(crate) fn note_unalike(&mut self, hops: [Hop; 2]) -> bool {
        let known = self.history.get_or_insert_default().unalike.replace(hops);
        known != Some(hops) && known != Some([hops[1], hops[0]])
    }

    /// Its mode over these hops: hitless only while no worker reported that they deliver no copies.
    pub(crate) fn mode_over(&self, hops: &[Hop]) -> Mode {
        let unalike = self.history.as_ref().and_then(|history| history.unalike);
        let stands = |pair: [Hop; 2]| hops.iter().take(2).all(|hop| pair.contains(hop));
        match self.mode {
            Mode::Hitless if hops.len() > 1 && unalike.is_some_and(stands) => Mode::Hot,
            mode => mode,
        }
    }

    /// The hop that it moves away from where it moves: where it stands, or stood before that died.
    pub(crate) fn stood(&self) -> Option<Hop> {
        let first = || self.route().hops.first().map(|(hop, _)| *hop);
        self.stranded.map(|stranded| stranded.lost).or_else(first)
    }

    /// A route under way leads there no longer; without its first hop there is no such route: it is given back.
    pub(crate) fn cut_pending(&mut self, gone: Hop) -> Option<Box<Pending>> {
        if self.pending.as_ref()?.hops[0] == gone {
            return self.pending.take();
        }
        let pending = self.pending.as_mut()?;
        pending.hops.retain(|hop| *hop != gone);
        pending.awaited.remove(&gone);
        pending.waiting.retain(|(_, hop)| *hop != gone);
        None
    }

    /// Keeps away from the hop until then. Returns true if that is news.
    pub(crate) fn keep_away(&mut self, hop: Hop, until: Instant, now: Instant) -> bool {
        let struck = &mut self.history.get_or_insert_default().struck;
        struck.retain(|_, until| now < *until);
        struck.insert(hop, until).is_none()
    }

    /// Hops it keeps away from at this time.
    pub(crate) fn shunned(&self, now: Instant) -> impl Iterator<Item = Hop> {
        let struck = self.history.iter().flat_map(|history| &history.struck);
        struck.filter(move |(_, until)| now < **until).map(|(hop, _)| *hop)
    }

    /// Keeps a move on record.
    pub(crate) fn record(&mut self, record: MoveRecord) {
        let records = &mut self.history.get_or_insert_default().record;
        if records.len() == RECORDED_MAX {
            records.pop_front();
        }
        records.push_back(record);
    }

    /// Its last moves, the oldest first.
    pub(crate) fn records(&self) -> impl Iterator<Item = &MoveRecord> {
        self.history.iter().flat_map(|history| &history.record)
    }

    /// Counts a move. More than the limit need not be kept.
    pub(crate) fn note_move(&mut self, now: Instant, counted_max: usize) {
        let moves = &mut self.history.get_or_insert_default().moves;
        moves.push_back(now);
        while moves.len() > counted_max {
            moves.pop_front();
        }
    }

    /// Moves that damping counts, with those that are past and were not looked at.
    pub(crate) fn moves_noted(&self) -> usize {
        self.history.as_ref().map_or(0, |history| history.moves.len())
    }

    /// Counted moves within the last minute.
    pub(crate) fn recent_moves(&mut self, now: Instant) -> usize {
        let Some(history) = &mut self.history else {
            return 0;
        };
        let past = |at: &mut Instant| now.saturating_duration_since(*at) >= MOVES_WITHIN;
        while history.moves.pop_front_if(past).is_some() {}
        history.moves.len()
    }
}
