use evenkeel_fuzz::Corpus;
use fastrand::Rng;

use super::*;

const OPUS: u8 = 111;
const TICKS: u32 = 960;

fn header(number: u32) -> RtpHeader {
    RtpHeader {
        payload_type: 63,
        marker: true,
        sequence: number as u16,
        timestamp: number.wrapping_mul(TICKS),
        ssrc: 7,
        payload_offset: 12,
        payload_end: 12,
    }
}

fn frame(number: u32, data: &[u8]) -> Frame<'_> {
    let RtpHeader { sequence, timestamp, .. } = header(number);
    Frame { sequence, timestamp, data }
}

/// A payload that repeats these earlier frames, by their distance in frames, each with its number as data.
fn payload(number: u32, back: &[u32]) -> Vec<u8> {
    let data: Vec<[u8; 4]> =
        back.iter().map(|back| number.wrapping_sub(*back).to_be_bytes()).collect();
    let blocks = back.iter().zip(&data).map(|(back, data)| {
        let offset = (*back * TICKS) as u16;
        RedBlock { payload_type: OPUS, offset, data: &data[..] }
    });
    let blocks: Vec<_> = blocks.collect();
    let mut out = Vec::new();
    write(&blocks, OPUS, &number.to_be_bytes(), &mut out).unwrap();
    out
}

/// Receives a packet. Returns the numbers of the recovered frames.
fn receive(reader: &mut RedReader, number: u32, back: &[u32]) -> Vec<u16> {
    let (header, payload) = (header(number), payload(number, back));
    assert!(reader.receive(&header));
    let mut recovered = Vec::new();
    reader.recover(&header, &RedPayload::parse(&payload).unwrap(), OPUS, |frame| {
        let of = u32::from_be_bytes(frame.data.try_into().unwrap());
        assert_eq!(frame.sequence, of as u16);
        assert_eq!(frame.timestamp, of.wrapping_mul(TICKS));
        recovered.push(frame.sequence);
    });
    recovered
}

#[test]
fn fields_have_the_places_of_the_rfc() {
    let earlier = [
        RedBlock { payload_type: 5, offset: 0x2aaa, data: &[1; 0x155] },
        RedBlock { payload_type: 7, offset: 1, data: &[2] },
    ];
    let mut out = vec![9];
    write(&earlier, 0, &[3, 4], &mut out).unwrap();
    assert_eq!(out[..10], [9, 0x85, 0xaa, 0xa9, 0x55, 0x87, 0x00, 0x04, 0x01, 0x00]);
    assert_eq!(out[10..][..0x155], [1; 0x155]);
    assert_eq!(out[10 + 0x155..], [2, 3, 4]);
    let read = RedPayload::parse(&out[1..]).unwrap();
    assert_eq!(read.earlier().collect::<Vec<_>>(), earlier);
    assert_eq!(read.own(), RedBlock { payload_type: 0, offset: 0, data: &[3, 4] });
}

#[test]
fn random_blocks_are_read_as_they_were_written() {
    let mut rng = Rng::with_seed(1);
    for _ in 0..2_000 {
        let data: Vec<Vec<u8>> = (0..rng.usize(..BLOCKS_MAX))
            .map(|_| (0..rng.usize(..=BLOCK_BYTES_MAX)).map(|_| rng.u8(..)).collect())
            .collect();
        let blocks = data.iter().map(|data| RedBlock {
            payload_type: rng.u8(..128),
            offset: rng.u16(..=OFFSET_MAX),
            data: &data[..],
        });
        let blocks: Vec<_> = blocks.collect();
        let (own, payload_type) = ([rng.u8(..); 3], rng.u8(..128));
        let mut out = Vec::new();
        write(&blocks, payload_type, &own, &mut out).unwrap();
        let read = RedPayload::parse(&out).unwrap();
        assert_eq!(read.earlier().collect::<Vec<_>>(), blocks);
        assert_eq!(read.own(), RedBlock { payload_type, offset: 0, data: &own });
    }
}

