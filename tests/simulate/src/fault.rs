//! What goes wrong, and for how long.

use std::time::Duration;

/// Something that goes wrong.
#[derive(Clone, PartialEq, Debug)]
pub enum Fault {
    /// The node's process ends, and its kernel says so. Undone: a new process, which knows nothing of before.
    Kill(usize),
    /// The node's machine is gone without a word. Undone: as after a kill.
    Silent(usize),
    /// SIGSTOP: the process stands still, and goes on with what waited in its sockets.
    Stop(usize),
    /// Killed and started again, half of this period each.
    Flap(usize, Duration),
    /// No packet crosses, either way, for the first half of each of these periods.
    FlapLink(usize, Duration),
    /// No packet crosses, either way.
    Cut(usize),
    /// No packet gets to the node; what it sends arrives.
    CutUp(usize),
    /// No packet of the node's arrives.
    CutDown(usize),
    /// 200 ms of nothing in each of these periods.
    Blackouts(usize, Duration),
    /// Loss both ways, climbing from 0 to 30 %.
    LossRamp(usize),
    /// Loss in bursts: 1 % of packets begin one, of ten packets.
    Bursts(usize),
    /// So much later, each way.
    Slow(usize, Duration),
    /// Up to so much later, each way, in order. It grows evenly to that over the second time.
    Jitter(usize, Duration, Duration),
    /// The same, and who is less late overtakes.
    Scatter(usize, Duration, Duration),
    /// Of a tenth of packets each is late by 25 ms, of a twentieth a copy arrives.
    Unruly(usize),
    /// It answers probes, opens sessions and forwards nothing.
    Gray(usize),
    /// One flow in so many is not forwarded.
    GrayFlows(usize, u32),
    /// Its process ends as soon as it runs, or a while later, again and again.
    CrashLoop(usize),
    /// It says that it is empty, and refuses sessions as a full one does beyond so many.
    Boasts(usize, u32),
    /// It says that it takes no new sessions, or that it does, whatever is true.
    Liar(usize),
    /// Every node of the region is gone without a word.
    RegionSilent(usize),
    /// Every node's process in the region ends.
    RegionKilled(usize),
    /// No packet crosses to or from the region.
    RegionCut(usize),
    /// 15 % of packets to and from the region are lost.
    RegionBrownOut(usize),
    /// A region is drained within this, and taken back at the end.
    RegionDrained(usize, Duration),
    /// An operator has rooms go back to where they came from at once, and at the end by themselves again.
    FailBackForced,
    /// Rooms stay where they are until the end.
    FailBackForbidden,
    /// Control does nothing for so long.
    ControlStalls(Duration),
    /// Workers read nothing for so long.
    WorkersStall(Duration),
    /// Plugins fault in so many of a hundred questions.
    PoliciesTrap(u8),
    /// Answers come after their deadline.
    PoliciesLate,
    /// Nobody answers.
    PoliciesDead,
    /// Answers are nonsense.
    PoliciesHostile,
    /// Every policy gets a new revision in each of these periods.
    PoliciesSwapped(Duration),
    /// Nobody answers but nodes' media ports: neither policies nor drivers, agents or hooks.
    BackendsDead,
    /// The drivers take up to so long to open a session.
    DriversSlow(Duration),
    /// The drivers refuse so many of a hundred sessions.
    DriversRefuse(u8),
    /// Rooms are moved by hand, nodes drained and taken back, at random, in each of these periods.
    Operator(Duration),
    /// The list of nodes changes in each of these periods: nodes come, go, stay after all, and change.
    Relisted(Duration),
    /// A node is drained, and taken back at the end.
    Drain(usize),
    /// A node is drained within this, and taken back at the end.
    DrainWithin(usize, Duration),
    /// The agent beside the node says that it drains, where there is one.
    Leaves(usize),
}

