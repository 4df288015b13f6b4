use std::fs;

use super::*;
use crate::{ConfigInForce, GatewayConfig};

/// The `srtp` of a node with this driver, or the error.
fn load(driver: &str, srtp: &str) -> Result<NodeSrtp, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("node.secret"), [b'x'; 32]).unwrap();
    let file = folder.path().join("evenkeel.toml");
    let text = format!(
        "[[node]]\nname = \"a\"\nregion = \"east\"\nzone = \"a\"\ncapacity = \"1 Mbit/s\"\n{driver}\n{srtp}\n"
    );
    fs::write(&file, text).unwrap();
    let loaded = GatewayConfig::load(Some(&file), None);
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

#[test]
fn node_takes_what_its_legs_can_carry() {
    let takes = |srtp: NodeSrtp| {
        [Srtp::Plain, Srtp::Terminated, Srtp::Opaque].map(|client| srtp.takes(client))
    };
    assert_eq!(takes(NodeSrtp::Off), [true, true, true]);
    assert_eq!(takes(NodeSrtp::Sdes), [true, true, false]);
    assert_eq!(takes(NodeSrtp::Passthrough), [false, false, true]);
}
