//! Gathering of packets, and MTU discovery.

use super::*;

/// Attaches a client to its session, at an endpoint with this gather time.
async fn attached(gather: Duration) -> (World, Client) {
    let mut world = World::start(QuicSettings { gather, ..quiet() });
    let client = world.client().await;
    client.send(FLOW, &rtp(0));
    assert_eq!(world.next_media().await, rtp(0));
    (world, client)
}

#[tokio::test]
async fn continuous_packets_are_read_together() {
    const PACKETS: u8 = 20;
    let (mut world, client) = attached(Duration::from_millis(50)).await;
    let before = world.count(|counters| &counters.reads);
    let sent = client.connection.stats().udp_tx.datagrams;
    for number in 1..=PACKETS {
        client.send(FLOW, &rtp(number));
        // Sends one DATAGRAM per UDP datagram.
        while client.connection.stats().frame_tx.datagram <= u64::from(number) {
            tokio::task::yield_now().await;
        }
    }
    assert!(client.connection.stats().udp_tx.datagrams >= sent + u64::from(PACKETS));
    for number in 1..=PACKETS {
        assert_eq!(world.next_media().await, rtp(number));
    }
    let reads = world.count(|counters| &counters.reads) - before;
    assert!(reads < u64::from(PACKETS), "{reads} reads");
}

#[tokio::test]
async fn datagram_size_grows_with_the_path_mtu() {
    let (mut world, client) = attached(Duration::ZERO).await;
    let large = [&rtp(1)[..], &[7; 1_300]].concat();
    for _ in 0..1_000 {
        world.send(HOME, &large);
        tokio::select! {
            (flow, packet) = client.receive() => return assert_eq!((flow, packet), (BACK, large)),
            // The initial MTU.
            stream = client.connection.accept_uni() => {
                let bytes = stream.unwrap().read_to_end(4_096).await.unwrap();
                assert_eq!(bytes, framed(BACK, &[&large]));
            }
        }
    }
    panic!("a path that takes Ethernet frames was taken for a narrower one");
}
