//! A trunk leg: many sessions' packets between the gateway and one node, one UDP datagram at a time.
//!
//! Media travels in [`Bundle`]s (first byte 0xE0): each packet behind its session's [`Tag`]. What
//! opens, keeps open and closes sessions travels in signed [`message`]s (first byte 0xE1).

use std::fmt;

mod bundle;
mod bundles;
pub mod message;

pub use bundle::{
    Bundle, ENTRY_OVERHEAD, Entries, EntriesMut, Malformed, OVERHEAD, entries, entries_mut,
};
pub use bundles::{BUNDLE_MAX, Bundles, SHARED_MAX};

/// Names a session on a trunk leg, the same both ways. Unguessable: who knows it may send.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

impl fmt::Debug for Tag {
    /// Shows the first two bytes only: enough to tell tags apart in a log, too little to use one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({:04x}…)", self.0 >> 48)
    }
}
