use super::*;

#[test]
fn first_byte_ranges_hold_at_both_edges() {
    let ranges = [
        (0, 3, DatagramKind::Stun),
        (4, 19, DatagramKind::Unknown),
        (20, 63, DatagramKind::Dtls),
        (64, 127, DatagramKind::Quic),
        (128, 191, DatagramKind::Rtp),
        (192, 223, DatagramKind::Quic),
        (224, 224, DatagramKind::Bundle),
        (225, 225, DatagramKind::Signed),
        (226, 226, DatagramKind::Echo),
        (227, 227, DatagramKind::Sealed),
        (228, 228, DatagramKind::Bundle),
        (229, 230, DatagramKind::TrunkRepair),
        (231, 255, DatagramKind::Quic),
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
        (0, DatagramKind::Rtp),
        (191, DatagramKind::Rtp),
        (192, DatagramKind::Rtcp),
        (200, DatagramKind::Rtcp),
        (223, DatagramKind::Rtcp),
        (224, DatagramKind::Rtp),
        (255, DatagramKind::Rtp),
    ] {
        assert_eq!(classify(&[0x80, second]), kind, "second byte {second}");
    }
}

#[test]
fn too_short_datagram_is_unknown() {
    assert_eq!(classify(&[]), DatagramKind::Unknown);
    assert_eq!(classify(&[0x80]), DatagramKind::Unknown);
}
