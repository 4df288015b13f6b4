use evenkeel_fuzz::Corpus;
use evenkeel_model::{FeedbackSupport, RtcpPort, Srtp};

use super::*;

/// Number, codec and clock rate.
type Payload<'a> = (u8, &'a str, u32);

fn media(streams: &[(StreamKind, &[Payload<'_>])]) -> MediaDescription {
    let payload =
        |&(number, codec, clock_rate): &Payload<'_>| PayloadType::new(number, codec, clock_rate);
    let stream = |(kind, payloads): &(StreamKind, &[Payload<'_>])| MediaStream {
        kind: *kind,
        payload_types: payloads.iter().map(payload).collect(),
        feedback: FeedbackSupport::default(),
        bitrate_kbps: None,
    };
    let streams = streams.iter().map(stream).collect();
    MediaDescription::new(streams, RtcpPort::Mux, Srtp::Plain)
}

const OPUS: (u8, &str, u32) = (111, "opus", 48_000);
const H264: (u8, &str, u32) = (96, "H264", 90_000);

#[test]
fn sdp_lists_all_payload_types_at_its_port() {
    let both =
        media(&[(StreamKind::Video, &[H264]), (StreamKind::Audio, &[OPUS, (0, "PCMU", 8_000)])]);
    let ports = SdpPorts { rtp: 4_000, rtcp: None };
    assert_eq!(
        *party([10, 0, 0, 1].into(), ports, &both, None),
        "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\n\
         m=audio 4000 RTP/AVP 96 111 0\r\na=rtpmap:96 H264/90000\r\na=rtpmap:111 opus/48000/2\r\n\
         a=rtpmap:0 PCMU/8000\r\na=rtcp-mux\r\na=sendrecv\r\n"
    );
    let video = party("::1".parse().unwrap(), ports, &media(&[(StreamKind::Video, &[H264])]), None);
    assert!(video.contains("c=IN IP6 ::1\r\n") && video.contains("m=video 4000 "), "{}", *video);
}

#[test]
fn sdp_names_repaired_payload_types() {
    const RED: (u8, &str, u32) = (63, "red", 48_000);
    const RTX: (u8, &str, u32) = (97, "rtx", 90_000);
    let mut both = media(&[(StreamKind::Audio, &[OPUS, RED]), (StreamKind::Video, &[H264, RTX])]);
    let fmtp = |media: &MediaDescription| {
        let sdp = party([10, 0, 0, 1].into(), SdpPorts { rtp: 4_000, rtcp: None }, media, None);
        let lines = sdp.lines().filter(|line| line.starts_with("a=fmtp")).map(str::to_owned);
        lines.collect::<Vec<_>>()
    };
    assert_eq!(fmtp(&both), [""; 0]);
    both.streams[0].payload_types[1].repairs = Some(111);
    both.streams[1].payload_types[1].repairs = Some(96);
    assert_eq!(fmtp(&both), ["a=fmtp:63 111/111", "a=fmtp:97 apt=96"]);
}

#[test]
fn rtcp_port_is_own_or_multiplexed() {
    let told = |rtcp| {
        party(
            [10, 0, 0, 1].into(),
            SdpPorts { rtp: 4_000, rtcp },
            &media(&[(StreamKind::Audio, &[OPUS])]),
            None,
        )
    };
    assert!(told(None).contains("a=rtcp-mux\r\n") && !told(None).contains("a=rtcp:"));
    assert!(told(Some(7)).contains("a=rtcp:7\r\n") && !told(Some(7)).contains("rtcp-mux"));
}

#[test]
fn empty_side_is_inactive_without_rtcp_mux() {
    let empty = nobody([10, 0, 0, 1].into(), &media(&[(StreamKind::Audio, &[OPUS])]), None);
    assert!(empty.ends_with(
        "m=audio 9 RTP/AVP 111\r\na=rtpmap:111 opus/48000/2\r\na=rtcp:10\r\na=inactive\r\n"
    ));
}

#[test]
fn codec_name_cannot_add_sdp_lines() {
    let odd = media(&[(StreamKind::Audio, &[(0, "unknown", 8_000), (97, "x\r\na=evil", 8_000)])]);
    let told = party([10, 0, 0, 1].into(), SdpPorts { rtp: 4_000, rtcp: None }, &odd, None);
    assert!(told.contains(" 0 97\r\na=rtcp-mux"), "{}", *told);
}

#[test]
fn media_address_is_read() {
    // An answer as rtpengine 10.5 sends it.
    let answer = "v=0\r\no=- 1 1 IN IP4 10.0.0.9\r\ns=-\r\nt=0 0\r\nc=IN IP4 10.0.0.9\r\nm=audio 30026 RTP/AVP 111\r\n\
                  a=rtpmap:111 opus/48000/2\r\na=sendrecv\r\na=rtcp:30029\r\n";
    let at = |port| SocketAddr::from(([10, 0, 0, 9], port));
    assert_eq!(read(answer), Some(Taken { rtp: at(30_026), rtcp_port: 30_029 }));
    let without = answer.replace("a=rtcp:30029\r\n", "");
    assert_eq!(read(&without), Some(Taken { rtp: at(30_026), rtcp_port: 30_027 }));
    let of_the_medium =
        answer.replace("m=audio 30026 RTP/AVP 111", "m=audio 30026 RTP/AVP 111\r\nc=IN IP6 ::1");
    assert_eq!(read(&of_the_medium).unwrap().rtp.ip(), "::1".parse::<IpAddr>().unwrap());
    let second = format!("{answer}m=video 30030 RTP/AVP 96\r\nc=IN IP4 10.0.0.10\r\n");
    assert_eq!(read(&second).unwrap().rtp, at(30_026));
    assert_eq!(read(&answer.replace("30026", "0")), None, "refused");
    assert_eq!(read(&answer.replace("30029", "0")).unwrap().rtcp_port, 30_027);
    assert_eq!(read(&without.replace("30026", "65535")), None, "no port for RTCP");
    assert_eq!(read("v=0\r\nm=audio 1 RTP/AVP 0\r\n"), None, "nowhere");
    assert_eq!(read("hm\r\n\r\n"), None);
}

#[test]
fn fuzz_sdp() {
    let voice = media(&[(StreamKind::Audio, &[OPUS])]);
    let ports = SdpPorts { rtp: 4_000, rtcp: Some(4_001) };
    Corpus::of("sdp").with(party([10, 0, 0, 1].into(), ports, &voice, None).as_bytes()).check(
        |bytes| {
            let Some(taken) = read(&String::from_utf8_lossy(bytes)) else { return };
            let ports = SdpPorts { rtp: taken.rtp.port(), rtcp: Some(taken.rtcp_port) };
            assert_eq!(read(&party(taken.rtp.ip(), ports, &voice, None)), Some(taken));
        },
    );
}
