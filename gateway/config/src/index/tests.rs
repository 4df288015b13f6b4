use std::fs;

use super::super::GatewayConfig;

/// Loads this text beside the secret of a group.
fn load(text: &str) -> GatewayConfig {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("cluster.secret"), [b'c'; 32]).unwrap();
    let file = folder.path().join("evenkeel.toml");
    fs::write(&file, text).unwrap();
    GatewayConfig::load(Some(&file), None).unwrap()
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
