//! Faults of a sender's device, which its packets show although none is lost.

use std::time::Duration;

use evenkeel_model::{FlowCounts, ImpairmentSign};

use crate::load::{FRAMES_MOVING, FRAMES_USUAL};
use crate::loss::{CERTAIN, EVERYDAY, certainty};

/// A device is named if it sends less than this share of its usual frames.
const FRAMES_LEFT: f32 = 1.0 / 3.0;

/// Part by which a slot changes the usual number of frames.
const FRAMES_WEIGHT: f32 = 0.125;

/// A key frame is late if it did not come this long after its request: a usual path and a device that keeps up need half of it.
pub(crate) const KEY_FRAME_LATE: Duration = Duration::from_secs(1);

/// Key frames are missing if none came although they were requested for this time: slow uplinks need a second for one.
const KEY_FRAME_WITHIN: Duration = Duration::from_secs(2);

/// Voice packets per second from which their silence is a fault: silence suppression (DTX) sends at most five.
const VOICE_MIN: f32 = 10.0;

/// Silent packets since the session began from which no sound is expected: 10 s of voice. A microphone that is muted later had
/// noise before.
const SILENT_MIN: u32 = 500;

/// Media of a device in one slot.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct DeviceCounts {
    frames: u32,
    voice: u32,
    silent_voice: u32,
    key_frame_missing_ms: u32,
}

impl DeviceCounts {
    pub(crate) fn add(&mut self, flow: &FlowCounts) {
        let add = |sum: &mut u32, more: u32| *sum = sum.saturating_add(more);
        add(&mut self.frames, flow.frames);
        add(&mut self.voice, flow.sent[0]);
        self.silent_voice = flow.silent_voice;
        self.key_frame_missing_ms = self.key_frame_missing_ms.max(flow.key_frame_missing_ms);
    }

    pub(crate) fn frames_per_second(&self, slot_length: Duration) -> f32 {
        self.frames as f32 / slot_length.as_secs_f32()
    }

    pub(crate) fn silent_packets(&self) -> Option<u32> {
        (self.silent_voice > 0).then_some(self.silent_voice)
    }

    pub(crate) fn key_frame_missing_ms(&self) -> Option<u32> {
        (self.key_frame_missing_ms > 0).then_some(self.key_frame_missing_ms)
    }

    fn is_silent(&self, slot_length: Duration) -> bool {
        self.silent_voice >= SILENT_MIN
            && self.voice as f32 >= VOICE_MIN * slot_length.as_secs_f32()
    }
}

/// The usual frame rate of a device.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct FrameRate {
    /// Video frames per second; 0 if they are limited, or before the first.
    usual: f32,
    /// The frames of the last slot were limited.
    was_limited: bool,
}

impl FrameRate {
    /// Takes the last two slots that ended, the newer one first. `adapts`: the device is not to blame for its frames.
    pub(crate) fn note(
        &mut self,
        [last, before]: [DeviceCounts; 2],
        slot_length: Duration,
        is_limited: bool,
        adapts: bool,
    ) {
        let frames = last.frames_per_second(slot_length);
        let was_limited = std::mem::replace(&mut self.was_limited, is_limited);
        if is_limited || frames == 0.0 {
            self.usual = 0.0;
        } else if self.usual == 0.0 {
            // A camera that starts, or loses its cap, within a slot fills only a part of it; the next slot shows its rate.
            let is_whole = before.frames > 0 && !was_limited;
            self.usual = if is_whole { frames } else { 0.0 };
        } else if adapts {
            self.usual += (frames - self.usual) * FRAMES_WEIGHT;
        }
    }

    /// The usual frames per second; 0 if they are unknown.
    pub(crate) fn usual(&self) -> f32 {
        self.usual
    }

    /// Frames per second of the last slot, and usually, if a fall would be noticed.
    pub(crate) fn evidence(&self, last: DeviceCounts, slot_length: Duration) -> Option<[u32; 2]> {
        let frames = last.frames_per_second(slot_length);
        (self.usual >= FRAMES_USUAL).then_some([frames as u32, self.usual as u32])
    }

    /// The certainty that the client sends less than half of its usual frames, if it sends less than a third.
    fn drop_certainty(&self, slots: [DeviceCounts; 2], slot_length: Duration) -> Option<f64> {
        let frames: u32 = slots.iter().map(|counts| counts.frames).sum();
        let seconds = slot_length.as_secs_f32() * slots.len() as f32;
        let usual = self.usual * seconds;
        let fell = slots.iter().all(|counts| counts.frames > 0)
            && self.usual >= FRAMES_USUAL
            && frames as f32 >= FRAMES_MOVING * seconds
            && (frames as f32) < usual * FRAMES_LEFT;
        let half = f64::from(usual) / 2.0;
        let certainty = certainty((half - f64::from(frames)) / half.sqrt());
        (fell && certainty >= CERTAIN).then_some(certainty)
    }
}

/// The fault of a device that loses no packets, with its certainty. `is_call`: the room has at most two sessions. In larger ones
/// people mute their microphones before they join.
pub(crate) fn device_fault(
    slots: [DeviceCounts; 2],
    rate: &FrameRate,
    slot_length: Duration,
    is_call: bool,
) -> Option<(ImpairmentSign, f64)> {
    let lacks_key_frame = |counts: &DeviceCounts| {
        let missing = Duration::from_millis(counts.key_frame_missing_ms.into());
        counts.frames > 0 && missing >= KEY_FRAME_WITHIN
    };
    if let Some(certainty) = rate.drop_certainty(slots, slot_length) {
        Some((ImpairmentSign::FewFrames, certainty))
    } else if lacks_key_frame(&slots[0]) {
        // A request may be lost as well.
        Some((ImpairmentSign::NoKeyFrame, 1.0 - EVERYDAY))
    } else if is_call && slots.iter().all(|counts| counts.is_silent(slot_length)) {
        Some((ImpairmentSign::Silence, 1.0 - EVERYDAY))
    } else {
        None
    }
}
