use evenkeel_model::NodeId;

use super::super::tests::{Folder, WITHIN};
use super::super::{HistoryPosition, SessionHistory};
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

fn await_ids(history: &SessionHistory, right: &[&str]) {
    let deadline = Instant::now() + WITHIN;
    let ids = || history.ratings().iter().map(|it| it.id.to_string()).collect::<Vec<_>>();
    while ids() != right {
        assert!(Instant::now() < deadline, "{:?}", ids());
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

#[test]
fn ratings_are_kept_over_processes() {
    let folder = Folder::new();
    let first = folder.start();
    let words = "\u{e4}\"\n".repeat(100);
    first.history().rate(rated(1, 1, Some(&words))).unwrap();
    first.history().rate(rated(2, 5, None)).unwrap();
    drop(first);
    let next = folder.start();
    let history = next.history();
    await_ids(&history, &["s2", "s1"]);
    assert_eq!(history.ratings()[1].words.as_deref(), Some(&*words));
    assert_eq!(history.rate(rated(1, 2, None)), Err(AlreadyRated));
    history.rate(rated(3, 4, None)).unwrap();
    drop(next);
    let last = folder.start();
    await_ids(&last.history(), &["s3", "s2", "s1"]);
}

/// A standby gets the ratings of the owner, also those that it had as the owner.
#[test]
fn copied_ratings_are_kept_once() {
    let folder = Folder::new();
    let writer = folder.start();
    let history = writer.history();
    history.rate(rated(1, 2, None)).unwrap();
    writer.copy(Vec::new(), vec![rated(1, 5, None), rated(2, 5, None)]);
    await_ids(&history, &["s2", "s1"]);
    assert_eq!(history.ratings()[1].rating, 2, "the first stands");
    drop(writer);
    await_ids(&folder.start().history(), &["s2", "s1"]);
}

#[test]
fn each_rating_is_read_once_by_its_number() {
    let history = SessionHistory::default();
    (1..=3).for_each(|number| history.rate(rated(number, 2, None)).unwrap());
    let (next, first) = history.ratings_from(0, 2);
    let (end, rest) = history.ratings_from(next, 2);
    let ids = |ratings: Vec<SessionRating>| {
        ratings.into_iter().map(|it| it.id.into_string()).collect::<Vec<_>>()
    };
    assert_eq!((ids(first), ids(rest)), (vec!["s1".into(), "s2".into()], vec!["s3".into()]));
    let has_more = |rating| history.has_more_than(HistoryPosition { record: 0, rating });
    assert!(has_more(next) && !has_more(end));
    assert_eq!(history.ratings_from(u64::MAX, 2), (u64::MAX, Vec::new()));
    // Ratings of an earlier process come before them, and are read too.
    assert_eq!(history.add_earlier_ratings(vec![rated(0, 4, None), rated(1, 4, None)]), end + 2);
    assert_eq!(ids(history.ratings_from(end, 9).1), ["s0", "s1", "s2", "s3"]);
    assert!(has_more(end) && !has_more(end + 4));
}
