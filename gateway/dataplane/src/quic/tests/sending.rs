//! Packets to clients.

use super::*;
use crate::ring::{PacketPriority, SendTerms};

#[tokio::test]
async fn packets_use_the_last_delivering_connection() {
    let mut world = World::start(quiet());
    let (first, second) = (world.client().await, world.client().await);
    first.send(FLOW, &rtp(1));
    assert_eq!(world.next_media().await, rtp(1));
    world.send(HOME, &rtp(10));
    assert_eq!(first.receive().await, (BACK, rtp(10)));
    second.send(FLOW, &rtp(2));
    assert_eq!(world.next_but_path().await, (meta(RingItem::Attached), vec![]));
    assert_eq!(world.next_media().await, rtp(2));
    world.send(HOME, &rtp(11));
    assert_eq!(second.receive().await, (BACK, rtp(11)));
    // Neither another session's packet nor a packet of an unknown flow takes over the session.
    first.send(OTHER_FLOW, &rtp(3));
    first.send(STRANGE_FLOW, &rtp(4));
    first.send(OTHER_FLOW, &rtp(5));
    while world.next().await.1 != rtp(5) {}
    world.send(HOME, &rtp(12));
    assert_eq!(second.receive().await, (BACK, rtp(12)));
    assert_eq!(world.count(|counters| &counters.sent_datagrams), 3);
}

#[tokio::test]
async fn end_of_a_former_connection_does_not_detach() {
    let mut world = World::start(quiet());
    let (first, second) = (world.client().await, world.client().await);
    first.send(FLOW, &rtp(1));
    assert_eq!(world.next_media().await, rtp(1));
    second.send(FLOW, &rtp(2));
    assert_eq!(world.next_media().await, rtp(2));
    first.send(OTHER_FLOW, &rtp(3));
    assert_eq!(world.next_media().await, rtp(3));
    first.connection.close(VarInt::from_u32(0), b"");
    let gone = RingMeta { home: OTHER_HOME, kind: RingItem::Detached, flow: OTHER_FLOW };
    assert_eq!(world.next_but_path().await, (gone, vec![]));
    world.send(HOME, &rtp(10));
    assert_eq!(second.receive().await, (BACK, rtp(10)));
    assert_eq!(world.count(|counters| &counters.attached), 1);
}

#[tokio::test]
async fn packet_without_a_connection_is_counted() {
    let mut world = World::start(quiet());
    let client = world.client().await;
    client.send(FLOW, &rtp(1));
    assert_eq!(world.next_media().await, rtp(1));
    world.send(OTHER_HOME, &rtp(9));
    world.send(Home { generation: HOME.generation + 1, ..HOME }, &rtp(9));
    world.send(HOME, &rtp(10));
    assert_eq!(client.receive().await, (BACK, rtp(10)));
    assert_eq!(world.count(|counters| &counters.unattached), 2);
}

#[tokio::test]
async fn ended_session_is_sent_nothing() {
    let mut world = World::start(quiet());
    let client = world.client().await;
    client.send(FLOW, &rtp(1));
    client.send(OTHER_FLOW, &rtp(2));
    while world.next().await.1 != rtp(2) {}
    world.push(RingMeta { home: HOME, kind: RingItem::Detached, flow: 0 }, &[]);
    world.send(HOME, &rtp(10));
    world.send(OTHER_HOME, &rtp(11));
    assert_eq!(client.receive().await, (BACK, rtp(11)));
    assert_eq!(world.count(|counters| &counters.unattached), 1);
    assert_eq!(world.count(|counters| &counters.attached), 1);
}

#[tokio::test]
async fn large_packet_is_sent_in_a_stream() {
    let mut world = World::start(quiet());
    let client = world.client().await;
    client.send(FLOW, &rtp(1));
    assert_eq!(world.next_media().await, rtp(1));
    let large = [&rtp(10)[..], &[7; ring::PACKET_MAX - 20]].concat();
    world.send(HOME, &large);
    let mut stream = client.connection.accept_uni().await.unwrap();
    assert_eq!(stream.read_to_end(4_096).await.unwrap(), framed(BACK, &[&large]));
}

