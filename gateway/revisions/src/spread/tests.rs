use super::*;

/// Rooms of both arms: the canary has `crowded` of `canary` rooms on node 0 and the others elsewhere, the rest is spread evenly over
/// `nodes` nodes.
fn spread(crowded: u32, canary: u32, rest: u32, nodes: u32) -> RoomSpread {
    let mut spread = RoomSpread::default();
    for room in 0..canary {
        let on = if room < crowded { 0 } else { 1 + room % (nodes - 1) };
        spread.add(Arm::Canary, NodeId(on));
    }
    (0..rest).for_each(|room| spread.add(Arm::Standing, NodeId(room % nodes)));
    spread
}

fn found(spread: &RoomSpread) -> Option<String> {
    spread.breach(&Judging::default()).map(|breach| breach.to_string())
}

#[test]
fn rooms_on_one_node_are_a_breach() {
    let right = "spread: 10 of 10 are on one node, of the rest 30 of 180";
    assert_eq!(found(&spread(10, 10, 180, 6)).as_deref(), Some(right));
    assert_eq!(found(&spread(7, 7, 180, 6)), None, "chance");
    assert!(found(&spread(30, 50, 180, 6)).is_some());
    assert_eq!(found(&spread(24, 50, 180, 6)), None, "less than half");
}

#[test]
fn crowded_rest_is_compared() {
    for (nodes, canary, found_it) in [(2, 15, false), (2, 25, true), (3, 12, false), (3, 16, true)]
    {
        assert_eq!(
            found(&spread(canary, canary, 180, nodes)).is_some(),
            found_it,
            "{nodes} {canary}"
        );
    }
    let mut all_on_one = spread(50, 50, 0, 2);
    (0..180).for_each(|_| all_on_one.add(Arm::Standing, NodeId(0)));
    assert_eq!(found(&all_on_one), None);
}

#[test]
fn small_cohorts_and_rests_prove_nothing() {
    assert_eq!(found(&spread(30, 30, 4, 6)), None);
    let judging = Judging { cohort_min: 31, ..Judging::default() };
    assert_eq!(spread(30, 30, 180, 6).breach(&judging), None);
    let judging = Judging { one_node_percent: 61, ..Judging::default() };
    assert_eq!(spread(30, 50, 180, 6).breach(&judging), None);
}

#[test]
fn removed_rooms_are_not_counted() {
    let mut spread = spread(10, 10, 180, 6);
    (0..4).for_each(|_| spread.remove(Arm::Canary, NodeId(0)));
    spread.remove(Arm::Canary, NodeId(77));
    assert_eq!(spread.count(Arm::Canary), BreachCount { of: 6, worse: 6 });
    assert_eq!(found(&spread), None);
}

/// Cohorts of all sizes, drawn at random from rooms that are spread unevenly.
#[test]
fn random_cohort_is_rarely_a_breach() {
    let mut rng = fastrand::Rng::with_seed(7);
    let wrong = (0..300).filter(|_| {
        let (mut spread, nodes) = (RoomSpread::default(), rng.u32(2..8));
        let percent = rng.u8(2..60);
        (0..400).any(|_| {
            let arm = if rng.u8(0..100) < percent { Arm::Canary } else { Arm::Standing };
            let on = NodeId(rng.u32(0..nodes).min(rng.u32(0..nodes)));
            spread.add(arm, on);
            spread.breach(&Judging::default()).is_some()
        })
    });
    assert_eq!(wrong.count(), 0);
}
