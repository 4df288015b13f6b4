//! Faults of this gateway.

use std::time::Duration;

use crate::loss::LossShare;
use crate::reports::Slots;

/// Faults of this gateway, by slot.
#[derive(Default, Debug)]
pub struct OwnFaults {
    late: Slots<Duration>,
    dropped: Slots<u32>,
    packets: Slots<u32>,
    dropped_before: u64,
}

/// The worst fault of this gateway in the last slots.
#[derive(Clone, Copy, Debug)]
pub struct OwnFault {
    pub(crate) late: Duration,
    pub(crate) dropped: LossShare,
}

impl OwnFaults {
    /// The gateway did not read packets for this time.
    pub fn note_late(&mut self, slot: u64, late: Duration) {
        *self.late.at(slot) += late;
    }

    /// Takes the number of packets that the gateway has dropped by its own fault since it began.
    pub fn note_dropped(&mut self, slot: u64, dropped: u64) {
        let more = dropped.saturating_sub(std::mem::replace(&mut self.dropped_before, dropped));
        if more > 0 {
            *self.dropped.at(slot) += more as u32;
        }
    }

    /// Counts packets of sessions.
    pub fn note_packets(&mut self, slot: u64, packets: u32) {
        *self.packets.at(slot) += packets;
    }

    /// Forgets the faults, which are of slots of another length.
    pub fn reset(&mut self) {
        *self = OwnFaults { dropped_before: self.dropped_before, ..OwnFaults::default() };
    }

    /// The worst faults at the start of this slot.
    pub fn lately(&self, slot: u64) -> OwnFault {
        let late = (0..4).filter_map(|before| self.late.get(slot.checked_sub(before)?));
        // The packets of the current slot are not counted yet.
        let dropped = (1..4).filter_map(|before| {
            let slot = slot.checked_sub(before)?;
            let lost = *self.dropped.get(slot)?;
            Some(LossShare { lost, of: lost + self.packets.get(slot).copied().unwrap_or(0) })
        });
        OwnFault {
            late: late.max().copied().unwrap_or_default(),
            dropped: dropped.max_by_key(LossShare::ppm).unwrap_or_default(),
        }
    }
}
