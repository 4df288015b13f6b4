//! Packets in DATAGRAMs.

use super::*;

#[tokio::test]
async fn packet_of_a_known_flow_reaches_its_worker() {
    let mut world = World::start(quiet());
    let client = world.client().await;
    client.send(FLOW, &rtp(1));
    client.send(FLOW, RTCP);
    assert_eq!(world.next_but_path().await, (meta(RingItem::Attached), vec![]));
    assert_eq!(world.next_but_path().await, (meta(RingItem::Rtp), rtp(1)));
    assert_eq!(world.next_but_path().await, (meta(RingItem::Rtcp), RTCP.to_vec()));
    assert_eq!(world.count(|counters| &counters.received_datagrams), 2);
    assert_eq!(world.count(|counters| &counters.attached), 1);
}

#[tokio::test]
async fn datagram_of_an_unknown_flow_is_dropped() {
    let mut world = World::start(quiet());
    let client = world.client().await;
    client.send(STRANGE_FLOW, &rtp(1));
    client.send(FLOW, &rtp(2));
    assert_eq!(world.next_media().await, rtp(2));
    assert_eq!(world.count(|counters| &counters.unknown_flow_datagrams), 1);
}

#[tokio::test]
async fn malformed_datagram_closes_the_connection() {
    let world = World::start(quiet());
    for wrong in [&[][..], &[0xc0, 1, 2], &[0x07]] {
        let client = world.client().await;
        client.connection.send_datagram(wrong.to_vec().into()).unwrap();
        assert_eq!(client.close_code().await, roq::ErrorCode::Packet.code());
    }
    assert_eq!(world.count(|counters| &counters.malformed), 3);
}

#[tokio::test]
async fn datagram_without_rtp_closes_the_connection() {
    let world = World::start(quiet());
    let client = world.client().await;
    client.send(FLOW, b"GET / HTTP/1.1");
    assert_eq!(client.close_code().await, roq::ErrorCode::Packet.code());
    assert_eq!(world.count(|counters| &counters.not_rtp), 1);
}

#[tokio::test]
async fn unread_datagrams_are_counted() {
    let mut world = World::start(QuicSettings { datagram_queue_bytes: 600, ..quiet() });
    let client = world.client().await;
    let packet = [&rtp(1)[..], &[7; 400]].concat();
    for _ in 0..20 {
        client.send(FLOW, &packet);
    }
    while client.connection.stats().frame_tx.datagram < 20 {
        tokio::task::yield_now().await;
    }
    client.connection.close(VarInt::from_u32(0), b"");
    while world.next().await.0.kind != RingItem::Detached {}
    let received = world.count(|counters| &counters.received_datagrams);
    let overflow = world.count(|counters| &counters.receive_overflow);
    assert_eq!(received + overflow, 20);
    assert!(overflow > 0);
}

#[tokio::test]
async fn full_ring_is_counted() {
    let mut world = World::start_with(quiet(), 4);
    let client = world.client().await;
    for number in 0..10 {
        client.send(FLOW, &rtp(number));
    }
    client.send(FLOW, b"the end");
    client.close_code().await;
    assert_eq!(world.next_but_path().await.0, meta(RingItem::Attached));
    for number in 0..3 {
        assert_eq!(world.next_media().await, rtp(number));
    }
    assert_eq!(world.count(|counters| &counters.received_datagrams), 10);
    assert!(world.count(|counters| &counters.ring_full) >= 7);
}
