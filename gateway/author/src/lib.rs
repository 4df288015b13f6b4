//! Makes, builds, tries, measures and shows plugins, for whoever writes them; no server.
//!
//! A [`Project`] is a folder that cargo can build anywhere: the SDK's source is written into it. What cargo makes of it is
//! [`Built`], a plugin file. [`Inspection`] shows what can be read of any file, [`exam`] asks a plugin about random
//! worlds and says what it got wrong, [`recorded`] asks it again what others were asked, and [`measure`](measure::measure)
//! says what its answers cost.

mod built;
mod cargo;
pub mod exam;
mod failed;
mod inspection;
pub mod measure;
mod name;
mod project;
pub mod recorded;
mod sdk;
mod setting;
mod verdict;
mod world;

pub use built::Built;
pub use cargo::{Chatter, Project};
pub use failed::Failed;
pub use inspection::Inspection;
pub use name::Name;
pub use project::create;
pub use setting::Setting;
