//! The steps of a packet's path, without sockets, to be timed and counted one by one.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use evenkeel_dataplane::worker::PacketPath;
use evenkeel_media::continuity::{Continuity, Protection, StreamEpoch};
use evenkeel_media::rtp::Reception;
use evenkeel_media::trunk::message::NodeSecret;
use evenkeel_media::trunk::{Bundle, Tag, seal};
use evenkeel_media::{roq, rtcp, rtp, stun, trunk};

/// Sessions of a path: more than fit the nearest cache.
const SESSIONS: u32 = 1_000;

/// The gateway's address at an encrypted trunk.
const SOURCE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// One step of a packet's path.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    pub name: &'static str,
    prepare: fn() -> Box<dyn FnMut()>,
}

impl std::fmt::Display for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Piece {
    /// Repetitions before counting, so that tables have grown and every session has sent.
    pub const WARM: u32 = 4_000;

    /// Prepares the step. Each call of the returned function does the step once.
    pub fn prepare(&self) -> Box<dyn FnMut()> {
        (self.prepare)()
    }
}

/// All steps, in the order of the path.
pub const PIECES: [Piece; 15] = [
    Piece { name: "forward-to-node", prepare: to_node },
    Piece { name: "forward-to-client", prepare: to_client },
    Piece { name: "read-rtp", prepare: read_rtp },
    Piece { name: "rewrite-rtp", prepare: rewrite_rtp },
    Piece { name: "read-rtcp", prepare: read_rtcp },
    Piece { name: "rewrite-rtcp", prepare: rewrite_rtcp },
    Piece { name: "read-stun", prepare: read_stun },
    Piece { name: "verify-stun", prepare: verify_stun },
    Piece { name: "read-roq", prepare: read_roq },
    Piece { name: "write-bundle", prepare: write_bundle },
    Piece { name: "read-bundle", prepare: read_bundle },
    Piece { name: "encrypt-datagram", prepare: encrypt },
    Piece { name: "encrypt-and-decrypt", prepare: encrypt_and_decrypt },
    Piece { name: "continuity", prepare: continuity },
    Piece { name: "statistics", prepare: statistics },
];

/// The packets of a voice stream, one after another.
struct Voice {
    packet: Vec<u8>,
    number: u32,
}

impl Voice {
    fn new() -> Voice {
        Voice { packet: voice_packet(), number: 0 }
    }

    /// The next packet of one of many streams that take turns.
    fn next(&mut self, streams: u32) -> (u32, &mut [u8]) {
        let (stream, place) = (self.number % streams, self.number / streams);
        self.number += 1;
        rtp::set_sequence(&mut self.packet, place as u16);
        rtp::set_timestamp(&mut self.packet, place.wrapping_mul(960));
        rtp::set_ssrc(&mut self.packet, stream + 1);
        (stream, &mut self.packet)
    }
}

fn voice_packet() -> Vec<u8> {
    let fields =
        rtp::Fields { payload_type: 111, marker: false, sequence: 0, timestamp: 0, ssrc: 1 };
    let mut packet = Vec::new();
    rtp::write(&fields, &[0x5a; 108], &mut packet);
    packet
}

fn to_node() -> Box<dyn FnMut()> {
    let (mut path, mut voice) = (PacketPath::new(SESSIONS).expect("a socket or two"), Voice::new());
    Box::new(move || {
        let (session, packet) = voice.next(SESSIONS);
        path.from_client(session, packet);
    })
}

fn to_client() -> Box<dyn FnMut()> {
    let (mut path, mut voice) = (PacketPath::new(SESSIONS).expect("a socket or two"), Voice::new());
    Box::new(move || {
        let (session, packet) = voice.next(SESSIONS);
        path.from_node(session, packet);
    })
}

fn read_rtp() -> Box<dyn FnMut()> {
    let packet = voice_packet();
    Box::new(move || _ = black_box(rtp::RtpHeader::parse(black_box(&packet))))
}

fn rewrite_rtp() -> Box<dyn FnMut()> {
    let mut packet = voice_packet();
    Box::new(move || {
        let packet = black_box(&mut packet[..]);
        rtp::set_ssrc(packet, 7);
        rtp::set_sequence(packet, 8);
        rtp::set_timestamp(packet, 9);
    })
}

/// A sender report and SDES of one stream.
fn compound() -> Vec<u8> {
    let info = rtcp::SenderInfo { ssrc: 1, ntp: 1 << 40, timestamp: 960, packets: 1, octets: 108 };
    let block = rtcp::ReportBlock {
        ssrc: 2,
        fraction_lost: 1,
        lost: 3,
        sequence_max: 500,
        jitter: 20,
        last_sr: 7,
        delay_since_last_sr: 9,
    };
    let mut compound = Vec::new();
    rtcp::write_sender_report(&info, &[block], &mut compound);
    rtcp::write_cname(1, b"0123456789abcdef", &mut compound);
    compound
}

fn read_rtcp() -> Box<dyn FnMut()> {
    let compound = compound();
    Box::new(move || _ = black_box(rtcp::packets(black_box(&compound)).count()))
}

