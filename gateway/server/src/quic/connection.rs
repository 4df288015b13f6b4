//! One client's connection, from its handshake to its end.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use evenkeel_media::roq;
use tokio::time::timeout;

use super::code;
use super::counters::count;
use super::hub::{Hub, LineId, Rejected};
use crate::ring;

/// DATAGRAMs read before others get their turn.
const READ_AT_ONCE: u64 = 64;

/// Serves a connection until it ends.
pub(super) async fn serve(hub: Rc<Hub>, connecting: quinn::Connecting) {
    let handshake = timeout(hub.settings.handshake_within, connecting).await;
    let Ok(Ok(connection)) = handshake else {
        count(&hub.counters.handshakes_failed);
        return;
    };
    let line = hub.join(connection.clone());
    // Each ends only with the connection, so the first to end ends all.
    let read = tokio::select! {
        // Reads what came before the end.
        biased;
        read = read_datagrams(&hub, line, &connection) => Some(read),
        () = accept_streams(&hub, line, &connection) => None,
        () = refuse_bidirectional(&hub, &connection) => None,
    };
    if let Some(read) = read {
        let received = connection.stats().frame_rx.datagram;
        hub.counters.receive_overflow.fetch_add(received.saturating_sub(read), Ordering::Relaxed);
    }
    hub.part(line);
}

/// Reads until the connection ends and says how many it read.
async fn read_datagrams(hub: &Hub, line: LineId, connection: &quinn::Connection) -> u64 {
    let received = &hub.counters.received_datagrams;
    let mut read = 0u64;
    while let Ok(datagram) = connection.read_datagram().await {
        read += 1;
        match roq::read_datagram(&datagram) {
            Ok((flow, packet)) => match hub.deliver(line, flow, packet, received) {
                Ok(()) => {}
                Err(Rejected::UnknownFlow) => count(&hub.counters.unknown_flow_datagrams),
                Err(Rejected::NotRtp) => {
                    count(&hub.counters.not_rtp);
                    connection.close(code(roq::ErrorCode::Packet), b"neither RTP nor RTCP");
                }
            },
            Err(malformed) => {
                count(&hub.counters.malformed);
                let reason = malformed.to_string();
                connection.close(code(roq::ErrorCode::Packet), reason.as_bytes());
            }
        }
        if read.is_multiple_of(READ_AT_ONCE) {
            tokio::task::yield_now().await;
        }
    }
    read
}

async fn accept_streams(hub: &Rc<Hub>, line: LineId, connection: &quinn::Connection) {
    while let Ok(stream) = connection.accept_uni().await {
        // As many as transport parameters let the client open.
        let (hub, connection) = (Rc::clone(hub), connection.clone());
        tokio::task::spawn_local(async move {
            read_stream(&hub, line, &connection, stream).await;
        });
    }
}

async fn refuse_bidirectional(hub: &Hub, connection: &quinn::Connection) {
    if connection.accept_bi().await.is_ok() {
        count(&hub.counters.bidirectional);
        let code = code(roq::ErrorCode::StreamCreation);
        connection.close(code, b"media comes in unidirectional streams and DATAGRAMs");
    }
}

/// Reads a stream to its end, or to the first thing that is wrong with it.
async fn read_stream(
    hub: &Hub,
    line: LineId,
    connection: &quinn::Connection,
    mut stream: quinn::RecvStream,
) {
    let mut decoder = roq::StreamDecoder::new(ring::PACKET_MAX);
    let mut flow = None;
    // Ends too when the client resets the stream: what was not whole is lost, and that is what it wanted.
    while let Ok(chunk) = stream.read_chunk(ring::PACKET_MAX, true).await {
        let Some(chunk) = chunk else {
            if let Err(malformed) = decoder.finish() {
                count(&hub.counters.malformed);
                let reason = malformed.to_string();
                connection.close(code(roq::ErrorCode::Packet), reason.as_bytes());
            }
            return;
        };
        let mut input = &chunk.bytes[..];
        loop {
            let stop = match decoder.next(&mut input) {
                Ok(None) => break,
                Ok(Some(roq::Item::Flow(found))) => {
                    flow = Some(found);
                    hub.home(found).is_none().then_some(Rejected::UnknownFlow)
                }
                Ok(Some(roq::Item::Packet(packet))) => {
                    let flow = flow.expect("a stream's flow comes before its packets");
                    hub.deliver(line, flow, packet, &hub.counters.received_in_streams).err()
                }
                Err(malformed) => {
                    count(match malformed {
                        roq::Malformed::TooLong { .. } => &hub.counters.oversize,
                        roq::Malformed::Flow
                        | roq::Malformed::Empty
                        | roq::Malformed::Unfinished => &hub.counters.malformed,
                    });
                    // The client may have reset it by now; then there is nothing left to stop.
                    let _ = stream.stop(code(roq::ErrorCode::Packet));
                    return;
                }
            };
            let error = match stop {
                None => continue,
                Some(Rejected::UnknownFlow) => {
                    count(&hub.counters.unknown_flow_streams);
                    roq::ErrorCode::UnknownFlow
                }
                Some(Rejected::NotRtp) => {
                    count(&hub.counters.not_rtp);
                    roq::ErrorCode::Packet
                }
            };
            let _ = stream.stop(code(error));
            return;
        }
    }
}
