use super::*;
use crate::own::OwnFaults;
use crate::uplinks::RoomUplinks;

const SLOT: Duration = Duration::from_secs(1);

const LISTENER: SessionId = SessionId(1);
const SENDER: SessionId = SessionId(2);

/// Plays a call of `seconds`. `senders` returns the uplinks in a slot, `report` the counts of each tenth of a second. Returns
/// the impairments that were found.
fn judged(
    seconds: u64,
    senders: impl Fn(u64) -> Vec<SenderUplink>,
    report: impl Fn(u64, u32) -> FlowCounts,
) -> Vec<Impairment> {
    let (mut path, own, mut found) = (SessionPath::default(), OwnFaults::default(), Vec::new());
    let mut uplinks = RoomUplinks::default();
    for slot in 1..=seconds {
        path.begin_slot(slot);
        path.note_frames(SLOT, false);
        for sender in senders(slot - 1) {
            uplinks.note(slot - 1, sender);
        }
        found.extend(path.judge(&PathContext {
            id: LISTENER,
            slot_length: SLOT,
            senders: uplinks.heard_by(LISTENER, slot),
            probes: None,
            own: own.lately(slot),
            is_call: true,
        }));
        for tenth in 0..10 {
            path.add(&report(slot, tenth));
        }
    }
    found
}

/// Plays a call of `seconds` with unknown senders. Returns the signs that were found.
fn signs(seconds: u64, report: impl Fn(u64, u32) -> FlowCounts) -> Vec<ImpairmentSign> {
    let found = judged(seconds, |_| Vec::new(), report);
    found.iter().map(|impairment| impairment.sign).collect()
}

/// Three senders of voice in a slot, the first with this loss and jitter.
fn three_senders(lost: u32, jitter_us: u32) -> Vec<SenderUplink> {
    let sender = |session, lost, jitter_us| {
        let loss = LossShare { lost, of: 50 };
        SenderUplink { session, loss, jitter_us }
    };
    vec![sender(SENDER, lost, jitter_us), sender(SessionId(3), 0, 0), sender(SessionId(4), 0, 0)]
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

#[test]
fn loss_of_one_of_three_senders_is_no_downlink() {
    let loses = |slot: u64| (5..=10).contains(&slot);
    let senders = |slot| three_senders(if loses(slot) { 5 } else { 0 }, 0);
    let found = judged(20, senders, |slot, tenth| {
        let lost = u32::from(loses(slot) && tenth.is_multiple_of(2));
        // Receiver reports are late.
        let client_ppm = if (5..=14).contains(&slot) { 100_000 } else { 0 };
        FlowCounts {
            received: [15 - lost, 0],
            expected: 15,
            lost,
            client_ppm: (tenth == 9).then_some(client_ppm),
            ..FlowCounts::default()
        }
    });
    let mut places: Vec<_> = found.iter().map(|it| (it.segment, it.at)).collect();
    places.dedup();
    assert_eq!(places, [(PathSegment::Uplink, SENDER)]);
}

#[test]
fn late_report_of_senders_jitter_is_no_downlink() {
    let senders = |slot: u64| three_senders(0, if (5..=10).contains(&slot) { 50_000 } else { 0 });
    let found = judged(20, senders, |slot, tenth| {
        let client_us = if (5..=13).contains(&slot) { 50_000 } else { 0 };
        FlowCounts {
            // That of another sender.
            jitter_us: Some(0),
            client_jitter_us: (tenth == 9).then_some(client_us),
            ..FlowCounts::default()
        }
    });
    let places: Vec<_> = found.iter().map(|it| (it.segment, it.at)).collect();
    assert_eq!(places, []);
}

#[test]
fn step_of_clock_is_no_jitter() {
    for step_ms in [3_000_u32, 5_000, 9_000] {
        for phase in 0..20 {
            let found = signs(12, |slot, tenth| {
                let now_ms = slot * 1_000 + u64::from(tenth) * 100;
                // Voice of 20 ms forgets a sixteenth of its jitter per packet (RFC 3550, 6.4.1).
                let jitter_us = now_ms.checked_sub(5_000 + phase * 50).map_or(0.0, |since_ms| {
                    f64::from(step_ms * 1_000 / 16) * (15.0_f64 / 16.0).powf(since_ms as f64 / 20.0)
                });
                let jitter_us = Some(jitter_us as u32);
                FlowCounts { jitter_up_us: jitter_us, jitter_us, ..FlowCounts::default() }
            });
            assert_eq!(found, [], "{step_ms} ms, {} ms after a second began", phase * 50);
        }
    }
}
