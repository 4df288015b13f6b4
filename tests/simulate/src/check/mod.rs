//! The history checker: looks on from outside, and says which promise was broken, with what was seen.
//!
//! The promises are the invariants of the failover design, I1 to I10, and what follows from them for detectors: nobody
//! who is well is condemned, and a death is known in its time. Each is a small function of its own.
//!
//! What it lets pass, and why. For 500 ms after the hops of a hitless room changed a client may hear something twice,
//! since a hop that is new has no proven copies yet. A room without a hop has 6 s to find one once nothing hinders it any
//! more, as long as a node is believed that says it takes no sessions. A node whose capacity shrank carries for 3 s what
//! was on its way there, and then what did not leave. A move has 6 s to end since drivers, nodes or ways were last changed.
//! Who hears whom is looked at where the nodes between them were well for 5 s, and nothing changed for 1 s. That a hitless
//! room loses nothing is not asked of mixers, whose streams are no copies; of ways that lose by themselves; of a hop that
//! kept packets to itself until a moment ago; while workers stand still; and between rooms of meshed nodes.
//!
//! What is never played: nodes that pass on to each other and are not probed, of whose life nothing would tell.

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

use evenkeel_core::{
    Board, Event, Gateway, Hop, NodeId, NodeSettings, Output, SessionId, Settings,
};

pub(crate) use hops::Delivered;
pub(crate) use scene::Scene;

/// A promise that was broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which: `I3`.
    pub invariant: &'static str,
    /// Since the world began.
    pub at: Duration,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:.6} s: {}", self.invariant, self.at.as_secs_f64(), self.what)
    }
}

/// All of them, over one history.
pub(crate) struct Checker {
    pub(crate) scene: Scene,
    pub(crate) violations: Vec<Violation>,
    began: Instant,
    hops: hops::Hops,
    old: stale::Old,
    moves: moves::Moves,
    ends: move_ends::Ends,
    pub(crate) causes: causes::Causes,
    pub(crate) carried: carriers::Carried,
    memory: memory::Memory,
    load: load::Load,
    pub(crate) decisions: decisions::Decisions,
    pub(crate) flow: flow::Flow,
    pub(crate) deaths: deaths::Deaths,
    pub(crate) grays: gray_nodes::Grays,
    pub(crate) drains: drains::Drains,
    pub(crate) listing: node_list::Listing,
    books: outputs::Books,
    looked: Option<Instant>,
    /// The highest load of a node there ever was, thousandths of what it can carry.
    pub(crate) peak_permille: u64,
}

/// More rooms than this make a large world.
const ROOMS_LARGE: usize = 200;
const LOOKED_EVERY: Duration = Duration::from_millis(1);

/// A world in which nothing is said is looked at all the same.
const LOOKED_AT_LEAST_EVERY: Duration = Duration::from_millis(50);

/// More are not told: one broken promise breaks others.
const TOLD_MAX: usize = 5;

impl Checker {
    pub(crate) fn new(scene: Scene, settings: &Settings, began: Instant) -> Checker {
        let deaths = deaths::Deaths::new(settings);
        let grays = gray_nodes::Grays::new(scene.nodes.len());
        Checker {
            scene,
            violations: Vec::new(),
            began,
            hops: hops::Hops::default(),
            old: stale::Old::default(),
            moves: moves::Moves::default(),
            ends: move_ends::Ends::default(),
            causes: causes::Causes::new(settings),
            carried: carriers::Carried::default(),
            memory: memory::Memory::new(settings),
            load: load::Load::default(),
            decisions: decisions::Decisions::default(),
            flow: flow::Flow::default(),
            deaths,
            grays,
            drains: drains::Drains::default(),
            listing: node_list::Listing::default(),
            books: outputs::Books::default(),
            looked: None,
            peak_permille: 0,
        }
    }

