//! Commands that call the API, each as a process; the test plays the gateway.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

/// An API that answers by the start of the request line, with an error status for an `error`, and records requests.
pub(crate) struct Api {
    pub(crate) folder: TempDir,
    pub(crate) socket: PathBuf,
    pub(crate) asked: Receiver<String>,
}

impl Api {
    pub(crate) fn start(answers: Vec<(&'static str, Value)>) -> Api {
        let folder = tempdir().unwrap();
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let (asked_in, asked) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &answers, &asked_in);
            }
        });
        Api { folder, socket, asked }
    }
}

fn serve(stream: UnixStream, answers: &[(&'static str, Value)], asked: &Sender<String>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if stream.read_line(&mut request).unwrap() == 0 {
            return;
        }
        let mut length = 0;
        loop {
            let mut header = String::new();
            stream.read_line(&mut header).unwrap();
            if let Some(bytes) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                length = bytes.trim().parse().unwrap();
            }
            if header.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        let answer = answers.iter().find(|(start, _)| request.starts_with(start));
        let answer = &answer.unwrap_or_else(|| panic!("unexpected request {request}")).1;
        let status = match answer["error"]["code"].as_str() {
            None => "200 OK",
            Some("not-found") => "404 Not Found",
            Some(_) => "409 Conflict",
        };
        let answer = answer.to_string();
        asked.send(format!("{}{}", request.trim_end(), String::from_utf8_lossy(&body))).unwrap();
        let length = answer.len();
        write!(stream.get_mut(), "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{answer}")
            .unwrap();
    }
}

pub(crate) fn evenkeel(api: &Path, words: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_evenkeel");
    Command::new(program).args(words).arg("--api").arg(api).output().unwrap()
}

pub(crate) fn said(output: &Output) -> String {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    out.into_owned()
}

pub(crate) fn policies(failing: &Value) -> Value {
    json!({"policies": [{
        "policy": "call/routing", "plugin": "route-nearest 0.1.0", "revision": "5f0c5f0c5f0c",
        "previous": null, "origin": "embedded", "calls": 7, "faults": 1, "failing": failing,
    }]})
}

