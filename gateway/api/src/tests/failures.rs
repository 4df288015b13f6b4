//! Failures of nodes and gateways.

use evenkeel_contract::sessions::EndedSession;
use evenkeel_control::history::SessionHistory;
use evenkeel_control::samples::ended_session as record;
use evenkeel_control::{Continuation, LossComparison, LossFigures};
use evenkeel_group::GroupOwnership;
use evenkeel_kept::{Follower, Store};
use evenkeel_model::EvidenceSource;
use evenkeel_process::unix_us;
use tempfile::tempdir;

use super::*;
use crate::failure_log::FailureLog;

fn death(node: u32, died_us: u64, actual: LossFigures) -> GatewayEvent {
    GatewayEvent::LossCompared(Box::new(LossComparison {
        nodes: vec![hop(node)],
        died_us,
        witnesses: [EvidenceSource::Agent, EvidenceSource::Probe].into(),
        predicted: None,
        actual,
    }))
}

fn takeover(sessions: usize) -> GatewayEvent {
    let (cause, took) = (Continuation::Takeover, Duration::from_millis(7));
    GatewayEvent::Continued { cause, sessions, oldest: Vec::new(), callers: Vec::new(), took }
}

/// A session that ended so long ago.
fn ended(number: u64, room: &str, reason: &str, ago_s: u64) -> EndedSession {
    let now_us = unix_us(SystemTime::now());
    let ended_us = now_us - ago_s * 1_000_000;
    EndedSession {
        ended_us,
        reason: reason.into(),
        gateway: "edge-1".into(),
        ..record(number, room)
    }
}

#[test]
fn failures_have_time_cause_reach_and_outcome() {
    let mut world = World::start();
    let history = Arc::new(SessionHistory::default());
    let answer = |world: &mut World, query: &str| {
        let asking = world.ask(&format!("GET /v1/failures{query}"), "");
        let ControlRequest::History(reply) = world.request() else { panic!("history") };
        reply.send(Arc::clone(&history)).unwrap();
        let (status, body) = asking.answer();
        assert_eq!(status, 200);
        body
    };
    let ask = |world: &mut World, query: &str| {
        let Value::Array(failures) = answer(world, query)["failures"].take() else {
            panic!("no list")
        };
        failures
    };
    for (number, room, reason, ago_s) in [
        (1, "a", "gateway-died", 8_000),
        (2, "a", "gateway-died", 8_001),
        (3, "b", "gateway-died", 8_000),
        (4, "c", "gateway-died", 9_000),
        (5, "c", "panicked", 8_000),
        (6, "c", "requested", 8_000),
    ] {
        history.add(ended(number, room, reason, ago_s), 1);
    }
    let now_us = unix_us(SystemTime::now());
    let figures = |unplaced_sessions, reduced_sessions| LossFigures {
        rooms: 2,
        sessions: 4,
        unplaced_sessions,
        reduced_sessions,
    };
    world.happen(death(0, now_us - 9, figures(0, 0)), None);
    world.happen(death(1, now_us - 8, figures(0, 1)), None);
    world.happen(death(1, now_us - 7, figures(3, 1)), None);
    world.happen(death(1, now_us - 6, LossFigures::default()), None);
    world.happen(takeover(3), None);
    while ask(&mut world, "?since=1h").len() < 5 {
        std::thread::yield_now();
    }
    let all = ask(&mut world, "");
    let words = |key: &str| all.iter().map(|it| it[key].as_str().unwrap_or("")).collect::<Vec<_>>();
    let causes = ["takeover", "node-down", "node-down", "node-down", "node-down"];
    assert_eq!(words("cause")[..5], causes);
    assert_eq!(words("outcome")[..5], ["continued", "none", "unplaced", "reduced", "moved"]);
    let mut first = all[4].clone();
    assert_eq!(first["at_us"].take(), json!(now_us - 9));
    let right = json!({
        "at_us": null, "cause": "node-down", "witnesses": ["probe", "agent"], "nodes": ["east-a1"],
        "rooms": 2, "sessions": 4, "outcome": "moved", "unplaced_sessions": 0, "reduced_sessions": 0,
    });
    assert_eq!(first, right);
    // Of the history: a death of the gateway with two rooms, a panic, and an earlier death.
    let ends: Vec<_> = all[5..]
        .iter()
        .map(|it| (it["cause"].as_str().unwrap(), it["rooms"].clone(), it["sessions"].clone()))
        .collect();
    assert_eq!(
        ends,
        [
            ("panicked", json!(1), json!(1)),
            ("gateway-died", json!(2), json!(3)),
            ("gateway-died", json!(1), json!(1)),
        ]
    );
    assert_eq!((words("gateway")[6], words("outcome")[6]), ("edge-1", "ended"));
    assert_eq!(ask(&mut world, "?node=west-b1").len(), 3);
    assert_eq!(ask(&mut world, "?since=150m&limit=7").len(), 7);
    // 8 are listed without a limit.
    for (limit, truncated) in [(7, true), (8, false)] {
        let body = answer(&mut world, &format!("?limit={limit}"));
        assert_eq!(body["truncated"], json!(truncated), "{limit}");
    }
    for wrong in ["limit=0", "since=1", "room=a"] {
        let (status, body) = world.ask(&format!("GET /v1/failures?{wrong}"), "").answer();
        assert_eq!((status, &body["error"]["code"]), (400, &json!("bad-request")), "{wrong}");
    }
}

