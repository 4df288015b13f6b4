//! Pages by WebTransport (draft-ietf-webtrans-http3).

use crate::harness::webtransport::HearingPage;
use crate::harness::{Node, World, wait_until};

#[test]
fn page_hears_on_after_the_death_of_its_node() {
    let mut nodes = ["east-a1", "east-b1"].map(Node::agent);
    let gateway = World::of(&nodes.each_ref()).with_quic().start();
    let page = HearingPage::begin(&gateway, "room");
    let carrier = || {
        let rooms = gateway.ask(gateway.handle.rooms()).unwrap();
        rooms[0].route[0].node.0 as usize
    };
    let first = carrier();
    nodes[first].die();
    wait_until("the room is at the other node", || carrier() != first);
    page.hears_on();
    // Over the same connection.
    gateway.await_quic_counts(&["webtransport-opened"], |count| count == 1);
    let tally = page.tally();
    assert_eq!((tally.foreign, tally.unreadable), (0, 0));
}
