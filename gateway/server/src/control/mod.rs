//! Control: one thread owns the core. Its bounded input channels carry events and summaries, never packets.

mod agents;
mod canary;
mod driver;
mod equipment;
mod events;
mod fencing;
mod first_packets;
mod guard;
mod handle;
mod held_offers;
mod interner;
mod messages;
mod modes;
mod names;
mod node_list;
mod offers;
mod operations;
mod orders;
mod outputs;
mod prober;
mod records;
mod registry;
mod request;
mod rollout;
mod slice;
mod snapshot;
mod start_hooks;
mod suspension;
mod thread;

pub use crate::policy::RefusalRecord;
pub(crate) use canary::CanaryNode;
pub(crate) use driver::{DriverConfig, Drivers, LocalSource};
pub(crate) use equipment::Equipment;
pub use evenkeel_core::{
    Actor, LastRollout, QuarantinedRevision, RevokedRevision, RolloutAction, RolloutOutcome,
    RolloutReport, Staged,
};
pub use fencing::{Fencing, group_number};
pub use guard::Shrinks;
pub(crate) use handle::{
    ControlRequest, EVENTS_MAX, REQUESTS_MAX, Suspended, SuspensionGuard, TokensRefused,
};
pub use handle::{Handle, NotReloaded, PolicyRefused, ReloadRequest, Reloaded};
pub use messages::{
    AdmissionState, AgentError, ControlError, EventRecord, GatewayEvent, IngressAnswer,
    OfferedSession, PluginView, PolicyView, SessionAnswer, SessionView, StatusReport, TraceCaller,
};
pub use modes::{ModeView, Recovery};
pub use names::{NodeName, NodeNames};
pub use node_list::{ListChange, NodeList, NodeListUpdate, NotListed};
pub use operations::{Operation, OperationTarget};
pub use orders::NodeOrder;
pub(crate) use prober::ProbeMethod as ProbeWay;
pub(crate) use prober::socket as probe_socket;
pub(crate) use prober::socket::connected;
pub(crate) use records::{RecordBatch, Replica};
pub(crate) use registry::{QuicListener, SessionRegistry, UdpListener};
pub use rollout::PushRequest;
#[cfg(test)]
pub(crate) use slice::Slice;
pub(crate) use snapshot::{MediaStates, STATES};
#[cfg(test)]
pub(crate) use snapshot::{NotSuspended, Restored, Snapshot, SnapshotError};
pub(crate) use suspension::LastStatesPart;
pub(crate) use thread::{ControlParts, WorkerLine, draw, run};
