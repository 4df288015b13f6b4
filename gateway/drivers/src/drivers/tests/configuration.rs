//! `[[node]]` with each driver.

use std::fs;
use std::path::Path;

use evenkeel_config::{Colour, ConfigInForce, GatewayConfig, InvalidSetting, NodeSrtp};
use evenkeel_fuzz::Corpus;

/// The `srtp` of a node with this driver, or the error.
fn load(driver: &str, srtp: &str) -> Result<NodeSrtp, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("node.secret"), [b'x'; 32]).unwrap();
    let file = folder.path().join("evenkeel.toml");
    let text = format!(
        "[[node]]\nname = \"a\"\nregion = \"east\"\nzone = \"a\"\ncapacity = \"1 Mbit/s\"\n{driver}\n{srtp}\n"
    );
    fs::write(&file, text).unwrap();
    let loaded = GatewayConfig::load(Some(&file), None, &crate::kinds(crate::DRIVERS));
    let of_node = |config: GatewayConfig| {
        let shown = &ConfigInForce::at_start(&config).configuration["node"][0]["srtp"];
        assert_eq!(shown.as_str(), Some(config.nodes[0].srtp.name()));
        config.nodes[0].srtp
    };
    loaded.map(of_node).map_err(|invalid| format!("{}: {}", invalid[0].found, invalid[0].expected))
}

const RTPENGINE: &str = "driver = \"rtpengine\"\nng = \"127.0.0.1:2223\"";
const PLAIN: &str = "driver = \"plain\"\naddress = \"10.0.1.11:4000\"";

#[test]
fn srtp_is_off_by_default() {
    assert_eq!(load(RTPENGINE, ""), Ok(NodeSrtp::Off));
    assert_eq!(load(PLAIN, "srtp = \"off\""), Ok(NodeSrtp::Off));
}

#[test]
fn sdes_needs_a_driver_that_agrees_on_keys() {
    let agent = "driver = \"agent\"\naddress = \"10.0.1.11:4000\"\nsecret_file = \"node.secret\"";
    let webhook =
        "driver = \"webhook\"\naddress = \"10.0.1.11:4000\"\nwebhook = \"https://10.0.1.11/\"";
    assert_eq!(load(RTPENGINE, "srtp = \"sdes\""), Ok(NodeSrtp::Sdes));
    for (name, driver) in [("plain", PLAIN), ("agent", agent), ("webhook", webhook)] {
        let refused = load(driver, "srtp = \"sdes\"").unwrap_err();
        let expected = format!(
            "`srtp = \"sdes\"` with driver `{name}`: `srtp = \"sdes\"` with driver `rtpengine` only, which agrees on keys"
        );
        assert_eq!(refused, expected);
        assert_eq!(load(driver, "srtp = \"passthrough\""), Ok(NodeSrtp::Passthrough));
    }
}

#[test]
fn keys_of_sdes_stay_on_the_host() {
    let at = |ng: &str| format!("driver = \"rtpengine\"\nng = \"{ng}\"");
    let refused = load(&at("10.0.1.21:2223"), "srtp = \"sdes\"").unwrap_err();
    assert_eq!(
        refused,
        "`srtp = \"sdes\"` with `ng` on another host: `ng` on a loopback address such as `127.0.0.1:2223`"
    );
    for loopback in ["127.0.0.9:2223", "[::1]:2223", "[::ffff:127.0.0.1]:2223"] {
        assert_eq!(load(&at(loopback), "srtp = \"sdes\""), Ok(NodeSrtp::Sdes), "{loopback}");
    }
    assert_eq!(load(&at("10.0.1.21:2223"), "srtp = \"passthrough\""), Ok(NodeSrtp::Passthrough));
}

/// An error about the file is within it and can be shown.
fn assert_is_shown(loaded: Result<GatewayConfig, Vec<InvalidSetting>>, file: &Path, text: &[u8]) {
    let Err(invalid) = loaded else { return };
    let lines = text.split(|byte| *byte == b'\n').count();
    for invalid in &invalid {
        let is_within = (1..=lines).contains(&invalid.line);
        assert!(is_within || Path::new(&invalid.file) != file, "{}: {invalid}", invalid.place());
        assert!(!invalid.found.is_empty() && !invalid.expected.is_empty(), "{invalid:?}");
    }
    assert!(!InvalidSetting::render(&invalid, Colour::Plain).is_empty());
}

#[test]
fn fuzz_configuration() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("node.secret"), [b'x'; 32]).unwrap();
    let file = folder.path().join("evenkeel.toml");
    let broken = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/broken");
    let broken = fs::read_dir(broken).unwrap().map(|entry| entry.unwrap().path());
    let broken = broken.filter(|path| path.extension().is_some_and(|end| end == "toml"));
    let broken = broken.map(|path| fs::read(path).unwrap());
    broken.fold(Corpus::of("configuration"), Corpus::with).check(|text| {
        fs::write(&file, text).unwrap();
        assert_is_shown(
            GatewayConfig::load(Some(&file), None, &crate::kinds(crate::DRIVERS)),
            &file,
            text,
        );
    });
}
