//! Policing of a client that sends more than it may: VP8 of 30 frames a second, and voice of 50 packets.

use evenkeel_model::PolicingStep;

use super::retransmission::heard;
use super::*;

const CEILING: u32 = 400;
const CAMERA: u32 = 3;
const RETRANSMISSIONS: u32 = 4;
const VOICE: u32 = 5;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Frame {
    Key,
    /// Later frames refer to it.
    Delta,
    /// No frame refers to it.
    Discardable,
}

/// A packet of video that the node got.
#[derive(Clone, Debug)]
struct Got {
    sequence: u16,
    picture: u16,
    /// The number of the frame.
    frame: u16,
    bytes: usize,
}

struct Scene {
    bench: Bench,
    node: UdpSocket,
    hop: Hop,
    frame: u16,
    sequence: u16,
    /// The frames that were sent, in their order.
    sent: Vec<Frame>,
    /// Since the last call of [`Scene::goes_on`].
    video: Vec<Got>,
    voice_bytes: usize,
    told_bps: Vec<Option<u64>>,
    key_frames_asked: usize,
    policed: u32,
    /// A key frame was requested since the last one.
    is_asked: bool,
    /// The policing by the last summary.
    step: Option<PolicingStep>,
}

fn media(takes: Takes, codec: &str, srtp: Srtp) -> MediaDescription {
    let stream = |kind, payload_types, feedback| MediaStream {
        kind,
        payload_types,
        feedback,
        bitrate_kbps: None,
    };
    let video = vec![PayloadType::new(96, codec, 90_000), PayloadType::new(97, "rtx", 90_000)];
    let voice = vec![PayloadType::new(111, "opus", 48_000)];
    let streams = vec![
        stream(StreamKind::Video, video, takes),
        stream(StreamKind::Audio, voice, Takes::default()),
    ];
    MediaDescription::new(streams, RtcpPort::Mux, srtp)
}

const REMB: Takes = Takes {
    pli: true,
    fir: false,
    remb: true,
    tmmbr: false,
    nack: true,
    transport_cc: false,
    ccfb: false,
};

impl Scene {
    fn new(ceiling_kbps: u32) -> Scene {
        Scene::of(media(REMB, "VP8", Srtp::Plain), ceiling_kbps)
    }

    fn of(media: MediaDescription, ceiling_kbps: u32) -> Scene {
        let (mut bench, node, hop) = at_node(media.srtp);
        bench.session.media = Arc::new(media);
        bench.session.limits = MediaLimits { ceiling_kbps, ..MediaLimits::default() };
        Scene {
            bench,
            node,
            hop,
            frame: 0,
            sequence: 0,
            sent: Vec::new(),
            video: Vec::new(),
            voice_bytes: 0,
            told_bps: Vec::new(),
            key_frames_asked: 0,
            policed: 0,
            is_asked: false,
            step: None,
        }
    }

    fn ms(&self) -> u64 {
        u64::from(self.frame) * 100 / 3
    }

    fn arrive(&mut self, packet: &[u8]) {
        let at = self.ms();
        self.bench.at(at, |session, cx| {
            session.handle_client_rtp(packet, cx);
            flush_ports(session, cx);
        });
        for packet in heard(&self.node) {
            let header = rtp::RtpHeader::parse(&packet).unwrap();
            let payload = header.payload(&packet);
            match header.ssrc {
                CAMERA => self.video.push(Got {
                    sequence: header.sequence,
                    picture: u16::from_be_bytes([payload[2], payload[3]]) & 0x7fff,
                    frame: (header.timestamp / 3_000) as u16,
                    bytes: packet.len(),
                }),
                VOICE => self.voice_bytes += packet.len(),
                _ => {}
            }
        }
    }

