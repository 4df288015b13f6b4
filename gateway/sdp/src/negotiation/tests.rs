use evenkeel_media::srtp::{SrtpKeyError, SrtpProfile};

use super::*;
use crate::answer::SentStream;
use crate::codec::{Codec, Format, H264Profile};
use crate::tests::{
    CHROMIUM, FIREFOX, GSTREAMER, Gateway, PHONE, POLICY, RECEIVER, SIMULCAST, answer,
    assert_consistent, chromium_with_parity, lines, parse,
};

/// The rejection of each m-line.
fn rejections(negotiation: &Negotiation) -> Vec<Option<Rejection>> {
    negotiation.sections.iter().map(|section| section.outcome.as_ref().err().cloned()).collect()
}

#[track_caller]
fn ice(negotiation: &Negotiation) -> &IceCredentials {
    let PeerPath::Ice(credentials) = &negotiation.transport.path else { panic!("{negotiation:?}") };
    credentials
}

#[track_caller]
fn keys(negotiation: &Negotiation) -> &SrtpKeys {
    let Keying::Sdes(keys) = &negotiation.transport.keying else { panic!("{negotiation:?}") };
    keys
}

fn media(negotiation: &Negotiation, index: usize) -> &AcceptedMedia {
    negotiation.sections[index].outcome.as_ref().unwrap()
}

#[test]
fn chromium_answer_is_as_browsers_expect() {
    let negotiation = answer(CHROMIUM);
    let text = negotiation.text();
    assert!(
        text.starts_with("v=0\r\no=- 4711 2 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\na=ice-lite\r\n"),
        "{text}"
    );
    assert_eq!(lines(&negotiation, "a=group"), ["a=group:BUNDLE 0 1"]);
    assert_eq!(lines(&negotiation, "a=extmap-allow-mixed").len(), 1);
    assert_eq!(
        lines(&negotiation, "m="),
        [
            "m=audio 5000 UDP/TLS/RTP/SAVPF 111 63 0 8 110 126",
            "m=video 5000 UDP/TLS/RTP/SAVPF 96 97 102 103 104 105 106 107 108 109 127 125 39 40 45 46 98 99 \
             100 101 112 113",
            "m=application 0 UDP/DTLS/SCTP webrtc-datachannel",
        ]
    );
    assert_eq!(lines(&negotiation, "a=mid"), ["a=mid:0", "a=mid:1", "a=mid:2"]);
    // The session level, which rejected m-lines inherit.
    let session = text.split("m=audio").next().unwrap();
    for line in ["a=ice-ufrag:gate", "a=ice-pwd:a22", "a=fingerprint:sha-256 AB:AB:AB"] {
        assert!(session.contains(line), "{text}");
        assert_eq!(lines(&negotiation, line).len(), 1, "{line}");
    }
    assert_eq!(lines(&negotiation, "a=setup"), ["a=setup:passive"; 3]);
    // On the first m-line of the group alone.
    assert_eq!(
        lines(&negotiation, "a=candidate"),
        [
            "a=candidate:1 1 udp 2130706431 192.0.2.1 5000 typ host",
            "a=candidate:2 1 udp 2130706175 2001:db8::1 5000 typ host",
        ]
    );
    let feedback = ["nack", "nack pli", "ccm fir", "goog-remb"];
    assert_eq!(
        lines(&negotiation, "a=rtcp-fb:96 "),
        feedback.map(|kind| format!("a=rtcp-fb:96 {kind}"))
    );
    // Their values hold for one transport.
    for absent in ["transport-wide-cc", "transport-cc", "sdes:mid"] {
        assert!(CHROMIUM.contains(absent) && !text.contains(absent), "{absent}");
    }
    assert_eq!(lines(&negotiation, "a=fmtp:63"), ["a=fmtp:63 111/111"]);
    assert_eq!(lines(&negotiation, "a=rtpmap:63"), ["a=rtpmap:63 red/48000/2"]);
    assert_eq!(rejections(&negotiation)[2], Some(Rejection::Kind("application".into())));
    let Keying::Dtls { fingerprints } = &negotiation.transport.keying else { panic!() };
    let [CertificateFingerprint::Sha256([0x0b, 0x30, ..])] = &fingerprints[..] else { panic!() };
    let mids: Vec<_> = negotiation.accepted().map(|media| media.mid.as_deref()).collect();
    assert_eq!(mids, [Some("0"), Some("1")]);
    assert_eq!(ice(&negotiation).password(), "Ux6zT0kq5mJ9vB3nC8dLw2Rs");
    // Rooms have the numbers of Chromium.
    for format in &media(&negotiation, 1).formats {
        assert_eq!(format.number, format.room);
    }
}

