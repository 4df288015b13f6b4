//! `evenkeel check`, and addresses of the API.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::tempdir;

fn evenkeel(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.args(words).current_dir(folder).env_remove("EVENKEEL_API").output().unwrap()
}

/// A broken file in this folder would seem to be valid.
#[test]
fn check_says_that_no_file_was_named() {
    let folder = tempdir().unwrap();
    std::fs::write(folder.path().join("evenkeel.toml"), "[nonsense]\n").unwrap();
    let output = evenkeel(folder.path(), &["check"]);
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("no file was named"), "{said}");
    for words in [&["check", "evenkeel.toml"][..], &["check", "--config", "evenkeel.toml"]] {
        let output = evenkeel(folder.path(), words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("nonsense"), "{words:?}: {said}");
    }
}

#[test]
fn name_of_a_host_is_no_address_of_the_api() {
    let folder = tempdir().unwrap();
    let output = evenkeel(folder.path(), &["status", "--api", "localhost:1"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("found `localhost:1`, expected an IP address and port"), "{said}");
}

#[test]
fn environment_names_the_api() {
    let folder = tempdir().unwrap();
    let with = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        command.args(words).current_dir(folder.path()).env("EVENKEEL_API", "/nowhere/socket");
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    let said = with(&["node", "list"]);
    assert!(said.contains("no gateway answers at /nowhere/socket"), "{said}");
    let said = with(&["node", "list", "--api", "/elsewhere/socket"]);
    assert!(said.contains("no gateway answers at /elsewhere/socket"), "{said}");
    // The option is none of those that the usage line shows.
    let usage = with(&["room", "move", "room"]);
    assert!(usage.contains("Usage: evenkeel room move") && !usage.contains("--api"), "{usage}");
}