fn rewrite_rtcp() -> Box<dyn FnMut()> {
    let (mut continuity, start, compound) = (one_stream(), Instant::now(), compound());
    let packet = voice_packet();
    let header = rtp::RtpHeader::parse(&packet).expect("we wrote it");
    let _first = continuity.pass(StreamEpoch(1), &header, 48_000, start);
    let mut copy = compound.clone();
    Box::new(move || {
        copy.clone_from(&compound);
        _ = black_box(continuity.rtcp_to_client(StreamEpoch(1), &mut copy));
    })
}

const PASSWORD: &str = "a password of 24 letters";

fn check() -> Vec<u8> {
    let (mut check, key) = (Vec::new(), stun::StunKey::new(PASSWORD));
    let username = stun::Username { server_ufrag: "evenkeel", client_ufrag: "client" };
    let probe = stun::BindingBuilder::probe(stun::Transaction([7; 12]));
    stun::BindingBuilder {
        username: Some(username),
        key: Some(&key),
        use_candidate: true,
        ..probe
    }
    .write(&mut check);
    check
}

fn read_stun() -> Box<dyn FnMut()> {
    let check = check();
    Box::new(move || _ = black_box(stun::BindingRequest::parse(black_box(&check))))
}

fn verify_stun() -> Box<dyn FnMut()> {
    let (check, key) = (check(), stun::StunKey::new(PASSWORD));
    Box::new(move || {
        let request = stun::BindingRequest::parse(&check).ok();
        _ = black_box(request.map(|request| request.message.verify(&key)));
    })
}

fn read_roq() -> Box<dyn FnMut()> {
    let mut datagram = Vec::new();
    roq::write_datagram(roq::FlowId::from_random(u64::MAX), &voice_packet(), &mut datagram);
    Box::new(move || _ = black_box(roq::read_datagram(black_box(&datagram))))
}

/// Seven packets, a datagram of voice.
fn bundle() -> Bundle {
    let mut bundle = Bundle::new(1_400);
    fill(&mut bundle, &voice_packet());
    bundle
}

fn fill(bundle: &mut Bundle, packet: &[u8]) {
    bundle.clear();
    for tag in 0..7 {
        _ = black_box(bundle.push(Tag(tag), packet));
    }
}

fn write_bundle() -> Box<dyn FnMut()> {
    let (mut bundle, packet) = (Bundle::new(1_400), voice_packet());
    Box::new(move || fill(&mut bundle, &packet))
}

fn read_bundle() -> Box<dyn FnMut()> {
    let bundle = bundle();
    Box::new(move || _ = black_box(trunk::entries(black_box(bundle.as_bytes())).count()))
}

/// The two ends of an encrypted trunk that know each other, and a datagram with a packet of 200 bytes.
fn sealed_trunk() -> (seal::GatewaySeal, seal::NodeSeal, Bundle) {
    let secret = NodeSecret::new(b"a secret of many bytes", "n").expect("it is long enough");
    let (mut gateway, mut node) =
        (seal::GatewaySeal::new(secret.clone(), 1), seal::NodeSeal::new(secret, 2));
    let mut first = gateway.seal(b"first").to_vec();
    let (_, sender) = node.open(&mut first, SOURCE).expect("both ends have the key");
    node.learn(sender);
    let mut bundle = Bundle::new(1_400);
    assert!(bundle.push(Tag(1), &[0x80; 200]), "an empty bundle takes it");
    (gateway, node, bundle)
}

fn encrypt() -> Box<dyn FnMut()> {
    let (mut gateway, _, bundle) = sealed_trunk();
    Box::new(move || _ = black_box(gateway.seal(black_box(bundle.as_bytes()))))
}

/// A datagram is decrypted once, so it is encrypted before.
fn encrypt_and_decrypt() -> Box<dyn FnMut()> {
    let (mut gateway, mut node, bundle) = sealed_trunk();
    let mut datagram = Vec::new();
    Box::new(move || {
        datagram.clear();
        datagram.extend_from_slice(gateway.seal(black_box(bundle.as_bytes())));
        assert!(black_box(node.open(&mut datagram, SOURCE)).is_ok(), "both ends have the key");
    })
}

fn one_stream() -> Continuity {
    Continuity::new(7, Protection::Clear)
}

/// A stream of another node than before, so that every packet is renumbered.
fn continuity() -> Box<dyn FnMut()> {
    let (mut continuity, mut voice, start) = (one_stream(), Voice::new(), Instant::now());
    let (_, packet) = voice.next(1);
    let header = rtp::RtpHeader::parse(packet).expect("we wrote it");
    let before = rtp::RtpHeader { ssrc: 99, sequence: 40_000, ..header };
    let _first = continuity.pass(StreamEpoch(1), &before, 48_000, start);
    Box::new(move || {
        let (_, packet) = voice.next(1);
        let header = rtp::RtpHeader::parse(packet).expect("we wrote it");
        let now = start + Duration::from_millis(20) * voice.number;
        _ = black_box(continuity.pass(StreamEpoch(2), &header, 48_000, now));
    })
}

fn statistics() -> Box<dyn FnMut()> {
    let (mut reception, mut voice, start) = (Reception::new(48_000), Voice::new(), Instant::now());
    Box::new(move || {
        let now = start + Duration::from_millis(20) * voice.number;
        let (_, packet) = voice.next(1);
        let header = rtp::RtpHeader::parse(packet).expect("we wrote it");
        reception.receive(&header, packet.len(), now);
        _ = black_box(&reception);
    })
}
