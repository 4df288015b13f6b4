//! Service level objectives: how fast each scenario burns its error budget, and whether a revision that became active does.

// Tests start their virtual clock at the current time.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod activation;
mod counts;
mod record;
mod table;

pub use activation::{ActivationBreach, ActivationJudges};
pub use counts::{SessionMarks, SessionMisses};
pub use record::SloRecord;
pub use table::{SloStanding, SloTable, SloWindow};
