use evenkeel_media::fingerprint::CertificateFingerprint as Fingerprint;
use evenkeel_media::srtp::{SrtpKeyError, SrtpProfile};
use sdp_types::Direction;

use super::*;
use crate::codec::{Codec, CodecKind, Format, H264Profile};
use crate::description::steps;
use crate::section::{FeedbackSet, MediaSource, OfferedSection};
use crate::tests::{
    AIORTC, CHROMIUM, FIREFOX, GSTREAMER, PHONE, RECEIVER, SIMULCAST, chromium_with_parity, parse,
};
use crate::{
    CANDIDATES_MAX, CRYPTO_MAX, FINGERPRINTS_MAX, LAYERS_MAX, LINES_MAX, SDP_BYTES_MAX, SOURCES_MAX,
};

fn formats(section: &OfferedSection) -> Vec<(u8, Format)> {
    section.formats.iter().map(|format| (format.number, format.format)).collect()
}

#[test]
fn chromium_offer_is_typed() {
    let offer = parse(CHROMIUM).unwrap();
    assert_eq!(offer.bundle.as_deref(), Some(&["0", "1", "2"].map(str::to_owned)[..]));
    assert!(offer.extmap_allow_mixed && !offer.ice_lite && !offer.has_keys());
    let [audio, video, data] = &offer.sections[..] else { panic!("{offer:?}") };
    assert_eq!(
        formats(audio),
        [
            (111, Format::Media(Codec::Opus)),
            (63, Format::Redundancy(Codec::Opus)),
            (0, Format::Media(Codec::Pcmu)),
            (8, Format::Media(Codec::Pcma)),
            (110, Format::Media(Codec::TelephoneEvent { clock_rate: 48_000 })),
            (126, Format::Media(Codec::TelephoneEvent { clock_rate: 8_000 })),
        ]
    );
    assert_eq!(audio.formats[0].parameters, "minptime=10;useinbandfec=1");
    assert_eq!(audio.unsupported, ["G722", "CN"]);
    let h264 = |profile, fragmented| Codec::H264 { profile, fragmented };
    let codecs = [
        (96, Codec::Vp8),
        (102, h264(H264Profile::Baseline, true)),
        (104, h264(H264Profile::Baseline, false)),
        (106, h264(H264Profile::ConstrainedBaseline, true)),
        (108, h264(H264Profile::ConstrainedBaseline, false)),
        (127, h264(H264Profile::Main, true)),
        (39, h264(H264Profile::Main, false)),
        (45, Codec::Av1 { profile: 0 }),
        (98, Codec::Vp9 { profile: 0 }),
        (100, Codec::Vp9 { profile: 2 }),
        (112, h264(H264Profile::High, true)),
    ];
    let mut read = formats(video);
    read.retain(|(_, format)| matches!(format, Format::Media(_)));
    assert_eq!(read, codecs.map(|(number, codec)| (number, Format::Media(codec))));
    assert_eq!(formats(video)[1], (97, Format::Retransmission(Codec::Vp8)));
    assert_eq!(formats(video).len(), 22);
    // Its retransmission repairs nothing that is supported.
    assert_eq!(video.unsupported, ["red", "rtx", "ulpfec"]);
    let feedback = FeedbackSet { tmmbr: false, ..all_feedback() };
    assert_eq!(video.formats[0].feedback, feedback);
    assert_eq!(video.formats[1].feedback, FeedbackSet::default());
    let source =
        MediaSource { ssrc: 2_985_473_190, retransmission: Some(3_342_768_471), parity: None };
    assert_eq!(video.sources, [source]);
    assert!(video.stream.as_ref().unwrap().starts_with("9b2f1c60"), "{:?}", video.stream);
    let rooms = video.extensions.iter().map(|extension| (extension.id, extension.room));
    // Rooms have the numbers of Chromium.
    assert!(rooms.clone().all(|(id, room)| id == room), "{:?}", video.extensions);
    assert_eq!(rooms.count(), 10);
    assert_eq!((data.kind, data.media.as_str()), (None, "application"));
}

fn all_feedback() -> FeedbackSet {
    FeedbackSet { nack: true, pli: true, fir: true, tmmbr: true, remb: true, transport_cc: true }
}

