//! Flows over a link with a queue, in steps of a millisecond.

use std::collections::{BTreeMap, VecDeque};

use super::*;

const PACKET: u64 = 1_200;
/// A loss that no acknowledgement tells is noticed after this time.
const TIMEOUT: Duration = Duration::from_secs(1);
const SECOND: u64 = 1_000;

/// Bytes per millisecond of a rate in kbit/s.
const fn per_ms(kbps: u64) -> u64 {
    kbps / 8
}

enum Control {
    Delay(Box<DelayController>),
    Cubic(Cubic),
}

/// A flow that fills the queue (RFC 9438).
struct Cubic {
    window: f64,
    curve: Option<CubicCurve>,
    reduced_at: Instant,
}

struct Flow {
    control: Control,
    next_number: u64,
    in_flight: BTreeMap<u64, Instant>,
    /// The milliseconds in which it has packets to send, and their limit each.
    sends: std::ops::Range<u64>,
    per_ms_max: u64,
    unsent: u64,
    /// Bytes acknowledged in each second.
    arrived: Vec<u64>,
}

struct Link {
    now: Instant,
    ms: u64,
    per_ms: u64,
    round_trip_ms: u64,
    queue_max: u64,
    /// Flow and number.
    queue: VecDeque<(usize, u64)>,
    credit: u64,
    /// Millisecond, flow and number.
    acknowledgements: VecDeque<(u64, usize, u64)>,
    /// Of so many packets one is lost; 0: none.
    lost_each: u64,
    sent: u64,
    flows: Vec<Flow>,
    /// The queueing delay in each millisecond.
    delays: Vec<u64>,
}

impl Flow {
    fn new(control: Control, sends: std::ops::Range<u64>) -> Flow {
        Flow {
            control,
            next_number: 0,
            in_flight: BTreeMap::new(),
            sends,
            per_ms_max: u64::MAX,
            unsent: 0,
            arrived: Vec::new(),
        }
    }

    fn bytes_in_flight(&self) -> u64 {
        self.in_flight.len() as u64 * PACKET
    }

    fn may_send(&self) -> bool {
        let window = match &self.control {
            Control::Delay(controller) => controller.window(),
            Control::Cubic(cubic) => cubic.window as u64,
        };
        self.unsent >= PACKET && self.bytes_in_flight() + PACKET < window
    }

    fn send(&mut self, now: Instant) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.unsent -= PACKET;
        self.in_flight.insert(number, now);
        if let Control::Delay(controller) = &mut self.control {
            controller.on_sent(now, PACKET, number);
        }
        number
    }

    fn acknowledge(&mut self, number: u64, second: usize, now: Instant) {
        let Some(sent) = self.in_flight.remove(&number) else { return };
        self.arrived.resize(self.arrived.len().max(second + 1), 0);
        self.arrived[second] += PACKET;
        let in_flight = self.bytes_in_flight();
        match &mut self.control {
            Control::Delay(controller) => {
                controller.acknowledge(sent, PACKET);
                controller.on_end_acks(now, in_flight, false, Some(number));
            }
            Control::Cubic(Cubic { window, curve, .. }) => {
                *window += curve.as_mut().map_or(PACKET as f64, |curve| {
                    curve.growth(*window, PACKET as f64, PACKET as f64, now)
                });
            }
        }
        // The packet threshold (RFC 9002, 6.1.1).
        self.lose_until(number.saturating_sub(2), now);
    }

    fn lose_until(&mut self, number: u64, now: Instant) {
        let kept = self.in_flight.split_off(&number);
        let lost = std::mem::replace(&mut self.in_flight, kept);
        let Some(sent) = lost.values().max().copied() else { return };
        match &mut self.control {
            Control::Delay(controller) => {
                controller.on_congestion_event(now, sent, false, lost.len() as u64 * PACKET);
            }
            Control::Cubic(cubic) if sent > cubic.reduced_at => {
                let most = cubic.window;
                cubic.window = (CubicCurve::DECREASE * most).max(2.0 * PACKET as f64);
                let curve = CubicCurve::from(cubic.window, most, PACKET as f64, now);
                cubic.curve = Some(curve);
                cubic.reduced_at = now;
            }
            Control::Cubic(_) => {}
        }
    }
}

impl Link {
    fn new(kbps: u64, round_trip_ms: u64, queue_ms: u64) -> Link {
        Link {
            now: Instant::now(),
            ms: 0,
            per_ms: per_ms(kbps),
            round_trip_ms,
            queue_max: per_ms(kbps) * queue_ms,
            queue: VecDeque::new(),
            credit: 0,
            acknowledgements: VecDeque::new(),
            lost_each: 0,
            sent: 0,
            flows: Vec::new(),
            delays: Vec::new(),
        }
    }

