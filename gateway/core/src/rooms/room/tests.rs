use evenkeel_model::Incarnation;

use super::*;
use crate::gateway::tests::settings;

const A: NodeId = NodeId(0);
const B: NodeId = NodeId(1);

fn hop(node: NodeId) -> Hop {
    Hop { node, incarnation: Incarnation(1) }
}

/// For tests of records.
impl RoomRecord {
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn route(&self) -> &[(Hop, HopGrant)] {
        &self.hops
    }

    pub(crate) fn opens_ahead(&self) -> bool {
        self.mode.opens_ahead()
    }

    pub(crate) fn uses(&self, hop: Hop) -> bool {
        self.leaving.is_some_and(|(left, _)| left == hop)
            || self.hops.iter().any(|(on, _)| *on == hop)
    }

    pub(crate) fn lose_route(&mut self) {
        self.hops.clear();
    }

    /// The second record continues this one. Capacity may have limited its route.
    pub(crate) fn assert_continued(&self, is: &RoomRecord) {
        assert!(is.version > self.version);
        assert!(is.waits || !self.waits);
        let order =
            |hops: &[(Hop, HopGrant)]| -> Vec<Hop> { hops.iter().map(|(hop, _)| *hop).collect() };
        assert_eq!(order(&self.hops), order(&is.hops));
        let same = RoomRecord {
            version: is.version,
            waits: is.waits,
            hops: is.hops.clone(),
            covers: is.covers,
            ..self.clone()
        };
        assert_eq!(same, *is);
    }

    /// Takes the hops of the other gateway.
    pub(crate) fn translate(&mut self, hops: &HopMap) {
        self.hops.iter_mut().for_each(|(hop, _)| *hop = hops.map(*hop).unwrap());
        self.leaving = self.leaving.and_then(|(hop, until)| Some((hops.map(hop)?, until)));
        if let Some(stranded) = &mut self.stranded {
            stranded.lost = hops.past(stranded.lost);
        }
        self.struck.retain(|struck| hops.map(struck.hop).is_some());
        self.struck.iter_mut().for_each(|struck| struck.hop = hops.past(struck.hop));
        let pair = |[one, other]: [Hop; 2]| Some([hops.map(one)?, hops.map(other)?]);
        self.unalike = self.unalike.and_then(pair);
        self.port_moves.iter_mut().for_each(|port| port.translate(hops));
        for step in &mut self.moves {
            step.from = hops.past(step.from);
            step.to = step.to.map(|to| hops.past(to));
        }
    }
}

struct Table {
    room: Room,
    nodes: NodeTable,
    ledger: CapacityLedger,
    now: Instant,
}

impl Table {
    /// A room of one session, which a node of three carries.
    fn new() -> Table {
        let now = Instant::now();
        let labels = Arc::from(Vec::new());
        let (name, scenario) = (Arc::from("r"), Arc::from("call"));
        let mut room = Room::new(RoomId(1), name, scenario, labels, RegionId(0), RoomId(1));
        room.resolve(&[(Param::Spares, 1)]);
        room.join(SessionId(1));
        let nodes = NodeTable::new(&mut settings(), now);
        let ledger = CapacityLedger::new(vec![100; nodes.count()]);
        let mut table = Table { room, nodes, ledger, now };
        let first = table.weigh(|room, scales| room.admit_at(&[hop(A)], None, scales));
        assert!(first.is_first_route);
        table
    }

    fn weigh(&mut self, act: impl FnOnce(&mut Room, &RoomScales) -> RoomChange) -> RoomChange {
        let (need, leave_within) = (RoomNeed::new(10, None), Duration::ZERO);
        let scales = RoomScales::new(need, true, &self.nodes, &self.ledger, leave_within);
        let change = act(&mut self.room, &scales);
        change.capacity.into_iter().for_each(|capacity| self.ledger.apply(capacity));
        change
    }

    fn head_for(&mut self, hops: &[NodeId]) -> RoomChange {
        let hops = hops.iter().map(|node| hop(*node)).collect();
        let by = Arc::new(Decider::Native);
        let change = self.room.head_for(hops, MoveCause::Drain, by, Some(hop(A)), self.now);
        self.room.await_openings([(SessionId(1), hop(B))]);
        change
    }
}

fn outcome(change: &RoomChange) -> Option<MoveOutcome> {
    match change.move_ended {
        Some(CoreEvent::MoveEnded { outcome, .. }) => Some(outcome),
        _ => None,
    }
}

#[test]
fn move_to_another_hop_supersedes_the_one_before() {
    let mut table = Table::new();
    assert_eq!(outcome(&table.head_for(&[B])), None);
    assert_eq!(outcome(&table.head_for(&[B])), None, "the same move goes on");
    assert_eq!(outcome(&table.head_for(&[NodeId(2)])), Some(MoveOutcome::Superseded));
    assert_eq!(table.room.heading().unwrap().target(), hop(NodeId(2)));
    assert_eq!(table.room.records().count(), 1);
}

