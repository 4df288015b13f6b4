//! What is in a world and what happens there, drawn from a seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_core::{
    AdmitOnFault, Affinity, Bounds, Limits, Mode, NodeSettings, Probed, RegionId, Role, Scenario,
    Settings, Starts, Timings, Zone, ZoneId,
};
use evenkeel_links::{Bursts, Conditions};
use fastrand::Rng;

use crate::fault::{Episode, Fault};

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
        if seed % RESTLESS == RESTLESS - 1 {
            joins.retain(|join| join.room < 2);
            let (at, fault) = (ms(2_500), Fault::PoliciesHostile);
            faults = vec![Episode { at, lasts: disturbed.saturating_sub(at), fault }];
        }
        let calm = settings.limits.open_within + settings.timings.ejection_max + ms(8_000);
        let lasts = disturbed + calm;
        Script { seed, settings, nodes, joins, faults, lasts, calm, baseline: None, thorough: true }
    }
}

fn draw_settings(rng: &mut Rng) -> Settings {
    let regions = rng.usize(1..4);
    let zones: Vec<usize> = (0..regions).flat_map(|region| vec![region; rng.usize(1..3)]).collect();
    let count = rng.usize(2..7).max(zones.len());
    let tight = rng.u8(0..3) == 0;
    let capacity = |rng: &mut Rng| if tight { rng.u64(300..1_500) } else { rng.u64(3_000..20_000) };
    let nodes: Vec<(usize, u64)> = (0..count).map(|at| (at % zones.len(), capacity(rng))).collect();
    let mut settings = settings(&zones, &nodes);
    for scenario in settings.scenarios.values_mut() {
        scenario.bound = std::array::from_fn(|_| rng.u8(0..4) > 0);
        scenario.spares = rng.u8(1..4);
    }
    let limits = &mut settings.limits;
    limits.open_within = ms(rng.u64(500..2_000));
    limits.churn_percent = rng.u32(10..101);
    // Few rooms make herds that last, where a turn is short.
    limits.lost_at_once = if rng.bool() { 256 } else { rng.usize(1..4) };
    for node in &mut settings.nodes {
        node.probed = if rng.u8(0..8) == 0 { Probed::No } else { Probed::Yes };
    }
    settings
}

/// Scenarios have any mode, and some nodes stand by. By dice of its own, so that the same happens to them as to hot ones.
fn draw_modes(rng: &mut Rng, settings: &mut Settings) {
    let regions = settings.regions.len() as u32;
    for scenario in settings.scenarios.values_mut() {
        any_mode(rng, regions, scenario);
    }
    for node in &mut settings.nodes {
        node.role = if rng.u8(0..4) == 0 { Role::Standby } else { Role::Active };
    }
    for scenario in settings.scenarios.values_mut() {
        // Nodes that pass on to each other deliver everything twice where two of them carry all.
        let meshed = rng.u8(0..3) == 0 && scenario.mode != Mode::Hitless;
        scenario.affinity = if meshed { Affinity::Session } else { Affinity::Room };
    }
    if settings.scenarios.values().any(|scenario| scenario.affinity == Affinity::Session) {
        // A node whose sessions are heard at other nodes alone is silent, and nothing but probes says that it lives.
        settings.nodes.iter_mut().for_each(|node| node.probed = Probed::Yes);
    }
    if settings.scenarios.values().any(|scenario| scenario.mode == Mode::Cold) {
        for node in settings.nodes.iter_mut().skip(1) {
            if rng.u8(0..3) > 0 {
                continue;
            }
            node.starts = Starts::ByHook { within: ms(rng.u64(500..3_000)) };
            node.probed = Probed::Yes;
        }
    }
}

/// Nodes with canaries, and breakers that so few sessions can open.
fn draw_gauges(rng: &mut Rng, settings: &mut Settings) {
    for node in &mut settings.nodes {
        node.canary = rng.bool();
    }
    let breakers = &mut settings.limits.breakers;
    breakers.sessions_min = rng.u32(2..20);
    breakers.open_for = ms(rng.u64(500..3_000));
    breakers.open_for_max = EJECTION_MAX;
}

/// Any mode but hot, which others have: for regional mode with all regions in any order.
pub(crate) fn any_mode(rng: &mut Rng, regions: u32, scenario: &mut Scenario) {
    let modes = [Mode::Hitless, Mode::ActiveActive, Mode::Cold, Mode::Regional];
    scenario.mode = modes[rng.usize(0..modes.len())];
    scenario.regions = (0..regions).map(RegionId).collect();
    rng.shuffle(&mut scenario.regions);
}

fn draw_node(rng: &mut Rng, node: &NodeSettings, settings: &Settings) -> NodeScript {
    let home = settings.zones[node.zone.0 as usize].region == settings.home;
    let micros = if home { rng.u64(100..2_000) } else { rng.u64(8_000..60_000) };
    let bursts =
        Bursts { enter_ppm: 20, leave_ppm: 500_000, good_loss_ppm: 0, bad_loss_ppm: 500_000 };
    let link = Conditions {
        delay: Duration::from_micros(micros),
        jitter: Duration::from_micros(rng.u64(0..800)),
        bursts: (rng.u8(0..4) == 0).then_some(bursts),
        ..Conditions::default()
    };
    let (mixes, ports) = (rng.bool(), rng.u8(0..4) == 0);
    let agent = rng.u8(0..3) == 0;
    let starts = match node.starts {
        Starts::ByItself => None,
        Starts::ByHook { within } => {
            let mut rng = Rng::with_seed(node.capacity_kbps);
            let takes = within.mul_f64(0.1 + rng.f64() * 1.2);
            Some(Starting { takes, fails: if rng.bool() { 0 } else { rng.u8(0..60) } })
        }
    };
    NodeScript { link, mixes, ports, agent, starts }
}