#[test]
fn other_numbers_are_mapped_to_those_of_rooms() {
    let negotiation = answer(FIREFOX);
    let map = &negotiation.payload_types;
    let baseline =
        |fragmented| Codec::H264 { profile: H264Profile::ConstrainedBaseline, fragmented };
    for (client, format) in [
        (109, Format::Media(Codec::Opus)),
        (0, Format::Media(Codec::Pcmu)),
        (101, Format::Media(Codec::TelephoneEvent { clock_rate: 8_000 })),
        (120, Format::Media(Codec::Vp8)),
        (124, Format::Retransmission(Codec::Vp8)),
        (121, Format::Media(Codec::Vp9 { profile: 0 })),
        (126, Format::Media(baseline(true))),
        (97, Format::Media(baseline(false))),
        (98, Format::Retransmission(baseline(false))),
    ] {
        let room = format.room_number().unwrap();
        assert_eq!(map.room_number(client), Some(room), "{client}");
        assert_eq!(map.client_number(room), Some(client), "{client}");
    }
    for unsupported in [9, 119, 122, 123, 96, 111] {
        assert_eq!(map.room_number(unsupported), None, "{unsupported}");
    }
    let extensions = &negotiation.extensions;
    for (client, room) in [(1, 1), (4, 2), (5, 14), (6, 5)] {
        assert_eq!(extensions.room_number(client), Some(room), "{client}");
        assert_eq!(extensions.client_number(room), Some(client), "{client}");
    }
    for (client, absent) in [(2, "csrc-audio-level"), (3, "sdes:mid"), (7, "transport-wide-cc")] {
        assert_eq!(extensions.room_number(client), None, "{absent}");
    }
    // The gateway sees the direction of an extension from the other side.
    let uri = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";
    assert_eq!(lines(&negotiation, "a=extmap:6"), [format!("a=extmap:6/sendonly {uri}")]);
}

#[test]
fn transport_wide_numbers_go_to_the_client_alone() {
    const URI: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
    let viewer = answer(RECEIVER);
    let line = format!("a=extmap:3 {URI}");
    assert_eq!(lines(&viewer, "a=extmap:3"), [&line, &line]);
    assert_eq!(lines(&viewer, "a=rtcp-fb:111"), ["a=rtcp-fb:111 transport-cc"]);
    assert!(media(&viewer, 1).formats[0].feedback.transport_cc);
    let policy = AnswerPolicy { receives: false, ..POLICY };
    let gateway = Gateway { policy, ..Gateway::new() };
    assert_eq!(lines(&gateway.answer(CHROMIUM).unwrap(), "a=extmap:3").len(), 2);
    // The client may limit the direction itself.
    let limited = FIREFOX.replace("a=extmap:7 ", "a=extmap:7/recvonly ");
    let limited = answer(&limited);
    assert_eq!(lines(&limited, "a=extmap:7"), [format!("a=extmap:7/sendonly {URI}")]);
    assert_eq!(limited.extensions.client_number(3), Some(7));
    // Without the extension, the feedback would have no numbers.
    let without = answer(&RECEIVER.replace("a=extmap:3 ", "a=x-extmap:3 "));
    assert!(!without.text().contains("transport-"), "{}", without.text());
}

