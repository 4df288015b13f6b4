//! Ratings of sessions by their users.

use evenkeel_control::history::{RatableSession, SessionHistory};
use evenkeel_control::samples::ended_session;

use super::*;

fn ended(number: u64, node: Option<&str>, mean_r_centi: Option<u32>) -> RatableSession {
    RatableSession {
        session: SessionId(number),
        scenario: "call".into(),
        node: node.map(Into::into),
        decided_by: ["native".to_owned(), "call/routing@5f0c5f0c5f0c".to_owned()],
        mean_r_centi,
    }
}

/// Rates a session that is not live.
fn rate(
    world: &mut World,
    history: &Arc<SessionHistory>,
    id: &str,
    feedback: &Value,
) -> (u16, Value) {
    let asking = world.ask(&format!("POST /v1/sessions/{id}/feedback"), &feedback.to_string());
    let ControlRequest::Explain(_, reply) = world.request() else { panic!("explain") };
    reply.send(None).unwrap();
    send_history(world, history);
    asking.answer()
}

fn send_history(world: &mut World, history: &Arc<SessionHistory>) {
    let ControlRequest::History(reply) = world.request() else { panic!("history") };
    reply.send(Arc::clone(history)).unwrap();
}

#[test]
fn live_session_is_rated_beside_its_measured_quality() {
    let mut world = World::start();
    let history = Arc::new(SessionHistory::default());
    let feedback = json!({"rating": 2, "words": "choppy"}).to_string();
    let asking = world.ask("POST /v1/sessions/s17/feedback", &feedback);
    let ControlRequest::Explain(id, reply) = world.request() else { panic!("explain") };
    reply.send(Some(explain::explanation(id))).unwrap();
    send_history(&mut world, &history);
    assert_eq!(asking.whole(), (204, String::new()));
    let ratings = history.ratings();
    let [rating] = &ratings[..] else { panic!("{ratings:?}") };
    let mut shown = serde_json::to_value(&**rating).unwrap();
    assert!(shown["rated_us"].take().is_u64());
    let right = json!({
        "id": "s17", "scenario": "call", "node": "east-a1",
        "decided_by": ["native", "call/routing@5f0c5f0c5f0c"], "mean_r_centi": 6_200,
        "rated_us": null, "rating": 2, "words": "choppy",
    });
    assert_eq!(shown, right);
}

#[test]
fn rating_out_of_bounds_is_refused_by_field() {
    let mut world = World::start();
    for (feedback, field) in [
        (json!({"rating": 0}), "rating"),
        (json!({"rating": 6}), "rating"),
        (json!({"rating": 257}), "rating"),
        (json!({"rating": -1}), "rating"),
        (json!({"rating": "5"}), "rating"),
        (json!({"rating": 5, "words": "x".repeat(501)}), "words"),
        (json!({"rating": 5, "words": "\u{e4}".repeat(251)}), "words"),
    ] {
        let body = feedback.to_string();
        let (status, answer) = world.ask("POST /v1/sessions/s1/feedback", &body).answer();
        let error = &answer["error"];
        assert_eq!((status, error["field"].as_str()), (400, Some(field)), "{body}: {answer}");
    }
    for body in ["{}", r#"{"rating": 5, "stars": 5}"#, "5"] {
        let (status, _) = world.ask("POST /v1/sessions/s1/feedback", body).answer();
        assert_eq!(status, 400, "{body}");
    }
    assert!(world.requests.try_recv().is_err(), "control is not asked");
}

#[test]
fn ended_session_is_rated_once() {
    let mut world = World::start();
    let history = Arc::new(SessionHistory::default());
    history.note_ended(ended(1, Some("east-a1"), None));
    let whole = json!({"rating": 5, "words": "x".repeat(500)});
    assert_eq!(rate(&mut world, &history, "s1", &whole).0, 204);
    assert_eq!(rate(&mut world, &history, "s1", &whole).0, 204, "a repetition");
    let (status, body) = rate(&mut world, &history, "s1", &json!({"rating": 4}));
    assert_eq!((status, &body["error"]["code"]), (409, &json!("conflict")));
    let (status, body) = rate(&mut world, &history, "s2", &json!({"rating": 4}));
    assert_eq!((status, &body["error"]["code"]), (404, &json!("not-found")));
    assert_eq!(history.ratings().len(), 1);
}

#[test]
fn history_shows_the_ratings_of_its_sessions() {
    let mut world = World::start();
    let history = Arc::new(SessionHistory::default());
    for number in [1, 2] {
        history.add(ended_session(number, "room"), 1);
        history.note_ended(ended(number, None, Some(8_000)));
        let id = format!("s{number}");
        assert_eq!(rate(&mut world, &history, &id, &json!({"rating": number})).0, 204);
    }
    let asking = world.ask("GET /v1/sessions/history?limit=1", "");
    send_history(&mut world, &history);
    let (_, body) = asking.answer();
    let ratings = body["ratings"].as_array().unwrap();
    let [rating] = &ratings[..] else { panic!("{body}") };
    assert_eq!(
        (&rating["id"], &rating["rating"], &rating["mean_r_centi"]),
        (&json!("s2"), &json!(2), &json!(8_000))
    );
    let asking = world.ask("GET /v1/sessions/s1/explain", "");
    let ControlRequest::Explain(_, reply) = world.request() else { panic!("explain") };
    reply.send(None).unwrap();
    send_history(&mut world, &history);
    assert_eq!(asking.answer().1["rating"]["rating"], 1);
}

#[test]
fn ratings_are_compared_with_measured_quality() {
    let mut world = World::start();
    let history = Arc::new(SessionHistory::default());
    let sessions = [
        ended(1, Some("east-a1"), Some(8_000)),
        ended(2, Some("east-a1"), None),
        ended(3, None, Some(6_001)),
    ];
    for (session, rating) in sessions.into_iter().zip([5, 4, 1]) {
        let id = session.session.to_string();
        history.note_ended(session);
        assert_eq!(rate(&mut world, &history, &id, &json!({"rating": rating})).0, 204);
    }
    let asking = world.ask("GET /v1/ratings", "");
    send_history(&mut world, &history);
    let group = |name: &str, ratings: u32, mean: u32, measured: u32, r: u32| {
        json!({
            "name": name, "ratings": ratings, "mean_rating_centi": mean, "measured": measured,
            "mean_r_centi": r,
        })
    };
    let right = json!({
        "scenarios": [group("call", 3, 333, 2, 7_000)],
        "nodes": [group("east-a1", 2, 450, 1, 8_000)],
        "revisions": [
            group("call/routing@5f0c5f0c5f0c", 3, 333, 2, 7_000),
            group("native", 3, 333, 2, 7_000),
        ],
    });
    assert_eq!(asking.answer(), (200, right));
}
