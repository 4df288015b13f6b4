//! Sessions with SRTP that ends at the gateway.

mod rtx;

use std::hash::RandomState;

use evenkeel_media::srtp::{
    IndexGrant, IndexLease, ReceivedIndices, SentIndices, SrtpKeys, SrtpReceiver, SrtpSender,
};

use evenkeel_dtls::{HANDSHAKE_LIFETIME, HandshakeFailure};
use evenkeel_media::continuity::{AnnouncedSection, AnnouncedStreams, Pass, StreamEpoch};
use evenkeel_media::fingerprint::CertificateFingerprint;
use evenkeel_media::numbering::{ClientNumbers, ExtensionMap};
use evenkeel_model::{ExtensionUri, HeaderExtension};

use super::*;
use crate::worker::client_ingress::ClientIngress;
use crate::worker::dtls::{HandshakeInput, InputKind, handshake_channel};
use crate::worker::egress::WorkerGrant;
use crate::worker::session::srtp::{AnsweredMedia, SrtpCounters};
use crate::worker::slots::SessionSlots;
use crate::worker::sockets::{ArrivalKind, ClientArrival};

const SSRC: u32 = 5;

/// A phone with SDES keys.
struct Phone {
    keys: Arc<SrtpKeys>,
    sender: SrtpSender,
    receiver: SrtpReceiver,
}

impl Phone {
    fn new(suite: &str, key_bytes: usize) -> Phone {
        let key = "A".repeat(key_bytes.div_ceil(3) * 4);
        let offered = [format!("1 {suite} inline:{}", &key[..(key_bytes * 4).div_ceil(3)])];
        let offered = offered.iter().map(|value| value.parse());
        let keys = SrtpKeys::accept(offered, |bytes| bytes.fill(9)).unwrap();
        let mut sender = SrtpSender::new(&keys.client);
        sender.lease(SSRC, u64::MAX, u64::MAX).unwrap();
        let receiver = SrtpReceiver::new(&keys.gateway);
        Phone { keys: Arc::new(keys), sender, receiver }
    }

    fn protect(&mut self, side: RtpSide, packet: &[u8]) -> Vec<u8> {
        let mut buffer = packet.to_vec();
        buffer.resize(packet.len() + 20, 0);
        let protected = match side {
            RtpSide::Rtp => self.sender.protect_rtp(&mut buffer, packet.len()),
            RtpSide::Rtcp => self.sender.protect_rtcp(&mut buffer, packet.len()),
        };
        protected.unwrap().to_vec()
    }
}

/// A session at a hop, its phone, and the socket of the node.
struct Scene {
    bench: Bench,
    phone: Phone,
    keying: SrtpKeying,
    node: UdpSocket,
    hop: Hop,
}

impl Scene {
    fn new() -> Scene {
        Scene::of(Phone::new("AES_CM_128_HMAC_SHA1_80", 30))
    }

    fn of(phone: Phone) -> Scene {
        let (mut bench, node, hop) = at_node(Srtp::Terminated);
        let keying = SrtpKeying::Sdes(Arc::clone(&phone.keys));
        bench.session.running().srtp.set_client(keying.clone());
        Scene { bench, phone, keying, node, hop }
    }

    /// Delivers a datagram of the phone. Returns what the node receives of it.
    fn deliver(&mut self, kind: ArrivalKind, datagram: &[u8]) -> Option<Vec<u8>> {
        self.deliver_at(0, kind, datagram)
    }

    fn deliver_at(&mut self, ms: u64, kind: ArrivalKind, datagram: &[u8]) -> Option<Vec<u8>> {
        let (flows, now) = (Arc::new(Flows::new(4)), self.bench.start + Duration::from_millis(ms));
        let home = self.bench.session.home;
        let address = self.bench.client.local_addr().unwrap();
        let source = SourceKey { listener: 0, address };
        flows.insert(FlowKey::Udp { listener: 0, address }, FlowEntry::of(home)).unwrap();
        let mut ingress = ClientIngress::new(0, flows, vec![false], 100, RandomState::new(), now);
        let mut slots = SessionSlots::default();
        let empty = WorkerSession::new(install(ClientAddressing::Stun, Srtp::Plain, 0));
        slots.put(std::mem::replace(&mut self.bench.session, empty));
        let cx =
            &mut PacketContext { egress: &mut self.bench.egress, board: &self.bench.board, now };
        ingress.deliver(
            &mut slots,
            home,
            ClientArrival { source, local: None, kind },
            datagram,
            cx,
        );
        slots.with(home, |session| flush_ports(session, cx));
        self.bench.session = *slots.remove(home).unwrap();
        let mut packet = [0; 256];
        let length = self.node.recv(&mut packet).ok()?;
        Some(packet[..length].to_vec())
    }

    /// The phone is a WebRTC client with this answer, after its handshake.
    fn answer_offer(&mut self, answered: AnsweredMedia) {
        let (fingerprints, keys) = ([].into(), Some(Arc::clone(&self.phone.keys)));
        let keying = SrtpKeying::Dtls { fingerprints, keys, answered: Arc::new(answered) };
        self.keying = keying.clone();
        let RunningMedia { state, srtp, .. } = self.bench.session.running();
        srtp.set_client(keying);
        srtp.announce(&mut state.continuity);
    }

    /// The packet that the phone receives of this one of the node, decrypted.
    fn opened(&mut self, ms: u64, packet: &[u8]) -> Option<Vec<u8>> {
        let mut datagram = self.answer(ms, packet)?;
        Some(self.phone.receiver.unprotect_rtp(&mut datagram).unwrap().to_vec())
    }

