//! The congestion controller of connections to clients. Its window follows the delay of the path.
//!
//! Media that waits in a queue of the path is late before it is lost, so the controller keeps that queue short as long as no
//! other flow fills it:
//!
//! - [`Phase::Delay`]: FAST TCP (Jin, Wei and Low, INFOCOM 2004). The window is what the path holds without a queue, and a few packets.
//! - A queue that stays although the window follows it may be another flow's. [`Phase::Probe`] sends for two rounds half of what the path
//!   holds: a queue of this flow ends, that of another one does not (Copa, NSDI 2018, 2.2, tells the two apart in the same way).
//! - [`Phase::Compete`]: CUBIC (RFC 9438), since a flow that keeps queues short gets nothing beside flows that fill them. Probes go on.
//!
//! A loss or mark drains the queue of this flow, which AQMs with a target of 5 ms ask for (RFC 8289, 4.2). Loss without a queue does
//! not lower the window, unless it exceeds 10 % (draft-ietf-rmcat-gcc-02, 6).

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quinn_proto::congestion::{Controller, ControllerFactory};
use quinn_proto::{Connection, RttEstimator};

/// The wanted queueing delay. Shorter ones are lost in the jitter of radio links.
const QUEUE: Duration = Duration::from_millis(10);

/// The wanted queue in packets, where they take longer than [`QUEUE`]: fewer would leave slow links idle.
const QUEUE_PACKETS: f64 = 3.0;

/// A queue is probed once it has lasted for this time, and for four round trips.
const CROWDED_AFTER: Duration = Duration::from_millis(500);

/// Interval of probes beside another flow, and its least length in round trips: a probe costs about two of them.
const PROBED_EVERY: Duration = Duration::from_secs(8);
const ROUND_TRIPS_PER_PROBE: u32 = 24;

/// The probe after one without a queue follows at once: the other flow may have drained the queue after a loss.
const PROBED_AGAIN: Duration = Duration::from_secs(1);

/// The round trip without a queue is the shortest of 30 to 60 s. Other flows leave the queue empty at times within that.
const BASE_FOR: Duration = Duration::from_secs(30);

/// The share of lost bytes from which loss without a queue lowers the window.
const LOSS_MAX: f64 = 0.1;

/// The least window in packets (RFC 9002, 7.2), and that of a probe.
const WINDOW_MIN: f64 = 2.0;
const PROBE_MIN: f64 = 1.0;

/// Bytes that QUIC adds to a DATAGRAM of a client: header, frame type, length and tag.
const OVERHEAD: u64 = 40;

/// The part of a controller's state that tells whether quinn takes a packet now.
#[derive(Debug)]
pub(super) struct SendRoom {
    /// The client's address, which identifies a path of the connection.
    path: SocketAddr,
    shared: Arc<SharedRoom>,
}

#[derive(Debug)]
struct SharedRoom {
    window: AtomicU64,
    /// Bytes that no acknowledgement has covered. Packets of acknowledgements alone, which get none, are left out.
    in_flight: AtomicU64,
}

impl SharedRoom {
    fn new(window: u64) -> SharedRoom {
        SharedRoom { window: AtomicU64::new(window), in_flight: AtomicU64::new(0) }
    }
}

impl SendRoom {
    pub(super) fn of(connection: &Connection) -> SendRoom {
        let controller = connection.congestion_state().clone_box().into_any();
        let shared = controller.downcast::<DelayController>().map_or_else(
            // A connection with a controller of quinn, as in tests, asks that one alone.
            |_| Arc::new(SharedRoom::new(u64::MAX)),
            |controller| Arc::clone(&controller.room),
        );
        SendRoom { path: connection.remote_address(), shared }
    }

    /// Follows the connection to its present path, which may have another controller.
    pub(super) fn follow(&mut self, connection: &Connection) {
        if self.path != connection.remote_address() {
            *self = SendRoom::of(connection);
        }
    }

