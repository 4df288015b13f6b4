//! Tracks the media between a session and its node, and detects flows that end although they should continue.

use std::time::{Duration, Instant};

use evenkeel_model::{FlowCounts, Hop, STREAM_KINDS, Since};

/// Interval of workers' reports on a session, unless there are many sessions.
const TOLD_EVERY: Duration = Duration::from_millis(100);

/// A pause this long ends a run. It exceeds the gaps that jitter of ±80 ms causes, and is shorter than the 400 ms
/// between two packets of silent voice (DTX), which workers report in steps of 100 ms.
const PAUSE: Duration = Duration::from_millis(250);

/// A session without a report for this long may have stopped sending.
const UNTOLD: Duration = Duration::from_millis(500);

/// A session that received media from its node this long without a pause receives it steadily.
const STEADY_AFTER: Duration = Duration::from_secs(1);

/// Packets per second below which a flow is never steady.
const STEADY_RATE: f32 = 10.0;

/// The shortest silence of a session that counts as a lost flow: four times what jitter of ±80 ms causes.
const LOST_AFTER: Duration = Duration::from_millis(700);

/// Missing arrivals, at the session's own packet interval, that make a silence a lost flow.
const LOST_ARRIVALS: f32 = 10.0;

/// Sequence numbers are counted within this time.
const NUMBERS_WITHIN: Duration = Duration::from_secs(2);

/// Fewer packets than this prove nothing: 800 ms of voice.
const NUMBERS_MIN: u32 = 40;

/// A sender that fell silent up to this long before the session did may be the sender that the session heard.
const BEFORE: Duration = Duration::from_millis(500);

/// Each lost flow that a move did not repair multiplies the steady time required before the next one by this.
const VAIN_FACTOR: u32 = 8;
const VAIN_MAX: u32 = 4;

/// A run of packets without a pause.
#[derive(Clone, Copy, Debug)]
struct PacketRun {
    since: Instant,
    last: Instant,
    /// Packets per second, smoothed.
    rate: f32,
}