    /// Returns whether the phone receives a packet of the node.
    fn sends(&mut self, sequence: u16) -> bool {
        self.answer(1, &video(sequence, 77)).is_some()
    }

    /// Continues in this state at another process. Returns the packets that the phone receives of these ones of the node.
    fn go_on(&mut self, state: SessionState, packets: &[u16]) -> Vec<Vec<u8>> {
        let (client, board) = (self.bench.client.local_addr().unwrap(), &self.bench.board);
        let declared = ClientAddressing::Declared { listener: 0, address: client, rtcp: client };
        let mut session = WorkerSession::new(Install {
            srtp: Some(self.keying.clone()),
            route: Arc::clone(&self.bench.session.route),
            state: Some(Box::new(state)),
            ..install(declared, Srtp::Terminated, 0)
        });
        let now = self.bench.start;
        let begins = session.begin_srtp(now);
        self.bench.egress.indices =
            WorkerGrant::new(Arc::new(IndexGrant::new(1, self.bench.start)), 0);
        for &sequence in packets {
            let cx = &mut PacketContext { egress: &mut self.bench.egress, board, now };
            session.handle_node_packet(self.hop, &video(sequence, 77), cx);
        }
        self.bench.egress.flush(now);
        let mut heard = Vec::new();
        let mut datagram = [0; 256];
        while let Ok(length) = self.bench.client.recv(&mut datagram) {
            heard.push(datagram[..length].to_vec());
        }
        assert_eq!(begins, !heard.is_empty());
        heard
    }

    /// Another process continues the session, after this one has ended.
    fn hand_over(&mut self) {
        // The answer comes with the keys.
        let state = recorded(&self.bench.session.hand_out(&Flows::new(4)));
        let client = self.bench.client.local_addr().unwrap();
        let declared = ClientAddressing::Declared { listener: 0, address: client, rtcp: client };
        self.bench.session = WorkerSession::new(Install {
            srtp: Some(self.keying.clone()),
            media: Arc::clone(&self.bench.session.media),
            route: Arc::clone(&self.bench.session.route),
            state: Some(Box::new(handed_over(&state))),
            ..install(declared, Srtp::Terminated, 0)
        });
        assert!(self.bench.session.begin_srtp(self.bench.start));
        self.bench.egress.indices =
            WorkerGrant::new(Arc::new(IndexGrant::new(1, self.bench.start)), 0);
    }

    /// The packets that the phone receives while the node sends these pictures, decrypted.
    fn opened_pictures(&mut self, numbers: std::ops::RangeInclusive<u16>) -> Vec<Vec<u8>> {
        let (hop, mut opened) = (self.hop, Vec::new());
        for number in numbers {
            let packet = fec::picture(number);
            self.bench.at(fec::ms(number), |session, cx| {
                session.handle_node_packet(hop, &packet, cx);
            });
            let mut datagram = [0; 256];
            while let Ok(length) = self.bench.client.recv(&mut datagram) {
                let packet = self.phone.receiver.unprotect_rtp(&mut datagram[..length]);
                opened.push(packet.unwrap().to_vec());
            }
        }
        opened
    }

    /// The phone reports that so many pictures up to this one are lost, and the session chooses its repair.
    fn report_lost_pictures(&mut self, number: u16, lost: u16) {
        let report = redundancy::report(number, lost);
        let report = self.phone.protect(RtpSide::Rtcp, &report);
        self.deliver_at(fec::ms(number), ArrivalKind::Rtcp, &report);
        self.bench.at(fec::ms(number), WorkerSession::tick);
    }

    /// Delivers a packet of the node. Returns what the phone receives of it.
    fn answer(&mut self, ms: u64, packet: &[u8]) -> Option<Vec<u8>> {
        let hop = self.hop;
        self.bench.at(ms, |session, cx| session.handle_node_packet(hop, packet, cx));
        let mut datagram = [0; 256];
        let length = self.bench.client.recv(&mut datagram).ok()?;
        Some(datagram[..length].to_vec())
    }
}

#[test]
fn node_and_client_exchange_plain_media_over_srtp() {
    for (suite, key_bytes, overhead) in [
        ("AEAD_AES_128_GCM", 28, 16),
        ("AEAD_AES_256_GCM", 44, 16),
        ("AES_CM_128_HMAC_SHA1_80", 30, 10),
        ("AES_CM_128_HMAC_SHA1_32", 30, 4),
        ("AES_256_CM_HMAC_SHA1_80", 46, 10),
    ] {
        let mut scene = Scene::of(Phone::new(suite, key_bytes));
        let packet = video(1, SSRC);
        let datagram = scene.phone.protect(RtpSide::Rtp, &packet);
        assert_ne!(datagram[..packet.len()], packet, "{suite}");
        assert_eq!(scene.deliver(ArrivalKind::Rtp, &datagram), Some(packet), "{suite}");

        let mut report = Vec::new();
        rtcp::write_receiver_report(SSRC, &[], &mut report);
        let datagram = scene.phone.protect(RtpSide::Rtcp, &report);
        assert_eq!(scene.deliver(ArrivalKind::Rtcp, &datagram), Some(report), "{suite}");

        let packet = video(100, 77);
        let mut datagram = scene.answer(1, &packet).unwrap();
        assert_eq!(datagram.len(), packet.len() + overhead, "{suite}");
        assert_eq!(scene.phone.receiver.unprotect_rtp(&mut datagram).unwrap(), packet, "{suite}");

        let mut report = Vec::new();
        rtcp::write_receiver_report(77, &[], &mut report);
        let mut datagram = scene.answer(2, &report).unwrap();
        let opened = scene.phone.receiver.unprotect_rtcp(&mut datagram).unwrap();
        assert_eq!(opened.len(), report.len(), "{suite}");
    }
}

