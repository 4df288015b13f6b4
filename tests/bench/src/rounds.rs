//! Rounds: every relay of a row in turn, repeatedly, and the medians.

use std::time::Duration;

use crate::load::{Direction as Way, Edge, Offer, Pace, Trace, Window};
use crate::process::Metered;

use crate::relay::Running;
use crate::report::{Delay, Figures};
use crate::row::{Direction, Load, Row, Sizes};

/// Time until gathering, caches and the processor's clock have settled.
const WARM_UP: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    pub(crate) window: Duration,
}

/// One window of one relay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) cpu_ns: f64,
    pub(crate) pps: f64,
    pub(crate) offered: f64,
    pub(crate) busy: f64,
    pub(crate) loss: f64,
    pub(crate) delay: Delay,
    pub(crate) other_end_ns: Option<f64>,
    pub(crate) misdelivered: u64,
    pub(crate) moved: u64,
    /// The throughput of the session with the lowest, divided by the mean.
    pub(crate) least_share: f64,
}

/// Measures all relays in a row: A B C, A B C, and so on.
pub(crate) fn measure(
    row: &Row,
    running: &mut [Running],
    effort: Effort,
) -> Result<Vec<Figures>, String> {
    let trace = trace(row.sizes)?;
    let offer = Offer {
        direction: way(row.direction),
        pace: match row.load {
            Load::Paced(rate) => Pace::Rate(rate.into()),
            Load::Saturated => Pace::Flat,
        },
        trace: &trace,
        warm_up: WARM_UP,
        length: effort.window,
    };
    let mut samples: Vec<Vec<Sample>> = running.iter().map(|_| Vec::new()).collect();
    for _ in 0..effort.rounds {
        for (at, samples) in samples.iter_mut().enumerate() {
            samples.push(window(running, at, &offer)?);
        }
    }
    Ok(samples.iter().map(|samples| figures(samples)).collect())
}

pub(crate) fn way(direction: Direction) -> Way {
    match direction {
        Direction::ToNode => Way::ToNode,
        Direction::ToClient => Way::ToClient,
        Direction::Both => Way::Both,
    }
}

pub(crate) fn trace(sizes: Sizes) -> Result<Trace, String> {
    match sizes {
        Sizes::Voice => Trace::voice(),
        Sizes::Video => Trace::video(),
        Sizes::Constant(length) => return Ok(Trace::constant(length)),
    }
    .map_err(|error| error.to_string())
}

/// One window of one relay, while the nodes of the others answer probes.
pub(crate) fn window(
    running: &mut [Running],
    at: usize,
    offer: &Offer<'_>,
) -> Result<Sample, String> {
    let (before, rest) = running.split_at_mut(at);
    let (measured, after) = rest.split_first_mut().ok_or("unknown relay")?;
    let others = || {
        let others = before.iter_mut().chain(after.iter_mut());
        others.filter(|other| other.api.is_some()).try_for_each(|other| other.rig.idle())
    };
    let mut edges = [0; 2];
    let process = &measured.process;
    let edge = |edge| match edge {
        Edge::Begin => edges[0] = process.processor_ns(),
        Edge::End => edges[1] = process.processor_ns(),
    };
    let window = measured.rig.run(offer, others, edge).map_err(|error| error.to_string())?;
    measured.process.must_run()?;
    Ok(sample(window, measured.rig.sessions(), edges))
}

/// The figures of a window, with the relay's processor time at its edges.
pub(crate) fn sample(window: Window, sessions: usize, [begin, end]: [u64; 2]) -> Sample {
    let Window { tally, received, seconds } = window;
    let cpu = end.saturating_sub(begin) as f64;
    let micros = |share| tally.delays.percentile(share);
    let delay = Delay { p50: micros(0.5), p99: micros(0.99), p999: micros(0.999) };
    Sample {
        cpu_ns: cpu / received.max(1) as f64,
        pps: received as f64 / seconds,
        offered: tally.sent as f64 / seconds,
        busy: cpu / (seconds * 1e9),
        loss: 1.0 - tally.came as f64 / tally.sent.max(1) as f64,
        delay,
        other_end_ns: (tally.taken > 0).then(|| tally.taking_ns as f64 / tally.taken as f64),
        misdelivered: tally.misdelivered + tally.foreign,
        moved: tally.moved,
        least_share: tally.least_share(sessions),
    }
}

pub(crate) fn figures(samples: &[Sample]) -> Figures {
    let of = |figure: fn(&Sample) -> f64| median(samples.iter().map(figure));
    let maybe = |figure: fn(&Sample) -> Option<f64>| {
        let values: Vec<f64> = samples.iter().filter_map(figure).collect();
        (!values.is_empty()).then(|| median(values))
    };
    Figures {
        cpu_ns: of(|sample| sample.cpu_ns),
        spread: spread(samples.iter().map(|sample| sample.cpu_ns)),
        pps: of(|sample| sample.pps),
        offered: of(|sample| sample.offered),
        relay_busy: of(|sample| sample.busy),
        loss: of(|sample| sample.loss),
        delay_us: Delay {
            p50: maybe(|sample| sample.delay.p50),
            p99: maybe(|sample| sample.delay.p99),
            p999: maybe(|sample| sample.delay.p999),
        },
        other_end_ns: maybe(|sample| sample.other_end_ns),
        misdelivered: samples.iter().map(|sample| sample.misdelivered).sum(),
        moved: samples.iter().map(|sample| sample.moved).sum(),
    }
}

/// The median; for an even number the mean of the middle two. 0 without values.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

/// (largest − smallest) ÷ median; 0 without values.
pub(crate) fn spread(values: impl IntoIterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.into_iter().collect();
    let largest = values.iter().copied().fold(f64::MIN, f64::max);
    let smallest = values.iter().copied().fold(f64::MAX, f64::min);
    let middle = median(values);
    if middle == 0.0 { 0.0 } else { (largest - smallest) / middle }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_whatever_the_order() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median([]), 0.0);
    }

    #[test]
    fn spread_is_how_far_apart_in_medians() {
        assert_eq!(spread([10.0, 8.0, 13.0]), 0.5);
        assert_eq!(spread([7.0]), 0.0);
        assert_eq!(spread([]), 0.0);
    }

    #[test]
    fn sample_divides_by_received_packets() {
        let mut window = Window { tally: Default::default(), received: 1_000, seconds: 0.5 };
        window.tally.sent = 2_000;
        window.tally.came = 1_500;
        (window.tally.taken, window.tally.taking_ns) = (1_500, 3_000_000);
        let sample = sample(window, 1, [1_000_000, 5_000_000]);
        assert_eq!((sample.cpu_ns, sample.pps, sample.offered), (4_000.0, 2_000.0, 4_000.0));
        assert_eq!((sample.busy, sample.loss, sample.other_end_ns), (0.008, 0.25, Some(2_000.0)));
        assert_eq!(sample.delay.p50, None);
    }
}
