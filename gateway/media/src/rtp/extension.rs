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

/// The longest element of the one-byte form.
const ONE_BYTE_DATA_MAX: usize = 16;

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

    /// Returns the length of an element before its data.
    fn head_len(self) -> usize {
        match self {
            ElementForm::OneByte => 1,
            ElementForm::TwoByte => 2,
        }
    }

    /// Returns whether an element can have this form.
    fn admits(self, element: &NewElement<'_>) -> bool {
        match self {
            ElementForm::OneByte => {
                (1..=ONE_BYTE_ID_MAX).contains(&element.id)
                    && (1..=ONE_BYTE_DATA_MAX).contains(&element.data.len())
            }
            ElementForm::TwoByte => element.id > 0 && u8::try_from(element.data.len()).is_ok(),
        }
    }
}

/// An element to insert.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewElement<'a> {
    pub(crate) id: u8,
    pub(crate) data: &'a [u8],
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
    let data = value.to_be_bytes();
    let own = elements(packet, header).and_then(|(form, elements)| form.find(elements, id));
    if let Some(place) = own.filter(|place| place.data.len() == data.len()) {
        let start = extension_at(packet) + PREFIX_LEN;
        out.clear();
        out.extend_from_slice(packet);
        out[start + place.data.start..start + place.data.end].copy_from_slice(&data);
        return true;
    }
    insert(packet, header, &[NewElement { id, data: &data }], out)
}

/// Replaces `out` by the packet with this header and new elements before the others, padded to a word. Returns false if the packet's header
/// extension cannot have them. `out` is the packet then.
pub(crate) fn insert(
    packet: &[u8],
    header: &RtpHeader,
    new: &[NewElement<'_>],
    out: &mut Vec<u8>,
) -> bool {
    out.clear();
    out.extend_from_slice(packet);
    let at = extension_at(packet);
    let is_absent = header.payload_offset <= at;
    let present = elements(packet, header);
    let form = match present {
        Some((form, _)) => form,
        None if !is_absent => return false,
        None if new.iter().all(|element| ElementForm::OneByte.admits(element)) => {
            ElementForm::OneByte
        }
        None => ElementForm::TwoByte,
    };
    if !new.iter().all(|element| form.admits(element)) {
        return false;
    }
    let added: usize = new.iter().map(|element| form.head_len() + element.data.len()).sum();
    let added = added.next_multiple_of(4);
    let words = (present.map_or(0, |(_, elements)| elements.len()) + added) / 4;
    let Ok(words) = u16::try_from(words) else { return false };
    if is_absent {
        out[0] |= EXTENSION;
        out.splice(at..at, [0; PREFIX_LEN]);
        out[at..at + 2].copy_from_slice(&form.profile().to_be_bytes());
    }
    out[at + 2..at + PREFIX_LEN].copy_from_slice(&words.to_be_bytes());
    let mut place = at + PREFIX_LEN;
    out.splice(place..place, std::iter::repeat_n(0, added));
    for element in new {
        // Checked by `admits`.
        let length = element.data.len() as u8;
        match form {
            ElementForm::OneByte => out[place] = element.id << 4 | length.wrapping_sub(1),
            ElementForm::TwoByte => out[place..place + 2].copy_from_slice(&[element.id, length]),
        }
        place += form.head_len();
        out[place..place + element.data.len()].copy_from_slice(element.data);
        place += element.data.len();
    }
    true
}

/// Makes the elements with these ids padding.
pub(crate) fn clear(packet: &mut [u8], ids: &[u8]) {
    let Some((profile, elements)) = super::extension_mut(packet) else { return };
    let Some(form) = ElementForm::of(profile) else { return };
    let mut from = 0;
    while let Some(ElementPlace { id, start, data }) = form.next(elements, from) {
        if ids.contains(&id) {
            elements[start..data.end].fill(0);
        }
        from = data.end;
    }
}

#[cfg(test)]
mod tests;
