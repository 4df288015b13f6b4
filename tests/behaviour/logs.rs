//! The log of a gateway.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

use evenkeel_testkit::binary::evenkeel;
use nix::libc::O_NONBLOCK;
use tempfile::tempdir;

use crate::harness::{GatewayProcess, Node, Phone, World, assert_complete, talk_for, wait_until};

const PACKETS: u64 = 50;

#[test]
fn unread_log_delays_no_call() {
    let folder = tempdir().unwrap();
    let pipe = folder.path().join("log");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut end = File::options();
    let end = end.read(true).write(true).custom_flags(O_NONBLOCK);
    let mut end = end.open(&pipe).unwrap();
    // The pipe is full from the start.
    while matches!(end.write(b"\n"), Ok(1)) {}
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec \"$0\" \"$@\" 2> '{}'", pipe.display())]).arg(evenkeel());
    let (node, mut ann) = (Node::agent("east-a1"), Phone::new(1));
    let mut gateway = GatewayProcess::start_by(&World::of(&[&node]), command);
    gateway.open("room", &mut ann);
    talk_for(&mut [&mut ann], PACKETS);
    ann.hear_rest();
    assert_complete(&ann.heard, 0, ann.voice.sent);

    // Its reader continues, and misses nothing.
    let (mut log, mut bytes) = (Vec::new(), [0; 4_096]);
    wait_until("the log is written", || {
        while let Ok(length) = end.read(&mut bytes) {
            log.extend_from_slice(&bytes[..length]);
        }
        String::from_utf8_lossy(&log).contains("packets wait in")
    });
}
