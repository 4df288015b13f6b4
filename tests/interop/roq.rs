//! aioquic as an independent RTP-over-QUIC client, with valid and invalid behaviour.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use evenkeel_contract::offers::OfferIngress;
use evenkeel_media::roq::ErrorCode;
use serde_json::{Value, json};

use crate::stage::{Stage, offer, voice};
use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::TIMEOUT;
use evenkeel_testkit::clients::python;
use evenkeel_testkit::required;

/// Packets of each kind sent by the client, and their SSRC.
const PACKETS: u64 = 50;
const SSRC: u64 = 0x0EC0_FFEE;

/// Runs `roq_client.py`, and returns its report.
fn play(stage: &mut Stage) -> Value {
    let opened = stage.open(&offer("roq", OfferIngress::quic(), vec![voice()]));
    let quic = opened.quic.expect("by QUIC");
    assert_eq!(quic.alpn, "roq-14");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/roq_client.py");
    let mut command = Command::new(python());
    command.arg(script).arg(quic.addresses[0].ip().to_string());
    command.arg(quic.addresses[0].port().to_string()).arg(&quic.certificate_sha256);
    command.args([&quic.flow_to_gateway, &quic.flow_from_gateway]);
    let client = ChildProcess::start("roq-client", &mut command, stage.folder());
    let mut client = client.expect("Python starts");
    client.json_line(TIMEOUT).expect("the client prints JSON")
}

fn code(error: ErrorCode) -> Value {
    error.code().into()
}

/// Asserts that the packets returned in order over this carrier, with one foreign SSRC and consecutive numbers.
fn check_media(report: &Value, numbers: impl Iterator<Item = u64>, carrier: &str) {
    assert_eq!(report["numbers"], json!(numbers.collect::<Vec<_>>()), "{report}");
    assert_eq!(report["carriers"], json!([carrier]), "{report}");
    assert_eq!(report["flow"], true, "{report}");
    let ssrcs = report["ssrcs"].as_array().expect("SSRCs");
    assert!(ssrcs.len() == 1 && ssrcs[0] != SSRC, "the node's own SSRC: {report}");
    let steps = |key: &str, modulus: u64| -> BTreeSet<u64> {
        let values = report[key].as_array().expect("numbers").iter();
        let values: Vec<_> = values.map(|value| value.as_u64().expect("a number")).collect();
        values.windows(2).map(|pair| (pair[1] + modulus - pair[0]) % modulus).collect()
    };
    assert!(steps("sequences", 1 << 16).iter().all(|step| *step == 1), "{report}");
    assert!(steps("timestamps", 1 << 32).iter().all(|step| *step == 960), "{report}");
}

#[required(Aioquic)]
#[test]
fn aioquic_media_and_errors_follow_the_draft() {
    let mut stage = Stage::set("roq", "");
    let report = play(&mut stage);
    println!("{report}");

    assert_eq!(report["alpn"], "roq-14");
    check_media(&report["datagrams"], 0..PACKETS, "datagram");
    check_media(&report["stream"], PACKETS..2 * PACKETS, "datagram");
    check_media(&report["large"], 100..101, "stream");
    assert_eq!(report["large"]["sizes"], json!([1_600]));

    assert_eq!(report["unknown_flow_datagram"], json!({"kept": true}));
    let stopped = |error| json!({"stop": code(error), "kept": true});
    assert_eq!(report["unknown_flow_stream"], stopped(ErrorCode::UnknownFlow));
    assert_eq!(report["not_rtp_in_stream"], stopped(ErrorCode::Packet));
    assert_eq!(report["too_long_in_stream"], stopped(ErrorCode::Packet));
    assert_eq!(report["strangers_heard"], json!([]));

    let closed = &report["closed"];
    assert_eq!(closed["bidirectional"], code(ErrorCode::StreamCreation));
    for wrong in [
        "datagram_without_flow",
        "datagram_without_packet",
        "datagram_not_rtp",
        "stream_ends_in_packet",
    ] {
        assert_eq!(closed[wrong], code(ErrorCode::Packet), "{wrong}");
    }
    assert_eq!(report["moved"], json!([[120], [121]]), "each packet returns on its connection");
    assert_eq!(report["flowless"], code(ErrorCode::General));
    assert_eq!(report["wrong_alpn"], "refused");

    stage.await_quic_counts(&[
        ("unknown-flow-datagrams", 1),
        ("unknown-flow-streams", 1),
        ("not-rtp", 2),
        ("oversize", 1),
        ("malformed", 3),
        ("bidirectional", 1),
        ("flowless", 1),
        ("handshakes-failed", 1),
        ("received-in-streams", PACKETS + 1),
    ]);
}