#[tokio::test]
async fn client_without_datagrams_gets_streams() {
    let mut world = World::start(quiet());
    let client = world.client_with(false).await;
    let mut stream = client.connection.open_uni().await.unwrap();
    stream.write_all(&framed(FLOW, &[&rtp(1)])).await.unwrap();
    assert_eq!(world.next_media().await, rtp(1));
    world.send(HOME, &rtp(10));
    world.send(HOME, &rtp(11));
    let mut received = Vec::new();
    for _ in 0..2 {
        let mut stream = client.connection.accept_uni().await.unwrap();
        received.push(stream.read_to_end(4_096).await.unwrap());
    }
    received.sort();
    assert_eq!(received, [framed(BACK, &[&rtp(10)]), framed(BACK, &[&rtp(11)])]);
}

#[tokio::test]
async fn streams_are_bounded_in_number_and_time() {
    let settings =
        QuicSettings { streams_out_max: 2, feedback_every: Duration::from_millis(5), ..quiet() };
    let mut world = World::start(settings);
    let config = client_without_credit(&world.thread);
    let client = Client { connection: world.connect(config).await.unwrap() };
    let mut stream = client.connection.open_uni().await.unwrap();
    stream.write_all(&framed(FLOW, &[&rtp(1)])).await.unwrap();
    assert_eq!(world.next_media().await, rtp(1));
    let terms = SendTerms { priority: PacketPriority::Voice, latency_ms: 20 };
    let short_lived = RingMeta { kind: RingItem::ToClient(terms), ..meta_back(HOME) };
    for number in 0..5 {
        world.push(short_lived, &rtp(number));
    }
    world.to_client.wake();
    // Reports continue until the two waiting packets have expired.
    while world.count(|counters| &counters.streams_late) < 2 {
        world.next().await;
    }
    assert_eq!(world.count(|counters| &counters.streams_full), 3);
    assert_eq!(world.count(|counters| &counters.streams_late), 2);
    world.push(short_lived, &rtp(6));
    world.to_client.wake();
    while world.count(|counters| &counters.streams_late) < 3 {
        world.next().await;
    }
    assert_eq!(world.count(|counters| &counters.streams_full), 3, "places come back");
}

#[tokio::test]
async fn full_datagram_queue_is_counted_per_packet() {
    let mut world = World::start(QuicSettings { datagram_queue_bytes: 2_000, ..quiet() });
    let client = world.client().await;
    client.send(FLOW, &rtp(1));
    assert_eq!(world.next_media().await, rtp(1));
    let packet = [&rtp(10)[..], &[7; 488]].concat();
    for _ in 0..50 {
        world.push(meta_back(HOME), &packet);
    }
    world.to_client.wake();
    assert_eq!(client.receive().await, (BACK, packet));
    world.send(OTHER_HOME, &rtp(0));
    world.send(HOME, &rtp(11));
    while client.receive().await.1 != rtp(11) {}
    let sent = world.count(|counters| &counters.sent_datagrams);
    let full = world.count(|counters| &counters.datagrams_full);
    assert_eq!(sent + full, 51);
    assert!(full > 0 && sent >= 4, "{sent} sent, {full} dropped");
}

#[tokio::test]
async fn queued_datagrams_of_a_closed_connection_not_sent() {
    const PACKETS: u64 = 40;
    let mut world = World::start(quiet());
    let client = world.client().await;
    client.send(FLOW, &rtp(1));
    assert_eq!(world.next_media().await, rtp(1));
    // The client gets more than the congestion window allows, and the session ends in the same turn.
    let packet = [&rtp(10)[..], &[7; 1_100]].concat();
    for _ in 0..PACKETS {
        world.push(meta_back(HOME), &packet);
    }
    let counters = Arc::clone(&world.thread.counters);
    drop(world.thread);
    let sent = counters.sent_datagrams.load(Ordering::Relaxed);
    let dropped = counters.datagrams_dropped.load(Ordering::Relaxed);
    assert_eq!(sent + dropped, PACKETS);
    assert!(sent > 0 && dropped > 0, "{sent} sent, {dropped} dropped");
    for _ in 0..sent {
        assert_eq!(client.receive().await, (BACK, packet.clone()));
    }
}
