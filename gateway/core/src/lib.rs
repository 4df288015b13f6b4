//! The gateway's decisions. A state machine without I/O, clock, async or Wasm: `handle_*` takes inputs, `poll_*`
//! returns outputs, and `now` and the seed are arguments.

#![deny(missing_docs)]
// Tests start their virtual clock at the current time.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod blast;
mod capacity;
mod collections;
mod diagnosis;
mod effects;
mod flow;
mod gateway;
mod policy;
mod quality;
mod record;
mod records;
mod rooms;
mod sessions;
mod ticks;
mod timers;
mod views;

pub use blast::{
    BlastRadius, ExpectedOutage, GatewayCopy, LoadChange, ModePrediction, RoomLoss, SessionCopy,
};
pub use effects::{GatewayEffect, InstalledSession};
pub use evenkeel_breakers::ClientBreakerStanding;
pub use evenkeel_model::Impossible;
pub use evenkeel_nodes::{
    AgentWord, NodeEffect, NodeEvidence, ProcessState, ProviderBreakerStanding, WATCH_EVERY,
};
pub use evenkeel_slo::{SloRecord, SloStanding, SloWindow};
pub use gateway::Gateway;
pub use policy::subjects::{ArmStatistics, ArmTally, SubjectDecision, SubjectQuarantine};
pub use record::{
    ChangedRecords, Failback, GatewayRecord, HopMap, LegRecord, MemoRecord, MoveRecord, NodeRecord,
    RegionRecord, RestoreError, RoomRecord, SessionRecord,
};
pub use records::Records;
pub use rooms::node_controller::NodeController;
pub use rooms::openings::NotOpened;
pub use rooms::room::MoveUnderWay;
pub use rooms::{is_session_room_name, requested_room_name};
pub use views::{
    CandidateReason, DegradationLimit, Explanation, Heading, NodeCandidate, NodeStanding,
    RegionStanding, RoomStanding, SessionStanding, TableSizes, Views,
};
