//! aioquic and Chromium as independent WebTransport clients, with valid and invalid behaviour; the node that carries
//! their session dies, and another process replaces the gateway.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use evenkeel_client::ApiCall;
use evenkeel_contract::offers::{OfferIngress, WebtransportAnswer};
use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::TIMEOUT;
use evenkeel_testkit::clients::{browser_packages, python};
use evenkeel_testkit::required;
use hyper::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::meter::GapLimits;
use crate::stage::{Stage, offer, voice};

const LIMITS: GapLimits = GapLimits("webtransport.*");

/// Packets of each kind sent by the client.
const PACKETS: u64 = 50;

fn open(stage: &mut Stage, room: &str) -> WebtransportAnswer {
    let opened = stage.open(&offer(room, OfferIngress::webtransport(), vec![voice()]));
    let answer = opened.webtransport.expect("by WebTransport");
    assert_eq!(answer.certificates_sha256.len(), 2, "{answer:?}");
    assert!(answer.urls[0].ends_with(&format!("/roq?token={}", answer.flow_to_gateway)));
    answer
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop").join(name)
}

/// Kills the node that carries the room once the client prints that it sends. Returns its lines from before and after the death.
fn report_through_node_death(
    stage: &mut Stage,
    client: &mut ChildProcess,
    room: &str,
) -> [Value; 2] {
    let sending = client.json_line(2 * TIMEOUT).expect("the client sends");
    assert!(sending["sending"].as_u64().is_some_and(|received| received > 0), "{sending}");
    let rooms = stage.read("/v1/rooms");
    let carries = rooms["rooms"][0]["route"][0]["node"].as_str();
    let carries = carries.unwrap_or_else(|| panic!("{rooms}")).to_owned();
    stage.kill_under(&carries, room);
    client.signal(Signal::SIGUSR2).expect("the client runs");
    let report = client.json_line(2 * TIMEOUT).expect("the client prints JSON");
    [sending, report]
}

/// Judges the longest time without a packet around a fault, and before it.
fn judge_gap(what: &str, after: &Value, before: &Value) {
    let gap = |figures: &Value| figures["longest_gap_ms"].as_u64().map(Duration::from_millis);
    let [gap, control] = [after, before].map(|figures| gap(figures).expect("a gap"));
    LIMITS.judge(what, gap, control);
}

fn check_death(death: &Value, before: &Value) {
    judge_gap("the death of a node", death, before);
    assert_eq!((&death["ssrcs"], &death["closed"]), (&json!(1), &Value::Null), "{death}");
}

#[required(Aioquic)]
#[test]
fn webtransport_of_aioquic_follows_the_drafts() {
    let mut stage = Stage::set("webtransport", "");
    let answer = open(&mut stage, "webtransport");
    let rest = answer.urls[0].strip_prefix("https://").expect("a URL");
    let (authority, path) = rest.split_once('/').expect("a path");
    let (address, port) = authority.rsplit_once(':').expect("a port");
    let mut command = Command::new(python());
    command.arg(script("webtransport_client.py")).args([address, port]);
    command.arg(format!("/{path}")).arg(&answer.certificates_sha256[0]);
    command.args([&answer.flow_to_gateway, &answer.flow_from_gateway]);
    let client = ChildProcess::start("webtransport-client", &mut command, stage.folder());
    let mut client = client.expect("Python starts");
    let [before, report] = report_through_node_death(&mut stage, &mut client, "webtransport");
    println!("{report}");

    assert_eq!(report["alpn"], "h3");
    let datagrams = &report["datagrams"];
    assert_eq!(datagrams["numbers"], json!((0..PACKETS).collect::<Vec<_>>()), "{report}");
    assert_eq!(datagrams["carriers"], json!([0]), "the session's stream: {report}");
    assert_eq!(datagrams["flow"], true, "{report}");
    assert_eq!(report["strange_datagrams"], json!({"kept": true}));
    assert_eq!(report["strangers_heard"], json!([]));
    // H3_REQUEST_REJECTED.
    assert_eq!(report["second_session"], json!({"reset": 0x10b, "kept": true}));
    let statuses = json!({"path": 404, "token": 403, "method": 405, "right": 200});
    assert_eq!(report["statuses"], statuses);
    assert_eq!((&report["after_refusals"], &report["early_heard"]), (&json!(true), &json!([])));
    assert_eq!(report["moved"], json!([[120], [121]]), "each packet returns in its session");
    // RFC 9114, section 8.1; RFC 9204, section 6; RFC 9297, section 5.2.
    let closed = json!({
        "datagram_without_quarter_id": 0x33,
        "datagram_without_flow": 0x33,
        "datagram_not_rtp": 0x33,
        "data_before_headers": 0x105,
        "oversized_headers": 0x107,
        "dynamic_table": 0x200,
        "second_settings": 0x105,
        "control_stream_ends": 0x104,
    });
    assert_eq!(report["closed"], closed);
    assert_eq!(report["sessionless"], 0x100);
    check_death(&report["death"], &before);
    stage.await_quic_counts(&[
        ("webtransport-opened", 13),
        ("webtransport-refused", 4),
        ("webtransport-sessionless", 2),
        ("unknown-flow-datagrams", 1),
        ("http3-errors", 6),
        ("malformed", 1),
        ("not-rtp", 1),
        ("flowless", 1),
    ]);
}

#[required(Chromium)]
#[test]
fn webtransport_of_chromium_survives_deaths() {
    let mut stage = Stage::set("webtransport-chromium", "");
    let answer = open(&mut stage, "webtransport");
    let mut command = Command::new("node");
    command.arg(script("browser/webtransport.js")).arg(browser_packages()).arg(&answer.urls[0]);
    command.arg(answer.certificates_sha256.join(","));
    command.args([&answer.flow_to_gateway, &answer.flow_from_gateway]);
    let client = ChildProcess::start("webtransport-chromium", &mut command, stage.folder());
    // A browser ends with its driver.
    let mut client = client.expect("node starts").with_grace(TIMEOUT);
    let [before, report] = report_through_node_death(&mut stage, &mut client, "webtransport");
    println!("webtransport-chromium: {report}");
    check_death(&report["death"], &before);
    // The page closed its first session, and opened another by the same URL.
    assert_eq!(report["again"], true, "{report}");
    assert!(report["refused"].as_str().is_some_and(|error| !error.is_empty()), "{report}");
    stage.await_quic_counts(&[("webtransport-opened", 3), ("http3-errors", 0)]);

    // The replaced process keeps the page's connection.
    let upgrade =
        ApiCall { method: Method::POST, body: "{}".into(), ..ApiCall::get("/v1/gateway:upgrade") };
    let upgraded = stage.ask(upgrade).accepted().expect("the upgrade succeeds");
    let _next = Successor(Pid::from_raw(upgraded["pid"].as_i64().expect("a number") as i32));
    client.signal(Signal::SIGUSR2).expect("the client runs");
    let upgraded = client.json_line(2 * TIMEOUT).expect("the client prints JSON");
    println!("webtransport-chromium, upgrade: {upgraded}");
    assert_eq!((&upgraded["closed"], &upgraded["ssrcs"]), (&Value::Null, &json!(1)), "{upgraded}");
    judge_gap("an upgrade", &upgraded, &report["before"]);
}

/// The process of an upgrade; ended on drop.
struct Successor(Pid);

impl Drop for Successor {
    fn drop(&mut self) {
        let _gone_already = kill(self.0, Signal::SIGKILL);
    }
}
