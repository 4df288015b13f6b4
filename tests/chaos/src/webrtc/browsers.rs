//! Two pages of Chromium in a call, as their statistics and a capture show it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use evenkeel_lab::client::WebrtcTally;
use evenkeel_lab::clock;
use evenkeel_lab::crowd::FaultEffect;
use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::clients::browser_packages;
use serde::Deserialize;
use serde_json::Value;

use super::indices::{ClientContent, ClientPacket};
use crate::capture::Capture;
use crate::process;
use crate::stage::{CROWD, Places};

/// The pages of a call.
const PAGES: usize = 2;
/// Packets and frames that each page receives before the call counts as begun.
const ENOUGH: u64 = 100;
/// Chromium starts and connects within this time, on busy processors too.
const BEGUN_WITHIN: Duration = Duration::from_secs(60);
/// The pages report four times a second.
const REPORTED_WITHIN: Duration = Duration::from_secs(10);
const ENDED_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A stream without a packet in this time before a fault has ended.
const RECENTLY_NS: u64 = 500_000_000;
/// Packets between the interface and the statistics of a page.
const IN_FLIGHT_MAX: u64 = 20;
const CONNECTED: [&str; 3] = ["connected"; 3];

/// A page, as `observe` of `tests/interop/browser/browser.js` reports it.
#[derive(Clone, PartialEq, Deserialize, Debug)]
struct PageReport {
    /// The states of the connection, of ICE and of DTLS.
    states: Vec<Option<String>>,
    /// The candidate pair, its changes, and both certificates.
    path: Value,
    /// Packets of audio, packets of video, and frames decoded.
    received: Vec<u64>,
    /// The SSRCs of audio that it receives.
    audio: BTreeSet<u32>,
    /// Packets of RTP by SSRC, each with those that SRTP accepted.
    packets: BTreeMap<u32, u64>,
    /// Time of the report, milliseconds since the Unix epoch.
    at_ms: f64,
    frozen_ms: u64,
    freezes: u64,
}

impl PageReport {
    fn is_connected(&self) -> bool {
        self.states.iter().map(Option::as_deref).eq(CONNECTED.map(Some))
    }

    fn has_begun(&self) -> bool {
        self.is_connected() && self.received.iter().all(|count| *count >= ENOUGH)
    }
}

/// Chromium with both pages. Dropping it ends them.
pub(crate) struct Browsers {
    process: ChildProcess,
    /// The reports and the time with which the call began.
    begun: Vec<PageReport>,
    begun_ns: u64,
    /// Its lines of output then.
    lines_before: usize,
    /// The reports with which the observation began.
    observed: Vec<PageReport>,
    /// The last reports.
    last: Vec<PageReport>,
}