impl Fault {
    /// The word in summaries and traces.
    pub fn name(&self) -> &'static str {
        match self {
            Fault::Kill(_) => "kill",
            Fault::Silent(_) => "silent-kill",
            Fault::Stop(_) => "stop",
            Fault::Flap(..) => "flap",
            Fault::FlapLink(..) => "link-flap",
            Fault::Cut(_) => "cut",
            Fault::CutUp(_) => "cut-up",
            Fault::CutDown(_) => "cut-down",
            Fault::Blackouts(..) => "blackouts",
            Fault::LossRamp(_) => "loss-ramp",
            Fault::Bursts(_) => "bursts",
            Fault::Slow(..) => "slow",
            Fault::Jitter(..) => "jitter",
            Fault::Scatter(..) => "scatter",
            Fault::Unruly(_) => "reorder-duplicate",
            Fault::Gray(_) => "gray",
            Fault::GrayFlows(..) => "gray-flows",
            Fault::CrashLoop(_) => "crash-loop",
            Fault::Boasts(..) => "boasts",
            Fault::Liar(_) => "liar",
            Fault::RegionSilent(_) => "region-silent",
            Fault::RegionKilled(_) => "region-killed",
            Fault::RegionCut(_) => "region-cut",
            Fault::RegionBrownOut(_) => "region-brown-out",
            Fault::RegionDrained(..) => "region-drained",
            Fault::FailBackForced => "fail-back-forced",
            Fault::FailBackForbidden => "fail-back-forbidden",
            Fault::ControlStalls(_) => "control-stalls",
            Fault::WorkersStall(_) => "workers-stall",
            Fault::PoliciesTrap(_) => "policies-trap",
            Fault::PoliciesLate => "policies-late",
            Fault::PoliciesDead => "policies-dead",
            Fault::PoliciesHostile => "policies-hostile",
            Fault::PoliciesSwapped(_) => "policies-swapped",
            Fault::BackendsDead => "backends-dead",
            Fault::DriversSlow(_) => "drivers-slow",
            Fault::DriversRefuse(_) => "drivers-refuse",
            Fault::Operator(_) => "operator",
            Fault::Relisted(_) => "list-changes",
            Fault::Drain(_) => "drain",
            Fault::DrainWithin(..) => "drain-deadline",
            Fault::Leaves(_) => "node-drains",
        }
    }

    /// The node that it is about, where it is about one.
    pub fn node(&self) -> Option<usize> {
        match *self {
            Fault::Kill(node)
            | Fault::Silent(node)
            | Fault::Stop(node)
            | Fault::Flap(node, _)
            | Fault::FlapLink(node, _)
            | Fault::Cut(node)
            | Fault::CutUp(node)
            | Fault::CutDown(node)
            | Fault::Blackouts(node, _)
            | Fault::LossRamp(node)
            | Fault::Bursts(node)
            | Fault::Slow(node, _)
            | Fault::Jitter(node, ..)
            | Fault::Scatter(node, ..)
            | Fault::Unruly(node)
            | Fault::Gray(node)
            | Fault::GrayFlows(node, _)
            | Fault::CrashLoop(node)
            | Fault::Boasts(node, _)
            | Fault::DrainWithin(node, _)
            | Fault::Liar(node)
            | Fault::Drain(node)
            | Fault::Leaves(node) => Some(node),
            _ => None,
        }
    }

    /// The region that it is about, where it is about one.
    pub fn region(&self) -> Option<usize> {
        match *self {
            Fault::RegionSilent(region)
            | Fault::RegionKilled(region)
            | Fault::RegionCut(region)
            | Fault::RegionBrownOut(region)
            | Fault::RegionDrained(region, _) => Some(region),
            _ => None,
        }
    }

    /// Whether it lasts no time: what it does is over at once.
    pub fn is_moment(&self) -> bool {
        matches!(self, Fault::ControlStalls(_) | Fault::WorkersStall(_))
    }
}

/// A fault from its beginning to its undoing.
#[derive(Clone, PartialEq, Debug)]
pub struct Episode {
    /// Since the world began.
    pub at: Duration,
    /// Until it is undone.
    pub lasts: Duration,
    /// What goes wrong.
    pub fault: Fault,
}
