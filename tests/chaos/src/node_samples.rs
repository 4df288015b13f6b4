//! Samples of the gateway's nodes throughout a row, which check that no node exceeds its capacity.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use evenkeel_client::ApiClient;
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::layout::ROOM_KBPS;
use crate::word;

const SAMPLED_EVERY: Duration = Duration::from_millis(50);

/// The sampled maxima.
#[derive(Clone, PartialEq, Default, Debug, Serialize)]
pub(crate) struct SampledNodes {
    samples: u64,
    /// The longest time between two samples, or from the last sample to the end.
    pause_ms: f64,
    /// Load and reserves of the fullest node in any sample, as a share of its capacity.
    peak_load: f64,
    /// Number of times that a sample showed a node above its capacity.
    overfull: u64,
    first_overfull: Option<String>,
}

impl SampledNodes {
    fn add(&mut self, nodes: &[Value], pause: Duration) {
        self.samples += 1;
        self.note_pause(pause);
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

    fn note_pause(&mut self, pause: Duration) {
        self.pause_ms = self.pause_ms.max(pause.as_secs_f64() * 1e3);
    }

    pub(crate) fn misses(&self) -> Vec<String> {
        let mut misses = Vec::new();
        if let Some(first) = &self.first_overfull {
            misses.push(format!(
                "{} times a node exceeded its capacity, first {first}",
                self.overfull
            ));
        }
        if self.samples == 0 {
            misses.push("nodes were never sampled".to_owned());
        }
        misses
    }

    /// The longest time between two samples.
    pub(crate) fn pause_ms(&self) -> Option<f64> {
        (self.samples > 0).then_some(self.pause_ms)
    }
}

/// Takes samples until this is dropped.
pub(crate) struct NodeSampler {
    sampled: Arc<Mutex<(SampledNodes, Instant)>>,
    sampling: JoinHandle<()>,
}

impl NodeSampler {
    pub(crate) fn begin(mut admin: ApiClient) -> NodeSampler {
        let sampled = Arc::new(Mutex::new((SampledNodes::default(), Instant::now())));
        let theirs = Arc::clone(&sampled);
        let sampling = tokio::spawn(async move {
            let mut clock = tokio::time::interval(SAMPLED_EVERY);
            clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                clock.tick().await;
                // A failed request leaves a gap between samples.
                let Ok(nodes) = admin.read("/v1/nodes").await else { continue };
                let nodes = nodes["nodes"].as_array().map_or(&[][..], Vec::as_slice);
                let (sampled, last) = &mut *lock(&theirs);
                sampled.add(nodes, last.elapsed());
                *last = Instant::now();
            }
        });
        NodeSampler { sampled, sampling }
    }

    /// The maxima so far.
    pub(crate) fn sampled(&self) -> SampledNodes {
        let (sampled, last) = &*lock(&self.sampled);
        let mut sampled = sampled.clone();
        sampled.note_pause(last.elapsed());
        sampled
    }
}

impl Drop for NodeSampler {
    fn drop(&mut self) {
        self.sampling.abort();
    }
}

fn lock(sampled: &Mutex<(SampledNodes, Instant)>) -> MutexGuard<'_, (SampledNodes, Instant)> {
    sampled.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    fn sampled(load_permille: u64, rooms: u64, pause: Duration) -> SampledNodes {
        let node = json!({
            "node": "west-a1", "load_permille": load_permille, "rooms": rooms, "capacity_kbps": 1_280
        });
        let mut sampled = SampledNodes::default();
        sampled.add(&[node], pause);
        sampled
    }

    #[test]
    fn overfull_node_is_a_miss() {
        assert_eq!(sampled(1_000, 10, SOON).misses(), [""; 0]);
        let miss =
            "1 times a node exceeded its capacity, first west-a1: 1001 ‰, 10 rooms on 1280 kbit/s";
        assert_eq!(sampled(1_001, 10, SOON).misses(), [miss]);
        assert_eq!(sampled(1_000, 11, SOON).misses().len(), 1);
    }

    #[test]
    fn pause_between_samples_is_measured() {
        assert_eq!(SampledNodes::default().misses().len(), 1);
        assert_eq!(SampledNodes::default().pause_ms(), None);
        assert_eq!(sampled(0, 0, 10 * SOON).pause_ms(), Some(500.0));
    }
}
