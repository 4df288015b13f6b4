//! All metrics, spans and attributes; nothing else can be recorded.
//!
//! Attributes have the names of OpenTelemetry's semantic conventions where one exists. None exist for media gateways: other names
//! begin with `evenkeel.`, or with `media.` if they would fit any gateway. Units are UCUM base units.

use evenkeel_config::token::TokenRefusal;
use evenkeel_model::{
    AdviceKind, CloseReason, DropReason, EvidenceSource, GuardRule, MoveCause, MoveOutcome, Op,
    PathSegment, RedundancyMode, RepairKind, Strike,
};
use opentelemetry::KeyValue;

/// All values of a label that this program knows.
pub type LabelWords = fn() -> Vec<&'static str>;

/// Values of a metric's labels, each at most once.
pub type MetricLabels<'a> = &'a [(Attribute, &'a str)];

/// The row of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Described {
    /// As exported: `evenkeel.rooms.moved`.
    pub name: &'static str,
    /// UCUM.
    pub unit: &'static str,
    /// The meaning, for the reference.
    pub doc: &'static str,
    /// The complete set of its labels.
    pub attributes: &'static [Attribute],
    /// Of a histogram the upper bounds of its buckets, in the unit.
    pub bounds: &'static [f64],
    words: &'static [(Attribute, LabelWords)],
}

impl Described {
    pub(super) fn points(self, labels: MetricLabels<'_>) -> Vec<KeyValue> {
        debug_assert!(
            labels.iter().all(|(attribute, _)| self.attributes.contains(attribute)),
            "{labels:?} are not all registered for {}",
            self.name
        );
        labels
            .iter()
            .map(|(attribute, value)| KeyValue::new(attribute.key(), value.to_string()))
            .collect()
    }

    /// All values of this label; `None` if they depend on the configuration or on clients.
    pub fn words(self, label: Attribute) -> Option<Vec<&'static str>> {
        let own = self.words.iter().find(|(attribute, _)| *attribute == label);
        own.map(|(_, words)| *words).or(label.words()).map(|words| words())
    }

    /// Its name in Prometheus, without the ending of counters and of a histogram's parts: `evenkeel_rooms_moved`.
    pub fn prometheus_name(self) -> String {
        let unit = match self.unit {
            "By" => "_bytes",
            "By/s" => "_bytes_per_second",
            "s" => "_seconds",
            "%" => "_percent",
            "1" => "_ratio",
            // Annotations in braces are left out.
            _ => "",
        };
        self.name.replace('.', "_") + unit
    }
}

macro_rules! optional {
    () => {
        None
    };
    ($words:expr) => {
        Some($words)
    };
}

macro_rules! attributes {
    ($($(#[doc = $doc:literal])+ $name:ident = $key:literal $(in $words:expr)?;)*) => {
        /// An attribute of spans or a label of metrics.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Attribute { $($(#[doc = $doc])+ $name,)* }

        impl Attribute {
            /// In alphabetical order.
            pub const ALL: &[Attribute] = &[$(Attribute::$name,)*];

            /// `evenkeel.scenario`.
            pub const fn key(self) -> &'static str {
                match self { $(Attribute::$name => $key,)* }
            }

            /// The meaning, for the reference.
            pub const fn doc(self) -> &'static str {
                match self { $(Attribute::$name => concat!($($doc,)+).trim_ascii(),)* }
            }

            /// All values of the label, if they are the same in all metrics that do not list their own.
            const fn words(self) -> Option<LabelWords> {
                match self { $(Attribute::$name => optional!($($words)?),)* }
            }

            /// The label in Prometheus: `evenkeel_scenario`.
            pub fn prometheus_label(self) -> String {
                self.key().replace('.', "_")
            }
        }
    };
}

