//! The gateway's decisions. A state machine without I/O, clock, async or Wasm: `handle_*` takes inputs, `poll_*`
//! returns outputs, and `now` and the seed are arguments.

// Tests start their virtual clock at the current time.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod ask;
mod capacity;
pub mod cluster;
mod cohort;
mod dataplane;
mod effects;
mod event;
mod flow;
mod gateway;
mod id;
mod interner;
mod measure;
mod mode;
mod nodes;
mod offer;
mod policy;
mod quality;
mod record;
mod registry;
mod rooms;
mod sessions;
mod settings;
mod small;
mod timer;
mod views;

pub use ask::{
    AdmitVerdict, Apart, Arm, Ask, CatalogEntry, DecisionNote, DegradationAction, Hook, HookAnswer,
    Labels, PluginFault, PluginState, Poisoned, PolicyName, PolicyQuestion, Reasons,
    RevisionAnswer, RoomRow, RoutingMove, SessionRow,
};
pub use dataplane::{
    Board, CapBounds, Cell, Epoch, HOPS_MAX, Hop, HopGrant, Plan, Route, RouteCell, forward,
};
pub use effects::{GatewayEffect, Impossible};
pub use event::{
    Breach, BreachCount, BreakerState, CloseReason, ClosedSession, CoreEvent, DecisionOutcome,
    EvidenceSource, Figure, GuardRule, Health, ModeChange, MoveCause, MoveOutcome, NotStarted,
    StartPhase, Strike,
};
pub use flow::FlowCounts;
pub use gateway::{Gateway, Records};
pub use id::{AskId, Incarnation, NodeId, OfferId, RegionId, RoomId, SessionId, ZoneId};
pub use measure::{Measures, Row, UNMEASURED};
pub use mode::{Affinity, RedundancyMode};
pub use nodes::{AgentWord, Stamp, WATCH_EVERY};
pub use offer::{
    AcceptedOffer, ClientIdentity, ClientTransport, Decider, FeedbackSupport, IngressProtocol,
    MediaDescription, MediaStream, Offer, OfferRefusal, PayloadType, RtcpPort, Srtp, StreamKind,
};
pub use policy::{
    AcceptedRevision, Actor, ArmStatistics, ArmTally, CandidateCalls, CandidateStatus, Compared,
    Judging, LastRollout, Lifecycle, PolicyCallResult, PolicyStatus, QuarantinedRevision,
    Remembered, Revision, RevisionRefusal, RevokedRevision, RolloutAction, RolloutOutcome,
    RolloutProgress, RolloutReport, RolloutRequest, RolloutRules, RolloutStage, Said, Staged,
    Strategy, SubjectQuarantine, Version, WallClock, is_in_cohort,
};
pub use record::{
    ChangedRecords, GatewayRecord, HopMap, LegRecord, MemoRecord, NodeRecord, RegionRecord,
    RestoreError, RoomRecord, SessionRecord,
};
pub use registry::{COMMON_REASONS_FROM, CommonReason, EntryKind, Metric, Op, Param};
pub use rooms::{
    Failback, MoveRecord, MoveUnderWay, NotOpened, is_session_room_name, requested_room_name,
};
pub use settings::{
    AdmitOnFault, Breakers, CoreSettings, DegradeOnFault, GatewayLimits, NodeProbing, NodeSettings,
    RegionRole, Scenario, Starts, Timings, Zone,
};
pub use views::{
    CandidateReason, Explanation, Heading, NodeCandidate, NodeStanding, RegionStanding,
    RoomStanding, SessionStanding, TableSizes,
};
