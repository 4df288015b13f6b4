//! The core's settings: regions, nodes, scenarios, timings and limits. Plain data; the configuration reader validates
//! it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ask::{Hook, PolicyName};
use crate::id::{RegionId, ZoneId};
use crate::offer::StreamKind;

/// The settings of the core, validated.
#[derive(Clone, PartialEq, Debug)]
pub struct CoreSettings {
    /// The gateway's region.
    pub home: RegionId,
    /// Names of the regions, indexed by [`RegionId`].
    pub regions: Vec<Box<str>>,
    /// Names of the carriers that advertised addresses have.
    pub carriers: Vec<Box<str>>,
    /// The zones, indexed by [`ZoneId`]. Each has at least one node.
    pub zones: Vec<Zone>,
    /// The initial nodes, indexed by [`NodeId`](crate::NodeId).
    pub nodes: Vec<NodeSettings>,
    /// The scenarios by their names.
    pub scenarios: BTreeMap<Arc<str>, Scenario>,
    /// Intervals and thresholds of failure detection.
    pub timings: Timings,
    /// Limits of rates and sizes.
    pub limits: GatewayLimits,
}

impl CoreSettings {
    /// The objective of a scenario, with the scenario's name as all share it.
    pub fn slo(&self, scenario: &str) -> Option<(&Arc<str>, &ServiceObjective)> {
        let (name, scenario) = self.scenarios.get_key_value(scenario)?;
        Some((name, scenario.slo.as_ref()?))
    }
}

/// A failure domain within a region.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Zone {
    /// The name in `evenkeel.toml`.
    pub name: Box<str>,
    /// The region to which the zone belongs.
    pub region: RegionId,
}

/// A node as the configuration describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeSettings {
    /// The name in `evenkeel.toml`.
    pub name: Box<str>,
    /// The node's zone, which determines its region.
    pub zone: ZoneId,
    /// The carrier of the node's network, if it is named.
    pub carrier: Option<Arc<str>>,
    /// The configured capacity in kbit/s.
    pub capacity_kbps: u64,
    /// Whether the media port answers probes.
    pub probed: NodeProbing,
    /// Keep two canary sessions at the node, between which it must forward packets.
    pub canary: bool,
    /// Whether the node carries rooms before others die.
    pub role: RegionRole,
    /// How the node is started.
    pub starts: Starts,
    /// The terms on which the gateway starts and stops the node.
    pub hook: HookTerms,
}

impl NodeSettings {
    /// A node of no named carrier that answers probes, runs by itself, carries rooms while all are up, and has no canary.
    pub fn new(name: impl Into<Box<str>>, zone: ZoneId, capacity_kbps: u64) -> NodeSettings {
        NodeSettings {
            name: name.into(),
            zone,
            carrier: None,
            capacity_kbps,
            probed: NodeProbing::Yes,
            canary: false,
            role: RegionRole::default(),
            starts: Starts::default(),
            hook: HookTerms::default(),
        }
    }
}

/// The terms on which the gateway starts and stops a node by its hook.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HookTerms {
    /// The program or host that starts the node. Empty: the node has no hook, or its failures open no breaker.
    pub provider: Box<str>,
    /// Cost per hour while the node runs, in thousandths of any currency.
    pub cost_milli: u64,
    /// A node that the gateway started is stopped once it has not been needed for this long. `None`: never.
    pub stop_after: Option<Duration>,
    /// A node that the gateway started is started again once it has been dead for this long, doubled with each
    /// replacement in a row. `None`: once it is needed.
    pub replace_after: Option<Duration>,
}

/// Limits of all nodes together that the gateway starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StartBudget {
    /// Started nodes that may run at once.
    pub nodes_max: Option<u32>,
    /// Cost per hour of all started nodes, in thousandths.
    pub cost_milli_max: Option<u64>,
    /// Rooms without a node start one beyond the budget.
    pub exceeded_for_calls: bool,
}

/// The use of a node while all are up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RegionRole {
    /// The node carries rooms.
    #[default]
    Active,
    /// In hot and hitless scenarios the node takes no first hop while other nodes can.
    Standby,
}

/// The way in which a node is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Starts {
    /// The node runs without the gateway's help.
    #[default]
    ByItself,
    /// A hook starts the node when rooms of cold scenarios need it. Until then it is cold, and probed.
    ByHook {
        /// The longest time until the node answers.
        within: Duration,
    },
}

/// Whether the media port of a node answers probes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeProbing {
    /// Probes are answered.
    Yes,
    /// The node cannot be probed: kernel errors and silence are its only witnesses.
    No,
}

