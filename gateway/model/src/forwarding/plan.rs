//! The plan of a session: caps on its rate, and payload types that are withheld from it.

use serde::{Deserialize, Serialize};

use crate::{MediaDescription, Op, StreamKind};

/// The decision in force for one session.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct Plan {
    /// Cap on the session's rate in kbit/s; 0: none.
    pub cap_kbps: u32,
    /// The cap of the other session in a room of two, which also limits this session's sending; 0: none.
    pub peer_cap_kbps: u32,
    /// Payload types withheld from the session, as a bit set.
    pub shed: u128,
}

impl Plan {
    /// Packets of this payload type are not forwarded to the session.
    pub fn sheds(&self, payload_type: u8) -> bool {
        self.shed >> (payload_type & 0x7f) & 1 == 1
    }

    /// Cap on its sending rate, kbit/s: the lower of both caps; 0: none.
    pub fn send_cap_kbps(&self) -> u32 {
        match (self.cap_kbps, self.peer_cap_kbps) {
            (0, cap) | (cap, 0) => cap,
            (own, peer) => own.min(peer),
        }
    }

    /// Number of rungs down the ladder: a cap counts one, voice only another; 0 is undegraded.
    pub fn rung(&self) -> u8 {
        u8::from(self.cap_kbps > 0) + u8::from(self.shed != 0)
    }

    /// The plan after an action; `None` if the argument is out of bounds.
    ///
    /// A cap lies within `bounds` (kbit/s), or is 0 to lift it. Voice only is 1 or 0.
    #[must_use]
    pub fn after(
        &self,
        op: Op,
        arg: u64,
        media: &MediaDescription,
        bounds: CapBounds,
    ) -> Option<Plan> {
        match op {
            Op::Cap => {
                let cap_kbps = u32::try_from(arg).ok()?;
                let fits =
                    cap_kbps == 0 || (bounds.floor_kbps..=bounds.ceiling_kbps).contains(&cap_kbps);
                fits.then_some(Plan { cap_kbps, ..*self })
            }
            Op::VoiceOnly => match arg {
                0 => Some(Plan { shed: 0, ..*self }),
                1 => Some(Plan { shed: video_payload_types(media), ..*self }),
                _ => None,
            },
        }
    }
}

/// The limits within which a scenario lets policies cap its sessions.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct CapBounds {
    /// Lowest cap, kbit/s.
    pub floor_kbps: u32,
    /// Highest rate, kbit/s.
    pub ceiling_kbps: u32,
}

/// Every payload type of every video stream, as a bit set.
fn video_payload_types(media: &MediaDescription) -> u128 {
    media
        .streams
        .iter()
        .filter(|stream| stream.kind == StreamKind::Video)
        .flat_map(|stream| &stream.payload_types)
        .fold(0, |bits, payload| bits | 1 << (payload.number & 0x7f))
}
