//! The same functions of the same policies, compiled natively and called without a host.
//!
//! Slightly slower than native code could be: outside of Wasm the SDK checks at each read that the policy declared the
//! metric.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bench_empty::Empty;
use bench_smooth::Smooth;
use degrade_ladder::DegradeLadder;
use evenkeel_model::PluginState;
use evenkeel_plugin_sdk::wit::degradation::exports::evenkeel::policy::degradation::Guest as Degrades;
use evenkeel_plugin_sdk::wit::guest_interface::{Grant, Guest};
use evenkeel_plugin_sdk::wit::routing::exports::evenkeel::policy::routing::Guest as Routes;
use evenkeel_plugin_sdk::wit::scenario::exports::evenkeel::policy::scenario::Guest as Resolves;
use evenkeel_plugin_sdk::{Metric, Plugin, Policy};
use route_nearest::RouteNearest;

use super::questions::{self, NOW_US, SESSIONS};

/// The time of a call of the empty policy.
///
/// # Errors
/// The policy refuses its settings.
pub(crate) fn empty(calls: usize) -> Result<Duration, String> {
    begin::<Empty>()?;
    let began = Instant::now();
    for _ in 0..calls {
        black_box(Plugin::<Empty>::resolve(String::from("call"), Vec::new()));
    }
    Ok(began.elapsed() / calls as u32)
}

/// Time of each placement.
pub(crate) fn place(calls: usize) -> Result<Vec<Duration>, String> {
    let (_, nodes) = begin::<RouteNearest>()?;
    let frame = questions::frame(&questions::nodes(), &nodes);
    let mut took = Vec::with_capacity(calls);
    for room in 0..calls as u64 {
        // The host's work to pass arguments is excluded.
        let (scenario, frame) = (String::from("call"), frame.clone());
        let began = Instant::now();
        black_box(Plugin::<RouteNearest>::place(NOW_US, room, scenario, Vec::new(), frame));
        took.push(began.elapsed());
    }
    Ok(took)
}

/// Time of a session in a tick of the bench's own policy.
pub(crate) fn smooth(calls: usize, states: &[Option<PluginState>]) -> Result<Duration, String> {
    tick::<Smooth>(calls, states)
}

/// Time of a session in a tick of the shipped ladder.
pub(crate) fn ladder(calls: usize, states: &[Option<PluginState>]) -> Result<Duration, String> {
    tick::<DegradeLadder>(calls, states)
}

fn tick<P: Policy>(calls: usize, states: &[Option<PluginState>]) -> Result<Duration, String>
where
    Plugin<P>: Guest + Degrades,
{
    let (sessions, _) = begin::<P>()?;
    let frame = questions::frame(&questions::sessions(), &sessions);
    let blobs = questions::blobs(states);
    let mut took = Duration::ZERO;
    for _ in 0..calls {
        let (frame, blobs) = (frame.clone(), blobs.clone());
        let began = Instant::now();
        black_box(Plugin::<P>::tick(NOW_US, frame, blobs, Vec::new()));
        took += began.elapsed();
    }
    Ok(took / (calls * SESSIONS) as u32)
}

/// Starts the policy with default settings, all permissions and all nodes. Returns the metrics that it reads: of
/// sessions and rooms, and of nodes and regions.
fn begin<P: Policy>() -> Result<(Vec<u32>, Vec<u32>), String>
where
    Plugin<P>: Guest,
{
    let numbers = |of: &[Metric]| -> Vec<u32> {
        let reads = P::READS.iter().filter(|metric| of.contains(metric));
        reads.map(|&metric| metric as u32).collect()
    };
    let sessions = [Metric::SESSION, Metric::ROOM].concat();
    let nodes = [Metric::NODE, Metric::REGION].concat();
    let (subject_metrics, node_metrics) = (numbers(&sessions), numbers(&nodes));
    let grant = Grant {
        subject_metrics: subject_metrics.clone(),
        node_metrics: node_metrics.clone(),
        ops: P::OPS.iter().map(|&op| op as u32).collect(),
        seed: 7,
    };
    Plugin::<P>::init("{}".to_owned(), grant)?;
    Plugin::<P>::catalog(questions::entries());
    Ok((subject_metrics, node_metrics))
}
