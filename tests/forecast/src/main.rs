//! Measures forecasts on generated days: `make bench-forecast`.
//!
//! The parameters of each forecast and of each rule beside it are those of the highest F1 on [`TUNING`]. The report is about
//! [`HELD_OUT`].

mod link_days;
mod load_days;
mod naive;
mod node_days;
mod random;
mod truth;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;

use evenkeel_forecast::{
    DecayForecast, DecayParameters, FlapForecast, LOAD_HOLD_MINUTES, LoadForecast, LoadParameters,
    Minute, NODE_HOLD_MINUTES, NodeSample,
};
use evenkeel_report::{self as report, AcceptanceRow, LimitTable, RowLimits, SectionLimits};

use link_days::LinkDays;
use load_days::{LoadDays, MINUTES_OF_DAY, WARM_UP_DAYS};
use naive::{LoadLimits, NodeLimits};
use node_days::NodeDays;
use truth::{Score, warnings};

/// Seeds on which the parameters are chosen.
const TUNING: Range<u64> = 0..100;

/// Seeds on which nothing was tuned.
const HELD_OUT: Range<u64> = 1_000..1_200;

/// Default of `horizon` in `[forecast]`, minutes.
const HORIZON: u64 = 30;

/// The start of a node takes minutes.
const LOAD_LEAD_MIN: usize = 5;
/// Rooms leave a node make-before-break within minutes.
const NODE_LEAD_MIN: usize = 10;

/// The ids of all rows.
const IDS: [&str; 3] = ["forecast.load", "forecast.decay", "forecast.flap"];

fn main() -> ExitCode {
    report::end("bench-forecast", measure())
}

fn measure() -> Result<(), String> {
    let limits = LimitTable::load()?.rows_of("forecast", &IDS)?;
    let rows = std::thread::scope(|scope| {
        let load = scope.spawn(|| load_row(&limits));
        let nodes = [decay_row(&limits), flap_row(&limits)];
        load.join().map(|load| [vec![load], nodes.into()].concat())
    });
    let rows = rows.map_err(|_| "the row of load ended by a panic")?;
    for row in &rows {
        println!("{} {}", row.id, row.word());
        let figures = row.figures.iter().filter_map(|(name, value)| Some((name, (*value)?)));
        figures.for_each(|(name, value)| println!("  {name} {value:.2}"));
    }
    let path = Path::new("target/bench-forecast/report.json");
    report::write(&BTreeMap::from([("rows", rows)]), path)
}

/// The parameters that have the highest F1 on [`TUNING`], and their score on [`HELD_OUT`].
struct Tuned<P> {
    parameters: P,
    score: Score,
}

impl<P: Copy + Debug> Tuned<P> {
    /// `add` adds the warnings of generated days to the score.
    fn choose<D>(
        name: &str,
        grid: &[P],
        generate: fn(u64) -> D,
        add: impl Fn(&mut Score, P, &D),
    ) -> Tuned<P> {
        let mut scores: Vec<Score> = grid.iter().map(|_| Score::default()).collect();
        for seed in TUNING {
            let days = generate(seed);
            let rated = scores.iter_mut().zip(grid);
            rated.for_each(|(score, parameters)| add(score, *parameters, &days));
        }
        let best = grid.iter().zip(&scores).max_by(|(_, a), (_, b)| a.f1().total_cmp(&b.f1()));
        let (&parameters, tuning) = best.expect("the grid has parameters");
        let tuning = tuning.f1();
        println!("{name}: {parameters:?}, F1 {tuning:.3} on the tuning seeds");
        let mut score = Score::default();
        HELD_OUT.for_each(|seed| add(&mut score, parameters, &generate(seed)));
        Tuned { parameters, score }
    }
}

