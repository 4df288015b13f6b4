//! Tests that the per-packet functions never allocate.
#![expect(unsafe_code, reason = "a counting allocator")]

use evenkeel_media::continuity::{Continuity, Pass, Protection, StreamEpoch};
use evenkeel_media::estimate::RateEstimate;
use evenkeel_media::loss::StreamLoss;
use evenkeel_media::repair::PathTiming;
use evenkeel_media::repair::answers::Answers;
use evenkeel_media::repair::cache::PacketCache;
use evenkeel_media::repair::choice::has_lbrr;
use evenkeel_media::repair::missing::MissingPackets;
use evenkeel_media::repair::red::{Frame, RedPayload, RedReader, RedWriter, Spacing};
use evenkeel_media::rtp::Reception;
use evenkeel_media::srtp::{SrtpKey, SrtpProfile, SrtpReceiver, SrtpSender};
use evenkeel_media::trunk::{self, Bundle, Tag, TrunkRepair};
use evenkeel_media::{demux, rtcp, rtp, stun};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: forwards every call to the system's allocator, unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller guarantees the requirements of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller guarantees the requirements of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations(act: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    act();
    ALLOCATIONS.get() - before
}

fn fields(ssrc: u32, number: u32) -> rtp::Fields {
    let sequence = number as u16;
    rtp::Fields { payload_type: 111, marker: false, sequence, timestamp: number * 960, ssrc }
}

fn header(ssrc: u32, number: u32) -> rtp::RtpHeader {
    let rtp::Fields { payload_type, marker, sequence, timestamp, ssrc } = fields(ssrc, number);
    let (payload_offset, payload_end) = (rtp::HEADER_LEN, rtp::HEADER_LEN);
    rtp::RtpHeader { payload_type, marker, sequence, timestamp, ssrc, payload_offset, payload_end }
}

#[test]
fn packet_path_never_allocates() {
    #[expect(clippy::disallowed_methods, reason = "an origin is needed; only distances count")]
    let origin = Instant::now();
    let mut continuity = Continuity::new(1, Protection::Clear);
    let mut reception = Reception::new(48_000);
    let mut bundle = Bundle::new(1_400);
    let mut packet = Vec::with_capacity(200);
    let mut datagram = Vec::with_capacity(1_400);
    let mut session = |ssrc: u32, epoch: u64, numbers: std::ops::Range<u32>| {
        for number in numbers {
            let now = origin + Duration::from_millis(20) * number;
            packet.clear();
            rtp::write(&fields(ssrc, number), &[7; 100], &mut packet);
            assert_eq!(demux::classify(&packet), demux::DatagramKind::Rtp);
            let header = rtp::RtpHeader::parse(&packet).unwrap();
            reception.receive(&header, packet.len(), now);
            match continuity.pass(StreamEpoch(epoch), &header, 48_000, now) {
                Pass::Rewrite { ssrc, sequence, timestamp } => {
                    rtp::set_ssrc(&mut packet, ssrc);
                    rtp::set_sequence(&mut packet, sequence);
                    rtp::set_timestamp(&mut packet, timestamp);
                }
                Pass::Untouched => {}
                dropped => panic!("{dropped:?}"),
            }
            if !bundle.push(Tag(9), &packet) {
                datagram.clear();
                datagram.extend_from_slice(bundle.as_bytes());
                for entry in trunk::entries(&datagram) {
                    rtp::RtpHeader::parse(entry.unwrap().1).unwrap();
                }
                bundle.clear();
            }
            if number % 5 == 0 {
                let _ = reception.interval();
            }
        }
    };
    session(1, 1, 0..1);
    assert_eq!(allocations(|| session(1, 1, 1..1_000)), 0, "in steady state");
    assert_eq!(allocations(|| session(2, 2, 1_003..2_000)), 0, "and across a switch");
}

