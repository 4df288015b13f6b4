use evenkeel_fuzz::Corpus;
use evenkeel_index::RoomOwner;
use evenkeel_model::StreamKind;
use serde_json::{Value, json};

use super::*;

#[test]
fn full_offer_parses() {
    // In the order of the text.
    let wanted = super::parse(OFFER.as_bytes(), None).unwrap().wanted;
    assert_eq!((&*wanted.scenario, &*wanted.room), ("call", "room-1"));
    assert_eq!(&*wanted.labels, [("region".into(), "east".into()), ("a".into(), "b".into())]);
    let address = "127.0.0.1:40000".parse().unwrap();
    let rtcp = Some(Box::new("127.0.0.1:40001".parse().unwrap()));
    assert_eq!(wanted.ingress, IngressProtocol::Udp(ClientIdentity::Declared { address, rtcp }));
    assert_eq!((wanted.media.rtcp, wanted.media.srtp), (RtcpPort::Own, Srtp::Opaque));
    let [voice, video] = &wanted.media.streams[..] else { panic!("two streams") };
    assert_eq!((voice.kind, voice.bitrate_kbps), (StreamKind::Audio, Some(64)));
    assert_eq!(voice.feedback, FeedbackSupport::default());
    assert_eq!((video.kind, video.bitrate_kbps), (StreamKind::Video, Some(1_500)));
    let all = FeedbackSupport {
        pli: true,
        fir: true,
        remb: true,
        tmmbr: true,
        nack: true,
        transport_cc: true,
        ccfb: true,
    };
    assert_eq!(video.feedback, all);
    let rtx = PayloadType { repairs: Some(96), ..PayloadType::new(98, "rtx", 90_000) };
    assert_eq!(video.payload_types[1], rtx);
    assert_eq!(wanted.media.latency.duration(), Duration::from_millis(120));
    let opus = PayloadType::new(111, "opus", 48_000);
    assert_eq!(voice.payload_types, [opus]);
    assert_eq!(wanted.media.extension(&ExtensionUri::TransportWideNumber), Some(3));
    let other = ExtensionUri::Other("urn:example:other".into());
    assert_eq!(wanted.media.extensions[1], HeaderExtension { id: 200, uri: other });
    let layer = |rid: &str, ssrc, rtx_ssrc| OfferedLayer { rid: rid.into(), ssrc, rtx_ssrc };
    assert_eq!(wanted.media.simulcast, [layer("h", None, None), layer("l", Some(7), Some(8))]);
    assert_eq!(wanted.nodes, [("east-a1".into(), "10.0.0.1:5000".parse().unwrap())]);
}

#[test]
fn omitted_fields_have_defaults() {
    let mut offer = offer();
    for key in ["labels", "rtcp", "srtp", "nodes", "latency", "extensions", "simulcast"] {
        offer.as_object_mut().unwrap().remove(key);
    }
    offer["ingress"] = json!({"quic": {}});
    let wanted = parse(&offer).unwrap();
    assert_eq!(wanted.ingress, IngressProtocol::Quic);
    assert_eq!((wanted.media.rtcp, wanted.media.srtp), (RtcpPort::Mux, Srtp::Plain));
    assert_eq!(wanted.media.latency, Latency::default());
    assert!(wanted.labels.is_empty() && wanted.nodes.is_empty());
    assert!(wanted.media.extensions.is_empty() && wanted.media.simulcast.is_empty());
}

#[test]
fn layers_need_a_stream_of_video() {
    let mut offer = offer();
    offer["media"].as_array_mut().unwrap().pop();
    let error = parse(&offer).unwrap_err();
    assert_eq!(error.field.as_deref(), Some("simulcast"));
    assert!(error.message.contains("no stream in `media` is video"), "{}", error.message);
}

#[test]
fn every_identity_parses() {
    let mut offer = offer();
    offer["ingress"] = json!({"udp": {"identity": "declared-ip", "address": "2001:db8::1"}});
    let ip = "2001:db8::1".parse().unwrap();
    assert_eq!(
        parse(&offer).unwrap().ingress,
        IngressProtocol::Udp(ClientIdentity::DeclaredIp(ip))
    );
    offer["ingress"] = json!({"udp": {"identity": "stun"}});
    offer["rtcp"] = json!("mux");
    assert_eq!(parse(&offer).unwrap().ingress, IngressProtocol::Udp(ClientIdentity::Stun));
}

