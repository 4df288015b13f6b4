//! Loss by offered rate: the rate at which the best peer begins to lose packets, and the gateway's loss at that rate.

use std::time::Duration;

use crate::load::{Direction, Offer, Pace, Trace};

use crate::namespace::First;
use crate::relay::{self, Kind, Places, Running, Stage};
use crate::report::{Limit, LossAt};
use crate::rounds;
use crate::row::{Leg, Row};
use crate::table;

const WARM_UP: Duration = Duration::from_millis(250);
const WINDOW: Duration = Duration::from_millis(500);
const FIRST_RATE: f64 = 50_000.0;
const STEP: f64 = 1.15;
/// Less loss than this is attributed to the shared machine.
const LOSES_FROM: f64 = 0.000_5;
/// A generator that offers less than this share of the rate has reached the limit of its core.
const FALLS_BEHIND: f64 = 0.97;
/// Windows per rate; a relay counts as losing if it loses in all of them.
const WINDOWS: usize = 2;
/// Windows at the final rate.
const ROUNDS: usize = 5;

/// Raises the rate until every peer loses packets, and measures the gateway at the rate where the last peer begins to
/// lose. `None` without peers.
///
/// # Errors
/// A measurement failed.
pub(crate) fn measure(relays: &[Kind], places: &Places) -> Result<Option<Limit>, String> {
    let Row { leg, destinations, sessions, .. } = Row::base(Leg::Port);
    let stage = Stage { leg, destinations, sessions, srtp: None, obeys_caps: false };
    let trace = Trace::voice().map_err(|error| error.to_string())?;
    let mut running = Vec::new();
    for &kind in relays.iter().filter(|kind| kind.is_peer()) {
        match relay::start(kind, stage, places) {
            Ok(peer) => running.push(peer),
            Err(why) => println!("skipped {}: {why}", kind.name()),
        }
    }
    if running.is_empty() {
        return Ok(None);
    }
    running.push(relay::start(Kind::Ours, stage, places)?);
    let ours = running.len() - 1;
    let _first = First::come();
    let (mut curve, mut misdelivered) = (Vec::new(), 0);
    let mut standing: Vec<usize> = (0..ours).collect();
    let mut last = (ours, FIRST_RATE);
    let mut rate = FIRST_RATE;
    while !standing.is_empty() {
        let mut still = Vec::new();
        for at in standing {
            let tried = tried(&mut running, &[at], rate, &trace, WINDOWS)?;
            misdelivered += tried.misdelivered;
            let (loss, offered) = (tried.least(0), tried.offered);
            let relay = running[at].kind.name().to_owned();
            curve.push(LossAt { relay, rate: offered, loss });
            last = (at, offered);
            // The generator cannot offer this rate, so its loss says nothing.
            if loss < LOSES_FROM && offered > FALLS_BEHIND * rate {
                still.push(at);
            }
        }
        standing = still;
        rate *= STEP;
    }
    let (peer, rate) = (running[last.0].kind.name().to_owned(), last.1);
    let beside = tried(&mut running, &[last.0, ours], rate, &trace, ROUNDS)?;
    let own = rounds::median(beside.losses[1].iter().copied());
    curve.push(LossAt { relay: Kind::Ours.name().to_owned(), rate: beside.offered, loss: own });
    misdelivered += beside.misdelivered;
    let limit = Limit { peer, rate, ours: own, misdelivered, curve };
    table::limit(&limit);
    Ok(Some(limit))
}

/// The windows at a rate.
struct Tried {
    /// Losses by relay and window.
    losses: Vec<Vec<f64>>,
    offered: f64,
    misdelivered: u64,
}

impl Tried {
    fn least(&self, relay: usize) -> f64 {
        self.losses[relay].iter().copied().fold(f64::MAX, f64::min)
    }
}

/// Measures these relays in turns at this rate.
fn tried(
    running: &mut [Running],
    which: &[usize],
    rate: f64,
    trace: &Trace,
    windows: usize,
) -> Result<Tried, String> {
    let offer = Offer {
        direction: Direction::ToNode,
        pace: Pace::Rate(rate),
        trace,
        warm_up: WARM_UP,
        length: WINDOW,
    };
    let (mut losses, mut offered, mut misdelivered) =
        (vec![Vec::new(); which.len()], Vec::new(), 0);
    for _ in 0..windows {
        for (losses, &at) in losses.iter_mut().zip(which) {
            let sample = rounds::window(running, at, &offer)?;
            losses.push(sample.loss);
            offered.push(sample.offered);
            misdelivered += sample.misdelivered;
        }
    }
    Ok(Tried { losses, offered: rounds::median(offered), misdelivered })
}
