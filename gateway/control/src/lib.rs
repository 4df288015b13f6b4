//! Control: one thread owns the core. Its bounded input channels carry events and summaries, never packets.
//!
//! `Control` gives each input to its owner and does what the owner returns: `Sessions` (offers, registry, workers), `Nodes` (the list,
//! drivers, probes, operators' decisions), `PolicyRunner` (threads and rollouts) and `Continuity` (the follower of records, suspension,
//! the sessions of another process). `Reporting` sends events and keeps the history.

mod alerts;
mod canary;
mod certificates;
mod changes;
mod continuity;
mod control;
mod equipment;
mod failures;
mod faults;
mod forecasts;
mod handle;
pub mod history;
mod idempotency;
mod inherited;
mod judgements;
mod last_states;
mod lists;
mod losses;
mod messages;
mod names;
mod node_hooks;
mod node_list;
mod nodes;
mod offers;
mod operations;
mod policies;
mod prober;
mod probes;
mod records;
mod registry;
mod reloads;
mod reporting;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
mod senders;
mod session_urls;
mod sessions;
mod signalling;
mod snapshot;
mod traces;
mod watch_timer;
mod workers;

pub use alerts::{AcknowledgementRecord, AlertRecord, AlertsRecord, NoticeRecord, SentAlertRecord};
pub use certificates::{CertificateChannels, CertificatesRecord, SecretPem};
pub use changes::KeptChange;
pub use continuity::{Suspended, SuspensionGuard};
pub use control::{ControlParts, run};
pub use equipment::{
    EquipError, Equipment, SOCKET_BUFFER, equip, needs_session_facts, port_legs, posts,
    source_of_ports,
};
pub use failures::KeptFailure;
pub use faults::FOLLOWED_US;
pub use forecasts::{EarlierForecasts, KeptForecast};
pub use handle::{ControlRequest, Handle, TokensRefused};
pub use idempotency::{
    KEYS_MAX, KeyError, KeyRecord, KeyTable, OpenedKey, RequestTurn, StoredAnswer, TOKEN_KEY,
    TokenOffer,
};
pub use inherited::{Inherited, NamedSockets, SocketName};
pub use last_states::LastStatesPart;
pub use losses::{LossFollower, LossLevels, WorstLoss, by_load};
pub use messages::{
    AdmissionState, AgentError, ControlError, ForecastReport, IceFragments, LastChange,
    LossComparison, LossFigures, NodeOrder, NotSuspended, OrderStep, PredictedLoss, REQUESTS_MAX,
    Restored, ScenarioTraffic, SessionView, Slice, SnapshotError, StatusReport, TakeoverReadiness,
    UncoveredLoss,
};
pub use names::{NodeName, NodeNames};
pub use node_list::{ListChange, NodeList, NodeListUpdate, NotListed, Shrinks};
pub use offers::{LaterOffer, LaterStreams, OfferedSession, SessionAnswer, is_first_packet_room};
pub use operations::{
    BreakerTarget, LogFilterSender, Operation, OperationLog, OperationTarget, Operations,
};
pub use policies::PushRequest;
pub use registry::{
    IceAnswer, IngressAnswer, ListenerAddress, ListenerAddresses, QuicListener, SessionRegistry,
    UdpListener,
};
pub use reloads::{NotReloaded, PolicyRefused, ReloadReport, ReloadRequest, Reloaded};
pub use reporting::{
    Continuation, EventRecord, GatewayEvent, GroupChange, MediaPause, TraceCaller,
};
pub use senders::RoomStream;
pub use session_urls::{SessionUrlSecret, SessionUrls};
pub use snapshot::{
    MediaStates, RecordBatch, Replica, STATES, Snapshot, decode_policies, encode_policies,
};
pub use traces::{CallerSpan, NodeHook, TraceIds, TraceRegistry, TraceShare};
pub use workers::WorkerLine;
