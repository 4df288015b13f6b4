//! One session that sends 1,000 kbit/s in a scenario with bounds of 100 and 2,000 kbit/s; a tick every 100 ms.

use evenkeel_plugin_sdk::Metric::{
    Age, BitrateUp, Cap, Ceiling, Floor, LossDown, LossUp, RttClient, Rung, Sessions, Video,
};
use evenkeel_plugin_sdk::Pack as _;
use evenkeel_plugin_sdk::trial::{Session, Trial, World};

use super::*;

mod climb;
mod link;

const TICK: Duration = Duration::from_millis(100);
const LOSS: u32 = ActionReason::Loss as u32;
const RECOVERED: u32 = ActionReason::Recovered as u32;

struct Call {
    trial: Trial<DegradeLadder>,
    session: Session<LadderMemory>,
}

impl Call {
    fn with(settings: &str) -> Call {
        let policy = DegradeLadder::parse(settings).unwrap();
        let measured =
            vec![(BitrateUp, 1_000), (Cap, 0), (Video, 1), (Floor, 100), (Ceiling, 2_000)];
        let session = Session { measured, state: LadderMemory::fresh() };
        Call { trial: Trial::of(policy, World::around("east")), session }
    }

    fn measure(&mut self, metric: Metric, value: u32) {
        self.session.measured.retain(|&(there, _)| there != metric);
        self.session.measured.push((metric, value));
    }

    /// Runs one tick. A new cap is active from then on, as in the gateway.
    fn tick(&mut self, loss_ppm: u32) -> Option<(Op, u64, u32)> {
        self.measure(LossUp, loss_ppm);
        let actions = self.trial.tick(std::slice::from_mut(&mut self.session));
        self.trial.pass(TICK);
        assert!(actions.len() <= 1, "one rung at a time: {actions:?}");
        let &(_, op, arg, why) = actions.first()?;
        if op == Op::Cap {
            self.measure(Cap, arg as u32);
        }
        Some((op, arg, why))
    }

