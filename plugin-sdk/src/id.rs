//! Typed numbers of frames and the catalog.

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
    /// A participant's media through the gateway, in both directions.
    SessionId(u64), "s"
);
id!(
    /// A group of sessions that are placed and moved together.
    RoomId(u64), "r"
);
id!(
    /// A media server.
    NodeId(u32), "n"
);
id!(
    /// A failure domain within a region.
    ZoneId(u64), "zone-"
);
id!(
    /// One or more zones with nodes.
    RegionId(u64), "region-"
);