#[test]
fn feedback_is_read_for_one_or_all_formats() {
    let all = FIREFOX.replace("a=rtcp-fb:120 goog-remb", "a=rtcp-fb:* ccm tmmbr smaxpr=120");
    let offer = parse(&all).unwrap();
    let [vp8, rtx] = &offer.sections[1].formats[..2] else { panic!("{offer:?}") };
    assert_eq!(vp8.feedback, FeedbackSet { remb: false, ..all_feedback() });
    assert_eq!(rtx.feedback, FeedbackSet { tmmbr: true, ..FeedbackSet::default() });
}

#[test]
fn session_level_attributes_are_inherited() {
    let offer = parse(FIREFOX).unwrap();
    for section in &offer.sections {
        assert!(matches!(section.fingerprints[..], [Fingerprint::Sha256([7, ..])]));
        assert_eq!(section.ice.as_ref().unwrap().ufrag, "5be9f0c2");
        assert_eq!(section.direction, Direction::SendRecv);
    }
    // The m-line's own value counts.
    let other = "AB:".repeat(47) + "AB";
    let own =
        FIREFOX.replace("a=mid:1\r\n", &format!("a=mid:1\r\na=fingerprint:SHA-384 {other}\r\n"));
    let [audio, video] = &parse(&own).unwrap().sections[..] else { panic!() };
    assert!(matches!(audio.fingerprints[..], [Fingerprint::Sha256(_)]));
    assert_eq!(video.fingerprints, [Fingerprint::Sha384([0xab; 48])]);
    let inactive = FIREFOX.replacen("a=sendrecv", "a=inactive", 1).replace("\r\na=sendrecv", "");
    assert_eq!(parse(&inactive).unwrap().sections[1].direction, Direction::Inactive);
}

#[test]
fn simulcast_layers_are_read() {
    let layers = |text: &str| {
        let section = parse(text).unwrap().sections.swap_remove(1);
        section.layers.into_iter().map(|layer| layer.rid).collect::<Vec<_>>()
    };
    assert_eq!(layers(SIMULCAST), ["h", "m", "l"]);
    let with =
        |value: &str| SIMULCAST.replace("a=simulcast:send h;m;l", &format!("a=simulcast:{value}"));
    assert_eq!(layers(&with("recv x send ~h;m,l;unknown;h")), ["h", "m"]);
    assert_eq!(layers(&with("recv h;m;l")), [""; 0]);
    assert_eq!(layers(&with("send")), [""; 0]);
    let received = SIMULCAST.replace("a=rid:m send", "a=rid:m recv");
    assert_eq!(layers(&received), ["h", "l"]);
    let rids: Vec<String> = (0..=LAYERS_MAX).map(|index| format!("r{index}")).collect();
    let lines: String = rids.iter().map(|rid| format!("a=rid:{rid} send\r\n")).collect();
    let many = with(&format!("send {}", rids.join(";"))) + &lines;
    assert_eq!(layers(&many), rids[..LAYERS_MAX]);
    let limited =
        SIMULCAST.replace("a=rid:l send", "a=rid:l send pt=96,98;max-width=320;max-fps=15");
    let section = parse(&limited).unwrap().sections.swap_remove(1);
    assert_eq!(section.layers[2].payload_types, [96, 98]);
    assert_eq!(section.layers[2].restrictions, ["max-width=320", "max-fps=15"]);
}

#[test]
fn layers_without_names_are_a_group_of_sources() {
    let ssrcs = |group: &str| {
        let text = CHROMIUM.replace("a=ssrc-group:FID", &format!("{group}a=ssrc-group:FID"));
        parse(&text).unwrap().sections.swap_remove(1).layer_ssrcs
    };
    assert_eq!(ssrcs("a=ssrc-group:SIM 1 2 3\r\n"), [1, 2, 3]);
    assert_eq!(ssrcs("a=ssrc-group:sim 1 1 2 3 4 5\r\na=ssrc-group:SIM 6\r\n"), [1, 2, 3, 4]);
    assert!(ssrcs("").is_empty());
}

#[test]
fn gstreamer_offer_has_bundle_only_sections() {
    let offer = parse(GSTREAMER).unwrap();
    let bundle_only: Vec<bool> = offer.sections.iter().map(|section| section.bundle_only).collect();
    assert_eq!(bundle_only, [false, true, true]);
    assert_eq!(formats(&offer.sections[1]), [(97, Format::Media(Codec::Opus))]);
    assert_eq!(formats(&offer.sections[2]), [(98, Format::Media(Codec::Vp8))]);
}

