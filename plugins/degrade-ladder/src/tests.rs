//! One session that sends and receives 1,000 kbit/s in a scenario with bounds of 100 and 2,000 kbit/s; a tick every 100 ms.
//!
//! Loss is that of the direction to the session, unless a test says otherwise.

use evenkeel_plugin_sdk::Metric::{
    Age, BitrateDown, BitrateUp, Cap, CapDown, CapUp, Ceiling, Floor, JitterDown, JitterUp,
    LossDown, LossDownAfterRepair, LossUp, LossUpAfterRepair, Park, RttClient, Rung, Sessions,
    Thin, Video,
};
use evenkeel_plugin_sdk::Pack as _;
use evenkeel_plugin_sdk::trial::{Session, Trial, World};

use super::*;
use crate::memory::PathMemory;

mod climb;
mod link;
mod random;
mod steps;

const TICK: Duration = Duration::from_millis(100);
const LOSS: u32 = ActionReason::Loss as u32;
const RECOVERED: u32 = ActionReason::Recovered as u32;

struct Call {
    trial: Trial<DegradeLadder>,
    session: Session<LadderMemory>,
    direction: Direction,
}

impl Call {
    fn with(settings: &str) -> Call {
        Call::losing(Direction::Down, settings)
    }

    fn losing(direction: Direction, settings: &str) -> Call {
        let policy = DegradeLadder::parse(settings).unwrap();
        let measured = vec![
            (BitrateUp, 1_000),
            (BitrateDown, 1_000),
            (CapUp, 0),
            (CapDown, 0),
            (Video, 1),
            (Floor, 100),
            (Ceiling, 2_000),
        ];
        let session = Session { measured, state: LadderMemory::fresh() };
        Call { trial: Trial::of(policy, World::around("east")), session, direction }
    }

    fn path(&self) -> &PathMemory {
        self.session.state.path(self.direction)
    }

    fn measure(&mut self, metric: Metric, value: u32) {
        self.session.measured.retain(|&(there, _)| there != metric);
        self.session.measured.push((metric, value));
    }

