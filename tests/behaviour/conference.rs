//! A conference under the policies we ship: placed by them, and who only listens gives way before who speaks.

use std::sync::Arc;

use evenkeel_core::{Decider, Event, Op, SessionId};
use evenkeel_media::rtcp::{self, ReportBlock};
use evenkeel_server::control::{Opened, Wanted};

use crate::harness::{Gateway, Node, Phone, World, declared, offer, talk, udp_of};

const SHIPPED: &str = include_str!("../../policies/conference.toml");

/// Of 256 packets, 6 %: more than who listens bears, and less than who speaks does.
const LOSS: u8 = 15;

fn enters(room: &str, phone: &Phone, role: &str) -> Wanted {
    let mut wanted = offer(room, declared(phone));
    wanted.scenario = "conference".into();
    wanted.labels = Arc::new([("role".into(), role.into())]);
    wanted
}

/// A room that the shipped routing policy placed: on a busy machine an answer may come too late, and the native default
/// stands; not in every room.
fn enter(gateway: &Gateway, phones: &[Phone], roles: [&str; 4]) -> [Opened; 4] {
    let by_us = |opened: &Opened| matches!(&opened.routed_by, Decider::Policy { policy, .. } if &*policy.set == "conference");
    for number in 0..30 {
        let room = format!("room-{number}");
        let first = gateway.open(enters(&room, &phones[0], roles[0]));
        if by_us(&first) {
            let mut entered = vec![first];
            for at in 1..4 {
                entered.push(gateway.open(enters(&room, &phones[at], roles[at])));
            }
            return entered.try_into().unwrap();
        }
        gateway.ask(gateway.handle.close(first.session)).unwrap();
    }
    panic!("the policy never answers in time");
}

/// Says that so many of 256 packets of the other one's streams were lost on the way here.
fn report(phone: &Phone, other: u64, fraction_lost: u8) {
    let heard =
        [0, 1].into_iter().filter_map(|stream| phone.heard_of(other, stream).last().cloned());
    let block = |heard: crate::harness::Heard| ReportBlock {
        ssrc: heard.header.ssrc,
        fraction_lost,
        lost: 0,
        sequence_max: u32::from(heard.header.sequence),
        jitter: 0,
        last_sr: 0,
        delay_since_last_sr: 0,
    };
    let mut packet = Vec::new();
    let blocks: Vec<ReportBlock> = heard.map(block).collect();
    rtcp::write_receiver_report(phone.voice.ssrc, &blocks, &mut packet);
    phone.send(&packet);
}

fn degraded(gateway: &Gateway, session: SessionId) -> Option<(Op, Decider)> {
    gateway.happened(|told| match &told.event {
        evenkeel_server::control::Happened::Core(Event::Degraded {
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
fn in_a_conference_who_only_listens_loses_the_picture_and_who_speaks_keeps_it() {
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
        phone.dial(udp_of(opened));
    }
    phones[0].films = true;
    let [ann, bob, cleo, dan] = &mut phones[..] else { panic!() };
    talk(&mut [ann, bob, cleo, dan], "all see the speaker", |phones| {
        phones[1..].iter().all(|phone| phone.heard_of(1, 1).len() >= 25)
    });

    // Both lose as much on the way to them; only the listener gives way.
    let mut said = None;
    talk(&mut [ann, bob, cleo, dan], "who listens hears voice only", |phones| {
        report(phones[1], 1, LOSS);
        report(phones[2], 1, LOSS);
        said = degraded(&gateway, opened[2].session);
        said.is_some()
    });
    let (op, by) = said.unwrap();
    assert_eq!(op, Op::VoiceOnly, "a cap on who listens would mend nothing");
    let Decider::Policy { policy, .. } = by else { panic!("{by:?}") };
    assert_eq!(policy.to_string(), "conference/degradation");
    let (voices, pictures) = (cleo.voices_of(1), cleo.heard_of(1, 1).len());
    let seen = bob.heard_of(1, 1).len();
    talk(&mut [ann, bob, cleo, dan], "the voice goes on", |phones| {
        report(phones[1], 1, LOSS);
        report(phones[2], 1, LOSS);
        phones[2].voices_of(1) >= voices + 40 && phones[1].heard_of(1, 1).len() >= seen + 40
    });
    assert!(cleo.heard_of(1, 1).len() <= pictures + 2, "what was on its way");
    assert_eq!(degraded(&gateway, opened[1].session), None, "who speaks bears more");
    assert_eq!(degraded(&gateway, opened[3].session), None, "nobody gives way for another");
}