#[test]
fn each_section_has_its_own_numbers() {
    let negotiation = answer(GSTREAMER);
    assert_eq!(rejections(&negotiation), [None, None, None]);
    let vp8 = Format::Media(Codec::Vp8).room_number().unwrap();
    assert_eq!(media(&negotiation, 0).payload_types.client_number(vp8), Some(96));
    assert_eq!(media(&negotiation, 2).payload_types.client_number(vp8), Some(98));
    for client in [96, 98] {
        assert_eq!(negotiation.payload_types.room_number(client), Some(vp8));
    }
    assert_eq!(lines(&negotiation, "m=audio"), ["m=audio 5000 UDP/TLS/RTP/SAVPF 97"]);
    // Parameters that describe the sender's own stream are not repeated.
    assert_eq!(lines(&negotiation, "a=fmtp"), [""; 0]);
}

#[test]
fn number_of_another_codec_is_not_accepted() {
    // A payload type has one meaning in a group (RFC 9143, section 9.1).
    let offer =
        GSTREAMER.replace("m=video 0 UDP/TLS/RTP/SAVPF 98", "m=video 0 UDP/TLS/RTP/SAVPF 97 98");
    let offer = offer.replace("a=rtpmap:98 VP8", "a=rtpmap:97 VP9/90000\r\na=rtpmap:98 VP8");
    let negotiation = answer(&offer);
    assert_eq!(
        lines(&negotiation, "m=video"),
        ["m=video 5000 UDP/TLS/RTP/SAVPF 96", "m=video 5000 UDP/TLS/RTP/SAVPF 98"]
    );
}

#[test]
fn second_number_of_a_codec_is_left_out_with_its_repair() {
    let offer = GSTREAMER.replace("SAVPF 96\r\n", "SAVPF 121 120 96\r\n").replacen(
        "a=rtpmap:96",
        "a=rtpmap:121 rtx/90000\r\na=fmtp:121 apt=96\r\na=rtpmap:120 VP8/90000\r\na=rtpmap:96",
        1,
    );
    let negotiation = answer(&offer);
    assert_eq!(lines(&negotiation, "m=video")[0], "m=video 5000 UDP/TLS/RTP/SAVPF 120");
    let other = offer.replace("apt=96", "apt=120");
    let negotiation = answer(&other);
    assert_eq!(lines(&negotiation, "m=video")[0], "m=video 5000 UDP/TLS/RTP/SAVPF 121 120");
}

#[test]
fn telephone_events_accompany_a_codec() {
    let negotiation = answer(&PHONE.replace("a=ptime:20", "a=fmtp:101 0-16\r\na=ptime:20"));
    assert_eq!(lines(&negotiation, "a=rtpmap:101"), ["a=rtpmap:101 telephone-event/8000"]);
    assert_eq!(lines(&negotiation, "a=fmtp:101"), ["a=fmtp:101 0-16"]);
    let events = Format::Media(Codec::TelephoneEvent { clock_rate: 8_000 });
    assert_eq!(negotiation.payload_types.room_number(101), events.room_number());
    let alone = PHONE.replace("RTP/SAVP 96 8 0 101", "RTP/SAVP 9 101");
    let alone = alone.replace("a=rtpmap:96 opus/48000/2", "a=rtpmap:9 G722/8000");
    let error = Gateway::new().answer(&alone).unwrap_err();
    let names = String::from("telephone-event, G722");
    assert_eq!(error, SdpError::NothingAccepted(Rejection::NoCodec(names)));
}