#[test]
fn error_names_field_found_and_expected() {
    let payload_types = "/media/0/payload_types";
    let cases: &[(&str, Value, &str, &[&str])] = &[
        ("/scenario", json!(5), "scenario", &["integer `5`", "expected a string"]),
        ("/scenario", json!(""), "scenario", &["0 bytes", "1 to 256"]),
        ("/room", json!("r".repeat(257)), "room", &["257 bytes", "1 to 256"]),
        ("/room", json!("conf~s7"), "room", &["`conf~s7`", "placed by themselves"]),
        ("/room", json!("open-0-192.0.2.7:5004"), "room", &["opened by a packet"]),
        ("/labels/region", json!(1), "labels.region", &["integer `1`", "string"]),
        ("/labels/region", json!("x".repeat(257)), "labels.region", &["257", "256"]),
        (
            "/labels",
            json!({"max-height": "abc"}),
            "labels.max-height",
            &["`abc`", "pixels", "`720`"],
        ),
        ("/labels", json!({"max-bitrate": "0"}), "labels.max-bitrate", &["`0`", "kbit/s from 1"]),
        ("/labels", json!({"codec": "vp8,"}), "labels.codec", &["`vp8,`", "`vp8,h264`"]),
        ("/ingress", json!({"tcp": {}}), "ingress", &["`tcp`", "`udp`", "`quic`"]),
        ("/ingress", json!({"quic": {"a": 1}}), "ingress.quic.a", &["`a`"]),
        ("/ingress/udp/identity", json!("open"), "ingress.udp.identity", &["`open`", "`stun`"]),
        ("/ingress/udp/address", json!("10.0.0.1"), "ingress.udp.address", &["`10.0.0.1`", "port"]),
        ("/ingress/udp", json!({"identity": "declared"}), "ingress.udp.address", &["missing"]),
        (
            "/ingress/udp",
            json!({"identity": "declared-ip", "address": "10.0.0.1:5"}),
            "ingress.udp.address",
            &["`10.0.0.1:5`", "without a port"],
        ),
        (
            "/ingress/udp",
            json!({"identity": "stun", "address": "10.0.0.1:5"}),
            "ingress.udp.address",
            &["only for", "`declared`"],
        ),
        (
            "/ingress/udp",
            json!({"identity": "declared-ip", "address": "10.0.0.1", "rtcp": "10.0.0.1:5"}),
            "ingress.udp.rtcp",
            &["only for", "`declared`"],
        ),
        ("/ingress/udp/rtcp", json!("x"), "ingress.udp.rtcp", &["`x`", "port"]),
        ("/rtcp", json!("mux"), "ingress.udp.rtcp", &["`mux`", "`own-port`"]),
        ("/rtcp", json!("both"), "rtcp", &["`both`", "`mux`", "`own-port`"]),
        ("/ingress", json!({"quic": {}}), "rtcp", &["`own-port`", "`mux`"]),
        ("/ingress", json!({"udp": {"identity": "stun"}}), "rtcp", &["`own-port`", "`mux`"]),
        ("/srtp", json!("yes"), "srtp", &["`true`, `false` or an object with `crypto`"]),
        ("/media", json!([]), "media", &["empty", "at least one"]),
        ("/media/0/kind", json!("text"), "media[0].kind", &["`text`", "`audio`"]),
        (payload_types, json!([]), "media[0].payload_types", &["empty", "at least one"]),
        (
            "/media/0/payload_types/0/payload_type",
            json!(128),
            "media[0].payload_types[0].payload_type",
            &["128", "0 to 127"],
        ),
        (
            "/media/1/payload_types/0/payload_type",
            json!(111),
            "media[1].payload_types[0].payload_type",
            &["111", "once"],
        ),
        (
            "/media/0/payload_types/0/clock_rate",
            json!(0),
            "media[0].payload_types[0].clock_rate",
            &["found 0", "1 to"],
        ),
        (
            "/media/0/payload_types/0/codec",
            json!(""),
            "media[0].payload_types[0].codec",
            &["0 bytes"],
        ),
        ("/media/1/feedback/0", json!("rpsi"), "media[1].feedback[0]", &["`rpsi`", "`nack`"]),
        ("/extensions/0/id", json!(0), "extensions[0].id", &["found 0", "1 to 14 or 16 to 255"]),
        ("/extensions/1/id", json!(15), "extensions[1].id", &["found 15", "16 to 255"]),
        ("/extensions/0/id", json!(256), "extensions[0].id", &["256"]),
        ("/extensions/1/id", json!(3), "extensions[1].id", &["found 3 a second time", "once"]),
        ("/extensions/0/uri", json!(""), "extensions[0].uri", &["0 bytes", "1 to 256"]),
        ("/extensions/1/uri", json!("urn:a b"), "extensions[1].uri", &["`urn:a b`", "URI"]),
        (
            "/extensions",
            json!(vec![json!({"id": 1, "uri": "urn:x"}); 33]),
            "extensions",
            &["found 33", "at most 32"],
        ),
        ("/simulcast/0/rid", json!(""), "simulcast[0].rid", &["1 to 16 letters"]),
        ("/simulcast/0/rid", json!("a-b"), "simulcast[0].rid", &["`a-b`", "letters and digits"]),
        ("/simulcast/1/rid", json!("h"), "simulcast[1].rid", &["`h` a second time"]),
        ("/simulcast/1/rtx", json!(7), "simulcast[1].rtx", &["found 7 a second time"]),
        (
            "/simulcast",
            json!(["a", "b", "c", "d", "e"].map(|rid| json!({"rid": rid}))),
            "simulcast",
            &["found 5", "at most 4"],
        ),
        ("/latency", json!("60"), "latency", &["`60`", "`60s`"]),
        ("/latency", json!("1001ms"), "latency", &["`1001ms`", "at most `1s`"]),
        ("/media/0/bitrate", json!("64kbps"), "media[0].bitrate", &["`64kbps`", "kbit/s"]),
        ("/media/0/bitrate", json!("0 kbit/s"), "media[0].bitrate", &["`0 kbit/s`"]),
        ("/media/0/bitrate", json!("NaN kbit/s"), "media[0].bitrate", &["`NaN kbit/s`"]),
        ("/nodes/east-a1", json!("10.0.0.1"), "nodes.east-a1", &["`10.0.0.1`", "port"]),
        ("/nodes/east-a1", json!("10.0.0.1:65535"), "nodes.east-a1", &["65535", "next port"]),
        (
            "/ingress/udp",
            json!({"identity": "declared", "address": "127.0.0.1:65535"}),
            "ingress.udp.address",
            &["65535", "next port"],
        ),
        (
            "/ingress/udp/rtcp",
            json!("127.0.0.2:5"),
            "ingress.udp.rtcp",
            &["127.0.0.2", "127.0.0.1"],
        ),
    ];
    for (place, value, field, says) in cases {
        let mut offer = offer();
        *offer.pointer_mut(place).expect(place) = value.clone();
        let error = parse(&offer).unwrap_err();
        assert_eq!(error.field.as_deref(), Some(*field), "{place} = {value}: {error:?}");
        for word in *says {
            assert!(error.message.contains(word), "{word} in: {}", error.message);
        }
    }
}

