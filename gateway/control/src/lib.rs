//! Control: one thread owns the core. Its bounded input channels carry events and summaries, never packets.

mod agents;
mod canary;
mod equipment;
mod events;
mod first_packets;
mod guard;
mod handle;
mod held_offers;
pub mod history;
mod idempotency;
mod inherited;
mod interner;
mod messages;
mod modes;
mod names;
mod node_list;
mod node_sockets;
mod offers;
mod operations;
mod orders;
mod outputs;
mod prober;
mod records;
mod registry;
mod request;
mod rollout;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
mod slice;
mod snapshot;
mod start_hooks;
mod suspension;
mod thread;

pub use canary::CanaryNode;
pub use equipment::Equipment;
pub use evenkeel_policies::{PluginView, PolicyView, RefusalRecord};
pub use evenkeel_revisions::{
    Actor, LastRollout, QuarantinedRevision, RevokedRevision, RolloutAction, RolloutOutcome,
    RolloutReport, Staged,
};
pub use guard::Shrinks;
pub use handle::{
    ControlRequest, EVENTS_MAX, Handle, NotReloaded, PolicyRefused, REQUESTS_MAX, ReloadRequest,
    Reloaded, Suspended, SuspensionGuard, TokensRefused,
};
pub use idempotency::{KEYS_MAX, KeyError, KeyRecord, KeyTable, RequestTurn, StoredAnswer};
pub use inherited::{Inherited, NamedSockets, SocketName};
pub use messages::{
    AdmissionState, AgentError, ControlError, EventRecord, GatewayEvent, IngressAnswer,
    OfferedSession, SessionAnswer, SessionView, StatusReport, TraceCaller,
};
pub use modes::{ModeView, Recovery};
pub use names::{NodeName, NodeNames};
pub use node_list::{ListChange, NodeList, NodeListUpdate, NotListed};
pub use node_sockets::{
    EquipError, SOCKET_BUFFER, briefs, equip, has_webhooks, port_legs, posts, source_of_ports,
    wants_briefs,
};
pub use operations::{Operation, OperationTarget};
pub use orders::NodeOrder;
pub use prober::ProbeMethod as ProbeWay;
pub use records::{RecordBatch, Replica};
pub use registry::{QuicListener, SessionRegistry, UdpListener};
pub use rollout::PushRequest;
pub use slice::Slice;
pub use snapshot::{MediaStates, NotSuspended, Restored, STATES, Snapshot, SnapshotError};
pub use suspension::LastStatesPart;
pub use thread::{ControlParts, WorkerLine, run};
