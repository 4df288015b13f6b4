use std::time::Duration;

use evenkeel_fuzz::Corpus;
use fastrand::Rng;

use super::*;
use crate::repair::tests::at;
use crate::rtp::{self, RtpHeader};

const SSRC: u32 = 0x0102_0304;
const LATENCY: Duration = Duration::from_millis(120);

const OVERHEADS: [Overhead; 4] =
    [Overhead::Tenth, Overhead::Fifth, Overhead::Third, Overhead::Half];

/// A packet of a stream with 30 frames a second, of twelve packets each.
fn packet(number: u32, payload: &[u8]) -> Vec<u8> {
    let fields = rtp::Fields {
        payload_type: 96,
        marker: number % 12 == 11,
        sequence: number as u16,
        timestamp: number / 12 * 3_000,
        ssrc: SSRC,
    };
    let mut packet = Vec::new();
    rtp::write(&fields, payload, &mut packet);
    packet
}

fn frame_ms(number: u32) -> u64 {
    u64::from(number / 12) * 100 / 3
}

/// A packet with random content, and sometimes CSRCs, an extension and padding.
fn random_packet(number: u32, rng: &mut Rng) -> Vec<u8> {
    let length = if rng.u8(..4) == 0 { 0 } else { rng.usize(..1_300) };
    let payload: Vec<u8> = (0..length).map(|_| rng.u8(..)).collect();
    let mut packet = packet(number, &payload);
    match rng.u8(..4) {
        0 => {
            packet[0] |= 0x12;
            let sources_and_extension = [1, 2, 3, 4, 5, 6, 7, 8, 0xbe, 0xde, 0, 1, 0x10, 9, 0, 0];
            packet.splice(12..12, sources_and_extension).for_each(drop);
        }
        1 => {
            packet[0] |= 0x20;
            packet.extend_from_slice(&[0, 0, 3]);
        }
        _ => {}
    }
    packet
}

fn keep(writer: &mut ParityWriter, overhead: Overhead, packet: &[u8], ms: u64) -> Vec<Vec<u8>> {
    writer.keep(&RtpHeader::parse(packet).unwrap(), packet, overhead, at(ms));
    let mut parities = Vec::new();
    loop {
        let mut parity = Vec::new();
        if !writer.write_next(at(ms), &mut parity) {
            return parities;
        }
        parities.push(parity);
    }
}

/// Returns the numbers and bytes of the packets that are recovered now.
fn recovered(reader: &mut ParityReader) -> Vec<(u16, Vec<u8>)> {
    let mut recovered = Vec::new();
    while let Some(found) = reader.recover() {
        let packet = found.unwrap();
        recovered.push((RtpHeader::parse(packet).unwrap().sequence, packet.to_vec()));
    }
    recovered
}

/// A parity packet that covers these packets.
fn parity_of(numbers: &[u16], packets: &[Vec<u8>]) -> Vec<u8> {
    let (mut fields, mut data, mut mask) = ([0; 8], vec![0; PACKET_BYTES_MAX], 0);
    for (number, packet) in numbers.iter().zip(packets) {
        add(packet, &mut fields, &mut data).unwrap();
        mask |= 1 << number.wrapping_sub(numbers[0]);
    }
    data.truncate(packets.iter().map(|packet| packet.len() - HEADER_LEN).max().unwrap());
    let mut out = Vec::new();
    let payload = ParityPayload { ssrc: SSRC, base: numbers[0], mask, fields, data: &data };
    payload.write(&mut out).unwrap();
    out
}

/// A reader that follows the stream from this packet on.
fn reader_at(number: u32) -> ParityReader {
    let mut reader = ParityReader::new(SSRC);
    assert!(reader.receive(number as u16, &packet(number, b"first")));
    reader
}

