use evenkeel_model::{GatewayLimits, Timings};

use super::*;
use crate::circuit::WINDOW;

/// Two zones of one region, and the zone of another region.
const A: ZoneId = ZoneId(0);
const B: ZoneId = ZoneId(1);
const FAR: ZoneId = ZoneId(2);

struct Scene {
    breakers: DomainBreakers,
    zones: Vec<JudgedZone>,
    names: Vec<Zone>,
    now: Instant,
}

/// The place of an event, and the state after it.
type Told = (u32, Option<String>, BreakerState);

impl Scene {
    fn new() -> Scene {
        let zone = |name: &str, region| Zone { name: name.into(), region: RegionId(region) };
        let names = vec![zone("a", 0), zone("b", 0), zone("c", 1)];
        let settings = CoreSettings {
            home: RegionId(0),
            regions: vec!["home".into(), "away".into()],
            carriers: Vec::new(),
            zones: names.clone(),
            nodes: Vec::new(),
            scenarios: BTreeMap::new(),
            timings: Timings::default(),
            limits: GatewayLimits::default(),
        };
        let judged = |zone: ZoneId| JudgedZone {
            zone,
            region: names[zone.0 as usize].region,
            is_listed: true,
            load_permille: Some(0),
            loses: Some(false),
        };
        let (zones, now) = ([A, B, FAR].map(judged).to_vec(), Instant::now());
        Scene { breakers: DomainBreakers::new(&settings, now), zones, names, now }
    }

    /// Two windows, in which 30 sessions of each of these zones lose this share of packets in per cent.
    fn hear(&mut self, heard: &[(ZoneId, u64)]) -> Vec<Told> {
        let mut told = Vec::new();
        for _ in 0..2 {
            for (zone, percent) in heard {
                let mut measures = Measures::default();
                measures.set(Metric::LossDown, percent * 10_000);
                for _ in 0..30 {
                    self.breakers.judge(*zone, &mut JudgedWindow::default(), &measures);
                }
            }
            told.extend(self.weigh());
        }
        told
    }

    fn weigh(&mut self) -> Vec<Told> {
        self.now += WINDOW;
        let events = self.breakers.weigh(&self.zones, &self.names, self.now);
        let told = |event| match event {
            CoreEvent::Breaker { region, zone, to, .. } => {
                (region.0, zone.map(|zone| zone.to_string()), to)
            }
            other => panic!("{other:?}"),
        };
        events.into_iter().map(told).collect()
    }

    fn hold(&mut self, zone: ZoneId, mode: BreakerMode) {
        let place = FailureDomain::Zone(zone);
        assert!(self.breakers.hold(place, mode, &self.names, self.now).is_some());
    }

    fn admits(&self) -> [bool; 3] {
        [A, B, FAR].map(|zone| self.breakers.admits(FailureDomain::Zone(zone), 1))
    }
}

fn zone(name: &str, state: BreakerState) -> Vec<Told> {
    vec![(0, Some(name.to_owned()), state)]
}

#[test]
fn bad_zone_opens_its_own_breaker_alone() {
    let mut scene = Scene::new();
    assert_eq!(scene.hear(&[(A, 15), (B, 0), (FAR, 0)]), zone("a", BreakerState::Open));
    assert_eq!(scene.admits(), [false, true, true]);
    assert!(!scene.breakers.are_all_closed());
    assert_eq!(
        scene.hear(&[(A, 15), (B, 0), (FAR, 0)]),
        [],
        "its sessions say nothing of the region"
    );
}

#[test]
fn zone_opens_with_a_single_region() {
    let mut scene = Scene::new();
    scene.zones.pop();
    assert_eq!(scene.hear(&[(A, 15), (B, 0)]), zone("a", BreakerState::Open));
}

#[test]
fn unmeasured_sessions_are_not_counted() {
    let mut scene = Scene::new();
    let [mut lossy, mut poor, unmeasured] = [Measures::default(); 3];
    lossy.set(Metric::LossDown, 150_000);
    poor.set(Metric::RFactor, 4_000);
    let mut told = Vec::new();
    for _ in 0..2 {
        for measures in [&lossy, &poor, &unmeasured, &unmeasured, &unmeasured] {
            for _ in 0..10 {
                scene.breakers.judge(A, &mut JudgedWindow::default(), measures);
            }
        }
        told.extend(scene.weigh());
    }
    assert_eq!(told, zone("a", BreakerState::Open), "all 20 are bad, and 30 say nothing");
}

#[test]
fn repaired_loss_opens_no_breaker() {
    for (left_ppm, opened) in [(0, Vec::new()), (150_000, zone("a", BreakerState::Open))] {
        let mut scene = Scene::new();
        let mut lossy = Measures::default();
        lossy.set(Metric::LossDown, 150_000).set(Metric::LossHeard, left_ppm);
        let mut told = Vec::new();
        for _ in 0..2 {
            for _ in 0..20 {
                scene.breakers.judge(A, &mut JudgedWindow::default(), &lossy);
            }
            told.extend(scene.weigh());
        }
        assert_eq!(told, opened, "{left_ppm} ppm left");
    }
}

