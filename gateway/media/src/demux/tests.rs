use super::*;

#[test]
fn first_byte_ranges_hold_at_both_edges() {
    let ranges = [
        (0, 3, Kind::Stun),
        (4, 19, Kind::Unknown),
        (20, 63, Kind::Dtls),
        (64, 127, Kind::Quic),
        (128, 191, Kind::Rtp),
        (192, 223, Kind::Quic),
        (224, 224, Kind::Bundle),
        (225, 225, Kind::Signed),
        (226, 226, Kind::Echo),
        (227, 227, Kind::Sealed),
        (228, 255, Kind::Quic),
    ];
    for (low, high, kind) in ranges {
        for first in low..=high {
            assert_eq!(classify(&[first, 0]), kind, "first byte {first}");
        }
    }
}

#[test]
fn rtcp_and_rtp_differ_by_payload_type() {
    for (second, kind) in [
        (0, Kind::Rtp),
        (191, Kind::Rtp),
        (192, Kind::Rtcp),
        (200, Kind::Rtcp),
        (223, Kind::Rtcp),
        (224, Kind::Rtp),
        (255, Kind::Rtp),
    ] {
        assert_eq!(classify(&[0x80, second]), kind, "second byte {second}");
    }
}

#[test]
fn too_short_datagram_is_unknown() {
    assert_eq!(classify(&[]), Kind::Unknown);
    assert_eq!(classify(&[0x80]), Kind::Unknown);
}
