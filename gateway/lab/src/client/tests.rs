use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use evenkeel_media::roq::{self, FlowId};
use evenkeel_media::stun;

use super::*;
use crate::clock;
use crate::ledger::{Books, RoomParticipant};
use crate::sample_node::{PlainRoom, SampleNode, SampleNodeOptions, number_of};
use crate::tests::quic_server::{self, QuicServer};

/// Enough packets for statistics.
const ENOUGH: u64 = 40;

struct Rig {
    ledger: Books,
    fleet: ClientFleet,
}

impl Rig {
    fn new() -> Self {
        let ledger = Books::default();
        let fleet = ClientFleet::start(&ledger).unwrap();
        Self { ledger, fleet }
    }

    fn member(&self, session: u64, room: u64) {
        self.ledger.open().join(RoomParticipant { session, room, from_ns: 0, until_ns: u64::MAX });
    }

    fn wait(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !done(self) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.fleet.states());
            std::thread::yield_now();
        }
    }

    fn wait_arrived(&self, count: u64) {
        self.wait("packets arrive", |rig| rig.ledger.open().arrived_count() >= count);
    }

    /// Waits until every packet that was sent so far has arrived.
    fn settle(&self) {
        let sent = |rig: &Rig| rig.fleet.states().values().map(|it| it.tally.packets_sent).sum();
        let so_far: u64 = sent(self);
        self.ledger.open().due_between(0, clock::now_ns());
        self.wait("all is noted", |rig| rig.ledger.open().sent_count() >= so_far);
        self.wait("all arrive", |rig| rig.ledger.open().missing().is_empty());
    }

    fn state(&self, session: u64) -> ClientState {
        self.fleet.state(session).unwrap()
    }
}

fn persona(session: u64, video: bool) -> Persona {
    Persona { session, seed: session, voice: true, video }
}

fn udp(gateway: SocketAddr) -> UdpWay {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    UdpWay { socket, gateway, ice: None, webrtc: None }
}

/// A sample node on port legs, all in one room.
fn node(untouched: bool) -> (SocketAddr, impl FnOnce() -> crate::sample_node::SampleNodeCounters) {
    let mut options = SampleNodeOptions::new("127.0.0.1:0".parse().unwrap(), "n1");
    (options.untouched, options.plain_room) = (untouched, PlainRoom::Shared);
    let node = SampleNode::bind(options).unwrap();
    let (address, ending) = (node.address(), node.ending());
    let thread = std::thread::spawn(move || node.run().unwrap());
    (address, move || {
        ending.store(true, Ordering::Relaxed);
        thread.join().unwrap()
    })
}

#[test]
fn two_clients_hear_each_other() {
    for untouched in [false, true] {
        let (node, end) = node(untouched);
        let rig = Rig::new();
        // The node learns both sources from their first reports, so that both receive from the start.
        for session in [1, 2] {
            rig.fleet.join(persona(session, true), ClientPath::Udp(udp(node)));
        }
        rig.wait("both hear", |rig| {
            [1, 2].iter().all(|&s| rig.state(s).tally.packets_received > 0)
        });
        let from_ns = clock::now_ns();
        for session in [1, 2] {
            let until_ns = u64::MAX;
            rig.ledger.open().join(RoomParticipant { session, room: 1, from_ns, until_ns });
        }
        let before = rig.ledger.open().arrived_count();
        rig.wait_arrived(before + 4 * ENOUGH);
        rig.settle();
        let Rig { ledger, fleet } = rig;
        drop(fleet);
        let ledger = ledger.open();
        assert_eq!(ledger.misdelivered(), []);
        assert_eq!(ledger.twice(), []);
        assert_eq!(ledger.continuity_breaks(), []);
        assert_eq!(ledger.splits(Duration::ZERO), []);
        assert!(ledger.gaps_at(ledger.member(1).unwrap().from_ns).len() == 2);
        assert_eq!(
            ledger.rooms_on(number_of("n1"), u64::MAX),
            std::collections::BTreeSet::from([1])
        );
        assert!(end().sender_reports >= 2);
    }
}

