use super::*;
use crate::offer::{FeedbackSupport, MediaStream, PayloadType, RtcpPort, Srtp};

const VP8: u8 = 96;
const RTX: u8 = 97;
const H264: u8 = 98;

fn limits(labels: &[(&str, &str)]) -> DeviceLimits {
    let payload_types = |types: &[(u8, &str)]| {
        let payload = |&(number, codec): &(u8, &str)| PayloadType::new(number, codec, 90_000);
        types.iter().map(payload).collect()
    };
    let stream = |kind, types: &[(u8, &str)]| MediaStream {
        kind,
        payload_types: payload_types(types),
        feedback: FeedbackSupport::default(),
        bitrate_kbps: None,
    };
    let streams = vec![
        stream(StreamKind::Audio, &[(111, "opus")]),
        stream(StreamKind::Video, &[(VP8, "VP8"), (RTX, "rtx"), (H264, "H264")]),
    ];
    let media = MediaDescription::new(streams, RtcpPort::Mux, Srtp::Plain);
    let labels: Vec<_> = labels.iter().map(|&(key, value)| (key.into(), value.into())).collect();
    DeviceLimits::new(&labels.into(), &media)
}

#[test]
fn lower_of_height_and_rate_limits_the_device() {
    for (height, kbps) in [
        ("1", Some(1_000)),
        ("360", Some(1_000)),
        ("361", Some(2_500)),
        ("720", Some(2_500)),
        ("721", Some(6_000)),
        ("1080", Some(6_000)),
        ("1081", None),
    ] {
        assert_eq!(limits(&[("max-height", height)]).kbps, kbps, "{height}");
    }
    for (rate, kbps) in [("999", 999), ("1000", 1_000), ("1001", 1_000)] {
        let both = limits(&[("max-bitrate", rate), ("max-height", "360")]);
        assert_eq!(both.kbps, Some(kbps), "{rate}");
    }
    assert_eq!(limits(&[]), DeviceLimits::default());
    let publisher = [("role", "publisher"), ("max-bitrate", "500"), ("max-height", "360")];
    assert_eq!(limits(&publisher).kbps, None, "it receives no media");
    assert_eq!(limits(&[("role", "viewer"), ("max-bitrate", "500")]).kbps, Some(500));
}

#[test]
fn codecs_withhold_the_other_video() {
    let bits = |types: &[u8]| types.iter().fold(0, |bits, number| bits | 1u128 << number);
    for (codecs, undecodable, voice_only) in [
        ("vp8,h264", bits(&[]), false),
        ("av1, vp8", bits(&[H264]), false),
        ("h264", bits(&[VP8]), false),
        ("av1", bits(&[VP8, RTX, H264]), true),
    ] {
        let limits = limits(&[("codec", codecs)]);
        assert_eq!((limits.undecodable, limits.voice_only), (undecodable, voice_only), "{codecs}");
    }
}

#[test]
fn invalid_label_is_named_and_limits_nothing() {
    for (key, value) in [
        ("max-height", "abc"),
        ("max-height", "720p"),
        ("max-height", "0"),
        ("max-bitrate", "-1"),
        ("max-bitrate", "4294967296"),
        ("codec", ""),
        ("codec", "vp8,,h264"),
    ] {
        assert!(DeviceLimits::check(key, value).is_err(), "{key}={value}");
        assert_eq!(limits(&[(key, value)]), DeviceLimits::default(), "{key}={value}");
    }
    for (key, value) in [
        ("max-height", "720"),
        ("max-bitrate", "4294967295"),
        ("codec", "vp8, H264"),
        ("device", "abc"),
    ] {
        assert_eq!(DeviceLimits::check(key, value), Ok(()), "{key}={value}");
    }
}

#[test]
fn bounds_are_lowered_to_the_limit() {
    let scenario = CapBounds { floor_kbps: 300, ceiling_kbps: 2_000 };
    for (limit, floor_kbps, ceiling_kbps) in
        [("2001", 300, 2_000), ("1999", 300, 1_999), ("299", 299, 299)]
    {
        let lowered = limits(&[("max-bitrate", limit)]).lowered(scenario);
        assert_eq!(lowered, CapBounds { floor_kbps, ceiling_kbps }, "{limit}");
    }
}