#[test]
fn fields_have_the_places_of_the_draft() {
    let first = [0x80, 0x60, 0x10, 0, 0, 0, 0x0b, 0xb8, 1, 2, 3, 4, 0xaa, 0xbb, 0xcc];
    let second = [0x80, 0xe0, 0x10, 2, 0, 0, 0x17, 0x70, 1, 2, 3, 4, 0x11, 0x22];
    let mut writer = ParityWriter::new(SSRC, LATENCY);
    assert!(keep(&mut writer, Overhead::Half, &first, 0).is_empty());
    let expected = [
        // The sums of flags and CSRC count, of marker and payload type, of the lengths, and of the timestamps.
        &[0, 0x80, 0, 1, 0, 0, 0x1c, 0xc8][..],
        // One source.
        &[1, 0, 0, 0, 1, 2, 3, 4],
        // The base; a mask of one part, with the packets 0 and 2.
        &[0x10, 0, 0xd0, 0],
        // The sums of the payloads.
        &[0xbb, 0x99, 0xcc],
    ];
    let expected = expected.concat();
    assert_eq!(keep(&mut writer, Overhead::Half, &second, 0), std::slice::from_ref(&expected));
    let read = ParityPayload::parse(&expected).unwrap();
    assert_eq!((read.ssrc, read.base, read.mask), (SSRC, 0x1000, 0b101));
}

#[test]
fn masks_have_one_two_or_three_parts() {
    for (last, expected) in [
        (14, &[0xc0, 1][..]),
        (15, &[0x40, 0, 0xc0, 0, 0, 0]),
        (45, &[0x40, 0, 0x80, 0, 0, 1]),
        (46, &[0x40, 0, 0, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0]),
        (108, &[0x40, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 1]),
    ] {
        let mask = 1 | 1 << last;
        let payload = ParityPayload { ssrc: SSRC, base: 9, mask, fields: [0; 8], data: b"sum" };
        let mut out = vec![7];
        payload.write(&mut out).unwrap();
        assert_eq!(out[19..out.len() - 3], *expected, "{last}");
        assert_eq!(ParityPayload::parse(&out[1..]), Ok(payload));
    }
}

#[test]
fn random_payloads_are_read_as_they_were_written() {
    let mut rng = Rng::with_seed(1);
    for _ in 0..2_000 {
        let data: Vec<u8> = (0..rng.usize(..100)).map(|_| rng.u8(..)).collect();
        let mask = (rng.u128(..) & ((1 << SPAN_MAX) - 1)) >> rng.u32(..109);
        let mut fields = [0; 8].map(|_: u8| rng.u8(..));
        fields[0] &= 0x3f;
        let (ssrc, base) = (rng.u32(..), rng.u16(..));
        let payload = ParityPayload { ssrc, base, mask, fields, data: &data };
        let mut out = Vec::new();
        if mask == 0 {
            assert_eq!(payload.write(&mut out), Err(FlexfecError::Mask));
            continue;
        }
        payload.write(&mut out).unwrap();
        assert_eq!(ParityPayload::parse(&out), Ok(payload));
    }
}

#[test]
fn malformed_payloads_are_refused() {
    let whole = parity_of(&[1], &[packet(1, b"one")]);
    let with = |at: usize, byte: u8| {
        let mut payload = whole.clone();
        payload[at] = byte;
        payload
    };
    let masked = |mask: &[u8]| [&whole[..18], mask].concat();
    for (payload, reason) in [
        (whole.clone(), None),
        (whole[..20].to_vec(), None),
        (whole[..19].to_vec(), Some(FlexfecError::Header)),
        (Vec::new(), Some(FlexfecError::Header)),
        (with(0, 0x80), Some(FlexfecError::Form)),
        (with(0, 0x40), Some(FlexfecError::Form)),
        (with(8, 0), Some(FlexfecError::Form)),
        (with(8, 2), Some(FlexfecError::Form)),
        (masked(&[0x80, 0]), Some(FlexfecError::Mask)),
        (masked(&[0, 1, 0x80, 0, 0]), Some(FlexfecError::Header)),
        (masked(&[0, 0, 0x80, 0, 0, 0]), Some(FlexfecError::Mask)),
        (masked(&[0, 1, 0x80, 0, 0, 0]), None),
        (masked(&[&[0, 1, 0, 0, 0, 0, 0x80][..], &[0; 6]].concat()), Some(FlexfecError::Header)),
        (masked(&[&[0, 1, 0, 0, 0, 0, 0x80][..], &[0; 7]].concat()), None),
        (masked(&[&[0, 1][..], &[0; 12]].concat()), Some(FlexfecError::Mask)),
    ] {
        assert_eq!(ParityPayload::parse(&payload).err(), reason, "{payload:02x?}");
    }
    let payload = ParityPayload::parse(&whole).unwrap();
    for mask in [0, 1 << SPAN_MAX] {
        let mut out = vec![7];
        let payload = ParityPayload { mask, ..payload };
        assert_eq!(payload.write(&mut out), Err(FlexfecError::Mask));
        assert_eq!(out, [7]);
    }
}

