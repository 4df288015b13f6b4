//! Key frames in the payload of video packets.

/// Length of the size before each unit of an aggregation.
const SIZE_LEN: usize = 2;

/// Returns whether this packet begins a key frame, or carries the parameters before one. `None` if the codec is
/// unknown.
///
/// Codecs: VP8 (RFC 7741), VP9 (RFC 9628), H.264 (RFC 6184), H.265 (RFC 7798) and AV1 (AOM, RTP Payload Format for AV1).
pub fn begins_key_frame(codec: &str, payload: &[u8]) -> Option<bool> {
    let is = |name: &str| codec.eq_ignore_ascii_case(name);
    let begins = if is("vp8") {
        vp8(payload)
    } else if is("vp9") {
        // B: start of a frame; P: predicted from an earlier one.
        payload.first().map(|flags| flags & 0x48 == 0x08)
    } else if is("h264") {
        h264(payload)
    } else if is("h265") {
        h265(payload)
    } else if is("av1") {
        // N: first packet of a coded video sequence.
        payload.first().map(|flags| flags & 0x08 != 0)
    } else {
        return None;
    };
    // Too short for its own fields.
    Some(begins.unwrap_or(false))
}

fn vp8(payload: &[u8]) -> Option<bool> {
    let flags = *payload.first()?;
    // S: start of a partition; the first one has the frame's header.
    if flags & 0x10 == 0 || flags & 0x07 != 0 {
        return Some(false);
    }
    let mut header = 1;
    if flags & 0x80 != 0 {
        let extensions = *payload.get(1)?;
        header = 2;
        if extensions & 0x80 != 0 {
            header += if payload.get(header)? & 0x80 != 0 { 2 } else { 1 };
        }
        header += usize::from(extensions & 0x40 != 0) + usize::from(extensions & 0x30 != 0);
    }
    // The frame type: 0 is a key frame (RFC 6386, 9.1).
    Some(payload.get(header)? & 0x01 == 0)
}

fn h264(payload: &[u8]) -> Option<bool> {
    // A slice of an IDR picture, and a sequence parameter set.
    let is_key = |unit: u8| matches!(unit & 0x1f, 5 | 7);
    let first = *payload.first()?;
    match first & 0x1f {
        // STAP-A and FU-A.
        24 => Some(units(payload.get(1..)?).any(is_key)),
        28 => Some(is_key(*payload.get(1)?)),
        _ => Some(is_key(first)),
    }
}

fn h265(payload: &[u8]) -> Option<bool> {
    // Slices of IRAP pictures, video and sequence parameter sets.
    let is_key = |unit: u8| matches!(unit, 16..=21 | 32 | 33);
    let of_header = |byte: u8| is_key(byte >> 1 & 0x3f);
    let first = *payload.first()?;
    match first >> 1 & 0x3f {
        // Aggregation packet and fragmentation unit, behind a header of two bytes.
        48 => Some(units(payload.get(2..)?).any(of_header)),
        49 => Some(is_key(payload.get(2)? & 0x3f)),
        _ => Some(of_header(first)),
    }
}

/// The first byte of each unit of an aggregation: size (2), unit.
pub(crate) fn units(mut rest: &[u8]) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let (size, units) = rest.split_first_chunk::<SIZE_LEN>()?;
        let first = *units.first()?;
        rest = units.get(usize::from(u16::from_be_bytes(*size)).max(1)..).unwrap_or_default();
        Some(first)
    })
}

#[cfg(test)]
mod tests;