#[test]
fn route_is_taken_once_awaited_sessions_are_open() {
    let mut table = Table::new();
    let _ = table.head_for(&[B, A]);
    assert!(!table.room.is_opened() && table.room.take_opened().is_none());
    assert!(table.room.opened_at(SessionId(1), hop(B)));
    assert_eq!(table.room.take_opened().unwrap().hops(), [hop(B), hop(A)]);
    assert!(table.room.heading().is_none() && !table.room.opened_at(SessionId(1), hop(B)));
}

#[test]
fn move_ends_with_its_target_only() {
    let now = Instant::now();
    let mut table = Table::new();
    let _ = table.head_for(&[B, NodeId(2)]);
    let spare = table.room.lose_hop(hop(NodeId(2)), MoveOutcome::TargetLost, now);
    assert!(outcome(&spare).is_none() && spare.hops_differ);
    assert_eq!(table.room.heading().unwrap().hops(), [hop(B)]);
    let target = table.room.lose_hop(hop(B), MoveOutcome::TargetLost, now);
    assert_eq!(outcome(&target), Some(MoveOutcome::TargetLost));
    assert!(table.room.heading().is_none());
}

#[test]
fn stranded_room_keeps_its_heading_and_counts_attempts() {
    let mut table = Table::new();
    let _ = table.head_for(&[B]);
    let now = table.now;
    let lost = table.weigh(|room, scales| room.strand(hop(A), now, &[], scales));
    assert_eq!(lost.rescue, Some(RescueChange::new(None, Some(0))));
    assert_eq!(table.room.holding().on, None);
    assert_eq!(table.room.heading().unwrap().target(), hop(B));
    let tried = table.room.count_attempt();
    assert_eq!(tried.rescue, Some(RescueChange::new(Some(0), Some(1))));
    let found = table.weigh(|room, scales| room.admit_at(&[hop(B)], None, scales));
    assert_eq!(found.rescue, Some(RescueChange::new(Some(1), None)));
    assert!(!found.is_first_route && table.room.stranded().is_none());
    assert!(table.room.count_attempt().rescue.is_none());
}

#[test]
fn placement_is_asked_once_until_it_is_answered() {
    let labels = Arc::from(Vec::new());
    let mut room = Room::new(RoomId(1), "r".into(), "call".into(), labels, RegionId(0), RoomId(1));
    assert!(room.ask_placement() && !room.ask_placement());
    room.placement_answered();
    assert!(room.ask_placement());
    assert!(!Table::new().room.ask_placement(), "it is placed");
}

#[test]
fn record_waits_while_a_review_is_wanted_or_asked() {
    let Table { mut room, now, .. } = Table::new();
    let waits = |room: &Room| room.to_record(false, None, Vec::new(), now).awaits_policy();
    assert!(!waits(&room));
    assert!(room.want_review().is_recorded && waits(&room));
    assert!(room.take_review().is_recorded && !waits(&room));
    assert!(room.begin_review().is_recorded && waits(&room));
    assert!(room.want_review().is_recorded);
    assert!(room.end_review().is_recorded && waits(&room), "it is wanted again");
    let _ = room.take_review();
    assert!(!waits(&room));
}

#[test]
fn only_forgotten_moves_change_the_record() {
    let Table { mut room, now, .. } = Table::new();
    let (by, to) = (Arc::new(Decider::Native), Some(hop(B)));
    let step = MoveStep { cause: MoveCause::Link, by, from: hop(A), to, started: now };
    assert!(room.moved(step, 4, now).is_recorded);
    assert!(!room.forget_old_moves(now + MOVES_WITHIN - Duration::from_millis(1)).is_recorded);
    assert_eq!(room.moves_noted(), 1);
    assert!(room.forget_old_moves(now + MOVES_WITHIN).is_recorded);
    assert_eq!(room.moves_noted(), 0);
}

#[test]
fn second_hop_without_capacity_is_gated() {
    let mut table = Table::new();
    let both = [hop(A), hop(B)];
    let reserved = table.weigh(|room, scales| room.publish(&both, None, scales));
    assert_eq!(reserved.protection, Some(Protection::Whole));
    table.ledger.gauge_mut(B).claim(5);
    let gated = table.weigh(Room::regrant);
    assert_eq!(gated.protection, Some(Protection::Unreserved));
    assert_eq!(table.room.route().hops[1].1, HopGrant::Gated);
    assert!(gated.is_recorded && !table.weigh(Room::regrant).is_recorded);
}
