//! State of a session, a room or the policy: a few bytes that the gateway sends with the question.

use std::time::Duration;

/// The state of a session, a room or the policy. Derive this trait, with `#[state(schema = 1)]`.
///
/// The encoding uses as few bytes as the fields need (at most 4 KiB for a session or room, 64 KiB for a memo). When the
/// fields change, keep the older type, increment the number, name the older type with `from`, and write a conversion:
///
/// ```
/// # use evenkeel_plugin_sdk::prelude::*;
/// #[derive(State)]
/// #[state(schema = 1)]
/// struct First {
///     ticks: u8,
/// }
///
/// #[derive(State)]
/// #[state(schema = 2, from = First)]
/// struct Memory {
///     ticks: u32,
///     since: Duration,
/// }
///
/// impl From<First> for Memory {
///     fn from(older: First) -> Memory {
///         Memory { ticks: older.ticks.into(), since: Duration::ZERO }
///     }
/// }
/// ```
///
/// The older type may also have `from`, so that each step is written once. State and memo share their number: if one of
/// them is unchanged, write `#[state(schema = 2, unchanged_since = 1)]`. Instead of `from`, `migrate = FUNCTION` names
/// a `fn(schema: u32, bytes: &[u8]) -> Option<Self>` that reads the bytes. The gateway refuses a revision that cannot
/// read its predecessor's states.
pub trait State: Pack + 'static {
    /// Number of the schema. Increment it whenever the fields change; 0 means no state.
    const SCHEMA: u32;

    /// Reads a state of an older revision. Returns `None` if the schema is unknown or the bytes are invalid.
    fn migrate(schema: u32, bytes: &[u8]) -> Option<Self> {
        if schema == Self::SCHEMA { unpack(bytes) } else { None }
    }
}

/// No state.
impl State for () {
    const SCHEMA: u32 = 0;

    /// Discards a state of an older revision.
    fn migrate(_: u32, _: &[u8]) -> Option<Self> {
        Some(())
    }
}

/// A value with a compact encoding. Integers use as few bytes as they need; lists start with their length.
///
/// Derive it for the parts of a [`State`].
pub trait Pack: Sized {
    /// Returns the value in a new state.
    fn fresh() -> Self;

    /// Appends the value to `out`.
    fn pack(&self, out: &mut Vec<u8>);

    /// Reads the value from the front of `bytes`. Returns `None` if they are invalid.
    fn unpack(bytes: &mut &[u8]) -> Option<Self>;
}

// A state is read field by field for every row of a batch. The readers are always inlined, which
// keeps the position in a register and saves a quarter of a tick's time.

/// Reads a value that takes all of `bytes`.
pub fn unpack<T: Pack>(mut bytes: &[u8]) -> Option<T> {
    let value = T::unpack(&mut bytes)?;
    bytes.is_empty().then_some(value)
}

/// Initial capacity in bytes: most states are no longer.
const USUAL_BYTES: usize = 64;

/// Encodes a value.
pub fn pack<T: Pack>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(USUAL_BYTES);
    value.pack(&mut out);
    out
}

/// Length of the longest integer: 64 bits, seven per byte.
const WHOLE_BYTES_MAX: usize = 10;

/// Appends LEB128: seven bits per byte, least significant first.
fn pack_whole(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline(always)]
fn unpack_whole(bytes: &mut &[u8]) -> Option<u64> {
    let (value, rest) = match bytes.split_first() {
        // Most numbers of a state are small.
        Some((&first, rest)) if first < 0x80 => (first.into(), rest),
        _ => unpack_long(bytes)?,
    };
    *bytes = rest;
    Some(value)
}

/// Reads an integer of any length. Returns it and the bytes after it.
#[inline(never)]
fn unpack_long(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().enumerate().take(WHOLE_BYTES_MAX) {
        let bits = u64::from(byte & 0x7f);
        value |= bits << (7 * at);
        if byte < 0x80 {
            // The last byte has room for a single bit.
            let fits = at + 1 < WHOLE_BYTES_MAX || bits <= 1;
            return fits.then_some((value, &bytes[at + 1..]));
        }
    }
    None
}

