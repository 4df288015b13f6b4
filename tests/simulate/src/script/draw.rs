//! Drawing of nodes, clients and faults.

use std::time::Duration;

use evenkeel_lab::links::{Bursts, Conditions};
use evenkeel_model::{
    Affinity, CoreSettings, FailureScope, NodeProbing, NodeSettings, RedundancyMode, RegionId,
    RegionRole, Scenario, Starts,
};
use fastrand::Rng;

use super::{EJECTION_MAX, Join, NodeScript, Starting, ms, settings};
use crate::fault::{Episode, Fault};

pub(super) fn draw_settings(rng: &mut Rng) -> CoreSettings {
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
    // With few rooms, only a small limit makes recovery take several turns.
    limits.lost_at_once = if rng.bool() { 256 } else { rng.usize(1..4) };
    for node in &mut settings.nodes {
        node.probed = if rng.u8(0..8) == 0 { NodeProbing::No } else { NodeProbing::Yes };
    }
    settings
}

/// Draws modes and standbys. The generator is separate, so that hot and other seeds have the same faults.
pub(super) fn draw_modes(rng: &mut Rng, settings: &mut CoreSettings) {
    let regions = settings.regions.len() as u32;
    for scenario in settings.scenarios.values_mut() {
        any_mode(rng, regions, scenario);
    }
    for node in &mut settings.nodes {
        node.role = if rng.u8(0..4) == 0 { RegionRole::Standby } else { RegionRole::Active };
    }
    for scenario in settings.scenarios.values_mut() {
        scenario.affinity = if rng.u8(0..3) == 0 { Affinity::Session } else { Affinity::Room };
    }
    if settings.scenarios.values().any(|scenario| scenario.affinity == Affinity::Session) {
        // A node is silent if all its sessions are heard at other nodes; then only probes show that it is up.
        settings.nodes.iter_mut().for_each(|node| node.probed = NodeProbing::Yes);
    }
    if settings.scenarios.values().any(|scenario| scenario.mode == RedundancyMode::Cold) {
        for node in settings.nodes.iter_mut().skip(1) {
            if rng.u8(0..3) > 0 {
                continue;
            }
            node.starts = Starts::ByHook { within: ms(rng.u64(500..3_000)) };
            node.probed = NodeProbing::Yes;
        }
    }
}

/// Draws the deaths that reserves cover, and the places without spares. Has its own random generator.
pub(super) fn draw_reserves(rng: &mut Rng, settings: &mut CoreSettings) {
    for scenario in settings.scenarios.values_mut() {
        // One of four scenarios has the default.
        scenario.reserve = FailureScope::ALL.get(rng.usize(..=FailureScope::ALL.len())).copied();
    }
    for scenario in settings.scenarios.values_mut() {
        scenario.spares_outside = FailureScope::ALL[rng.usize(..FailureScope::ALL.len())];
    }
}

/// Draws canaries, and breakers that few sessions can open.
pub(super) fn draw_gauges(rng: &mut Rng, settings: &mut CoreSettings) {
    for node in &mut settings.nodes {
        node.canary = rng.bool();
    }
    let breakers = &mut settings.limits.breakers.circuit;
    breakers.sessions_min = rng.u32(2..20);
    breakers.open_for = ms(rng.u64(500..3_000));
    breakers.open_for_max = EJECTION_MAX;
}

/// Draws a mode other than hot; regional mode has all regions in random order.
pub(crate) fn any_mode(rng: &mut Rng, regions: u32, scenario: &mut Scenario) {
    let modes = [
        RedundancyMode::Hitless,
        RedundancyMode::ActiveActive,
        RedundancyMode::Cold,
        RedundancyMode::Regional,
    ];
    scenario.mode = modes[rng.usize(0..modes.len())];
    scenario.regions = (0..regions).map(RegionId).collect();
    rng.shuffle(&mut scenario.regions);
}

pub(crate) fn draw_node(rng: &mut Rng, node: &NodeSettings, settings: &CoreSettings) -> NodeScript {
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

pub(super) fn draw_joins(rng: &mut Rng, disturbed: Duration) -> Vec<Join> {
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

pub(super) fn draw_faults(
    rng: &mut Rng,
    settings: &CoreSettings,
    disturbed: Duration,
) -> Vec<Episode> {
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
        // Two regions fail at once and return.
        let (first, at) = (rng.usize(0..regions), rng.u64(2_500..end - 500));
        let lasts = ms(rng.u64(300..4_000).min(end - at));
        for region in [first, (first + 1) % regions] {
            faults.push(Episode { at: ms(at), lasts, fault: Fault::RegionSilent(region) });
        }
    }
    faults
}

/// In one of four worlds, a drained node stops, and resumes while its packets are still accepted. Has its own random
/// generator.
pub(super) fn draw_sleepers(
    rng: &mut Rng,
    settings: &CoreSettings,
    disturbed: Duration,
) -> Vec<Episode> {
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

/// In one of six worlds, only media ports answer, and a node dies meanwhile. Has its own random generator.
pub(super) fn draw_backends(
    rng: &mut Rng,
    settings: &CoreSettings,
    disturbed: Duration,
) -> Vec<Episode> {
    if rng.u8(0..6) > 0 {
        return Vec::new();
    }
    let node = rng.usize(0..settings.nodes.len());
    let lasts = rng.u64(500..3_000);
    let at = rng.u64(2_500..disturbed.as_millis() as u64 - lasts);
    let dies = at + rng.u64(50..lasts - 100);
    let fault = if rng.bool() { Fault::Kill(node) } else { Fault::Silent(node) };
    let episode = |at: u64, lasts: u64, fault| Episode { at: ms(at), lasts: ms(lasts), fault };
    vec![
        episode(at, lasts, Fault::BackendsDead),
        episode(dies, rng.u64(100..3_000).min(disturbed.as_millis() as u64 - dies), fault),
    ]
}

/// In one of six worlds, the node list changes for long enough to reuse numbers. Has its own random generator.
pub(super) fn draw_lists(rng: &mut Rng, settings: &mut CoreSettings) -> Option<Episode> {
    if rng.u8(0..6) > 0 {
        return None;
    }
    settings.limits.nodes_max = settings.nodes.len() + rng.usize(0..3);
    let fault = Fault::Relisted(ms(rng.u64(100..1_500)));
    Some(Episode { at: ms(2_000), lasts: ms(rng.u64(4_000..20_000)), fault })
}

fn draw_fault(rng: &mut Rng, settings: &CoreSettings) -> Fault {
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
        57 => Fault::FailbackForced,
        58 => Fault::FailbackForbidden,
        _ => Fault::RegionKilled(region),
    }
}