#[test]
fn aiortc_offer_has_fingerprints_of_three_hashes() {
    let offer = parse(AIORTC).unwrap();
    let fingerprints = &offer.sections[0].fingerprints[..];
    let [Fingerprint::Sha256(_), Fingerprint::Sha384(_), Fingerprint::Sha512(_)] = fingerprints
    else {
        panic!("{fingerprints:?}")
    };
    let numbers: Vec<_> = formats(&offer.sections[1]).iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [97, 98, 99, 100, 101, 102]);
}

#[test]
fn receiving_offer_has_no_sources() {
    for section in parse(RECEIVER).unwrap().sections {
        assert_eq!(section.direction, Direction::RecvOnly);
        assert_eq!((section.sources, section.stream), (Vec::new(), None));
    }
    let receiver = parse(RECEIVER).unwrap();
    let mids: Vec<_> = receiver.receiving_mids().collect();
    assert_eq!(mids, [(CodecKind::Audio, "0"), (CodecKind::Video, "1")]);
    let removed = parse(&RECEIVER.replacen("m=audio 9", "m=audio 0", 1)).unwrap();
    assert_eq!(removed.receiving_mids().collect::<Vec<_>>(), mids[1..]);
    assert_eq!(parse(SIMULCAST).unwrap().receiving_mids().count(), 0);
}

#[test]
fn phone_offers_keys_and_an_address() {
    let offer = parse(PHONE).unwrap();
    let [voice] = &offer.sections[..] else { panic!("{offer:?}") };
    assert!(offer.has_keys());
    assert_eq!(offer.bundle, None);
    assert_eq!(voice.address, Some("203.0.113.141:54609".parse().unwrap()));
    let lines: Vec<_> = voice
        .crypto
        .iter()
        .map(|line| line.as_ref().map(|attribute| attribute.key.profile()))
        .collect();
    assert_eq!(
        lines,
        [
            Err(&SrtpKeyError::Mki),
            Ok(SrtpProfile::Aes256CmHmacSha1Tag80),
            Ok(SrtpProfile::Aes128CmHmacSha1Tag80),
            Err(&SrtpKeyError::SessionParameter),
        ]
    );
    // Numbers without a=rtpmap are those of RFC 3551.
    let events = Codec::TelephoneEvent { clock_rate: 8_000 };
    let codecs = [(96, Codec::Opus), (8, Codec::Pcma), (0, Codec::Pcmu), (101, events)];
    assert_eq!(formats(voice), codecs.map(|(number, codec)| (number, Format::Media(codec))));
    for (from, to) in [("203.0.113.141\r\nt=", "0.0.0.0\r\nt="), ("54609", "0")] {
        assert_eq!(parse(&PHONE.replace(from, to)).unwrap().sections[0].address, None);
    }
}

#[test]
fn repairs_of_other_payloads_are_not_formats() {
    let redundancy = |line: &str| {
        let text = CHROMIUM.replace("a=fmtp:63 111/111", line);
        let formats = formats(&parse(&text).unwrap().sections[0]);
        formats.iter().any(|(_, format)| matches!(format, Format::Redundancy(_)))
    };
    assert!(redundancy("a=fmtp:63 111") && redundancy("a=fmtp:63 111/111/111"));
    for line in ["a=fmtp:63 111/0", "a=fmtp:63 0/0", "a=fmtp:63 128", "a=fmtp:63 63/63", "a=other"]
    {
        assert!(!redundancy(line), "{line}");
    }
    for line in ["a=fmtp:97 apt=97", "a=fmtp:97 apt=116", "a=fmtp:97 rtx-time=3000", "a=other"] {
        let text = CHROMIUM.replace("a=fmtp:97 apt=96", line);
        let formats = formats(&parse(&text).unwrap().sections[1]);
        assert!(!formats.iter().any(|(number, _)| *number == 97), "{line}");
    }
}

#[test]
fn payload_types_of_rtcp_are_not_formats() {
    for (number, is_read) in [(63, true), (64, false), (95, false), (96, true)] {
        let text = format!(
            "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF {number} 120\r\na=rtpmap:{number} VP8/90000\r\n\
             a=rtpmap:120 rtx/90000\r\na=fmtp:120 apt={number}\r\n"
        );
        let count = parse(&text).unwrap().sections[0].formats.len();
        assert_eq!(count, if is_read { 2 } else { 0 }, "{number}");
    }
}

fn too_many(found: usize, of: &'static str, max: usize) -> SdpError {
    SdpError::TooMany { found, of, max }
}