#[inline(always)]
fn take_byte(bytes: &mut &[u8]) -> Option<u8> {
    let (&first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(first)
}

macro_rules! whole {
    ($($type:ty)*) => {$(
        impl Pack for $type {
            fn fresh() -> Self {
                0
            }

            fn pack(&self, out: &mut Vec<u8>) {
                pack_whole(u64::from(*self), out);
            }

            #[inline(always)]
            fn unpack(bytes: &mut &[u8]) -> Option<Self> {
                unpack_whole(bytes)?.try_into().ok()
            }
        }
    )*};
}

whole!(u8 u16 u32 u64);

/// Zigzag encoding, which keeps small numbers of either sign short.
impl Pack for i64 {
    fn fresh() -> Self {
        0
    }

    fn pack(&self, out: &mut Vec<u8>) {
        pack_whole(((self << 1) ^ (self >> 63)) as u64, out);
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        let folded = unpack_whole(bytes)?;
        Some((folded >> 1) as i64 ^ -((folded & 1) as i64))
    }
}

impl Pack for i32 {
    fn fresh() -> Self {
        0
    }

    fn pack(&self, out: &mut Vec<u8>) {
        i64::from(*self).pack(out);
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        i64::unpack(bytes)?.try_into().ok()
    }
}

impl Pack for f64 {
    fn fresh() -> Self {
        0.0
    }

    fn pack(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        let (first, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(f64::from_le_bytes(*first))
    }
}

impl Pack for bool {
    fn fresh() -> Self {
        false
    }

    fn pack(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    #[inline(always)]
    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        match take_byte(bytes)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

/// Encoded in whole milliseconds.
impl Pack for Duration {
    fn fresh() -> Self {
        Duration::ZERO
    }

    fn pack(&self, out: &mut Vec<u8>) {
        pack_whole(self.as_millis() as u64, out);
    }

    #[inline(always)]
    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        let millis = unpack_whole(bytes)?;
        // WebAssembly has no 128-bit product, which compilers use to divide 64 bits by a constant;
        // dividing 32 bits (49 days) needs none.
        Some(match u32::try_from(millis) {
            Ok(millis) => Duration::new((millis / 1_000).into(), millis % 1_000 * NANOS_PER_MILLI),
            Err(_) => Duration::from_millis(millis),
        })
    }
}

const NANOS_PER_MILLI: u32 = 1_000_000;

impl Pack for String {
    fn fresh() -> Self {
        String::new()
    }

    fn pack(&self, out: &mut Vec<u8>) {
        pack_whole(self.len() as u64, out);
        out.extend_from_slice(self.as_bytes());
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        let length = usize::try_from(unpack_whole(bytes)?).ok()?;
        let (text, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}

impl<T: Pack> Pack for Option<T> {
    fn fresh() -> Self {
        None
    }

    fn pack(&self, out: &mut Vec<u8>) {
        self.is_some().pack(out);
        if let Some(value) = self {
            value.pack(out);
        }
    }

    #[inline(always)]
    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        if bool::unpack(bytes)? { T::unpack(bytes).map(Some) } else { Some(None) }
    }
}

impl<T: Pack> Pack for Vec<T> {
    fn fresh() -> Self {
        Vec::new()
    }

    fn pack(&self, out: &mut Vec<u8>) {
        pack_whole(self.len() as u64, out);
        for item in self {
            item.pack(out);
        }
    }

    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        let length = unpack_whole(bytes)?;
        // Capacity is not reserved ahead, because the length is untrusted.
        (0..length).map(|_| T::unpack(bytes)).collect()
    }
}

impl Pack for () {
    fn fresh() -> Self {}

    fn pack(&self, _: &mut Vec<u8>) {}

    fn unpack(_: &mut &[u8]) -> Option<Self> {
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same<T: Pack + PartialEq + std::fmt::Debug>(value: &T, bytes: usize) {
        let packed = pack(value);
        assert_eq!(packed.len(), bytes, "{value:?}");
        assert_eq!(unpack(&packed).as_ref(), Some(value));
        for cut in 0..packed.len() {
            assert_eq!(unpack::<T>(&packed[..cut]), None, "{value:?} cut to {cut} bytes");
        }
    }

    #[test]
    fn values_round_trip_in_few_bytes() {
        same(&0_u8, 1);
        same(&127_u32, 1);
        same(&128_u32, 2);
        same(&u64::MAX, 10);
        same(&-1_i64, 1);
        same(&i64::MIN, 10);
        same(&i32::MIN, 5);
        same(&true, 1);
        same(&0.25, 8);
        same(&Duration::from_millis(100), 1);
        same(&Duration::from_millis(1_999), 2);
        same(&Duration::from_millis(u32::MAX.into()), 5);
        same(&Duration::from_millis(u64::from(u32::MAX) + 1), 5);
        same(&Duration::from_millis(u64::MAX), 10);
        same(&"é".to_owned(), 3);
        same(&Some(300_u16), 3);
        same(&None::<u16>, 1);
        same(&vec![1_u8, 2, 3], 4);
    }

    #[test]
    fn invalid_bytes_are_refused() {
        assert_eq!(unpack::<u8>(&[0x80, 0x02]), None, "256");
        assert_eq!(unpack::<bool>(&[2]), None);
        assert_eq!(unpack::<u8>(&[1, 1]), None, "one byte too many");
        assert_eq!(unpack::<u64>(&[0xff; 11]), None);
        assert_eq!(unpack::<u64>(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), None);
        assert_eq!(unpack::<String>(&[1, 0xff]), None, "not UTF-8");
        assert_eq!(unpack::<Vec<u8>>(&[0xff, 0xff, 0xff, 0x7f]), None, "a wrong length");
    }
}
