//! Simulcast: two clients send video in two layers through a node that keeps SSRCs, a third one receives.

use evenkeel_model::{Metric, OfferedLayer};

use super::*;
use crate::flows::Flows;

/// Bytes in a packet of each layer.
const SIZES: [usize; 2] = [100, 400];

/// A sender. Its SSRCs are those of the low layer, the high one, and their retransmissions.
struct Sender {
    bench: Bench,
    node: UdpSocket,
    ssrcs: [u32; 4],
    /// Layers of which the next frame is a key frame.
    asked: Vec<u32>,
}

struct Scene {
    senders: Vec<Sender>,
    receiver: Bench,
    node: UdpSocket,
    hop: Hop,
    frame: u16,
}

/// A packet that the client got.
#[derive(Clone, Debug)]
struct Got {
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    payload: Vec<u8>,
    /// The label of the sender.
    label: Option<Vec<u8>>,
}

/// A session with video and retransmissions.
fn at_node_with_rtx() -> (Bench, UdpSocket, Hop) {
    let (mut bench, node, hop) = at_node(Srtp::Plain);
    let mut media = (*bench.session.media).clone();
    let rtx = PayloadType { repairs: Some(96), ..PayloadType::new(97, "rtx", 90_000) };
    media.streams[0].payload_types.push(rtx);
    bench.session.media = Arc::new(media);
    (bench, node, hop)
}

fn describe(session: &mut WorkerSession, simulcast: Vec<OfferedLayer>) {
    session.media = Arc::new(MediaDescription { simulcast, ..(*session.media).clone() });
    session.follow_layers();
}

fn packet(payload_type: u8, ssrc: u32, sequence: u16, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    let fields = rtp::Fields { payload_type, marker: true, sequence, timestamp, ssrc };
    let mut packet = Vec::new();
    rtp::write(&fields, payload, &mut packet);
    packet
}

fn datagrams(socket: &UdpSocket) -> Vec<Vec<u8>> {
    let mut buffer = [0; 1_500];
    let received = std::iter::from_fn(|| {
        let length = socket.recv(&mut buffer).ok()?;
        Some(buffer[..length].to_vec())
    });
    received.collect()
}

impl Sender {
    fn new(number: u32) -> Sender {
        let (mut bench, node, _) = at_node_with_rtx();
        bench.session.seed = number.into();
        let ssrcs @ [low, high, low_rtx, high_rtx] = [1, 2, 3, 4].map(|place| 100 * number + place);
        let layer = |rid: &str, ssrc, rtx_ssrc| OfferedLayer {
            rid: rid.into(),
            ssrc: Some(ssrc),
            rtx_ssrc: Some(rtx_ssrc),
        };
        describe(&mut bench.session, vec![layer("h", high, high_rtx), layer("l", low, low_rtx)]);
        Sender { bench, node, ssrcs, asked: Vec::new() }
    }

    /// Sends a packet. Returns it as the node gets it.
    fn send(&mut self, ms: u64, packet: &[u8]) -> Vec<Vec<u8>> {
        self.bench.at(ms, |session, cx| {
            session.handle_client_rtp(packet, cx);
            flush_ports(session, cx);
        });
        datagrams(&self.node)
    }
}

impl Scene {
    fn new(senders: u32) -> Scene {
        let (receiver, node, hop) = at_node_with_rtx();
        let senders = (1..=senders).map(Sender::new).collect();
        Scene { senders, receiver, node, hop, frame: 0 }
    }

    fn ms(&self) -> u64 {
        100 * u64::from(self.frame)
    }

    /// The node forwards a packet of this sender.
    fn forward(&mut self, sender: usize, packet: &[u8]) {
        let (ms, hop) = (self.ms(), self.hop);
        for packet in self.senders[sender].send(ms, packet) {
            self.receiver.at(ms, |session, cx| session.handle_node_packet(hop, &packet, cx));
        }
    }

