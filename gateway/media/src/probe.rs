//! A client's probe of its path to the gateway, before there is a session: trains of numbered packets, each answered by one of the
//! same size; the measurement of the path from their times; the forecast of a call on it.
//!
//! By UDP a packet is a STUN binding request (RFC 8489) with the ufrag and password of the probe, padded as RFC 5780 says. Its number is in
//! the first two bytes of the transaction identifier; ten random bytes remain, and the password protects both ways.
//!
//! By WebTransport a packet is a DATAGRAM that begins with its number, and its answer has the same bytes. The connection protects both.

use std::ops::Range;
use std::time::Duration;

use crate::quality::{Codec, HeardLoss, r_factor};
use crate::stun::Transaction;

/// Packets of one size at one interval.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PacketTrain {
    /// Number of packets.
    pub packets: u16,
    /// Time from one packet to the next.
    pub interval: Duration,
    /// Bytes of each UDP payload; a multiple of 4, as STUN needs.
    pub bytes: u16,
}

const fn train(packets: u16, interval_us: u64, bytes: u16) -> PacketTrain {
    PacketTrain { packets, interval: Duration::from_micros(interval_us), bytes }
}

/// Bytes of a packet of the trains of video by UDP: those of encoders, with space for the headers of SRTP and tunnels.
const VIDEO_BYTES: u16 = 1_200;

/// The same by WebTransport: DATAGRAMs of a new connection have 1,200 bytes less the headers of QUIC.
const WEBTRANSPORT_VIDEO_BYTES: u16 = 1_000;

/// The trains of a probe by UDP, one after the other, 3 s in all: voice; three sizes for the MTU of tunnels and of Ethernet, where a loss
/// of one packet hides none; video at the rates of `RESOLUTIONS`, 250 ms each.
const UDP_TRAINS: [PacketTrain; 10] = [
    train(140, 10_000, 160),
    train(3, 10_000, 1_252),
    train(3, 10_000, 1_372),
    train(3, 10_000, 1_472),
    train(4, 64_000, VIDEO_BYTES),
    train(9, 27_429, VIDEO_BYTES),
    train(13, 19_200, VIDEO_BYTES),
    train(23, 10_667, VIDEO_BYTES),
    train(65, 3_840, VIDEO_BYTES),
    train(104, 2_400, VIDEO_BYTES),
];

/// The same by WebTransport, with the sizes at which DATAGRAMs of browsers end.
const WEBTRANSPORT_TRAINS: [PacketTrain; 10] = [
    train(140, 10_000, 160),
    train(3, 10_000, 1_052),
    train(3, 10_000, 1_100),
    train(3, 10_000, 1_152),
    train(4, 53_334, WEBTRANSPORT_VIDEO_BYTES),
    train(11, 22_858, WEBTRANSPORT_VIDEO_BYTES),
    train(15, 16_000, WEBTRANSPORT_VIDEO_BYTES),
    train(28, 8_889, WEBTRANSPORT_VIDEO_BYTES),
    train(78, 3_200, WEBTRANSPORT_VIDEO_BYTES),
    train(125, 2_000, WEBTRANSPORT_VIDEO_BYTES),
];

/// Position of the first train of video.
const VIDEO: usize = 4;

/// Number of packets of a probe at most.
pub const PACKETS_MAX: usize = {
    let (udp, webtransport) =
        (ProbeTransport::Udp.packets(), ProbeTransport::WebTransport.packets());
    if udp > webtransport { udp } else { webtransport }
};

/// Lines of a picture, and the kbit/s that an encoder needs for them: the target rates of libwebrtc (`kSimulcastFormats` in
/// `media/engine/simulcast.cc`).
const RESOLUTIONS: [(u16, u32); 6] =
    [(1080, 4_000), (720, 2_500), (540, 900), (360, 500), (270, 350), (180, 150)];

/// A rate counts as that of the next resolution from this share of it on, because packets of a train are few.
const RATE_PERCENT: u32 = 95;

/// An answer that is this much later than the fastest one comes too late for a call (ITU-T G.114), and counts as lost.
const LATE_AFTER_US: u32 = 150_000;

/// Above this loss pictures freeze often although losses are repaired.
const VIDEO_LOSS_MAX_PPM: u32 = 100_000;

