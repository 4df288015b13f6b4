//! I4: the cause of a move is true.
//!
//! The truth comes from the world, not from the core: drains and requested moves, the failback setting, and where
//! policies placed rooms. A cause is checked when the move begins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::{Failback, Gateway, MoveUnderWay};
use evenkeel_model::{
    Ask, CoreEvent, CoreSettings, Decider, EvidenceSource, HookAnswer, Hop, MoveCause, NodeId,
    PolicyQuestion, RedundancyMode, RegionId, RegionRole, RevisionAnswer, RoomId,
};

use super::Scene;

/// Longest delay until a node's own report, or its withdrawal, takes effect; control may stall meanwhile.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

type Found = Option<(&'static str, String)>;

pub(crate) struct Causes {
    home: RegionId,
    /// Nodes that operators drained or delisted.
    drained: BTreeSet<(NodeId, Why)>,
    /// Nodes that reported a drain. If a node withdrew its report, the time until which the report may still count.
    drain_themselves: BTreeMap<NodeId, Option<Instant>>,
    /// Moves that operators requested.
    asked: BTreeSet<(Arc<str>, NodeId)>,
    failbacks: Vec<(Instant, Failback)>,
    /// Placements that policies answered.
    wished: BTreeSet<(RoomId, NodeId)>,
    /// Hops removed from rooms.
    struck: BTreeSet<(RoomId, Hop)>,
    /// Moves that were checked when they began.
    checked: BTreeSet<(RoomId, Hop, Instant)>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Why {
    Drained,
    Delisted,
}

struct Step<'a> {
    room: RoomId,
    name: &'a str,
    cause: MoveCause,
    by: &'a Decider,
    from: Hop,
    to: Hop,
    started: Instant,
}

impl Causes {
    pub(super) fn new(settings: &CoreSettings) -> Causes {
        Causes {
            home: settings.home,
            drained: BTreeSet::new(),
            drain_themselves: BTreeMap::new(),
            asked: BTreeSet::new(),
            failbacks: Vec::new(),
            wished: BTreeSet::new(),
            struck: BTreeSet::new(),
            checked: BTreeSet::new(),
        }
    }

    /// An operator drains or delists the node, or ends that.
    pub(crate) fn emptied(&mut self, node: NodeId, why: Why, is: bool) {
        match is {
            true => _ = self.drained.insert((node, why)),
            false => _ = self.drained.remove(&(node, why)),
        }
    }

    /// The node reports a drain, or withdraws it.
    pub(crate) fn report_drain(&mut self, node: NodeId, drains: bool, now: Instant) {
        match drains {
            true => _ = self.drain_themselves.insert(node, None),
            false => {
                self.drain_themselves.entry(node).and_modify(|until| {
                    until.get_or_insert(now + HEARD_WITHIN);
                });
            }
        }
    }

    /// The node number is reused.
    pub(super) fn begin(&mut self, node: NodeId) {
        self.drained.retain(|(drained, _)| *drained != node);
        self.drain_themselves.remove(&node);
    }

    pub(crate) fn asked(&mut self, room: &Arc<str>, to: NodeId) {
        self.asked.insert((Arc::clone(room), to));
    }

    pub(crate) fn failback(&mut self, failback: Failback, now: Instant) {
        self.failbacks.push((now, failback));
    }

    pub(crate) fn answered(&mut self, ask: &Ask, answered: &RevisionAnswer) {
        let (PolicyQuestion::Reroute { rooms, .. }, HookAnswer::Moves { moves, .. }) =
            (&ask.question, &answered.answer)
        else {
            return;
        };
        for step in moves {
            let row = rooms.get(step.row as usize).map(|room| RoomId(room.row.id));
            self.wished.extend(row.zip(step.hops.first().copied()));
        }
    }

    pub(super) fn hear(&mut self, event: &CoreEvent) {
        if let CoreEvent::HopRemoved { room, hop, .. } = event {
            self.struck.insert((*room, *hop));
        }
    }

    /// I4: the causes of moves that began since the last call.
    pub(super) fn check_begun<'a>(
        &mut self,
        moves: impl Iterator<Item = &'a MoveUnderWay>,
        gateway: &Gateway,
        scene: &Scene,
        now: Instant,
    ) -> Found {
        let mut checked = BTreeSet::new();
        let mut found = None;
        for way in moves {
            let MoveUnderWay { room, cause, by, from, to, started } = way;
            let key = (*room, *to, *started);
            checked.insert(key);
            if self.checked.contains(&key) {
                continue;
            }
            let (room, cause, from, to, started) = (*room, *cause, *from, *to, *started);
            let name = gateway.room_name(room).unwrap_or_default();
            let step = Step { room, name: &name, cause, by, from, to, started };
            found = found.or(self.is_false(&step, scene, now));
        }
        self.checked = checked;
        found
    }

    /// I4: the cause of a move that ended before it was seen to begin.
    pub(super) fn check_ended(&self, event: &CoreEvent, scene: &Scene, now: Instant) -> Found {
        let step = match event {
            CoreEvent::Moved {
                room, room_name, cause, by, from, to: Some(to), started, ..
            }
            | CoreEvent::MoveEnded { room, room_name, cause, by, from, to, started, .. } => {
                let (room, cause, from, to, started) = (*room, *cause, *from, *to, *started);
                Step { room, name: room_name, cause, by, from, to, started }
            }
            _ => return None,
        };
        if self.checked.contains(&(step.room, step.to, step.started)) {
            return None;
        }
        self.is_false(&step, scene, now)
    }

    fn is_false(&self, step: &Step, scene: &Scene, now: Instant) -> Found {
        let Step { room, name, cause, by, from, to, .. } = step;
        let is_true = match cause {
            MoveCause::NodeDown | MoveCause::Ejected => {
                !scene.board.is_up(from.node, from.incarnation)
            }
            MoveCause::Link => self.struck.contains(&(*room, *from)) || self.loses(*from, scene),
            MoveCause::Quality => {
                matches!(by, Decider::Policy { .. }) && self.wished.contains(&(*room, to.node))
            }
            MoveCause::Manual => {
                **by == Decider::Operator && self.asked.contains(&(Arc::from(*name), to.node))
            }
            MoveCause::Drain => self.is_drained(from.node, by, now),
            MoveCause::Failback => self.goes_home(step, scene),
        };
        let cause = cause.name();
        let text = || format!("room {room} ({name}) moves {from:?} -> {to:?} for {cause}, by {by}");
        (!is_true).then(|| ("I4", text() + ", which is false"))
    }

    /// True if the node is suspected of loss that other nodes do not have.
    fn loses(&self, from: Hop, scene: &Scene) -> bool {
        let node = &scene.nodes[from.node.0 as usize];
        [EvidenceSource::Cohort, EvidenceSource::Feedback]
            .iter()
            .any(|of| node.suspected_by[*of as usize])
    }

    fn is_drained(&self, node: NodeId, by: &Decider, now: Instant) -> bool {
        let people =
            || [Why::Drained, Why::Delisted].iter().any(|why| self.drained.contains(&(node, *why)));
        match by {
            Decider::Operator => people(),
            Decider::Node => {
                let says = self.drain_themselves.get(&node);
                says.is_some_and(|until| until.is_none_or(|until| now < until))
            }
            _ => false,
        }
    }

    /// True for a move from a hop that is not the room's native place to one that is, if the failback setting allows it.
    fn goes_home(&self, step: &Step, scene: &Scene) -> bool {
        let Some(room) = scene.rooms.get(&step.room) else { return true };
        let leaves_standbys =
            matches!(room.route.load().mode, RedundancyMode::Hitless | RedundancyMode::Hot);
        let is_home = |hop: Hop| {
            let node = &scene.nodes[hop.node.0 as usize];
            node.region == self.home && !(leaves_standbys && node.role == RegionRole::Standby)
        };
        let before = self.failbacks.iter().rev().find(|(since, _)| *since <= step.started);
        let allowed = match before.map_or(Failback::Auto, |(_, failback)| *failback) {
            Failback::Auto => *step.by == Decider::Native,
            Failback::Force => *step.by == Decider::Operator,
            Failback::Forbid => false,
        };
        allowed && is_home(step.to) && !is_home(step.from)
    }
}