    /// Has each sender send frames of both layers, one each 100 ms. The node forwards requests for key frames. Returns what the client got.
    fn send(&mut self, frames: u16) -> Vec<Got> {
        let mut received = Vec::new();
        for _ in 0..frames {
            self.frame += 1;
            for sender in 0..self.senders.len() {
                let Sender { ssrcs, asked, .. } = &mut self.senders[sender];
                let (ssrcs, asked) = (*ssrcs, std::mem::take(asked));
                for (place, size) in SIZES.into_iter().enumerate() {
                    let mut payload = vec![0; size];
                    payload[0] = 0x10;
                    payload[1] = u8::from(!asked.contains(&ssrcs[place]));
                    let sequence = self.frame + 1_000 * place as u16;
                    let timestamp = 9_000 * u32::from(self.frame) + place as u32;
                    let packet = packet(96, ssrcs[place], sequence, timestamp, &payload);
                    self.forward(sender, &packet);
                }
            }
            self.receiver.at(self.ms(), |session, cx| {
                session.tick(cx);
                flush_ports(session, cx);
            });
            received.extend(self.received());
            for media in self.requested() {
                let asked = self.senders.iter_mut().find(|it| it.ssrcs.contains(&media)).unwrap();
                asked.asked.push(media);
            }
        }
        received
    }

    fn received(&self) -> Vec<Got> {
        let packets = datagrams(&self.receiver.client).into_iter().filter_map(|packet| {
            let header = rtp::RtpHeader::parse(&packet).ok()?;
            let payload = header.payload(&packet).to_vec();
            let label = rtp::extension::element(&packet, &header, 4).map(<[u8]>::to_vec);
            let rtp::RtpHeader { ssrc, sequence, timestamp, .. } = header;
            let got = Got { ssrc, sequence, timestamp, payload, label };
            [96, 97].contains(&header.payload_type).then_some(got)
        });
        packets.collect()
    }

    /// The streams of which the node was asked for key frames.
    fn requested(&self) -> Vec<u32> {
        let compounds = datagrams(&self.node);
        let packets = compounds.iter().flat_map(|compound| rtcp::packets(compound));
        let plis = packets.filter_map(|packet| match packet {
            Ok(rtcp::RtcpPacket::Pli(pli)) => Some(pli.media),
            _ => None,
        });
        plis.collect()
    }

    fn limit(&mut self, limits: MediaLimits) {
        self.receiver.at(self.ms(), |session, cx| session.set_limits(limits, cx));
    }

    /// Reads RTCP of the receiver as the node gets it.
    fn feed_back(&mut self, compound: &[u8]) -> Vec<u8> {
        self.receiver.at(self.ms(), |session, cx| {
            session.handle_client_rtcp(compound, cx);
            flush_ports(session, cx);
        });
        datagrams(&self.node).concat()
    }

    fn measured(&mut self, metric: Metric) -> Option<u32> {
        let now = self.receiver.start + Duration::from_millis(self.ms());
        self.receiver.session.summary(now).unwrap().measures.measured(metric)
    }
}

/// All packets follow one another under one SSRC. Returns the places of their layers, without repetitions.
fn layers(received: &[Got]) -> Vec<usize> {
    for pair in received.windows(2) {
        assert_eq!(pair[1].ssrc, pair[0].ssrc);
        assert_eq!(pair[1].sequence, pair[0].sequence + 1);
        let ahead = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
        assert!((1..=9_000).contains(&ahead), "{ahead}");
    }
    let layer = |got: &Got| SIZES.iter().position(|size| got.payload.len() == *size).unwrap();
    let mut layers: Vec<usize> = received.iter().map(layer).collect();
    layers.dedup();
    layers
}

#[test]
fn client_gets_one_layer_under_one_numbering() {
    let mut scene = Scene::new(1);
    let received = scene.send(20);
    // Both layers of the frame with which the high one begins.
    assert_eq!((layers(&received), received.len()), (vec![0, 1], 21));
    assert_eq!((received[0].ssrc, received[0].sequence), (101, 1), "as the sender has it");
    assert!(received.iter().all(|got| got.label.is_none()), "it is no secret otherwise");
    assert_eq!(scene.receiver.drops(DropReason::Layer), 19);
    assert_eq!(scene.measured(Metric::Layer), Some(2));
}

#[test]
fn policy_limits_the_layer() {
    let mut scene = Scene::new(1);
    let mut received = scene.send(20);
    scene.limit(MediaLimits { layer: 1, ..MediaLimits::default() });
    received.extend(scene.send(10));
    assert_eq!(layers(&received), [0, 1, 0]);
    assert_eq!(scene.measured(Metric::Layer), Some(1));
    scene.limit(MediaLimits::default());
    received.extend(scene.send(10));
    assert_eq!((layers(&received), received.len()), (vec![0, 1, 0, 1], 42));
}

