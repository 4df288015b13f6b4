//! Native unit tests of a policy: a small world, the gateway's questions, and answers with names.
//!
//! Questions are encoded as for the plugin: measurements become frames with the columns of the
//! policy's `READS`, and states are encoded and decoded.

mod asked;
mod measurements;
#[doc(hidden)]
pub mod native;
mod world;

use std::cell::RefCell;
use std::time::Duration;

use crate::admission::{Admission, Admit, Judgement, admit};
use crate::degradation::{self, Degradation};
use crate::diag::Level;
use crate::frame::UNMEASURED;
use crate::guest::{Loaded, Policy};
use crate::json::Json;
use crate::keep;
use crate::registry::{Metric, Op};
use crate::room::NO_HOP;
use crate::routing::{self, Reroute, Routing};
use crate::scenario::{self, Params, Scenario};
use crate::state::{Pack, State, pack, unpack};
use crate::wit::degradation::exports::evenkeel::policy::degradation::Newcomer as NewSession;
use crate::wit::guest_interface::Grant;
use crate::wit::routing::exports::evenkeel::policy::routing::Newcomer as NewRoom;
use crate::wit::types;

pub use measurements::{Measurements, measured};
pub use world::World;

/// Measures of a row. Metrics that are missing here are unmeasured.
pub type Measured = [(Metric, u32)];

/// Owned [`Measured`].
pub type Cells = Vec<(Metric, u32)>;

/// Labels as keys and values.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

thread_local! {
    static NOTES: RefCell<Vec<(u32, String, i64)>> = const { RefCell::new(Vec::new()) };
    static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
    static DOCUMENTS: RefCell<Vec<(String, Json)>> = const { RefCell::new(Vec::new()) };
}

/// Gives a data document to the policies of this thread, in place of an earlier one of this name.
///
/// # Panics
///
/// If the text is not JSON.
pub fn give_document(name: &str, text: &str) {
    let document = Json::parse(text).expect("a data document is JSON");
    DOCUMENTS.with_borrow_mut(|documents| {
        documents.retain(|(known, _)| known != name);
        documents.push((name.to_owned(), document));
    });
}

/// The member of a document.
pub(crate) fn member(document: &str, key: &str) -> Option<Json> {
    DOCUMENTS.with_borrow(|documents| {
        let (_, document) = documents.iter().find(|(name, _)| name == document)?;
        let Json::Object(members) = document else { return None };
        members.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone())
    })
}

pub(crate) fn keep_line(level: Level, message: &str) {
    eprintln!("{level:?}: {message}");
    LINES.with_borrow_mut(|lines| lines.push((level, message.to_owned())));
}

/// Takes the log lines of this thread since the last call.
pub fn lines() -> Vec<(Level, String)> {
    LINES.take()
}

pub(crate) fn keep_note(row: u32, key: &str, value: i64) {
    NOTES.with_borrow_mut(|notes| notes.push((row, key.to_owned(), value)));
}

/// Takes the notes (row, key, value) of this thread since the last call.
pub fn notes() -> Vec<(u32, String, i64)> {
    NOTES.take()
}

/// A session of a tick.
#[derive(Clone, Debug)]
pub struct Session<S> {
    /// The session's measures.
    pub measured: Cells,
    /// The session's state; [`Trial::tick`] updates it.
    pub state: S,
}

/// A room of a reroute.
#[derive(Clone, Debug)]
pub struct Room<S> {
    /// The room's number.
    pub room: u64,
    /// The room's measures.
    pub measured: Cells,
    /// Names of the nodes of the room's route, best first; [`Trial::reroute`] updates them.
    pub standing: Vec<String>,
    /// The room's state; [`Trial::reroute`] updates it.
    pub state: S,
}

/// The placement of a room.
#[derive(Clone, PartialEq, Debug)]
pub struct Placed<S> {
    /// Names of nodes, best first.
    pub hops: Vec<String>,
    /// The room was refused.
    pub refused: bool,
    /// Time until the room's next `reroute`, or until a refused client may try again.
    pub ask_again_after: Duration,
    /// The number of the reason.
    pub reason: u32,
    /// The room's state.
    pub state: S,
}

/// A policy in a world.
#[derive(Debug)]
pub struct Trial<P> {
    /// The world; changes apply from the next question on.
    pub world: World,
    /// Time since the gateway started.
    pub now: Duration,
    loaded: Loaded<P>,
    memo: Vec<u8>,
}

