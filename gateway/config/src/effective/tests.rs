use std::fs;

use evenkeel_model::CircuitSettings;
use evenkeel_process::sha256;
use tempfile::{TempDir, tempdir};

use super::*;
use crate::driver::samples::DRIVERS;

const NODE: &str = "[[node]]\nname = \"a\"\naddress = \"10.0.0.1:4000\"\nregion = \"east\"\nzone = \"a\"\n\
    driver = \"agent\"\nsecret_file = \"node.secret\"\ncapacity = \"1 Mbit/s\"\n";

fn load(folder: &TempDir, text: &str) -> GatewayConfig {
    fs::write(folder.path().join("node.secret"), "not-to-be-shown-anywhere").unwrap();
    let file = folder.path().join("evenkeel.toml");
    fs::write(&file, text).unwrap();
    GatewayConfig::load(Some(&file), None, &DRIVERS).unwrap()
}

#[test]
fn defaults_complete_the_written_keys() {
    let folder = tempdir().unwrap();
    let text = format!("[gateway]\ndrain_timeout = \"7m\"\n{NODE}");
    let in_force = ConfigInForce::at_start(&load(&folder, &text));
    let tables = &in_force.configuration;
    assert_eq!(tables["gateway"]["drain_timeout"].as_str(), Some("7m"));
    assert_eq!(tables["gateway"]["region"].as_str(), Some("east"));
    assert_eq!(tables["detector"]["in_region"]["down_after"].as_str(), Some("200ms"));
    assert_eq!(tables["breaker"]["clients"]["action"].as_str(), Some("voice-only"));
    assert_eq!(tables["node"][0]["canary"].as_bool(), Some(true));
    assert_eq!(tables["listen"][1]["quic"].as_str(), Some("127.0.0.1:4433"));
    assert_eq!(in_force.sha256, Some(HEXLOWER.encode(&sha256(text.as_bytes()))));
    assert_eq!(in_force.policies["call"], "embedded");
}

#[test]
fn reload_shows_new_files_of_secrets() {
    let folder = tempdir().unwrap();
    for name in ["old", "new", "old.key", "new.key"] {
        fs::write(folder.path().join(name), format!("{name} {}", "x".repeat(32))).unwrap();
    }
    let text = |name: &str| {
        format!(
            "[admin]\ntcp = \"127.0.0.1:8080\"\ntoken_file = \"{name}\"\n\
             [webrtc]\nlisten = \"127.0.0.1:8081\"\ntoken_key_file = \"{name}.key\"\n"
        )
    };
    let (old, new) = (load(&folder, &text("old")), load(&folder, &text("new")));
    let shown = ConfigInForce::after_reload(&old, &new, Vec::new()).configuration;
    assert_eq!(shown["admin"]["token_file"].as_str(), Some("new"));
    assert_eq!(shown["webrtc"]["token_key_file"].as_str(), Some("new.key"));
    // The listener stays until a restart.
    let without = ConfigInForce::after_reload(&old, &load(&folder, ""), Vec::new());
    assert_eq!(without.configuration["admin"]["token_file"].as_str(), Some("old"));
}

/// Keys with other values than they have without being written.
const WRITTEN: &str = r#"
[limits]
repair_memory = 32
early_packets = 3
churn_percent = 7
moves_per_minute = 5
failbacks_per_second = 9

[breaker]
failure_percent = 31
max_open_for = "40s"
half_open_percent = 3

[breaker.clients]
failure_percent = 32
max_open_for = "50s"
half_open_percent = 4

[cluster]
name = "b"
secret_file = "cluster.secret"
listen = "10.0.0.1:7100"
hold_down = "3s"
hold_down_max = "7m"

[cluster.peer]
name = "a"
address = "10.0.0.2:7100"

[[cluster.address]]
address = "192.0.2.10/24"
interface = "eth0"
"#;