/// A scenario as its policy set describes it.
#[derive(Clone, PartialEq, Debug)]
pub struct Scenario {
    /// The policy set of the scenario.
    pub set: Arc<str>,
    /// The hooks for which the set binds a policy, in the order of [`Hook::ALL`](crate::Hook::ALL).
    pub bound: [bool; 4],
    /// The range within which policies may cap the scenario's sessions.
    pub bounds: CapBounds,
    /// The redundancy mode of the rooms.
    pub mode: RedundancyMode,
    /// The sessions that share a place.
    pub affinity: Affinity,
    /// In regional mode: the cyclic order of regions that rooms try after their current one.
    pub regions: Vec<RegionId>,
    /// Number of spares in a route, 1 to 3; ignored in cold mode, which has none.
    pub spares: u8,
    /// The deaths that the capacity reserved at the first spare covers. `None`: of the zone, if nodes in another
    /// one of its region take rooms, as far as load leaves the capacity; else of the node.
    pub reserve: Option<FailureScope>,
    /// Spares are outside the first node's zone or region. [`FailureScope::Node`]: other zones are only preferred.
    pub spares_outside: FailureScope,
    /// Silence after which a session is closed.
    pub close_after: Duration,
    /// Rooms of higher priority are rescued first.
    pub priority: i64,
    /// The service level objective of the sessions, if there is one.
    pub slo: Option<ServiceObjective>,
    /// The decision if the admission policy fails.
    pub on_admission_fault: AdmitOnFault,
    /// The decision if the degradation policy fails.
    pub on_degradation_fault: DegradeOnFault,
}

impl Scenario {
    /// True if the scenario's set binds a policy to the hook.
    pub fn binds(&self, hook: Hook) -> bool {
        self.bound[hook as usize]
    }

    /// The name that a policy for this hook has in the scenario's set.
    pub fn policy(&self, hook: Hook) -> PolicyName {
        PolicyName { set: self.set.clone(), hook }
    }
}

/// A service level objective: the share of sessions that are to be within each limit.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ServiceObjective {
    /// Share of good sessions, below 1; the rest is the error budget.
    pub objective: f64,
    /// Offers that are refused for lack of capacity or by a policy are bad.
    pub refusals: bool,
    /// A session that opens later than this after its offer is bad.
    pub set_up: Option<Duration>,
    /// A session that misses packets for this time at a switch is bad.
    pub gap: Option<Duration>,
    /// A session with an R-factor below this, times 100, is bad.
    pub r_factor_centi: Option<u32>,
}

/// Burn rate that spends 2 % of the error budget of 30 days within an hour (*The Site Reliability Workbook*, chapter 5).
pub const FAST_BURN: f64 = 14.4;

impl ServiceObjective {
    /// Returns the share of sessions that may be bad.
    pub fn error_budget(&self) -> f64 {
        1.0 - self.objective
    }

    /// True if sessions are counted by this indicator.
    pub fn has(&self, indicator: SloIndicator) -> bool {
        match indicator {
            SloIndicator::Refusals => self.refusals,
            SloIndicator::SetUp => self.set_up.is_some(),
            SloIndicator::Gap => self.gap.is_some(),
            SloIndicator::RFactor => self.r_factor_centi.is_some(),
        }
    }
}

crate::named! {
    /// A property of sessions that a service level objective limits.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
    #[serde(rename_all = "kebab-case")]
    pub enum SloIndicator {
        /// Offers that were refused for lack of capacity or by a policy, of all that were opened or so refused.
        Refusals = "refusals",
        /// Time from the offer to the open session.
        SetUp = "set-up",
        /// Time of the packets that were missing when another hop took over.
        Gap = "gap",
        /// Voice quality (ITU-T G.107).
        RFactor = "r-factor",
    }
}

/// Treatment of new sessions when the admission policy fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdmitOnFault {
    /// Admit them, capped at the scenario's floor.
    AdmitCapped,
    /// Admit the session without a cap.
    Admit,
    /// Turn the session down.
    Reject,
}

/// Treatment of plans while the degradation policy fails, or fails on the session.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum DegradeOnFault {
    /// Sessions keep their plans.
    #[default]
    Hold,
    /// Sessions keep their plans for 2 s, then follow the native ladder: by their own loss, each rung halves the rate
    /// down to the floor, then voice only, and slowly back.
    NativeLadder,
}

