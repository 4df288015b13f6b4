//! Clients that are other programs, in calls, as their statistics and a capture show them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use evenkeel_lab::clock;
use evenkeel_lab::crowd::FaultEffect;
use evenkeel_lab::process::ChildProcess;
use evenkeel_testkit::capture::Capture;
use evenkeel_testkit::client_packets::{
    AcceptedPacket, ClientContent, ClientPacket, RefusedPacket, frozen_ns, refused,
};
use evenkeel_testkit::clients::{SYSTEM_PYTHON, browser_packages, ecdsa_certificate, python};
use evenkeel_testkit::need::Need;
use serde::Deserialize;
use serde_json::Value;

use super::TransportCounts;
use crate::process;
use crate::stage::{CROWD, Places, Stage};

/// Packets and frames that each end receives before its call counts as begun.
const ENOUGH: u64 = 100;
/// Programs start and connect within this time, on busy processors too.
const BEGUN_WITHIN: Duration = Duration::from_secs(60);
/// Programs report four times a second.
const REPORTED_WITHIN: Duration = Duration::from_secs(10);
const ENDED_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A stream without a packet in this time before a fault has ended.
const RECENTLY_NS: u64 = 500_000_000;
/// The states of a transport that passes packets (W3C webrtc, `RTCIceConnectionState`).
const CONNECTED: [&str; 2] = ["connected", "completed"];
/// A program has processed what reached it this long before a report.
const PROCESSED_AFTER_NS: u64 = 2_000_000_000;
/// Ends of each library.
const ENDS: usize = 10;
/// Calls of libraries that have video, too: encoders for all would leave no processor time to measure voice.
const VIDEO_CALLS: usize = 1;
/// The payload type of Opus in offers of the lab.
const VIEWERS_OPUS: u8 = 111;

/// The programs of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ThirdParty {
    /// Two pages of Chromium in a call.
    Pages,
    /// Calls of voice, some with video, between an end by aiortc and one by GStreamer.
    Libraries,
    /// A page of Chromium that publishes a stream. Clients of the lab view it.
    Publisher,
}

/// A program with its arguments.
struct ClientCommand {
    name: &'static str,
    program: PathBuf,
    words: Vec<String>,
    /// The sessions that it opens.
    ends: usize,
}

impl ThirdParty {
    pub(crate) const fn sessions(self) -> u32 {
        match self {
            ThirdParty::Pages => 2,
            ThirdParty::Libraries => 2 * ENDS as u32,
            ThirdParty::Publisher => 1,
        }
    }

    /// True if clients of the lab view its streams.
    pub(crate) fn has_lab_viewers(self) -> bool {
        self == ThirdParty::Publisher
    }

    /// True if each program tells its candidate pair. GStreamer does not.
    pub(crate) fn tells_paths(self) -> bool {
        self != ThirdParty::Libraries
    }

    /// # Errors
    /// A program is not installed.
    pub(crate) fn require(self) -> Result<(), String> {
        match self {
            ThirdParty::Pages | ThirdParty::Publisher => Need::Chromium.require(),
            ThirdParty::Libraries => {
                Need::Aiortc.require().and_then(|()| Need::Webrtcbin.require())
            }
        }
    }

