//! An independent QUIC implementation speaks RTP over QUIC with the gateway, rightly and wrongly.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use evenkeel_lab::admin::{Ingress, QuicOffer};
use evenkeel_media::roq::ErrorCode;
use serde_json::{Value, json};

use crate::clients::{Client, present, python};
use crate::process::Process;
use crate::stage::{Stage, offer, voice};

/// Packets of each kind that the client sends, and the SSRC it sends them with.
const PACKETS: u64 = 50;
const SSRC: u64 = 0x0EC0_FFEE;

/// Plays all acts of `roq_client.py` and gives what it says came of them, and what the gateway counted.
fn play(stage: &mut Stage) -> (Value, Value) {
    let opened = stage.open(&offer("roq", Ingress::Quic(QuicOffer {}), vec![voice()]));
    let quic = opened.quic.expect("by QUIC");
    assert_eq!(quic.alpn, "roq-14");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/roq_client.py");
    let mut command = Command::new(python());
    command.arg(script).arg(quic.addresses[0].ip().to_string());
    command.arg(quic.addresses[0].port().to_string()).arg(&quic.certificate_sha256);
    command.args([&quic.flow_to_gateway, &quic.flow_from_gateway]);
    let client = Process::start("roq-client", &mut command, stage.folder());
    let said = client.wait_for("what came of it", |lines| lines.last().cloned());
    let said = serde_json::from_str(&said).expect("the client speaks JSON");
    (said, stage.read("/v1/status"))
}

fn code(error: ErrorCode) -> Value {
    error.code().into()
}

/// Packets came back whole and in order, with one SSRC that is not the sender's and numbers in a row.
fn check_media(said: &Value, numbers: impl Iterator<Item = u64>, carrier: &str) {
    assert_eq!(said["numbers"], json!(numbers.collect::<Vec<_>>()), "{said}");
    assert_eq!(said["carriers"], json!([carrier]), "{said}");
    assert_eq!(said["flow"], true, "{said}");
    let ssrcs = said["ssrcs"].as_array().expect("SSRCs");
    assert!(ssrcs.len() == 1 && ssrcs[0] != SSRC, "the node gives its own: {said}");
    let steps = |key: &str, modulus: u64| -> BTreeSet<u64> {
        let values = said[key].as_array().expect("numbers").iter();
        let values: Vec<_> = values.map(|value| value.as_u64().expect("a number")).collect();
        values.windows(2).map(|pair| (pair[1] + modulus - pair[0]) % modulus).collect()
    };
    assert!(steps("sequences", 1 << 16).iter().all(|step| *step == 1), "{said}");
    assert!(steps("timestamps", 1 << 32).iter().all(|step| *step == 960), "{said}");
}

#[test]
fn aioquic_gets_its_packets_back_and_is_answered_as_the_draft_says() {
    let test = "aioquic_gets_its_packets_back_and_is_answered_as_the_draft_says";
    if !present(test, Client::Aioquic) {
        return;
    }
    let mut stage = Stage::set("roq", "");
    let (said, status) = play(&mut stage);
    println!("{said}\n{}", status["quic_counts"]);

    assert_eq!(said["alpn"], "roq-14");
    check_media(&said["datagrams"], 0..PACKETS, "datagram");
    check_media(&said["stream"], PACKETS..2 * PACKETS, "datagram");
    check_media(&said["large"], 100..101, "stream");
    assert_eq!(said["large"]["sizes"], json!([1_600]));

    assert_eq!(said["unknown_flow_datagram"], json!({"kept": true}));
    let stopped = |error| json!({"stop": code(error), "kept": true});
    assert_eq!(said["unknown_flow_stream"], stopped(ErrorCode::UnknownFlow));
    assert_eq!(said["not_rtp_in_stream"], stopped(ErrorCode::Packet));
    assert_eq!(said["too_long_in_stream"], stopped(ErrorCode::Packet));
    assert_eq!(said["strangers_heard"], json!([]));

    let closed = &said["closed"];
    assert_eq!(closed["bidirectional"], code(ErrorCode::StreamCreation));
    for wrong in [
        "datagram_without_flow",
        "datagram_without_packet",
        "datagram_not_rtp",
        "stream_ends_in_packet",
    ] {
        assert_eq!(closed[wrong], code(ErrorCode::Packet), "{wrong}");
    }
    assert_eq!(said["moved"], json!([[120], [121]]), "each went to the connection it came by");
    assert_eq!(said["flowless"], code(ErrorCode::General));
    assert_eq!(said["wrong_alpn"], "refused");

    let counts = &status["quic_counts"];
    for (count, expected) in [
        ("unknown-flow-datagrams", 1),
        ("unknown-flow-streams", 1),
        ("not-rtp", 2),
        ("oversize", 1),
        ("malformed", 3),
        ("bidirectional", 1),
        ("flowless", 1),
        ("handshakes-failed", 1),
        ("received-in-streams", PACKETS + 1),
    ] {
        assert_eq!(counts[count], expected, "{count} of {counts}");
    }
}
