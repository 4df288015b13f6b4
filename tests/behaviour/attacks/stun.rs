//! Captured STUN checks that an attacker on the path sends from an address of its own, and checks that a client sends from a forged
//! address.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use evenkeel_dataplane::worker::SrtpKeying;
use evenkeel_media::demux::{self, DatagramKind};
use evenkeel_media::rtcp::{self, ReportBlock, RtcpPacket, SenderInfo};
use evenkeel_media::srtp::{SrtpKeys, SrtpReceiver, SrtpSender};
use evenkeel_model::{ClientIdentity, IngressProtocol, MediaDescription, Srtp};

use crate::harness::{
    Credentials, Gateway, Node, Nominate, Phone, World, assert_complete, offer, talk, talk_for,
    udp_of, wait_until,
};

/// A client with a captured check, and an attacker.
struct Scene {
    gateway: Gateway,
    credentials: Credentials,
    ann: Phone,
    eve: Phone,
    captured: Vec<u8>,
}

impl Scene {
    fn new(node: &Node, nominate: Nominate) -> Scene {
        let gateway = World::of(&[node]).with_identities("[\"stun\"]").start();
        let (mut ann, mut eve) = (Phone::new(1), Phone::new(6));
        let opened = gateway.open(offer("room", IngressProtocol::Udp(ClientIdentity::Stun)));
        let credentials = Credentials::of(&opened);
        ann.set_target(udp_of(&opened));
        eve.set_target(udp_of(&opened));
        let captured = credentials.check(&ann, nominate);
        talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 10);
        Scene { gateway, credentials, ann, eve, captured }
    }
}

#[test]
fn replayed_check_takes_no_media() {
    for nominate in [Nominate::Yes, Nominate::No] {
        let node = Node::agent("east-a1");
        let Scene { gateway, mut ann, mut eve, captured, .. } = Scene::new(&node, nominate);
        let (first, unknown) = (ann.heard[0].mark.number, gateway.drops("unknown-source"));
        eve.send(&captured);
        wait_until("the replay is dropped", || gateway.drops("replayed") == 1);
        // If the gateway had accepted the check, media from this address would move the session's media there.
        talk_for(&mut [&mut ann, &mut eve], 50);
        eve.send(&captured);
        wait_until("the second replay is dropped", || gateway.drops("replayed") == 2);
        let sent = ann.voice.sent;
        talk(&mut [&mut ann], "the call goes on", |phones| {
            phones[0].heard.last().is_some_and(|heard| heard.mark.number >= sent)
        });
        assert_complete(&ann.heard, first, first + ann.heard.len() as u64);
        eve.listen();
        assert!(eve.heard.is_empty() && eve.other.is_empty(), "{nominate:?}");
        wait_until("her media is dropped", || {
            gateway.drops("unknown-source") - unknown == eve.voice.sent
        });
    }
}

#[test]
fn new_check_moves_media_retransmission_does_not() {
    let node = Node::unchanged("east-a1");
    let Scene { gateway, credentials, mut ann, captured, .. } = Scene::new(&node, Nominate::Yes);
    let mut moved = Phone::new(2);
    moved.set_target(ann.target);
    credentials.check(&moved, Nominate::Yes);
    let address = moved.address();
    talk(&mut [&mut moved], "media follows the new check", |phones| {
        credentials.mapped(phones[0]) == Some(address) && phones[0].heard.len() >= 5
    });
    let answers = ann.other.len();
    ann.send(&captured);
    wait_until("the retransmission is answered", || {
        ann.listen();
        ann.other.len() > answers
    });
    let (before, elsewhere) = (moved.heard.len(), ann.heard.len());
    talk(&mut [&mut moved], "media stays", |phones| phones[0].heard.len() >= before + 10);
    ann.listen();
    assert_eq!((ann.heard.len(), gateway.drops("replayed")), (elsewhere, 0));
}

/// A host whose address a client forges. Its socket sends the client's packets, and answers nothing.
struct Host {
    socket: UdpSocket,
    gateway: SocketAddr,
    sent: usize,
    received: Vec<Vec<u8>>,
}

impl Host {
    fn new(gateway: SocketAddr) -> Host {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        Host { socket, gateway, sent: 0, received: Vec::new() }
    }

    fn send(&mut self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.gateway).unwrap();
        self.sent += datagram.len();
    }

    fn check(&mut self, credentials: &Credentials) {
        let mut phone = Phone::new(9);
        phone.socket = self.socket.try_clone().unwrap();
        phone.set_target(self.gateway);
        self.sent += credentials.check(&phone, Nominate::Yes).len();
    }

    fn listen(&mut self) {
        let mut buffer = [0; 2_048];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            self.received.push(buffer[..length].to_vec());
        }
    }

    fn bytes(&self) -> usize {
        self.received.iter().map(Vec::len).sum()
    }

    fn packets(&self, kind: DatagramKind) -> impl Iterator<Item = &Vec<u8>> {
        self.received.iter().filter(move |datagram| demux::classify(datagram) == kind)
    }

    /// The middle 32 bits of the time of the last sender report.
    fn last_report(&self) -> Option<u32> {
        let packets = self.packets(DatagramKind::Rtcp).flat_map(|it| rtcp::packets(it));
        let times = packets.filter_map(|packet| match packet {
            Ok(RtcpPacket::SenderReport(report)) => Some((report.info.ntp >> 16) as u32),
            _ => None,
        });
        times.last()
    }
}

