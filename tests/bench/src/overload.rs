//! Overload: throughput, API latency and node health at three times the capacity.
//!
//! One core cannot offer three times the capacity of another, so the gateway shares its core with spinning threads, at
//! its peak and at three times that.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::load::{Direction, Offer, Pace, Trace};
use crate::process::Metered;
use evenkeel_client::{ApiClient, ApiEndpoint};
use serde_json::Value;

use crate::namespace::First;
use crate::process::Rivals;
use crate::relay::{self, Kind, Places, Running, Stage};
use crate::report::{Overload, OverloadLeg};
use crate::rounds::{self, Sample};
use crate::row::{Leg, Row};
use crate::table;

const WARM_UP: Duration = Duration::from_millis(250);
/// The search for the peak raises the rate by this factor.
const STEP: f64 = 1.3;
const FIRST_RATE: f64 = 20_000.0;
/// No machine of two cores carries more.
const LAST_RATE: f64 = 3_000_000.0;
/// A failed request counts as at least this long, milliseconds.
const FAILED_MS: f64 = 5_000.0;
/// Windows at the final rate.
const ROUNDS: usize = 3;
/// Interval of API requests during the load.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// The number of spinning threads, and packets per send call of a client. On port legs equal packets that arrive
/// together would leave together, so they are sent one by one; on trunk legs all packets are bundled.
fn rivals_and_burst(leg: Leg) -> (usize, usize) {
    match leg {
        Leg::Port => (2, 1),
        Leg::Trunk => (4, 4),
    }
}

/// Measures both legs with the sessions of the base row.
///
/// # Errors
/// A measurement failed.
pub(crate) fn measure(places: &Places) -> Result<Overload, String> {
    let mut legs = [Leg::Port, Leg::Trunk].into_iter().map(|leg| of(leg, places));
    let (Some(port), Some(trunk)) = (legs.next().transpose()?, legs.next().transpose()?) else {
        return Err("there are two legs".to_owned());
    };
    let worse = if trunk.kept() < port.kept() { &trunk } else { &port };
    Ok(Overload { peak: worse.peak, at_3x: worse.at_3x, port, trunk })
}

impl Overload {
    /// Throughput under overload divided by the peak. NaN if too little was offered, which meets no target.
    pub(crate) fn kept(&self) -> f64 {
        let is_overload = [&self.port, &self.trunk].iter().all(|leg| leg.offered > 2.5 * leg.peak);
        if is_overload { self.at_3x / self.peak } else { f64::NAN }
    }
}

impl OverloadLeg {
    /// Throughput under overload divided by the peak.
    pub(crate) fn kept(&self) -> f64 {
        self.at_3x / self.peak
    }
}

fn of(leg: Leg, places: &Places) -> Result<OverloadLeg, String> {
    let Row { destinations, sessions, .. } = Row::base(leg);
    let stage = Stage { leg, destinations, sessions, srtp: None, obeys_caps: false };
    let mut running = [relay::start(Kind::Ours, stage, places)?];
    let trace = Trace::constant(Trace::voice().map_err(|error| error.to_string())?.mean() as u16);
    let api = running[0].api.clone().unwrap_or_default();
    let before = lives(&mut running[0], &api)?;
    let _first = First::come();
    let (rivals, burst) = rivals_and_burst(leg);
    let _rivals = Rivals::start(rivals)?;
    let (mut peak, mut misdelivered): (f64, u64) = (0.0, 0);
    let mut rate = FIRST_RATE;
    while rate < LAST_RATE {
        let sample = offer(&mut running, rate, burst, &trace)?;
        misdelivered += sample.misdelivered;
        let goodput = sample.pps;
        peak = peak.max(goodput);
        if goodput < 0.6 * rate {
            break;
        }
        rate *= STEP;
    }
    let (samples, asked) = while_asked(&api, || {
        (0..ROUNDS)
            .map(|_| offer(&mut running, 3.0 * peak, burst, &trace))
            .collect::<Result<Vec<_>, _>>()
    })?;
    let samples = samples?;
    let median = |figure: fn(&Sample) -> f64| rounds::median(samples.iter().map(figure));
    let after = lives(&mut running[0], &api)?;
    let report = OverloadLeg {
        peak,
        at_3x: median(|sample| sample.pps),
        offered: median(|sample| sample.offered),
        least_share: median(|sample| sample.least_share),
        api_ms: asked,
        condemned: before.iter().zip(&after).filter(|(before, after)| before != after).count(),
        rss_mib: running[0].process.resident_mib()?,
        misdelivered: misdelivered + samples.iter().map(|sample| sample.misdelivered).sum::<u64>(),
    };
    table::overload(leg, &report);
    Ok(report)
}