    /// Adds a flow with a controller of this crate, which always has packets.
    fn with_flow(mut self) -> Link {
        let controller = DelayController::new(PACKET as u16, self.now);
        self.flows.push(Flow::new(Control::Delay(Box::new(controller)), 0..u64::MAX));
        self
    }

    fn with_cubic(mut self, sends: std::ops::Range<u64>) -> Link {
        let window = 10.0 * PACKET as f64;
        let cubic = Cubic { window, curve: None, reduced_at: self.now };
        self.flows.push(Flow::new(Control::Cubic(cubic), sends));
        self
    }

    fn run_until(&mut self, ms: u64) {
        while self.ms < ms {
            self.step();
        }
    }

    fn step(&mut self) {
        self.credit += self.per_ms;
        while self.credit >= PACKET
            && let Some((flow, number)) = self.queue.pop_front()
        {
            self.credit -= PACKET;
            self.acknowledgements.push_back((self.ms + self.round_trip_ms, flow, number));
        }
        if self.queue.is_empty() {
            self.credit = self.credit.min(PACKET);
        }
        let second = (self.ms / SECOND) as usize;
        while let Some(&(due, flow, number)) = self.acknowledgements.front()
            && due <= self.ms
        {
            self.acknowledgements.pop_front();
            self.flows[flow].acknowledge(number, second, self.now);
        }
        for place in 0..self.flows.len() {
            self.send(place);
        }
        self.delays.push(self.queue.len() as u64 * PACKET / self.per_ms);
        self.ms += 1;
        self.now += Duration::from_millis(1);
    }

    fn send(&mut self, place: usize) {
        let (ms, now) = (self.ms, self.now);
        let flow = &mut self.flows[place];
        if flow.in_flight.values().next().is_some_and(|sent| now - *sent > TIMEOUT) {
            flow.lose_until(u64::MAX, now);
        }
        if !flow.sends.contains(&ms) {
            return;
        }
        // A second of packets at most.
        flow.unsent = flow.unsent.saturating_add(flow.per_ms_max);
        flow.unsent = flow.unsent.min(flow.per_ms_max.saturating_mul(SECOND));
        while flow.may_send() {
            let number = flow.send(now);
            self.sent += 1;
            let is_lost = self.lost_each > 0 && self.sent.is_multiple_of(self.lost_each);
            if !is_lost && (self.queue.len() as u64 + 1) * PACKET <= self.queue_max {
                self.queue.push_back((place, number));
            }
        }
    }

    /// The percentage of the present rate that a flow got in these seconds.
    fn percent(&self, flow: usize, seconds: std::ops::Range<usize>) -> u64 {
        let possible = self.per_ms * SECOND * seconds.len() as u64;
        self.flows[flow].arrived[seconds].iter().sum::<u64>() * 100 / possible
    }

    fn longest_delay(&self, ms: std::ops::Range<usize>) -> u64 {
        self.delays[ms].iter().copied().max().unwrap_or_default()
    }
}

#[test]
fn rate_is_used_with_a_short_queue() {
    for (kbps, round_trip_ms) in [(1_000, 40), (3_000, 40), (3_000, 200), (10_000, 40)] {
        let mut link = Link::new(kbps, round_trip_ms, 300).with_flow();
        link.run_until(20 * SECOND);
        let used = link.percent(0, 5..20);
        assert!(used >= 90, "{kbps} kbit/s, {round_trip_ms} ms: {used} %");
        // Three packets at 1 Mbit/s take 29 ms.
        let delay = link.longest_delay(5_000..20_000);
        assert!(delay <= 50, "{kbps} kbit/s, {round_trip_ms} ms: {delay} ms");
    }
}

#[test]
fn queue_is_short_400_ms_after_a_drop_of_the_rate() {
    for kbps in [3_000, 10_000] {
        let mut link = Link::new(kbps, 40, 300).with_flow();
        link.run_until(20 * SECOND);
        link.per_ms = per_ms(kbps * 3 / 10);
        link.run_until(35 * SECOND);
        let delay = link.longest_delay(20_400..35_000);
        // Three packets at 900 kbit/s take 32 ms.
        assert!(delay <= 100, "{kbps} kbit/s: {delay} ms");
        let used = link.percent(0, 21..35);
        assert!(used >= 85, "{kbps} kbit/s: {used} %");
        link.per_ms = per_ms(kbps);
        link.run_until(44 * SECOND);
        let used = link.percent(0, 42..43);
        assert!(used >= 85, "{kbps} kbit/s, 8 s after its rise: {used} %");
    }
}