    fn packet(&self, ssrc: u32, marker: bool, sequence: u16, payload: &[u8]) -> Vec<u8> {
        let payload_type = match ssrc {
            CAMERA => 96,
            RETRANSMISSIONS => 97,
            _ => 111,
        };
        let timestamp = u32::from(self.frame) * 3_000;
        let fields = rtp::Fields { payload_type, marker, sequence, timestamp, ssrc };
        let mut packet = Vec::new();
        rtp::write(&fields, payload, &mut packet);
        packet
    }

    /// The payload of a part of the present frame (RFC 7741, section 4.2).
    fn payload(&self, frame: Frame, is_first: bool, bytes: usize) -> Vec<u8> {
        let flags = u8::from(is_first) << 4 | u8::from(frame == Frame::Discardable) << 5;
        let [high, low] = (self.frame | 0x8000).to_be_bytes();
        let mut payload = vec![0x80 | flags, 0x80, high, low, u8::from(frame != Frame::Key)];
        payload.resize(bytes, 0);
        payload
    }

    /// Sends a frame of so many bytes, headers included.
    fn send(&mut self, frame: Frame, bytes: usize) {
        let parts = bytes.div_ceil(1_000);
        for part in 0..parts {
            let payload = self.payload(frame, part == 0, bytes / parts - rtp::HEADER_LEN);
            let packet = self.packet(CAMERA, part + 1 == parts, self.sequence, &payload);
            self.sequence = self.sequence.wrapping_add(1);
            self.arrive(&packet);
        }
        self.sent.push(frame);
        self.is_asked &= frame != Frame::Key;
        self.end_frame();
    }

    /// Sends so many bytes of voice in the time of a frame.
    fn speak(&mut self, bytes: usize) {
        let packet = self.packet(VOICE, false, self.frame, &vec![1; bytes - rtp::HEADER_LEN]);
        self.arrive(&packet);
        self.end_frame();
    }

    fn end_frame(&mut self) {
        self.frame += 1;
        if !self.frame.is_multiple_of(3) {
            return;
        }
        let at = self.ms();
        self.bench.at(at, WorkerSession::tick);
        let now = self.bench.start + Duration::from_millis(at);
        let summary = self.bench.session.summary(now).unwrap();
        self.policed += summary.counts.policed;
        self.step = summary.flow.policing.map(|policing| policing.step);
        for compound in heard(&self.bench.client) {
            for part in rtcp::packets(&compound).map_while(Result::ok) {
                match part {
                    rtcp::RtcpPacket::Remb(remb) => self.told_bps.push(Some(remb.bitrate_bps)),
                    // TMMBR.
                    rtcp::RtcpPacket::Other { payload_type: 205, count: 3 } => {
                        self.told_bps.push(None);
                    }
                    rtcp::RtcpPacket::Pli(_) => {
                        self.key_frames_asked += 1;
                        self.is_asked = true;
                    }
                    _ => {}
                }
            }
        }
    }

    fn forget(&mut self) {
        self.video.clear();
        self.told_bps.clear();
        (self.voice_bytes, self.key_frames_asked, self.policed) = (0, 0, 0);
    }

    /// Sends video of this rate for so many seconds. `frame` tells the kind of each.
    fn goes_on(&mut self, kbps: u32, seconds: u16, frame: impl Fn(&Scene) -> Frame) {
        self.forget();
        for _ in 0..30 * seconds {
            let (frame, usual) = (frame(self), kbps as usize * 1_000 / 8 / 30);
            self.send(frame, if frame == Frame::Key { 3 * usual } else { usual });
        }
    }

    fn speaks(&mut self, kbps: u32, seconds: u16) {
        self.forget();
        (0..30 * seconds).for_each(|_| self.speak(kbps as usize * 1_000 / 8 / 30));
    }

    /// The rate of the video that the node got in so many seconds.
    fn kbps(&self, seconds: usize) -> usize {
        self.video.iter().map(|got| got.bytes).sum::<usize>() * 8 / 1_000 / seconds
    }