    fn commands(self, places: &Places, stage: &Stage) -> Result<Vec<ClientCommand>, String> {
        let interop = Path::new(env!("CARGO_MANIFEST_DIR")).join("../interop");
        let text = |path: &Path| path.display().to_string();
        let api = text(&stage.gateway().socket);
        let pages: &[&str] = match self {
            ThirdParty::Pages => &["--recorded", "chromium", "chromium"],
            ThirdParty::Publisher => &["--publish", "chromium"],
            ThirdParty::Libraries => &[],
        };
        if !pages.is_empty() {
            let first = [text(&interop.join("browser/call.js")), text(&browser_packages())];
            let pages: Vec<String> = pages.iter().map(|word| (*word).to_owned()).collect();
            let words = [&first[..], &pages, &[api, format!("{CROWD}-1")]].concat();
            let ends = self.sessions() as usize;
            return Ok(vec![ClientCommand { name: "pages", program: "node".into(), words, ends }]);
        }
        let certificate = places.folder.join("webrtcbin.pem");
        let written = fs::write(&certificate, ecdsa_certificate());
        written.map_err(|error| format!("{}: {error}", certificate.display()))?;
        let (rooms, with_video) = (ENDS.to_string(), VIDEO_CALLS.to_string());
        let options = ["--audio", "--rooms", &rooms, "--video-rooms", &with_video];
        let options = options.map(str::to_owned);
        let words = |script: &str, own: Vec<String>| {
            let rest = [api.clone(), CROWD.to_owned()];
            [vec![text(&interop.join(script))], own, options.to_vec(), rest.to_vec()].concat()
        };
        let by_aiortc = words("webrtc_call.py", vec!["aiortc".to_owned()]);
        let address = stage.clients_at().to_string();
        let by_gstreamer =
            words("webrtc_gstreamer.py", vec![text(&certificate), address, "call".to_owned()]);
        let command = |name, program, words| ClientCommand { name, program, words, ends: ENDS };
        Ok(vec![
            command("aiortc", python(), by_aiortc),
            command("gstreamer", SYSTEM_PYTHON.into(), by_gstreamer),
        ])
    }
}

/// An end, as `observe` of `tests/interop/browser/browser.js` reports it.
#[derive(Clone, PartialEq, Deserialize, Debug)]
struct EndReport {
    /// The states of the connection, of ICE and, in pages, of DTLS.
    states: Vec<Option<String>>,
    /// The candidate pair and its credentials; in pages also its changes, and both certificates. GStreamer does not tell.
    #[serde(default)]
    path: Value,
    /// Packets of audio and, with video, its packets and the frames decoded.
    received: Vec<u64>,
    /// The SSRCs of audio that it receives.
    audio: BTreeSet<u32>,
    /// The SSRCs of video, of libraries.
    #[serde(default)]
    video: BTreeSet<u32>,
    /// Time of the report, milliseconds since the Unix epoch.
    at_ms: f64,
    /// The time for which video was frozen (`totalFreezesDuration`).
    frozen_ms: Option<u64>,
    freezes: Option<u64>,
    /// Requests for key frames of the video that it sends.
    key_frames_asked: Option<u64>,
}

impl EndReport {
    fn is_connected(&self) -> bool {
        let connected = |state: &Option<String>| {
            state.as_deref().is_some_and(|state| CONNECTED.contains(&state))
        };
        !self.states.is_empty() && self.states.iter().all(connected)
    }

    fn has_begun(&self) -> bool {
        self.is_connected() && self.received.iter().all(|count| *count >= ENOUGH)
    }

    fn frames(&self) -> Option<u64> {
        self.received.get(2).copied()
    }
}

/// A running program. Dropping it ends it.
struct ClientProgram {
    process: ChildProcess,
    ends: usize,
    /// The reports with which its calls began.
    begun: Vec<EndReport>,
    /// Its lines of output then.
    lines_before: usize,
    /// The reports with which the observation began.
    observed: Vec<EndReport>,
    /// The last reports.
    last: Vec<EndReport>,
}

impl ClientProgram {
    fn start(command: ClientCommand, places: &Places) -> Result<ClientProgram, String> {
        let ClientCommand { name, program, words, ends } = command;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let process = process::start(name, &program, &words, &places.folder)?;
        let process = process.with_grace(ENDED_WITHIN);
        let [begun, observed, last] = [const { Vec::new() }; 3];
        Ok(ClientProgram { process, ends, begun, lines_before: 0, observed, last })
    }

    /// Waits until all of its calls have begun.
    async fn begin(&mut self) -> Result<(), String> {
        let ends = self.ends;
        let has_begun = |lines: &[String]| lines.last().is_some_and(|line| begins(line, ends));
        self.look(BEGUN_WITHIN, has_begun).await?;
        self.lines_before = self.process.lines().len();
        self.renew().await?;
        self.begun.clone_from(&self.last);
        Ok(())
    }

