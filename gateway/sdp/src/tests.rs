//! Offers for tests, and the fuzz targets.

use std::net::SocketAddr;
use std::ops::Deref;

use evenkeel_fuzz::Corpus;

use crate::answer::{LocalTransport, SecretText, SentStream};
use crate::ice::IceCredentials;
use crate::negotiation::{AnswerPolicy, Negotiation};
use crate::section::OfferedSection;
use crate::{Rejection, SdpError, SdpFragment, SdpOffer};

macro_rules! corpus {
    ($path:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz/corpus/", $path))
    };
}

/// Written after offers of Chromium: camera, microphone, data channel.
pub(crate) const CHROMIUM: &str = corpus!("sdp_offer/chromium");

/// Written after offers of Chromium: `addTransceiver` with three `sendEncodings`.
pub(crate) const SIMULCAST: &str = corpus!("sdp_offer/chromium-simulcast");

/// Written after offers of Chromium that receive only, as WHEP players make them.
pub(crate) const RECEIVER: &str = corpus!("sdp_offer/whep-recvonly");

/// Written after offers of Firefox, candidates gathered.
pub(crate) const FIREFOX: &str = corpus!("sdp_offer/firefox");

/// Written after offers of GStreamer's `webrtcbin` with `bundle-policy=max-bundle`: two videos of different payload types.
pub(crate) const GSTREAMER: &str = corpus!("sdp_offer/gstreamer");

/// Captured from aiortc 1.16 by `createOffer`: audio, video, data channel.
pub(crate) const AIORTC: &str = corpus!("sdp_offer/aiortc");

/// Captured from libwebrtc M152 by `createOffer`: audio, video, data channel.
pub(crate) const LIBWEBRTC: &str = corpus!("sdp_offer/libwebrtc");

/// Written after offers of SIP phones.
pub(crate) const PHONE: &str = corpus!("sdp_offer/phone-sdes");

/// Written: the fragments of RFC 8840, section 9, and RFC 9725, section 4.3.2, changed.
pub(crate) const FRAGMENTS: [&str; 2] =
    [corpus!("trickle_fragment/rfc-8840"), corpus!("trickle_fragment/whip")];

pub(crate) const OFFERS: [&str; 8] =
    [CHROMIUM, SIMULCAST, RECEIVER, FIREFOX, GSTREAMER, AIORTC, LIBWEBRTC, PHONE];

/// An offer of Chromium with the field trials `WebRTC-FlexFEC-03` and `WebRTC-FlexFEC-03-Advertised`.
pub(crate) fn chromium_with_parity() -> String {
    let format = "a=rtpmap:119 flexfec-03/90000\r\na=fmtp:119 repair-window=10000000\r\n";
    let source = "a=ssrc-group:FEC-FR 2985473190 1177\r\na=ssrc:1177 cname:Q7rW+0vYpX3nLk9t\r\n";
    CHROMIUM
        .replace("116 117 118\r\n", "116 117 118 119\r\n")
        .replace("a=rtpmap:118 ", &format!("{format}a=rtpmap:118 "))
        .replace("a=ssrc-group:FID ", &format!("{source}a=ssrc-group:FID "))
}

/// The gateway's side of a session.
pub(crate) struct Gateway {
    pub(crate) policy: AnswerPolicy,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) rtcp_port: Option<u16>,
    pub(crate) ice: IceCredentials,
    pub(crate) sources: Vec<SentStream<'static>>,
}

/// A negotiation and the text of its answer.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) negotiation: Negotiation,
    pub(crate) text: SecretText,
}

impl Deref for Answered {
    type Target = Negotiation;

    fn deref(&self) -> &Negotiation {
        &self.negotiation
    }
}

impl Answered {
    pub(crate) fn text(&self) -> &str {
        self.text.as_str()
    }
}

/// Allows both directions, and RTCP at a port of its own.
pub(crate) const POLICY: AnswerPolicy = AnswerPolicy {
    sends: true,
    receives: true,
    has_rtcp_port: true,
    random: |bytes| bytes.fill(7),
};

impl Gateway {
    pub(crate) fn new() -> Gateway {
        let addresses = ["192.0.2.1:5000", "[2001:db8::1]:5000"];
        Gateway {
            policy: POLICY,
            addresses: addresses.map(|address| address.parse().unwrap()).into(),
            rtcp_port: Some(5_001),
            ice: IceCredentials::new("gate", "a22characterpassword22").unwrap(),
            sources: Vec::new(),
        }
    }

