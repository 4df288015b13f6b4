//! What is in a world and what happens there, drawn from a seed.

mod draw;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{
    AdmitOnFault, Affinity, Bounds, DegradeOnFault, Limits, Mode, NodeSettings, Probed, RegionId,
    Role, Scenario, Settings, Starts, Timings, Zone, ZoneId,
};
use evenkeel_links::Conditions;
use fastrand::Rng;

use crate::fault::{Episode, Fault};
pub(crate) use draw::{any_mode, draw_node};
use draw::{
    draw_backends, draw_faults, draw_gauges, draw_joins, draw_lists, draw_modes, draw_settings,
    draw_sleepers,
};

/// The longest a world goes on undisturbed at its end, so that what was broken is whole again: ejections are this long
/// at most here.
const EJECTION_MAX: Duration = Duration::from_secs(2);

/// In so many worlds all is hot, and in as many after them modes are drawn.
const MODES_EVERY: u64 = 16;

/// Every so many worlds there is one of two rooms, whose policies do nothing but move them.
const RESTLESS: u64 = 8;

/// A world, and what happens in it.
#[derive(Clone, Debug)]
pub struct Script {
    /// All dice come from it.
    pub seed: u64,
    /// What the gateway is told.
    pub settings: Settings,
    /// The nodes as they are.
    pub nodes: Vec<NodeScript>,
    /// Who comes, in the order of time.
    pub joins: Vec<Join>,
    /// What goes wrong.
    pub faults: Vec<Episode>,
    /// How long it all takes; the last [`Script::calm`] of it undisturbed.
    pub lasts: Duration,
    /// From the last un-fault to the end.
    pub calm: Duration,
    /// Instead of the core: a health check in each of these periods, and clients that open again.
    pub baseline: Option<Duration>,
    /// Whether packets are checked one by one: not where there are millions.
    pub thorough: bool,
}

/// A node as it is.
#[derive(Clone, Copy, Debug)]
pub struct NodeScript {
    /// The way there, and the way back.
    pub link: Conditions,
    /// Whether it sends streams of its own, as a mixer does, and not what came in.
    pub mixes: bool,
    /// Whether each session has a port there, and not all of them one trunk.
    pub ports: bool,
    /// Whether an agent stands beside it, which tells of its death, and of its load.
    pub agent: bool,
    /// What its hook does, where it is one that runs only when rooms of cold scenarios need it.
    pub starts: Option<Starting>,
}

/// How a node comes to run once its hook is called.
#[derive(Clone, Copy, Debug)]
pub struct Starting {
    /// How long it takes; it may be longer than it may.
    pub takes: Duration,
    /// The hook fails so many times of a hundred.
    pub fails: u8,
}

/// Somebody comes.
#[derive(Clone, Copy, Debug)]
pub struct Join {
    /// Since the world began.
    pub at: Duration,
    /// The number of the room.
    pub room: u32,
    /// The scenario: `call`, else `live`.
    pub call: bool,
    /// Whether they have a camera.
    pub video: bool,
    /// Whether they send: a viewer does not.
    pub sends: bool,
    /// How far away from the gateway, one way.
    pub delay: Duration,
    /// How long until they leave; for ever where there is none.
    pub stays: Option<Duration>,
    /// Whether they vanish without a word then.
    pub vanishes: bool,
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A scenario of this set, with hooks bound as given.
pub(crate) fn scenario(set: &str, bound: [bool; 4], spares: u8, priority: i64) -> Scenario {
    Scenario {
        set: set.into(),
        bound,
        bounds: Bounds { floor_kbps: 24, ceiling_kbps: 6_000 },
        mode: Mode::Hot,
        affinity: Affinity::Room,
        regions: Vec::new(),
        spares,
        close_after: Duration::from_secs(15),
        priority,
        on_admission_fault: AdmitOnFault::AdmitCapped,
        on_degradation_fault: DegradeOnFault::Hold,
    }
}

/// Regions with so many zones each, and one node per entry: its zone and capacity in kbit/s.
pub(crate) fn settings(zones: &[usize], nodes: &[(usize, u64)]) -> Settings {
    let zone = |(at, region): (usize, &usize)| Zone {
        name: format!("z{at}").into(),
        region: RegionId(*region as u32),
    };
    let node = |(at, &(zone, capacity_kbps)): (usize, &(usize, u64))| NodeSettings {
        name: format!("n{at}").into(),
        zone: ZoneId(zone as u32),
        capacity_kbps,
        probed: Probed::Yes,
        role: Role::Active,
        starts: Starts::ByItself,
        canary: false,
    };
    let regions = zones.iter().max().map_or(0, |last| last + 1);
    let bound = [true; 4];
    Settings {
        home: RegionId(0),
        regions: (0..regions).map(|region| format!("region{region}").into()).collect(),
        zones: zones.iter().enumerate().map(zone).collect(),
        nodes: nodes.iter().enumerate().map(node).collect(),
        scenarios: BTreeMap::from([
            (Arc::from("call"), scenario("call", bound, 2, 20)),
            (Arc::from("live"), scenario("live", bound, 1, 10)),
        ]),
        timings: Timings { ejection_max: EJECTION_MAX, ..Timings::default() },
        limits: Limits::default(),
    }
}

impl Script {
    /// A world, and what happens in it, from one number.
    pub fn from_seed(seed: u64) -> Script {
        let mut rng = Rng::with_seed(seed);
        let mut settings = draw_settings(&mut rng);
        if seed / MODES_EVERY % 2 == 1 {
            draw_modes(&mut Rng::with_seed(!seed), &mut settings);
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
        Script { seed, settings, nodes, joins, faults, lasts, calm, baseline: None, thorough: true }
    }
}
