//! The forwarding verdict on a packet: a pure function of the packet, the session's plan, the room's route and the
//! board.

use std::time::Instant;

use crate::forwarding::{Board, Hop, Plan, RouteCell};

// Almost every packet takes the first hop. `#[inline]` here and in the route and the board has the data plane, another
// crate, decide that without a call.

/// What becomes of a packet.
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

/// Why a packet is dropped. Each has a counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum DropReason {
    /// No hop of the room's route is usable.
    NoHop,
    /// The packet came from a hop that is not in the room's route.
    StaleHop,
    /// The session's plan withholds this payload type.
    Shed,
    /// No session has this source address.
    UnknownSource,
    /// No session has this tag.
    UnknownTag,
    /// No session has this flow identifier.
    UnknownFlow,
    /// STUN MESSAGE-INTEGRITY verification failed, or no session has the username.
    BadIntegrity,
    /// The packet is malformed for the protocol that its first byte indicates.
    Malformed,
    /// DTLS: a session terminated by a node cannot move between two packets, and no mode for such sessions exists yet.
    Dtls,
    /// The packet's payload type was not declared.
    UndeclaredPayload,
    /// The packet exceeds a size limit of the path.
    Oversize,
    /// A ring between threads was full.
    RingFull,
    /// The socket's buffer was full.
    BufferFull,
    /// The client's address is not known yet, or its consent has run out.
    NoAddress,
    /// The session was not open yet, and its queue of early packets was full.
    NotOpened,
    /// A duplicate, or a packet older than its stream's window.
    Stale,
    /// RTCP that must not pass: it refers to a mapping that no longer exists.
    Feedback,
    /// Failed lookups of this prefix, or failed checks of this address, exceed the rate limit.
    Limited,
    /// The kernel refused to send it.
    SendFailed,
    /// Hitless mode: the other hop's copy passed first, or the streams are not yet known to be copies.
    Duplicate,
    /// A STUN check that was received from another address before.
    Replayed,
    /// Another gateway may own the session: the lease of this one has ended.
    Fenced,
}

impl DropReason {
    /// All reasons, in the order of their counters.
    pub const ALL: [DropReason; 22] = [
        DropReason::NoHop,
        DropReason::StaleHop,
        DropReason::Shed,
        DropReason::UnknownSource,
        DropReason::UnknownTag,
        DropReason::UnknownFlow,
        DropReason::BadIntegrity,
        DropReason::Malformed,
        DropReason::Dtls,
        DropReason::UndeclaredPayload,
        DropReason::Oversize,
        DropReason::RingFull,
        DropReason::BufferFull,
        DropReason::NoAddress,
        DropReason::NotOpened,
        DropReason::Stale,
        DropReason::Feedback,
        DropReason::Limited,
        DropReason::SendFailed,
        DropReason::Duplicate,
        DropReason::Replayed,
        DropReason::Fenced,
    ];

    /// The reason's name in metrics and records: `stale-hop`.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::NoHop => "no-hop",
            DropReason::StaleHop => "stale-hop",
            DropReason::Shed => "shed",
            DropReason::UnknownSource => "unknown-source",
            DropReason::UnknownTag => "unknown-tag",
            DropReason::UnknownFlow => "unknown-flow",
            DropReason::BadIntegrity => "bad-integrity",
            DropReason::Malformed => "malformed",
            DropReason::Dtls => "dtls",
            DropReason::UndeclaredPayload => "undeclared-payload",
            DropReason::Oversize => "oversize",
            DropReason::RingFull => "ring-full",
            DropReason::BufferFull => "buffer-full",
            DropReason::NoAddress => "no-address",
            DropReason::NotOpened => "not-opened",
            DropReason::Stale => "stale",
            DropReason::Feedback => "feedback",
            DropReason::Limited => "limited",
            DropReason::SendFailed => "send-failed",
            DropReason::Duplicate => "duplicate",
            DropReason::Replayed => "replayed",
            DropReason::Fenced => "fenced",
        }
    }
}

/// Sends a client's packet to the first usable hop of its room's route, and in hitless mode also to its twin.
#[inline]
pub fn to_node(route: &RouteCell, board: &Board) -> ForwardVerdict {
    match route.first_if_usable(board) {
        Some(hop) => ForwardVerdict::Pass { hop, leaving: false },
        None => to_second(route, board),
    }
}

/// Handles a route with a dead first hop or with two carrying hops.
fn to_second(route: &RouteCell, board: &Board) -> ForwardVerdict {
    let route = route.load();
    let Some((hop, _)) = route.first_usable(board) else {
        return ForwardVerdict::Drop(DropReason::NoHop);
    };
    match route.twin_of(hop, board) {
        Some(twin) => ForwardVerdict::Both([hop, twin]),
        None => ForwardVerdict::Pass { hop, leaving: false },
    }
}

/// Passes a node's packet to the client only from the hop that carries the room, or briefly from the hop that a
/// make-before-break is leaving, and only as the plan allows. In hitless mode packets of both hops pass. `payload_type`
/// is `None` for RTCP.
#[inline]
pub fn to_client(
    from: Hop,
    payload_type: Option<u8>,
    plan: &Plan,
    route: &RouteCell,
    board: &Board,
    now: Instant,
) -> ForwardVerdict {
    let verdict = if route.first_if_usable(board) == Some(from) {
        ForwardVerdict::Pass { hop: from, leaving: false }
    } else {
        from_second(from, route, board, now)
    };
    match verdict {
        ForwardVerdict::Drop(_) => verdict,
        _ if payload_type.is_some_and(|number| plan.sheds(number)) => {
            ForwardVerdict::Drop(DropReason::Shed)
        }
        _ => verdict,
    }
}

/// Handles a packet of another hop than the first, or a route with a dead first hop or with two carrying hops.
fn from_second(from: Hop, route: &RouteCell, board: &Board, now: Instant) -> ForwardVerdict {
    let route = route.load();
    let Some((usable, _)) = route.first_usable(board) else {
        return ForwardVerdict::Drop(DropReason::NoHop);
    };
    let leaving = || route.leaving.is_some_and(|(old, until)| old == from && now < until);
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

#[cfg(test)]
mod tests;
