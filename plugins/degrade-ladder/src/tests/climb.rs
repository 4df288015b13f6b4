//! Upgrades that fail.

use super::*;

#[test]
fn failed_upgrade_is_reverted_and_doubles_the_wait() {
    let mut call = Call::with(r#"{"up_after": "8s", "raise_factor": 1.2}"#);
    call.during(Duration::from_millis(1_300), 70_000);
    assert_eq!(call.path().cap, 720);
    for (relapses, wait) in [(1, 8_000), (2, 16_000), (3, 32_000), (4, 64_000), (5, 120_000)] {
        let mut waited = 0;
        while call.tick(0).is_none() {
            waited += 100;
        }
        assert_eq!((call.path().cap, waited), (864, wait), "{relapses}");
        let back = call.during(Duration::from_millis(700), 50_000);
        assert_eq!(back, [(600, Op::CapDown, 720)], "to the cap that held, not lower");
        assert_eq!(call.path().relapses, relapses);
    }
    // An upgrade that lasts as long as the wait resets earlier failures.
    call.during(Duration::from_secs(130), 0);
    assert_eq!(call.path().relapses, 0);
}

#[test]
fn upgrade_that_held_is_no_failure() {
    for (held, cap) in [(7_900, 720), (8_000, 560)] {
        let mut call = Call::with(r#"{"up_after": "8s", "raise_factor": 1.2, "down_after": "0s"}"#);
        call.tick(70_000);
        assert_eq!(call.path().cap, 720);
        while call.tick(0).is_none() {}
        call.during(Duration::from_millis(held - 100), 20_000);
        assert_eq!(call.tick(200_000).map(|done| done.1), Some(cap), "{held}");
    }
}

#[test]
fn failed_video_restore_is_reverted_at_lower_loss() {
    let mut call = Call::with(r#"{"steps": ["voice-only"], "up_after": "8s"}"#);
    call.during(Duration::from_secs(1), 100_000);
    assert_eq!(call.during(Duration::from_millis(8_100), 0), [(8_000, Op::VoiceOnly, 0)]);
    assert_eq!(call.during(Duration::from_secs(1), 40_000), [(600, Op::VoiceOnly, 1)]);
    assert_eq!(call.during(Duration::from_secs(16), 0), []);
    assert_eq!(call.during(Duration::from_millis(100), 0), [(0, Op::VoiceOnly, 0)]);
}
