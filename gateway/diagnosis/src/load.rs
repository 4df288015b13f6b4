//! Devices that cannot keep up with the video that they encode: they are asked for less.

/// Usual video frames per second from which a fall is noticed. Shared screens have fewer, and vary.
pub(crate) const FRAMES_USUAL: f32 = 15.0;

/// Frames per second from which a device is behind: a shared screen without changes, which may replace a camera, has one.
pub(crate) const FRAMES_MOVING: f32 = 2.0;

/// A device is behind below this share of its usual frames, and has caught up from the other one on.
const FRAMES_BEHIND: f32 = 2.0 / 3.0;
const FRAMES_BACK: f32 = 0.9;

/// Slots in which a device is behind before it is asked for less; fewer if a requested key frame is late, too.
const SLOTS_BEHIND: u8 = 3;
const SLOTS_BEHIND_WITHOUT_KEY_FRAME: u8 = 2;

/// Slots in which a device has caught up before it may send more. They double with each relief, up to this many times.
const SLOTS_BACK: u16 = 5;
const DOUBLINGS_MAX: u8 = 4;

/// After this many slots without effect the load was not the reason: a camera in the dark has fewer frames, too.
const SLOTS_WITHOUT_EFFECT: u16 = 30;

/// Media of a device in the slot that ended.
#[derive(Clone, Copy, Debug)]
pub struct DeviceSlot {
    /// Video frames per second, and usually.
    pub frames: f32,
    pub usual: f32,
    /// A requested key frame is late.
    pub lacks_key_frame: bool,
    /// The path of the session loses and delays nothing.
    pub is_network_fine: bool,
}

/// The load of a device over time.
#[derive(Clone, Copy, Default, Debug)]
pub struct DeviceLoad {
    state: LoadState,
    /// How often the device was asked for less and caught up.
    reliefs: u8,
}

#[derive(Clone, Copy, Default, Debug)]
enum LoadState {
    #[default]
    Usual,
    /// The device is behind for so many slots.
    Behind { usual: f32, slots: u8 },
    /// It is asked for less for so many slots, and has caught up in the last ones.
    Relieved { usual: f32, cap_kbps: u32, slots: u16, back: u16 },
}

impl DeviceLoad {
    /// The highest rate that the device is asked for; 0: it keeps up.
    pub fn cap_kbps(&self) -> u32 {
        match self.state {
            LoadState::Usual | LoadState::Behind { .. } => 0,
            LoadState::Relieved { cap_kbps, .. } => cap_kbps,
        }
    }

    /// Takes a slot that ended. `sent_kbps`: its rate, while nothing else limits it; the device is asked for two thirds of it, and for no less
    /// than the floor.
    pub fn judge(&mut self, slot: &DeviceSlot, sent_kbps: Option<u32>, floor_kbps: u32) {
        let sent_kbps = sent_kbps.filter(|_| slot.frames > 0.0);
        self.state = match (self.state, sent_kbps) {
            (_, None) => LoadState::Usual,
            (LoadState::Usual, Some(sent)) => {
                DeviceLoad::behind(slot, slot.usual, 1, sent, floor_kbps)
            }
            (LoadState::Behind { usual, slots }, Some(sent)) => {
                DeviceLoad::behind(slot, usual, slots + 1, sent, floor_kbps)
            }
            (LoadState::Relieved { usual, cap_kbps, slots, back }, Some(_)) => {
                let is_back = slot.frames >= usual * FRAMES_BACK;
                let back = if is_back { back + 1 } else { 0 };
                if back >= SLOTS_BACK << self.reliefs.min(DOUBLINGS_MAX) {
                    self.reliefs = self.reliefs.saturating_add(1);
                    LoadState::Usual
                } else if back == 0 && slots >= SLOTS_WITHOUT_EFFECT {
                    LoadState::Usual
                } else {
                    let slots = slots.saturating_add(1);
                    LoadState::Relieved { usual, cap_kbps, slots, back }
                }
            }
        };
    }

    fn behind(slot: &DeviceSlot, usual: f32, slots: u8, sent: u32, floor_kbps: u32) -> LoadState {
        let is_behind = slot.is_network_fine
            && usual >= FRAMES_USUAL
            && (FRAMES_MOVING..usual * FRAMES_BEHIND).contains(&slot.frames);
        let needed = match slot.lacks_key_frame {
            true => SLOTS_BEHIND_WITHOUT_KEY_FRAME,
            false => SLOTS_BEHIND,
        };
        let cap_kbps = (sent / 3 * 2).max(floor_kbps);
        if !is_behind || cap_kbps >= sent {
            LoadState::Usual
        } else if slots < needed {
            LoadState::Behind { usual, slots }
        } else {
            LoadState::Relieved { usual, cap_kbps, slots: 0, back: 0 }
        }
    }
}

#[cfg(test)]
mod tests;
