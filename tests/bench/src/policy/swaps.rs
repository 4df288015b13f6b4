//! A revision every 100 ms under load: windows with swaps and without take turns.

use std::time::{Duration, Instant};

use evenkeel_lab::load::{Edge, Offer, Pace, Window};
use serde_json::Value;

use super::Effort;
use super::gateway::{Api, Gateway, revision};
use super::report::{Latency, Report, Swap, Tail};
use crate::rounds;
use crate::row::{Direction, Sizes};

/// Between two swaps.
const EVERY: Duration = Duration::from_millis(100);

/// Half of what one core forwards with ease: what is lost is lost for a reason.
const PACKETS_PER_S: f64 = 20_000.0;

/// Before a window counts.
const WARM_UP: Duration = Duration::from_millis(500);

/// What came of the swaps of a window.
#[derive(Default)]
struct Swapped {
    rollouts: Vec<Value>,
}

/// # Errors
/// What could not be measured, in a sentence.
pub(crate) fn measure(
    gateway: &mut Gateway,
    effort: Effort,
    report: &mut Report,
) -> Result<(), String> {
    let revisions = [revision(1)?, revision(2)?];
    let mut api = gateway.api()?;
    // Both have been compiled once: a swap is a swap, and no build.
    for bytes in &revisions {
        api.push(bytes)?;
    }
    let before = api.policy()?;
    let (mut with, mut without, mut rollouts) = (Vec::new(), Vec::new(), Vec::new());
    let mut resident = Vec::new();
    for _ in 0..effort.windows {
        without.push(window(gateway, effort, || Ok(Swapped::default()))?.0);
        let swapping = || swap(&mut api, &revisions, effort.window + WARM_UP);
        let (window, swapped) = window(gateway, effort, swapping)?;
        with.push(window);
        rollouts.extend(swapped.rollouts);
        resident.push(gateway.running.process.resident_mib()?);
        println!("{} of {} windows, {} swaps", with.len(), effort.windows, rollouts.len());
    }
    let after = api.policy()?;
    let counted = |key: &str| {
        after[key].as_u64().unwrap_or(0).saturating_sub(before[key].as_u64().unwrap_or(0))
    };
    let mut activations: Vec<f64> =
        rollouts.iter().filter_map(|rollout| rollout["activate_us"].as_f64()).collect();
    report.activate_us = Tail::of(&mut activations);
    let lost = |windows: &[Window]| -> u64 {
        windows.iter().map(|window| window.tally.sent - window.tally.came).sum()
    };
    let sums = |of: fn(&Window) -> u64| with.iter().chain(&without).map(of).sum::<u64>();
    report.swap = Some(Swap {
        n: rollouts.len(),
        out_of_order: out_of_order(&rollouts),
        calls: counted("calls"),
        faults: counted("faults"),
        packets: sums(|window| window.tally.sent),
        packets_lost: lost(&with),
        packets_lost_without: lost(&without),
        misdelivered: sums(|window| window.tally.misdelivered + window.tally.foreign),
        p999_us: latency(&with, &without)?,
        rss_mib: resident.first().copied().unwrap_or(f64::NAN),
        grown_mib: grown(&resident),
    });
    Ok(())
}

/// One window of load, while something else is done on the same core.
fn window(
    gateway: &mut Gateway,
    effort: Effort,
    beside: impl FnOnce() -> Result<Swapped, String> + Send,
) -> Result<(Window, Swapped), String> {
    let trace = rounds::trace(Sizes::Voice)?;
    let offer = Offer {
        direction: rounds::way(Direction::ToNode),
        pace: Pace::Rate(PACKETS_PER_S),
        trace: &trace,
        warm_up: WARM_UP,
        length: effort.window,
    };
    let rig = &mut gateway.running.rig;
    let (window, swapped) = std::thread::scope(|scope| {
        let background = scope.spawn(beside);
        let window = rig.run(&offer, || Ok(()), |_: Edge| ());
        let swapped = background.join().map_err(|_| "the thread that swaps ended".to_owned());
        (window, swapped)
    });
    gateway.running.process.must_run()?;
    Ok((window.map_err(|error| error.to_string())?, swapped??))
}

/// Pushes them in turn for so long.
fn swap(api: &mut Api, revisions: &[Vec<u8>; 2], long: Duration) -> Result<Swapped, String> {
    let (began, mut rollouts) = (Instant::now(), Vec::new());
    while began.elapsed() < long {
        let due = began + EVERY * rollouts.len() as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        rollouts.push(api.push(&revisions[rollouts.len() % 2])?);
    }
    Ok(Swapped { rollouts })
}

/// Those that did not put another revision into the place of the one before.
fn out_of_order(rollouts: &[Value]) -> usize {
    let is_activated = |rollout: &&Value| rollout["outcome"] != "activated";
    let broken = rollouts.windows(2).filter(|pair| pair[1]["previous"] != pair[0]["revision"]);
    rollouts.iter().filter(is_activated).count() + broken.count()
}

fn latency(with: &[Window], without: &[Window]) -> Result<Latency, String> {
    let p999 = |windows: &[Window]| -> Vec<f64> {
        windows.iter().filter_map(|window| window.tally.delays.percentile(0.999)).collect()
    };
    let (with, without) = (p999(with), p999(without));
    if with.is_empty() || without.is_empty() {
        return Err("no packet came in any window".to_owned());
    }
    let largest = without.iter().copied().fold(f64::MIN, f64::max);
    let smallest = without.iter().copied().fold(f64::MAX, f64::min);
    Ok(Latency {
        with: rounds::median(with),
        without: rounds::median(without),
        spread: largest - smallest,
    })
}

/// From the first window on, when everything has been there once.
fn grown(resident: &[f64]) -> f64 {
    resident.last().zip(resident.first()).map_or(f64::NAN, |(last, first)| last - first)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rollouts_follow_each_other_or_are_counted() {
        let to = |revision: &str, previous: &str| json!({"outcome": "activated", "revision": revision, "previous": previous});
        assert_eq!(out_of_order(&[to("b", "a"), to("a", "b"), to("b", "a")]), 0);
        assert_eq!(out_of_order(&[to("b", "a"), to("a", "c")]), 1);
        let refused = json!({"outcome": "refused", "revision": "b", "previous": "b"});
        assert_eq!(out_of_order(&[to("b", "a"), refused]), 1);
    }
}