    /// Returns whether the window takes a packet.
    pub(super) fn is_open(&self) -> bool {
        let SharedRoom { window, in_flight } = &*self.shared;
        in_flight.load(Ordering::Relaxed) < window.load(Ordering::Relaxed)
    }

    /// Counts a DATAGRAM of so many bytes until the next acknowledgement tells the bytes in flight.
    pub(super) fn note_queued(&self, bytes: usize) {
        self.shared.in_flight.fetch_add(bytes as u64 + OVERHEAD, Ordering::Relaxed);
    }
}

/// Makes a controller for each path.
#[derive(Debug)]
pub(super) struct DelayBased;

impl ControllerFactory for DelayBased {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(DelayController::new(current_mtu, now))
    }
}

#[derive(Clone, Debug)]
struct DelayController {
    /// All lengths are bytes.
    packet: f64,
    window: f64,
    initial_window: f64,
    phase: Phase,
    /// `None` before the first acknowledgement.
    path: Option<PathDelay>,
    round: WindowRound,
    in_flight: u64,
    /// Packets of the acknowledgement that is being read.
    acknowledged: Option<Acknowledged>,
    /// The last time when the queue was short, and the window then.
    short_at: Instant,
    short_window: f64,
    /// The queue that a probe has found to be this flow's.
    own_queue: Duration,
    room: Arc<SharedRoom>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Slow start (RFC 9002, 7.3.1), until the queue is longer than wanted.
    Start,
    Delay,
    Probe(Probe),
    Compete(Competition),
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    rounds_left: u8,
    /// The state before the probe.
    window: f64,
    /// The part of the window that the path holds without a queue.
    held: f64,
    queue: Duration,
    round_trip: Duration,
    competition: Option<Competition>,
}

#[derive(Clone, Copy, Debug)]
struct Competition {
    curve: CubicCurve,
    next_probe: Instant,
    /// The last probe found no queue.
    was_empty: bool,
    /// Loss of packets sent until then has lowered the window already.
    reduced_at: Instant,
}

/// The bytes of an acknowledgement, and the time when the newest packet in it was sent.
#[derive(Clone, Copy, Debug)]
struct Acknowledged {
    newest: Instant,
    bytes: u64,
}

/// The time from a packet until its acknowledgement.
#[derive(Clone, Copy, Debug)]
struct WindowRound {
    began: Instant,
    /// The most bytes in flight.
    peak: u64,
    /// The window has held back packets.
    is_limited: bool,
    acknowledged: u64,
    lost: u64,
    is_marked: bool,
}

impl WindowRound {
    fn new(began: Instant, in_flight: u64) -> WindowRound {
        WindowRound {
            began,
            peak: in_flight,
            is_limited: false,
            acknowledged: 0,
            lost: 0,
            is_marked: false,
        }
    }

    /// The share of lost bytes.
    fn loss(&self) -> f64 {
        self.lost as f64 / (self.lost + self.acknowledged).max(1) as f64
    }
}

#[derive(Clone, Copy, Debug)]
struct PathDelay {
    smoothed: Duration,
    /// The round trip without a queue.
    base: RecentMinimum,
    /// The round trip now, without the delays of acknowledgements and jitter: the shortest of half a round trip.
    standing: RecentMinimum,
}

impl PathDelay {
    fn new(round_trip: Duration, now: Instant) -> PathDelay {
        let first = RecentMinimum { latest: round_trip, former: round_trip, since: now };
        PathDelay { smoothed: round_trip, base: first, standing: first }
    }

    fn note(&mut self, round_trip: Duration, now: Instant) {
        self.smoothed = (self.smoothed * 7 + round_trip) / 8;
        self.base.note(round_trip, BASE_FOR, now);
        self.standing.note(round_trip, self.smoothed / 4, now);
    }

    fn queue(&self) -> Duration {
        self.standing.least().saturating_sub(self.base.least())
    }
}

