//! I4: the cause of a move is true of the world.
//!
//! What is true is told by the world, not by the core: who drained what, who asked for which move, whether rooms may go
//! back, which rooms policies wanted where. A cause is looked at when the move begins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_core::{
    Answer, Answered, Ask, Cause, Decider, Event, FailBack, Gateway, Hop, Mode, MoveUnderWay,
    NodeId, Question, RegionId, Role, RoomId, Settings, Witness,
};

use super::Scene;

/// What a node says of itself takes so long to be heard, and is unsaid as late; control may stand still meanwhile.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

type Found = Option<(&'static str, String)>;

pub(crate) struct Causes {
    home: RegionId,
    /// Nodes that people drain, or took off the list.
    drained: BTreeSet<(NodeId, Why)>,
    /// Nodes that said that they drain, and until when that may be believed; for ever while they do.
    drain_themselves: BTreeMap<NodeId, Option<Instant>>,
    /// Moves that people asked for.
    asked: BTreeSet<(Arc<str>, NodeId)>,
    /// Whether rooms may go back, and since when.
    fail_backs: Vec<(Instant, FailBack)>,
    /// Where policies wanted rooms to be.
    wished: BTreeSet<(RoomId, NodeId)>,
    /// Hops that rooms were struck off.
    struck: BTreeSet<(RoomId, Hop)>,
    /// Moves whose cause was looked at when they began.
    looked_at: BTreeSet<(RoomId, Hop, Instant)>,
}

/// Why people have a node empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Why {
    Drained,
    Delisted,
}

/// A move, as far as its cause goes.
struct Step<'a> {
    room: RoomId,
    name: &'a str,
    cause: Cause,
    by: &'a Decider,
    from: Hop,
    to: Hop,
    started: Instant,
}

impl Causes {
    pub(super) fn new(settings: &Settings) -> Causes {
        Causes {
            home: settings.home,
            drained: BTreeSet::new(),
            drain_themselves: BTreeMap::new(),
            asked: BTreeSet::new(),
            fail_backs: Vec::new(),
            wished: BTreeSet::new(),
            struck: BTreeSet::new(),
            looked_at: BTreeSet::new(),
        }
    }

    /// People have the node empty from now on, or no longer.
    pub(crate) fn emptied(&mut self, node: NodeId, why: Why, is: bool) {
        match is {
            true => _ = self.drained.insert((node, why)),
            false => _ = self.drained.remove(&(node, why)),
        }
    }

    /// The node says that it drains, or no longer.
    pub(crate) fn says_it_drains(&mut self, node: NodeId, drains: bool, now: Instant) {
        match drains {
            true => _ = self.drain_themselves.insert(node, None),
            false => {
                self.drain_themselves.entry(node).and_modify(|until| {
                    until.get_or_insert(now + HEARD_WITHIN);
                });
            }
        }
    }

    /// Another node has the number.
    pub(super) fn begin(&mut self, node: NodeId) {
        self.drained.retain(|(drained, _)| *drained != node);
        self.drain_themselves.remove(&node);
    }

    /// Somebody asked for the move.
    pub(crate) fn asked(&mut self, room: &Arc<str>, to: NodeId) {
        self.asked.insert((Arc::clone(room), to));
    }

    pub(crate) fn fail_back(&mut self, fail_back: FailBack, now: Instant) {
        self.fail_backs.push((now, fail_back));
    }

    /// A policy answered: where it wants rooms to be.
    pub(crate) fn answered(&mut self, ask: &Ask, answered: &Answered) {
        let (Question::Reroute { rooms, .. }, Answer::Moves { moves, .. }) =
            (&ask.question, &answered.answer)
        else {
            return;
        };
        for step in moves {
            let row = rooms.get(step.row as usize).map(|room| RoomId(room.row.id));
            self.wished.extend(row.zip(step.hops.first().copied()));
        }
    }

