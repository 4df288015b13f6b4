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