#[test]
fn recovered_packets_are_those_that_were_sent() {
    let mut rng = Rng::with_seed(2);
    for overhead in OVERHEADS {
        let mut restored = 0;
        for _ in 0..20 {
            let mut writer = ParityWriter::new(SSRC, LATENCY);
            let (mut reader, mut lost) = (None::<ParityReader>, Vec::new());
            // Numbers wrap in some of the runs.
            let start = if rng.bool() { 0xff80 } else { rng.u32(..0x1_0000) };
            for number in start..start + 400 {
                let packet = random_packet(number, &mut rng);
                let parities = keep(&mut writer, overhead, &packet, frame_ms(number - start));
                let is_lost = rng.u8(..100) < 5;
                if is_lost {
                    lost.push((number as u16, packet));
                } else if let Some(reader) = &mut reader {
                    assert!(reader.receive(number as u16, &packet));
                }
                for parity in parities {
                    let parity = ParityPayload::parse(&parity).unwrap();
                    if rng.u8(..100) < 5 {
                        continue;
                    }
                    let reader = reader.get_or_insert_with(|| ParityReader::new(parity.ssrc));
                    reader.receive_parity(&parity).unwrap();
                }
                for found in reader.as_mut().map(recovered).unwrap_or_default() {
                    assert!(lost.contains(&found), "{overhead:?} {number}");
                    let reader = reader.as_mut().unwrap();
                    assert!(!reader.receive(found.0, &found.1), "it came before");
                    lost.retain(|one| *one != found);
                    restored += 1;
                }
            }
        }
        assert!(restored > 0, "{overhead:?}");
    }
}

/// Returns the share of broken frames in thousandths: of 2,000 frames, a packet is lost for good if it is not recovered three frames later.
fn broken_frames(overhead: Overhead, loss: f64, rng: &mut Rng) -> usize {
    let mut writer = ParityWriter::new(SSRC, LATENCY);
    let mut reader: Option<ParityReader> = None;
    let (mut lost, mut broken): (Vec<u32>, usize) = (Vec::new(), 0);
    for number in 0..24_000_u32 {
        let packet = packet(number, &number.to_be_bytes());
        if number >= 24 && rng.f64() < loss {
            lost.push(number);
        } else if let Some(reader) = &mut reader {
            reader.receive(number as u16, &packet);
        }
        for parity in keep(&mut writer, overhead, &packet, frame_ms(number)) {
            let parity = ParityPayload::parse(&parity).unwrap();
            if rng.f64() >= loss {
                let reader = reader.get_or_insert_with(|| ParityReader::new(parity.ssrc));
                reader.receive_parity(&parity).unwrap();
            }
        }
        let found = reader.as_mut().map(recovered).unwrap_or_default();
        lost.retain(|number| !found.iter().any(|(found, _)| *found == *number as u16));
        if number % 12 == 11 && number > 36 {
            let frame = number / 12 - 3;
            broken += usize::from(lost.iter().any(|number| number / 12 == frame));
            lost.retain(|number| number / 12 > frame);
        }
    }
    broken / 2
}

