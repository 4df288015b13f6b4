//! Which frames of a video stream may be dropped: those to which no other frame refers, and those of the higher temporal layers.
//!
//! Read from VP8 (RFC 7741), VP9 (RFC 9628) and H.264 (RFC 6184), and for [`av1`] from a header extension.

pub mod av1;

use crate::key_frame::units;

/// The references of other frames to the frame of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameLink {
    /// The stream has temporal layers. Frames of a layer refer to those of the same layer and of lower ones only.
    Layer {
        /// The number of the frame's layer; 0 is the base layer.
        number: u8,
        joins: LayerJoin,
    },
    /// No other frame refers to this one.
    Discardable,
    /// Other frames may refer to this one.
    Reference,
}

/// The frames that a receiver without the earlier frames of higher layers can decode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LayerJoin {
    /// None: this frame and later ones may refer to them.
    No,
    /// This frame, which refers to the base layer alone.
    Own,
    /// All later frames, which refer to no frame of a higher layer before this one.
    Above,
}

impl FrameLink {
    /// Reads the payload of a packet. `None` if the payloads of the codec are not read, or this one says nothing about its frame.
    pub fn read(codec: &str, payload: &[u8]) -> Option<FrameLink> {
        let is = |name: &str| codec.eq_ignore_ascii_case(name);
        if is("vp8") {
            Vp8::read(payload).map(|descriptor| descriptor.link)
        } else if is("vp9") {
            vp9(payload)
        } else if is("h264") {
            h264(payload)
        } else {
            None
        }
    }
}

/// The payload descriptor of VP8 (RFC 7741, section 4.2).
struct Vp8 {
    link: FrameLink,
    /// The place of the picture number: 15 bits if the first bit there is set, else 7.
    picture: Option<usize>,
}

impl Vp8 {
    fn read(payload: &[u8]) -> Option<Vp8> {
        let flags = *payload.first()?;
        let is_discardable = flags & 0x20 != 0;
        let (mut place, mut picture, mut layer) = (1, None, None);
        if flags & 0x80 != 0 {
            let extensions = *payload.get(1)?;
            place = 2;
            if extensions & 0x80 != 0 {
                picture = Some(place);
                place += if payload.get(place)? & 0x80 != 0 { 2 } else { 1 };
            }
            place += usize::from(extensions & 0x40 != 0);
            if extensions & 0x30 != 0 {
                let layers = *payload.get(place)?;
                layer = (extensions & 0x20 != 0).then_some(layers);
                place += 1;
            }
        }
        // The first packet of a frame has the frame's header, in which 0 is a key frame (RFC 6386, section 9.1).
        let is_first = flags & 0x10 != 0 && flags & 0x07 == 0;
        let is_key = payload.get(place)? & 0x01 == 0 && is_first;
        let link = match layer.map(|byte| (byte >> 6, byte & 0x20 != 0)) {
            Some((0, _)) if is_key => FrameLink::Layer { number: 0, joins: LayerJoin::Above },
            Some((number, true)) if number > 0 => {
                FrameLink::Layer { number, joins: LayerJoin::Own }
            }
            Some((number, _)) => FrameLink::Layer { number, joins: LayerJoin::No },
            None if is_discardable => FrameLink::Discardable,
            None => FrameLink::Reference,
        };
        Some(Vp8 { link, picture })
    }
}

/// Lowers the picture number in a payload of VP8 by the number of pictures that were dropped before it: receivers take a gap in the
/// numbers for a picture that is still to come. A payload without one remains.
pub fn lower_picture_number(payload: &mut [u8], dropped: u16) {
    let picture = Vp8::read(payload).and_then(|descriptor| descriptor.picture);
    match picture.and_then(|place| payload.get_mut(place..)) {
        Some([high, low, ..]) if *high & 0x80 != 0 => {
            let number = u16::from_be_bytes([*high, *low]).wrapping_sub(dropped);
            [*high, *low] = (number | 0x8000).to_be_bytes();
        }
        Some([number, ..]) => *number = number.wrapping_sub(dropped as u8) & 0x7f,
        Some([]) | None => {}
    }
}

/// The payload descriptor of VP9 (RFC 9628, section 4.2).
fn vp9(payload: &[u8]) -> Option<FrameLink> {
    let flags = *payload.first()?;
    let mut place = 1;
    if flags & 0x80 != 0 {
        place += if payload.get(place)? & 0x80 != 0 { 2 } else { 1 };
    }
    // Without layer indices nothing tells which pictures are referred to.
    if flags & 0x20 == 0 {
        return Some(FrameLink::Reference);
    }
    let layers = *payload.get(place)?;
    let number = layers >> 5;
    let (is_predicted, is_switching_point) = (flags & 0x40 != 0, layers & 0x10 != 0);
    let joins = match number {
        _ if is_switching_point => LayerJoin::Above,
        0 if !is_predicted => LayerJoin::Above,
        _ if !is_predicted => LayerJoin::Own,
        _ => LayerJoin::No,
    };
    Some(FrameLink::Layer { number, joins })
}

fn h264(payload: &[u8]) -> Option<FrameLink> {
    let first = *payload.first()?;
    match first & 0x1f {
        24 => {
            let links = units(payload.get(1..)?).map(unit);
            links.fold(None, |all, link| match (all, link) {
                (Some(FrameLink::Reference), _) | (_, None) => all,
                (_, link) => link,
            })
        }
        // The indicator of a fragment has the reference number of its unit, the next byte the type.
        28 | 29 => unit(first & 0x60 | payload.get(1)? & 0x1f),
        _ => unit(first),
    }
}

/// A unit of H.264 by its first byte (ITU-T H.264, section 7.3.1).
fn unit(header: u8) -> Option<FrameLink> {
    match (header & 0x60, header & 0x1f) {
        // Parts of a picture to which none refers. Other units without a reference number say nothing about their picture.
        (0, 1..=4) => Some(FrameLink::Discardable),
        (0, _) => None,
        (_, _) => Some(FrameLink::Reference),
    }
}

#[cfg(test)]
mod tests;
