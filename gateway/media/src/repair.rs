//! Repairs of a lossy path.

pub mod choice;
pub mod red;
