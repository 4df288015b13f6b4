//! Samples of the gateway's nodes throughout a row, which check that no node exceeds its capacity.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use evenkeel_client::ApiClient;
use evenkeel_lab::watch::word;
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::layout::ROOM_KBPS;

const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The longest time between two samples. A sample waits for a gateway that handles a region's death on two cores.
const BLIND_MAX: Duration = Duration::from_millis(500);

/// The sampled maxima.
#[derive(Clone, PartialEq, Default, Debug, Serialize)]
pub(crate) struct Seen {
    looks: u64,
    /// The longest time between two samples, or from the last sample to the end.
    blind_ms: f64,
    /// Load and reserves of the fullest node in any sample, as a share of its capacity.
    peak_load: f64,
    /// Number of times that a sample showed a node above its capacity.
    overfull: u64,
    first_overfull: Option<String>,
}

impl Seen {
    fn look(&mut self, nodes: &[Value], blind: Duration) {
        self.looks += 1;
        self.wait(blind);
        for node in nodes {
            let number = |key: &str| node[key].as_u64().unwrap_or(u64::MAX);
            let (permille, rooms) = (number("load_permille"), number("rooms"));
            let capacity = number("capacity_kbps");
            self.peak_load = self.peak_load.max(permille as f64 / 1_000.0);
            // The load in thousandths is rounded down, so the number of rooms is checked as well.
            if permille > 1_000 || rooms.saturating_mul(ROOM_KBPS) > capacity {
                self.overfull += 1;
                let name = word(&node["node"]);
                let what = || format!("{name}: {permille} ‰, {rooms} rooms on {capacity} kbit/s");
                self.first_overfull.get_or_insert_with(what);
            }
        }
    }

    fn wait(&mut self, blind: Duration) {
        self.blind_ms = self.blind_ms.max(blind.as_secs_f64() * 1e3);
    }

    pub(crate) fn misses(&self) -> Vec<String> {
        let mut misses = Vec::new();
        if let Some(first) = &self.first_overfull {
            misses.push(format!(
                "{} times a node exceeded its capacity, first {first}",
                self.overfull
            ));
        }
        let blind_max = BLIND_MAX.as_secs_f64() * 1e3;
        if self.looks == 0 || self.blind_ms > blind_max {
            let Seen { looks, blind_ms, .. } = self;
            misses.push(format!(
                "nodes were looked at {looks} times, and not for {blind_ms:.0} ms, {blind_max} is the limit"
            ));
        }
        misses
    }
}

/// Takes samples until this is dropped.
pub(crate) struct Looks {
    seen: Arc<Mutex<(Seen, Instant)>>,
    looking: JoinHandle<()>,
}

impl Looks {
    pub(crate) fn begin(mut admin: ApiClient) -> Looks {
        let seen = Arc::new(Mutex::new((Seen::default(), Instant::now())));
        let theirs = Arc::clone(&seen);
        let looking = tokio::spawn(async move {
            let mut clock = tokio::time::interval(LOOK_EVERY);
            clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                clock.tick().await;
                // A failed request leaves a gap between samples.
                let Ok(nodes) = admin.read("/v1/nodes").await else { continue };
                let nodes = nodes["nodes"].as_array().map_or(&[][..], Vec::as_slice);
                let (seen, last) = &mut *lock(&theirs);
                seen.look(nodes, last.elapsed());
                *last = Instant::now();
            }
        });
        Looks { seen, looking }
    }

    /// The maxima so far.
    pub(crate) fn seen(&self) -> Seen {
        let (seen, last) = &*lock(&self.seen);
        let mut seen = seen.clone();
        seen.wait(last.elapsed());
        seen
    }
}

impl Drop for Looks {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

fn lock(seen: &Mutex<(Seen, Instant)>) -> MutexGuard<'_, (Seen, Instant)> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    fn looked_at(load_permille: u64, rooms: u64, blind: Duration) -> Seen {
        let node = json!({
            "node": "west-a1", "load_permille": load_permille, "rooms": rooms, "capacity_kbps": 1_280
        });
        let mut seen = Seen::default();
        seen.look(&[node], blind);
        seen
    }

    #[test]
    fn overfull_node_is_a_miss() {
        assert_eq!(looked_at(1_000, 10, SOON).misses(), [""; 0]);
        let miss =
            "1 times a node exceeded its capacity, first west-a1: 1001 ‰, 10 rooms on 1280 kbit/s";
        assert_eq!(looked_at(1_001, 10, SOON).misses(), [miss]);
        assert_eq!(looked_at(1_000, 11, SOON).misses().len(), 1);
    }

    #[test]
    fn what_nobody_looked_at_is_a_miss() {
        assert_eq!(Seen::default().misses().len(), 1);
        assert_eq!(looked_at(0, 0, BLIND_MAX).misses(), [""; 0]);
        assert_eq!(looked_at(0, 0, BLIND_MAX + SOON).misses().len(), 1);
    }
}
