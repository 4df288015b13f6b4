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
#[ignore = "started by the other tests"]
fn panics_with_many_lines() {
    println!("said before");
    panic!("first\n\n{}", (2..20).map(|line| format!("line {line}\n")).collect::<String>());
}

/// The closing lines of `tests/run` for a command, from the failed tests on.
fn failed_tests(program: &std::path::Path, arguments: &[&str]) -> Vec<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../run");
    let output = Command::new(script).arg(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().skip_while(|line| !line.starts_with("failed tests: "));
    lines.map(str::to_owned).collect()
}

#[test]
fn closing_lines_have_the_panics_of_failed_tests() {
    let this = std::env::current_exe().unwrap();
    let closing = failed_tests(&this, &["--exact", "panics_with_many_lines", "--ignored"]);
    assert_eq!(closing[..2], ["failed tests: 1", "  panics_with_many_lines"]);
    assert!(closing[2].contains("panicked at "), "{closing:?}");
    assert_eq!(closing[3..5], ["    first", "    line 2"]);
    assert_eq!(closing.len(), 2 + 12, "{closing:?}");
    assert_eq!(failed_tests(&this, &["--exact", "needs_nothing"]), [""; 0]);
}

#[test]
fn closing_lines_of_failed_tests_are_at_most_80() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let section = |test: u32| {
        let output = "Error: no such file\n".repeat(test as usize);
        format!("---- tests::of_{test} stdout ----\n{output}\n\n")
    };
    let sections: String = (1..=20).map(section).collect();
    let end = "failures:\n    tests::of_1\n\ntest result: FAILED.\n";
    std::fs::write(&log, format!("failures:\n\n{sections}{end}")).unwrap();
    let closing = failed_tests("cat".as_ref(), &[log.to_str().unwrap()]);
    assert_eq!(closing[..3], ["failed tests: 20", "  tests::of_1", "    Error: no such file"]);
    assert_eq!(closing.last().unwrap(), "  9 more");
    assert_eq!(closing.len(), 2 + (1..=11).map(|test| test + 1).sum::<usize>());
    assert!(closing.len() <= 80);
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