#[test]
fn size_and_m_lines_are_bounded() {
    let long = CHROMIUM.to_owned() + &"a=x\r\n".repeat(200_000);
    assert!(long.len() > 1_000_000);
    let error = parse(&long).unwrap_err();
    assert_eq!(error, SdpError::TooLong { bytes: long.len() });
    let text = error.to_string();
    assert_eq!(text, format!("the SDP has {} bytes, at most 65536 are allowed", long.len()));
    let padded = |bytes: usize| format!("{CHROMIUM}a={}", "x".repeat(bytes - CHROMIUM.len() - 2));
    assert!(parse(&padded(SDP_BYTES_MAX)).is_ok());
    assert!(parse(&padded(SDP_BYTES_MAX + 1)).is_err());
    let sections = |count| format!("v=0\r\n{}", "m=audio 9 RTP/SAVPF 0\r\n".repeat(count));
    assert!(parse(&sections(SECTIONS_MAX)).is_ok());
    assert_eq!(parse(&sections(65)).unwrap_err(), too_many(65, "m-lines", SECTIONS_MAX));
    assert_eq!(parse(&sections(0)).unwrap_err(), SdpError::NoSections);
}

#[test]
fn lines_and_names_are_bounded() {
    type Make<'a> = &'a dyn Fn(usize) -> String;
    let line = |offer: &'static str, start: &str| {
        offer.lines().find(|line| line.starts_with(start)).unwrap()
    };
    // Replaces the lines of an attribute by repetitions of one, before the last line.
    let repeated = |offer: &str, line: &str, count: usize| {
        let (name, _) = line.split_once(':').unwrap();
        let mut lines: Vec<&str> = offer.lines().filter(|it| !it.starts_with(name)).collect();
        let last = lines.len() - 1;
        lines.splice(last..last, std::iter::repeat_n(line, count));
        lines.join("\r\n") + "\r\n"
    };
    let fingerprint = line(CHROMIUM, "a=fingerprint:");
    let own_fingerprints = |count| repeated(CHROMIUM, fingerprint, count);
    let fingerprints = |count| {
        let lines = format!("{fingerprint}\r\n").repeat(count);
        repeated(CHROMIUM, fingerprint, 0).replacen("m=", &format!("{lines}m="), 1)
    };
    let crypto = |count| repeated(PHONE, line(PHONE, "a=crypto:"), count);
    let names = |count| {
        let names: Vec<_> = (0..count).map(|number| number.to_string()).collect();
        let group = line(CHROMIUM, "a=group:BUNDLE");
        CHROMIUM.replacen(group, &format!("a=group:BUNDLE {}", names.join(" ")), 1)
    };
    let lines = |count| CHROMIUM.to_owned() + &"a=x\r\n".repeat(count - CHROMIUM.lines().count());
    let make: [(Make<'_>, usize, &'static str); 5] = [
        (&own_fingerprints, FINGERPRINTS_MAX, "lines a=fingerprint at one level"),
        (&fingerprints, FINGERPRINTS_MAX, "lines a=fingerprint at one level"),
        (&crypto, CRYPTO_MAX, "lines a=crypto of one m-line"),
        (&names, SECTIONS_MAX, "names in a=group:BUNDLE"),
        (&lines, LINES_MAX, "lines"),
    ];
    for (make, max, of) in make {
        assert_eq!(parse(&make(max)).err(), None, "{max} {of}");
        assert_eq!(parse(&make(max + 1)).err(), Some(too_many(max + 1, of, max)));
    }
}

#[test]
fn work_grows_with_lines_alone() {
    // Searches that read a line, if each searches the whole level.
    const SEARCHES_MAX: usize = 32;
    let sections = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n".repeat(SECTIONS_MAX);
    let own = |line: &str| {
        format!("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n{}", line.repeat(55)).repeat(SECTIONS_MAX)
    };
    for text in [
        format!("{}{sections}", "a=x\r\n".repeat(3_500)),
        format!("{}{sections}", "a=extmap:1 urn:x\r\n".repeat(3_000)),
        format!("{}{sections}", "a=candidate\r\n".repeat(CANDIDATES_MAX)),
        own("a=x\r\n"),
        own("a=ssrc:1 x\r\n"),
    ] {
        let text = format!("v=0\r\n{text}");
        let lines = text.lines().count();
        steps::take();
        assert!(parse(&text).is_ok(), "{lines} lines");
        let steps = steps::take();
        assert!((1..=SEARCHES_MAX * lines).contains(&steps), "{steps} steps, {lines} lines");
    }
}

