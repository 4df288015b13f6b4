//! Tools for plugin authors: create, build, test, measure and inspect plugins; no server.
//!
//! A [`Project`] is a folder that can be built anywhere, with the SDK of its [`Language`] inside. It builds
//! to [`BuiltPlugin`], a plugin file. [`Inspection`] shows any file, [`conformance`] tests a plugin with random
//! worlds, [`recorded`] replays recorded questions, and [`measure`](measure::measure) measures the
//! cost of answers.

mod built;
pub mod case;
pub mod conformance;
pub mod coverage;
mod create;
pub mod decision;
mod failed;
mod inspection;
mod language;
pub mod measure;
pub mod migration;
mod name;
pub mod profile;
mod project;
pub mod recorded;
mod sdk;
mod setting;
mod table;
mod verdict;
mod world;

pub use built::{BuiltPlugin, patient_engine, replace};
pub use create::create;
pub use failed::AuthorError;
pub use inspection::Inspection;
pub use language::Language;
pub use project::Project;
pub use table::read_table;
pub use verdict::ask;
