//! The home region is `east`; `west` and `south` have capacity.

use evenkeel_plugin_sdk::Metric::{Breaker, Capacity, Load, NodesUp};
use evenkeel_plugin_sdk::trial::{Trial, World};

use super::*;

const OPEN: u32 = 1;
const HALF_OPEN: u32 = 2;

/// Creates a world with `east` as given; the load of `west` is 500 of 1000, that of `south` 300.
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

fn is_sent_elsewhere(judgement: Judgement) -> bool {
    matches!(judgement.verdict(), Verdict::Redirect(RegionId(2 | 3)))
        && judgement.reason() == VerdictReason::CapacityElsewhere.number()
}

/// Admits the first sessions of a thousand rooms. Returns the numbers of admitted, capped, redirected and rejected
/// ones.
fn crowd(settings: &str, labels: &[(&str, &str)], east: &[(Metric, u32)]) -> [i32; 4] {
    let mut trial = trial(settings, east);
    let mut counts = [0; 4];
    for session in 0..1_000 {
        match trial.admit(session, labels, None).verdict() {
            Verdict::Accept => counts[0] += 1,
            Verdict::AcceptCapped(_) => counts[1] += 1,
            Verdict::Redirect(_) => counts[2] += 1,
            Verdict::Reject(_) => counts[3] += 1,
            Verdict::Abstain => panic!("unexpected abstention"),
        }
    }
    counts
}

#[test]
fn all_sessions_are_admitted_with_free_capacity() {
    assert_eq!(admit(&up(0)), Verdict::Accept.because(VerdictReason::HasCapacity));
    assert_eq!(crowd("{}", &[], &up(799)), [1_000, 0, 0, 0]);
    assert_eq!(crowd("{}", &[], &up(800)), [1_000, 0, 0, 0], "capping starts here at 0");
}

