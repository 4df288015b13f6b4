//! Packets that cause panics end their own sessions, however many clients send them.

use evenkeel_control::{GatewayEvent, SessionAnswer};
use evenkeel_model::{CloseReason, CoreEvent};

use crate::harness::{Gateway, Node, Phone, World, assert_complete, declared, offer, talk, udp_of};

/// Opens a room of its own for the phone.
fn enter(gateway: &Gateway, phone: &mut Phone) -> SessionAnswer {
    let opened = gateway.open(offer(&format!("room-{}", phone.number), declared(phone)));
    phone.set_target(udp_of(&opened));
    opened
}

fn panicked(gateway: &Gateway, opened: &SessionAnswer) -> bool {
    let reason = gateway.happened(|told| match &told.event {
        GatewayEvent::Core(CoreEvent::Closed { session, reason, .. }) => {
            (*session == opened.session).then_some(*reason)
        }
        _ => None,
    });
    reason == Some(CloseReason::Panicked)
}

#[test]
fn panics_of_twenty_clients_spare_the_others() {
    let node = Node::agent("east-a1");
    let gateway = World::of(&[&node]).start();
    let mut ann = Phone::new(1);
    let hers = enter(&gateway, &mut ann);
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].heard.len() >= 10);
    let mut others: Vec<Phone> =
        (2..=21).map(|number| Phone::on(&format!("127.0.0.{number}:0"), number)).collect();
    let broken: Vec<SessionAnswer> =
        others.iter_mut().map(|phone| enter(&gateway, phone)).collect();
    for opened in &broken {
        gateway.ask(gateway.handle.panic_session(opened.session)).unwrap();
    }
    let mut all: Vec<&mut Phone> = others.iter_mut().chain([&mut ann]).collect();
    talk(&mut all, "their sessions are closed", |_| {
        broken.iter().all(|opened| panicked(&gateway, opened))
    });
    let goal = ann.voice.sent + 20;
    talk(&mut [&mut ann], "she still hears herself", |phones| {
        phones[0].heard.last().is_some_and(|last| last.mark.number >= goal)
    });
    let heard = ann.heard_from(1, 0);
    assert_complete(&heard, heard[0].mark.number, heard[heard.len() - 1].mark.number + 1);
    assert!(gateway.session(&hers).is_some());
    let mut bob = Phone::new(30);
    enter(&gateway, &mut bob);
    talk(&mut [&mut bob], "a newcomer hears himself", |phones| phones[0].heard.len() >= 5);
}
