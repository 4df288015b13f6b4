use tempfile::{TempDir, tempdir};

use super::*;

const SOON: Duration = Duration::from_secs(60);

/// Returns the process and the folder of its log.
fn shell(script: &str, input: &str) -> (ChildProcess, TempDir) {
    let (mut command, folder) = (Command::new("/bin/sh"), tempdir().unwrap());
    let command = command.args(["-c", script]);
    let process = ChildProcess::start_with_input("shell", command, input.as_bytes(), folder.path());
    (process.unwrap(), folder)
}

#[test]
fn dropped_process_is_gone_even_if_stopped() {
    let (process, _folder) = shell("exec sleep 600", "");
    let pid = Pid::from_raw(process.id().cast_signed());
    process.signal(Signal::SIGSTOP).unwrap();
    drop(process);
    assert_eq!(kill(pid, None), Err(nix::errno::Errno::ESRCH));
}

#[test]
fn dropped_process_takes_its_children_along() {
    let (mut process, _folder) = shell("sleep 600 & echo $!; wait", "");
    let child = Pid::from_raw(process.line(SOON).unwrap().parse().unwrap());
    assert_eq!(kill(child, None), Ok(()));
    drop(process);
    // The orphan is reaped by init soon after.
    let is_there = || kill(child, None).is_ok() && !is_zombie(child);
    while is_there() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn is_zombie(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

#[test]
fn grace_lets_a_dropped_process_clean_up() {
    let script = r#"trap 'echo done >&2; exit' TERM; echo up; while :; do sleep 0.01; done"#;
    let (process, folder) = shell(script, "");
    let mut process = process.with_grace(SOON);
    process.line(SOON).unwrap();
    drop(process);
    assert_eq!(std::fs::read_to_string(folder.path().join("shell.log")).unwrap(), "done\n");
}

#[test]
fn input_is_echoed_until_the_end() {
    let (mut process, _folder) = shell("cat; exec sleep 600", "one\ntwo\n");
    assert_eq!(process.line(SOON).unwrap(), "one");
    assert_eq!(process.line(SOON).unwrap(), "two");
    assert_eq!(process.try_line(), Ok(None));
    assert!(process.line(Duration::ZERO).unwrap_err().to_string().contains("nothing"));
    process.signal(Signal::SIGTERM).unwrap();
    assert!(process.line(SOON).unwrap_err().to_string().contains("ended"));
}

#[test]
fn first_and_last_lines_are_returned() {
    let script = r#"trap 'echo 2; exit' TERM; echo 1; while :; do sleep 0.01; done"#;
    let (mut process, _folder) = shell(script, "");
    assert_eq!(process.json_line(SOON).unwrap(), 1);
    assert_eq!(process.end(Signal::SIGTERM, SOON).unwrap(), ["1", "2"]);
}

#[test]
fn process_that_ends_early_shows_its_log() {
    let (mut process, _folder) = shell("echo no such thing >&2", "");
    let error = process.line(SOON).unwrap_err().to_string();
    assert!(error.contains("ended") && error.ends_with("no such thing"), "{error}");
    let error = process.wait_for("a line", SOON, |lines| lines.first().cloned()).unwrap_err();
    assert!(error.to_string().contains("ended before a line"), "{error}");
    assert!(process.wait(SOON).unwrap().success());
}
