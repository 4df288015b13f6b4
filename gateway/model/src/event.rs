//! Events of the core. Telemetry turns them into metrics, spans and log lines.

pub(crate) mod breach;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::ask::{Arm, DecisionNote, DecisionOutcome, GuardRule, Hook, PluginFault, PolicyName};
use crate::event::breach::Breach;
use crate::forwarding::Hop;
use crate::id::{AskId, NodeId, OfferId, RegionId, RoomId, SessionId};
use crate::offer::{ClientTransport, Decider, OfferRefusal};
use crate::registry::Op;
use crate::settings::RedundancyMode;

/// A node's health, as this gateway sees it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u32)]
pub enum Health {
    Up = 0,
    /// One witness accuses the node. New rooms avoid it.
    Suspect = 1,
    /// The node is back from Down with a new incarnation, and is not trusted yet.
    Wary = 2,
    /// The node carries nothing. This state is final for the incarnation.
    Down = 3,
    /// The node does not run. A hook can start it.
    Cold = 4,
}

impl Health {
    /// The word in metrics and records: `suspect`.
    pub fn name(self) -> &'static str {
        match self {
            Health::Up => "up",
            Health::Suspect => "suspect",
            Health::Wary => "wary",
            Health::Down => "down",
            Health::Cold => "cold",
        }
    }
}

/// A source of evidence about a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EvidenceSource {
    /// The kernel says that no process listens there.
    KernelError,
    /// The media port of the node did not answer probes.
    Probe,
    /// No media came from the node while the gateway sent media to it.
    Silence,
    /// The agent beside the node reports that its process ended. This witness alone marks the node down at once.
    Agent,
    /// The node keeps the canary sessions open but forwards no packets between them.
    Canary,
    /// More rooms lose packets at this node than at its siblings, the nodes of its region that carry the same scenario.
    Cohort,
    /// Most rooms lose packets at this node according to gateway and node, and it has no siblings to compare.
    Feedback,
    /// An operator ejected the node.
    Operator,
}

impl EvidenceSource {
    pub const ALL: [EvidenceSource; 8] = [
        EvidenceSource::KernelError,
        EvidenceSource::Probe,
        EvidenceSource::Silence,
        EvidenceSource::Agent,
        EvidenceSource::Canary,
        EvidenceSource::Cohort,
        EvidenceSource::Feedback,
        EvidenceSource::Operator,
    ];

    /// Returns true if the witness reports loss. Loss alone never marks a node down.
    pub fn is_of_loss(self) -> bool {
        matches!(self, EvidenceSource::Cohort | EvidenceSource::Feedback)
    }

    /// Returns true if the witness is a report. The others are missing packets, which a broken uplink also causes.
    pub fn speaks(self) -> bool {
        matches!(
            self,
            EvidenceSource::KernelError | EvidenceSource::Agent | EvidenceSource::Operator
        )
    }

    /// The word in metrics and records: `kernel-error`.
    pub fn name(self) -> &'static str {
        match self {
            EvidenceSource::KernelError => "kernel-error",
            EvidenceSource::Probe => "probe",
            EvidenceSource::Silence => "silence",
            EvidenceSource::Agent => "agent",
            EvidenceSource::Operator => "operator",
            EvidenceSource::Canary => "canary",
            EvidenceSource::Cohort => "cohort",
            EvidenceSource::Feedback => "feedback",
        }
    }
}

/// Why a hop left the route of one room although its node is up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Strike {
    /// The node did not open a session.
    NotOpened,
    /// The kernel reports that the port of a session at the node is closed.
    PortClosed,
    /// A session stopped receiving from the node although the other participants still send.
    FlowLost,
}

impl Strike {
    /// The word in metrics and records: `flow-lost`.
    pub fn name(self) -> &'static str {
        match self {
            Strike::NotOpened => "not-opened",
            Strike::PortClosed => "port-closed",
            Strike::FlowLost => "flow-lost",
        }
    }
}

/// Why a room moved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
pub enum MoveCause {
    /// The node of the room was marked down.
    NodeDown,
    /// The hop did not carry this room although its node is up.
    Link,
    /// A policy found a better node.
    Quality,
    /// An operator moved the room.
    Manual,
    /// The node of the room is draining.
    Drain,
    /// A preferred node is back.
    Failback,
}

impl MoveCause {
    /// The word in metrics and records: `node-down`.
    pub fn name(self) -> &'static str {
        match self {
            MoveCause::NodeDown => "node-down",
            MoveCause::Link => "link",
            MoveCause::Quality => "quality",
            MoveCause::Manual => "manual",
            MoveCause::Drain => "drain",
            MoveCause::Failback => "failback",
        }
    }
}

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CloseReason {
    /// The API closed it.
    Requested,
    /// No packet came from the client for `close_after` of the scenario.
    MediaTimeout,
    /// The gateway shuts down.
    Shutdown,
    /// No node opened it, or no route was found.
    NotOpened,
    /// A worker panicked on one of its packets. Only that session is closed.
    Panicked,
}

