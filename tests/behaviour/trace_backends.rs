//! Traces in backends of other projects: Phoenix, and the collector rotel before it. `make e2e-telemetry` installs both.

use std::process::Command;
use std::time::{Duration, Instant};

use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::http::http_get;
use evenkeel_testkit::need::{phoenix, rotel_agent};
use evenkeel_testkit::required;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::harness::{
    GATEWAYS, GatewayProcess, Hosts, NODE, Node, Phone, TIMEOUT, acceptance_row, await_replica,
    ids, report, talk, talk_for, trace_ids,
};
use crate::takeover::hand_over;

/// Host and ports of the backends, which run at the host of the client.
const HOST: &str = "10.77.0.10";
const PHOENIX: u16 = 6_006;
const PHOENIX_GRPC: u16 = 4_317;
const ROTEL_GRPC: u16 = 4_417;
const ROTEL_HTTP: u16 = 4_418;

/// Phoenix creates its database at the first start.
const STARTED_WITHIN: Duration = Duration::from_secs(120);

const ASK_EVERY: Duration = Duration::from_millis(200);

struct Backends {
    _processes: Vec<ChildProcess>,
    _folder: TempDir,
}

impl Backends {
    /// Phoenix, and before it rotel.
    fn start(place: &Hosts) -> Backends {
        let (phoenix, rotel) = (phoenix().unwrap(), rotel_agent().unwrap());
        let folder = tempdir().unwrap();
        let _inside = place.client.enter().unwrap();
        let mut command = Command::new(phoenix);
        command.arg("serve").env("PHOENIX_HOST", HOST).env("PHOENIX_WORKING_DIR", folder.path());
        command.env("PHOENIX_PORT", PHOENIX.to_string());
        command.env("PHOENIX_GRPC_PORT", PHOENIX_GRPC.to_string());
        let phoenix = ChildProcess::start("phoenix", &mut command, folder.path()).unwrap();
        let mut command = Command::new(rotel);
        command.args(["start", "--exporter", "otlp", "--batch-timeout", "100ms"]);
        command.args(["--otlp-grpc-endpoint", &format!("{HOST}:{ROTEL_GRPC}")]);
        command.args(["--otlp-http-endpoint", &format!("{HOST}:{ROTEL_HTTP}")]);
        command.args(["--otlp-exporter-endpoint", &format!("http://{HOST}:{PHOENIX_GRPC}")]);
        command.args(["--otlp-exporter-protocol", "grpc"]);
        let rotel = ChildProcess::start("rotel", &mut command, folder.path()).unwrap();
        let deadline = Instant::now() + STARTED_WITHIN;
        while get("/healthz").is_none() {
            assert!(Instant::now() < deadline, "Phoenix did not start: {}", phoenix.log());
            std::thread::park_timeout(ASK_EVERY);
        }
        Backends { _processes: vec![phoenix, rotel], _folder: folder }
    }
}

/// The body of Phoenix' answer with status 200.
fn get(path: &str) -> Option<String> {
    let server = format!("{HOST}:{PHOENIX}").parse().unwrap();
    let answer = http_get(server, path, &[])?;
    (answer.status == 200).then_some(answer.body)
}

/// The spans that Phoenix finds by this query, newest first.
fn query(place: &Hosts, query: &str) -> Vec<Value> {
    let _inside = place.client.enter().unwrap();
    let path = format!("/v1/projects/default/spans?limit=1000&{query}");
    let body = get(&path).and_then(|body| serde_json::from_str::<Value>(&body).ok());
    let data = body.and_then(|mut body| body["data"].as_array_mut().map(std::mem::take));
    data.unwrap_or_default()
}

/// The spans of a trace.
fn spans(place: &Hosts, trace: &str) -> Vec<Value> {
    query(place, &format!("trace_id={trace}"))
}

/// The trace of the group's only session, found by the id of the session.
fn find_trace(place: &Hosts, owner: &mut GatewayProcess) -> String {
    let (told, number) = (trace_ids(owner).remove(0), ids(owner).remove(0));
    let id = format!("attribute=session.id:{number}");
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let found = query(place, &id);
        if found.first().is_some_and(|span| span["context"]["trace_id"] == told) {
            return told;
        }
        assert!(Instant::now() < deadline, "{told} is not among those of {id}: {found:#?}");
        std::thread::park_timeout(ASK_EVERY);
    }
}