impl<P: Policy> Trial<P> {
    /// Creates a trial of a policy with its settings in a world, with everything granted.
    pub fn of(policy: P, world: World) -> Trial<P> {
        let numbers = |subject| {
            let reads = P::READS.iter().filter(move |metric| metric.is_subject() == subject);
            reads.map(|&metric| metric as u32).collect()
        };
        let grant = Grant {
            subject_metrics: numbers(true),
            node_metrics: numbers(false),
            ops: P::OPS.iter().map(|&op| op as u32).collect(),
            seed: 1,
        };
        Trial {
            world,
            now: Duration::from_secs(3600),
            loaded: Loaded::new(policy, &grant),
            memo: vec![],
        }
    }

    /// Grants these actions only.
    #[must_use]
    pub fn granting(mut self, ops: &[Op]) -> Trial<P> {
        self.loaded.ops = ops.iter().map(|&op| op as u32).collect();
        self
    }

    /// Advances time.
    pub fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn now_us(&self) -> u64 {
        self.now.as_micros() as u64
    }

    fn frame(&self, subject: bool, rows: &[(u64, &Measured)]) -> types::Frame {
        let metrics = P::READS.iter().filter(|metric| metric.is_subject() == subject);
        let cell = |metric: Metric, measured: &Measured| {
            let there = measured.iter().find(|&&(there, _)| there == metric);
            there.map_or(UNMEASURED, |&(_, value)| value)
        };
        let column = |&metric| rows.iter().map(move |&(_, measured)| cell(metric, measured));
        types::Frame {
            ids: rows.iter().map(|&(id, _)| id).collect(),
            cells: metrics.flat_map(column).collect(),
        }
    }

    fn nodes(&self) -> types::Frame {
        let nodes = (0..).zip(&self.world.nodes);
        let rows: Vec<_> = nodes.map(|(id, (.., measured))| (id, measured.as_slice())).collect();
        self.frame(false, &rows)
    }
}

impl<P: Policy + Admission> Trial<P> {
    /// Asks for admission of a session. `standing` names the region of its room.
    pub fn admit(&mut self, session: u64, labels: Labels<'_>, standing: Option<&str>) -> Judgement {
        self.loaded.catalog = self.world.catalog();
        let regions = (1..).zip(&self.world.regions);
        let rows: Vec<_> = regions.map(|(id, (_, measured))| (id, measured.as_slice())).collect();
        let regions = self.frame(false, &rows);
        let asked = Admit {
            now_us: self.now_us(),
            session,
            room: session,
            standing: standing.map(|name| self.world.region_id(name).0),
            scenario: "trial",
            labels: &own(labels),
            regions: (&regions).into(),
        };
        admit(&self.loaded, &asked)
    }
}

impl<P: Policy + Scenario> Trial<P> {
    /// Asks for the parameters of a session with these labels.
    pub fn resolve(&mut self, labels: Labels<'_>) -> Params {
        self.loaded.catalog = self.world.catalog();
        scenario::resolve(&self.loaded, "trial", &own(labels))
    }
}

impl<P: Policy + Degradation> Trial<P> {
    /// Returns the first state of a session.
    pub fn open(&mut self, labels: Labels<'_>) -> <P as Degradation>::State {
        self.loaded.catalog = self.world.catalog();
        let labels = own(labels);
        let newcomer = NewSession { session: 1, room: 1, scenario: "trial".into(), labels };
        came_back(keep::row(&degradation::open(&self.loaded, &[newcomer]), 0))
    }

    /// Creates a session with these labels and measures.
    pub fn session(
        &mut self,
        labels: Labels<'_>,
        measured: impl Into<Cells>,
    ) -> Session<<P as Degradation>::State> {
        Session { measured: measured.into(), state: self.open(labels) }
    }

    /// Runs one tick. Returns the actions by row of `sessions`, each with the number of its reason.
    pub fn tick(
        &mut self,
        sessions: &mut [Session<<P as Degradation>::State>],
    ) -> Vec<(usize, Op, u64, u32)> {
        self.loaded.catalog = self.world.catalog();
        let rows = (1..).zip(&*sessions);
        let rows: Vec<_> = rows.map(|(id, row)| (id, row.measured.as_slice())).collect();
        let frame = self.frame(true, &rows);
        let mut states = keep::no_blobs();
        for session in &*sessions {
            keep::push(&mut states, &session.state);
        }
        let (rows, before) = ((&frame).into(), (&states).into());
        let answer = degradation::tick(&self.loaded, self.now_us(), rows, before, &self.memo);
        for (at, &row) in answer.keep.rows.iter().enumerate() {
            sessions[row as usize].state = came_back(keep::row(&answer.keep.states, at));
        }
        self.memo = answer.keep.memo.unwrap_or_else(|| std::mem::take(&mut self.memo));
        let op = |number| *Op::ALL.iter().find(|&&op| op as u32 == number).expect("an op we know");
        let actions = answer.actions.iter();
        actions.map(|act| (act.row as usize, op(act.op), act.arg, act.reason)).collect()
    }
}

