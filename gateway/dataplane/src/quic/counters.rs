//! What the endpoint counts: packets by what became of them, connections by how they ended.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident: $key:literal;)*) => {
        /// Counts of the endpoint's thread, read by anybody. All only grow, except `connections` and `attached`.
        #[derive(Default, Debug)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        impl Counters {
            /// All of them by the word they have in metrics, as they are now.
            pub fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$(($key, self.$name.load(Ordering::Relaxed)),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Connections there are now, those in their handshake among them, those that are over not.
    connections: "connections";
    /// Sessions that have a connection to their client now.
    attached: "attached";
    /// Connections refused because there were too many.
    connections_refused: "connections-refused";
    /// Connections that did not come through their handshake.
    handshakes_failed: "handshakes-failed";
    /// Connections closed because no flow of a session was on them.
    flowless: "flowless";
    /// Connections closed because their client opened a bidirectional stream.
    bidirectional: "bidirectional";
    /// Batches read from the socket.
    reads: "reads";
    /// Packets of sessions received in DATAGRAMs.
    received_datagrams: "received-datagrams";
    /// Packets of sessions received in streams.
    received_in_streams: "received-in-streams";
    /// DATAGRAMs of a flow that belongs to nobody, dropped.
    unknown_flow_datagrams: "unknown-flow-datagrams";
    /// Streams of a flow that belongs to nobody, stopped.
    unknown_flow_streams: "unknown-flow-streams";
    /// DATAGRAMs and streams that are not framed as RoQ; each closed its connection.
    malformed: "malformed";
    /// Packets of a known flow that are neither RTP nor RTCP.
    not_rtp: "not-rtp";
    /// Packets longer than a ring takes.
    oversize: "oversize";
    /// DATAGRAMs that quinn had no room for before we came to read them.
    receive_overflow: "receive-overflow";
    /// What did not fit the ring to its worker.
    ring_full: "ring-full";
    /// Packets that left in DATAGRAMs.
    sent_datagrams: "sent-datagrams";
    /// Packets queued in DATAGRAMs that did not leave: their connection ended, or its path had become too narrow for
    /// them, of which is known when it ends.
    datagrams_dropped: "datagrams-dropped";
    /// Packets sent in streams of their own.
    sent_in_streams: "sent-in-streams";
    /// Packets of sessions whose client has no connection.
    unattached: "unattached";
    /// Packets for which the queue of DATAGRAMs had no room.
    datagrams_full: "datagrams-full";
    /// Packets that needed a stream when too many were under way.
    streams_full: "streams-full";
    /// Packets on a stream that grew too old.
    streams_late: "streams-late";
    /// Packets on a stream that the client stopped, or that ended with the connection.
    streams_stopped: "streams-stopped";
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
