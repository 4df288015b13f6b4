use evenkeel_fuzz::Corpus;

use super::*;

pub(super) fn layer(number: u8, joins: LayerJoin) -> Option<FrameLink> {
    Some(FrameLink::Layer { number, joins })
}

#[test]
fn vp8_tells_layers_and_discardable_frames() {
    let cases: [(&[u8], Option<FrameLink>); 12] = [
        // S alone, and with N.
        (&[0x10, 0x9d], Some(FrameLink::Reference)),
        (&[0x30, 0x9d], Some(FrameLink::Discardable)),
        (&[0x20, 0x9d], Some(FrameLink::Discardable)),
        // X and T: the layers 0, 1 and 2, and 2 with Y.
        (&[0x90, 0x20, 0x00, 0x9d], layer(0, LayerJoin::No)),
        (&[0x90, 0x20, 0x40, 0x9d], layer(1, LayerJoin::No)),
        (&[0xb0, 0x20, 0x80, 0x9d], layer(2, LayerJoin::No)),
        (&[0x90, 0x20, 0xa0, 0x9d], layer(2, LayerJoin::Own)),
        // A key frame, with 7 bits and with 15 bits of a picture number, and its second packet.
        (&[0x90, 0xe0, 0x05, 9, 0x00, 0x9c], layer(0, LayerJoin::Above)),
        (&[0x90, 0xe0, 0x85, 1, 9, 0x00, 0x9c], layer(0, LayerJoin::Above)),
        (&[0x80, 0xe0, 0x85, 1, 9, 0x00, 0x9c], layer(0, LayerJoin::No)),
        // KEYIDX without T names no layer.
        (&[0x90, 0x10, 0x40, 0x9d], Some(FrameLink::Reference)),
        (&[0x90, 0xe0, 0x85, 1, 9], None),
    ];
    for (payload, link) in cases {
        assert_eq!(FrameLink::read("VP8", payload), link, "{payload:x?}");
    }
}

#[test]
fn vp9_tells_layers_and_points_to_switch_up() {
    let cases: [(&[u8], Option<FrameLink>); 8] = [
        // No layers.
        (&[0x08], Some(FrameLink::Reference)),
        // L: the layers 0 and 2, both predicted.
        (&[0x68, 0x00], layer(0, LayerJoin::No)),
        (&[0x68, 0x40], layer(2, LayerJoin::No)),
        // U.
        (&[0x68, 0x10], layer(0, LayerJoin::Above)),
        (&[0x68, 0x30], layer(1, LayerJoin::Above)),
        // Not predicted, behind a picture number of 15 bits.
        (&[0xa8, 0x81, 7, 0x00], layer(0, LayerJoin::Above)),
        (&[0xa8, 0x81, 7, 0x20], layer(1, LayerJoin::Own)),
        (&[0xa8, 0x81, 7], None),
    ];
    for (payload, link) in cases {
        assert_eq!(FrameLink::read("vp9", payload), link, "{payload:x?}");
    }
}

#[test]
fn h264_tells_units_without_reference() {
    let cases: [(&[u8], Option<FrameLink>); 12] = [
        // A slice with nal_ref_idc 3, and with 0; an IDR slice; parameters.
        (&[0x61, 1], Some(FrameLink::Reference)),
        (&[0x01, 1], Some(FrameLink::Discardable)),
        (&[0x65, 1], Some(FrameLink::Reference)),
        (&[0x67, 1], Some(FrameLink::Reference)),
        // A delimiter and SEI have none, whatever their picture is.
        (&[0x09, 0x10], None),
        (&[0x06, 1], None),
        // STAP-A: a delimiter with a slice of either kind, and alone.
        (&[0x18, 0, 2, 0x09, 0x10, 0, 1, 0x01], Some(FrameLink::Discardable)),
        (&[0x78, 0, 2, 0x09, 0x10, 0, 1, 0x61], Some(FrameLink::Reference)),
        (&[0x78, 0, 1, 0x61, 0, 1, 0x01], Some(FrameLink::Reference)),
        (&[0x18, 0, 2, 0x09, 0x10], None),
        // FU-A.
        (&[0x1c, 0x81], Some(FrameLink::Discardable)),
        (&[0x7c, 0x01], Some(FrameLink::Reference)),
    ];
    for (payload, link) in cases {
        assert_eq!(FrameLink::read("H264", payload), link, "{payload:x?}");
    }
}

#[test]
fn short_payloads_and_other_codecs_tell_nothing() {
    for codec in ["VP8", "VP9", "H264"] {
        assert_eq!(FrameLink::read(codec, &[]), None, "{codec}");
    }
    let cases: [(&str, &[u8]); 6] = [
        ("VP8", &[0x90]),
        ("VP8", &[0x90, 0x80]),
        ("VP9", &[0xa0, 0x80]),
        ("H264", &[0x1c]),
        ("H264", &[0x18, 0, 9]),
        ("AV1", &[0x18, 1, 2, 3]),
    ];
    for (codec, payload) in cases {
        assert_eq!(FrameLink::read(codec, payload), None, "{codec} {payload:x?}");
    }
}

#[test]
fn picture_number_is_lowered_within_its_length() {
    let lowered = |payload: &[u8], dropped| {
        let mut payload = payload.to_vec();
        lower_picture_number(&mut payload, dropped);
        payload
    };
    assert_eq!(lowered(&[0x90, 0x80, 0x05, 0x9d], 3), [0x90, 0x80, 0x02, 0x9d]);
    assert_eq!(lowered(&[0x90, 0x80, 0x01, 0x9d], 3), [0x90, 0x80, 0x7e, 0x9d]);
    assert_eq!(lowered(&[0x90, 0x80, 0x81, 0x00, 0x9d], 2), [0x90, 0x80, 0x80, 0xfe, 0x9d]);
    assert_eq!(lowered(&[0x90, 0x80, 0x80, 0x01, 0x9d], 2), [0x90, 0x80, 0xff, 0xff, 0x9d]);
    assert_eq!(lowered(&[0x90, 0x20, 0x40, 0x9d], 2), [0x90, 0x20, 0x40, 0x9d], "none");
    assert_eq!(lowered(&[0x10, 0x9d], 2), [0x10, 0x9d]);
}

#[test]
fn fuzz_frames() {
    let corpus = Corpus::of("frames").with([0x90, 0xe0, 0x85, 1, 9, 0x80, 0x9d]);
    corpus.with([0x18, 0, 2, 9, 16, 0, 1, 1]).with([0xa8, 0x81, 7, 0x30]).check(|payload| {
        for codec in ["VP8", "VP9", "H264", "AV1"] {
            if let Some(FrameLink::Layer { number, .. }) = FrameLink::read(codec, payload) {
                assert!(number < 8);
            }
        }
        // Lowering by all numbers of 7 or 15 bits is the identity, and the link remains.
        let mut lowered = payload.to_vec();
        lower_picture_number(&mut lowered, 5);
        assert_eq!(FrameLink::read("VP8", &lowered), FrameLink::read("VP8", payload));
        lower_picture_number(&mut lowered, (1 << 15) - 5);
        assert_eq!(lowered, payload);
    });
}
