//! Rows of a downlink whose rate falls by 70 % in a step, and returns a minute later: how fast the video of a call follows, and what its
//! voice loses.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_lab::TestHeader;
use evenkeel_lab::clock;
use evenkeel_lab::relay::Direction;
use evenkeel_media::demux::{self, DatagramKind};
use evenkeel_media::rtcp::{self, RtcpPacket};
use evenkeel_media::rtp::extension::element;
use evenkeel_media::rtp::{self, RtpHeader};
use evenkeel_report::{AcceptanceRow, RowLimits};
use serde_json::{Value, json};

use super::clients::{DATAGRAM, REPORT_EVERY, ntp_of};
use super::content::{test_header_of, write_part};
use super::losses::{LossPlan, Losses};
use super::path::{self, HEADERS, Paths};
use super::row::{LATENCY, Medium, ROUND_TRIP, set_figure};
use super::stage::{Clients, MediaStage};
use super::{OPENED_WITHIN, SEEDS};

/// A row, and the feedback of its receivers beside their reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct AdaptRow {
    pub(super) id: &'static str,
    has_transport_cc: bool,
}

pub(super) static ROWS: [AdaptRow; 2] = [
    AdaptRow { id: "adapt.step.transport-cc", has_transport_cc: true },
    AdaptRow { id: "adapt.step.reports", has_transport_cc: false },
];

const WIDE_BPS: u64 = 2_500_000;
const NARROW_BPS: u64 = WIDE_BPS * 3 / 10;
/// Rates of a sender's video, with the headers of IPv4 and UDP.
const VIDEO_MAX_BPS: u64 = 1_900_000;
const VIDEO_MIN_BPS: u64 = 50_000;
/// The rate of voice: 100 bytes each 20 ms.
const VOICE_BPS: u64 = 40_000;
/// The video is back at this share of its rate.
const BACK_AT: f64 = 0.85;
const WIDE_FOR: Duration = Duration::from_secs(20);
const NARROW_FOR: Duration = Duration::from_secs(60);
/// Until then the rate of the path is found after its fall.
const SETTLED_AFTER: Duration = Duration::from_secs(5);
const FEEDBACK_EVERY: Duration = Duration::from_millis(100);
const LOOK_EVERY: Duration = Duration::from_millis(500);
const NAP: Duration = Duration::from_millis(1);
const CHANGES_WITHIN: Duration = Duration::from_secs(10);
const EXTENSION_ID: u8 = 5;
const EXTENSION_URI: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// The times of a row.
#[derive(Clone, Copy, Debug)]
struct Step {
    begins: Instant,
    narrow: Instant,
    wide_again: Instant,
    ends: Instant,
}

impl Step {
    fn new(begins: Instant) -> Step {
        let narrow = begins + WIDE_FOR;
        let wide_again = narrow + NARROW_FOR;
        Step { begins, narrow, wide_again, ends: wide_again + WIDE_FOR }
    }
}

/// A change of a value at a time.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Change<T> {
    at: Instant,
    to: T,
}

/// A stream that a sender sends.
struct OutgoingStream {
    medium: Medium,
    ssrc: u32,
    next: u64,
    /// The next frame, from 0.
    frame: usize,
    octets: u32,
}

impl OutgoingStream {
    fn new(medium: Medium, session: u64) -> OutgoingStream {
        let ssrc = 0xada0_0000 + 2 * session as u32 + u32::from(medium == Medium::Video);
        OutgoingStream { medium, ssrc, next: 0, frame: 0, octets: 0 }
    }

    fn timestamp(&self) -> u32 {
        (self.frame as u32).wrapping_mul(self.medium.ticks_per_frame())
    }

    /// Sends the next frame, of this many bytes in packets of at most the usual length.
    fn send(&mut self, session: u64, bytes: usize, mut send: impl FnMut(&[u8])) {
        let packets = bytes.div_ceil(self.medium.payload_length()).max(1);
        let length = (bytes / packets).max(TestHeader::LENGTH + 1);
        for place in 0..packets {
            let fields = rtp::Fields {
                payload_type: self.medium.payload_type(),
                marker: self.medium == Medium::Video && place + 1 == packets,
                sequence: self.next as u16,
                timestamp: self.timestamp(),
                ssrc: self.ssrc,
            };
            let content = write_part(self.medium, session, self.next as usize, place == 0, length);
            let mut packet = Vec::new();
            rtp::write(&fields, &content, &mut packet);
            send(&packet);
            self.next += 1;
            self.octets = self.octets.wrapping_add(length as u32);
        }
        self.frame += 1;
    }
}

