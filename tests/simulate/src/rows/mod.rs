//! Named long runs, each with figures and a limit.

mod baseline;
mod endurance;
mod flows;
mod group;
mod kill;
mod region;
pub(crate) mod setup;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::outcome::{Outcome, Spread};
use crate::policies::Library;
use crate::script::Script;
use crate::world::World;

#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub id: &'static str,
    pub sessions: usize,
    /// Number of faults.
    pub times: usize,
    /// The worst gap of each receiver during the fault.
    pub gap_ms: Spread,
    /// Time from death to down.
    pub detect_ms: Spread,
    /// Witnesses of nodes marked down.
    pub by_witness: BTreeMap<&'static str, u64>,
    /// Packets lost during the fault.
    pub packets_lost: u64,
    pub moves_per_session: f64,
    pub figures: BTreeMap<&'static str, f64>,
    pub limit: &'static str,
    /// True if the limit held and no invariant was violated.
    pub held: bool,
    pub violations: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub rows: Vec<Row>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scale {
    /// Enough worlds for the figures.
    Full,
    /// A few small worlds, to check the limit.
    Small,
}

impl Scale {
    fn pick<T>(self, full: T, small: T) -> T {
        match self {
            Scale::Full => full,
            Scale::Small => small,
        }
    }
}

type Play = fn(&Library, Scale) -> Row;

pub const ROWS: [(&str, Play); 18] = [
    ("node.kill.hot", kill::hot),
    ("node.kill.hot.silent", kill::silent),
    ("node.kill.cross-region", kill::cross_region),
    ("node.kill.far", kill::far),
    ("node.stop", kill::stop),
    ("node.drain", kill::drain),
    ("node.kill.alone", kill::alone),
    ("node.kill.hitless", kill::hitless),
    ("node.kill.hitless.silent", kill::hitless_silent),
    ("node.flap", endurance::node_flap),
    ("link.flap", endurance::link_flap),
    ("link.jitter", endurance::jitter),
    ("link.lost-flows", flows::lost),
    ("region.kill", region::kill),
    ("region.kill.silent", region::silent),
    ("region.kill.tight", region::tight),
    ("group.jitter", group::jitter),
    ("baseline", baseline::beside),
];

fn play(scripts: Vec<Script>, library: &Library) -> Vec<Outcome> {
    scripts.into_iter().map(|script| World::new(script, library).play()).collect()
}

/// The row of outcomes with one kind of fault.
fn row(id: &'static str, kind: &'static str, outcomes: &[Outcome], limit: &'static str) -> Row {
    let of = |pick: fn(&Outcome) -> &BTreeMap<&'static str, Vec<std::time::Duration>>| {
        let times: Vec<_> =
            outcomes.iter().filter_map(|one| pick(one).get(kind)).flatten().copied().collect();
        Spread::of(&times)
    };
    let sessions = outcomes.iter().map(|one| one.admitted as usize).max().unwrap_or(0);
    let admitted: u64 = outcomes.iter().map(|one| one.admitted).sum();
    let moves: u64 = outcomes.iter().map(|one| one.session_moves).sum();
    let mut by_witness = BTreeMap::new();
    for (witness, times) in outcomes.iter().flat_map(|one| &one.witnesses) {
        *by_witness.entry(*witness).or_default() += times;
    }
    let violations: Vec<String> = outcomes
        .iter()
        .flat_map(|one| {
            one.violations.iter().map(move |violation| format!("seed {}: {violation}", one.seed))
        })
        .collect();
    Row {
        id,
        sessions,
        times: outcomes.len(),
        gap_ms: of(|one| &one.gaps),
        detect_ms: of(|one| &one.detected),
        by_witness,
        packets_lost: outcomes.iter().filter_map(|one| one.lost.get(kind)).sum(),
        moves_per_session: (moves as f64 / admitted.max(1) as f64 * 1_000.0).round() / 1_000.0,
        figures: BTreeMap::new(),
        limit,
        held: violations.is_empty(),
        violations,
    }
}

impl Row {
    fn holds(mut self, held: bool) -> Row {
        self.held &= held;
        self
    }

    fn with(mut self, figure: &'static str, value: f64) -> Row {
        self.figures.insert(figure, (value * 1_000.0).round() / 1_000.0);
        self
    }
}