#[test]
fn malformed_payloads_are_refused() {
    let blocks = |earlier: usize| {
        let mut payload = [0x80 | OPUS, 0, 0, 0].repeat(earlier);
        payload.push(OPUS);
        payload
    };
    let with_length = |high: u8, low: u8, data: usize| {
        let mut payload = vec![0x80 | OPUS, 0, 4 | high, low, OPUS];
        payload.resize(5 + data, 0);
        payload
    };
    for (payload, reason) in [
        (vec![], Some(RedError::Headers)),
        (vec![OPUS], None),
        (vec![0x80 | OPUS], Some(RedError::Headers)),
        (vec![0x80 | OPUS, 0, 0], Some(RedError::Headers)),
        (vec![0x80 | OPUS, 0, 0, 0], Some(RedError::Headers)),
        (with_length(0, 9, 9), None),
        (with_length(0, 9, 8), Some(RedError::Length)),
        (with_length(3, 0xff, BLOCK_BYTES_MAX), None),
        (with_length(3, 0xff, BLOCK_BYTES_MAX - 1), Some(RedError::Length)),
        (blocks(BLOCKS_MAX - 1), None),
        (blocks(BLOCKS_MAX), Some(RedError::Blocks)),
        (blocks(300), Some(RedError::Blocks)),
    ] {
        assert_eq!(RedPayload::parse(&payload).err(), reason, "{} bytes", payload.len());
    }
}

#[test]
fn blocks_beyond_the_fields_are_not_written() {
    let long = [0; BLOCK_BYTES_MAX + 1];
    let block = |offset, data| RedBlock { payload_type: OPUS, offset, data };
    for (blocks, reason) in [
        (vec![block(OFFSET_MAX, &long[1..])], None),
        (vec![block(OFFSET_MAX + 1, &long[1..])], Some(RedError::Offset)),
        (vec![block(OFFSET_MAX, &long)], Some(RedError::Length)),
        (vec![block(1, &[]); BLOCKS_MAX - 1], None),
        (vec![block(1, &[]); BLOCKS_MAX], Some(RedError::Blocks)),
    ] {
        let mut out = Vec::new();
        assert_eq!(write(&blocks, OPUS, &[], &mut out).err(), reason);
        assert_eq!(out.is_empty(), reason.is_some());
    }
}

#[test]
fn fuzz_red() {
    let corpus = Corpus::of("red").with(payload(9, &[2, 1])).with(payload(9, &[]));
    corpus.check(|input| {
        let Ok(read) = RedPayload::parse(input) else { return };
        let blocks: Vec<_> = read.earlier().collect();
        let own = read.own();
        let mut out = Vec::new();
        write(&blocks, own.payload_type, own.data, &mut out).unwrap();
        assert_eq!(out, input);
        let mut reader = RedReader::new(&header(1));
        assert!(reader.receive(&header(9)));
        let mut recovered = 0;
        reader.recover(&header(9), &read, OPUS, |_| recovered += 1);
        assert!(recovered <= 7);
    });
}

#[test]
fn writer_repeats_kept_frames_within_reach() {
    let last = 0x1_0000 + 2;
    let mut writer = RedWriter::default();
    let mut out = Vec::new();
    let spacing = |frames, span| Spacing { frames, span };
    let write = |writer: &RedWriter, spacing, reach, out: &mut Vec<u8>| {
        out.clear();
        writer.write(&frame(last, b"own"), OPUS, spacing, reach, out)
    };
    assert!(!write(&writer, spacing(2, 2), 5 * TICKS, &mut out), "no frame yet");
    for number in last - 5..last {
        writer.keep(&frame(number, &[number as u8; 5]));
    }
    for (frames, span, reach, offsets) in [
        (1, 1, 5, &[1][..]),
        (1, 4, 5, &[4]),
        (2, 2, 5, &[2, 1]),
        (2, 5, 5, &[5, 2]),
        (9, 4, 5, &[4, 2]),
        (2, 4, 3, &[2]),
        (1, 6, 9, &[]),
        (1, 4, 3, &[]),
        (1, 0, 5, &[]),
    ] {
        let is_written = write(&writer, spacing(frames, span), reach * TICKS, &mut out);
        assert_eq!(is_written, !offsets.is_empty());
        assert_eq!(is_written, !out.is_empty());
        if !is_written {
            continue;
        }
        let read = RedPayload::parse(&out).unwrap();
        let expected: Vec<_> = offsets.iter().map(|back| (back * TICKS) as u16).collect();
        assert_eq!(read.earlier().map(|block| block.offset).collect::<Vec<_>>(), expected);
        for block in read.earlier() {
            let number = last - u32::from(block.offset) / TICKS;
            assert_eq!(block.data, [number as u8; 5]);
        }
        assert_eq!(read.own().data, b"own");
    }
}

