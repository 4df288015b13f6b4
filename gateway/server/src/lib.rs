//! The gateway process: assembles its crates, follows its configuration, and ends it.

#![deny(missing_docs)]

mod capacity;
pub mod serve;
