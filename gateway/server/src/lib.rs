//! The gateway process: assembles its crates, follows its configuration, and ends it.

mod capacity;
pub mod serve;