fn offer(
    running: &mut [Running],
    rate: f64,
    burst: usize,
    trace: &Trace,
) -> Result<Sample, String> {
    let offer = Offer {
        direction: Direction::ToNode,
        pace: Pace::Bursts { rate, packets: burst },
        trace,
        warm_up: WARM_UP,
        length: Duration::from_secs(1),
    };
    rounds::window(running, 0, &offer)
}

/// Runs `work` and requests the API's status meanwhile. Returns the longest time of a request until its answer or its
/// failure, milliseconds.
fn while_asked<T>(api: &Path, work: impl FnOnce() -> T) -> Result<(T, f64), String> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut longest: f64 = 0.0;
            while !done.load(Ordering::Relaxed) {
                let began = Instant::now();
                let answered = read(api, "/v1/status");
                let took = began.elapsed().as_secs_f64() * 1_000.0;
                // A fast failure must not look like a fast answer.
                longest = longest.max(if answered.is_ok() { took } else { took.max(FAILED_MS) });
                std::thread::sleep(ASK_EVERY);
            }
            longest
        });
        let worked = work();
        done.store(true, Ordering::Relaxed);
        asking
            .join()
            .map(|longest| (worked, longest))
            .map_err(|_| "asking the API failed".to_owned())
    })
}

/// Each node's name and incarnation, and whether it is down; nodes answer probes meanwhile.
fn lives(running: &mut Running, api: &Path) -> Result<Vec<(String, String, bool)>, String> {
    let nodes = running.rig.serving(|| read(api, "/v1/nodes"));
    let nodes = nodes.map_err(|error| error.to_string())??;
    let list = nodes.as_array().or_else(|| nodes["nodes"].as_array());
    let list = list.ok_or_else(|| format!("/v1/nodes says {nodes}"))?;
    let life = |node: &Value| {
        let text = |key: &str| node[key].to_string();
        (text("node"), text("incarnation"), node["health"] == "down")
    };
    Ok(list.iter().map(life).collect())
}

fn read(api: &Path, path: &str) -> Result<Value, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let mut admin = ApiClient::new(ApiEndpoint::Unix(api.to_owned()));
    let answer = runtime
        .map_err(|error| error.to_string())?
        .block_on(async { tokio::time::timeout(Duration::from_secs(5), admin.read(path)).await });
    match answer {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("{path}: {error}")),
        Err(_) => Err(format!("{path}: no answer within 5 s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_share_needs_a_real_overload() {
        let leg = |peak, at_3x, offered| OverloadLeg {
            peak,
            at_3x,
            offered,
            least_share: 1.0,
            api_ms: 1.0,
            condemned: 0,
            rss_mib: 50.0,
            misdelivered: 0,
        };
        let port = leg(100.0, 90.0, 300.0);
        let both =
            |trunk: OverloadLeg| Overload { peak: 100.0, at_3x: 90.0, port: port.clone(), trunk };
        assert_eq!(both(leg(400.0, 400.0, 1_200.0)).kept(), 0.9);
        assert!(both(leg(400.0, 400.0, 500.0)).kept().is_nan());
    }
}
