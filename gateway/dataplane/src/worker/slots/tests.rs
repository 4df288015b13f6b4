use std::panic::{AssertUnwindSafe, catch_unwind};

use evenkeel_model::{Incarnation, Srtp};

use super::*;
use crate::worker::session::tests::install;
use crate::worker::{ClientAddressing, NodeLeg};

fn three() -> SessionSlots {
    let mut sessions = SessionSlots::default();
    (0..3).for_each(|slot| sessions.put(session(slot, &[])));
    sessions
}

fn home(slot: u32) -> Home {
    install(ClientAddressing::Stun, Srtp::Plain, slot).home
}

fn hop(node: u32) -> Hop {
    Hop { node: NodeId(node), incarnation: Incarnation(1) }
}

fn session(slot: u32, tags: &[(u32, Tag)]) -> WorkerSession {
    let mut session = WorkerSession::new(install(ClientAddressing::Stun, Srtp::Plain, slot));
    tags.iter().for_each(|&(node, tag)| session.attach(hop(node), NodeLeg::Trunk(tag)));
    session
}

#[test]
fn reused_slot_is_another_home() {
    let mut sessions = three();
    let before = Home { generation: home(1).generation - 1, ..home(1) };
    assert_eq!(sessions.with(home(1), |session| session.home), Some(home(1)));
    assert_eq!(sessions.with(before, |_| ()), None);
    assert!(sessions.has(home(1)) && !sessions.has(before));
    assert!(sessions.remove(before).is_none() && sessions.remove(home(1)).is_some());
    assert_eq!(sessions.with_slot(1, |_| ()), None);
}

#[test]
fn panic_removes_the_accessed_session_only() {
    let mut sessions = three();
    sessions.with(home(0), |_| ());
    assert!(sessions.remove_current().is_none(), "no panic");
    let panics = AssertUnwindSafe(|| sessions.with::<()>(home(1), |_| panic!("oh")));
    catch_unwind(panics).unwrap_err();
    assert_eq!(sessions.remove_current().map(|session| session.home), Some(home(1)));
    assert!(sessions.remove_current().is_none(), "once");
    assert!(sessions.has(home(0)) && !sessions.has(home(1)) && sessions.has(home(2)));
}

#[test]
fn tag_finds_session_and_hop_of_its_node_only() {
    let tags = [tag(1, 77), tag(1, 78)];
    let mut sessions = SessionSlots::default();
    sessions.put(session(1, &[(0, tags[0]), (1, tags[1])]));
    let mut at = |node, tag| sessions.with_tag(NodeId(node), tag, |s, hop| (s.home.slot, hop));
    assert_eq!([at(0, tags[0]), at(1, tags[1])], [Some((1, hop(0))), Some((1, hop(1)))]);
    assert_eq!(at(1, tags[0]), None, "another node");
    assert_eq!(at(0, tag(1, 79)), None, "guessed");
    assert_eq!([at(0, tag(0, 77)), at(0, tag(2, 77))], [None, None], "empty slot");
}

#[test]
fn tag_ends_with_its_leg_and_its_session() {
    let (old, new) = (tag(0, 1 << 40 | 1), tag(0, 2));
    let mut sessions = SessionSlots::default();
    sessions.put(session(0, &[(0, old)]));
    let there = |sessions: &mut SessionSlots, tag| sessions.with_tag(NodeId(0), tag, |_, hop| hop);
    assert_eq!(there(&mut sessions, old), Some(hop(0)));
    sessions.with_slot(0, |session| session.attach(hop(0), NodeLeg::Trunk(new)));
    assert_eq!([old, new].map(|tag| there(&mut sessions, tag)), [None, Some(hop(0))]);
    sessions.put(session(0, &[]));
    assert_eq!(there(&mut sessions, new), None, "reused slot");
}

#[test]
fn session_takes_152_bytes() {
    assert_eq!(size_of::<WorkerSession>(), 152, "a gateway has very many, most of them silent");
}
