//! `evenkeel plugin` as a command: its output, and its errors for wrong arguments or missing tools.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::tempdir;

fn typed(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.arg("plugin").args(arguments).current_dir(folder);
    command
}

fn evenkeel(folder: &Path, arguments: &[&str]) -> Output {
    typed(folder, arguments).output().unwrap()
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{}", error(output)))
}

/// A valid plugin, one of those shipped.
fn plugin(folder: &Path) -> PathBuf {
    let shipped = evenkeel_host::shipped().iter().find(|plugin| plugin.name == "route-nearest");
    let path = folder.join("route-nearest.wasm");
    fs::write(&path, shipped.unwrap().bytes).unwrap();
    path
}

#[test]
fn new_project_names_the_next_commands() {
    let folder = tempdir().unwrap();
    let output = evenkeel(folder.path(), &["new", "--hook", "routing", "my-route"]);
    assert!(output.status.success(), "{}", error(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("cd my-route\n    cargo test\n    evenkeel plugin build"), "{said}");
    assert!(folder.path().join("my-route/src/lib.rs").is_file());
    let in_c = ["new", "--hook", "scenario", "--lang", "c", "other", "--json"];
    let output = json(&evenkeel(folder.path(), &in_c));
    assert_eq!((&output["hook"], &output["language"]), (&"scenario".into(), &"c".into()));
    assert!(folder.path().join("other/policy.c").is_file());
}

#[test]
fn inspect_test_and_bench_print_json() {
    let folder = tempdir().unwrap();
    let plugin = plugin(folder.path());
    let file = plugin.to_str().unwrap();
    let shown = json(&evenkeel(folder.path(), &["inspect", file, "--json"]));
    assert_eq!((&shown["name"], &shown["refused"]), (&"route-nearest".into(), &Value::Null));
    let tried = json(&evenkeel(folder.path(), &["test", file, "--worlds", "3", "--json"]));
    assert_eq!((&tried["passed"], &tried["worlds"]), (&true.into(), &3.into()));
    fs::write(folder.path().join("s.toml"), "spares = 1").unwrap();
    let bench = ["bench", file, "--settings", "s.toml", "--json"];
    let measured = json(&evenkeel(folder.path(), &bench));
    assert_eq!(
        (&measured["calls"][0]["call"], &measured["calls"][0]["rows"]),
        (&"place".into(), &10.into())
    );
}

#[test]
fn cases_are_asked_and_tested() {
    let folder = tempdir().unwrap();
    let plugin = plugin(folder.path());
    let file = plugin.to_str().unwrap();
    let question = r#"{"nodes": [{"name": "a", "delay": 900, "health": "up"}]}"#;
    fs::write(folder.path().join("question.json"), question).unwrap();
    let shown =
        json(&evenkeel(folder.path(), &["ask", file, "--input", "question.json", "--json"]));
    let answer = &shown["answers"][0];
    assert_eq!((&answer["call"], &answer["answer"]["hops"][0]), (&"place".into(), &"a".into()));

    fs::create_dir(folder.path().join("tests")).unwrap();
    let expecting = |hop: &str| {
        let nodes = "nodes = [{ name = \"a\", delay = 900, health = \"up\" }]";
        let text = format!("{nodes}\nexpect = {{ hops = [\"{hop}\"] }}");
        fs::write(folder.path().join("tests/one.toml"), text).unwrap();
        evenkeel(folder.path(), &["test", file, "--worlds", "1", "--json"])
    };
    assert_eq!(json(&expecting("a"))["cases"]["passed"], true);
    let counted = ["test", file, "--worlds", "1", "--coverage", "--json"];
    let counted = json(&evenkeel(folder.path(), &counted));
    assert!(counted["coverage"]["reached"].as_u64() > Some(0), "{counted}");
    let sampled = ["profile", file, "--samples", "5", "--out", "flames.svg", "--json"];
    let sampled = json(&evenkeel(folder.path(), &sampled));
    assert!(sampled["samples"].as_u64() >= Some(5), "{sampled}");
    assert!(fs::read_to_string(folder.path().join("flames.svg")).unwrap().starts_with("<svg"));
    let failed = expecting("b");
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!(
        (&json(&failed)["passed"], &json(&failed)["cases"]["questions"]),
        (&false.into(), &1.into())
    );
}

#[test]
fn wrong_arguments_name_the_right_ones() {
    let folder = tempdir().unwrap();
    let wrong = |arguments: &[&str], code: i32, words: &str| {
        let output = evenkeel(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", error(&output));
        assert!(error(&output).contains(words), "{arguments:?}: {}", error(&output));
    };
    wrong(&["new", "--hook", "routing", "My_Route"], 2, "lower-case letters, digits and hyphens");
    wrong(&["new", "--hook", "routing", "syn"], 2, "is a dependency");
    wrong(&["new", "--hook", "rooting", "my-route"], 2, "routing");
    let in_javascript = ["new", "--hook", "routing", "--lang", "js", "my-route"];
    wrong(&in_javascript, 2, "for the hook degradation only, not for routing");
    fs::create_dir(folder.path().join("mine")).unwrap();
    wrong(&["new", "--hook", "routing", "mine"], 2, "exists already; nothing was changed");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was written");

    for verb in ["build", "test"] {
        wrong(&[verb], 2, "there is no project in .");
        wrong(&[verb, "--path", "nowhere"], 2, "there is no project in nowhere");
    }
    wrong(&["bench", "nothing.wasm"], 2, "cannot read nothing.wasm");
    wrong(&["test", "nothing.wasm", "--cases", "nowhere"], 2, "cannot read nothing.wasm");
    wrong(&["record-to-case", "nothing.ekr"], 2, "--session");
    wrong(&["record-to-case", "nothing.ekr", "--session", "seven"], 2, "a number such as `s7`");
    wrong(&["record-to-case", "nothing.ekr", "--room", "r4"], 2, "cannot read nothing.ekr");
    fs::write(folder.path().join("letter.wasm"), "Dear author,").unwrap();
    for verb in ["bench", "test", "inspect"] {
        wrong(&[verb, "letter.wasm"], 1, "not WebAssembly");
    }
    let shown = evenkeel(folder.path(), &["inspect", "letter.wasm", "--json"]);
    assert_eq!((shown.status.code(), &json(&shown)["bytes"]), (Some(1), &12.into()));
    let plugin = plugin(folder.path());
    fs::write(folder.path().join("s.json"), r#"{"spares": 4}"#).unwrap();
    let file = plugin.to_str().unwrap();
    wrong(&["test", file, "--settings", "s.json"], 1, "at most 3");
    fs::write(folder.path().join("s.json"), "min_stay = 5").unwrap();
    wrong(
        &["test", file, "--settings", "s.json"],
        1,
        "should be a duration such as \"5s\", found 5",
    );
    wrong(&["test", file, "--worlds", "1", "--cases", "nowhere"], 2, "there is no folder nowhere");
}

#[test]
fn older_version_is_read() {
    let folder = tempdir().unwrap();
    let plugin = plugin(folder.path());
    let file = plugin.to_str().unwrap();
    let same = evenkeel(folder.path(), &["test", file, "--worlds", "1", "--from", file, "--json"]);
    let shown = json(&same);
    assert_eq!((&shown["passed"], &shown["unread_states"]), (&true.into(), &Value::Null));
}

#[test]
fn missing_tools_name_their_installation() {
    let folder = tempdir().unwrap();
    let new = evenkeel(folder.path(), &["new", "--hook", "scenario", "mine"]);
    assert!(new.status.success());
    let without = |variable: &str, program: &str| {
        let mut build = typed(&folder.path().join("mine"), &["build"]);
        let output = build.env(variable, program).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        error(&output)
    };
    assert!(without("RUSTC", "/nowhere/at-all").contains("https://rustup.rs"));
    assert!(without("CARGO", "/nowhere/at-all").contains("https://rustup.rs"));
    let said = without("RUSTC", "false");
    assert!(said.contains("run `rustup target add wasm32-unknown-unknown`"), "{said}");
    for (language, name) in [("c", "in-c"), ("js", "in-js")] {
        let new = ["new", "--hook", "degradation", "--lang", language, name];
        assert!(evenkeel(folder.path(), &new).status.success());
    }
    let mut build = typed(&folder.path().join("in-c"), &["build"]);
    let said = error(&build.env("CLANG", "/nowhere/at-all").output().unwrap());
    assert!(said.contains("cannot run /nowhere/at-all") && said.contains("wasm-ld"), "{said}");
    let said = error(&evenkeel(&folder.path().join("in-js"), &["build"]));
    assert!(said.contains("run `npm ci` there"), "{said}");
}