attributes! {
    /// Advice to the user of a session: `suspended`, `switch-network`, `lower-quality`, `audio-only` or `restored`.
    Advice = "evenkeel.advice" in || AdviceKind::ALL.map(AdviceKind::name).to_vec();
    /// Arm of a rollout: `active` or `canary`.
    Arm = "evenkeel.arm";
    /// The decider of an admission: a policy, `native` or `operator`.
    AdmittedBy = "evenkeel.admitted_by";
    /// The decider: a policy, `native` or `operator`; for a rollout or reload `file`, `signal`, `operator` or `gateway`.
    By = "evenkeel.by";
    /// Cause of a move: `node-down`, `ejected`, `link`, `quality`…; why sessions continue at another process: `upgrade`, `hand-over` or
    /// `takeover`.
    Cause = "evenkeel.cause" in || MoveCause::ALL.map(MoveCause::name).to_vec();
    /// Certainty of a finding, as a share.
    Confidence = "evenkeel.confidence";
    /// A certificate or token with an end: `quic-certificate`, `webrtc-certificate` or `index-token`.
    Credential = "evenkeel.credential";
    /// Name of a dependency, as `[[dependency]]` has it.
    Dependency = "evenkeel.dependency";
    /// Whether the native default would have decided otherwise.
    Differs = "evenkeel.differs";
    /// `up` from the client, `down` to the client.
    Direction = "evenkeel.direction" in || vec!["up", "down"];
    /// A document that outlives the process: `policies`, `history`…
    Document = "evenkeel.document";
    /// Date and minute in UTC of the end of a certificate or token: `2027-01-31 09:41 UTC`.
    Ends = "evenkeel.ends";
    /// Why the operation failed, in one of few words: the `reason` of a refusal or an end, or the kind of a failed policy call.
    ErrorType = "error.type";
    /// Kind of a failed policy call: `deadline`, `trap`…; fault of a drill: `kill`, `hang` or `cut`.
    Fault = "evenkeel.fault" in || vec!["deadline", "trap", "out-of-memory", "malformed", "late", "absent"];
    /// Name of the node that a room left.
    From = "evenkeel.from";
    /// Name of a gateway of the group.
    Gateway = "evenkeel.gateway";
    /// The native rule that a decision broke: `churn`…
    Guard = "evenkeel.guard" in || GuardRule::ALL.map(GuardRule::name).to_vec();
    /// The kind of question: `routing`…
    Hook = "evenkeel.hook";
    /// Id of the session with the device, uplink or downlink that impairs media.
    ImpairedBy = "evenkeel.impaired_by";
    /// Number of times that the node came up, from 1.
    Incarnation = "evenkeel.incarnation";
    /// Label of offers by which clients are grouped: `carrier` or `region`.
    Label = "evenkeel.label";
    /// Value of that label: one that the configuration names, or `other`.
    LabelValue = "evenkeel.label_value";
    /// Sessions or rooms that the span is not linked to: not sampled, or beyond the limit.
    DroppedLinks = "evenkeel.dropped_links";
    /// Nodes of a reload beyond those that the span names.
    DroppedNodes = "evenkeel.dropped_nodes";
    /// Name of a network interface.
    Interface = "evenkeel.interface";
    /// Loss in a segment of a path, as a share of its packets.
    Loss = "evenkeel.loss";
    /// Mode of a room: `hot`, `hitless`…
    Mode = "evenkeel.mode" in || RedundancyMode::ALL.map(RedundancyMode::name).to_vec();
    /// Decision of the native default: `configured` parameters of a scenario, `accept` a session, names of a new room's nodes or
    /// `none`, `keep` rooms where they are and sessions in their quality.
    Native = "evenkeel.native";
    /// Name of a node.
    Node = "evenkeel.node";
    /// Names of the nodes that a reload added, removed or changed, at most 128.
    Nodes = "evenkeel.nodes";
    /// A plugin's note about a decision; the note's key is appended.
    Note = "evenkeel.note";
    /// Degradation action, such as `voice-only`.
    Op = "evenkeel.op" in || Op::ALL.map(Op::key).to_vec();
    /// Outcome.
    Outcome = "evenkeel.outcome";
    /// Phase of a takeover: `decision`, from the owner's last beat to the ownership, or `continuation`, until its sessions go on.
    Phase = "evenkeel.phase";
    /// `<set>/<hook>`.
    Policy = "evenkeel.policy";
    /// The previous revision.
    Previous = "evenkeel.previous";
    /// Program or host that starts nodes, as `[node.start]` has it.
    Provider = "evenkeel.provider";
    /// Reason.
    Reason = "evenkeel.reason";
    /// Name of a receiver of alerts, as `[[alert]]` has it.
    Receiver = "evenkeel.receiver";
    /// Name of a region.
    Region = "evenkeel.region";
    /// Kind of packets that repair others: `rtx`, retransmissions (RFC 4588), or `fec` (RFC 5109, RFC 8627).
    Repair = "evenkeel.repair" in || RepairKind::ALL.map(RepairKind::name).to_vec();
    /// Revision of a policy: the first 12 hexadecimal digits of its digest.
    Revision = "evenkeel.revision";
    /// Number of a room on this gateway: `r7`.
    Room = "evenkeel.room";
    /// Name of a room in the client's signalling.
    RoomName = "evenkeel.room_name";
    /// Number of rooms.
    Rooms = "evenkeel.rooms";
    /// The decider of a placement: a policy, `native` or `operator`.
    RoutedBy = "evenkeel.routed_by";
    /// Rung of a session, from 1.
    Rung = "evenkeel.rung";
    /// Number of rows in a question.
    Rows = "evenkeel.rows";
    /// Name of a scenario; empty in refused offers of one that was not configured at the start.
    Scenario = "evenkeel.scenario";
    /// The nodes that fail together: `node` or `zone`.
    Scope = "evenkeel.scope";
    /// Segment of a session's path: `device`, `uplink`, `leg`, `node`, `gateway`, `downlink` or `unknown`.
    Segment = "evenkeel.segment" in || PathSegment::ALL.map(PathSegment::name).to_vec();
    /// Id of a session: `s4k7mq2-17`, as in the API.
    Session = "session.id";
    /// Number of sessions.
    Sessions = "evenkeel.sessions";
    /// Indicator of a service level objective: `refusals`, `set-up`, `gap` or `r-factor`.
    Slo = "evenkeel.slo";
    /// `spans`, `logs`, `metrics` or `events`.
    Signal = "evenkeel.signal" in || vec!["spans", "logs", "metrics"];
    /// Time in the plugin, in seconds.
    Duration = "evenkeel.duration";
    /// Name of a counted event.
    Event = "evenkeel.event";
    /// Window of a burn rate: `5m`, `1h` or `6h`.
    Window = "evenkeel.window";
    /// Source of evidence about a node: `probe`, `silence`…
    Witness = "evenkeel.witness" in || EvidenceSource::ALL.map(EvidenceSource::name).to_vec();
    /// Name of a zone.
    Zone = "evenkeel.zone";
}

