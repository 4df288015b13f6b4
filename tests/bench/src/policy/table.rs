//! The printed table of a report, with the limit of each figure.

use evenkeel_report::{AcceptanceRow, LimitTable, RowLimits};

use super::report::{Hostile, Latency, Report, Swap, Tail};

/// A line of the table: a figure in Wasm, and the native one beside it.
pub(crate) struct Line {
    name: &'static str,
    wasm: Option<f64>,
    native: Option<f64>,
    bound: Bound,
}

/// The limit of a line's figure in Wasm.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    None,
    /// The limit with this key in `[policy]`, or in the group of it.
    Table(Option<&'static str>, &'static str),
    /// The limit with this key in `[policy]`, times the native figure.
    OfNative(&'static str),
    Computed(f64),
}

impl Line {
    pub(crate) fn new(name: &'static str, wasm: Option<f64>) -> Line {
        Line { name, wasm, native: None, bound: Bound::None }
    }

    fn beside(self, native: Option<f64>) -> Line {
        Line { native, ..self }
    }

    pub(crate) fn within(self, bound: Bound) -> Line {
        Line { bound, ..self }
    }

    /// # Errors
    /// The table lacks the group.
    fn row(&self, table: &LimitTable) -> Result<AcceptanceRow, String> {
        let mut row = AcceptanceRow::new(self.name.trim());
        row.set_figure("wasm", self.wasm);
        if self.native.is_some() {
            row.set_figure("native", self.native);
        }
        match self.bound {
            Bound::None => {}
            Bound::Computed(most) => row.set_limit("wasm", most),
            Bound::Table(group, key) => row.limit_by("wasm", &table.group("policy", group)?, key),
            Bound::OfNative(key) => {
                if let Some(native) = self.native {
                    row.limit_scaled("wasm", &table.group("policy", None)?, key, native);
                }
            }
        }
        row.judge();
        Ok(row)
    }
}

impl Report {
    /// Prints each figure beside its native counterpart and its limit.
    ///
    /// # Errors
    /// The table of limits lacks a group.
    pub(crate) fn print(&self, table: &LimitTable) -> Result<(), String> {
        println!("{:<58} {:>10} {:>10} {:>7} {:>9}", "", "Wasm", "native", "ratio", "limit");
        for line in self.lines(table)? {
            let Some(wasm) = line.wasm else { continue };
            let row = line.row(table)?;
            let shown = |value: Option<f64>| value.map_or_else(String::new, figure);
            let ratio =
                line.native.map_or_else(String::new, |native| format!("{:.1}", wasm / native));
            println!(
                "{:<58} {:>10} {:>10} {ratio:>7} {:>9} {}",
                line.name,
                figure(wasm),
                shown(line.native),
                shown(row.limits.get("wasm").copied()),
                if row.held.is_some() { row.word() } else { "" },
            );
        }
        Ok(())
    }

    /// The lines as rows of the report.
    ///
    /// # Errors
    /// The table of limits lacks a group.
    pub(crate) fn rows(&self, table: &LimitTable) -> Result<Vec<AcceptanceRow>, String> {
        let lines = self.lines(table)?;
        let mut rows: Vec<AcceptanceRow> =
            lines.iter().map(|line| line.row(table)).collect::<Result<_, _>>()?;
        rows.extend(self.judged_rows(&table.group("policy", Some("judged"))?));
        Ok(rows)
    }

    fn lines(&self, table: &LimitTable) -> Result<Vec<Line>, String> {
        let own = |key| Bound::Table(None, key);
        let (flat, other) = (&self.flat, &self.component);
        let beside = |name, [wasm, native]: [Option<f64>; 2]| Line::new(name, wasm).beside(native);
        let tail = |name, tail: Tail, key| Line::new(name, tail.p99).within(own(key));
        let mut lines = vec![
            beside("call.empty, ns", flat.empty_ns.both()).within(own("empty_ns")),
            beside("call.empty by component, ns", other.empty_ns.both()),
            beside("call.place of 50 nodes, ns, p50", flat.place_ns.p50())
                .within(Bound::OfNative("place_of_native")),
            beside("call.place of 50 nodes, ns, p99", flat.place_ns.p99()),
            beside("call.place of 50 nodes by component, ns, p50", other.place_ns.p50()),
            beside("call.tick of 256: 8 metrics, 64 bytes, ns a session", flat.tick_ns.both())
                .within(Bound::OfNative("tick_of_native")),
            beside("call.tick of 256 by component, ns a session", other.tick_ns.both()),
            beside("call.ladder of 256, ns a session", flat.ladder_tick_ns.both())
                .within(Bound::OfNative("ladder_of_native")),
            beside("call.ladder of 256 by component, ns a session", other.ladder_tick_ns.both()),
            tail("call.instantiate, µs, p99", self.instantiate_us, "instantiate_us_p99"),
            tail("trap to serving, ms, p99", self.trap_to_serving_ms, "trap_to_serving_ms_p99"),
            tail("runaway call beyond its budget, ms, p99", self.cut_over_ms, "cut_over_ms_p99"),
            tail("activation, µs, p99", self.activate_us, "activate_us_p99"),
            Line::new("file to active, cold, ms, p50", self.cold_ms.p50).within(own("cold_p50")),
            Line::new("file to active, seen before, ms, p50", self.cached_ms.p50)
                .within(own("cached_p50")),
            tail("rollback, ms, p99", self.rollback_ms, "rollback_ms_p99"),
        ];
        self.add_swaps(&mut lines, &table.group("policy", Some("swaps"))?);
        self.add_harm(&mut lines, &table.group("policy", Some("judged"))?);
        Ok(lines)
    }

