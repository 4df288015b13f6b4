//! Drills at a demo, all as processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use evenkeel_client::Rising;
use evenkeel_lab::process::ChildProcess;
use serde_json::Value;

/// Enough for a loaded machine.
pub(crate) const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// A home folder, removed with the test.
pub(crate) struct Home(PathBuf);

impl Home {
    pub(crate) fn new(name: &str) -> Home {
        let path = std::env::temp_dir().join(format!("ek-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Home(path)
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        command.args(words).env("HOME", &self.0).env("XDG_RUNTIME_DIR", &self.0);
        command.env_remove("XDG_STATE_HOME").env_remove("EVENKEEL_API");
        command
    }

    pub(crate) fn evenkeel(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn wait_for_file(path: &Path, demo: &mut ChildProcess) {
    let by = Instant::now() + STARTS_WITHIN;
    while !path.exists() {
        assert!(Instant::now() < by, "{} is missing after {STARTS_WITHIN:?}", path.display());
        assert!(demo.is_running(), "the demo ended before it wrote {}", path.display());
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn drill_without_gateway_names_the_demo() {
    let home = Home::new("none");
    let output = home.evenkeel(&["drill", "kill-node"]);
    let words = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{words}");
    assert!(words.contains("`evenkeel demo --serve`"), "{words}");
    let output = home.evenkeel(&["drill", "list", "--json"]);
    assert_eq!((output.status.code(), text(&output.stdout).trim()), (Some(0), "[]"));
}

#[test]
fn drill_and_call_wait_for_the_demo_and_report() {
    let home = Home::new("world");
    let mut command = home.command(&["demo", "--serve", "--sessions", "20", "--json"]);
    // The demo ends its nodes itself after SIGTERM.
    let mut demo =
        ChildProcess::start("demo", &mut command, &home.0).unwrap().with_grace(STARTS_WITHIN);
    // The demo writes this file, and locks it, before its gateway listens.
    wait_for_file(&home.path("evenkeel.sock.rising"), &mut demo);
    let until = Instant::now() + STARTS_WITHIN;
    while !Rising::is_at(&home.path("evenkeel.sock")) {
        assert!(Instant::now() < until, "the demo does not lock the file");
        thread::park_timeout(Duration::from_millis(10));
    }
    call_is_answered(&home);
    let output = home.evenkeel(&["drill", "kill-node", "--sessions", "40", "--json"]);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();

    let started = demo.json_line(STARTS_WITHIN).unwrap();
    let mut nodes = started["nodes"].as_array().unwrap().iter();
    assert!(nodes.any(|node| *node == report["nodes"][0]), "{started} {report}");

    for ranks in [&report["gap_ms"], &report["detect_ms"]] {
        assert!(
            ["p50", "p90", "p99", "max"].iter().all(|rank| ranks[rank].is_number()),
            "{report}"
        );
        assert!(ranks["n"].as_u64().unwrap() > 0, "{report}");
    }
    assert!(report["packets_lost"].is_u64(), "{report}");
    let witnesses = report["by_witness"].as_object().unwrap();
    assert!(!witnesses.is_empty() && witnesses.values().all(|ms| ms["n"].as_u64() > Some(0)));

    let listed = home.evenkeel(&["drill", "list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed, Value::from(vec![report]));
}

fn call_is_answered(home: &Home) {
    let words = ["call", "--label", "tenant=gold", "--sessions", "3", "--seconds", "1", "--json"];
    let output = home.evenkeel(&words);
    let lines = text(&output.stdout);
    assert!(output.status.success(), "{lines}{}", text(&output.stderr));
    let mut lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    assert!(lines.next().unwrap()["state"]["node"].is_string());
    let last = lines.next_back().unwrap();
    let packets = |session: usize, key: &str| last["sessions"][session][key].as_u64().unwrap();
    assert_eq!(last["sessions"].as_array().unwrap().len(), 3);
    assert!(packets(0, "packets_sent") > 0 && packets(1, "packets_sent") == 0, "{last}");
    assert!(packets(1, "packets_received") > 0 && packets(2, "packets_received") > 0, "{last}");
}