/// Timings of failure detection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timings {
    /// Probe interval of a node in the home region. Default 10 ms.
    pub probe_every_near: Duration,
    /// Probe interval of a node in another region. Default 50 ms.
    pub probe_every_far: Duration,
    /// A probe is missed this long after its round trip should have ended. Default 5 ms.
    pub probe_slack: Duration,
    /// The shortest silence that accuses a node. Default 8 ms.
    pub silence_min: Duration,
    /// Arrivals that must be missing before silence accuses. Default 10.
    pub silence_arrivals: u32,
    /// One witness alone marks a node in the home region down after this time. Default 200 ms.
    pub down_after_near: Duration,
    /// One witness alone marks a node in another region down after this time. Default 500 ms.
    pub down_after_far: Duration,
    /// A watch delayed by more than this means that the gateway stalled; it marks no node down. Default 5 ms.
    pub own_stall: Duration,
    /// A dead node must answer for this long before it is readmitted; doubles with each relapse. Default 1 s.
    pub ejection: Duration,
    /// The longest ejection. Default 60 s.
    pub ejection_max: Duration,
    /// A returned node is Wary for this long. Default 2 s.
    pub wary_for: Duration,
    /// The uplink is suspected if more than this percentage of the nodes heard until then fall silent at once. Default
    /// 50; 100 disables the check.
    pub panic_percent: u32,
    /// Time for which the uplink is suspected if no node is heard. If a node is heard, this is the time after which one
    /// witness alone marks a node down. Default 3 s.
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
            down_after_near: Duration::from_millis(200),
            down_after_far: Duration::from_millis(500),
            own_stall: Duration::from_millis(5),
            ejection: Duration::from_secs(1),
            ejection_max: Duration::from_secs(60),
            wary_for: Duration::from_secs(2),
            panic_percent: 50,
            panic_for: Duration::from_secs(3),
        }
    }
}

/// Limits of everything that can grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GatewayLimits {
    /// Maximum concurrent sessions. Default 100,000.
    pub sessions_max: usize,
    /// Maximum nodes, including those being removed. Default 1,024.
    pub nodes_max: usize,
    /// Time budget of a policy for each question about an offer. Default 2 ms.
    pub offer_budget: Duration,
    /// Time budget of a policy for a reroute or a tick. Default 10 ms.
    pub advice_budget: Duration,
    /// Interval of questions to degradation policies. Default 200 ms.
    pub tick_every: Duration,
    /// Time limit of a driver to open a session at a node. Default 2 s.
    pub open_within: Duration,
    /// The time for which packets of the old hop pass after a make-before-break. Default 500 ms.
    pub leave_within: Duration,
    /// Maximum share of all sessions that policies may move per second, in per cent; one room at least may move.
    /// Default 25.
    pub churn_percent: u32,
    /// Maximum moves of one room per minute, not counting moves off a dead node. Default 3.
    pub moves_per_minute: usize,
    /// Maximum rooms that fail over per batch, so that a wake-up stays short: another node may have died as well. Default 8.
    pub lost_at_once: usize,
    /// Initial window of openings at a node. Default 32.
    pub openings_at_once: u32,
    /// Maximum rooms per second that return to their native place. Default 20.
    pub failbacks_per_second: u32,
    /// Thresholds of the circuit breakers of regions and zones.
    pub breakers: Breakers,
    /// Settings of the circuit breakers of clients.
    pub client_breakers: ClientBreakerSettings,
    /// Rooms of any mode that a region without capacity refuses start a node there, as does the forecast of exhausted capacity. Default
    /// false.
    pub early_start: bool,
    /// Limits of the nodes that the gateway starts. Default: none.
    pub start_budget: StartBudget,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        GatewayLimits {
            sessions_max: 100_000,
            nodes_max: 1_024,
            offer_budget: Duration::from_millis(2),
            advice_budget: Duration::from_millis(10),
            tick_every: Duration::from_millis(200),
            open_within: Duration::from_secs(2),
            leave_within: Duration::from_millis(500),
            churn_percent: 25,
            moves_per_minute: 3,
            lost_at_once: 8,
            openings_at_once: 32,
            failbacks_per_second: 20,
            breakers: Breakers::default(),
            client_breakers: ClientBreakerSettings::default(),
            early_start: false,
            start_budget: StartBudget::default(),
        }
    }
}

/// Thresholds of the breakers of regions and zones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Breakers {
    /// A session is bad from this loss towards its client, in ppm. Default 8 %.
    pub loss_ppm: u32,
    /// A session is bad if its voice quality is below this R-factor times 100 (ITU-T G.107). Default 50.
    pub r_factor_centi: u32,
    /// Thresholds and times of the state machine.
    pub circuit: CircuitSettings,
}

impl Default for Breakers {
    fn default() -> Self {
        let circuit = CircuitSettings::default();
        Breakers { loss_ppm: 80_000, r_factor_centi: 5_000, circuit }
    }
}