impl PacketRun {
    fn note(
        run: &mut Option<PacketRun>,
        packets: u32,
        from: Instant,
        now: Instant,
        pause: Duration,
    ) {
        if packets == 0 {
            return;
        }
        // Sessions at rest are not reported.
        let rested = now.saturating_duration_since(from) >= pause;
        let from = if rested { now - TOLD_EVERY } else { from };
        let elapsed = now.saturating_duration_since(from).as_secs_f32().max(0.001);
        let rate = packets as f32 / elapsed;
        match run {
            Some(run) if from.saturating_duration_since(run.last) < pause => {
                run.rate += (rate - run.rate) * elapsed.min(1.0);
                run.last = now;
            }
            // The first report may come at once, and covers a full report interval.
            _ => {
                let rate = packets as f32 / elapsed.max(TOLD_EVERY.as_secs_f32());
                *run = Some(PacketRun { since: from, last: now, rate });
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct SequenceLoss {
    since: Instant,
    expected: u32,
    lost: u32,
}

impl SequenceLoss {
    fn new(now: Instant) -> SequenceLoss {
        SequenceLoss { since: now, expected: 0, lost: 0 }
    }

    fn note(&mut self, flow: &FlowCounts, now: Instant) {
        if now.saturating_duration_since(self.since) >= NUMBERS_WITHIN {
            *self = SequenceLoss::new(now);
        }
        self.expected = self.expected.saturating_add(flow.expected);
        self.lost = self.lost.saturating_add(flow.lost);
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct FlowTracker {
    hop: Hop,
    reported: Instant,
    received: [Option<PacketRun>; STREAM_KINDS],
    sent: [Option<PacketRun>; STREAM_KINDS],
    /// The start of the silence after a steady run.
    silent: Option<Since>,
    numbers: SequenceLoss,
    /// Packets per second of the last steady run, here or at the previous hop; zero if there was none.
    rate: f32,
    /// Moves that did not restore the session's flow.
    vain: u32,
}

/// Tells if a session sent media around a moment in the past, and still sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SendingState {
    On,
    /// The session sent at that moment and has stopped since.
    Stopped,
    /// The session did not send at that moment.
    Not,
}

impl FlowTracker {
    pub(crate) fn new(hop: Hop, now: Instant) -> FlowTracker {
        let (received, sent) = ([None; STREAM_KINDS], [None; STREAM_KINDS]);
        let numbers = SequenceLoss::new(now);
        FlowTracker {
            hop,
            reported: now,
            received,
            sent,
            silent: None,
            numbers,
            rate: 0.0,
            vain: 0,
        }
    }

    pub(crate) fn hop(&self) -> Hop {
        self.hop
    }

    /// The room moves to another hop: media heard at the previous hop is no measure of this one.
    pub(crate) fn goes_to(&mut self, hop: Hop, now: Instant) {
        *self = FlowTracker {
            sent: self.sent,
            reported: self.reported.min(now),
            rate: self.rate,
            vain: self.vain,
            ..FlowTracker::new(hop, now)
        };
    }

    /// Takes a report of the workers, which may come up to `slack` later than [`TOLD_EVERY`]. Returns true if the
    /// session has just fallen silent.
    pub(crate) fn note(&mut self, flow: &FlowCounts, slack: Duration, now: Instant) -> bool {
        let from = std::mem::replace(&mut self.reported, now);
        for (run, packets) in self.sent.iter_mut().zip(flow.sent) {
            PacketRun::note(run, packets, from, now, PAUSE + slack);
        }
        self.numbers.note(flow, now);
        if !flow.is_silent() {
            self.silent = None;
            for (run, packets) in self.received.iter_mut().zip(flow.received) {
                PacketRun::note(run, packets, from, now, PAUSE + slack);
            }
            if self.heard_steadily() {
                self.vain = 0;
                let goes_on =
                    |run: &&PacketRun| now.saturating_duration_since(run.last) < PAUSE + slack;
                self.rate =
                    self.received.iter().flatten().filter(goes_on).map(|run| run.rate).sum();
            }
            return false;
        }
        let falls_silent = self.silent.is_none() && self.heard_steadily();
        if falls_silent {
            self.silent = Some(Since::new(from));
        }
        falls_silent
    }

    /// Some kind of media arrived steadily enough for its end to mean something.
    fn heard_steadily(&self) -> bool {
        self.received.iter().flatten().any(|run| self.is_steady(run))
    }

    fn is_steady(&self, run: &PacketRun) -> bool {
        let long = STEADY_AFTER * VAIN_FACTOR.pow(self.vain.min(VAIN_MAX));
        run.rate >= STEADY_RATE && run.last.saturating_duration_since(run.since) >= long
    }

    /// The start of the silence, if it is long enough by now to count as a lost flow.
    pub(crate) fn lost_since(&self, slack: Duration, now: Instant) -> Option<Instant> {
        let silent = self.silent?;
        let rate = self.received.iter().flatten().map(|run| run.rate).fold(STEADY_RATE, f32::max);
        let limit = LOST_AFTER.max(Duration::from_secs_f32(LOST_ARRIVALS / rate)) + slack;
        (silent.lasted(now) >= limit).then_some(silent.at)
    }

    /// The session is silent after receiving media steadily.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent.is_some()
    }

    /// The time for which expected media has been missing.
    pub(crate) fn silent_for(&self, now: Instant) -> Duration {
        self.silent.map_or(Duration::ZERO, |silent| silent.lasted(now))
    }

    /// The time that this many packets last at the steady rate; zero without a steady run.
    pub(crate) fn lasts(&self, packets: u32) -> Duration {
        match self.rate >= STEADY_RATE {
            true => Duration::from_secs_f32(packets as f32 / self.rate),
            false => Duration::ZERO,
        }
    }

    /// Loss by sequence number of recent packets from the node is at least this, in ppm.
    pub(crate) fn loses(&self, ppm: u32) -> bool {
        let SequenceLoss { expected, lost, .. } = self.numbers;
        expected >= NUMBERS_MIN
            && u64::from(lost) * 1_000_000 >= u64::from(expected) * u64::from(ppm)
    }

    /// Extends the allowed silence by the gateway's own lateness.
    pub(crate) fn excuse(&mut self, late: Duration) {
        if let Some(silent) = &mut self.silent {
            silent.excuse(late);
        }
    }

    /// The session has sent media since tracking began.
    pub(crate) fn sends(&self) -> bool {
        self.sent.iter().any(Option::is_some)
    }

    /// Kinds of media received steadily before the silence.
    pub(crate) fn steady_kinds(&self) -> [bool; STREAM_KINDS] {
        self.received.map(|run| run.is_some_and(|run| self.is_steady(&run)))
    }

    /// Tells whether the session sends media of these kinds, which it sent when another session fell silent.
    pub(crate) fn sending(
        &self,
        kinds: [bool; STREAM_KINDS],
        silent: Instant,
        slack: Duration,
        now: Instant,
    ) -> SendingState {
        let then = |run: &PacketRun| run.since <= silent && run.last + BEFORE >= silent;
        let runs = self.sent.iter().zip(kinds).filter_map(|(run, asked)| run.filter(|_| asked));
        let untold = now.saturating_duration_since(self.reported) >= UNTOLD + slack;
        let is_on = |run: &PacketRun| {
            !untold && self.reported.saturating_duration_since(run.last) < PAUSE + slack
        };
        let (mut any, mut all) = (false, true);
        for run in runs.filter(then) {
            any = true;
            all &= is_on(&run);
        }
        match (any, all) {
            (false, _) => SendingState::Not,
            (true, true) => SendingState::On,
            (true, false) => SendingState::Stopped,
        }
    }

    /// Ends the silence: it has an innocent cause or was handled. The next silence counts after another steady run.
    pub(crate) fn forget(&mut self) {
        self.silent = None;
        self.received = [None; STREAM_KINDS];
    }

    /// The room is moved because of this session's silence.
    pub(crate) fn moved(&mut self) {
        self.forget();
        self.vain = (self.vain + 1).min(VAIN_MAX);
    }
}
