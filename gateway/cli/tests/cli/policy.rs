//! Policies as commands show and replace them; the test plays the gateway.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use evenkeel_lab::process::ChildProcess;
use serde_json::{Value, json};

use crate::api::{Api, evenkeel, policies, said};

/// Enough for a loaded machine.
const WITHIN: Duration = Duration::from_secs(60);

#[test]
fn push_takes_settings_from_a_file() {
    let activated = json!({"outcome": "activated", "policy": "call/routing", "revision": "5f0c"});
    let api = Api::start(vec![("PUT /v1/policies/call/routing?settings=", activated)]);
    let plugin = api.folder.path().join("plugin.wasm");
    std::fs::write(&plugin, "wasm").unwrap();
    for (name, text) in [("settings.toml", "a = 1"), ("settings.json", r#"{"a": 1}"#)] {
        let settings = api.folder.path().join(name);
        std::fs::write(&settings, text).unwrap();
        let words = ["policy", "push", "call/routing", plugin.to_str().unwrap(), "--settings"];
        let words = [&words[..], &[settings.to_str().unwrap()]].concat();
        said(&evenkeel(&api.socket, &words));
        let asked = api.asked.recv().unwrap();
        assert!(asked.contains("?settings=%7B%22a%22%3A1%7D HTTP/1.1"), "{asked}");
        assert!(asked.ends_with("wasm"), "{asked}");
    }
    let words = ["policy", "push", "call/routing", plugin.to_str().unwrap(), "--settings", "none"];
    assert_eq!(evenkeel(&api.socket, &words).status.code(), Some(2));
}

#[test]
fn push_prints_steps_and_next_step() {
    let begun = json!({
        "outcome": "started", "policy": "call/routing", "revision": "5f0c", "stage": "canary",
        "percent": 5, "paused": false, "next_percent": 25, "next_in_ms": 10_000,
        "reason": "ends the rollout of revision 1234, canary at 5 %",
    });
    let shadowed = json!({
        "outcome": "started", "policy": "call/routing", "revision": "5f0c", "stage": "shadow",
        "percent": 0, "paused": false, "next_percent": 5,
    });
    let paused = json!({
        "outcome": "paused", "policy": "call/routing", "revision": "5f0c", "stage": "canary",
        "percent": 5, "paused": true, "next_percent": 25,
    });
    let answers = vec![
        ("PUT /v1/policies/call/routing?shadow=", shadowed),
        ("PUT /v1/policies/call/routing?", begun),
        ("POST /v1/policies/call/routing:pause ", paused.clone()),
        ("POST /v1/policies/call/routing:promote-all ", paused.clone()),
        ("POST /v1/policies/call/routing:rollback?force=true ", paused),
    ];
    let api = Api::start(answers);
    let plugin = api.folder.path().join("steps.wasm");
    std::fs::write(&plugin, "wasm").unwrap();
    let push = |words: &[&str]| {
        let push = ["policy", "push", "call/routing", plugin.to_str().unwrap()];
        evenkeel(&api.socket, &[&push[..], words].concat())
    };
    let begun = said(&push(&["--canary", "5,25", "--pace", "10s", "--force", "--replace"]));
    assert!(begun.contains("\n  ends the rollout of revision 1234"), "{begun}");
    assert!(
        begun.contains(
            "started, revision 5f0c canary at 5 %; 25 % in 10 s or later unless it regresses"
        ),
        "{begun}"
    );
    assert!(begun.contains("unless it regresses, and so on to 100 %"), "{begun}");
    let asked = api.asked.recv().unwrap();
    assert!(asked.contains("?canary=5%2C25&pace=10s&force=true&replace=true HTTP/1.1"), "{asked}");
    assert_eq!(push(&["--now", "--canary", "5"]).status.code(), Some(2), "either");
    let shadow = ["policy", "shadow", "call/routing", plugin.to_str().unwrap()];
    let shadowed = said(&evenkeel(&api.socket, &shadow));
    assert!(shadowed.contains("in shadow; waits for `evenkeel policy promote`"));
    assert!(api.asked.recv().unwrap().contains("?shadow=true HTTP/1.1"));
    let paused = said(&evenkeel(&api.socket, &["policy", "pause", "call/routing"]));
    assert!(paused.ends_with("canary at 5 %, paused\n"), "{paused}");
    said(&evenkeel(&api.socket, &["policy", "promote", "call/routing", "--all"]));
    said(&evenkeel(&api.socket, &["policy", "rollback", "call/routing", "--force"]));
}

#[test]
fn policy_status_shows_revisions_and_canary() {
    let cohort = |loss: f64, worse: u32, of: u32| {
        json!({
            "sessions": of, "rooms": 0, "loss_percent": loss, "r_factor": null, "rung": 0.0,
            "worse": {"loss": {"worse": worse, "of": of}, "gap": {"worse": 0, "of": of}},
        })
    };
    let policies = json!({"policies": [{
        "policy": "call/degradation", "plugin": "calm 1.0.0", "revision": "aaaa", "previous": "0000",
        "rollback_window_ms": 61_000, "origin": "embedded", "calls": 9, "faults": 0, "late": 2, "failing": null,
        "desired": "bbbb", "preparing_ms": 4_200,
        "rollout": {
            "revision": "bbbb", "plugin": "calm 2.0.0", "origin": "pushed", "stage": "canary",
            "percent": 50, "paused": false, "lasted_ms": 3_000, "steps": [5, 50], "pace_ms": 10_000,
            "next_percent": 100, "next_in_ms": 7_000,
            "calls": 3, "faults": 1, "last_fault": "deadline", "shadow": {"same": 7, "different": 2, "faulted": 0},
            "cohorts": {"canary": cohort(12.0, 4, 10), "active": cohort(0.5, 0, 190)},
        },
        "last_rollout": {"outcome": "started", "by": "operator"},
        "quarantined_revisions": [{"revision": "cccc", "since_us": 7, "reason": "rung: 9 of 10 got worse"}],
        "revoked_revisions": [{"revision": "aaaa", "reason": "key `ops`"}],
    }]});
    let api = Api::start(vec![("GET /v1/policies ", policies.clone())]);
    let words = said(&evenkeel(&api.socket, &["policy", "status", "degradation"]));
    for right in [
        "call/degradation: aaaa (calm 1.0.0, embedded), 9 calls, 0 faults; 2 questions were not answered in time: on_fault decided\n",
        "preparing: a new revision has been compiled and proved for 4 s",
        "previous: 0000, available for rollback, for 61 s more",
        "rollout: bbbb (calm 2.0.0, pushed), canary at 50 % for 3 s of at least 10 s; steps 5, 50 %; \
         100 % in 7 s or later unless it regresses\n",
        "shadow answers: 7 equal, 2 different, 0 failed",
        "canary: 3 calls, 1 faults\n    last fault: deadline",
        "canary: 10 sessions, 0 rooms; loss 12.0 %, R unknown, rung 0.0; worse: loss 4 of 10",
        "active: 190 sessions",
        "last: started by operator",
        "ago, until a push with --force: cccc: rung: 9 of 10 got worse",
        "revoked: aaaa: key `ops`",
    ] {
        assert!(words.contains(right), "{right} is not in\n{words}");
    }
    let shown = evenkeel(&api.socket, &["policy", "status", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&said(&shown)).unwrap(), policies);
    let unknown = evenkeel(&api.socket, &["policy", "status", "opera/routing"]);
    assert_eq!(unknown.status.code(), Some(2));
}

#[test]
fn policy_status_tells_what_a_rollout_waits_for() {
    let status = |next_in_ms: u64, count: u64| {
        let policies = json!({"policies": [{
            "policy": "call/degradation", "plugin": "calm 1.0.0", "revision": "aaaa",
            "rollout": {
                "revision": "bbbb", "stage": "canary", "percent": 5, "pace_ms": 8_000,
                "next_percent": 50, "next_in_ms": next_in_ms,
                "judged": {"of": "sessions", "count": count, "required": 20},
            },
        }]});
        let api = Api::start(vec![("GET /v1/policies ", policies)]);
        said(&evenkeel(&api.socket, &["policy", "status"]))
    };
    let waits = "8 s are over; waiting for 20 judged sessions, 12 so far";
    assert!(status(0, 12).contains(waits), "{}", status(0, 12));
    for (next_in_ms, count) in [(3_000, 12), (0, 20)] {
        assert!(!status(next_in_ms, count).contains("waiting"), "{next_in_ms} {count}");
    }
}

#[test]
fn policy_status_shows_last_and_current_fault() {
    let still = json!("trap: unreachable");
    for (failing, right) in [
        (Value::Null, "7 calls, 1 faults, last fault: trap: unreachable\n"),
        (still.clone(), "7 calls, 1 faults, failing: trap: unreachable\n"),
    ] {
        let mut shown = policies(&failing);
        shown["policies"][0]["last_fault"] = still.clone();
        let api = Api::start(vec![("GET /v1/policies ", shown)]);
        let words = said(&evenkeel(&api.socket, &["policy", "status"]));
        assert!(words.contains(right), "{words}");
    }
}

/// Develops a shipped plugin in shadow of `call/routing`. Returns the command and the plugin's file.
fn develop(api: &Api) -> (ChildProcess, PathBuf) {
    let plugin = api.folder.path().join("mine.wasm");
    let shipped = evenkeel_host::shipped().iter().find(|plugin| plugin.name == "route-nearest");
    std::fs::write(&plugin, shipped.unwrap().bytes).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.args([
        "plugin",
        "dev",
        "--worlds",
        "2",
        "--push",
        "call/routing",
        "--shadow",
        "--json",
    ]);
    command.arg(&plugin).arg("--api").arg(&api.socket);
    let dev = ChildProcess::start("dev", &mut command, api.folder.path()).unwrap();
    (dev.with_grace(WITHIN), plugin)
}

#[test]
fn developed_plugin_is_compared_in_shadow_and_withdrawn() {
    let rollout = |outcome: &str| json!({"outcome": outcome, "policy": "call/routing", "revision": "5f0c5f0c5f0c", "stage": "shadow"});
    let shadow = json!({"same": 7, "different": 0, "faulted": 0});
    let running = json!({"revision": "5f0c5f0c5f0c", "stage": "shadow", "shadow": shadow});
    let api = Api::start(vec![
        ("PUT /v1/policies/call/routing?shadow=true ", rollout("started")),
        (
            "GET /v1/policies ",
            json!({"policies": [{"policy": "call/routing", "rollout": running}]}),
        ),
        ("POST /v1/policies/call/routing:abort ", rollout("aborted")),
    ]);
    let (mut dev, plugin) = develop(&api);
    let built = dev.json_line(WITHIN).unwrap();
    assert_eq!((&built["passed"], &built["plugin"]), (&json!(true), &json!(plugin)));
    assert_eq!(dev.json_line(WITHIN).unwrap(), rollout("started"));
    assert_eq!(dev.json_line(WITHIN).unwrap()["shadow"], shadow);
    std::fs::write(&plugin, "Dear author,").unwrap();
    let failed = dev.json_line(WITHIN).unwrap();
    assert!(failed["error"]["message"].as_str().unwrap().contains("not WebAssembly"), "{failed}");
    // The command ends with a signal.
    drop(dev);
    let last = api.asked.try_iter().last().unwrap();
    assert!(last.starts_with("POST /v1/policies/call/routing:abort "), "{last}");
}

#[test]
fn refusal_of_the_api_is_shown_during_development() {
    let started = json!({"outcome": "started", "revision": "5f0c5f0c5f0c", "stage": "shadow"});
    let reason = "no gateway of the group owns its addresses at present";
    let api = Api::start(vec![
        ("PUT /v1/policies/call/routing?shadow=true ", started.clone()),
        ("GET /v1/policies ", json!({"error": {"code": "standby", "message": reason}})),
    ]);
    let (mut dev, plugin) = develop(&api);
    assert_eq!(dev.json_line(WITHIN).unwrap()["passed"], true);
    assert_eq!(dev.json_line(WITHIN).unwrap(), started);
    let refused = dev.json_line(WITHIN).unwrap();
    assert_eq!(refused["error"]["code"], "standby");
    assert!(refused["error"]["message"].as_str().unwrap().ends_with(reason), "{refused}");
    std::fs::write(&plugin, "Dear author,").unwrap();
    assert_eq!(dev.json_line(WITHIN).unwrap()["error"]["code"], "failed", "it goes on");
}

#[test]
fn push_that_may_be_forgotten_says_that_it_runs() {
    let error = json!({"code": "unconfirmed", "message": "executed, but not written to the disk"});
    let started = json!({
        "outcome": "started", "policy": "call/routing", "revision": "5f0c", "stage": "canary",
        "percent": 5, "paused": false, "next_percent": 25, "error": error,
    });
    let continues = json!({"error": {"code": "unconfirmed", "message": "the push continues"}});
    let answers = vec![
        ("PUT /v1/policies/call/routing?", started),
        ("PUT /v1/policies/call/routing ", continues.clone()),
        ("POST /v1/policies/call/routing:pause ", continues),
    ];
    let api = Api::start(answers);
    let plugin = api.folder.path().join("plugin.wasm");
    std::fs::write(&plugin, "wasm").unwrap();
    let push = ["policy", "push", "call/routing", plugin.to_str().unwrap()];
    let canary = [&push[..], &["--canary", "5,25"]].concat();
    let cases: [(&[&str], &str, &str); 3] = [
        (&canary, "call/routing: started, revision 5f0c", "executed, but not written to the disk"),
        (&push, "", "the push continues"),
        (&["policy", "pause", "call/routing"], "", "the push continues"),
    ];
    for (words, out, error) in cases {
        let output = evenkeel(&api.socket, words);
        let [said, failed] =
            [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it).into_owned());
        assert_eq!(output.status.code(), Some(4), "{words:?}: {failed}");
        assert!(said.starts_with(out) && said.is_empty() == out.is_empty(), "{words:?}: {said}");
        assert!(failed.contains(error) && !failed.contains("nothing changed"), "{failed}");
        let output = evenkeel(&api.socket, &[words, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(4), "{words:?} --json");
        let object: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(object["error"]["code"], "unconfirmed", "{object}");
    }
}