    /// Runs one tick. A new cap is active from then on, as in the gateway.
    fn tick(&mut self, loss_ppm: u32) -> Option<(Op, u64, u32)> {
        let loss = match self.direction {
            Direction::Up => LossUp,
            Direction::Down => LossDown,
        };
        self.measure(loss, loss_ppm);
        let actions = self.trial.tick(std::slice::from_mut(&mut self.session));
        self.trial.pass(TICK);
        assert!(actions.len() <= 1, "one rung at a time: {actions:?}");
        let &(_, op, arg, why) = actions.first()?;
        let shown = [
            (Op::Cap, Cap),
            (Op::CapUp, CapUp),
            (Op::CapDown, CapDown),
            (Op::Thin, Thin),
            (Op::Park, Park),
        ];
        if let Some((_, metric)) = shown.into_iter().find(|(other, _)| *other == op) {
            self.measure(metric, arg as u32);
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

fn ops(done: &[(u128, Op, u64)]) -> Vec<(Op, u64)> {
    done.iter().map(|&(_, op, arg)| (op, arg)).collect()
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn loss_from_the_threshold_degrades() {
    assert!(Call::with("{}").during(MINUTE, 29_999).is_empty());
    assert!(!Call::with("{}").during(MINUTE, 30_000).is_empty());
}

#[test]
fn loss_caps_its_own_direction_only() {
    for (direction, cap) in [(Direction::Up, Op::CapUp), (Direction::Down, Op::CapDown)] {
        let mut call = Call::losing(direction, "{}");
        let done = call.during(MINUTE, 70_000);
        assert!(!done.is_empty() && done.iter().all(|&(_, op, _)| op == cap), "{done:?}");
    }
    let mut call = Call::losing(Direction::Up, "{}");
    let done = call.during(MINUTE, 500_000);
    assert!(done.iter().all(|&(_, op, _)| op == Op::CapUp), "video to it is no burden: {done:?}");
}

#[test]
fn loss_that_repair_holds_degrades_nothing() {
    for (direction, metric) in
        [(Direction::Up, LossUpAfterRepair), (Direction::Down, LossDownAfterRepair)]
    {
        for (missing, degrades) in [(0, false), (29_999, false), (30_000, true)] {
            let mut call = Call::losing(direction, "{}");
            call.measure(metric, missing);
            let done = call.during(MINUTE, 200_000);
            assert_eq!(!done.is_empty(), degrades, "{direction:?} {missing}: {done:?}");
        }
    }
}

#[test]
fn notes_have_the_loss_before_and_after_repair() {
    let mut call = Call::with(r#"{"down_after": "0s"}"#);
    call.measure(LossDownAfterRepair, 70_000);
    assert!(call.tick(100_000).is_some());
    let notes = evenkeel_plugin_sdk::trial::notes();
    let right = [("loss_down_ppm", 100_000), ("loss_down_after_repair_ppm", 70_000)];
    assert_eq!(notes, right.map(|(key, ppm)| (0, key.to_owned(), ppm)));
}

#[test]
fn downgrade_needs_lasting_loss() {
    let mut call = Call::with(r#"{"down_after": "600ms"}"#);
    assert_eq!(call.during(Duration::from_millis(600), 70_000), []);
    let rung = Some((Op::CapDown, 720, LOSS));
    assert_eq!(call.tick(70_000), rung, "600 ms after the first bad tick");
    let mut call = Call::with(r#"{"down_after": "600ms"}"#);
    call.during(Duration::from_millis(600), 70_000);
    call.tick(20_000);
    assert_eq!(call.during(Duration::from_millis(600), 70_000), [], "restarted after a lull");
}

#[test]
fn cap_is_below_what_arrives() {
    // 30 % lost: 700 kbit/s arrive of what is sent to it; 1,000 kbit/s arrive of 1,429 that it sends.
    for (direction, cap, uncapped) in [(Direction::Down, 490, 1_000), (Direction::Up, 700, 1_429)] {
        let mut call = Call::losing(direction, r#"{"down_after": "0s"}"#);
        assert_eq!(call.tick(300_000), Some((direction.cap(), cap, LOSS)));
        assert_eq!(call.path().uncapped, uncapped);
    }
}

#[test]
fn cap_follows_the_highest_rate_of_the_bad_period() {
    let mut call = Call::with(r#"{"down_after": "600ms"}"#);
    let rates = [100, 1_000, 300, 500, 100, 100, 100];
    let done = rates.map(|kbps| {
        call.measure(BitrateDown, kbps);
        call.tick(300_000).map(|(op, arg, _)| (op, arg))
    });
    assert_eq!(done[6], Some((Op::CapDown, 490)));
}

#[test]
fn loss_takes_at_most_a_multiple_of_its_share() {
    for (loss, share, least) in [(30_000, "4", 880), (50_000, "4", 800), (70_000, "6", 580)] {
        let settings = format!(r#"{{"cut_per_loss": {share}, "cap_factor": 0.5}}"#);
        let done = Call::with(&settings).during(MINUTE, loss);
        assert_eq!(ops(&done), [(Op::CapDown, least)], "{loss}");
    }
}

#[test]
fn loss_that_a_cap_halved_takes_its_share_of_that_cap() {
    for (loss, second) in [(100_001, None), (100_000, Some((Op::CapDown, 392)))] {
        let mut call = Call::with(r#"{"down_after": "0s", "steps": ["cap"]}"#);
        assert_eq!(call.tick(200_000), Some((Op::CapDown, 560, LOSS)));
        let rung = call.tick(loss);
        assert_eq!(rung, None, "it falls");
        assert_eq!(call.tick(loss).map(|(op, arg, _)| (op, arg)), second, "{loss}");
    }
}

#[test]
fn caps_to_the_floor_then_voice_only() {
    let mut call = Call::with(r#"{"cut_per_loss": 100}"#);
    let done = call.during(MINUTE, 100_000);
    let caps = [630, 441, 309, 216, 151, 106, 100].map(|kbps| (Op::CapDown, kbps));
    let expected: Vec<_> = caps.into_iter().chain([(Op::VoiceOnly, 1)]).collect();
    assert_eq!(ops(&done), expected);
    assert_eq!(done[1].0 - done[0].0, 600, "the same time between rungs");
}

#[test]
fn upgrades_are_slow_and_in_reverse_order() {
    let settings =
        r#"{"up_after": "8s", "cap_factor": 0.5, "raise_factor": 2, "cut_per_loss": 100}"#;
    let mut call = Call::with(settings);
    let down = call.during(MINUTE, 100_000);
    assert_eq!(ops(&down).last(), Some(&(Op::VoiceOnly, 1)));
    let up = call.during(MINUTE, 0);
    let expected = [
        (8_000, Op::VoiceOnly, 0),
        (16_000, Op::CapDown, 200),
        (24_000, Op::CapDown, 400),
        (32_000, Op::CapDown, 800),
        (40_000, Op::CapDown, 0),
    ];
    assert_eq!(up, expected);
    assert_eq!(call.path().cap, 0);
    assert!(call.during(MINUTE, 0).is_empty(), "no rung above the top");
}

#[test]
fn reasons_match_the_direction() {
    let mut call = Call::with(r#"{"down_after": "0s", "up_after": "0s"}"#);
    assert_eq!(call.tick(30_000), Some((Op::CapDown, 880, LOSS)));
    assert_eq!(call.tick(0), Some((Op::CapDown, 0, RECOVERED)));
}

#[test]
fn no_change_between_the_thresholds() {
    for (loss, climbs) in [(15_000, false), (14_999, true)] {
        let mut call = Call::with(r#"{"hysteresis": 0.5}"#);
        call.during(Duration::from_secs(1), 70_000);
        assert_eq!(!call.during(MINUTE, loss).is_empty(), climbs, "{loss}");
    }
    let mut call = Call::with(r#"{"up_after": "8s"}"#);
    call.during(Duration::from_secs(1), 70_000);
    call.during(Duration::from_secs(7), 0);
    call.tick(20_000);
    assert_eq!(call.during(Duration::from_secs(8), 0), [], "restarted after a relapse");
}

#[test]
fn falling_loss_needs_no_further_rung() {
    // Loss starts at 20 % and falls by a tenth per tick: it is above 3 % for 18 ticks, three times the duration of a
    // rung.
    let settings = r#"{"down_after": "600ms", "cut_per_loss": 100}"#;
    let mut call = Call::with(settings);
    assert_eq!(call.during(Duration::from_millis(700), 200_000), [(600, Op::CapDown, 560)]);
    let falls = (0..18).map(|tick| (200_000.0 * 0.9_f64.powi(tick + 1)) as u32);
    let done: Vec<_> = falls.filter_map(|loss| call.tick(loss)).collect();
    assert_eq!(done, []);
    let mut call = Call::with(settings);
    assert_eq!(call.during(Duration::from_millis(700), 200_000), [(600, Op::CapDown, 560)]);
    assert_eq!(call.during(Duration::from_millis(1_800), 200_000).len(), 3, "constant loss");
}

#[test]
fn session_without_video_is_never_voice_only() {
    let mut call = Call::with("{}");
    call.measure(Video, 0);
    let done = call.during(MINUTE, 500_000);
    assert!(!done.is_empty() && done.iter().all(|&(_, op, _)| op == Op::CapDown), "{done:?}");
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
    for (sessions, first) in [(2, (Op::CapDown, 630)), (3, (Op::VoiceOnly, 1))] {
        let mut call = Call::with("{}");
        call.measure(Sessions, sessions);
        let done = call.during(MINUTE, 100_000);
        assert_eq!(ops(&done).first(), Some(&first), "{sessions}");
    }
    let mut call = Call::losing(Direction::Up, "{}");
    call.measure(Sessions, 3);
    assert!(!call.during(MINUTE, 30_000).is_empty(), "its own sending");
}

#[test]
fn each_report_of_a_growing_round_trip_is_one_rung() {
    let settings = r#"{"down_at_queue": "100ms", "down_after": "0s", "cap_factor": 0.5}"#;
    let queue = ActionReason::Queue as u32;
    for (rtt, capped) in [(149_000, false), (150_000, true)] {
        let mut call = Call::with(settings);
        call.measure(JitterDown, 1_000);
        call.measure(RttClient, 50_000);
        assert_eq!(call.tick(0), None);
        call.measure(RttClient, rtt);
        let done = call.tick(0);
        assert_eq!(done, capped.then_some((Op::CapDown, 500, queue)), "{rtt}");
        assert_eq!(call.tick(0), None, "an equal report is not new");
        if capped {
            call.measure(RttClient, rtt + 1_000);
            assert_eq!(call.tick(0), Some((Op::CapDown, 250, queue)));
        }
    }
    let mut call = Call::with(r#"{"down_after": "0s"}"#);
    call.measure(RttClient, 50_000);
    call.tick(0);
    call.measure(RttClient, 3_000_000);
    assert!(call.during(MINUTE, 0).is_empty(), "ignored by default");
}

#[test]
fn queue_caps_the_direction_with_jitter() {
    let settings = r#"{"down_at_queue": "100ms", "down_after": "0s", "cap_factor": 0.5}"#;
    for (up, down, capped) in [
        (5_000, 1_000, vec![Op::CapUp]),
        (1_000, 5_000, vec![Op::CapDown]),
        (2_000, 1_000, vec![Op::CapUp, Op::CapDown]),
        (1_000, 2_000, vec![Op::CapUp, Op::CapDown]),
    ] {
        let mut call = Call::with(settings);
        call.measure(JitterUp, up);
        call.measure(JitterDown, down);
        call.measure(RttClient, 50_000);
        call.measure(LossUp, 0);
        assert_eq!(call.tick(0), None);
        call.measure(RttClient, 150_000);
        let actions = call.trial.tick(std::slice::from_mut(&mut call.session));
        let ops: Vec<_> = actions.iter().map(|&(_, op, _, _)| op).collect();
        assert_eq!(ops, capped, "{up} {down}");
    }
}

#[test]
fn jitter_is_one_rung_until_it_calms() {
    let settings = r#"{"down_at_jitter": "60ms", "cap_factor": 0.7, "up_after": "8s"}"#;
    for (jitter, caps) in [(59_999, vec![]), (60_000, vec![(Op::CapDown, 700)])] {
        let mut call = Call::with(settings);
        call.measure(JitterDown, jitter);
        assert_eq!(ops(&call.during(MINUTE, 0)), caps, "{jitter}");
        call.measure(JitterDown, 30_000);
        assert_eq!(call.during(MINUTE, 0), [], "half of the limit, by the hysteresis");
        call.measure(JitterDown, 29_999);
        let lifted: Vec<_> = caps.iter().map(|_| (8_000, Op::CapDown, 0)).collect();
        assert_eq!(call.during(MINUTE, 0), lifted);
    }
    let mut call = Call::with("{}");
    call.measure(JitterDown, 3_000_000);
    assert_eq!(call.during(MINUTE, 0), [], "ignored by default");
}

#[test]
fn longer_path_becomes_the_usual_round_trip() {
    let settings = r#"{"down_at_queue": "100ms", "down_after": "0s", "up_after": "1s"}"#;
    let mut call = Call::with(settings);
    call.measure(JitterDown, 1_000);
    call.measure(RttClient, 50_000);
    call.tick(0);
    call.measure(RttClient, 170_000);
    assert_eq!(call.tick(0).map(|done| done.0), Some(Op::CapDown));
    let up = call.during(MINUTE, 0);
    assert_eq!(ops(&up).first(), Some(&(Op::CapDown, 0)));
    // The usual round trip follows by 5 ms per second: after 14 s, the excess of 120 ms is below half of 100 ms.
    assert!((13_000..17_000).contains(&up[0].0), "{up:?}");
}

#[test]
fn role_that_gives_way_degrades_sooner() {
    let settings = r#"{"low_priority_roles": ["listener"], "down_after": "600ms", "up_after": "8s",
        "cut_per_loss": 10}"#;
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
    let done = call.during(MINUTE, 100_000);
    assert_eq!(ops(&done)[..2], [(Op::VoiceOnly, 1), (Op::CapDown, 630)]);
    let up = call.during(MINUTE * 3, 0);
    assert_eq!(ops(&up).last(), Some(&(Op::VoiceOnly, 0)));
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
    for path in [&call.session.state.up, &call.session.state.down] {
        assert_eq!((path.bad_since, path.good_since), (None, None));
    }
}

#[test]
fn time_in_the_future_counts_from_now() {
    let mut call = Call::with(r#"{"down_after": "600ms", "up_after": "8s"}"#);
    let ahead = Some(Duration::from_secs(1_000_000));
    let path = &mut call.session.state.down;
    (path.bad_since, path.good_since) = (ahead, ahead);
    let done = call.during(Duration::from_secs(1), 70_000);
    assert_eq!(done, [(600, Op::CapDown, 720)]);
    let path = &mut call.session.state.down;
    (path.good_since, path.climb) = (ahead, None);
    assert_eq!(call.during(MINUTE, 0), [(8_000, Op::CapDown, 0)]);
}

#[test]
fn active_cap_counts_not_the_requested_one() {
    let mut call = Call::with(r#"{"down_after": "0s", "cut_per_loss": 100}"#);
    assert_eq!(call.tick(100_000), Some((Op::CapDown, 630, LOSS)));
    call.measure(CapDown, 400);
    assert_eq!(call.tick(100_000), Some((Op::CapDown, 280, LOSS)));
}

#[test]
fn admission_cap_is_a_ceiling_and_is_never_lifted() {
    for (age, lifted) in [(4_999, None), (5_000, Some((Op::Cap, 0)))] {
        let mut call = Call::with("{}");
        call.measure(Cap, 300);
        call.measure(Age, age);
        let done = call.during(Duration::from_secs(9), 0);
        assert_eq!(ops(&done).first().copied(), lifted, "{age}");
        assert!(call.during(MINUTE, 0).is_empty(), "once");
    }
    let settings =
        r#"{"cap_factor": 0.5, "raise_factor": 2, "up_after": "1s", "cut_per_loss": 100}"#;
    let mut call = Call::with(settings);
    call.measure(Cap, 300);
    call.measure(Age, 100);
    let down = ops(&call.during(MINUTE, 100_000));
    assert_eq!(down, [(Op::CapDown, 150), (Op::CapDown, 100), (Op::VoiceOnly, 1)]);
    let up = ops(&call.during(MINUTE, 0));
    assert_eq!(up, [(Op::VoiceOnly, 0), (Op::CapDown, 200), (Op::CapDown, 0)]);
}

#[test]
fn cap_respects_a_lowered_ceiling() {
    let settings =
        r#"{"cap_factor": 0.5, "down_after": "0s", "up_after": "0s", "cut_per_loss": 100}"#;
    let mut call = Call::with(settings);
    assert_eq!(call.tick(100_000), Some((Op::CapDown, 450, LOSS)));
    call.measure(Ceiling, 200);
    assert_eq!(call.tick(100_000), Some((Op::CapDown, 200, LOSS)));
    assert_eq!(
        call.tick(0),
        Some((Op::CapDown, 0, RECOVERED)),
        "a cap at the ceiling does nothing"
    );
}

#[test]
fn actions_of_an_earlier_policy_are_reverted() {
    let mut call = Call::with("{}");
    call.measure(Cap, 500);
    call.measure(Rung, 2);
    let up = ops(&call.during(Duration::from_secs(9), 0));
    assert_eq!(up, [(Op::VoiceOnly, 0)]);
    call.measure(Rung, 1);
    assert_eq!(ops(&call.during(Duration::from_secs(8), 0)), [(Op::Cap, 0)]);

    let mut call = Call::with(r#"{"raise_factor": 2}"#);
    call.measure(CapDown, 500);
    call.measure(Rung, 1);
    let up = ops(&call.during(Duration::from_secs(17), 0));
    let expected = [(Op::CapDown, 1_000), (Op::CapDown, 0)];
    assert_eq!(up, expected, "up to the ceiling: the bit rate before is unknown");
}

#[test]
fn first_cap_starts_from_the_bit_rate() {
    let settings = r#"{"down_after": "0s", "cut_per_loss": 100}"#;
    let mut call = Call::with(settings);
    call.measure(BitrateDown, 5_000);
    assert_eq!(call.tick(100_000), Some((Op::CapDown, 1_400, LOSS)));
    let mut call = Call::with(settings);
    call.measure(BitrateDown, 100);
    let rung = call.tick(100_000);
    assert_eq!(rung, Some((Op::VoiceOnly, 1, LOSS)), "already at the floor");
}

#[test]
fn settings_out_of_bounds_are_refused() {
    let error = |settings| DegradeLadder::parse(settings).unwrap_err();
    let unknown = error(r#"{"steps": ["fewer"]}"#);
    let steps = r#""cap", "voice-only", "thin", "park", "end""#;
    assert_eq!(unknown, format!(r#"steps: found "fewer", expected one of {steps}"#));
    assert_eq!(error(r#"{"cap_factor": 1.0}"#), "cap_factor: 1 is above 0.95");
    assert_eq!(error(r#"{"up_after": "2h"}"#), "up_after: 7200000ms is above 3600000ms");
}

#[test]
fn removed_step_is_reverted() {
    let mut call = Call::with(r#"{"steps": ["voice-only"]}"#);
    let down = call.during(Duration::from_secs(5), 80_000);
    assert_eq!(ops(&down).last(), Some(&(Op::VoiceOnly, 1)));
    call.trial = Call::with(r#"{"steps": ["cap"]}"#).trial;
    assert_eq!(ops(&call.during(MINUTE, 0)), [(Op::VoiceOnly, 0)]);

    let mut call = Call::with(r#"{"steps": ["cap"]}"#);
    assert!(!call.during(Duration::from_secs(5), 70_000).is_empty());
    call.trial = Call::with(r#"{"steps": ["voice-only"]}"#).trial;
    assert_eq!(ops(&call.during(MINUTE, 0)).last(), Some(&(Op::CapDown, 0)));
}
