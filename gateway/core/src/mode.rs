//! Survival modes of sessions.

/// How sessions survive the death of a node. A scenario's setting, which may change while packets flow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(u8)]
pub enum Mode {
    /// Two hops carry all packets, and the first copy wins (RFC 7198; SMPTE ST 2022-7). Nothing is lost with either.
    Hitless = 0,
    /// Sessions are open at the spares, where the next packet goes. Nodes that stand by take no first hop while others
    /// can.
    #[default]
    Hot,
    /// All nodes carry alike; spares are in other zones of the same region while there are any.
    ActiveActive,
    /// No spare is opened: a node is started when one died, and sessions are held until a node takes them.
    Cold,
    /// Spares are nodes of the next regions in the scenario's order, and opened when the room goes there.
    Regional,
}

impl Mode {
    /// All of them, by their place in counters.
    pub const ALL: [Mode; 5] =
        [Mode::Hitless, Mode::Hot, Mode::ActiveActive, Mode::Cold, Mode::Regional];

    /// The word in configuration, metrics and records: `active-active`.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Hitless => "hitless",
            Mode::Hot => "hot",
            Mode::ActiveActive => "active-active",
            Mode::Cold => "cold",
            Mode::Regional => "regional",
        }
    }

    /// Sessions are opened at the spares before packets need them, and capacity is kept there. Other modes gate
    /// spares, and open them when the core takes the room there.
    pub fn opens_ahead(self) -> bool {
        match self {
            Mode::Hitless | Mode::Hot | Mode::ActiveActive => true,
            Mode::Cold | Mode::Regional => false,
        }
    }

    /// Standby nodes are left alone while others can take the room.
    pub(crate) fn leaves_standbys(self) -> bool {
        matches!(self, Mode::Hitless | Mode::Hot)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Affinity {
    /// The sessions of a room: they stand on one node, and move together.
    #[default]
    Room,
    /// Each session by itself, since the nodes are meshed: one room at nodes, as many here as there are sessions.
    Session,
}