#[test]
fn share_of_capped_sessions_grows_with_load() {
    for (load, capped) in [(815, 100), (830, 200), (875, 500), (899, 660)] {
        let [free, thin, away, out] = crowd("{}", &[], &up(load));
        assert!((thin - capped).abs() < 40, "{load}: {thin}");
        assert_eq!((free + thin, away, out), (1_000, 0, 0), "{load}");
    }
    let mut other = trial(r#"{"cap": 64, "cap_above": 0, "ramp": 0}"#, &up(949));
    assert_eq!(
        other.admit(6, &[], None),
        Verdict::AcceptCapped(64).because(VerdictReason::NearlyFull)
    );
}

#[test]
fn cap_stays_within_limit_of_device() {
    let mut trial = trial(r#"{"cap": 300, "cap_above": 0, "ramp": 0}"#, &up(949));
    for (label, cap) in [("299", 299), ("300", 300), ("301", 300)] {
        let verdict = trial.admit(6, &[("max-bitrate", label)], None).verdict();
        assert_eq!(verdict, Verdict::AcceptCapped(cap), "{label}");
    }
}

#[test]
fn client_with_a_weak_path_is_capped() {
    let weak = Verdict::AcceptCapped(300).because(VerdictReason::WeakPath);
    let free = Verdict::Accept.because(VerdictReason::HasCapacity);
    let mut trial = trial(r#"{"min_probe_r": 70}"#, &up(0));
    for (r, judgement) in [("69", weak), ("70", free), ("good", free)] {
        assert_eq!(trial.admit(6, &[("probe-r", r)], None), judgement, "{r}");
    }
    assert_eq!(trial.admit(6, &[], None), free, "a client without a probe");
    assert_eq!(crowd("{}", &[("probe-r", "0")], &up(0)), [1_000, 0, 0, 0]);
}

#[test]
fn share_of_refused_rooms_grows_until_full() {
    for (load, turned) in [(900, 0), (910, 200), (925, 500), (940, 800), (949, 980), (950, 1_000)] {
        let [free, thin, away, out] = crowd("{}", &[], &up(load));
        assert!((away - turned).abs() < 40, "{load}: {away}");
        assert_eq!((free + thin + away, out), (1_000, 0), "{load}");
    }
    assert_eq!(crowd(r#"{"ramp": 0}"#, &[], &up(949))[2], 0, "a sharp threshold if configured");
    assert_eq!(crowd(r#"{"ramp": 0}"#, &[], &up(950))[2], 1_000);
}

#[test]
fn draw_of_a_session_is_stable() {
    let mut trial = trial("{}", &up(925));
    for session in 0..100 {
        let judgement = trial.admit(session, &[], None);
        assert_eq!(trial.admit(session, &[], None), judgement);
    }
}

#[test]
fn joining_session_is_admitted_to_full_capacity() {
    let joins = |load| trial("{}", &up(load)).admit(1, &[], Some("east"));
    assert_eq!(joins(950), Verdict::AcceptCapped(300).because(VerdictReason::NearlyFull));
    assert_eq!(joins(999), Verdict::AcceptCapped(300).because(VerdictReason::NearlyFull));
    assert!(matches!(joins(1_000).verdict(), Verdict::Reject(_)));
}

#[test]
fn awaited_role_is_admitted_like_a_join() {
    let settings = r#"{"priority_roles": ["publisher"]}"#;
    assert_eq!(crowd(settings, &[("role", "publisher")], &up(999)), [0, 1_000, 0, 0]);
    assert_eq!(crowd(settings, &[("role", "publisher")], &up(1_000)), [0, 0, 1_000, 0]);
    assert_eq!(crowd(settings, &[("role", "viewer")], &up(999)), [0, 0, 1_000, 0]);
    assert_eq!(crowd("{}", &[("role", "publisher")], &up(999)), [0, 0, 1_000, 0]);
}

#[test]
fn redirects_spread_by_free_capacity() {
    let mut trial = trial("{}", &up(1_000));
    let free = |capacity| [(Load, 500), (Breaker, 0), (NodesUp, 2), (Capacity, capacity)];
    trial.world =
        trial.world.clone().region("west", &free(300_000)).region("south", &free(100_000));
    let west = (0..1_000).filter(|&session| {
        trial.admit(session, &[], None).verdict() == Verdict::Redirect(RegionId(2))
    });
    let west = west.count() as i32;
    assert!((west - 750).abs() < 50, "{west}");
}

#[test]
fn joining_session_is_never_redirected() {
    let mut trial = trial("{}", &up(1_000));
    let judgement = trial.admit(1, &[], Some("east"));
    assert!(matches!(judgement.verdict(), Verdict::Reject(_)), "{judgement:?}");
    assert_eq!(judgement.reason(), VerdictReason::Full.number());
    let judgement = trial.admit(1, &[("region", "east")], Some("west"));
    assert_eq!(judgement.verdict(), Verdict::Accept, "the room's region counts, not the session's");
}

#[test]
fn region_that_is_out_takes_no_session() {
    for out in [[(Load, 0), (Breaker, OPEN), (NodesUp, 2)], [(Load, 0), (Breaker, 0), (NodesUp, 0)]]
    {
        assert!(is_sent_elsewhere(admit(&out)));
        let judgement = trial("{}", &out).admit(1, &[], Some("east"));
        assert!(matches!(judgement.verdict(), Verdict::Reject(_)));
        assert_eq!(judgement.reason(), VerdictReason::RegionUnavailable.number());
    }
    assert_eq!(admit(&[(Load, 0), (Breaker, 0), (NodesUp, 1)]).verdict(), Verdict::Accept);
}

#[test]
fn half_open_region_caps_new_sessions() {
    let judgement = admit(&[(Load, 0), (Breaker, HALF_OPEN), (NodesUp, 2)]);
    assert_eq!(judgement, Verdict::AcceptCapped(300).because(VerdictReason::NearlyFull));
}

#[test]
fn redirect_target_must_be_below_its_threshold() {
    let west_and_south = |load, breaker| {
        let mut trial = trial("{}", &up(1_000));
        for name in ["west", "south"] {
            let measured = [(Load, load), (Breaker, breaker), (NodesUp, 2)];
            trial.world = trial.world.clone().region(name, &measured);
        }
        trial.admit(1, &[], None).verdict()
    };
    assert!(matches!(west_and_south(699, 0), Verdict::Redirect(_)));
    assert!(matches!(west_and_south(700, 0), Verdict::Reject(_)));
    assert!(matches!(west_and_south(0, HALF_OPEN), Verdict::Reject(_)));
    assert!(matches!(west_and_south(0, OPEN), Verdict::Reject(_)));
}

#[test]
fn region_label_overrides_the_gateways_region() {
    let mut trial = trial("{}", &up(1_000));
    assert_eq!(trial.admit(1, &[("region", "west")], None).verdict(), Verdict::Accept);
    assert!(is_sent_elsewhere(trial.admit(1, &[("region", "atlantis")], None)));
}

#[test]
fn unmeasured_region_means_abstention() {
    assert_eq!(admit(&[]).verdict(), Verdict::Abstain);
}

#[test]
fn retry_delays_differ() {
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