#[test]
fn apt_names_a_codec_of_the_same_stream() {
    let with_apt = |number, codec: &str, clock_rate, apt| OfferPayloadType {
        apt: Some(apt),
        ..OfferPayloadType::new(number, codec, clock_rate)
    };
    let parsed = |codec: &str, clock_rate: u32, apt: u8| {
        let payload_types = [
            OfferPayloadType::new(111, "opus", 48_000),
            OfferPayloadType::new(0, "PCMU", 8_000),
            with_apt(63, "red", 48_000, 111),
            with_apt(112, "rtx", 48_000, 111),
            with_apt(113, codec, clock_rate, apt),
        ];
        let mut offer = offer();
        offer["media"][0]["payload_types"] = serde_json::to_value(payload_types).unwrap();
        let error = parse(&offer).err()?;
        assert_eq!(error.field.as_deref(), Some("media[0].payload_types[4].apt"));
        Some(error.message)
    };
    for (codec, clock_rate, apt) in [("RED", 8_000, 0), ("rtx", 48_000, 63), ("rtx", 8_000, 0)] {
        assert_eq!(parsed(codec, clock_rate, apt), None, "{codec} {apt}");
    }
    for (codec, clock_rate, apt, right) in [
        // A video, the clock rate, another repair, itself, blocks in a block.
        ("rtx", 48_000, 96, "111, 63"),
        ("rtx", 48_000, 0, "111, 63"),
        ("rtx", 48_000, 112, "111, 63"),
        ("rtx", 90_000, 113, "there is none"),
        ("red", 48_000, 63, "111"),
    ] {
        let message = parsed(codec, clock_rate, apt).unwrap();
        assert!(message.starts_with(&format!("found {apt}, expected")), "{message}");
        assert!(message.ends_with(&format!(": {right}")), "{message}");
    }
    let message = parsed("ulpfec", 48_000, 111).unwrap();
    assert!(message.contains("`rtx` and `red`") && message.contains("`ulpfec`"), "{message}");
}