#[test]
fn kernel_stamp_lies_between_send_and_read() {
    let (node, _end) = node(false);
    let rig = Rig::new();
    rig.fleet.join(persona(1, false), ClientPath::Udp(udp(node)));
    rig.wait_arrived(3);
    let now_ns = clock::now_ns();
    let ledger = rig.ledger.open();
    let heard: Vec<_> = ledger.misdelivered();
    assert!(heard.len() >= 3, "of nobody's room yet");
    assert!(
        heard.iter().all(|arrival| arrival.sent_ns <= arrival.at_ns && arrival.at_ns <= now_ns)
    );
}

#[test]
fn packet_from_elsewhere_is_foreign() {
    let (node, _end) = node(false);
    let rig = Rig::new();
    let way = udp(node);
    let client = way.socket.local_addr().unwrap();
    rig.fleet.join(persona(1, false), ClientPath::Udp(way));
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&[0x80, 111], client).unwrap();
    rig.wait("it is counted", |rig| rig.state(1).tally.foreign == 1);
}

#[test]
fn client_that_left_is_remembered() {
    let (node, end) = node(false);
    let rig = Rig::new();
    rig.fleet.join(persona(1, false), ClientPath::Udp(udp(node)));
    rig.wait_arrived(3);
    rig.fleet.leave(1);
    let roster = Arc::clone(&rig.fleet.roster);
    // It returns once the client has left.
    drop(rig.fleet);
    let sent = lock(&roster)[&1].tally.packets_sent;
    assert_eq!(rig.ledger.open().sent_count(), sent);
    assert!(end().packets_in > sent, "its reports came too");
}

#[test]
fn ice_client_sends_no_media_before_an_answer() {
    let gateway = UdpSocket::bind("127.0.0.1:0").unwrap();
    gateway.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let rig = Rig::new();
    let key = stun::StunKey::new("the password of the session");
    let ice = Credentials { ufrag: "gate".into(), password: "the password of the session".into() };
    let way = UdpWay { ice: Some(ice), ..udp(gateway.local_addr().unwrap()) };
    rig.fleet.join(persona(1, false), ClientPath::Udp(way));
    let mut buffer = [0; 2_048];
    for round in 0..3 {
        let (length, source) = gateway.recv_from(&mut buffer).unwrap();
        let request = stun::BindingRequest::parse(&buffer[..length]).unwrap();
        assert_eq!(request.username().unwrap().server_ufrag, "gate");
        assert!(request.use_candidate() && request.message.verify(&key).is_ok());
        let mut answer = Vec::new();
        // The server drops the first check, signs the second answer with another password, and answers the third
        // correctly.
        let other = stun::StunKey::new("another password altogether");
        match round {
            0 => continue,
            1 => stun::write_success(
                request.message.transaction(),
                source,
                Some(&other),
                &mut answer,
            ),
            _ => {
                stun::write_success(request.message.transaction(), source, Some(&key), &mut answer);
            }
        }
        gateway.send_to(&answer, source).unwrap();
    }
    loop {
        let (length, _) = gateway.recv_from(&mut buffer).unwrap();
        if !stun::is_stun(&buffer[..length]) {
            break;
        }
    }
    rig.wait("it is ready", |rig| rig.state(1).ready_ns.is_some());
}

#[test]
fn refused_check_shows() {
    let gateway = UdpSocket::bind("127.0.0.1:0").unwrap();
    gateway.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let rig = Rig::new();
    let ice = Credentials { ufrag: "gate".into(), password: "wrong".into() };
    let way = UdpWay { ice: Some(ice), ..udp(gateway.local_addr().unwrap()) };
    rig.fleet.join(persona(1, false), ClientPath::Udp(way));
    let mut buffer = [0; 2_048];
    let (length, source) = gateway.recv_from(&mut buffer).unwrap();
    let mut answer = Vec::new();
    let transaction = stun::BindingRequest::parse(&buffer[..length]).unwrap().message.transaction();
    stun::write_unknown(transaction, std::iter::empty(), None, &mut answer);
    gateway.send_to(&answer, source).unwrap();
    rig.wait("it shows", |rig| rig.state(1).failed.is_some());
    assert_eq!(rig.state(1).ready_ns, None);
}

