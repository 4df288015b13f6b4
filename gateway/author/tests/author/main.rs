//! Plugin projects from the first template to the final tests.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod project;
mod recorded;
