//! A trunk leg: packets of many sessions between the gateway and one node over UDP.
//!
//! Media travels in [`Bundle`]s (first byte 0xE0, or 0xE4 with a number): each packet prefixed by its session's [`Tag`].
//! Signed [`message`]s (first byte 0xE1) open, renew and close sessions. [`TrunkRepair`] restores lost bundles (first bytes 0xE5 and
//! 0xE6). All may be encrypted ([`seal`], first byte 0xE3).

use serde::{Deserialize, Serialize};
use std::fmt;

mod ballot;
mod bundle;
mod bundles;
pub mod message;
mod repair;
pub mod seal;

pub use ballot::{Ballots, GroupOwner, Hold, OwnershipBallot, Vote, Voted};
pub use bundle::{
    Bundle, BundleEntries, BundleError, ENTRY_OVERHEAD, OVERHEAD, entries, first_tag, number,
};
pub use bundles::{Bundles, ReceivedDatagram, ReceivedPackets, SHARED_MAX};
pub use repair::{REPAIR_EXCESS, TrunkRepair};

/// Identifies a session on a trunk leg in both directions. A tag is a capability: its holder may
/// send, so it must be unguessable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tag(pub u64);

impl fmt::Debug for Tag {
    /// Shows only the first two bytes: they distinguish tags in a log, but are too few to use one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({:04x}…)", self.0 >> 48)
    }
}