/// The causes of these spans, oldest first.
fn causes<'a>(spans: &'a [Value], name: &str) -> Vec<&'a str> {
    let mut spans: Vec<_> = spans.iter().filter(|span| span["name"] == name).collect();
    spans.sort_by_key(|span| span["start_time"].as_str());
    let cause = |span: &'a Value| span["attributes"]["evenkeel.cause"].as_str();
    spans.into_iter().map(|span| cause(span).unwrap_or_default()).collect()
}

fn count(spans: &[Value], name: &str) -> usize {
    spans.iter().filter(|span| span["name"] == name).count()
}

/// Waits until the backend has so many spans of this name in the trace.
fn await_spans(place: &Hosts, trace: &str, name: &str, number: usize) {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let spans = spans(place, trace);
        if count(&spans, name) >= number {
            return;
        }
        assert!(Instant::now() < deadline, "less than {number} of {name}: {spans:#?}");
        std::thread::park_timeout(ASK_EVERY);
    }
}

/// A node of its own name at the host of the nodes.
fn node(place: &Hosts, name: &str) -> Node {
    let _inside = place.node.enter().unwrap();
    Node::with(name, &format!("{NODE}:0"), |_| {})
}

fn node_of(gateway: &mut GatewayProcess) -> String {
    let sessions = gateway.ask(async |client| client.list("sessions").await).unwrap();
    sessions[0]["hop"]["node"].as_str().unwrap_or_default().to_owned()
}

fn expect_echo(ann: &mut Phone, what: &str) {
    let heard = ann.heard.len();
    talk(&mut [ann], what, |phones| phones[0].heard.len() >= heard + 20);
}

/// The spans of a call's trace, and the deviations from those that are expected.
type PlayedCall = (Vec<Value>, Vec<String>);

/// Plays a call through its node's death, its gateway's death and the return to its region.
fn call(place: &Hosts, telemetry: &str) -> PlayedCall {
    let mut nodes = ["east-a1", "west-a1", "west-b1"].map(|name| node(place, name));
    let text = nodes.iter().map(Node::text).collect::<String>();
    let [mut owner, mut standby] = place.routed_group_before(&format!("{text}{telemetry}"));
    let mut ann = place.phone();
    owner.open("room", &mut ann);
    let trace = find_trace(place, &mut owner);
    talk_for(&mut [&mut ann], 20);
    await_replica(&mut owner);
    assert_eq!(node_of(&mut owner), "east-a1", "the node of the gateway's region");
    nodes[0].kill();
    expect_echo(&mut ann, "the call fails over");
    await_spans(place, &trace, "session.move", 1);
    await_replica(&mut owner);
    owner.process.signal(Signal::SIGKILL).unwrap();
    expect_echo(&mut ann, "the call continues at the standby");
    {
        let _inside = place.node.enter().unwrap();
        nodes[0].revive();
    }
    talk(&mut [&mut ann], "the call moves home", |_| node_of(&mut standby) == "east-a1");
    await_spans(place, &trace, "session.move", 2);
    expect_echo(&mut ann, "the call goes on at home");
    close(&mut standby);
    await_spans(place, &trace, "session", 1);
    let spans = spans(place, &trace);
    let mut wrong = deviations(&spans, 2);
    let moved = causes(&spans, "session.move");
    if !["node-down", "link"].contains(&moved[0]) || moved[1..] != ["failback"] {
        wrong.push(format!("moves by {moved:?}"));
    }
    if causes(&spans, "session.continued") != ["takeover"] {
        wrong.push("no takeover".to_owned());
    }
    for name in ["node.failover", "gateway.continued"] {
        if query(place, &format!("name={name}")).is_empty() {
            wrong.push(format!("no {name}"));
        }
    }
    (spans, wrong)
}

/// Plays a call that goes on at the next process of its gateway.
fn upgraded_call(place: &Hosts, telemetry: &str) -> PlayedCall {
    let node = node(place, "east-a1");
    let [mut owner, _standby] = place.routed_group_before(&format!("{}{telemetry}", node.text()));
    let mut ann = place.phone();
    owner.open("room", &mut ann);
    let trace = find_trace(place, &mut owner);
    talk_for(&mut [&mut ann], 20);
    await_replica(&mut owner);
    let upgrading = owner.upgrade(json!({}));
    talk(&mut [&mut ann], "the upgrade is answered", |_| upgrading.is_finished());
    let upgraded = upgrading.join().unwrap().unwrap();
    owner.note_successor(upgraded["pid"].as_i64().unwrap() as i32);
    end_continued(place, &trace, &mut owner, &mut ann, "upgrade")
}

