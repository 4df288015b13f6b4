//! Parity of video (FlexFEC-03) to and from a client. The client's latency is 120 ms.

use evenkeel_media::continuity::{AnnouncedSection, AnnouncedStreams};
use evenkeel_media::repair::flexfec::{Overhead, ParityPayload, ParityReader, ParityWriter};
use evenkeel_model::{ExtensionUri, HeaderExtension, Latency};

use super::redundancy::report;
use super::*;
use crate::worker::repair_memory::RepairMemory;

const VP8: u8 = 96;
pub(super) const FLEXFEC: u8 = 35;
const SSRC: u32 = 9;

/// The SSRC of the client's parity.
const PARITY: u32 = 77;

/// A client with VP8, and with parity if `with_fec`.
pub(super) fn media(srtp: Srtp, with_fec: bool, nack: bool) -> Arc<MediaDescription> {
    let mut payload_types = vec![PayloadType::new(VP8, "VP8", 90_000)];
    payload_types.extend(with_fec.then(|| PayloadType::new(FLEXFEC, "flexfec-03", 90_000)));
    let video = MediaStream {
        kind: StreamKind::Video,
        payload_types,
        feedback: Takes { nack, ..Takes::default() },
        bitrate_kbps: None,
    };
    let media = MediaDescription::new(vec![video], RtcpPort::Mux, srtp);
    Arc::new(MediaDescription { latency: Latency(120), ..media })
}

/// A packet of video; each fourth one ends a frame.
pub(super) fn picture(number: u16) -> Vec<u8> {
    let fields = rtp::Fields {
        payload_type: VP8,
        marker: number.is_multiple_of(4),
        sequence: number,
        timestamp: u32::from(number.div_ceil(4)) * 3_000,
        ssrc: SSRC,
    };
    let mut packet = Vec::new();
    rtp::write(&fields, &number.to_be_bytes().repeat(usize::from(number % 7) + 1), &mut packet);
    packet
}

/// Frames are 33 ms apart.
pub(super) fn ms(number: u16) -> u64 {
    u64::from(number.div_ceil(4)) * 33
}

pub(super) fn header(packet: &[u8]) -> rtp::RtpHeader {
    rtp::RtpHeader::parse(packet).unwrap()
}

/// Returns the packets that a receiver of these ones recovers, if it lost the one with this number.
pub(super) fn recovered(packets: &[Vec<u8>], payload_type: u8, lost: u16) -> Vec<Vec<u8>> {
    let (mut reader, mut recovered) = (None::<ParityReader>, Vec::new());
    for packet in packets {
        let header = header(packet);
        if header.payload_type == payload_type {
            let parity = ParityPayload::parse(header.payload(packet)).unwrap();
            let reader = reader.get_or_insert_with(|| ParityReader::new(parity.ssrc));
            reader.receive_parity(&parity).unwrap();
        } else if let Some(reader) = reader.as_mut().filter(|_| header.sequence != lost) {
            reader.receive(header.sequence, packet);
        }
        while let Some(found) = reader.as_mut().and_then(ParityReader::recover) {
            recovered.push(found.unwrap().to_vec());
        }
    }
    recovered
}

fn heard(socket: &UdpSocket) -> Vec<Vec<u8>> {
    let mut buffer = [0; 2_048];
    let next = || socket.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec());
    std::iter::from_fn(next).collect()
}

/// A call of a client with a node.
struct Call {
    bench: Bench,
    node: UdpSocket,
    hop: Hop,
}

impl Call {
    fn new(media: Arc<MediaDescription>) -> Call {
        let (mut bench, node, hop) = at_node(media.srtp);
        bench.session.media = media;
        Call { bench, node, hop }
    }

    /// A call. Its client has lost 5 % of 96 packets.
    fn lossy() -> Call {
        let mut call = Call::new(media(Srtp::Plain, true, false));
        call.plain(1..=96);
        call.report(ms(96), 96, 5);
        call
    }

    /// Delivers packets of the node at this time. Returns what the client receives.
    fn hear_at(&mut self, ms: u64, numbers: impl IntoIterator<Item = u16>) -> Vec<Vec<u8>> {
        let hop = self.hop;
        for number in numbers {
            self.bench.at(ms, |session, cx| session.handle_node_packet(hop, &picture(number), cx));
        }
        heard(&self.bench.client)
    }

    /// Delivers frames of the node. Returns what the client receives.
    fn hear_frames(&mut self, numbers: std::ops::Range<u16>) -> Vec<Vec<u8>> {
        numbers.flat_map(|number| self.hear_at(ms(number), [number])).collect()
    }

    /// Packets of the node that pass without parity.
    fn plain(&mut self, numbers: impl IntoIterator<Item = u16>) {
        for number in numbers {
            assert_eq!(self.hear_at(ms(number), [number]), [picture(number)]);
        }
    }

