use evenkeel_model::NodeId;

use super::super::tests::{Folder, WITHIN};
use super::*;
use crate::samples::closed_session;

fn ratable(number: u64) -> RatableSession {
    let now = Instant::now();
    let closed = ClosedSession { mean_r_centi: Some(6_205), ..closed_session(now) };
    RatableSession::ended(SessionId(number), &closed, &NodeNames::default())
}

fn rated(number: u64, rating: u8, words: Option<&str>) -> SessionRating {
    let words = words.map(Into::into);
    ratable(number).rated(rating, FeedbackRequest { rating: rating.into(), words })
}

#[test]
fn rating_has_the_measured_quality_and_who_decided() {
    let SessionRating { rated_us, .. } = rated(17, 2, Some("choppy"));
    let right = SessionRating {
        id: "s17".into(),
        scenario: "call".into(),
        node: None,
        decided_by: vec!["native".into()],
        mean_r_centi: Some(6_205),
        rated_us,
        rating: 2,
        words: Some("choppy".into()),
    };
    assert_eq!(SessionRating { rated_us, ..rated(17, 2, Some("choppy")) }, right);
    let closed = ClosedSession {
        node: Some(NodeId(3)),
        routed_by: Decider::Operator,
        ..closed_session(Instant::now())
    };
    let session = RatableSession::ended(SessionId(17), &closed, &NodeNames::default());
    assert_eq!(session.decided_by, ["native", "operator"]);
    assert_eq!(session.node, Some(NodeNames::default().of_node(NodeId(3)).node));
}

#[test]
fn session_is_ratable_for_ten_minutes() {
    let (mut ratings, now) = (Ratings::default(), Instant::now());
    ratings.note_ended(ratable(1), now);
    let late = now + RATABLE_FOR + Duration::from_micros(1);
    assert_eq!(ratings.ended_lately(SessionId(1), now + RATABLE_FOR), Some(ratable(1)));
    assert_eq!(ratings.ended_lately(SessionId(1), late), None);
    assert_eq!(ratings.ended_lately(SessionId(2), now), None);
    ratings.note_ended(ratable(2), late);
    assert_eq!(ratings.ended.len(), 1, "the first is over");
    (0..=RECORDS_MAX as u64).for_each(|number| ratings.note_ended(ratable(number), late));
    assert_eq!(ratings.ended.len(), RECORDS_MAX);
}

#[test]
fn first_rating_of_a_session_stands() {
    let mut ratings = Ratings::default();
    assert_eq!(ratings.rate(rated(1, 2, None)), Ok(()));
    assert_eq!(ratings.rate(rated(1, 2, None)), Ok(()), "a repetition");
    assert_eq!(ratings.rate(rated(1, 3, None)), Err(AlreadyRated));
    assert_eq!(ratings.rate(rated(1, 2, Some("choppy"))), Err(AlreadyRated));
    assert_eq!(ratings.rate(rated(2, 5, None)), Ok(()));
    let listed: Vec<_> = ratings.list().map(|it| (&*it.id, it.rating)).collect();
    assert_eq!(listed, [("s2", 5), ("s1", 2)]);
}

#[test]
fn ratings_are_kept_over_processes() {
    let folder = Folder::new();
    let ids = |history: &super::super::SessionHistory| {
        history.ratings().iter().map(|it| it.id.to_string()).collect::<Vec<_>>()
    };
    let first = folder.start();
    let words = "\u{e4}\"\n".repeat(100);
    first.history().rate(rated(1, 1, Some(&words))).unwrap();
    first.history().rate(rated(2, 5, None)).unwrap();
    drop(first);
    let next = folder.start();
    let history = next.history();
    let deadline = Instant::now() + WITHIN;
    while ids(&history) != ["s2", "s1"] {
        assert!(Instant::now() < deadline, "{:?}", ids(&history));
        std::thread::park_timeout(Duration::from_millis(2));
    }
    assert_eq!(history.ratings()[1].words.as_deref(), Some(&*words));
    assert_eq!(history.rate(rated(1, 2, None)), Err(AlreadyRated));
    history.rate(rated(3, 4, None)).unwrap();
    drop(next);
    let last = folder.start();
    let deadline = Instant::now() + WITHIN;
    while ids(&last.history()) != ["s3", "s2", "s1"] {
        assert!(Instant::now() < deadline, "{:?}", ids(&last.history()));
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