    pub(crate) fn note(&mut self, found: Option<(&'static str, String)>, now: Instant) {
        if let Some((invariant, what)) = found.filter(|_| self.violations.len() < TOLD_MAX) {
            self.violations.push(Violation { invariant, at: now - self.began, what });
        }
    }

    /// The core wants something: in the order it said so, before it is done.
    pub(crate) fn output(&mut self, output: &Output, now: Instant) {
        let found = self.books.heard(output);
        self.note(found, now);
        if let Output::Event(event) = output {
            self.drains.hear(event);
            self.old.hear(event, now);
            self.flow.hear(event, now);
            self.causes.hear(event);
            for found in [
                self.moves.on_record(event, &self.scene, now),
                self.ends.once(event),
                self.causes.of_what_ends(event, &self.scene, now),
                self.moves.few(event, now),
                self.decisions.of_one_revision(event),
                self.decisions.by_who_answered(event),
            ] {
                self.note(found, now);
            }
            if let Event::Node { to: evenkeel_core::Health::Down, .. } = event {
                self.load.death(now);
            }
        }
        if let Output::Forget { node } = output {
            let found = self.listing.forgotten(*node, &self.scene, self.books.open(), now);
            self.note(found, now);
        }
        if let Output::Start { .. } = output {
            self.flow.started(now);
        }
        self.scene.learn(output);
        if let Output::End { session, .. } = output {
            self.hops.forget(*session);
        }
    }

    /// Everything the core wanted is done: the world as it stands. In a large one it is looked at every millisecond.
    pub(crate) fn settled(&mut self, gateway: &Gateway, now: Instant) {
        let large = self.scene.rooms.len() > ROOMS_LARGE;
        if large && self.looked.is_some_and(|at| now - at < LOOKED_EVERY) {
            return;
        }
        self.looked = Some(now);
        self.scene.look(gateway, now);
        self.hops.look(&self.scene, now);
        self.old.look(&self.scene);
        self.carried.look(&self.scene, now);
        self.peak_permille = self.peak_permille.max(load::Load::peak_permille(&self.scene));
        let open = self.books.open();
        let stays = self.listing.forgotten_in_time(&self.scene, &open, now);
        drop(open);
        for found in [
            self.moves.all_told(&self.scene, now),
            self.ends.told_in_time(gateway.moves_under_way(), self.flow.last_hindered(), now),
            self.causes.of_what_begins(self.ends.under_way(), gateway, &self.scene, now),
            self.memory.within_limits(gateway, large, now),
            hops::breaks_end(&self.scene, now),
            self.drains.told_in_time(now),
            stays,
            self.load.refusals_are_believed(&self.scene),
            self.load.within_limit(&self.scene),
            self.load.reserves_within_limit(&self.scene, now),
            self.flow.nobody_stranded_for_nothing(&self.scene, now),
        ] {
            self.note(found, now);
        }
    }

    /// A client's packet goes to a node.
    pub(crate) fn sent(&mut self, sent: &Passed, now: Instant) {
        for found in [
            hops::Hops::two_where_hitless(sent, &self.scene),
            self.hops.one_at_a_time(sent),
            self.hops.never_back(sent),
            self.hops.never_split(sent),
        ] {
            self.note(found, now);
        }
    }

    /// A node's packet goes to a client.
    pub(crate) fn delivered(&mut self, delivered: &Delivered, board: &Board, now: Instant) {
        for found in [
            self.old.nothing_old(delivered, &self.scene, board, now),
            hops::own_room(delivered),
            self.hops.own_number(delivered),
            self.hops.once(delivered, &self.scene, board, now),
        ] {
            self.note(found, now);
        }
    }

    /// A node is listed, maybe under the number of one that is gone.
    pub(crate) fn listed(&mut self, id: NodeId, settings: &Settings) {
        self.scene.list(id, settings);
        self.causes.begin(id);
        self.grays.begin(id.0 as usize);
        self.deaths.listed(id, settings);
    }

    /// A node becomes another in what can change.
    pub(crate) fn changed(&mut self, id: NodeId, settings: &NodeSettings, now: Instant) {
        self.scene.change(id, settings, now);
        self.grays.begin(id.0 as usize);
    }

    /// A node refuses a session since it is full.
    pub(crate) fn full(&mut self, node: NodeId) {
        self.load.full(node.0 as usize, &self.scene);
    }

    /// Whether it is time to look though the core said nothing: what should have happened may not have.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.looked.is_none_or(|at| now - at >= LOOKED_AT_LEAST_EVERY)
    }

    /// The driver refused a session at a hop.
    pub(crate) fn refused(&mut self, session: SessionId, hop: Hop) {
        self.books.refused(session, hop);
    }

    /// The gateway was told to end, and time to do so has passed.
    pub(crate) fn ended(&mut self, gateway: &Gateway, now: Instant) {
        for found in [self.books.closed(gateway), memory::nothing_left(gateway)] {
            self.note(found, now);
        }
    }
}

pub(crate) use causes::Why;
pub(crate) use deaths::{Dying, Patient, Voice};
pub(crate) use hops::Passed;