#[test]
fn long_frame_is_not_repeated() {
    let long = [1; BLOCK_BYTES_MAX + 1];
    for (bytes, is_kept) in [(BLOCK_BYTES_MAX, true), (BLOCK_BYTES_MAX + 1, false), (0, false)] {
        let mut writer = RedWriter::default();
        writer.keep(&frame(1, &long[..bytes]));
        let spacing = Spacing { frames: 1, span: 1 };
        let written = writer.write(&frame(2, b"own"), OPUS, spacing, TICKS, &mut Vec::new());
        assert_eq!(written, is_kept, "{bytes}");
    }
}

#[test]
fn lost_frame_is_recovered_once() {
    let last = 0xffff;
    let mut reader = RedReader::new(&header(last - 3));
    assert!(receive(&mut reader, last - 2, &[2, 1]).is_empty());
    // Two are lost, across the wrap of the number.
    let next = last + 1;
    assert_eq!(receive(&mut reader, next, &[2, 1]), [(last - 1) as u16, last as u16]);
    assert!(receive(&mut reader, next + 1, &[2, 1]).is_empty());
    assert!(receive(&mut reader, next + 2, &[3]).is_empty());
    assert!(!reader.receive(&header(last)), "it comes late");
    assert!(reader.receive(&header(next)), "a duplicate, as without redundancy");
}

#[test]
fn spaced_frames_are_recovered_by_their_timestamps() {
    let mut reader = RedReader::new(&header(1));
    // 3 to 5 are lost.
    assert!(receive(&mut reader, 2, &[4]).is_empty());
    for (number, recovered) in [(6, vec![]), (7, vec![3]), (8, vec![4]), (9, vec![5]), (10, vec![])]
    {
        assert_eq!(receive(&mut reader, number, &[4]), recovered, "{number}");
    }
}

#[test]
fn frames_before_the_stream_are_not_recovered() {
    let mut reader = RedReader::new(&header(50));
    assert!(receive(&mut reader, 50, &[2, 1]).is_empty());
    assert!(receive(&mut reader, 52, &[4, 3]).is_empty());
    assert_eq!(receive(&mut reader, 53, &[3, 2]), [51]);
}

#[test]
fn stream_that_begins_anew_is_followed() {
    let mut reader = RedReader::new(&header(50_000));
    assert!(receive(&mut reader, 50_002, &[]).is_empty());
    assert!(receive(&mut reader, 40_000, &[2, 1]).is_empty());
    assert_eq!(receive(&mut reader, 40_002, &[1]), [40_001]);
    assert!(receive(&mut reader, 40_300, &[2, 1]).is_empty(), "the numbers between are unknown");
    assert_eq!(receive(&mut reader, 40_303, &[2, 1]), [40_301, 40_302]);
}

/// A frame after silence has a later timestamp than its number suggests.
#[test]
fn uncertain_number_is_not_guessed() {
    let at =
        |sequence: u16, frames: u32| RtpHeader { sequence, timestamp: frames * TICKS, ..header(0) };
    for (lost, later, recovered) in [
        // One packet is lost, whatever its timestamp.
        (7, at(12, 8), vec![11]),
        // Two are lost: the frames 7 and 8 of a sender that was silent since the frame 1.
        (7, at(13, 9), vec![]),
        // Without silence.
        (3, at(14, 5), vec![12]),
    ] {
        let first = at(10, 1);
        let mut reader = RedReader::new(&first);
        assert!(reader.receive(&later));
        let offset = (later.timestamp - lost * TICKS) as u16;
        let block = RedBlock { payload_type: OPUS, offset, data: b"lost" };
        let mut payload = Vec::new();
        write(&[block], OPUS, b"own", &mut payload).unwrap();
        let mut found = Vec::new();
        let payload = RedPayload::parse(&payload).unwrap();
        reader.recover(&later, &payload, OPUS, |frame| found.push(frame.sequence));
        assert_eq!(found, recovered);
    }
}

#[test]
fn blocks_that_are_no_earlier_frames_are_skipped() {
    for (payload_type, offset, data) in
        [(OPUS + 1, TICKS, &b"lost"[..]), (OPUS, 0, b"lost"), (OPUS, TICKS, b"")]
    {
        let mut reader = RedReader::new(&header(1));
        assert!(reader.receive(&header(3)));
        let block = RedBlock { payload_type, offset: offset as u16, data };
        let mut payload = Vec::new();
        write(&[block], OPUS, b"own", &mut payload).unwrap();
        let payload = RedPayload::parse(&payload).unwrap();
        reader.recover(&header(3), &payload, OPUS, |frame| panic!("{frame:?}"));
    }
}

