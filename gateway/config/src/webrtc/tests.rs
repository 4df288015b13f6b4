use std::fs;

use tempfile::{TempDir, tempdir};

use super::super::{ConfigInForce, GatewayConfig};
use super::*;

const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
    MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
    -----END PUBLIC KEY-----\n";

fn folder() -> TempDir {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("token.pem"), PUBLIC_KEY).unwrap();
    fs::write(folder.path().join("turn.secret"), "0123456789abcdef\n").unwrap();
    fs::write(folder.path().join("https.pem"), "").unwrap();
    folder
}

/// Loads a table with these lines after its key.
fn load(lines: &str) -> Result<GatewayConfig, String> {
    let folder = folder();
    let file = folder.path().join("evenkeel.toml");
    fs::write(&file, format!("[webrtc]\ntoken_key_file = \"token.pem\"\n{lines}")).unwrap();
    GatewayConfig::load(Some(&file), None, &[])
        .map_err(|invalid| invalid.iter().map(|one| format!("{one}\n")).collect())
}

const LOOPBACK: &str = "listen = \"127.0.0.1:8080\"\n";

#[test]
fn table_is_read_with_servers_and_origins() {
    let lines = "listen = \"0.0.0.0:8443\"\ncertificate = \"https.pem\"\nkey = \"https.pem\"\n\
        origins = [\"https://live.example.org\", \"http://localhost:5173\", \"*\"]\n\
        [[webrtc.ice_server]]\nurl = \"stun:stun.example.org:3478\"\n\
        [[webrtc.ice_server]]\nurl = \"turn:turn.example.org?transport=udp\"\nusername = \"user\"\n\
        credential_file = \"turn.secret\"\n";
    let settings = load(lines).unwrap().webrtc.unwrap();
    assert_eq!(settings.listen, "0.0.0.0:8443".parse().unwrap());
    assert!(settings.certificate.is_some());
    assert_eq!(settings.origins.len(), 3);
    let [stun, turn] = &settings.ice_servers[..] else { panic!("two servers") };
    assert_eq!((&*stun.url, &stun.login), ("stun:stun.example.org:3478", &None));
    let credential = SecretFile::new(b"0123456789abcdef".to_vec());
    assert_eq!(turn.login, Some(IceServerLogin { username: "user".into(), credential }));
    assert!(load(LOOPBACK).unwrap().webrtc.unwrap().certificate.is_none());
}

#[test]
fn host_is_a_name_or_an_address() {
    let tls = "listen = \"0.0.0.0:8443\"\ncertificate = \"https.pem\"\nkey = \"https.pem\"\n";
    let host = |text: &str| load(&format!("{tls}host = \"{text}\"\n"));
    for right in ["live.example.org", "203.0.113.7", "2001:db8::7"] {
        assert_eq!(host(right).unwrap().webrtc.unwrap().host.as_deref(), Some(right));
    }
    let no_text = ["", "https://live.example.org", "live.example.org:8443", "live example"];
    let no_names = [".", "-", "a..b", "-a.example", "a-.example", "a_b.example", "203.0.113.300"];
    let long = format!("{}.example", "a".repeat(64));
    for wrong in no_text.into_iter().chain(no_names).chain([&*long]) {
        let refused = host(wrong).unwrap_err();
        assert!(refused.contains("a host such as `live.example.org`"), "{wrong}: {refused}");
    }
    assert_eq!(load(LOOPBACK).unwrap().webrtc.unwrap().host, None);
    let refused = load(&format!("{LOOPBACK}host = \"live.example.org\"\n")).unwrap_err();
    assert!(refused.contains("found `host` without `certificate`"), "{refused}");
}

#[test]
fn plain_http_is_for_loopback_only() {
    for listen in ["0.0.0.0:80", "[::]:80", "10.0.0.1:80"] {
        let refused = load(&format!("listen = \"{listen}\"\n")).unwrap_err();
        assert!(refused.contains(&format!("found `{listen}` without `certificate`")), "{refused}");
    }
    for listen in ["127.0.0.1:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
        assert!(load(&format!("listen = \"{listen}\"\n")).is_ok(), "{listen}");
    }
}

#[test]
fn origin_with_other_text_than_browsers_send_is_refused() {
    for origin in [
        "live.example.org",
        "https://live.example.org/",
        "https://live.example.org/page",
        "https://Live.example.org",
        "null",
        "https://*.example.org",
    ] {
        let refused = load(&format!("{LOOPBACK}origins = [\"{origin}\"]\n")).unwrap_err();
        assert!(refused.contains(&format!("found `{origin}`")), "{refused}");
    }
}

#[test]
fn unusable_ice_server_is_refused() {
    let login = "username = \"user\"\ncredential_file = \"turn.secret\"\n";
    for (server, expected) in [
        ("url = \"http://stun.example.org\"\n".to_owned(), "a URL such as"),
        ("url = \"stun:a b\"\n".to_owned(), "a URL such as"),
        ("url = \"stun:a>\"\n".to_owned(), "a URL such as"),
        ("url = \"turn:turn.example.org\"\n".to_owned(), "of a TURN server"),
        ("url = \"turns:turn.example.org\"\nusername = \"user\"\n".to_owned(), "both, for"),
        (format!("url = \"stun:stun.example.org\"\n{login}"), "a TURN server, or no"),
        (format!("url = \"turn:a\"\n{login}").replace("user\"", "u\\\"\""), "without quotes"),
    ] {
        let refused = load(&format!("{LOOPBACK}[[webrtc.ice_server]]\n{server}")).unwrap_err();
        assert!(refused.contains(expected), "{server}: {refused}");
    }
}

#[test]
fn unusable_token_key_is_refused() {
    let folder = folder();
    let file = folder.path().join("evenkeel.toml");
    fs::write(folder.path().join("short"), "0123456789abcdef").unwrap();
    for (key, found) in [
        ("short", "found `short` with a secret of 16 bytes"),
        ("none", "found `none`: "),
        ("https.pem", "with 0 secrets"),
    ] {
        let text = format!("[webrtc]\n{LOOPBACK}token_key_file = \"{key}\"\n");
        fs::write(&file, text).unwrap();
        let invalid = GatewayConfig::load(Some(&file), None, &[]).unwrap_err();
        assert!(invalid[0].to_string().contains(found), "{}", invalid[0]);
    }
}

#[test]
fn shown_table_has_empty_lists_and_no_credential() {
    let lines = format!(
        "{LOOPBACK}[[webrtc.ice_server]]\nurl = \"turn:a\"\nusername = \"user\"\ncredential_file = \"turn.secret\"\n"
    );
    let shown = ConfigInForce::at_start(&load(&lines).unwrap()).configuration;
    assert_eq!(shown["webrtc"]["origins"].as_array().map(Vec::len), Some(0));
    assert_eq!(shown["webrtc"]["ice_server"][0]["credential_file"].as_str(), Some("turn.secret"));
    let without = ConfigInForce::at_start(&GatewayConfig::load(None, None, &[]).unwrap());
    assert!(!without.configuration.contains_key("webrtc"));
}
