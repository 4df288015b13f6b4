//! Packets to a client over a full path: a relay holds back what the endpoint sends, so that no acknowledgement comes.

use tokio::net::UdpSocket;
use tokio::sync::watch;

use super::*;
use crate::ring::{PacketPriority, SendTerms};

/// Longer than a test.
const LATENCY_LONG: u16 = u16::MAX;
/// Packets of video that are sent in each half. The first window takes 10 or 11 of them.
const HALF: u64 = 40;
/// Packets of video in a full queue.
const QUEUED: u64 = 22;
/// Packets that quinn may hold once its window is closed: a batch.
const BATCH: u64 = 8;
/// Bytes of the queue: those packets, with space for some of voice.
const QUEUE_BYTES: usize = 25_000;

/// Passes datagrams between a client and the endpoint, and holds back those to the client.
struct Relay {
    address: SocketAddr,
    holds: watch::Sender<bool>,
    held: watch::Receiver<usize>,
}

impl Relay {
    async fn start(endpoint: SocketAddr) -> Relay {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        back.connect(endpoint).await.unwrap();
        let address = front.local_addr().unwrap();
        let (holds, mut is_holding) = watch::channel(false);
        let (count_held, held) = watch::channel(0);
        tokio::spawn(async move {
            let (mut to_client, mut from_client) = ([0; 2_048], [0; 2_048]);
            let mut client = address;
            let mut waiting: Vec<Vec<u8>> = Vec::new();
            loop {
                tokio::select! {
                    Ok((length, source)) = front.recv_from(&mut from_client) => {
                        client = source;
                        let _ = back.send(&from_client[..length]).await;
                    }
                    Ok(length) = back.recv(&mut to_client) => {
                        waiting.push(to_client[..length].to_vec());
                    }
                    changed = is_holding.changed() => {
                        if changed.is_err() {
                            return;
                        }
                    }
                    else => return,
                }
                if !*is_holding.borrow() {
                    for datagram in waiting.drain(..) {
                        let _ = front.send_to(&datagram, client).await;
                    }
                }
                let _ = count_held.send(waiting.len());
            }
        });
        Relay { address, holds, held }
    }

    /// Waits until so many datagrams are held back.
    async fn has_held(&mut self, datagrams: usize) {
        self.held.wait_for(|held| *held >= datagrams).await.unwrap();
    }
}

/// Attaches a client to its session through a relay, and sends it video until the window is closed, and then until the queue is full.
async fn blocked() -> (World, Client, Relay) {
    let mut world = World::start(QuicSettings { datagram_queue_bytes: QUEUE_BYTES, ..quiet() });
    let mut relay = Relay::start(world.thread.address).await;
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let config = client_config(&world.thread, true);
    let connecting = endpoint.connect_with(config, relay.address, "localhost").unwrap();
    let client = Client { connection: connecting.await.unwrap() };
    client.send(FLOW, &rtp(1));
    assert_eq!(world.next_media().await, rtp(1));
    relay.holds.send(true).unwrap();
    for half in 0..2 {
        for number in 0..HALF {
            let packet = video((half * HALF + number) as u8);
            push(&mut world, PacketPriority::Video, LATENCY_LONG, &packet);
        }
        world.to_client.wake();
        relay.has_held(10).await;
    }
    let handled = |world: &World| {
        let full = world.count(|counters| &counters.datagrams_full);
        world.count(|counters| &counters.sent_datagrams) + full
    };
    until(&world, |world| handled(world) + QUEUED + BATCH >= 2 * HALF).await;
    (world, client, relay)
}

fn push(world: &mut World, priority: PacketPriority, latency_ms: u16, packet: &[u8]) {
    let kind = RingItem::ToClient(SendTerms { priority, latency_ms });
    world.push(RingMeta { kind, ..meta_back(HOME) }, packet);
}

fn video(number: u8) -> Vec<u8> {
    [&rtp(number)[..], &[7; 1_083]].concat()
}

async fn until(world: &World, is_met: impl Fn(&World) -> bool) {
    while !is_met(world) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn voice_overtakes_waiting_video() {
    const VOICE: [u8; 3] = [100, 101, 102];
    let (mut world, client, relay) = blocked().await;
    for number in VOICE {
        push(&mut world, PacketPriority::Voice, LATENCY_LONG, &rtp(number));
    }
    // The queue is full, so this one tells that those before it are in it.
    let full = world.count(|counters| &counters.datagrams_full);
    push(&mut world, PacketPriority::Video, LATENCY_LONG, &video(99));
    world.to_client.wake();
    until(&world, |world| world.count(|counters| &counters.datagrams_full) > full).await;
    relay.holds.send(false).unwrap();
    let mut received = Vec::new();
    while received.last() != Some(&video(99)) {
        received.push(client.receive().await.1);
    }
    let place = |packet: &Vec<u8>| received.iter().position(|it| it == packet);
    let places: Vec<_> = VOICE.iter().filter_map(|number| place(&rtp(*number))).collect();
    assert_eq!(places.len(), VOICE.len(), "no voice was lost");
    assert!(places.is_sorted(), "voice has its order");
    let behind = received.len() - places[2];
    assert!(behind > 10, "{behind} packets after the voice");
}

#[tokio::test]
async fn late_packets_never_leave() {
    const FIRST: u8 = 100;
    const LAST: u8 = 99;
    let late = |world: &World| world.count(|counters| &counters.datagrams_late);
    let sent = |world: &World| world.count(|counters| &counters.sent_datagrams);
    let (mut world, client, relay) = blocked().await;
    // quinn's probes may open the window for a moment, in which a packet leaves in time.
    let mut pushed = Vec::new();
    while late(&world) < 2 {
        let before = late(&world) + sent(&world);
        let packet = rtp(FIRST + pushed.len() as u8);
        push(&mut world, PacketPriority::Voice, 1, &packet);
        pushed.push(packet);
        world.to_client.wake();
        until(&world, |world| late(world) + sent(world) > before).await;
    }
    push(&mut world, PacketPriority::Voice, LATENCY_LONG, &rtp(LAST));
    world.to_client.wake();
    relay.holds.send(false).unwrap();
    let mut arrived = 0;
    loop {
        let (_, packet) = client.receive().await;
        arrived += u64::from(pushed.contains(&packet));
        if packet == rtp(LAST) {
            break;
        }
    }
    assert_eq!(arrived + late(&world), pushed.len() as u64);
}
