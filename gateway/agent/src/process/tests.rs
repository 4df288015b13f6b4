use tempfile::tempdir;

use super::*;

fn sleeper(exe: Option<&Path>) -> Child {
    let exe = exe.unwrap_or(Path::new("/bin/sleep"));
    // Executing the copy fails while a fork of another test holds it open for writing.
    loop {
        match Command::new(exe).arg("600").stdin(Stdio::null()).spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {}
            spawned => break spawned.unwrap(),
        }
    }
}

fn wait_until_ended(process: &WatchedProcess) {
    let mut fds = [PollFd::new(process.fd().unwrap().as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, 10_000_u16), Ok(1), "the pidfd is not readable");
}

#[test]
fn process_is_found_by_pid_file_and_its_exit_seen() {
    let (now, folder) = (Instant::now(), tempdir().unwrap());
    let path = folder.path().join("pid");
    let mut process =
        WatchedProcess::new(ProcessSource::PidFile { path: path.clone(), exe: None }, false, now);
    assert!(!process.find_or_start(now).unwrap(), "there is no file");
    let mut child = sleeper(None);
    fs::write(&path, format!("{}\n", child.id())).unwrap();
    assert!(process.find_or_start(now).unwrap());
    assert_eq!(process.pid(), Some(child.id() as i32));
    assert!(!process.start(now), "it is not ours to start");
    child.kill().unwrap();
    wait_until_ended(&process);
    assert_eq!(process.ended(now), Some(child.id() as i32));
    assert!(!process.find_or_start(now).unwrap(), "not reaped yet");
    child.wait().unwrap();
    assert!(!process.find_or_start(now).unwrap());
    for nonsense in ["", "x", "-1", "0", "1", "99999999999999"] {
        fs::write(&path, nonsense).unwrap();
        assert!(!process.find_or_start(now).unwrap(), "{nonsense}");
    }
}

#[test]
fn reused_pid_of_another_program_is_rejected() {
    let (now, folder) = (Instant::now(), tempdir().unwrap());
    let path = folder.path().join("pid");
    let mut child = sleeper(None);
    fs::write(&path, child.id().to_string()).unwrap();
    let exe = Some(PathBuf::from("/usr/bin/another-server"));
    let mut process =
        WatchedProcess::new(ProcessSource::PidFile { path: path.clone(), exe }, false, now);
    assert!(!process.find_or_start(now).unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn process_is_found_by_exe_if_it_is_the_only_one() {
    let (now, folder) = (Instant::now(), tempdir().unwrap());
    let exe = folder.path().join("program");
    fs::copy("/bin/sleep", &exe).unwrap();
    let mut process = WatchedProcess::new(ProcessSource::Exe(exe.clone()), false, now);
    assert!(!process.find_or_start(now).unwrap());
    let mut first = sleeper(Some(&exe));
    assert!(process.find_or_start(now).unwrap());
    assert_eq!(process.pid(), Some(first.id() as i32));
    let mut second = sleeper(Some(&exe));
    let mut other = WatchedProcess::new(ProcessSource::Exe(exe.clone()), false, now);
    assert!(!other.find_or_start(now).unwrap(), "there are two");
    for child in [&mut first, &mut second] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn command_is_started_signalled_and_restarted() {
    let start = Instant::now();
    let command = ["/bin/sleep", "600"].map(String::from).to_vec();
    let restart_after = Some(Duration::from_secs(1));
    let mut process =
        WatchedProcess::new(ProcessSource::Command { command, restart_after }, false, start);
    assert!(process.find_or_start(start).unwrap() && process.is_ours());
    let pid = process.pid().unwrap();
    let state = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    };
    let patience = Instant::now() + Duration::from_secs(10);
    assert!(process.signal(Signal::SIGSTOP));
    while state(pid) != 'T' {
        assert!(Instant::now() < patience);
    }
    assert!(process.signal(Signal::SIGCONT));
    while state(pid) == 'T' {
        assert!(Instant::now() < patience);
    }
    assert!(process.signal(Signal::SIGKILL));
    wait_until_ended(&process);
    assert_eq!(process.ended(start), Some(pid));
    assert!(!process.signal(Signal::SIGKILL), "no process");
    assert!(!process.find_or_start(start).unwrap(), "not yet");
    assert!(process.find_or_start(start + Duration::from_secs(1)).unwrap());
    process.signal(Signal::SIGKILL);
    wait_until_ended(&process);
    process.ended(start);
}

#[test]
fn cold_command_waits_for_start() {
    let now = Instant::now();
    let command = ["/bin/sleep", "600"].map(String::from).to_vec();
    let found = ProcessSource::Command { command, restart_after: None };
    let mut process = WatchedProcess::new(found, true, now);
    assert!(!process.find_or_start(now).unwrap());
    assert!(process.start(now));
    assert!(process.find_or_start(now).unwrap());
    process.signal(Signal::SIGKILL);
    wait_until_ended(&process);
    process.ended(now);
    assert!(!process.find_or_start(now + Duration::from_secs(9)).unwrap(), "not asked for");
}

#[test]
fn missing_command_is_an_error() {
    let now = Instant::now();
    let command = vec!["/nowhere/server".to_owned()];
    let found = ProcessSource::Command { command, restart_after: None };
    assert!(WatchedProcess::new(found, false, now).find_or_start(now).is_err());
}
