//! The report, `target/bench/report.json`: targets as `rows`, and the measurements behind them. A figure that was not
//! measured is null.

use std::collections::BTreeMap;
use std::path::Path;

use evenkeel_lab::ledger::GapSpread;
use evenkeel_report::{AcceptanceRow, LimitTable};
use serde::Serialize;

use crate::row::{Direction, Leg, Load, Path as MediaPath, Row, Sizes, Suite};
use crate::targets;

/// Values by relay name, such as `ours` or `nginx`.
pub(crate) type ByRelay = BTreeMap<String, f64>;

#[derive(Clone, Default, Debug, Serialize)]
pub(crate) struct Report {
    #[serde(rename = "measurements")]
    pub(crate) rows: Vec<RowReport>,
    /// Relays that were not measured, with the reason.
    pub(crate) skipped: BTreeMap<String, String>,
    pub(crate) overload: Option<Overload>,
    /// The gateway's loss at the rate where the best peer begins to lose.
    pub(crate) loss_at_best_peer_limit: Option<f64>,
    /// The rates at which peers begin to lose.
    pub(crate) best_peer_limit: Option<Limit>,
    pub(crate) memory: Option<Memory>,
    pub(crate) setup_per_s: SetUp,
    /// From the start of the process to the first packet forwarded.
    pub(crate) start_ms: Option<f64>,
    /// Time of the gateway's code per packet, without sockets.
    pub(crate) forward_ns: Option<f64>,
    pub(crate) forward_allocations: Option<f64>,
    pub(crate) srtp: Option<SrtpReport>,
    pub(crate) webrtc: Option<WebrtcCost>,
    /// From the watch that marks a node down to the first packet on the second hop.
    pub(crate) flip_us: Option<f64>,
    /// Processor time per packet with 100,000 sessions, divided by that with 1,000.
    pub(crate) growth: Option<f64>,
    pub(crate) telemetry: Option<TelemetryCost>,
}

/// Time of SRTP per packet of 200 bytes, beside libsrtp 2.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SrtpReport {
    /// The version of libsrtp and the library of its ciphers; `None` if it was skipped.
    pub(crate) libsrtp: Option<String>,
    /// By profile and call.
    pub(crate) rows: BTreeMap<String, SrtpCost>,
}

/// Medians over the rounds. A spread is (largest − smallest) ÷ median.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SrtpCost {
    pub(crate) ours_ns: f64,
    pub(crate) ours_spread: f64,
    pub(crate) libsrtp_ns: Option<f64>,
    pub(crate) libsrtp_spread: Option<f64>,
    /// The gateway's cost divided by that of libsrtp.
    pub(crate) ratio: Option<f64>,
    pub(crate) ratio_spread: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct RowReport {
    pub(crate) name: MediaPath,
    pub(crate) load: Load,
    pub(crate) direction: Direction,
    pub(crate) leg: Leg,
    pub(crate) destinations: usize,
    pub(crate) sessions: usize,
    pub(crate) sizes: Sizes,
    pub(crate) srtp: Option<Suite>,
    /// Processor time of the relay's process per packet delivered.
    pub(crate) cpu_ns: ByRelay,
    pub(crate) ratio: Ratio,
    /// The cost per packet at the receiver of the gateway's packets.
    pub(crate) other_end_ns: Option<f64>,
    /// The gateway's delay: from the client's send call to the kernel's stamp at the sink.
    pub(crate) delay_us: Delay,
    /// The share of packets of the window that the gateway lost.
    pub(crate) loss: Option<f64>,
    /// Packets that reached the wrong session, of all relays.
    pub(crate) misdelivered: u64,
    /// The gateway's processor time: (largest − smallest) ÷ median over the rounds.
    pub(crate) spread: Option<f64>,
    /// Figures of each relay in this row.
    pub(crate) each: BTreeMap<String, Figures>,
}

