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