    /// Returns all actions within this time at this loss, each with the time of its tick.
    fn during(&mut self, time: Duration, loss_ppm: u32) -> Vec<(u128, Op, u64)> {
        let ticks = (0..time.as_millis()).step_by(100);
        let mut done = Vec::new();
        for at in ticks {
            if let Some((op, arg, _)) = self.tick(loss_ppm) {
                done.push((at, op, arg));
            }
        }
        done
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn loss_from_the_threshold_degrades() {
    assert!(Call::with("{}").during(MINUTE, 29_999).is_empty());
    assert!(!Call::with("{}").during(MINUTE, 30_000).is_empty());
}

#[test]
fn loss_in_either_direction_counts() {
    let mut call = Call::with("{}");
    call.measure(LossDown, 100_000);
    assert!(!call.during(MINUTE, 0).is_empty());
}

#[test]
fn downgrade_needs_lasting_loss() {
    let mut call = Call::with(r#"{"down_after": "600ms"}"#);
    assert_eq!(call.during(Duration::from_millis(600), 50_000), []);
    assert_eq!(call.tick(50_000), Some((Op::Cap, 700, LOSS)), "600 ms after the first bad tick");
    let mut call = Call::with(r#"{"down_after": "600ms"}"#);
    call.during(Duration::from_millis(600), 50_000);
    call.tick(20_000);
    assert_eq!(call.during(Duration::from_millis(600), 50_000), [], "restarted after a lull");
}

#[test]
fn caps_to_the_floor_then_voice_only() {
    let mut call = Call::with("{}");
    let done = call.during(MINUTE, 100_000);
    let caps = [700, 489, 342, 239, 167, 116, 100].map(|kbps| (Op::Cap, kbps));
    let expected: Vec<_> = caps.into_iter().chain([(Op::VoiceOnly, 1)]).collect();
    assert_eq!(done.iter().map(|&(_, op, arg)| (op, arg)).collect::<Vec<_>>(), expected);
    assert_eq!(done[1].0 - done[0].0, 600, "the same time between rungs");
}

#[test]
fn upgrades_are_slow_and_in_reverse_order() {
    let mut call = Call::with(r#"{"up_after": "8s", "cap_factor": 0.5, "raise_factor": 2}"#);
    let down = call.during(MINUTE, 100_000);
    assert_eq!(down.last().map(|&(_, op, arg)| (op, arg)), Some((Op::VoiceOnly, 1)));
    let up = call.during(MINUTE, 0);
    let expected = [
        (8_000, Op::VoiceOnly, 0),
        (16_000, Op::Cap, 200),
        (24_000, Op::Cap, 400),
        (32_000, Op::Cap, 800),
        (40_000, Op::Cap, 0),
    ];
    assert_eq!(up, expected);
    assert_eq!(call.session.state.cap, 0);
    assert!(call.during(MINUTE, 0).is_empty(), "no rung above the top");
}

#[test]
fn reasons_match_the_direction() {
    let mut call = Call::with(r#"{"down_after": "0s", "up_after": "0s"}"#);
    assert_eq!(call.tick(30_000), Some((Op::Cap, 700, LOSS)));
    assert_eq!(call.tick(0), Some((Op::Cap, 0, RECOVERED)));
}

#[test]
fn no_change_between_the_thresholds() {
    for (loss, climbs) in [(15_000, false), (14_999, true)] {
        let mut call = Call::with(r#"{"hysteresis": 0.5}"#);
        call.during(Duration::from_secs(1), 100_000);
        assert_eq!(!call.during(MINUTE, loss).is_empty(), climbs, "{loss}");
    }
    let mut call = Call::with(r#"{"up_after": "8s"}"#);
    call.during(Duration::from_secs(1), 100_000);
    call.during(Duration::from_secs(7), 0);
    call.tick(20_000);
    assert_eq!(call.during(Duration::from_secs(8), 0), [], "restarted after a relapse");
}

#[test]
fn falling_loss_needs_no_further_rung() {
    // Loss starts at 20 % and falls by a tenth per tick: it is above 3 % for 18 ticks, three times the duration of a
    // rung.
    let mut call = Call::with(r#"{"down_after": "600ms"}"#);
    assert_eq!(call.during(Duration::from_millis(700), 200_000), [(600, Op::Cap, 700)]);
    let falls = (0..18).map(|tick| (200_000.0 * 0.9_f64.powi(tick + 1)) as u32);
    let done: Vec<_> = falls.filter_map(|loss| call.tick(loss)).collect();
    assert_eq!(done, []);
    let mut call = Call::with(r#"{"down_after": "600ms"}"#);
    assert_eq!(call.during(Duration::from_millis(700), 200_000), [(600, Op::Cap, 700)]);
    assert_eq!(call.during(Duration::from_millis(1_800), 200_000).len(), 3, "constant loss");
}

#[test]
fn session_without_video_is_never_voice_only() {
    let mut call = Call::with("{}");
    call.measure(Video, 0);
    let done = call.during(MINUTE, 500_000);
    assert!(!done.is_empty() && done.iter().all(|&(_, op, _)| op == Op::Cap), "{done:?}");
}

#[test]
fn unsupported_cap_is_skipped() {
    let mut call = Call::with("{}");
    call.measure(Floor, 2_000);
    assert_eq!(call.during(MINUTE, 100_000), [(600, Op::VoiceOnly, 1)]);
}

#[test]
fn video_is_dropped_only_at_high_loss() {
    for (loss, goes) in [(79_999, false), (80_000, true)] {
        let mut call = Call::with(r#"{"steps": ["voice-only"]}"#);
        assert_eq!(!call.during(MINUTE, loss).is_empty(), goes, "{loss}");
    }
}

#[test]
fn downlink_loss_in_larger_room_causes_no_cap() {
    for (sessions, up, first) in [
        (2, 0, (Op::Cap, 700)),
        (3, 0, (Op::VoiceOnly, 1)),
        (3, 29_999, (Op::VoiceOnly, 1)),
        (3, 30_000, (Op::Cap, 700)),
    ] {
        let mut call = Call::with("{}");
        call.measure(Sessions, sessions);
        call.measure(LossDown, 100_000);
        let done = call.during(MINUTE, up);
        assert_eq!(done.first().map(|&(_, op, arg)| (op, arg)), Some(first), "{sessions} {up}");
    }
}

#[test]
fn each_report_of_a_growing_round_trip_is_one_rung() {
    let settings = r#"{"down_at_queue": "100ms", "down_after": "0s", "cap_factor": 0.5}"#;
    for (rtt, capped) in [(149_000, false), (150_000, true)] {
        let mut call = Call::with(settings);
        call.measure(RttClient, 50_000);
        assert_eq!(call.tick(0), None);
        call.measure(RttClient, rtt);
        let done = call.tick(0);
        assert_eq!(done, capped.then_some((Op::Cap, 500, ActionReason::Queue as u32)), "{rtt}");
        assert_eq!(call.tick(0), None, "an equal report is not new");
        if capped {
            call.measure(RttClient, rtt + 1_000);
            assert_eq!(call.tick(0), Some((Op::Cap, 250, ActionReason::Queue as u32)));
        }
    }
    let mut call = Call::with(r#"{"down_after": "0s"}"#);
    call.measure(RttClient, 50_000);
    call.tick(0);
    call.measure(RttClient, 3_000_000);
    assert!(call.during(MINUTE, 0).is_empty(), "ignored by default");
}

#[test]
fn longer_path_becomes_the_usual_round_trip() {
    let settings = r#"{"down_at_queue": "100ms", "down_after": "0s", "up_after": "1s"}"#;
    let mut call = Call::with(settings);
    call.measure(RttClient, 50_000);
    call.tick(0);
    call.measure(RttClient, 170_000);
    assert_eq!(call.tick(0).map(|done| done.0), Some(Op::Cap));
    let up = call.during(MINUTE, 0);
    assert_eq!(up.first().map(|done| (done.1, done.2)), Some((Op::Cap, 0)));
    // The usual round trip follows by 5 ms per second: after 14 s, the excess of 120 ms is below half of 100 ms.
    assert!((13_000..17_000).contains(&up[0].0), "{up:?}");
}

#[test]
fn role_that_gives_way_degrades_sooner() {
    let settings =
        r#"{"low_priority_roles": ["listener"], "down_after": "600ms", "up_after": "8s"}"#;
    for (role, loss, first) in [
        ("listener", 14_999, None),
        ("listener", 15_000, Some(300)),
        ("speaker", 29_999, None),
        ("speaker", 30_000, Some(600)),
    ] {
        let mut call = Call::with(settings);
        call.session.state = call.trial.open(&[("role", role)]);
        let done = call.during(Duration::from_secs(1), loss);
        assert_eq!(done.first().map(|done| done.0), first, "{role} {loss}");
        if let Some(first) = first {
            let up = call.during(MINUTE, 0);
            let expected = if role == "listener" { 16_000 } else { 8_000 };
            assert_eq!(up.first().map(|done| done.0), Some(expected), "{role} {first}");
        }
    }
}

#[test]
fn steps_follow_their_configured_order() {
    let mut call = Call::with(r#"{"steps": ["voice-only", "cap"]}"#);
    let ops: Vec<_> = call.during(MINUTE, 100_000).iter().map(|&(_, op, _)| op).collect();
    assert_eq!(ops[..2], [Op::VoiceOnly, Op::Cap]);
    let up: Vec<_> = call.during(MINUTE * 3, 0).iter().map(|&(_, op, _)| op).collect();
    assert_eq!(up.last(), Some(&Op::VoiceOnly));
    assert!(Call::with(r#"{"steps": []}"#).during(MINUTE, 100_000).is_empty());
}

#[test]
fn step_that_is_not_granted_is_skipped() {
    let mut call = Call::with("{}");
    call.trial = call.trial.granting(&[Op::VoiceOnly]);
    assert_eq!(call.during(MINUTE, 100_000), [(600, Op::VoiceOnly, 1)]);
}

#[test]
fn unmeasured_values_change_nothing() {
    let mut call = Call::with(r#"{"down_after": "0s"}"#);
    for _ in 0..100 {
        assert!(call.trial.tick(std::slice::from_mut(&mut call.session)).is_empty());
        call.trial.pass(TICK);
    }
    let LadderMemory { bad_since, good_since, .. } = call.session.state;
    assert_eq!((bad_since, good_since), (None, None));
}

#[test]
fn time_in_the_future_counts_from_now() {
    let mut call = Call::with(r#"{"down_after": "600ms", "up_after": "8s"}"#);
    let ahead = Some(Duration::from_secs(1_000_000));
    (call.session.state.bad_since, call.session.state.good_since) = (ahead, ahead);
    let done = call.during(Duration::from_secs(1), 100_000);
    assert_eq!(done, [(600, Op::Cap, 700)]);
    (call.session.state.good_since, call.session.state.climb) = (ahead, None);
    assert_eq!(call.during(MINUTE, 0), [(8_000, Op::Cap, 0)]);
}

#[test]
fn active_cap_counts_not_the_requested_one() {
    let mut call = Call::with(r#"{"down_after": "0s"}"#);
    assert_eq!(call.tick(100_000), Some((Op::Cap, 700, LOSS)));
    call.measure(Cap, 400);
    assert_eq!(call.tick(100_000), Some((Op::Cap, 280, LOSS)));
}

#[test]
fn admission_cap_is_never_lifted() {
    for (age, allowed) in [(4_999, true), (5_000, false)] {
        let mut call = Call::with(r#"{"cap_factor": 0.5}"#);
        call.measure(Cap, 300);
        call.measure(Age, age);
        assert_eq!(call.during(MINUTE, 0).is_empty(), allowed, "{age}");
    }
    let mut call = Call::with(r#"{"cap_factor": 0.5, "raise_factor": 2}"#);
    call.measure(Cap, 300);
    call.measure(Age, 100);
    let both = |done: Vec<(u128, Op, u64)>| -> Vec<(Op, u64)> {
        done.into_iter().map(|(_, op, arg)| (op, arg)).collect()
    };
    let down = both(call.during(MINUTE, 100_000));
    assert_eq!(down, [(Op::Cap, 150), (Op::Cap, 100), (Op::VoiceOnly, 1)]);
    let up = both(call.during(MINUTE, 0));
    assert_eq!(up, [(Op::VoiceOnly, 0), (Op::Cap, 200), (Op::Cap, 300)]);
    assert!(call.during(MINUTE, 0).is_empty(), "back at the admission cap");
}

#[test]
fn cap_respects_a_lowered_ceiling() {
    let mut call = Call::with(r#"{"cap_factor": 0.5, "down_after": "0s", "up_after": "0s"}"#);
    assert_eq!(call.tick(100_000), Some((Op::Cap, 500, LOSS)));
    call.measure(Ceiling, 200);
    assert_eq!(call.tick(100_000), Some((Op::Cap, 200, LOSS)));
    assert_eq!(call.tick(0), Some((Op::Cap, 0, RECOVERED)), "a cap at the ceiling does nothing");
}

#[test]
fn actions_of_an_earlier_policy_are_reverted() {
    let mut call = Call::with("{}");
    call.measure(Cap, 500);
    call.measure(Rung, 2);
    let up: Vec<_> = call.during(MINUTE, 0).iter().map(|&(_, op, arg)| (op, arg)).collect();
    let caps = [750, 1_125, 1_688, 0].map(|kbps| (Op::Cap, kbps));
    assert_eq!(up[..4], caps, "up to the ceiling: the bit rate before is unknown");
    assert_eq!(up[4], (Op::VoiceOnly, 0));
    call.measure(Rung, 0);
    assert!(call.during(MINUTE, 0).is_empty());
}

#[test]
fn first_cap_starts_from_the_bit_rate() {
    let mut call = Call::with(r#"{"down_after": "0s"}"#);
    call.measure(BitrateUp, 5_000);
    assert_eq!(call.tick(100_000), Some((Op::Cap, 1_400, LOSS)));
    let mut call = Call::with(r#"{"down_after": "0s"}"#);
    call.measure(BitrateUp, 100);
    let rung = call.tick(100_000);
    assert_eq!(rung, Some((Op::VoiceOnly, 1, LOSS)), "already at the floor");
}

#[test]
fn settings_out_of_bounds_are_refused() {
    let error = |settings| DegradeLadder::parse(settings).unwrap_err();
    let thin = error(r#"{"steps": ["thin"]}"#);
    assert_eq!(thin, r#"steps: found "thin", expected one of "cap", "voice-only""#);
    assert_eq!(error(r#"{"cap_factor": 1.0}"#), "cap_factor: 1 is above 0.95");
    assert_eq!(error(r#"{"up_after": "2h"}"#), "up_after: 7200000ms is above 3600000ms");
}

#[test]
fn removed_step_is_reverted() {
    let mut call = Call::with(r#"{"steps": ["voice-only"]}"#);
    assert_eq!(
        call.during(Duration::from_secs(5), 80_000).last().map(|done| done.1),
        Some(Op::VoiceOnly)
    );
    call.trial = Call::with(r#"{"steps": ["cap"]}"#).trial;
    let done: Vec<_> = call.during(MINUTE, 0).into_iter().map(|(_, op, arg)| (op, arg)).collect();
    assert_eq!(done, [(Op::VoiceOnly, 0)]);

    let mut call = Call::with(r#"{"steps": ["cap"]}"#);
    assert!(!call.during(Duration::from_secs(5), 50_000).is_empty());
    call.trial = Call::with(r#"{"steps": ["voice-only"]}"#).trial;
    let done = call.during(MINUTE, 0);
    assert_eq!(done.last().map(|done| (done.1, done.2)), Some((Op::Cap, 0)), "{done:?}");
}