/// The gateway's cost divided by that of others.
#[derive(Clone, Copy, Default, Debug, Serialize)]
pub(crate) struct Ratio {
    pub(crate) floor: Option<f64>,
    pub(crate) limit: Option<f64>,
    /// The peer with the least processor time per packet; peers have port legs on rows of trunk legs, too.
    pub(crate) best_peer: Option<f64>,
    /// quinn's own echo and the floor together.
    pub(crate) quinn_echo: Option<f64>,
}

/// Added delay, microseconds.
#[derive(Clone, Copy, Default, Debug, Serialize)]
pub(crate) struct Delay {
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) p999: Option<f64>,
}

/// Medians over the rounds of one relay in one row.
#[derive(Clone, Copy, Default, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) cpu_ns: f64,
    pub(crate) spread: f64,
    /// Packets delivered a second.
    pub(crate) pps: f64,
    /// Packets offered a second.
    pub(crate) offered: f64,
    /// The share of the window in which the relay's process had a processor.
    pub(crate) relay_busy: f64,
    pub(crate) loss: f64,
    pub(crate) delay_us: Delay,
    pub(crate) other_end_ns: Option<f64>,
    pub(crate) misdelivered: u64,
    /// Packets that arrived by another node than the session's packets before.
    pub(crate) moved: u64,
}

/// Goodput, packets a second.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Overload {
    /// The highest throughput on port legs, or on trunk legs if these keep a smaller share.
    pub(crate) peak: f64,
    /// Throughput at three times that rate.
    pub(crate) at_3x: f64,
    pub(crate) port: OverloadLeg,
    pub(crate) trunk: OverloadLeg,
}

/// Overload on one kind of leg, to nodes, with the sessions of the base row.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct OverloadLeg {
    pub(crate) peak: f64,
    pub(crate) at_3x: f64,
    /// The rate that was actually offered.
    pub(crate) offered: f64,
    /// Throughput of the session with the lowest, divided by the mean; all were offered the same.
    pub(crate) least_share: f64,
    /// The longest time of `GET /v1/status`, milliseconds; for a failed request until it failed.
    pub(crate) api_ms: f64,
    /// Nodes that are down, or have another incarnation than before.
    pub(crate) condemned: usize,
    /// Memory of the gateway's process at the end.
    pub(crate) rss_mib: f64,
    pub(crate) misdelivered: u64,
}

/// The rates at which peers begin to lose, on port legs to nodes, with the sessions of the base row.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Limit {
    /// The peer that begins to lose at the highest rate.
    pub(crate) peer: String,
    /// Packets per second at which this peer begins to lose, or the most that one core can offer.
    pub(crate) rate: f64,
    pub(crate) misdelivered: u64,
    /// The gateway's loss at that rate.
    pub(crate) ours: f64,
    pub(crate) curve: Vec<LossAt>,
}

/// Loss of one relay at one rate.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LossAt {
    pub(crate) relay: String,
    pub(crate) rate: f64,
    pub(crate) loss: f64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Memory {
    pub(crate) per_session_bytes: f64,
    pub(crate) rss_100k_mib: f64,
}

/// Sessions set up a second.
#[derive(Clone, Copy, Default, Debug, Serialize)]
pub(crate) struct SetUp {
    /// Sessions per second of the core alone, from offer to route.
    pub(crate) core: Option<f64>,
    /// Sessions per second through the HTTP API.
    pub(crate) http: Option<f64>,
}

/// The cost of telemetry with 10,000 sessions, beside which others open and close.
#[derive(Clone, Default, Debug, Serialize)]
pub(crate) struct TelemetryCost {
    /// Processor time of the gateway by receiver, per cent of a core: `off` without one, and `healthy`, `dead` and `slow`
    /// with 1 % of the traces.
    pub(crate) core_percent: BTreeMap<&'static str, f64>,
    /// Memory that the gateway took while many sessions opened and closed, by receiver, with all traces, MiB.
    pub(crate) grown_mib: BTreeMap<&'static str, f64>,
    /// The longest time of each list with all its pages, milliseconds.
    pub(crate) list_ms: BTreeMap<&'static str, f64>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct WebrtcCost {
    pub(crate) setup: WebrtcSetUp,
    pub(crate) handshakes: HandshakeDelay,
}

