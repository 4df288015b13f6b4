//! Every metric, span and attribute there is. What is not here cannot be recorded, so the list is complete.
//!
//! There are no semantic conventions for media gateways; ours begin with `evenkeel.`, or `media.` where they would
//! fit any gateway. Units are UCUM, base units only.

/// A metric as it is listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Described {
    /// Its OpenTelemetry name.
    pub name: &'static str,
    /// Its unit (UCUM).
    pub unit: &'static str,
    /// What it says.
    pub doc: &'static str,
    /// What its points are told apart by; no others.
    pub attributes: &'static [Attribute],
}

macro_rules! attributes {
    ($($(#[doc = $doc:literal])+ $name:ident = $key:literal;)*) => {
        /// What spans and points of metrics say about themselves.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Attribute { $($(#[doc = $doc])+ $name,)* }

        impl Attribute {
            /// All of them.
            pub const ALL: &[Attribute] = &[$(Attribute::$name,)*];

            /// Its key: `evenkeel.scenario`.
            pub const fn key(self) -> &'static str {
                match self { $(Attribute::$name => $key,)* }
            }

            /// What it says.
            pub const fn doc(self) -> &'static str {
                match self { $(Attribute::$name => concat!($($doc,)+).trim_ascii(),)* }
            }
        }
    };
}

attributes! {
    /// Who admitted a session: a policy, `native` or `operator`.
    AdmittedBy = "evenkeel.admitted_by";
    /// Who decided: a policy, `native` or `operator`; of a rollout `file`, `signal`, `operator` or `gateway`.
    By = "evenkeel.by";
    /// Why a room moved: `node-down`, `link`, `quality`…
    Cause = "evenkeel.cause";
    /// Whether a decision differs from what the native default would have done.
    Differs = "evenkeel.differs";
    /// `up` from the client, `down` to it.
    Direction = "evenkeel.direction";
    /// How a plugin failed: `deadline`, `trap`…
    Fault = "evenkeel.fault";
    /// A native rule that a decision broke: `churn`…
    Guard = "evenkeel.guard";
    /// A kind of question: `routing`…
    Hook = "evenkeel.hook";
    /// A node from coming Up to its next Down, counted from 1.
    Incarnation = "evenkeel.incarnation";
    /// Sessions or rooms that a span could not be linked to: unsampled, or too many.
    DroppedLinks = "evenkeel.dropped_links";
    /// How a room survives the death of its node: `hot`, `hitless`…
    Mode = "evenkeel.mode";
    /// A node's name.
    Node = "evenkeel.node";
    /// What a plugin wrote down about a decision; the note's key follows.
    Note = "evenkeel.note";
    /// A degradation action: `cap`, `voice-only`.
    Op = "evenkeel.op";
    /// What became of it.
    Outcome = "evenkeel.outcome";
    /// `<set>/<hook>`.
    Policy = "evenkeel.policy";
    /// The revision before.
    Previous = "evenkeel.previous";
    /// Why.
    Reason = "evenkeel.reason";
    /// A region's name.
    Region = "evenkeel.region";
    /// A revision of a policy: first 12 hexadecimal digits of its digest.
    Revision = "evenkeel.revision";
    /// A room's number on this gateway: `r7`.
    Room = "evenkeel.room";
    /// A room's name, as the client's signalling knows it.
    RoomName = "evenkeel.room_name";
    /// Rooms.
    Rooms = "evenkeel.rooms";
    /// Who placed a room: a policy, `native` or `operator`.
    RoutedBy = "evenkeel.routed_by";
    /// Rows in a question.
    Rows = "evenkeel.rows";
    /// A scenario's name.
    Scenario = "evenkeel.scenario";
    /// A session's number on this gateway: `s17`.
    Session = "evenkeel.session";
    /// Sessions.
    Sessions = "evenkeel.sessions";
    /// `spans`, `logs`, `metrics` or `events`.
    Signal = "evenkeel.signal";
    /// Time in the plugin, in seconds.
    Duration = "evenkeel.duration";
    /// What was counted.
    Event = "evenkeel.event";
    /// A source of evidence about a node: `probe`, `silence`…
    Witness = "evenkeel.witness";
    /// A zone's name.
    Zone = "evenkeel.zone";
}

