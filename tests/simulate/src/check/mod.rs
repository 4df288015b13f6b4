//! The checker observes the gateway from outside and reports violated invariants.
//!
//! The invariants are I1 to I10 of the failover design, and two of failure detection: no healthy node is marked down, and
//! a death is detected in time. Each is a small function. I12, that no acknowledged decision is forgotten, is checked in
//! worlds of its own: [`records`](crate::records); I13, that no index of SRTP is used twice, in [`indices`](crate::indices).
//!
//! Tolerances: for 500 ms after the hops of a hitless room change, a client may receive a packet twice, because a new hop
//! has no proven copies yet. A stranded room has 6 s without obstacles to find a hop, as long as a node's report of no
//! capacity is believed. After its capacity shrank, a node may carry rooms on their way for 3 s, and later those
//! that cannot leave. A move has 6 s since the last change of drivers, nodes or links. Media between clients is checked while their
//! nodes were healthy for 5 s and nothing changed for 1 s. The absence of loss in hitless rooms is not checked for mixers,
//! as their streams are not copies; for lossy links; for hops that dropped packets until recently; while workers stall; and
//! between rooms of meshed nodes.
//!
//! Not simulated: meshed nodes without probes, as nothing would show their health.

mod carriers;
mod causes;
mod deaths;
mod decisions;
mod drains;
mod flow;
mod gray_nodes;
mod hops;
mod load;
mod memory;
mod move_ends;
mod moves;
mod node_list;
mod outputs;
mod scene;
mod stale;

use std::fmt;
use std::time::{Duration, Instant};

use evenkeel_core::{Gateway, GatewayEffect};
use evenkeel_model::{Board, CoreEvent, CoreSettings, Hop, NodeId, NodeSettings, SessionId};
use evenkeel_nodes::NodeEffect;
pub(crate) use hops::Delivered;
pub(crate) use scene::Scene;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Name of the invariant, such as `I3`.
    pub invariant: &'static str,
    /// Time since the start of the world.
    pub at: Duration,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:.6} s: {}", self.invariant, self.at.as_secs_f64(), self.what)
    }
}

pub(crate) struct Checker {
    pub(crate) scene: Scene,
    pub(crate) violations: Vec<Violation>,
    began: Instant,
    hops: hops::Hops,
    stale: stale::Stale,
    moves: moves::Moves,
    move_ends: move_ends::MoveEnds,
    pub(crate) causes: causes::Causes,
    pub(crate) carriers: carriers::Carriers,
    memory: memory::Memory,
    load: load::Load,
    pub(crate) decisions: decisions::Decisions,
    pub(crate) flow: flow::Flow,
    pub(crate) deaths: deaths::Deaths,
    pub(crate) gray_nodes: gray_nodes::GrayNodes,
    pub(crate) drains: drains::Drains,
    pub(crate) node_list: node_list::NodeList,
    outputs: outputs::Outputs,
    checked_at: Option<Instant>,
    /// The highest load of a node, in thousandths of its capacity.
    pub(crate) peak_permille: u64,
}

/// A world with more rooms is large, and checked every millisecond only.
const ROOMS_LARGE: usize = 200;
const CHECKED_EVERY: Duration = Duration::from_millis(1);

/// Check interval without outputs.
const CHECKED_AT_LEAST_EVERY: Duration = Duration::from_millis(50);

/// Further violations are not recorded, since one causes others.
const VIOLATIONS_MAX: usize = 5;

impl Checker {
    pub(crate) fn new(scene: Scene, settings: &CoreSettings, began: Instant) -> Checker {
        let deaths = deaths::Deaths::new(settings);
        let gray_nodes = gray_nodes::GrayNodes::new(scene.nodes.len());
        Checker {
            scene,
            violations: Vec::new(),
            began,
            hops: hops::Hops::default(),
            stale: stale::Stale::default(),
            moves: moves::Moves::default(),
            move_ends: move_ends::MoveEnds::default(),
            causes: causes::Causes::new(settings),
            carriers: carriers::Carriers::default(),
            memory: memory::Memory::new(settings),
            load: load::Load::default(),
            decisions: decisions::Decisions::default(),
            flow: flow::Flow::default(),
            deaths,
            gray_nodes,
            drains: drains::Drains::default(),
            node_list: node_list::NodeList::default(),
            outputs: outputs::Outputs::default(),
            checked_at: None,
            peak_permille: 0,
        }
    }

