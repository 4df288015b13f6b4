//! Pipes, devices and huge files in the place of configuration, policies and plugins.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::binary::evenkeel;
use tempfile::{TempDir, tempdir};

use crate::harness::{TIMEOUT, wait_until};

const CONFIG: &str = "[gateway]\nregion = \"east\"\npolicies = \"policies\"\ncache = \"none\"\n\
    [[listen]]\nudp = \"127.0.0.1:0\"\n[admin]\nsocket = \"admin.sock\"\n";

const NODE: &str = "[[node]]\nname = \"east-a1\"\naddress = \"127.0.0.1:9\"\nregion = \"east\"\nzone = \"a\"\n\
    driver = \"agent\"\nsecret_file = \"node.secret\"\ncapacity = \"1 Mbit/s\"\n";

/// The folder of a gateway without plugins.
struct GatewayFolder(TempDir);

impl GatewayFolder {
    fn new() -> GatewayFolder {
        let place = GatewayFolder(tempdir().unwrap());
        fs::create_dir(place.path("policies")).unwrap();
        fs::write(place.path("evenkeel.toml"), CONFIG).unwrap();
        for set in ["call", "conference", "live"] {
            let path = place.path(&format!("policies/{set}.toml"));
            fs::write(path, format!("[scenario.{set}]\n")).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn make_pipe(&self, name: &str) {
        let path = self.path(name);
        // It may replace a file.
        let _ = fs::remove_file(&path);
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    }

    /// A sparse file of a tebibyte.
    fn make_huge(&self, name: &str) {
        File::create(self.path(name)).unwrap().set_len(1 << 40).unwrap();
    }

    fn check(&self, config: &Path) -> (Option<i32>, String) {
        self.run(&["check", "--json", "--config", config.to_str().unwrap()])
    }

    /// Runs a command; returns its exit code and output. A command that hangs is ended and has no code.
    fn run(&self, words: &[&str]) -> (Option<i32>, String) {
        let output = File::create(self.path("output")).unwrap();
        let mut command = Command::new(evenkeel());
        let command = command.args(words).stdin(Stdio::null());
        let mut child = command.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
        let until = Instant::now() + TIMEOUT;
        let code = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status.code(),
                None if Instant::now() >= until => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    break None;
                }
                None => std::thread::park_timeout(std::time::Duration::from_millis(5)),
            }
        };
        (code, fs::read_to_string(self.path("output")).unwrap())
    }
}

#[test]
fn check_refuses_irregular_and_huge_files() {
    let place = GatewayFolder::new();
    let config = place.path("evenkeel.toml");
    let (code, said) = place.check(&config);
    assert_eq!(code, Some(0), "{said}");
    let refused = |config: &Path, words: &str| {
        let (code, said) = place.check(config);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(words), "{words} in: {said}");
    };

    place.make_pipe("pipe.toml");
    refused(&place.path("pipe.toml"), "a pipe, not a regular file");
    refused(Path::new("/dev/zero"), "a device, not a regular file");
    place.make_huge("huge.toml");
    refused(&place.path("huge.toml"), "more than 1048576 bytes");

    place.make_pipe("policies/extra.toml");
    refused(&config, "a pipe, not a regular file");
    fs::remove_file(place.path("policies/extra.toml")).unwrap();

    place.make_huge("policies/huge.wasm");
    let set = "[scenario.call]\n[routing]\nplugin = \"huge.wasm\"\n";
    fs::write(place.path("policies/call.toml"), set).unwrap();
    refused(&config, "more than 16777216 bytes");
    fs::write(place.path("policies/call.toml"), "[scenario.call]\n").unwrap();

    place.make_pipe("node.secret");
    fs::write(&config, format!("{CONFIG}{NODE}")).unwrap();
    refused(&config, "a pipe, not a regular file");
}

#[test]
fn pipe_among_policies_does_not_stop_reloads() {
    let place = GatewayFolder::new();
    let mut command = Command::new(evenkeel());
    command.args(["run", "--json", "--config"]).arg(place.path("evenkeel.toml"));
    let mut gateway = ChildProcess::start("gateway", &mut command, place.0.path()).unwrap();
    gateway.json_line(TIMEOUT).unwrap();
    let socket = place.path("admin.sock");
    let socket = socket.to_str().unwrap();
    let reload = || place.run(&["reload", "--api", socket]);
    wait_until("the first reload succeeds", || reload().0 == Some(0));
    // The gateway reads the folder at this change too.
    place.make_pipe("policies/extra.toml");
    let (code, said) = reload();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("a pipe"), "{said}");
    fs::remove_file(place.path("policies/extra.toml")).unwrap();
    let (code, said) = reload();
    assert_eq!(code, Some(0), "{said}");
}
