//! Two ends on libsrtp talk through a gateway, without and with its keys; the node that carries their session dies.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use evenkeel_client::ApiCall;
use evenkeel_contract::offers::OfferAnswer;
use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::TIMEOUT;
use evenkeel_testkit::clients::python;
use evenkeel_testkit::required;
use serde_json::{Value, json};

use crate::stage::{CONFIGURATION, NODES, Stage, declared, free_pair, offer, sample_node, voice};

const ROOM: &str = "srtp";

/// Suites that pylibsrtp has, with a key of each.
const SUITES: [(&str, &str); 4] = [
    ("AES_CM_128_HMAC_SHA1_80", "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"),
    ("AES_CM_128_HMAC_SHA1_32", "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"),
    ("AEAD_AES_128_GCM", "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubA=="),
    ("AEAD_AES_256_GCM", "WUVTX19zZW1jdGwgKCApeyAyMjA3O31uIHVubGVzcyB0aGVyZWZpcmUgNDQ="),
];

/// Packets that each end decrypts before the node dies, and after its room has moved: a second.
const PACKETS: u64 = 50;

/// Opens a session with this `srtp`.
fn open(stage: &mut Stage, client: SocketAddr, srtp: Value) -> Value {
    let offer = offer(ROOM, declared(client, None), vec![voice()]);
    let mut body = serde_json::to_value(offer).expect("an offer is JSON");
    body["srtp"] = srtp;
    let call = ApiCall {
        method: "POST".parse().expect("a method"),
        body: body.to_string().into(),
        ..ApiCall::get("/v1/sessions")
    };
    stage.ask(call).accepted().expect("the gateway opens it")
}

/// The number of packets of this kind at each end, by the last line of the ends.
fn counts(lines: &[String], kind: &str) -> Option<[u64; 2]> {
    let ends: [Value; 2] = serde_json::from_str(lines.last()?).ok()?;
    Some(ends.map(|end| end[kind].as_u64().unwrap_or_default()))
}

/// Waits until each end has decrypted this many packets. Returns the numbers.
fn decrypted(ends: &ChildProcess, at_least: [u64; 2]) -> [u64; 2] {
    let found = ends.wait_for("decrypted packets at both ends", TIMEOUT, |lines| {
        let counts = counts(lines, "decrypted")?;
        counts.iter().zip(at_least).all(|(count, least)| *count >= least).then_some(counts)
    });
    found.unwrap_or_else(|error| panic!("{error}; {:?}", ends.lines().last()))
}

/// Starts the ends and kills the node that carries them. Each end must decrypt packets before and after.
fn talk_across_node_death(stage: &mut Stage, words: &[String], carries: &str) {
    let mut command = Command::new(python());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/srtp_ends.py")).args(words);
    let ends = ChildProcess::start("srtp-ends", &mut command, stage.folder());
    let ends = ends.expect("Python starts");
    let before = decrypted(&ends, [PACKETS; 2]);
    let moved = stage.kill_under(carries, ROOM);
    assert!(moved["to"].is_string() && moved["to"] != carries, "{moved}");
    let after = decrypted(&ends, before.map(|count| count + PACKETS));
    println!("decrypted by each end: {before:?} before the death of {carries}, {after:?} in all");
    let lines = ends.lines();
    for kind in ["refused", "other"] {
        assert_eq!(counts(&lines, kind), Some([0; 2]), "{kind} packets: {:?}", lines.last());
    }
}

fn answered(answer: Value) -> OfferAnswer {
    serde_json::from_value(answer).expect("an answer to an offer")
}

#[required(Pylibsrtp)]
#[test]
fn srtp_decrypts_before_and_after_node_death() {
    let mut stage = Stage::before("srtp", CONFIGURATION, |folder| {
        // A header that a node rewrites fails the authentication (RFC 3711, 3.1).
        NODES.map(|node| sample_node(node, folder, &["--untouched"])).into()
    });
    let (here, there) = free_pair();
    let (mut words, mut carries) = (Vec::new(), String::new());
    for client in [here, there] {
        let opened = answered(open(&mut stage, client, true.into()));
        carries = opened.route[0].place.node.to_string();
        let gateway = opened.udp.expect("by UDP").addresses[0];
        words.extend([client.to_string(), gateway.to_string()]);
    }
    talk_across_node_death(&mut stage, &words, &carries);
}

#[required(Pylibsrtp)]
#[test]
fn sdes_keys_end_at_the_gateway_across_node_death() {
    for (number, (suite, key)) in SUITES.into_iter().enumerate() {
        let mut stage = Stage::before(&format!("sdes-{number}"), CONFIGURATION, |folder| {
            NODES.map(|node| sample_node(node, folder, &[])).into()
        });
        let (here, there) = free_pair();
        let (mut words, mut carries) = (vec![suite.to_owned()], String::new());
        for client in [here, there] {
            let attribute = format!("1 {suite} inline:{key}");
            let unknown = "2 F8_128_HMAC_SHA1_80 inline:MTIz".to_owned();
            let answer = open(&mut stage, client, json!({"crypto": [unknown, attribute]}));
            let crypto = answer["srtp"]["crypto"][0].as_str().expect("an attribute").to_owned();
            let own = crypto.strip_prefix(&format!("1 {suite} inline:")).expect("the suite");
            let opened = answered(answer);
            carries = opened.route[0].place.node.to_string();
            let gateway = opened.udp.expect("by UDP").addresses[0];
            words.extend([client.to_string(), gateway.to_string(), key.to_owned(), own.to_owned()]);
        }
        println!("{suite}:");
        talk_across_node_death(&mut stage, &words, &carries);
    }
}
