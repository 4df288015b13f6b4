//! A node that drops the flows of some sessions, and innocent causes that look the same.

use evenkeel_model::{
    CoreEvent, FlowCounts, Measures, MoveCause, NodeId, RedundancyMode, SessionId, Strike,
};

use super::*;

const VOICE: [u32; 2] = [5, 0];
const VIDEO: [u32; 2] = [0, 30];
const NOTHING: [u32; 2] = [0, 0];

/// Rooms of talking sessions, reported every 100 ms.
struct Talk {
    world: World,
    sessions: Vec<SessionId>,
    /// Packets that each session sends and receives in 100 ms.
    sent: Vec<[u32; 2]>,
    received: Vec<[u32; 2]>,
    /// The hop that the sessions receive from, if not the first.
    hears: Option<NodeId>,
}

impl Talk {
    /// A room of `sessions` sessions, each of which sends and receives the others, and another room at the same node.
    fn of(sessions: usize) -> Talk {
        Talk::in_world(World::new(settings()), sessions)
    }

    fn in_world(mut world: World, sessions: usize) -> Talk {
        let sessions: Vec<SessionId> = (0..sessions).map(|_| world.open("r")).collect();
        world.outputs.clear();
        let each = vec![VOICE; sessions.len()];
        let hears = None;
        let mut talk = Talk { world, sent: each.clone(), received: each, sessions, hears };
        talk.goes_on(3_000);
        assert_eq!(talk.world.moves(), []);
        talk
    }

    fn tell(&mut self) {
        let hears = self.hears.or(self.world.stands("r")).map(|node| self.world.hop(node));
        for (at, &session) in self.sessions.iter().enumerate() {
            let flow = FlowCounts {
                sent: self.sent[at],
                received: self.received[at],
                hears,
                ..FlowCounts::default()
            };
            let now = self.world.now;
            self.world.gateway.handle_summary(session, Measures::default(), Some(now));
            self.world.gateway.handle_flow(session, &flow, now);
        }
        self.world.settle();
    }

    fn goes_on(&mut self, ms_: u64) {
        for _ in 0..ms_ / 100 {
            self.world.pass(ms(100));
            self.tell();
        }
    }

    /// Milliseconds until the room moves, if within 5 s.
    fn moves_after(&mut self) -> Option<u64> {
        let before = self.world.moves().len();
        for step in 1..=50 {
            self.goes_on(100);
            if self.world.moves().len() > before {
                return Some(step * 100);
            }
        }
        None
    }
}

const A_TO_B: (NodeId, Option<NodeId>) = (A, Some(B));

#[test]
fn lost_flow_moves_room_within_two_seconds() {
    for sessions in [2, 3, 40] {
        let mut talk = Talk::of(sessions);
        talk.world.open("other");
        talk.received[1] = NOTHING;
        let after = talk.moves_after().expect("the room moves");
        assert!((700..=1_500).contains(&after), "{after}");
        assert_eq!(talk.world.moves(), [A_TO_B], "and no other room does");
        let cause = |e: &CoreEvent| matches!(e, CoreEvent::Moved { cause: MoveCause::Link, .. });
        assert!(talk.world.events().any(cause));
        let known_by = |e: &CoreEvent| match e {
            CoreEvent::HopRemoved { why: Strike::FlowLost, session, .. } => *session,
            _ => None,
        };
        assert_eq!(talk.world.events().find_map(known_by), Some(talk.sessions[1]));
        assert!(talk.world.gateway.board().cell(A).unwrap().up, "its node lives");
        // Packets from the old hop pass to the other sessions until they receive from the new one.
        let route = talk.world.gateway.rooms[&talk.world.room("r")].route();
        assert_eq!(route.leaving().map(|(hop, _)| hop.node), Some(A));
    }
}

#[test]
fn closed_silent_session_is_not_watched() {
    let mut talk = Talk::of(2);
    talk.received[1] = NOTHING;
    talk.goes_on(300);
    assert_eq!(talk.world.gateway.quality.silent(), 1);
    let (session, now) = (talk.sessions[1], talk.world.now);
    talk.world.gateway.handle_close(session, now).unwrap();
    assert_eq!(talk.world.gateway.quality.silent(), 0);
}

#[test]
fn lone_session_without_echo_moves_room() {
    let mut talk = Talk::of(1);
    talk.received[0] = NOTHING;
    assert!(talk.moves_after().is_some_and(|after| after <= 1_500));
}

#[test]
fn silent_listener_detects_lost_flow() {
    let mut talk = Talk::of(2);
    talk.sent[1] = NOTHING;
    talk.goes_on(3_000);
    talk.received[1] = NOTHING;
    assert!(talk.moves_after().is_some_and(|after| after <= 1_500));
}

#[test]
fn silence_of_all_senders_is_no_lost_flow() {
    // A muted sender, and one silent with DTX: a packet every 400 ms.
    for rest in [[0, 0], [1, 0]] {
        let mut talk = Talk::of(3);
        // Only the first session sends from now on.
        (talk.sent[1], talk.sent[2], talk.received[0]) = (NOTHING, NOTHING, NOTHING);
        talk.goes_on(2_000);
        for step in 0..50_u32 {
            let sent = if step.is_multiple_of(4) { rest } else { NOTHING };
            (talk.sent[0], talk.received[1], talk.received[2]) = (sent, sent, sent);
            talk.goes_on(100);
        }
        assert_eq!(talk.world.moves(), []);
    }
}

