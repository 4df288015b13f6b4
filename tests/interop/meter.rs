//! Analysis of a stream across a switch of nodes: sequence numbers, timestamps, loss and gaps.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use evenkeel_report::LimitTable;
use evenkeel_testkit::{figure, not_measured};

use crate::tap::Packet;

/// Tolerated error of sequence numbers: two frames of these videos, or 240 ms of audio.
const SEQUENCE_OFF_MAX: i16 = 12;
/// Tolerated error of timestamps: half for the estimate, half for encoders and decoders on the same machine.
const TIMESTAMP_OFF_MAX: Duration = Duration::from_millis(160);

/// Packets that a node received this long before its death may be lost: its processing time and one batch.
const IN_FLIGHT: Duration = Duration::from_millis(40);

/// A longer pause without a fault is one of a busy machine, on which packets are under way as long.
const PAUSE_MAX: Duration = Duration::from_millis(80);
/// A longer pause is a fault of the gateway, which excuses no loss.
const SLACK_MAX: Duration = Duration::from_millis(200);
/// A pause that ends so shortly before the death may be one of its losses.
const NEAR_DEATH: Duration = Duration::from_millis(100);

/// Set by `make interop`, which runs one test after another. Other runs share the machine with them, and judge no times.
const JUDGES_TIMES: &str = "EVENKEEL_JUDGES_TIMES";

/// A limit of a test in `tests/limits.toml`.
fn limit(tests: &str, key: &str) -> f64 {
    let limits = LimitTable::load().and_then(|table| table.group("interop", Some(tests)));
    let limits = limits.unwrap_or_else(|error| panic!("{error}"));
    limits.judged(key).unwrap_or_else(|| panic!("{tests} has no {key}"))
}

fn judges_times() -> bool {
    std::env::var_os(JUDGES_TIMES).is_some()
}

/// Fails the test if times are judged in this run. Otherwise notes that the figure was not measured.
fn miss(reason: &str, judges_times: bool) {
    assert!(!judges_times, "{reason}");
    not_measured(&format!("{reason}, which `make interop` judges"));
}

/// Judges the number of packets within a round trip to another program.
pub(crate) fn judge_in_round_trip(tests: &str, packets: f64) {
    let key = "in_round_trip";
    figure(key, packets);
    let limit = limit(tests, key);
    if packets > limit {
        miss(&format!("{key} {packets}, {limit} is the limit"), judges_times());
    }
}

/// A gap beside its limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum GapVerdict {
    Held,
    Missed,
    /// Gaps were beyond the limit without a fault, too.
    NotMeasured,
}

impl GapVerdict {
    fn of(gap: Duration, control: Duration, limit: Duration) -> GapVerdict {
        if control <= limit {
            return if gap > limit { GapVerdict::Missed } else { GapVerdict::Held };
        }
        // A busy machine does not add more than it did without the fault.
        if gap > control + limit { GapVerdict::Missed } else { GapVerdict::NotMeasured }
    }
}

/// The limits of gaps of some tests: their key in `tests/limits.toml`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GapLimits(pub(crate) &'static str);

impl GapLimits {
    /// Judges the longest gap between packets around a fault. `control`: the longest one before it. A machine on which that is beyond the limit
    /// measures nothing.
    pub(crate) fn judge(self, what: &str, gap: Duration, control: Duration) {
        self.judge_by("gap_max", what, gap, control);
    }

    /// The same between decoded frames.
    pub(crate) fn judge_shown(self, what: &str, gap: Duration, control: Duration) {
        self.judge_by("shown_gap_max", what, gap, control);
    }

    /// Judges the audio that was concealed, beside that of as long a time without a fault.
    pub(crate) fn judge_concealed(self, what: &str, concealed: Duration, control: Duration) {
        self.judge_by("concealed", what, concealed, control);
    }

    /// Judges the time for which pictures were frozen, beside that of as long a time without a fault.
    pub(crate) fn judge_frozen(self, what: &str, frozen: Duration, control: Duration) {
        self.judge_by("frozen_max", what, frozen, control);
    }

