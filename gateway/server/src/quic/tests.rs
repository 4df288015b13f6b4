//! A real client on loopback, a ring at the place of a worker.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evenkeel_media::roq;
use quinn::{ApplicationClose, Connection, ConnectionError, VarInt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::unix::AsyncFd;

use super::*;
use crate::flows::{Entry, Flows, Home, Key};
use crate::ring::{self, Kind, Meta};

const HOME: Home = Home { worker: 0, slot: 5, generation: 2 };
const FLOW: u64 = 0x1234_5678_9abc_def0;
const OTHER_HOME: Home = Home { worker: 0, slot: 6, generation: 1 };
const OTHER_FLOW: u64 = 0x0fed_cba9_8765_4321;
const STRANGE_FLOW: u64 = 7;
const BACK: u64 = 0x2222_3333_4444_5555;
const NEVER: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn a_packet_of_a_known_flow_reaches_its_home() {
    let mut world = World::start(quiet());
    let client = world.client().await;
    client.send(FLOW, &rtp(1));
    client.send(FLOW, RTCP);
    assert_eq!(world.next_but_feedback().await, (meta(Kind::Attached), vec![]));
    assert_eq!(world.next_but_feedback().await, (meta(Kind::Media), rtp(1)));
    assert_eq!(world.next_but_feedback().await, (meta(Kind::Media), RTCP.to_vec()));
    assert_eq!(world.count(|counters| &counters.received_datagrams), 2);
    assert_eq!(world.count(|counters| &counters.attached), 1);
}

#[tokio::test]
async fn a_datagram_of_an_unknown_flow_is_dropped_and_the_connection_kept() {
    let mut world = World::start(quiet());
    let client = world.client().await;
    client.send(STRANGE_FLOW, &rtp(1));
    client.send(FLOW, &rtp(2));
    assert_eq!(world.next_media().await, rtp(2));
    assert_eq!(world.count(|counters| &counters.unknown_flow_datagrams), 1);
}

#[tokio::test]
async fn all_packets_of_a_stream_reach_their_home() {
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
async fn a_stream_of_an_unknown_flow_is_stopped_and_the_connection_kept() {
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
async fn a_stream_is_stopped_when_its_session_ends() {
    let mut world = World::start(quiet());
    let client = world.client().await;
    let mut stream = client.connection.open_uni().await.unwrap();
    stream.write_all(&framed(FLOW, &[&rtp(1)])).await.unwrap();
    assert_eq!(world.next_media().await, rtp(1));
    world.flows.remove(&Key::Roq(FLOW), HOME);
    stream.write_all(&framed(FLOW, &[&rtp(2)])[8..]).await.unwrap();
    assert_eq!(stream.stopped().await.unwrap(), Some(code(roq::ErrorCode::UnknownFlow)));
}

#[tokio::test]
async fn a_stream_with_what_is_not_rtp_is_stopped_and_the_connection_kept() {
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
async fn a_stream_that_ends_within_a_packet_closes_the_connection() {
    let world = World::start(quiet());
    for cut in [1, 8, 9, 12] {
        let client = world.client().await;
        let mut stream = client.connection.open_uni().await.unwrap();
        let end = if cut == 1 { 3 } else { cut };
        stream.write_all(&framed(FLOW, &[&rtp(1)])[..end]).await.unwrap();
        stream.finish().unwrap();
        if cut == 8 {
            // Only a flow: nothing is missing.
            stream.stopped().await.unwrap();
            assert_eq!(client.connection.close_reason(), None);
        } else {
            assert_eq!(client.close_code().await, roq::ErrorCode::Packet.code());
        }
    }
    assert_eq!(world.count(|counters| &counters.malformed), 3);
}

#[tokio::test]
async fn a_stream_that_its_client_resets_is_no_error() {
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
async fn a_datagram_that_is_not_framed_closes_the_connection() {
    let world = World::start(quiet());
    for wrong in [&[][..], &[0xc0, 1, 2], &[0x07]] {
        let client = world.client().await;
        client.connection.send_datagram(wrong.to_vec().into()).unwrap();
        assert_eq!(client.close_code().await, roq::ErrorCode::Packet.code());
    }
    assert_eq!(world.count(|counters| &counters.malformed), 3);
}

#[tokio::test]
async fn a_datagram_of_a_known_flow_that_is_not_rtp_closes_the_connection() {
    let world = World::start(quiet());
    let client = world.client().await;
    client.send(FLOW, b"GET / HTTP/1.1");
    assert_eq!(client.close_code().await, roq::ErrorCode::Packet.code());
    assert_eq!(world.count(|counters| &counters.not_rtp), 1);
}

#[tokio::test]
async fn a_bidirectional_stream_closes_the_connection() {
    let world = World::start(quiet());
    let client = world.client().await;
    let (mut stream, _receive) = client.connection.open_bi().await.unwrap();
    // The close may come before the write is done with.
    let _ = stream.write_all(&framed(FLOW, &[&rtp(1)])).await;
    assert_eq!(client.close_code().await, roq::ErrorCode::StreamCreation.code());
    assert_eq!(world.count(|counters| &counters.bidirectional), 1);
}

#[tokio::test]
async fn a_connection_without_a_flow_is_closed_and_one_with_a_flow_is_not() {
    let settings = Settings {
        flowless_after: Duration::from_millis(300),
        feedback_every: Duration::from_millis(5),
        ..quiet()
    };
    let mut world = World::start(settings);
    let useful = world.client().await;
    useful.send(FLOW, &rtp(1));
    assert_eq!(world.next_media().await, rtp(1));
    let useless = world.client().await;
    useless.send(STRANGE_FLOW, &rtp(1));
    assert_eq!(useless.close_code().await, roq::ErrorCode::General.code());
    assert_eq!(useful.connection.close_reason(), None);
    assert_eq!(world.count(|counters| &counters.flowless), 1);
}

#[tokio::test]
async fn a_connection_whose_sessions_ended_is_closed() {
    let settings = Settings {
        flowless_after: Duration::from_millis(300),
        feedback_every: Duration::from_millis(5),
        ..quiet()
    };
    let mut world = World::start(settings);
    let client = world.client().await;
    client.send(FLOW, &rtp(1));
    assert_eq!(world.next_media().await, rtp(1));
    world.flows.remove(&Key::Roq(FLOW), HOME);
    assert_eq!(client.close_code().await, roq::ErrorCode::General.code());
}

#[tokio::test]
async fn connections_are_bounded_and_their_places_come_back() {
    let world = World::start(Settings { connections_max: 1, ..quiet() });
    let first = world.client().await;
    let refused = world.connect(client_config(&world.thread, true)).await.unwrap_err();
    assert!(matches!(refused, ConnectionError::ConnectionClosed(_)), "{refused}");
    assert!(world.count(|counters| &counters.connections_refused) >= 1);
    first.connection.close(VarInt::from_u32(0), b"");
    // Until the endpoint has heard of it.
    while world.connect(client_config(&world.thread, true)).await.is_err() {}
}

#[tokio::test]
async fn a_client_that_speaks_something_else_is_not_let_in() {
    let world = World::start(quiet());
    for alpn in [vec![], vec![b"roq-13".to_vec()], vec![b"h3".to_vec()]] {
        assert!(world.connect(client_speaking(&world.thread, true, alpn)).await.is_err());
    }
}

#[tokio::test]
async fn packets_go_to_the_connection_that_last_delivered_one() {
    let mut world = World::start(quiet());
    let (first, second) = (world.client().await, world.client().await);
    first.send(FLOW, &rtp(1));
    assert_eq!(world.next_media().await, rtp(1));
    world.send(HOME, &rtp(10));
    assert_eq!(first.receive().await, (BACK, rtp(10)));
    second.send(FLOW, &rtp(2));
    assert_eq!(world.next_but_feedback().await, (meta(Kind::Attached), vec![]));
    assert_eq!(world.next_media().await, rtp(2));
    world.send(HOME, &rtp(11));
    assert_eq!(second.receive().await, (BACK, rtp(11)));
    // Another session's packet, and one of nobody, take nothing.
    first.send(OTHER_FLOW, &rtp(3));
    first.send(STRANGE_FLOW, &rtp(4));
    first.send(OTHER_FLOW, &rtp(5));
    while world.next().await.1 != rtp(5) {}
    world.send(HOME, &rtp(12));
    assert_eq!(second.receive().await, (BACK, rtp(12)));
    assert_eq!(world.count(|counters| &counters.sent_datagrams), 3);
}

#[tokio::test]
async fn the_end_of_a_connection_that_a_session_left_is_nothing_to_it() {
    let mut world = World::start(quiet());
    let (first, second) = (world.client().await, world.client().await);
    first.send(FLOW, &rtp(1));
    assert_eq!(world.next_media().await, rtp(1));
    second.send(FLOW, &rtp(2));
    assert_eq!(world.next_media().await, rtp(2));
    first.send(OTHER_FLOW, &rtp(3));
    assert_eq!(world.next_media().await, rtp(3));
    first.connection.close(VarInt::from_u32(0), b"");
    let gone = Meta { home: OTHER_HOME, kind: Kind::Detached, flow: OTHER_FLOW };
    assert_eq!(world.next_but_feedback().await, (gone, vec![]));
    world.send(HOME, &rtp(10));
    assert_eq!(second.receive().await, (BACK, rtp(10)));
    assert_eq!(world.count(|counters| &counters.attached), 1);
}

#[tokio::test]
async fn a_session_without_a_connection_is_sent_nothing_and_that_is_counted() {
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
async fn a_session_that_its_worker_ended_is_sent_nothing() {
    let mut world = World::start(quiet());
    let client = world.client().await;
    client.send(FLOW, &rtp(1));
    client.send(OTHER_FLOW, &rtp(2));
    while world.next().await.1 != rtp(2) {}
    world.push(Meta { home: HOME, kind: Kind::Detached, flow: 0 }, &[]);
    world.send(HOME, &rtp(10));
    world.send(OTHER_HOME, &rtp(11));
    assert_eq!(client.receive().await, (BACK, rtp(11)));
    assert_eq!(world.count(|counters| &counters.unattached), 1);
    assert_eq!(world.count(|counters| &counters.attached), 1);
}

#[tokio::test]
async fn a_worker_is_told_when_its_client_is_gone() {
    let mut world = World::start(quiet());
    let client = world.client().await;
    client.send(FLOW, &rtp(1));
    assert_eq!(world.next_media().await, rtp(1));
    client.connection.close(VarInt::from_u32(0), b"");
    assert_eq!(world.next_but_feedback().await, (meta(Kind::Detached), vec![]));
    assert_eq!(world.count(|counters| &counters.attached), 0);
}

#[tokio::test]
async fn a_packet_too_large_for_a_datagram_goes_by_a_stream() {
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
async fn a_client_without_datagrams_gets_a_stream_for_each_packet() {
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
async fn streams_to_a_client_are_bounded_in_number_and_time() {
    let settings = Settings {
        streams_out_max: 2,
        stream_lifetime: Duration::from_millis(20),
        feedback_every: Duration::from_millis(5),
        ..quiet()
    };
    let mut world = World::start(settings);
    let config = client_without_credit(&world.thread);
    let client = Client { connection: world.connect(config).await.unwrap() };
    let mut stream = client.connection.open_uni().await.unwrap();
    stream.write_all(&framed(FLOW, &[&rtp(1)])).await.unwrap();
    assert_eq!(world.next_media().await, rtp(1));
    for number in 0..5 {
        world.push(meta_back(HOME), &rtp(number));
    }
    world.to_client.wake();
    // Reports keep coming; by one of them the two that waited are too old.
    while world.count(|counters| &counters.streams_late) < 2 {
        world.next().await;
    }
    assert_eq!(world.count(|counters| &counters.streams_full), 3);
    assert_eq!(world.count(|counters| &counters.streams_late), 2);
    world.send(HOME, &rtp(6));
    while world.count(|counters| &counters.streams_late) < 3 {
        world.next().await;
    }
    assert_eq!(world.count(|counters| &counters.streams_full), 3, "places come back");
}

#[tokio::test]
async fn what_does_not_fit_the_queue_of_datagrams_is_counted_one_by_one() {
    let mut world = World::start(Settings { datagram_queue_bytes: 2_000, ..quiet() });
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
async fn every_datagram_that_came_is_counted_whether_we_got_to_read_it_or_not() {
    let mut world = World::start(Settings { datagram_queue_bytes: 600, ..quiet() });
    let client = world.client().await;
    let packet = [&rtp(1)[..], &[7; 400]].concat();
    for _ in 0..20 {
        client.send(FLOW, &packet);
    }
    while client.connection.stats().frame_tx.datagram < 20 {
        tokio::task::yield_now().await;
    }
    client.connection.close(VarInt::from_u32(0), b"");
    while world.next().await.0.kind != Kind::Detached {}
    let received = world.count(|counters| &counters.received_datagrams);
    let overflow = world.count(|counters| &counters.receive_overflow);
    assert_eq!(received + overflow, 20);
    assert!(overflow > 0);
}

#[tokio::test]
async fn what_does_not_fit_the_ring_is_counted() {
    let mut world = World::start_with(quiet(), 4);
    let client = world.client().await;
    for number in 0..10 {
        client.send(FLOW, &rtp(number));
    }
    client.send(FLOW, b"the end");
    client.close_code().await;
    assert_eq!(world.next_but_feedback().await.0, meta(Kind::Attached));
    for number in 0..3 {
        assert_eq!(world.next_media().await, rtp(number));
    }
    assert_eq!(world.count(|counters| &counters.received_datagrams), 10);
    assert!(world.count(|counters| &counters.ring_full) >= 7);
}

#[tokio::test]
async fn a_worker_is_told_how_the_path_of_its_session_does() {
    let mut world = World::start(Settings { feedback_every: Duration::from_millis(5), ..quiet() });
    let client = world.client().await;
    client.send(FLOW, &rtp(1));
    let mut sent_in_all = 0;
    let mut reports = 0;
    while sent_in_all == 0 || reports < 3 {
        let (meta, bytes) = world.next().await;
        if let Kind::Feedback { rtt_us, lost, sent } = meta.kind {
            assert_eq!((meta.home, meta.flow, bytes.len()), (HOME, FLOW, 0));
            assert!(rtt_us > 0);
            assert_eq!(lost, 0);
            sent_in_all += sent;
            reports += 1;
        }
    }
}

#[tokio::test]
async fn a_certificate_from_files_is_the_one_shown() {
    let made = rcgen::generate_simple_self_signed(vec!["gateway.example".into()]).unwrap();
    let folder = std::env::temp_dir().join(format!("evenkeel-quic-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let missing = folder.join("missing.pem");
    let files = |chain: &std::path::Path, key: &std::path::Path| {
        let certificate = Certificate::Files { chain: chain.to_owned(), key: key.to_owned() };
        Settings { certificate, ..quiet() }
    };

    let world = World::start(files(&chain, &key));
    let digest = sha256(made.cert.der());
    assert_eq!(world.thread.certificate_sha256, digest);
    world.client().await;
    let absent = start(files(&chain, &missing), Arc::clone(&world.flows), vec![], vec![]);
    assert!(absent.unwrap_err().to_string().contains("missing.pem"));
    let swapped = start(files(&key, &chain), Arc::clone(&world.flows), vec![], vec![]);
    swapped.unwrap_err();
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let world = World::start(quiet());
    let settings = Settings { listen: world.thread.address, ..quiet() };
    let failure = start(settings, Arc::clone(&world.flows), vec![], vec![]).unwrap_err();
    assert!(failure.to_string().contains(&world.thread.address.to_string()), "{failure}");
}

#[tokio::test]
async fn clients_are_told_that_the_gateway_ends() {
    let mut world = World::start(quiet());
    let client = world.client().await;
    client.send(FLOW, &rtp(1));
    assert_eq!(world.next_media().await, rtp(1));
    assert!(world.thread.is_running());
    world.thread.shut_down();
    assert_eq!(client.close_code().await, roq::ErrorCode::NoError.code());
}

struct World {
    thread: Thread,
    flows: Arc<Flows>,
    to_client: ring::Sender,
    from_client: AsyncFd<ring::Receiver>,
    came: std::collections::VecDeque<(Meta, Vec<u8>)>,
}

impl World {
    fn start(settings: Settings) -> World {
        World::start_with(settings, 1_024)
    }

    fn start_with(settings: Settings, slots: usize) -> World {
        let flows = Arc::new(Flows::new(10));
        flows.insert(Key::Roq(FLOW), Entry::of(HOME)).unwrap();
        flows.insert(Key::Roq(OTHER_FLOW), Entry::of(OTHER_HOME)).unwrap();
        let (to_worker, from_client) = ring::channel(slots).unwrap();
        let (to_client, from_worker) = ring::channel(1_024).unwrap();
        let thread =
            start(settings, Arc::clone(&flows), vec![to_worker], vec![from_worker]).unwrap();
        let from_client = from_client.into_async().unwrap();
        World { thread, flows, to_client, from_client, came: Default::default() }
    }

    async fn connect(&self, config: quinn::ClientConfig) -> Result<Connection, ConnectionError> {
        let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        endpoint.connect_with(config, self.thread.address, "localhost").unwrap().await
    }

    async fn client(&self) -> Client {
        self.client_with(true).await
    }

    async fn client_with(&self, datagrams: bool) -> Client {
        Client { connection: self.connect(client_config(&self.thread, datagrams)).await.unwrap() }
    }

    /// What comes out of the ring next.
    async fn next(&mut self) -> (Meta, Vec<u8>) {
        loop {
            if let Some(came) = self.came.pop_front() {
                return came;
            }
            let came = &mut self.came;
            let ring = self.from_client.get_mut();
            if ring.pop_batch(64, |meta, bytes| came.push_back((*meta, bytes.to_vec()))) == 0 {
                self.from_client.readable_mut().await.unwrap().clear_ready();
            }
        }
    }

    /// What is measured of the path may come at any time.
    async fn next_but_feedback(&mut self) -> (Meta, Vec<u8>) {
        loop {
            let came = self.next().await;
            if !matches!(came.0.kind, Kind::Feedback { .. }) {
                return came;
            }
        }
    }

    async fn next_media(&mut self) -> Vec<u8> {
        loop {
            let (meta, bytes) = self.next().await;
            if meta.kind == Kind::Media {
                return bytes;
            }
        }
    }

    fn send(&mut self, home: Home, packet: &[u8]) {
        self.push(meta_back(home), packet);
        self.to_client.wake();
    }

    fn push(&mut self, meta: Meta, packet: &[u8]) {
        self.to_client.push(meta, packet).unwrap();
    }

    fn count(&self, counter: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        counter(&self.thread.counters).load(Ordering::Relaxed)
    }
}

struct Client {
    connection: Connection,
}

impl Client {
    fn send(&self, flow: u64, packet: &[u8]) {
        let mut datagram = Vec::new();
        roq::write_datagram(roq::Flow::new(flow).unwrap(), packet, &mut datagram);
        self.connection.send_datagram(datagram.into()).unwrap();
    }

    async fn receive(&self) -> (u64, Vec<u8>) {
        let datagram = self.connection.read_datagram().await.unwrap();
        let (flow, packet) = roq::read_datagram(&datagram).unwrap();
        (flow.number(), packet.to_vec())
    }

    async fn close_code(&self) -> u64 {
        match self.connection.closed().await {
            ConnectionError::ApplicationClosed(ApplicationClose { error_code, .. }) => {
                error_code.into_inner()
            }
            other => panic!("closed by {other}"),
        }
    }
}

/// Settings whose timers never fire while a test runs.
fn quiet() -> Settings {
    Settings {
        flowless_after: NEVER,
        feedback_every: NEVER,
        idle_after: NEVER,
        keep_alive_every: NEVER,
        ..Settings::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }
}

fn meta(kind: Kind) -> Meta {
    Meta { home: HOME, kind, flow: FLOW }
}

fn meta_back(home: Home) -> Meta {
    Meta { home, kind: Kind::Media, flow: BACK }
}

const RTCP: &[u8] = &[0x80, 201, 0, 1, 0, 0, 0, 1];

fn rtp(number: u8) -> Vec<u8> {
    [&[0x80, 111, 0, number, 0, 0, 0, 0, 0, 0, 0, 9][..], b"voice"].concat()
}

fn framed(flow: u64, packets: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    roq::write_stream_start(roq::Flow::new(flow).unwrap(), &mut bytes);
    for packet in packets {
        roq::write_stream_packet(packet, &mut bytes);
    }
    bytes
}

fn client_config(thread: &Thread, datagrams: bool) -> quinn::ClientConfig {
    client_speaking(thread, datagrams, vec![roq::ALPN.to_vec()])
}

fn client_speaking(thread: &Thread, datagrams: bool, alpn: Vec<Vec<u8>>) -> quinn::ClientConfig {
    let mut transport = quinn::TransportConfig::default();
    if !datagrams {
        transport.datagram_receive_buffer_size(None);
    }
    client_with_transport(thread, transport, alpn)
}

fn client_without_credit(thread: &Thread) -> quinn::ClientConfig {
    let mut transport = quinn::TransportConfig::default();
    transport.datagram_receive_buffer_size(None).max_concurrent_uni_streams(VarInt::from_u32(0));
    client_with_transport(thread, transport, vec![roq::ALPN.to_vec()])
}

fn client_with_transport(
    thread: &Thread,
    transport: quinn::TransportConfig,
    alpn: Vec<Vec<u8>>,
) -> quinn::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Fingerprint(thread.certificate_sha256)))
        .with_no_client_auth();
    tls.alpn_protocols = alpn;
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport));
    config
}

/// Trusts the certificate with this SHA-256, as a client does that was told it by the admin API.
#[derive(Debug)]
struct Fingerprint([u8; 32]);

impl ServerCertVerifier for Fingerprint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if sha256(end_entity) == self.0 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::CertificateError::UnknownIssuer.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("QUIC has TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    ::ring::digest::digest(&::ring::digest::SHA256, bytes).as_ref().try_into().unwrap()
}
