//! Time from the watch that marks a node down to the first packet on the second hop, with 100,000 rooms, core only.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use evenkeel_model::ForwardVerdict;

use super::median;
use super::world::World;
use crate::process;

/// Nodes of the home region.
const NODES: usize = 6;

/// Rooms of one session each, and a smaller number for comparison: the time must not depend on it.
const ROOMS: usize = 100_000;
const FEWER: usize = 1_000;

/// Deaths that are measured.
const ROUNDS: usize = 3;

/// Interval of control's watches.
const WATCH: Duration = Duration::from_millis(2);

/// Iterations until a node's rate is known, and until it is down.
const USUAL: usize = 500;
const PATIENCE: usize = 5_000;

/// The time in microseconds.
///
/// # Errors
/// No failover was seen.
pub(crate) fn measure() -> Result<f64, String> {
    let mut flips = Vec::new();
    for _ in 0..ROUNDS {
        once(FEWER)?;
        flips.push(once(ROOMS)?);
    }
    Ok(median(flips))
}

/// Sends packets on a worker thread while control marks the node down. Returns the time from the beginning of that
/// watch to the first packet on the second hop.
fn once(rooms: usize) -> Result<f64, String> {
    let mut world = World::new(NODES, rooms);
    (0..rooms).for_each(|_| world.offer());
    (0..USUAL).for_each(|_| world.watch(WATCH));
    let board = world.gateway.board();
    let route = world.routes.first().ok_or("no room has a route")?.clone();
    let hop = |verdict| match verdict {
        ForwardVerdict::Pass { hop, .. } => Some(hop),
        // No room here is hitless.
        ForwardVerdict::Both(_) | ForwardVerdict::Drop(_) => None,
    };
    let first = hop(route.forward_to_node(&board)).ok_or("no packet passes")?;
    let flow = Barrier::new(2);
    std::thread::scope(|scope| {
        let packets = scope.spawn(|| {
            // A core of its own, as a worker has.
            let pinned = process::pin(process::RELAY_CORE);
            flow.wait();
            pinned?;
            loop {
                let next = hop(black_box(&route).forward_to_node(&board));
                if next.is_some_and(|next| next != first) {
                    return Ok(Instant::now());
                }
            }
        });
        flow.wait();
        world.kill(first.node.0 as usize);
        let mut began = Vec::with_capacity(PATIENCE);
        for _ in 0..PATIENCE {
            began.push(Instant::now());
            world.watch(WATCH);
            if packets.is_finished() {
                break;
            }
        }
        let moved: Result<Instant, String> =
            packets.join().map_err(|_| "the packets' thread ended".to_owned())?;
        let moved = moved?;
        let watch =
            began.into_iter().rfind(|began| *began <= moved).ok_or("nothing was watched")?;
        let gap = moved - watch;
        world.longest = Duration::ZERO;
        (0..PATIENCE).for_each(|_| world.watch(WATCH));
        println!(
            "flip: {:.1} µs to the second hop with {rooms} rooms; control's longest call after it took {:.1} ms",
            gap.as_secs_f64() * 1e6,
            world.longest.as_secs_f64() * 1e3
        );
        Ok(gap.as_secs_f64() * 1e6)
    })
}
