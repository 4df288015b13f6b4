//! Counters of the QUIC endpoint.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident: $key:literal;)*) => {
        /// Written by the endpoint's thread. All values except `connections` and `attached` are monotonic.
        #[derive(Default, Debug)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        impl Counters {
            /// All counters by their attribute value in metrics.
            pub fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$(($key, self.$name.load(Ordering::Relaxed)),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Open connections, including handshakes.
    connections: "connections";
    /// Sessions with an open connection to their client.
    attached: "attached";
    /// Connections without a session that were closed for a new one, because the limit was reached.
    displaced: "displaced";
    /// Connections refused because all up to the limit carry sessions, or because the source was not validated at the limit.
    connections_refused: "connections-refused";
    /// Connections refused because their source has too many.
    source_refused: "source-refused";
    /// Initial packets ignored because their source has too many handshakes in progress; clients repeat them.
    handshakes_deferred: "handshakes-deferred";
    /// Retry packets, which make a client validate its address.
    retries: "retries";
    /// Connections that ended before their handshake was complete.
    handshakes_failed: "handshakes-failed";
    /// Connections closed because they carried no flow of a session.
    flowless: "flowless";
    /// Connections closed because the client opened a bidirectional stream.
    bidirectional: "bidirectional";
    /// Batches read from the socket.
    reads: "reads";
    /// Session packets received in DATAGRAMs.
    received_datagrams: "received-datagrams";
    /// Session packets received in streams.
    received_in_streams: "received-in-streams";
    /// Session packets received over connections that an earlier process keeps since an upgrade.
    received_by_predecessors: "received-by-predecessors";
    /// DATAGRAMs dropped because of an unknown flow.
    unknown_flow_datagrams: "unknown-flow-datagrams";
    /// Streams stopped because of an unknown flow.
    unknown_flow_streams: "unknown-flow-streams";
    /// WebTransport sessions opened.
    webtransport_opened: "webtransport-opened";
    /// Requests of HTTP/3 that opened no WebTransport session: another path, method or protocol, an unknown flow, or a second one.
    webtransport_refused: "webtransport-refused";
    /// DATAGRAMs of no open WebTransport session.
    webtransport_sessionless: "webtransport-sessionless";
    /// Connections closed because the client violated HTTP/3 (RFC 9114).
    http3_errors: "http3-errors";
    /// DATAGRAMs and streams without valid RoQ framing; each closed its connection.
    malformed: "malformed";
    /// Packets of a known flow that are neither RTP nor RTCP.
    not_rtp: "not-rtp";
    /// Packets longer than a ring accepts.
    oversize: "oversize";
    /// DATAGRAMs that quinn dropped before they were read.
    receive_overflow: "receive-overflow";
    /// Packets dropped because the ring to their worker was full.
    ring_full: "ring-full";
    /// Packets sent in DATAGRAMs.
    sent_datagrams: "sent-datagrams";
    /// DATAGRAMs that were queued and never sent because the connection ended or its path's MTU shrank. The end of the
    /// connection counts those in the queue of quinn.
    datagrams_dropped: "datagrams-dropped";
    /// Packets sent in streams.
    sent_in_streams: "sent-in-streams";
    /// Packets that an earlier process sends, which keeps the connection of the client since an upgrade.
    sent_by_predecessors: "sent-by-predecessors";
    /// Packets and datagrams dropped because the socket to an earlier process was full.
    predecessors_full: "predecessors-full";
    /// Packets of sessions without a connection.
    unattached: "unattached";
    /// Packets dropped for newer ones, or for those of a higher priority, because the queue for DATAGRAMs was full.
    datagrams_full: "datagrams-full";
    /// Packets dropped because they waited for the path for longer than the latency of their session.
    datagrams_late: "datagrams-late";
    /// Packets dropped because too many streams were in progress.
    streams_full: "streams-full";
    /// Packets in streams that expired.
    streams_late: "streams-late";
    /// Packets in streams that the client stopped, or that ended with the connection.
    streams_stopped: "streams-stopped";
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
