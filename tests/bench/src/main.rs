//! Measures the gateway beside a bare relay (the floor), an optimised bare relay (the limit) and its peers: side by
//! side in one run, rounds interleaved, with medians and spread.
//!
//! Everything runs in one network namespace with a private address, but for `media`, which runs at loopback. Generator
//! and sinks are on core 0, the measured relay on core 1. Exit codes: 0 measured, whether targets are met or missed ·
//! 1 a packet reached the wrong session, or a measurement failed · 2 wrong command line.

mod allocations;
mod bare;
mod figures;
mod forward;
mod load;
mod losing;
mod measuring;
mod media;
mod namespace;
mod overload;
mod policy;
mod process;
mod relay;
mod report;
mod roq;
mod rounds;
mod row;
mod rows;
mod srtp;
mod table;
mod targets;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use evenkeel_report::LimitTable;

use relay::{Kind, Places};
use report::Report;
use rounds::Effort;

/// Measure the gateway beside a bare relay, the limit and its peers
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Voice to six nodes over port and trunk legs, at three loads: a few minutes
    Quick(Choice),
    /// Every row and every figure: about half an hour
    Full(Choice),
    /// Calls, faults, swaps and dropped files of policies, beside the same functions natively: some minutes
    Policy(policy::Choice),
    /// Sessions over paths that lose packets, with repair and without: an hour
    Media(media::Choice),
    /// Be a relay without any feature
    #[command(hide = true)]
    Relay { manner: bare::Manner },
    /// Run a quinn server that echoes datagrams
    #[command(hide = true)]
    QuinnEcho,
}

/// Options to run a part.
#[derive(Args, Clone, Debug)]
pub(crate) struct Choice {
    /// Run only rows with this in their title, `srtp`, `webrtc`, or one figure of `full`: `losing`, `overload`, `forward`,
    /// `memory`, `setup`, `start`, `flip`, `growth`, `telemetry`
    #[arg(long, value_name = "TEXT", default_value = "")]
    rows: String,
    /// Run only these relays, as `ours,floor,limit`; default: these and nginx for `quick`, all installed ones for
    /// `full`
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    relays: Vec<String>,
    /// Windows per relay and row
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of a window
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Path of the gateway's program
    #[arg(long, value_name = "FILE", default_value = "target/release/evenkeel")]
    evenkeel: PathBuf,
    /// Path of the report; default: `target/bench/report.json`, `target/bench-quick/report.json`, or
    /// `target/bench/part.json` for a part
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Quick(choice) => measure(&choice, Extent::Quick),
        Verb::Full(choice) => measure(&choice, Extent::Full),
        Verb::Policy(choice) => policy::measure(&choice),
        Verb::Media(choice) => media::measure(&choice),
        Verb::Relay { manner } => bare::run(manner),
        Verb::QuinnEcho => roq::echo(),
    };
    evenkeel_report::end("evenkeel-bench", outcome)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Extent {
    Quick,
    Full,
}

impl Extent {
    fn out(self) -> PathBuf {
        PathBuf::from(match self {
            Extent::Quick => "target/bench-quick/report.json",
            Extent::Full => "target/bench/report.json",
        })
    }
}

