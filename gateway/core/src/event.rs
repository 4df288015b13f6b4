//! Everything worth knowing, one enum. Telemetry makes metrics, spans and log lines of it.

mod ruling;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use ruling::{Guard, Outcome};

use crate::{
    Arm, AskId, Breach, BreakerState, Decider, Fault, Hook, Hop, Mode, NodeId, Note, OfferId, Op,
    PolicyName, Refused, RegionId, RoomId, SessionId,
};

/// A node's health, as this gateway sees it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u32)]
pub enum Health {
    /// Carries rooms.
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
    /// The kernel says that nobody listens there.
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
    /// All of them.
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

    /// Whether it tells of loss: that is no death.
    pub fn is_of_loss(self) -> bool {
        matches!(self, Witness::Cohort | Witness::Feedback)
    }

    /// Whether it is somebody's word. The others are silences, which our own uplink may be the cause of.
    pub fn speaks(self) -> bool {
        match self {
            Witness::KernelError | Witness::Agent | Witness::Operator => true,
            Witness::Probe
            | Witness::Silence
            | Witness::Canary
            | Witness::Cohort
            | Witness::Feedback => false,
        }
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
    FailBack,
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
            Cause::FailBack => "fail-back",
        }
    }
}

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CloseReason {
    /// Through the API.
    Asked,
    /// Nothing came from it for its scenario's `close_after`.
    Silent,
    /// The gateway shut down.
    Shutdown,
    /// It never came to life: the node did not open it, or no route was found.
    NotOpened,
    /// The gateway itself failed over one of its packets: it costs that session, and no other.
    Panicked,
}

impl CloseReason {
    /// The word in metrics and records: `silent`.
    pub fn name(self) -> &'static str {
        match self {
            CloseReason::Asked => "asked",
            CloseReason::Silent => "silent",
            CloseReason::Shutdown => "shutdown",
            CloseReason::NotOpened => "not-opened",
            CloseReason::Panicked => "panicked",
        }
    }
}

/// How far the start of a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// Its hook is called.
    Begun {
        /// The how manieth time since it ran last, from 1.
        attempt: u32,
    },
    /// It was not.
    Failed {
        /// Why.
        why: NotStarted,
        /// When it may be tried again, from now.
        again: Duration,
    },
    /// It answers.
    Done {
        /// Since its hook was called.
        took: Duration,
    },
}

impl Start {
    /// The word in metrics and records: `begun`.
    pub fn name(self) -> &'static str {
        match self {
            Start::Begun { .. } => "begun",
            Start::Failed { .. } => "failed",
            Start::Done { .. } => "done",
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
    /// What two hops delivered were no copies of each other: these nodes do not keep SSRC, sequence number and payload.
    Unalike {
        /// The hops.
        hops: [Hop; 2],
    },
    /// A second hop that can carry it, or keep capacity for it, is missing, or there again: of a hitless room this is what
    /// it keeps of its mode now.
    Capacity,
}

impl ModeChange {
    /// The word in metrics and records: `unalike`.
    pub fn name(self) -> &'static str {
        match self {
            ModeChange::Scenario => "scenario",
            ModeChange::Unalike { .. } => "unalike",
            ModeChange::Capacity => "capacity",
        }
    }
}

