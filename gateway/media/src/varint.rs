//! Variable-length integers of QUIC (RFC 9000, section 16).

/// The largest value: 2^62 - 1.
pub(crate) const MAX: u64 = (1 << 62) - 1;

/// A value above `MAX` has no encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TooLarge(pub u64);

/// Returns the encoded size of `value`: 1, 2, 4 or 8; `None` above `MAX`.
pub(crate) fn size(value: u64) -> Option<usize> {
    match value {
        0..=0x3f => Some(1),
        0x40..=0x3fff => Some(2),
        0x4000..=0x3fff_ffff => Some(4),
        0x4000_0000..=MAX => Some(8),
        _ => None,
    }
}

/// Appends the shortest encoding of `value` to `out` and returns its size.
///
/// # Errors
/// Fails above `MAX`; then nothing is written.
pub(crate) fn write(value: u64, out: &mut Vec<u8>) -> Result<usize, TooLarge> {
    let size = size(value).ok_or(TooLarge(value))?;
    let length_bits = u64::from(size.trailing_zeros()) << (8 * size - 2);
    out.extend_from_slice(&(value | length_bits).to_be_bytes()[8 - size..]);
    Ok(size)
}

/// Reads a value from the start of `bytes` and returns its size.
///
/// Encodings longer than needed are valid. Returns `None` if more bytes are needed.
pub(crate) fn read(bytes: &[u8]) -> Option<(u64, usize)> {
    let size = 1 << (bytes.first()? >> 6);
    let mut value = [0; 8];
    value[8 - size..].copy_from_slice(bytes.get(..size)?);
    let length_bits = 0b11 << (8 * size - 2);
    Some((u64::from_be_bytes(value) & !length_bits, size))
}

#[cfg(test)]
mod tests;
