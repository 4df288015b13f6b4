use fastrand::Rng;

use super::*;

fn votes(rooms: u32, chance: f64, rng: &mut Rng) -> VoteCount {
    let bad = (0..rooms).filter(|_| rng.f64() < chance).count() as u32;
    VoteCount { bad, good: rooms - bad }
}

#[test]
fn node_like_its_siblings_is_not_suspected() {
    let mut rng = Rng::with_seed(3);
    for chance in [0.0, 0.02, 0.1, 0.3, 0.6, 1.0] {
        for rooms in [1, 5, 12, 50, 1_000] {
            for _ in 0..2_000 {
                let word = weigh(votes(rooms, chance, &mut rng), votes(rooms, chance, &mut rng));
                assert_ne!(word, CohortVerdict::WorseThanSiblings, "{rooms} {chance}");
            }
        }
    }
}

#[test]
fn lossy_node_needs_eight_or_five_rooms() {
    let siblings = |good| VoteCount { bad: 0, good };
    assert_eq!(
        weigh(VoteCount { bad: 8, good: 0 }, siblings(15)),
        CohortVerdict::WorseThanSiblings
    );
    assert_eq!(
        weigh(VoteCount { bad: 5, good: 0 }, siblings(60)),
        CohortVerdict::WorseThanSiblings
    );
    assert_eq!(weigh(VoteCount { bad: 3, good: 0 }, siblings(60)), CohortVerdict::Nothing);
    assert_eq!(weigh(VoteCount { bad: 13, good: 0 }, siblings(0)), CohortVerdict::Bad);
    assert_eq!(weigh(VoteCount { bad: 12, good: 0 }, siblings(0)), CohortVerdict::Nothing);
    assert_eq!(weigh(VoteCount { bad: 1, good: 20 }, siblings(60)), CohortVerdict::Well);
    let many = VoteCount { bad: 6_000, good: 4_000 };
    assert_eq!(
        weigh(VoteCount { bad: 800, good: 200 }, many),
        CohortVerdict::Nothing,
        "all are bad"
    );
}

#[test]
fn a_room_has_one_vote_for_two_seconds() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut ballot = NodeBallot::default();
    ballot.vote(RoomId(1), true, at(0));
    ballot.vote(RoomId(2), true, at(100));
    ballot.vote(RoomId(1), false, at(900));
    assert_eq!(ballot.count(at(1_000)), VoteCount { bad: 1, good: 1 });
    assert_eq!(ballot.count(at(2_100)), VoteCount { bad: 0, good: 1 });
    assert_eq!(ballot.count(at(2_900)), VoteCount::default());
    assert!(ballot.is_empty());
}

#[test]
fn client_side_loss_is_not_the_nodes() {
    let now = Instant::now();
    let hop = Hop { node: evenkeel_model::NodeId(0), incarnation: evenkeel_model::Incarnation(1) };
    let mut tally = RoomTally::new(hop, now);
    let seen = |lost, reported_ppm| FlowCounts {
        expected: 20,
        lost,
        reported_ppm,
        ..FlowCounts::default()
    };
    assert!(!tally.add(&seen(3, None), now));
    assert!(!tally.add(&seen(3, None), now), "enough packets, too soon");
    assert!(tally.add(&seen(3, None), now + VOTES_EVERY));
    assert!(tally.vote(0, 0), "15 %");
    assert!(!tally.vote(120_000, 0), "of which a client lost 12 % on its way to us");
    let mut reported = RoomTally::new(hop, now);
    reported.add(&seen(0, Some(150_000)), now);
    reported.add(&seen(0, None), now);
    assert!(reported.vote(0, 0), "the node says so");
    assert!(!reported.vote(0, 120_000), "or a client behind it");
}