    /// The client reports that so many packets up to this one are lost, and the session chooses.
    fn report(&mut self, ms: u64, number: u16, lost: u16) {
        let report = report(number, lost);
        self.bench.at(ms, |session, cx| session.handle_client_rtcp(&report, cx));
        self.bench.at(ms, WorkerSession::tick);
    }

    /// Delivers a packet of the client. Returns what the node receives.
    fn speak(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        self.bench.at(0, |session, cx| {
            session.handle_client_rtp(packet, cx);
            flush_ports(session, cx);
        });
        heard(&self.node)
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.bench.drops(reason)
    }
}

fn is_parity(packet: &[u8]) -> bool {
    header(packet).payload_type == FLEXFEC
}

#[test]
fn parity_is_made_while_packets_are_lost() {
    let mut call = Call::lossy();
    let packets = call.hear_frames(97..145);
    let mut media = packets.clone();
    let parities: Vec<_> = media.extract_if(.., |packet| is_parity(packet)).collect();
    assert_eq!(media, (97..145).map(picture).collect::<Vec<_>>());
    assert_eq!(parities.len(), 48 / 3);
    assert_eq!(packets[4], parities[0], "it comes with its frame");
    let first = header(&parities[0]);
    assert_ne!(first.ssrc, SSRC);
    assert_eq!(first.timestamp, header(&picture(97)).timestamp);
    for (number, parity) in (first.sequence..).zip(&parities) {
        let sent = header(parity);
        assert_eq!((sent.ssrc, sent.sequence), (first.ssrc, number));
        assert_eq!(ParityPayload::parse(sent.payload(parity)).unwrap().ssrc, SSRC);
    }
    for lost in 117..140 {
        assert_eq!(recovered(&packets, FLEXFEC, lost), [picture(lost)], "{lost}");
    }
    let counts = call.bench.session.take_counts();
    let bytes: usize = parities.iter().map(Vec::len).sum();
    assert_eq!(counts.parity_bytes, bytes as u64);
    let repairs = counts.repairs[RepairKind::Fec as usize];
    assert_eq!((repairs.packets_down, repairs.bytes_down), (16, bytes as u64));
    let totals = call.bench.session.totals(call.bench.start);
    let media_bytes: usize = (1..145).map(|number| picture(number).len()).sum();
    assert_eq!(totals.packets_down, 144 + 16);
    assert_eq!(totals.bytes_down, (media_bytes + bytes) as u64);
}

#[test]
fn paced_packets_have_the_same_parity() {
    let expected = Call::lossy().hear_at(ms(97), 97..=100);
    assert!(expected.last().is_some_and(|packet| is_parity(packet)));
    let mut call = Call::lossy();
    let at = ms(97);
    let now = call.bench.start + Duration::from_millis(at);
    let pacing = &mut call.bench.session.running().pacing;
    SessionPacing::follow(pacing, Some(1_000), now);
    // The burst budget is spent.
    assert!(pacing.as_mut().unwrap().admits(10_000, now));
    assert!(call.hear_at(at, 97..=100).is_empty());
    let mut got = Vec::new();
    for later in 1..=119 {
        call.bench.at(at + later, WorkerSession::send_paced);
        got.extend(heard(&call.bench.client));
    }
    assert_eq!(got, expected);
    assert_eq!(call.drops(DropReason::Late), 0);
}

#[test]
fn parity_ends_five_seconds_after_the_last_loss() {
    let mut call = Call::lossy();
    let lost_at = ms(96);
    let made = call.hear_at(lost_at + 1, 97..=100);
    let number = header(made.last().unwrap()).sequence;
    assert!(is_parity(made.last().unwrap()));
    call.report(lost_at + 100, 100, 5);
    // Less than 5 s after the loss, and more.
    call.bench.at(lost_at + 4_999, WorkerSession::tick);
    let made = call.hear_at(lost_at + 4_999, 101..=104);
    assert_eq!(made.len(), 5);
    assert_eq!(header(&made[4]).sequence, number + 1);
    call.bench.at(lost_at + 5_000, WorkerSession::tick);
    assert_eq!(call.hear_at(lost_at + 5_000, 105..=108).len(), 4);
    // The next loss.
    call.report(lost_at + 5_100, 108, 6);
    let made = call.hear_at(lost_at + 5_100, 109..=112);
    assert_eq!(made.len(), 6, "one of eight is lost: half as many parity packets as others");
    assert_eq!(header(&made[4]).sequence, number + 2, "its numbers go on");
}

