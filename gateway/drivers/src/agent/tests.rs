use evenkeel_model::{Incarnation, NodeId};

use super::*;
use crate::session::LocalSource;

fn hop(node: u32) -> Hop {
    Hop { node: NodeId(node), incarnation: Incarnation(1) }
}

fn begin(leases: &mut Leases, session: u64, node: u32) -> u64 {
    let tag = Tag(session * 100 + u64::from(node));
    begin_with(leases, session, hop(node), (tag, 77))
}

fn begin_with(leases: &mut Leases, session: u64, hop: Hop, (tag, drawn): (Tag, u64)) -> u64 {
    let session = SessionId(session);
    let record = LeaseRecord { session, hop, room: 1, tag, drawn, worker: 0 };
    leases.begin(record, LeaseState::Opening).nonce
}

fn begin_open(leases: &mut Leases, session: u64, node: u32) -> u64 {
    let nonce = begin(leases, session, node);
    leases.by_nonce(nonce).unwrap().state = LeaseState::Open;
    nonce
}

fn kept(leases: &mut Leases, now: Instant) -> Vec<LeaseRefresh> {
    assert!(leases.due_to_open(now).is_none());
    let due = || leases.due_of_all(now).or_else(|| leases.due_to_keep(now));
    std::iter::from_fn(due).collect()
}

#[test]
fn leases_of_a_session_end_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
        let mut leases = Leases::default();
        begin(&mut leases, 8, 1);
        for node in 0..3 {
            begin(&mut leases, 7, node);
        }
        for node in order {
            let ended = leases.end(SessionId(7), hop(node)).unwrap();
            assert_eq!((ended.session, ended.hop), (SessionId(7), hop(node)));
            assert!(leases.end(SessionId(7), hop(node)).is_none());
        }
        assert_eq!(leases.len(), 1);
        assert!(leases.end(SessionId(8), hop(1)).is_some());
        assert!(leases.firsts.is_empty());
    }
}

#[test]
fn late_answer_misses_the_reused_index() {
    let mut leases = Leases::default();
    let first = begin(&mut leases, 1, 0);
    leases.end(SessionId(1), hop(0));
    assert!(leases.by_nonce(first).is_none());
    let second = begin_with(&mut leases, 2, hop(0), (Tag(9), 78));
    assert_eq!(leases.places.len(), 1);
    assert!(leases.by_nonce(first).is_none());
    assert_eq!(leases.by_nonce(second).unwrap().session, SessionId(2));
    assert!(leases.by_nonce(5).is_none());
}

#[test]
fn each_lease_is_refreshed_once_per_round() {
    let (start, mut leases) = (Instant::now(), Leases::default());
    for session in 0..800 {
        let nonce = begin(&mut leases, session, 0);
        leases.by_nonce(nonce).unwrap().state =
            if session == 3 { LeaseState::Opening } else { LeaseState::Open };
    }
    let (mut turns, mut messages) = (vec![Vec::new(); 800], 0);
    for ms in 0..=25_500 {
        for keep in kept(&mut leases, start + Duration::from_millis(ms)) {
            assert!(keep.tags.len() <= 101, "{} at {ms}", keep.tags.len());
            keep.tags.iter().for_each(|tag| turns[tag.0 as usize / 100].push(ms));
            messages += 1;
        }
    }
    assert!((20..=26).contains(&messages), "{messages}");
    assert_eq!(turns.remove(3), [0; 0], "session 3 is not open yet");
    for turns in turns {
        assert!((3..=4).contains(&turns.len()), "{turns:?}");
        assert!(turns.is_sorted_by(|one, next| (6_990..=9_010).contains(&(next - one))));
    }
}

#[test]
fn message_is_filled_per_node_and_worker() {
    let (start, mut leases) = (Instant::now(), Leases::default());
    for session in 0..300 {
        for node in 0..2 {
            let nonce = begin_open(&mut leases, session, node);
            leases.by_nonce(nonce).unwrap().worker = (session % 2) as u16;
        }
    }
    leases.due_to_keep(start);
    let (mut keeps, mut tags) = (kept(&mut leases, start + REFRESH_EVERY), Vec::new());
    keeps.extend(kept(&mut leases, start + REFRESH_EVERY + GATHER));
    assert_eq!(keeps.len(), 8, "two for each worker and node");
    for LeaseRefresh { path: TrunkPath { node, worker }, nonce, tags: named } in keeps {
        assert!(named.len() <= KEEP_MAX);
        assert_eq!(leases.by_nonce(nonce).unwrap().tag, named[0]);
        for tag in named {
            assert_eq!((tag.0 % 100, tag.0 / 100 % 2), (node.0.into(), worker.into()));
            tags.push(tag);
        }
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 600);
}

