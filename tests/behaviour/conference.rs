//! A conference under the shipped policies: they place it, and degrade listeners before speakers.

use std::sync::Arc;

use evenkeel_control::{OfferedSession, SessionAnswer};
use evenkeel_model::{CoreEvent, Decider, Op, SessionId};

use crate::harness::{Gateway, Heard, Node, Phone, World, declared, offer, talk, udp_of};

const SHIPPED: &str = include_str!("../../policies/conference.toml");

/// In 256ths: 6 %, above the limit for listeners and below that for speakers.
const LOSS: u8 = 15;

fn request(room: &str, phone: &Phone, role: &str) -> OfferedSession {
    let mut wanted = offer(room, declared(phone));
    wanted.scenario = "conference".into();
    wanted.labels = Arc::new([("role".into(), role.into())]);
    wanted
}

/// Opens rooms until the shipped routing policy placed one: on a busy machine some answers are late and the native default
/// decides.
fn enter(gateway: &Gateway, phones: &[Phone], roles: [&str; 4]) -> [SessionAnswer; 4] {
    let by_us = |opened: &SessionAnswer| matches!(&opened.routed_by, Decider::Policy { policy, .. } if &*policy.set == "conference");
    for number in 0..30 {
        let room = format!("room-{number}");
        let first = gateway.open(request(&room, &phones[0], roles[0]));
        if by_us(&first) {
            let mut entered = vec![first];
            for at in 1..4 {
                entered.push(gateway.open(request(&room, &phones[at], roles[at])));
            }
            return entered.try_into().unwrap();
        }
        gateway.ask(gateway.handle.close(first.session)).unwrap();
    }
    panic!("the policy never answers in time");
}

/// Reports this loss of the other client's streams.
fn report(phone: &Phone, other: u64, fraction_lost: u8) {
    let last = |stream| phone.heard_from(other, stream).pop();
    let last: Vec<Heard> = [0, 1].into_iter().filter_map(last).collect();
    phone.report_loss(&last, fraction_lost);
}

fn degraded(gateway: &Gateway, session: SessionId) -> Option<(Op, Decider)> {
    gateway.happened(|told| match &told.event {
        evenkeel_control::GatewayEvent::Core(CoreEvent::Degraded {
            session: of,
            op,
            arg: 1..,
            by,
            ..
        }) if *of == session => Some((*op, by.clone())),
        _ => None,
    })
}

#[test]
fn conference_listener_loses_video_before_speaker() {
    let nodes = [Node::agent("east-a1"), Node::agent("east-b1")];
    let mut world = World::of(&nodes.each_ref());
    world.conference = SHIPPED.into();
    let gateway = world.start();
    let mut phones: Vec<Phone> = (1..=4).map(Phone::new).collect();
    let roles = ["speaker", "speaker", "listener", "listener"];
    let opened = enter(&gateway, &phones, roles);
    assert!(opened.iter().all(|one| (one.room, &one.route) == (opened[0].room, &opened[0].route)));
    assert_eq!(opened[0].route.len(), 2, "a spare");
    for (phone, opened) in phones.iter_mut().zip(&opened) {
        phone.set_target(udp_of(opened));
    }
    phones[0].sends_video = true;
    let [ann, bob, cleo, dan] = &mut phones[..] else { panic!() };
    talk(&mut [ann, bob, cleo, dan], "all see the speaker", |phones| {
        phones[1..].iter().all(|phone| phone.heard_from(1, 1).len() >= 25)
    });

    // Both have the same loss; only the listener is degraded.
    let mut said = None;
    talk(&mut [ann, bob, cleo, dan], "the listener is degraded", |phones| {
        report(phones[1], 1, LOSS);
        report(phones[2], 1, LOSS);
        said = degraded(&gateway, opened[2].session);
        said.is_some()
    });
    let (op, by) = said.unwrap();
    assert_eq!(op, Op::Thin, "a cap on a listener would not help");
    let Decider::Policy { policy, .. } = by else { panic!("{by:?}") };
    assert_eq!(policy.to_string(), "conference/degradation");
    let seen = bob.heard_from(1, 1).len();
    talk(&mut [ann, bob, cleo, dan], "the voice goes on without pictures", |phones| {
        report(phones[1], 1, LOSS);
        report(phones[2], 1, LOSS);
        phones[2].voices_since_video(1) >= 40 && phones[1].heard_from(1, 1).len() >= seen + 40
    });
    assert_eq!(degraded(&gateway, opened[1].session), None, "the limit for speakers is higher");
    assert_eq!(
        degraded(&gateway, opened[3].session),
        None,
        "a listener without loss is not degraded"
    );
}
