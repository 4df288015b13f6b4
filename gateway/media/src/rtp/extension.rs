//! Elements in the header extension of RTP packets (RFC 8285): found, set and inserted.
//!
//! A header extension has the one-byte form, with ids up to 14, or the two-byte form, with ids up to 255. Receivers ignore other forms.

use std::ops::Range;

use super::{HEADER_LEN, RtpHeader};

/// The profile of the one-byte form (RFC 8285, section 4.2).
const ONE_BYTE_PROFILE: u16 = 0xbede;

/// The profile of the two-byte form, without the four bits of the application (RFC 8285, section 4.3).
const TWO_BYTE_PROFILE: u16 = 0x1000;

/// The highest id of the one-byte form: 15 is reserved (RFC 8285, section 4.2).
const ONE_BYTE_ID_MAX: u8 = 14;

/// Flag in the first byte: there is a header extension (RFC 3550, section 5.1).
const EXTENSION: u8 = 0x10;

/// Length of the profile and the length of a header extension (RFC 3550, section 5.3.1).
const PREFIX_LEN: usize = 4;

/// The form of the elements in a header extension.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ElementForm {
    /// RFC 8285, section 4.2.
    OneByte,
    /// RFC 8285, section 4.3.
    TwoByte,
}

/// The place of an element among the elements of a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ElementPlace {
    pub(crate) id: u8,
    /// Index of the byte with the id.
    pub(crate) start: usize,
    pub(crate) data: Range<usize>,
}

impl ElementForm {
    /// Returns the form of a header extension with this profile; `None` for another one.
    pub(crate) fn of(profile: u16) -> Option<ElementForm> {
        match profile {
            ONE_BYTE_PROFILE => Some(ElementForm::OneByte),
            _ if profile & 0xfff0 == TWO_BYTE_PROFILE => Some(ElementForm::TwoByte),
            _ => None,
        }
    }

    fn profile(self) -> u16 {
        match self {
            ElementForm::OneByte => ONE_BYTE_PROFILE,
            ElementForm::TwoByte => TWO_BYTE_PROFILE,
        }
    }

    /// Returns the first element at `from` or behind it. `None` if only padding follows, or an element after which receivers ignore the
    /// rest: a malformed one, or one with a reserved id.
    pub(crate) fn next(self, elements: &[u8], from: usize) -> Option<ElementPlace> {
        let padding = elements.get(from..)?.iter().take_while(|byte| **byte == 0).count();
        let start = from + padding;
        let first = *elements.get(start)?;
        let (id, data_at, length) = match self {
            ElementForm::OneByte => (first >> 4, start + 1, 1 + usize::from(first & 0x0f)),
            ElementForm::TwoByte => (first, start + 2, usize::from(*elements.get(start + 1)?)),
        };
        let is_reserved = self == ElementForm::OneByte && !(1..=ONE_BYTE_ID_MAX).contains(&id);
        let data = data_at..data_at + length;
        (!is_reserved && data.end <= elements.len()).then_some(ElementPlace { id, start, data })
    }

    fn find(self, elements: &[u8], id: u8) -> Option<ElementPlace> {
        let mut from = 0;
        loop {
            let place = self.next(elements, from)?;
            if place.id == id {
                return Some(place);
            }
            from = place.data.end;
        }
    }

    /// Returns an element with two bytes of data, padded to a word; `None` if the form has no such id.
    fn element_of_u16(self, id: u8, value: u16) -> Option<[u8; 4]> {
        let [high, low] = value.to_be_bytes();
        match self {
            ElementForm::OneByte if id > ONE_BYTE_ID_MAX => None,
            ElementForm::OneByte => Some([id << 4 | 1, high, low, 0]),
            ElementForm::TwoByte => Some([id, 2, high, low]),
        }
    }
}

/// Returns the index of the header extension, behind the CSRCs.
fn extension_at(packet: &[u8]) -> usize {
    HEADER_LEN + 4 * packet.first().map_or(0, |flags| usize::from(flags & 0x0f))
}

/// Returns form and elements of the packet with this header; `None` without a header extension, or if it has another form.
fn elements<'a>(packet: &'a [u8], header: &RtpHeader) -> Option<(ElementForm, &'a [u8])> {
    let extension = packet.get(extension_at(packet)..header.payload_offset)?;
    let ([p0, p1, _, _], elements) = extension.split_first_chunk()?;
    Some((ElementForm::of(u16::from_be_bytes([*p0, *p1]))?, elements))
}

/// Returns the data of the first element with this id in the packet with this header.
pub fn element<'a>(packet: &'a [u8], header: &RtpHeader, id: u8) -> Option<&'a [u8]> {
    let (form, elements) = elements(packet, header)?;
    elements.get(form.find(elements, id)?.data)
}

/// Replaces `out` by the packet with this header, in which the element with this id has this value: the packet's own element of two bytes
/// if there is one, or else a new one before the others, with at most eight bytes more. Returns false if the packet's
/// header extension cannot have the element: it has another form, or the one-byte form and the id is above 14. `out` is the packet then.
pub fn set_or_insert_u16(
    packet: &[u8],
    header: &RtpHeader,
    id: u8,
    value: u16,
    out: &mut Vec<u8>,
) -> bool {
    out.clear();
    out.extend_from_slice(packet);
    let at = extension_at(packet);
    if header.payload_offset <= at {
        let form = if id > ONE_BYTE_ID_MAX { ElementForm::TwoByte } else { ElementForm::OneByte };
        let Some(element) = form.element_of_u16(id, value) else { return false };
        let [p0, p1] = form.profile().to_be_bytes();
        let [e0, e1, e2, e3] = element;
        out.splice(at..at, [p0, p1, 0, 1, e0, e1, e2, e3]);
        out[0] |= EXTENSION;
        return true;
    }
    let Some((form, elements)) = elements(packet, header) else { return false };
    let (start, words) = (at + PREFIX_LEN, elements.len() / 4);
    if let Some(place) = form.find(elements, id).filter(|place| place.data.len() == 2) {
        let data = start + place.data.start..start + place.data.end;
        out[data].copy_from_slice(&value.to_be_bytes());
        return true;
    }
    let Some(element) = form.element_of_u16(id, value) else { return false };
    let Ok(words) = u16::try_from(words + 1) else { return false };
    out.splice(start..start, element);
    out[at + 2..start].copy_from_slice(&words.to_be_bytes());
    true
}

#[cfg(test)]
mod tests;
