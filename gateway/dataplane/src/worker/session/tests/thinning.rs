//! Thinner video to a client: VP8 with three temporal layers, two packets per frame, and AV1.

use evenkeel_model::{ExtensionUri, HeaderExtension};

use super::*;
use crate::flows::Flows;

/// The layer of each of eight frames, and whether it refers to the base layer alone, as libwebrtc sends them.
const LAYERS: [(u8, bool); 8] =
    [(0, false), (2, true), (1, true), (2, false), (0, false), (2, false), (1, false), (2, false)];

fn packet(frame: u16, part: u16, payload: &[u8]) -> Vec<u8> {
    let fields = rtp::Fields {
        payload_type: 96,
        marker: part == 1,
        sequence: 2 * frame + part,
        timestamp: u32::from(frame) * 3_000,
        ssrc: 9,
    };
    let mut packet = Vec::new();
    rtp::write(&fields, payload, &mut packet);
    packet
}

fn packets(frame: u16) -> [Vec<u8>; 2] {
    let (layer, joins) = LAYERS[usize::from(frame % 8)];
    let [high, low] = (frame | 0x8000).to_be_bytes();
    [(0, 0x90), (1, 0x80)].map(|(part, start)| {
        let layers = layer << 6 | u8::from(joins) << 5;
        packet(frame, part, &[start, 0xe0, high, low, 0, layers, 0x9d, 1, 2])
    })
}

/// A packet that the client got.
#[derive(Debug)]
struct Got {
    sequence: u16,
    timestamp: u32,
    picture: u16,
}

struct Scene {
    bench: Bench,
    hop: Hop,
    frame: u16,
}

impl Scene {
    /// The client has got eight frames.
    fn new() -> Scene {
        let (bench, _, hop) = at_node(Srtp::Plain);
        let mut scene = Scene { bench, hop, frame: 0 };
        assert_eq!(frames(&scene.send(8)), (0..8).collect::<Vec<_>>());
        scene
    }

    fn thin(&mut self, thin: u8) {
        let limits = MediaLimits { thin, ..MediaLimits::default() };
        self.bench.at(33 * u64::from(self.frame), |session, cx| session.set_limits(limits, cx));
    }

    fn arrive(&mut self, packet: &[u8]) {
        let (at, hop) = (33 * u64::from(self.frame), self.hop);
        self.bench.at(at, |session, cx| session.handle_node_packet(hop, packet, cx));
    }

    fn received(&self) -> Vec<Got> {
        let mut packet = [0; 64];
        let received = std::iter::from_fn(|| {
            let length = self.bench.client.recv(&mut packet).ok()?;
            let header = rtp::RtpHeader::parse(&packet[..length]).unwrap();
            let payload = header.payload(&packet[..length]);
            let picture = u16::from_be_bytes([payload[2], payload[3]]) & 0x7fff;
            Some(Got { sequence: header.sequence, timestamp: header.timestamp, picture })
        });
        received.collect()
    }

    /// Sends the next frames.
    fn send(&mut self, frames: u16) -> Vec<Got> {
        let mut received = Vec::new();
        for _ in 0..frames {
            for packet in packets(self.frame) {
                self.arrive(&packet);
            }
            received.extend(self.received());
            self.frame += 1;
        }
        received
    }
}

/// The frames of which the client got both packets, and no other.
fn frames(received: &[Got]) -> Vec<u32> {
    let (pairs, rest) = received.as_chunks::<2>();
    assert!(rest.is_empty() && pairs.iter().all(|[one, other]| one.timestamp == other.timestamp));
    pairs.iter().map(|[first, _]| first.timestamp / 3_000).collect()
}

/// All packets follow one another from this number on, and their pictures as well.
fn assert_continuous(received: &[Got], mut sequence: u16) {
    let picture = sequence / 2;
    for (place, got) in (0..).zip(received) {
        assert_eq!((got.sequence, got.picture), (sequence, picture + place / 2), "{received:?}");
        sequence += 1;
    }
}

