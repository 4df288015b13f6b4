//! Settings of the core: places, nodes, scenarios, timings, limits. The reader of the configuration checks them; plain
//! data here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::{Affinity, Bounds, Hook, Mode, PolicyName, RegionId, ZoneId};

/// Everything the core needs to know.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// The region this gateway is in.
    pub home: RegionId,
    /// Names of the regions; a [`RegionId`] is a place in this list.
    pub regions: Vec<Box<str>>,
    /// The zones; a [`ZoneId`] is a place in this list, and each has a node.
    pub zones: Vec<Zone>,
    /// The nodes to begin with; a [`NodeId`](crate::NodeId) is a place in this list.
    pub nodes: Vec<NodeSettings>,
    /// The scenarios by name.
    pub scenarios: BTreeMap<Arc<str>, Scenario>,
    pub timings: Timings,
    pub limits: Limits,
}

/// A part of a region that fails by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Zone {
    pub name: Box<str>,
    pub region: RegionId,
}

/// A node as the configuration describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeSettings {
    pub name: Box<str>,
    /// Its zone, and by it its region.
    pub zone: ZoneId,
    pub capacity_kbps: u64,
    pub probed: Probed,
    /// Two sessions of our own are kept there, between which it must forward.
    pub canary: bool,
    pub role: Role,
    pub starts: Starts,
}

/// The role of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Role {
    /// It carries rooms.
    #[default]
    Active,
    /// It stands by: in hot and hitless scenarios it takes no first hop while others can.
    Standby,
}

/// The start of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Starts {
    /// It is expected to.
    #[default]
    ByItself,
    /// A hook starts it when rooms of cold scenarios need it; until then it is cold. It is probed.
    ByHook {
        /// The longest time until it answers.
        within: Duration,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probed {
    Yes,
    /// It cannot: kernel errors and silence are its only witnesses.
    No,
}

/// A scenario as its policy set describes it.
#[derive(Clone, PartialEq, Debug)]
pub struct Scenario {
    /// The policy set it belongs to.
    pub set: Arc<str>,
    /// The hooks that the set binds, in the order of [`Hook::ALL`](crate::Hook::ALL).
    pub bound: [bool; 4],
    /// Within which its sessions may be capped.
    pub bounds: Bounds,
    pub mode: Mode,
    pub affinity: Affinity,
    /// In regional mode: where rooms go next, in this order, beginning behind where they stand.
    pub regions: Vec<RegionId>,
    /// Spares a route should hold, 1 to 3. In cold mode it holds none.
    pub spares: u8,
    /// Silence after which a session is closed.
    pub close_after: Duration,
    /// Order in a herd; higher is earlier.
    pub priority: i64,
    pub on_admission_fault: AdmitOnFault,
    pub on_degradation_fault: DegradeOnFault,
}

impl Scenario {
    /// Its set binds a policy to the hook.
    pub fn binds(&self, hook: Hook) -> bool {
        self.bound[hook as usize]
    }

    /// The name of the policy that answers the hook, if one is bound.
    pub fn policy(&self, hook: Hook) -> PolicyName {
        PolicyName { set: self.set.clone(), hook }
    }
}

/// Treatment of newcomers when the admission policy fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdmitOnFault {
    /// They come in, at the scenario's floor.
    AdmitCapped,
    /// They come in.
    Admit,
    /// They stay out.
    Reject,
}

/// Treatment of sessions' quality while their degradation policy fails, or fails over them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum DegradeOnFault {
    /// They keep what they have.
    #[default]
    Hold,
    /// They keep it for 2 s, and then take the native ladder: by their own loss to half of the rate with each rung, to the
    /// floor, to voice only, and slowly back.
    NativeLadder,
}

