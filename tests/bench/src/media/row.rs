//! The rows with simulated clients.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use evenkeel_lab::relay::Direction;
use evenkeel_report::AcceptanceRow;
use serde_json::{Value, json};

use super::codes;
use super::losses::{LossPlan, Losses, percent_of};

/// The jitter buffer of a receiver.
pub(super) const LATENCY: Duration = Duration::from_millis(120);
/// A packet is missed this long after it was due, as by `rtpjitterbuffer`.
pub(super) const REORDERING: Duration = Duration::from_millis(20);
/// A missed packet is asked for again after this time.
pub(super) const ROUND_TRIP: Duration = Duration::from_millis(40);
/// Repetitions of a packet that can come in time: one for each time that a receiver can ask for it, and two for the last time.
const REPETITIONS: usize =
    ((LATENCY.as_millis() - REORDERING.as_millis()) / ROUND_TRIP.as_millis()) as usize + 1;
/// By how many frames of 20 ms a repetition in RED can be later and still come in time.
pub(super) const FRAMES_APART: usize = (LATENCY.as_millis() / 20) as usize - 1;

/// The media of a sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Medium {
    /// Frames of 20 ms, as Opus at 24 kbit/s has them.
    Voice,
    /// 30 frames a second in 12 packets each.
    Video,
}

impl Medium {
    /// The payload type of redundant audio in all offers.
    pub(super) const RED: u8 = 63;
    /// That of FlexFEC-03.
    pub(super) const PARITY: u8 = 118;

    pub(super) fn packets_per_frame(self) -> usize {
        match self {
            Medium::Voice => 1,
            Medium::Video => 12,
        }
    }

    pub(super) fn frames_per_second(self) -> usize {
        match self {
            Medium::Voice => 50,
            Medium::Video => 30,
        }
    }

    /// The time from the first frame to this one.
    pub(super) fn since_first(self, frame: usize) -> Duration {
        Duration::from_nanos(1_000_000_000 * frame as u64 / self.frames_per_second() as u64)
    }

    pub(super) fn payload_type(self) -> u8 {
        match self {
            Medium::Voice => 111,
            Medium::Video => 96,
        }
    }

    pub(super) fn payload_length(self) -> usize {
        match self {
            Medium::Voice => 60,
            Medium::Video => 1_000,
        }
    }

    pub(super) fn clock_rate(self) -> u32 {
        match self {
            Medium::Voice => 48_000,
            Medium::Video => 90_000,
        }
    }

    pub(super) fn ticks_per_frame(self) -> u32 {
        self.clock_rate() / self.frames_per_second() as u32
    }
}

/// The repair that clients declare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Repair {
    Nack,
    Red,
    /// Both.
    Any,
    /// FlexFEC-03.
    Parity,
}

impl Repair {
    pub(super) fn has_nack(self) -> bool {
        matches!(self, Repair::Nack | Repair::Any)
    }

    fn has_red(self) -> bool {
        matches!(self, Repair::Red | Repair::Any)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct MediaRow {
    /// The id; of a row with RED the ids with one and with two earlier frames, of which the gateway chooses one.
    pub(super) ids: &'static [&'static str],
    pub(super) medium: Medium,
    /// The lossy direction of the client's path: to the gateway from the sender, or from the gateway to the receiver.
    pub(super) direction: Direction,
    pub(super) losses: Losses,
    pub(super) repair: Repair,
    pub(super) round_trip: Duration,
}

/// Packets of parity after a frame of twelve that other codes are measured with: a third.
const PARITIES: usize = 4;
/// The most that a path decides about.
pub(super) const PARITIES_MAX: usize = 12;
/// Frames that parity of the gateway covers.
const WINDOW: usize = 3;

pub(super) static ROWS: [MediaRow; 13] = [
    voice(&["voice.random.nack"], Losses::random(10), Repair::Nack),
    voice(&["voice.random.red2"], Losses::random(10), Repair::Red),
    voice(&["voice.burst.red1", "voice.burst.red2"], Losses::bursts_of(3, 10), Repair::Red),
    voice(&["voice.ramp"], Losses::ramp(30), Repair::Red),
    video(&["video.random.nack"], Losses::random(5)),
    video(&["video.burst.nack"], Losses::bursts_of(3, 5)),
    MediaRow {
        repair: Repair::Parity,
        round_trip: Duration::from_millis(200),
        ..video(&["video.fec"], Losses::random(5))
    },
    MediaRow {
        repair: Repair::Parity,
        round_trip: Duration::from_millis(200),
        ..video(&["video.gilbert"], Losses::gilbert_elliott(8, 5))
    },
    video(&["video.deadline"], Losses::random(5).both_ways()),
    MediaRow {
        direction: Direction::Up,
        ..voice(&["uplink.random.nack"], Losses::random(10), Repair::Nack)
    },
    MediaRow {
        direction: Direction::Up,
        ..voice(&["uplink-only"], Losses::random(10), Repair::Any)
    },
    voice(&["downlink-only"], Losses::random(10), Repair::Any),
    voice(&["clean"], Losses::NONE, Repair::Any),
];

const fn voice(ids: &'static [&'static str], losses: Losses, repair: Repair) -> MediaRow {
    let (medium, direction) = (Medium::Voice, Direction::Down);
    MediaRow { ids, medium, direction, losses, repair, round_trip: ROUND_TRIP }
}

