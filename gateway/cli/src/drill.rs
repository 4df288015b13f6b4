//! `evenkeel drill`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use evenkeel_lab::crowd;
use evenkeel_lab::drill::{self, Drill as Trouble, Kind, Milliseconds, Record, Report};
use serde_json::Value;

use crate::api::Api;
use crate::{Failure, say};

/// Make trouble on purpose, and say what was heard of it
///
/// Synthetic sessions come in beside the real ones of a running gateway, a node is broken, and what they heard of it is said.
/// What is broken is mended afterwards; where that fails it says how to do it by hand, and ends with 1. Where the gateway never found the fault, or somebody heard nothing again, it ends
/// with 1; where none of the sessions would have been hit, nothing is broken. It takes an agent beside the node whose configuration allows drills, and
/// `drills = true` in the gateway's `[admin]`; `evenkeel demo --serve` is a world that has both. The sessions are voice from
/// 127.0.0.1, so it is typed on the gateway's own machine, and a listener there takes `declared` addresses.
#[derive(Args)]
pub(crate) struct Drill {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    api: Api,
    /// Say what came of it as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Where what came of drills is kept; default: `evenkeel/drills.jsonl` in the state folder
    #[arg(long, value_name = "FILE", global = true)]
    record: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Verb {
    /// A node's process is killed, and started again
    KillNode(OfNode),
    /// A node stands still without a word, and wakes again
    HangNode(OfNode),
    /// No packet crosses to a node or back, until the link is mended
    CutLink(OfNode),
    /// Every node of a region is killed, and started again
    LoseRegion {
        /// Which; default: that of the node with most rooms
        #[arg(long, value_name = "NAME")]
        region: Option<String>,
        #[command(flatten)]
        crowd: OfCrowd,
    },
    /// A node stands still and goes on, once a second
    Flap {
        /// For how many seconds
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_600))]
        seconds: u64,
        #[command(flatten)]
        of: OfNode,
    },
    /// What came of the drills so far, the newest last
    List,
}

#[derive(Args)]
struct OfNode {
    /// Which; default: the one with most rooms
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    #[command(flatten)]
    crowd: OfCrowd,
}

#[derive(Args)]
struct OfCrowd {
    /// Synthetic sessions, two to a room, of which one talks
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..=5_000))]
    sessions: u32,
    /// What they ask for: one of the gateway's scenarios
    #[arg(long, value_name = "NAME", default_value = "call")]
    scenario: String,
    /// Where the dice come from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Voice comes every 20 ms: who pauses for longer than this while nothing is broken is on a disturbed machine.
const CONTROL_MS: f64 = 30.0;

impl Drill {
    pub(crate) fn act(self) -> Result<(), Failure> {
        let record = Record::at(self.record.clone().unwrap_or_else(drill::default_place));
        let Some(trouble) = self.verb.trouble() else {
            let all = record.all().map_err(|failed| failure(&failed))?;
            return self.list(&all, &record);
        };
        // Without a gateway there is nothing to drill.
        self.api.await_gateway().map_err(|failure| match failure {
            Failure::NoGateway(words) => Failure::NoGateway(format!(
                "{words}; or `evenkeel demo --serve`, a world to drill in"
            )),
            other => other,
        })?;
        let client = self.api.client()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::Failed(error.to_string()))?;
        let report = runtime
            .block_on(drill::run(&trouble, || client.another()))
            .map_err(|failed| failure(&failed))?;
        record.add(&report).map_err(|failed| failure(&failed))?;
        if self.json {
            let line = serde_json::to_string(&report)
                .map_err(|error| Failure::Failed(error.to_string()))?;
            say(&line);
        } else {
            say(&shown(&report, &record));
        }
        match report.amiss() {
            None => Ok(()),
            // Its object says so, and is the last line.
            Some(_) if self.json => Err(Failure::Failed(String::new())),
            Some(words) => Err(Failure::Failed(words)),
        }
    }

    fn list(&self, all: &[Value], record: &Record) -> Result<(), Failure> {
        if self.json {
            say(&Value::from(all.to_vec()));
            return Ok(());
        }
        if all.is_empty() {
            say(&format!("no drill is on record in {}", record.place().display()));
        }
        for drill in all {
            let nodes: Vec<&str> =
                drill["nodes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let at_s = drill["at_us"].as_u64().unwrap_or(0) / 1_000_000;
            say(&format!(
                "{at_s}  {:<12} {:<24} {} sessions, gap p99 {} ms, max {} ms, {} packets lost",
                drill["drill"].as_str().unwrap_or(""),
                nodes.join(", "),
                drill["sessions"],
                tenths(drill["gap_ms"]["p99"].as_f64()),
                tenths(drill["gap_ms"]["max"].as_f64()),
                drill["packets_lost"],
            ));
        }
        Ok(())
    }
}