#[test]
fn unsupported_sections_alone_are_rejected() {
    let sections = |text: &str| rejections(&answer(text));
    let video = |from: &str, to: &str| {
        let at = FIREFOX.find("m=video").unwrap();
        let changed = FIREFOX[at..].replacen(from, to, 1);
        assert_ne!(changed, FIREFOX[at..], "{from}");
        format!("{}{changed}", &FIREFOX[..at])
    };
    for (from, to, rejection) in [
        ("m=video 9", "m=video 0", Rejection::Removed),
        ("m=video 9", "m=text 9", Rejection::Kind("text".into())),
        ("a=setup:actpass", "a=setup:passive", Rejection::Setup("passive")),
        ("a=setup:actpass", "a=setup:holdconn", Rejection::Setup("holdconn")),
        ("a=rtcp-mux\r\n", "", Rejection::RtcpNotMuxed("ICE checks one address")),
        ("a=mid:1", "a=mid:2", Rejection::NotBundled),
        ("a=mid:1\r\n", "", Rejection::NotBundled),
        ("120 124 121 125 126 127 97 98 ", "", Rejection::NoCodec("ulpfec, red, rtx".into())),
    ] {
        assert_eq!(sections(&video(from, to)), [None, Some(rejection)], "{to}");
    }
    let plain = CHROMIUM.replacen("m=video 9 UDP/TLS/RTP/SAVPF", "m=video 9 RTP/AVPF", 1);
    let at = plain.find("m=video").unwrap();
    let tail: String = plain[at..]
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("a=fingerprint"))
        .collect();
    let without_fingerprint = format!("{}{tail}", &plain[..at]);
    // Keys of the group's first m-line hold for one without any (RFC 9143, section 7.1.3), but this one has ICE credentials of its own.
    let rejections = sections(&without_fingerprint);
    assert_eq!(rejections[1], Some(Rejection::Profile("RTP/AVPF".into())));
    let secure = without_fingerprint.replace("RTP/AVPF", "UDP/TLS/RTP/SAVPF");
    assert_eq!(sections(&secure)[1], Some(Rejection::NoFingerprint));
    // A rejected m-line keeps its place, its formats and its mid.
    let negotiation = answer(&video("a=rtcp-mux\r\n", ""));
    assert_eq!(
        lines(&negotiation, "m=video"),
        ["m=video 0 UDP/TLS/RTP/SAVPF 120 124 121 125 126 127 97 98 123 122 119"]
    );
    assert_eq!(lines(&negotiation, "a=mid:1").len(), 1);
    assert_eq!(lines(&negotiation, "a=group"), ["a=group:BUNDLE 0"]);
}

#[test]
fn profiles_of_old_clients_are_accepted() {
    for profile in ["UDP/TLS/RTP/SAVP", "RTP/SAVPF", "RTP/AVPF", "RTP/AVP"] {
        let negotiation = answer(&FIREFOX.replace("UDP/TLS/RTP/SAVPF", profile));
        assert_eq!(rejections(&negotiation), [None, None], "{profile}");
        assert!(lines(&negotiation, "m=audio")[0].contains(&format!(" {profile} ")));
    }
}

#[test]
fn bundled_section_shares_the_first_transport() {
    let at = CHROMIUM.find("m=video").unwrap();
    let names = ["a=ice-", "a=fingerprint", "a=setup", "a=rtcp-mux\r"];
    let is_kept = |line: &&str| !names.iter().any(|name| line.starts_with(name));
    let tail: String = CHROMIUM[at..].split_inclusive('\n').filter(is_kept).collect();
    let tail =
        tail.replace("m=video 9", "m=video 0").replace("a=mid:1", "a=mid:1\r\na=bundle-only");
    let negotiation = answer(&format!("{}{tail}", &CHROMIUM[..at]));
    assert_eq!(rejections(&negotiation)[..2], [None, None]);
    assert_eq!(ice(&negotiation).ufrag, "Zp4k");
}

#[test]
fn without_a_group_the_first_section_is_accepted() {
    let text = FIREFOX.replace("a=group:BUNDLE 0 1\r\n", "");
    let negotiation = answer(&text);
    assert_eq!(rejections(&negotiation), [None, Some(Rejection::NotBundled)]);
    assert_eq!(lines(&negotiation, "a=group"), [""; 0]);
    assert_eq!(lines(&negotiation, "a=candidate").len(), 2);
    let video = answer(&text.replacen("m=audio 9", "m=audio 0", 1));
    assert_eq!(rejections(&video), [Some(Rejection::Removed), None]);
}

