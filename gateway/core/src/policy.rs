//! Questions to policies, the state kept of their answers, and the lifecycle of their revisions.

pub(crate) mod policies;
pub(crate) mod questions;
pub(crate) mod subjects;