#[test]
fn addresses_of_no_single_host_are_refused() {
    let places = ["/ingress/udp/address", "/ingress/udp/rtcp", "/nodes/east-a1"];
    let fields = ["ingress.udp.address", "ingress.udp.rtcp", "nodes.east-a1"];
    for (address, reason) in [
        ("0.0.0.0:4000", "unspecified"),
        ("[::ffff:0.0.0.0]:4000", "unspecified"),
        ("239.1.2.3:4000", "multicast"),
        ("[ff02::1]:4000", "multicast"),
        ("255.255.255.255:4000", "broadcast"),
        ("10.0.0.1:0", "port 0"),
    ] {
        for (place, field) in places.iter().zip(fields) {
            let mut offer = offer();
            *offer.pointer_mut(place).expect(place) = json!(address);
            let error = parse(&offer).unwrap_err();
            assert_eq!(error.field.as_deref(), Some(field), "{address}: {error:?}");
            assert!(error.message.contains(reason), "{reason} in: {}", error.message);
            assert!(error.message.contains(address), "{address} in: {}", error.message);
        }
    }
    for ip in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::ffff:224.0.0.1"] {
        let mut offer = offer();
        offer["ingress"] = json!({"udp": {"identity": "declared-ip", "address": ip}});
        offer["rtcp"] = json!("mux");
        let error = parse(&offer).unwrap_err();
        assert_eq!(error.field.as_deref(), Some("ingress.udp.address"), "{ip}: {error:?}");
    }
}

#[test]
fn missing_unknown_or_repeated_field_is_named() {
    let mut missing = offer();
    missing.as_object_mut().unwrap().remove("room");
    assert!(parse(&missing).unwrap_err().message.contains("missing field `room`"));
    let mut unknown = offer();
    unknown["romo"] = json!("room-1");
    let error = parse(&unknown).unwrap_err();
    assert_eq!(error.field.as_deref(), Some("romo"));
    assert!(error.message.contains("unknown field `romo`, expected one of `scenario`"));
    let text = OFFER;
    let twice = text.replacen("\"region\":", "\"a\":", 1);
    let error = super::parse(twice.as_bytes(), None).unwrap_err();
    assert!(error.message.contains("`a` is given twice"), "{}", error.message);
    assert!(super::parse(format!("{text} {{}}").as_bytes(), None).is_err());
    assert!(super::parse(b"", None).is_err());
}

#[test]
fn rtcp_like_payload_types_are_refused() {
    for (number, mux, right) in [
        (63, "mux", true),
        (64, "mux", false),
        (95, "mux", false),
        (97, "mux", true),
        (72, "own-port", false),
        (63, "own-port", true),
    ] {
        let mut offer = offer();
        offer["rtcp"] = json!(mux);
        offer["ingress"] = json!({"udp": {"identity": "declared", "address": "10.0.0.1:5"}});
        offer["media"][0]["payload_types"][0]["payload_type"] = json!(number);
        assert_eq!(parse(&offer).is_ok(), right, "{number} with {mux}");
    }
}