fn draw_joins(rng: &mut Rng, disturbed: Duration) -> Vec<Join> {
    let rooms = rng.u32(2..14);
    let late = disturbed.as_millis() as u64;
    let mut joins = Vec::new();
    for room in 0..rooms {
        let call = rng.u8(0..4) > 0;
        let people = if call { rng.u32(1..4) } else { rng.u32(2..6) };
        let opens = if rng.u8(0..3) > 0 { rng.u64(0..1_000) } else { rng.u64(0..late) };
        for person in 0..people {
            let at = ms(opens + rng.u64(0..1_500));
            let stays = (rng.u8(0..3) == 0).then(|| ms(rng.u64(500..8_000)));
            let sends = call || person == 0;
            let delay = ms(rng.u64(3..60));
            let vanishes = stays.is_some() && rng.u8(0..4) == 0;
            joins.push(Join {
                at,
                room,
                call,
                video: sends && rng.u8(0..4) == 0,
                sends,
                delay,
                stays,
                vanishes,
            });
        }
    }
    joins.sort_by_key(|join| join.at);
    joins
}

fn draw_faults(rng: &mut Rng, settings: &Settings, disturbed: Duration) -> Vec<Episode> {
    let end = disturbed.as_millis() as u64;
    let regions = settings.regions.len();
    let mut faults: Vec<Episode> = (0..rng.usize(1..7))
        .map(|_| {
            let fault = draw_fault(rng, settings);
            let at = rng.u64(2_500..end - 500);
            let lasts = match rng.u8(0..4) {
                0 => rng.u64(20..300),
                1 => 5_000,
                _ => rng.u64(300..4_000),
            };
            Episode { at: ms(at), lasts: ms(lasts.min(end - at)), fault }
        })
        .collect();
    if regions > 1 && rng.u8(0..16) == 0 {
        // Two at once, and both come back.
        let (first, at) = (rng.usize(0..regions), rng.u64(2_500..end - 500));
        let lasts = ms(rng.u64(300..4_000).min(end - at));
        for region in [first, (first + 1) % regions] {
            faults.push(Episode { at: ms(at), lasts, fault: Fault::RegionSilent(region) });
        }
    }
    faults
}

/// A node that is being left stands still, and wakes up while what it delivers would still pass. In one world of four, by
/// dice of its own.
fn draw_sleepers(rng: &mut Rng, settings: &Settings, disturbed: Duration) -> Vec<Episode> {
    if rng.u8(0..4) > 0 {
        return Vec::new();
    }
    let node = rng.usize(0..settings.nodes.len());
    let at = ms(rng.u64(2_500..disturbed.as_millis() as u64 - 2_500));
    let drained = at + ms(rng.u64(0..25));
    vec![
        Episode { at, lasts: ms(rng.u64(200..450)), fault: Fault::Stop(node) },
        Episode { at: drained, lasts: ms(rng.u64(500..2_000)), fault: Fault::Drain(node) },
    ]
}

fn draw_fault(rng: &mut Rng, settings: &Settings) -> Fault {
    let node = rng.usize(0..settings.nodes.len());
    let region = rng.usize(0..settings.regions.len());
    match rng.u8(0..60) {
        0..5 => Fault::Kill(node),
        5..8 => Fault::Silent(node),
        8..10 => Fault::Stop(node),
        10 => Fault::Flap(node, ms(rng.u64(100..1_500))),
        11 => Fault::Cut(node),
        12 => Fault::CutUp(node),
        13 => Fault::CutDown(node),
        14 => Fault::Blackouts(node, ms(rng.u64(400..5_000))),
        15 => Fault::LossRamp(node),
        16 => Fault::Bursts(node),
        17 => Fault::Slow(node, ms(200)),
        18 => Fault::Jitter(node, ms(160), Duration::ZERO),
        19 => Fault::Unruly(node),
        20 => Fault::Gray(node),
        21 => Fault::GrayFlows(node, rng.u32(2..65)),
        22 => Fault::Liar(node),
        23 => Fault::RegionSilent(region),
        24 => Fault::RegionKilled(region),
        25 => Fault::RegionCut(region),
        26..28 => Fault::ControlStalls(ms(rng.u64(3..400))),
        28..30 => Fault::WorkersStall(ms(rng.u64(3..400))),
        30 => Fault::PoliciesTrap(rng.u8(1..101)),
        31 => Fault::PoliciesLate,
        32 => Fault::PoliciesDead,
        33..35 => Fault::PoliciesHostile,
        35 => Fault::PoliciesSwapped(ms(rng.u64(50..500))),
        36 => Fault::DriversSlow(ms(rng.u64(10..3_000))),
        37 => Fault::DriversRefuse(rng.u8(5..60)),
        38..40 => Fault::Operator(ms(rng.u64(50..1_000))),
        40..42 => Fault::Leaves(node),
        42..44 => Fault::Drain(node),
        44..46 => Fault::Gray(node),
        46..48 => Fault::GrayFlows(node, rng.u32(2..17)),
        48..50 => Fault::CrashLoop(node),
        50..52 => Fault::Boasts(node, rng.u32(0..8)),
        52..54 => Fault::RegionBrownOut(region),
        54 => Fault::RegionDrained(region, ms(rng.u64(50..3_000))),
        55..57 => Fault::DrainWithin(node, ms(rng.u64(50..3_000))),
        57 => Fault::FailBackForced,
        58 => Fault::FailBackForbidden,
        _ => Fault::RegionKilled(region),
    }
}
