//! The reasons for which packets are dropped.

crate::named! {
    /// Why a packet is dropped. Each has a counter.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
    #[repr(u8)]
    pub enum DropReason {
        /// No hop of the room's route is usable.
        NoHop = "no-hop",
        /// The packet came from a hop that is not in the room's route.
        StaleHop = "stale-hop",
        /// The session's plan withholds the packet, or its client sends more than it may.
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
        /// The packet exceeds a size limit of the path, or is a packet of a client's probe that has another size than planned.
        Oversize = "oversize",
        /// A ring between threads was full.
        RingFull = "ring-full",
        /// The socket's buffer was full.
        BufferFull = "buffer-full",
        /// The client's address is not known yet, or its consent has run out.
        NoAddress = "no-address",
        /// The session was not open yet, and its queue of early packets was full.
        NotOpened = "not-opened",
        /// A duplicate, or a packet older than its stream's window. Towards a node only if the leg has SRTP, or a retransmission (RFC 4588) of
        /// a number that the client has not sent.
        Stale = "stale",
        /// RTCP that must not pass: it refers to a mapping that no longer exists.
        Feedback = "feedback",
        /// Failed lookups of this prefix, failed checks of this address, or the numbers in NACKs of this client exceed the rate limit.
        Limited = "limited",
        /// The kernel refused to send it.
        SendFailed = "send-failed",
        /// Hitless mode: the other hop's copy passed first, or the streams are not yet known to be copies. A late packet of a client that was
        /// recovered from parity, or the frame of which the redundancy of another one had. A retransmission of a client that came twice.
        Duplicate = "duplicate",
        /// A STUN check that was received from another address before, or a packet of a client's probe that was received before.
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
        /// It waited for its turn, and is too old for its client now.
        Late = "late",
        /// Video of a simulcast layer that the client does not get now.
        Layer = "layer",
    }
}

#[cfg(test)]
mod tests;