#[test]
fn forged_and_replayed_packets_reach_no_node() {
    let mut scene = Scene::new();
    let datagram = scene.phone.protect(RtpSide::Rtp, &video(1, SSRC));
    for byte in 0..datagram.len() {
        let mut forged = datagram.clone();
        forged[byte] ^= 1;
        assert_eq!(scene.deliver(ArrivalKind::Rtp, &forged), None, "byte {byte}");
    }
    assert_eq!(scene.bench.session.state().measurements.last_heard, None);
    assert!(scene.deliver(ArrivalKind::Rtp, &datagram).is_some());
    assert_eq!(scene.deliver(ArrivalKind::Rtp, &datagram), None);
    assert_eq!(scene.bench.drops(DropReason::SrtpReplayed), 1);
    assert!(scene.bench.drops(DropReason::SrtpForged) >= datagram.len() as u64 - 4);
    assert_eq!(scene.deliver(ArrivalKind::Rtp, &video(2, SSRC)), None, "plain RTP");
}

#[test]
fn nack_is_answered_with_the_same_srtp() {
    for (suite, key_bytes) in [("AEAD_AES_128_GCM", 28), ("AES_CM_128_HMAC_SHA1_80", 30)] {
        let mut scene = Scene::of(Phone::new(suite, key_bytes));
        let mut media = (*scene.bench.session.media).clone();
        media.streams[0].feedback.nack = true;
        scene.bench.session.running().repair = ClientRepair::of(&media);
        scene.bench.session.media = Arc::new(media);
        let mut sent = Vec::new();
        for number in 1..=40_u16 {
            sent.push(scene.answer(number.into(), &video(number, 77)).unwrap());
            if number != 38 {
                scene.phone.receiver.unprotect_rtp(&mut sent.last().unwrap().clone()).unwrap();
            }
        }
        let mut nack = Vec::new();
        rtcp::write_nack(SSRC, 77, &[38], &mut nack);
        let datagram = scene.phone.protect(RtpSide::Rtcp, &nack);
        assert_eq!(scene.deliver_at(45, ArrivalKind::Rtcp, &datagram), None, "it ends here");
        scene.bench.egress.flush(scene.bench.start);
        let mut again = [0; 256];
        let length = scene.bench.client.recv(&mut again).unwrap();
        let again = &mut again[..length];
        assert_eq!(again, sent[37], "{suite}");
        let mut twice = again.to_vec();
        let receiver = &mut scene.phone.receiver;
        assert_eq!(receiver.unprotect_rtp(again).unwrap(), video(38, 77), "{suite}");
        assert!(receiver.unprotect_rtp(&mut twice).is_err(), "a second copy is a replay");
        assert_eq!(scene.bench.drops(DropReason::SrtpIndex), 0);
    }
}

pub(super) fn answered(may_send: bool) -> AnsweredMedia {
    AnsweredMedia {
        ufrag: "phon".into(),
        password: ClientPassword::default(),
        may_send,
        may_receive: true,
        sends: Vec::new(),
        numbers: None,
        announced: Arc::default(),
    }
}

#[test]
fn paced_packets_are_protected_when_they_leave() {
    let mut scene = Scene::new();
    let now = scene.bench.start + Duration::from_millis(10);
    let pacing = &mut scene.bench.session.running().pacing;
    SessionPacing::follow(pacing, Some(100), now);
    // The burst budget is spent.
    assert!(pacing.as_mut().unwrap().admits(10_000, now));
    for number in 100..105 {
        assert_eq!(scene.answer(10, &video(number, 77)), None);
    }
    scene.bench.at(69, WorkerSession::send_paced);
    let mut buffer = [0; 256];
    for number in 100..105 {
        let length = scene.bench.client.recv(&mut buffer).unwrap();
        let packet = scene.phone.receiver.unprotect_rtp(&mut buffer[..length]).unwrap();
        assert_eq!(packet, video(number, 77));
    }
}

/// Keys that DTLS has yet to agree on.
fn dtls() -> SrtpKeying {
    let fingerprints = [CertificateFingerprint::Sha256([7; 32])].into();
    let answered = Arc::new(answered(true));
    SrtpKeying::Dtls { fingerprints, keys: None, answered }
}

#[test]
fn media_waits_for_the_keys_of_dtls() {
    let mut scene = Scene::new();
    scene.bench.session.running().srtp.set_client(dtls());
    let datagram = scene.phone.protect(RtpSide::Rtp, &video(1, SSRC));
    assert_eq!(scene.deliver(ArrivalKind::Rtp, &datagram), None);
    assert_eq!(scene.deliver(ArrivalKind::Rtp, &video(1, SSRC)), None, "plain RTP");
    assert_eq!(scene.answer(1, &video(100, 77)), None);
    assert_eq!(scene.bench.drops(DropReason::SrtpNoKeys), 3);
    let keys = Arc::clone(&scene.phone.keys);
    scene.bench.session.set_keys(&keys);
    scene.bench.session.set_keys(&Phone::new("AEAD_AES_128_GCM", 28).keys);
    assert_eq!(scene.deliver(ArrivalKind::Rtp, &datagram), Some(video(1, SSRC)));
    let mut datagram = scene.answer(2, &video(101, 77)).unwrap();
    assert!(scene.phone.receiver.unprotect_rtp(&mut datagram).is_ok());
}

