//! Tracks the media between a session and its node, and finds where it ended though it should have gone on.

use std::time::{Duration, Instant};

use crate::Hop;
use crate::nodes::Since;

/// Kinds of media are told apart: a listener to voice alone loses nothing by a camera that is turned on.
const KINDS: usize = 2;

/// Workers report on a session so often, unless there are many.
const TOLD_EVERY: Duration = Duration::from_millis(100);

/// A pause this long ends a run: longer than jitter of ±80 ms makes, shorter than the 400 ms between two packets of
/// silent voice (DTX), told in steps of 100 ms.
const PAUSE: Duration = Duration::from_millis(250);

/// A session without a report for so long may have stopped sending.
const UNTOLD: Duration = Duration::from_millis(500);

/// A session that heard its node without a pause for so long hears it steadily.
const STEADY_AFTER: Duration = Duration::from_secs(1);

/// Packets per second below which nothing is steady.
const STEADY_RATE: f32 = 10.0;

/// The shortest silence of a session that is a lost flow: four times what jitter of ±80 ms makes.
const LOST_AFTER: Duration = Duration::from_millis(700);

/// Arrivals of the session's own interval that must be missing.
const LOST_ARRIVALS: f32 = 10.0;

/// Packets are counted within this.
const NUMBERS_WITHIN: Duration = Duration::from_secs(2);

/// Fewer of them than this say nothing: of a voice, 800 ms.
const NUMBERS_MIN: u32 = 40;

/// A sender that fell silent up to this long before the session did may be the one that it heard.
const BEFORE: Duration = Duration::from_millis(500);

/// Each lost flow that its move did not mend makes the next one wait for a steady run so many times as long.
const VAIN_FACTOR: u32 = 8;
const VAIN_MAX: u32 = 4;

/// Packets between a session and its node since the last report: RTP, by kind.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Flow {
    /// To the node, in the order of [`Kind`](crate::Kind).
    pub sent: [u32; KINDS],
    /// From the hop that it hears, whether or not they reached the client.
    pub came: [u32; KINDS],
    pub hears: Option<Hop>,
    /// Packets that should have come from there, by the node's numbers, and those of them that are missing.
    pub expected: u32,
    /// See `expected`.
    pub lost: u32,
    /// Packets that were missing when another hop went on with a stream, by number; without what came late.
    pub missed: u32,
    /// The loss that the node reported last, parts per million (RFC 3550, 6.4.1), if it did so since.
    pub reported_ppm: Option<u32>,
}

impl Flow {
    fn is_silent(&self) -> bool {
        self.came == [0; KINDS]
    }
}

/// Packets without a pause.
#[derive(Clone, Copy, Debug)]
struct Run {
    since: Instant,
    last: Instant,
    /// Per second, smoothed.
    rate: f32,
}

impl Run {
    fn note(run: &mut Option<Run>, packets: u32, from: Instant, now: Instant, pause: Duration) {
        if packets == 0 {
            return;
        }
        // A resting session is not reported on meanwhile.
        let rested = now.saturating_duration_since(from) >= pause;
        let from = if rested { now - TOLD_EVERY } else { from };
        let elapsed = now.saturating_duration_since(from).as_secs_f32().max(0.001);
        let rate = packets as f32 / elapsed;
        match run {
            Some(run) if from.saturating_duration_since(run.last) < pause => {
                run.rate += (rate - run.rate) * elapsed.min(1.0);
                run.last = now;
            }
            // The first word may come at once, and tells of the time that words tell of.
            _ => {
                let rate = packets as f32 / elapsed.max(TOLD_EVERY.as_secs_f32());
                *run = Some(Run { since: from, last: now, rate });
            }
        }
    }
}

/// By the numbers of packets.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    since: Instant,
    expected: u32,
    lost: u32,
}

impl Numbers {
    fn new(now: Instant) -> Numbers {
        Numbers { since: now, expected: 0, lost: 0 }
    }

    fn note(&mut self, flow: &Flow, now: Instant) {
        if now.saturating_duration_since(self.since) >= NUMBERS_WITHIN {
            *self = Numbers::new(now);
        }
        self.expected = self.expected.saturating_add(flow.expected);
        self.lost = self.lost.saturating_add(flow.lost);
    }
}

/// One session's flow at one hop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Track {
    hop: Hop,
    told: Instant,
    came: [Option<Run>; KINDS],
    sent: [Option<Run>; KINDS],
    /// Since when nothing came, after a steady run.
    silent: Option<Since>,
    numbers: Numbers,
    /// Packets per second of what it heard steadily, here or at the hop before; zero where it never did.
    rate: f32,
    /// Moves for its sake after which it heard no more than before.
    vain: u32,
}

/// The sending of a session around a moment in the past, and now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sending {
    /// It sent then, and sends on.
    On,
    /// It sent then, and no longer.
    Stopped,
    /// It sent nothing then.
    Not,
}

impl Track {
    pub(crate) fn new(hop: Hop, now: Instant) -> Track {
        let (came, sent) = ([None; KINDS], [None; KINDS]);
        let numbers = Numbers::new(now);
        Track { hop, told: now, came, sent, silent: None, numbers, rate: 0.0, vain: 0 }
    }

    pub(crate) fn hop(&self) -> Hop {
        self.hop
    }

