//! The end of an endpoint's lease.

use std::time::Instant;

use super::*;

#[tokio::test]
async fn packets_wait_for_the_lease() {
    let mut world = World::start(quiet());
    let client = world.client().await;
    client.send(FLOW, &rtp(1));
    assert_eq!(world.next_media().await, rtp(1));
    world.lease.end();
    client.send(FLOW, &rtp(2));
    world.send(HOME, &rtp(3));
    let came = tokio::time::timeout(Duration::from_millis(50), client.receive()).await;
    assert!(came.is_err(), "{came:?}");
    client.send(FLOW, &rtp(4));
    world.send(HOME, &rtp(5));
    world.lease.renew(Instant::now() + NEVER);
    assert_eq!((world.next_media().await, world.next_media().await), (rtp(2), rtp(4)));
    assert_eq!((client.receive().await, client.receive().await), ((BACK, rtp(3)), (BACK, rtp(5))));
}

#[tokio::test]
async fn endpoint_without_a_lease_ends_silently() {
    let world = World::start(quiet());
    let client = world.client().await;
    world.lease.end();
    let (lease, thread) = (world.lease, world.thread);
    tokio::task::spawn_blocking(move || drop(thread)).await.unwrap();
    assert!(client.connection.close_reason().is_none());
    assert!(!lease.is_held(Instant::now));
}
