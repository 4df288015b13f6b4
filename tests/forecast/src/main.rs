//! Measures forecasts on generated days: `make bench-forecast`.
//!
//! Limits of the forecasts and of the naive rules were chosen on seeds below 1,000; the report is about others.

mod link_days;
mod load_days;
mod naive;
mod node_days;
mod noise;
mod truth;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;

use evenkeel_forecast::{
    DecayForecast, FlapForecast, LOAD_HOLD_MINUTES, LoadForecast, Minute, NODE_HOLD_MINUTES,
    NodeSample,
};
use evenkeel_testkit::report::{self, AcceptanceRow};

use link_days::LinkDays;
use load_days::{LoadDays, MINUTES_OF_DAY, WARM_UP_DAYS};
use node_days::{GeneratedMinute, NodeDays};
use truth::{Score, warnings};

/// Seeds on which nothing was tuned.
const HELD_OUT: Range<u64> = 1_000..1_200;

/// Default of `horizon` in `[forecast]`, minutes.
const HORIZON: usize = 30;

/// The start of a node takes minutes.
const LOAD_LEAD_MIN: usize = 5;
/// Rooms leave a node make-before-break within minutes.
const NODE_LEAD_MIN: usize = 10;

/// Least precision and recall.
const TARGET: f64 = 0.8;

fn main() -> ExitCode {
    let rows = [load_row(), decay_row(), flap_row()];
    for row in &rows {
        println!("{} {}", row.id, if row.held { "held" } else { "MISSED" });
        row.figures.iter().for_each(|(name, value)| println!("  {name} {value:.2}"));
    }
    let path = Path::new("target/bench-forecast/report.json");
    report::end("bench-forecast", report::write(&BTreeMap::from([("rows", rows)]), path))
}

/// A row of a forecast beside naive rules, which it must beat.
fn row(id: &str, forecast: &Score, naive: &[(&str, Score)]) -> AcceptanceRow {
    let mut figures = forecast.figures("");
    figures.insert("events".to_owned(), f64::from(forecast.events()));
    naive.iter().for_each(|(name, score)| figures.extend(score.figures(&format!("{name}_"))));
    let best = naive.iter().map(|(_, score)| score.f1()).fold(0.0, f64::max);
    let limits = [("precision_min", TARGET), ("recall_min", TARGET), ("f1_min", best)];
    let limits = limits.into_iter().map(|(name, limit)| (name.to_owned(), limit)).collect();
    AcceptanceRow::measured(id, figures, limits)
}

fn load_row() -> AcceptanceRow {
    let [mut forecast, mut last_week, mut linear] = [(); 3].map(|()| Score::default());
    for seed in HELD_OUT {
        let days = LoadDays::generate(seed);
        let events = days.exhaustions();
        let add = |score: &mut Score, minutes: Vec<bool>| {
            let mut spans = warnings(minutes, LOAD_HOLD_MINUTES);
            spans.retain(|(first, _)| *first >= WARM_UP_DAYS * MINUTES_OF_DAY);
            score.add(&events, &spans, LOAD_LEAD_MIN);
        };
        add(&mut forecast, load_warnings(&days));
        add(&mut last_week, naive::same_minute_last_week(&days, HORIZON));
        add(&mut linear, naive::linear_trend(&days, HORIZON));
    }
    row("forecast.load", &forecast, &[("naive", last_week), ("linear", linear)])
}

fn load_warnings(days: &LoadDays) -> Vec<bool> {
    let mut forecast = LoadForecast::default();
    let minutes = (0..).zip(days.load.iter().zip(&days.capacity));
    let warns = |(minute, (load, capacity)): (Minute, (&f64, &f64))| {
        forecast.sample(minute, *load);
        forecast.exhaustion(*capacity, HORIZON as u64).is_some()
    };
    minutes.map(warns).collect()
}

fn decay_row() -> AcceptanceRow {
    let [mut forecast, mut naive] = [(); 2].map(|()| Score::default());
    for seed in HELD_OUT {
        let days = NodeDays::generate(seed);
        let events: Vec<_> = days.failure.into_iter().collect();
        let add = |score: &mut Score, minutes: Vec<bool>| {
            score.add(&events, &warnings(minutes, NODE_HOLD_MINUTES), NODE_LEAD_MIN);
        };
        add(&mut forecast, decay_warnings(&days));
        add(&mut naive, naive::node_limits(&days));
    }
    row("forecast.decay", &forecast, &[("naive", naive)])
}

fn decay_warnings(days: &NodeDays) -> Vec<bool> {
    let mut forecast = DecayForecast::default();
    let samples = (0..).zip(&days.samples);
    let warns = |(minute, sample): (Minute, &GeneratedMinute)| {
        let GeneratedMinute { round_trip_ms, loss, restarts, memory } = *sample;
        let sample = NodeSample { round_trip_ms: Some(round_trip_ms), loss, restarts, memory };
        forecast.sample(minute, sample).is_some()
    };
    samples.map(warns).collect()
}

fn flap_row() -> AcceptanceRow {
    let [mut forecast, mut naive] = [(); 2].map(|()| Score::default());
    for seed in HELD_OUT {
        let days = LinkDays::generate(seed);
        let events: Vec<_> = days.outage.into_iter().collect();
        let add = |score: &mut Score, minutes: Vec<bool>| {
            score.add(&events, &warnings(minutes, NODE_HOLD_MINUTES), NODE_LEAD_MIN);
        };
        let mut link = FlapForecast::default();
        let changes = (0..).zip(&days.changes);
        let warned = changes.map(|(minute, changes)| link.sample(minute, *changes).is_some());
        add(&mut forecast, warned.collect());
        add(&mut naive, naive::frequent_changes(&days));
    }
    row("forecast.flap", &forecast, &[("naive", naive)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_repeat_with_their_seed() {
        let [first, again, other] = [1, 1, 2].map(LoadDays::generate);
        assert_eq!(first.load, again.load);
        assert_ne!(first.load, other.load);
    }

    #[test]
    fn half_of_the_nodes_and_links_fail() {
        let nodes = (0..100).filter(|seed| NodeDays::generate(*seed).failure.is_some()).count();
        let links = (0..100).filter(|seed| LinkDays::generate(*seed).outage.is_some()).count();
        assert!((30..60).contains(&nodes) && (35..65).contains(&links), "{nodes}, {links}");
    }

    #[test]
    fn failing_link_changes_before_its_outage() {
        let days = (0..100).map(LinkDays::generate).find(|days| days.outage.is_some()).unwrap();
        let outage = days.outage.unwrap();
        assert!(days.changes[outage.from] > 0);
    }
}