#[test]
fn camera_does_not_mark_muted_audio_lost() {
    let mut talk = Talk::of(2);
    talk.sent[0] = [5, 30];
    talk.goes_on(2_000);
    (talk.sent[0], talk.received[1]) = (VIDEO, NOTHING);
    assert_eq!(talk.moves_after(), None, "the other never heard the video");
}

#[test]
fn one_of_two_speakers_may_stop() {
    let mut talk = Talk::of(3);
    (talk.sent[0], talk.received[2]) = (NOTHING, NOTHING);
    assert_eq!(talk.moves_after(), None);
}

#[test]
fn client_silent_both_ways_is_on_hold() {
    let mut talk = Talk::of(3);
    (talk.sent[1], talk.received[1]) = (NOTHING, NOTHING);
    assert_eq!(talk.moves_after(), None);
}

#[test]
fn publisher_without_listeners_is_fine() {
    let mut talk = Talk::of(2);
    let listener = talk.sessions.pop().unwrap();
    talk.world.close(listener);
    talk.received[0] = NOTHING;
    talk.received.pop();
    assert_eq!(
        talk.moves_after(),
        None,
        "nobody is left to be heard but itself, which it never was"
    );
}

#[test]
fn session_without_media_loses_nothing() {
    let mut talk = Talk::of(2);
    talk.received = vec![NOTHING; 2];
    talk.moves_after();
    talk.world.outputs.clear();
    assert_eq!(talk.moves_after(), None, "subscribed to nobody");
}

#[test]
fn late_or_lost_packets_are_no_lost_flow() {
    let mut talk = Talk::of(2);
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..3_000 {
        // Five packets in 100 ms, of which jitter of ±80 ms leaves zero to ten. A third is lost in addition.
        let some = |rng: &mut fastrand::Rng| {
            [(0..rng.u32(0..=10)).filter(|_| rng.u8(0..3) > 0).count() as u32, 0]
        };
        talk.received = vec![some(&mut rng), some(&mut rng)];
        talk.goes_on(100);
    }
    assert_eq!(talk.world.moves(), []);
}

#[test]
fn mute_node_has_its_own_witnesses() {
    let mut talk = Talk::of(2);
    talk.world.hush(A);
    talk.received = vec![NOTHING; 2];
    talk.moves_after();
    assert!(!talk.world.events().any(|e| matches!(e, CoreEvent::HopRemoved { .. })));
}

#[test]
fn our_own_stall_is_no_lost_flow() {
    let mut talk = Talk::of(2);
    talk.received[1] = NOTHING;
    talk.goes_on(100);
    // A worker was delayed by 900 ms and reported nothing meanwhile.
    talk.world.now += ms(900);
    talk.world.stamp(ms(900));
    talk.world.pass(ms(100));
    talk.received[1] = VOICE;
    talk.goes_on(1_000);
    assert_eq!(talk.world.moves(), []);
}

#[test]
fn unmended_lost_flow_moves_room_once() {
    let mut talk = Talk::of(2);
    talk.received[1] = NOTHING;
    assert!(talk.moves_after().is_some());
    for _ in 0..20 {
        assert_eq!(talk.moves_after(), None, "its client has paused");
        // The session sends for a moment.
        talk.received[1] = VOICE;
        talk.goes_on(2_000);
        talk.received[1] = NOTHING;
    }
}

#[test]
fn general_flow_loss_moves_3_times_a_minute() {
    let mut talk = Talk::of(2);
    let mut moves = 0;
    for _ in 0..5 {
        talk.received[1] = VOICE;
        talk.goes_on(9_000);
        talk.received[1] = NOTHING;
        moves += usize::from(talk.moves_after().is_some());
    }
    assert_eq!(moves, 3);
}

/// A room that A and B both carry, with clients that receive from B because it delivered first.
fn heard_by_the_second() -> Talk {
    let settings = modes::in_mode(RedundancyMode::Hitless, settings());
    let mut talk = Talk::in_world(World::new(settings), 2);
    talk.hears = Some(B);
    talk.goes_on(5_000);
    talk
}

#[test]
fn hitless_clients_may_hear_either_hop() {
    let talk = heard_by_the_second();
    let struck = |e: &CoreEvent| matches!(e, CoreEvent::HopRemoved { .. });
    assert!(!talk.world.events().any(struck), "what comes from the first is of no use to them");
    assert_eq!(talk.world.moves(), []);
}

#[test]
fn flow_lost_at_second_hop_removes_it() {
    let mut talk = heard_by_the_second();
    talk.received[1] = NOTHING;
    talk.goes_on(1_500);
    let struck = |e: &CoreEvent| match e {
        CoreEvent::HopRemoved { hop, why: Strike::FlowLost, .. } => Some(hop.node),
        _ => None,
    };
    assert_eq!(talk.world.events().find_map(struck), Some(B));
    assert_eq!(talk.world.moves(), [], "the first carries it");
    assert!(!talk.world.route("r").iter().any(|(node, _)| *node == B));
}

#[test]
fn flow_lost_at_both_hops_accuses_neither() {
    let settings = modes::in_mode(RedundancyMode::Hitless, settings());
    let mut talk = Talk::in_world(World::new(settings), 2);
    let hears = Some(talk.world.hop(A));
    for _ in 0..50 {
        talk.world.pass(ms(100));
        for &session in &talk.sessions {
            let flow = FlowCounts {
                received: VOICE,
                sent: VOICE,
                hears,
                expected: 5,
                lost: 2,
                ..FlowCounts::default()
            };
            talk.world.gateway.handle_flow(session, &flow, talk.world.now);
        }
    }
    assert!(talk.world.gateway.quality.ballots() == 0);
}
