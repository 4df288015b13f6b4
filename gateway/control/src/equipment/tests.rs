use std::collections::BTreeSet;
use std::io::ErrorKind;

use super::*;

#[test]
fn only_lasting_network_errors_refuse_a_node() {
    for kind in [ErrorKind::NetworkUnreachable, ErrorKind::AddrNotAvailable] {
        assert!(may_pass(&kind.into()), "{kind}");
    }
    let link_unnamed =
        evenkeel_drivers::socket::connected("[fe80::1]:4000".parse().unwrap()).unwrap_err();
    assert!(!may_pass(&link_unnamed), "{link_unnamed}");
    let broadcast =
        evenkeel_drivers::socket::connected("255.255.255.255:4000".parse().unwrap()).unwrap_err();
    assert!(!may_pass(&broadcast), "{broadcast}");
}

#[test]
fn trunks_begin_at_random_numbers() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("node.secret"), "a secret of many bytes").unwrap();
    let file = folder.path().join("evenkeel.toml");
    let node = "[[node]]\nname = \"n1\"\nregion = \"local\"\nzone = \"a\"\naddress = \"127.0.0.1:9\"\n\
        driver = \"agent\"\nsecret_file = \"node.secret\"\ncapacity = \"1 Mbit/s\"\n";
    std::fs::write(&file, node).unwrap();
    let kinds = evenkeel_drivers::kinds(evenkeel_drivers::DRIVERS);
    let settings = GatewayConfig::load(Some(&file), None, &kinds).unwrap();
    let first_number = || trunk(&settings.nodes[0], 0, None).unwrap().unwrap().first_number;
    let numbers: BTreeSet<_> = std::iter::repeat_with(first_number).take(8).collect();
    assert!(numbers.len() > 1, "{numbers:?}");
}
