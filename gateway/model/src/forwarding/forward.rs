//! The forwarding verdict on a packet: a pure function of the packet, the session's limits, the room's route and the
//! board.

use std::time::Instant;

use crate::action::MediaLimits;
use crate::forwarding::{Board, Hop, RouteCell};

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

crate::named! {
    /// Why a packet is dropped. Each has a counter.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
    #[repr(u8)]
    pub enum DropReason {
        /// No hop of the room's route is usable.
        NoHop = "no-hop",
        /// The packet came from a hop that is not in the room's route.
        StaleHop = "stale-hop",
        /// The session's plan withholds this payload type.
        Shed = "shed",
        /// No session has this source address.
        UnknownSource = "unknown-source",
        /// No session has this tag.
        UnknownTag = "unknown-tag",
        /// No session has this flow identifier.
        UnknownFlow = "unknown-flow",
        /// STUN MESSAGE-INTEGRITY verification failed, or no session has the username.
        BadIntegrity = "bad-integrity",
        /// The packet is malformed for the protocol that its first byte indicates.
        Malformed = "malformed",
        /// DTLS, and the offer of the session has no fingerprint.
        Dtls = "dtls",
        /// DTLS: a ClientHello from another address than that of the session's handshake.
        DtlsAddress = "dtls-address",
        /// DTLS: too many handshakes are in progress.
        DtlsFull = "dtls-full",
        /// DTLS: a record that belongs to no handshake of its session, is not authentic, or is an alert in plain text.
        DtlsRecord = "dtls-record",
        /// The packet's payload type was not declared, or its client only receives or only sends.
        UndeclaredPayload = "undeclared-payload",
        /// The packet exceeds a size limit of the path.
        Oversize = "oversize",
        /// A ring between threads was full.
        RingFull = "ring-full",
        /// The socket's buffer was full.
        BufferFull = "buffer-full",
        /// The client's address is not known yet, or its consent has run out.
        NoAddress = "no-address",
        /// The session was not open yet, and its queue of early packets was full.
        NotOpened = "not-opened",
        /// A duplicate, or a packet older than its stream's window. Towards a node only if the leg has SRTP.
        Stale = "stale",
        /// RTCP that must not pass: it refers to a mapping that no longer exists.
        Feedback = "feedback",
        /// Failed lookups of this prefix, or failed checks of this address, exceed the rate limit.
        Limited = "limited",
        /// The kernel refused to send it.
        SendFailed = "send-failed",
        /// Hitless mode: the other hop's copy passed first, or the streams are not yet known to be copies.
        Duplicate = "duplicate",
        /// A STUN check that was received from another address before.
        Replayed = "replayed",
        /// Another gateway may own the session: the lease of this one has ended.
        Fenced = "fenced",
        /// The client has not proved that it receives at its address, and the limit of bytes to it is reached.
        Unvalidated = "unvalidated",
        /// SRTP or SRTCP with a wrong tag: another key, or a changed packet.
        SrtpForged = "srtp-forged",
        /// SRTP or SRTCP that was accepted before, or is more than 127 below the highest index (RFC 3711, 3.3.2).
        SrtpReplayed = "srtp-replayed",
        /// No index of SRTP may be used for the packet: it is too late, the session has too many SSRCs, or another process may have
        /// used more indices.
        SrtpIndex = "srtp-index",
        /// The DTLS handshake of the client, which agrees on the keys of SRTP, has not ended.
        SrtpNoKeys = "srtp-no-keys",
        /// The room has more streams than the client has m-lines for.
        SurplusStream = "surplus-stream",
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
/// make-before-break is leaving, and only within the session's limits. In hitless mode packets of both hops pass. `payload_type`
/// is `None` for RTCP.
#[inline]
pub fn to_client(
    from: Hop,
    payload_type: Option<u8>,
    limits: &MediaLimits,
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
        _ if payload_type.is_some_and(|number| limits.withholds(number)) => {
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

#[cfg(test)]
mod tests;
