//! A newcomer's first policy, from an empty folder to a canary at a demo, in each language.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::required;
use serde_json::Value;

use crate::drill::{Home, STARTS_WITHIN, text};

/// The first steps in a language.
struct FirstSteps {
    language: &'static str,
    /// A change that a test of the project notices: file, text and new text.
    change: [&'static str; 3],
    /// The change that makes the tests pass again.
    repair: [&'static str; 3],
}

/// An empty folder outside of this repository, with the same name in each run, so that cargo compiles less.
fn projects(language: &str) -> PathBuf {
    let checkout = env!("CARGO_MANIFEST_DIR").replace('/', "-");
    let folder = std::env::temp_dir().join(format!("evenkeel-newcomer{checkout}-{language}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs a command in a folder, with the environment of this test. Projects in Rust have the gateway's dependencies.
fn evenkeel(folder: &Path, words: &[&str]) -> Output {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("author");
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.args(words).current_dir(folder);
    command.env("CARGO_TARGET_DIR", target).env("CARGO_NET_OFFLINE", "true").output().unwrap()
}

fn passed(output: &Output) -> String {
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{error}");
    out
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&passed(output)).unwrap()
}

fn edit(project: &Path, [file, from, to]: [&str; 3]) {
    let path = project.join(file);
    let before = fs::read_to_string(&path).unwrap();
    let after = before.replace(from, to);
    assert_ne!(after, before, "{file} has {from}");
    fs::write(path, after).unwrap();
}

impl FirstSteps {
    /// Writes, tests, pushes and compares a policy.
    fn take(self) {
        let FirstSteps { language, change, repair } = self;
        let home = Home::new(&format!("newcomer-{language}"));
        let mut command = home.command(&["demo", "--serve", "--sessions", "20", "--json"]);
        let demo = ChildProcess::start("demo", &mut command, &home.path("")).unwrap();
        let mut demo = demo.with_grace(STARTS_WITHIN);
        demo.json_line(STARTS_WITHIN).unwrap();
        let projects = projects(language);
        let name = format!("first-{language}");
        let new = ["plugin", "new", "--lang", language, "--hook", "degradation", &name];
        passed(&evenkeel(&projects, &new));
        let project = projects.join(&name);
        edit(&project, change);
        let failed = evenkeel(&project, &["plugin", "test", "--worlds", "2"]);
        assert_eq!(failed.status.code(), Some(1), "{}", text(&failed.stderr));
        edit(&project, repair);
        passed(&evenkeel(&project, &["plugin", "test", "--worlds", "2"]));
        passed(&evenkeel(&project, &["plugin", "build"]));

        let plugin = project.join(format!("{name}.wasm")).display().to_string();
        let policy = "call/degradation";
        let push = ["policy", "push", policy, &plugin, "--canary", "50", "--json"];
        assert_eq!(json(&home.evenkeel(&push))["outcome"], "started");
        let rollback = ["policy", "rollback", policy, "--json"];
        assert_eq!(json(&home.evenkeel(&rollback))["outcome"], "rolled-back");

        let recording = home.path("calls.ekr").display().to_string();
        let record =
            ["policy", "record", "--seconds", "1", "--policy", policy, "--out", &recording];
        passed(&home.evenkeel(&record));
        let diff = ["policy", "diff", &recording, "degrade-ladder", &plugin, "--json"];
        let compared = json(&home.evenkeel(&diff));
        assert!(compared["calls"].as_u64() > Some(0), "{compared}");
    }
}

#[required(Clang)]
#[test]
fn first_policy_in_c_reaches_a_canary() {
    let steps = FirstSteps {
        language: "c",
        change: ["policy.c", "TICKS = 3", "TICKS = 2"],
        repair: ["tests/degradation.toml", "times = 2", "times = 1"],
    };
    steps.take();
}

#[test]
fn first_policy_in_rust_reaches_a_canary() {
    let steps = FirstSteps {
        language: "rust",
        change: ["src/lib.rs", "default = 3, min = 1", "default = 2, min = 1"],
        repair: ["src/lib.rs", "default = 2, min = 1", "default = 3, min = 1"],
    };
    steps.take();
}
