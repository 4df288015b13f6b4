//! Numeric ids, each unique on this gateway for the life of the process, and enums whose variants are words.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug,
        )]
        pub struct $name(pub $inner);

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
    /// One participant's media through the gateway, in both directions.
    SessionId(u64), "s"
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
