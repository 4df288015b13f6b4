//! Control: one thread owns the core. Its bounded input channels carry events and summaries, never packets.

#![deny(missing_docs)]

mod alerts;
mod blast;
mod canary;
mod certificates;
mod change_record;
mod control;
mod equipment;
mod execution;
mod forecast_part;
mod handle;
pub mod history;
mod idempotency;
mod inherited;
mod kept_file;
mod last_states;
mod lists;
mod messages;
mod names;
mod node_hooks;
mod nodes;
mod offers;
mod operations;
mod policies;
mod prober;
mod probes;
mod records;
mod registry;
mod renegotiation;
mod reporting;
mod requests;
mod restored;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
mod session_urls;
mod signalling;
mod slo_copies;
mod snapshot;
mod suspension;
mod thread;
mod traces;
mod used_tokens;
mod workers;

pub use alerts::{AcknowledgementRecord, AlertRecord, AlertsRecord, NoticeRecord, SentAlertRecord};
pub use blast::by_load;
pub use certificates::{CertificateChannels, CertificatesRecord, SecretPem};
pub use change_record::ChangeRecord;
pub use equipment::{
    EquipError, Equipment, SOCKET_BUFFER, briefs, equip, port_legs, posts, source_of_ports,
};
pub use evenkeel_media::trunk::message::NodeFault;
pub use evenkeel_policies::{PluginView, PolicyRecords, PolicyView, RefusalRecord};
pub use evenkeel_revisions::{
    Actor, QuarantinedRevision, RevokedRevision, RolloutAction, RolloutOutcome, RolloutReport,
    Staged,
};
pub use forecast_part::ForecastPart;
pub use handle::{ControlRequest, Handle, TokensRefused};
pub use idempotency::{
    KEYS_MAX, KeyError, KeyRecord, KeyTable, RequestTurn, StoredAnswer, TOKEN_KEY,
};
pub use inherited::{Inherited, NamedSockets, SocketName};
pub use last_states::LastStatesPart;
pub use messages::{
    AdmissionState, AgentError, ControlError, ForecastReport, IceFragments, LastChange,
    LossComparison, LossFigures, NodeOrder, NotSuspended, OrderStep, PredictedLoss, REQUESTS_MAX,
    Restored, ScenarioTraffic, SessionView, Slice, SnapshotError, StatusReport, TakeoverReadiness,
    UncoveredLoss,
};
pub use names::{NodeName, NodeNames};
pub use nodes::{
    ListChange, NodeList, NodeListUpdate, NotListed, NotReloaded, PolicyRefused, ReloadReport,
    ReloadRequest, Reloaded, Shrinks,
};
pub use offers::{IceAnswer, IngressAnswer, OfferedSession, SessionAnswer, is_first_packet_room};
pub use operations::{
    BreakerTarget, LogFilterSender, Operation, OperationLog, OperationTarget, Operations,
};
pub use policies::PushRequest;
pub use records::{Suspended, SuspensionGuard};
pub use registry::{
    ListenerAddress, ListenerAddresses, QuicListener, SessionRegistry, UdpListener,
};
pub use renegotiation::{LaterOffer, LaterStreams};
pub use reporting::{
    Continuation, EventRecord, GatewayEvent, GroupChange, MediaPause, ModeView, Recovery,
    TraceCaller,
};
pub use session_urls::{SessionUrlSecret, SessionUrls};
pub use snapshot::{
    MediaStates, RecordBatch, Replica, STATES, Snapshot, decode_policies, encode_policies,
};
pub use thread::{ControlParts, run};
pub use traces::{CallerSpan, NodeHook, TraceIds, TraceRegistry, TraceShare};
pub use used_tokens::UsedTokens;
pub use workers::WorkerLine;