#[test]
fn half_of_the_rate_beside_cubic() {
    for (kbps, queue_ms) in [(2_000, 100), (4_000, 100), (4_000, 200), (10_000, 100)] {
        let mut link = Link::new(kbps, 40, queue_ms).with_flow().with_cubic(5 * SECOND..u64::MAX);
        link.run_until(65 * SECOND);
        let (own, other) = (link.percent(0, 15..65), link.percent(1, 15..65));
        assert!(own >= 25 && other >= 25, "{kbps} kbit/s, {queue_ms} ms: {own} % and {other} %");
    }
}

#[test]
fn queue_is_short_again_after_cubic() {
    let mut link = Link::new(4_000, 40, 200).with_flow().with_cubic(5 * SECOND..25 * SECOND);
    link.run_until(60 * SECOND);
    assert!(link.longest_delay(10_000..25_000) > 150, "cubic fills the queue");
    let delay = link.longest_delay(45_000..60_000);
    assert!(delay <= 50, "{delay} ms");
    assert!(link.percent(0, 45..60) >= 90);
}

#[test]
fn random_loss_leaves_the_rate() {
    let mut link = Link::new(3_000, 40, 300).with_flow();
    link.lost_each = 50;
    link.run_until(20 * SECOND);
    let used = link.percent(0, 5..20);
    assert!(used >= 85, "{used} %");
}

#[test]
fn heavy_loss_lowers_the_window() {
    let mut link = Link::new(3_000, 40, 300).with_flow();
    link.lost_each = 4;
    link.run_until(20 * SECOND);
    let used = link.percent(0, 5..20);
    assert!(used <= 60, "{used} %");
}

#[test]
fn source_with_less_than_the_rate_has_a_bounded_window() {
    let mut link = Link::new(3_000, 40, 300).with_flow();
    link.flows[0].per_ms_max = per_ms(1_500);
    link.run_until(30 * SECOND);
    let Control::Delay(controller) = &link.flows[0].control else { panic!("the first flow") };
    // Packets of a millisecond come one by one, so the window never held one back.
    assert_eq!(controller.window(), controller.initial_window() + PACKET);
    assert!(link.longest_delay(0..30_000) <= 10);
}

#[test]
fn persistent_congestion_starts_again() {
    let now = Instant::now();
    let mut controller = DelayController::new(PACKET as u16, now);
    controller.on_congestion_event(now, now, true, 10 * PACKET);
    assert_eq!(controller.window(), 3 * PACKET, "two packets, and what quinn keeps free");
    assert!(matches!(controller.phase, Phase::Start));
}

#[test]
fn larger_packets_raise_the_least_window() {
    let now = Instant::now();
    let mut controller = DelayController::new(PACKET as u16, now);
    controller.on_congestion_event(now, now, true, 0);
    controller.on_mtu_update(1_452);
    assert_eq!(controller.window(), 3 * 1_452);
}

#[test]
fn room_is_what_is_not_in_flight() {
    let now = Instant::now();
    let mut controller = DelayController::new(PACKET as u16, now);
    let address = SocketAddr::from(([127, 0, 0, 1], 9));
    let room = SendRoom { path: address, shared: Arc::clone(&controller.room) };
    assert!(room.is_open());
    (0..10).for_each(|_| room.note_queued(PACKET as usize));
    assert!(!room.is_open());
    let later = now + Duration::from_millis(40);
    controller.acknowledge(now, PACKET);
    controller.on_end_acks(later, 9 * PACKET, false, Some(1));
    assert!(room.is_open(), "an acknowledgement");
    (0..3).for_each(|_| room.note_queued(PACKET as usize));
    assert!(!room.is_open());
    controller.on_congestion_event(later, now, false, 9 * PACKET);
    assert!(room.is_open(), "lost packets");
}

#[test]
fn loss_and_mark_drain_the_queue_of_the_flow() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let window_after = |lost: Option<u64>| {
        let mut controller = DelayController::new(PACKET as u16, start);
        controller.phase = Phase::Delay;
        controller.on_sent(start, 8 * PACKET, 7);
        // The round trip rises from 40 to 50 ms.
        for (sent, acknowledged) in [(0, 40), (40, 90), (52, 102)] {
            controller.acknowledge(at(sent), 10 * PACKET);
            controller.on_end_acks(at(acknowledged), 8 * PACKET, false, None);
        }
        if let Some(lost) = lost {
            controller.on_congestion_event(at(103), at(52), false, lost);
        }
        controller.acknowledge(at(90), 10 * PACKET);
        controller.on_end_acks(at(140), 8 * PACKET, false, None);
        controller.window()
    };
    assert_eq!(window_after(None), 11 * PACKET, "10 ms are wanted");
    // Four fifths of the eight packets, and what quinn keeps free.
    for lost in [0, PACKET] {
        assert_eq!(window_after(Some(lost)), 8 * PACKET * 4 / 5 + PACKET, "{lost} bytes");
    }
}