/// Bytes of a frame at 24 kbit/s, and of the headers of IPv4, UDP and RTP.
const FRAME_BYTES: usize = 60;
const HEADER_BYTES: usize = 40;

/// Frames missing after redundancy in millionths, and the bytes sent in percent of those without.
fn play(spacing: Spacing, mut is_lost: impl FnMut() -> bool) -> [u32; 2] {
    const FRAMES: u32 = 200_000;
    // Both numbers wrap.
    let first = 0xffff_ff00 / TICKS;
    let (mut writer, mut reader) = (RedWriter::default(), None);
    let (mut arrived, mut bytes) = (0, 0);
    let mut payload = Vec::new();
    for number in first..first + FRAMES {
        let data = [number as u8; FRAME_BYTES];
        let frame = frame(number, &data);
        payload.clear();
        let is_red = writer.write(&frame, OPUS, spacing, 6 * TICKS, &mut payload);
        writer.keep(&frame);
        bytes += HEADER_BYTES + if is_red { payload.len() } else { FRAME_BYTES };
        if is_lost() {
            continue;
        }
        let header = header(number);
        let reader = reader.get_or_insert_with(|| RedReader::new(&header));
        assert!(reader.receive(&header));
        arrived += 1;
        if is_red {
            let payload = RedPayload::parse(&payload).unwrap();
            reader.recover(&header, &payload, OPUS, |frame| {
                let behind = u32::from(header.sequence.wrapping_sub(frame.sequence));
                assert!(behind <= u32::from(Spacing::SPAN_MAX));
                assert_eq!(frame.data, [(number - behind) as u8; FRAME_BYTES]);
                arrived += 1;
            });
        }
    }
    let without = FRAMES as usize * (HEADER_BYTES + FRAME_BYTES);
    let left = u64::from(FRAMES - arrived) * 1_000_000 / u64::from(FRAMES);
    [left as u32, (bytes * 100 / without) as u32]
}

/// 10 % of the packets, in bursts of this mean length.
fn lossy(mean: f64) -> impl FnMut() -> bool {
    let (mut rng, mut is_lost) = (Rng::with_seed(3), false);
    move || {
        let change = if is_lost { 1.0 / mean } else { 1.0 / (9.0 * mean) };
        is_lost ^= rng.f64() < change;
        is_lost
    }
}

fn random() -> impl FnMut() -> bool {
    let mut rng = Rng::with_seed(3);
    move || rng.u8(..10) == 0
}

#[test]
fn random_losses_are_recovered_by_two_frames() {
    let [left, _] = play(Spacing { frames: 2, span: 5 }, random());
    assert!(left <= 1_500, "{left}");
    let [left, _] = play(Spacing { frames: 1, span: 5 }, random());
    assert!((8_000..12_000).contains(&left), "{left}");
}

#[test]
fn bursts_are_recovered_by_spaced_frames() {
    let [left, bytes] = play(Spacing { frames: 1, span: 5 }, lossy(3.0));
    assert!(left <= 20_000, "{left}");
    assert!(bytes <= 170, "{bytes}");
    let [left, _] = play(Spacing { frames: 2, span: 5 }, lossy(3.0));
    assert!(left <= 16_000, "{left}");
    // Frames beside the packet are in its burst.
    let [left, _] = play(Spacing { frames: 1, span: 1 }, lossy(3.0));
    assert!(left > 60_000, "{left}");
}

#[test]
fn repetition_at_a_distance_leaves_fewer_bursts() {
    for (burst, frames, span, per_mille) in [
        (None, 1, 4, 100),
        (None, 2, 4, 10),
        (Some(1.0), 1, 1, 100),
        (Some(3.0), 1, 1, 667),
        (Some(3.0), 1, 5, 189),
        (Some(3.0), 2, 2, 444),
        (Some(3.0), 2, 4, 209),
        (Some(3.0), 2, 5, 148),
    ] {
        let left = Spacing { frames, span }.share_left(0.1, burst);
        assert_eq!((left * 1_000.0).round() as u32, per_mille, "{burst:?} {frames} {span}");
    }
    let spacing = Spacing { frames: 2, span: 4 };
    assert_eq!([0.0, 1.0].map(|loss| spacing.share_left(loss, None)), [0.0, 1.0]);
}
