//! Flows through links in virtual time, as RFC 8867, section 4, describes them: a queue that drops at its end, a delay, and receivers that send
//! feedback each 100 ms. Encoders follow the estimate at once, in frames of which all packets are sent together.

use std::collections::VecDeque;

use fastrand::Rng;

use super::at_us;
use crate::estimate::RateEstimate;
use crate::rtcp::{CongestionFeedback, TICK_US, TransportFeedback, write_transport_feedback};

const FRAME_US: i64 = 33_333;
const FEEDBACK_US: i64 = 100_000;
const PACKET_BYTES: usize = 1_200;
const STEP_US: i64 = 1_000;
const SAMPLE_US: i64 = 20_000;

/// A receiver's clock is ahead by this.
const CLOCK_US: i64 = 987_654_321;

pub(super) const SECOND_US: i64 = 1_000_000;

#[derive(Debug)]
pub(super) struct Link {
    pub(super) kbps: i64,
    /// Longer queues drop.
    pub(super) queue_us: i64,
    /// Random loss, in percent.
    pub(super) loss: u8,
    /// The end of the last packet.
    free_us: i64,
    rng: Rng,
}

impl Link {
    pub(super) fn new(kbps: i64) -> Link {
        Link { kbps, queue_us: 300_000, loss: 0, free_us: 0, rng: Rng::with_seed(66) }
    }

    /// Returns the time at which the packet leaves the link; `None` if it is lost.
    fn carry(&mut self, at_us: i64, bytes: usize) -> Option<i64> {
        if self.free_us - at_us > self.queue_us || self.rng.u8(..100) < self.loss {
            return None;
        }
        self.free_us = self.free_us.max(at_us) + bytes as i64 * 8_000 / self.kbps;
        Some(self.free_us)
    }

    fn queue_ms(&self, now_us: i64) -> i64 {
        (self.free_us - now_us).max(0) / 1_000
    }
}

#[derive(Debug)]
pub(super) struct Flow {
    pub(super) estimate: RateEstimate,
    /// The indexes of the links of media and of feedback; `None` for one without a limit.
    pub(super) link: usize,
    pub(super) feedback_link: Option<usize>,
    pub(super) delay_us: i64,
    pub(super) start_us: i64,
    pub(super) paused_us: std::ops::Range<i64>,
    /// The SSRC of its stream, if the receiver sends congestion control feedback (RFC 8888).
    stream: Option<u32>,
    /// The rate of the encoder, and its limit.
    pub(super) kbps: f64,
    pub(super) kbps_max: f64,
    number: u16,
    frames: i64,
    feedbacks: i64,
    bytes_left: f64,
    sent: VecDeque<Sent>,
    feedback: VecDeque<Feedback>,
    arrived_bytes: i64,
}

#[derive(Debug)]
struct Sent {
    number: u16,
    arrival_us: Option<i64>,
    bytes: usize,
}

#[derive(Debug)]
struct Feedback {
    at_us: i64,
    packet: Vec<u8>,
}

impl Flow {
    pub(super) fn new(delay_ms: i64) -> Flow {
        Flow {
            estimate: RateEstimate::new(),
            link: 0,
            feedback_link: None,
            delay_us: delay_ms * 1_000,
            start_us: 0,
            paused_us: 0..0,
            stream: None,
            kbps: 300.0,
            kbps_max: 1e6,
            number: 65_000,
            frames: 0,
            feedbacks: 1,
            bytes_left: 0.0,
            sent: VecDeque::new(),
            feedback: VecDeque::new(),
            arrived_bytes: 0,
        }
    }

    pub(super) fn starting_at(mut self, start_us: i64) -> Flow {
        self.start_us = start_us;
        self
    }

    pub(super) fn up_to(mut self, kbps_max: f64) -> Flow {
        self.kbps_max = kbps_max;
        self
    }

    pub(super) fn with_congestion_feedback(mut self) -> Flow {
        self.stream = Some(7);
        self
    }

    fn send(&mut self, links: &mut [Link], now_us: i64) {
        while self.start_us + self.frames * FRAME_US <= now_us {
            let frame_us = self.start_us + self.frames * FRAME_US;
            self.frames += 1;
            if self.paused_us.contains(&frame_us) {
                continue;
            }
            self.bytes_left += self.kbps * 1_000.0 / 8.0 / 30.0;
            let packets = (self.bytes_left as usize).div_ceil(PACKET_BYTES).max(1);
            let bytes = self.bytes_left as usize / packets;
            self.bytes_left -= (bytes * packets) as f64;
            for packet in 0..packets {
                let sent_us = frame_us + packet as i64 * 200;
                let left_us = links[self.link].carry(sent_us, bytes);
                let arrival_us = left_us.map(|left_us| left_us + self.delay_us);
                let (number, at) = (self.number, at_us(sent_us));
                match self.stream {
                    Some(ssrc) => self.estimate.note_sent_in_stream(ssrc, number, bytes, at),
                    None => self.estimate.note_sent(number, bytes, at),
                }
                self.sent.push_back(Sent { number: self.number, arrival_us, bytes });
                self.number = self.number.wrapping_add(1);
            }
        }
    }

