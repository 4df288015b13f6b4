//! The set of nodes, their health, and the board on which packets see them.

// Tests start their virtual clock at the current time.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod detector;
mod node;
mod providers;
mod table;

pub use node::elastic::{NodeUse, StopStep};
pub use node::process::ProcessState;
pub use node::trust::NodeTrust;
pub use node::{Node, NodeEvidence, NodeTransition};
pub use providers::{ProviderBreaker, ProviderBreakerStanding};
pub use table::{
    ANSWERED_IN_TIME, AgentWord, NodeChange, NodeEffect, NodeOutput, NodeTable, NodeTimer,
    OpeningClass, OpeningWindow, QueuePosition, WATCH_EVERY,
};
