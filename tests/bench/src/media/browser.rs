//! Two pages of Chromium in a call, over downlinks that lose packets.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use evenkeel_lab::links::Conditions;
use evenkeel_lab::process::ChildProcess;
use evenkeel_lab::relay::Direction;
use evenkeel_lab::relay::link::Link;
use evenkeel_report::{AcceptanceRow, RowLimits};
use evenkeel_testkit::clients::browser_packages;
use evenkeel_testkit::need::Need;
use serde::Deserialize;
use serde_json::Value;

use super::path::ONE_WAY;
use super::row::set_figure;
use super::stage::{Clients, MediaStage};
use crate::rounds::median;

/// A row, and the loss of its downlinks in per cent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BrowserRow {
    pub(super) id: &'static str,
    percent: u32,
}

pub(super) static ROWS: [BrowserRow; 4] = [
    BrowserRow { id: "browser.call.loss.1", percent: 1 },
    BrowserRow { id: "browser.call.loss.3", percent: 3 },
    BrowserRow { id: "browser.call.loss.5", percent: 5 },
    BrowserRow { id: "browser.call.loss.10", percent: 10 },
];

/// Frames that each page decodes before its call counts as begun.
const FRAMES: u64 = 100;
/// Browsers start and connect within this time, on busy processors too.
const BEGUN_WITHIN: Duration = Duration::from_secs(60);
/// Pages report four times a second.
const REPORTED_WITHIN: Duration = Duration::from_secs(10);
/// The rate of a sender rises for about this long.
const RISES_FOR: Duration = Duration::from_secs(20);
const CALM: Duration = Duration::from_secs(20);
const LOSSY: Duration = Duration::from_secs(60);
/// A rate that is not back after this time counts as back then.
const BACK_WITHIN: Duration = Duration::from_secs(30);
/// The rate is back at this share of the lossless one.
const BACK_AT: f64 = 0.9;
/// The time over which a rate is measured while it comes back.
const RATE_OVER_MS: f64 = 1_000.0;
const ENDED_WITHIN: Duration = Duration::from_secs(10);

/// A page, as `observe` of `tests/interop/browser/browser.js` reports it.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
struct PageReport {
    at_ms: f64,
    /// The time for which its video was frozen.
    frozen_ms: f64,
    /// Bytes of video, without those that were sent again.
    video_bytes: f64,
    /// Packets of audio, packets of video, and frames decoded.
    received: [u64; 3],
}

impl PageReport {
    /// The rate of video since an earlier report, bytes per millisecond.
    fn rate_since(&self, before: &PageReport) -> f64 {
        (self.video_bytes - before.video_bytes) / (self.at_ms - before.at_ms).max(1.0)
    }

    /// The share of the time since then for which its video was frozen, in per cent.
    fn frozen_since(&self, before: &PageReport) -> f64 {
        100.0 * (self.frozen_ms - before.frozen_ms) / (self.at_ms - before.at_ms).max(1.0)
    }
}

/// The figures of a run, each of the page that fares worse.
#[derive(Clone, Copy, PartialEq, Debug)]
struct BrowserRun {
    /// Per cent of the time with losses.
    frozen: f64,
    /// The rate of video with losses, per cent of that before.
    rate: f64,
    /// Seconds until the rate is back after the losses.
    back: f64,
}

/// Plays a row this many times.
///
/// # Errors
/// The gateway or the browser fails.
pub(super) fn measure(
    row: BrowserRow,
    limits: &RowLimits,
    evenkeel: &Path,
    folders: impl Fn() -> Result<PathBuf, String>,
    runs: usize,
) -> Result<AcceptanceRow, String> {
    if let Err(why) = Need::Chromium.require() {
        return Ok(AcceptanceRow::skipped(row.id, why));
    }
    let runs = (0..runs as u64).map(|seed| play(row.percent, evenkeel, &folders()?, seed));
    let runs: Vec<BrowserRun> = runs.collect::<Result<_, String>>()?;
    let mut measured = AcceptanceRow::new(row.id);
    for name in ["frozen", "rate_kept", "back_s"] {
        let figure = |run: &BrowserRun| match name {
            "frozen" => run.frozen,
            "rate_kept" => run.rate,
            _ => run.back,
        };
        let values: Vec<f64> = runs.iter().map(figure).collect();
        set_figure(&mut measured, name, median(values.iter().copied()), &values);
        measured.limit_by(name, limits, name);
    }
    measured.judge();
    Ok(measured)
}

