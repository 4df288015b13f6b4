//! Packets in streams.

use super::*;

#[tokio::test]
async fn packets_of_a_stream_reach_their_worker() {
    let mut world = World::start(quiet());
    let client = world.client().await;
    let mut stream = client.connection.open_uni().await.unwrap();
    let bytes = framed(FLOW, &[&rtp(1), &rtp(2)]);
    let (start, rest) = bytes.split_at(13);
    stream.write_all(start).await.unwrap();
    stream.write_all(rest).await.unwrap();
    assert_eq!(world.next_media().await, rtp(1));
    assert_eq!(world.next_media().await, rtp(2));
    stream.write_all(&framed(FLOW, &[&rtp(3)])[8..]).await.unwrap();
    stream.finish().unwrap();
    assert_eq!(world.next_media().await, rtp(3));
    assert_eq!(world.count(|counters| &counters.received_in_streams), 3);
}

#[tokio::test]
async fn stream_of_an_unknown_flow_is_stopped() {
    let mut world = World::start(quiet());
    let client = world.client().await;
    let mut stream = client.connection.open_uni().await.unwrap();
    stream.write_all(&framed(STRANGE_FLOW, &[&rtp(1)])).await.unwrap();
    assert_eq!(stream.stopped().await.unwrap(), Some(code(roq::ErrorCode::UnknownFlow)));
    client.send(FLOW, &rtp(2));
    assert_eq!(world.next_media().await, rtp(2));
    assert_eq!(world.count(|counters| &counters.unknown_flow_streams), 1);
}

#[tokio::test]
async fn stream_is_stopped_when_its_session_ends() {
    let mut world = World::start(quiet());
    let client = world.client().await;
    let mut stream = client.connection.open_uni().await.unwrap();
    stream.write_all(&framed(FLOW, &[&rtp(1)])).await.unwrap();
    assert_eq!(world.next_media().await, rtp(1));
    world.flows.remove(&FlowKey::Roq(FLOW), HOME);
    stream.write_all(&framed(FLOW, &[&rtp(2)])[8..]).await.unwrap();
    assert_eq!(stream.stopped().await.unwrap(), Some(code(roq::ErrorCode::UnknownFlow)));
}

#[tokio::test]
async fn stream_without_rtp_is_stopped() {
    let mut world = World::start(quiet());
    let client = world.client().await;
    let too_long = [&rtp(1)[..], &[0; ring::PACKET_MAX]].concat();
    for wrong in [&b"GET / HTTP/1.1"[..], &rtp(1)[..11], &[], &too_long] {
        let mut stream = client.connection.open_uni().await.unwrap();
        stream.write_all(&framed(FLOW, &[wrong])).await.unwrap();
        assert_eq!(stream.stopped().await.unwrap(), Some(code(roq::ErrorCode::Packet)));
    }
    client.send(FLOW, &rtp(2));
    assert_eq!(world.next_media().await, rtp(2));
    assert_eq!(world.count(|counters| &counters.not_rtp), 2);
    assert_eq!(world.count(|counters| &counters.malformed), 1);
    assert_eq!(world.count(|counters| &counters.oversize), 1);
}

#[tokio::test]
async fn truncated_stream_closes_the_connection() {
    let world = World::start(quiet());
    for cut in [1, 8, 9, 12] {
        let client = world.client().await;
        let mut stream = client.connection.open_uni().await.unwrap();
        let end = if cut == 1 { 3 } else { cut };
        stream.write_all(&framed(FLOW, &[&rtp(1)])[..end]).await.unwrap();
        stream.finish().unwrap();
        if cut == 8 {
            // A flow without packets is valid.
            stream.stopped().await.unwrap();
            assert_eq!(client.connection.close_reason(), None);
        } else {
            assert_eq!(client.close_code().await, roq::ErrorCode::Packet.code());
        }
    }
    assert_eq!(world.count(|counters| &counters.malformed), 3);
}

#[tokio::test]
async fn reset_stream_is_no_error() {
    let mut world = World::start(quiet());
    let client = world.client().await;
    let mut stream = client.connection.open_uni().await.unwrap();
    stream.write_all(&framed(FLOW, &[&rtp(1)])).await.unwrap();
    assert_eq!(world.next_media().await, rtp(1));
    stream.write_all(&[20, 0x80]).await.unwrap();
    stream.reset(code(roq::ErrorCode::FrameCancelled)).unwrap();
    client.send(FLOW, &rtp(2));
    assert_eq!(world.next_media().await, rtp(2));
    assert_eq!(world.count(|counters| &counters.malformed), 0);
}

#[tokio::test]
async fn bidirectional_stream_closes_the_connection() {
    let world = World::start(quiet());
    let client = world.client().await;
    let (mut stream, _receive) = client.connection.open_bi().await.unwrap();
    // The close may arrive before the write completes.
    let _ = stream.write_all(&framed(FLOW, &[&rtp(1)])).await;
    assert_eq!(client.close_code().await, roq::ErrorCode::StreamCreation.code());
    assert_eq!(world.count(|counters| &counters.bidirectional), 1);
}