impl CloseReason {
    /// The word in metrics and records: `media-timeout`.
    pub fn name(self) -> &'static str {
        match self {
            CloseReason::Requested => "requested",
            CloseReason::MediaTimeout => "media-timeout",
            CloseReason::Shutdown => "shutdown",
            CloseReason::NotOpened => "not-opened",
            CloseReason::Panicked => "panicked",
        }
    }
}

/// A session at its end.
#[derive(Clone, PartialEq, Debug)]
pub struct ClosedSession {
    pub scenario: Arc<str>,
    pub mode: RedundancyMode,
    pub transport: ClientTransport,
    pub admitted_by: Arc<Decider>,
    pub offered: Instant,
    pub ended: Instant,
    /// Causes of completed moves since the offer, oldest first, as far as the room remembers them.
    pub moves: Vec<MoveCause>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartPhase {
    /// The start hook is called.
    Begun {
        /// Counts attempts since the node last ran, from 1.
        attempt: u32,
    },
    Failed {
        why: NotStarted,
        /// Delay before the next attempt.
        again: Duration,
    },
    Done {
        /// Time since the hook was called.
        took: Duration,
    },
}

impl StartPhase {
    /// The word in metrics and records: `starting`.
    pub fn name(self) -> &'static str {
        match self {
            StartPhase::Begun { .. } => "starting",
            StartPhase::Failed { .. } => "failed",
            StartPhase::Done { .. } => "ready",
        }
    }
}

/// Why a node was not started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotStarted {
    /// The start hook failed.
    Hook,
    /// The node did not answer within its start timeout.
    Late,
    /// An operator ejected the node during the start.
    Ejected,
    /// The node was removed from the list during the start.
    Removed,
}

impl NotStarted {
    /// The word in metrics and records: `hook-failed`.
    pub fn name(self) -> &'static str {
        match self {
            NotStarted::Hook => "hook-failed",
            NotStarted::Late => "late",
            NotStarted::Ejected => "ejected",
            NotStarted::Removed => "removed",
        }
    }
}

/// Why the mode of a room changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ModeChange {
    /// The configuration of the scenario changed.
    Scenario,
    /// Two hops delivered different packets: these nodes do not preserve SSRC, sequence number and payload.
    CopiesDiffer { hops: [Hop; 2] },
    /// A second hop with capacity for the room is missing, or is available again.
    Capacity,
}

impl ModeChange {
    /// The word in metrics and records: `copies-differ`.
    pub fn name(self) -> &'static str {
        match self {
            ModeChange::Scenario => "scenario",
            ModeChange::CopiesDiffer { .. } => "copies-differ",
            ModeChange::Capacity => "capacity",
        }
    }
}

