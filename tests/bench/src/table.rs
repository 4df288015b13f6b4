//! Results as text while they are measured.

use crate::report::{Figures, Limit, OverloadLeg, RowReport};
use crate::row::{Leg, Row};

/// Prints a row: a line for each relay.
pub(crate) fn row(row: &Row, report: &RowReport) {
    println!("{}", row.title());
    let known = crate::relay::Kind::ALL.map(crate::relay::Kind::name);
    let others = report.each.keys().map(String::as_str).filter(|name| !known.contains(name));
    for name in known.into_iter().chain(others) {
        if let Some(figures) = report.each.get(name) {
            println!("{}", line(name, figures));
        }
    }
}

pub(crate) fn head() {
    println!(
        "{:>12} {:>9} {:>7} {:>9} {:>9} {:>5} {:>9} {:>8} {:>8} {:>9} {:>10}",
        "",
        "ns/packet",
        "spread",
        "packets/s",
        "offered",
        "busy",
        "loss",
        "p50 µs",
        "p99 µs",
        "p99.9 µs",
        "other end"
    );
}

pub(crate) fn overload(leg: Leg, report: &OverloadLeg) {
    let leg = match leg {
        Leg::Port => "port",
        Leg::Trunk => "trunk",
    };
    let OverloadLeg { peak, at_3x, offered, least_share, api_ms, condemned, rss_mib, .. } = report;
    println!(
        "overload {leg}: {peak:.0} packets/s at most, {at_3x:.0} of {offered:.0} ({:.0} %), \
         the slowest session {least_share:.2} of the mean; \
         the API answers within {api_ms:.0} ms, {condemned} nodes down, {rss_mib:.0} MiB",
        report.kept() * 100.0
    );
}

/// The rates at which peers begin to lose.
pub(crate) fn limit(limit: &Limit) {
    for at in &limit.curve {
        println!("{:>12} {:>9.0}/s {:>8.3}% lost", at.relay, at.rate, at.loss * 100.0);
    }
    println!(
        "the last peer to lose is {} at {:.0}/s; the gateway loses {:.3} % there",
        limit.peer,
        limit.rate,
        limit.ours * 100.0
    );
}

fn line(name: &str, figures: &Figures) -> String {
    let micros = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.0}"));
    let mut line = format!(
        "{name:>12} {:>9.0} {:>6.0}% {:>9.0} {:>9.0} {:>5.2} {:>8.3}% {:>8} {:>8} {:>9} {:>10}",
        figures.cpu_ns,
        figures.spread * 100.0,
        figures.pps,
        figures.offered,
        figures.relay_busy,
        figures.loss * 100.0,
        micros(figures.delay_us.p50),
        micros(figures.delay_us.p99),
        micros(figures.delay_us.p999),
        micros(figures.other_end_ns),
    );
    if figures.moved > 0 {
        line += &format!("  {} packets by another node than before", figures.moved);
    }
    if figures.misdelivered > 0 {
        line += &format!("  {} MISDELIVERED", figures.misdelivered);
    }
    line
}