#[test]
fn ended_lease_is_not_refreshed() {
    let (start, mut leases) = (Instant::now(), Leases::default());
    for session in 0..3 {
        begin_open(&mut leases, session, 0);
    }
    leases.due_to_keep(start);
    assert_eq!(kept(&mut leases, start + REFRESH_EVERY).len(), 0, "they wait");
    leases.end(SessionId(0), hop(0)).unwrap();
    leases.end(SessionId(1), hop(0)).unwrap();
    // This lease reuses the index of an ended one.
    begin_open(&mut leases, 7, 1);
    let keeps = kept(&mut leases, start + REFRESH_EVERY + GATHER);
    let tags: Vec<&[Tag]> = keeps.iter().map(|keep| &*keep.tags).collect();
    assert_eq!(tags, [[Tag(200)]]);
}

#[test]
fn unknown_leases_are_opened_again_at_once() {
    let (now, mut leases) = (Instant::now(), Leases::default());
    let nonces: Vec<u64> = (0..9).map(|session| begin_open(&mut leases, session, 0)).collect();
    begin(&mut leases, 21, 0);
    let named = [Tag(800), Tag(100), Tag(2_100), Tag(77), Tag(100)];
    let mut unknown = |nonce| {
        leases.refreshed(nonce, &named, now);
        let mut sessions: Vec<u64> = std::iter::from_fn(|| leases.due_to_open(now))
            .map(|lease| {
                assert_eq!(lease.state, LeaseState::Reopening);
                lease.session.0
            })
            .collect();
        sessions.sort_unstable();
        sessions
    };
    assert_eq!(unknown(nonces[4] + (1 << 32)), [0; 0], "no request has this nonce");
    assert_eq!(unknown(nonces[4]), [1, 8], "before the first and behind it");
    assert_eq!(unknown(nonces[4]), [0; 0], "their opens are pending");
}

#[test]
fn late_refresh_skips_missed_rounds() {
    let (start, mut leases) = (Instant::now(), Leases::default());
    begin_open(&mut leases, 1, 0);
    assert!(leases.due_to_keep(start).is_none());
    let late = start + REFRESH_EVERY * 50;
    let count = |leases: &mut Leases, now| kept(leases, now).len();
    assert_eq!(count(&mut leases, late), 0);
    assert_eq!(count(&mut leases, late + GATHER), 1);
    assert_eq!(count(&mut leases, late + REFRESH_EVERY / 2), 0);
    assert_eq!(count(&mut leases, late + REFRESH_EVERY), 0);
    assert_eq!(count(&mut leases, late + REFRESH_EVERY + GATHER), 1);
}

fn refreshing_all(sessions: u64, now: Instant) -> Leases {
    let mut leases = Leases::default();
    for node in 0..2 {
        for session in 0..sessions {
            begin_open(&mut leases, session, node);
        }
    }
    leases.refresh_all(now);
    leases
}

/// Nodes and numbers of leases.
fn sizes(keeps: &[LeaseRefresh]) -> Vec<(u32, usize)> {
    let mut sizes: Vec<_> = keeps.iter().map(|keep| (keep.path.node.0, keep.tags.len())).collect();
    sizes.sort_unstable();
    sizes
}

#[test]
fn refresh_of_all_is_repeated_until_answered() {
    let mut now = Instant::now();
    let mut leases = refreshing_all(KEEP_MAX as u64 + 6, now);
    let keeps = kept(&mut leases, now);
    assert_eq!(sizes(&keeps), [(0, 6), (0, KEEP_MAX), (1, 6), (1, KEEP_MAX)]);
    let full = keeps.iter().filter(|keep| keep.tags.len() == KEEP_MAX);
    // Only one is answered.
    let full = full.filter(|keep| keep.path.node == NodeId(0));
    full.for_each(|keep| leases.refreshed(keep.nonce, &[], now));
    for wait in [ASK_AGAIN, 2 * ASK_AGAIN, 4 * ASK_AGAIN] {
        assert_eq!(kept(&mut leases, now + wait - Duration::from_millis(1)).len(), 0);
        now += wait;
        assert_eq!(sizes(&kept(&mut leases, now)), [(0, 6), (1, 6), (1, KEEP_MAX)]);
    }
}