impl<P: Policy + Routing> Trial<P> {
    /// Asks for the placement of a new room.
    pub fn place(&mut self, room: u64, labels: Labels<'_>) -> Placed<<P as Routing>::State> {
        self.loaded.catalog = self.world.catalog();
        let (now_us, labels) = (self.now_us(), own(labels));
        let nodes = self.nodes();
        let nodes = (&nodes).into();
        let placed = routing::place(&self.loaded, now_us, room, "trial", &labels, nodes);
        let refused = placed.hops == [NO_HOP];
        Placed {
            hops: if refused { Vec::new() } else { self.world.names(&placed.hops) },
            refused,
            ask_again_after: Duration::from_millis(placed.ttl_ms.into()),
            reason: placed.reason,
            state: came_back(&placed.state),
        }
    }

    /// Returns the first state of a room that another policy placed.
    pub fn open_room(&mut self, room: u64, labels: Labels<'_>) -> <P as Routing>::State {
        self.loaded.catalog = self.world.catalog();
        let newcomer = NewRoom { room, scenario: "trial".into(), labels: own(labels) };
        came_back(keep::row(&routing::open(&self.loaded, &[newcomer]), 0))
    }

    /// Creates a room with these labels and measures that another policy placed on the nodes with these names.
    pub fn room(
        &mut self,
        room: u64,
        labels: Labels<'_>,
        standing: &[&str],
        measured: impl Into<Cells>,
    ) -> Room<<P as Routing>::State> {
        let (measured, state) = (measured.into(), self.open_room(room, labels));
        let standing = standing.iter().map(|&hop| hop.to_owned()).collect();
        Room { room, measured, standing, state }
    }

    /// Runs one reroute. Returns the rows of `rooms` that move, each with the number of the reason.
    pub fn reroute(&mut self, rooms: &mut [Room<<P as Routing>::State>]) -> Vec<(usize, u32)> {
        self.loaded.catalog = self.world.catalog();
        let rows: Vec<_> = rooms.iter().map(|room| (room.room, room.measured.as_slice())).collect();
        let width = rooms.iter().map(|room| room.standing.len()).max().unwrap_or(0);
        let (mut states, mut standing) = (keep::no_blobs(), Vec::new());
        for room in &*rooms {
            keep::push(&mut states, &room.state);
            let hops = room.standing.iter().map(|hop| self.world.node_id(hop).0);
            standing.extend(hops.chain(std::iter::repeat(NO_HOP)).take(width));
        }
        let (nodes, subjects) = (self.nodes(), self.frame(true, &rows));
        let asked = Reroute {
            now_us: self.now_us(),
            nodes: (&nodes).into(),
            rooms: (&subjects).into(),
            width: width as u32,
            standing: &standing,
            states: (&states).into(),
            memo: &self.memo,
        };
        let answer = routing::reroute(&self.loaded, &asked);
        for (at, &row) in answer.keep.rows.iter().enumerate() {
            rooms[row as usize].state = came_back(keep::row(&answer.keep.states, at));
        }
        self.memo = answer.keep.memo.unwrap_or_else(|| std::mem::take(&mut self.memo));
        for moved in &answer.moves {
            rooms[moved.row as usize].standing = self.world.names(&moved.hops);
        }
        answer.moves.iter().map(|moved| (moved.row as usize, moved.reason)).collect()
    }
}

fn own(labels: Labels<'_>) -> Vec<types::Label> {
    let own = |&(key, value): &(&str, &str)| types::Label { key: key.into(), value: value.into() };
    labels.iter().map(own).collect()
}

/// Decodes a state that the policy wrote.
fn came_back<S: State>(bytes: &[u8]) -> S {
    unpack(bytes).expect("what was packed can be unpacked")
}

/// Returns the state, or memo, that `S` migrates from the bytes of an older schema.
pub fn migrate<S: State>(from_schema: u32, older: &impl Pack) -> Option<S> {
    S::migrate(from_schema, &pack(older))
}