#[test]
fn parity_is_of_an_m_line_of_video() {
    let offered = chromium_with_parity();
    let video = &parse(&offered).unwrap().sections[1];
    assert!(formats(video).contains(&(119, Format::Parity)));
    let source = MediaSource {
        ssrc: 2_985_473_190,
        retransmission: Some(3_342_768_471),
        parity: Some(1_177),
    };
    assert_eq!(video.sources, [source]);
    let other = offered.replace("flexfec-03/90000", "flexfec-03/48000");
    assert!(!formats(&parse(&other).unwrap().sections[1]).contains(&(119, Format::Parity)));
}

#[test]
fn candidates_and_sources_are_bounded() {
    let has = CHROMIUM.lines().filter(|line| line.starts_with("a=candidate")).count();
    let line = |port: usize| format!("a=candidate:1 1 udp 1 192.0.2.1 {port} typ host\r\n");
    let with = |count: usize| CHROMIUM.to_owned() + &(has..count).map(line).collect::<String>();
    assert!(matches!(parse(&with(10_000)), Err(SdpError::TooLong { .. })));
    let error = parse(&with(1_000)).unwrap_err();
    assert_eq!(error, too_many(1_000, "lines a=candidate", CANDIDATES_MAX));
    assert!(parse(&with(CANDIDATES_MAX)).is_ok());
    assert!(parse(&with(CANDIDATES_MAX + 1)).is_err());
    let sources = |count: usize| {
        let line = |ssrc: usize| format!("a=ssrc:{ssrc} cname:x\r\n");
        let text = CHROMIUM.to_owned() + &(0..count).map(line).collect::<String>();
        parse(&text).unwrap().sections[2].sources.len()
    };
    assert_eq!((sources(SOURCES_MAX), sources(SOURCES_MAX + 1)), (SOURCES_MAX, SOURCES_MAX));
}

#[test]
fn malformed_lines_are_refused_with_their_form() {
    for (from, to, found, right) in [
        ("a=mid:1", "a=mid:0", "a=mid:0 is on more than one", "another value on each"),
        ("a=mid:1", "a=mid:a b", "`a b`", "token"),
        ("a=mid:1", "a=mid:", "``", "token"),
        ("a=rtpmap:96 VP8/90000", "a=rtpmap:128 VP8/90000", "128 VP8/90000", "up to 127"),
        ("a=rtpmap:96 VP8/90000", "a=rtpmap:96 VP8", "96 VP8", "CLOCK-RATE"),
        ("a=fingerprint:sha-256 0B:", "a=fingerprint:sha-256 0G:", "0G:30", "hexadecimal"),
        ("a=fingerprint:sha-256 0B:", "a=fingerprint:sha-256 ", "sha-256 30", "hexadecimal"),
        ("a=setup:actpass", "a=setup:server", "server", "actpass"),
        ("a=ice-ufrag:Zp4k", "a=ice-ufrag:Zp4", "a=ice-ufrag", "4 to 256"),
        ("a=ice-ufrag:Zp4k", "a=other", "a=ice-ufrag", "needs the other"),
        ("v=0", "v=1", "line 1", "v=0"),
        ("s=-", "session", "line 3", "key=value"),
    ] {
        let changed = CHROMIUM.replacen(from, to, 1);
        assert_ne!(changed, CHROMIUM, "{from}");
        let text = parse(&changed).unwrap_err().to_string();
        assert!(text.contains(found) && text.contains(right), "{to}: {text}");
    }
    let password = parse(&CHROMIUM.replace("Ux6zT0kq5mJ9vB3nC8dLw2Rs", "Ux6zT0kq5mJ9vB3nC8dL!"));
    assert!(!password.unwrap_err().to_string().contains("Ux6z"));
    let long = CHROMIUM.replace("a=mid:1", &format!("a=mid:{}", "x".repeat(256)));
    let text = parse(&long).unwrap_err().to_string();
    assert!(text.contains(&format!("`{}…`", "x".repeat(80))), "{text}");
    let bare = parse("v=0\r\nm=audio 9 RTP/SAVPF 0\r\n").unwrap();
    assert_eq!((bare.sections[0].mid.as_deref(), bare.sections[0].formats.len()), (None, 1));
}

#[test]
fn weak_fingerprints_are_not_read() {
    let weak = CHROMIUM.replace("a=fingerprint:sha-256 0B:", "a=fingerprint:sha-1 0B:");
    assert_eq!(parse(&weak).unwrap().sections[0].fingerprints, []);
}
