//! `evenkeel modes`.

use clap::Args;
use serde_json::Value;

use crate::api::ApiArgs;
use crate::status::{rows, text};
use crate::{CommandError, say};

/// Show measured recovery time, loss and bandwidth of each mode
///
/// Recovery time is the gap at clients when a node died, loss counts packets missing after a switch, and bandwidth is the
/// additional traffic to standbys. Gaps include the distance of packets: with one every 20 ms a gap is never below 20 ms.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct ModesArgs {
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON: `modes`, each with `mode`, its `scenarios`, `recoveries` (sessions that failed over while media was
    /// flowing), `recovery_ms` with `p50`, `p99` and `max`, `packets_lost` (missing 500 ms after switches, without sources
    /// that had paused before), and `bandwidth_cost` (bytes to and from standbys per media byte to and from first hops);
    /// null if not measured yet
    #[arg(long)]
    pub(crate) json: bool,
}

impl ModesArgs {
    pub(crate) fn act(self) -> Result<(), CommandError> {
        let modes = self.api.with(async |admin| admin.read("/v1/modes").await)?;
        if self.json {
            say(&modes);
            return Ok(());
        }
        say(&format!(
            "{:<14} {:>10} {:>9} {:>9} {:>9} {:>8} {:>10}  scenarios",
            "mode", "recoveries", "p50 ms", "p99 ms", "max ms", "lost", "bandwidth"
        ));
        rows(&modes, "modes").iter().for_each(|mode| say(&line(mode)));
        Ok(())
    }
}

fn line(mode: &Value) -> String {
    let measured = |value: String| if value.is_empty() { "–".to_owned() } else { value };
    let time = |key: &str| {
        let ms = mode["recovery_ms"][key].as_f64();
        measured(ms.map_or(String::new(), |ms| format!("{ms:.1}")))
    };
    let lost =
        measured(mode["packets_lost"].as_u64().map_or(String::new(), |lost| lost.to_string()));
    let cost = mode["bandwidth_cost"].as_f64();
    let cost = measured(cost.map_or(String::new(), |cost| format!("+{:.1} %", cost * 100.0)));
    let scenarios: Vec<&str> = rows(mode, "scenarios").iter().filter_map(Value::as_str).collect();
    let line = format!(
        "{:<14} {:>10} {:>9} {:>9} {:>9} {lost:>8} {cost:>10}  {}",
        text(mode, "mode"),
        mode["recoveries"].as_u64().unwrap_or(0),
        time("p50"),
        time("p99"),
        time("max"),
        if scenarios.is_empty() { "none".to_owned() } else { scenarios.join(", ") },
    );
    let unmeasured = mode["bandwidth_cost"].is_null() && mode["recovery_ms"].is_null();
    if unmeasured { format!("{line} (not measured yet)") } else { line }
}

#[cfg(test)]
mod tests;