#[test]
fn candidates_stand_on_the_first_accepted_of_the_group() {
    let negotiation = answer(&CHROMIUM.replace("BUNDLE 0 1 2", "BUNDLE 2 1 0"));
    assert_eq!(lines(&negotiation, "a=group"), ["a=group:BUNDLE 1 0"]);
    let (audio, video) = negotiation.text().split_once("m=video").unwrap();
    assert!(!audio.contains("a=candidate") && video.contains("a=candidate"));
}

#[test]
fn offers_that_no_answer_fits_are_refused() {
    let refusal = |text: &str| Gateway::new().answer(text).unwrap_err();
    let lite = CHROMIUM.replace("s=-\r\n", "s=-\r\na=ice-lite\r\n");
    assert_eq!(refusal(&lite), SdpError::IceLite);
    let data = CHROMIUM.split("m=audio").next().unwrap().to_owned()
        + &CHROMIUM[CHROMIUM.find("m=application").unwrap()..];
    let kind = Rejection::Kind("application".into());
    assert_eq!(refusal(&data), SdpError::NothingAccepted(kind));
    let removed = FIREFOX.replace("m=audio 9", "m=audio 0").replace("m=video 9", "m=video 0");
    assert_eq!(refusal(&removed), SdpError::NothingAccepted(Rejection::Removed));
    let without_ice: String =
        FIREFOX.split_inclusive('\n').filter(|line| !line.starts_with("a=ice-")).collect();
    assert_eq!(refusal(&without_ice), SdpError::NothingAccepted(Rejection::NoIce));
}

#[test]
fn direction_is_turned_and_limited() {
    let direction = |offered: &str, sends, receives| {
        let policy = AnswerPolicy { sends, receives, ..POLICY };
        let gateway = Gateway { policy, ..Gateway::new() };
        let offer = FIREFOX.replace("a=sendrecv", offered);
        media(&gateway.answer(&offer).unwrap(), 0).direction
    };
    assert_eq!(direction("a=sendrecv", true, true), Direction::SendRecv);
    assert_eq!(direction("a=sendonly", true, true), Direction::RecvOnly);
    assert_eq!(direction("a=recvonly", true, true), Direction::SendOnly);
    assert_eq!(direction("a=inactive", true, true), Direction::Inactive);
    // WHIP and WHEP.
    assert_eq!(direction("a=sendrecv", false, true), Direction::RecvOnly);
    assert_eq!(direction("a=sendrecv", true, false), Direction::SendOnly);
    assert_eq!(direction("a=sendonly", true, false), Direction::Inactive);
    assert_eq!(direction("a=sendrecv", false, false), Direction::Inactive);
}

#[test]
fn sent_streams_are_named() {
    let source = |mid, ssrc, retransmission| SentStream {
        mid,
        stream: "room",
        cname: "gateway",
        ssrc,
        retransmission,
        parity: None,
    };
    let video = SentStream { parity: Some(10), ..source("1", 8, Some(9)) };
    let sources = vec![source("0", 7, None), video];
    let gateway = Gateway { sources, ..Gateway::new() };
    let negotiation = gateway.answer(RECEIVER).unwrap();
    assert_eq!(lines(&negotiation, "a=msid"), ["a=msid:room 0", "a=msid:room 1"]);
    let groups = ["a=ssrc-group:FID 8 9", "a=ssrc-group:FEC-FR 8 10"];
    assert_eq!(lines(&negotiation, "a=ssrc-group"), groups);
    let ssrcs = [7, 8, 9, 10].map(|ssrc| format!("a=ssrc:{ssrc} cname:gateway"));
    assert_eq!(lines(&negotiation, "a=ssrc:"), ssrcs);
    assert_eq!(lines(&gateway.answer(SIMULCAST).unwrap(), "a=ssrc"), [""; 0]);
    let sources = vec![SentStream { stream: "ro\r\na=x\0om", ..source("0", 7, None) }];
    let negotiation = Gateway { sources, ..Gateway::new() }.answer(RECEIVER).unwrap();
    assert_eq!(lines(&negotiation, "a=msid"), ["a=msid:roa=xom 0"], "one line");
}