#[test]
fn answered_refresh_of_all_is_not_repeated() {
    let now = Instant::now();
    let mut leases = refreshing_all(6, now);
    for LeaseRefresh { nonce, .. } in kept(&mut leases, now) {
        leases.refreshed(nonce, &[], now);
    }
    let until_round = (1..140).map(|turn| turn * ASK_AGAIN);
    let repeated = until_round.map(|later| kept(&mut leases, now + later));
    let repeated = repeated.flatten().filter(|keep| keep.tags.len() == 6);
    assert_eq!(repeated.count(), 0);
}

#[test]
fn refresh_of_all_ends_with_the_lease() {
    let now = Instant::now();
    let mut leases = refreshing_all(6, now);
    let mut sent = kept(&mut leases, now).len();
    for turn in 1..=2 * LEASE.as_millis() / ASK_AGAIN.as_millis() {
        let keeps = kept(&mut leases, now + turn as u32 * ASK_AGAIN);
        sent += keeps.iter().filter(|keep| keep.tags.len() == 6).count();
    }
    // After 0, 50, 150, 350, 750 ms and so on up to 25.55 s.
    assert_eq!((sent, leases.pending.len()), (2 * 10, 0));
}

#[test]
fn late_answer_for_an_ended_lease_changes_nothing() {
    let now = Instant::now();
    let mut leases = refreshing_all(6, now);
    let keeps = kept(&mut leases, now);
    leases.end(SessionId(0), hop(0)).unwrap();
    leases.refreshed(keeps[0].nonce, &[Tag(200)], now);
    let again = kept(&mut leases, now + ASK_AGAIN);
    assert_eq!(sizes(&again), [(0, 5), (1, 6)], "the rest is asked again");
    let of_rest = again.iter().find(|keep| keep.path.node == NodeId(0)).unwrap().nonce;
    leases.refreshed(of_rest, &[], now);
    assert_eq!(sizes(&kept(&mut leases, now + 3 * ASK_AGAIN)), [(1, 6)]);
}

fn agent_node(number: u32) -> AgentNode {
    let source = LocalSource::Routed(|_| None);
    let context = DriverContext { source, fencing: Arc::default(), room_names: Arc::default() };
    AgentNode::new(NodeId(number), "east-a1", &SecretFile::new(vec![b'x'; 32]), &context)
}

/// The tags that are refreshed at this time.
fn refreshed(node: &mut AgentNode, now: Instant) -> Vec<Tag> {
    kept(&mut node.leases, now).into_iter().flat_map(|keep| keep.tags).collect()
}

#[test]
fn restarted_node_is_asked_for_its_sessions_at_once() {
    let (start, mut nodes) = (Instant::now(), [agent_node(0), agent_node(1)]);
    for (number, node) in (0..).zip(&mut nodes) {
        (0..3).for_each(|session| _ = begin_open(&mut node.leases, session, number));
    }
    let at = |ms| start + Duration::from_millis(ms);
    for (node, sessions, ms) in [(0, 3, 0), (1, 4, 0), (0, 3, 20), (1, 3, 20)] {
        nodes[node].handle_sessions(sessions, at(ms));
    }
    for node in &mut nodes {
        assert_eq!(refreshed(node, at(20)), [], "each has as many as before, or as leases");
    }
    nodes[0].handle_sessions(0, at(40));
    assert_eq!(refreshed(&mut nodes[0], at(40)), [0, 100, 200].map(Tag));
    assert_eq!(refreshed(&mut nodes[1], at(40)), []);
    nodes[0].handle_sessions(0, at(60));
    assert_eq!(refreshed(&mut nodes[0], at(60)), [], "asked already");
}

#[test]
fn second_restart_is_noticed_after_the_interval() {
    let (start, mut node) = (Instant::now(), agent_node(0));
    let nonce = begin_open(&mut node.leases, 1, 0);
    let at = |ms| start + Duration::from_millis(ms);
    let mut report = |sessions, ms| {
        node.handle_sessions(sessions, at(ms));
        let asked = refreshed(&mut node, at(ms)).len();
        node.leases.refreshed(nonce, &[], at(ms));
        asked
    };
    let asked = [(1, 0), (0, 20), (1, 40), (0, 60), (0, 269), (0, 270)];
    assert_eq!(asked.map(|(sessions, ms)| report(sessions, ms)), [0, 1, 0, 0, 0, 1]);
}

#[test]
fn lease_takes_48_bytes() {
    assert_eq!(size_of::<Option<TrunkLease>>(), 48, "a session has one at each hop");
}
