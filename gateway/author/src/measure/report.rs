//! Measurements of a plugin.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Exceeded, MeasuredCall, TimeSpread};
use crate::inspection::thousands;

/// Measurements of a plugin. As text for people; see [`json`](MeasurementReport::json) for tools.
#[derive(Clone, PartialEq, Debug)]
pub struct MeasurementReport {
    pub(crate) name: Box<str>,
    pub(crate) version: Box<str>,
    pub(crate) bytes: usize,
    pub(crate) compile: Duration,
    /// Nanoseconds to create an instance and send it settings and catalog.
    pub(crate) start_ns: TimeSpread,
    /// Costs by function and size of the question.
    pub calls: Vec<MeasuredCall>,
    /// Calls above their declared cost.
    pub exceeded: Vec<Exceeded>,
    /// Reason for the lack of native measurements.
    pub not_native: Option<String>,
}

impl MeasurementReport {
    /// The report of `--json`.
    pub fn json(&self) -> Value {
        let call = |call: &MeasuredCall| {
            json!({
                "call": call.name,
                "rows": call.rows,
                "ns": call.ns.json(),
                "native_ns": call.native_ns.map(|ns| ns.json()),
                "instructions": call.instructions,
                "promised": call.promised,
            })
        };
        json!({
            "name": self.name,
            "version": self.version,
            "bytes": self.bytes,
            "compile_ms": self.compile.as_secs_f64() * 1e3,
            "start_ns": self.start_ns.json(),
            "calls": self.calls.iter().map(call).collect::<Vec<_>>(),
            "not_native": self.not_native,
            "exceeded": self.exceeded.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for MeasurementReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} {} · {} bytes, compiled in {:.1} ms; an instance starts in {:.1} µs (p99 {:.1})",
            self.name,
            self.version,
            thousands(self.bytes),
            self.compile.as_secs_f64() * 1e3,
            self.start_ns.median as f64 / 1e3,
            self.start_ns.p99 as f64 / 1e3,
        )?;
        writeln!(
            f,
            "  {:<9}{:>6}{:>12}{:>12}{:>12}{:>10}{:>12}{:>14}{:>10}{:>14}",
            "call",
            "rows",
            "min ns",
            "median ns",
            "p99 ns",
            "per row",
            "native ns",
            "instructions",
            "per row",
            "promised"
        )?;
        let or_none = |figure: Option<u64>| figure.map_or_else(|| "-".to_owned(), thousands);
        for call in &self.calls {
            let rows = f64::from(call.rows);
            writeln!(
                f,
                "  {:<9}{:>6}{:>12}{:>12}{:>12}{:>10.1}{:>12}{:>14}{:>10.1}{:>14}",
                call.name,
                thousands(call.rows),
                thousands(call.ns.min),
                thousands(call.ns.median),
                thousands(call.ns.p99),
                call.ns.median as f64 / rows,
                or_none(call.native_ns.map(|ns| ns.median)),
                thousands(call.instructions),
                call.instructions as f64 / rows,
                or_none(call.promised),
            )?;
        }
        let words =
            "Time is in the plugin including the call; instructions are the same on every machine.";
        write!(f, "  {words}")?;
        match &self.not_native {
            None => {
                write!(f, "\n  Native is the median of the same code compiled for this machine.")?;
            }
            Some(why) => write!(f, "\n  Not measured natively: {why}")?,
        }
        for exceeded in &self.exceeded {
            write!(f, "\n  too dear: {exceeded}")?;
        }
        Ok(())
    }
}