#[test]
fn client_that_only_receives_sends_reports_and_no_media() {
    let mut scene = Scene::new();
    scene.answer_offer(answered(false));
    let datagram = scene.phone.protect(RtpSide::Rtp, &video(1, SSRC));
    assert_eq!(scene.deliver(ArrivalKind::Rtp, &datagram), None);
    assert_eq!(scene.bench.drops(DropReason::UndeclaredPayload), 1);
    let mut report = Vec::new();
    rtcp::write_receiver_report(SSRC, &[], &mut report);
    let datagram = scene.phone.protect(RtpSide::Rtcp, &report);
    assert_eq!(scene.deliver(ArrivalKind::Rtcp, &datagram), Some(report));
    assert!(scene.answer(1, &video(100, 77)).is_some());
}

#[test]
fn client_that_only_sends_gets_reports_and_no_media() {
    let mut scene = Scene::new();
    scene.answer_offer(AnsweredMedia { may_receive: false, ..answered(true) });
    assert_eq!(scene.answer(1, &video(100, 77)), None);
    assert_eq!(scene.bench.drops(DropReason::UndeclaredPayload), 1);
    let mut report = Vec::new();
    rtcp::write_receiver_report(77, &[], &mut report);
    assert!(scene.answer(1, &report).is_some());
    let datagram = scene.phone.protect(RtpSide::Rtp, &video(1, SSRC));
    assert_eq!(scene.deliver(ArrivalKind::Rtp, &datagram), Some(video(1, SSRC)));
}

#[test]
fn numbers_go_on_after_a_long_hold() {
    let mut scene = Scene::new();
    scene.answer_offer(answered(true));
    let sequence = |scene: &mut Scene, ms, number| {
        let packet = scene.opened(ms, &video(number, 77))?;
        rtp::ssrc_and_sequence(&packet).map(|(_, sequence)| sequence)
    };
    assert_eq!(sequence(&mut scene, 1, 100), Some(100));
    let turn = |scene: &mut Scene, may_receive| {
        let media = Arc::clone(&scene.bench.session.media);
        let answered = AnsweredMedia { may_receive, ..answered(true) };
        scene.bench.session.renegotiate(media, Arc::new(answered));
    };
    turn(&mut scene, false);
    for number in 101..40_101 {
        assert_eq!(sequence(&mut scene, u64::from(number), number), None);
    }
    turn(&mut scene, true);
    assert_eq!(sequence(&mut scene, 40_101, 40_101), Some(101));
    assert_eq!(sequence(&mut scene, 40_102, 40_102), Some(102));
}

#[test]
fn node_gets_the_numbers_of_the_room_and_the_client_its_own() {
    let mut scene = Scene::new();
    // The room's VP8 is 96.
    let payload_types = vec![(120, 96)].into();
    let numbers = ClientNumbers::new(&payload_types, &ExtensionMap::default(), None);
    scene.answer_offer(AnsweredMedia { numbers, ..answered(true) });
    let with = |payload_type: u8, mut packet: Vec<u8>| {
        rtp::set_payload_type(&mut packet, payload_type);
        packet
    };
    let datagram = scene.phone.protect(RtpSide::Rtp, &with(120, video(1, SSRC)));
    assert_eq!(scene.deliver(ArrivalKind::Rtp, &datagram), Some(with(96, video(1, SSRC))));
    let datagram = scene.phone.protect(RtpSide::Rtp, &with(96, video(2, SSRC)));
    assert_eq!(scene.deliver(ArrivalKind::Rtp, &datagram), None, "not the client's number");
    assert_eq!(scene.bench.drops(DropReason::UndeclaredPayload), 1);
    let mut datagram = scene.answer(1, &with(96, video(100, 77))).unwrap();
    let packet = scene.phone.receiver.unprotect_rtp(&mut datagram).unwrap();
    assert_eq!(packet, with(120, video(100, 77)));
    let mut report = Vec::new();
    rtcp::write_receiver_report(SSRC, &[], &mut report);
    let datagram = scene.phone.protect(RtpSide::Rtcp, &report);
    assert_eq!(scene.deliver(ArrivalKind::Rtcp, &datagram), Some(report));
}

#[test]
fn transport_wide_number_has_the_id_of_the_client() {
    let mut scene = Scene::new();
    let extensions = vec![(7, 3)].into();
    let numbers = ClientNumbers::new(&vec![(96, 96)].into(), &extensions, None);
    let mut media = (*scene.bench.session.media).clone();
    media.streams[0].feedback.transport_cc = true;
    let uri = ExtensionUri::TransportWideNumber;
    media.extensions.push(HeaderExtension { id: 3, uri });
    let answered = AnsweredMedia { numbers, ..answered(true) };
    scene.bench.session.renegotiate(Arc::new(media), Arc::new(answered));
    for number in 0..3_u16 {
        let packet = scene.opened(1, &video(100 + number, 77)).unwrap();
        let header = rtp::RtpHeader::parse(&packet).unwrap();
        let element = rtp::extension::element(&packet, &header, 7);
        assert_eq!(element, Some(&number.to_be_bytes()[..]));
        assert_eq!(header.payload(&packet), b"frame");
    }
}