    /// The frames of which the node got a packet.
    fn frames(&self) -> Vec<u16> {
        let mut frames: Vec<_> = self.video.iter().map(|got| got.frame).collect();
        frames.dedup();
        frames
    }

    /// The node misses no packet and no picture.
    fn assert_continuous(&self) {
        for pair in self.video.windows(2) {
            let [before, got] = pair else { unreachable!() };
            assert_eq!(got.sequence, before.sequence.wrapping_add(1), "{pair:?}");
            assert!(got.picture - before.picture <= 1, "{pair:?}");
        }
    }
}

fn every_other(scene: &Scene) -> Frame {
    if scene.frame.is_multiple_of(2) { Frame::Delta } else { Frame::Discardable }
}

#[test]
fn sender_above_the_ceiling_is_told_each_second() {
    let tmmbr = Takes { remb: false, tmmbr: true, ..REMB };
    for (takes, bps) in [(REMB, Some(400_000)), (tmmbr, None)] {
        let mut scene = Scene::of(media(takes, "VP8", Srtp::Plain), CEILING);
        scene.goes_on(390, 10, |_| Frame::Delta);
        assert!(scene.told_bps.is_empty() && scene.step.is_none());
        scene.goes_on(430, 10, |_| Frame::Delta);
        assert!((7..=10).contains(&scene.told_bps.len()), "{:?}", scene.told_bps);
        assert!(scene.told_bps.iter().all(|told| *told == bps), "{:?}", scene.told_bps);
        assert_eq!((scene.step, scene.policed), (Some(PolicingStep::Told), 0), "tolerated");
        scene.goes_on(390, 8, |_| Frame::Delta);
        scene.goes_on(390, 2, |_| Frame::Delta);
        assert!(scene.told_bps.is_empty() && scene.step.is_none());
        assert!(scene.bench.session.running().policing.is_none());
    }
}

#[test]
fn node_does_not_lift_the_ceiling() {
    let mut scene = Scene::new(CEILING);
    scene.goes_on(430, 5, |_| Frame::Delta);
    let mut compound = Vec::new();
    rtcp::write_receiver_report(9, &[], &mut compound);
    rtcp::write_remb(9, 5_000_000, &[CAMERA], &mut compound);
    let (at, hop) = (scene.ms(), scene.hop);
    scene.bench.at(at, |session, cx| session.handle_node_packet(hop, &compound, cx));
    scene.goes_on(430, 1, |_| Frame::Delta);
    let is_told = scene.told_bps.iter().all(|bps| *bps == Some(400_000));
    assert!(is_told && !scene.told_bps.is_empty(), "{:?}", scene.told_bps);
}

#[test]
fn frames_that_nothing_needs_are_dropped_first() {
    let mut scene = Scene::new(CEILING);
    scene.goes_on(600, 5, every_other);
    scene.goes_on(600, 10, every_other);
    assert_eq!(scene.step, Some(PolicingStep::Frames));
    assert!((380..=410).contains(&scene.kbps(10)), "{}", scene.kbps(10));
    let frames = scene.frames();
    let needed = (150..450).step_by(2).all(|frame| frames.contains(&frame));
    assert!(needed && scene.key_frames_asked == 0, "{frames:?}");
    scene.assert_continuous();
    assert_eq!(scene.policed as usize, 3 * (300 - frames.len()), "whole frames");
    assert_eq!(scene.bench.drops(DropReason::Shed) % 3, 0);
}

#[test]
fn policing_ends_after_five_seconds_below() {
    let mut scene = Scene::new(CEILING);
    scene.goes_on(600, 5, every_other);
    scene.goes_on(380, 4, every_other);
    assert_eq!(scene.step, Some(PolicingStep::Frames));
    scene.goes_on(380, 4, every_other);
    assert_eq!((scene.step, scene.policed), (None, 0));
    scene.goes_on(380, 2, every_other);
    assert_eq!(scene.video.len(), 120);
    assert!(scene.told_bps.is_empty());
    scene.assert_continuous();
    assert_ne!(scene.video[0].sequence, scene.sequence - 120, "numbers go on");
}