    /// Waits for a report that begins after this call.
    async fn renew(&mut self) -> Result<(), String> {
        let count = self.process.lines().len() + 2;
        let lines = self.look(REPORTED_WITHIN, |lines| lines.len() >= count).await?;
        self.last = lines.last().and_then(|line| ends_of(line)).unwrap_or_default();
        if self.last.len() == self.ends {
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
}

/// The clients of a row.
pub(crate) struct ThirdPartyClients {
    kind: ThirdParty,
    programs: Vec<ClientProgram>,
    /// The sessions that receive audio.
    receivers: usize,
    /// The time when all calls had begun.
    begun_ns: u64,
}

impl ThirdPartyClients {
    /// Starts them in the network namespace of this thread, and waits until all calls have begun. `viewers`: the sessions of the lab
    /// that receive their streams.
    pub(crate) async fn start(
        kind: ThirdParty,
        viewers: u32,
        places: &Places,
        stage: &Stage,
    ) -> Result<ThirdPartyClients, String> {
        let start = |command| ClientProgram::start(command, places);
        let programs = kind.commands(places, stage)?.into_iter().map(start);
        let mut programs: Vec<ClientProgram> = programs.collect::<Result<_, _>>()?;
        for program in &mut programs {
            program.begin().await?;
        }
        let receivers = match kind {
            ThirdParty::Publisher => viewers,
            ThirdParty::Pages | ThirdParty::Libraries => kind.sessions(),
        };
        let (receivers, begun_ns) = (receivers as usize, clock::now_ns());
        Ok(ThirdPartyClients { kind, programs, receivers, begun_ns })
    }

    /// Each end by a report before and the last one.
    fn since(
        &self,
        before: fn(&ClientProgram) -> &[EndReport],
    ) -> impl Iterator<Item = (&EndReport, &EndReport)> {
        self.programs.iter().flat_map(move |program| before(program).iter().zip(&program.last))
    }

    fn since_begun(&self) -> impl Iterator<Item = (&EndReport, &EndReport)> {
        self.since(|program| &program.begun)
    }

    fn since_observed(&self) -> impl Iterator<Item = (&EndReport, &EndReport)> {
        self.since(|program| &program.observed)
    }

    /// Begins an observation of all ends.
    pub(crate) async fn begin_observation(&mut self) -> Result<(), String> {
        for program in &mut self.programs {
            program.renew().await?;
            program.observed.clone_from(&program.last);
        }
        Ok(())
    }

    /// Ends an observation with the pauses of audio in this span.
    pub(crate) async fn end_observation(
        &mut self,
        capture: &Capture<ClientPacket>,
        span: Range<u64>,
    ) -> Result<EndObservation, String> {
        for program in &mut self.programs {
            program.renew().await?;
        }
        let mut effect = self.effect(capture, span.clone());
        let (hit, receivers) = (effect.hit, self.receivers);
        if hit != receivers {
            return Err(format!("{hit} of {receivers} receivers got audio before the fault"));
        }
        let grown = |figure: fn(&EndReport) -> Option<u64>| {
            let both = self
                .since_observed()
                .map(move |(before, last)| Some(figure(last)? - figure(before)?));
            both.flatten().collect::<Vec<u64>>()
        };
        effect.freezes = grown(|end| end.freezes).into_iter().sum();
        let mut frozen_ms = grown(|end| end.frozen_ms);
        if self.kind == ThirdParty::Libraries {
            let of_libraries = self.frozen_ms(capture, span);
            let (streams, ends) = (of_libraries.len(), 2 * VIDEO_CALLS);
            if streams != ends {
                return Err(format!("{streams} of {ends} ends got video before the fault"));
            }
            frozen_ms.extend(of_libraries);
        }
        let asked = grown(|end| end.key_frames_asked);
        let key_frames_asked =
            asked.first().copied().filter(|_| self.kind == ThirdParty::Publisher);
        let rates =
            self.since_observed().filter_map(|(before, last)| frames_per_second(before, last));
        let frames_per_second = rates.min_by(f64::total_cmp);
        Ok(EndObservation { effect, frozen_ms, frames_per_second, key_frames_asked })
    }

    /// The pauses of the audio at the client's interface in this span.
    pub(crate) fn effect(&self, capture: &Capture<ClientPacket>, span: Range<u64>) -> FaultEffect {
        let ends = self.programs.iter().flat_map(|program| &program.last);
        let audio: BTreeSet<u32> = ends.flat_map(|end| &end.audio).copied().collect();
        let is_audio = |ssrc, payload_type| match self.kind {
            ThirdParty::Publisher => payload_type == VIEWERS_OPUS,
            ThirdParty::Pages | ThirdParty::Libraries => audio.contains(&ssrc),
        };
        capture.read(|packets| effect(packets, is_audio, span))
    }

    /// The time for which each stream of video that libraries receive stood still in this span, milliseconds.
    fn frozen_ms(&self, capture: &Capture<ClientPacket>, span: Range<u64>) -> Vec<u64> {
        let ends = self.programs.iter().flat_map(|program| &program.last);
        let video: BTreeSet<u32> = ends.flat_map(|end| &end.video).copied().collect();
        let frozen =
            capture.read(|packets| frozen_ns(packets, |ssrc, _| video.contains(&ssrc), span));
        frozen.into_iter().map(|ns| ns / 1_000_000).collect()
    }

    /// True if clients of the lab view its streams.
    pub(crate) fn has_lab_viewers(&self) -> bool {
        self.kind.has_lab_viewers()
    }

    /// The captured packets that they did not accept since the calls began. Viewers of the lab count theirs themselves.
    pub(crate) fn refused(&self, packets: &[ClientPacket]) -> Vec<RefusedPacket> {
        if self.has_lab_viewers() {
            return Vec::new();
        }
        let lines = self.programs.iter().flat_map(|program| program.process.lines());
        let accepted: Vec<AcceptedPacket> =
            lines.filter_map(|line| accepted_of(&line)).flatten().collect();
        let last = self.programs.iter().flat_map(|program| &program.last);
        let reported_ms = last.map(|end| end.at_ms).min_by(f64::total_cmp).unwrap_or_default();
        let processed_ns = ((reported_ms * 1e6) as u64).saturating_sub(PROCESSED_AFTER_NS);
        refused(packets, &accepted, self.begun_ns, processed_ns)
    }

    /// The events of all transports since the calls began. `refused`: packets that no fault explains.
    pub(crate) fn counts(&self, packets: &[ClientPacket], refused: usize) -> TransportCounts {
        let since = packets.iter().filter(|packet| packet.at_ns >= self.begun_ns);
        let dtls = since.filter(|packet| packet.content == ClientContent::Dtls).count();
        let ends = || self.since_begun();
        let restarts = || ends().filter(|(begun, last)| begun.path != last.path).count() as u64;
        TransportCounts {
            // A datagram of DTLS in a call that has begun is one of another handshake.
            handshakes: (ends().count() + dtls) as u64,
            ice_restarts: self.kind.tells_paths().then(restarts),
            authentication_failures: refused as u64,
            replayed: None,
            reused_indices: None,
        }
    }

    /// The states of a transport without connection that ends reported since the calls began.
    pub(crate) fn misses(&self) -> Vec<String> {
        let since =
            |program: &ClientProgram| program.process.lines().split_off(program.lines_before);
        let lines: Vec<String> = self.programs.iter().flat_map(since).collect();
        let ends = lines.iter().filter_map(|line| ends_of(line)).flatten();
        let states = ends.filter(|end| !end.is_connected()).map(|end| end.states);
        let other: BTreeSet<String> =
            states.map(|states| format!("an end was {states:?}")).collect();
        other.into_iter().collect()
    }
}

/// All ends over some time.
pub(crate) struct EndObservation {
    /// The pauses of audio at the interface, and the freezes.
    pub(crate) effect: FaultEffect,
    /// The time for which the video of each end was frozen, milliseconds.
    pub(crate) frozen_ms: Vec<u64>,
    /// The rate at which frames were decoded, in the end of the lowest one. `None` without video.
    pub(crate) frames_per_second: Option<f64>,
    /// Requests for key frames that reached the publisher; `None` without one.
    pub(crate) key_frames_asked: Option<u64>,
}

fn frames_per_second(before: &EndReport, after: &EndReport) -> Option<f64> {
    let seconds = (after.at_ms - before.at_ms) / 1_000.0;
    Some(after.frames()?.saturating_sub(before.frames()?) as f64 / seconds)
}

fn ends_of(line: &str) -> Option<Vec<EndReport>> {
    let mut line: Value = serde_json::from_str(line).ok()?;
    serde_json::from_value(line["ends"].take()).ok()
}

/// The packets of RTP that SRTP accepted since the line before.
fn accepted_of(line: &str) -> Option<Vec<AcceptedPacket>> {
    let mut line: Value = serde_json::from_str(line).ok()?;
    serde_json::from_value(line["accepted"].take()).ok()
}

fn begins(line: &str, ends: usize) -> bool {
    ends_of(line)
        .is_some_and(|reports| reports.len() == ends && reports.iter().all(EndReport::has_begun))
}

/// The pauses of streams that end in this span; its end ends the last pause. `is_audio` chooses streams by SSRC and payload type.
fn effect(
    packets: &[ClientPacket],
    is_audio: impl Fn(u32, u8) -> bool,
    span: Range<u64>,
) -> FaultEffect {
    let mut streams: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    let Range { start: from_ns, end: until_ns } = span;
    let span = from_ns.saturating_sub(RECENTLY_NS)..until_ns;
    for ClientPacket { at_ns, client, content } in packets {
        if let ClientContent::Srtp { ssrc, payload_type, .. } = content
            && is_audio(*ssrc, *payload_type)
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use super::*;

    const MS: u64 = 1_000_000;

    fn packets(ssrc: u32, port: u16, times_ms: &[u64]) -> Vec<ClientPacket> {
        let client = SocketAddrV4::new([10, 0, 0, 1].into(), port);
        let content = ClientContent::Srtp {
            ssrc,
            payload_type: 111,
            ends_frame: false,
            sequence: 0,
            end: [0; 16],
        };
        times_ms.iter().map(|ms| ClientPacket { at_ns: ms * MS, client, content }).collect()
    }

    fn page(at_ms: f64) -> EndReport {
        EndReport {
            states: CONNECTED.map(|state| Some(state.to_owned())).into(),
            path: Value::Null,
            received: vec![ENOUGH; 3],
            audio: BTreeSet::new(),
            video: BTreeSet::new(),
            at_ms,
            frozen_ms: Some(0),
            freezes: Some(0),
            key_frames_asked: None,
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
        let is_audio = |ssrc, payload_type| ssrc != 3 && payload_type == 111;
        let effect = effect(&all.concat(), is_audio, 1_000 * MS..1_600 * MS);
        let gaps: Vec<u64> = effect.gaps_ns.iter().map(|ns| ns / MS).collect();
        assert_eq!((effect.hit, gaps, effect.unheard), (2, vec![420, 580], 1));
    }

    #[test]
    fn rate_of_frames_is_that_between_reports() {
        let page = |at_ms, frames| {
            let good = page(at_ms);
            EndReport { received: vec![0, 0, frames], ..good }
        };
        assert_eq!(frames_per_second(&page(500.0, 100), &page(2_500.0, 160)), Some(30.0));
        let voice = EndReport { received: vec![ENOUGH], ..page(2_500.0, 160) };
        assert_eq!(frames_per_second(&voice, &voice), None);
    }

    #[test]
    fn accepted_packets_are_read_from_lines() {
        let line = r#"{"ends": [], "accepted": [[7, 65535], [8, 0]]}"#;
        let [one, other] = accepted_of(line).unwrap()[..] else { panic!("two packets") };
        assert_eq!((one.ssrc, one.sequence, other.ssrc), (7, 65_535, 8));
        assert_eq!(accepted_of(r#"{"ends": []}"#), None);
    }

    #[test]
    fn call_begins_once_all_is_connected_and_received() {
        let begun = |page: EndReport| page.has_begun();
        let good = page(0.0);
        assert!(begun(good.clone()));
        assert!(!begun(EndReport { received: vec![ENOUGH, ENOUGH - 1, ENOUGH], ..good.clone() }));
        let states = vec![good.states[0].clone(), good.states[1].clone(), None];
        assert!(!begun(EndReport { states, ..good }));
    }
}