#[test]
fn later_offer_changes_streams_and_keeps_keys_and_numbers_of_packets() {
    let mut scene = Scene::new();
    scene.answer_offer(answered(true));
    let mut datagram = scene.answer(1, &video(100, 77)).unwrap();
    let before = scene.phone.receiver.unprotect_rtp(&mut datagram).unwrap().to_vec();
    // The client gets voice, and sends no more.
    let opus = PayloadType::new(111, "opus", 48_000);
    let mut media = (*scene.bench.session.media).clone();
    let video_stream = media.streams[0].clone();
    media.streams[0].feedback.fir = true;
    let voice = MediaStream { kind: StreamKind::Audio, payload_types: vec![opus], ..video_stream };
    media.streams.push(voice);
    scene.bench.session.renegotiate(Arc::new(media), Arc::new(answered(false)));
    let mut voice = video(7, 78);
    rtp::set_payload_type(&mut voice, 111);
    assert!(scene.answer(2, &voice).is_some(), "of the new stream");
    let mut datagram = scene.answer(3, &video(101, 77)).unwrap();
    let after = scene.phone.receiver.unprotect_rtp(&mut datagram).unwrap();
    let sequence = |packet: &[u8]| rtp::ssrc_and_sequence(packet).unwrap().1;
    assert_eq!(sequence(after), sequence(&before).wrapping_add(1));
    let datagram = scene.phone.protect(RtpSide::Rtp, &video(1, SSRC));
    assert_eq!(scene.deliver(ArrivalKind::Rtp, &datagram), None, "it only receives");
    assert!(scene.bench.session.uncopied);
}

/// An answer with one m-line of video, of SSRC 1,000.
fn announcing() -> AnsweredMedia {
    let section = AnnouncedSection {
        index: 0,
        payload_types: vec![96],
        has_retransmissions: false,
        sender: None,
    };
    let streams = AnnouncedStreams { seed: 1_000, sections: vec![section], ..Default::default() };
    AnsweredMedia { announced: Arc::new(streams), ..answered(true) }
}

#[test]
fn streams_have_the_ssrcs_of_the_answer_at_each_process() {
    let mut scene = Scene::new();
    scene.answer_offer(announcing());
    let ssrc = |packet: &[u8]| rtp::ssrc_and_sequence(packet).unwrap().0;
    assert_eq!(scene.opened(1, &video(100, 77)).map(|packet| ssrc(&packet)), Some(1_000));
    assert_eq!(scene.opened(2, &video(500, 78)), None);
    assert_eq!(scene.bench.drops(DropReason::SurplusStream), 1);
    let state = scene.bench.session.hand_out(&Flows::new(4));
    let heard = scene.go_on(state, &[101, 102]);
    assert!(heard.len() == 2 && heard.iter().all(|packet| ssrc(packet) == 1_000), "{heard:?}");
    let install = Install {
        srtp: Some(scene.keying.clone()),
        ..install(ClientAddressing::Stun, Srtp::Terminated, 0)
    };
    let continuity = &mut WorkerSession::new(install).state().continuity.clone();
    let header = rtp::RtpHeader::parse(&video(1, 77)).unwrap();
    let pass = continuity.pass(StreamEpoch(1), &header, 90_000, scene.bench.start);
    assert!(matches!(pass, Pass::Rewrite { ssrc: 1_000, .. }), "{pass:?}");
}

#[test]
fn stream_that_gets_an_m_line_is_asked_for_a_key_frame() {
    let mut scene = Scene::new();
    scene.answer_offer(announcing());
    scene.opened(1, &video(100, 77)).unwrap();
    assert_eq!(scene.opened(2, &video(500, 78)), None);
    assert_eq!(scene.opened(1_500, &video(501, 78)), None, "the node was silent");
    scene.opened(1_600, &video(502, 78)).unwrap();
    let mut request = [0; 256];
    flush_ports(
        &mut scene.bench.session,
        &mut PacketContext {
            egress: &mut scene.bench.egress,
            board: &scene.bench.board,
            now: scene.bench.start,
        },
    );
    let length = scene.node.recv(&mut request).unwrap();
    let mut asked = rtcp::packets(&request[..length]).map_while(Result::ok);
    assert!(asked.any(|packet| matches!(packet, rtcp::RtcpPacket::Pli(pli) if pli.media == 78)));
}

#[test]
fn retransmission_has_the_clients_numbers_of_the_lost_packet() {
    let mut scene = Scene::new();
    let mut media = (*scene.bench.session.media).clone();
    let rtx = PayloadType::new(97, "rtx", 90_000);
    media.streams[0].payload_types.push(rtx);
    scene.bench.session.media = Arc::new(media);
    let retransmission = |sequence, original: &[u8]| {
        let fields =
            rtp::Fields { payload_type: 97, marker: false, sequence, timestamp: 1, ssrc: 78 };
        let mut packet = Vec::new();
        rtp::write(&fields, original, &mut packet);
        packet
    };
    let mut payload = |ms, packet: &[u8]| {
        let packet = scene.opened(ms, packet)?;
        Some(rtp::RtpHeader::parse(&packet).unwrap().payload(&packet).to_vec())
    };
    // The first number of SRTP is below 2^15, so that of the node is changed.
    payload(1, &video(50_000, 77)).unwrap();
    payload(2, &video(50_003, 77)).unwrap();
    let [high, low] = 50_002_u16.to_be_bytes();
    let found = payload(3, &retransmission(1, &[high, low, 7])).unwrap();
    assert_eq!(found, [(17_234_u16 >> 8) as u8, 17_234_u16 as u8, 7]);
    assert_eq!(payload(4, &retransmission(2, &[])), Some(vec![]), "padding");
    assert_eq!(payload(5, &retransmission(3, &[0, 1, 7])), None, "of no packet");
    assert_eq!(scene.bench.drops(DropReason::Stale), 1);
}

