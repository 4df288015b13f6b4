use super::*;
use crate::own::OwnFaults;

const SLOT: Duration = Duration::from_secs(1);

/// The signs that are found in so many seconds of a call, ten times a second of which `report` tells, by second and tenth.
fn signs(seconds: u64, report: impl Fn(u64, u32) -> FlowCounts) -> Vec<ImpairmentSign> {
    let (mut path, own, mut signs) = (SessionPath::default(), OwnFaults::default(), Vec::new());
    for slot in 1..=seconds {
        path.begin_slot(slot);
        path.note_frames(SLOT, false);
        let found = path.judge(&PathContext {
            id: SessionId(1),
            slot_length: SLOT,
            senders: None,
            probes: None,
            own: own.lately(slot),
            is_call: true,
        });
        signs.extend(found.map(|impairment| impairment.sign));
        for tenth in 0..10 {
            path.add(&report(slot, tenth));
        }
    }
    signs
}

#[test]
fn round_trip_of_one_slot_is_no_delay() {
    let high = |slots: std::ops::RangeInclusive<u64>| {
        signs(20, move |slot, _| {
            let round_trip_us = Some(if slots.contains(&slot) { 600_000 } else { 50_000 });
            FlowCounts { round_trip_us, ..FlowCounts::default() }
        })
    };
    assert_eq!(high(5..=5), []);
    assert_eq!(high(5..=6), [ImpairmentSign::Delay]);
}

#[test]
fn shared_screen_after_camera_is_no_fault() {
    let camera_then = |frames: fn(u32) -> u32| {
        signs(20, move |slot, tenth| {
            let frames = if slot <= 5 { 3 } else { frames(tenth) };
            FlowCounts { sent: [0, frames], frames, ..FlowCounts::default() }
        })
    };
    assert_eq!(camera_then(|tenth| u32::from(tenth == 0)), [], "one frame a second");
    let behind = camera_then(|tenth| tenth % 2);
    assert_eq!(behind.first(), Some(&ImpairmentSign::FewFrames), "five");
}

#[test]
fn voice_that_never_had_sound_is_a_fault() {
    let voice = |packets: u32, silent_voice: fn(u64) -> u32| {
        signs(60, move |second, _| {
            let silent_voice = silent_voice(second);
            FlowCounts { sent: [packets, 0], silent_voice, ..FlowCounts::default() }
        })
    };
    let all = |second: u64| 50 * second as u32;
    assert_eq!(voice(5, all).first(), Some(&ImpairmentSign::Silence));
    assert_eq!(voice(5, |_| 499), [], "less than ten seconds");
    assert_eq!(voice(5, |_| 0), [], "it had sound before the microphone was muted");
    assert_eq!(voice(0, all), [], "no voice any more");
    let sparse = signs(60, |second, tenth| {
        let sent = [u32::from(tenth.is_multiple_of(2)), 0];
        FlowCounts { sent, silent_voice: all(second), ..FlowCounts::default() }
    });
    assert_eq!(sparse, [], "silence suppression");
}

#[test]
fn missing_key_frame_without_video_is_no_fault() {
    let video = |frames: u32| {
        signs(20, move |_, _| FlowCounts {
            sent: [0, frames],
            frames,
            key_frame_missing_ms: 2_000,
            ..FlowCounts::default()
        })
    };
    assert_eq!(video(0), []);
    assert_eq!(video(3).first(), Some(&ImpairmentSign::NoKeyFrame));
}
