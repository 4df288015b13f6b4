use super::*;

#[test]
fn key_frames_are_found_by_codec() {
    let cases: [(&str, &[u8], bool); 19] = [
        ("VP8", &[0x10, 0x9c], true),
        ("VP8", &[0x10, 0x9d], false),
        ("VP8", &[0x00, 0x9c], false),
        ("VP8", &[0x11, 0x9c], false),
        // A picture id of two bytes, a TL0PICIDX and a temporal layer.
        ("VP8", &[0x90, 0xe0, 0x80, 1, 2, 3, 0x9c], true),
        ("VP8", &[0x90, 0x80, 0x01, 0x9d], false),
        ("vp9", &[0x08], true),
        ("vp9", &[0x48], false),
        ("vp9", &[0x00], false),
        ("H264", &[0x65, 1], true),
        ("H264", &[0x41, 1], false),
        ("H264", &[0x18, 0, 2, 0x09, 0x10, 0, 1, 0x67], true),
        ("H264", &[0x18, 0, 2, 0x09, 0x10, 0, 1, 0x41], false),
        ("H264", &[0x7c, 0x85], true),
        ("H265", &[0x26, 1], true),
        ("H265", &[0x02, 1], false),
        ("H265", &[0x60, 1, 0, 2, 0x46, 1, 0, 2, 0x40, 1], true),
        ("H265", &[0x62, 1, 0x93], true),
        ("AV1", &[0x18], true),
    ];
    for (codec, payload, begins) in cases {
        assert_eq!(begins_key_frame(codec, payload), Some(begins), "{codec} {payload:x?}");
    }
}

#[test]
fn short_payloads_begin_no_key_frame() {
    for codec in ["VP8", "VP9", "H264", "H265", "AV1"] {
        assert_eq!(begins_key_frame(codec, &[]), Some(false), "{codec}");
    }
    assert_eq!(begins_key_frame("VP8", &[0x90, 0xe0]), Some(false));
    assert_eq!(begins_key_frame("H264", &[0x18, 0]), Some(false));
    assert_eq!(begins_key_frame("H264", &[0x18, 0, 9, 0x41]), Some(false));
    assert_eq!(begins_key_frame("theora", &[0x65]), None);
}