fn measure(choice: &Choice, extent: Extent) -> Result<(), String> {
    if let Some(status) = namespace::enter()? {
        std::process::exit(status);
    }
    process::pin(process::LOAD_CORE)?;
    let places = choice.places()?;
    let (relays, skipped) = choice.relays(extent, &places)?;
    let limits = LimitTable::load()?;
    let mut report = Report { skipped, ..Report::default() };
    let mut rows = match extent {
        Extent::Quick => rows::quick(),
        Extent::Full => rows::full(),
    };
    let mut over_quic = if extent == Extent::Full { roq::rows() } else { Vec::new() };
    for rows in [&mut rows, &mut over_quic] {
        rows.retain(|row| row.title().contains(&choice.rows));
    }
    let window = Duration::from_secs_f64(choice.seconds);
    let effort = Effort { rounds: choice.rounds.max(1), window };
    if !rows.is_empty() || !over_quic.is_empty() {
        table::head();
    }
    if rows.is_empty() && over_quic.is_empty() && !choice.names_figure(extent) {
        return Err(format!(
            "--rows {:?}: no row has this in its title, and no figure this name",
            choice.rows
        ));
    }
    let out = choice.out(extent);
    let rows = measuring::rows(&rows, &relays, &places, effort, |so_far| {
        Report { rows: so_far.to_vec(), ..report.clone() }.write(&out, &limits)
    })?;
    report.rows = rows;
    report.rows.extend(roq::measure(&over_quic, &places, effort)?);
    if choice.wants("srtp") {
        let peer = srtp::Libsrtp::start(&places.folder);
        if let Err(why) = &peer {
            println!("skipped libsrtp: {why}");
            report.skipped.insert("libsrtp".to_owned(), why.clone());
        }
        report.srtp = Some(srtp::measure(peer.ok())?);
    }
    if choice.wants("webrtc") {
        report.webrtc = Some(figures::webrtc::measure(&places)?);
    }
    report.write(&out, &limits)?;
    if extent == Extent::Full && choice.wants("losing") {
        report.best_peer_limit = losing::measure(&relays, &places)?;
        report.loss_at_best_peer_limit = report.best_peer_limit.as_ref().map(|limit| limit.ours);
    }
    report.write(&out, &limits)?;
    if extent == Extent::Full && choice.wants("overload") {
        report.overload = Some(overload::measure(&places)?);
    }
    report.write(&out, &limits)?;
    if extent == Extent::Full && choice.wants("forward") {
        let forward = forward::measure();
        report.forward_ns = Some(forward.ns);
        report.forward_allocations = Some(forward.allocations);
    }
    if extent == Extent::Full {
        figures::measure(&mut report, |figure| choice.wants(figure), &places)?;
    }
    targets::print(&targets::judge(&report, &limits)?);
    report.write(&out, &limits)?;
    println!("written to {}", out.display());
    match report.misdelivered() {
        0 => Ok(()),
        packets => Err(format!("{packets} packets were misdelivered")),
    }
}

impl Choice {
    /// A figure is requested unless only rows are named.
    fn wants(&self, figure: &str) -> bool {
        self.rows.is_empty() || self.rows == figure
    }

    /// True if `rows` names a figure.
    fn names_figure(&self, extent: Extent) -> bool {
        let others = ["losing", "overload", "forward"];
        let mut full = others.iter().chain(&figures::NAMES);
        self.wants("srtp")
            || self.wants("webrtc")
            || extent == Extent::Full && full.any(|figure| self.wants(figure))
    }

    /// The path of the report. A partial report does not replace a full one.
    fn out(&self, extent: Extent) -> PathBuf {
        let is_part = !self.rows.is_empty() || !self.relays.is_empty();
        let named = || if is_part { PathBuf::from("target/bench/part.json") } else { extent.out() };
        self.out.clone().unwrap_or_else(named)
    }

    /// The requested and installed relays; the others are printed with the reason.
    fn relays(
        &self,
        extent: Extent,
        places: &Places,
    ) -> Result<(Vec<Kind>, BTreeMap<String, String>), String> {
        let known = |name: &String| Kind::ALL.into_iter().find(|kind| kind.name() == name);
        if let Some(stranger) = self.relays.iter().find(|name| known(name).is_none()) {
            let names = Kind::ALL.map(Kind::name).join(", ");
            return Err(format!("--relays {stranger:?}: one of {names} is expected"));
        }
        let wanted = |kind: &Kind| match &*self.relays {
            [] => extent == Extent::Full || kind.is_quick(),
            names => names.iter().any(|name| name == kind.name()),
        };
        let (mut relays, mut skipped) = (Vec::new(), BTreeMap::new());
        for kind in Kind::ALL.into_iter().filter(wanted) {
            match kind.missing(places) {
                None => relays.push(kind),
                Some(why) => {
                    println!("skipped {}: {why}", kind.name());
                    skipped.insert(kind.name().to_owned(), why);
                }
            }
        }
        Ok((relays, skipped))
    }

    fn places(&self) -> Result<Places, String> {
        let evenkeel = evenkeel_report::gateway(&self.evenkeel, "bench")?;
        let folder = Path::new("target/bench/run");
        // Gateways continue the policies that their caches remember.
        if let Err(error) = std::fs::remove_dir_all(folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(format!("cannot empty {}: {error}", folder.display()));
        }
        let folder = evenkeel_report::folder(folder)?;
        Ok(Places { evenkeel, folder, peers: PathBuf::from("target/bench/peers") })
    }
}
