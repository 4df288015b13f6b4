//! Encoding of integers and byte strings; counts are checked when read.

/// Limit of bytes that one chunk may decode into. Rows in the file may share one state of 4 KiB, which is copied for
/// each row: 4,096 sessions with full states, in and out, are 32 MiB, and a chunk has few such calls.
const DECODED_BYTES_MAX: usize = 256 << 20;

/// A well-formed frame with invalid content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidFrame {
    /// The part being read: `question`.
    pub(crate) part: &'static str,
    pub(crate) found: Box<str>,
}

impl std::fmt::Display for InvalidFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.part, self.found)
    }
}

impl std::error::Error for InvalidFrame {}

pub(crate) fn malformed(part: &'static str, found: impl Into<Box<str>>) -> InvalidFrame {
    InvalidFrame { part, found: found.into() }
}

/// Appends an unsigned number as LEB128.
pub(crate) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a signed number, zigzag-encoded.
pub(crate) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, ((number << 1) ^ (number >> 63)) as u64);
}

/// Appends a length and the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) struct FrameInput<'a> {
    rest: &'a [u8],
    decoded: usize,
}

impl<'a> FrameInput<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> FrameInput<'a> {
        FrameInput { rest: bytes, decoded: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn byte(&mut self, part: &'static str) -> Result<u8, InvalidFrame> {
        let (&byte, rest) =
            self.rest.split_first().ok_or_else(|| malformed(part, "unexpected end"))?;
        self.rest = rest;
        Ok(byte)
    }

    pub(crate) fn number(&mut self, part: &'static str) -> Result<u64, InvalidFrame> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(part)?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(malformed(part, "number exceeds 64 bits"))
    }

    pub(crate) fn small(&mut self, part: &'static str) -> Result<u32, InvalidFrame> {
        let number = self.number(part)?;
        u32::try_from(number).map_err(|_| malformed(part, format!("{number} exceeds 32 bits")))
    }

    pub(crate) fn signed(&mut self, part: &'static str) -> Result<i64, InvalidFrame> {
        let number = self.number(part)?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    pub(crate) fn fixed<const N: usize>(
        &mut self,
        part: &'static str,
    ) -> Result<[u8; N], InvalidFrame> {
        let (bytes, rest) =
            self.rest.split_first_chunk().ok_or_else(|| malformed(part, "unexpected end"))?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// Reads a count of items with at least one byte each.
    pub(crate) fn count(&mut self, part: &'static str) -> Result<usize, InvalidFrame> {
        let count = self.number(part)?;
        match usize::try_from(count) {
            Ok(count) if count <= self.rest.len() => Ok(count),
            _ => Err(malformed(part, format!("{count} items in {} bytes", self.rest.len()))),
        }
    }

    pub(crate) fn bytes(&mut self, part: &'static str) -> Result<&'a [u8], InvalidFrame> {
        let count = self.count(part)?;
        let (bytes, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(bytes)
    }

    pub(crate) fn text(&mut self, part: &'static str) -> Result<&'a str, InvalidFrame> {
        let bytes = self.bytes(part)?;
        std::str::from_utf8(bytes).map_err(|_| malformed(part, "invalid UTF-8"))
    }

    /// Charges memory before its allocation: one stored state may be copied many times.
    pub(crate) fn charge(&mut self, part: &'static str, bytes: usize) -> Result<(), InvalidFrame> {
        self.decoded = self.decoded.saturating_add(bytes);
        if self.decoded > DECODED_BYTES_MAX {
            let found = format!("more than {DECODED_BYTES_MAX} bytes when decoded");
            return Err(malformed(part, found));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
