//! Commands that play clients and media nodes: `evenkeel demo`, `sample-node` and `drill`.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use evenkeel_client::{ClientError, Rising};
use evenkeel_config::AdminSettings;
use evenkeel_contract::gateway::Status;
use evenkeel_lab::LabError;
use evenkeel_lab::demo::{self, DemoOptions};
use evenkeel_lab::drill::{
    self, DrillError, DrillFault, DrillPlan, DrillRecordFile, DrillReport, Milliseconds,
};
use evenkeel_lab::sample_node::{self, PlainRoom, SampleNodeOptions, WEBRTC_RETRANSMISSIONS};
use serde::Deserialize;
use serde_json::Value;

use crate::command::{ApiArgs, CommandError, runtime, say, say_lines, verdict};

pub(crate) fn run_demo(options: &DemoOptions) -> Result<(), CommandError> {
    let failed = |error: &dyn Display| CommandError::Failed(error.to_string());
    let evenkeel = std::env::current_exe().map_err(|error| failed(&error))?;
    let socket = AdminSettings::default_socket();
    if options.serve {
        AdminSettings::prepare_folder(&socket).map_err(|error| failed(&error))?;
    }
    let passed = demo::run(options, &evenkeel, &socket).map_err(|error| failed(&error))?;
    let words = (!passed).then(|| "a check of the demo failed; see FAILED above".into());
    verdict(options.json, words)
}

/// Run a sample media server for trials and drills
///
/// It reflects packets among the sessions of a room with its own SSRCs and sequence numbers, passes receivers' feedback on to the
/// senders, and answers probes.
#[derive(Args)]
pub(crate) struct SampleNodeArgs {
    /// Listen address; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7001")]
    listen: SocketAddr,
    /// Name of the node in the gateway's `[[node]]`; packets with a test header are stamped with its number
    #[arg(long, default_value = "sample")]
    name: String,
    /// Secret shared with the gateway; without it there are no trunk legs
    #[arg(long, value_name = "FILE")]
    secret: Option<PathBuf>,
    /// Keep SSRCs, sequence numbers, timestamps and payloads, as mode `hitless` needs
    #[arg(long)]
    untouched: bool,
    /// Rewrite the sequence numbers of lost packets in retransmissions (RFC 4588), by the payload types of WebRTC rooms
    #[arg(long)]
    webrtc: bool,
    /// Stamp packets that have a test header in spite of `--untouched`, which changes their payloads
    #[arg(long, requires = "untouched")]
    stamp: bool,
    /// Put all senders of plain RTP in one room; without it each gets its own packets back
    #[arg(long)]
    plain_room: bool,
    /// Accept signed commands to cut the link (`evenkeel drill cut-link`)
    #[arg(long, requires = "secret")]
    drills: bool,
    /// Encrypt trunk legs, as with `encrypt = true` in the gateway's `[[node]]`
    #[arg(long, requires = "secret")]
    encrypt: bool,
    /// Print the listen address, and counters at the end, as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl SampleNodeArgs {
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let failed = |error: sample_node::SampleNodeError| CommandError::Failed(error.to_string());
        let mut options = SampleNodeOptions::new(self.listen, &self.name);
        let secret = self.secret.as_deref().map(|path| sample_node::read_secret(path, &self.name));
        options.secret = secret.transpose().map_err(failed)?;
        options.untouched = self.untouched;
        if self.webrtc {
            options.retransmissions = WEBRTC_RETRANSMISSIONS.to_vec();
        }
        options.stamps = self.stamp || !self.untouched;
        if self.plain_room {
            options.plain_room = PlainRoom::Shared;
        }
        options.drills = self.drills;
        options.encrypt = self.encrypt;
        sample_node::run(options, Box::new(()), self.json).map_err(failed)
    }
}

/// Break a node on purpose and measure the effect on synthetic sessions
///
/// A drill opens synthetic voice sessions beside the real ones of a running gateway, breaks a node, measures the gap at
/// each receiver, and repairs the node. It needs an agent beside the node and `drills = true` both in the agent's
/// configuration and in `[admin]` of the gateway; `evenkeel demo --serve` has both. Run it on the gateway's machine: the
/// sessions send from 127.0.0.1 and need a listener that takes `declared` addresses.
///
/// Exit code 1: the node could not be repaired (the command that repairs it is printed), the gateway did not detect the
/// fault, or a receiver got no packets afterwards. Nothing is broken if no synthetic session would be affected.
#[derive(Args)]
pub(crate) struct DrillArgs {
    #[command(subcommand)]
    verb: DrillCommand,
    #[command(flatten)]
    api: ApiArgs,
    /// Print the report as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Append reports to this file; default: `evenkeel/drills.jsonl` in the state folder
    #[arg(long, value_name = "FILE", global = true)]
    record: Option<PathBuf>,
}

