//! Nodes that lose more than their siblings.

use std::collections::BTreeMap;

use evenkeel_model::{
    CoreEvent, CoreSettings, EvidenceSource, FlowCounts, Health, Measures, Metric, MoveCause,
    NodeId, RedundancyMode, RoomId, SessionId,
};
use fastrand::Rng;

use super::*;

/// Rooms of one session each, reported every 100 ms: 50 packets/s, of which the node's path loses some.
struct Lossy {
    world: World,
    sessions: Vec<(String, SessionId)>,
    /// Loss in per cent by node, and on the path from clients by session.
    loss: BTreeMap<NodeId, u32>,
    uplink: BTreeMap<SessionId, u32>,
    /// Additional packets missing in the next report.
    gap: u32,
    reported_ppm: Option<u32>,
    rng: Rng,
}

impl Lossy {
    fn of(settings: CoreSettings, rooms: usize) -> Lossy {
        let mut world = World::new(settings);
        let sessions = (0..rooms).map(|room| (room.to_string(), world.open(&room.to_string())));
        let sessions = sessions.collect();
        world.outputs.clear();
        let (loss, uplink) = Default::default();
        let (gap, reported_ppm, rng) = (0, None, Rng::with_seed(5));
        let mut lossy = Lossy { world, sessions, loss, uplink, gap, reported_ppm, rng };
        lossy.goes_on(3_000);
        assert_eq!(lossy.world.moves(), []);
        lossy
    }

    fn goes_on(&mut self, time_ms: u64) {
        for _ in 0..time_ms / 100 {
            self.world.pass(ms(100));
            let (gap, reported_ppm) = (std::mem::take(&mut self.gap), self.reported_ppm);
            for (room, session) in &self.sessions {
                let Some(node) = self.world.stands(room) else { continue };
                let hears = Some(self.world.hop(node));
                let uplink = self.uplink.get(session).copied().unwrap_or(0);
                let loss = self.loss.get(&node).copied().unwrap_or(1) + uplink;
                let lost = (0..5).filter(|_| self.rng.u32(0..100) < loss).count() as u32;
                let received = [5 - lost, 0];
                let (expected, lost) = (5 + gap, lost + gap);
                let sent = [5, 0];
                let flow = FlowCounts {
                    sent,
                    received,
                    hears,
                    expected,
                    lost,
                    reported_ppm,
                    ..FlowCounts::default()
                };
                let mut measures = Measures::default();
                measures.set(Metric::LossUp, u64::from(uplink) * 10_000);
                let now = self.world.now;
                self.world.gateway.handle_summary(*session, measures, Some(now));
                self.world.gateway.handle_flow(*session, &flow, now);
            }
            self.world.settle();
        }
    }

    fn accused(&self, node: NodeId) -> Vec<EvidenceSource> {
        let detector = &self.world.gateway.tables.nodes.get(node).unwrap().detector;
        detector.witnesses().into_iter().map(|(witness, _)| witness).collect()
    }

    /// Milliseconds until a witness accuses the node, if within 10 s.
    fn accused_after(&mut self, node: NodeId) -> Option<u64> {
        (1..=100).map(|step| step * 100).find(|_| {
            self.goes_on(100);
            !self.accused(node).is_empty()
        })
    }

    fn rooms_at(&self, node: NodeId) -> usize {
        self.sessions.iter().filter(|(room, _)| self.world.stands(room) == Some(node)).count()
    }
}

/// Three near nodes of the same capacity.
fn siblings() -> CoreSettings {
    settings_of(&[(0, 100_000), (1, 100_000), (0, 100_000)])
}

