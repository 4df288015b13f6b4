//! Records of ended sessions.

use evenkeel_control::history::SessionHistory;
use evenkeel_control::samples::ended_session as record;

use super::*;

#[test]
fn ended_session_is_explained_by_its_record() {
    let mut world = World::start();
    let history = Arc::new(SessionHistory::default());
    [record(1, "old"), record(1, "new")].into_iter().for_each(|record| history.add(record, 1));
    for (id, room) in [("s1", Some("new")), ("s2", None)] {
        let asking = world.ask(&format!("GET /v1/sessions/{id}/explain"), "");
        let ControlRequest::Explain(_, reply) = world.request() else { panic!("explain") };
        reply.send(None).unwrap();
        let ControlRequest::History(reply) = world.request() else { panic!("history") };
        reply.send(Arc::clone(&history)).unwrap();
        let (status, body) = asking.answer();
        assert_eq!(
            (status, body["ended"]["room"].as_str()),
            (if room.is_some() { 200 } else { 404 }, room)
        );
    }
}

#[test]
fn history_is_paged_and_filtered() {
    let mut world = World::start();
    let history = Arc::new(SessionHistory::default());
    let mut old = record(1, "a");
    old.ended_us -= 7_200_000_000;
    history.add(old, 1);
    for (number, room) in [(2, "b"), (3, "a"), (4, "a")] {
        history.add(record(number, room), 1);
    }
    let mut ask = |query: &str| {
        let asking = world.ask(&format!("GET /v1/sessions/history?{query}"), "");
        let ControlRequest::History(reply) = world.request() else { panic!("history") };
        reply.send(Arc::clone(&history)).unwrap();
        let (_, body) = asking.answer();
        assert_eq!(body["dropped"], 0);
        let ids = body["sessions"].as_array().unwrap().iter().map(|one| one["id"].clone());
        (ids.collect::<Vec<_>>(), body["next"].clone())
    };
    assert_eq!(ask(""), (vec![json!("s4"), json!("s3"), json!("s2"), json!("s1")], Value::Null));
    assert_eq!(ask("limit=2"), (vec![json!("s4"), json!("s3")], json!("2")));
    assert_eq!(ask("limit=2&after=2"), (vec![json!("s2"), json!("s1")], Value::Null));
    assert_eq!(ask("room=a&since=1h"), (vec![json!("s4"), json!("s3")], Value::Null));
    for wrong in ["limit=0", "after=s4", "since=1", "page=2"] {
        let (status, body) = world.ask(&format!("GET /v1/sessions/history?{wrong}"), "").answer();
        assert_eq!((status, &body["error"]["code"]), (400, &json!("bad-request")), "{wrong}");
    }
}