/// The failure of a handshake that the session reported last.
fn failure(scene: &mut Scene) -> Option<HandshakeFailure> {
    let reports = std::iter::from_fn(|| scene.bench.reports.try_recv().ok());
    let failures = reports.filter_map(|report| match report {
        WorkerReport::Handshake { result, .. } => result.err(),
        _ => None,
    });
    failures.last()
}

#[test]
fn session_without_keys_ends_after_the_time_of_a_handshake() {
    let mut scene = Scene::new();
    let end = HANDSHAKE_LIFETIME.as_millis() as u64 + 5;
    scene.bench.at(5, WorkerSession::tick);
    scene.bench.at(end, WorkerSession::tick);
    assert_eq!(failure(&mut scene), None, "it has keys");
    scene.bench.session.running().srtp.set_client(dtls());
    for ms in [5, end - 1] {
        scene.bench.at(ms, WorkerSession::tick);
        assert_eq!(failure(&mut scene), None, "{ms}");
    }
    scene.bench.at(end, WorkerSession::tick);
    assert_eq!(failure(&mut scene), Some(HandshakeFailure::Timeout));
}

#[test]
fn media_of_a_client_that_has_keys_of_another_process_ends_the_session() {
    let mut scene = Scene::new();
    let datagram = scene.phone.protect(RtpSide::Rtp, &video(1, SSRC));
    for is_restored in [false, true] {
        scene.bench.session.running().srtp.set_client(dtls());
        if is_restored {
            let state = handed_over(&scene.bench.session.hand_out(&Flows::new(4)));
            scene.bench.session.go_on(state);
        }
        assert_eq!(scene.deliver(ArrivalKind::Rtp, &datagram), None);
        assert_eq!(failure(&mut scene), is_restored.then_some(HandshakeFailure::Lost));
    }
    // This process has answered its handshake: the media has overtaken the keys.
    let address = scene.bench.client.local_addr().unwrap();
    let source = SourceKey { listener: 0, address };
    scene.bench.at(5, |session, cx| session.send_dtls(source.path(), b"flight", cx));
    assert_eq!(scene.deliver(ArrivalKind::Rtp, &datagram), None);
    assert_eq!(failure(&mut scene), None);
}

#[test]
fn dtls_of_checked_addresses_is_passed_on() {
    const RECORD: &[u8] = b"\x16 and more";
    let mut scene = Scene::new();
    let (to_handshakes, inputs) = handshake_channel();
    scene.bench.egress.to_handshakes = Some(to_handshakes);
    let next = || inputs.try_recv().ok().map(|HandshakeInput(input)| input);
    scene.bench.session.running().srtp.set_client(dtls());
    scene.deliver(ArrivalKind::Dtls, RECORD);
    assert!(next().is_none() && scene.bench.drops(DropReason::UnknownSource) == 1);

    scene.bench.check(0);
    let address = scene.bench.client.local_addr().unwrap();
    let source = SourceKey { listener: 0, address };
    for is_keyed in [false, true] {
        scene.deliver(ArrivalKind::Dtls, RECORD);
        let Some(InputKind::Datagram(datagram)) = next() else { panic!("no datagram") };
        assert_eq!((&*datagram.bytes, datagram.path), (RECORD, source.path()));
        assert_eq!((datagram.is_keyed, datagram.fingerprints.len()), (is_keyed, 1));
        scene.bench.session.set_keys(&Phone::new("AEAD_AES_128_GCM", 28).keys);
    }
    let other = SourceKey { address: "192.0.2.1:9".parse().unwrap(), ..source };
    for to in [other, source] {
        scene.bench.at(1, |session, cx| session.send_dtls(to.path(), RECORD, cx));
    }
    let mut datagram = [0; 64];
    let length = scene.bench.client.recv(&mut datagram).unwrap();
    assert_eq!(&datagram[..length], RECORD);
    scene.bench.session.end_dtls(&scene.bench.egress);
    assert!(
        matches!(next(), Some(InputKind::Ended(session)) if session.home == scene.bench.session.home)
    );

    let sdes = SrtpKeying::Sdes(Arc::clone(&scene.phone.keys));
    scene.bench.session.running().srtp.set_client(sdes);
    scene.deliver(ArrivalKind::Dtls, RECORD);
    assert!(next().is_none() && scene.bench.drops(DropReason::Dtls) == 1);
}

#[test]
fn session_fills_its_share_of_the_handshakes_queue() {
    let mut scene = Scene::new();
    let (to_handshakes, inputs) = handshake_channel();
    scene.bench.egress.to_handshakes = Some(to_handshakes);
    scene.bench.session.running().srtp.set_client(dtls());
    scene.bench.check(0);
    for _ in 0..100 {
        scene.deliver(ArrivalKind::Dtls, b"\x16 and more");
    }
    assert_eq!((inputs.len(), scene.bench.drops(DropReason::RingFull)), (16, 84));
    // The thread has taken one.
    drop(inputs.recv().unwrap());
    scene.deliver(ArrivalKind::Dtls, b"\x16 and more");
    scene.deliver(ArrivalKind::Dtls, b"\x16 and more");
    assert_eq!((inputs.len(), scene.bench.drops(DropReason::RingFull)), (16, 85));
}