#[test]
fn frames_wait_for_a_key_frame_if_all_are_needed() {
    let mut scene = Scene::new(CEILING);
    let answer = |scene: &Scene| if scene.is_asked { Frame::Key } else { Frame::Delta };
    scene.goes_on(1_000, 5, answer);
    scene.sent.clear();
    let first = scene.frame;
    scene.goes_on(1_000, 30, answer);
    assert!((300..=420).contains(&scene.kbps(30)), "{}", scene.kbps(30));
    let frames = scene.frames();
    let mut pauses = 0;
    for pair in frames.windows(2) {
        if pair[1] != pair[0] + 1 {
            pauses += 1;
            assert_eq!(scene.sent[usize::from(pair[1] - first)], Frame::Key, "{pair:?}");
        }
    }
    assert!(pauses >= 5 && scene.key_frames_asked.abs_diff(pauses) <= 2, "one request each");
    scene.assert_continuous();
}

#[test]
fn cap_in_force_is_enforced_as_the_ceiling() {
    for (send_kbps, limit) in [(300, 300), (20, 128)] {
        let mut scene = Scene::new(CEILING);
        let at = scene.ms();
        let limits = MediaLimits { send_kbps, ..scene.bench.session.limits };
        scene.bench.at(at, |session, cx| session.set_limits(limits, cx));
        let frame = |scene: &Scene| match scene.frame % 4 {
            0 => Frame::Delta,
            _ => Frame::Discardable,
        };
        scene.goes_on(390, 5, frame);
        scene.goes_on(390, 10, frame);
        let told = Some(u64::from(send_kbps) * 1_000);
        assert!(scene.told_bps.iter().all(|bps| *bps == told), "{:?}", scene.told_bps);
        let right = limit - limit / 20..=limit + limit / 20;
        assert!(right.contains(&scene.kbps(10)), "{} of {limit}", scene.kbps(10));
    }
}

#[test]
fn voice_is_dropped_beyond_twice_the_ceiling() {
    for (ceiling, sent, passes) in [(100, 190, 190), (100, 300, 200), (10, 70, 70)] {
        let mut scene = Scene::new(ceiling);
        scene.speaks(sent, 5);
        scene.speaks(sent, 10);
        let kbps = scene.voice_bytes * 8 / 1_000 / 10;
        let right = passes - passes / 20..=passes + passes / 20;
        assert!(right.contains(&kbps), "{kbps} of {passes}");
        let step = if sent > passes as u32 { PolicingStep::Voice } else { PolicingStep::Told };
        assert_eq!(scene.step, Some(step), "{sent}");
    }
}

#[test]
fn video_that_cannot_be_read_passes_with_the_reason() {
    for (codec, srtp, step, tells) in [
        ("VP8", Srtp::Opaque, PolicingStep::Encrypted, false),
        ("other", Srtp::Plain, PolicingStep::UnknownCodec, true),
    ] {
        let mut scene = Scene::of(media(REMB, codec, srtp), CEILING);
        scene.goes_on(800, 5, every_other);
        scene.goes_on(800, 5, every_other);
        assert_eq!((scene.step, scene.policed), (Some(step), 0));
        assert_eq!(scene.frames().len(), 150);
        assert_eq!(!scene.told_bps.is_empty(), tells, "{:?}", scene.told_bps);
    }
}