/// Everything worth knowing.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// A question was decided, one way or another.
    Decided {
        /// The question.
        ask: AskId,
        /// Who was asked.
        policy: PolicyName,
        /// Which of its revisions was asked.
        arm: Arm,
        /// The revision that answered; none where it faulted.
        revision: Option<Arc<str>>,
        /// What became of it.
        outcome: Outcome,
        /// The plugin's word for its reason, where it was about one and gave one.
        reason: Option<Arc<str>>,
        /// The session it was about, where it was about one.
        session: Option<SessionId>,
        /// The room it was about, where it was about one.
        room: Option<RoomId>,
        /// Rows in the question.
        rows: u32,
        /// When it was asked.
        asked: Instant,
        /// Time in the plugin; zero where it faulted.
        took: Duration,
        /// What the plugin said about it.
        notes: Vec<Note>,
    },
    /// Part of a decision broke a rule and was left out.
    Guarded {
        /// Whose.
        policy: PolicyName,
        /// The rule.
        guard: Guard,
        /// How many parts broke it.
        times: u32,
    },
    /// A revision is not asked about a session or room any more, since it fails over it: that is left as it is.
    Quarantined {
        /// The policy.
        policy: PolicyName,
        /// Its revision; another one is asked again.
        revision: Arc<str>,
        /// The session, where it is one.
        session: Option<SessionId>,
        /// The room, where it is one.
        room: Option<RoomId>,
        /// How it failed.
        fault: Fault,
    },
    /// A plugin answered otherwise than a fresh instance of it: it keeps something to itself between questions.
    HiddenState {
        /// The policy.
        policy: PolicyName,
        /// The revision.
        revision: Arc<str>,
        /// In what the answers differ.
        differs: Box<str>,
    },
    /// A session may send.
    Opened {
        /// The session.
        session: SessionId,
        /// Its room.
        room: RoomId,
        /// The room's name.
        room_name: Arc<str>,
        /// Its scenario.
        scenario: Arc<str>,
        /// Where it stands.
        hop: Hop,
        /// When it was offered.
        offered: Instant,
        /// Who let it in.
        admitted_by: Decider,
        /// Who placed its room.
        routed_by: Decider,
    },
    /// An offer was refused.
    Refused {
        /// The offer.
        offer: OfferId,
        /// The session it was to become, and its room, where it came that far.
        session: Option<(SessionId, RoomId)>,
        /// Its scenario.
        scenario: Arc<str>,
        /// Why.
        reason: Refused,
    },
    /// A session ended.
    Closed {
        /// The session.
        session: SessionId,
        /// Its room.
        room: RoomId,
        /// What the room is called.
        room_name: Arc<str>,
        /// Why.
        reason: CloseReason,
    },
    /// A room moved to another hop.
    Moved {
        /// The room.
        room: RoomId,
        /// What the room is called.
        room_name: Arc<str>,
        /// Its sessions.
        sessions: Vec<SessionId>,
        /// Why.
        cause: Cause,
        /// Who decided.
        by: Decider,
        /// Where it was.
        from: Hop,
        /// Where it is; `None`: no hop was left, the core looks for one.
        to: Option<Hop>,
        /// When it began.
        started: Instant,
    },
    /// A move that was under way was given up: the room is where it was.
    MoveEnded {
        /// The room.
        room: RoomId,
        /// What the room is called.
        room_name: Arc<str>,
        /// Why it was to move.
        cause: Cause,
        /// Who decided.
        by: Decider,
        /// Where it was.
        from: Hop,
        /// Where it was to go.
        to: Hop,
        /// When it began.
        started: Instant,
        /// Why it was given up.
        outcome: MoveOutcome,
    },
    /// A spare of a room changed; its packets go where they went.
    Rerouted {
        /// The room.
        room: RoomId,
        /// Its hops, best first.
        hops: Vec<Hop>,
        /// Who decided.
        by: Decider,
    },
    /// A hop left a room's route, though its node lives.
    Struck {
        /// The room.
        room: RoomId,
        /// What the room is called.
        room_name: Arc<str>,
        /// The hop.
        hop: Hop,
        /// Why.
        why: Strike,
        /// The session that it is known by, where it is one.
        session: Option<SessionId>,
    },
    /// A node's health changed.
    Node {
        /// The node, as which incarnation.
        hop: Hop,
        /// What it was.
        from: Health,
        /// What it is.
        to: Health,
        /// Who accuses it, and since when.
        witnesses: Vec<(Witness, Instant)>,
        /// When it was last heard.
        last_heard: Option<Instant>,
        /// Rooms whose packets this moved.
        rooms: u32,
    },
    /// A node that does not run is started by its hook.
    Start {
        /// The node.
        node: NodeId,
        /// How far that is.
        step: Start,
    },
    /// A room goes on in another mode.
    Mode {
        /// The room.
        room: RoomId,
        /// What the room is called.
        room_name: Arc<str>,
        /// The mode before.
        from: Mode,
        /// The mode it has now.
        to: Mode,
        /// Why.
        why: ModeChange,
    },
    /// A node takes no new rooms, or takes them again.
    Draining {
        /// The node.
        node: NodeId,
        /// Whether it is being drained.
        draining: bool,
    },
    /// A node that is being drained is empty; or its deadline passed, and it is not.
    Drained {
        /// The node.
        node: NodeId,
        /// Rooms that are left: they fit nowhere else, and stay until they do.
        left: u32,
        /// When it began.
        started: Instant,
    },
    /// A region takes no new rooms any more, a share of them, or all again.
    Breaker {
        /// The region.
        region: RegionId,
        /// What its breaker was.
        from: BreakerState,
        /// What it is.
        to: BreakerState,
        /// Sessions that were heard of within the last second.
        sessions: u32,
        /// Those of them whose media was bad.
        bad: u32,
        /// Sessions that were opened there within the last second.
        opened: u32,
        /// Sessions that were not, though they should have been.
        failed: u32,
    },
    /// A session's quality was changed.
    Degraded {
        /// The session.
        session: SessionId,
        /// What its room is called.
        room_name: Arc<str>,
        /// What was done.
        op: Op,
        /// With which argument.
        arg: u64,
        /// The rung it is on now; 0 is undegraded.
        rung: u8,
        /// Who decided.
        by: Decider,
    },
    /// We ourselves were late; every deadline moved by that much and nobody was condemned on it.
    OwnStall {
        /// How late.
        late: Duration,
    },
    /// Most nodes fell silent at once: our own uplink is doubted, and nobody is condemned for silence meanwhile. Or that
    /// is over: they are heard again, or it lasted too long to be doubted.
    Uplink {
        /// Whether it is doubted from now on.
        doubted: bool,
        /// How many nodes fell silent.
        silent: u32,
        /// Of how many that were heard until then.
        of: u32,
    },
    /// A hook's policy answers again after faults, or no longer.
    Standing {
        /// The hook.
        hook: Hook,
        /// Its policy.
        policy: PolicyName,
        /// The fault, if it fails.
        fault: Option<Fault>,
    },
    /// A revision does harm: the one that is tried, or the one in force while the one before may come back.
    Breached {
        /// Its policy.
        policy: PolicyName,
        /// Which revision.
        revision: Arc<str>,
        /// What shows it.
        breach: Breach,
    },
    /// The gateway admits no more sessions.
    ShuttingDown,
}

/// What became of a move.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MoveOutcome {
    /// The room is there.
    Done,
    /// No hop was left; the core looks for one.
    Stranded,
    /// Another move took its place.
    Superseded,
    /// Where it was to go died before it was there.
    TargetLost,
    /// Where it was to go did not open its sessions.
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
            MoveOutcome::Done => "done",
            MoveOutcome::Stranded => "stranded",
            MoveOutcome::Superseded => "superseded",
            MoveOutcome::TargetLost => "target-lost",
            MoveOutcome::NotOpened => "not-opened",
            MoveOutcome::Damped => "damped",
            MoveOutcome::Closed => "closed",
        }
    }
}