/// The shortest time within the last span, or the last two.
#[derive(Clone, Copy, Debug)]
struct RecentMinimum {
    latest: Duration,
    former: Duration,
    since: Instant,
}

impl RecentMinimum {
    fn note(&mut self, time: Duration, span: Duration, now: Instant) {
        if now.saturating_duration_since(self.since) > span {
            *self = RecentMinimum { latest: time, former: self.latest, since: now };
        } else {
            self.latest = self.latest.min(time);
        }
    }

    fn least(&self) -> Duration {
        self.latest.min(self.former)
    }
}

/// The window over time of CUBIC (RFC 9438). Its constants count packets and seconds.
#[derive(Clone, Copy, Debug)]
struct CubicCurve {
    began: Instant,
    /// The window before the last loss.
    most: f64,
    /// Time until the window is back there, in seconds.
    back_after: f64,
    /// The window of Reno.
    reno: f64,
}

impl CubicCurve {
    /// C and beta (4.1, 4.6).
    const SCALE: f64 = 0.4;
    const DECREASE: f64 = 0.7;

    fn from(window: f64, most: f64, packet: f64, began: Instant) -> CubicCurve {
        let back_after = ((most - window).max(0.0) / packet / CubicCurve::SCALE).cbrt();
        CubicCurve { began, most, back_after, reno: window }
    }

    /// Returns the bytes by which so many acknowledged ones raise the window (4.2 to 4.5).
    fn growth(&mut self, window: f64, acknowledged: f64, packet: f64, now: Instant) -> f64 {
        let time = now.saturating_duration_since(self.began).as_secs_f64() - self.back_after;
        let cubic = CubicCurve::SCALE * time.powi(3) * packet + self.most;
        let of_reno = 3.0 * (1.0 - CubicCurve::DECREASE) / (1.0 + CubicCurve::DECREASE);
        self.reno += of_reno * packet * acknowledged / window;
        let target = cubic.max(self.reno).clamp(window, 1.5 * window);
        (target - window) / window * acknowledged
    }
}

impl DelayController {
    fn new(mtu: u16, now: Instant) -> DelayController {
        let packet = f64::from(mtu);
        // RFC 9002, 7.2.
        let window = (10.0 * packet).min(14_720_f64.max(2.0 * packet));
        DelayController {
            packet,
            window,
            initial_window: window,
            phase: Phase::Start,
            path: None,
            round: WindowRound::new(now, 0),
            in_flight: 0,
            acknowledged: None,
            short_at: now,
            short_window: window,
            own_queue: Duration::ZERO,
            room: Arc::new(SharedRoom::new(window as u64)),
        }
    }

    fn acknowledge(&mut self, sent: Instant, bytes: u64) {
        let all = self.acknowledged.get_or_insert(Acknowledged { newest: sent, bytes: 0 });
        all.newest = all.newest.max(sent);
        all.bytes += bytes;
    }

    fn handle_acknowledged(&mut self, Acknowledged { newest, bytes }: Acknowledged, now: Instant) {
        // A round trip of zero has no rate.
        let round_trip = now.saturating_duration_since(newest).max(Duration::from_micros(1));
        let path = self.path.get_or_insert_with(|| PathDelay::new(round_trip, now));
        path.note(round_trip, now);
        let path = *path;
        self.round.acknowledged += bytes;
        if self.round.is_limited {
            match &mut self.phase {
                Phase::Start => self.window += bytes as f64,
                Phase::Compete(competition) => {
                    let curve = &mut competition.curve;
                    self.window += curve.growth(self.window, bytes as f64, self.packet, now);
                }
                Phase::Delay | Phase::Probe(_) => {}
            }
        }
        let queued = self.queued(&path);
        if matches!(self.phase, Phase::Start) && queued.own > queued.wanted {
            self.phase = Phase::Delay;
        }
        if path.queue() < (2 * QUEUE).max(self.own_queue * 3 / 2) {
            self.short_at = now;
            if matches!(self.phase, Phase::Start | Phase::Delay) {
                self.short_window = self.window;
            }
        }
        if newest >= self.round.began {
            self.end_round(&path, &queued, now);
        }
    }

