//! A revision every 100 ms under load: windows with swaps and without take turns.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::load::{Edge, Window};
use crate::process::Metered;
use serde_json::{Value, json};

use super::Effort;
use super::gateway::{Api, Gateway, POLICY, encoded, revision};
use super::recorded::Deciders;
use super::report::{Latency, Report, Swap, Tail};
use crate::rounds;

/// Interval of swaps, and of session requests.
const EVERY: Duration = Duration::from_millis(100);

/// Time under load before a window begins.
const WARM_UP: Duration = Duration::from_millis(500);

/// The swapped revisions: each is another plugin and reviews rooms after another number of seconds, so that a decision
/// about a new room identifies its revision.
pub(crate) const NUMBERS: [u32; 2] = [1, 2];
const REVIEW_S: [u32; 2] = [20, 21];

/// The first room of extra sessions, above those of the load.
const FIRST_ROOM: u32 = 1_000_000;

/// The activity during a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Beside {
    /// A session is requested every 100 ms.
    Sessions,
    Swaps,
}

/// The two revisions, and the next one.
pub(crate) struct SwappedRevisions {
    revisions: Vec<(String, Vec<u8>)>,
    swaps: usize,
    rooms: u32,
}

impl SwappedRevisions {
    pub(crate) fn new() -> Result<SwappedRevisions, String> {
        let one = |(number, seconds)| Ok::<_, String>((query(seconds), revision(number)?));
        let revisions = NUMBERS.into_iter().zip(REVIEW_S).map(one).collect::<Result<_, _>>()?;
        Ok(SwappedRevisions { revisions, swaps: 0, rooms: FIRST_ROOM })
    }

    /// Activates each once, the next one first, so that later swaps compile nothing. Returns their names with their
    /// marks.
    fn begin(&self, api: &mut Api) -> Result<BTreeMap<String, u32>, String> {
        let one = |((query, bytes), seconds): (&(String, Vec<u8>), u32)| {
            let rollout = api.push_to(POLICY, query, bytes)?;
            let name = rollout["revision"].as_str().filter(|_| rollout["outcome"] == "activated");
            let name = name.ok_or_else(|| format!("a revision was not activated: {rollout}"))?;
            Ok((name.to_owned(), seconds * 1_000))
        };
        self.revisions.iter().zip(REVIEW_S).map(one).collect()
    }

    /// Performs the activity for this long, and returns rollouts, if any.
    pub(crate) fn take(
        &mut self,
        api: &mut Api,
        beside: Beside,
        long: Duration,
    ) -> Result<Vec<Value>, String> {
        let (began, mut rollouts, mut times) = (Instant::now(), Vec::new(), 0);
        while began.elapsed() < long {
            let due = began + EVERY * times;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if beside == Beside::Swaps {
                let (query, bytes) = &self.revisions[self.swaps % self.revisions.len()];
                rollouts.push(api.push_to(POLICY, query, bytes)?);
                self.swaps += 1;
            }
            api.try_session(self.rooms)?;
            self.rooms += 1;
            times += 1;
        }
        Ok(rollouts)
    }
}

/// The set's settings with this review interval of rooms.
fn query(review_s: u32) -> String {
    let settings = json!({
        "delay_weight": 0.0, "loss_weight": 0.0, "load_weight": 0.0, "zone_cost": 0.0,
        "wary_cost": 0.0, "spares": 2, "min_stay": "1h", "review_interval": format!("{review_s}s"),
    });
    format!("?settings={}", encoded(&settings.to_string()))
}