#[test]
fn trunk_repair_never_allocates() {
    #[expect(clippy::disallowed_methods, reason = "an origin is needed; only distances count")]
    let origin = Instant::now();
    let (mut sender, mut receiver) = (TrunkRepair::new(0), TrunkRepair::new(0));
    let (mut bundle, mut bytes) = (Bundle::new(1_400), Vec::with_capacity(1_400));
    let mut recovered = 0;
    let mut leg = |numbers: std::ops::Range<u32>| {
        for number in numbers {
            let now = origin + Duration::from_micros(500) * number;
            assert!(bundle.push(Tag(9), &[7; 1_000]));
            sender.send(&mut bundle, |datagram| {
                match demux::classify(datagram) {
                    demux::DatagramKind::TrunkRepair => {
                        receiver.handle_repair(datagram, now).unwrap();
                    }
                    _ => assert!(number % 20 == 19 || receiver.handle_bundle(datagram, now)),
                }
                while receiver.take_recovered(&mut bytes) {
                    recovered += 1;
                }
            });
            bundle.clear();
            if let Some(report) = receiver.poll_report(now) {
                sender.handle_repair(&report, now).unwrap();
            }
        }
    };
    leg(0..2_000);
    assert_eq!(allocations(|| leg(2_000..4_000)), 0, "in steady state");
    assert!(recovered > 150, "{recovered}");
}

#[test]
fn rtcp_rewriting_never_allocates() {
    let mut continuity = Continuity::new(1, Protection::Clear);
    let mut control = Vec::new();
    rtcp::write_receiver_report(
        5,
        &[rtcp::ReportBlock { ssrc: 1, ..<_>::default() }],
        &mut control,
    );
    rtcp::write_pli(rtcp::Pli { sender: 5, media: 1 }, &mut control);
    let count = allocations(|| {
        assert!(continuity.rtcp_to_node(&mut control).is_ok());
        assert!(rtcp::packets(&control).all(|packet| packet.is_ok()));
    });
    assert_eq!(count, 0);
}

#[test]
fn stun_verification_never_allocates() {
    let key = stun::StunKey::new("password");
    let binding = stun::BindingBuilder {
        key: Some(&key),
        ..stun::BindingBuilder::probe(stun::Transaction([1; 12]))
    };
    let mut request = Vec::new();
    binding.write(&mut request);
    let mut answer = Vec::with_capacity(200);
    let address = ([127, 0, 0, 1], 5_004).into();
    let count = allocations(|| {
        let request = stun::BindingRequest::parse(&request).unwrap();
        assert_eq!(request.message.verify(&key), Ok(()));
        stun::write_success(request.message.transaction(), address, Some(&key), &mut answer);
    });
    assert_eq!(count, 0);
}

#[test]
fn srtp_never_allocates() {
    for profile in SrtpProfile::ALL {
        let (key, salt) = (&[1; 32][..profile.key_len()], &[2; 14][..profile.salt_len()]);
        let key = SrtpKey::new(profile, key, salt).unwrap();
        let (mut sender, mut receiver) = (SrtpSender::new(&key), SrtpReceiver::new(&key));
        sender.lease(1, u64::MAX, u64::MAX).unwrap();
        let (mut packet, mut control) = (Vec::with_capacity(200), Vec::with_capacity(200));
        let mut session = |numbers: std::ops::Range<u32>| {
            for number in numbers {
                packet.clear();
                rtp::write(&fields(1, number), &[7; 100], &mut packet);
                let length = packet.len();
                packet.resize(200, 0);
                let protected = sender.protect_rtp(&mut packet, length).unwrap();
                assert_eq!(receiver.unprotect_rtp(protected).map(|plain| plain.len()), Ok(length));
                control.clear();
                rtcp::write_pli(rtcp::Pli { sender: 1, media: 2 }, &mut control);
                let length = control.len();
                control.resize(200, 0);
                let protected = sender.protect_rtcp(&mut control, length).unwrap();
                assert_eq!(receiver.unprotect_rtcp(protected).map(|plain| plain.len()), Ok(length));
            }
        };
        session(0..1);
        assert_eq!(allocations(|| session(1..1_000)), 0, "{profile:?}");
    }
}

