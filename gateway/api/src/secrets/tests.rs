use std::fs;
use std::path::Path;

use tempfile::tempdir;

use super::*;

const KEYS: [&str; 2] = ["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"];

fn load(folder: &Path, text: &str) -> GatewayConfig {
    let file = folder.join("evenkeel.toml");
    fs::write(&file, text).unwrap();
    GatewayConfig::load(Some(&file), None, &[]).unwrap()
}

#[test]
fn reload_replaces_tokens_and_keys() {
    let folder = tempdir().unwrap();
    let text = "[admin]\ntcp = \"127.0.0.1:0\"\ntoken_file = \"operators\"\nread_token_file = \"readers\"\n\
        [webrtc]\nlisten = \"127.0.0.1:0\"\ntoken_key_file = \"keys\"\n";
    let files = |operators: &str, readers: &str, keys: &str| {
        for (name, text) in [("operators", operators), ("readers", readers), ("keys", keys)] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        load(folder.path(), text)
    };
    let old = files("the old operators' token", "the old readers' token", KEYS[0]);
    let secrets = ClientSecrets::of(old.admin.tcp.as_ref(), old.webrtc.as_ref());
    let shared = secrets.clone();
    let credentials = |words: &str| {
        ["operators'", "readers'"].map(|of| shared.credential(&format!("the {words} {of} token")))
    };
    let both = [Some(ProvenCredential::OperatorToken), Some(ProvenCredential::ReaderToken)];
    let keys = || shared.0.lock().unwrap().webrtc.clone();
    assert_eq!((credentials("old"), credentials("new")), (both.clone(), [None, None]));
    secrets.reload(&files(
        "the new operators' token\nthe old operators' token\n",
        "the old readers' token\nthe new readers' token\n",
        &KEYS.join("\n"),
    ));
    assert_eq!((credentials("old"), credentials("new")), (both.clone(), both.clone()));
    assert_eq!(keys(), TokenKeys::read(KEYS.join("\n").as_bytes()).ok());
    secrets.reload(&files("the new operators' token", "the new readers' token", KEYS[1]));
    assert_eq!((credentials("old"), credentials("new")), ([None, None], both.clone()));
    assert_eq!(keys(), TokenKeys::read(KEYS[1].as_bytes()).ok());
    // The listeners stay until a restart, and so do their secrets.
    secrets.reload(&load(folder.path(), ""));
    assert_eq!(credentials("new"), both);
    assert!(keys().is_some());
}
