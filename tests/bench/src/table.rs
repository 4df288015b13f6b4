//! What is shown while it is measured.

use crate::report::{Figures, RowReport};
use crate::row::Row;

/// One row: a line for each relay.
pub(crate) fn row(row: &Row, report: &RowReport) {
    println!("{}", row.title());
    for kind in crate::relay::Kind::ALL {
        if let Some(figures) = report.each.get(kind.name()) {
            println!("{}", line(kind.name(), figures));
        }
    }
}

/// The heads of the columns.
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
