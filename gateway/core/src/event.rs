//! Everything worth knowing, one enum. Telemetry makes metrics, spans and log lines of it.

mod breach;
mod outcome;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use breach::{Breach, Count, Figure};
pub use outcome::{Guard, Outcome};

use crate::{
    Arm, AskId, Decider, Fault, Hook, Hop, Mode, NodeId, Note, OfferId, Op, PolicyName, Refused,
    RegionId, RoomId, SessionId,
};

/// A node's health, as this gateway sees it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u32)]
pub enum Health {
    Up = 0,
    /// One witness accuses it: new rooms avoid it.
    Suspect = 1,
    /// Back from Down, as a new incarnation, not yet trusted.
    Wary = 2,
    /// Carries nothing; for this incarnation for ever.
    Down = 3,
    /// Does not run, and a hook would start it.
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
pub enum Witness {
    /// The kernel says that no process listens there.
    KernelError,
    /// Its media port did not answer our probes.
    Probe,
    /// Nothing came from it while we were sending.
    Silence,
    /// The agent beside it says that its process is gone. It condemns alone, and at once.
    Agent,
    /// It keeps our own sessions open, and forwards nothing between them.
    Canary,
    /// More rooms lose packets there than at its siblings: nodes of its region that carry rooms of the same scenario.
    Cohort,
    /// Most rooms lose packets there, as we and the node itself see it, and it has no siblings to compare it with.
    Feedback,
    /// A person says so.
    Operator,
}

impl Witness {
    pub const ALL: [Witness; 8] = [
        Witness::KernelError,
        Witness::Probe,
        Witness::Silence,
        Witness::Agent,
        Witness::Canary,
        Witness::Cohort,
        Witness::Feedback,
        Witness::Operator,
    ];

    /// The witness reports loss, which is no death.
    pub fn is_of_loss(self) -> bool {
        matches!(self, Witness::Cohort | Witness::Feedback)
    }

    /// The witness is a report. The others are silences, which our own uplink may cause.
    pub fn speaks(self) -> bool {
        matches!(self, Witness::KernelError | Witness::Agent | Witness::Operator)
    }

    /// The word in metrics and records: `kernel-error`.
    pub fn name(self) -> &'static str {
        match self {
            Witness::KernelError => "kernel-error",
            Witness::Probe => "probe",
            Witness::Silence => "silence",
            Witness::Agent => "agent",
            Witness::Operator => "operator",
            Witness::Canary => "canary",
            Witness::Cohort => "cohort",
            Witness::Feedback => "feedback",
        }
    }
}

/// Why a hop left the route of one room, though its node lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Strike {
    /// It did not open a session.
    NotOpened,
    /// The kernel says that its port for a session is closed.
    PortClosed,
    /// A session of it hears nothing any more, though it heard its node steadily and the others go on sending.
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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cause {
    /// Its node died.
    NodeDown,
    /// The hop did not carry this room, though its node lives.
    Link,
    /// A policy found a better node.
    Quality,
    /// A person asked for it.
    Manual,
    /// Its node is being drained.
    Drain,
    /// A better node is back.
    Failback,
}

impl Cause {
    /// The word in metrics and records: `node-down`.
    pub fn name(self) -> &'static str {
        match self {
            Cause::NodeDown => "node-down",
            Cause::Link => "link",
            Cause::Quality => "quality",
            Cause::Manual => "manual",
            Cause::Drain => "drain",
            Cause::Failback => "failback",
        }
    }
}

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CloseReason {
    /// Through the API.
    Requested,
    /// Nothing came from it for its scenario's `close_after`.
    MediaTimeout,
    /// The gateway shut down.
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

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// Its hook is called.
    Begun {
        /// Counts attempts since the node last ran, from 1.
        attempt: u32,
    },
    Failed {
        why: NotStarted,
        /// The wait before the next try.
        again: Duration,
    },
    Done {
        /// Since its hook was called.
        took: Duration,
    },
}

impl Start {
    /// The word in metrics and records: `starting`.
    pub fn name(self) -> &'static str {
        match self {
            Start::Begun { .. } => "starting",
            Start::Failed { .. } => "failed",
            Start::Done { .. } => "ready",
        }
    }
}

/// Why a node was not started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotStarted {
    /// Its hook failed.
    Hook,
    /// It did not answer within the time it has.
    Late,
    /// An operator ejected it meanwhile.
    Ejected,
    /// It was taken off the list meanwhile.
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

/// Why a room goes on in another mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ModeChange {
    /// Its scenario says so now.
    Scenario,
    /// Two hops delivered packets that are no copies of each other: these nodes do not keep SSRC, sequence number and
    /// payload.
    CopiesDiffer { hops: [Hop; 2] },
    /// A second hop that can carry it, or keep capacity for it, is missing, or there again: of a hitless room this is what
    /// it keeps of its mode now.
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