#[test]
fn highest_layer_is_half_of_the_frames() {
    let mut scene = Scene::new();
    scene.bench.session.summary(scene.bench.start);
    scene.thin(1);
    let received = scene.send(32);
    let lower = |frame: &u32| LAYERS[*frame as usize % 8].0 < 2;
    assert_eq!(frames(&received), (8..40).filter(lower).collect::<Vec<_>>());
    assert_continuous(&received, 16);
    let summary = scene.bench.session.summary(scene.bench.start).unwrap();
    assert_eq!((summary.counts.thinned, summary.totals.shed), (32, 32));
    let flow = summary.flow;
    assert_eq!((flow.received, flow.expected, flow.lost), ([0, 64], 32, 0), "no loss");
    assert_eq!(scene.bench.drops(DropReason::Shed), 32);
}

#[test]
fn first_frame_after_a_switch_is_whole() {
    let mut scene = Scene::new();
    scene.thin(1);
    scene.send(9);
    scene.hop = signs::hop(1);
    scene.bench.board = Arc::new(Board::new(2));
    let route = Route::new(2, RedundancyMode::Hot, [(scene.hop, HopGrant::Admitted)]);
    scene.bench.session.route = Arc::new(RouteCell::holding(route));
    assert_eq!(LAYERS[17 % 8].0, 2, "the highest layer");
    assert_eq!(frames(&scene.send(1)), [17]);
}

#[test]
fn base_layer_alone_is_a_quarter_of_the_frames() {
    let mut scene = Scene::new();
    scene.thin(2);
    let received = scene.send(32);
    assert_eq!(frames(&received), (8..40).step_by(4).collect::<Vec<_>>());
    assert_continuous(&received, 16);
}

#[test]
fn layers_return_with_frames_that_need_none_of_them() {
    for (thin, returning) in [
        (1, vec![20, 22, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35]),
        // The highest layer as a whole needs the one below.
        (2, vec![20, 24, 25, 26, 28, 30, 32, 33, 34, 35]),
    ] {
        let mut scene = Scene::new();
        scene.thin(thin);
        let before = scene.send(11).len() as u16;
        scene.thin(0);
        let received = scene.send(17);
        assert_eq!(frames(&received), returning, "{thin}");
        assert_continuous(&received, 16 + before);
    }
}

#[test]
fn frame_that_has_begun_passes_whole() {
    let mut scene = Scene::new();
    scene.send(1);
    let [first, second] = packets(9);
    scene.arrive(&first);
    scene.thin(2);
    scene.arrive(&second);
    assert_eq!(scene.received().len(), 2, "a frame of the highest layer");
    scene.frame = 10;
    assert_eq!(frames(&scene.send(3)), [12]);
}

#[test]
fn stream_without_layers_loses_discardable_frames() {
    let mut scene = Scene::new();
    let received = |scene: &mut Scene, is_discardable: bool| {
        let flags = if is_discardable { 0x20 } else { 0 };
        for (part, start) in [(0, 0x10), (1, 0x00)] {
            scene.arrive(&packet(scene.frame, part, &[start | flags, 0x9d, 1, 2]));
        }
        scene.frame += 1;
        scene.received().len()
    };
    for (thin, discardable) in [(0, 2), (1, 0), (2, 0), (0, 2)] {
        scene.thin(thin);
        assert_eq!(received(&mut scene, false), 2);
        assert_eq!(received(&mut scene, true), discardable, "{thin}");
    }
}

#[test]
fn continued_session_thins_from_its_next_frame() {
    let mut scene = Scene::new();
    scene.thin(2);
    scene.send(4);
    let state = scene.bench.session.hand_out(&Flows::new(1));
    scene.bench.session.go_on(handed_over(&state));
    scene.frame = 13;
    assert_eq!(frames(&scene.send(8)), [13, 16, 20], "the first frame passes");
}

/// The id of the header extension with dependency descriptors.
const DESCRIPTOR: u8 = 12;

/// The structure of three temporal layers, as libwebrtc sends it, behind the fields that each descriptor has: two templates of the base
/// layer, the first one of key frames, then one of layer 1 and two of layer 2.
const STRUCTURE: [u8; 11] = [0x80, 0x02, 0x14, 0xea, 0xa8, 0x60, 0x41, 0x4d, 0x14, 0x10, 0x00];