#[test]
fn process_that_continues_uses_no_index_twice() {
    let mut scene = Scene::new();
    let first = scene.answer(1, &video(100, 77)).unwrap();
    let state = scene.bench.session.hand_out(&Flows::new(4));
    let dump = format!("{state:?} {:?} {:?}", scene.phone.keys, scene.bench.session.running());
    for attribute in [&scene.phone.keys.client, &scene.phone.keys.gateway] {
        let key = attribute.to_inline();
        assert!(!dump.contains(&key["inline:".len()..]), "{dump}");
    }
    let mut go_on = |copied| {
        let mut state = handed_over(&state);
        state.copied = copied;
        scene.go_on(state, &[100, 101])
    };
    assert_eq!(
        go_on(true),
        Vec::<Vec<u8>>::new(),
        "the counters may be older than the last packet"
    );
    let mut heard = go_on(false);
    assert_eq!(heard.len(), 1, "the first packet was sent before");
    assert_ne!(heard[0], first);
    let opened = scene.phone.receiver.unprotect_rtp(&mut heard[0]).unwrap();
    assert_eq!(rtp::ssrc_and_sequence(opened), Some((77, 101)));
}

#[test]
fn standby_goes_on_above_the_limits_of_its_copy() {
    let mut scene = Scene::new();
    scene.bench.egress.indices.follow(scene.bench.start);
    scene.answer(1, &video(100, 77)).unwrap();
    let at = scene.bench.egress.indices.view(scene.bench.start);
    let state = scene.bench.session.copy(&Flows::new(4), Some(1), at);
    // The limit holds from the copy on.
    let sent = (101..4_000).take_while(|sequence| scene.sends(*sequence)).count();
    assert!((2_000..3_000).contains(&sent), "{sent}");
    let go_on = |scene: &mut Scene, until: Option<u64>| {
        let holds_until = until.map(|ms| scene.bench.start + Duration::from_millis(ms));
        let mut state = handed_over(&state);
        state.holds_until = holds_until;
        scene.go_on(state, &[110, 111])
    };
    for until in [None, Some(0)] {
        assert_eq!(go_on(&mut scene, until), Vec::<Vec<u8>>::new(), "{until:?}");
    }
    let heard = go_on(&mut scene, Some(1));
    let numbers = heard.into_iter().map(|mut datagram| {
        let opened = scene.phone.receiver.unprotect_rtp(&mut datagram).unwrap();
        rtp::ssrc_and_sequence(opened).unwrap().1
    });
    let numbers: Vec<u16> = numbers.collect();
    let first = u16::try_from(101 + sent).unwrap();
    assert_eq!(numbers.len(), 2, "its first packets pass");
    assert!((first..first + 50).contains(&numbers[0]), "{numbers:?} after {first}");
    assert_eq!(numbers[1], numbers[0] + 1);
}

#[test]
fn source_at_its_limit_is_copied_soon() {
    let mut scene = Scene::new();
    scene.bench.egress.indices.follow(scene.bench.start);
    let at = scene.bench.egress.indices.view(scene.bench.start);
    scene.bench.session.copy(&Flows::new(4), Some(1), at);
    scene.bench.egress.changed.take();
    assert!(!scene.sends(100), "no acknowledged copy names it");
    assert!(!scene.bench.egress.changed.borrow().is_empty());
    assert_eq!(scene.bench.drops(DropReason::SrtpIndex), 1);
}

#[test]
fn report_of_the_gateway_is_in_the_next_copy() {
    let mut scene = Scene::new();
    let datagram = scene.phone.protect(RtpSide::Rtp, &video(1, SSRC));
    scene.deliver(ArrivalKind::Rtp, &datagram).unwrap();
    let capped = MediaLimits { send_kbps: 100, ..MediaLimits::default() };
    scene.bench.at(1, |session, cx| session.set_limits(capped, cx));
    let heard = |scene: &Scene| scene.bench.client.recv(&mut [0; 256]).is_ok();
    assert!(heard(&scene), "the cap");
    let at = scene.bench.egress.indices.view(scene.bench.start);
    scene.bench.session.copy(&Flows::new(4), None, at);
    scene.bench.at(2_000, WorkerSession::tick);
    assert!(heard(&scene), "the cap again");
    assert!(scene.bench.session.uncopied);
}

#[test]
fn handed_out_session_sends_nothing() {
    let mut scene = Scene::new();
    scene.bench.egress.is_handed_out = true;
    assert_eq!(scene.answer(1, &video(100, 77)), None);
    scene.bench.egress.is_handed_out = false;
    assert!(scene.answer(2, &video(101, 77)).is_some());
}

#[test]
fn session_with_refused_counters_ends() {
    let sent = |limit| {
        let (rtp, rtcp) = (IndexLease { next: 1, limit }, IndexLease::default());
        let counters = (Vec::<ReceivedIndices>::new(), [SentIndices { ssrc: 77, rtp, rtcp }], true);
        let record = rmp_serde::to_vec(&counters).unwrap();
        rmp_serde::from_slice::<SrtpCounters>(&record).unwrap()
    };
    for (limit, is_known) in [(1, true), (1 << 20, false)] {
        let mut scene = Scene::new();
        let srtp = scene.bench.session.running().srtp.client_contexts_mut().unwrap();
        srtp.go_on(&sent(limit), true, Some(scene.bench.start + Duration::from_secs(1)));
        assert_eq!(scene.bench.session.begin_srtp(scene.bench.start), is_known, "{limit}");
        assert_eq!(scene.sends(100), is_known, "{limit}");
        assert_eq!(scene.bench.drops(DropReason::SrtpIndex), u64::from(!is_known), "{limit}");
    }
}