#[derive(Clone, PartialEq, Debug)]
pub enum CoreEvent {
    /// A question to a policy was decided.
    Decided {
        ask: AskId,
        policy: PolicyName,
        arm: Arm,
        /// The revision that answered; `None` after a fault.
        revision: Option<Arc<str>>,
        outcome: DecisionOutcome,
        /// The reason that the plugin gave, for a question about one subject.
        reason: Option<Arc<str>>,
        /// The session of a question about one session.
        session: Option<SessionId>,
        /// The room of a question about one room.
        room: Option<RoomId>,
        rows: u32,
        asked: Instant,
        /// Time in the plugin; zero after a fault.
        took: Duration,
        notes: Vec<DecisionNote>,
    },
    /// Part of a decision broke a rule and was not applied.
    Guarded { policy: PolicyName, guard: GuardRule, times: u32 },
    /// A revision faults on a session or room and is no longer asked about it. The subject stays as it is.
    Quarantined {
        policy: PolicyName,
        /// The revision that faults. Other revisions are still asked.
        revision: Arc<str>,
        session: Option<SessionId>,
        room: Option<RoomId>,
        fault: PluginFault,
    },
    /// A plugin answered differently from a fresh instance of it, so it keeps state between questions.
    HiddenState {
        policy: PolicyName,
        revision: Arc<str>,
        /// The difference between the answers.
        differs: Box<str>,
    },
    /// A session is open.
    Opened {
        session: SessionId,
        room: RoomId,
        room_name: Arc<str>,
        scenario: Arc<str>,
        hop: Hop,
        offered: Instant,
        admitted_by: Decider,
        routed_by: Decider,
    },
    Refused {
        offer: OfferId,
        /// The session and room of the offer, if they were created.
        session: Option<(SessionId, RoomId)>,
        scenario: Arc<str>,
        reason: OfferRefusal,
    },
    /// A session ended.
    Closed {
        session: SessionId,
        room: RoomId,
        room_name: Arc<str>,
        reason: CloseReason,
        closed: Box<ClosedSession>,
    },
    /// A room moved to another hop.
    Moved {
        room: RoomId,
        room_name: Arc<str>,
        sessions: Vec<SessionId>,
        cause: MoveCause,
        by: Decider,
        from: Hop,
        /// `None` if no hop was usable; the core keeps looking.
        to: Option<Hop>,
        started: Instant,
    },
    /// A move was aborted. The room stays at its hop.
    MoveEnded {
        room: RoomId,
        room_name: Arc<str>,
        /// Why the move began.
        cause: MoveCause,
        by: Decider,
        from: Hop,
        to: Hop,
        started: Instant,
        /// Why the move was aborted.
        outcome: MoveOutcome,
    },
    /// A standby of a room changed. The first hop stays.
    Rerouted {
        room: RoomId,
        /// The hops, best first.
        hops: Vec<Hop>,
        by: Decider,
    },
    /// A hop left the route of a room although its node is up.
    HopRemoved {
        room: RoomId,
        room_name: Arc<str>,
        hop: Hop,
        why: Strike,
        /// The session that gave the evidence, if it was one session.
        session: Option<SessionId>,
    },
    /// A node's health changed.
    Node {
        /// The node and its incarnation.
        hop: Hop,
        from: Health,
        to: Health,
        witnesses: Vec<(EvidenceSource, Instant)>,
        last_heard: Option<Instant>,
        /// Rooms at the node.
        rooms: u32,
    },
    /// A step in the start of a cold node.
    Start { node: NodeId, step: StartPhase },
    /// The mode of a room changed.
    Mode {
        room: RoomId,
        room_name: Arc<str>,
        /// The mode before.
        from: RedundancyMode,
        /// The mode it has now.
        to: RedundancyMode,
        why: ModeChange,
    },
    /// The drain of a node began or ended.
    Draining { node: NodeId, draining: bool },
    /// A draining node is empty, or its deadline passed.
    Drained {
        node: NodeId,
        /// Rooms that fit on no other node. They stay until they do.
        left: u32,
        started: Instant,
    },
    /// The state of a regional breaker changed.
    Breaker {
        region: RegionId,
        from: BreakerState,
        to: BreakerState,
        /// Sessions measured within the last second.
        sessions: u32,
        /// Sessions with bad media.
        bad: u32,
        /// Sessions opened in the region within the last second.
        opened: u32,
        /// Sessions that failed to open within the last second.
        failed: u32,
    },
    /// The quality of a session changed.
    Degraded {
        session: SessionId,
        room_name: Arc<str>,
        op: Op,
        arg: u64,
        /// The rung after the change; 0 is undegraded.
        rung: u8,
        by: Decider,
    },
    /// The control loop stalled. Every deadline moved by `late`, and no node was marked down.
    OwnStall { late: Duration },
    /// Most nodes fell silent at once, so the uplink of the gateway is suspected and no node is marked down for silence;
    /// or the suspicion ended.
    Uplink {
        doubted: bool,
        silent: u32,
        /// Nodes that were heard before.
        of: u32,
    },
    /// A policy began to fail, or answers again.
    Standing {
        hook: Hook,
        policy: PolicyName,
        /// The fault; `None` if the policy answers again.
        fault: Option<PluginFault>,
    },
    /// A candidate, or an active revision that can be rolled back, exceeded a threshold of its judge.
    Breached { policy: PolicyName, revision: Arc<str>, breach: Breach },
    /// The gateway admits no more sessions.
    ShuttingDown,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
pub enum MoveOutcome {
    /// The room is at its target.
    Done,
    /// No hop was usable; the core keeps looking.
    Stranded,
    /// Another move replaced this one.
    Superseded,
    /// The target was marked down before the move completed.
    TargetLost,
    /// The target did not open the sessions.
    NotOpened,
    /// The room moved too often within a minute.
    Damped,
    /// The room ended.
    Closed,
}

impl MoveOutcome {
    /// The word in metrics and records: `target-lost`.
    pub fn name(self) -> &'static str {
        match self {
            MoveOutcome::Done => "completed",
            MoveOutcome::Stranded => "stranded",
            MoveOutcome::Superseded => "superseded",
            MoveOutcome::TargetLost => "target-lost",
            MoveOutcome::NotOpened => "not-opened",
            MoveOutcome::Damped => "damped",
            MoveOutcome::Closed => "closed",
        }
    }
}

/// State of a regional breaker, which decides on new rooms.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u32)]
pub enum BreakerState {
    Closed = 0,
    /// New rooms are placed in other regions or refused.
    Open = 1,
    /// A share of new rooms is admitted.
    HalfOpen = 2,
}

impl BreakerState {
    /// The word in metrics and records: `half-open`.
    pub fn name(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half-open",
        }
    }
}
