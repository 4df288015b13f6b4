//! Rows as text.

use crate::baseline::Outage;
use crate::baseline::keepalived::OwnerDeaths;
use crate::report::{Distribution, RowReport};
use crate::runs::{RowRuns, Spread};

pub(crate) fn head() {
    println!(
        "{:<28}{:>6}{:>8}{:>8}{:>8}{:>8}{:>10}{:>9}{:>8}{:>7}{:>7}  held",
        "row",
        "kills",
        "gaps",
        "p50 ms",
        "p99 ms",
        "max ms",
        "control",
        "found ms",
        "lost",
        "moves",
        "late"
    );
}

pub(crate) fn row(row: &RowReport) {
    let of = |spread: Option<Distribution>, figure: fn(&Distribution) -> f64| {
        spread.map_or("–".to_owned(), |spread| format!("{:.1}", figure(&spread)))
    };
    let gap = row.gap_ms;
    if let Some(reason) = &row.row.not_measured {
        println!("{:<28}not measured: {reason}", row.row.id);
        return;
    }
    let moves =
        row.packets.moves_per_session.map_or("–".to_owned(), |moves| format!("{moves:.2}"));
    println!(
        "{:<28}{:>6}{:>8}{:>8}{:>8}{:>8}{:>10}{:>9}{:>8}{:>7}{:>7.1}  {}",
        row.row.id,
        row.kills.unwrap_or_default(),
        gap.map_or(0, |gap| gap.n),
        of(gap, |gap| gap.spread.p50),
        of(gap, |gap| gap.spread.p99),
        of(gap, |gap| gap.spread.max),
        of(row.control.as_ref().and_then(|it| it.gap_ms), |gap| gap.spread.p99),
        of(row.detect_ms, |found| found.spread.p50),
        row.packets.packets_lost.map_or("–".to_owned(), |lost| lost.to_string()),
        moves,
        row.woken_late_ms().unwrap_or_default(),
        row.row.word(),
    );
    for miss in &row.row.misses {
        println!("{:<28}{}", "", miss.lines().next().unwrap_or_default());
    }
}

/// The runs of a row, with the spread of each figure that has a limit.
pub(crate) fn runs(runs: &RowRuns) {
    let RowRuns { id, runs, runs_measured, runs_held, above_zero, held, spread } = runs;
    let held = if *held { "held" } else { "MISSED" };
    println!("{id:<28}{runs_held} of {runs_measured} runs held, {runs} were played: {held}");
    for (name, Spread { least, median, most }) in spread {
        let above = if above_zero.contains(name) { ", above zero" } else { "" };
        println!("{:<28}{name} {least:.1} to {most:.1}, median {median:.1}{above}", "");
    }
}

/// The number of rows in which the machine was late.
pub(crate) fn foot(late: usize, all: usize) {
    if all == 0 {
        return;
    }
    println!(
        "late: the p99 delay of a timer on the idle machine before the row, in ms; too high for exact gaps in {late} of \
         {all} rows (`machine` in the report)"
    );
}

pub(crate) fn outage(outage: &Result<Outage, String>) {
    match outage {
        Ok(Outage { ours_ms, theirs_ms, cut, .. }) => println!(
            "outage of a session whose node dies: {ours_ms:.1} ms, {theirs_ms:.0} ms with a health check every 5 s: \
             {:.2} % less",
            cut * 100.0
        ),
        Err(why) => println!("outage was not compared: {}", why.lines().next().unwrap_or_default()),
    }
}

pub(crate) fn keepalived(standby: &Result<Vec<OwnerDeaths>, String>) {
    match standby {
        Ok(measured) => measured.iter().for_each(|it| {
            println!(
                "keepalived with rtpengine and Redis, an advert every {} ms: gap p50 {:.1}, p99 {:.1}, max {:.1} ms; {} of {} \
                 sessions unheard",
                it.advert_ms, it.gap_ms.p50, it.gap_ms.p99, it.gap_ms.max, it.unheard, it.sessions
            );
        }),
        Err(why) => {
            println!("keepalived was not compared: {}", why.lines().next().unwrap_or_default());
        }
    }
}