#[test]
fn written_keys_are_in_force() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("cluster.secret"), [b'c'; 32]).unwrap();
    let settings = load(&folder, &format!("{WRITTEN}{NODE}"));
    let core = settings.core().limits;
    assert_eq!((settings.limits.early_packets, settings.limits.repair_memory), (3, 32));
    assert_eq!((core.churn_percent, core.moves_per_minute, core.failbacks_per_second), (7, 5, 9));
    let circuit = |circuit: &CircuitSettings| {
        (circuit.share_percent, circuit.open_for_max.as_secs(), circuit.half_open_percent)
    };
    assert_eq!(circuit(&core.breakers.circuit), (31, 40, 3));
    assert_eq!(circuit(&core.client_breakers.circuit), (32, 50, 4));
    let group = settings.cluster.as_ref().unwrap();
    assert_eq!((group.hold_down.as_secs(), group.hold_down_max.as_secs()), (3, 420));

    let in_force = settings.effective();
    let written: Table = WRITTEN.parse().unwrap();
    for (table, keys) in [("limits", 5), ("breaker", 3), ("cluster", 4)] {
        let plain = written[table].as_table().unwrap();
        let plain = plain.iter().filter(|(_, value)| !value.is_table() && !value.is_array());
        let plain: Vec<_> = plain.filter(|(key, _)| *key != "listen").collect();
        assert_eq!(plain.len(), keys, "{plain:?}");
        plain.iter().for_each(|(key, value)| assert_eq!(in_force[table][*key], **value, "{key}"));
    }
    let clients = written["breaker"]["clients"].as_table().unwrap();
    for (key, value) in clients {
        assert_eq!(in_force["breaker"]["clients"][key], *value, "{key}");
    }
}

#[test]
fn secrets_are_names_of_files() {
    let folder = tempdir().unwrap();
    let in_force = ConfigInForce::at_start(&load(&folder, NODE));
    let shown = serde_json::to_string(&in_force).unwrap();
    assert!(shown.contains("\"secret_file\":\"node.secret\""), "{shown}");
    assert!(!shown.contains("not-to-be-shown"), "{shown}");
}

#[test]
fn effective_configuration_is_accepted_as_a_file() {
    let folder = tempdir().unwrap();
    let started = load(&folder, NODE);
    let written = toml::to_string(&started.effective()).unwrap();
    let again = load(&folder, &written);
    assert_eq!(again.effective(), started.effective(), "{written}");
}

#[test]
fn tables_that_wait_for_a_restart_stay() {
    let folder = tempdir().unwrap();
    let started = load(&folder, NODE);
    let new =
        load(&folder, &format!("{}[limits]\nsessions = 5\n", NODE.replace("1 Mbit", "2 Mbit")));
    let in_force = ConfigInForce::after_reload(&started, &new, vec!["[limits]".to_owned()]);
    let tables = &in_force.configuration;
    assert_eq!(tables["limits"]["sessions"].as_integer(), Some(100_000));
    assert_eq!(tables["node"][0]["capacity"].as_str(), Some("2 Mbit/s"));
    assert_eq!(in_force.sha256, Some(HEXLOWER.encode(&new.written.sha256)));
}

#[test]
fn receivers_and_dependencies_have_their_defaults() {
    let folder = tempdir().unwrap();
    let text = "[advice]\nurl = \"http://127.0.0.1:1/advice\"\n\
                [[alert]]\nname = \"ops\"\nurl = \"http://127.0.0.1:1/\"\n\
                [[dependency]]\nname = \"idp\"\ntcp = \"127.0.0.1:1\"\nevery = \"1m\"\n";
    let started = load(&folder, NODE);
    let in_force = ConfigInForce::after_reload(&started, &load(&folder, text), Vec::new());
    let tables = &in_force.configuration;
    assert_eq!(tables["advice"]["url"].as_str(), Some("http://127.0.0.1:1/advice"));
    assert_eq!(tables["alert"][0]["kind"].as_str(), Some("webhook"));
    assert_eq!(tables["alert"][0]["tiers"].as_array().map(Vec::len), Some(3));
    assert_eq!(tables["dependency"][0]["every"].as_str(), Some("1m"));
    assert_eq!(tables["dependency"][0]["timeout"].as_str(), Some("2s"));
}
