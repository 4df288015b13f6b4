use std::sync::Arc;

use evenkeel_model::RegionId;

use super::*;

const MANY: usize = 2_000;

fn room() -> Room {
    let (name, scenario, labels) = (Arc::from("r"), Arc::from("call"), Arc::from(Vec::new()));
    Room::new(RoomId(1), name, scenario, labels, RegionId(0), RoomId(1))
}

fn measured(metric: Metric, value: u64) -> Measures {
    *Measures::default().set(metric, value)
}

#[test]
fn review_waits_while_figures_are_the_same() {
    let (now, room) = (Instant::now(), room());
    let (mut reviews, read) = (Reviews::default(), measured(Metric::LossUp, 20_000));
    let waits =
        |reviews: &Reviews, figures: &Measures| reviews.can_wait(&room, || *figures, MANY, now);
    assert!(!waits(&reviews, &read), "there was none before");
    reviews.begin(&room, &read, now);
    assert!(!waits(&reviews, &read), "there is no answer");
    reviews.note_unchanged(room.id());
    assert!(waits(&reviews, &read));
    assert!(waits(&reviews, &measured(Metric::LossUp, 24_999)), "noise");
    assert!(!waits(&reviews, &measured(Metric::LossUp, 25_000)));
    let node = |metric, value| [Row { id: 0, measures: measured(metric, value) }];
    reviews.note_nodes(&node(Metric::Delay, 4_000));
    assert!(!waits(&reviews, &read), "a node is farther");
    reviews.begin(&room, &read, now);
    reviews.note_unchanged(room.id());
    reviews.note_nodes(&node(Metric::Delay, 5_999));
    assert!(waits(&reviews, &read), "noise");
    reviews.forget(room.id());
    assert!(!waits(&reviews, &read) && reviews.len() == 0);
}

#[test]
fn review_waits_by_the_number_of_rooms() {
    let (now, room, read) = (Instant::now(), room(), Measures::default());
    let mut reviews = Reviews::default();
    reviews.begin(&room, &read, now);
    reviews.note_unchanged(room.id());
    let waits =
        |rooms, ms| reviews.can_wait(&room, || read, rooms, now + Duration::from_millis(ms));
    assert!(!waits(ROOMS_MAX, 0) && waits(ROOMS_MAX + 1, 0));
    assert!(waits(MANY, 9_999) && !waits(MANY, 10_000));
    assert!(waits(100_000, 59_999) && !waits(100_000, 60_000));
}

#[test]
fn each_figure_of_a_route_ends_the_wait() {
    let (now, room) = (Instant::now(), room());
    let mut reviews = Reviews::default();
    reviews.begin(&room, &Measures::default(), now);
    reviews.note_unchanged(room.id());
    let ends = |metric, value| !reviews.can_wait(&room, || measured(metric, value), MANY, now);
    for (metric, value) in [
        (Metric::LossDown, 5_000),
        (Metric::LossNode, 5_000),
        (Metric::JitterUp, 10_000),
        (Metric::JitterDown, 10_000),
        (Metric::JitterNode, 10_000),
        (Metric::RttClient, 10_000),
        (Metric::Delay, 2_000),
        (Metric::Load, 50),
        (Metric::Carried, 50),
        (Metric::Decay, 100),
        (Metric::Health, 1),
        (Metric::Draining, 1),
        (Metric::Capacity, 1),
        (Metric::Sessions, 1),
    ] {
        assert!(ends(metric, value), "{metric:?}");
        assert!(!ends(metric, value - 1), "{metric:?}");
    }
    assert!(!ends(Metric::Rooms, 1_000), "they are in the load");
    reviews.begin(&room, &measured(Metric::JitterUp, 50_000), now);
    reviews.note_unchanged(room.id());
    assert!(reviews.can_wait(&room, || measured(Metric::JitterUp, 900_000), MANY, now));
}