/// Issue 66 wants at most 1.6 % at 5 % loss with a third of parity; disjoint masks leave 5.4 %, no parity 46 %.
#[test]
fn overlapping_masks_leave_few_broken_frames() {
    let mut rng = Rng::with_seed(3);
    for (overhead, loss, most) in [
        (Overhead::Tenth, 0.015, 20),
        (Overhead::Fifth, 0.04, 20),
        (Overhead::Third, 0.05, 5),
        (Overhead::Third, 0.1, 30),
        (Overhead::Half, 0.1, 15),
    ] {
        let broken = broken_frames(overhead, loss, &mut rng);
        assert!(broken <= most, "{overhead:?} at {loss}: {broken} of 1,000");
    }
}

#[test]
fn each_packet_is_covered_by_parity_of_three_groups() {
    for (overhead, parities_of_600) in OVERHEADS.into_iter().zip([60, 120, 200, 300]) {
        let mut writer = ParityWriter::new(SSRC, Duration::from_secs(1));
        let (mut made, mut covered) = (0, [0; 600]);
        for number in 0..600 {
            for parity in keep(&mut writer, overhead, &packet(number, b"any"), frame_ms(number)) {
                let ParityPayload { base, mask, .. } = ParityPayload::parse(&parity).unwrap();
                assert_eq!(mask & 1, 1, "the base is the first packet");
                places(mask).for_each(|at| covered[usize::from(base + at)] += 1);
                made += 1;
            }
        }
        assert_eq!(made, parities_of_600, "{overhead:?}");
        // The last frames get less.
        assert!(covered[..560].iter().all(|times| *times == 3), "{covered:?}");
    }
}

#[test]
fn parity_covers_only_packets_within_reach() {
    for (latency, ms, base) in
        [(120, 100, 0), (120, 101, 12), (60, 40, 0), (60, 41, 12), (0, 20, 0), (0, 21, 12)]
    {
        let mut writer = ParityWriter::new(SSRC, Duration::from_millis(latency));
        let mut parities = Vec::new();
        for number in 0..24 {
            let ms = if number < 12 { 0 } else { ms };
            parities = keep(&mut writer, Overhead::Third, &packet(number, b"any"), ms);
        }
        assert_eq!(parities.len(), 4);
        let bases = parities.iter().map(|parity| ParityPayload::parse(parity).unwrap().base);
        assert_eq!(bases.min(), Some(base), "{ms}");
    }
}

#[test]
fn stream_that_begins_anew_is_not_mixed_with_its_past() {
    let mut writer = ParityWriter::new(SSRC, LATENCY);
    for number in 0..24 {
        keep(&mut writer, Overhead::Third, &packet(number, b"old"), 0);
    }
    let mut made = 0;
    for number in 600..612 {
        for parity in keep(&mut writer, Overhead::Third, &packet(number, b"new"), 1) {
            assert!(ParityPayload::parse(&parity).unwrap().base >= 600);
            made += 1;
        }
    }
    assert_eq!(made, 4);
}

#[test]
fn long_frames_get_parity_before_they_end() {
    let mut writer = ParityWriter::new(SSRC, LATENCY);
    let mut packet = packet(0, &[1; 1_388]);
    let mut made = Vec::new();
    for number in 0..200_u16 {
        rtp::set_sequence(&mut packet, number);
        let parities = keep(&mut writer, Overhead::Third, &packet, 0);
        assert!(parities.iter().all(|parity| parity.len() <= 1_388 + 32));
        made.push(parities.len());
    }
    assert_eq!(made.iter().sum::<usize>(), 200 / 36 * 12);
    assert_eq!(made[35], 12);
    let allocated = writer.allocated();
    assert!(allocated <= 384 << 10, "{allocated}");
}

#[test]
fn packets_too_long_for_parity_are_not_covered() {
    for (payload, parities) in [(1_389, 0), (1_388, 1)] {
        let mut writer = ParityWriter::new(SSRC, LATENCY);
        keep(&mut writer, Overhead::Half, &packet(10, b"any"), 0);
        let made = keep(&mut writer, Overhead::Half, &packet(11, &vec![1; payload]), 0);
        assert_eq!(made.len(), parities, "{payload}");
    }
}