const fn video(ids: &'static [&'static str], losses: Losses) -> MediaRow {
    MediaRow { medium: Medium::Video, ..voice(ids, losses, Repair::Nack) }
}

impl MediaRow {
    /// The losses of a session, of these numbers at most.
    pub(super) fn plan(&self, lossy: Range<usize>, seed: u64) -> LossPlan {
        let parities = if self.repair == Repair::Parity { PARITIES_MAX } else { 0 };
        let frame_size = self.medium.packets_per_frame();
        LossPlan::with_parity(self.losses, lossy, seed, frame_size, parities)
    }

    /// The shares of frames that other codes leave broken, by the name of their figure.
    pub(super) fn rivals(&self, plan: &LossPlan, judged: &Range<usize>) -> BTreeMap<String, f64> {
        if self.repair != Repair::Parity {
            return BTreeMap::new();
        }
        if self.losses.burst > 1 {
            let blocks = (0..=PARITIES_MAX).map(|parities| {
                let left = codes::left_by_blocks(plan, judged, parities);
                (format!("block_{parities}"), left)
            });
            return blocks.collect();
        }
        let disjoint = (1..=WINDOW).map(|frames| {
            let left = codes::left_by_disjoint_masks(plan, judged, frames, PARITIES);
            (format!("disjoint_{frames}"), left)
        });
        disjoint.collect()
    }

    /// The body of `POST /v1/sessions` for a client at this address. `is_repaired`: it declares the repair of the row.
    pub(super) fn offer(&self, room: &str, address: SocketAddr, is_repaired: bool) -> Value {
        let (kind, codec) = match self.medium {
            Medium::Voice => ("audio", "opus"),
            Medium::Video => ("video", "vp8"),
        };
        let (payload_type, clock_rate) = (self.medium.payload_type(), self.medium.clock_rate());
        let mut payload_types =
            vec![json!({"payload_type": payload_type, "codec": codec, "clock_rate": clock_rate})];
        if is_repaired && self.repair == Repair::Parity {
            payload_types.push(json!({
                "payload_type": Medium::PARITY,
                "codec": "flexfec-03",
                "clock_rate": clock_rate,
            }));
        }
        if is_repaired && self.repair.has_red() {
            payload_types.push(json!({
                "payload_type": Medium::RED,
                "codec": "red",
                "clock_rate": clock_rate,
                "apt": payload_type,
            }));
        }
        let mut media = json!({"kind": kind, "payload_types": payload_types});
        if is_repaired && self.repair.has_nack() {
            media["feedback"] = json!(["nack"]);
        }
        let latency = format!("{}ms", LATENCY.as_millis());
        json!({
            "scenario": "call",
            "room": room,
            "ingress": {"udp": {"identity": "declared", "address": address}},
            "media": [media],
            "latency": latency,
        })
    }

    /// The least share of frames, in per cent, that any repair of this kind leaves of the packets that the path lost. `None` without losses, and
    /// for a row that is judged by its rating.
    pub(super) fn bound(&self, plan: &LossPlan, judged: &Range<usize>, id: &str) -> Option<f64> {
        if self.losses == Losses::NONE || self.losses.is_ramp() {
            return None;
        }
        Some(match self.repair {
            // A later packet may repeat a frame as well.
            Repair::Any if self.direction == Direction::Down => percent_of(judged, 1, |number| {
                plan.loses_all(number, REPETITIONS)
                    && (1..=FRAMES_APART).all(|later| plan.loses(number + later, 0))
            }),
            Repair::Nack | Repair::Any => {
                let size = self.medium.packets_per_frame();
                percent_of(judged, size, |number| plan.loses_all(number, REPETITIONS))
            }
            Repair::Parity => codes::left_by_windows(plan, judged, WINDOW, PARITIES),
            Repair::Red if id.ends_with("red1") => {
                plan.least_lost_once_repeated(judged, FRAMES_APART)
            }
            Repair::Red => plan.least_lost_twice_repeated(judged, FRAMES_APART),
        })
    }
}

/// Sets a figure and, under its name with `_spread`, the distance from the least of its values to the largest.
pub(super) fn set_figure(row: &mut AcceptanceRow, name: &str, figure: f64, values: &[f64]) {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    row.set_figure(name, Some(figure));
    row.set_figure(&format!("{name}_spread"), Some(largest - least));
}