/// The templates of four frames.
const TEMPLATES: [u8; 4] = [1, 3, 2, 4];

/// A session with AV1.
struct Av1Scene {
    scene: Scene,
}

impl Av1Scene {
    fn new() -> Av1Scene {
        let (mut bench, _, hop) = at_node(Srtp::Plain);
        bench.session.media = Av1Scene::media();
        Av1Scene { scene: Scene { bench, hop, frame: 0 } }
    }

    fn media() -> Arc<MediaDescription> {
        let stream = MediaStream {
            kind: StreamKind::Video,
            payload_types: vec![PayloadType::new(96, "AV1", 90_000)],
            feedback: Takes::default(),
            bitrate_kbps: None,
        };
        let mut media = MediaDescription::new(vec![stream], RtcpPort::Mux, Srtp::Plain);
        let uri = ExtensionUri::DependencyDescriptor;
        media.extensions.push(HeaderExtension { id: DESCRIPTOR, uri });
        Arc::new(media)
    }

    /// Sends a frame with this template. Returns whether it passed.
    fn send(&mut self, template: u8, structure: &[u8]) -> bool {
        let frame = self.scene.frame;
        let [high, low] = frame.to_be_bytes();
        let length = 3 + structure.len();
        let mut elements = vec![DESCRIPTOR, length as u8, 0xc0 | template, high, low];
        elements.extend_from_slice(structure);
        elements.resize(elements.len().next_multiple_of(4), 0);
        let mut extension = vec![0x10, 0x00, 0, elements.len() as u8 / 4];
        extension.append(&mut elements);
        let mut packet = packet(frame, 1, b"obus");
        rtp::set_sequence(&mut packet, frame);
        packet[0] |= 0x10;
        packet.splice(rtp::HEADER_LEN..rtp::HEADER_LEN, extension);
        self.scene.arrive(&packet);
        self.scene.frame += 1;
        let mut got = [0; 64];
        self.scene.bench.client.recv(&mut got).is_ok()
    }

    /// Sends the next so many frames after a key frame. Returns the templates of those that passed.
    fn watch(&mut self, frames: usize) -> Vec<u8> {
        let templates = TEMPLATES.into_iter().cycle().take(frames);
        templates.filter(|template| self.send(*template, &[])).collect()
    }
}

#[test]
fn av1_is_thinned_by_its_dependency_descriptor() {
    let mut call = Av1Scene::new();
    assert!(call.send(0, &STRUCTURE), "a key frame, before the video is thinned");
    assert_eq!(call.watch(4), TEMPLATES);
    call.scene.thin(1);
    assert_eq!(call.watch(8), [1, 2, 1, 2]);
    call.scene.thin(2);
    assert_eq!(call.watch(8), [1, 1]);
    assert_eq!(call.scene.bench.drops(DropReason::Shed), 4 + 6);
    call.scene.thin(0);
    assert_eq!(call.watch(4), TEMPLATES, "all layers return with the base layer");
}

#[test]
fn av1_without_its_structure_is_whole() {
    let mut call = Av1Scene::new();
    call.scene.thin(2);
    assert_eq!(call.watch(8), [TEMPLATES, TEMPLATES].concat());
    assert!(call.send(0, &STRUCTURE));
    assert_eq!(call.watch(8), [1, 1], "from the key frame on");
}

#[test]
fn later_answer_with_descriptors_has_av1_thinned() {
    let mut call = Av1Scene::new();
    let mut without = (*Av1Scene::media()).clone();
    without.extensions.clear();
    call.scene.bench.session.media = Arc::new(without);
    call.send(0, &STRUCTURE);
    call.scene.thin(2);
    assert_eq!(call.watch(4), TEMPLATES, "no id is known");
    let answered = Arc::new(srtp::answered(true));
    call.scene.bench.session.renegotiate(Av1Scene::media(), answered);
    call.send(0, &STRUCTURE);
    assert_eq!(call.watch(8), [1, 1]);
}
