use super::*;
use crate::rtp::{Fields, write};

const IDS: LabelIds = LabelIds { mid: 4, rid: 10, repaired_rid: 11 };

fn packet() -> Vec<u8> {
    let fields = Fields { payload_type: 96, marker: true, sequence: 1, timestamp: 2, ssrc: 3 };
    let mut packet = Vec::new();
    write(&fields, b"frame", &mut packet);
    packet
}

fn labelled(packet: &[u8], label: LayerLabel<'_>, is_retransmission: bool) -> Vec<u8> {
    let (header, mut out) = (RtpHeader::parse(packet).unwrap(), Vec::new());
    assert!(IDS.write(&header, packet, label, is_retransmission, &mut out));
    out
}

#[test]
fn names_are_read_as_they_were_written() {
    let label = LayerLabel { video: b"anna", layer: b"h" };
    for is_retransmission in [false, true] {
        let out = labelled(&packet(), label, is_retransmission);
        let header = RtpHeader::parse(&out).unwrap();
        assert_eq!(IDS.read(&header, &out, is_retransmission), Some(label));
        assert_eq!(IDS.read(&header, &out, !is_retransmission), None);
        assert_eq!(header.payload(&out), b"frame");
    }
}

#[test]
fn own_name_of_the_layer_remains() {
    let named = labelled(&packet(), LayerLabel { video: b"other", layer: b"m" }, false);
    let header = RtpHeader::parse(&named).unwrap();
    let out = labelled(&named, LayerLabel { video: b"anna", layer: b"h" }, false);
    let expected = LayerLabel { video: b"anna", layer: b"m" };
    assert_eq!(IDS.read(&RtpHeader::parse(&out).unwrap(), &out, false), Some(expected));
    assert_eq!(IDS.layer(&header, &named, false), Some(&b"m"[..]));
}

#[test]
fn cleared_packet_has_no_name() {
    let mut out = labelled(&packet(), LayerLabel { video: b"anna", layer: b"h" }, false);
    let length = out.len();
    IDS.clear(&mut out);
    let header = RtpHeader::parse(&out).unwrap();
    assert_eq!((IDS.layer(&header, &out, false), out.len()), (None, length));
    assert_eq!(header.payload(&out), b"frame");
}
