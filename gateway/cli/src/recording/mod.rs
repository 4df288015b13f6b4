//! Recordings of policy calls: `evenkeel policy record`, `replay` and `diff`, and `plugin test --recording`.

mod diff;
mod player;
mod record;
mod replay;
#[cfg(test)]
mod tests;
mod tried;

pub(crate) use diff::DiffArgs;
pub(crate) use player::load_plugin;
pub(crate) use record::{RecordArgs, kept_calls, recorded_about};
pub(crate) use replay::ReplayArgs;
pub(crate) use tried::TrialOutcome;