/// A sender of voice, and of video at the rate that it is asked for.
struct AdaptSender {
    socket: UdpSocket,
    gateway: SocketAddr,
    session: u64,
    begins: Instant,
    streams: [OutgoingStream; 2],
    /// The rate of its video, the last one now.
    rates: Vec<Change<u64>>,
    reports_at: Instant,
}

impl AdaptSender {
    fn new(session: u64, begins: Instant) -> io::Result<AdaptSender> {
        let socket = path::socket()?;
        let gateway = socket.local_addr()?;
        let streams = [Medium::Voice, Medium::Video].map(|it| OutgoingStream::new(it, session));
        let rates = vec![Change { at: begins, to: VIDEO_MAX_BPS }];
        Ok(AdaptSender { socket, gateway, session, begins, streams, rates, reports_at: begins })
    }

    fn rate(&self) -> u64 {
        self.rates.last().map_or(VIDEO_MAX_BPS, |change| change.to)
    }

    fn receive(&mut self, now: Instant) {
        let mut datagram = [0; DATAGRAM];
        while let Ok((length, _)) = self.socket.recv_from(&mut datagram) {
            let datagram = &datagram[..length];
            if demux::classify(datagram) != DatagramKind::Rtcp {
                continue;
            }
            for packet in rtcp::packets(datagram).flatten() {
                if let RtcpPacket::Remb(remb) = packet {
                    let to = remb.bitrate_bps.saturating_sub(VOICE_BPS);
                    let to = to.clamp(VIDEO_MIN_BPS, VIDEO_MAX_BPS);
                    if to != self.rate() {
                        self.rates.push(Change { at: now, to });
                    }
                }
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        let rate = self.rate();
        let (socket, gateway, session) = (&self.socket, self.gateway, self.session);
        for stream in &mut self.streams {
            while self.begins + stream.medium.since_first(stream.frame) <= now {
                let bytes = match stream.medium {
                    Medium::Voice => Medium::Voice.payload_length(),
                    Medium::Video => {
                        let frame = rate as usize / 8 / Medium::Video.frames_per_second();
                        let packets = frame.div_ceil(Medium::Video.payload_length());
                        frame.saturating_sub(packets * (HEADERS as usize + rtp::HEADER_LEN))
                    }
                };
                // A full socket loses the packet, as any network would.
                stream.send(session, bytes, |packet| {
                    let _lost_at_worst = socket.send_to(packet, gateway);
                });
            }
        }
        if now < self.reports_at {
            return;
        }
        self.reports_at = now + REPORT_EVERY;
        for stream in &self.streams {
            let info = rtcp::SenderInfo {
                ssrc: stream.ssrc,
                ntp: ntp_of(clock::now_ns()),
                timestamp: stream.timestamp(),
                packets: stream.next as u32,
                octets: stream.octets,
            };
            let mut report = Vec::new();
            rtcp::write_sender_report(&info, &[], &mut report);
            rtcp::write_cname(stream.ssrc, b"sender", &mut report);
            let _lost_at_worst = socket.send_to(&report, gateway);
        }
    }
}

/// A stream that a receiver gets, for its reports.
#[derive(Clone, Copy, Debug)]
struct CountedStream {
    ssrc: u32,
    ahead: u16,
    first: u64,
    highest: u64,
    received: u64,
    expected_before: u64,
    received_before: u64,
    /// The middle bits of the NTP time of the last sender report, and its arrival.
    reported: Option<Change<u32>>,
}

/// A receiver of voice and video.
struct AdaptReceiver {
    socket: UdpSocket,
    gateway: SocketAddr,
    ssrc: u32,
    has_transport_cc: bool,
    begins: Instant,
    streams: BTreeMap<u8, CountedStream>,
    /// Arrivals of voice, by number.
    voice: BTreeMap<u64, Instant>,
    /// Bytes of each datagram, with the headers of IPv4 and UDP.
    bytes: Vec<Change<u64>>,
    /// Arrivals since the last feedback in its units, by extended transport-wide number.
    arrivals: BTreeMap<u32, i64>,
    next_number: Option<u32>,
    feedbacks: u8,
    reports_at: Instant,
    feedback_at: Instant,
}

impl AdaptReceiver {
    fn new(session: u64, begins: Instant, has_transport_cc: bool) -> io::Result<AdaptReceiver> {
        let socket = path::socket()?;
        let gateway = socket.local_addr()?;
        Ok(AdaptReceiver {
            socket,
            gateway,
            ssrc: 0xadae_0000 + session as u32,
            has_transport_cc,
            begins,
            streams: BTreeMap::new(),
            voice: BTreeMap::new(),
            bytes: Vec::new(),
            arrivals: BTreeMap::new(),
            next_number: None,
            feedbacks: 0,
            reports_at: begins,
            feedback_at: begins,
        })
    }

    fn receive(&mut self, now: Instant) {
        let mut datagram = [0; DATAGRAM];
        while let Ok((length, _)) = self.socket.recv_from(&mut datagram) {
            let datagram = &datagram[..length];
            self.bytes.push(Change { at: now, to: length as u64 + HEADERS });
            match demux::classify(datagram) {
                DatagramKind::Rtp => self.handle_media(datagram, now),
                DatagramKind::Rtcp => {
                    for packet in rtcp::packets(datagram).flatten() {
                        let RtcpPacket::SenderReport(report) = packet else { continue };
                        let mut streams = self.streams.values_mut();
                        if let Some(stream) = streams.find(|it| it.ssrc == report.info.ssrc) {
                            let to = (report.info.ntp >> 16) as u32;
                            stream.reported = Some(Change { at: now, to });
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn handle_media(&mut self, packet: &[u8], now: Instant) {
        let Ok(header) = RtpHeader::parse(packet) else { return };
        if let Some(&[high, low]) = element(packet, &header, EXTENSION_ID) {
            let number = u16::from_be_bytes([high, low]);
            let next = self.next_number.unwrap_or(1 << 16 | u32::from(number));
            let ahead = number.wrapping_sub(next as u16) as i16;
            let extended = next.wrapping_add_signed(ahead.into());
            let since = now.saturating_duration_since(self.begins).as_micros() as i64;
            self.next_number.get_or_insert(extended);
            self.arrivals.insert(extended, since / rtcp::TICK_US);
        }
        let Some(sent) = test_header_of(header.payload(packet)) else { return };
        let stream = self.streams.entry(header.payload_type).or_insert(CountedStream {
            ssrc: header.ssrc,
            ahead: header.sequence.wrapping_sub(sent.number as u16),
            first: sent.number,
            highest: sent.number,
            received: 0,
            expected_before: 0,
            received_before: 0,
            reported: None,
        });
        stream.highest = stream.highest.max(sent.number);
        stream.received += 1;
        if header.payload_type == Medium::Voice.payload_type() {
            self.voice.entry(sent.number).or_insert(now);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if now >= self.reports_at {
            self.reports_at = now + REPORT_EVERY;
            let blocks: Vec<rtcp::ReportBlock> =
                self.streams.values_mut().map(|stream| stream.block(now)).collect();
            let mut report = Vec::new();
            rtcp::write_receiver_report(self.ssrc, &blocks, &mut report);
            rtcp::write_cname(self.ssrc, b"receiver", &mut report);
            let _lost_at_worst = self.socket.send_to(&report, self.gateway);
        }
        if self.has_transport_cc && now >= self.feedback_at {
            self.feedback_at = now + FEEDBACK_EVERY;
            self.send_feedback();
        }
    }

    fn send_feedback(&mut self) {
        let (Some(first), Some((&last, _))) = (self.next_number, self.arrivals.last_key_value())
        else {
            return;
        };
        let media = self.streams.values().next().map_or(0, |stream| stream.ssrc);
        let numbers = first.min(last)..=last;
        let base = *numbers.start() as u16;
        let arrivals: Vec<Option<i64>> =
            numbers.map(|number| self.arrivals.get(&number).copied()).collect();
        let mut feedback = Vec::new();
        rtcp::write_receiver_report(self.ssrc, &[], &mut feedback);
        rtcp::write_cname(self.ssrc, b"receiver", &mut feedback);
        let count = self.feedbacks;
        rtcp::write_transport_feedback(self.ssrc, media, base, count, &arrivals, &mut feedback);
        self.feedbacks = count.wrapping_add(1);
        self.next_number = Some(last + 1);
        self.arrivals.clear();
        let _lost_at_worst = self.socket.send_to(&feedback, self.gateway);
    }
}

impl CountedStream {
    /// The block about this stream (RFC 3550, appendix A.3).
    fn block(&mut self, now: Instant) -> rtcp::ReportBlock {
        let expected = self.highest + 1 - self.first;
        let due = expected - self.expected_before;
        let missed = due.saturating_sub(self.received - self.received_before);
        (self.expected_before, self.received_before) = (expected, self.received);
        let since = self.reported.map(|report| now.saturating_duration_since(report.at));
        let delay = since.map_or(0, |since| (since.as_secs_f64() * 65_536.0) as u32);
        let first = u32::from(self.ahead.wrapping_add(self.first as u16));
        rtcp::ReportBlock {
            ssrc: self.ssrc,
            fraction_lost: u8::try_from((missed << 8) / due.max(1)).unwrap_or(u8::MAX),
            lost: i32::try_from(expected as i64 - self.received as i64).unwrap_or(0),
            sequence_max: first + (self.highest - self.first) as u32,
            jitter: 0,
            last_sr: self.reported.map_or(0, |report| report.to),
            delay_since_last_sr: delay,
        }
    }
}

/// The figures of a call.
#[derive(Clone, Copy, PartialEq, Debug)]
struct StepFigures {
    down_ms: f64,
    up_ms: f64,
    voice_loss: f64,
    used: f64,
}

/// Plays a row: ten calls, each over a downlink of its own.
///
/// # Errors
/// The gateway fails, or does not open all sessions in time.
pub(super) fn measure(
    row: &AdaptRow,
    evenkeel: &Path,
    folder: &Path,
    limits: &RowLimits,
) -> Result<AcceptanceRow, String> {
    let system = |error: io::Error| error.to_string();
    let mut stage = MediaStage::start(evenkeel, folder, Clients::DeclaredByPolicies, Ok)?;
    let paths = Paths::start(ROUND_TRIP).map_err(system)?;
    let plan = Arc::new(LossPlan::with_parity(Losses::NONE, 0..0, 0, 1, 0));
    let step = Step::new(Instant::now() + OPENED_WITHIN);
    let mut calls = Vec::new();
    for session in 0..SEEDS {
        let begins =
            step.begins + Medium::Voice.since_first(1).mul_f64(session as f64 / SEEDS as f64);
        let mut sender = AdaptSender::new(session, begins).map_err(system)?;
        let receiver = AdaptReceiver::new(session, begins, row.has_transport_cc);
        let mut receiver = receiver.map_err(system)?;
        let lane = paths.open(Direction::Down, Arc::clone(&plan), 0..0).map_err(system)?;
        let room = format!("room-{session}");
        let address = sender.socket.local_addr().map_err(system)?;
        sender.gateway = stage.open(&offer(&room, address, false))?;
        let gateway = stage.open(&offer(&room, lane.far, row.has_transport_cc))?;
        paths.connect(lane, gateway).map_err(system)?;
        receiver.gateway = lane.near;
        calls.push((sender, receiver));
    }
    if Instant::now() > step.begins {
        return Err(format!("sessions were not open after {OPENED_WITHIN:?}"));
    }
    let mut rungs: BTreeMap<String, Vec<Change<u8>>> = BTreeMap::new();
    let mut looks_at = step.begins;
    let parts = [(WIDE_BPS, step.narrow), (NARROW_BPS, step.wide_again), (WIDE_BPS, step.ends)];
    for (rate_bps, until) in parts {
        paths.set_rate(rate_bps);
        while Instant::now() < until {
            std::thread::sleep(NAP);
            let now = Instant::now();
            for (sender, receiver) in &mut calls {
                sender.receive(now);
                sender.handle_timeout(now);
                receiver.receive(now);
                receiver.handle_timeout(now);
            }
            if now >= looks_at {
                looks_at = now + LOOK_EVERY;
                for session in stage.sessions()? {
                    let changes = rungs.entry(session.id).or_default();
                    let last = changes.last().map_or(0, |change| change.to);
                    if session.rung != last {
                        changes.push(Change { at: now, to: session.rung });
                    }
                }
            }
        }
    }
    let of_calls: Vec<StepFigures> =
        calls.iter().map(|(sender, receiver)| figures(&step, sender, receiver)).collect();
    let changes = rungs.values().map(|changes| most_changes(changes)).max().unwrap_or(0);
    Ok(judge(row.id, &of_calls, changes, limits))
}

/// The body of `POST /v1/sessions` for a client at this address.
fn offer(room: &str, address: SocketAddr, has_transport_cc: bool) -> Value {
    let mut feedback = vec!["remb"];
    feedback.extend(has_transport_cc.then_some("transport-cc"));
    let media = [(Medium::Voice, "audio", "opus"), (Medium::Video, "video", "vp8")];
    let media = media.map(|(medium, kind, codec)| {
        let payload_type = json!({
            "payload_type": medium.payload_type(),
            "codec": codec,
            "clock_rate": medium.clock_rate(),
        });
        json!({"kind": kind, "payload_types": [payload_type], "feedback": feedback})
    });
    let mut offer = json!({
        "scenario": "call",
        "room": room,
        "ingress": {"udp": {"identity": "declared", "address": address}},
        "media": media,
        "latency": format!("{}ms", LATENCY.as_millis()),
    });
    if has_transport_cc {
        offer["extensions"] = json!([{"id": EXTENSION_ID, "uri": EXTENSION_URI}]);
    }
    offer
}

fn figures(step: &Step, sender: &AdaptSender, receiver: &AdaptReceiver) -> StepFigures {
    let narrow_video = (NARROW_BPS - VOICE_BPS) as f64;
    let down = time_until(&sender.rates, step.narrow, |rate| rate as f64 <= narrow_video);
    let wide_video = BACK_AT * VIDEO_MAX_BPS as f64;
    let up = time_until(&sender.rates, step.wide_again, |rate| rate as f64 >= wide_video);
    let due = |number: u64| sender.begins + Medium::Voice.since_first(number as usize);
    let took = |number: u64, at: Instant| at.saturating_duration_since(due(number));
    let transit = receiver.voice.iter().map(|(number, at)| took(*number, *at)).min();
    let in_time = |number: u64| {
        let at = receiver.voice.get(&number);
        at.zip(transit).is_some_and(|(at, transit)| took(number, *at) <= transit + LATENCY)
    };
    let second = Medium::Voice.frames_per_second() as u64;
    let numbers = WIDE_FOR.as_secs() * second..(WIDE_FOR + NARROW_FOR).as_secs() * second;
    let lost = numbers.clone().filter(|number| !in_time(*number)).count();
    let settled = step.narrow + SETTLED_AFTER..step.wide_again;
    let bytes = receiver.bytes.iter().filter(|datagram| settled.contains(&datagram.at));
    let bits = 8 * bytes.map(|datagram| datagram.to).sum::<u64>();
    let capacity = (NARROW_FOR - SETTLED_AFTER).as_secs() * NARROW_BPS;
    StepFigures {
        down_ms: down.unwrap_or(NARROW_FOR).as_secs_f64() * 1_000.0,
        up_ms: up.unwrap_or(WIDE_FOR).as_secs_f64() * 1_000.0,
        voice_loss: 100.0 * lost as f64 / numbers.count() as f64,
        used: 100.0 * bits as f64 / capacity as f64,
    }
}

/// The time from `since` until a rate fulfils the condition. `None` if none does.
fn time_until(
    rates: &[Change<u64>],
    since: Instant,
    holds: impl Fn(u64) -> bool,
) -> Option<Duration> {
    let before = rates.iter().rev().find(|change| change.at <= since);
    if before.is_some_and(|change| holds(change.to)) {
        return Some(Duration::ZERO);
    }
    let mut later = rates.iter().filter(|change| change.at > since);
    later.find(|change| holds(change.to)).map(|change| change.at - since)
}

/// The most changes within [`CHANGES_WITHIN`].
fn most_changes(changes: &[Change<u8>]) -> usize {
    let since = |first: usize| {
        let until = changes[first].at + CHANGES_WITHIN;
        changes[first..].iter().take_while(|change| change.at < until).count()
    };
    (0..changes.len()).map(since).max().unwrap_or(0)
}

fn judge(id: &str, calls: &[StepFigures], changes: usize, limits: &RowLimits) -> AcceptanceRow {
    let mut row = AcceptanceRow::new(id);
    let mut set = |name: &str, figure: fn(&StepFigures) -> f64| {
        let values: Vec<f64> = calls.iter().map(figure).collect();
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        set_figure(&mut row, name, mean, &values);
    };
    set("down_ms", |call| call.down_ms);
    set("up_ms", |call| call.up_ms);
    set("voice_loss", |call| call.voice_loss);
    set("used", |call| call.used);
    row.set_figure("changes_10s", Some(changes as f64));
    for name in ["down_ms", "up_ms", "voice_loss", "used", "changes_10s"] {
        row.limit_by(name, limits, name);
    }
    row.judge();
    row
}

#[cfg(test)]
mod tests {
    use evenkeel_report::LimitTable;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn rate_is_followed_from_the_step_on() {
        let step = Step::new(Instant::now());
        let at = |after: u64, to: u64| Change { at: step.narrow + ms(after), to };
        let rates = [Change { at: step.begins, to: 900 }, at(150, 500), at(250, 200), at(900, 800)];
        let down = |below: u64| time_until(&rates, step.narrow, |rate| rate <= below);
        assert_eq!(
            [950, 500, 300, 100].map(down),
            [Some(ms(0)), Some(ms(150)), Some(ms(250)), None]
        );
        assert_eq!(time_until(&rates, step.narrow + ms(300), |rate| rate >= 700), Some(ms(600)));
    }

    #[test]
    fn changes_are_counted_within_ten_seconds() {
        let begins = Instant::now();
        let changes = |times: &[u64]| {
            let changes = times.iter().map(|at| Change { at: begins + ms(*at), to: 1 });
            most_changes(&changes.collect::<Vec<_>>())
        };
        assert_eq!(changes(&[]), 0);
        assert_eq!(changes(&[0, 9_999, 10_000, 12_000, 30_000]), 3);
        assert_eq!(changes(&[0, 10_000]), 1);
    }

    #[test]
    fn voice_counts_if_it_is_in_time() {
        let step = Step::new(Instant::now());
        let mut sender = AdaptSender::new(1, step.begins).unwrap();
        let mut receiver = AdaptReceiver::new(1, step.begins, true).unwrap();
        let transit = ms(20);
        let due = |number: u64| step.begins + Medium::Voice.since_first(number as usize);
        receiver.voice.extend((0..5_000).map(|number| (number, due(number) + transit)));
        let narrow_ms = WIDE_FOR.as_millis() as u64;
        sender.rates.push(Change { at: step.narrow + ms(130), to: 600_000 });
        sender.rates.push(Change { at: step.wide_again + ms(4_000), to: VIDEO_MAX_BPS });
        let bits = (NARROW_FOR - SETTLED_AFTER).as_secs() * NARROW_BPS;
        let settled = step.begins + ms(narrow_ms) + SETTLED_AFTER;
        receiver.bytes.push(Change { at: settled, to: bits / 8 });
        receiver.bytes.push(Change { at: step.wide_again, to: bits / 8 });
        let found = figures(&step, &sender, &receiver);
        let expected = StepFigures { down_ms: 130.0, up_ms: 4_000.0, voice_loss: 0.0, used: 100.0 };
        assert_eq!(found, expected);
        receiver.voice.insert(1_500, due(1_500) + transit + LATENCY + ms(1));
        receiver.voice.remove(&2_000);
        receiver.voice.remove(&4_500);
        let lost = figures(&step, &sender, &receiver).voice_loss;
        assert_eq!(lost, 100.0 * 2.0 / 3_000.0);
    }

    #[test]
    fn row_is_held_within_its_limits() {
        let ids = super::super::ids();
        let limits = LimitTable::load().unwrap().rows_of("media", &ids).unwrap();
        let good = StepFigures { down_ms: 300.0, up_ms: 7_000.0, voice_loss: 0.4, used: 86.0 };
        let held = |call: StepFigures, changes: usize| {
            judge(ROWS[0].id, &[call; 2], changes, &limits.of(ROWS[0].id)).held
        };
        assert_eq!(held(good, 2), Some(true));
        for call in [
            StepFigures { down_ms: 401.0, ..good },
            StepFigures { up_ms: 8_001.0, ..good },
            StepFigures { voice_loss: 0.6, ..good },
            StepFigures { used: 84.0, ..good },
        ] {
            assert_eq!(held(call, 2), Some(false), "{call:?}");
        }
        assert_eq!(held(good, 3), Some(false));
    }

    #[test]
    fn feedback_tells_of_packets_that_came() {
        let step = Step::new(Instant::now());
        let mut receiver = AdaptReceiver::new(1, step.begins, true).unwrap();
        receiver.socket.set_nonblocking(false).unwrap();
        receiver.socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        receiver.next_number = Some((1 << 16) | 65_534);
        receiver.arrivals =
            [((1 << 16) | 65_534, 4), ((1 << 16) | 65_535, 8), (2 << 16 | 1, 12)].into();
        receiver.send_feedback();
        let mut datagram = [0; DATAGRAM];
        let length = receiver.socket.recv(&mut datagram).unwrap();
        let packets = rtcp::packets(&datagram[..length]).flatten();
        let feedback = packets.filter(|it| matches!(it, RtcpPacket::TransportFeedback(_))).count();
        assert_eq!((feedback, receiver.next_number), (1, Some(2 << 16 | 2)));
        assert!(receiver.arrivals.is_empty());
    }
}