#[test]
fn worse_node_is_suspected_and_left_within_2_s() {
    let mut lossy = Lossy::of(siblings(), 60);
    let before = lossy.rooms_at(A);
    assert!(before >= 15, "{before}");
    lossy.loss.insert(A, 15);
    let after = lossy.accused_after(A).unwrap();
    assert!(after <= 2_000, "{after}");
    assert_eq!(lossy.accused(A), [EvidenceSource::Cohort]);
    assert_eq!(lossy.world.gateway.tables.nodes.get(A).unwrap().health(), Health::Suspect);
    assert_eq!(lossy.rooms_at(A), before, "loss that passes by itself moves nobody");
    lossy.goes_on(1_500);
    assert_eq!(lossy.rooms_at(A), 0);
    assert!(lossy.world.gateway.board().cell(A).unwrap().up, "loss is not death");
    assert_eq!(lossy.world.moves().len(), before, "each went once, to a sound one");
    let planned = |e: &&CoreEvent| matches!(e, CoreEvent::Moved { cause: MoveCause::Link, .. });
    assert_eq!(lossy.world.events().filter(planned).count(), before);
    assert!(lossy.accused(B).is_empty() && lossy.accused(C).is_empty());
}

#[test]
fn left_node_is_avoided_then_trusted() {
    let mut lossy = Lossy::of(siblings(), 60);
    lossy.loss.insert(A, 15);
    lossy.goes_on(4_000);
    lossy.loss.clear();
    lossy.goes_on(5_000);
    assert_eq!(lossy.world.gateway.tables.nodes.get(A).unwrap().health(), Health::Suspect);
    lossy.goes_on(8_000);
    assert_eq!(lossy.world.gateway.tables.nodes.get(A).unwrap().health(), Health::Up);
}

#[test]
fn equally_bad_nodes_are_kept() {
    let mut lossy = Lossy::of(siblings(), 60);
    [A, B, C].into_iter().for_each(|node| _ = lossy.loss.insert(node, 20));
    assert_eq!(lossy.accused_after(A), None, "our own uplink, most likely");
    assert_eq!(lossy.world.moves(), []);
}

#[test]
fn ordinary_loss_accuses_no_node_for_an_hour() {
    let mut lossy = Lossy::of(siblings(), 60);
    [A, B, C].into_iter().for_each(|node| _ = lossy.loss.insert(node, 3));
    lossy.goes_on(600_000);
    let suspected = |e: &CoreEvent| matches!(e, CoreEvent::Node { to: Health::Suspect, .. });
    assert!(!lossy.world.events().any(suspected));
}

#[test]
fn bad_client_networks_suspect_no_node() {
    let mut lossy = Lossy::of(siblings(), 60);
    let at_a: Vec<SessionId> = (lossy.sessions.iter())
        .filter(|(room, _)| lossy.world.stands(room) == Some(A))
        .map(|(_, session)| *session)
        .collect();
    at_a.into_iter().for_each(|session| _ = lossy.uplink.insert(session, 15));
    assert_eq!(lossy.accused_after(A), None);
}

#[test]
fn bad_node_without_siblings_is_left_for_far() {
    let mut lossy = Lossy::of(settings_of(&[(0, 100_000), (2, 100_000)]), 30);
    assert_eq!(lossy.rooms_at(A), 30);
    lossy.loss.insert(A, 15);
    let after = lossy.accused_after(A).unwrap();
    assert!(after <= 2_000, "{after}");
    assert_eq!(lossy.accused(A), [EvidenceSource::Feedback]);
    lossy.goes_on(1_500);
    assert_eq!(lossy.rooms_at(D.min(B)), 30);
}

#[test]
fn failover_loss_is_not_new_nodes() {
    let mut lossy = Lossy::of(settings_of(&[(0, 100_000), (0, 100_000), (2, 100_000)]), 60);
    assert!(lossy.rooms_at(A) >= 20);
    lossy.world.kill(A);
    // The first report from the next hop contains the gap, and RTCP reports partly cover the time before.
    (lossy.gap, lossy.reported_ppm) = (7, Some(120_000));
    for _ in 0..60 {
        lossy.goes_on(100);
        assert_eq!(lossy.accused(B), []);
    }
    lossy.reported_ppm = None;
    assert_eq!(lossy.accused_after(B), None);
    assert_eq!(lossy.rooms_at(B), 60);
    lossy.loss.insert(B, 15);
    let after = lossy.accused_after(B).unwrap();
    assert!(after <= 2_000, "what it loses itself is: {after}");
}

