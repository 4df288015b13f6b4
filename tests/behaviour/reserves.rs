//! Capacity that is reserved for the death of a zone.

use std::process::Command;

use evenkeel_contract::offers::OfferIngress;
use evenkeel_testkit::binary::evenkeel;

use crate::harness::{GatewayProcess, Node, Phone, World, wait_until};

/// Four calls fill both nodes of a zone. The node of another zone, a standby, has capacity for all of them.
struct FullZone {
    gateway: GatewayProcess,
    phones: Vec<Phone>,
    _nodes: [Node; 3],
}

impl FullZone {
    fn start(scenario: &str) -> FullZone {
        let nodes = ["east-a1", "east-a2", "east-b1"].map(Node::agent);
        let mut world = World::of(&nodes.each_ref());
        world.scenario += scenario;
        // A call needs 64 kbit/s.
        let [first, second, other] = nodes.each_ref().map(Node::text);
        let small = [first, second].map(|node| node.replace("200 Mbit/s", "130 kbit/s"));
        let large = other.replace("200 Mbit/s", "260 kbit/s") + "standby = true\n";
        world.nodes = small.concat() + &large;
        let gateway = GatewayProcess::start(&world);
        let mut full = FullZone { gateway, phones: Vec::new(), _nodes: nodes };
        (0..4).for_each(|_| full.call());
        full.await_unprotected(0);
        full
    }

    /// Opens a room of its own.
    fn call(&mut self) {
        let mut phone = Phone::new(self.phones.len() as u64 + 1);
        self.gateway.open(&format!("room-{}", phone.number), &mut phone);
        self.phones.push(phone);
    }

    fn is_refused(&mut self) -> bool {
        let phone = Phone::new(self.phones.len() as u64 + 1);
        let offer = GatewayProcess::offer("refused", OfferIngress::declared(phone.address()));
        self.gateway.ask(async |client| client.open(&offer).await).is_err()
    }

    /// Waits for this number of rooms without a reserve for the death that their scenario wants covered.
    fn await_unprotected(&mut self, rooms: u64) {
        wait_until(&format!("{rooms} rooms lack a reserve"), || {
            let blast = self.gateway.read("/v1/blast?busiest=1");
            blast["unprotected_rooms_before"].as_u64() == Some(rooms)
        });
    }
}

#[test]
fn zone_is_reserved_for_until_load_needs_it() {
    let mut full = FullZone::start("");
    // At the standby they have none themselves, and two rooms of the full zone give up a part of their reserve.
    (0..2).for_each(|_| full.call());
    full.await_unprotected(4);
    assert!(full.is_refused(), "reserves for the death of a node remain");
    let mut command = Command::new(evenkeel());
    command.args(["risk", "--api"]).arg(full.gateway.folder().join("admin.sock"));
    let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let line = said.lines().find(|line| line.starts_with("no-spare"));
    let found = "4 rooms lack a standby, or reserve for the death of a node instead of its zone";
    assert!(line.is_some_and(|line| line.contains(found)), "{said}");
}

#[test]
fn named_reserve_for_a_zone_refuses_newcomers() {
    let mut full = FullZone::start("reserve = \"zone\"\n");
    assert!(full.is_refused());
}
