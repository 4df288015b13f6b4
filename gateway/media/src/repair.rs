//! Repairs of a lossy path.

pub mod red;