macro_rules! metrics {
    ($(#[$enum_doc:meta])* $enum:ident;
     $($(#[doc = $doc:literal])+ $name:ident = $key:literal, $unit:literal, [$($attribute:ident),*];)*) => {
        $(#[$enum_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $enum { $($(#[doc = $doc])+ $name,)* }

        impl $enum {
            /// All of them, in the order of their numbers.
            pub const ALL: &[$enum] = &[$($enum::$name,)*];

            /// Its entry.
            pub const fn described(self) -> Described {
                match self {
                    $($enum::$name => Described {
                        name: $key,
                        unit: $unit,
                        doc: concat!($($doc,)+).trim_ascii(),
                        attributes: &[$(Attribute::$attribute,)*],
                    },)*
                }
            }
        }
    };
}

metrics! {
    /// What only grows.
    Count;
    /// Sessions that came to life.
    SessionsOpened = "evenkeel.sessions.opened", "{session}", [Scenario];
    /// Offers that were refused.
    SessionsRefused = "evenkeel.sessions.refused", "{session}", [Scenario, Reason];
    /// Sessions that ended.
    SessionsClosed = "evenkeel.sessions.closed", "{session}", [Reason];
    /// Sessions that went to another hop with their room.
    SessionsMoved = "evenkeel.sessions.moved", "{session}", [Cause];
    /// Rooms that went to another hop.
    RoomsMoved = "evenkeel.rooms.moved", "{room}", [Cause, By];
    /// Moves that were aborted, by outcome: `target-lost`, `superseded`…
    MovesAborted = "evenkeel.moves.aborted", "{move}", [Cause, Outcome];
    /// Rooms without a usable hop.
    RoomsStranded = "evenkeel.rooms.stranded", "{room}", [Cause];
    /// Rooms whose spares changed.
    RoomsRerouted = "evenkeel.rooms.rerouted", "{room}", [By];
    /// Rooms that went on in another mode, by the mode they have now.
    RoomModes = "evenkeel.rooms.mode_changes", "{room}", [Mode, Reason];
    /// Hops removed from a route while their node was up: not opened there, port closed, flow lost.
    HopsRemoved = "evenkeel.hops.removed", "{hop}", [Node, Reason];
    /// Nodes marked down.
    NodeFailures = "evenkeel.node.failures", "{failure}", [Node];
    /// Nodes that their hooks were to start: `starting`, `failed`, `ready`.
    NodeStarts = "evenkeel.node.starts", "{start}", [Node, Outcome];
    /// Witnesses that stood against a node when it was condemned.
    NodeWitnesses = "evenkeel.node.witnesses", "{witness}", [Node, Witness];
    /// Signed messages refused by the gateway or by a node: `clock` or `secret`.
    NodeMessagesRefused = "evenkeel.node.messages_refused", "{message}", [Reason];
    /// Questions that were concluded.
    PolicyCalls = "evenkeel.policy.calls", "{call}", [Policy, Outcome];
    /// Decisions that the native default would have made otherwise.
    PolicyDiffers = "evenkeel.policy.differs", "{decision}", [Policy];
    /// Plugins failing us.
    PolicyFaults = "evenkeel.policy.faults", "{fault}", [Policy, Fault];
    /// Decisions, or parts of one, that broke a native rule.
    PolicyGuarded = "evenkeel.policy.guarded", "{decision}", [Policy, Guard];
    /// Sessions and rooms that a revision is not asked about any more, since it fails over them; by how it does.
    PolicyQuarantined = "evenkeel.policy.quarantined", "{subject}", [Policy, Fault];
    /// Revisions that were to come in, and their steps: `started`, `advanced`, `activated`, `rolled-back` and the like.
    PolicyRollouts = "evenkeel.policy.rollouts", "{rollout}", [Policy, Outcome];
    /// Revisions that did not come in, by the word for why: `unsigned`, `proof-failed` and the like.
    PolicyRefusals = "evenkeel.policy.refusals", "{rollout}", [Policy, Reason];
    /// Changes of a session's quality.
    Degradations = "evenkeel.degradations", "{action}", [Op, By];
    /// Our own stalls: nobody was condemned on them.
    OwnStalls = "evenkeel.event_loop.stalls", "{stall}", [];
    /// Times that most nodes fell silent at once, and nobody was condemned for it: our own uplink is doubted.
    UplinkSuspicions = "evenkeel.uplink.suspicions", "{suspicion}", [];
    /// Media packets forwarded.
    Packets = "media.packets", "{packet}", [Direction];
    /// Bytes of the media packets forwarded.
    Bytes = "media.traffic", "By", [Direction];
    /// Packets not forwarded.
    PacketsDropped = "media.packets.dropped", "{packet}", [Reason];
    /// Key frames asked for.
    KeyFrameRequests = "media.key_frame_requests", "{request}", [Direction];
    /// What the QUIC endpoint counted, such as `handshakes-failed` or `sent-datagrams`.
    QuicCounts = "evenkeel.quic.counts", "{event}", [Event];
    /// Spans, log lines and collections of metrics that a receiver took.
    TelemetrySent = "evenkeel.telemetry.sent", "{item}", [Signal];
    /// Spans, log lines and collections of metrics that were given up: the queue was full, or the receiver did not
    /// take them. And events of which nothing was made, since there were too many at once.
    TelemetryDropped = "evenkeel.telemetry.dropped", "{item}", [Signal, Reason];
    /// Attempts to send that failed.
    TelemetryFailures = "evenkeel.telemetry.failures", "{attempt}", [Signal];
}

metrics! {
    /// What is so now.
    Level;
    /// Sessions alive.
    SessionsActive = "evenkeel.sessions.active", "{session}", [];
    /// Health of a node: 0 Up, 1 Suspect, 2 Wary, 3 Down, 4 Cold.
    NodeHealth = "evenkeel.node.health", "{state}", [Node];
    /// 1 while our own uplink is doubted, since most nodes fell silent at once.
    UplinkSuspect = "evenkeel.uplink.suspect", "{state}", [];
    /// 1 where a node is being drained.
    NodeDraining = "evenkeel.node.draining", "{state}", [Node];
    /// Breaker of a region: 0 closed, 1 open, 2 half-open.
    RegionBreaker = "evenkeel.region.breaker", "{state}", [Region];
    /// 1 while a policy fails and what its set says for that case is in force.
    PolicyFailing = "evenkeel.policy.failing", "{state}", [Policy];
    /// How far a revision of a policy is on its way: 0 none is, 1 in shadow, 2 it decides for a share.
    PolicyStage = "evenkeel.policy.stage", "{state}", [Policy];
    /// The share of rooms or sessions that a revision on its way decides for.
    PolicyCanary = "evenkeel.policy.canary", "%", [Policy];
    /// Connections of clients over QUIC, those in their handshake among them.
    QuicConnections = "evenkeel.quic.connections", "{connection}", [];
    /// Sessions whose client is connected over QUIC.
    QuicSessions = "evenkeel.quic.sessions", "{session}", [];
    /// Spans and log lines waiting to be sent.
    TelemetryQueued = "evenkeel.telemetry.queued", "{item}", [Signal];
}

metrics! {
    /// How long something took, in seconds.
    Time;
    /// From an offer to a session that may send.
    SessionOpen = "evenkeel.session.open.duration", "s", [Scenario];
    /// Time in the plugin for one question.
    PolicyCall = "evenkeel.policy.call.duration", "s", [Policy];
    /// From the switch to a new revision to its first answer.
    PolicyActivate = "evenkeel.policy.activate.duration", "s", [Policy];
    /// From the last sign of life of a node to its being condemned.
    Detection = "evenkeel.node.detection.duration", "s", [Node];
    /// From the call of a node's hook until the node answered.
    NodeStart = "evenkeel.node.start.duration", "s", [Node];
    /// How late we were ourselves.
    OwnStall = "evenkeel.event_loop.stall.duration", "s", [];
}

impl Time {
    /// Upper bounds of the histogram's buckets, in seconds.
    pub const fn bounds(self) -> &'static [f64] {
        match self {
            Time::PolicyCall | Time::PolicyActivate => {
                &[1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2]
            }
            Time::NodeStart => &[0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 300.0],
            Time::SessionOpen | Time::Detection | Time::OwnStall => {
                &[1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 3e-2, 4e-2, 6e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0]
            }
        }
    }
}

/// How a span is chosen to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sampled {
    /// Every one.
    Always,
    /// The share that the settings say; every one that did not go well.
    Share,
}

macro_rules! spans {
    ($($(#[doc = $doc:literal])+ $name:ident = $key:literal, $sampled:ident, [$($attribute:ident),*];)*) => {
        /// A kind of span.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Span { $($(#[doc = $doc])+ $name,)* }

        impl Span {
            /// All of them.
            pub const ALL: &[Span] = &[$(Span::$name,)*];

            /// Its name: `session.open`.
            pub const fn name(self) -> &'static str {
                match self { $(Span::$name => $key,)* }
            }

            /// What it covers.
            pub const fn doc(self) -> &'static str {
                match self { $(Span::$name => concat!($($doc,)+).trim_ascii(),)* }
            }

            /// How it is chosen, where it has no parent.
            pub const fn sampled(self) -> Sampled {
                match self { $(Span::$name => Sampled::$sampled,)* }
            }

            /// What it may say about itself; no others.
            pub const fn attributes(self) -> &'static [Attribute] {
                match self { $(Span::$name => &[$(Attribute::$attribute,)*],)* }
            }
        }
    };
}

spans! {
    /// From an offer to a session that may send, or to its refusal.
    SessionOpen = "session.open", Share,
        [Session, Room, RoomName, Scenario, Node, Incarnation, Region, Zone, AdmittedBy, RoutedBy, Outcome, Reason];
    /// Whether a session may come in. Child of `session.open`.
    Admission = "admission", Share, [By, Outcome, Reason];
    /// A question to a policy. Child of what waited for it, or by itself.
    PolicyDecide = "policy.decide", Share,
        [Policy, Hook, Revision, Outcome, Reason, Fault, Guard, Differs, Rows, Duration, Note];
    /// A new revision of a policy, from its arrival to its activation or refusal; its steps are events.
    PolicyRollout = "policy.rollout", Always, [Policy, Hook, Revision, Previous, Outcome, Reason, By];
    /// From the last sign of life of a node to its rooms having moved. Linked to the `session.open` of sessions it moved.
    NodeFailover = "node.failover", Always,
        [Node, Incarnation, Region, Zone, Witness, Rooms, Sessions, DroppedLinks];
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn all() -> Vec<Described> {
        let counts = Count::ALL.iter().map(|metric| metric.described());
        let levels = Level::ALL.iter().map(|metric| metric.described());
        counts.chain(levels).chain(Time::ALL.iter().map(|metric| metric.described())).collect()
    }

    #[test]
    fn every_name_is_there_once_and_says_what_it_is() {
        let metrics = all();
        let names: BTreeSet<_> = metrics.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), metrics.len());
        for Described { name, unit, doc, .. } in metrics {
            assert!(name.starts_with("evenkeel.") || name.starts_with("media."), "{name}");
            assert!(!unit.is_empty() && doc.ends_with('.'), "{name}: {unit}: {doc}");
        }
        let keys: BTreeSet<_> = Attribute::ALL.iter().map(|attribute| attribute.key()).collect();
        assert_eq!(keys.len(), Attribute::ALL.len());
        let spans: BTreeSet<_> = Span::ALL.iter().map(|span| span.name()).collect();
        assert_eq!(spans.len(), Span::ALL.len());
    }

    #[test]
    fn every_attribute_is_used_and_its_key_is_ours() {
        let metrics = all();
        for attribute in Attribute::ALL {
            let in_metrics = metrics.iter().any(|metric| metric.attributes.contains(attribute));
            let in_spans = Span::ALL.iter().any(|span| span.attributes().contains(attribute));
            assert!(in_metrics || in_spans, "{attribute:?}");
            assert!(attribute.key().starts_with("evenkeel."), "{attribute:?}");
        }
    }

    #[test]
    fn few_labels_tell_the_points_of_a_metric_apart() {
        let unbounded = [
            Attribute::Session,
            Attribute::Room,
            Attribute::RoomName,
            Attribute::Revision,
            Attribute::Previous,
        ];
        for metric in all() {
            assert!(metric.attributes.len() <= 2, "{}", metric.name);
            assert!(!metric.attributes.iter().any(|a| unbounded.contains(a)), "{}", metric.name);
        }
    }

    #[test]
    fn buckets_grow() {
        for time in Time::ALL {
            assert!(time.bounds().is_sorted_by(|a, b| a < b), "{time:?}");
            assert_eq!(time.described().unit, "s");
        }
    }
}