macro_rules! bounds {
    () => {
        &[]
    };
    ($bounds:expr) => {
        $bounds
    };
}

/// Rows of metrics: name, unit, labels, and the buckets of a histogram. `Reason in || …`: all values that the label has in this metric.
macro_rules! metrics {
    ($(#[$enum_doc:meta])* $enum:ident;
     $($(#[doc = $doc:literal])+ $name:ident = $key:literal, $unit:literal, [$($attribute:ident $(in $words:expr)?),*] $(, $bounds:expr)?;)*) => {
        $(#[$enum_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $enum { $($(#[doc = $doc])+ $name,)* }

        impl $enum {
            /// In the order of their numbers.
            pub const ALL: &[$enum] = &[$($enum::$name,)*];

            /// Its row.
            pub const fn described(self) -> Described {
                match self {
                    $($enum::$name => Described {
                        name: $key,
                        unit: $unit,
                        doc: concat!($($doc,)+).trim_ascii(),
                        attributes: &[$(Attribute::$attribute,)*],
                        bounds: bounds!($($bounds)?),
                        words: &[$($((Attribute::$attribute, $words),)?)*],
                    },)*
                }
            }
        }
    };
}

/// Reasons of refusals of offers of a known scenario.
const REFUSALS: [&str; 14] = [
    "scenario-of-room",
    "full",
    "draining",
    "rejected",
    "redirected",
    "no-node",
    "clients-impaired",
    "closed",
    "not-opened",
    "no-listener",
    "address-taken",
    "room-full",
    "unknown-node",
    "outside-networks",
];

/// Buckets of delays that users notice, in seconds.
const DELAYS: &[f64] =
    &[1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 3e-2, 4e-2, 6e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

/// Buckets of times in a plugin, in seconds.
const PLUGIN_TIMES: &[f64] =
    &[1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2];

/// Buckets of starts of nodes, in seconds.
const START_TIMES: &[f64] = &[0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 300.0];

metrics! {
    /// A counter.
    Count;
    /// Sessions opened.
    SessionsOpened = "evenkeel.sessions.opened", "{session}", [Scenario];
    /// Offers refused.
    SessionsRefused = "evenkeel.sessions.refused", "{session}", [Scenario, Reason in || REFUSALS.to_vec()];
    /// Sessions ended: completed (`requested`, `client-closed`, `ended-by-policy`), abandoned at set-up (`not-opened`, `handshake-failed`, `handshake-lost`),
    /// or by a fault (`media-timeout`, `panicked`, [`srtp-counters-lost`](operations/group-media.md#srtp-in-a-group)).
    SessionsClosed = "evenkeel.sessions.closed", "{session}", [Scenario, Reason in || CloseReason::ALL.map(CloseReason::name).to_vec()];
    /// DTLS handshakes of clients that ended: `done`, or the reason of the failure.
    Handshakes = "evenkeel.handshakes", "{handshake}", [Outcome];
    /// Later offers of WebRTC clients that changed their session: `streams`, `ice`, or `both`.
    Renegotiations = "evenkeel.renegotiations", "{renegotiation}", [Outcome];
    /// Sessions moved to another hop with their room, by the place of the node that they left.
    SessionsMoved = "evenkeel.sessions.moved", "{session}", [Cause, Scenario, Region, Zone];
    /// Pictures to clients that came so late that the video froze: later than usual by 150 ms, and by twice the usual interval (W3C
    /// webrtc-stats, `freezeCount`). By the place of the node that the client hears.
    SessionFreezes = "evenkeel.session.freezes", "{freeze}", [Scenario, Region, Zone];
    /// Rooms moved to another hop.
    RoomsMoved = "evenkeel.rooms.moved", "{room}", [Cause, By];
    /// Moves that were aborted, by outcome such as `target-lost` or `superseded`.
    MovesAborted = "evenkeel.moves.aborted", "{move}", [Cause, Outcome in || MoveOutcome::ALL.map(MoveOutcome::name).to_vec()];
    /// Rooms without a usable hop.
    RoomsStranded = "evenkeel.rooms.stranded", "{room}", [Cause];
    /// Changes of the spares of a room.
    RoomsRerouted = "evenkeel.rooms.rerouted", "{room}", [By];
    /// Changes of a room's mode, by the new mode.
    RoomModes = "evenkeel.rooms.mode_changes", "{room}", [Mode, Reason in || vec!["scenario", "copies-differ", "capacity"]];
    /// Hops removed from a route while their node was up: not opened there, port closed, flow lost.
    HopsRemoved = "evenkeel.hops.removed", "{hop}", [Node, Reason in || Strike::ALL.map(Strike::name).to_vec()];
    /// Nodes marked down.
    NodeFailures = "evenkeel.node.failures", "{failure}", [Node];
    /// Starts of nodes by their hooks: `starting`, `failed`, `ready`, `refused`.
    NodeStarts = "evenkeel.node.starts", "{start}", [Node, Outcome in || vec!["starting", "failed", "ready", "refused"]];
    /// Stops of nodes that are no longer needed: `stopping`, `failed`, `stopped`.
    NodeStops = "evenkeel.node.stops", "{stop}", [Node, Outcome in || vec!["stopping", "failed", "stopped"]];
    /// Witnesses against a node when it was marked down.
    NodeWitnesses = "evenkeel.node.witnesses", "{witness}", [Node, Witness];
    /// Signed messages and encrypted datagrams refused by the gateway or by a node: `clock`, `secret` or `encryption`.
    NodeMessagesRefused = "evenkeel.node.messages_refused", "{message}", [Reason in || vec!["clock", "secret", "encryption"]];
    /// Refused beats and connections of the group's other gateway, refused answers of the agent beside it, and lists of
    /// nodes that differ: `secret`, `forged`, `clock`, `replayed`, `unknown-peer`, `configuration`, among others.
    ClusterRefused = "evenkeel.cluster.refused", "{refusal}", [Reason];
    /// Entries of the shared index that differed from this gateway's and were written again.
    IndexRepairs = "evenkeel.index.repairs", "{entry}", [];
    /// Attempts to write to the shared index that failed: its store was down or slow.
    IndexFailures = "evenkeel.index.failures", "{attempt}", [];
    /// Rooms of this gateway that turned out to be at another group as well.
    IndexDuplicates = "evenkeel.index.duplicates", "{room}", [];
    /// Requests to the API over TCP that were refused: their token was `missing` or `wrong`.
    ApiTokensRefused = "evenkeel.api.tokens_refused", "{request}", [Reason in || vec!["missing", "wrong"]];
    /// Requests that this standby sent to the owner of its group: `answered` or `failed`.
    ApiRelayed = "evenkeel.api.relayed", "{request}", [Outcome in || vec!["answered", "failed"]];
    /// Requests by WHIP and WHEP that were refused for their token: it was `missing`, `malformed`, of another `algorithm`, of a wrong
    /// `signature`, `expired`, `early`, for another `direction`, `scenario` or `room`, `replayed` with another offer, or with all of its `sessions` open; or their `rate`
    /// was exceeded.
    WebrtcTokensRefused = "evenkeel.webrtc.tokens_refused", "{request}", [Reason in || TokenRefusal::NAMES.to_vec()];
    /// Questions to a policy.
    PolicyCalls = "evenkeel.policy.calls", "{call}", [Policy, Outcome in || vec!["applied", "abstained", "kept", "guarded", "stale", "faulted"]];
    /// Decisions that differ from the native default's.
    PolicyDiffers = "evenkeel.policy.differs", "{decision}", [Policy];
    /// Failed policy calls.
    PolicyFaults = "evenkeel.policy.faults", "{fault}", [Policy, Fault];
    /// Decisions, or parts of one, rejected by a guard.
    PolicyGuarded = "evenkeel.policy.guarded", "{decision}", [Policy, Guard];
    /// Sessions and rooms quarantined for a revision, by the fault.
    PolicyQuarantined = "evenkeel.policy.quarantined", "{subject}", [Policy, Fault];
    /// Steps of rollouts, such as `started`, `advanced`, `activated`, `rolled-back` by the gateway, `reverted` by an operator or a newer revision.
    PolicyRollouts = "evenkeel.policy.rollouts", "{rollout}", [Policy, Outcome in || vec!["activated", "rolled-back", "refused"]];
    /// Refused plugins, by code such as `unsigned` or `proof-failed`.
    PolicyRefusals = "evenkeel.policy.refusals", "{rollout}", [Policy, Reason];
    /// Impairments of sessions' media, by the segment of the path that causes each.
    Impairments = "evenkeel.impairments", "{impairment}", [Scenario, Segment];
    /// Advice to users, and `restored` at its end, by the segment of the path that is the reason.
    Advices = "evenkeel.advices", "{advice}", [Scenario, Advice, Segment];
    /// Changes of a session's quality.
    Degradations = "evenkeel.degradations", "{action}", [Op, By];
    /// Stalls of the event loop; failure detection is skipped for their time.
    OwnStalls = "evenkeel.event_loop.stalls", "{stall}", [];
    /// Times that most nodes fell silent at once, so that none was marked down.
    UplinkSuspicions = "evenkeel.uplink.suspicions", "{suspicion}", [];
    /// Media packets forwarded.
    Packets = "media.packets", "{packet}", [Direction];
    /// Bytes of the media packets forwarded.
    Bytes = "media.traffic", "By", [Direction];
    /// Packets not forwarded.
    PacketsDropped = "media.packets.dropped", "{packet}", [Reason in || DropReason::ALL.iter().copied().map(DropReason::name).collect()];
    /// RTP packets of a scenario's sessions, up to the last report of each session's worker.
    ScenarioPackets = "evenkeel.scenario.packets", "{packet}", [Scenario, Direction];
    /// Bytes of the RTP packets of a scenario's sessions.
    ScenarioBytes = "evenkeel.scenario.traffic", "By", [Scenario, Direction];
    /// Bytes of the copies that sessions of a scenario exchanged with second hops in mode `hitless`.
    ScenarioCopied = "evenkeel.scenario.copied", "By", [Scenario];
    /// RTP packets of a scenario's sessions that are missing before repair: from clients by sequence number, to clients by their
    /// receiver reports (RFC 3550, 6.4.1) or by QUIC.
    ScenarioLost = "evenkeel.scenario.lost", "{packet}", [Scenario, Direction];
    /// RTP packets of a scenario's clients that another node got again after the death of one (`replay`).
    ScenarioReplayed = "evenkeel.scenario.replayed_packets", "{packet}", [Scenario];
    /// Packets of a scenario's sessions that repair others. They count as packets too.
    ScenarioRepairPackets = "evenkeel.scenario.repair_packets", "{packet}", [Scenario, Direction, Repair];
    /// Bytes of the packets that repair others. They count as traffic too.
    ScenarioRepairBytes = "evenkeel.scenario.repair", "By", [Scenario, Direction, Repair];
    /// Packets of a scenario's sessions that were requested by NACK (RFC 4585, 6.2.1): `up` those that the gateway asked clients for, `down`
    /// those that clients asked for and the gateway sent again.
    ScenarioRetransmissions = "evenkeel.scenario.retransmissions", "{packet}", [Scenario, Direction];
    /// Caches of packets that could not grow, because all caches have the memory of `repair_memory` in `[limits]`.
    ScenarioCachesRefused = "evenkeel.scenario.caches_refused", "{cache}", [Scenario];
    /// Bytes by which packets to clients of a scenario repeat earlier frames (RFC 2198). They count as traffic too.
    ScenarioRedundancy = "evenkeel.scenario.redundancy", "By", [Scenario];
    /// Lost packets of a scenario's clients that nodes got from the redundancy in later ones (RFC 2198).
    ScenarioRecovered = "evenkeel.scenario.recovered", "{packet}", [Scenario];
    /// Key frames, from a scenario's clients or to them, that were requested repeatedly and did not come.
    ScenarioKeyFramesGivenUp = "evenkeel.scenario.key_frames_given_up", "{key_frame}", [Scenario];
    /// Packets of video that clients of a scenario were not sent, because the action `thin` withheld their frames.
    ScenarioThinned = "evenkeel.scenario.thinned_packets", "{packet}", [Scenario];
    /// Packets of a scenario's clients that were dropped before the node, because the client sends more than the scenario's ceiling or its cap.
    ScenarioPoliced = "evenkeel.scenario.policed_packets", "{packet}", [Scenario];
    /// Bytes of the parity packets that the gateway made for clients of a scenario (FlexFEC-03). They count as packets that repair others, too.
    ScenarioParity = "evenkeel.scenario.parity", "By", [Scenario];
    /// Lost packets of a scenario's clients that nodes got from parity of the clients (FlexFEC-03).
    ScenarioRepaired = "evenkeel.scenario.repaired", "{packet}", [Scenario];
    /// Packets of video to clients of a scenario that waited for their turn, because the path could not carry them at once.
    ScenarioPaced = "evenkeel.scenario.paced_packets", "{packet}", [Scenario];
    /// Received packets that a network interface dropped: the kernel, or the device without a free buffer. At most 16 interfaces; virtual
    /// ones only on a host without others.
    HostDrops = "evenkeel.host.interface_drops", "{packet}", [Interface];
    /// Packets to clients that left from the address of the route, because this host does not have the address that the client sent to,
    /// as after a takeover behind NAT.
    PacketsFromRoute = "media.packets.from_route", "{packet}", [];
    /// Key frames requested.
    KeyFrameRequests = "media.key_frame_requests", "{request}", [Direction];
    /// Events of the QUIC endpoint, such as `handshakes-failed` or `sent-datagrams`.
    QuicCounts = "evenkeel.quic.counts", "{event}", [Event];
    /// Spans, log lines and metric collections that the receiver accepted.
    TelemetrySent = "evenkeel.telemetry.sent", "{item}", [Signal];
    /// Spans, log lines and metric collections dropped because the queue was full or the receiver did not accept them;
    /// events dropped because too many came at once.
    TelemetryDropped = "evenkeel.telemetry.dropped", "{item}", [Signal in || vec!["spans", "logs", "metrics", "events"], Reason in || vec!["queue-full", "not-taken", "behind"]];
    /// Notices of alerts that this gateway posted to a receiver of `[[alert]]`: `delivered` or `failed`.
    AlertDeliveries = "evenkeel.alert.deliveries", "{delivery}", [Receiver, Outcome in || vec!["delivered", "failed"]];
    /// Advice to users that this gateway posted to the webhook of `[advice]`: `delivered`; `failed`, and posted again; `dropped`, because too
    /// many waited or the webhook was removed.
    AdviceDeliveries = "evenkeel.advice.deliveries", "{advice}", [Outcome in || vec!["delivered", "failed", "dropped"]];
    /// Failed exports.
    TelemetryFailures = "evenkeel.telemetry.failures", "{attempt}", [Signal];
}

metrics! {
    /// A gauge.
    Level;
    /// Open sessions.
    SessionsActive = "evenkeel.sessions.active", "{session}", [];
    /// Open sessions of a scenario, by the place of the node that carries them; without one if none does. Read every 10 s.
    ScenarioSessions = "evenkeel.scenario.sessions", "{session}", [Scenario, Region, Zone];
    /// Sessions of a scenario on a rung above 0, by rung. Read every 10 s.
    ScenarioDegraded = "evenkeel.scenario.degraded", "{session}", [Scenario, Region, Zone, Rung];
    /// Sessions of a scenario under a degradation action. Read every 10 s.
    ScenarioActions = "evenkeel.scenario.actions", "{session}", [Scenario, Op];
    /// Sessions of a scenario with impaired media, by the segment of the path that causes it; of `leg` and `node` with the node and its
    /// place. Nodes beyond the 32 that impair most sessions now are `other`. Read every 10 s.
    ScenarioImpaired = "evenkeel.scenario.impaired", "{session}", [Scenario, Segment, Region, Zone, Node];
    /// Share of a scenario's sessions in the window that missed the objective, as a multiple of the share that may miss it. 0 while there
    /// are fewer than ten.
    SloBurnRate = "evenkeel.slo.burn_rate", "{budget}", [Scenario, Slo, Window];
    /// Share of the error budget of the last 30 days that is left; negative if it is overspent.
    SloBudget = "evenkeel.slo.budget", "1", [Scenario, Slo];
    /// Time until the capacity of a region is expected to be exhausted, 0 if it is; -1 while this is not expected. Forecast each minute.
    ForecastExhausted = "evenkeel.forecast.exhausted", "s", [Region];
    /// Warnings of what is expected, by their kind: `load`, `decay`, `flap` or `delay`.
    ForecastWarnings = "evenkeel.forecast.warnings", "{warning}", [Reason];
    /// Health of a node: 0 Up, 1 Suspect, 2 Wary, 3 Down, 4 Cold.
    NodeHealth = "evenkeel.node.health", "{state}", [Node, Region, Zone];
    /// 1 while most nodes are silent at once, so that none is marked down.
    UplinkSuspect = "evenkeel.uplink.suspect", "{state}", [];
    /// 1 while a node is drained.
    NodeDraining = "evenkeel.node.draining", "{state}", [Node, Region, Zone];
    /// Smoothed round trip of probes to a node; absent while none is measured.
    NodeRoundTrip = "evenkeel.node.round_trip", "s", [Node, Region, Zone];
    /// Share of probes of a node that were not answered lately.
    NodeLoss = "evenkeel.node.loss", "1", [Node, Region, Zone];
    /// Load and reservations of a node, as a share of its capacity.
    NodeLoad = "evenkeel.node.load", "1", [Node, Region, Zone];
    /// Measured capacity of a node, which may be below the configured one.
    NodeCapacity = "evenkeel.node.capacity", "By/s", [Node, Region, Zone];
    /// Rooms at a node.
    NodeRooms = "evenkeel.node.rooms", "{room}", [Node, Region, Zone];
    /// Sessions that a node carries. Read every 10 s.
    NodeSessions = "evenkeel.node.sessions", "{session}", [Node, Region, Zone];
    /// Capacity that is left at the nodes of a zone that take rooms: without load and reservations.
    ZoneCapacityLeft = "evenkeel.zone.capacity_left", "By/s", [Region, Zone];
    /// Role of this gateway in its group: 0 joining, 1 standby, 2 spare, 3 restoring, 4 owner, 5 doubting. Absent without a
    /// group.
    GroupRole = "evenkeel.group.role", "{state}", [];
    /// Losses of redundancy in the group, as `evenkeel gateway list` shows them. Absent without a group.
    GroupWarnings = "evenkeel.group.warnings", "{warning}", [];
    /// 1 while this gateway hears the other one of its group, 0 otherwise. Absent without a group.
    GroupMemberUp = "evenkeel.group.member_up", "{state}", [Gateway];
    /// 1 while this gateway serves its group or hears the gateway that does, 0 otherwise, as while it doubts that it may send. Absent without a
    /// group.
    GroupOwned = "evenkeel.group.owned", "{state}", [];
    /// 1 while this gateway does not take over although the owner of its group is silent, 0 otherwise. Absent without a group.
    GroupBlocked = "evenkeel.group.blocked", "{state}", [];
    /// Time until a certificate that clients are shown, or a token that this gateway uses, ends; negative once it has. Absent for one without
    /// an end.
    CredentialExpiry = "evenkeel.credential.expiry", "s", [Credential, Ends];
    /// 1 while the newest content of a document is not on the disk, such as because that is full or fails; 0 otherwise.
    DocumentUnwritten = "evenkeel.document.unwritten", "{state}", [Document];
    /// Age of the oldest change that the standby of this owner has not confirmed; 0 if it has all. Grows while no standby follows. Absent at
    /// other members.
    GroupLag = "evenkeel.group.lag", "s", [];
    /// Reasons for which this standby could not continue all sessions of the owner: nodes, capacity, ports or revisions that it lacks.
    /// Rehearsed every 2 s. Absent without a group.
    GroupUnready = "evenkeel.group.unready", "{reason}", [];
    /// Rooms whose mode keeps a spare and that lack one for the death that `reserve` of their scenario, or its default, covers. Read
    /// each minute or less often.
    RoomsUnprotected = "evenkeel.rooms.unprotected", "{room}", [];
    /// Sessions that would have no node after the loss of the worst node, or of the worst zone, of the eight busiest. Read each minute or
    /// less often.
    LossUnplaced = "evenkeel.loss.unplaced", "{session}", [Scope];
    /// Sessions that would get a lower bit rate after such a loss.
    LossReduced = "evenkeel.loss.reduced", "{session}", [Scope];
    /// Rooms that would lose their spare by such a loss.
    LossUnprotected = "evenkeel.loss.unprotected", "{room}", [Scope];
    /// Breaker of a region: 0 closed, 1 open, 2 half-open.
    RegionBreaker = "evenkeel.region.breaker", "{state}", [Region];
    /// Breaker of a zone: 0 closed, 1 open, 2 half-open. Absent before the first change.
    ZoneBreaker = "evenkeel.zone.breaker", "{state}", [Region, Zone];
    /// Breaker of a group of clients: 0 closed, 1 open, 2 half-open. `other` is 1 while the breaker of any group without a configured
    /// name is not closed.
    ClientBreaker = "evenkeel.client.breaker", "{state}", [Label, LabelValue];
    /// Breaker of a provider of nodes: 0 closed, 1 open, 2 half-open. Absent before the first change.
    ProviderBreaker = "evenkeel.provider.breaker", "{state}", [Provider];
    /// 1 while a policy fails and its `on_fault` applies: from a fault, or the second late answer in a row, until a good answer or 5 minutes
    /// without a fault.
    PolicyFailing = "evenkeel.policy.failing", "{state}", [Policy];
    /// Stage of a rollout: 0 none, 1 shadow, 2 canary.
    PolicyStage = "evenkeel.policy.stage", "{state}", [Policy];
    /// 1 for the active revision of a policy, and for the one that is rolled out. Read every 10 s.
    PolicyRevision = "evenkeel.policy.revision", "{state}", [Policy, Revision, Arm];
    /// The canary's share of rooms or sessions.
    PolicyCanary = "evenkeel.policy.canary", "%", [Policy];
    /// QUIC connections of clients, including handshakes, without those that a replaced process keeps.
    QuicConnections = "evenkeel.quic.connections", "{connection}", [];
    /// Sessions with a QUIC connection.
    QuicSessions = "evenkeel.quic.sessions", "{session}", [];
    /// 1 while the shared index has the sessions of this gateway, or of the owner of its group; 0 otherwise.
    IndexCurrent = "evenkeel.index.current", "{state}", [];
    /// Share of the time of all cores that the hypervisor gave to other guests. Read every 10 s, as all of the host.
    HostSteal = "evenkeel.host.steal", "1", [];
    /// Memory that programs on the host can allocate without swapping.
    HostMemory = "evenkeel.host.memory_available", "By", [];
    /// Free space of the disk with the folder `cache`. Absent without the folder.
    HostDisk = "evenkeel.host.disk_free", "By", [];
    /// Ports that the kernel assigns, less the UDP sockets of the network namespace.
    HostPorts = "evenkeel.host.ports_left", "{port}", [];
    /// Descriptors that this process can still open.
    ProcessDescriptors = "evenkeel.process.descriptors_left", "{descriptor}", [];
    /// 1 while a dependency answers its checks, 0 otherwise. Absent until the first check of it; 1 after a reload removes it.
    DependencyUp = "evenkeel.dependency.up", "{state}", [Dependency];
    /// Spans and log lines queued for export.
    TelemetryQueued = "evenkeel.telemetry.queued", "{item}", [Signal];
}

metrics! {
    /// A histogram.
    Histogram;
    /// From an offer to the open session, by the place of its node.
    SessionOpen = "evenkeel.session.open.duration", "s", [Scenario, Region, Zone], DELAYS;
    /// From the last packet of a node that died to the first one of the next node, of each session that received media, by the place of
    /// the next node.
    SessionGap = "evenkeel.session.gap.duration", "s", [Scenario, Region, Zone], DELAYS;
    /// From the start of a move, or from the death of the node, until the room is at its new hop.
    RoomMove = "evenkeel.rooms.move.duration", "s", [Cause], DELAYS;
    /// Phases of a takeover by this gateway.
    Takeover = "evenkeel.group.takeover.duration", "s", [Phase], DELAYS;
    /// Time in the plugin for one question.
    PolicyCall = "evenkeel.policy.call.duration", "s", [Policy], PLUGIN_TIMES;
    /// From the switch to a new revision until its first answer.
    PolicyActivate = "evenkeel.policy.activate.duration", "s", [Policy], PLUGIN_TIMES;
    /// From the last packet of a node until it was marked down.
    Detection = "evenkeel.node.detection.duration", "s", [Node], DELAYS;
    /// From the call of a `start` hook until the node answered.
    NodeStart = "evenkeel.node.start.duration", "s", [Node], START_TIMES;
    /// Length of an event-loop stall.
    OwnStall = "evenkeel.event_loop.stall.duration", "s", [], DELAYS;
    /// R-factor (ITU-T G.107) of each session with measured voice, every 10 s.
    SessionR = "evenkeel.session.r_factor", "{R}", [Scenario, Region, Zone], &[30.0, 50.0, 60.0, 65.0, 70.0, 75.0, 80.0, 85.0, 90.0];
    /// Share of packets lost on the way from or to the client before repair, of each session, every 10 s.
    SessionLoss = "evenkeel.session.loss", "1", [Scenario, Region, Zone, Direction], &[0.0, 1e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5];
    /// Interarrival jitter (RFC 3550, 6.4.1), of each session, every 10 s.
    SessionJitter = "evenkeel.session.jitter", "s", [Scenario, Region, Zone, Direction], &[1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 3e-2, 5e-2, 0.1, 0.2];
}

impl Count {
    /// The counter of this name, as exported.
    pub fn of_name(name: &str) -> Option<Count> {
        Count::ALL.iter().copied().find(|it| it.described().name == name)
    }
}

impl Histogram {
    /// The histogram that Prometheus knows by this name.
    pub(crate) fn of_prometheus_name(name: &str) -> Option<Histogram> {
        Histogram::ALL.iter().copied().find(|it| it.described().prometheus_name() == name)
    }

    /// OTLP has times as exponential histograms, of any range; Prometheus has the same buckets in all versions.
    pub(crate) fn is_exponential(self) -> bool {
        self.described().unit == "s"
    }
}

/// Which spans are exported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sampled {
    /// All of them.
    Always,
    /// The configured share, and all that failed.
    Share,
}

macro_rules! spans {
    ($($(#[doc = $doc:literal])+ $name:ident = $key:literal, $sampled:ident, [$($attribute:ident),*];)*) => {
        /// A span; nothing else is traced.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Span { $($(#[doc = $doc])+ $name,)* }

        impl Span {
            /// In the order of the reference.
            pub const ALL: &[Span] = &[$(Span::$name,)*];

            /// `session.open`.
            pub const fn name(self) -> &'static str {
                match self { $(Span::$name => $key,)* }
            }

            /// The meaning, for the reference.
            pub const fn doc(self) -> &'static str {
                match self { $(Span::$name => concat!($($doc,)+).trim_ascii(),)* }
            }

            /// Sampling of a span without a parent.
            pub const fn sampled(self) -> Sampled {
                match self { $(Span::$name => Sampled::$sampled,)* }
            }

            /// The complete set of its attributes.
            pub const fn attributes(self) -> &'static [Attribute] {
                match self { $(Span::$name => &[$(Attribute::$attribute,)*],)* }
            }
        }
    };
}

spans! {
    /// From the offer of a session to its end. The other spans of the session are its descendants.
    Session = "session", Share,
        [Session, Room, RoomName, Scenario, Mode, AdmittedBy, Outcome, Reason, ErrorType];
    /// From an offer to the open session, or to its refusal.
    SessionOpen = "session.open", Share,
        [Session, Room, RoomName, Scenario, Node, Incarnation, Region, Zone, AdmittedBy, RoutedBy, Outcome, Reason, ErrorType];
    /// Admission of a session. Child of `session.open`.
    Admission = "admission", Share, [By, Outcome, Reason];
    /// A room moved to another node: a child of `session` for each of its sessions.
    SessionMove = "session.move", Share,
        [Session, Room, RoomName, Cause, By, From, Node, Incarnation, Region, Zone, Outcome];
    /// From the first degradation of a session until it has full quality again; the steps are span events.
    SessionDegraded = "session.degraded", Share, [Session, RoomName, Op, By];
    /// Impaired media of a session, by one segment of its path.
    SessionImpaired = "session.impaired", Share, [Session, RoomName, Scenario, Segment, Reason, ImpairedBy, Loss, Confidence];
    /// The session goes on at this process: an upgrade, a hand-over or a takeover.
    SessionContinued = "session.continued", Share, [Session, Cause];
    /// A question to a policy. Child of the span that waited for it, or a root span. A decision about many sessions or rooms is linked to the
    /// sessions that it degraded, or moved within 5 s.
    PolicyDecide = "policy.decide", Share,
        [Policy, Hook, Arm, Revision, Session, Room, Outcome, Reason, ErrorType, Guard, Differs, Native, Rows, Duration, DroppedLinks, Note];
    /// A rollout, from its start to activation, rollback or refusal; its steps are span events. Linked to the sessions that the revision
    /// moved or degraded meanwhile.
    PolicyRollout = "policy.rollout", Always,
        [Policy, Hook, Revision, Previous, Outcome, Reason, ErrorType, By, Sessions, DroppedLinks];
    /// A reload that had an effect or was refused.
    GatewayReload = "gateway.reload", Always, [By, Outcome, Reason, ErrorType, Nodes, DroppedNodes];
    /// Start of a node by its hook, until the node answers or the start has failed. Parent of the hook's spans.
    NodeStart = "node.start", Always, [Node, Region, Zone, Outcome, Reason, ErrorType];
    /// Stop of a node that is no longer needed, until the node is gone or the stop has failed. Parent of the hook's spans.
    NodeStop = "node.stop", Always, [Node, Region, Zone, Outcome, Reason, ErrorType];
    /// Drain of a node, from the request until it has no rooms or the deadline has passed. Linked to the sessions that left it.
    NodeDrain = "node.drain", Always, [Node, Region, Zone, Rooms, Sessions, DroppedLinks];
    /// Fault that a drill injects at a node, until it is repaired, or until the node is removed or the process ends (`unrepaired`). Linked
    /// to the sessions that left the node meanwhile.
    NodeDrill = "node.drill", Always, [Node, Region, Zone, Fault, Outcome, Sessions, DroppedLinks];
    /// From the opening of the breaker of a region, or of one of its zones, until it is closed. Linked to the sessions that opened or left
    /// there meanwhile, and to the offers that found no node.
    RegionBreaker = "region.breaker", Always, [Region, Zone, Sessions, DroppedLinks];
    /// From the opening of a breaker of clients until it is closed. Linked to the offers that it refused.
    ClientBreaker = "client.breaker", Always, [Label, LabelValue, Sessions, DroppedLinks];
    /// This process continues the sessions of another one: an upgrade, a hand-over or a takeover. Linked to the sessions.
    GatewayContinued = "gateway.continued", Always, [Cause, Sessions, DroppedLinks];
    /// From the last packet of a node until its rooms have moved. Linked to the moved sessions.
    NodeFailover = "node.failover", Always,
        [Node, Incarnation, Region, Zone, Witness, Rooms, Sessions, DroppedLinks];
}

#[cfg(test)]
mod tests;
