//! Traces in backends of other projects: Phoenix, and the collector rotel before it. `make e2e-telemetry` installs both.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use evenkeel_lab::process::ChildProcess;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::harness::{
    GatewayProcess, NODE, Node, Phone, Place, TIMEOUT, acceptance_row, await_replica, http_get,
    report, talk, talk_for, trace_ids,
};

/// Host and ports of the backends, which run at the host of the client.
const HOST: &str = "10.77.0.10";
const PHOENIX: u16 = 6_006;
const PHOENIX_GRPC: u16 = 4_317;
const ROTEL_GRPC: u16 = 4_417;
const ROTEL_HTTP: u16 = 4_418;

/// Phoenix creates its database at the first start.
const STARTED_WITHIN: Duration = Duration::from_secs(120);

const ASK_EVERY: Duration = Duration::from_millis(200);

fn installed(program: &str) -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/telemetry-venv");
    let found = std::fs::read_dir(venv.join("lib"))
        .ok()?
        .flatten()
        .map(|python| python.path().join("site-packages/rotel/rotel-agent"));
    let all = [venv.join("bin").join(program)].into_iter().chain(found);
    all.filter(|path| path.ends_with(program)).find(|path| path.is_file())
}

struct Backends {
    _processes: Vec<ChildProcess>,
    _folder: TempDir,
}

impl Backends {
    /// Phoenix, and before it rotel; `None` if they are not installed.
    fn start(place: &Place) -> Option<Backends> {
        let (phoenix, rotel) = (installed("phoenix")?, installed("rotel-agent")?);
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
        Some(Backends { _processes: vec![phoenix, rotel], _folder: folder })
    }
}

/// The body of Phoenix' answer with status 200.
fn get(path: &str) -> Option<String> {
    let server = format!("{HOST}:{PHOENIX}").parse().unwrap();
    let (status, body) = http_get(server, path, "")?;
    (status == 200).then_some(body)
}

/// The spans of a trace, as Phoenix has them.
fn spans(place: &Place, trace: &str) -> Vec<Value> {
    let _inside = place.client.enter().unwrap();
    let path = format!("/v1/projects/default/spans?limit=1000&trace_id={trace}");
    let body = get(&path).and_then(|body| serde_json::from_str::<Value>(&body).ok());
    let data = body.and_then(|mut body| body["data"].as_array_mut().map(std::mem::take));
    data.unwrap_or_default()
}

fn count(spans: &[Value], name: &str) -> usize {
    spans.iter().filter(|span| span["name"] == name).count()
}

/// Waits until the backend has so many spans of this name in the trace.
fn await_spans(place: &Place, trace: &str, name: &str, number: usize) {
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
fn node(place: &Place, name: &str) -> Node {
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

/// Plays a call through a node's death, its gateway's death and a move, and returns the spans of its trace.
fn call(place: &Place, telemetry: &str) -> Vec<Value> {
    let mut nodes = ["east-a1", "east-b1", "east-c1"].map(|name| node(place, name));
    let text = nodes.iter().map(Node::text).collect::<String>();
    let [mut owner, mut standby] = place.routed_group_before(&format!("{text}{telemetry}"));
    let mut ann = place.phone();
    owner.open("room", &mut ann);
    let trace = trace_ids(&mut owner).remove(0);
    talk_for(&mut [&mut ann], 20);
    await_replica(&mut owner);
    let first = node_of(&mut owner);
    nodes.iter_mut().find(|node| node.name == first).unwrap().kill();
    expect_echo(&mut ann, "the call fails over");
    await_spans(place, &trace, "session.move", 1);
    await_replica(&mut owner);
    owner.process.signal(Signal::SIGKILL).unwrap();
    expect_echo(&mut ann, "the call continues at the standby");
    let second = node_of(&mut standby);
    let third = nodes.iter().find(|node| node.name != first && node.name != second).unwrap();
    standby.post("/v1/rooms/room:move", &json!({"node": third.name}));
    await_spans(place, &trace, "session.move", 2);
    expect_echo(&mut ann, "the call moved");
    standby.ask(async |client| client.close("s1").await).unwrap();
    await_spans(place, &trace, "session", 1);
    spans(place, &trace)
}

/// Deviations from one trace below `session`.
fn deviations(spans: &[Value]) -> Vec<String> {
    let expected = [
        ("session", 1..=1),
        ("session.open", 1..=1),
        ("policy.decide", 1..=100),
        ("session.move", 2..=2),
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

#[test]
fn call_is_one_trace_in_other_projects_backends() {
    let test = "call_is_one_trace_in_other_projects_backends";
    let Some(place) = Place::lay(test) else { return };
    let Some(_backends) = Backends::start(&place) else {
        eprintln!(
            "{test} skipped: no Phoenix and rotel under target/; run tests/telemetry/install"
        );
        return;
    };
    let rows = [
        ("trace.phoenix.grpc", PHOENIX_GRPC, "grpc"),
        ("trace.phoenix.http", PHOENIX, "http"),
        ("trace.rotel.grpc", ROTEL_GRPC, "grpc"),
        ("trace.rotel.http", ROTEL_HTTP, "http"),
    ];
    let rows = rows.map(|(id, port, protocol)| {
        let telemetry = format!(
            "[telemetry]\notlp = \"http://{HOST}:{port}\"\nprotocol = \"{protocol}\"\n\
             signals = [\"traces\"]\n"
        );
        let spans = call(&place, &telemetry);
        let wrong = deviations(&spans);
        println!("{id}: {} spans {wrong:?}", spans.len());
        let figures = json!({"spans": spans.len(), "deviations": wrong.len()});
        let row = acceptance_row(id, wrong.is_empty(), &figures, &json!({"deviations": 0}));
        (wrong, row)
    });
    report(&rows.each_ref().map(|(_, row)| row.clone()));
    let wrong: Vec<_> = rows.iter().flat_map(|(wrong, _)| wrong).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
