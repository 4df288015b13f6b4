//! Fewer frames, suspension and end, as steps among others.

use super::*;

const FRAMES: &str = r#"{"steps": ["cap", "thin", "voice-only"], "cut_per_loss": 100,
    "thin_at_loss": 0.1, "voice_only_at_loss": 0.1, "cap_factor": 0.5, "raise_factor": 2, "up_after": "8s"}"#;

#[test]
fn frames_give_way_between_cap_and_video() {
    let mut call = Call::with(FRAMES);
    let down = ops(&call.during(MINUTE, 100_000));
    let last = [(Op::CapDown, 100), (Op::Thin, 1), (Op::Thin, 2), (Op::VoiceOnly, 1)];
    assert_eq!(down[down.len() - 4..], last);
    let up = call.during(MINUTE, 0);
    let first = [(8_000, Op::VoiceOnly, 0), (16_000, Op::Thin, 1), (24_000, Op::Thin, 0)];
    assert_eq!(up[..3], first);
    assert_eq!(up[3], (32_000, Op::CapDown, 200));
}

#[test]
fn frames_to_the_session_are_dropped_in_any_room() {
    for (direction, expected) in [(Direction::Up, vec![]), (Direction::Down, vec![1, 2])] {
        let mut call = Call::losing(direction, r#"{"steps": ["thin"]}"#);
        call.measure(Sessions, 3);
        let done = ops(&call.during(MINUTE, 100_000));
        assert_eq!(done, expected.iter().map(|arg| (Op::Thin, *arg)).collect::<Vec<_>>());
    }
    let mut call = Call::with(r#"{"steps": ["thin"]}"#);
    call.measure(Video, 0);
    assert_eq!(call.during(MINUTE, 100_000), [], "no video");
}

#[test]
fn frames_are_dropped_from_their_own_limit() {
    for (loss, drops) in [(49_999, false), (50_000, true)] {
        let mut call = Call::with(r#"{"steps": ["thin"], "thin_at_loss": 0.05}"#);
        assert_eq!(!call.during(MINUTE, loss).is_empty(), drops, "{loss}");
    }
}

#[test]
fn unknown_frames_take_the_next_step() {
    let mut call = Call::with(r#"{"steps": ["thin", "voice-only"], "voice_only_at_loss": 0.05}"#);
    assert_eq!(call.during(Duration::from_millis(700), 100_000), [(600, Op::Thin, 1)]);
    call.measure(Thin, 0);
    assert_eq!(ops(&call.during(MINUTE, 100_000)), [(Op::VoiceOnly, 1)]);
    assert_eq!(ops(&call.during(MINUTE, 0)), [(Op::VoiceOnly, 0), (Op::Thin, 0)]);
}

#[test]
fn failed_return_of_frames_is_reverted() {
    let mut call = Call::with(r#"{"steps": ["thin"], "up_after": "8s"}"#);
    assert_eq!(ops(&call.during(Duration::from_secs(2), 100_000)), [(Op::Thin, 1), (Op::Thin, 2)]);
    assert_eq!(call.during(Duration::from_millis(8_100), 0), [(8_000, Op::Thin, 1)]);
    // Above the limit for trouble, below that for frames.
    assert_eq!(call.during(Duration::from_secs(1), 40_000), [(600, Op::Thin, 2)]);
    assert_eq!(call.during(Duration::from_secs(16), 0), [], "twice the time");
    assert_eq!(call.during(Duration::from_millis(100), 0), [(0, Op::Thin, 1)]);
}

#[test]
fn suspended_session_is_tried_again_ever_later() {
    let mut call = Call::with(r#"{"steps": ["park"], "park_at_loss": 0.5, "up_after": "8s"}"#);
    assert_eq!(call.during(MINUTE, 499_999), []);
    let mut call = Call::with(r#"{"steps": ["park"], "park_at_loss": 0.5, "up_after": "8s"}"#);
    // What was measured before the suspension says nothing.
    for wait in [8_000, 16_000, 32_000] {
        assert_eq!(call.during(Duration::from_secs(1), 500_000)[..1], [(600, Op::Park, 1)]);
        let parked = Duration::from_millis(wait + 100 - 300);
        assert_eq!(ops(&call.during(parked, 500_000)), [(Op::Park, 0)], "{wait}");
    }
}

#[test]
fn suspension_for_the_uplink_ends_with_its_loss() {
    let mut call = Call::losing(Direction::Up, r#"{"steps": ["park"], "up_after": "8s"}"#);
    assert_eq!(ops(&call.during(MINUTE, 500_000)), [(Op::Park, 1)]);
    assert_eq!(call.during(Duration::from_millis(8_100), 0), [(8_000, Op::Park, 0)]);
}

#[test]
fn session_ends_if_suspension_does_not_help() {
    let mut call = Call::losing(Direction::Up, r#"{"steps": ["park", "end"]}"#);
    let done = call.during(Duration::from_millis(1_300), 500_000);
    assert_eq!(done, [(600, Op::Park, 1), (1_200, Op::End, 1)]);
}

#[test]
fn suspension_that_is_not_granted_is_skipped() {
    let mut call = Call::with(r#"{"steps": ["park", "end", "thin"]}"#);
    call.trial = call.trial.granting(&[Op::Thin]);
    assert_eq!(ops(&call.during(MINUTE, 600_000)), [(Op::Thin, 1), (Op::Thin, 2)]);
}
