//! Faults and their durations.

use std::time::Duration;

#[derive(Clone, PartialEq, Debug)]
pub enum Fault {
    /// The process ends and the kernel refuses packets. Afterwards a new process runs, without state.
    Kill(usize),
    /// The machine disappears without notice. Afterwards a new process runs, without state.
    Silent(usize),
    /// SIGSTOP; afterwards the process reads what waited in its sockets.
    Stop(usize),
    /// The process is killed and restarted, each for half of this period.
    Flap(usize, Duration),
    /// No packet crosses in either direction for the first half of each period.
    FlapLink(usize, Duration),
    /// No packet crosses in either direction.
    Cut(usize),
    /// No packet reaches the node; its packets arrive.
    CutUp(usize),
    /// No packet from the node arrives.
    CutDown(usize),
    /// A blackout of 200 ms in each period.
    Blackouts(usize, Duration),
    /// Loss in both directions, rising from 0 to 30 %.
    LossRamp(usize),
    /// Bursts of loss: each packet begins one with 1 %, of ten packets on average.
    Bursts(usize),
    /// Additional delay in each direction.
    Slow(usize, Duration),
    /// Additional jitter in each direction, in order, which grows linearly over the second duration.
    Jitter(usize, Duration, Duration),
    /// Like `Jitter`, with reordering.
    Scatter(usize, Duration, Duration),
    /// 10 % of packets are delayed by 25 ms, 5 % are duplicated.
    Unruly(usize),
    /// The node answers probes and opens sessions, but forwards nothing.
    Gray(usize),
    /// One of this many flows is not forwarded.
    GrayFlows(usize, u32),
    /// The process ends at random times after each restart.
    CrashLoop(usize),
    /// The agent reports no load, and the node refuses more than this many sessions.
    Boasts(usize, u32),
    /// The node reports at random whether it accepts sessions.
    Liar(usize),
    /// All nodes of the region disappear without notice.
    RegionSilent(usize),
    /// All node processes of the region end.
    RegionKilled(usize),
    /// No packet crosses to or from the region.
    RegionCut(usize),
    /// 15 % loss to and from the region.
    RegionBrownOut(usize),
    /// The region is drained with this deadline, and undrained at the end.
    RegionDrained(usize, Duration),
    /// An operator forces failback, which is automatic again at the end.
    FailbackForced,
    /// Fail-back is forbidden until the end.
    FailbackForbidden,
    ControlStalls(Duration),
    WorkersStall(Duration),
    /// Plugins fault on this percentage of questions.
    PoliciesTrap(u8),
    PoliciesLate,
    /// Policies do not answer.
    PoliciesDead,
    /// Policies give invalid answers.
    PoliciesHostile,
    /// A policy gets a new revision in each period.
    PoliciesSwapped(Duration),
    /// Policies, drivers, agents and hooks do nothing; only media ports of nodes answer.
    BackendsDead,
    /// Drivers take up to this long to open a session.
    DriversSlow(Duration),
    /// Drivers refuse this percentage of sessions.
    DriversRefuse(u8),
    /// In each period an operator moves a room, or drains or undrains a node, at random.
    Operator(Duration),
    /// The node list changes in each period.
    Relisted(Duration),
    /// A node is drained, and undrained at the end.
    Drain(usize),
    /// A node is drained with this deadline, and undrained at the end.
    DrainWithin(usize, Duration),
    /// The node's agent, if there is one, reports a drain.
    Leaves(usize),
}

impl Fault {
    /// The name in reports and traces.
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
            Fault::FailbackForced => "fail-back-forced",
            Fault::FailbackForbidden => "fail-back-forbidden",
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

    /// True if the fault has no duration.
    pub fn is_moment(&self) -> bool {
        matches!(self, Fault::ControlStalls(_) | Fault::WorkersStall(_))
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct Episode {
    /// Time since the start of the world.
    pub at: Duration,
    pub lasts: Duration,
    pub fault: Fault,
}
