//! WebRTC libraries judge SDP answers: each applies the answers to its own offers.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use evenkeel_sdp::{
    AcceptedMedia, AnswerPolicy, IceCredentials, LocalTransport, Negotiation, Rejection, SdpOffer,
    SecretText,
};
use evenkeel_testkit::clients::python;
use evenkeel_testkit::required;
use serde_json::{Value, json};

/// Answers an offer as a gateway on this address. The certificate is never shown: the test ends before the handshake.
fn answer(offer: &str) -> (Negotiation, SecretText) {
    let addresses = [SocketAddr::from(([127, 0, 0, 1], 9))];
    let ice = IceCredentials::new("gate", "a22characterpassword22").expect("valid credentials");
    let local = LocalTransport {
        session_id: 1,
        addresses: &addresses,
        rtcp_port: None,
        ice: &ice,
        fingerprint: &[0xab; 32],
        sources: &[],
    };
    let policy = AnswerPolicy {
        sends: true,
        receives: true,
        has_rtcp_port: false,
        random: |bytes| bytes.fill(0),
    };
    let offer = SdpOffer::parse(offer.as_bytes()).expect("the library's offer is valid");
    let negotiation = offer.negotiate(&policy).expect("the offer is acceptable");
    let text = offer.answer(&negotiation, &local);
    (negotiation, text)
}

/// Answers the two offers of a library: of audio, video and a data channel, then of another video. Returns the result of the second.
fn negotiate(module: &str) -> Negotiation {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/sdp_offer.py");
    let mut command = Command::new(python());
    command.arg(script).arg(module).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("Python starts");
    let mut answers = child.stdin.take().expect("a pipe");
    let mut session: Option<Negotiation> = None;
    let mut report = Value::Null;
    for line in BufReader::new(child.stdout.take().expect("a pipe")).lines() {
        let said: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        let Some(offer) = said["sdp"].as_str() else {
            report = said["report"].clone();
            break;
        };
        let (negotiation, text) = answer(offer);
        if session.is_none() {
            let outcomes = negotiation.sections.iter().map(|section| section.outcome.as_ref());
            let rejections: Vec<_> = outcomes.filter_map(Result::err).collect();
            assert_eq!(rejections, [&Rejection::Kind(String::from("application"))]);
        }
        writeln!(answers, "{}", json!({"sdp": text.as_str()})).expect("the library reads");
        session = Some(negotiation);
    }
    assert!(child.wait().expect("it ends").success());
    let first = [json!(["0", "sendrecv"]), json!(["1", "sendonly"])];
    let second = [&first[..], &[json!(["3", "recvonly"])]].concat();
    assert_eq!(report, json!([first, second]));
    session.expect("two offers")
}

/// The client's numbers of each accepted m-line.
fn numbers(negotiation: &Negotiation) -> Vec<Vec<u8>> {
    let numbers =
        |media: &AcceptedMedia| media.formats.iter().map(|format| format.number).collect();
    negotiation.accepted().map(numbers).collect()
}

#[required(Aiortc)]
#[test]
fn aiortc_applies_the_answers() {
    let negotiation = negotiate("aiortc");
    let lengths: Vec<_> = numbers(&negotiation).iter().map(Vec::len).collect();
    // Opus and G.711; VP8 and H.264 twice, each with retransmissions.
    assert_eq!(lengths, [3, 6, 6], "{negotiation:?}");
}

#[required(Libwebrtc)]
#[test]
fn libwebrtc_applies_the_answers() {
    let negotiation = negotiate("webrtc");
    let numbers = numbers(&negotiation);
    // Opus with redundancy, G.711 and events.
    assert_eq!(numbers[0], [111, 63, 0, 8, 110, 126], "{negotiation:?}");
    // VP8, VP9 twice and AV1, each with retransmissions.
    assert!(numbers[1].len() >= 8 && numbers[2].len() >= 8, "{numbers:?}");
}