impl Browsers {
    /// Starts them in the network namespace of this thread, and waits until the call has begun. `api` is the gateway's socket.
    pub(crate) async fn start(places: &Places, api: &Path) -> Result<Browsers, String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../interop/browser/call.js");
        let words =
            [script.as_path(), &browser_packages(), api].map(|path| path.display().to_string());
        let [script, packages, api] = &words;
        let room = format!("{CROWD}-1");
        let words: [&str; 6] = [script, packages, "chromium", "chromium", api, &room];
        let process = process::start("browsers", Path::new("node"), &words, &places.folder)?;
        let process = process.with_grace(ENDED_WITHIN);
        let [begun, observed, last] = [const { Vec::new() }; 3];
        let (begun_ns, lines_before) = (0, 0);
        let mut browsers = Browsers { process, begun, begun_ns, lines_before, observed, last };
        let has_begun = |lines: &[String]| lines.last().is_some_and(|line| begins(line));
        browsers.look(BEGUN_WITHIN, has_begun).await?;
        browsers.lines_before = browsers.process.lines().len();
        browsers.renew().await?;
        browsers.begun.clone_from(&browsers.last);
        browsers.begun_ns = clock::now_ns();
        Ok(browsers)
    }

    /// Waits for a report that begins after this call.
    async fn renew(&mut self) -> Result<(), String> {
        let count = self.process.lines().len() + 2;
        let lines = self.look(REPORTED_WITHIN, |lines| lines.len() >= count).await?;
        self.last = lines.last().and_then(|line| ends(line)).unwrap_or_default();
        if self.last.len() == PAGES {
            return Ok(());
        }
        Err(self.process.error(format!("printed {:?}", lines.last())).into())
    }

    async fn look(
        &mut self,
        within: Duration,
        is_found: impl Fn(&[String]) -> bool,
    ) -> Result<Vec<String>, String> {
        let until = Instant::now() + within;
        loop {
            let lines = self.process.lines();
            if is_found(&lines) {
                return Ok(lines);
            }
            if Instant::now() > until || !self.process.is_running() {
                let problem = format!("after {within:?}, or at its end: {:?}", lines.last());
                return Err(self.process.error(problem).into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Begins an observation of both pages.
    pub(crate) async fn begin_observation(&mut self) -> Result<(), String> {
        self.renew().await?;
        self.observed.clone_from(&self.last);
        Ok(())
    }

    /// Ends an observation with the pauses of audio in this span.
    pub(crate) async fn end_observation(
        &mut self,
        capture: &Capture<ClientPacket>,
        span: Range<u64>,
    ) -> Result<PageObservation, String> {
        self.renew().await?;
        let mut effect = self.effect(capture, span);
        if effect.hit != PAGES {
            return Err(format!("{} of {PAGES} pages received audio before the fault", effect.hit));
        }
        let pages = || self.observed.iter().zip(&self.last);
        effect.freezes = pages().map(|(before, after)| after.freezes - before.freezes).sum();
        let frozen_ms = pages().map(|(before, after)| after.frozen_ms - before.frozen_ms);
        let frozen_ms = frozen_ms.collect();
        let rates = pages().map(|(before, after)| frames_per_second(before, after));
        let frames_per_second = rates.min_by(f64::total_cmp).unwrap_or(0.0);
        Ok(PageObservation { effect, frozen_ms, frames_per_second })
    }

    /// The pauses of the audio at the client's interface in this span.
    pub(crate) fn effect(&self, capture: &Capture<ClientPacket>, span: Range<u64>) -> FaultEffect {
        let audio = self.last.iter().flat_map(|page| &page.audio).copied().collect();
        capture.read(|packets| effect(packets, &audio, span))
    }

    /// The events of both transports since the call began.
    pub(crate) fn tally(&self, packets: &[ClientPacket]) -> WebrtcTally {
        let since = packets.iter().filter(|packet| packet.at_ns >= self.begun_ns);
        let dtls = since.filter(|packet| packet.content == ClientContent::Dtls).count();
        let pages = || self.begun.iter().zip(&self.last);
        WebrtcTally {
            // A datagram of DTLS in a call that has begun is one of another handshake.
            handshakes: (PAGES + dtls) as u64,
            ice_restarts: pages().filter(|(begun, last)| begun.path != last.path).count() as u64,
            authentication_failures: pages()
                .map(|(begun, last)| refused(packets, begun, last))
                .sum(),
            ..WebrtcTally::default()
        }
    }

    /// The states other than `connected` that pages reported since the call began.
    pub(crate) fn misses(&self) -> Vec<String> {
        let lines = self.process.lines();
        let pages = lines[self.lines_before..].iter().filter_map(|line| ends(line)).flatten();
        let states = pages.filter(|page| !page.is_connected()).map(|page| page.states);
        let other: BTreeSet<String> =
            states.map(|states| format!("a page was {states:?}")).collect();
        other.into_iter().collect()
    }
}

/// The pages over some time.
pub(crate) struct PageObservation {
    /// The pauses of audio at the interface, and the freezes.
    pub(crate) effect: FaultEffect,
    /// The time for which each page was frozen, milliseconds (`totalFreezesDuration`).
    pub(crate) frozen_ms: Vec<u64>,
    /// The rate at which frames were decoded, in the page of the lower one.
    pub(crate) frames_per_second: f64,
}

fn frames_per_second(before: &PageReport, after: &PageReport) -> f64 {
    let frames = |page: &PageReport| page.received.last().copied().unwrap_or(0);
    let seconds = (after.at_ms - before.at_ms) / 1_000.0;
    (frames(after).saturating_sub(frames(before))) as f64 / seconds
}

fn ends(line: &str) -> Option<Vec<PageReport>> {
    let mut line: Value = serde_json::from_str(line).ok()?;
    serde_json::from_value(line["ends"].take()).ok()
}

fn begins(line: &str) -> bool {
    ends(line).is_some_and(|pages| pages.len() == PAGES && pages.iter().all(PageReport::has_begun))
}

/// The pauses of these SSRCs' streams that end in this span. Its end ends the last pause.
fn effect(packets: &[ClientPacket], ssrcs: &BTreeSet<u32>, span: Range<u64>) -> FaultEffect {
    let mut streams: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    let Range { start: from_ns, end: until_ns } = span;
    let span = from_ns.saturating_sub(RECENTLY_NS)..until_ns;
    for ClientPacket { at_ns, client, content } in packets {
        if let ClientContent::Srtp { ssrc, .. } = content
            && ssrcs.contains(ssrc)
            && span.contains(at_ns)
        {
            streams.entry((*client, *ssrc)).or_default().push(*at_ns);
        }
    }
    streams.retain(|_, times| times[0] <= from_ns);
    let mut effect = FaultEffect { hit: streams.len(), ..FaultEffect::default() };
    for times in streams.values() {
        let ends = times[1..].iter().chain([&until_ns]);
        let pauses = times.iter().zip(ends).filter(|(_, end)| **end > from_ns);
        let longest = pauses.map(|(begin, end)| end - begin).max();
        effect.gaps_ns.push(longest.unwrap_or(0));
        let is_silent = times.last().is_none_or(|last| until_ns - last >= RECENTLY_NS);
        effect.unheard += usize::from(is_silent);
    }
    effect
}

/// Packets that reached the interface between two reports of a page, and that SRTP did not accept there.
fn refused(packets: &[ClientPacket], begun: &PageReport, last: &PageReport) -> u64 {
    let [from_ns, until_ns] = [begun, last].map(|page| (page.at_ms * 1e6) as u64);
    let mut captured: BTreeMap<u32, u64> = BTreeMap::new();
    for packet in packets.iter().filter(|packet| (from_ns..until_ns).contains(&packet.at_ns)) {
        if let ClientContent::Srtp { ssrc, .. } = packet.content {
            *captured.entry(ssrc).or_default() += 1;
        }
    }
    let missing = last.packets.iter().map(|(ssrc, received)| {
        let before = begun.packets.get(ssrc).copied().unwrap_or(0);
        let captured = captured.get(ssrc).copied().unwrap_or(0);
        captured.saturating_sub(received.saturating_sub(before) + IN_FLIGHT_MAX)
    });
    missing.sum()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use super::*;

    const MS: u64 = 1_000_000;

    fn packets(ssrc: u32, port: u16, times_ms: &[u64]) -> Vec<ClientPacket> {
        let client = SocketAddrV4::new([10, 0, 0, 1].into(), port);
        let content = ClientContent::Srtp { ssrc, sequence: 0, end: [0; 16] };
        times_ms.iter().map(|ms| ClientPacket { at_ns: ms * MS, client, content }).collect()
    }

    fn page(at_ms: f64, packets: [(u32, u64); 2]) -> PageReport {
        PageReport {
            states: CONNECTED.map(|state| Some(state.to_owned())).into(),
            path: Value::Null,
            received: vec![ENOUGH; 3],
            audio: BTreeSet::new(),
            packets: packets.into(),
            at_ms,
            frozen_ms: 0,
            freezes: 0,
        }
    }

    #[test]
    fn pauses_of_audio_are_measured_around_a_fault() {
        let all = [
            packets(1, 1, &[900, 980, 1_030, 1_100, 1_180]),
            packets(2, 2, &[400, 900, 950, 1_000, 1_020]),
            packets(3, 2, &[900, 1_900]),
            packets(4, 1, &[100, 300]),
        ];
        let effect = effect(&all.concat(), &[1, 2, 4].into(), 1_000 * MS..1_600 * MS);
        let gaps: Vec<u64> = effect.gaps_ns.iter().map(|ns| ns / MS).collect();
        assert_eq!((effect.hit, gaps, effect.unheard), (2, vec![420, 580], 1));
    }

    #[test]
    fn rate_of_frames_is_that_between_reports() {
        let page = |at_ms, frames| {
            let good = page(at_ms, [(1, 0), (2, 0)]);
            PageReport { received: vec![0, 0, frames], ..good }
        };
        assert_eq!(frames_per_second(&page(500.0, 100), &page(2_500.0, 160)), 30.0);
    }

    #[test]
    fn packets_that_no_statistics_count_were_refused() {
        let times: Vec<u64> = (0..200).chain([1_001]).collect();
        let all = [packets(1, 1, &times), packets(2, 1, &times)].concat();
        let begun = page(100.0, [(1, 90), (2, 0)]);
        let refused = |last| refused(&all, &begun, &page(1_000.0, last));
        assert_eq!(refused([(1, 190), (2, 80)]), 0);
        assert_eq!(refused([(1, 150), (2, 79)]), 21);
    }

    #[test]
    fn call_begins_once_all_is_connected_and_received() {
        let begun = |page: PageReport| page.has_begun();
        let good = page(0.0, [(1, 0), (2, 0)]);
        assert!(begun(good.clone()));
        assert!(!begun(PageReport { received: vec![ENOUGH, ENOUGH - 1, ENOUGH], ..good.clone() }));
        let states = vec![good.states[0].clone(), good.states[1].clone(), None];
        assert!(!begun(PageReport { states, ..good }));
    }
}
