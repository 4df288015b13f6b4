//! Ids, settings, offers, questions, events, and the state that packets read: plain data without decisions.

// Tests start their virtual clock at the current time.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod ask;
pub mod bytes;
mod counters;
mod event;
mod forwarding;
mod id;
mod measure;
mod mode;
mod offer;
mod registry;
mod settings;
mod since;
mod sync;

pub use ask::{
    AdmitVerdict, Apart, Arm, Ask, CatalogEntry, DecisionNote, DegradationAction, Hook, HookAnswer,
    Labels, PluginFault, PluginState, Poisoned, PolicyName, PolicyQuestion, Reasons,
    RevisionAnswer, RoomRow, RoutingMove, SessionRow,
};
pub use counters::{FlowCounts, STREAM_KINDS, Stamp};
pub use event::{
    Breach, BreachCount, BreakerState, CloseReason, ClosedSession, CoreEvent, DecisionOutcome,
    EvidenceSource, Figure, GuardRule, Health, ModeChange, MoveCause, MoveOutcome, NotStarted,
    StartPhase, Strike,
};
pub use forwarding::{
    Board, CapBounds, Cell, Epoch, HOPS_MAX, Hop, HopGrant, Plan, Route, RouteCell, forward,
};
pub use id::{AskId, Incarnation, NodeId, OfferId, RegionId, RoomId, SessionId, ZoneId};
pub use measure::{Measures, Row, UNMEASURED};
pub use mode::{Affinity, RedundancyMode};
pub use offer::{
    AcceptedOffer, ClientIdentity, ClientTransport, Decider, FeedbackSupport, Impossible,
    IngressProtocol, MediaDescription, MediaStream, Offer, OfferRefusal, PayloadType, RtcpPort,
    Srtp, StreamKind,
};
pub use registry::{COMMON_REASONS_FROM, CommonReason, EntryKind, Metric, Op, Param};
pub use settings::{
    AdmitOnFault, Breakers, CoreSettings, DegradeOnFault, GatewayLimits, NodeProbing, NodeSettings,
    RegionRole, Scenario, Starts, Timings, Zone,
};
pub use since::Since;