    pub(crate) fn local(&self) -> LocalTransport<'_> {
        LocalTransport {
            session_id: 4_711,
            addresses: &self.addresses,
            rtcp_port: self.rtcp_port,
            ice: &self.ice,
            fingerprint: &[0xab; 32],
            sources: &self.sources,
        }
    }

    pub(crate) fn answer(&self, offer: &str) -> Result<Answered, SdpError> {
        self.answer_parsed(&parse(offer)?)
    }

    pub(crate) fn answer_parsed(&self, offer: &SdpOffer) -> Result<Answered, SdpError> {
        let negotiation = offer.negotiate(&self.policy)?;
        let text = offer.answer(&negotiation, &self.local());
        Ok(Answered { negotiation, text })
    }
}

pub(crate) fn parse(offer: &str) -> Result<SdpOffer, SdpError> {
    SdpOffer::parse(offer.as_bytes())
}

#[track_caller]
pub(crate) fn answer(offer: &str) -> Answered {
    Gateway::new().answer(offer).unwrap_or_else(|error| panic!("{error}"))
}

/// The lines of an answer that begin so.
pub(crate) fn lines<'a>(negotiation: &'a Answered, head: &str) -> Vec<&'a str> {
    negotiation.text().lines().filter(|line| line.starts_with(head)).collect()
}

/// Asserts that the answer is a description that the parser reads, and that it agrees with the tables.
#[track_caller]
pub(crate) fn assert_consistent(offer: &SdpOffer, negotiation: &Answered) {
    let answer = match parse(negotiation.text()) {
        // The answer to an offer of nearly the limit may be above it.
        Err(SdpError::TooLong { .. }) => return,
        answer => answer.unwrap_or_else(|error| panic!("{error}")),
    };
    assert_eq!(answer.sections.len(), offer.sections.len());
    assert_eq!(negotiation.sections.len(), offer.sections.len());
    let sections = answer.sections.iter().zip(&offer.sections).zip(&negotiation.sections);
    for ((answered, offered), negotiated) in sections {
        assert_eq!((&answered.mid, &answered.media), (&offered.mid, &offered.media));
        assert_eq!(answered.profile, offered.profile);
        let Ok(media) = &negotiated.outcome else {
            assert_eq!(answered.port, 0);
            continue;
        };
        assert_ne!(answered.port, 0);
        assert_eq!(answered.direction, media.direction);
        let numbers = |section: &OfferedSection| {
            section.formats.iter().map(|format| (format.number, format.format)).collect::<Vec<_>>()
        };
        let offered_numbers = numbers(offered);
        for (number, format) in numbers(answered) {
            assert!(offered_numbers.contains(&(number, format)), "{number}");
        }
        assert_eq!(answered.formats.len(), media.formats.len());
        for format in &media.formats {
            assert_eq!(format.format.room_number(), Some(format.room));
            assert_eq!(media.payload_types.room_number(format.number), Some(format.room));
            assert_eq!(media.payload_types.client_number(format.room), Some(format.number));
            assert_eq!(negotiation.payload_types.room_number(format.number), Some(format.room));
        }
        let ids = |section: &OfferedSection| {
            section.extensions.iter().map(|e| (e.id, e.room)).collect::<Vec<_>>()
        };
        let accepted: Vec<_> = media.extensions.iter().map(|e| (e.id, e.room)).collect();
        assert_eq!(ids(answered), accepted);
        for (id, room) in accepted {
            assert_eq!(negotiation.extensions.room_number(id), Some(room));
        }
    }
}

#[test]
fn offers_of_clients_are_answered() {
    for offer in OFFERS {
        let offer = parse(offer).unwrap();
        let negotiation = Gateway::new().answer_parsed(&offer).unwrap();
        assert_consistent(&offer, &negotiation);
        assert!(negotiation.text().len() < 8_000, "{}", negotiation.text());
    }
}

#[test]
fn libwebrtc_numbers_are_those_of_rooms_or_mapped() {
    let map = answer(LIBWEBRTC).negotiation.payload_types;
    for number in [111, 63, 0, 8, 110, 126, 96, 97, 98, 99, 100, 101] {
        assert_eq!(map.room_number(number), Some(number));
    }
    // AV1, which Chromium has at 45.
    assert_eq!((map.room_number(39), map.client_number(45)), (Some(45), Some(39)));
}

#[test]
fn secrets_are_absent_from_debug() {
    let gateway = Gateway::new();
    for text in OFFERS {
        let offer = parse(text).unwrap();
        let negotiation = gateway.answer_parsed(&offer).unwrap();
        let debug = format!("{offer:?} {negotiation:?} {:?}", gateway.local());
        let is_secret = |line: &&str| line.contains("inline:") || line.contains("ice-pwd:");
        let secrets: Vec<&str> =
            text.lines().chain(negotiation.text().lines()).filter(is_secret).collect();
        assert!(secrets.len() >= 2, "{secrets:?}");
        for line in secrets {
            let (_, secret) = line.rsplit_once(':').unwrap();
            let secret = if line.contains("inline:") {
                line.split_once("inline:").unwrap().1
            } else {
                secret
            };
            let secret = secret.split(['|', ' ']).next().unwrap();
            assert!(secret.len() >= 22 && !debug.contains(secret), "{line}");
        }
        assert!(!debug.contains("[7, 7, 7") && !debug.contains("0, 1, 2, 3, 4"), "{debug}");
    }
}