/// R from which users are satisfied, some are dissatisfied, and, below the last, nearly all are (ITU-T G.109).
const R_GOOD: u32 = 8_000;
const R_FAIR: u32 = 7_000;
const R_POOR: u32 = 5_000;

/// Time that a frame of voice takes to be recorded, and the shortest time that it waits in a jitter buffer.
const FRAME: Duration = Duration::from_millis(20);
const BUFFERED_MIN: Duration = Duration::from_millis(40);

/// The transaction identifier of a packet.
pub fn transaction(number: u16, random: [u8; 10]) -> Transaction {
    let mut id = [0; 12];
    id[..2].copy_from_slice(&number.to_be_bytes());
    id[2..].copy_from_slice(&random);
    Transaction(id)
}

/// The number of a packet.
pub fn number(Transaction([high, low, ..]): Transaction) -> u16 {
    u16::from_be_bytes([high, low])
}

/// The transport of a probe, which determines its packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProbeTransport {
    Udp,
    WebTransport,
}

impl ProbeTransport {
    /// The packets to send, one train after the other.
    pub const fn trains(self) -> &'static [PacketTrain] {
        match self {
            ProbeTransport::Udp => &UDP_TRAINS,
            ProbeTransport::WebTransport => &WEBTRANSPORT_TRAINS,
        }
    }

    /// Number of packets of all trains.
    pub const fn packets(self) -> usize {
        let (trains, mut packets, mut at) = (self.trains(), 0, 0);
        while at < trains.len() {
            packets += trains[at].packets as usize;
            at += 1;
        }
        packets
    }

    /// The size of the packet with this number; `None` beyond the last train.
    pub fn bytes_of(self, number: u16) -> Option<u16> {
        let mut trains = self.numbered_trains();
        trains.find(|(numbers, _)| numbers.contains(&number)).map(|(_, train)| train.bytes)
    }

    /// The trains with the numbers of their packets.
    fn numbered_trains(self) -> impl Iterator<Item = (Range<u16>, PacketTrain)> {
        let mut next = 0;
        self.trains().iter().map(move |train| {
            let first = next;
            next += train.packets;
            (first..next, *train)
        })
    }
}

/// A path, as a probe measured it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PathMeasurement {
    /// Median of voice.
    pub round_trip_us: u32,
    /// Of the round trips of voice (RFC 3550, appendix A.8).
    pub jitter_us: u32,
    /// Share of the packets of voice that did not reach the gateway, parts per million.
    pub loss_up_ppm: u32,
    /// Share of the answers to voice that did not reach the client in time.
    pub loss_down_ppm: u32,
    /// The highest rate that passed in both directions at the same time; at most that of the last train.
    pub rate_kbps: u32,
    /// The largest UDP payload that passed in both directions; 0: none.
    pub payload_max: u16,
}

impl PathMeasurement {
    /// Measures from the packets that the gateway received, and from the client's round trips by number. A round trip of a packet
    /// that the gateway has not received counts as none.
    pub fn new(
        transport: ProbeTransport,
        is_received: impl Fn(u16) -> bool,
        round_trips_us: &[Option<u32>],
    ) -> PathMeasurement {
        let answered = |number: u16| {
            let round_trip = round_trips_us.get(usize::from(number)).copied().flatten();
            round_trip.filter(|_| is_received(number))
        };
        let trains = || transport.numbered_trains();
        let voice = 0..transport.trains()[0].packets;
        let fastest = voice.clone().filter_map(answered).min().unwrap_or(0);
        let in_time =
            |number| answered(number).filter(|us| *us - fastest.min(*us) <= LATE_AFTER_US);
        let times: Vec<u32> = voice.clone().filter_map(in_time).collect();
        let received = voice.clone().filter(|number| is_received(*number)).count();
        let video = trains().skip(VIDEO);
        let rates = video.map(|(numbers, train)| rate_kbps(numbers, train, in_time));
        let passed =
            trains().filter(|(numbers, _)| numbers.clone().any(|it| in_time(it).is_some()));
        PathMeasurement {
            round_trip_us: median(times.clone()),
            jitter_us: jitter(&times),
            loss_up_ppm: lost_ppm(voice.len(), received),
            loss_down_ppm: lost_ppm(received, times.len()),
            rate_kbps: rates.max().unwrap_or(0),
            payload_max: passed.map(|(_, train)| train.bytes).max().unwrap_or(0),
        }
    }

