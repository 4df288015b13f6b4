use evenkeel_media::continuity::AnnouncedSender;
use evenkeel_media::rtp;
use evenkeel_model::{Latency, RepairKind};
use evenkeel_sdp::EXTENSION_URIS;
use serde_json::{Value, json};

use super::super::{ParsedOffer, parse};
use super::*;

const CHROMIUM: &str = include_str!("../../../../../tests/fuzz/corpus/sdp_offer/chromium");
const SIMULCAST: &str =
    include_str!("../../../../../tests/fuzz/corpus/sdp_offer/chromium-simulcast");
const FIREFOX: &str = include_str!("../../../../../tests/fuzz/corpus/sdp_offer/firefox");
const VIEWER: &str = include_str!("../../../../../tests/fuzz/corpus/sdp_offer/whep-recvonly");
const PHONE: &str = include_str!("../../../../../tests/fuzz/corpus/sdp_offer/phone-sdes");

fn offer(sdp: &str) -> Value {
    json!({"scenario": "call", "room": "room-1", "webrtc": {"offer": sdp}})
}

fn parsed(offer: &Value) -> Result<ParsedOffer, ApiError> {
    parse(offer.to_string().as_bytes(), None)
}

#[track_caller]
fn refused(offer: &Value) -> (String, String) {
    let error = parsed(offer).unwrap_err();
    (error.field.unwrap_or_default(), error.message)
}

#[test]
fn browser_is_an_ice_client_with_a_certificate() {
    let ParsedOffer { wanted, sdp, .. } = parsed(&offer(CHROMIUM)).unwrap();
    assert_eq!(wanted.ingress, IngressProtocol::Udp(ClientIdentity::Stun));
    assert_eq!((wanted.media.rtcp, wanted.media.srtp), (RtcpPort::Mux, Srtp::Terminated));
    let Some(SrtpKeying::Dtls { fingerprints, keys: None, answered }) = &wanted.srtp else {
        panic!("{:?}", wanted.srtp)
    };
    let announced = Arc::clone(&answered.announced);
    let expected = AnsweredMedia {
        ufrag: "Zp4k".into(),
        password: ClientPassword("Ux6zT0kq5mJ9vB3nC8dLw2Rs".into()),
        may_send: true,
        may_receive: true,
        sends: vec![
            ClientStream { kind: StreamKind::Audio, ssrcs: vec![1_508_235_637] },
            ClientStream { kind: StreamKind::Video, ssrcs: vec![2_985_473_190] },
        ],
        numbers: None,
        announced,
    };
    assert_eq!(**answered, expected);
    assert_eq!(fingerprints.len(), 1);
    assert!(CHROMIUM.contains(&format!("a=fingerprint:{}", fingerprints[0])));
    let kinds: Vec<_> = wanted.media.streams.iter().map(|stream| stream.kind).collect();
    assert_eq!(kinds, [StreamKind::Audio, StreamKind::Video]);
    let (_, opus) = wanted.media.payload_type(111).unwrap();
    assert_eq!((&*opus.codec, opus.clock_rate), ("opus", 48_000));
    let video = &wanted.media.streams[1];
    let repairs = video.payload_types.iter().filter_map(PayloadType::repair);
    assert!(
        repairs.clone().count() > 0
            && repairs.clone().all(|kind| kind == RepairKind::Retransmission)
    );
    assert!(video.feedback.pli && video.feedback.remb && !wanted.media.streams[0].feedback.pli);
    assert!(video.feedback.nack && !wanted.media.streams[0].feedback.nack);
    assert_eq!(wanted.media.latency, Latency::default());

    let ice = IceAnswer {
        ufrag: "gate".into(),
        password: "a22characterpassword22".into(),
        certificate_sha256: [0xab; 32],
        announced: None,
    };
    let addresses = ["192.0.2.1:5000", "[2001:db8::1]:5000"].map(|text| text.parse().unwrap());
    let answer = sdp.unwrap().answer(SessionId(17), &addresses, &ice);
    for line in [
        "o=- 17 2 IN IP4 192.0.2.1\r\n",
        "a=ice-lite\r\n",
        "a=ice-ufrag:gate\r\n",
        "a=ice-pwd:a22characterpassword22\r\n",
        &format!("a=fingerprint:sha-256 {}\r\n", ["AB"; 32].join(":")),
        "a=setup:passive\r\n",
        " 192.0.2.1 5000 typ host",
        " 2001:db8::1 5000 typ host",
    ] {
        assert!(answer.as_str().contains(line), "{line:?} is not in {}", answer.as_str());
    }
}

