//! `evenkeel probe`.

use clap::Args;
use evenkeel_contract::probes::ProbeReport;
use evenkeel_lab::probe;

use crate::command::{ApiArgs, CommandError, say, verdict};
use crate::lab::explain;

/// Measure the path to a gateway for 3 s, and forecast a call on it
///
/// Packets of the sizes and rates of voice and video go to the gateway's UDP listener and back: the round trip, its jitter, losses in each
/// direction, the rate, the MTU, and of these the R-factor of voice and the resolution of video. They open no session. With several
/// gateways, such as one of each region, each is measured in turn.
///
/// Exit code 1: a gateway refuses the probe, or answers no packet.
#[derive(Args)]
pub(crate) struct ProbeArgs {
    /// Unix socket or TCP address of a gateway's API, in place of --api; may be repeated
    #[arg(long, value_name = "SOCKET|ADDRESS")]
    to: Vec<String>,
    #[command(flatten)]
    api: ApiArgs,
    /// Print JSON: an object for each gateway. Its `signed` is the member `probe` of an offer
    #[arg(long)]
    pub(crate) json: bool,
}

impl ProbeArgs {
    pub(crate) fn run(self) -> Result<(), CommandError> {
        let mut unanswered = Vec::new();
        let gateways = self.gateways();
        for api in &gateways {
            let measured = api.operate(async |admin| Ok(probe::run(admin).await))?;
            let report = measured.map_err(|failed| explain(api, failed))?;
            match (self.json, serde_json::to_string(&report)) {
                (true, Ok(line)) => say(&line),
                _ if gateways.len() > 1 => say(&format!("{}: {}", api.shown(), line(&report))),
                _ => say(&line(&report)),
            }
            if report.mtu == 0 {
                unanswered.push(format!("the gateway at {} answered no packet", api.shown()));
            }
        }
        verdict(self.json, (!unanswered.is_empty()).then(|| unanswered.join("\n")))
    }

    fn gateways(&self) -> Vec<ApiArgs> {
        match &self.to[..] {
            [] => vec![self.api.clone()],
            places => places.iter().map(|place| self.api.at(place)).collect(),
        }
    }
}

/// `voice good, video 720p (R 91.4, round trip 12.3 ms, …)`.
fn line(report: &ProbeReport) -> String {
    let tenths = |number: u32, of: u32| f64::from(number) / f64::from(of);
    format!(
        "{} (R {:.1}, round trip {:.1} ms, jitter {:.1} ms, loss {:.1} % up and {:.1} % down, {} kbit/s, MTU {})",
        report.verdict,
        tenths(report.r_factor, 100),
        tenths(report.round_trip_us, 1_000),
        tenths(report.jitter_us, 1_000),
        tenths(report.loss_up_ppm, 10_000),
        tenths(report.loss_down_ppm, 10_000),
        report.rate_kbps,
        report.mtu,
    )
}

#[cfg(test)]
mod tests;
