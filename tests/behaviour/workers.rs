//! A packet that another worker read goes home.

use evenkeel_core::{Identity, Ingress};

use crate::harness::{
    Credentials, Node, Nominate, Phone, World, continuous, declared, offer, talk, udp_of,
};

#[test]
fn sessions_are_served_whichever_worker_reads_their_packets() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]).taking("[\"declared\", \"stun\"]");
    world.limits = "workers = 2\n".into();
    let gateway = world.start();
    // Twelve addresses: that the kernel gives all of them to their own worker happens once in 4,096 times.
    let mut phones: Vec<Phone> = (1..=12).map(Phone::new).collect();
    for phone in &mut phones {
        let room = format!("room-{}", phone.number);
        if phone.number % 2 == 0 {
            let opened = gateway.open(offer(&room, declared(phone)));
            phone.dial(udp_of(&opened));
        } else {
            let opened = gateway.open(offer(&room, Ingress::Udp(Identity::Stun)));
            phone.dial(udp_of(&opened));
            Credentials::of(&opened).check(phone, Nominate::Yes);
        }
    }
    let mut talking: Vec<&mut Phone> = phones.iter_mut().collect();
    talk(&mut talking, "all hear themselves", |phones| {
        phones.iter().all(|phone| phone.heard.len() >= 20)
    });
    for phone in &phones {
        let heard = phone.heard_of(phone.number, 0);
        assert_eq!(heard.len(), phone.heard.len(), "nobody hears another room");
        assert_eq!(continuous(&heard), 0);
    }
}