#[test]
fn equally_bad_zones_open_the_breaker_of_their_region() {
    let mut scene = Scene::new();
    let told = scene.hear(&[(A, 15), (B, 15), (FAR, 0)]);
    assert_eq!(told, [(0, None, BreakerState::Open)]);
    assert_eq!(scene.admits(), [true; 3]);
    assert_eq!(scene.hear(&[(A, 15), (B, 0), (FAR, 0)]), [], "the region is being judged");
}

#[test]
fn only_zone_of_a_region_is_judged_as_the_region() {
    let mut scene = Scene::new();
    let told = scene.hear(&[(A, 0), (B, 0), (FAR, 15)]);
    assert_eq!(told, [(1, None, BreakerState::Open)]);
}

#[test]
fn last_closed_zone_stays_closed() {
    let mut scene = Scene::new();
    scene.hold(B, BreakerMode::Open);
    assert_eq!(scene.breakers.admits_in(FailureDomain::Zone(B), scene.now), Duration::MAX);
    assert_eq!(scene.hear(&[(A, 15), (FAR, 0)]), [(0, None, BreakerState::Open)]);
    assert_eq!(scene.admits(), [true, false, true]);
}

#[test]
fn zone_stays_closed_while_no_other_has_capacity() {
    let mut scene = Scene::new();
    scene.zones.remove(2);
    for load in [None, Some(TAKES_BELOW)] {
        scene.zones[1].load_permille = load;
        assert_eq!(scene.hear(&[(A, 15), (B, 0)]), [], "{load:?}");
    }
    scene.zones[1].load_permille = Some(TAKES_BELOW - 1);
    assert_eq!(scene.hear(&[(A, 15), (B, 0)]), zone("a", BreakerState::Open));
    scene.zones[1].load_permille = Some(KEEPS_BELOW - 1);
    assert_eq!(scene.hear(&[(A, 15), (B, 0)]), []);
    scene.zones[1].load_permille = Some(KEEPS_BELOW);
    assert_eq!(scene.hear(&[(A, 15)]), zone("a", BreakerState::Closed));
}

#[test]
fn held_zone_stays_open_without_an_alternative() {
    let mut scene = Scene::new();
    scene.zones[1].load_permille = None;
    scene.hold(A, BreakerMode::Open);
    assert_eq!(scene.weigh(), []);
    assert_eq!(scene.admits(), [false, true, true]);
}

#[test]
fn hold_outlasts_the_nodes_of_its_zone() {
    let mut scene = Scene::new();
    scene.hold(A, BreakerMode::Open);
    let nodes = scene.zones.remove(0);
    assert_eq!(scene.weigh(), zone("a", BreakerState::Closed));
    // Another zone takes the number of the zone, which gets another one.
    let named = Zone { name: "d".into(), ..scene.names[0].clone() };
    let first = std::mem::replace(&mut scene.names[0], named);
    scene.names.push(first);
    scene.zones.push(nodes);
    assert_eq!(scene.weigh(), []);
    scene.zones.push(JudgedZone { zone: ZoneId(3), ..nodes });
    assert_eq!(scene.weigh(), zone("a", BreakerState::Open));
    assert_eq!(scene.breakers.mode(FailureDomain::Zone(ZoneId(3))), BreakerMode::Open);
    assert_eq!(scene.admits(), [true; 3]);
}

#[test]
fn failed_openings_open_the_breaker_of_their_zone() {
    let mut scene = Scene::new();
    let mut told = Vec::new();
    for _ in 0..2 {
        for _ in 0..20 {
            scene.breakers.note_opening(A, false);
            scene.breakers.note_opening(B, true);
        }
        told.extend(scene.weigh());
    }
    assert_eq!(told, zone("a", BreakerState::Open));
}

#[test]
fn half_open_zone_waits_while_its_nodes_lose_probes() {
    let mut scene = Scene::new();
    scene.hear(&[(A, 15), (B, 0), (FAR, 0)]);
    scene.zones[0].loses = Some(true);
    let told: Vec<Told> = (0..30).flat_map(|_| scene.weigh()).collect();
    assert_eq!(told, zone("a", BreakerState::HalfOpen));
    scene.zones[0].loses = Some(false);
    let told: Vec<Told> = (0..10).flat_map(|_| scene.weigh()).collect();
    assert_eq!(told, zone("a", BreakerState::Closed));
}

#[test]
fn breaker_ends_with_the_last_node_of_its_zone() {
    let mut scene = Scene::new();
    scene.hear(&[(A, 15), (B, 0), (FAR, 0)]);
    scene.zones.remove(0);
    assert_eq!(scene.weigh(), zone("a", BreakerState::Closed));
    assert_eq!(scene.admits(), [true; 3]);
}

#[test]
fn breaker_of_another_process_continues() {
    let mut scene = Scene::new();
    scene.hear(&[(A, 15), (B, 0), (FAR, 0)]);
    let (mut next, place) = (Scene::new(), FailureDomain::Zone(A));
    let open = scene.breakers.get(place);
    assert!(next.breakers.restore(place, open, &next.names, scene.now).is_some());
    assert_eq!(next.admits(), [false, true, true]);
    assert!(next.breakers.restore(place, None, &next.names, scene.now).is_some());
    assert_eq!(next.admits(), [true; 3]);
}