/// Timings of failure detection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timings {
    /// Between probes of a node in the home region. Default 10 ms.
    pub probe_every_near: Duration,
    /// Between probes of a node in another region. Default 50 ms.
    pub probe_every_far: Duration,
    /// A probe is unanswered this long after its round trip should have ended. Default 5 ms.
    pub probe_slack: Duration,
    /// The shortest silence that accuses a node. Default 8 ms.
    pub silence_min: Duration,
    /// Arrivals that must be missing before silence accuses. Default 10.
    pub silence_arrivals: u32,
    /// One witness alone condemns a node in the home region after this. Default 200 ms.
    pub condemn_alone_near: Duration,
    /// One witness alone condemns a node in another region after this. Default 500 ms.
    pub condemn_alone_far: Duration,
    /// A watch later than this is our own stall: no node is marked down on it. Default 5 ms.
    pub own_stall: Duration,
    /// A dead node must answer so long before it is let in again; doubles with each relapse. Default 1 s.
    pub ejection: Duration,
    /// The longest ejection. Default 60 s.
    pub ejection_max: Duration,
    /// A node that came back is Wary for so long. Default 2 s.
    pub wary_for: Duration,
    /// If more nodes than this fall silent at once, per cent of those that were heard until then, our own uplink is
    /// doubted. Default 50; 100 never doubts it.
    pub panic_percent: u32,
    /// Our uplink is doubted for so long if no node is heard. If one is, it is as long as one witness alone has to
    /// accuse a node. Default 3 s.
    pub panic_for: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Timings {
            probe_every_near: Duration::from_millis(10),
            probe_every_far: Duration::from_millis(50),
            probe_slack: Duration::from_millis(5),
            silence_min: Duration::from_millis(8),
            silence_arrivals: 10,
            condemn_alone_near: Duration::from_millis(200),
            condemn_alone_far: Duration::from_millis(500),
            own_stall: Duration::from_millis(5),
            ejection: Duration::from_secs(1),
            ejection_max: Duration::from_secs(60),
            wary_for: Duration::from_secs(2),
            panic_percent: 50,
            panic_for: Duration::from_secs(3),
        }
    }
}

/// Limits of all that may grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Sessions at a time. Default 100,000.
    pub sessions_max: usize,
    /// Nodes at a time, with those that are still leaving. Default 1,024.
    pub nodes_max: usize,
    /// Time of a policy for an offer, and for each step of it. Default 2 ms.
    pub offer_budget: Duration,
    /// Time of a policy for a reroute or a tick. Default 10 ms.
    pub advice_budget: Duration,
    /// Between two questions of how much quality each session gets. Default 200 ms.
    pub tick_every: Duration,
    /// Time of a driver to open a session at a node. Default 2 s.
    pub open_within: Duration,
    /// Time of the old hop to finish after a make-before-break. Default 500 ms.
    pub leave_within: Duration,
    /// Sessions that policies may move within a second, per cent of all, but one room at least. Default 25.
    pub churn_percent: u32,
    /// Moves of one room within a minute, other than off a dead node. Default 3.
    pub moves_per_minute: usize,
    /// Rooms of a dead node that go on without it in one call, so that a wake-up stays short. Default 256.
    pub lost_at_once: usize,
    /// Sessions that a node opens at a time until it shows how many it can. Default 32.
    pub openings_at_once: u32,
    /// Rooms that go back within a second to where they would natively be. Default 20.
    pub failbacks_per_second: u32,
    pub breakers: Breakers,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            sessions_max: 100_000,
            nodes_max: 1_024,
            offer_budget: Duration::from_millis(2),
            advice_budget: Duration::from_millis(10),
            tick_every: Duration::from_millis(200),
            open_within: Duration::from_secs(2),
            leave_within: Duration::from_millis(500),
            churn_percent: 25,
            moves_per_minute: 3,
            lost_at_once: 256,
            openings_at_once: 32,
            failbacks_per_second: 20,
            breakers: Breakers::default(),
        }
    }
}

/// Thresholds of a region's breaker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Breakers {
    /// A session is bad where so much is lost on the way to its client, ppm. Default 8 %.
    pub loss_ppm: u32,
    /// A session is bad where its voice rates below this, R times 100 (ITU-T G.107). Default 50.
    pub r_factor_centi: u32,
    /// Of its sessions, or of openings there, so many must be bad, per cent. Default 50.
    pub share_percent: u32,
    /// Fewer sessions, or openings, within a second say nothing. Default 20.
    pub sessions_min: u32,
    /// Time from opening to half-open; doubles with each relapse. Default 10 s.
    pub open_for: Duration,
    /// The longest that it is open. Default 5 min.
    pub open_for_max: Duration,
    /// New rooms that a half-open one lets in, per cent. Default 10.
    pub half_open_percent: u32,
}

impl Default for Breakers {
    fn default() -> Self {
        Breakers {
            loss_ppm: 80_000,
            r_factor_centi: 5_000,
            share_percent: 50,
            sessions_min: 20,
            open_for: Duration::from_secs(10),
            open_for_max: Duration::from_secs(300),
            half_open_percent: 10,
        }
    }
}