    /// The bytes of this flow in the queue of the path.
    fn queued(&self, path: &PathDelay) -> Queued {
        let used = self.window.min(self.round.peak as f64);
        let standing = path.standing.least().as_secs_f64();
        let own = used * path.queue().as_secs_f64() / standing;
        let wanted = (QUEUE_PACKETS * self.packet).max(used * QUEUE.as_secs_f64() / standing);
        Queued { used, own, wanted }
    }

    fn end_round(&mut self, path: &PathDelay, queued: &Queued, now: Instant) {
        let round = std::mem::replace(&mut self.round, WindowRound::new(now, self.in_flight));
        self.phase = match self.phase {
            Phase::Start => Phase::Start,
            Phase::Delay => {
                self.follow_delay(&round, queued);
                let lasts = now.saturating_duration_since(self.short_at);
                if round.is_limited && lasts > CROWDED_AFTER.max(path.smoothed * 4) {
                    self.probe(path, None)
                } else {
                    Phase::Delay
                }
            }
            Phase::Probe(probe) if probe.rounds_left > 1 => {
                Phase::Probe(Probe { rounds_left: probe.rounds_left - 1, ..probe })
            }
            Phase::Probe(probe) => self.judge(&probe, path, now),
            Phase::Compete(competition) if competition.next_probe <= now => {
                self.probe(path, Some(competition))
            }
            Phase::Compete(competition) => Phase::Compete(competition),
        };
        let least = if matches!(self.phase, Phase::Probe(_)) { PROBE_MIN } else { WINDOW_MIN };
        self.window = self.window.max(least * self.packet);
    }

    /// Sets the window to what the path holds, and the wanted queue. Without a queue it grows only if packets waited for it.
    fn follow_delay(&mut self, round: &WindowRound, queued: &Queued) {
        let &Queued { used, own, wanted } = queued;
        let wanted = if round.lost > 0 || round.is_marked { 0.0 } else { wanted };
        if own > wanted {
            let target = used - own + wanted;
            // Small steps are halved, so that the window does not swing around its target.
            let is_near = target > 0.8 * self.window;
            self.window = if is_near { f64::midpoint(self.window, target) } else { target };
        } else if round.is_limited {
            self.window = (self.window + wanted - own).min(2.0 * self.window);
        }
        if round.loss() > LOSS_MAX {
            self.window *= 1.0 - 0.5 * round.loss();
        }
    }

    /// Sends half of what the path holds, so that this flow has no queue.
    fn probe(&mut self, path: &PathDelay, competition: Option<Competition>) -> Phase {
        let round_trip = path.standing.least();
        let held = self.window * path.base.least().as_secs_f64() / round_trip.as_secs_f64();
        let (window, queue) = (self.window, path.queue());
        self.window = held / 2.0;
        Phase::Probe(Probe { rounds_left: 2, window, held, queue, round_trip, competition })
    }

