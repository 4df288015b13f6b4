//! Names of things, as the numbers that frames and the catalog speak of them by.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(
    /// One participant's media through the gateway, both directions.
    SessionId(u64), "s"
);
id!(
    /// Sessions that belong together; they are placed, and moved, as one.
    RoomId(u64), "r"
);
id!(
    /// A machine media is forwarded to.
    NodeId(u32), "n"
);
id!(
    /// A part of a region that fails by itself.
    ZoneId(u64), "zone-"
);
id!(
    /// Where nodes are: one or more zones.
    RegionId(u64), "region-"
);