#[test]
fn estimate_of_the_client_chooses_and_ends_here() {
    let mut scene = Scene::new(1);
    let mut received = scene.send(20);
    let mut remb = Vec::new();
    rtcp::write_remb(9, 20_000, &[101], &mut remb);
    assert!(scene.feed_back(&remb).is_empty());
    received.extend(scene.send(10));
    assert_eq!(layers(&received), [0, 1, 0], "the high one has 34 kbit/s");
}

#[test]
fn cap_is_shared_by_senders() {
    let mut scene = Scene::new(2);
    let received = scene.send(20);
    let of = |received: &[Got], ssrc| {
        let of_sender: Vec<Got> = received.iter().filter(|it| it.ssrc == ssrc).cloned().collect();
        layers(&of_sender)
    };
    assert_eq!([101, 201].map(|ssrc| of(&received, ssrc)), [[0, 1], [0, 1]]);
    // The share of each is less than the 34 kbit/s of its high layer.
    scene.limit(MediaLimits { receive_kbps: 60, ..MediaLimits::default() });
    let received = scene.send(10);
    assert_eq!([101, 201].map(|ssrc| of(&received, ssrc)), [[1, 0], [1, 0]]);
}

#[test]
fn feedback_of_the_client_names_its_layer() {
    let mut scene = Scene::new(1);
    let last = scene.send(20).pop().unwrap();
    let mut compound = Vec::new();
    rtcp::write_nack(9, 101, &[last.sequence], &mut compound);
    rtcp::write_pli(rtcp::Pli { sender: 9, media: 101 }, &mut compound);
    let mut expected = Vec::new();
    rtcp::write_nack(9, 102, &[1_020], &mut expected);
    rtcp::write_pli(rtcp::Pli { sender: 9, media: 102 }, &mut expected);
    assert_eq!(scene.feed_back(&compound), expected);
}

#[test]
fn reports_of_other_layers_end_here() {
    let mut scene = Scene::new(1);
    scene.send(20);
    let hop = scene.hop;
    let mut arrives = |ssrc| {
        let info = rtcp::SenderInfo { ssrc, ntp: 1, timestamp: 1, packets: 2, octets: 3 };
        let mut report = Vec::new();
        rtcp::write_sender_report(&info, &[], &mut report);
        let ms = scene.ms();
        scene.receiver.at(ms, |session, cx| session.handle_node_packet(hop, &report, cx));
        let received = datagrams(&scene.receiver.client).concat();
        rtcp::packets(&received).find_map(|packet| match packet {
            Ok(rtcp::RtcpPacket::SenderReport(report)) => Some(report.info.ssrc),
            _ => None,
        })
    };
    assert_eq!([101, 102, 999].map(&mut arrives), [None, Some(101), None]);
}

#[test]
fn retransmission_has_the_numbers_of_the_client() {
    let mut scene = Scene::new(1);
    let last = scene.send(20).pop().unwrap();
    for (ssrc, sequence, timestamp, expected) in [
        (104, 1_020, 9_000 * 20 + 1, Some((last.sequence, last.timestamp))),
        (103, 20, 9_000 * 20, None),
    ] {
        let payload = [&u16::to_be_bytes(sequence)[..], b"again"].concat();
        scene.forward(0, &packet(97, ssrc, 5, timestamp, &payload));
        let received = scene.received();
        let got = received.first().map(|got| {
            assert_eq!(got.ssrc, ssrc);
            (u16::from_be_bytes([got.payload[0], got.payload[1]]), got.timestamp)
        });
        assert_eq!(got, expected);
    }
}

#[test]
fn withheld_video_returns_without_a_gap() {
    let mut scene = Scene::new(1);
    let mut received = scene.send(20);
    scene.limit(MediaLimits { withheld: 1 << 96, ..MediaLimits::default() });
    assert_eq!(scene.send(5).len(), 0);
    scene.limit(MediaLimits::default());
    let returned = scene.send(5);
    assert_eq!(returned[0].sequence, received.pop().unwrap().sequence + 1);
    assert_eq!(layers(&returned), [1]);
}

