//! Questions to policies, and what is kept of their answers.

mod notes;
mod parts;
mod questions;

pub(crate) use notes::{Noted, Subject};
pub use notes::{Quarantine, Said};
pub(crate) use parts::{Batch, Part, Parts};
pub(crate) use questions::{
    About, Asked, Beside, Questions, mismatched, reasons_given, turns_away, was_taken,
};