    /// Tells by the queue of a probe's last round which flow filled it.
    fn judge(&mut self, probe: &Probe, path: &PathDelay, now: Instant) -> Phase {
        let &Probe { window, held, queue, round_trip, competition, .. } = probe;
        let empty = QUEUE.max(round_trip.mul_f64(2.0 * self.packet / window));
        let is_empty = path.queue() < empty;
        let next_probe = now + PROBED_EVERY.max(path.smoothed * ROUND_TRIPS_PER_PROBE);
        match competition {
            None if path.queue() < empty.max(queue / 2) => {
                self.window = window;
                // The verdict may be wrong, as after a loss of the other flow. The window before the queue bounds its consequence.
                let wanted = QUEUE_PACKETS * self.packet / window.max(self.short_window);
                self.own_queue = queue.min(round_trip.mul_f64(wanted));
                self.short_window = f64::midpoint(self.short_window, window);
                self.short_at = now;
                Phase::Delay
            }
            // The window was lowered for the queue of the other flow.
            None => {
                self.window = window.max(self.short_window);
                let curve = CubicCurve::from(self.window, self.window, self.packet, now);
                let (was_empty, reduced_at) = (false, now);
                Phase::Compete(Competition { curve, next_probe, was_empty, reduced_at })
            }
            Some(competition) if is_empty && competition.was_empty => {
                self.window = held + QUEUE_PACKETS * self.packet;
                self.own_queue = Duration::ZERO;
                self.short_at = now;
                Phase::Delay
            }
            Some(competition) => {
                self.window = window;
                let next_probe = if is_empty { now + PROBED_AGAIN } else { next_probe };
                Phase::Compete(Competition { next_probe, was_empty: is_empty, ..competition })
            }
        }
    }

    fn share_window(&self) {
        self.room.window.store(self.window as u64, Ordering::Relaxed);
    }
}

struct Queued {
    /// The part of the window that was used.
    used: f64,
    own: f64,
    wanted: f64,
}

impl Controller for DelayController {
    fn on_sent(&mut self, _: Instant, bytes: u64, _: u64) {
        self.in_flight += bytes;
        // The endpoint held packets back by this number, which is larger if many DATAGRAMs shared a packet.
        let used = self.in_flight.max(self.room.in_flight.load(Ordering::Relaxed));
        self.round.peak = self.round.peak.max(used);
        self.round.is_limited |= used as f64 + 2.0 * self.packet > self.window;
    }

    // Media is mostly limited by its source when acknowledgements arrive, even if the window has held packets back before:
    // `WindowRound::is_limited` tells that instead of `app_limited`. The round trips of quinn's estimator are smoothed.
    fn on_ack(&mut self, _: Instant, sent: Instant, bytes: u64, _: bool, _: &RttEstimator) {
        self.acknowledge(sent, bytes);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, _: bool, _: Option<u64>) {
        self.in_flight = in_flight;
        if let Some(acknowledged) = self.acknowledged.take() {
            self.handle_acknowledged(acknowledged, now);
        }
        self.room.in_flight.store(in_flight, Ordering::Relaxed);
        self.share_window();
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost: u64) {
        self.in_flight = self.in_flight.saturating_sub(lost);
        let shared = self.room.in_flight.load(Ordering::Relaxed);
        self.room.in_flight.store(shared.saturating_sub(lost), Ordering::Relaxed);
        self.round.lost += lost;
        // A mark of ECN (RFC 3168).
        self.round.is_marked |= lost == 0;
        match &mut self.phase {
            Phase::Start => self.phase = Phase::Delay,
            Phase::Compete(competition) if sent > competition.reduced_at => {
                let most = competition.curve.most;
                // Fast convergence (RFC 9438, 4.7).
                let most = if self.window < most {
                    self.window * (1.0 + CubicCurve::DECREASE) / 2.0
                } else {
                    self.window
                };
                let reduced = CubicCurve::DECREASE * self.window;
                self.window = reduced.max(WINDOW_MIN * self.packet);
                competition.curve = CubicCurve::from(self.window, most, self.packet, now);
                competition.reduced_at = now;
            }
            Phase::Delay | Phase::Probe(_) | Phase::Compete(_) => {}
        }
        if persistent {
            self.window = WINDOW_MIN * self.packet;
            self.phase = Phase::Start;
        }
        self.share_window();
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.packet = f64::from(new_mtu);
        self.window = self.window.max(WINDOW_MIN * self.packet);
        self.share_window();
    }

    /// One packet more than the window: quinn sends nothing once less than a packet of the largest size fits.
    fn window(&self) -> u64 {
        (self.window + self.packet) as u64
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.initial_window as u64
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests;