/// Set-ups of WebRTC clients one after another: offer, ICE, DTLS and the first packet.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct WebrtcSetUp {
    /// Set-ups per second of the gateway's processor time beyond that without set-ups.
    pub(crate) per_processor_s: f64,
    /// From the offer to the first packet at the node.
    pub(crate) first_packet_ms: GapSpread,
}

/// The delay of media of other clients while many handshakes begin at once.
#[derive(Clone, Copy, Default, Debug, Serialize)]
pub(crate) struct HandshakeDelay {
    /// Complete handshakes, and the time until the last one.
    pub(crate) complete: u64,
    pub(crate) took_s: f64,
    /// 99th percentile of the delay until then, of the worst window.
    pub(crate) delay_p99_us: f64,
    /// The same without handshakes, the median of windows.
    pub(crate) calm_p99_us: f64,
}

impl HandshakeDelay {
    /// The change of the 99th percentile, milliseconds.
    pub(crate) fn change_ms(&self) -> f64 {
        (self.delay_p99_us - self.calm_p99_us) / 1_000.0
    }
}

impl TelemetryCost {
    /// Processor time that a receiver costs which takes everything, per cent of a core.
    pub(crate) fn healthy_percent(&self) -> f64 {
        of(&self.core_percent, "healthy") - of(&self.core_percent, "off")
    }

    /// Processor time that a dead or a slow receiver costs beyond that, whichever costs more.
    pub(crate) fn failing_percent(&self) -> f64 {
        worse(&self.core_percent) - of(&self.core_percent, "healthy")
    }

    /// Memory that a dead or a slow receiver takes, whichever takes more, MiB.
    pub(crate) fn failing_mib(&self) -> f64 {
        worse(&self.grown_mib) - of(&self.grown_mib, "off")
    }

    /// The time of the slowest list, milliseconds.
    pub(crate) fn slowest_list_ms(&self) -> f64 {
        self.list_ms.values().copied().fold(0.0, f64::max)
    }
}

/// NaN, which meets no target, if the receiver was not measured.
fn of(figures: &BTreeMap<&'static str, f64>, receiver: &str) -> f64 {
    figures.get(receiver).copied().unwrap_or(f64::NAN)
}

fn worse(figures: &BTreeMap<&'static str, f64>) -> f64 {
    of(figures, "dead").max(of(figures, "slow"))
}

impl RowReport {
    /// A row without measurements.
    pub(crate) fn new(row: &Row) -> RowReport {
        RowReport {
            name: row.path,
            load: row.load,
            direction: row.direction,
            leg: row.leg,
            destinations: row.destinations,
            sessions: row.sessions,
            sizes: row.sizes,
            srtp: row.srtp,
            cpu_ns: ByRelay::new(),
            ratio: Ratio::default(),
            other_end_ns: None,
            delay_us: Delay::default(),
            loss: None,
            misdelivered: 0,
            spread: None,
            each: BTreeMap::new(),
        }
    }
}

impl Report {
    pub(crate) fn misdelivered(&self) -> u64 {
        let overload = self.overload.iter().flat_map(|overload| [&overload.port, &overload.trunk]);
        self.rows.iter().map(|row| row.misdelivered).sum::<u64>()
            + self.best_peer_limit.as_ref().map_or(0, |limit| limit.misdelivered)
            + overload.map(|leg| leg.misdelivered).sum::<u64>()
    }

    pub(crate) fn write(&self, path: &Path, limits: &LimitTable) -> Result<(), String> {
        let skipped = self.skipped.iter();
        let skipped = skipped.map(|(relay, reason)| AcceptanceRow::skipped(relay, reason));
        let rows = targets::judge(self, limits)?.into_iter().chain(skipped).collect();
        evenkeel_report::write(&JudgedReport { rows, report: self }, path)
    }
}

#[derive(Serialize)]
struct JudgedReport<'a> {
    rows: Vec<AcceptanceRow>,
    #[serde(flatten)]
    report: &'a Report,
}
