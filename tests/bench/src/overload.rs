//! More than can be carried: what is still delivered at three times the capacity, whether the gateway still answers,
//! and whether it takes its nodes for dead.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use evenkeel_lab::admin::{Admin, Place};
use evenkeel_lab::load::{Direction, Offer, Pace, Trace};
use serde_json::Value;

use crate::namespace::First;
use crate::relay::{self, Kind, Places, Running, Stage};
use crate::report::{Overload, OverloadLeg};
use crate::rounds::{self, Sample};
use crate::row::{Leg, Row};
use crate::table;

const WARM_UP: Duration = Duration::from_millis(250);
/// Rates at which the peak is looked for: each is so much more than the one before.
const STEP: f64 = 1.3;
const FIRST_RATE: f64 = 100_000.0;
/// No machine of two cores carries more.
const LAST_RATE: f64 = 3_000_000.0;
/// Packets that a client sends in one call: single sends of one core are not three times what another core forwards.
const BURST: usize = 64;
/// Windows at the rate that counts.
const ROUNDS: usize = 3;
/// How often the API is asked meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Measures both legs of the base row's sessions.
///
/// # Errors
/// What could not be measured, in a sentence.
pub(crate) fn measure(places: &Places) -> Result<Overload, String> {
    let mut legs = [Leg::Port, Leg::Trunk].into_iter().map(|leg| of(leg, places));
    let (Some(port), Some(trunk)) = (legs.next().transpose()?, legs.next().transpose()?) else {
        return Err("there are two legs".to_owned());
    };
    // On trunk legs so much is carried that one core may not be able to offer three times that.
    let is_trunk_worse = trunk.is_overloaded() && trunk.kept() < port.kept();
    let worse = if is_trunk_worse { &trunk } else { &port };
    Ok(Overload { peak: worse.peak, at_3x: worse.at_3x, port, trunk })
}

impl OverloadLeg {
    /// Whether really so much more was offered than is carried.
    fn is_overloaded(&self) -> bool {
        self.offered > 2.0 * self.peak
    }

    /// The share of the peak that is left.
    pub(crate) fn kept(&self) -> f64 {
        self.at_3x / self.peak
    }
}

fn of(leg: Leg, places: &Places) -> Result<OverloadLeg, String> {
    let Row { destinations, sessions, .. } = Row::base(leg);
    let stage = Stage { leg, destinations, sessions };
    let mut running = [relay::start(Kind::Ours, stage, places)?];
    let trace = Trace::constant(Trace::voice().map_err(|error| error.to_string())?.mean() as u16);
    let api = running[0].api.clone().unwrap_or_default();
    let before = incarnations(&api)?;
    let _first = First::come();
    let mut peak: f64 = 0.0;
    let mut rate = FIRST_RATE;
    while rate < LAST_RATE {
        let goodput = offer(&mut running, rate, &trace)?.pps;
        peak = peak.max(goodput);
        if goodput < 0.6 * rate {
            break;
        }
        rate *= STEP;
    }
    let (samples, asked) = while_asked(&api, || {
        (0..ROUNDS).map(|_| offer(&mut running, 3.0 * peak, &trace)).collect::<Result<Vec<_>, _>>()
    })?;
    let samples = samples?;
    let median = |figure: fn(&Sample) -> f64| rounds::median(samples.iter().map(figure));
    let after = incarnations(&api)?;
    let report = OverloadLeg {
        peak,
        at_3x: median(|sample| sample.pps),
        offered: median(|sample| sample.offered),
        least_share: median(|sample| sample.least_share),
        api_ms: asked,
        condemned: before.iter().zip(&after).filter(|(before, after)| before != after).count(),
        rss_mib: running[0].process.resident_mib(),
        misdelivered: samples.iter().map(|sample| sample.misdelivered).sum(),
    };
    table::overload(leg, &report);
    Ok(report)
}

fn offer(running: &mut [Running], rate: f64, trace: &Trace) -> Result<Sample, String> {
    let offer = Offer {
        direction: Direction::ToNode,
        pace: Pace::Bursts { rate, packets: BURST },
        trace,
        warm_up: WARM_UP,
        length: Duration::from_secs(1),
    };
    rounds::window(running, 0, &offer)
}

/// Works, and asks the API for its status meanwhile: the longest that an answer took, in milliseconds; none came at all
/// where it is `None`.
fn while_asked<T>(api: &Path, work: impl FnOnce() -> T) -> Result<(T, Option<f64>), String> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut longest: Option<f64> = None;
            while !done.load(Ordering::Relaxed) {
                let began = Instant::now();
                let answered = read(api, "/v1/status").is_ok();
                let took = began.elapsed().as_secs_f64() * 1_000.0;
                if answered {
                    longest = Some(longest.map_or(took, |longest| longest.max(took)));
                }
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

/// Each node's name, incarnation and state.
fn incarnations(api: &Path) -> Result<Vec<(String, String, String)>, String> {
    let nodes = read(api, "/v1/nodes")?;
    let list = nodes.as_array().or_else(|| nodes["nodes"].as_array());
    let list = list.ok_or_else(|| format!("/v1/nodes says {nodes}"))?;
    let text = |node: &Value, key: &str| node[key].to_string();
    Ok(list
        .iter()
        .map(|node| (text(node, "name"), text(node, "incarnation"), text(node, "health")))
        .collect())
}

fn read(api: &Path, path: &str) -> Result<Value, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let mut admin = Admin::new(Place::Unix(api.to_owned()));
    let answer = runtime
        .map_err(|error| error.to_string())?
        .block_on(async { tokio::time::timeout(Duration::from_secs(5), admin.read(path)).await });
    match answer {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("{path}: {error}")),
        Err(_) => Err(format!("{path}: no answer within 5 s")),
    }
}
