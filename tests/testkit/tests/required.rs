//! A test that lacks what it needs fails when it runs.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Command;

use evenkeel_testkit::required;

#[required(Setpriv)]
#[test]
fn needs_setpriv() {}

#[test]
fn test_that_lacks_a_program_fails_by_its_name() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "needs_setpriv", "--include-ignored"]).env("PATH", "/nowhere");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(101), "{text}");
    assert!(text.contains("needs_setpriv ... FAILED"), "{text}");
    assert!(text.contains("needs setpriv (util-linux)"), "{text}");
}

#[test]
#[ignore = "started by the other tests"]
fn measures_nothing() {
    evenkeel_testkit::figure("gap_max", 612.5);
    evenkeel_testkit::client("Pion 3.1.56-2");
    evenkeel_testkit::not_measured("the machine is busy");
}

#[test]
fn closing_lines_name_what_was_not_measured() {
    let folder = tempfile::tempdir().unwrap();
    let figures = folder.path().join("figures");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../run");
    let mut command = Command::new(script);
    command.arg(std::env::current_exe().unwrap()).args([
        "--exact",
        "measures_nothing",
        "--ignored",
    ]);
    let output = command.env("EVENKEEL_FIGURES", &figures).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let closing = "not measured: 1\n    measures_nothing: the machine is busy\n";
    assert!(text.ends_with(closing), "{text}");
    let kept = std::fs::read_to_string(figures).unwrap();
    let begins = "measures_nothing\tgap_max\t612.5\nmeasures_nothing\tclient\tPion 3.1.56-2\n";
    assert!(kept.starts_with(begins), "{kept}");
}
