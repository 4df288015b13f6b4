use std::fs;
use std::time::{Duration, SystemTime};

use data_encoding::BASE64URL_NOPAD;

use super::super::{GatewayConfig, SecretFile};
use super::{Login, has_credentials};

/// Loads this text beside the secret of a group.
fn load(text: &str) -> GatewayConfig {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("cluster.secret"), [b'c'; 32]).unwrap();
    let file = folder.path().join("evenkeel.toml");
    fs::write(&file, text).unwrap();
    GatewayConfig::load(Some(&file), None, &[]).unwrap()
}

#[test]
fn cleartext_to_other_hosts_is_warned_of() {
    let warnings = |server: &str| {
        let settings = load(&format!("[index]\nname = \"a\"\nservers = [\"{server}\"]\n"));
        settings.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let hosts = [
        "nats://127.0.0.1:4222",
        "nats://[::1]:4222",
        "nats://localhost",
        "tls://nats.example.net",
    ];
    for server in hosts {
        assert_eq!(warnings(server), [""; 0], "{server}");
    }
    for server in ["nats://10.0.0.5:4222", "nats://nats.example.net"] {
        let warnings = warnings(server);
        assert!(warnings[0].contains(&format!("found `{server}`, which is not encrypted")));
    }
}

#[test]
fn both_members_have_the_same_group() {
    let group = |name: &str, peer: &str| {
        let settings = load(&format!(
            "[cluster]\nname = \"{name}\"\nsecret_file = \"cluster.secret\"\nlisten = \"10.0.0.1:7100\"\n\
             [cluster.peer]\nname = \"{peer}\"\naddress = \"10.0.0.2:7100\"\n\
             [[cluster.address]]\naddress = \"192.0.2.10/24\"\ninterface = \"eth0\"\n\
             [index]\nservers = [\"nats://127.0.0.1:4222\"]\n"
        ));
        let index = settings.index.unwrap();
        (index.group.to_string(), index.gateway.to_string())
    };
    assert_eq!(group("b", "a"), ("a/b".to_owned(), "b".to_owned()));
    assert_eq!(group("a", "b"), ("a/b".to_owned(), "a".to_owned()));
}

#[test]
fn credentials_need_a_token_and_a_seed() {
    let seed = format!("SU{}", "A".repeat(56));
    let block = |name: &str, text: &str| {
        format!("-----BEGIN {name}-----\r\n{text}\r\n------END {name}------\r\n")
    };
    let whole = block("NATS USER JWT", "eyJ0.eyJq-_.x=")
        + "\nKeep it.\n\n"
        + &block("USER NKEY SEED", &seed);
    assert!(has_credentials(&whole));
    assert!(has_credentials(&whole.replace('\r', "")));
    assert!(!has_credentials(whole.trim_end()), "the client does not read an unended line");
    assert!(!has_credentials(&block("NATS USER JWT", "eyJ0.eyJq-_.x=")));
    assert!(!has_credentials(&whole.replace(&seed, &seed[1..])));
    assert!(!has_credentials(&seed));
}

#[test]
fn login_is_that_of_the_named_file() {
    let folder = tempfile::tempdir().unwrap();
    let seed = format!("SU{}", "A".repeat(56));
    let text = format!("---JWT---\neyJ0.eyJq.x\n---END---\n\n---SEED---\n{seed}\n---END---\n");
    fs::write(folder.path().join("user.creds"), &text).unwrap();
    let file = folder.path().join("evenkeel.toml");
    let index = "[index]\nname = \"a\"\nservers = [\"nats://127.0.0.1:4222\"]\n";
    let login = |key: &str| {
        fs::write(&file, format!("{index}{key}")).unwrap();
        GatewayConfig::load(Some(&file), None, &[]).unwrap().index.unwrap().login
    };
    assert_eq!(login(""), Login::None);
    let secret = SecretFile::new(text.as_str().into());
    assert_eq!(login("credentials_file = \"user.creds\"\n"), Login::Credentials(secret));
}

#[test]
fn token_of_credentials_has_its_end() {
    let ends = |claims: &str| {
        let claims = BASE64URL_NOPAD.encode(claims.as_bytes());
        let text = format!("-----BEGIN NATS USER JWT-----\r\neyJ0.{claims}.x\r\n");
        Login::Credentials(SecretFile::new(text.into())).ends()
    };
    let second = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
    assert_eq!(ends(r#"{"sub": "UA", "exp": 1900000000}"#), Some(second));
    for without in [r#"{"sub": "UA"}"#, r#"{"exp": 0}"#, "no object"] {
        assert_eq!(ends(without), None, "{without}");
    }
    assert_eq!(Login::None.ends(), None);
}

#[test]
fn servers_have_a_scheme_and_no_password() {
    let refused = |server: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), format!("[index]\nname = \"a\"\nservers = [\"{server}\"]\n"))
            .unwrap();
        let invalid = GatewayConfig::load(Some(file.path()), None, &[]).unwrap_err();
        invalid[0].to_string()
    };
    for server in ["10.0.0.5:4222", "http://10.0.0.5:4222", "nats://", "nats://a:0", "nats://[::1"]
    {
        let refused = refused(server);
        assert!(
            refused.contains(&format!("`{server}`")) && refused.contains("NATS server"),
            "{refused}"
        );
    }
    let refused = refused("nats://ops:secret@10.0.0.5:4222");
    assert!(refused.contains("a user or password") && !refused.contains("secret@"), "{refused}");
}