#[test]
fn retransmission_never_allocates() {
    #[expect(clippy::disallowed_methods, reason = "an origin is needed; only distances count")]
    let origin = Instant::now();
    let timing = PathTiming {
        round_trip: Duration::from_millis(40),
        is_measured: true,
        latency: Duration::from_millis(120),
    };
    let mut cache = PacketCache::new(1 << 20, timing.kept_for());
    let (mut answers, mut missing) = (Answers::default(), MissingPackets::default());
    let mut session = |numbers: std::ops::Range<u32>| {
        for number in numbers {
            let (now, sequence) = (origin + Duration::from_millis(1) * number, number as u16);
            cache.keep(1, sequence, &[7; 1_200], now);
            answers.note_sent(1_200, now);
            if number.is_multiple_of(20) {
                let found = cache.find(1, sequence, now).unwrap();
                if answers.copies(&found, timing, now) > 0 {
                    cache.note_answered(1, sequence, now);
                }
                continue;
            }
            missing.receive(&header(1, number), now);
            while missing.next_request(timing, now).is_some() {}
        }
    };
    session(0..1_000);
    assert_eq!(allocations(|| session(1_000..100_000)), 0);
}

#[test]
fn redundancy_never_allocates() {
    let (mut writer, mut reader, mut loss) = (RedWriter::default(), None, StreamLoss::default());
    let (mut packet, mut payload) = (Vec::with_capacity(400), Vec::with_capacity(400));
    let mut recovered = 0;
    let mut session = |numbers: std::ops::Range<u32>| {
        for number in numbers {
            let fields = fields(1, number);
            let frame = Frame { sequence: number as u16, timestamp: number * 960, data: &[7; 100] };
            payload.clear();
            let spacing = Spacing { frames: 2, span: 4 };
            let is_red = writer.write(&frame, 111, spacing, 9_600, &mut payload);
            writer.keep(&frame);
            loss.note_sent(fields.sequence);
            assert!(!has_lbrr(frame.data));
            packet.clear();
            rtp::write(&fields, &payload, &mut packet);
            let header = rtp::RtpHeader::parse(&packet).unwrap();
            if !is_red || number % 7 == 0 {
                continue;
            }
            let reader = reader.get_or_insert_with(|| RedReader::new(&header));
            assert!(reader.receive(&header));
            let read = RedPayload::parse(header.payload(&packet)).unwrap();
            reader.recover(&header, &read, 111, |_| recovered += 1);
        }
    };
    session(0..4);
    assert_eq!(allocations(|| session(4..1_000)), 0);
    assert!(recovered > 100);
}

#[test]
fn estimate_allocates_with_its_first_packet() {
    #[expect(clippy::disallowed_methods, reason = "an origin is needed; only distances count")]
    let origin = Instant::now();
    let mut estimate = RateEstimate::new();
    assert_eq!(allocations(|| estimate.note_sent(0, 1_200, origin)), 1);
    let mut packet = Vec::new();
    let arrivals: Vec<_> = (0..500).map(|number| Some(number * 8)).collect();
    rtcp::write_transport_feedback(1, 2, 0, 0, &arrivals, &mut packet);
    let after = |ms: u16| origin + Duration::from_millis(ms.into());
    let allocated = allocations(|| {
        (1..500).for_each(|number| estimate.note_sent(number, 1_200, after(2 * number)));
        let feedback = rtcp::TransportFeedback::parse(&packet).unwrap();
        estimate.note_feedback(&feedback, after(1_100));
        assert!(estimate.kbps(after(1_100)).is_some());
    });
    assert_eq!(allocated, 0);
}
