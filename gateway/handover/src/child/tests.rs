use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::*;

fn sleeping() -> Child {
    let (_, channel) = std::os::unix::net::UnixStream::pair().unwrap();
    let arguments = ["-c".into(), "exec sleep 600".into()];
    Child::start(Path::new("/bin/sh"), &arguments, channel.into(), None).unwrap()
}

fn is_running(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/stat"));
    status.is_ok_and(|status| !status.contains(") Z "))
}

#[test]
fn abandoned_process_is_killed() {
    let child = sleeping();
    let id = child.process.id();
    assert!(is_running(id));
    drop(child);
    while is_running(id) {
        std::thread::yield_now();
    }
}

#[test]
fn serving_process_outlives_its_handle() {
    let child = sleeping();
    let id = Pid::from_raw(child.process.id().cast_signed());
    child.serve();
    kill(id, Signal::SIGTERM).unwrap();
    // The first signal counts.
    assert_eq!(waitpid(id, None), Ok(WaitStatus::Signaled(id, Signal::SIGTERM, false)));
}

#[tokio::test]
async fn killed_process_tells_its_status() {
    let mut child = sleeping();
    assert_eq!(child.ended(Duration::ZERO).await, None);
    assert!(!child.end().await.unwrap().success());
    assert!(!child.end().await.unwrap().success(), "once more");
}