#[test]
fn writer_without_memory_makes_no_parity() {
    let mut writer = ParityWriter::new(SSRC, LATENCY);
    assert!(writer.growth(100, at(0)) > 0);
    writer.stop_growth();
    for number in 0..12 {
        assert!(keep(&mut writer, Overhead::Third, &packet(number, b"any"), 0).is_empty());
    }
    assert_eq!(writer.allocated(), 0);
}

#[test]
fn two_lost_packets_are_recovered_one_after_the_other() {
    let mut reader = reader_at(10);
    let packets: Vec<_> = (10..14).map(|number| packet(number, &[number as u8; 9])).collect();
    assert!(reader.receive(13, &packets[3]));
    let both = parity_of(&[11, 12, 13], &packets[1..]);
    let one = parity_of(&[12, 13], &packets[2..]);
    reader.receive_parity(&ParityPayload::parse(&both).unwrap()).unwrap();
    assert!(recovered(&mut reader).is_empty());
    reader.receive_parity(&ParityPayload::parse(&one).unwrap()).unwrap();
    assert_eq!(recovered(&mut reader), [(12, packets[2].clone()), (11, packets[1].clone())]);
    assert!(!reader.receive(11, &packets[1]), "it was recovered");
    assert!(reader.receive(13, &packets[3]), "the sender repeats it");
}

#[test]
fn packet_that_comes_late_recovers_another() {
    let mut reader = reader_at(10);
    let packets: Vec<_> = (10..14).map(|number| packet(number, &[number as u8; 9])).collect();
    let both = parity_of(&[11, 12], &packets[1..3]);
    reader.receive_parity(&ParityPayload::parse(&both).unwrap()).unwrap();
    assert!(reader.receive(13, &packets[3]));
    assert!(recovered(&mut reader).is_empty());
    assert!(reader.receive(11, &packets[1]));
    assert_eq!(recovered(&mut reader), [(12, packets[2].clone())]);
}

#[test]
fn packets_before_the_first_are_not_recovered() {
    let mut reader = reader_at(10);
    let packets: Vec<_> = (8..11).map(|number| packet(number, b"any")).collect();
    let parity = parity_of(&[8, 9, 10], &packets);
    reader.receive_parity(&ParityPayload::parse(&parity).unwrap()).unwrap();
    assert!(recovered(&mut reader).is_empty());
}

#[test]
fn parity_far_from_the_stream_is_refused() {
    for (base, is_near) in [
        (1_000 - 256, false),
        (1_000 - 255, true),
        (1_000 + 109, true),
        (1_000 + 110, false),
        (1_000 + 0x8000, false),
    ] {
        let parity = parity_of(&[base], &[packet(base.into(), b"any")]);
        let result = reader_at(1_000).receive_parity(&ParityPayload::parse(&parity).unwrap());
        assert_eq!(result, if is_near { Ok(()) } else { Err(FlexfecError::Base) }, "{base}");
    }
}

#[test]
fn lost_packets_after_the_last_one_are_recovered() {
    let mut reader = reader_at(10);
    let parity = parity_of(&[11], &[packet(11, b"last")]);
    reader.receive_parity(&ParityPayload::parse(&parity).unwrap()).unwrap();
    assert_eq!(recovered(&mut reader), [(11, packet(11, b"last"))]);
    assert!(reader.receive(12, &packet(12, b"next")));
}