#[test]
fn list_lengths_are_bounded() {
    let numbered = |count: usize| -> Value {
        (0..count)
            .map(|at| (format!("k{at}"), json!("10.0.0.1:5")))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    for (key, most) in [("labels", LABELS_MAX), ("nodes", NODES_MAX)] {
        let mut offer = offer();
        offer[key] = numbered(most);
        assert!(parse(&offer).is_ok());
        offer[key] = numbered(most + 1);
        assert_eq!(parse(&offer).unwrap_err().field.as_deref(), Some(key));
    }
}

const KEY: &str = "inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";

#[test]
fn first_supported_key_is_taken_and_answered() {
    let mut offer = offer();
    offer["srtp"] = json!({"crypto": [
        "1 F8_128_HMAC_SHA1_80 inline:MTIz",
        format!("2 AES_CM_128_HMAC_SHA1_32 {KEY}"),
        format!("3 AES_CM_128_HMAC_SHA1_80 {KEY}"),
    ]});
    let wanted = parse(&offer).unwrap();
    assert_eq!(wanted.media.srtp, Srtp::Terminated);
    let keys_of = |wanted: &OfferedSession| wanted.srtp.as_ref().unwrap().keys().unwrap().clone();
    let keys = keys_of(&wanted);
    assert_eq!(keys.tag, Some(2));
    assert_ne!(keys.client, keys.gateway);
    assert_ne!(keys.gateway, keys_of(&parse(&offer).unwrap()).gateway, "a key of each session");
    assert!(!format!("{wanted:?}").contains("WVNf"));
}

#[test]
fn unusable_keys_are_refused_without_quoting_them() {
    let refused = |ingress: Value, crypto: Vec<String>| {
        let mut offer = offer();
        (offer["ingress"], offer["rtcp"]) = (ingress, json!("mux"));
        offer["srtp"] = json!({"crypto": crypto});
        let error = parse(&offer).unwrap_err();
        assert!(!error.message.contains("WVNf"), "{error:?}");
        (error.field.unwrap(), error.message)
    };
    let stun = || json!({"udp": {"identity": "stun"}});
    let value = format!("1 AES_CM_128_HMAC_SHA1_80 {KEY}");
    let (field, error) = refused(json!({"quic": {}}), vec![value.clone()]);
    assert!(field == "srtp" && error.contains("QUIC encrypts"), "{field}: {error}");
    for (crypto, says) in [
        (vec![], "TAG SUITE inline:KEY"),
        (vec![value.clone(); CRYPTO_MAX + 1], "at most 16"),
        (vec![format!("{value}|1:4")], "MKI"),
        (vec![value.replace("CM_128", "CM_512")], "AEAD_AES_128_GCM"),
        (vec![value[..value.len() - 4].to_owned()], "16 and a salt of 14 bytes"),
    ] {
        let (field, error) = refused(stun(), crypto);
        assert!(field == "srtp.crypto" && error.contains(says), "{field}: {error}");
    }
}

#[test]
fn keys_are_taken_only_where_no_other_host_reads_them() {
    assert!(check_keys(true).is_ok());
    let error = check_keys(false).unwrap_err().message;
    assert!(error.contains("from another host"), "{error}");
}

#[test]
fn refused_room_names_the_gateway_that_has_it() {
    let api = Some(([10, 0, 0, 7], 7_400).into());
    let owner = RoomOwner { group: "east".to_owned(), gateway: "east-1".into(), api };
    let body = ApiError::room_elsewhere("room", owner).body();
    let error = &serde_json::from_slice::<Value>(&body).unwrap()["error"];
    let fields = ["code", "field", "group", "gateway", "api"].map(|field| &error[field]);
    assert_eq!(fields, ["conflict", "room", "east", "east-1", "10.0.0.7:7400"]);
}

#[test]
fn fuzz_offer() {
    Corpus::of("offer").with(OFFER).check(|body| {
        let Ok(ParsedOffer { wanted, .. }) = super::parse(body, None) else { return };
        assert!((1..=NAME_MAX).contains(&wanted.room.len()));
        assert!(wanted.labels.len() <= LABELS_MAX && wanted.nodes.len() <= NODES_MAX);
        assert!(wanted.media.streams.len() <= STREAMS_MAX);
    });
}

fn parse(offer: &Value) -> Result<OfferedSession, ApiError> {
    super::parse(offer.to_string().as_bytes(), None).map(|parsed| parsed.wanted)
}

fn offer() -> Value {
    serde_json::from_str(OFFER).unwrap()
}

const OFFER: &str = r#"{
    "scenario": "call", "room": "room-1", "labels": {"region": "east", "a": "b"},
    "ingress": {"udp": {"identity": "declared", "address": "127.0.0.1:40000", "rtcp": "127.0.0.1:40001"}},
    "media": [
        {"kind": "audio", "bitrate": "64 kbit/s",
         "payload_types": [{"payload_type": 111, "codec": "opus", "clock_rate": 48000}]},
        {"kind": "video", "bitrate": "1.5 Mbit/s",
         "feedback": ["pli", "fir", "remb", "tmmbr", "nack", "transport-cc", "ccfb"],
         "payload_types": [{"payload_type": 96, "codec": "VP8", "clock_rate": 90000},
                           {"payload_type": 98, "codec": "rtx", "clock_rate": 90000, "apt": 96}]}
    ],
    "extensions": [
        {"id": 3, "uri": "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"},
        {"id": 200, "uri": "urn:example:other"}
    ],
    "simulcast": [{"rid": "h"}, {"rid": "l", "ssrc": 7, "rtx": 8}],
    "latency": "120ms",
    "rtcp": "own-port", "srtp": true, "nodes": {"east-a1": "10.0.0.1:5000"}
}"#;