#[test]
fn voice_is_repaired_by_nack_if_offered() {
    let feedback = "a=rtcp-fb:111 transport-cc";
    let munged = CHROMIUM.replacen(feedback, &format!("{feedback}\r\na=rtcp-fb:111 nack"), 1);
    let ParsedOffer { wanted, sdp, .. } = parsed(&offer(&munged)).unwrap();
    assert!(wanted.media.streams[0].feedback.nack);
    let ice = IceAnswer {
        ufrag: "gate".into(),
        password: "a22characterpassword22".into(),
        certificate_sha256: [0; 32],
        announced: None,
    };
    let answer = sdp.unwrap().answer(SessionId(1), &[([192, 0, 2, 1], 5000).into()], &ice);
    let answered = answer.as_str().lines().filter(|line| line.starts_with("a=rtcp-fb:111 "));
    assert_eq!(answered.collect::<Vec<_>>(), ["a=rtcp-fb:111 nack"]);
}

#[test]
fn packets_of_a_kind_are_numbered_on_all_m_lines_or_none() {
    let takes = |sdp: &str| {
        let media = parsed(&offer(sdp)).unwrap().wanted.media;
        let of_kinds = media.streams.iter().map(|stream| stream.feedback.transport_cc);
        let id = media.extension(&ExtensionUri::TransportWideNumber);
        (of_kinds.collect::<Vec<_>>(), id)
    };
    assert_eq!(takes(VIEWER), (vec![true, true], Some(3)));
    assert_eq!(takes(CHROMIUM), (vec![false, false], None));
    // The id is that of the room.
    let limited = FIREFOX.replace("a=extmap:7 ", "a=extmap:7/recvonly ");
    assert_eq!(takes(&limited), (vec![false, true], Some(3)));
    let camera = VIEWER[VIEWER.find("m=video").unwrap()..].replace("a=mid:1", "a=mid:2");
    let both = VIEWER.replace("BUNDLE 0 1", "BUNDLE 0 1 2");
    let both = both + &camera.replace("a=recvonly", "a=sendrecv");
    assert_eq!(takes(&both), (vec![true, false], Some(3)));
}

#[test]
fn extensions_have_the_ids_of_rooms() {
    let media = parsed(&offer(FIREFOX)).unwrap().wanted.media;
    let ids: Vec<u8> = media.extensions.iter().map(|extension| extension.id).collect();
    // Firefox has the time of sending at 4, the offset at 5, and the playout delay at 6.
    assert_eq!(ids, [1, 2, 14, 5]);
    assert_eq!(media.extension(&ExtensionUri::AbsoluteSendTime), Some(2));
}

#[test]
fn layers_are_named_by_rids_or_sources() {
    let layers = |sdp: &str| parsed(&offer(sdp)).unwrap().wanted.media.simulcast.clone();
    let layer = |rid: &str, ssrc, rtx_ssrc| OfferedLayer { rid: rid.into(), ssrc, rtx_ssrc };
    assert_eq!(layers(SIMULCAST), ["h", "m", "l"].map(|rid| layer(rid, None, None)));
    assert!(layers(CHROMIUM).is_empty());
    let (media, rtx) = (2_985_473_190, 3_342_768_471);
    let group = format!("a=ssrc-group:SIM {media} 5\r\na=ssrc-group:FID");
    let expected = [layer("0", Some(media), Some(rtx)), layer("1", Some(5), None)];
    assert_eq!(layers(&CHROMIUM.replace("a=ssrc-group:FID", &group)), expected);
    let of_voice = SIMULCAST.replace("a=mid:0\r\n", "a=mid:0\r\na=ssrc-group:SIM 1 2\r\n");
    assert_ne!(of_voice, SIMULCAST);
    assert_eq!(layers(&of_voice), layers(SIMULCAST), "those of video");
    // Names of two m-lines may be equal.
    let video = SIMULCAST[SIMULCAST.find("m=video").unwrap()..].replace("a=mid:1", "a=mid:2");
    let two = SIMULCAST.replace("BUNDLE 0 1", "BUNDLE 0 1 2") + &video;
    assert!(layers(&two).is_empty());
}

