use std::time::{Duration, Instant};

use nix::sys::signal::kill;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(50);

fn shell(script: &str, within: Duration) -> Result<Vec<u8>, ProgramError> {
    let words = ["/bin/sh", "-c", script].map(String::from);
    output(&words, &[("EVENKEEL_ROOM", "7".to_owned())], within)
}

#[test]
fn program_gets_arguments_and_environment() {
    assert_eq!(shell("echo $EVENKEEL_ROOM", PATIENCE).unwrap(), b"7\n");
    let words = ["/bin/sh", "-c", "test \"$0 $1\" = 'first second'"].map(String::from);
    run(&words, &["first", "second"], PATIENCE).unwrap();
    assert!(run(&words, &["first"], PATIENCE).is_err());
}

#[test]
fn failures_of_a_program_are_described() {
    let failure = |script, within| shell(script, within).unwrap_err().to_string();
    assert_eq!(failure("exit 3", PATIENCE), "exit status: 3");
    assert_eq!(failure("kill -9 $$", PATIENCE), "signal: 9 (SIGKILL)");
    assert_eq!(failure("exec sleep 600", SHORT), "killed after 50ms");
    assert_eq!(failure("exec >&-; exec sleep 600", SHORT), "killed after 50ms");
    let missing = run(&["/nonexistent/hook".to_owned()], &[], PATIENCE).unwrap_err();
    assert!(missing.to_string().starts_with("cannot be run: No such file"), "{missing}");
    assert_eq!(run(&[], &[], PATIENCE).unwrap_err().to_string(), "no program is configured");
}

#[test]
fn output_is_kept_up_to_its_bound() {
    assert_eq!(shell("head -c 100000 /dev/zero", PATIENCE).unwrap().len(), OUTPUT_MAX);
}

/// Runs a program that leaves a process with its output behind. Returns that process's number.
fn child_of(script: &str, within: Duration) -> Pid {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("sleep 600 & echo $! > {}; {script}", file.display());
    let _failed = shell(&script, within);
    Pid::from_raw(std::fs::read_to_string(&file).unwrap().trim().parse().unwrap())
}

/// Its parent has ended, so that init reaps it.
fn ends(process: Pid) -> bool {
    let until = Instant::now() + PATIENCE;
    let is_dead = || {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    while !is_dead() && Instant::now() < until {
        std::thread::yield_now();
    }
    is_dead()
}

#[test]
fn children_of_a_late_program_are_killed() {
    assert!(ends(child_of("sleep 600", Duration::from_millis(500))));
}

#[test]
fn child_of_a_successful_program_runs_on() {
    let began = Instant::now();
    let child = child_of("true", Duration::from_secs(300));
    // The child holds the pipe, and the program is not taken for a late one.
    assert!(began.elapsed() < Duration::from_secs(200));
    kill(child, None).expect("it runs");
    kill(child, Signal::SIGKILL).unwrap();
}