    pub(super) fn hear(&mut self, event: &Event) {
        if let Event::Struck { room, hop, .. } = event {
            self.struck.insert((*room, *hop));
        }
    }

    /// I4: what begins to move, or moves at once, does so for what is said.
    pub(super) fn of_what_begins<'a>(
        &mut self,
        moves: impl Iterator<Item = &'a MoveUnderWay>,
        gateway: &Gateway,
        scene: &Scene,
        now: Instant,
    ) -> Found {
        let mut looked_at = BTreeSet::new();
        let mut found = None;
        for way in moves {
            let MoveUnderWay { room, cause, by, from, to, started } = way;
            let key = (*room, *to, *started);
            looked_at.insert(key);
            if self.looked_at.contains(&key) {
                continue;
            }
            let (room, cause, from, to, started) = (*room, *cause, *from, *to, *started);
            let name = gateway.room_name(room).unwrap_or_default();
            let step = Step { room, name: &name, cause, by, from, to, started };
            found = found.or(self.is_false(&step, scene, now));
        }
        self.looked_at = looked_at;
        found
    }

    /// I4: the same of what ends, where nobody saw it begin.
    pub(super) fn of_what_ends(&self, event: &Event, scene: &Scene, now: Instant) -> Found {
        let step = match event {
            Event::Moved { room, room_name, cause, by, from, to: Some(to), started, .. }
            | Event::MoveEnded { room, room_name, cause, by, from, to, started, .. } => {
                let (room, cause, from, to, started) = (*room, *cause, *from, *to, *started);
                Step { room, name: room_name, cause, by, from, to, started }
            }
            _ => return None,
        };
        if self.looked_at.contains(&(step.room, step.to, step.started)) {
            return None;
        }
        self.is_false(&step, scene, now)
    }

    fn is_false(&self, step: &Step, scene: &Scene, now: Instant) -> Found {
        let Step { room, name, cause, by, from, to, .. } = step;
        let is_true = match cause {
            Cause::NodeDown => !scene.board.is_up(from.node, from.incarnation),
            Cause::Link => self.struck.contains(&(*room, *from)) || self.loses(*from, scene),
            Cause::Quality => {
                matches!(by, Decider::Policy { .. }) && self.wished.contains(&(*room, to.node))
            }
            Cause::Manual => {
                **by == Decider::Operator && self.asked.contains(&(Arc::from(*name), to.node))
            }
            Cause::Drain => self.is_drained(from.node, by, now),
            Cause::FailBack => self.goes_home(step, scene),
        };
        let cause = cause.name();
        let text = || format!("room {room} ({name}) moves {from:?} -> {to:?} for {cause}, by {by}");
        (!is_true).then(|| ("I4", text() + ", and that is not so"))
    }

    /// The node is accused of losing what others do not.
    fn loses(&self, from: Hop, scene: &Scene) -> bool {
        let node = &scene.nodes[from.node.0 as usize];
        [Witness::Cohort, Witness::Feedback].iter().any(|of| node.accused_by[*of as usize])
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

    /// From where the room would not natively be to where it would; by itself where that is allowed, by people where they
    /// force it.
    fn goes_home(&self, step: &Step, scene: &Scene) -> bool {
        let Some(room) = scene.rooms.get(&step.room) else { return true };
        let leaves_standbys = matches!(room.route.load().mode, Mode::Hitless | Mode::Hot);
        let is_home = |hop: Hop| {
            let node = &scene.nodes[hop.node.0 as usize];
            node.region == self.home && !(leaves_standbys && node.role == Role::Standby)
        };
        let before = self.fail_backs.iter().rev().find(|(since, _)| *since <= step.started);
        let allowed = match before.map_or(FailBack::Auto, |(_, fail_back)| *fail_back) {
            FailBack::Auto => *step.by == Decider::Native,
            FailBack::Force => *step.by == Decider::Operator,
            FailBack::Forbid => false,
        };
        allowed && is_home(step.to) && !is_home(step.from)
    }
}
