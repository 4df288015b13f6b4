//! Tools that tests, bench and chaos share.

pub mod binary;
pub mod namespace;
pub mod report;