    /// The receiver tells of all packets up to the last one that came.
    fn send_feedback(&mut self, links: &mut [Link], now_us: i64) {
        if self.start_us + self.feedbacks * FEEDBACK_US > now_us {
            return;
        }
        self.feedbacks += 1;
        let has_come = |sent: &Sent| sent.arrival_us.is_some_and(|at| at <= now_us);
        let Some(last) = self.sent.iter().rposition(has_come) else { return };
        let told: Vec<Sent> = self.sent.drain(..=last).collect();
        let came = told.iter().filter(|sent| sent.arrival_us.is_some());
        self.arrived_bytes += came.map(|sent| sent.bytes as i64).sum::<i64>();
        let packet = match self.stream {
            Some(ssrc) => congestion_feedback(ssrc, &told, now_us),
            None => transport_feedback(&told),
        };
        let left_us = match self.feedback_link {
            Some(link) => links[link].carry(now_us, packet.len() + 48),
            None => Some(now_us),
        };
        let arrives = left_us.map(|at_us| Feedback { at_us: at_us + self.delay_us, packet });
        self.feedback.extend(arrives);
    }

    fn follow_feedback(&mut self, now_us: i64) {
        while self.feedback.front().is_some_and(|feedback| feedback.at_us <= now_us) {
            let Some(Feedback { at_us: arrived_us, packet }) = self.feedback.pop_front() else {
                return;
            };
            if self.stream.is_some() {
                let feedback = CongestionFeedback::parse(&packet).unwrap();
                self.estimate.note_congestion_feedback(&feedback, at_us(arrived_us));
            } else {
                let feedback = TransportFeedback::parse(&packet).unwrap();
                self.estimate.note_feedback(&feedback, at_us(arrived_us));
            }
            if let Some(kbps) = self.estimate.kbps(at_us(now_us)) {
                self.kbps = f64::from(kbps).clamp(50.0, self.kbps_max);
            }
        }
    }
}

fn transport_feedback(told: &[Sent]) -> Vec<u8> {
    let ticks = |at_us: i64| (at_us + CLOCK_US) / TICK_US;
    let arrivals: Vec<_> = told.iter().map(|sent| sent.arrival_us.map(ticks)).collect();
    let mut packet = Vec::new();
    write_transport_feedback(1, 2, told[0].number, 0, &arrivals, &mut packet);
    packet
}

/// Writes what RFC 8888, section 3.1, describes.
fn congestion_feedback(ssrc: u32, told: &[Sent], now_us: i64) -> Vec<u8> {
    let mut packet = vec![0x8b, 205, 0, 0, 0, 0, 0, 1];
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(&told[0].number.to_be_bytes());
    packet.extend_from_slice(&(told.len() as u16).to_be_bytes());
    for sent in told {
        let offset = |at_us: i64| 0x8000 | ((now_us - at_us) * 1_024 / SECOND_US) as u16;
        packet.extend_from_slice(&sent.arrival_us.map_or(0, offset).to_be_bytes());
    }
    packet.resize(packet.len().next_multiple_of(4), 0);
    let report = (now_us + CLOCK_US) * 65_536 / SECOND_US;
    packet.extend_from_slice(&(report as u32).to_be_bytes());
    let words = (packet.len() / 4 - 1) as u16;
    packet[2..4].copy_from_slice(&words.to_be_bytes());
    packet
}

/// A flow of TCP (Reno) whose round trip is 100 ms without a queue.
#[derive(Debug)]
pub(super) struct TcpFlow {
    start_us: i64,
    end_us: i64,
    window: f64,
    slow_start_to: f64,
    in_flight: f64,
    halved_us: i64,
    outcomes: VecDeque<TcpOutcome>,
    pub(super) acknowledged_bytes: i64,
}

#[derive(Debug)]
struct TcpOutcome {
    at_us: i64,
    sent_us: i64,
    is_lost: bool,
}

impl TcpFlow {
    const ROUND_TRIP_US: i64 = 100_000;
    const BYTES: usize = 1_500;