#[test]
fn ends_together_are_one_failure() {
    let store = Store::default();
    let log = FailureLog::new(&store, Arc::new(names()), None);
    let history = SessionHistory::default();
    let reasons = ["handshake-lost", "srtp-counters-lost", "panicked", "gateway-died"];
    let base_us = 1_000_000_000;
    let mut number = 0;
    let mut add = |after_us: u64, reason: &str, gateway: &str| {
        number += 1;
        let ended_us = base_us + after_us;
        let (reason, gateway) = (reason.into(), gateway.into());
        let record = EndedSession { ended_us, reason, gateway, ..record(number, "room") };
        history.add(record, 1);
    };
    // As of deaths of nodes, the first end counts, not the one before.
    [8_000_000, 0, 4_000_000, 20_000_000, 24_999_999, 25_000_000]
        .into_iter()
        .for_each(|after_us| add(after_us, "panicked", "edge-1"));
    add(1, "panicked", "edge-2");
    reasons.into_iter().for_each(|reason| add(60_000_000, reason, "edge-1"));
    for reason in ["requested", "media-timeout", "handshake-failed", "client-closed"] {
        add(60_000_000, reason, "edge-1");
    }
    let ends: Vec<(u64, u32)> =
        log.all(&history).iter().map(|it| (it.at_us - base_us, it.sessions)).collect();
    let each: [(u64, u32); 4] = [(60_000_000, 1); 4];
    let panics: [(u64, u32); 5] =
        [(25_000_000, 1), (20_000_000, 2), (8_000_000, 1), (1, 1), (0, 2)];
    assert_eq!(ends, [&each[..], &panics[..]].concat());
}

fn note(log: &FailureLog, event: GatewayEvent) {
    let at = SystemTime::UNIX_EPOCH + Duration::from_micros(2_000);
    log.note_event(&EventRecord { at, ..EventRecord::now(event) });
}

#[test]
fn standby_adds_the_failures_of_its_owner() {
    let [owner, standby] = [Store::default(), Store::default()];
    let [of_owner, of_standby] =
        [&owner, &standby].map(|store| FailureLog::new(store, Arc::new(names()), None));
    [1, 3].iter().for_each(|at_us| note(&of_owner, death(0, *at_us, LossFigures::default())));
    note(&of_standby, takeover(2));
    for _ in 0..2 {
        standby.add_part(owner.next_part(&mut Follower::default(), usize::MAX).unwrap());
    }
    let all = of_standby.all(&SessionHistory::default());
    assert_eq!(all.iter().map(|failure| failure.at_us).collect::<Vec<_>>(), [2_000, 3, 1]);
}

#[test]
fn owner_alone_notes_the_death_of_a_node() {
    use GroupOwnership::{Doubting, Here, Peer, Unknown};

    let store = Store::default();
    let log = FailureLog::new(&store, Arc::new(names()), None);
    let noted = |owner: Option<GroupOwnership>, event: GatewayEvent| {
        let before = log.all(&SessionHistory::default()).len();
        log.note_event_as(owner, &EventRecord::now(event));
        log.all(&SessionHistory::default()).len() > before
    };
    // A hand-over between the death and the comparison: the new owner notes it, the old one does not.
    for (died_us, owner, right) in [
        (1, None, true),
        (2, Some(Here), true),
        (3, Some(Peer("edge-2".into())), false),
        (4, Some(Doubting), false),
        (5, Some(Unknown), false),
    ] {
        let words = format!("{owner:?}");
        assert_eq!(noted(owner, death(0, died_us, LossFigures::default())), right, "{words}");
    }
    assert!(noted(Some(Unknown), takeover(1)), "each member notes its takeover");
}

#[test]
fn failures_outlive_the_process() {
    let folder = tempdir().unwrap();
    let open = || {
        let store = Store::default();
        let log = FailureLog::new(&store, Arc::new(names()), None);
        let socket = std::path::Path::new("/admin.sock");
        let thread = store.open(Some(folder.path()), socket, &Default::default()).unwrap();
        store.begin(Duration::from_secs(20));
        (log, thread)
    };
    let (log, thread) = open();
    for died_us in 0..1_030 {
        note(&log, death(0, died_us, LossFigures::default()));
    }
    note(&log, takeover(3));
    let shown = |log: &FailureLog| {
        let all = log.all(&SessionHistory::default());
        (all.len(), all[0].cause.to_string(), all[1].at_us)
    };
    let right = (1_024, "takeover".to_owned(), 1_029);
    assert_eq!(shown(&log), right);
    // The thread writes them before it ends.
    drop(thread);
    assert_eq!(shown(&open().0), right);
}
