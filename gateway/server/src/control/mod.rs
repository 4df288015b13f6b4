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

pub use crate::policy::Refusal;
pub(crate) use canary::CanaryNode;
pub(crate) use driver::{Driver, Drivers, Source};
pub(crate) use equipment::Equipment;
pub use evenkeel_core::{
    Actor, LastRollout, Quarantined, Revoked, Rollout, RolloutOutcome, Staged, Verb,
};
pub use fencing::{Fencing, group_number};
pub use guard::Shrinks;
pub(crate) use handle::{
    EVENTS_MAX, REQUESTS_MAX, Request, Suspended, SuspensionGuard, TokensRefused,
};
pub use handle::{Handle, NotReloaded, PolicyRefused, Reload, Reloaded};
pub use messages::{
    Admission, AgentError, Caller, ControlError, EventRecord, GatewayEvent, IngressAnswer,
    PluginView, PolicyView, SessionAnswer, SessionRequest, SessionView, Status,
};
pub use modes::{ModeView, Recovery};
pub use names::{Named, Names};
pub use node_list::{ListChange, NodeList, NodeListUpdate, NotListed};
pub use operations::{Operation, Place};
pub use orders::Order;
pub(crate) use prober::Way as ProbeWay;
pub(crate) use prober::socket as probe_socket;
pub(crate) use prober::socket::connected;
pub(crate) use records::{Batch, Replica};
pub(crate) use registry::{QuicListener, SessionRegistry, UdpListener};
pub use rollout::Wish;
#[cfg(test)]
pub(crate) use slice::Slice;
pub(crate) use snapshot::{MediaStates, STATES};
#[cfg(test)]
pub(crate) use snapshot::{NotRestored, NotSuspended, Restored, Snapshot};
pub(crate) use suspension::LastStatesPart;
pub(crate) use thread::{Parts, WorkerLine, draw, run};