const NTP: u64 = 0xe000_0000_8000_0000;

/// A report of the sender of this voice.
fn sender_report(phone: &Phone) -> Vec<u8> {
    let (ssrc, timestamp) = (phone.voice.ssrc, phone.voice.timestamp);
    let info = SenderInfo { ssrc, ntp: NTP, timestamp, packets: 1, octets: 1 };
    let mut report = Vec::new();
    rtcp::write_sender_report(&info, &[], &mut report);
    report
}

/// A report that answers the sender report with this time.
fn answer_report(last_sr: u32) -> Vec<u8> {
    let block = ReportBlock { last_sr, ..ReportBlock::default() };
    let mut report = Vec::new();
    rtcp::write_receiver_report(9, &[block], &mut report);
    report
}

/// A room with a sender, and a client of a second session that checks from the address of another host.
fn aimed(node: &Node) -> (Gateway, Phone, Host, Credentials) {
    let gateway = World::of(&[node]).with_identities("[\"stun\"]").start();
    let mut ann = Phone::new(1);
    let open = || gateway.open(offer("room", IngressProtocol::Udp(ClientIdentity::Stun)));
    let (first, second) = (open(), open());
    ann.set_target(udp_of(&first));
    Credentials::of(&first).check(&ann, Nominate::Yes);
    let (mut host, credentials) = (Host::new(udp_of(&second)), Credentials::of(&second));
    host.check(&credentials);
    talk(&mut [&mut ann], "her check is answered", |phones| !phones[0].other.is_empty());
    (gateway, ann, host, credentials)
}

#[test]
fn forged_check_aims_three_times_its_bytes() {
    let node = Node::agent("east-a1");
    let (gateway, mut ann, mut host, credentials) = aimed(&node);
    ann.sends_video = true;
    for round in 1..=5 {
        host.check(&credentials);
        host.send(&ann.voice.clone().packet(9));
        // The sender of the stream knows its SSRC, its numbers and the time of its report.
        ann.send(&sender_report(&ann));
        host.send(&answer_report((NTP >> 16) as u32));
        talk(&mut [&mut ann], "media to the host is dropped", |_| {
            gateway.drops("unvalidated") >= round * 100
        });
    }
    host.listen();
    assert!(host.packets(DatagramKind::Rtcp).count() > 0, "reports have room");
    assert!(host.bytes() <= 3 * host.sent, "{} bytes for {}", host.bytes(), host.sent);
}

#[test]
fn client_that_answers_reports_only_gets_media() {
    let node = Node::agent("east-a1");
    let (gateway, mut ann, mut host, credentials) = aimed(&node);
    talk(&mut [&mut ann], "media is dropped", |_| gateway.drops("unvalidated") >= 50);
    host.check(&credentials);
    talk(&mut [&mut ann], "a report arrives", |phones| {
        phones[0].send(&sender_report(phones[0]));
        host.listen();
        host.last_report().is_some()
    });
    let last_sr = host.last_report().unwrap();
    assert_ne!(last_sr, (NTP >> 16) as u32);
    host.send(&answer_report(last_sr));
    let heard = host.packets(DatagramKind::Rtp).count();
    talk(&mut [&mut ann], "all media arrives", |_| {
        host.listen();
        host.packets(DatagramKind::Rtp).count() >= heard + 200
    });
    assert!(host.bytes() > 3 * host.sent);
}

#[test]
fn srtcp_of_a_forged_address_buys_no_media() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).with_identities("[\"stun\"]").start();
    let mut ann = Phone::new(1);
    let first = gateway.open(offer("room", IngressProtocol::Udp(ClientIdentity::Stun)));
    ann.set_target(udp_of(&first));
    Credentials::of(&first).check(&ann, Nominate::Yes);
    let offered = ["1 AES_CM_128_HMAC_SHA1_80 inline:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"];
    let keys = SrtpKeys::accept(offered.map(str::parse), |bytes| bytes.fill(9)).unwrap();
    let (mut sender, mut receiver) =
        (SrtpSender::new(&keys.client), SrtpReceiver::new(&keys.gateway));
    sender.lease(9, u64::MAX, u64::MAX).unwrap();
    let mut wanted = offer("room", IngressProtocol::Udp(ClientIdentity::Stun));
    wanted.media = MediaDescription { srtp: Srtp::Terminated, ..(*wanted.media).clone() }.into();
    wanted.srtp = Some(SrtpKeying::Sdes(keys.into()));
    let second = gateway.open(wanted);
    let mut host = Host::new(udp_of(&second));
    host.check(&Credentials::of(&second));
    for round in 1..=5 {
        let mut report = answer_report((NTP >> 16) as u32);
        let length = report.len();
        report.resize(length + 20, 0);
        host.send(sender.protect_rtcp(&mut report, length).unwrap());
        talk(&mut [&mut ann], "media to the host is dropped", |_| {
            gateway.drops("unvalidated") >= round * 100
        });
    }
    host.listen();
    let mut media = host.packets(DatagramKind::Rtp).cloned();
    assert!(media.all(|mut datagram| receiver.unprotect_rtp(&mut datagram).is_ok()));
    assert!(host.bytes() <= 3 * host.sent, "{} bytes for {}", host.bytes(), host.sent);
}