/// Plays a call that goes on at the other gateway of the group, which its gateway hands it to.
fn handed_over_call(place: &Hosts, telemetry: &str) -> PlayedCall {
    let node = node(place, "east-a1");
    let text = format!("{}{telemetry}", node.text());
    let [mut owner, mut standby] = place.routed_group_before(&text);
    let mut ann = place.phone();
    owner.open("room", &mut ann);
    let trace = find_trace(place, &mut owner);
    talk_for(&mut [&mut ann], 20);
    await_replica(&mut owner);
    let mut handing = hand_over(&owner, GATEWAYS[1].0);
    talk(&mut [&mut ann], "the hand-over is answered", |_| handing.try_wait().unwrap().is_some());
    assert!(handing.wait().unwrap().success());
    end_continued(place, &trace, &mut standby, &mut ann, "hand-over")
}

fn close(gateway: &mut GatewayProcess) {
    let sessions = gateway.read("/v1/sessions");
    let id = sessions["sessions"][0]["id"].as_str().unwrap();
    gateway.ask(async |client| client.close(id).await).unwrap();
}

/// Ends a call that goes on at this gateway for this cause.
fn end_continued(
    place: &Hosts,
    trace: &str,
    gateway: &mut GatewayProcess,
    ann: &mut Phone,
    cause: &str,
) -> PlayedCall {
    expect_echo(ann, "the call goes on");
    close(gateway);
    await_spans(place, trace, "session", 1);
    let spans = spans(place, trace);
    let mut wrong = deviations(&spans, 0);
    let continued = causes(&spans, "session.continued");
    if continued != [cause] {
        wrong.push(format!("continued by {continued:?}"));
    }
    (spans, wrong)
}

/// Deviations from one trace below `session`, of a call that went on at another process.
fn deviations(spans: &[Value], moves: usize) -> Vec<String> {
    let expected = [
        ("session", 1..=1),
        ("session.open", 1..=1),
        ("policy.decide", 1..=100),
        ("session.move", moves..=moves),
        ("session.continued", 1..=1),
    ];
    let wrong = expected.into_iter().filter(|(name, number)| !number.contains(&count(spans, name)));
    let mut wrong: Vec<String> =
        wrong.map(|(name, _)| format!("{} of {name}", count(spans, name))).collect();
    let own: Vec<&Value> = spans.iter().map(|span| &span["context"]["span_id"]).collect();
    for span in spans {
        let is_life = span["name"] == "session";
        if is_life != span["parent_id"].is_null() || !is_life && !own.contains(&&span["parent_id"])
        {
            wrong.push(format!("{} below {}", span["name"], span["parent_id"]));
        }
    }
    wrong
}

/// Plays a call with these settings of telemetry.
type Play = fn(&Hosts, &str) -> PlayedCall;

#[required(Namespaces, TraceBackends)]
#[test]
fn call_is_one_trace_in_other_projects_backends() {
    let place = Hosts::lay();
    let _backends = Backends::start(&place);
    let rows: [(&str, u16, &str, Play); 6] = [
        ("trace.phoenix.grpc", PHOENIX_GRPC, "grpc", call),
        ("trace.phoenix.http", PHOENIX, "http", call),
        ("trace.rotel.grpc", ROTEL_GRPC, "grpc", call),
        ("trace.rotel.http", ROTEL_HTTP, "http", call),
        ("trace.upgrade", PHOENIX_GRPC, "grpc", upgraded_call),
        ("trace.hand-over", PHOENIX_GRPC, "grpc", handed_over_call),
    ];
    let rows = rows.map(|(id, port, protocol, play)| {
        let telemetry = format!(
            "[telemetry]\notlp = \"http://{HOST}:{port}\"\nprotocol = \"{protocol}\"\n\
             signals = [\"traces\"]\n"
        );
        let (spans, wrong) = play(&place, &telemetry);
        println!("{id}: {} spans {wrong:?}", spans.len());
        let figures = json!({"spans": spans.len(), "deviations": wrong.len()});
        let row = acceptance_row(id, wrong.is_empty(), &figures, "deviations", "deviations");
        (wrong, row)
    });
    report(&rows.each_ref().map(|(_, row)| row.clone()));
    let wrong: Vec<_> = rows.iter().flat_map(|(wrong, _)| wrong).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
