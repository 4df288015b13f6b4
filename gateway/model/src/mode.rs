//! Survival modes of sessions.

use serde::{Deserialize, Serialize};

/// The way in which sessions survive the death of a node. A scenario sets it, and it may change while packets flow.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[repr(u8)]
pub enum RedundancyMode {
    /// Two hops carry all packets and the first copy wins (RFC 7198; SMPTE ST 2022-7). The loss of either hop loses no
    /// packet.
    Hitless = 0,
    /// Sessions are open at the spares in advance, and the next packet goes there. Standby nodes take no first hop
    /// while other nodes can.
    #[default]
    Hot,
    /// All nodes carry rooms. Spares are in other zones of the same region while any are available.
    ActiveActive,
    /// No spare is opened. A node is started after a death, and sessions are held until a node takes them.
    Cold,
    /// Spares are nodes of the next regions in the scenario's order, and are opened when the room moves there.
    Regional,
}

impl RedundancyMode {
    /// All modes, in the order of their counters.
    pub const ALL: [RedundancyMode; 5] = [
        RedundancyMode::Hitless,
        RedundancyMode::Hot,
        RedundancyMode::ActiveActive,
        RedundancyMode::Cold,
        RedundancyMode::Regional,
    ];

    /// The mode's name in configuration, metrics and records: `active-active`.
    pub fn name(self) -> &'static str {
        match self {
            RedundancyMode::Hitless => "hitless",
            RedundancyMode::Hot => "hot",
            RedundancyMode::ActiveActive => "active-active",
            RedundancyMode::Cold => "cold",
            RedundancyMode::Regional => "regional",
        }
    }

    /// Sessions are opened at the spares before packets need them, and capacity is reserved there. In other modes
    /// spares are gated, and opened when the core moves the room there.
    pub fn opens_ahead(self) -> bool {
        match self {
            RedundancyMode::Hitless | RedundancyMode::Hot | RedundancyMode::ActiveActive => true,
            RedundancyMode::Cold | RedundancyMode::Regional => false,
        }
    }

    /// Standby nodes are avoided while other nodes can take the room.
    pub fn leaves_standbys(self) -> bool {
        matches!(self, RedundancyMode::Hitless | RedundancyMode::Hot)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Affinity {
    /// The sessions of a room are on one node and move together.
    #[default]
    Room,
    /// Each session is placed alone because the nodes are meshed: one room at the nodes is one room per session here.
    Session,
}
