//! The verdict on a packet: a pure function of the packet, the session's plan, the room's route and the board.

use std::time::Instant;

use crate::{Board, Hop, Plan, RouteCell};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Pass it on. Towards a node: to this hop. Towards a client: it came from this hop.
    Pass {
        /// The hop.
        hop: Hop,
        /// From the hop that a make-before-break is leaving.
        leaving: bool,
    },
    /// In hitless mode two hops carry all packets. Towards a node: to both of these. Towards a client: it came from the
    /// first of these, and the other one delivers a copy.
    Both([Hop; 2]),
    /// Drop it, and count why.
    Drop(Reason),
}

/// Why a packet is dropped. Each has a counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Reason {
    /// No hop of the room's route is usable.
    NoHop,
    /// It came from a hop that the room is not on.
    StaleHop,
    /// The rung in force sheds it.
    Shed,
    /// No session knows its source.
    UnknownSource,
    /// No session knows its tag.
    UnknownTag,
    /// No session knows its flow identifier.
    UnknownFlow,
    /// Its STUN message integrity does not hold.
    BadIntegrity,
    /// It is not what its first byte says.
    Malformed,
    /// DTLS: a session that a node terminates cannot move within a packet, and no mode for such sessions is built yet.
    Dtls,
    /// Its payload type was not declared.
    UndeclaredPayload,
    /// Larger than the way allows.
    Oversize,
    /// A ring between threads was full.
    RingFull,
    /// The socket's buffer was full.
    BufferFull,
    /// The client's address is not known yet, or its consent has run out.
    NoAddress,
    /// Came before the driver had answered, and too many did.
    NotOpened,
    /// A copy of one that passed already, or older than its stream's window.
    Stale,
    /// RTCP that must not pass: a report of a mapping that is gone.
    Feedback,
    /// Too many look-ups of unknown sources from one prefix.
    Limited,
    /// The kernel refused to send it.
    SendFailed,
    /// In hitless mode: the other hop's copy passed before it, or it is not yet known that they are copies.
    Duplicate,
}

impl Reason {
    /// All of them, by their counter's place.
    pub const ALL: [Reason; 20] = [
        Reason::NoHop,
        Reason::StaleHop,
        Reason::Shed,
        Reason::UnknownSource,
        Reason::UnknownTag,
        Reason::UnknownFlow,
        Reason::BadIntegrity,
        Reason::Malformed,
        Reason::Dtls,
        Reason::UndeclaredPayload,
        Reason::Oversize,
        Reason::RingFull,
        Reason::BufferFull,
        Reason::NoAddress,
        Reason::NotOpened,
        Reason::Stale,
        Reason::Feedback,
        Reason::Limited,
        Reason::SendFailed,
        Reason::Duplicate,
    ];

    /// The word in metrics and records: `stale-hop`.
    pub fn name(self) -> &'static str {
        match self {
            Reason::NoHop => "no-hop",
            Reason::StaleHop => "stale-hop",
            Reason::Shed => "shed",
            Reason::UnknownSource => "unknown-source",
            Reason::UnknownTag => "unknown-tag",
            Reason::UnknownFlow => "unknown-flow",
            Reason::BadIntegrity => "bad-integrity",
            Reason::Malformed => "malformed",
            Reason::Dtls => "dtls",
            Reason::UndeclaredPayload => "undeclared-payload",
            Reason::Oversize => "oversize",
            Reason::RingFull => "ring-full",
            Reason::BufferFull => "buffer-full",
            Reason::NoAddress => "no-address",
            Reason::NotOpened => "not-opened",
            Reason::Stale => "stale",
            Reason::Feedback => "feedback",
            Reason::Limited => "limited",
            Reason::SendFailed => "send-failed",
            Reason::Duplicate => "duplicate",
        }
    }
}

/// Sends a client's packet to the first usable hop of its room's route, and in hitless mode to its twin.
pub fn to_node(route: &RouteCell, board: &Board) -> Verdict {
    match route.first_if_usable(board) {
        Some(hop) => Verdict::Pass { hop, leaving: false },
        None => to_second(route, board),
    }
}

/// The first hop died, or there are two.
fn to_second(route: &RouteCell, board: &Board) -> Verdict {
    let route = route.load();
    let Some((hop, _)) = route.first_usable(board) else {
        return Verdict::Drop(Reason::NoHop);
    };
    match route.twin_of(hop, board) {
        Some(twin) => Verdict::Both([hop, twin]),
        None => Verdict::Pass { hop, leaving: false },
    }
}

/// Lets a node's packet pass to the client only from the hop that the room is on, or for a moment from the one that a
/// make-before-break is leaving, and only as the plan allows. `None` for RTCP. In hitless mode from either of the hops
/// that carry.
pub fn to_client(
    from: Hop,
    payload_type: Option<u8>,
    plan: &Plan,
    route: &RouteCell,
    board: &Board,
    now: Instant,
) -> Verdict {
    let (mut hop, mut other) = (from, None);
    if route.first_if_usable(board) != Some(from) {
        let route = route.load();
        match route.first_usable(board) {
            Some((usable, _)) => hop = usable,
            None => return Verdict::Drop(Reason::NoHop),
        }
        other = route.twin_of(hop, board);
        if other == Some(from) {
            (hop, other) = (from, Some(hop));
        }
        let leaving = route.leaving.is_some_and(|(old, until)| old == from && now < until);
        if hop != from && !(leaving && board.is_up(from.node, from.incarnation)) {
            return Verdict::Drop(Reason::StaleHop);
        }
    }
    if payload_type.is_some_and(|number| plan.sheds(number)) {
        return Verdict::Drop(Reason::Shed);
    }
    match other {
        Some(other) if hop == from => Verdict::Both([from, other]),
        _ => Verdict::Pass { hop: from, leaving: hop != from },
    }
}

#[cfg(test)]
mod tests;
