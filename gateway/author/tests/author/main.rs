//! Plugin projects from the first template to the final tests.

mod c;
mod project;
mod recorded;