impl Verb {
    fn trouble(&self) -> Option<Trouble> {
        let of = |kind, node: &Option<String>, crowd: &OfCrowd| Trouble {
            kind,
            node: node.clone(),
            region: None,
            sessions: crowd.sessions,
            scenario: crowd.scenario.clone(),
            flaps_for: Duration::ZERO,
            seed: crowd.seed,
        };
        Some(match self {
            Verb::KillNode(OfNode { node, crowd }) => of(Kind::KillNode, node, crowd),
            Verb::HangNode(OfNode { node, crowd }) => of(Kind::HangNode, node, crowd),
            Verb::CutLink(OfNode { node, crowd }) => of(Kind::CutLink, node, crowd),
            Verb::LoseRegion { region, crowd } => {
                Trouble { region: region.clone(), ..of(Kind::LoseRegion, &None, crowd) }
            }
            Verb::Flap { seconds, of: OfNode { node, crowd } } => {
                Trouble { flaps_for: Duration::from_secs(*seconds), ..of(Kind::Flap, node, crowd) }
            }
            Verb::List => return None,
        })
    }
}

/// A node, region or scenario that there is not is a wrong command line.
fn failure(failed: &drill::Failed) -> Failure {
    let words = failed.to_string();
    match failed {
        drill::Failed::Unknown(_)
        | drill::Failed::Crowd(crowd::Failed::Gateway {
            error: evenkeel_client::Failed::Refused { status: 400, .. },
            ..
        }) => Failure::Wrong(words),
        drill::Failed::Crowd(_)
        | drill::Failed::Gateway { .. }
        | drill::Failed::Unfit(_)
        | drill::Failed::Record { .. }
        | drill::Failed::Interrupted
        | drill::Failed::Mended
        | drill::Failed::Unmended { .. } => Failure::Failed(words),
    }
}

/// Milliseconds, or that there are none.
fn tenths(ms: Option<f64>) -> String {
    ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"))
}

fn shown(report: &Report, record: &Record) -> String {
    let spread = |name: &str, ms: &Milliseconds| {
        let [p50, p90, p99, max] = [ms.p50, ms.p90, ms.p99, ms.max].map(tenths);
        format!("  {name:<22}{p50:>9}{p90:>9}{p99:>9}{max:>9}{:>8}", ms.n)
    };
    let mut lines = vec![
        format!(
            "{} · {} · {} synthetic sessions, of each two one talks",
            report.drill,
            report.nodes.join(", "),
            report.sessions
        ),
        format!("  {:<22}{:>9}{:>9}{:>9}{:>9}{:>8}", "ms", "p50", "p90", "p99", "max", "n"),
        spread("gap of those hit", &report.gap_ms),
        spread("control run", &report.control_ms),
        spread("found dead after", &report.detect_ms),
    ];
    lines.extend(
        report.by_witness.iter().map(|(witness, ms)| spread(&format!("  by {witness}"), ms)),
    );
    lines.push(format!(
        "  {} packets lost, {} of others; {} moves of rooms that were hit; {} heard nothing again",
        report.packets_lost, report.packets_lost_of_others, report.moves, report.unheard
    ));
    lines.push(format!(
        "  {}: {} packets lost, {}",
        if report.mended { "mended" } else { "NOT mended" },
        report.packets_lost_mending,
        if report.trusted_again { "trusted again" } else { "not trusted again yet" }
    ));
    if report.control_ms.p99.is_some_and(|ms| ms > CONTROL_MS) {
        lines.push(
            "  the control run, while nothing was broken, has long pauses too: this machine is late by itself, or \
             has too much to do, and its figures say little of the gateway"
                .to_owned(),
        );
    }
    lines.push(format!("  on record in {}", record.place().display()));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_there_is_not_is_a_wrong_command_line() {
        let refused = |status| {
            let (code, message) = ("bad-request".to_owned(), "no such scenario".to_owned());
            let error = evenkeel_client::Failed::Refused { status, code, message };
            drill::Failed::Crowd(crowd::Failed::Gateway { what: "opening a session", error })
        };
        for wrong in [drill::Failed::Unknown("no such node".to_owned()), refused(400)] {
            assert!(matches!(failure(&wrong), Failure::Wrong(words) if words.contains("no such")));
        }
        for failed in [drill::Failed::Unfit("it is not up".to_owned()), refused(503)] {
            assert!(matches!(failure(&failed), Failure::Failed(_)));
        }
    }
}
