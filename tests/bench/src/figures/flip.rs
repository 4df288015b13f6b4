//! From the flip of a node's cell to the first packet on the second hop, with 100,000 rooms: the core alone.

use std::hint::black_box;
use std::time::{Duration, Instant};

use evenkeel_core::forward::{self, Verdict};

use super::median;
use super::world::World;
use crate::process;

/// Nodes of the home region.
const NODES: usize = 6;

/// Rooms of one session.
const ROOMS: usize = 100_000;

/// Deaths that are measured.
const ROUNDS: usize = 3;

/// Between two watches of control.
const WATCH: Duration = Duration::from_millis(2);

/// Watches until a node's rate is known, and until it is given up.
const USUAL: usize = 500;
const PATIENCE: usize = 5_000;

/// Microseconds.
///
/// # Errors
/// Where nothing was flipped.
pub(crate) fn measure() -> Result<f64, String> {
    let mut flips = Vec::new();
    for _ in 0..ROUNDS {
        flips.push(once()?);
    }
    Ok(median(flips))
}

/// Packets of a worker go on while control condemns the node: from the last on the first hop to the first on the second.
fn once() -> Result<f64, String> {
    let mut world = World::new(NODES, ROOMS);
    (0..ROOMS).for_each(|_| world.offer());
    (0..USUAL).for_each(|_| world.watch(WATCH));
    let board = world.gateway.board();
    let route = world.routes.first().ok_or("no room has a route")?.clone();
    let hop = |verdict| match verdict {
        Verdict::Pass { hop, .. } => Some(hop),
        Verdict::Drop(_) => None,
    };
    let first = hop(forward::to_node(&route, &board)).ok_or("no packet passes")?;
    std::thread::scope(|scope| {
        let packets = scope.spawn(|| {
            // A core of its own, as a worker has.
            process::pin(process::RELAY_CORE)?;
            let mut last = Instant::now();
            loop {
                let now = Instant::now();
                match hop(forward::to_node(black_box(&route), &board)) {
                    Some(next) if next == first => last = now,
                    Some(_) => return Ok(last.elapsed()),
                    None => {}
                }
            }
        });
        world.kill(first.node.0 as usize);
        for _ in 0..PATIENCE {
            world.watch(WATCH);
            if packets.is_finished() {
                break;
            }
        }
        let gap: Result<Duration, String> =
            packets.join().map_err(|_| "the packets' thread ended".to_owned())?;
        let gap = gap?;
        world.longest = Duration::ZERO;
        (0..PATIENCE).for_each(|_| world.watch(WATCH));
        println!(
            "flip: {:.1} µs without a packet; control's longest call after it took {:.1} ms",
            gap.as_secs_f64() * 1e6,
            world.longest.as_secs_f64() * 1e3
        );
        Ok(gap.as_secs_f64() * 1e6)
    })
}