#[test]
fn simulcast_is_accepted_with_its_layers() {
    let negotiation = answer(SIMULCAST);
    assert_eq!(lines(&negotiation, "a=rid"), ["a=rid:h recv", "a=rid:m recv", "a=rid:l recv"]);
    assert_eq!(lines(&negotiation, "a=simulcast"), ["a=simulcast:recv h;m;l"]);
    assert_eq!(media(&negotiation, 1).layers.len(), 3);
    let limited = SIMULCAST.replace("a=rid:l send", "a=rid:l send pt=96,116;max-width=320");
    let limited = limited.replace("a=rid:m send", "a=rid:m send pt=116");
    let negotiation = answer(&limited);
    assert_eq!(lines(&negotiation, "a=rid"), ["a=rid:h recv", "a=rid:l recv pt=96;max-width=320"]);
    assert_eq!(lines(&negotiation, "a=simulcast"), ["a=simulcast:recv h;l"]);
    // Without the header extension, packets would not name their layer.
    let without = SIMULCAST.replace("sdes:rtp-stream-id", "sdes:other");
    assert_eq!(lines(&answer(&without), "a=simulcast"), [""; 0]);
    let policy = AnswerPolicy { receives: false, ..POLICY };
    let gateway = Gateway { policy, ..Gateway::new() };
    assert_eq!(media(&gateway.answer(SIMULCAST).unwrap(), 1).layers, []);
}

#[test]
fn phone_gets_a_key_for_its_first_usable_line() {
    let negotiation = answer(PHONE);
    let SrtpKeys { client, gateway, tag } = keys(&negotiation);
    assert_eq!((client.profile(), *tag), (SrtpProfile::Aes256CmHmacSha1Tag80, Some(2)));
    let counting: Vec<u8> = (0..46).collect();
    assert_eq!([client.key(), client.salt()].concat(), counting);
    assert_eq!([gateway.key(), gateway.salt()].concat(), [7; 46]);
    let key = "BwcH".repeat(15) + "Bw==";
    let line = format!("a=crypto:2 AES_256_CM_HMAC_SHA1_80 inline:{key}");
    assert_eq!(lines(&negotiation, "a=crypto"), [line]);
    assert_eq!(lines(&negotiation, "m=audio"), ["m=audio 5000 RTP/SAVP 96 8 0 101"]);
    let address = "203.0.113.141:54609".parse().unwrap();
    assert_eq!(negotiation.transport.path, PeerPath::Address { rtp: address, rtcp: None });
    assert_eq!(lines(&negotiation, "a=rtcp"), ["a=rtcp-mux"]);
    for absent in ["a=ice", "a=candidate", "a=fingerprint", "a=setup", "a=mid", "a=group"] {
        assert_eq!(lines(&negotiation, absent), [""; 0], "{absent}");
    }
}

#[test]
fn crypto_lines_that_cannot_be_used_are_skipped() {
    let first = PHONE.lines().find(|line| line.starts_with("a=crypto:1")).unwrap();
    for other in [
        "a=crypto:1 F8_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj",
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AAEC",
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80",
        "a=crypto",
    ] {
        let negotiation = answer(&PHONE.replace(first, other));
        assert_eq!(keys(&negotiation).tag, Some(2));
    }
}