/// Thresholds and times of a circuit breaker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CircuitSettings {
    /// Percentage of sessions or openings that must be bad. Default 50.
    pub share_percent: u32,
    /// Minimum sessions or openings per second for a judgement. Default 20.
    pub sessions_min: u32,
    /// Time from open to half-open; doubles with each relapse. Default 10 s.
    pub open_for: Duration,
    /// Maximum time that a breaker stays open. Default 5 min.
    pub open_for_max: Duration,
    /// Percentage of newcomers that a half-open breaker admits. Default 10.
    pub half_open_percent: u32,
}

impl Default for CircuitSettings {
    fn default() -> Self {
        CircuitSettings {
            share_percent: 50,
            sessions_min: 20,
            open_for: Duration::from_secs(10),
            open_for_max: Duration::from_secs(300),
            half_open_percent: 10,
        }
    }
}

crate::named! {
    /// Treatment of newcomers while the breaker of their group of clients is open.
    #[derive(Clone, Copy, PartialEq, Eq, Default, Deserialize, Debug)]
    #[serde(rename_all = "kebab-case")]
    pub enum NewcomerAction {
        /// They are admitted as others are. The breaker is reported only.
        #[serde(rename = "none")]
        Admit = "none",
        /// They are sent no video until the breaker is closed.
        #[default]
        VoiceOnly = "voice-only",
        /// They are refused.
        Refuse = "refuse",
    }
}

/// Settings of the breakers of clients.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ClientBreakerSettings {
    /// Treatment of newcomers while a breaker is open.
    pub action: NewcomerAction,
    /// Thresholds: a session is bad while its uplink or downlink impairs it.
    pub circuit: CircuitSettings,
}

crate::named! {
    /// The way in which sessions survive the death of a node. A scenario sets it, and it may change while packets flow.
    #[derive(
        Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
    )]
    #[repr(u8)]
    pub enum RedundancyMode {
        /// Two hops carry all packets and the first copy wins (RFC 7198; SMPTE ST 2022-7). The loss of either hop loses no
        /// packet.
        Hitless = "hitless",
        /// Sessions are open at the spares in advance, and the next packet goes there. Standby nodes take no first hop
        /// while other nodes can.
        #[default]
        Hot = "hot",
        /// All nodes carry rooms. Spares are in other zones of the same region while any are available.
        ActiveActive = "active-active",
        /// No spare is opened. A node is started after a death, and sessions are held until a node takes them.
        Cold = "cold",
        /// Spares are nodes of the next regions in the scenario's order, and are opened when the room moves there.
        Regional = "regional",
    }
}

impl RedundancyMode {
    /// Sessions are opened at the spares before packets need them, and capacity is reserved there. In other modes
    /// spares are gated, and opened when the core moves the room there.
    pub fn opens_ahead(self) -> bool {
        match self {
            RedundancyMode::Hitless | RedundancyMode::Hot | RedundancyMode::ActiveActive => true,
            RedundancyMode::Cold | RedundancyMode::Regional => false,
        }
    }

    /// Standby nodes are avoided while other nodes can take the room.
    pub fn leaves_standbys(self) -> bool {
        matches!(self, RedundancyMode::Hitless | RedundancyMode::Hot)
    }
}

crate::named! {
    /// The media of which a node gets the packets that its dead predecessor swallowed.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    pub enum ReplayedMedia {
        /// None.
        #[default]
        Off = "off",
        /// Voice and other sound.
        Audio = "audio",
        /// Sound and video.
        All = "all",
    }
}

impl ReplayedMedia {
    /// Returns whether packets of this kind are sent again.
    pub fn includes(self, kind: StreamKind) -> bool {
        match self {
            ReplayedMedia::Off => false,
            ReplayedMedia::Audio => kind == StreamKind::Audio,
            ReplayedMedia::All => true,
        }
    }
}

crate::named! {
    /// The nodes that fail together.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    pub enum FailureScope {
        /// One node.
        #[default]
        Node = "node",
        /// All nodes of a zone.
        Zone = "zone",
        /// All nodes of a region.
        Region = "region",
    }
}

/// One zone or region, whose nodes fail together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FailureDomain {
    /// All nodes of this zone.
    Zone(ZoneId),
    /// All nodes of this region.
    Region(RegionId),
}

/// The sessions that share a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Affinity {
    /// The sessions of a room are on one node and move together.
    #[default]
    Room,
    /// Each session is placed alone because the nodes are meshed: one room at the nodes is one room per session here.
    Session,
}

/// The limits within which a scenario lets policies cap its sessions.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct CapBounds {
    /// Lowest cap, kbit/s.
    pub floor_kbps: u32,
    /// Highest rate, kbit/s.
    pub ceiling_kbps: u32,
}
