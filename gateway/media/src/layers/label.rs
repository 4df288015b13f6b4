//! The header extensions by which a packet of layered video names its layer and, in rooms, its sender.
//!
//! Browsers name the layer until a report acknowledged its SSRC, so receivers that come later would not learn it. The gateway names it in each
//! packet of a sender to its node, together with a label of the sender as MID: the same pair of MID and RID tells encodings apart on one
//! transport of WebRTC (RFC 9143, section 9.2; RFC 8852). Nodes that know nothing of these extensions send them on.

use serde::{Deserialize, Serialize};

use crate::rtp::RtpHeader;
use crate::rtp::extension::{self, NewElement};

/// The ids of the header extensions in a room.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct LabelIds {
    /// Of the sender (RFC 9143).
    pub mid: u8,
    /// Of the layer (RFC 8852).
    pub rid: u8,
    /// Of the layer that a retransmission repairs (RFC 8852).
    pub repaired_rid: u8,
}

/// The names in a packet of layered video.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LayerLabel<'a> {
    /// The label of the sender.
    pub video: &'a [u8],
    /// The RID of the layer.
    pub layer: &'a [u8],
}

impl LabelIds {
    fn layer_id(&self, is_retransmission: bool) -> u8 {
        if is_retransmission { self.repaired_rid } else { self.rid }
    }

    /// Returns the RID in a packet.
    pub fn layer<'a>(
        &self,
        header: &RtpHeader,
        packet: &'a [u8],
        is_retransmission: bool,
    ) -> Option<&'a [u8]> {
        extension::element(packet, header, self.layer_id(is_retransmission))
    }

    /// Returns the names in a packet; `None` if it lacks one of them.
    pub fn read<'a>(
        &self,
        header: &RtpHeader,
        packet: &'a [u8],
        is_retransmission: bool,
    ) -> Option<LayerLabel<'a>> {
        let layer = self.layer(header, packet, is_retransmission)?;
        let video = extension::element(packet, header, self.mid)?;
        Some(LayerLabel { video, layer })
    }

    /// Replaces `out` by the packet with these names. Returns false if its header extension cannot have them; `out` is the packet then.
    pub fn write(
        &self,
        header: &RtpHeader,
        packet: &[u8],
        label: LayerLabel<'_>,
        is_retransmission: bool,
        out: &mut Vec<u8>,
    ) -> bool {
        let mid = NewElement { id: self.mid, data: label.video };
        let rid = NewElement { id: self.layer_id(is_retransmission), data: label.layer };
        let has_layer = self.layer(header, packet, is_retransmission).is_some();
        let new = [mid, rid];
        extension::insert(packet, header, if has_layer { &new[..1] } else { &new[..] }, out)
    }

    /// Removes the names from a packet, without a change of its length.
    pub fn clear(&self, packet: &mut [u8]) {
        extension::clear(packet, &[self.mid, self.rid, self.repaired_rid]);
    }
}

#[cfg(test)]
mod tests;
