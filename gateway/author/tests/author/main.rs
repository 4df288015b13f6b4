//! Plugin projects from the first template to the final tests.

mod project;
mod recorded;
