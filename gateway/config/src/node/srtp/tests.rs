use super::*;

#[test]
fn node_takes_what_its_legs_can_carry() {
    let takes = |srtp: NodeSrtp| {
        [Srtp::Plain, Srtp::Terminated, Srtp::Opaque].map(|client| srtp.takes(client))
    };
    assert_eq!(takes(NodeSrtp::Off), [true, true, true]);
    assert_eq!(takes(NodeSrtp::Sdes), [true, true, false]);
    assert_eq!(takes(NodeSrtp::Passthrough), [false, false, true]);
}