/// A row of a forecast beside rules, which it must beat. `is_shipped`: the best parameters are the default of the crate; `None` for a forecast
/// without parameters.
fn row(
    limits: &RowLimits,
    id: &str,
    forecast: &Score,
    is_shipped: Option<bool>,
    rules: &[(&str, &Score)],
) -> AcceptanceRow {
    let mut figures = forecast.figures("");
    figures.insert("events".to_owned(), f64::from(forecast.events()));
    rules.iter().for_each(|(name, score)| figures.extend(score.figures(&format!("{name}_"))));
    let best = rules.iter().map(|(_, score)| score.f1()).fold(0.0, f64::max);
    let mut row = AcceptanceRow::new(id);
    figures.iter().for_each(|(name, figure)| row.set_figure(name, Some(*figure)));
    row.set_figure("is_shipped", is_shipped.map(f64::from));
    for name in ["precision", "recall"] {
        row.limit_by(name, limits, name);
    }
    if is_shipped.is_some() {
        row.limit_by("is_shipped", limits, "is_shipped");
    }
    row.limit_scaled("f1", limits, "f1_of_best_rule", best);
    row.judge();
    row
}

fn load_row(limits: &SectionLimits) -> AcceptanceRow {
    let [id, ..] = IDS;
    let score = |score: &mut Score, days: &LoadDays, minutes: Vec<bool>| {
        let mut spans = warnings(minutes, LOAD_HOLD_MINUTES);
        spans.retain(|(first, _)| *first >= WARM_UP_DAYS * MINUTES_OF_DAY);
        score.add(&days.exhaustions(), &spans, LOAD_LEAD_MIN);
    };
    let grid = product(&[0.85, 0.9, 0.95, 1.0, 1.05], &[15, 30, 45, 60]);
    let grid: Vec<LoadLimits> =
        grid.map(|(share, horizon)| LoadLimits { share, horizon }).collect();
    let last_week = Tuned::choose("last week", &grid, LoadDays::generate, |sum, limits, days| {
        score(sum, days, naive::same_minute_last_week(days, limits));
    });
    let linear = Tuned::choose("linear", &grid, LoadDays::generate, |sum, limits, days| {
        score(sum, days, naive::linear_trend(days, limits));
    });
    let always = Tuned::choose("always", &[()], LoadDays::generate, |sum, (), days| {
        score(sum, days, vec![true; days.load.len()]);
    });
    let shipped = LoadParameters::default();
    let grid = product(&[0.99, 1.0, 1.01], &[0.15, 0.25, 0.4]);
    let grid: Vec<LoadParameters> = grid
        .map(|(warned_share, season_weight)| LoadParameters { warned_share, season_weight })
        .collect();
    let forecast = Tuned::choose("load forecast", &grid, LoadDays::generate, |sum, of, days| {
        score(sum, days, load_warnings(days, of));
    });
    let rules =
        [("last_week", &last_week.score), ("linear", &linear.score), ("always", &always.score)];
    row(&limits.of(id), id, &forecast.score, Some(forecast.parameters == shipped), &rules)
}

fn load_warnings(days: &LoadDays, parameters: LoadParameters) -> Vec<bool> {
    let mut forecast = LoadForecast::with(parameters);
    let minutes = (0..).zip(days.load.iter().zip(&days.capacity));
    let warns = |(minute, (load, capacity)): (Minute, (&f64, &f64))| {
        forecast.sample(minute, *load);
        forecast.exhaustion(*capacity, HORIZON).is_some()
    };
    minutes.map(warns).collect()
}

