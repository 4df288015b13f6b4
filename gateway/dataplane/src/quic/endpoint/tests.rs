use super::*;

#[test]
fn queued_datagram_shares_no_memory() {
    let flow = roq::FlowId::new(7).unwrap();
    let mut framed = Vec::new();
    let waiting = [b"one", b"two"].map(|packet| datagram(&[], flow, packet, &mut framed));
    assert_eq!(waiting, [&b"\x07one"[..], b"\x07two"]);
    assert!(waiting.iter().all(Bytes::is_unique));
}
