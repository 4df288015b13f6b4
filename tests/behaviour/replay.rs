//! Voice that a node swallowed before its death reaches receivers through the next one.

use std::time::{Duration, Instant};

use evenkeel_control::GatewayEvent;
use evenkeel_model::CoreEvent;
use evenkeel_testkit::not_measured;

use crate::harness::{
    Gateway, Node, Phone, World, assert_complete, assert_continuous, declared, offer, talk, udp_of,
    wait_until,
};

/// A packet that was swallowed earlier than this before the gateway found the death may not be sent again. A busy machine may take longer.
const REPLAYED: Duration = Duration::from_millis(55);

/// Two phones in a room, which hear each other through the first hop.
struct Call {
    gateway: Gateway,
    phones: [Phone; 2],
    /// The nodes that carry the call, and after its death.
    hops: [usize; 2],
}

impl Call {
    fn begin(nodes: &[Node], scenario: &str) -> Call {
        let nodes: Vec<&Node> = nodes.iter().collect();
        let world = World { scenario: format!("spares = 1\n{scenario}\n"), ..World::of(&nodes) };
        let gateway = world.start();
        let mut phones = [1, 2].map(Phone::new);
        let mut hops = [0; 2];
        for phone in &mut phones {
            let opened = gateway.open(offer("room", declared(phone)));
            phone.set_target(udp_of(&opened));
            hops = [0, 1].map(|hop: usize| opened.route[hop].node.0 as usize);
        }
        let mut call = Call { gateway, phones, hops };
        call.hear(nodes[hops[0]].number(), 10);
        call
    }

    /// Both talk until each has heard this many further packets of the other one through this node.
    fn hear(&mut self, node: u32, more: usize) {
        let heard = |phone: &Phone| {
            let heard = phone.heard_from(3 - phone.number, 0);
            heard.iter().filter(|heard| heard.mark.node == node).count()
        };
        let [one, other] = &mut self.phones;
        let before = [heard(one), heard(other)];
        talk(&mut [one, other], "media through the node", |phones| {
            phones.iter().zip(before).all(|(phone, before)| heard(phone) >= before + more)
        });
    }

    /// Waits until no packet is under way.
    fn hear_rest(&mut self) {
        wait_until("the last packets are heard", || {
            self.phones.iter_mut().for_each(Phone::listen);
            let [one, other] = &self.phones;
            [(one, other), (other, one)].iter().all(|(by, of)| {
                let last = by.heard_from(of.number, 0).pop();
                last.is_some_and(|last| last.mark.number + 1 == of.voice.sent)
            })
        });
    }

    /// The first node dies and swallows what is sent to it from then on. Returns the time until the room has moved.
    fn lose_first_node(&mut self, nodes: &mut [Node]) -> Duration {
        let [first, second] = self.hops;
        self.hear_rest();
        let begins = Instant::now();
        nodes[first].die();
        let Call { gateway, phones: [one, other], .. } = self;
        talk(&mut [one, other], "the room moves", |_| {
            let moved = gateway.happened(|told| match told.event {
                GatewayEvent::Core(CoreEvent::Moved { .. }) => Some(()),
                _ => None,
            });
            moved.is_some()
        });
        let moved_within = begins.elapsed();
        self.hear(nodes[second].number(), 20);
        self.hear_rest();
        moved_within
    }

    fn replayed(&self) -> u64 {
        self.gateway.status().scenario_traffic.values().map(|traffic| traffic.replayed).sum()
    }
}

fn nodes() -> [Node; 2] {
    ["east-a1", "east-b1"].map(|name| Node::unchanged(name).keeping_ssrc())
}

#[test]
fn dead_node_loses_no_packet_of_voice() {
    let mut nodes = nodes();
    let mut call = Call::begin(&nodes, "replay = \"audio\"");
    let moved_within = call.lose_first_node(&mut nodes);
    for (phone, other) in [(0, 1), (1, 0)] {
        let (phone, other) = (&call.phones[phone], &call.phones[other]);
        let heard = phone.heard_from(other.number, 0);
        assert_continuous(&heard);
        if moved_within <= REPLAYED {
            assert_complete(&heard, heard[0].mark.number, other.voice.sent);
        }
    }
    if moved_within <= REPLAYED {
        wait_until("replayed packets are counted", || call.replayed() > 0);
    } else {
        not_measured(&format!("the room moved after {moved_within:.0?}"));
    }
}

#[test]
fn nothing_is_replayed_without_replay() {
    let mut nodes = nodes();
    let mut call = Call::begin(&nodes, "replay = \"off\"");
    call.lose_first_node(&mut nodes);
    let [one, other] = &call.phones;
    assert_continuous(&one.heard_from(other.number, 0));
    assert_eq!(call.replayed(), 0);
}