    pub(super) fn between(start_s: i64, end_s: i64) -> TcpFlow {
        TcpFlow {
            start_us: start_s * SECOND_US,
            end_us: end_s * SECOND_US,
            window: 10.0,
            slow_start_to: f64::INFINITY,
            in_flight: 0.0,
            halved_us: -1,
            outcomes: VecDeque::new(),
            acknowledged_bytes: 0,
        }
    }

    fn run(&mut self, link: &mut Link, now_us: i64) {
        while self.outcomes.front().is_some_and(|outcome| outcome.at_us <= now_us) {
            let Some(TcpOutcome { sent_us, is_lost, .. }) = self.outcomes.pop_front() else {
                return;
            };
            self.in_flight -= 1.0;
            if is_lost && sent_us > self.halved_us {
                self.slow_start_to = (self.window / 2.0).max(2.0);
                (self.window, self.halved_us) = (self.slow_start_to, now_us);
            } else if !is_lost {
                self.acknowledged_bytes += Self::BYTES as i64;
                self.window +=
                    if self.window < self.slow_start_to { 1.0 } else { 1.0 / self.window };
            }
        }
        while (self.start_us..self.end_us).contains(&now_us) && self.in_flight < self.window {
            let left_us = link.carry(now_us, Self::BYTES);
            self.in_flight += 1.0;
            // Later packets tell of a loss.
            let at_us = left_us.unwrap_or(link.free_us.max(now_us)) + Self::ROUND_TRIP_US;
            self.outcomes.push_back(TcpOutcome {
                at_us,
                sent_us: now_us,
                is_lost: left_us.is_none(),
            });
        }
    }
}

#[derive(Default, Debug)]
pub(super) struct World {
    pub(super) links: Vec<Link>,
    pub(super) flows: Vec<Flow>,
    pub(super) tcp: Vec<TcpFlow>,
    now_us: i64,
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Sample {
    at_us: i64,
    queues_ms: Vec<i64>,
    arrived_bytes: Vec<i64>,
    kbps: Vec<f64>,
}

impl World {
    pub(super) fn new(kbps: i64, flows: Vec<Flow>) -> World {
        World { links: vec![Link::new(kbps)], flows, ..World::default() }
    }

    pub(super) fn run_to(&mut self, second: i64) {
        while self.now_us < second * SECOND_US {
            let (now_us, links) = (self.now_us, &mut self.links[..]);
            for flow in &mut self.flows {
                flow.send(links, now_us);
                flow.send_feedback(links, now_us);
                flow.follow_feedback(now_us);
            }
            self.tcp.iter_mut().for_each(|tcp| tcp.run(&mut links[0], now_us));
            if now_us % SAMPLE_US == 0 {
                self.samples.push(Sample {
                    at_us: now_us,
                    queues_ms: links.iter().map(|link| link.queue_ms(now_us)).collect(),
                    arrived_bytes: self.flows.iter().map(|flow| flow.arrived_bytes).collect(),
                    kbps: self.flows.iter().map(|flow| flow.kbps).collect(),
                });
            }
            self.now_us += STEP_US;
        }
    }

    fn between(&self, from_s: i64, to_s: i64) -> impl Iterator<Item = &Sample> {
        let range = from_s * SECOND_US..to_s * SECOND_US;
        self.samples.iter().filter(move |sample| range.contains(&sample.at_us))
    }

    /// The rate that arrives of a flow.
    pub(super) fn arrived_kbps(&self, flow: usize, from_s: i64, to_s: i64) -> i64 {
        let bytes = |sample: &Sample| sample.arrived_bytes[flow];
        let first = self.between(from_s, to_s).next().map_or(0, bytes);
        let last = self.between(from_s, to_s).last().map_or(0, bytes);
        (last - first) * 8 / 1_000 / (to_s - from_s)
    }

    pub(super) fn longest_queue_ms(&self, link: usize, from_s: i64, to_s: i64) -> i64 {
        self.between(from_s, to_s).map(|sample| sample.queues_ms[link]).max().unwrap_or(0)
    }

    /// The time after `from_s` at which the rate of the first flow is for the first time as wanted.
    pub(super) fn first_ms(&self, from_s: i64, is_wanted: impl Fn(f64) -> bool) -> i64 {
        let mut samples = self.between(from_s, i64::MAX / SECOND_US);
        let found = samples.find(|sample| is_wanted(sample.kbps[0])).map(|sample| sample.at_us);
        found.map_or(i64::MAX, |at_us| at_us / 1_000 - from_s * 1_000)
    }
}