/// # Errors
/// A measurement failed.
pub(crate) fn measure(
    gateway: &mut Gateway,
    turns: &mut SwappedRevisions,
    effort: Effort,
    report: &mut Report,
) -> Result<(), String> {
    let mut api = gateway.api()?;
    let marks = gateway.serving(|| turns.begin(&mut api))?;
    let mut deciders = Deciders::marked_by(marks);
    let before = gateway.serving(|| api.policy(POLICY))?;
    let (mut with, mut without, mut rollouts) = (Vec::new(), Vec::new(), Vec::new());
    let mut resident = Vec::new();
    for _ in 0..effort.windows {
        let long = effort.window + WARM_UP;
        let (quiet, _) = window(gateway, effort, || turns.take(&mut api, Beside::Sessions, long))?;
        without.push(quiet);
        let (window, swapped) =
            window(gateway, effort, || turns.take(&mut api, Beside::Swaps, long))?;
        with.push(window);
        rollouts.extend(swapped);
        resident.push(gateway.process().resident_mib()?);
        // The kept recording covers less than half a minute.
        let recording = gateway.serving(|| api.recorded())?;
        deciders.read(&recording)?;
        let (done, of) = (with.len(), effort.windows);
        let mib = resident.last().copied().unwrap_or(f64::NAN);
        println!("{done} of {of} windows, {} swaps, {mib:.1} MiB", rollouts.len());
    }
    let after = gateway.serving(|| api.policy(POLICY))?;
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
    // The swapped revisions were activated before, one after the other, and called about the rooms of the load.
    let too_many = deciders.switches.saturating_sub(rollouts.len() + turns.revisions.len());
    report.swap = Some(Swap {
        n: rollouts.len(),
        out_of_order: out_of_order(&rollouts) + too_many,
        decisions: deciders.calls(),
        marked: deciders.marked,
        two_revisions: deciders.two_revisions(),
        unrecorded: deciders.missed,
        calls: counted("calls"),
        faults: counted("faults"),
        last_fault: after["last_fault"].as_str().map(str::to_owned),
        packets: sums(|window| window.tally.sent),
        packets_lost: lost(&with),
        packets_lost_without: lost(&without),
        misdelivered: sums(|window| window.tally.misdelivered),
        p999_us: latency(&with, &without)?,
        rss_mib: middle(&resident).unwrap_or(f64::NAN),
        grown_mib: grown(&resident),
    });
    Ok(())
}

/// One window of load with an activity on the same core.
fn window<T: Send>(
    gateway: &mut Gateway,
    effort: Effort,
    beside: impl FnOnce() -> Result<T, String> + Send,
) -> Result<(Window, T), String> {
    let offer = Gateway::offer(&gateway.trace, WARM_UP, effort.window);
    let rig = &mut gateway.running.rig;
    let (window, done) = std::thread::scope(|scope| {
        let background = scope.spawn(beside);
        let window = rig.run(&offer, || Ok(()), |_: Edge| ());
        let done = background.join().map_err(|_| "the thread that swaps ended".to_owned());
        (window, done)
    });
    gateway.process().must_run()?;
    Ok((window.map_err(|error| error.to_string())?, done??))
}

/// Rollouts that did not replace the expected revision.
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
        return Err("no packet arrived in any window".to_owned());
    }
    let largest = without.iter().copied().fold(f64::MIN, f64::max);
    let smallest = without.iter().copied().fold(f64::MAX, f64::min);
    Ok(Latency {
        with: rounds::median(with),
        without: rounds::median(without),
        spread: largest - smallest,
    })
}

/// Growth from the middle on: the recording of the last half minute fills up in the first half.
fn grown(resident: &[f64]) -> f64 {
    resident.last().zip(middle(resident)).map_or(f64::NAN, |(last, middle)| last - middle)
}

fn middle(resident: &[f64]) -> Option<f64> {
    resident.get(resident.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_order_rollouts_are_counted() {
        let to = |revision: &str, previous: &str| json!({"outcome": "activated", "revision": revision, "previous": previous});
        assert_eq!(out_of_order(&[to("b", "a"), to("a", "b"), to("b", "a")]), 0);
        assert_eq!(out_of_order(&[to("b", "a"), to("a", "c")]), 1);
        let refused = json!({"outcome": "refused", "revision": "b", "previous": "b"});
        assert_eq!(out_of_order(&[to("b", "a"), refused]), 1);
    }
}