    fn judge_by(self, key: &str, what: &str, gap: Duration, control: Duration) {
        figure(key, gap.as_secs_f64() * 1e3);
        let limit = Duration::from_secs_f64(limit(self.0, key) / 1e3);
        match GapVerdict::of(gap, control, limit) {
            GapVerdict::Held => {}
            GapVerdict::Missed => {
                miss(&format!("{what}: {key} {gap:.1?}, {limit:.1?} is the limit"), judges_times());
            }
            GapVerdict::NotMeasured => not_measured(&format!(
                "{what}: {key} {control:.1?} without a fault, {limit:.1?} is the limit"
            )),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Death {
    pub(crate) killed: Instant,
    pub(crate) moved: Instant,
}

impl Death {
    /// True if a packet sent at this time may be lost by the node's death. `slack`: that of [`Stream::slack`].
    fn takes(&self, sent: Instant, slack: Duration) -> bool {
        (self.killed - IN_FLIGHT.max(slack)..=self.moved).contains(&sent)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Findings {
    pub(crate) packets: usize,
    pub(crate) lost: usize,
    /// The part of `lost` sent while the node was dead and the room had not moved.
    pub(crate) lost_to_death: usize,
    pub(crate) ssrcs: BTreeSet<u32>,
    /// Longest time between packets from the kill on.
    pub(crate) gap: Duration,
    /// Longest time between packets before the kill: jitter of this machine.
    pub(crate) control: Duration,
    /// Unexpected jumps of sequence numbers or timestamps.
    pub(crate) breaks: Vec<String>,
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Findings { packets, lost, lost_to_death, gap, control, breaks, .. } = self;
        write!(
            f,
            "{packets} packets, {lost} lost ({lost_to_death} to the death), gap {gap:.1?} (before it {control:.1?}), {} breaks",
            breaks.len()
        )
    }
}

/// The received packets of one payload type.
pub(crate) struct Stream<'a> {
    pub(crate) came: Vec<&'a Packet>,
    pub(crate) clock_rate: u32,
    pub(crate) death: Death,
}

impl<'a> Stream<'a> {
    pub(crate) fn of(
        came: &'a [Packet],
        payload_type: u8,
        clock_rate: u32,
        death: Death,
    ) -> Stream<'a> {
        let came = came.iter().filter(|packet| packet.header.payload_type == payload_type);
        Stream { came: came.collect(), clock_rate, death }
    }

    /// Compares with the sent packets: each received packet must be one of them, in order, with a constant offset of sequence
    /// number and timestamp that changes once, after the kill.
    pub(crate) fn follow(&self, sent: &[Packet]) -> Findings {
        let (mut findings, slack) = (self.timed(), self.slack());
        let mut before: Option<(usize, Offset)> = None;
        let mut switched = false;
        for &packet in &self.came {
            let from = before.as_ref().map_or(0, |(at, _)| at + 1);
            let found = sent[from..].iter().position(|one| is_same(one, packet));
            let Some(ahead) = found else {
                findings.breaks.push(format!("{:?} was not sent at that position", packet.header));
                continue;
            };
            let offset = Offset::between(&sent[from + ahead], packet);
            if let Some((_, old)) = &before {
                let ours = |one: &&Packet| one.header.payload_type == packet.header.payload_type;
                for missing in sent[from..from + ahead].iter().filter(ours) {
                    findings.lost += 1;
                    findings.lost_to_death += usize::from(self.death.takes(missing.at, slack));
                }
                if *old != offset {
                    let change = offset.change_from(old);
                    let again = std::mem::replace(&mut switched, true);
                    if again
                        || packet.at < self.death.killed
                        || !change.is_tolerable(self.clock_rate, slack)
                    {
                        findings.breaks.push(format!("{change:?} at {:?}", packet.header));
                    }
                }
            }
            before = Some((from + ahead, offset));
        }
        findings
    }

    /// Checks the received packets alone: consecutive numbers and timestamp steps that `is_step` accepts, except at one place
    /// after the kill, where the timestamp step must match the elapsed time.
    pub(crate) fn alone(&self, is_step: impl Fn(u32) -> bool) -> Findings {
        let (mut findings, slack) = (self.timed(), self.slack());
        let mut switched = false;
        for pair in self.came.windows(2) {
            let (was, is) = (&pair[0].header, &pair[1].header);
            let missing = is.sequence.wrapping_sub(was.sequence).wrapping_sub(1);
            let step = is.timestamp.wrapping_sub(was.timestamp);
            if missing == 0 && is_step(step) {
                continue;
            }
            let passed = pair[1].at - pair[0].at;
            let off = (f64::from(step) / f64::from(self.clock_rate) - passed.as_secs_f64()).abs();
            let again = std::mem::replace(&mut switched, true);
            findings.lost += usize::from(missing);
            findings.lost_to_death += usize::from(missing);
            let in_time = off <= (TIMESTAMP_OFF_MAX + slack).as_secs_f64();
            if again || pair[1].at < self.death.killed || missing > i16::MAX as u16 || !in_time {
                findings.breaks.push(format!("{was:?} to {is:?} in {passed:?}"));
            }
        }
        findings
    }

    /// The longest pause without a fault, if it is one of a busy machine; else zero.
    fn slack(&self) -> Duration {
        let before = self.came.iter().map(|packet| packet.at);
        let before: Vec<Instant> =
            before.take_while(|at| *at < self.death.killed - NEAR_DEATH).collect();
        let longest = before.windows(2).map(|pair| pair[1] - pair[0]).max();
        let pause = longest.filter(|longest| *longest > PAUSE_MAX);
        pause.map(|pause| pause.min(SLACK_MAX)).unwrap_or_default()
    }

    fn timed(&self) -> Findings {
        let mut findings = Findings {
            packets: self.came.len(),
            lost: 0,
            lost_to_death: 0,
            ssrcs: self.came.iter().map(|packet| packet.header.ssrc).collect(),
            gap: Duration::ZERO,
            control: Duration::ZERO,
            breaks: Vec::new(),
        };
        for pair in self.came.windows(2) {
            let gap = pair[1].at - pair[0].at;
            let longest = if pair[1].at < self.death.killed {
                &mut findings.control
            } else {
                &mut findings.gap
            };
            *longest = gap.max(*longest);
        }
        findings
    }
}

fn is_same(sent: &Packet, came: &Packet) -> bool {
    sent.header.payload_type == came.header.payload_type
        && sent.header.marker == came.header.marker
        && sent.payload == came.payload
}

/// Received minus sent numbers of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Offset {
    sequence: u16,
    timestamp: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct OffsetChange {
    sequence: i16,
    timestamp: i32,
}

impl Offset {
    fn between(sent: &Packet, came: &Packet) -> Offset {
        Offset {
            sequence: came.header.sequence.wrapping_sub(sent.header.sequence),
            timestamp: came.header.timestamp.wrapping_sub(sent.header.timestamp),
        }
    }

    fn change_from(&self, other: &Offset) -> OffsetChange {
        OffsetChange {
            sequence: self.sequence.wrapping_sub(other.sequence).cast_signed(),
            timestamp: self.timestamp.wrapping_sub(other.timestamp).cast_signed(),
        }
    }
}

impl OffsetChange {
    fn is_tolerable(self, clock_rate: u32, slack: Duration) -> bool {
        let off = f64::from(self.timestamp.unsigned_abs()) / f64::from(clock_rate);
        self.sequence.unsigned_abs() <= SEQUENCE_OFF_MAX.unsigned_abs()
            && off <= (TIMESTAMP_OFF_MAX + slack).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_media::rtp;

    use super::*;

    fn packet(start: Instant, number: u16, ms: u64, offset: (u16, u32), ssrc: u32) -> Packet {
        let header = rtp::RtpHeader {
            payload_type: 111,
            marker: false,
            sequence: number.wrapping_add(offset.0),
            timestamp: (u32::from(number) * 960).wrapping_add(offset.1),
            ssrc,
            payload_offset: 12,
            payload_end: 14,
        };
        let payload = number.to_be_bytes().into();
        Packet { at: start + Duration::from_millis(ms), header, payload }
    }

    /// Fifty sent packets; those in `missing` are lost, and the offset changes to `after` at number 25.
    fn voice(missing: &[u16], after: (u16, u32)) -> (Vec<Packet>, Vec<Packet>, Death) {
        let start = Instant::now();
        let ms = |number| u64::from(number) * 20;
        let sent = (0..50).map(|n| packet(start, n, ms(n), (0, 0), 1)).collect();
        let came = (0..50).filter(|number| !missing.contains(number)).map(|number| {
            let offset = if number < 25 { (100, 7_000) } else { after };
            packet(start, number, ms(number), offset, 2)
        });
        let (killed, moved) =
            (start + Duration::from_millis(461), start + Duration::from_millis(485));
        (sent, came.collect(), Death { killed, moved })
    }

    fn breaks(missing: &[u16], after: (u16, u32)) -> usize {
        let (sent, came, death) = voice(missing, after);
        Stream::of(&came, 111, 48_000, death).follow(&sent).breaks.len()
    }

    #[test]
    fn gap_without_a_fault_widens_no_limit() {
        let ms = Duration::from_millis;
        let of = |gap, control| GapVerdict::of(ms(gap), ms(control), ms(500));
        assert_eq!(of(500, 500), GapVerdict::Held);
        assert_eq!(of(501, 500), GapVerdict::Missed);
        assert_eq!(of(501, 501), GapVerdict::NotMeasured);
        assert_eq!(of(20, 501), GapVerdict::NotMeasured);
        assert_eq!(of(1_001, 501), GapVerdict::NotMeasured);
        assert_eq!(of(1_002, 501), GapVerdict::Missed);
    }

    #[test]
    #[should_panic(expected = "gap_max 501")]
    fn miss_fails_where_times_are_judged() {
        miss("gap_max 501", true);
    }

    #[test]
    fn packets_are_under_way_as_long_as_a_busy_machine_pauses() {
        let lost_to_death = |missing: &[u16]| {
            let (sent, came, death) = voice(missing, (100, 7_000));
            Stream::of(&came, 111, 48_000, death).follow(&sent).lost_to_death
        };
        // 80 ms and 100 ms without a packet, and one that is sent 41 ms before the death.
        assert_eq!(lost_to_death(&[8, 9, 10, 21]), 0);
        assert_eq!(lost_to_death(&[8, 9, 10, 11, 21]), 1);
    }

    #[test]
    fn loss_and_gap_at_switch_are_no_break() {
        // Sent 41 ms and 21 ms before the kill, after it, and after the move.
        let (sent, came, death) = voice(&[21, 22, 24, 25], (101, 7_960));
        let findings = Stream::of(&came, 111, 48_000, death).follow(&sent);
        assert_eq!((findings.packets, findings.lost, findings.lost_to_death), (46, 4, 2));
        assert_eq!(findings.gap, Duration::from_millis(60));
        assert_eq!(findings.control, Duration::from_millis(60));
        assert_eq!((findings.ssrcs.len(), &findings.breaks[..]), (1, &[][..]));
    }

    #[test]
    fn jump_beyond_tolerance_is_a_break() {
        assert_eq!(breaks(&[], (112, 7_000)), 0);
        assert_eq!(breaks(&[], (113, 7_000)), 1);
        assert_eq!(breaks(&[], (88, 7_000)), 0);
        assert_eq!(breaks(&[], (87, 7_000)), 1);
        assert_eq!(breaks(&[], (100, 7_000 + 48 * 160)), 0);
        assert_eq!(breaks(&[], (100, 7_001 + 48 * 160)), 1);
    }

    #[test]
    fn duplicate_or_unsent_packet_is_a_break() {
        let (sent, mut came, death) = voice(&[], (100, 7_000));
        let again = came[10].clone();
        came.insert(11, again);
        came[30].payload = [9, 9].into();
        let findings = Stream::of(&came, 111, 48_000, death).follow(&sent);
        assert_eq!(findings.breaks.len(), 2);
    }

    #[test]
    fn stream_may_jump_once_by_elapsed_time() {
        let alone = |missing: &[u16], after| {
            let (_, came, death) = voice(missing, after);
            Stream::of(&came, 111, 48_000, death).alone(|step| step == 960)
        };
        let findings = alone(&[23, 24], (100, 7_000));
        assert_eq!((findings.lost, findings.breaks.len()), (2, 0));
        assert_eq!(alone(&[3], (100, 7_000)).breaks.len(), 1, "before the kill");
        assert_eq!(alone(&[24, 30], (100, 7_000)).breaks.len(), 1, "a second time");
        assert_eq!(alone(&[], (100, 7_000 + 48 * 161)).breaks.len(), 1, "timestamp ahead of time");
    }
}