#[test]
fn phone_without_mux_gets_a_port_for_rtcp() {
    let offer = |line: &str| PHONE.replace("a=rtcp-mux\r\n", line);
    let rtcp = |line: &str| {
        let negotiation = answer(&offer(line));
        assert_eq!(lines(&negotiation, "a=rtcp"), ["a=rtcp:5001"]);
        let PeerPath::Address { rtp, rtcp } = negotiation.transport.path.clone() else { panic!() };
        assert_eq!(rtp, "203.0.113.141:54609".parse().unwrap());
        rtcp.unwrap().to_string()
    };
    assert_eq!(rtcp(""), "203.0.113.141:54610");
    assert_eq!(rtcp("a=rtcp:53020\r\n"), "203.0.113.141:53020");
    assert_eq!(rtcp("a=rtcp:53020 IN IP4 203.0.113.141\r\n"), "203.0.113.141:53020");
    let refusal = |gateway: &Gateway, offer: &str| {
        let error = gateway.answer(offer).unwrap_err();
        let SdpError::NothingAccepted(Rejection::RtcpNotMuxed(reason)) = error else {
            panic!("{error}")
        };
        assert!(error.to_string().contains("rtcp-mux"), "{error}");
        reason
    };
    let foreign = "its RTCP is not at another port of the address in c=";
    for line in [
        "a=rtcp:0\r\n",
        "a=rtcp:70000\r\n",
        "a=rtcp:54609\r\n",
        "a=rtcp:53020 IN IP4 198.51.100.1\r\n",
        "a=rtcp:53020 IN IP4 host.example\r\n",
    ] {
        assert_eq!(refusal(&Gateway::new(), &offer(line)), foreign, "{line}");
    }
    let last_port = offer("").replace("54609", "65535");
    assert_eq!(refusal(&Gateway::new(), &last_port), foreign);
    let next = Gateway { rtcp_port: None, ..Gateway::new() }.answer(&offer("")).unwrap();
    assert_eq!(lines(&next, "a=rtcp"), [""; 0], "the next port (RFC 3550, section 11)");
    let policy = AnswerPolicy { has_rtcp_port: false, ..POLICY };
    let muxed = Gateway { policy, ..Gateway::new() };
    assert_eq!(refusal(&muxed, &offer("")), "the gateway has no port for RTCP alone");
    assert_eq!(lines(&muxed.answer(PHONE).unwrap(), "a=rtcp"), ["a=rtcp-mux"]);
    let bundled = offer("a=mid:0\r\n").replace("t=0 0", "t=0 0\r\na=group:BUNDLE 0");
    assert_eq!(refusal(&Gateway::new(), &bundled), "BUNDLE has one address");
}

#[test]
fn phone_without_a_usable_key_is_refused_by_name() {
    let only_first: String = PHONE
        .split_inclusive('\n')
        .filter(|line| !["a=crypto:2", "a=crypto:3"].iter().any(|head| line.starts_with(head)))
        .collect();
    let refusal = |text: &str| Gateway::new().answer(text).unwrap_err();
    let error = refusal(&only_first);
    assert_eq!(error, SdpError::NothingAccepted(Rejection::Crypto(SrtpKeyError::Mki)));
    assert!(error.to_string().contains("(MKI)"), "{error}");
    let without_keys: String =
        PHONE.split_inclusive('\n').filter(|line| !line.starts_with("a=crypto")).collect();
    assert_eq!(refusal(&without_keys), SdpError::NothingAccepted(Rejection::NoKeys));
    let plain = refusal(&without_keys.replace("RTP/SAVP", "RTP/AVP"));
    assert_eq!(plain, SdpError::NothingAccepted(Rejection::Profile("RTP/AVP".into())));
    let hidden = refusal(&PHONE.replace("c=IN IP4 203.0.113.141", "c=IN IP4 0.0.0.0"));
    assert_eq!(hidden, SdpError::NothingAccepted(Rejection::NoAddress));
    let with_ice = PHONE.replace(
        "c=IN IP4 203.0.113.141",
        "c=IN IP4 0.0.0.0\r\na=ice-ufrag:some\r\na=ice-pwd:aPasswordOf22Character",
    );
    let negotiation = answer(&with_ice);
    assert_eq!(lines(&negotiation, "a=ice-ufrag").len(), 1);
    assert!(matches!(negotiation.transport.keying, Keying::Sdes(_)));
}

