//! A world and its faults, drawn from a seed.

mod draw;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use draw::{any_mode, draw_node};
use draw::{
    draw_backends, draw_faults, draw_gauges, draw_joins, draw_lists, draw_modes, draw_reserves,
    draw_settings, draw_sleepers,
};
use evenkeel_lab::links::Conditions;
use evenkeel_model::{
    AdmitOnFault, Affinity, CapBounds, CoreSettings, DegradeOnFault, FailureScope, GatewayLimits,
    NodeSettings, RedundancyMode, RegionId, Scenario, Timings, Zone, ZoneId,
};
use fastrand::Rng;

use crate::fault::{Episode, Fault};

/// The longest ejection in simulated worlds; the undisturbed end must be longer.
const EJECTION_MAX: Duration = Duration::from_secs(2);

/// 16 seeds with hot mode alternate with 16 seeds with drawn modes.
const MODES_EVERY: u64 = 16;

/// Of 48 seeds, 16 may reserve capacity for the death of a zone or region.
const RESERVES_EVERY: u64 = 3;

/// Every eighth seed has two rooms, and policies that move them all the time.
const RESTLESS: u64 = 8;

#[derive(Clone, Debug)]
pub struct Script {
    /// The seed of all random numbers.
    pub seed: u64,
    pub settings: CoreSettings,
    pub nodes: Vec<NodeScript>,
    /// Clients, ordered by time.
    pub joins: Vec<Join>,
    pub faults: Vec<Episode>,
    /// The duration, including [`Script::calm`] without faults at the end.
    pub lasts: Duration,
    pub calm: Duration,
    /// Replaces the core by a health check with this period and clients that reopen.
    pub baseline: Option<Duration>,
    /// Checks each packet; disabled for millions of packets.
    pub thorough: bool,
    /// Rates the media of each session for the [`Oracle`](crate::Oracle), and gives clients labels.
    pub rated: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct NodeScript {
    /// The link in each direction.
    pub link: Conditions,
    /// True if the node sends its own streams, as a mixer does.
    pub mixes: bool,
    /// True if each session has a port instead of a shared trunk.
    pub ports: bool,
    /// True if an agent beside the node reports the end of its process, and its load.
    pub agent: bool,
    /// The node's start hook, for cold scenarios.
    pub starts: Option<Starting>,
}

#[derive(Clone, Copy, Debug)]
pub struct Starting {
    /// Time to start, which may exceed the node's limit.
    pub takes: Duration,
    /// Percentage of failed starts.
    pub fails: u8,
}

#[derive(Clone, Copy, Debug)]
pub struct Join {
    /// Time since the start of the world.
    pub at: Duration,
    pub room: u32,
    /// True: scenario `call`; false: `live`.
    pub call: bool,
    pub video: bool,
    /// False for viewers.
    pub sends: bool,
    /// One-way delay to the gateway.
    pub delay: Duration,
    /// Time until the client leaves; `None` if it stays.
    pub stays: Option<Duration>,
    /// True if the client leaves without closing its session.
    pub vanishes: bool,
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A scenario of this policy set with these hooks bound.
pub(crate) fn scenario(set: &str, bound: [bool; 4], spares: u8, priority: i64) -> Scenario {
    Scenario {
        set: set.into(),
        bound,
        bounds: CapBounds { floor_kbps: 24, ceiling_kbps: 6_000 },
        mode: RedundancyMode::Hot,
        affinity: Affinity::Room,
        regions: Vec::new(),
        spares,
        reserve: Some(FailureScope::Node),
        spares_outside: FailureScope::Node,
        close_after: Duration::from_secs(15),
        priority,
        slo: None,
        on_admission_fault: AdmitOnFault::AdmitCapped,
        on_degradation_fault: DegradeOnFault::Hold,
    }
}

/// Settings with the region of each zone, and the zone and capacity (kbit/s) of each node.
pub(crate) fn settings(zones: &[usize], nodes: &[(usize, u64)]) -> CoreSettings {
    let zone = |(at, region): (usize, &usize)| Zone {
        name: format!("z{at}").into(),
        region: RegionId(*region as u32),
    };
    let node = |(at, &(zone, capacity_kbps)): (usize, &(usize, u64))| {
        NodeSettings::new(format!("n{at}"), ZoneId(zone as u32), capacity_kbps)
    };
    let regions = zones.iter().max().map_or(0, |last| last + 1);
    let bound = [true; 4];
    CoreSettings {
        home: RegionId(0),
        regions: (0..regions).map(|region| format!("region{region}").into()).collect(),
        carriers: Vec::new(),
        zones: zones.iter().enumerate().map(zone).collect(),
        nodes: nodes.iter().enumerate().map(node).collect(),
        scenarios: BTreeMap::from([
            (Arc::from("call"), scenario("call", bound, 2, 20)),
            (Arc::from("live"), scenario("live", bound, 1, 10)),
        ]),
        timings: Timings { ejection_max: EJECTION_MAX, ..Timings::default() },
        limits: GatewayLimits::default(),
    }
}

impl Script {
    /// Draws a world and its faults.
    pub fn from_seed(seed: u64) -> Script {
        let mut rng = Rng::with_seed(seed);
        let mut settings = draw_settings(&mut rng);
        if seed / MODES_EVERY % 2 == 1 {
            draw_modes(&mut Rng::with_seed(!seed), &mut settings);
        }
        if seed / MODES_EVERY % RESERVES_EVERY == RESERVES_EVERY - 1 {
            draw_reserves(&mut Rng::with_seed(seed ^ 0x2e5e_12e5), &mut settings);
        }
        draw_gauges(&mut Rng::with_seed(seed ^ 0x6a_09e6), &mut settings);
        let nodes: Vec<NodeScript> =
            settings.nodes.iter().map(|node| draw_node(&mut rng, node, &settings)).collect();
        let disturbed = ms(rng.u64(6_000..14_000));
        let mut joins = draw_joins(&mut rng, disturbed);
        let mut faults = draw_faults(&mut rng, &settings, disturbed);
        faults.extend(draw_sleepers(&mut Rng::with_seed(seed ^ 0x51_ee9e), &settings, disturbed));
        faults.extend(draw_backends(&mut Rng::with_seed(seed ^ 0xbac_0e4d), &settings, disturbed));
        if seed % RESTLESS == RESTLESS - 1 {
            joins.retain(|join| join.room < 2);
            let (at, fault) = (ms(2_500), Fault::PoliciesHostile);
            faults = vec![Episode { at, lasts: disturbed.saturating_sub(at), fault }];
        }
        let calm = settings.limits.open_within + settings.timings.ejection_max + ms(8_000);
        let mut disturbed = disturbed;
        if let Some(lists) = draw_lists(&mut Rng::with_seed(seed ^ 0x11_57ed), &mut settings) {
            disturbed = disturbed.max(lists.at + lists.lasts);
            faults.push(lists);
        }
        let lasts = disturbed + calm;
        Script {
            seed,
            settings,
            nodes,
            joins,
            faults,
            lasts,
            calm,
            baseline: None,
            thorough: true,
            rated: false,
        }
    }
}
