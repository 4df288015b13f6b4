//! Rooms move before their minimum stay is over if participants cannot talk well.

use super::*;

/// Places a room on east-a1 with this delay to the node, for participants with this round trip and loss.
fn talks(settings: &str, delay: u32, rtt: u32, loss: u32) -> (Trial<RouteNearest>, Room<Stay>) {
    let mut trial = trial(settings);
    let mut room = placed(&mut trial);
    room.measured = vec![(Age, 0), (RttClient, rtt), (LossUp, loss)];
    trial.world.measure("east-a1", Delay, delay);
    trial.pass(Duration::from_secs(10));
    (trial, room)
}

const TALK: &str =
    r#"{"max_delay": "150ms", "min_r_factor": 70, "poor_for": "5s", "min_stay": "1h"}"#;

#[test]
fn excessive_delay_moves_before_the_stay_ends() {
    for (delay, why) in [(60_000, None), (60_001, Some(PlacementReason::PoorQuality.number()))] {
        // The total is 30 ms from one participant to the gateway and on to the other, and twice the delay of the node.
        let (mut trial, mut room) = talks(TALK, delay, 30_000, 0);
        assert_eq!(reroute(&mut trial, &mut room), None, "{delay}");
        trial.pass(Duration::from_millis(4_999));
        assert_eq!(reroute(&mut trial, &mut room), None, "{delay}");
        trial.pass(Duration::from_millis(1));
        assert_eq!(reroute(&mut trial, &mut room), why, "{delay}");
    }
}

#[test]
fn loss_of_the_node_alone_causes_a_move() {
    for (probes, people, moves) in [
        (77_000, 0, false),
        (78_000, 0, true),
        (68_000, 10_000, false),
        (69_000, 10_000, true),
        (0, 200_000, false),
        (90_000, 200_000, false),
    ] {
        let (mut trial, mut room) = talks(TALK, 1_000, 30_000, people);
        trial.world.measure("east-a1", LossNode, probes);
        reroute(&mut trial, &mut room);
        trial.pass(Duration::from_secs(5));
        let moved = reroute(&mut trial, &mut room);
        assert_eq!(moved.is_some(), moves, "{probes} {people}: participants keep their own loss");
    }
}

#[test]
fn move_needs_a_clearly_better_node() {
    // A clear margin of 10 % to 150 ms is 135 ms. Less 30 ms for the participants, twice the node's delay may be 105
    // ms.
    for (delay, moves) in [(52_500, true), (52_600, false)] {
        let (mut trial, mut room) = talks(TALK, 100_000, 30_000, 0);
        let far = [(Delay, 200_000)];
        trial.world = World::around("east")
            .node("east-a1", "east", "a", &[(Delay, 100_000)])
            .node("east-b1", "east", "b", &[(Delay, delay)])
            .node("west-a1", "west", "a", &far);
        reroute(&mut trial, &mut room);
        trial.pass(Duration::from_secs(5));
        assert_eq!(reroute(&mut trial, &mut room).is_some(), moves, "{delay}");
    }
}

#[test]
fn short_trouble_or_unset_limit_causes_no_move() {
    let (mut trial, mut room) = talks(TALK, 100_000, 30_000, 0);
    reroute(&mut trial, &mut room);
    trial.world.measure("east-a1", Delay, 1_000);
    trial.pass(Duration::from_secs(4));
    reroute(&mut trial, &mut room);
    trial.world.measure("east-a1", Delay, 100_000);
    trial.pass(Duration::from_secs(4));
    assert_eq!(reroute(&mut trial, &mut room), None, "counted anew");
    let (mut trial, mut room) = talks(r#"{"min_stay": "1h"}"#, 100_000, 30_000, 900_000);
    reroute(&mut trial, &mut room);
    trial.pass(Duration::from_secs(60));
    assert_eq!(reroute(&mut trial, &mut room), None);
}

#[test]
fn unmeasured_delay_causes_no_move() {
    let unmeasured = |trial: &mut Trial<RouteNearest>, a: &[(Metric, u32)], b: &[(Metric, u32)]| {
        trial.world =
            World::around("east").node("east-a1", "east", "a", a).node("east-b1", "east", "b", b);
    };
    for (a, b) in [(&[][..], &[(Delay, 1_000)][..]), (&[(Delay, 300_000)], &[])] {
        let (mut trial, mut room) = talks(TALK, 1_000, 30_000, 0);
        room.standing = vec!["east-a1".into(), "east-b1".into()];
        unmeasured(&mut trial, a, b);
        reroute(&mut trial, &mut room);
        trial.pass(Duration::from_secs(5));
        assert_eq!(reroute(&mut trial, &mut room), None, "{a:?} {b:?}");
    }
}