#[test]
fn closed_pipe_is_no_failure() {
    let api = Api::start(vec![("GET /v1/policies", policies(&Value::Null))]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .args(["policy", "list", "--api"])
        .arg(&api.socket)
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    assert_eq!(
        (output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()),
        (Some(0), "")
    );
}

#[test]
fn control_characters_from_outside_are_escaped() {
    let room = "\u{1b}[2J\u{9b}31m\u{7f}\ns9 room";
    let session =
        json!({"id": "s1", "room": room, "scenario": "call", "ingress": "udp", "rung": 0});
    let sessions = json!({"sessions": [session]});
    let unknown = json!({"error": {"code": "not-found", "message": format!("no room {room}")}});
    let api =
        Api::start(vec![("GET /v1/sessions", sessions.clone()), ("POST /v1/rooms/", unknown)]);
    let shown = said(&evenkeel(&api.socket, &["session", "list"]));
    assert_eq!(shown.lines().count(), 1, "{shown}");
    assert!(shown.contains(r"\u001b[2J\u009b31m\u007f\ns9 room"), "{shown}");
    let shown_json = said(&evenkeel(&api.socket, &["session", "list", "--json"]));
    assert_eq!(serde_json::from_str::<Value>(&shown_json).unwrap(), sessions);
    let failed = evenkeel(&api.socket, &["room", "move", "room", "east-a1"]);
    let failed = String::from_utf8(failed.stderr).unwrap();
    for text in [&shown, &shown_json, &failed] {
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    }
}

#[test]
fn configuration_in_force_is_printed_as_toml() {
    let in_force = json!({
        "file": "evenkeel.toml", "sha256": "5f0c", "read_us": 0, "requires_restart": ["[limits]"],
        "policies": {"call": "embedded"},
        "configuration": {"limits": {"sessions": 9}, "node": [{"name": "a", "secret_file": "a.secret"}]},
    });
    let api = Api::start(vec![
        ("GET /v1/configuration ", in_force.clone()),
        ("GET /v1/status ", json!({"sessions": 0, "rooms": 0, "configuration": in_force})),
        ("GET /v1/nodes ", json!({"nodes": []})),
        ("GET /v1/policies ", json!({"policies": []})),
    ]);
    let shown = said(&evenkeel(&api.socket, &["config", "show"]));
    let tables: toml::Table = shown.parse().unwrap();
    assert_eq!(tables["node"][0]["secret_file"].as_str(), Some("a.secret"), "{shown}");
    let status = said(&evenkeel(&api.socket, &["status"]));
    for text in [&shown, &status] {
        assert!(text.contains("configuration evenkeel.toml, SHA-256 5f0c, read "), "{text}");
        assert!(text.contains(" ago; restart for [limits]"), "{text}");
    }
    assert!(shown.contains("# policy set call: embedded"), "{shown}");
}

#[test]
fn api_option_may_follow_the_verb() {
    let api = Api::start(vec![("GET /v1/policies ", policies(&Value::Null))]);
    let said = said(&evenkeel(&api.socket, &["policy", "list"]));
    assert!(said.contains("call/routing") && !said.contains("failing"), "{said}");
}

#[test]
fn unknown_name_and_refusal_differ_in_exit_code() {
    let error = |code: &str| json!({"error": {"code": code, "message": "why it is not done"}});
    let up = |node: &str| json!({"node": node, "region": "east", "rooms": 1, "health": "up"});
    let answers = vec![
        ("PUT /v1/policies/opera/routing ", error("not-found")),
        ("POST /v1/policies/opera/routing:promote ", error("not-found")),
        ("POST /v1/rooms/nosuch:move ", error("not-found")),
        ("PUT /v1/policies/call/routing ", json!({"outcome": "refused", "reason": "it traps"})),
        ("POST /v1/policies/call/routing:promote ", error("conflict")),
        ("GET /v1/status ", json!({"state": "serving"})),
        ("GET /v1/nodes ", json!({"nodes": [up("east-a1"), up("east-b1")]})),
    ];
    let api = Api::start(answers);
    let plugin = api.folder.path().join("wrong.wasm");
    std::fs::write(&plugin, "wasm").unwrap();
    let plugin = plugin.to_str().unwrap();
    let cases: [(&[&str], i32, &str); 6] = [
        (&["policy", "push", "opera/routing", plugin], 2, "why it is not done"),
        (&["policy", "promote", "opera/routing"], 2, "why it is not done"),
        (&["room", "move", "nosuch", "east-a1"], 2, "why it is not done"),
        (&["drill", "kill-node", "--node", "nosuch"], 2, "only east-a1, east-b1"),
        (&["policy", "push", "call/routing", plugin], 1, "it traps"),
        (&["policy", "promote", "call/routing"], 1, "why it is not done"),
    ];
    for (words, code, why) in cases {
        let output = evenkeel(&api.socket, words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        assert!(said.contains(why), "{words:?}: {said}");
        let output = evenkeel(&api.socket, &[words, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(code), "{words:?} --json");
        assert!(String::from_utf8_lossy(&output.stdout).contains(why), "{words:?} --json");
    }
}

#[test]
fn json_failure_is_one_object() {
    let folder = tempdir().unwrap();
    let missing = folder.path().join("socket");
    let verbs: [&[&str]; 11] = [
        &["status"],
        &["modes"],
        &["reload"],
        &["node", "drain", "east-a1"],
        &["room", "move", "r", "east-a1"],
        &["session", "list"],
        &["policy", "list"],
        &["policy", "rollback", "call/routing"],
        &["policy", "status"],
        &["policy", "promote", "call/routing"],
        &["drill", "kill-node"],
    ];
    for words in verbs {
        let output = evenkeel(&missing, &[words, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(3), "{words:?}");
        let object: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(object["error"]["code"], "no-gateway", "{object}");
        assert!(output.stderr.is_empty(), "{words:?}");
        let output = evenkeel(&missing, words);
        assert!(output.stdout.is_empty());
        assert!(String::from_utf8_lossy(&output.stderr).contains("no gateway answers"));
    }
}

#[test]
fn drill_waits_while_the_demo_starts() {
    let serving = json!({"state": "serving"});
    let answers = vec![("GET /v1/status ", serving), ("GET /v1/nodes ", json!({"nodes": []}))];
    let api = Api::start(answers);
    let rising = std::fs::File::create(api.folder.path().join("socket.rising")).unwrap();
    rising.lock().unwrap();
    let mut drill = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    drill.args(["drill", "kill-node", "--api"]).arg(&api.socket);
    let drill = drill.stderr(std::process::Stdio::piped()).spawn().unwrap();
    for _ in 0..3 {
        assert!(api.asked.recv().unwrap().contains("/v1/status"), "the demo is still starting");
    }
    drop(rising);
    let output = drill.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("no node of this gateway is up"), "{words}");
}

#[test]
fn silent_gateway_times_out() {
    let folder = tempdir().unwrap();
    let socket = folder.path().join("socket");
    let _mute = UnixListener::bind(&socket).unwrap();
    let output = evenkeel(&socket, &["status", "--timeout", "1"]);
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("did not answer within 1 s"), "{said}");
}

#[test]
fn operations_send_their_requests() {
    let cases: [(&[&str], &str, &str); 22] = [
        (
            &["node", "drain", "east-a1"],
            "POST /v1/nodes/east-a1:drain HTTP/1.1",
            "east-a1 takes no new rooms",
        ),
        (
            &["node", "drain", "east-a1", "--deadline", "60s"],
            r#"POST /v1/nodes/east-a1:drain HTTP/1.1{"deadline":"60s"}"#,
            "`evenkeel node list`",
        ),
        (
            &["node", "undrain", "east-a1"],
            "POST /v1/nodes/east-a1:undrain HTTP/1.1",
            "east-a1 takes rooms again",
        ),
        (
            &["node", "eject", "east-a1"],
            "POST /v1/nodes/east-a1:eject HTTP/1.1",
            "down until `evenkeel node uneject east-a1`",
        ),
        (
            &["node", "eject", "east-a1", "--force"],
            r#"POST /v1/nodes/east-a1:eject HTTP/1.1{"force":true}"#,
            "down until `evenkeel node uneject east-a1`",
        ),
        (
            &["node", "uneject", "east-a1"],
            "POST /v1/nodes/east-a1:uneject HTTP/1.1",
            "east-a1 is used again",
        ),
        (
            &["region", "drain", "east", "--deadline", "5m"],
            r#"POST /v1/regions/east:drain HTTP/1.1{"deadline":"5m"}"#,
            "east takes no new rooms",
        ),
        (
            &["region", "undrain", "east"],
            "POST /v1/regions/east:undrain HTTP/1.1",
            "the nodes of east take rooms again",
        ),
        (
            &["region", "failback", "auto", "east"],
            r#"POST /v1/regions/east:failback HTTP/1.1{"mode":"auto"}"#,
            "rooms of east return automatically",
        ),
        (
            &["region", "failback", "forbid", "east"],
            r#"POST /v1/regions/east:failback HTTP/1.1{"mode":"forbid"}"#,
            "rooms of east do not return",
        ),
        (
            &["region", "failback", "force"],
            r#"POST /v1/regions:failback HTTP/1.1{"mode":"force"}"#,
            "rooms of all regions return, a few per second, also",
        ),
        (
            &["breaker", "close", "--region", "east"],
            r#"POST /v1/regions/east:breaker HTTP/1.1{"mode":"closed"}"#,
            "the breaker of region east is held closed",
        ),
        (
            &["breaker", "open", "--zone", "east/a"],
            r#"POST /v1/zones/east%2Fa:breaker HTTP/1.1{"mode":"open"}"#,
            "the breaker of zone east/a is held open",
        ),
        (
            &["zone", "drain", "east/a", "--deadline", "5m"],
            r#"POST /v1/zones/east%2Fa:drain HTTP/1.1{"deadline":"5m"}"#,
            "east/a takes no new rooms",
        ),
        (
            &["zone", "undrain", "east/a"],
            "POST /v1/zones/east%2Fa:undrain HTTP/1.1",
            "the nodes of east/a take rooms again",
        ),
        (
            &["zone", "eject", "a"],
            "POST /v1/zones/a:eject HTTP/1.1",
            "down until `evenkeel zone uneject a`",
        ),
        (
            &["zone", "eject", "a", "--force"],
            r#"POST /v1/zones/a:eject HTTP/1.1{"force":true}"#,
            "down until `evenkeel zone uneject a`",
        ),
        (
            &["zone", "uneject", "east/a"],
            "POST /v1/zones/east%2Fa:uneject HTTP/1.1",
            "the nodes of east/a are used again",
        ),
        (
            &["breaker", "open", "--carrier", "a/b"],
            r#"POST /v1/clients/carrier/a%2Fb:breaker HTTP/1.1{"mode":"open"}"#,
            "the breaker of clients with carrier a/b is held open",
        ),
        (
            &["breaker", "auto", "--client-region", "eu"],
            r#"POST /v1/clients/region/eu:breaker HTTP/1.1{"mode":"auto"}"#,
            "the breaker of clients with region eu judges again",
        ),
        (
            &["room", "move", "a/b c", "east-a1"],
            r#"POST /v1/rooms/a%2Fb%20c:move HTTP/1.1{"node":"east-a1"}"#,
            "a/b c moves to east-a1 once",
        ),
        (
            &["room", "move", "conf~s7", "east-a1"],
            r#"POST /v1/rooms/conf~s7:move HTTP/1.1{"node":"east-a1"}"#,
            "`evenkeel room list`",
        ),
    ];
    let api = Api::start(vec![("POST ", Value::Null), ("DELETE ", Value::Null)]);
    for (words, right, now) in cases {
        let takes_a_while = words.contains(&"drain") || words.contains(&"move");
        let line = said(&evenkeel(&api.socket, words));
        assert!(line.contains(now) && line.lines().count() == 1, "{words:?}: {line}");
        assert_eq!(api.asked.recv().unwrap(), right);
        let json = said(&evenkeel(&api.socket, &[words, &["--json"]].concat()));
        let right = if takes_a_while { r#"{"accepted":true}"# } else { r#"{"done":true}"# };
        assert_eq!(json.trim(), right, "{words:?}");
        api.asked.recv().unwrap();
    }
    for wrong in [&["breaker", "open"][..], &["breaker", "open", "--region", "a", "--carrier", "b"]]
    {
        assert_eq!(evenkeel(&api.socket, wrong).status.code(), Some(2), "one breaker at a time");
    }
    let json = said(&evenkeel(&api.socket, &["session", "close", "s17", "--json"]));
    assert_eq!(json.trim(), r#"{"done":true}"#);
    assert_eq!(api.asked.recv().unwrap(), "DELETE /v1/sessions/s17 HTTP/1.1");
    assert_eq!(said(&evenkeel(&api.socket, &["session", "close", "s17"])), "s17 is closed\n");
}

#[test]
fn blast_of_gateway_and_policy_is_shown() {
    let blast = json!({
        "gateway": {
            "gateway": "gw-a", "role": "owner", "sessions": 2, "successor": "gw-b",
            "copied_sessions": 1, "continues": false, "reasons": ["gw-b lags"], "warnings": [],
            "scenarios": {"call": 2},
            "listeners": [{"listener": "udp", "addresses": ["192.0.2.1:5004"], "sessions": 2}],
        },
        "policies": [{
            "policy": "call/routing", "rooms": 1, "sessions": 2,
            "scenarios": {"call": {"rooms": 1, "sessions": 2}},
            "revisions": [{"arm": "active", "revision": "5f0c5f0c5f0c", "sessions": 2}],
        }],
    });
    let api = Api::start(vec![("GET /v1/blast?", blast)]);
    let losses = ["--what-if", "nodes=-1,zone=b", "--policy", "call/routing", "--gateway"];
    let output = evenkeel(&api.socket, &[&["blast"][..], &losses].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("2 sessions would end"));
    let right = "loss of gw-a, owner: 2 sessions
  udp 192.0.2.1:5004: 2 sessions
  call: 2 sessions
  gw-b holds copies of 1 sessions
  sessions would end: gw-b lags
loss of policy call/routing: the native default would decide about 1 rooms, 2 sessions
  call: 1 rooms, 2 sessions
  active 5f0c5f0c5f0c: 2 sessions
";
    assert_eq!(String::from_utf8_lossy(&output.stdout), right);
    let asked = api.asked.recv().unwrap();
    for part in ["policies=call%2Frouting", "what_if=nodes%3D-1%2Czone%3Db", "gateway= "] {
        assert!(asked.contains(part), "{asked}");
    }
}

#[test]
fn blast_that_is_not_played_is_no_loss() {
    let error = json!({"error": {"code": "standby", "message": "ask `gw-b`, the owner"}});
    let api = Api::start(vec![("GET /v1/blast?", error.clone()), ("GET /v1/zones ", error)]);
    let verbs: [&[&str]; 2] = [&["blast", "--busiest", "1"], &["risk"]];
    for words in verbs {
        let output = evenkeel(&api.socket, &[words, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(3), "{words:?}");
        let object: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(object["error"]["code"], "standby", "{object}");
    }
}

#[test]
fn partly_refused_reload_fails() {
    let refused = json!([{"policy": "call/routing", "reason": "it traps"}]);
    let answer = |refused: &Value| {
        json!({
            "added": ["east-b1"], "removed": [], "changed": [], "requires_restart": ["[limits]"],
            "refused": refused,
        })
    };
    let path = "POST /v1/configuration:reload";
    let upgraded = json!({"pid": 4711, "sessions": 2, "paused_us": 1_500});
    let upgraded = ("POST /v1/gateway:upgrade", upgraded);
    let whole = Api::start(vec![(path, answer(&json!([]))), upgraded]);
    let words = said(&evenkeel(&whole.socket, &["reload"]));
    assert!(words.contains("node east-b1 added") && !words.contains("unchanged"), "{words}");
    let replaced = "[limits] changed\nprocess 4711 serves 2 sessions; packets waited 1.5 ms\n";
    assert!(words.ends_with(replaced), "{words}");
    let same =
        json!({"added": [], "removed": [], "changed": [], "requires_restart": [], "refused": []});
    let same = Api::start(vec![(path, same)]);
    assert_eq!(said(&evenkeel(&same.socket, &["reload"])), "node list unchanged\n");
    let api = Api::start(vec![(path, answer(&refused))]);
    let output = evenkeel(&api.socket, &["reload", "--keep-process"]);
    assert_eq!(output.status.code(), Some(1));
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        out.contains("node east-b1 added") && out.contains("[limits] takes effect after a restart"),
        "{out}"
    );
    assert!(err.contains("call/routing") && err.contains("it traps"), "{err}");
    let output = evenkeel(&api.socket, &["reload", "--keep-process", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["refused"], refused);
}

#[test]
fn reload_json_has_members_of_later_versions() {
    let reloaded = json!({"added": [], "requires_restart": ["[limits]"], "later": 7});
    let upgraded = json!({"pid": 4711, "sessions": 2, "paused_us": 1_500, "later": 8});
    let api = Api::start(vec![
        ("POST /v1/configuration:reload", reloaded),
        ("POST /v1/gateway:upgrade", upgraded),
    ]);
    let printed = said(&evenkeel(&api.socket, &["reload", "--json"]));
    let expected = json!({
        "added": [], "requires_restart": [], "later": 7,
        "upgraded": {"pid": 4711, "sessions": 2, "paused_us": 1_500, "later": 8, "keys": ["[limits]"]},
    });
    assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), expected);
}

#[test]
fn waiting_gateway_names_the_takeover() {
    let gateway = |name: &str, here, role: &str| json!({"gateway": name, "here": here, "role": role, "epoch": 1, "sessions": 2});
    let mut standby = gateway("edge-2", true, "standby");
    let silent = gateway("edge-1", false, "silent");
    let list = |standby: &Value| {
        let listed = json!({"gateways": [standby, silent.clone()]});
        said(&evenkeel(&Api::start(vec![("GET ", listed)]).socket, &["gateway", "list"]))
    };
    assert_eq!(list(&standby).lines().count(), 2);
    standby["blocked"] = "edge-1 is silent: no agent answers this gateway".into();
    let lines = list(&standby);
    assert!(lines.contains(", edge-1 is silent: no agent answers this gateway"), "{lines}");
    assert!(lines.ends_with(": evenkeel gateway take-over --confirm-down edge-1\n"), "{lines}");

    let owner = json!({"gateway": "edge-2", "epoch": 2, "sessions": 1});
    let api = Api::start(vec![("POST ", owner.clone())]);
    let words = ["gateway", "take-over", "--confirm-down", "edge-1"];
    let right = "edge-2 owns the addresses in epoch 2; sessions that continue: 1\n";
    assert_eq!(said(&evenkeel(&api.socket, &words)), right);
    let asked = r#"POST /v1/gateway:take-over HTTP/1.1{"confirm_down":"edge-1"}"#;
    assert_eq!(api.asked.recv().unwrap(), asked);
    let json = said(&evenkeel(&api.socket, &[&words[..], &["--json"]].concat()));
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), owner);
    let unconfirmed = evenkeel(&api.socket, &["gateway", "take-over"]);
    assert_eq!(unconfirmed.status.code(), Some(2));
}

#[test]
fn help_explains_session_moves() {
    for (words, right) in [
        (&["room", "move", "--help"][..], "conf~s7"),
        (&["policy", "diff", "--help"], "`evenkeel room list`"),
        (&["--help"], "session List, explain and close sessions"),
        (&["session", "--help"], "room move ROOM~SESSION NODE"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_evenkeel")).args(words).output().unwrap();
        let help = String::from_utf8_lossy(&output.stdout)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        assert!(help.contains(right), "{help}");
    }
}

#[test]
fn lists_have_text_and_json() {
    let hop = json!({"node": "east-a1", "region": "east", "zone": "a", "incarnation": 1});
    let nodes = json!({"nodes": [{
        "node": "east-a1", "region": "east", "zone": "a", "carrier": "ct", "health": "up", "rooms": 3,
        "load_permille": 250, "capacity_kbps": 900, "opening": 2, "queued": 7, "draining": true, "ejected": false,
    }]});
    let regions = json!({"regions": [{
        "region": "east", "breaker": "open", "half_open_in_ms": 9_500, "failback": "auto", "nodes": 2,
        "nodes_up": 1, "nodes_draining": 0, "rooms": 3, "rooms_displaced": 4,
    }, {"region": "west", "breaker": "closed", "breaker_mode": "closed", "failback": "auto"}]});
    let zones = json!({"zones": [{
        "region": "east", "zone": "a", "nodes": 3, "nodes_up": 1, "nodes_draining": 1, "nodes_ejected": 1,
        "breaker": "open", "breaker_mode": "open", "rooms": 3, "capacity_kbps": 900, "load_permille": 250,
    }]});
    let rooms = json!({"rooms": [{
        "room": "r", "id": "r4", "scenario": "call", "sessions": ["s1", "s2"], "route": [hop],
        "hop": hop, "placed_by": "native",
    }]});
    let first = json!({"sessions": [{
        "id": "s1", "room": "r", "scenario": "call", "ingress": "udp", "hop": hop, "rung": 1,
        "cap_kbps": 44,
    }], "next": "s1"});
    let last = json!({"sessions": [{
        "id": "s2", "room": "r", "scenario": "call", "ingress": "quic", "hop": null, "rung": 0,
        "cap_kbps": null,
    }]});
    let explained = json!({
        "id": "s1", "room": "r", "scenario": "call", "mode": "hitless", "effective_mode": "hot",
        "mode_reason": "call/routing@5f0c5f0c5f0c names no usable standby", "priority": 5, "hop": hop,
        "trace_id": "4bf9",
        "health": "suspect", "witnesses": [{"witness": "probe", "for_ms": 40}],
        "decided_by": {"admission": "native", "routing": "call/routing@5f0c5f0c5f0c"},
        "route": [{"node": "east-a1", "region": "east", "grant": "admitted"}],
        "rung": 1, "cap_kbps": 44, "share_permille": 500,
        "degradation_limits": ["cap-unsupported", "no-video"],
        "candidates": [{"node": "west-b1", "region": "west", "reason": "outside-region", "load_permille": 120, "carried_permille": 70}],
        "moves": [{
            "cause": "drain", "by": "operator", "from": "east-a2", "to": "east-a1",
            "ago_ms": 9_000, "took_ms": 12, "outcome": "completed",
        }],
        "policy_answers": [{
            "hook": "degradation", "by": "call/degradation@5f0c5f0c5f0c", "reason": "lossy",
            "outcome": "guarded", "guard": "argument-out-of-bounds", "ago_ms": 2_000,
            "notes": [{"key": "loss_ppm", "value": 40_000}, {"key": "step", "value": 1}],
        }],
        "quarantined": [{
            "by": "call/routing@5f0c5f0c5f0c", "fault": "trap: unreachable", "for_ms": 7_000,
        }],
    });
    let record = |id: &str, ingress: &str, duration_ms: u64, reason: &str, moves: Value| {
        json!({
            "id": id, "room": "r 1", "scenario": "call", "ingress": ingress, "ended_us": 0,
            "duration_ms": duration_ms, "reason": reason, "moves": moves,
            "totals": {"packets_up": 7, "lost_up": 2, "packets_down": 8, "switches": 3,
                       "lost_at_switches": 1},
        })
    };
    let moves = json!({"drain": 1, "link": 2});
    let newer = record("s2", "udp", 61_250, "requested", moves);
    let newer = json!({"sessions": [newer], "next": "7", "dropped": 0});
    let older = record("s1", "quic", 8_000_000, "media-timeout", json!({}));
    let older = json!({"sessions": [older], "dropped": 0});
    let modes = json!({"modes": [{
        "mode": "hot", "scenarios": ["call", "live"], "recoveries": 9,
        "recovery_ms": {"p50": 20.4, "p99": 41.0, "max": 63.2}, "packets_lost": 12,
        "bandwidth_cost": 0.0123,
    }]});
    let api = Api::start(vec![
        ("GET /v1/nodes ", nodes.clone()),
        ("GET /v1/regions ", regions.clone()),
        ("GET /v1/zones ", zones.clone()),
        ("GET /v1/rooms ", rooms.clone()),
        ("GET /v1/sessions ", first.clone()),
        ("GET /v1/sessions?after=s1 ", last.clone()),
        ("GET /v1/sessions/s1/explain ", explained.clone()),
        ("GET /v1/sessions/history?limit=100&room=r%201 ", newer.clone()),
        ("GET /v1/sessions/history?limit=99&room=r%201&after=7 ", older.clone()),
        ("GET /v1/modes ", modes.clone()),
    ]);
    let both = json!({"sessions": [first["sessions"][0], last["sessions"][0]]});
    let ended = json!({"sessions": [newer["sessions"][0], older["sessions"][0]]});
    let cases: [(&[&str], Value, &[&str]); 8] = [
        (
            &["zone", "list"],
            zones,
            &[
                "east/a",
                "breaker open, held by an operator, 1 of 3 nodes take rooms, 3 rooms",
                "25 % of 900 kbit/s, 1 draining, 1 ejected",
            ],
        ),
        (&["modes"], modes, &["recoveries", "20.4", "+1.2 %", "call, live"]),
        (
            &["node", "list"],
            nodes,
            &["east/a", "25 % of 900 kbit/s, carrier ct", "opening 2, 7 queued, draining"],
        ),
        (
            &["region", "list"],
            regions,
            &[
                "breaker open for 10 s",
                "1 of 2 nodes",
                "4 displaced",
                "breaker closed, held by an operator,",
            ],
        ),
        (&["room", "list"], rooms, &["r4     call", "2 sessions at east-a1", "placed by native"]),
        (&["session", "list"], both, &["rung 1, capped at 44 kbit/s", "quic at no node"]),
        (
            &["session", "history", "--room", "r 1"],
            ended,
            &[
                "udp for 61 s, ended ",
                "ago: requested; 7 packets up, 2 lost before; 8 down, 1 lost at 3 switches; \
                 moved: drain 1, link 2\n",
                "quic for 2 h, ended ",
                "media-timeout; 7 packets up, 2 lost before; 8 down, 1 lost at 3 switches\n",
            ],
        ),
        (
            &["session", "explain", "s1"],
            explained,
            &[
                "scenario call (hitless), priority 5",
                "runs in hot mode: call/routing@5f0c5f0c5f0c names no usable standby",
                "trace ID 4bf9",
                "at east-a1, which is suspect",
                "accused by probe for 40 ms",
                "routing decided by call/routing@5f0c5f0c5f0c",
                "for lack of capacity",
                "limited: no cap, since no `feedback` of an offer has `remb` or `tmmbr`; there is no video",
                "degradation: lossy (guarded by argument-out-of-bounds 2 s ago, \
                 call/degradation@5f0c5f0c5f0c): loss_ppm 40000, step 1",
                "quarantined by call/routing@5f0c5f0c5f0c: trap: unreachable",
                "not west-b1 (west): outside-region, 12 % load, 7 % without reserves",
                "moved 9 s ago from east-a2 to east-a1: drain, by operator, completed after 12 ms",
            ],
        ),
    ];
    for (words, right, shown) in cases {
        let text = said(&evenkeel(&api.socket, words));
        assert!(shown.iter().all(|words| text.contains(words)), "{text}");
        let json = said(&evenkeel(&api.socket, &[words, &["--json"]].concat()));
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), right);
    }
}

#[test]
fn failures_beyond_the_limit_are_told() {
    for truncated in [true, false] {
        let failure = json!({"at_us": 1, "cause": "takeover", "outcome": "continued"});
        let answer = json!({"failures": [failure], "truncated": truncated});
        let api = Api::start(vec![("GET /v1/failures?limit=100", answer)]);
        let output = evenkeel(&api.socket, &["failures"]);
        assert!(said(&output).contains(" takeover: 0 sessions, continued"));
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(error.contains("older failures match, too"), truncated, "{error}");
    }
}