#[test]
fn verified_packets_keep_consent() {
    let mut scene = Scene::new();
    let media = Arc::clone(&scene.bench.session.media);
    let marks = DscpMarks::default();
    scene.bench.session.client =
        ClientSide::new(&ClientAddressing::Stun, &media, marks, false, false);
    scene.bench.check(0);
    let ends_at = |scene: &Scene, ms| {
        let at = |ms| scene.bench.start + Duration::from_millis(ms);
        let address = scene.bench.session.client.address();
        assert!(address.has_consent(at(ms - 1)), "it ends before {ms}");
        assert!(!address.has_consent(at(ms)), "it lasts longer than {ms}");
    };
    let packet = scene.phone.protect(RtpSide::Rtp, &video(1, SSRC));
    assert!(scene.deliver_at(20_000, ArrivalKind::Rtp, &packet).is_some());
    ends_at(&scene, 50_000);
    let mut forged = scene.phone.protect(RtpSide::Rtp, &video(2, SSRC));
    forged[12] ^= 1;
    for (refused, datagram) in [("forged", forged), ("replayed", packet), ("plain", video(3, SSRC))]
    {
        assert_eq!(scene.deliver_at(40_000, ArrivalKind::Rtp, &datagram), None, "{refused}");
        ends_at(&scene, 50_000);
    }
    let mut report = Vec::new();
    rtcp::write_receiver_report(SSRC, &[], &mut report);
    let report = scene.phone.protect(RtpSide::Rtcp, &report);
    scene.deliver_at(45_000, ArrivalKind::Rtcp, &report);
    ends_at(&scene, 75_000);
    let other = SourceKey { listener: 0, address: "127.0.0.2:9".parse().unwrap() };
    scene.bench.at(60_000, |session, cx| session.checked(other.path(), true, cx));
    let packet = scene.phone.protect(RtpSide::Rtp, &video(4, SSRC));
    assert!(scene.deliver_at(70_000, ArrivalKind::Rtp, &packet).is_some(), "an earlier address");
    ends_at(&scene, 90_000);
}

#[test]
fn repeated_frames_are_protected() {
    use super::redundancy::{OPUS, RED, frame, frames, media, report, voice};

    let mut scene = Scene::new();
    let media = media(Srtp::Terminated, true);
    scene.bench.session.renegotiate(media, Arc::new(answered(true)));
    for number in 1..=50 {
        let plain = voice(OPUS, number, &frame(number));
        assert_eq!(scene.opened(1, &plain), Some(plain), "{number}");
    }
    let report = scene.phone.protect(RtpSide::Rtcp, &report(50, 5));
    assert!(scene.deliver_at(2, ArrivalKind::Rtcp, &report).is_some());
    scene.bench.at(3, WorkerSession::tick);
    for number in 51..=55 {
        scene.opened(4, &voice(OPUS, number, &frame(number))).unwrap();
    }
    let opened = scene.opened(5, &voice(OPUS, 56, &frame(56))).unwrap();
    let header = rtp::RtpHeader::parse(&opened).unwrap();
    assert_eq!((header.payload_type, header.sequence), (RED, 56));
    assert_eq!(frames(&opened), [52, 54, 56].map(frame));
}

#[test]
fn parity_has_indices_of_its_own_at_each_process() {
    use fec::{FLEXFEC, header, media};

    let mut scene = Scene::new();
    let media = media(Srtp::Terminated, true, false);
    scene.bench.session.renegotiate(media, Arc::new(answered(true)));
    let mut parities = Vec::new();
    for (first, lost) in [(1, 5), (101, 10)] {
        assert_eq!(scene.opened_pictures(first..=first + 95).len(), 96);
        scene.report_lost_pictures(first + 95, lost);
        let opened = scene.opened_pictures(first + 96..=first + 99);
        let headers = opened.iter().map(|packet| header(packet));
        parities.extend(headers.filter(|header| header.payload_type == FLEXFEC));
        scene.hand_over();
    }
    let numbers: Vec<_> = parities.iter().map(|header| (header.ssrc, header.sequence)).collect();
    let [(ssrc, sequence), _] = numbers[..] else { panic!("{numbers:?}") };
    assert_eq!(numbers[1], (ssrc, sequence + 1), "the second process goes on");
    assert_ne!(ssrc, header(&fec::picture(1)).ssrc);
    assert_eq!(scene.bench.drops(DropReason::SrtpIndex), 0);
}

#[test]
fn parity_covers_packets_as_the_client_gets_them() {
    use fec::{FLEXFEC, media, picture, recovered};

    let mut scene = Scene::new();
    let payload_types = vec![(120, 96), (121, FLEXFEC)].into();
    let numbers = ClientNumbers::new(&payload_types, &ExtensionMap::default(), None);
    let answered = AnsweredMedia { numbers, ..answered(true) };
    scene.answer_offer(answered.clone());
    scene.bench.session.renegotiate(media(Srtp::Terminated, true, false), Arc::new(answered));
    scene.opened_pictures(1..=96);
    scene.report_lost_pictures(96, 5);
    let opened = scene.opened_pictures(97..=124);
    let mut lost = picture(118);
    rtp::set_payload_type(&mut lost, 120);
    assert_eq!(recovered(&opened, 121, 118), [lost]);
}
