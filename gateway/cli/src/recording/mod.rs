//! Recordings of policy calls: `evenkeel policy record`, `replay` and `diff`, and `plugin test --recording`.

mod decision;
mod diff;
mod player;
mod record;
mod replay;
#[cfg(test)]
mod tests;
mod tried;

pub(crate) use diff::Diff;
pub(crate) use record::RecordArgs;
pub(crate) use replay::Replay;
pub(crate) use tried::Tried;
