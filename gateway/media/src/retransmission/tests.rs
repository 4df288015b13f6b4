use fastrand::Rng;

use super::*;

/// A packet with any header, payload and padding.
fn any_packet(rng: &mut Rng) -> Vec<u8> {
    let (csrcs, words, padding) = (rng.u8(..16), rng.u8(..4), rng.u8(..4));
    let (has_extension, is_padded) = (words > 0, padding > 0);
    let flags = 0x80 | csrcs | u8::from(has_extension) << 4 | u8::from(is_padded) << 5;
    let mut packet = vec![flags];
    packet.extend((0..11 + 4 * usize::from(csrcs)).map(|_| rng.u8(..)));
    if has_extension {
        packet.extend([0xbe, 0xde, 0, words]);
        packet.extend((0..4 * words).map(|_| rng.u8(..)));
    }
    let length = rng.usize(..50);
    packet.extend((0..length).map(|_| rng.u8(..)));
    if is_padded {
        packet.resize(packet.len() + usize::from(padding) - 1, 0);
        packet.push(padding);
    }
    packet
}

fn without_padding(header: &RtpHeader, packet: &[u8]) -> Vec<u8> {
    let mut plain = packet[..header.payload_end].to_vec();
    plain[0] &= !0x20;
    plain
}

fn numbers(header: &RtpHeader) -> PacketNumbers {
    let &RtpHeader { payload_type, ssrc, sequence, .. } = header;
    PacketNumbers { payload_type, ssrc, sequence }
}

#[test]
fn packet_that_was_written_is_restored() {
    let mut rng = Rng::with_seed(4_588);
    let (mut written, mut restored) = (Vec::new(), Vec::new());
    for round in 0..10_000_u32 {
        let packet = any_packet(&mut rng);
        let lost = RtpHeader::parse(&packet).unwrap();
        // Both sequences wrap.
        let sequence = (round as u16).wrapping_add(60_000);
        let own = PacketNumbers { payload_type: rng.u8(..128), ssrc: rng.u32(..), sequence };
        write(&lost, &packet, own, &mut written);
        let sent = RtpHeader::parse(&written).unwrap();
        assert_eq!(numbers(&sent), own);
        assert_eq!((sent.marker, sent.timestamp), (lost.marker, lost.timestamp));
        assert_eq!(original_sequence(&sent, &written), Some(lost.sequence));
        assert!(restore(&sent, &written, lost.payload_type, lost.ssrc, &mut restored));
        assert_eq!(restored, without_padding(&lost, &packet));
    }
}

#[test]
fn any_retransmission_is_restored_and_written() {
    let mut rng = Rng::with_seed(4_589);
    let (mut restored, mut written) = (Vec::new(), Vec::new());
    for _ in 0..10_000 {
        let packet = any_packet(&mut rng);
        let header = RtpHeader::parse(&packet).unwrap();
        restored.clear();
        if !restore(&header, &packet, 96, 9, &mut restored) {
            assert!(header.payload_len() < 2 && restored.is_empty());
            continue;
        }
        let lost = RtpHeader::parse(&restored).unwrap();
        write(&lost, &restored, numbers(&header), &mut written);
        assert_eq!(written, without_padding(&header, &packet));
    }
}

fn packet(payload: &[u8]) -> (RtpHeader, Vec<u8>) {
    let mut bytes = Vec::new();
    let fields =
        rtp::Fields { payload_type: 97, marker: false, sequence: 1, timestamp: 2, ssrc: 3 };
    rtp::write(&fields, payload, &mut bytes);
    (RtpHeader::parse(&bytes).unwrap(), bytes)
}

#[test]
fn number_of_the_lost_packet_is_read_and_changed() {
    let (header, mut bytes) = packet(&[0x12, 0x34, 7]);
    assert_eq!(original_sequence(&header, &bytes), Some(0x1234));
    set_original_sequence(&header, &mut bytes, 0xfedc);
    assert_eq!(header.payload(&bytes), [0xfe, 0xdc, 7]);
}

#[test]
fn padding_has_no_number() {
    for payload in [&[][..], &[1]] {
        let (header, mut bytes) = packet(payload);
        assert_eq!(original_sequence(&header, &bytes), None);
        set_original_sequence(&header, &mut bytes, 0xfedc);
        assert_eq!(header.payload(&bytes), payload);
    }
}

#[test]
fn stream_that_sent_the_number_last_is_repaired() {
    let streams = [("a", 10), ("b", 500), ("c", 40_000)];
    let of = |original| repaired(original, streams.into_iter());
    assert_eq!(of(10), Some("a"));
    assert_eq!(of(11), Some("b"), "a has not sent it yet");
    assert_eq!(of(65_530), Some("a"), "before the wrap");
    assert_eq!(of(40_000 - SENT_WITHIN), Some("c"));
    assert_eq!(of(40_000 - SENT_WITHIN - 1), None);
    assert_eq!(of(40_001), None);
}