fn play(percent: u32, evenkeel: &Path, folder: &Path, seed: u64) -> Result<BrowserRun, String> {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    // A port that was free a moment ago: the gateway and its path name each other.
    let free = UdpSocket::bind(loopback).and_then(|socket| socket.local_addr());
    let gateway = free.map_err(|error| error.to_string())?;
    let path = Link::start(loopback, gateway, seed).map_err(|error| error.to_string())?;
    let delayed = Conditions { delay: ONE_WAY, ..Conditions::default() };
    path.set_both(delayed);
    let clients = Clients::Webrtc { gateway, advertised: path.near() };
    let stage = MediaStage::start(evenkeel, folder, clients, Ok)?;
    let pages = Pages::start(&stage.api, folder)?;
    pages.wait_until_begun()?;
    std::thread::sleep(RISES_FOR);
    let first = pages.report()?;
    std::thread::sleep(CALM);
    let before = pages.report()?;
    path.set(Direction::Down, Conditions { delay: ONE_WAY, ..Conditions::loss_percent(percent) });
    std::thread::sleep(LOSSY);
    let after = pages.report()?;
    path.set(Direction::Down, delayed);
    let calm = [0, 1].map(|page: usize| before[page].rate_since(&first[page]));
    let back = pages.time_until(|recent, now| {
        let rates = [0, 1].map(|page: usize| now[page].rate_since(&recent[page]));
        rates.iter().zip(calm).all(|(rate, calm)| *rate >= BACK_AT * calm)
    })?;
    let each = before.iter().zip(&after);
    let frozen = each.clone().map(|(before, after)| after.frozen_since(before));
    let rates = each.zip(calm).map(|((before, after), calm)| after.rate_since(before) / calm);
    Ok(BrowserRun {
        frozen: frozen.fold(0.0, f64::max),
        rate: 100.0 * rates.fold(f64::INFINITY, f64::min),
        back: back.as_secs_f64(),
    })
}

/// Two pages in a call.
struct Pages(ChildProcess);

impl Pages {
    fn start(api: &Path, folder: &Path) -> Result<Pages, String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../interop/browser/call.js");
        let mut command = Command::new("node");
        command.arg(script).arg(browser_packages()).args(["chromium"; 2]).arg(api).arg("loss");
        let started = ChildProcess::start("pages", &mut command, folder)?;
        // A browser ends with its driver.
        Ok(Pages(started.with_grace(ENDED_WITHIN)))
    }

    fn wait_until_begun(&self) -> Result<(), String> {
        let begun = self.0.wait_for("frames at both pages", BEGUN_WITHIN, |lines| {
            let pages = pages_of(lines.last()?)?;
            pages.iter().all(|page| page.received[2] >= FRAMES).then_some(())
        });
        Ok(begun?)
    }

    /// A report that begins after this call.
    fn report(&self) -> Result<[PageReport; 2], String> {
        let count = self.0.lines().len() + 2;
        let report = self.0.wait_for("a report", REPORTED_WITHIN, |lines| {
            (lines.len() >= count).then(|| pages_of(lines.last()?))?
        });
        Ok(report?)
    }

    /// The time until a report fulfils the condition beside one of a second before. It is at most [`BACK_WITHIN`].
    fn time_until(
        &self,
        holds: impl Fn(&[PageReport; 2], &[PageReport; 2]) -> bool,
    ) -> Result<Duration, String> {
        let began = Instant::now();
        let mut reports = vec![self.report()?];
        while began.elapsed() < BACK_WITHIN {
            let now = self.report()?;
            let is_earlier =
                |earlier: &&[PageReport; 2]| now[0].at_ms - earlier[0].at_ms >= RATE_OVER_MS;
            if reports.iter().rev().find(is_earlier).is_some_and(|recent| holds(recent, &now)) {
                return Ok(began.elapsed());
            }
            reports.push(now);
        }
        Ok(BACK_WITHIN)
    }
}

fn pages_of(line: &str) -> Option<[PageReport; 2]> {
    let mut line: Value = serde_json::from_str(line).ok()?;
    serde_json::from_value(line["ends"].take()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(at_ms: f64, frozen_ms: f64, video_bytes: f64) -> PageReport {
        PageReport { at_ms, frozen_ms, video_bytes, received: [0; 3] }
    }

    #[test]
    fn share_and_rate_are_those_between_reports() {
        let (before, after) = (page(1_000.0, 500.0, 9_000.0), page(3_000.0, 700.0, 25_000.0));
        assert_eq!((after.frozen_since(&before), after.rate_since(&before)), (10.0, 8.0));
    }

    #[test]
    fn line_without_statistics_is_no_report() {
        let end = |frozen: &str| {
            format!(
                "{{\"at_ms\": 1, \"frozen_ms\": {frozen}, \"video_bytes\": 2, \"received\": [1, 2, 3]}}"
            )
        };
        let line = |ends: &[String]| format!("{{\"ends\": [{}]}}", ends.join(", "));
        assert_eq!(pages_of(&line(&[end("4"), end("4")])).unwrap()[1].received, [1, 2, 3]);
        assert_eq!(pages_of(&line(&[end("4"), end("null")])), None);
        assert_eq!(pages_of(&line(&[end("4")])), None);
    }
}