#[test]
fn labels_of_layers_have_ids_of_rooms() {
    let id = |wanted: ExtensionUri| {
        let mut known = EXTENSION_URIS.into_iter();
        known.find(|(_, uri)| *uri == wanted.as_str()).map(|(id, _)| id)
    };
    let [mid, rid, repaired] =
        [ExtensionUri::Mid, ExtensionUri::StreamId, ExtensionUri::RepairedStreamId];
    assert_eq!([id(rid.clone()), id(repaired.clone())], [rid.room_id(), repaired.room_id()]);
    let label = mid.room_id().unwrap();
    assert!(id(mid).is_none() && EXTENSION_URIS.iter().all(|(id, _)| *id != label), "free");
}

#[test]
fn repairs_name_payload_types_of_rooms() {
    let repairs = |sdp: &str, number: u8| {
        let wanted = parsed(&offer(sdp)).unwrap().wanted;
        let (_, payload_type) = wanted.media.payload_type(number).unwrap();
        payload_type.repairs
    };
    assert_eq!(
        [63, 97, 111, 96].map(|number| repairs(CHROMIUM, number)),
        [Some(111), Some(96), None, None]
    );
    // Firefox's retransmissions, 124, name 120, its VP8.
    assert_eq!(repairs(FIREFOX, 97), Some(96));
}

#[test]
fn offer_says_the_latency_of_a_browser() {
    let mut offer = offer(CHROMIUM);
    offer["latency"] = "200ms".into();
    assert_eq!(parsed(&offer).unwrap().wanted.media.latency, Latency(200));
}

#[test]
fn firefox_has_the_payload_types_of_rooms() {
    let ParsedOffer { wanted, sdp, .. } = parsed(&offer(FIREFOX)).unwrap();
    let vp8 = wanted.media.payload_type(96).unwrap();
    assert_eq!((vp8.0, &*vp8.1.codec), (StreamKind::Video, "VP8"));
    assert_eq!(wanted.media.payload_type(120), None);
    let Some(SrtpKeying::Dtls { answered, .. }) = &wanted.srtp else { panic!("{wanted:?}") };
    let numbers = answered.numbers.as_ref().expect("its numbers differ");
    let mut packet = Vec::new();
    let fields =
        rtp::Fields { payload_type: 120, marker: true, sequence: 1, timestamp: 2, ssrc: 3 };
    rtp::write(&fields, b"frame", &mut packet);
    numbers.map_to_room(&mut packet).unwrap();
    assert_eq!(rtp::RtpHeader::parse(&packet).unwrap().payload_type, 96);
    let ice = IceAnswer {
        ufrag: "gate".into(),
        password: "a22characterpassword22".into(),
        certificate_sha256: [0; 32],
        announced: None,
    };
    let answer = sdp.unwrap().answer(SessionId(1), &[([192, 0, 2, 1], 5000).into()], &ice);
    assert!(answer.as_str().contains("a=rtpmap:120 VP8/90000\r\n"), "its own numbers");
}

#[test]
fn m_lines_of_a_kind_are_one_stream() {
    let [from, to] = ["m=video", "m=application"].map(|at| CHROMIUM.find(at).unwrap());
    let second = CHROMIUM[from..to].replace("a=mid:1", "a=mid:3");
    let two = (CHROMIUM.to_owned() + &second).replace("BUNDLE 0 1 2", "BUNDLE 0 1 2 3");
    let one = parsed(&offer(CHROMIUM)).unwrap().wanted;
    let ParsedOffer { wanted, sdp, .. } = parsed(&offer(&two)).unwrap();
    assert_eq!(sdp.unwrap().negotiation.accepted().count(), 3);
    assert_eq!(wanted.media, one.media);
}