    /// The loss of the worse direction.
    pub fn loss_ppm(&self) -> u32 {
        self.loss_up_ppm.max(self.loss_down_ppm)
    }

    /// The R-factor of voice on this path, in hundredths. The other client's path is unknown, and is taken as perfect.
    pub fn r_factor(&self) -> u32 {
        r_factor(self.delay(), HeardLoss::random(self.loss_ppm()), Codec::Opus)
    }

    /// From mouth to ear, up to the gateway.
    fn delay(&self) -> Duration {
        let buffered = 2 * Duration::from_micros(self.jitter_us.into());
        FRAME + Duration::from_micros(self.round_trip_us.into()) / 2 + buffered.max(BUFFERED_MIN)
    }

    /// The lines of the picture that the path carries; 0: none.
    pub fn video_lines(&self) -> u16 {
        if self.loss_ppm() > VIDEO_LOSS_MAX_PPM || !self.passes_video() {
            return 0;
        }
        let passes = |rate: u32| 100 * self.rate_kbps >= RATE_PERCENT * rate;
        RESOLUTIONS.into_iter().find(|(_, rate)| passes(*rate)).map_or(0, |(lines, _)| lines)
    }

    /// Packets as large as those of video pass.
    fn passes_video(&self) -> bool {
        self.payload_max >= VIDEO_BYTES.min(WEBTRANSPORT_VIDEO_BYTES)
    }

    /// The forecast for a user, and the remedy if there may be one: `voice good, video 360p; try Wi-Fi`.
    pub fn verdict(&self) -> String {
        if self.payload_max == 0 {
            return "no call: UDP does not pass; try another network".to_owned();
        }
        let (r, lines) = (self.r_factor(), self.video_lines());
        let voice = match r {
            R_GOOD.. => "good",
            R_FAIR.. => "fair",
            R_POOR.. => "poor",
            _ => "bad",
        };
        let video = match lines {
            0 => "no video".to_owned(),
            lines => format!("video {lines}p"),
        };
        let remedy = if r >= R_GOOD && lines >= 720 {
            ""
        } else if !self.passes_video() {
            "; try without VPN"
        } else if r < R_GOOD && r_factor(self.delay(), HeardLoss::random(0), Codec::Opus) < R_GOOD {
            "; try a nearer region"
        } else {
            "; try Wi-Fi"
        };
        format!("voice {voice}, {video}{remedy}")
    }
}

/// The rate of the packets of a train that were answered in time. Answers that have queued take longer to arrive than the packets to be sent.
fn rate_kbps(numbers: Range<u16>, train: PacketTrain, in_time: impl Fn(u16) -> Option<u32>) -> u32 {
    let sent_us = |at: u16| train.interval.as_micros() as u64 * u64::from(at);
    let arrivals_us: Vec<u64> = (0..)
        .zip(numbers)
        .filter_map(|(at, number)| Some(sent_us(at) + u64::from(in_time(number)?)))
        .collect();
    let first = arrivals_us.iter().min().copied().unwrap_or(0);
    let last = arrivals_us.iter().max().copied().unwrap_or(0);
    let answers = arrivals_us.len() as u64;
    let arriving_us = ((last - first) * answers).checked_div(answers.saturating_sub(1));
    let took_us = sent_us(train.packets).max(arriving_us.unwrap_or(0));
    let bits = answers * u64::from(train.bytes) * 8;
    (bits * 1_000 / took_us) as u32
}

fn median(mut times: Vec<u32>) -> u32 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or(0)
}

fn jitter(round_trips_us: &[u32]) -> u32 {
    let steps = round_trips_us.windows(2).map(|pair| f64::from(pair[0].abs_diff(pair[1])));
    steps.fold(0.0, |jitter, step| jitter + (step - jitter) / 16.0) as u32
}

fn lost_ppm(sent: usize, arrived: usize) -> u32 {
    let lost = sent.saturating_sub(arrived) as u64;
    (lost * 1_000_000).checked_div(sent as u64).unwrap_or(0) as u32
}

#[cfg(test)]
mod tests;
