use super::*;
use crate::demux::{DatagramKind, classify};
use evenkeel_fuzz::Corpus;

mod reception;

const FIELDS: Fields = Fields {
    payload_type: 111,
    marker: true,
    sequence: 0xfffe,
    timestamp: 0xdead_beef,
    ssrc: 0x0102_0304,
};

fn packet() -> Vec<u8> {
    let mut packet = Vec::new();
    write(&FIELDS, b"voice", &mut packet);
    packet
}

#[test]
fn written_packet_is_read_back() {
    let packet = packet();
    let header = RtpHeader::parse(&packet).unwrap();
    assert_eq!(header.payload_type, 111);
    assert!(header.marker);
    assert_eq!(header.sequence, 0xfffe);
    assert_eq!(header.timestamp, 0xdead_beef);
    assert_eq!(header.ssrc, 0x0102_0304);
    assert_eq!(header.payload(&packet), b"voice");
    assert_eq!(header.payload_len(), 5);
}

#[test]
fn setters_change_only_their_field() {
    let mut packet = packet();
    set_sequence(&mut packet, 7);
    set_timestamp(&mut packet, 8);
    set_ssrc(&mut packet, 9);
    let mut expected = Vec::new();
    write(&Fields { sequence: 7, timestamp: 8, ssrc: 9, ..FIELDS }, b"voice", &mut expected);
    assert_eq!(packet, expected);
}

#[test]
fn setters_leave_short_packets_unchanged() {
    let mut short = [0x80, 111, 1];
    set_sequence(&mut short, 7);
    set_timestamp(&mut short, 7);
    set_ssrc(&mut short, 7);
    assert_eq!(short, [0x80, 111, 1]);
}

#[test]
fn payload_excludes_csrcs_extension_and_padding() {
    let mut packet = packet();
    packet[0] = 0x80 | 0x20 | 0x10 | 2;
    let tail = packet.split_off(HEADER_LEN);
    packet.extend_from_slice(&[0; 8]);
    packet.extend_from_slice(&[0xbe, 0xde, 0, 1, 9, 9, 9, 9]);
    packet.extend_from_slice(&tail);
    packet.extend_from_slice(&[0, 0, 3]);
    let header = RtpHeader::parse(&packet).unwrap();
    assert_eq!(header.payload_offset, HEADER_LEN + 8 + 8);
    assert_eq!(header.payload(&packet), b"voice");
}

#[test]
fn truncated_header_is_refused() {
    let mut packet = packet();
    packet[0] = 0x80 | 0x10 | 1;
    packet.truncate(HEADER_LEN);
    packet.extend_from_slice(&[0, 0, 0, 1, 0xbe, 0xde, 0, 1, 1, 2, 3, 4]);
    assert!(RtpHeader::parse(&packet).is_ok());
    for length in 0..packet.len() {
        let reason = RtpHeader::parse(&packet[..length]).unwrap_err();
        let short = length < HEADER_LEN + 4;
        assert_eq!(reason, if short { RtpError::Short } else { RtpError::Extension });
    }
}

#[test]
fn other_versions_are_refused() {
    for version in [0, 1, 3] {
        let mut packet = packet();
        packet[0] = version << 6;
        assert_eq!(RtpHeader::parse(&packet), Err(RtpError::Version));
    }
}

#[test]
fn padding_may_fill_the_payload_only() {
    let mut packet = packet();
    packet[0] |= 0x20;
    for (padding, fits) in [(0, false), (1, true), (5, true), (6, false), (255, false)] {
        *packet.last_mut().unwrap() = padding;
        let parsed = RtpHeader::parse(&packet);
        assert_eq!(parsed.is_ok(), fits, "padding {padding}");
        if !fits {
            assert_eq!(parsed, Err(RtpError::Padding));
        }
    }
}

#[test]
fn opaque_packet_keeps_its_last_byte() {
    let mut packet = packet();
    packet[0] |= 0x20;
    for last in [0, 1, 5, 6, 255] {
        *packet.last_mut().unwrap() = last;
        let header = RtpHeader::parse_opaque(&packet).unwrap();
        assert_eq!(header.payload(&packet), &packet[HEADER_LEN..], "{last}");
        assert_eq!(header.without_padding(&packet), RtpHeader::parse(&packet));
    }
    assert_eq!(RtpHeader::parse_opaque(&packet[..HEADER_LEN - 1]), Err(RtpError::Short));
}

#[test]
fn distances_cross_the_wrap() {
    assert_eq!(sequence_ahead(2, 0xffff), 3);
    assert_eq!(sequence_ahead(0xffff, 2), -3);
    assert_eq!(timestamp_ahead(5, u32::MAX), 6);
    assert_eq!(timestamp_ahead(u32::MAX, 5), -6);
}

#[test]
fn payload_of_a_shorter_packet_is_empty() {
    let packet = packet();
    let header = RtpHeader::parse(&packet).unwrap();
    assert_eq!(header.payload(&packet[..HEADER_LEN]), b"");
}

#[test]
fn ssrc_and_sequence_need_the_fixed_header_only() {
    let mut packet = packet();
    let header = RtpHeader::parse(&packet).unwrap();
    let numbers = Some((header.ssrc, header.sequence));
    assert_eq!(ssrc_and_sequence(&packet), numbers);
    // A cut packet has no valid padding.
    packet[0] |= 0x20;
    assert_eq!(ssrc_and_sequence(&packet[..HEADER_LEN]), numbers);
    assert_eq!(ssrc_and_sequence(&packet[..HEADER_LEN - 1]), None);
    packet[0] = 0x40;
    assert_eq!(ssrc_and_sequence(&packet), None);
}

#[test]
fn fuzz_rtp() {
    Corpus::of("rtp").with(packet()).check(|packet| {
        let (kind, numbers) = (classify(packet), ssrc_and_sequence(packet));
        let Ok(header) = RtpHeader::parse(packet) else { return };
        assert_eq!(numbers, Some((header.ssrc, header.sequence)));
        assert!(matches!(kind, DatagramKind::Rtp | DatagramKind::Rtcp));
        assert!(HEADER_LEN <= header.payload_offset);
        assert!(header.payload_offset <= header.payload_end && header.payload_end <= packet.len());
        let payload = header.payload(packet);
        assert_eq!(payload.len(), header.payload_len());

        let RtpHeader { payload_type, marker, sequence, timestamp, ssrc, .. } = header;
        let mut changed = packet.to_vec();
        set_sequence(&mut changed, !sequence);
        set_timestamp(&mut changed, !timestamp);
        set_ssrc(&mut changed, !ssrc);
        assert_eq!(changed.len(), packet.len());
        let expected =
            RtpHeader { sequence: !sequence, timestamp: !timestamp, ssrc: !ssrc, ..header };
        assert_eq!(RtpHeader::parse(&changed), Ok(expected));

        let mut written = Vec::new();
        write(&Fields { payload_type, marker, sequence, timestamp, ssrc }, payload, &mut written);
        let (payload_offset, payload_end) = (HEADER_LEN, written.len());
        assert_eq!(
            RtpHeader::parse(&written),
            Ok(RtpHeader { payload_offset, payload_end, ..header })
        );
        assert_eq!(&written[HEADER_LEN..], payload);
    });
}