#[test]
fn certificate_is_preferred_to_keys() {
    let line = "a=mid:0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";
    let both = FIREFOX.replace("a=mid:0", line).replace("UDP/TLS/RTP/SAVPF", "RTP/SAVPF");
    assert!(parse(&both).unwrap().has_keys());
    let negotiation = answer(&both);
    assert!(matches!(negotiation.transport.keying, Keying::Dtls { .. }));
    assert_eq!(lines(&negotiation, "a=crypto"), [""; 0]);
}

/// A second offer of Chromium: `text` with the m-line of another camera.
fn with_second_video(text: &str) -> String {
    let video =
        &CHROMIUM[CHROMIUM.find("m=video").unwrap()..CHROMIUM.find("m=application").unwrap()];
    let text = text.replace("BUNDLE 0 1 2", "BUNDLE 0 1 2 3");
    text + &video
        .replace("a=mid:1", "a=mid:3")
        .replace("2985473190", "11")
        .replace("3342768471", "12")
}

#[test]
fn parity_is_accepted_beside_a_codec() {
    let answered = answer(&chromium_with_parity());
    assert_consistent(&parse(&chromium_with_parity()).unwrap(), &answered);
    assert_eq!(lines(&answered, "a=rtpmap:119"), ["a=rtpmap:119 flexfec-03/90000"]);
    assert_eq!(lines(&answered, "a=fmtp:119"), ["a=fmtp:119 repair-window=10000000"]);
    assert_eq!(answered.payload_types.client_number(43), Some(119));
    let offered = chromium_with_parity();
    let line = offered.lines().find(|line| line.starts_with("m=video")).unwrap();
    let alone = answer(&offered.replace(line, "m=video 9 UDP/TLS/RTP/SAVPF 119"));
    assert!(matches!(alone.sections[1].outcome, Err(Rejection::NoCodec(_))));
}

#[test]
fn later_offer_adds_turns_and_removes_streams() {
    let more = with_second_video(CHROMIUM).replacen(" 2 IN IP4", " 3 IN IP4", 1);
    let second = answer(&more);
    assert_consistent(&parse(&more).unwrap(), &second);
    assert_eq!(lines(&second, "a=group"), ["a=group:BUNDLE 0 1 3"]);
    assert_eq!(lines(&second, "o="), ["o=- 4711 3 IN IP4 192.0.2.1"]);
    assert_eq!(
        media(&second, 3).sources[0],
        MediaSource { ssrc: 11, retransmission: Some(12), parity: None }
    );
    let held = answer(&more.replace("a=sendrecv", "a=sendonly"));
    assert!(held.accepted().all(|media| media.direction == Direction::RecvOnly));
    let removed =
        more.replacen("m=video 9", "m=video 0", 1).replace("BUNDLE 0 1 2 3", "BUNDLE 0 2 3");
    let last = answer(&removed);
    assert_eq!(rejections(&last)[1], Some(Rejection::Removed));
    assert_eq!(lines(&last, "a=group"), ["a=group:BUNDLE 0 3"]);
    assert_eq!(lines(&last, "m=").len(), 4);
}

#[test]
fn offer_without_streams_is_refused() {
    let none = FIREFOX.replace("m=audio 9", "m=audio 0").replace("m=video 9", "m=video 0");
    let refused = |offer: &str| Gateway::new().answer(offer).unwrap_err();
    assert_eq!(refused(&none), SdpError::NothingAccepted(Rejection::Removed));
    let text = none + "m=text 9 UDP/TLS/RTP/SAVPF 98\r\n";
    assert_eq!(refused(&text), SdpError::NothingAccepted(Rejection::Kind("text".into())));
    let plain: String =
        FIREFOX.split_inclusive('\n').filter(|line| !line.starts_with("a=rtcp-mux")).collect();
    let reason = Rejection::RtcpNotMuxed("ICE checks one address");
    assert_eq!(refused(&plain), SdpError::NothingAccepted(reason));
}
