//! Drives the house from outside, or a crate through its front door.
