//! Connections that outlive the process that accepted them.

use std::os::fd::BorrowedFd;

use super::*;

const LATER_HOME: Home = Home { worker: 0, slot: 7, generation: 1 };
const LATER_FLOW: u64 = 0x1111_2222_3333_4444;

/// Replaces the thread by one of another process.
fn replaced(old: &World) -> World {
    let thread = &old.thread;
    let socket = Some(thread.try_clone_socket().unwrap());
    let identity = Some(thread.identity.successor());
    let new = World::suspended(listen(quiet(), socket, identity).unwrap());
    let handed = thread.pause().unwrap();
    let links = handed.links().map(|link: BorrowedFd<'_>| link.try_clone_to_owned().unwrap());
    let handed = HandedConnections::decode(&handed.encode(), links.collect()).unwrap();
    thread.follow();
    new.thread.adopt(handed);
    new.thread.resumer().resume();
    new
}

/// A client that has sent its first packet.
async fn heard_client(world: &mut World) -> Client {
    let client = world.client().await;
    client.send(FLOW, &rtp(1));
    assert_eq!(world.next_media().await, rtp(1));
    client
}

/// Asserts that the session's packets pass both ways.
async fn assert_served(world: &mut World, client: &Client, number: u8) {
    // First to the client: its connection is known before it sends.
    world.send(HOME, &rtp(number));
    assert_eq!(client.receive().await, (BACK, rtp(number)));
    client.send(FLOW, &rtp(number));
    assert_eq!(world.next_media().await, rtp(number));
}

/// Waits for the end of the thread.
async fn await_end(world: &World) {
    let ending = async {
        while world.thread.is_running() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ending).await.unwrap();
}

#[tokio::test]
async fn connection_survives_two_upgrades() {
    let mut first = World::start(quiet());
    let client = heard_client(&mut first).await;
    let mut second = replaced(&first);
    assert_served(&mut second, &client, 2).await;
    assert_eq!(second.count(|counters| &counters.connections), 0, "the first process has it");
    assert_eq!(second.count(|counters| &counters.attached), 1);
    let later = second.client().await;
    later.send(OTHER_FLOW, &rtp(3));
    assert_eq!(second.next_media().await, rtp(3));
    let mut third = replaced(&second);
    assert_served(&mut third, &client, 4).await;
    third.send(OTHER_HOME, &rtp(5));
    assert_eq!(later.receive().await, (BACK, rtp(5)));
    let newest = third.client().await;
    newest.send(OTHER_FLOW, &rtp(6));
    assert_eq!(third.next_media().await, rtp(6));
    for client in [&client, &later, &newest] {
        assert_eq!(client.connection.close_reason(), None);
    }
    assert_eq!(third.count(|counters| &counters.sent_by_predecessors), 2);
    assert_eq!(third.count(|counters| &counters.received_by_predecessors), 1);
}

#[tokio::test]
async fn handshake_begun_before_the_upgrade_completes() {
    let old = World::start(quiet());
    let mut connecting = Box::pin(old.connect(client_config(&old.thread, true)));
    while old.count(|counters| &counters.connections) == 0 {
        let early = tokio::time::timeout(Duration::ZERO, &mut connecting).await;
        assert!(early.is_err(), "the client runs only at times");
        tokio::task::yield_now().await;
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut new = replaced(&old);
    let client = Client { connection: connecting.await.unwrap() };
    client.send(FLOW, &rtp(1));
    assert_eq!(new.next_media().await, rtp(1));
    assert_served(&mut new, &client, 2).await;
}

#[tokio::test]
async fn streams_of_a_kept_connection_pass() {
    let mut old = World::start(quiet());
    let client = heard_client(&mut old).await;
    let mut new = replaced(&old);
    let mut stream = client.connection.open_uni().await.unwrap();
    stream.write_all(&framed(FLOW, &[&rtp(2), RTCP])).await.unwrap();
    assert_eq!((new.next_media().await, new.next_media().await), (rtp(2), RTCP.to_vec()));
    let large = [&rtp(3)[..], &[7; 1_900]].concat();
    new.send(HOME, &large);
    let mut stream = client.connection.accept_uni().await.unwrap();
    let bytes = stream.read_to_end(4_096).await.unwrap();
    assert_eq!(bytes, framed(BACK, &[&large]));
}

#[tokio::test]
async fn paused_thread_continues_with_all_packets() {
    let mut world = World::start(quiet());
    let client = world.client().await;
    client.send(FLOW, &rtp(1));
    assert_eq!(world.next_media().await, rtp(1));
    drop(world.thread.pause().unwrap());
    client.send(FLOW, &rtp(2));
    world.send(HOME, &rtp(3));
    let waiting = tokio::time::timeout(Duration::from_millis(50), client.receive()).await;
    assert!(waiting.is_err(), "{waiting:?}");
    world.thread.resumer().resume();
    assert_eq!(world.next_media().await, rtp(2));
    assert_eq!(client.receive().await, (BACK, rtp(3)));
    let mut new = replaced(&world);
    assert_served(&mut new, &client, 4).await;
}

#[tokio::test]
async fn packets_of_the_last_pass_reach_the_client() {
    let mut old = World::start(quiet());
    let client = heard_client(&mut old).await;
    let socket = Some(old.thread.try_clone_socket().unwrap());
    let identity = Some(old.thread.identity.successor());
    let new = World::suspended(listen(quiet(), socket, identity).unwrap());
    let handed = old.thread.pause().unwrap();
    // A worker passes it on while it hands its sessions over.
    old.send(HOME, &rtp(2));
    old.thread.follow();
    new.thread.adopt(handed);
    new.thread.resumer().resume();
    assert_eq!(client.receive().await, (BACK, rtp(2)));
}

#[tokio::test]
async fn session_opened_later_uses_a_kept_connection() {
    let mut old = World::start(quiet());
    let client = heard_client(&mut old).await;
    let mut new = replaced(&old);
    new.flows.insert(FlowKey::Roq(LATER_FLOW), FlowEntry::of(LATER_HOME)).unwrap();
    client.send(LATER_FLOW, &rtp(2));
    let packet = RingMeta { home: LATER_HOME, kind: RingItem::Rtp, flow: LATER_FLOW };
    assert_eq!(new.next_but_path().await, (packet, rtp(2)));
    // The flow is known from then on.
    while new.count(|counters| &counters.attached) < 2 {
        client.send(LATER_FLOW, &rtp(3));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    new.send(LATER_HOME, &rtp(4));
    assert_eq!(client.receive().await, (BACK, rtp(4)));
}

#[tokio::test]
async fn kept_connection_is_closed_after_its_last_session() {
    // The client connects and sends in less.
    let flowless_after = Duration::from_millis(500);
    let feedback_every = Duration::from_millis(1);
    let mut old = World::start(QuicSettings { flowless_after, feedback_every, ..quiet() });
    let client = old.client().await;
    let mut sending = tokio::time::interval(Duration::from_millis(1));
    client.send(FLOW, &rtp(1));
    assert_eq!(old.next_media().await, rtp(1));
    let new = replaced(&old);
    new.flows.remove(&FlowKey::Roq(FLOW), HOME);
    let closed = async {
        loop {
            tokio::select! {
                code = client.close_code() => break code,
                _ = sending.tick() => {
                    let mut datagram = Vec::new();
                    roq::write_datagram(roq::FlowId::new(FLOW).unwrap(), &rtp(2), &mut datagram);
                    // Fails once the connection is closed.
                    let _ = client.connection.send_datagram(datagram.into());
                }
            }
        }
    };
    let closed = tokio::time::timeout(Duration::from_secs(20), closed).await.unwrap();
    assert_eq!(closed, roq::ErrorCode::General.code());
    assert!(new.count(|counters| &counters.unknown_flow_datagrams) > 0);
    await_end(&old).await;
}

#[tokio::test]
async fn predecessor_ends_with_its_last_connection() {
    let mut old = World::start(quiet());
    let (client, other) = (old.client().await, old.client().await);
    client.send(FLOW, &rtp(1));
    assert_eq!(old.next_media().await, rtp(1));
    let mut new = replaced(&old);
    other.connection.close(VarInt::from_u32(0), b"");
    assert_served(&mut new, &client, 2).await;
    assert!(old.thread.is_running());
    client.connection.close(VarInt::from_u32(0), b"");
    assert_eq!(new.next_but_path().await, (meta(RingItem::Detached), vec![]));
    await_end(&old).await;
}

#[tokio::test]
async fn shutdown_closes_kept_connections() {
    let mut old = World::start(quiet());
    let client = heard_client(&mut old).await;
    let new = replaced(&old);
    tokio::task::spawn_blocking(move || drop(new.thread)).await.unwrap();
    match client.connection.closed().await {
        ConnectionError::ApplicationClosed(close) => {
            assert_eq!(&close.reason[..], b"the gateway is shutting down");
        }
        other => panic!("closed by {other}"),
    }
    await_end(&old).await;
}

#[tokio::test]
async fn client_of_an_ended_predecessor_is_reset() {
    let mut old = World::start(quiet());
    let client = heard_client(&mut old).await;
    let mut new = replaced(&old);
    assert_served(&mut new, &client, 2).await;
    let socket = Some(new.thread.try_clone_socket().unwrap());
    let identity = Some(new.thread.identity.successor());
    // The third process does not get the links.
    let third = World::suspended(listen(quiet(), socket, identity).unwrap());
    new.thread.close_connections();
    third.thread.resumer().resume();
    // A reset is shorter than its cause.
    client.send(FLOW, &rtp(3).repeat(10));
    assert_eq!(client.connection.closed().await, ConnectionError::Reset);
    await_end(&old).await;
}

#[tokio::test]
async fn kept_connections_wait_for_the_lease() {
    let mut old = World::start(quiet());
    let client = heard_client(&mut old).await;
    let mut new = replaced(&old);
    assert_served(&mut new, &client, 2).await;
    // That of the replaced process ends with its membership, which means nothing.
    old.lease.end();
    assert_served(&mut new, &client, 3).await;
    new.lease.end();
    new.send(HOME, &rtp(4));
    let came = tokio::time::timeout(Duration::from_millis(50), client.receive()).await;
    assert!(came.is_err(), "{came:?}");
    new.lease.renew_forever();
    assert_eq!(client.receive().await, (BACK, rtp(4)));
}