#[test]
fn parity_is_for_loss_that_retransmission_leaves() {
    for (trip_ms, is_made) in [(100, false), (101, true)] {
        let mut call = Call::new(media(Srtp::Plain, true, true));
        call.plain(1..=96);
        let path = PathReport { rtt_us: trip_ms * 1_000, lost: 0, sent: 100 };
        call.bench.at(ms(96), |session, cx| session.handle_quic_path(path, cx));
        call.report(ms(96), 96, 4);
        let made = call.hear_at(ms(97), 97..=100);
        assert_eq!(made.iter().any(|packet| is_parity(packet)), is_made, "{trip_ms} ms");
    }
}

#[test]
fn client_without_flexfec_gets_no_parity() {
    for (srtp, with_fec) in [(Srtp::Plain, false), (Srtp::Opaque, true)] {
        let mut call = Call::new(media(srtp, with_fec, false));
        call.plain(1..=96);
        call.report(ms(96), 96, 5);
        call.plain(97..=120);
        assert!(call.bench.session.running().fec.is_none(), "{srtp:?}");
        assert_eq!(call.bench.session.take_counts().parity_bytes, 0);
    }
}

#[test]
fn renegotiated_client_gets_parity() {
    let mut call = Call::new(media(Srtp::Plain, false, false));
    call.plain(1..=4);
    let answered = Arc::new(srtp::answered(true));
    call.bench.session.renegotiate(media(Srtp::Plain, true, false), answered);
    call.plain(5..=96);
    call.report(ms(96), 96, 5);
    assert!(call.hear_at(ms(97), 97..=100).iter().any(|packet| is_parity(packet)));
}

#[test]
fn parity_covers_transport_wide_numbers() {
    let mut media = (*media(Srtp::Plain, true, false)).clone();
    media.streams[0].feedback.transport_cc = true;
    let uri = ExtensionUri::TransportWideNumber;
    media.extensions.push(HeaderExtension { id: 3, uri });
    let mut call = Call::new(Arc::new(media));
    call.hear_frames(1..97);
    call.report(ms(96), 96, 5);
    let packets = call.hear_frames(97..125);
    let is_lost = |packet: &&Vec<u8>| !is_parity(packet) && header(packet).sequence == 118;
    let lost = packets.iter().find(is_lost).unwrap();
    assert!(lost.len() > picture(118).len(), "it has a number");
    assert_eq!(recovered(&packets, FLEXFEC, 118), std::slice::from_ref(lost));
}

#[test]
fn parity_memory_is_reserved_and_returned() {
    let mut call = Call::lossy();
    let memory = RepairMemory::new(1 << 20);
    call.bench.egress.repair_memory = memory.clone();
    assert_eq!(call.hear_at(ms(97), 97..=100).len(), 5);
    assert!((4_096..16_384).contains(&memory.reserved()), "{}", memory.reserved());
    call.report(ms(100), 100, 5);
    call.bench.at(ms(100) + 5_000, WorkerSession::tick);
    assert_eq!(memory.reserved(), 0);
    // Without memory there is no parity.
    let mut call = Call::lossy();
    call.bench.egress.repair_memory = RepairMemory::new(1_000);
    call.plain(97..=108);
    assert_eq!(call.bench.session.take_counts().caches_refused, 1);
}

/// The packets of a client with parity: half as many as others.
fn spoken(numbers: std::ops::RangeInclusive<u16>) -> Vec<Vec<u8>> {
    let start = Instant::now();
    let mut writer = ParityWriter::new(SSRC, Duration::from_millis(120));
    let (mut packets, mut sequence) = (Vec::new(), 500);
    for number in numbers {
        let packet = picture(number);
        writer.keep(&header(&packet), &packet, Overhead::Half, start);
        packets.push(packet);
        let mut payload = Vec::new();
        while writer.write_next(start, &mut payload) {
            packets.push(parity(sequence, &payload));
            sequence += 1;
            payload.clear();
        }
    }
    packets
}

fn parity(sequence: u16, payload: &[u8]) -> Vec<u8> {
    let fields = rtp::Fields {
        payload_type: FLEXFEC,
        marker: false,
        sequence,
        timestamp: 3_000,
        ssrc: PARITY,
    };
    let mut packet = Vec::new();
    rtp::write(&fields, payload, &mut packet);
    packet
}

#[test]
fn lost_packet_of_the_client_reaches_the_node() {
    let mut call = Call::new(media(Srtp::Plain, true, false));
    let packets = spoken(1..=20);
    let mut arrived = Vec::new();
    for packet in packets.iter().filter(|packet| **packet != picture(15)) {
        arrived.extend(call.speak(packet));
    }
    let at = |packet: &[u8]| arrived.iter().position(|one| one == packet);
    let recovered = at(&picture(15)).expect("it was recovered");
    assert_eq!(Some(recovered), at(&picture(16)).map(|at| at + 1), "before the parity");
    assert_eq!(arrived.len(), packets.len(), "parity passes as before");
    let counts = call.bench.session.take_counts();
    assert_eq!((counts.repaired, counts.recovered), (1, 0));
    let flow = call.bench.session.summary(call.bench.start).unwrap().flow;
    assert_eq!(flow.sent, [0, packets.len() as u32]);
    assert!(call.speak(&picture(15)).is_empty(), "it comes late");
    assert_eq!(call.drops(DropReason::Duplicate), 1);
}