/// Returns the SSRC, the SSRC of retransmissions and the id of the streams that an answer announces.
fn announced(
    sdp: &WebrtcOffer,
    announced: Option<AnnouncedStreams>,
) -> Vec<(u32, Option<u32>, String)> {
    let ice = IceAnswer {
        ufrag: "gate".into(),
        password: "a22characterpassword22".into(),
        certificate_sha256: [0; 32],
        announced: announced.map(Arc::new),
    };
    let answer = sdp.answer(SessionId(17), &[([192, 0, 2, 1], 5000).into()], &ice);
    let sections = answer.as_str().split("m=").skip(1).filter_map(|section| {
        let value = |name: &str| section.split("\r\n").find_map(|line| line.strip_prefix(name));
        let ssrc = value("a=ssrc:")?.split(' ').next()?.parse().ok()?;
        let group = value("a=ssrc-group:FID ").and_then(|group| group.split(' ').nth(1));
        let id = value("a=msid:")?.split(' ').next()?.to_owned();
        Some((ssrc, group.map(|ssrc| ssrc.parse().unwrap()), id))
    });
    sections.collect()
}

#[test]
fn receiving_m_lines_have_announced_streams() {
    let ParsedOffer { wanted, sdp, .. } = parsed(&offer(CHROMIUM)).unwrap();
    let sdp = sdp.unwrap();
    let Some(SrtpKeying::Dtls { answered, .. }) = &wanted.srtp else { panic!("{wanted:?}") };
    let (streams, seed) = (&answered.announced, answered.announced.seed);
    assert_eq!((streams.ssrc(1), streams.retransmission_ssrc(1)), (seed + 2, seed + 3));
    let [audio, video] = &announced(&sdp, None)[..] else { panic!("two m-lines") };
    assert_eq!(*audio, (seed, None, "s17".into()));
    assert_eq!(*video, (seed + 2, Some(seed + 3), "s17".into()), "played in sync with the voice");
    let first = AnnouncedStreams { seed: 7, in_sync: vec![0], ..(**streams).clone() };
    let later = announced(&sdp, Some(first));
    assert_eq!(later, [(7, None, "s17".into()), (9, Some(10), "s17-1".into())]);
    assert!(streams.sections[1].payload_types.contains(&96));
    assert!(!streams.sections[1].payload_types.contains(&97), "of retransmissions");
    let silent = CHROMIUM.replace("a=sendrecv", "a=sendonly");
    assert_eq!(announced(&parsed(&offer(&silent)).unwrap().sdp.unwrap(), None), []);
}

#[test]
fn answer_names_the_parity_of_the_gateway() {
    let format = "a=rtpmap:119 flexfec-03/90000\r\na=rtpmap:118 ";
    let with_parity = CHROMIUM
        .replace("116 117 118\r\n", "116 117 118 119\r\n")
        .replace("a=rtpmap:118 ", format)
        .replace("a=ssrc-group:FID ", "a=ssrc-group:FEC-FR 2985473190 1177\r\na=ssrc-group:FID ")
        .replace("a=ssrc:3342768471 ", "a=ssrc:1177 cname:x\r\na=ssrc:3342768471 ");
    let ParsedOffer { wanted, sdp, .. } = parsed(&offer(&with_parity)).unwrap();
    let (kind, parity) = wanted.media.payload_type(43).unwrap();
    assert_eq!(
        (kind, &*parity.codec, parity.clock_rate),
        (StreamKind::Video, "flexfec-03", 90_000)
    );
    let Some(SrtpKeying::Dtls { answered, .. }) = &wanted.srtp else { panic!("{wanted:?}") };
    assert_eq!(answered.sends[1].ssrcs, [2_985_473_190], "without that of its parity");
    let streams = &answered.announced;
    assert!(!streams.sections[1].payload_types.contains(&43), "parity has no m-line");
    let ice = IceAnswer {
        ufrag: "gate".into(),
        password: "a22characterpassword22".into(),
        certificate_sha256: [0; 32],
        announced: None,
    };
    let answer = sdp.unwrap().answer(SessionId(1), &[([192, 0, 2, 1], 5000).into()], &ice);
    let groups = answer.as_str().lines().filter(|line| line.starts_with("a=ssrc-group:FEC-FR"));
    let expected = format!("a=ssrc-group:FEC-FR {} {}", streams.ssrc(1), streams.parity_ssrc(1));
    assert_eq!(groups.collect::<Vec<_>>(), [expected]);
    assert!(answer.as_str().contains(&format!("a=ssrc:{} cname:s1\r\n", streams.parity_ssrc(1))));
}

