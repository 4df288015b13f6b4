//! Numeric ids, each unique on this gateway for the life of the process, those of sessions over all gateways; and enums whose
//! variants are words.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug,
        )]
        pub struct $name(pub $inner);
    };
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        id!($(#[$doc])* $name($inner));

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

/// Conversions from and to the number.
macro_rules! number {
    ($name:ident) => {
        impl From<$name> for u64 {
            fn from(id: $name) -> u64 {
                id.0
            }
        }

        impl From<u64> for $name {
            fn from(number: u64) -> $name {
                $name(number)
            }
        }
    };
}

number!(SessionId);
number!(RoomId);

id!(
    /// One participant's media through the gateway, in both directions. The high bits are the group's, drawn at its start: another
    /// group, or a later start, draws the same ones with a probability of one in 500 million. It is below 2^63, as SDP's session ids are (RFC 9429,
    /// section 5.2.1).
    SessionId(u64)
);

id!(
    /// Sessions that belong together. They are placed and moved as one.
    RoomId(u64), "r"
);
id!(
    /// A machine that media is forwarded to. Its number is its cell on the [`Board`](crate::Board).
    NodeId(u32), "n"
);
id!(
    /// A region of one or more zones.
    RegionId(u32), "region-"
);
id!(
    /// A failure domain within a region.
    ZoneId(u32), "zone-"
);
id!(
    /// A node's life from coming Up to its next Down, as this gateway saw it. Counts from 1 and only grows.
    Incarnation(u32), "i"
);
id!(
    /// One question to a policy.
    AskId(u64), "ask-"
);
id!(
    /// One offer of the API, answered once.
    OfferId(u64), "offer-"
);

/// Bits of a session's number that count the sessions of its group: half a year of 1,000 sessions a second. Later ones take the next
/// number of a group, which another group has with a probability of one in 500 million.
const COUNT_BITS: u32 = 34;

/// Digits of the group's part of an id: Crockford's Base32, without letters that look like digits.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Digits of the group's 29 bits, 5 bits each.
const GROUP_DIGITS: u32 = 6;

impl SessionId {
    /// The first session of a group, from random bits.
    pub fn first_of_group(random: u64) -> SessionId {
        SessionId((random >> (COUNT_BITS + 1)).max(1) << COUNT_BITS | 1)
    }

    /// The number before all those of the session's group.
    pub fn group(self) -> SessionId {
        SessionId(self.0 >> COUNT_BITS << COUNT_BITS)
    }

    /// Reads an id. `None` for another spelling, such as `s017`.
    pub fn parse(text: &str) -> Option<SessionId> {
        let digits = text.strip_prefix('s')?;
        let (group, count) = digits.split_once('-').unwrap_or(("", digits));
        let place = |digit: u8| DIGITS.iter().position(|known| *known == digit);
        let group = group
            .bytes()
            .try_fold(0_u64, |group, digit| Some(group.checked_mul(32)? + place(digit)? as u64))?;
        let id = SessionId(group.checked_mul(1 << COUNT_BITS)?.checked_add(count.parse().ok()?)?);
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for SessionId {
    /// `s4k7mq2-17`: the group's part, unless it is 0, and the count.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (group, count) = (self.0 >> COUNT_BITS, self.0 & ((1 << COUNT_BITS) - 1));
        f.write_char('s')?;
        if group > 0 {
            for place in (0..GROUP_DIGITS).rev() {
                f.write_char(DIGITS[(group >> (5 * place) & 31) as usize].into())?;
            }
            f.write_char('-')?;
        }
        write!(f, "{count}")
    }
}

/// Defines an enum of words. `name` returns the word of a variant in metrics, records and the API; `ALL` lists the variants,
/// each at its number.
#[macro_export]
macro_rules! named {
    ($(#[$meta:meta])* $vis:vis enum $name:ident {
        $($(#[$doc:meta])* $variant:ident = $word:literal,)+
    }) => {
        $(#[$meta])*
        $vis enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// All variants; the number of each is its index.
            $vis const ALL: [$name; [$($word),+].len()] = [$($name::$variant),+];

            /// The word in metrics, records and the API.
            $vis fn name(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }
        }
    };
}

#[cfg(test)]
mod tests;
