//! Packets read by another worker reach their session's worker.

use evenkeel_model::{ClientIdentity, IngressProtocol};

use crate::harness::{
    Credentials, Node, Nominate, Phone, World, assert_continuous, declared, offer, talk, udp_of,
};

#[test]
fn packets_read_by_other_worker_are_forwarded() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]).with_identities("[\"declared\", \"stun\"]");
    world.limits = "workers = 2\n".into();
    let gateway = world.start();
    // With twelve addresses the kernel gives all to the right worker once in 4,096 runs.
    let mut phones: Vec<Phone> = (1..=12).map(Phone::new).collect();
    for phone in &mut phones {
        let room = format!("room-{}", phone.number);
        if phone.number % 2 == 0 {
            let opened = gateway.open(offer(&room, declared(phone)));
            phone.set_target(udp_of(&opened));
        } else {
            let opened = gateway.open(offer(&room, IngressProtocol::Udp(ClientIdentity::Stun)));
            phone.set_target(udp_of(&opened));
            Credentials::of(&opened).check(phone, Nominate::Yes);
        }
    }
    let mut talking: Vec<&mut Phone> = phones.iter_mut().collect();
    talk(&mut talking, "all hear themselves", |phones| {
        phones.iter().all(|phone| phone.heard.len() >= 20)
    });
    for phone in &phones {
        let heard = phone.heard_from(phone.number, 0);
        assert_eq!(heard.len(), phone.heard.len(), "no client hears another room");
        assert_eq!(assert_continuous(&heard), 0);
    }
}