    pub(crate) fn note(&mut self, found: Option<(&'static str, String)>, now: Instant) {
        if let Some((invariant, what)) = found.filter(|_| self.violations.len() < VIOLATIONS_MAX) {
            self.violations.push(Violation { invariant, at: now - self.began, what });
        }
    }

    /// An output of the core, in order, before it is executed.
    pub(crate) fn output(&mut self, output: &GatewayEffect, now: Instant) {
        let found = self.outputs.check(output);
        self.note(found, now);
        if let GatewayEffect::Event(event) = output {
            self.drains.hear(event);
            self.stale.hear(event, now);
            self.flow.hear(event, now);
            self.causes.hear(event);
            for found in [
                self.moves.check_report(event, &self.scene, now),
                self.move_ends.check_event(event),
                self.causes.check_ended(event, &self.scene, now),
                self.moves.check_rate(event, now),
                self.decisions.check_revision(event),
                self.decisions.check_decider(event),
            ] {
                self.note(found, now);
            }
            if let CoreEvent::Node { to: evenkeel_model::Health::Down, .. } = event {
                self.load.death(now);
            }
        }
        if let GatewayEffect::Node(NodeEffect::Forget(node)) = output {
            let found = self.node_list.forgotten(*node, &self.scene, self.outputs.open(), now);
            self.note(found, now);
        }
        if let GatewayEffect::Node(NodeEffect::Start(_)) = output {
            self.flow.started(now);
        }
        self.scene.learn(output);
        if let GatewayEffect::End { session, .. } = output {
            self.hops.forget(*session);
        }
    }

    /// All outputs are executed: checks the state of the world.
    pub(crate) fn settled(&mut self, gateway: &Gateway, now: Instant) {
        let large = self.scene.rooms.len() > ROOMS_LARGE;
        if large && self.checked_at.is_some_and(|at| now - at < CHECKED_EVERY) {
            return;
        }
        self.checked_at = Some(now);
        self.scene.update(gateway, now);
        self.hops.update(&self.scene, now);
        self.stale.update(&self.scene);
        self.carriers.update(&self.scene, now);
        self.peak_permille = self.peak_permille.max(load::Load::peak_permille(&self.scene));
        let open = self.outputs.open();
        let unforgotten = self.node_list.check(&self.scene, &open, now);
        drop(open);
        for found in [
            self.moves.check_all(&self.scene, now),
            self.move_ends.check_moves(gateway.moves_under_way(), self.flow.last_hindered(), now),
            self.causes.check_begun(self.move_ends.under_way(), gateway, &self.scene, now),
            self.memory.check(gateway, large, now),
            hops::check_break(&self.scene, now),
            self.drains.check(now),
            unforgotten,
            self.load.check_refusals(&self.scene),
            self.load.check_load(&self.scene),
            self.load.check_reservations(&self.scene, now),
            self.flow.check_stranded(&self.scene, now),
        ] {
            self.note(found, now);
        }
    }

    pub(crate) fn sent(&mut self, sent: &Passed, now: Instant) {
        for found in [
            hops::Hops::check_copies(sent, &self.scene),
            self.hops.check_one_hop(sent),
            self.hops.check_epoch(sent),
            self.hops.check_split(sent),
        ] {
            self.note(found, now);
        }
    }

    pub(crate) fn delivered(&mut self, delivered: &Delivered, board: &Board, now: Instant) {
        for found in [
            self.stale.check(delivered, &self.scene, board, now),
            hops::check_room(delivered),
            self.hops.check_numbers(delivered),
            self.hops.check_once(delivered, &self.scene, board, now),
        ] {
            self.note(found, now);
        }
    }

    /// A node is listed, possibly with a reused number.
    pub(crate) fn listed(&mut self, id: NodeId, settings: &CoreSettings) {
        self.scene.list(id, settings);
        self.causes.begin(id);
        self.gray_nodes.begin(id.0 as usize);
        self.deaths.listed(id, settings);
    }

    pub(crate) fn changed(&mut self, id: NodeId, settings: &NodeSettings, now: Instant) {
        self.scene.change(id, settings, now);
        self.gray_nodes.begin(id.0 as usize);
    }

    /// A node refuses a session as full.
    pub(crate) fn full(&mut self, node: NodeId) {
        self.load.full(node.0 as usize, &self.scene);
    }

    /// True if a check is due although the core had no output.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.checked_at.is_none_or(|at| now - at >= CHECKED_AT_LEAST_EVERY)
    }

    /// The driver refused a session at a hop.
    pub(crate) fn refused(&mut self, session: SessionId, hop: Hop) {
        self.outputs.refused(session, hop);
    }

    /// The gateway was shut down and its deadline has passed.
    pub(crate) fn ended(&mut self, gateway: &Gateway, now: Instant) {
        for found in [self.outputs.check_end(gateway), memory::nothing_left(gateway)] {
            self.note(found, now);
        }
    }
}

pub(crate) use causes::Why;
pub(crate) use deaths::{Dying, NodeFacts, Notice};
pub(crate) use hops::Passed;
