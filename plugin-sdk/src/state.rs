//! What a policy remembers of a session, a room or itself: a few bytes that travel with the question.

use std::time::Duration;

/// What a policy remembers: derive it, with `#[state(schema = 1)]`.
///
/// It is packed into as few bytes as its fields need (at most 4 KiB for a session or room, 64 KiB for a memo). When its
/// fields change, keep the older type, raise the number and say `from`, with the conversion between the two:
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
/// The older type may itself be `from` one before it, so that each step is written once. State and memo share their number:
/// where one of them stayed as it was, `#[state(schema = 2, unchanged_since = 1)]` says so. `migrate = FUNCTION` in the place of
/// `from` names a `fn(schema: u32, bytes: &[u8]) -> Option<Self>` that reads the bytes itself. A revision that cannot
/// read what its forerunner wrote is refused.
pub trait State: Pack + 'static {
    /// Raised whenever the fields change; 0 is for no state.
    const SCHEMA: u32;

    /// Reads what an older revision wrote. `None`: that schema is not known, or the bytes are not of it.
    fn migrate(schema: u32, bytes: &[u8]) -> Option<Self> {
        if schema == Self::SCHEMA { unpack(bytes) } else { None }
    }
}

/// Nothing is remembered.
impl State for () {
    const SCHEMA: u32 = 0;

    /// Whatever an older revision remembered is forgotten.
    fn migrate(_: u32, _: &[u8]) -> Option<Self> {
        Some(())
    }
}

/// A value with a compact form in bytes: whole numbers take as many as they need, lists begin with their length.
///
/// Derive it for what a [`State`] is made of.
pub trait Pack: Sized {
    /// What stands in a state that was never written.
    fn fresh() -> Self;

    /// Appends it to `out`.
    fn pack(&self, out: &mut Vec<u8>);

    /// Takes it from the front of `bytes`; `None` where they are not of this shape.
    fn unpack(bytes: &mut &[u8]) -> Option<Self>;
}

// A state is read field by field for every row of a batch. The readers are inlined, always: only together does the compiler
// keep the place in the bytes out of memory, which is a quarter of what a tick takes.

/// Reads a value from all of `bytes`.
pub fn unpack<T: Pack>(mut bytes: &[u8]) -> Option<T> {
    let value = T::unpack(&mut bytes)?;
    bytes.is_empty().then_some(value)
}

/// Most states have no more bytes than this; a longer one grows.
const USUAL_BYTES: usize = 64;

/// The bytes of a value.
pub fn pack<T: Pack>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(USUAL_BYTES);
    value.pack(&mut out);
    out
}

/// The longest whole number: 64 bits, seven to a byte.
const WHOLE_BYTES_MAX: usize = 10;

/// LEB128: seven bits a byte, least first.
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

/// A whole number of any length, and the bytes behind it.
#[inline(never)]
fn unpack_long(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().enumerate().take(WHOLE_BYTES_MAX) {
        let bits = u64::from(byte & 0x7f);
        value |= bits << (7 * at);
        if byte < 0x80 {
            // Of the last one there is room for a single bit.
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

/// Zigzag: small numbers of either sign stay short.
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

/// Whole milliseconds.
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
        // WebAssembly has no product of 128 bits, of which a compiler makes a division of 64 by a constant; of 32 bits, 49
        // days, it has.
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
        // Not reserved ahead: the length may be a lie.
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
    fn values_come_back_as_they_went_and_stay_short() {
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
    fn bytes_of_another_shape_are_refused() {
        assert_eq!(unpack::<u8>(&[0x80, 0x02]), None, "256");
        assert_eq!(unpack::<bool>(&[2]), None);
        assert_eq!(unpack::<u8>(&[1, 1]), None, "one byte too many");
        assert_eq!(unpack::<u64>(&[0xff; 11]), None);
        assert_eq!(unpack::<u64>(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), None);
        assert_eq!(unpack::<String>(&[1, 0xff]), None, "not UTF-8");
        assert_eq!(unpack::<Vec<u8>>(&[0xff, 0xff, 0xff, 0x7f]), None, "a length that is a lie");
    }
}