#[derive(Subcommand)]
enum DrillCommand {
    /// Kill a node's process, then start it again
    KillNode(NodeDrillArgs),
    /// Stop a node's process (SIGSTOP), then continue it
    HangNode(NodeDrillArgs),
    /// Drop all packets to and from a node, then restore the link
    CutLink(NodeDrillArgs),
    /// Kill every node of a zone, then start them again
    LoseZone {
        /// The zone with its region, as `eu/a`; default: that of the node with most rooms
        #[arg(long, value_name = "NAME")]
        zone: Option<String>,
        #[command(flatten)]
        crowd: CrowdArgs,
    },
    /// Kill every node of a region, then start them again
    LoseRegion {
        /// The region; default: that of the node with most rooms
        #[arg(long, value_name = "NAME")]
        region: Option<String>,
        #[command(flatten)]
        crowd: CrowdArgs,
    },
    /// Stop and continue a node once per second
    Flap {
        /// Duration in seconds
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_600))]
        seconds: u64,
        #[command(flatten)]
        of: NodeDrillArgs,
    },
    /// List past drills, newest last
    List,
}

#[derive(Args)]
struct NodeDrillArgs {
    /// The node; default: the one with most rooms
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    #[command(flatten)]
    crowd: CrowdArgs,
}

#[derive(Args)]
struct CrowdArgs {
    /// Number of synthetic sessions, two per room, of which one sends
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..=5_000))]
    sessions: u32,
    /// The scenario of the sessions
    #[arg(long, value_name = "NAME", default_value = "call")]
    scenario: String,
    /// Seed of the random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Wait for a gateway that is starting: it compiles policies, and a demo opens sessions.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// Wait for a gateway that shows no sign of starting, because it may have been started just now.
const APPEARS_WITHIN: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Limit of pauses without a fault. Voice is sent every 20 ms, so longer pauses come from a loaded machine.
const CONTROL_MS: f64 = 30.0;

impl DrillArgs {
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let DrillArgs { verb, api, json, record } = self;
        let record = DrillRecordFile(record.unwrap_or_else(drill::default_place));
        let Some(plan) = verb.plan() else {
            let all = record.all().map_err(|failed| failure(&failed))?;
            list(json, all, &record);
            return Ok(());
        };
        await_gateway(&api).map_err(|failure| match failure {
            CommandError::NoGateway(words) => {
                CommandError::NoGateway(format!("{words}; or run `evenkeel demo --serve`"))
            }
            other => other,
        })?;
        let client = api.client()?;
        let report = runtime()?
            .block_on(drill::run(&plan, || client.another()))
            .map_err(|failed| failure(&failed))?;
        record.add(&report).map_err(|failed| failure(&failed))?;
        if json {
            let line = serde_json::to_string(&report)
                .map_err(|error| CommandError::Failed(error.to_string()))?;
            say(&line);
        } else {
            say_lines(&shown(&report, &record));
        }
        verdict(json, report.amiss())
    }
}

fn list(json: bool, all: Vec<Value>, record: &DrillRecordFile) {
    if json {
        return say(&Value::from(all));
    }
    if all.is_empty() {
        say(&format!("no drills recorded in {}", record.0.display()));
    }
    for drill in all.iter().map(RecordedDrill::read) {
        let RecordedDrill { at_us, drill, nodes, sessions, gap_ms, packets_lost } = drill;
        say(&format!(
            "{}  {drill:<12} {:<24} {sessions} sessions, gap p99 {} ms, max {} ms, {packets_lost} packets lost",
            at_us / 1_000_000,
            nodes.join(", "),
            tenths(gap_ms.p99),
            tenths(gap_ms.max),
        ));
    }
}

/// A line of the record of drills, also of another version.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RecordedDrill {
    at_us: u64,
    drill: String,
    nodes: Vec<String>,
    sessions: u32,
    gap_ms: Milliseconds,
    packets_lost: u64,
}

impl RecordedDrill {
    fn read(line: &Value) -> RecordedDrill {
        RecordedDrill::deserialize(line).unwrap_or_default()
    }
}

/// The time of the last drill on this host, in microseconds since the Unix epoch.
pub(crate) fn last_drill_us() -> Result<Option<u64>, CommandError> {
    let drills =
        DrillRecordFile(drill::default_place()).all().map_err(|failed| failure(&failed))?;
    Ok(drills.iter().map(|drill| RecordedDrill::read(drill).at_us).max())
}