    fn add_swaps(&self, lines: &mut Vec<Line>, limits: &RowLimits) {
        let figure = |figure: fn(&Swap) -> f64| self.swap.as_ref().map(figure);
        let of_swaps = |name, found: fn(&Swap) -> f64, key| {
            Line::new(name, figure(found)).within(Bound::Table(Some("swaps"), key))
        };
        // Windows without swaps differ as much.
        let added = limits.judged("swap_latency_added_us").unwrap_or_default();
        let latency = self.swap.as_ref().map(|swap| swap.p999_us);
        let most = latency.map(|Latency { without, spread, .. }| without + spread.max(added));
        lines.extend([
            Line::new("swaps every 100 ms: packets lost", figure(|it| it.packets_lost as f64))
                .within(Bound::Table(None, "swap_lost")),
            Line::new("  without swaps", figure(|swap| swap.packets_lost_without as f64)),
            Line::new("  latency p99.9 with, µs", latency.map(|latency| latency.with))
                .within(most.map_or(Bound::None, Bound::Computed)),
            Line::new("  latency p99.9 without, µs", latency.map(|latency| latency.without)),
            of_swaps("  decisions of two revisions", |it| it.two_revisions as f64, "swap_mixed"),
            of_swaps("  swaps out of order", |it| it.out_of_order as f64, "swap_out_of_order"),
            of_swaps("  failed calls", |swap| swap.faults as f64, "swap_failed"),
            of_swaps("  memory grown, MiB", |swap| swap.grown_mib, "swap_grown_mib"),
        ]);
    }

    /// Adds hostile and harmful plugins, and the replay.
    fn add_harm(&self, lines: &mut Vec<Line>, limits: &RowLimits) {
        let in_group = |group, name, count: Option<f64>, key| {
            Line::new(name, count).within(Bound::Table(Some(group), key))
        };
        let hostile = (!self.hostile.is_empty()).then_some(&self.hostile);
        let those = |is: fn(&&Hostile) -> bool| {
            hostile.map(|hostile| hostile.iter().filter(is).count() as f64)
        };
        let lost: Option<u64> =
            hostile.map(|hostile| hostile.iter().map(|one| one.packets_lost).sum());
        let others = those(|one| !one.others_affected.is_empty());
        let unexplained = those(|one| one.reason.is_empty());
        let unexpected = those(|one| !one.expected);
        let of_hostile = |name, count, key| in_group("hostile", name, count, key);
        lines.extend([
            Line::new("hostile plugins", those(|_| true)),
            of_hostile("  packets lost", lost.map(|lost| lost as f64), "hostile_lost"),
            of_hostile("  that affected other policies", others, "hostile_affected_others"),
            of_hostile("  without a reason", unexplained, "hostile_unexplained"),
            of_hostile("  with another outcome than expected", unexpected, "hostile_unexpected"),
        ]);
        let undone = Line::new("harmful policy to rollback, ms", self.bad_policy_rollback_ms.p99);
        lines.push(undone.within(Bound::Table(Some("judged"), "harmful_rollback_ms")));
        lines.extend(self.judged_lines(limits));
        let differ = self.replay.map(|it| (it.calls - it.same - it.not_comparable) as f64);
        lines.extend([
            Line::new("decisions replayed", self.replay.map(|replay| replay.calls as f64)),
            in_group("replay", "  that differ", differ, "replay_differ"),
        ]);
    }
}

/// Formats a figure with enough digits to compare.
fn figure(value: f64) -> String {
    if value != 0.0 && value.abs() < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use evenkeel_report::earlier_rows;

    use super::super::calls::Guests;
    use super::super::corpus;
    use super::*;

    #[test]
    fn each_row_of_a3d43ed3_is_there() {
        let rows = Report::default().rows(&LimitTable::load().unwrap()).unwrap();
        assert!(rows.iter().all(|row| row.held.is_none()), "{rows:?}");
        let mut ids: BTreeSet<String> = rows.into_iter().map(|row| row.id).collect();
        let guests = Guests::default();
        ids.extend(corpus::bad(&guests).iter().map(|it| format!("bad.{}", it.id)));
        ids.extend(corpus::good(&guests).unwrap().iter().map(|it| format!("good.{}", it.id)));
        let gone: Vec<_> =
            earlier_rows("policy").into_iter().filter(|row| !ids.contains(*row)).collect();
        assert!(gone.is_empty(), "{gone:?}");
    }

    #[test]
    fn each_limit_of_the_table_has_a_row() {
        let [this, judged] = [include_str!("table.rs"), include_str!("judged.rs")];
        for (group, limits) in LimitTable::load().unwrap().entries("policy") {
            for (key, limit) in limits.iter() {
                let quoted = format!("\"{key}\"");
                let is_used = this.contains(&quoted) || judged.contains(&quoted);
                assert!(is_used || limit.from().is_some(), "{group}: {key}");
            }
        }
    }

    #[test]
    fn swap_latency_limit_is_at_least_50_us() {
        let most = |spread| {
            let p999_us = Latency { with: 1.0, without: 200.0, spread };
            let swap = Swap {
                n: 1,
                out_of_order: 0,
                decisions: 1,
                marked: 1,
                two_revisions: 0,
                unrecorded: 0,
                calls: 1,
                faults: 0,
                last_fault: None,
                packets: 1,
                packets_lost: 0,
                packets_lost_without: 0,
                misdelivered: 0,
                p999_us,
                rss_mib: 1.0,
                grown_mib: 0.0,
            };
            let report = Report { swap: Some(swap), ..Report::default() };
            let rows = report.rows(&LimitTable::load().unwrap()).unwrap();
            let row = rows.iter().find(|row| row.id.contains("latency p99.9 with,")).unwrap();
            row.limits["wasm"]
        };
        assert_eq!((most(49.0), most(51.0)), (250.0, 251.0));
    }
}