#[test]
fn misplaced_secrets_are_absent_from_errors() {
    const KEY: &str = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";
    let line = format!("a=crypto:3 AES_CM_128_HMAC_SHA1_80 inline:{KEY}");
    assert!(PHONE.contains(&line));
    let phone = PHONE.replace("a=ptime:20", "a=ptime:20\r\nk=base64:YS1rZXktb2Ytb2xkLXBob25lcw");
    for (from, to) in [
        // A line break is missing before the key, or stands in it, or the name is wrong.
        ("v=0\r\n", format!("v=0 {line}\r\n")),
        ("a=rtcp-mux", format!("a=rtcp-mux {line}")),
        ("a=rtpmap:96 opus/48000/2", format!("a=rtpmap:96 {line}/48000/2")),
        ("a=fmtp:96 ", format!("a=fmtp:96 {line};")),
        ("RTP/SAVP", format!("RTP/SAVP {line}")),
        ("RTP/SAVP", format!("RTP/SAVP INLINE:{KEY}")),
        ("a=crypto:3 ", String::from("a=crypto 3 ")),
        ("a=crypto:3 ", String::from("crypto:3 ")),
        ("a=crypto:3 ", String::from("a=Crypto:\r3 ")),
        ("inline:d0Rm", String::from("inline:\r\nd0Rm")),
        ("inline:d0Rm", String::from("inline:\0d0Rm")),
    ] {
        let changed = phone.replacen(from, &to, 1);
        assert_ne!(changed, phone, "{from}");
        let offer = parse(&changed);
        let answer = Gateway::new().answer(&changed);
        let text = answer.as_ref().map_or_else(SdpError::to_string, |_| String::new());
        let shown = format!("{offer:?} {answer:?} {text}");
        for secret in [KEY, "d0RmdmcmVCsp", "YS1rZXk"] {
            assert!(!shown.contains(secret), "{to:?}: {shown}");
        }
    }
    let text = CHROMIUM.replacen("\r\na=ice-pwd", " a=ice-pwd", 1);
    let line = 1 + CHROMIUM.lines().position(|line| line.starts_with("a=ice-ufrag")).unwrap();
    assert_eq!(
        parse(&text).unwrap_err().to_string(),
        format!(
            "the SDP violates the grammar of RFC 8866: line {line} contains a=ice-pwd, expected a line of its own"
        )
    );
}

#[test]
fn fuzz_sdp_offer() {
    let gateway = Gateway::new();
    Corpus::of("sdp_offer").check(|bytes| {
        let offer = match SdpOffer::parse(bytes) {
            Ok(offer) => offer,
            Err(error) => return assert_sentence(&error.to_string()),
        };
        match gateway.answer_parsed(&offer) {
            Ok(negotiation) => {
                assert!(negotiation.accepted().next().is_some());
                assert_consistent(&offer, &negotiation);
                for section in &negotiation.sections {
                    if let Err(rejection) = &section.outcome {
                        assert_sentence(&rejection.to_string());
                    }
                }
            }
            Err(error) => assert_sentence(&error.to_string()),
        }
    });
}

/// Asserts that a text of an error is short and has no line breaks.
fn assert_sentence(text: &str) {
    assert!(text.len() < 4_000 && !text.contains(['\r', '\n']), "{text:?}");
}

#[test]
fn fuzz_trickle_fragment() {
    let gateway = Gateway::new();
    Corpus::of("trickle_fragment").check(|bytes| {
        let fragment = SdpFragment::new(bytes);
        match fragment.as_ref().map_err(Clone::clone).and_then(SdpFragment::credentials) {
            Ok(Some(ice)) => {
                assert_eq!(IceCredentials::new(&ice.ufrag, ice.password()), Ok(ice));
                let answer = fragment.unwrap().restart(&gateway.ice, &gateway.addresses).unwrap();
                let answer = SdpFragment::new(answer.as_str().as_bytes()).unwrap();
                assert_eq!(answer.credentials(), Ok(Some(gateway.ice.clone())));
            }
            Ok(None) => {}
            Err(error) => assert_sentence(&error.to_string()),
        }
    });
}

#[test]
fn error_of_an_unusable_offer_is_a_sentence() {
    let offer = CHROMIUM.replace("a=rtcp-mux\r\n", "");
    let error = Gateway::new().answer(&offer).unwrap_err();
    assert_eq!(error, SdpError::NothingAccepted(Rejection::RtcpNotMuxed("ICE checks one address")));
    assert_eq!(
        error.to_string(),
        "no m-line of the offer is acceptable; one is rejected because it lacks a=rtcp-mux, and ICE checks one address"
    );
}