fn decay_row(limits: &SectionLimits) -> AcceptanceRow {
    let [_, id, _] = IDS;
    let score = |score: &mut Score, days: &NodeDays, minutes: Vec<bool>| {
        let events: Vec<_> = days.failure.into_iter().collect();
        score.add(&events, &warnings(minutes, NODE_HOLD_MINUTES), NODE_LEAD_MIN);
    };
    let grid = product(&[2.0, 2.5, 3.0, 3.5, 4.0], &[0.01, 0.015, 0.02, 0.03, 0.05]);
    let grid: Vec<NodeLimits> =
        grid.map(|(delay_factor, loss)| NodeLimits { delay_factor, loss }).collect();
    let node_limits =
        Tuned::choose("node limits", &grid, NodeDays::generate, |sum, limits, days| {
            score(sum, days, naive::node_limits(&days.samples, limits));
        });
    let always = Tuned::choose("always", &[()], NodeDays::generate, |sum, (), days| {
        score(sum, days, vec![true; days.samples.len()]);
    });
    let shipped = DecayParameters::default();
    let grid = product(&[2.4, 3.0, 3.5], &[0.015, 0.02, 0.03]);
    let grid: Vec<DecayParameters> = grid
        .map(|(delay_factor, loss_limit)| DecayParameters { delay_factor, loss_limit, ..shipped })
        .collect();
    let forecast = Tuned::choose("decay forecast", &grid, NodeDays::generate, |sum, of, days| {
        score(sum, days, decay_warnings(days, of));
    });
    let rules = [("limits", &node_limits.score), ("always", &always.score)];
    row(&limits.of(id), id, &forecast.score, Some(forecast.parameters == shipped), &rules)
}

fn decay_warnings(days: &NodeDays, parameters: DecayParameters) -> Vec<bool> {
    let mut forecast = DecayForecast::with(parameters);
    let samples = (0..).zip(&days.samples);
    let warns =
        |(minute, sample): (Minute, &NodeSample)| forecast.sample(minute, *sample).is_some();
    samples.map(warns).collect()
}

/// A threshold, for which there is no simpler rule.
fn flap_row(limits: &SectionLimits) -> AcceptanceRow {
    let [.., id] = IDS;
    let score = |score: &mut Score, days: &LinkDays, minutes: Vec<bool>| {
        let events: Vec<_> = days.outage.into_iter().collect();
        score.add(&events, &warnings(minutes, NODE_HOLD_MINUTES), NODE_LEAD_MIN);
    };
    let always = Tuned::choose("always", &[()], LinkDays::generate, |sum, (), days| {
        score(sum, days, vec![true; days.changes.len()]);
    });
    let flap = Tuned::choose("flap", &[()], LinkDays::generate, |sum, (), days| {
        let mut link = FlapForecast::default();
        let changes = (0..).zip(&days.changes);
        let warned = changes.map(|(minute, changes)| link.sample(minute, *changes).is_some());
        score(sum, days, warned.collect());
    });
    row(&limits.of(id), id, &flap.score, None, &[("always", &always.score)])
}

/// All pairs of the two lists.
fn product<A: Copy, B: Copy>(first: &[A], second: &[B]) -> impl Iterator<Item = (A, B)> {
    first.iter().flat_map(|one| second.iter().map(|other| (*one, *other)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use evenkeel_report::earlier_rows;

    use super::*;

    #[test]
    fn each_row_of_a3d43ed3_is_there() {
        let now: BTreeSet<&str> = IDS.into();
        assert_eq!(earlier_rows("forecast").difference(&now).next(), None);
    }

    #[test]
    fn forecast_without_parameters_has_no_shipped_ones() {
        let limits = LimitTable::load().unwrap().rows_of("forecast", &IDS).unwrap().of(IDS[2]);
        let of = |is_shipped| row(&limits, "row", &Score::default(), is_shipped, &[]);
        let (none, other) = (of(None), of(Some(false)));
        assert_eq!(none.figures.get("is_shipped"), Some(&None));
        assert!(!none.limits.contains_key("is_shipped_min"), "{none:?}");
        assert_eq!((other.figure("is_shipped"), other.held), (Some(0.0), Some(false)));
    }

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
        assert!((35..65).contains(&nodes) && (35..65).contains(&links), "{nodes}, {links}");
    }

    #[test]
    fn failing_link_changes_before_its_outage() {
        let days = (0..100).map(LinkDays::generate).find(|days| days.outage.is_some()).unwrap();
        let outage = days.outage.unwrap();
        assert!(days.changes[outage.from] > 0);
    }
}