#[test]
fn rooms_without_alternative_stay() {
    let mut lossy = Lossy::of(settings_of(&[(0, 100_000), (0, 64)]), 30);
    let before = lossy.rooms_at(A);
    lossy.loss.insert(A, 15);
    lossy.goes_on(5_000);
    assert!(lossy.rooms_at(A) >= before - 1, "bad is better than nothing");
}

#[test]
fn probe_and_media_loss_are_one_witness() {
    let mut lossy = Lossy::of(siblings(), 60);
    lossy.loss.insert(A, 15);
    lossy.accused_after(A).unwrap();
    let now = lossy.world.now;
    let detector = &mut lossy.world.gateway.tables.nodes[A].detector;
    (0..2).for_each(|sequence| detector.handle_probe_sent(sequence, now - ms(40)));
    lossy.world.stamp(ms(0));
    assert_eq!(lossy.accused(A), [EvidenceSource::Probe, EvidenceSource::Cohort]);
    assert!(lossy.world.gateway.board().cell(A).unwrap().up);
}

#[test]
fn lossy_node_is_left_once_without_flapping() {
    let mut lossy = Lossy::of(settings_of(&[(0, 100_000), (2, 100_000)]), 30);
    lossy.loss.insert(A, 15);
    lossy.world.lose_probes(A, 15);
    lossy.goes_on(60_000);
    assert_eq!((lossy.rooms_at(B), lossy.world.moves().len()), (30, 30), "nobody comes to try");
    assert!(lossy.accused(A).contains(&EvidenceSource::Feedback), "nothing changed since");
    lossy.loss.clear();
    lossy.world.lose_probes(A, 0);
    lossy.goes_on(20_000);
    assert_eq!((lossy.rooms_at(A), lossy.world.moves().len()), (30, 60));
}

#[test]
fn equally_lossy_target_is_refused() {
    for (percent, leaves) in [(0, true), (15, false)] {
        let settings = settings_of(&[(0, 100_000), (1, 100_000)]);
        let mut lossy = Lossy::of(modes::in_mode(RedundancyMode::ActiveActive, settings), 60);
        lossy.world.lose_probes(B, percent);
        lossy.goes_on(15_000);
        let before = lossy.rooms_at(A);
        for (room, _) in &lossy.sessions {
            // The other node has more free capacity.
            if lossy.world.stands(room) == Some(A) {
                lossy.world.open(room);
            }
        }
        lossy.loss.insert(A, 15);
        lossy.goes_on(8_000);
        assert_eq!(lossy.rooms_at(A) < before, leaves, "{percent}");
    }
}

#[test]
fn bad_region_is_left_as_a_whole() {
    let settings = settings_of(&[(0, 100_000), (1, 100_000), (2, 100_000)]);
    let mut lossy = Lossy::of(modes::in_mode(RedundancyMode::ActiveActive, settings), 60);
    let before = lossy.rooms_at(B);
    assert!(before >= 15, "{before}");
    lossy.loss.insert(A, 15);
    lossy.world.lose_probes(A, 15);
    lossy.goes_on(500);
    lossy.loss.insert(B, 15);
    lossy.world.lose_probes(B, 15);
    lossy.goes_on(10_000);
    assert_eq!((lossy.rooms_at(C), lossy.world.moves().len()), (60, 60));
}

#[test]
fn few_bad_rooms_of_one_kind_are_ignored() {
    let mut world = World::new(settings_of(&[(0, 100_000), (2, 100_000)]));
    let vote = |world: &mut World, kind: &str, rooms: std::ops::Range<u64>, bad| {
        let gateway = &mut world.gateway;
        for room in rooms {
            gateway.quality.vote((A, kind.into()), RoomId(room), bad, world.now);
        }
        gateway.weigh_cohorts(world.now);
    };
    let loses = |world: &World| world.gateway.tables.nodes.get(A).unwrap().loses();
    vote(&mut world, "call", 0..20, false);
    vote(&mut world, "live", 20..26, true);
    assert!(!loses(&world));
    vote(&mut world, "call", 0..20, true);
    assert!(loses(&world));
}
