//! Ids, settings, offers, questions, events, and the state that packets read: plain data without decisions.

// Tests start their virtual clock at the current time.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod action;
pub mod actions;
mod advice;
mod ask;
mod bytes;
mod clients;
mod counters;
mod device;
mod diagnosis;
mod drop_reason;
mod event;
mod event_rows;
mod forwarding;
mod health;
mod id;
mod id_map;
mod offer;
mod plan;
mod policing;
mod registry;
mod settings;
mod sync;

pub use action::{
    Action, ActionArguments, ActionFacts, DegradationLimit, DegradedSession, MediaLimits, lower_cap,
};
pub use advice::{Advice, AdviceKind};
pub use ask::{
    AdmitVerdict, Arm, Ask, DecisionNote, DecisionOutcome, DegradationAction, GuardRule, Hook,
    HookAnswer, IsolatedRows, Labels, NO_NODE, PluginFault, PluginState, Poisoned, PolicyName,
    PolicyQuestion, Reasons, RevisionAnswer, RoomRow, RoutingMove, SessionRow, participant,
};
pub use bytes::StateBytes;
pub use clients::{ClientGroup, ClientLabel};
pub use counters::{FlowCounts, STREAM_KINDS, Since, Stamp};
pub use device::DeviceLimits;
pub use diagnosis::{Impairment, ImpairmentSign, PathEvidence, PathSegment};
pub use drop_reason::DropReason;
pub use event::{
    Breach, BreachCount, CloseReason, ClosedMove, ClosedSession, CoreEvent, Figure, ModeChange,
    MoveCause, MoveOutcome, PortMove, Strike,
};
pub use event_rows::{CountRow, EventRow, EventValue, ListedEvent, LogLevel, LogRow, NoticeRow};
pub use forwarding::{
    AcceptedOffer, Board, Cell, Epoch, ForwardVerdict, HOPS_MAX, Hop, HopGrant, LeftHop, Route,
    RouteCell,
};
pub use health::{
    BreakerMode, BreakerState, EvidenceSource, Health, NodeNeed, NotStarted, StartPhase,
    StartRefusal, StopPhase,
};
pub use id::{AskId, Incarnation, NodeId, OfferId, RegionId, RoomId, SessionId, ZoneId};
pub use id_map::{IdMap, IdSet};
pub use offer::{
    ClientIdentity, ClientTransport, Decider, ExtensionUri, FeedbackSupport, HeaderExtension,
    Impossible, IngressProtocol, LAYERS_MAX, Latency, MediaDescription, MediaStream, Offer,
    OfferRefusal, OfferedLayer, PayloadType, RepairKind, RtcpPort, Srtp, StreamKind,
};
pub use plan::{Plan, PlanRecord};
pub use policing::{Policing, PolicingStep};
pub use registry::{
    COMMON_REASONS_FROM, CatalogEntry, CommonReason, EntryKind, Measures, Metric, Op, Param, Row,
    UNMEASURED,
};
pub use settings::{
    AdmitOnFault, Affinity, Breakers, CapBounds, CircuitSettings, ClientBreakerSettings,
    CoreSettings, DegradeOnFault, FAST_BURN, FailureDomain, FailureScope, GatewayLimits, HookTerms,
    NewcomerAction, NodeProbing, NodeSettings, RedundancyMode, RegionRole, ReplayedMedia, Scenario,
    ServiceObjective, SloIndicator, StartBudget, Starts, Timings, Zone,
};
