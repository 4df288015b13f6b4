use super::*;
use evenkeel_fuzz::Corpus;

fn flow(number: u64) -> FlowId {
    FlowId::new(number).unwrap()
}

fn stream(packets: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_stream_start(flow(0x1234_5678_9abc), &mut bytes);
    for packet in packets {
        write_stream_packet(packet, &mut bytes);
    }
    bytes
}

/// Decodes a stream that arrives in pieces of `piece` bytes.
fn decoded(bytes: &[u8], piece: usize) -> (Option<FlowId>, Vec<Vec<u8>>, Result<(), RoqError>) {
    let mut decoder = StreamDecoder::new(1_500);
    let (mut flow, mut packets) = (None, Vec::new());
    for mut input in bytes.chunks(piece) {
        loop {
            match decoder.next(&mut input) {
                Ok(Some(Item::Flow(number))) => flow = Some(number),
                Ok(Some(Item::Packet(packet))) => packets.push(packet.to_vec()),
                Ok(None) => break,
                Err(reason) => return (flow, packets, Err(reason)),
            }
        }
        assert!(input.is_empty(), "input is consumed before none is returned");
    }
    let end = decoder.finish();
    (flow, packets, end)
}

#[test]
fn datagram_is_read_back() {
    let mut datagram = Vec::new();
    write_datagram(flow(0x4000), b"packet", &mut datagram);
    assert_eq!(datagram.len(), 4 + 6);
    assert_eq!(read_datagram(&datagram), Ok((flow(0x4000), &b"packet"[..])));
}

#[test]
fn datagram_without_flow_or_packet_is_refused() {
    assert_eq!(read_datagram(&[]), Err(RoqError::Flow));
    assert_eq!(read_datagram(&[0xc0, 1, 2]), Err(RoqError::Flow));
    assert_eq!(read_datagram(&[0x40, 1]), Err(RoqError::Empty));
}

#[test]
fn flow_has_62_bits() {
    assert_eq!(FlowId::new(VARINT_MAX).map(FlowId::number), Some(VARINT_MAX));
    assert_eq!(FlowId::new(VARINT_MAX + 1), None);
    assert_eq!(FlowId::from_random(u64::MAX).number(), VARINT_MAX);
}

#[test]
fn stream_decodes_equally_in_pieces_of_any_size() {
    let (long, longer) = ([7; 300], [9; 1_500]);
    let packets: [&[u8]; 4] = [b"one", &long, b"3", &longer];
    let bytes = stream(&packets);
    for piece in 1..=bytes.len() {
        let (found, items, end) = decoded(&bytes, piece);
        assert_eq!(found, Some(flow(0x1234_5678_9abc)));
        assert_eq!(items, packets, "in pieces of {piece}");
        assert_eq!(end, Ok(()));
    }
}

#[test]
fn packet_above_the_limit_stops_the_stream() {
    let bytes = stream(&[b"one", &[0; 1_501], b"three"]);
    let (_, packets, end) = decoded(&bytes, 10_000);
    assert_eq!(packets, [b"one"]);
    assert_eq!(end, Err(RoqError::TooLong { length: 1_501, length_max: 1_500 }));

    let mut decoder = StreamDecoder::new(10);
    let mut input = &[5, 11][..];
    assert_eq!(decoder.next(&mut input), Ok(Some(Item::Flow(flow(5)))));
    for _ in 0..2 {
        assert!(decoder.next(&mut input).is_err());
        assert!(decoder.finish().is_err());
    }
}

#[test]
fn packet_of_length_zero_is_refused() {
    assert_eq!(decoded(&stream(&[b""]), 100).2, Err(RoqError::Empty));
}

#[test]
fn stream_may_end_between_packets_only() {
    let bytes = stream(&[b"one", &[1; 100]]);
    let between = [8, 12, bytes.len()];
    for length in 0..=bytes.len() {
        let (_, _, end) = decoded(&bytes[..length], 5);
        let expected = between.contains(&length);
        assert_eq!(end, if expected { Ok(()) } else { Err(RoqError::Unfinished) }, "{length}");
    }
}

#[test]
fn codes_are_those_of_the_draft() {
    let codes = [
        ErrorCode::NoError,
        ErrorCode::General,
        ErrorCode::Packet,
        ErrorCode::StreamCreation,
        ErrorCode::FrameCancelled,
        ErrorCode::UnknownFlow,
    ];
    assert_eq!(codes.map(ErrorCode::code), [0, 1, 3, 4, 5, 6]);
}

#[test]
fn fuzz_roq() {
    let mut datagram = Vec::new();
    write_datagram(flow(0x4000), b"packet", &mut datagram);
    let corpus = Corpus::of("roq").with(datagram).with(stream(&[b"one", &[7; 100], b"3"]));
    corpus.check(|bytes| {
        if let Ok((flow, packet)) = read_datagram(bytes) {
            let mut written = Vec::new();
            write_datagram(flow, packet, &mut written);
            assert!(written.len() <= bytes.len());
            assert_eq!(read_datagram(&written), Ok((flow, packet)));
        }
        let whole = decoded(bytes, bytes.len().max(1));
        assert!(whole.1.iter().all(|packet| (1..=1_500).contains(&packet.len())));
        assert!(whole.1.iter().map(Vec::len).sum::<usize>() <= bytes.len());
        for piece in [1, 7] {
            assert_eq!(decoded(bytes, piece), whole, "in pieces of {piece}");
        }
    });
}

#[test]
fn rfc_varint_examples_are_read() {
    let examples: [(&[u8], u64); 5] = [
        (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
        (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
        (&[0x7b, 0xbd], 15_293),
        (&[0x25], 37),
        (&[0x40, 0x25], 37),
    ];
    for (bytes, value) in examples {
        assert_eq!(read_varint(bytes), Some((value, bytes.len())));
    }
}

#[test]
fn values_at_each_size_limit_round_trip() {
    for (value, length) in [
        (0, 1),
        (0x3f, 1),
        (0x40, 2),
        (0x3fff, 2),
        (0x4000, 4),
        (0x3fff_ffff, 4),
        (0x4000_0000, 8),
        (VARINT_MAX, 8),
    ] {
        let mut bytes = Vec::new();
        write_varint(value, &mut bytes);
        assert_eq!(bytes.len(), length);
        bytes.push(0xff);
        assert_eq!(read_varint(&bytes), Some((value, length)));
        assert_eq!(read_varint(&bytes[..length - 1]), None, "cut of {value}");
    }
}