impl DrillCommand {
    fn plan(self) -> Option<DrillPlan> {
        let (kind, place, crowd, seconds) = match self {
            DrillCommand::KillNode(of) => (DrillFault::KillNode, of.node, of.crowd, 0),
            DrillCommand::HangNode(of) => (DrillFault::HangNode, of.node, of.crowd, 0),
            DrillCommand::CutLink(of) => (DrillFault::CutLink, of.node, of.crowd, 0),
            DrillCommand::LoseZone { zone, crowd } => (DrillFault::LoseZone, zone, crowd, 0),
            DrillCommand::LoseRegion { region, crowd } => {
                (DrillFault::LoseRegion, region, crowd, 0)
            }
            DrillCommand::Flap { seconds, of } => (DrillFault::Flap, of.node, of.crowd, seconds),
            DrillCommand::List => return None,
        };
        let CrowdArgs { sessions, scenario, seed } = crowd;
        let flaps_for = Duration::from_secs(seconds);
        Some(DrillPlan { kind, place, sessions, scenario, flaps_for, seed })
    }
}

/// An unknown node, zone, region or scenario counts as a wrong command line.
fn failure(failed: &DrillError) -> CommandError {
    let words = failed.to_string();
    match failed {
        DrillError::Unknown(_)
        | DrillError::Lab(LabError::Gateway(_, ClientError::Refused { status: 400, .. })) => {
            CommandError::Wrong(words)
        }
        _ => CommandError::Failed(words),
    }
}

/// One decimal, or `-` without samples.
fn tenths(ms: Option<f64>) -> String {
    ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"))
}

fn shown(report: &DrillReport, record: &DrillRecordFile) -> String {
    let spread = |name: &str, ms: &Milliseconds| {
        let [p50, p90, p99, max] = [ms.p50, ms.p90, ms.p99, ms.max].map(tenths);
        format!("  {name:<22}{p50:>9}{p90:>9}{p99:>9}{max:>9}{:>8}", ms.n)
    };
    let mut lines = vec![
        format!(
            "{} · {} · {} synthetic sessions, half of them senders",
            report.drill,
            report.nodes.join(", "),
            report.sessions
        ),
        format!("  {:<22}{:>9}{:>9}{:>9}{:>9}{:>8}", "ms", "p50", "p90", "p99", "max", "n"),
        spread("gap, affected", &report.gap_ms),
        spread("control run", &report.control_ms),
        spread("detected after", &report.detect_ms),
    ];
    lines.extend(
        report.by_witness.iter().map(|(witness, ms)| spread(&format!("  by {witness}"), ms)),
    );
    lines.push(format!(
        "  {} packets lost, {} of unaffected sessions; {} moves of affected rooms; {} receivers without packets",
        report.packets_lost, report.packets_lost_of_others, report.moves, report.unheard
    ));
    lines.push(format!(
        "  {}: {} packets lost, {}",
        if report.mended { "repaired" } else { "NOT repaired" },
        report.packets_lost_mending,
        if report.trusted_again { "trusted again" } else { "not trusted again yet" }
    ));
    if report.control_ms.p99.is_some_and(|ms| ms > CONTROL_MS) {
        lines.push(
            "  the control run without a fault has long pauses too: this machine is loaded, and the figures say little \
             about the gateway"
                .to_owned(),
        );
    }
    lines.push(format!("  recorded in {}", record.0.display()));
    lines.join("\n")
}

/// The failure of a test call or a probe.
pub(crate) fn explain(api: &ApiArgs, failed: LabError) -> CommandError {
    match failed {
        LabError::Gateway(_, error) => api.explain(error),
        failed => CommandError::Failed(failed.to_string()),
    }
}

/// Waits for a gateway up to [`STARTS_WITHIN`] if it is starting, else up to [`APPEARS_WITHIN`].
pub(crate) fn await_gateway(api: &ApiArgs) -> Result<(), CommandError> {
    let socket = PathBuf::from(api.shown());
    let began = Instant::now();
    loop {
        let rises = Rising::is_at(&socket);
        let status = api.get::<Status>("/v1/status");
        let starting = |status: &Status| rises || status.state == "starting";
        let (within, outcome) = match status {
            Ok(status) if starting(&status) => (STARTS_WITHIN, Ok(())),
            Ok(_) => return Ok(()),
            Err(CommandError::NoGateway(words)) => {
                let within = if rises { STARTS_WITHIN } else { APPEARS_WITHIN };
                (within, Err(CommandError::NoGateway(words)))
            }
            Err(failed) => return Err(failed),
        };
        if began.elapsed() >= within {
            return outcome;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

#[cfg(test)]
mod tests;