#[test]
fn recovered_packet_ends_its_frame() {
    let frames = |lost: Option<u16>| {
        let mut call = Call::new(media(Srtp::Plain, true, false));
        let lost = lost.map(picture);
        for packet in spoken(1..=20).iter().filter(|packet| Some(*packet) != lost.as_ref()) {
            call.speak(packet);
        }
        call.bench.session.summary(call.bench.start).unwrap().flow.frames
    };
    assert_eq!((frames(None), frames(Some(16))), (5, 5));
}

#[test]
fn wrong_parity_of_the_client_is_counted() {
    let mut call = Call::new(media(Srtp::Plain, true, false));
    for packet in spoken(1..=12) {
        call.speak(&packet);
    }
    for wrong in [vec![0; 17], parity_over(5_000, VP8, 3)] {
        assert!(call.speak(&parity(600, &wrong)).is_empty());
    }
    assert_eq!(call.drops(DropReason::Malformed), 2);
    // The sum is a packet of an unknown payload type, and one that is longer than the parity.
    for (number, payload_type, length) in [(13, 1, 3), (14, VP8, 4)] {
        let wrong = parity(601, &parity_over(number, payload_type, length));
        assert_eq!(call.speak(&wrong), [wrong]);
    }
    assert_eq!(call.drops(DropReason::Malformed), 4);
    // Forms that only the node may know pass.
    let mut retransmitted = parity_over(15, VP8, 3);
    retransmitted[0] |= 0x80;
    let retransmitted = parity(602, &retransmitted);
    assert_eq!(call.speak(&retransmitted), [retransmitted]);
    assert_eq!(call.bench.session.take_counts().repaired, 0);
    assert_eq!(call.drops(DropReason::Malformed), 4);
}

/// The payload of parity that covers one packet, with a sum of three bytes and this length.
fn parity_over(number: u16, payload_type: u8, length: u8) -> Vec<u8> {
    let mut payload = vec![0, payload_type, 0, length, 0, 0, 0, 0, 1, 0, 0, 0];
    payload.extend_from_slice(&SSRC.to_be_bytes());
    payload.extend_from_slice(&number.to_be_bytes());
    payload.extend_from_slice(&[0xc0, 0, 1, 2, 3]);
    payload
}

#[test]
fn client_parity_is_kept_within_memory() {
    let mut call = Call::new(media(Srtp::Plain, true, false));
    let memory = RepairMemory::new(ParityReader::BYTES);
    call.bench.egress.repair_memory = memory.clone();
    for packet in spoken(1..=8) {
        call.speak(&packet);
    }
    assert_eq!(memory.reserved(), ParityReader::BYTES);
    // There is no memory for a second stream.
    let mut other = parity_over(1, VP8, 3);
    other[15] = 1;
    for _ in 0..2 {
        assert_eq!(call.speak(&parity(700, &other)).len(), 1);
    }
    assert_eq!(call.bench.session.take_counts().caches_refused, 1);
    call.bench.at(4_999, WorkerSession::tick);
    assert_eq!(memory.reserved(), ParityReader::BYTES);
    call.bench.at(5_000, WorkerSession::tick);
    assert_eq!(memory.reserved(), 0);
}

#[test]
fn parity_has_the_ssrc_that_was_announced() {
    let mut call = Call::new(media(Srtp::Plain, true, false));
    let section = AnnouncedSection {
        index: 1,
        payload_types: vec![VP8],
        has_retransmissions: false,
        sender: None,
    };
    // The stream of the second m-line has the SSRC of the packets.
    let streams = AnnouncedStreams { seed: SSRC - 2, in_sync: Vec::new(), sections: vec![section] };
    let expected = streams.parity_ssrc(1);
    call.bench.session.state().continuity.announce(Arc::new(streams));
    call.hear_frames(1..97);
    call.report(ms(96), 96, 5);
    let packets = call.hear_frames(97..161);
    let parity = packets.iter().map(|packet| header(packet));
    let parity = parity.filter(|header| header.payload_type == FLEXFEC).map(|header| header.ssrc);
    let ssrcs: Vec<u32> = parity.collect();
    assert!(!ssrcs.is_empty() && ssrcs.iter().all(|ssrc| *ssrc == expected), "{ssrcs:?}");
    assert!(!(SSRC - 2..SSRC + 510).contains(&expected), "of no m-line");
}
