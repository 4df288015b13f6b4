//! Sessions that are set up per second: by the core alone, and through the HTTP API.

use std::time::{Duration, Instant};

use super::crowd::{Crowd, Listener};
use super::median;
use super::world::World;
use crate::relay::Places;
use crate::report::SetUp;

/// Nodes of the core alone, as many as a gateway of the bench has.
const NODES: usize = 6;

/// Sessions of the core alone.
const BY_CORE: usize = 50_000;

/// Sessions between two ticks of control, which come every 2 ms.
const BETWEEN_WATCHES: usize = 40;

/// Sessions through the API, after a warm-up.
const BY_HTTP: u32 = 10_000;
const FIRST: u32 = 1_000;

/// Number of repetitions of each measurement.
const ROUNDS: usize = 3;

/// # Errors
/// A measurement failed.
pub(crate) fn measure(places: &Places) -> Result<SetUp, String> {
    let core = median((0..ROUNDS).map(|_| by_core()).collect::<Result<_, _>>()?);
    let http = median((0..ROUNDS).map(|_| by_http(places)).collect::<Result<_, _>>()?);
    println!("set-up: {core:.0} sessions a second by the core, {http:.0} through the API");
    Ok(SetUp { core: Some(core), http: Some(http) })
}

fn by_core() -> Result<f64, String> {
    let mut world = World::new(NODES, BY_CORE);
    let before = Instant::now();
    for number in 0..BY_CORE {
        world.offer();
        if number % BETWEEN_WATCHES == 0 {
            world.watch(Duration::from_millis(2));
        }
    }
    let took = before.elapsed().as_secs_f64();
    match world.accepted.len() {
        BY_CORE => Ok(BY_CORE as f64 / took),
        accepted => Err(format!("the core let in {accepted} of {BY_CORE}")),
    }
}

fn by_http(places: &Places) -> Result<f64, String> {
    let mut crowd = Crowd::start("setup", Listener::Declared, places)?;
    crowd.grow(FIRST)?;
    let took = crowd.grow(BY_HTTP)?;
    Ok(f64::from(BY_HTTP) / took.as_secs_f64())
}