#[test]
fn stream_has_the_name_of_its_sender() {
    let sdp = parsed(&offer(CHROMIUM)).unwrap().sdp.unwrap();
    let mut streams = (*sdp.announced).clone();
    let sender = AnnouncedSender { stream: "s4.anna".into(), ssrcs: Vec::new() };
    streams.sections[1].sender = Some(sender.clone());
    let ids = |streams: &AnnouncedStreams| {
        let announced = announced(&sdp, Some(streams.clone()));
        announced.into_iter().map(|(.., id)| id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&streams), ["s17", "s4.anna"]);
    streams.sections[0].sender = Some(sender);
    assert_eq!(ids(&streams), ["s4.anna"; 2], "voice and pictures are one stream");
    let ice = IceAnswer {
        ufrag: "gate".into(),
        password: "a22characterpassword22".into(),
        certificate_sha256: [0; 32],
        announced: Some(Arc::new(streams)),
    };
    let answer = sdp.answer(SessionId(17), &[([192, 0, 2, 1], 5000).into()], &ice);
    let cnames = answer.as_str().split("cname:").skip(1).map(|rest| rest.lines().next());
    assert!(cnames.clone().count() == 3 && cnames.clone().all(|name| name == Some("s4.anna")));
}

#[test]
fn several_pictures_are_not_in_sync() {
    let [from, to] = ["m=video", "m=application"].map(|at| CHROMIUM.find(at).unwrap());
    let second = CHROMIUM[from..to].replace("a=mid:1", "a=mid:3");
    let two = (CHROMIUM.to_owned() + &second).replace("BUNDLE 0 1 2", "BUNDLE 0 1 2 3");
    let announced = announced(&parsed(&offer(&two)).unwrap().sdp.unwrap(), None);
    let ids: Vec<&str> = announced.iter().map(|(.., id)| id.as_str()).collect();
    assert_eq!(ids, ["s17-0", "s17-1", "s17-3"]);
}

#[test]
fn wrong_offers_are_refused() {
    let (field, message) = refused(&offer("v=0\r\nnonsense"));
    assert!(field == "webrtc.offer" && !message.is_empty(), "{field}: {message}");
    let (field, message) = refused(&offer(PHONE));
    assert!(
        field == "webrtc.offer" && message.contains("no ICE credentials"),
        "{field}: {message}"
    );
    let without_setup = CHROMIUM.replace("a=fingerprint", "a=x-fingerprint");
    let (field, message) = refused(&offer(&without_setup));
    assert!(field == "webrtc.offer" && message.contains("fingerprint"), "{field}: {message}");
    for (name, value) in [
        ("ingress", json!({"quic": {}})),
        ("media", json!([])),
        ("extensions", json!([{"id": 1, "uri": "urn:x"}])),
        ("simulcast", json!([{"rid": "h"}])),
        ("rtcp", json!("mux")),
        ("srtp", json!(true)),
    ] {
        let mut offer = offer(CHROMIUM);
        offer[name] = value;
        let (field, message) = refused(&offer);
        assert!(field == name && message.contains("`webrtc`"), "{field}: {message}");
    }
    let neither = json!({"scenario": "call", "room": "room-1"});
    let (field, message) = refused(&neither);
    assert!(field == "ingress" && message.contains("`webrtc`"), "{field}: {message}");
}
