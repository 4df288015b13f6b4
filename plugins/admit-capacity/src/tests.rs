//! Home is `east`; `west` and `south` have room.

use evenkeel_plugin_sdk::Metric::{Breaker, Load, NodesUp};
use evenkeel_plugin_sdk::trial::{Trial, World};

use super::*;

const OPEN: u32 = 1;
const HALF_OPEN: u32 = 2;

/// A world where `east` is as given; west carries 500, south 300 of 1000.
fn trial(settings: &str, east: &[(Metric, u32)]) -> Trial<AdmitCapacity> {
    let world = World::around("east")
        .region("east", east)
        .region("west", &[(Load, 500), (Breaker, 0), (NodesUp, 2)])
        .region("south", &[(Load, 300), (Breaker, 0), (NodesUp, 2)]);
    Trial::of(AdmitCapacity::parse(settings).unwrap(), world)
}

fn admit(east: &[(Metric, u32)]) -> Judgement {
    trial("{}", east).admit(1, &[], None)
}

fn up(load: u32) -> [(Metric, u32); 3] {
    [(Load, load), (Breaker, 0), (NodesUp, 2)]
}

const SOUTH: Verdict = Verdict::Redirect(RegionId(3));

#[test]
fn everyone_comes_in_while_there_is_room() {
    assert_eq!(admit(&up(0)), Verdict::Accept.because(Why::Room));
    assert_eq!(admit(&up(799)), Verdict::Accept.because(Why::Room));
}

#[test]
fn newcomers_are_capped_when_the_region_is_nearly_full() {
    let capped = Verdict::AcceptCapped(300).because(Why::NearlyFull);
    assert_eq!(admit(&up(800)), capped);
    assert_eq!(admit(&up(949)), capped);
    let mut other = trial(r#"{"cap": 64}"#, &up(800));
    assert_eq!(other.admit(1, &[], None).verdict(), Verdict::AcceptCapped(64));
}

#[test]
fn the_first_session_of_a_room_goes_to_the_region_with_most_room_when_its_own_is_full() {
    assert_eq!(admit(&up(950)), SOUTH.because(Why::RoomElsewhere));
}

#[test]
fn who_joins_a_standing_room_is_never_sent_elsewhere() {
    let mut trial = trial("{}", &up(950));
    let judgement = trial.admit(1, &[], Some("east"));
    assert!(matches!(judgement.verdict(), Verdict::Reject(_)), "{judgement:?}");
    assert_eq!(judgement.reason(), Why::Full.number());
    let judgement = trial.admit(1, &[("region", "east")], Some("west"));
    assert_eq!(judgement.verdict(), Verdict::Accept, "the room's region counts, not the session's");
}

#[test]
fn a_region_that_is_out_takes_nobody() {
    for out in [[(Load, 0), (Breaker, OPEN), (NodesUp, 2)], [(Load, 0), (Breaker, 0), (NodesUp, 0)]]
    {
        assert_eq!(admit(&out), SOUTH.because(Why::RoomElsewhere));
        let judgement = trial("{}", &out).admit(1, &[], Some("east"));
        assert!(matches!(judgement.verdict(), Verdict::Reject(_)));
        assert_eq!(judgement.reason(), Why::RegionOut.number());
    }
    assert_eq!(admit(&[(Load, 0), (Breaker, 0), (NodesUp, 1)]).verdict(), Verdict::Accept);
}

#[test]
fn a_half_open_region_takes_newcomers_capped() {
    let judgement = admit(&[(Load, 0), (Breaker, HALF_OPEN), (NodesUp, 2)]);
    assert_eq!(judgement, Verdict::AcceptCapped(300).because(Why::NearlyFull));
}

#[test]
fn another_region_must_have_clear_room() {
    let west_and_south = |load, breaker| {
        let mut trial = trial("{}", &up(1_000));
        for name in ["west", "south"] {
            let measured = [(Load, load), (Breaker, breaker), (NodesUp, 2)];
            trial.world = trial.world.clone().region(name, &measured);
        }
        trial.admit(1, &[], None).verdict()
    };
    assert_eq!(west_and_south(699, 0), Verdict::Redirect(RegionId(2)), "the first of equals");
    assert!(matches!(west_and_south(700, 0), Verdict::Reject(_)));
    assert!(matches!(west_and_south(0, HALF_OPEN), Verdict::Reject(_)));
    assert!(matches!(west_and_south(0, OPEN), Verdict::Reject(_)));
}

#[test]
fn the_region_label_goes_before_the_gateways_own_region() {
    let mut trial = trial("{}", &up(1_000));
    assert_eq!(trial.admit(1, &[("region", "west")], None).verdict(), Verdict::Accept);
    assert_eq!(trial.admit(1, &[("region", "atlantis")], None).verdict(), SOUTH);
}

#[test]
fn it_has_no_opinion_on_a_region_nobody_measured() {
    assert_eq!(admit(&[]).verdict(), Verdict::Abstain);
}

#[test]
fn those_refused_come_back_at_different_times() {
    let mut trial = trial(r#"{"retry_after": "10s"}"#, &up(1_000));
    let mut waits: Vec<_> = (0..100)
        .map(|session| match trial.admit(session, &[], Some("east")).verdict() {
            Verdict::Reject(wait) => wait,
            other => panic!("{other:?}"),
        })
        .collect();
    waits.sort();
    assert!(waits[0] >= Duration::from_secs(10) && waits[0] < Duration::from_millis(10_500));
    assert!(waits[99] <= Duration::from_secs(15) && waits[99] > Duration::from_millis(14_500));
    waits.dedup();
    assert!(waits.len() > 95, "{}", waits.len());
}

#[test]
fn settings_out_of_bounds_are_refused() {
    let error = |settings| AdmitCapacity::parse(settings).unwrap_err();
    assert_eq!(error(r#"{"full_above": 1.1}"#), "full_above: 1.1 is above 1");
    assert_eq!(error(r#"{"retry_after": "99ms"}"#), "retry_after: 99ms is below 100ms");
}