/// A gateway for one client: returns the packets of one flow on another, in datagrams, and larger ones in streams.
fn mirror(stream_above: usize) -> (QuicWay, QuicServer) {
    let (to, from) = (FlowId::new(41).unwrap(), FlowId::new(42).unwrap());
    let server =
        quic_server::start(move |connection| reflect(connection, (to, from), stream_above));
    let way = QuicWay {
        protocol: QuicProtocol::Roq,
        gateway: server.address,
        certificate_sha256: server.certificate_sha256,
        flow_to_gateway: to.number(),
        flow_from_gateway: from.number(),
    };
    (way, server)
}

async fn reflect(connection: quinn::Connection, (to, from): (FlowId, FlowId), stream_above: usize) {
    loop {
        let packet = tokio::select! {
            datagram = connection.read_datagram() => {
                let Ok(datagram) = datagram else { return };
                let (flow, packet) = roq::read_datagram(&datagram).unwrap();
                assert_eq!(flow, to);
                packet.to_vec()
            }
            stream = connection.accept_uni() => {
                let Ok(mut stream) = stream else { return };
                let bytes = stream.read_to_end(70_000).await.unwrap();
                let mut decoder = roq::StreamDecoder::new(70_000);
                let mut input = &bytes[..];
                assert_eq!(decoder.next(&mut input), Ok(Some(roq::Item::Flow(to))));
                let Ok(Some(roq::Item::Packet(packet))) = decoder.next(&mut input) else { panic!() };
                packet.to_vec()
            }
        };
        let mut out = Vec::new();
        if packet.len() > stream_above {
            roq::write_stream_start(from, &mut out);
            roq::write_stream_packet(&packet, &mut out);
            let mut stream = connection.open_uni().await.unwrap();
            stream.write_all(&out).await.unwrap();
            stream.finish().unwrap();
        } else {
            roq::write_datagram(from, &packet, &mut out);
            connection.send_datagram(out.into()).unwrap();
        }
    }
}

#[test]
fn quic_client_hears_datagrams_and_streams() {
    let (way, _server) = mirror(600);
    let rig = Rig::new();
    rig.member(1, 1);
    rig.fleet.join(persona(1, true), ClientPath::Quic(way));
    rig.wait_arrived(2 * ENOUGH);
    rig.wait("a key frame arrives in streams: its packets are of 800 bytes", |rig| {
        rig.state(1).tally.key_frames_received >= 1
    });
    rig.settle();
    let state = rig.state(1);
    assert!(state.ready_ns.is_some() && state.failed.is_none());
    let Rig { ledger, fleet } = rig;
    drop(fleet);
    let ledger = ledger.open();
    assert_eq!((ledger.missing(), ledger.twice()), (vec![], vec![]));
    assert_eq!(ledger.continuity_breaks(), []);
}

#[test]
fn packet_of_a_foreign_flow_is_not_taken() {
    let (way, _server) = mirror(usize::MAX);
    let rig = Rig::new();
    let way = QuicWay { flow_from_gateway: 43, ..way };
    rig.fleet.join(persona(1, false), ClientPath::Quic(way));
    rig.wait("it is counted", |rig| rig.state(1).tally.foreign > 0);
    assert_eq!(rig.ledger.open().arrived_count(), 0);
}

#[test]
fn other_certificate_is_refused() {
    let (way, _server) = mirror(usize::MAX);
    let rig = Rig::new();
    let way = QuicWay { certificate_sha256: [0; 32], ..way };
    rig.fleet.join(persona(1, false), ClientPath::Quic(way));
    rig.wait("it fails", |rig| rig.state(1).failed.is_some());
    assert_eq!(rig.state(1).ready_ns, None);
}

#[test]
fn reader_of_the_ledger_holds_nobody_up() {
    let (node, _end) = node(false);
    let rig = Rig::new();
    let reading = rig.ledger.open();
    rig.fleet.join(persona(1, false), ClientPath::Udp(udp(node)));
    rig.wait("it talks and hears all the same", |rig| rig.state(1).tally.packets_received > ENOUGH);
    assert_eq!(reading.arrived_count(), 0);
    drop(reading);
    assert!(rig.ledger.open().arrived_count() > 0);
}