#[test]
fn lengths_that_do_not_fit_give_no_packet() {
    let packets = [packet(10, b"first"), packet(11, b"second")];
    let parity = |fields: [u8; 8], data: &[u8]| {
        let mut out = Vec::new();
        let payload = ParityPayload { ssrc: SSRC, base: 10, mask: 0b11, fields, data };
        payload.write(&mut out).unwrap();
        out
    };
    let whole = parity_of(&[10, 11], &packets);
    let ParityPayload { fields, data, .. } = ParityPayload::parse(&whole).unwrap();
    let with = |at: usize, byte: u8| {
        let mut fields = fields;
        fields[at] ^= byte;
        fields
    };
    for (payload, reason) in [
        (whole.clone(), None),
        // A recovered length of one byte more than the sum has, and of 64 KiB.
        (parity(with(3, 6 ^ 7), data), Some(FlexfecError::Length)),
        (parity(with(2, 0xff), data), Some(FlexfecError::Length)),
        // The sum is shorter than a packet that it covers.
        (parity(fields, &data[..4]), Some(FlexfecError::Length)),
        // A recovered header with more CSRCs than fit, and with padding of 100 bytes.
        (parity(with(0, 0x0f), data), Some(FlexfecError::Packet)),
        (parity(with(0, 0x20), data), Some(FlexfecError::Packet)),
    ] {
        let mut reader = reader_at(10);
        reader.receive_parity(&ParityPayload::parse(&payload).unwrap()).unwrap();
        let found = reader.recover().unwrap().map(<[u8]>::to_vec);
        assert_eq!(found, reason.map_or(Ok(packets[1].clone()), Err));
        assert!(reader.recover().is_none(), "the parity is gone");
    }
    let long = parity(fields, &[0; PACKET_BYTES_MAX]);
    let result = reader_at(10).receive_parity(&ParityPayload::parse(&long).unwrap());
    assert_eq!(result, Err(FlexfecError::Length));
}

#[test]
fn packets_too_long_to_keep_are_not_used() {
    let mut reader = reader_at(10);
    let long = packet(11, &[1; PACKET_BYTES_MAX]);
    assert!(reader.receive(11, &long));
    let parity = parity_of(&[11, 12], &[packet(11, b"other"), packet(12, b"lost")]);
    reader.receive_parity(&ParityPayload::parse(&parity).unwrap()).unwrap();
    assert!(recovered(&mut reader).is_empty());
}

#[test]
fn waiting_parity_is_bounded_and_forgotten() {
    let mut reader = reader_at(10);
    let packets: Vec<_> = (0..400).map(|number| packet(number, b"any")).collect();
    let pair = |number: usize| parity_of(&[number as u16, number as u16 + 1], &packets[number..]);
    for number in 11..=11 + 64 {
        reader.receive_parity(&ParityPayload::parse(&pair(number)).unwrap()).unwrap();
    }
    // The oldest one gave way: it would have given the first packet.
    assert!(reader.receive(12, &packets[12]));
    let numbers: Vec<u16> = recovered(&mut reader).into_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers.iter().min(), Some(&13));
    assert_eq!(numbers.len(), 64);
    // Parity is forgotten with the packets that it covers.
    let mut reader = reader_at(10);
    reader.receive_parity(&ParityPayload::parse(&pair(11)).unwrap()).unwrap();
    assert!(reader.receive(255, &packets[255]));
    assert!(reader.receive(267, &packets[267]));
    assert!(reader.receive(12, &packets[12]));
    assert!(recovered(&mut reader).is_empty());
}

#[test]
fn fuzz_flexfec() {
    let packets: Vec<_> = (10..13).map(|number| packet(number, b"any")).collect();
    let corpus = Corpus::of("flexfec")
        .with(parity_of(&[10, 11, 12], &packets))
        .with(parity_of(&[10, 60], &packets[..2]))
        .with(parity_of(&[10, 30], &packets[..2]));
    corpus.check(|input| {
        let Ok(parity) = ParityPayload::parse(input) else { return };
        let mut out = Vec::new();
        parity.write(&mut out).unwrap();
        assert_eq!(ParityPayload::parse(&out), Ok(parity));
        let mut reader = ParityReader::new(parity.ssrc);
        let last = parity.last();
        reader.receive(last.wrapping_add(1), &packets[0]);
        let _ = reader.receive_parity(&parity);
        let mut reader = reader_at(10);
        reader.receive(12, &packets[2]);
        if reader.receive_parity(&parity).is_ok() {
            while let Some(found) = reader.recover() {
                if let Ok(packet) = found {
                    assert!(packet.len() <= PACKET_BYTES_MAX);
                    RtpHeader::parse(packet).unwrap();
                }
            }
        }
    });
}