#[test]
fn another_process_continues_the_layer() {
    let mut scene = Scene::new(1);
    let mut received = scene.send(20);
    let state = scene.receiver.session.hand_out(&Flows::new(1));
    scene.receiver.session.go_on(handed_over(&state));
    let state = scene.senders[0].bench.session.hand_out(&Flows::new(1));
    scene.senders[0].bench.session.go_on(handed_over(&state));
    received.extend(scene.send(20));
    assert_eq!((layers(&received), received.len()), (vec![0, 1], 41));
}

/// Appends a RID, by the room's id 10, to a packet without header extension.
fn with_rid(packet: &[u8], rid: u8) -> Vec<u8> {
    let (header, payload) = packet.split_at(rtp::HEADER_LEN);
    let mut packet = [header, &[0xbe, 0xde, 0, 1, 0xa0, rid, 0, 0], payload].concat();
    packet[0] |= 0x10;
    packet
}

#[test]
fn client_names_its_layers_at_first_only() {
    let mut sender = Sender::new(1);
    let layer = |rid: &str| OfferedLayer { rid: rid.into(), ssrc: None, rtx_ssrc: None };
    describe(&mut sender.bench.session, vec![layer("x"), layer("y")]);
    let packet = |ssrc, sequence| packet(96, ssrc, sequence, 0, &[0x10, 1]);
    assert_eq!(sender.send(0, &packet(7, 1)), [packet(7, 1)], "unknown");
    let first = sender.send(1, &with_rid(&packet(7, 2), b'x')).remove(0);
    let second = sender.send(2, &packet(7, 3)).remove(0);
    let elements = |packet: &[u8]| {
        let header = rtp::RtpHeader::parse(packet).unwrap();
        let element = |id| rtp::extension::element(packet, &header, id).map(<[u8]>::to_vec);
        [element(4), element(10)]
    };
    let [label, rid] = elements(&first);
    assert_eq!((label.map(|label| label.len()), rid.as_deref()), (Some(8), Some(&b"x"[..])));
    assert_eq!(elements(&first), elements(&second));
    let other = with_rid(&packet(8, 1), b'z');
    assert_eq!(sender.send(3, &other), [other], "not offered");
}

/// A packet with this label of a sender, and the RID `h`, by the room's ids.
fn labelled(ssrc: u32, label: [u8; 8]) -> Vec<u8> {
    let mut bytes = packet(96, ssrc, 1, 1, &[0x10, 1]);
    bytes[0] |= 0x10;
    let elements = [&[0xbe, 0xde, 0, 3, 4 << 4 | 7], &label[..], &[10 << 4, b'h', 0]].concat();
    bytes.splice(12..12, elements);
    bytes
}

#[test]
fn labels_that_a_client_makes_up_take_no_place_of_others() {
    let mut scene = Scene::new(1);
    let mut received = scene.send(20);
    for number in 0..20_u8 {
        let (ms, hop) = (scene.ms(), scene.hop);
        let packet = labelled(5_000 + u32::from(number), [b'a' + number; 8]);
        scene.receiver.at(ms, |session, cx| session.handle_node_packet(hop, &packet, cx));
    }
    let _of_the_client = scene.received();
    received.extend(scene.send(20));
    let ssrc = received[0].ssrc;
    received.retain(|it| it.ssrc == ssrc);
    assert_eq!((layers(&received), received.len()), (vec![0, 1], 41));
}

#[test]
fn streams_without_names_pass_unread() {
    let mut scene = Scene::new(1);
    describe(&mut scene.senders[0].bench.session, Vec::new());
    let received = scene.send(10);
    assert_eq!(received.len(), 20, "both");
    assert_eq!(scene.measured(Metric::Layer), None);
    assert_eq!(scene.receiver.drops(DropReason::Layer), 0);
}

#[test]
fn another_node_continues_the_video() {
    let mut scene = Scene::new(1);
    let before = scene.send(20).pop().unwrap();
    scene.hop = signs::hop(1);
    scene.receiver.board = Arc::new(Board::new(2));
    let route = Route::new(2, RedundancyMode::Hot, [(scene.hop, HopGrant::Admitted)]);
    scene.receiver.session.route = Arc::new(RouteCell::holding(route));
    let after = scene.send(5);
    assert_eq!((after[0].ssrc, after[0].sequence), (before.ssrc, before.sequence + 1));
    assert_eq!(layers(&after), [1], "it keeps SSRCs");
}