/// Everything worth knowing.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// A question was decided, one way or another.
    Decided {
        ask: AskId,
        policy: PolicyName,
        arm: Arm,
        /// The revision that answered; none where it faulted.
        revision: Option<Arc<str>>,
        outcome: Outcome,
        /// The plugin's word for its reason, where it was about one and gave one.
        reason: Option<Arc<str>>,
        /// The session it was about, where it was about one.
        session: Option<SessionId>,
        /// The room it was about, where it was about one.
        room: Option<RoomId>,
        rows: u32,
        asked: Instant,
        /// Time in the plugin; zero where it faulted.
        took: Duration,
        notes: Vec<Note>,
    },
    /// Part of a decision broke a rule and was left out.
    Guarded { policy: PolicyName, guard: Guard, times: u32 },
    /// A revision faults on a session or room and is no longer asked about it, which stays as it is.
    Quarantined {
        policy: PolicyName,
        /// Its revision; another one is asked again.
        revision: Arc<str>,
        session: Option<SessionId>,
        room: Option<RoomId>,
        fault: Fault,
    },
    /// A plugin answered otherwise than a fresh instance of it: it keeps something to itself between questions.
    HiddenState {
        policy: PolicyName,
        revision: Arc<str>,
        /// In what the answers differ.
        differs: Box<str>,
    },
    /// A session may send.
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
        /// The session it was to become, and its room, where it came that far.
        session: Option<(SessionId, RoomId)>,
        scenario: Arc<str>,
        reason: Refused,
    },
    /// A session ended.
    Closed { session: SessionId, room: RoomId, room_name: Arc<str>, reason: CloseReason },
    /// A room moved to another hop.
    Moved {
        room: RoomId,
        room_name: Arc<str>,
        sessions: Vec<SessionId>,
        cause: Cause,
        by: Decider,
        from: Hop,
        /// None: no hop was left, the core looks for one.
        to: Option<Hop>,
        started: Instant,
    },
    /// A move that was under way was given up: the room is where it was.
    MoveEnded {
        room: RoomId,
        room_name: Arc<str>,
        /// Why it was to move.
        cause: Cause,
        by: Decider,
        from: Hop,
        to: Hop,
        started: Instant,
        /// Why it was given up.
        outcome: MoveOutcome,
    },
    /// A spare of a room changed; its packets go where they went.
    Rerouted {
        room: RoomId,
        /// Its hops, best first.
        hops: Vec<Hop>,
        by: Decider,
    },
    /// A hop left a room's route, though its node lives.
    HopRemoved {
        room: RoomId,
        room_name: Arc<str>,
        hop: Hop,
        why: Strike,
        /// The session that it is known by, where it is one.
        session: Option<SessionId>,
    },
    /// A node's health changed.
    Node {
        /// The node, as which incarnation.
        hop: Hop,
        from: Health,
        to: Health,
        witnesses: Vec<(Witness, Instant)>,
        last_heard: Option<Instant>,
        /// Rooms that stood there.
        rooms: u32,
    },
    /// A node that does not run is started by its hook.
    Start { node: NodeId, step: Start },
    /// A room goes on in another mode.
    Mode {
        room: RoomId,
        room_name: Arc<str>,
        /// The mode before.
        from: Mode,
        /// The mode it has now.
        to: Mode,
        why: ModeChange,
    },
    /// A node takes no new rooms, or takes them again.
    Draining { node: NodeId, draining: bool },
    /// A node that is being drained is empty; or its deadline passed, and it is not.
    Drained {
        node: NodeId,
        /// Rooms that are left: they fit nowhere else, and stay until they do.
        left: u32,
        started: Instant,
    },
    /// A region takes no new rooms any more, a share of them, or all again.
    Breaker {
        region: RegionId,
        from: BreakerState,
        to: BreakerState,
        /// Sessions that were heard of within the last second.
        sessions: u32,
        /// Sessions with bad media.
        bad: u32,
        /// Sessions that were opened there within the last second.
        opened: u32,
        /// Sessions that were not, though they should have been.
        failed: u32,
    },
    /// A session's quality was changed.
    Degraded {
        session: SessionId,
        room_name: Arc<str>,
        op: Op,
        arg: u64,
        /// The rung it is on now; 0 is undegraded.
        rung: u8,
        by: Decider,
    },
    /// Control was late: every deadline moved by that much, and no node was marked down.
    OwnStall { late: Duration },
    /// Most nodes fell silent at once: our own uplink is doubted, and no node is marked down for silence meanwhile. Or
    /// that is over: they are heard again, or it lasted too long.
    Uplink {
        doubted: bool,
        silent: u32,
        /// Of how many that were heard until then.
        of: u32,
    },
    /// A hook's policy answers again after faults, or no longer.
    Standing {
        hook: Hook,
        policy: PolicyName,
        /// The fault, if it fails.
        fault: Option<Fault>,
    },
    /// A revision does harm: the one that is tried, or the one in force while the one before may come back.
    Breached { policy: PolicyName, revision: Arc<str>, breach: Breach },
    /// The gateway admits no more sessions.
    ShuttingDown,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MoveOutcome {
    /// The room is there.
    Done,
    /// No hop was left; the core looks for one.
    Stranded,
    /// Another move took its place.
    Superseded,
    /// Its target died before it was there.
    TargetLost,
    /// Its target did not open its sessions.
    NotOpened,
    /// The room had moved too often within a minute.
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

/// State of a region's breaker: may new rooms go there?
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u32)]
pub enum BreakerState {
    Closed = 0,
    /// They go elsewhere, or are refused.
    Open = 1,
    /// A share of them may.
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