#[test]
fn flood_of_repairs_is_policed() {
    let mut scene = Scene::new(CEILING);
    let mut passed = 0;
    // 1,920 kbit/s for 15 seconds, of which the first five are not judged.
    for frame in 0..30 * 15 {
        let at = scene.ms();
        for part in 0..8 {
            let packet = scene.packet(RETRANSMISSIONS, false, 8 * frame + part, &[0; 988]);
            scene.bench.at(at, |session, cx| {
                session.handle_client_rtp(&packet, cx);
                flush_ports(session, cx);
            });
            let got = heard(&scene.node).len();
            passed += if frame < 30 * 5 { 0 } else { got };
        }
        scene.end_frame();
    }
    // Of 1,000 bytes.
    assert!((475..=525).contains(&passed), "{passed} instead of 500");
}

/// Frames were dropped, and the last one has passed. Returns its last packet.
fn last_passed(scene: &mut Scene) -> Got {
    scene.goes_on(600, 10, every_other);
    scene.send(Frame::Delta, 2_500);
    let got = scene.video.last().unwrap().clone();
    assert_eq!(got.frame + 1, scene.frame);
    assert!(got.sequence < scene.sequence - 1, "{got:?}");
    got
}

#[test]
fn node_asks_by_its_numbers() {
    let mut scene = Scene::new(CEILING);
    let got = last_passed(&mut scene);
    let mut nack = Vec::new();
    rtcp::write_nack(9, CAMERA, &[got.sequence], &mut nack);
    let (at, hop) = (scene.ms(), scene.hop);
    scene.bench.at(at, |session, cx| session.handle_node_packet(hop, &nack, cx));
    let compounds = heard(&scene.bench.client);
    let parts = compounds.iter().flat_map(|it| rtcp::packets(it).map_while(Result::ok));
    let asked = parts.filter_map(|part| match part {
        rtcp::RtcpPacket::Nack(nack) => Some(nack.missing().collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(asked.collect::<Vec<_>>(), [[scene.sequence - 1]]);
}

#[test]
fn retransmission_has_the_number_that_the_node_knows() {
    let mut scene = Scene::new(CEILING);
    let got = last_passed(&mut scene);
    let (at, last, frames) = (scene.ms(), scene.sequence - 1, scene.frames());
    let dropped = (0..got.frame).rev().find(|frame| !frames.contains(frame)).unwrap();
    scene.frame = got.frame;
    let mut repeat = |lost: u16| {
        let mut payload = lost.to_be_bytes().to_vec();
        payload.extend_from_slice(&scene.payload(Frame::Delta, false, 40));
        let packet = scene.packet(RETRANSMISSIONS, true, 1, &payload);
        scene.bench.at(at, |session, cx| {
            session.handle_client_rtp(&packet, cx);
            flush_ports(session, cx);
        });
        heard(&scene.node).pop()
    };
    let repeated = repeat(last).unwrap();
    let header = rtp::RtpHeader::parse(&repeated).unwrap();
    let Some(&[n0, n1, _, _, p0, p1]) = header.payload(&repeated).first_chunk() else {
        panic!("{repeated:?}")
    };
    assert_eq!(u16::from_be_bytes([n0, n1]), got.sequence);
    assert_eq!(u16::from_be_bytes([p0, p1]) & 0x7fff, got.picture);
    // Each frame has three packets.
    assert_eq!(repeat(3 * dropped), None);
}

#[test]
fn refusal_quotes_the_number_that_the_node_knows() {
    let mut scene = Scene::new(CEILING);
    // More numbers are left out than count as recent.
    scene.goes_on(2_000, 30, |scene| match scene.frame % 8 {
        0 => Frame::Delta,
        _ => Frame::Discardable,
    });
    scene.send(Frame::Delta, 2_500);
    let got = scene.video.last().unwrap().clone();
    assert!(scene.sequence - got.sequence > 4_000, "{got:?}");
    let quoted = scene.packet(CAMERA, false, got.sequence, &[]);
    let has_forwarded = |packet: &[u8]| scene.bench.session.has_forwarded(packet);
    assert!(has_forwarded(&quoted));
    assert!(!has_forwarded(&scene.packet(CAMERA, false, scene.sequence, &[])), "not sent");
}