    /// Its room goes elsewhere: what it heard there is no measure of what it hears here.
    pub(crate) fn goes_to(&mut self, hop: Hop, now: Instant) {
        *self = Track {
            sent: self.sent,
            told: self.told.min(now),
            rate: self.rate,
            vain: self.vain,
            ..Track::new(hop, now)
        };
    }

    /// Takes a report of workers, which may come `slack` later than [`TOLD_EVERY`]. Returns true if the session has
    /// just fallen silent.
    pub(crate) fn note(&mut self, flow: &Flow, slack: Duration, now: Instant) -> bool {
        let from = std::mem::replace(&mut self.told, now);
        for (run, packets) in self.sent.iter_mut().zip(flow.sent) {
            Run::note(run, packets, from, now, PAUSE + slack);
        }
        self.numbers.note(flow, now);
        if !flow.is_silent() {
            self.silent = None;
            for (run, packets) in self.came.iter_mut().zip(flow.came) {
                Run::note(run, packets, from, now, PAUSE + slack);
            }
            if self.heard_steadily() {
                self.vain = 0;
                let goes_on = |run: &&Run| now.saturating_duration_since(run.last) < PAUSE + slack;
                self.rate = self.came.iter().flatten().filter(goes_on).map(|run| run.rate).sum();
            }
            return false;
        }
        let falls_silent = self.silent.is_none() && self.heard_steadily();
        if falls_silent {
            self.silent = Some(Since::new(from));
        }
        falls_silent
    }

    /// Media of some kind came long and often enough that its end means something.
    fn heard_steadily(&self) -> bool {
        self.came.iter().flatten().any(|run| self.is_steady(run))
    }

    fn is_steady(&self, run: &Run) -> bool {
        let long = STEADY_AFTER * VAIN_FACTOR.pow(self.vain.min(VAIN_MAX));
        run.rate >= STEADY_RATE && run.last.saturating_duration_since(run.since) >= long
    }

    /// Since when nothing came though it should have, if that is long enough by now.
    pub(crate) fn lost_since(&self, slack: Duration, now: Instant) -> Option<Instant> {
        let silent = self.silent?;
        let rate = self.came.iter().flatten().map(|run| run.rate).fold(STEADY_RATE, f32::max);
        let limit = LOST_AFTER.max(Duration::from_secs_f32(LOST_ARRIVALS / rate)) + slack;
        (silent.lasted(now) >= limit).then_some(silent.at)
    }

    /// It is silent since it heard its node steadily.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent.is_some()
    }

    /// For how long nothing came though it should have.
    pub(crate) fn silent_for(&self, now: Instant) -> Duration {
        self.silent.map_or(Duration::ZERO, |silent| silent.lasted(now))
    }

    /// For how long so many packets would have gone on; nothing where it never heard steadily.
    pub(crate) fn lasts(&self, packets: u32) -> Duration {
        match self.rate >= STEADY_RATE {
            true => Duration::from_secs_f32(packets as f32 / self.rate),
            false => Duration::ZERO,
        }
    }

    /// At least so much of what its node sent lately was lost, parts per million, by number.
    pub(crate) fn loses(&self, ppm: u32) -> bool {
        let Numbers { expected, lost, .. } = self.numbers;
        expected >= NUMBERS_MIN
            && u64::from(lost) * 1_000_000 >= u64::from(expected) * u64::from(ppm)
    }

    /// We were late ourselves: it may be silent so much longer.
    pub(crate) fn excuse(&mut self, late: Duration) {
        if let Some(silent) = &mut self.silent {
            silent.excuse(late);
        }
    }

    /// It sent something since it is known.
    pub(crate) fn sends(&self) -> bool {
        self.sent.iter().any(Option::is_some)
    }

    /// Kinds of media that it heard steadily before it fell silent.
    pub(crate) fn heard(&self) -> [bool; KINDS] {
        self.came.map(|run| run.is_some_and(|run| self.is_steady(&run)))
    }

    /// Tells if it sends the media of these kinds that it sent when another session fell silent.
    pub(crate) fn sending(
        &self,
        kinds: [bool; KINDS],
        silent: Instant,
        slack: Duration,
        now: Instant,
    ) -> Sending {
        let then = |run: &Run| run.since <= silent && run.last + BEFORE >= silent;
        let runs = self.sent.iter().zip(kinds).filter_map(|(run, asked)| run.filter(|_| asked));
        let untold = now.saturating_duration_since(self.told) >= UNTOLD + slack;
        let is_on =
            |run: &Run| !untold && self.told.saturating_duration_since(run.last) < PAUSE + slack;
        let (mut any, mut all) = (false, true);
        for run in runs.filter(then) {
            any = true;
            all &= is_on(&run);
        }
        match (any, all) {
            (false, _) => Sending::Not,
            (true, true) => Sending::On,
            (true, false) => Sending::Stopped,
        }
    }

    /// The silence has an innocent cause, or was dealt with: it counts again once the session heard its node steadily.
    pub(crate) fn forget(&mut self) {
        self.silent = None;
        self.came = [None; KINDS];
    }

    /// Its room is moved for its sake.
    pub(crate) fn moved(&mut self) {
        self.forget();
        self.vain = (self.vain + 1).min(VAIN_MAX);
    }
}
