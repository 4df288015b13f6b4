//! Evidence about one node, and what follows from it.
//!
//! Two independent witnesses condemn at once; one alone makes the node Suspect, and condemns when it has lasted.
//! A kernel error on a trunk and a kernel error on a probe are one witness.

use std::time::{Duration, Instant};

use crate::{Timings, Witness};

/// Probes in flight that are remembered; older ones no longer matter.
const PROBES_MAX: usize = 16;

/// How much a sample changes a smoothed round trip or loss: one part in this many (RFC 6298 uses 8).
const SMOOTHING: u32 = 8;

/// A node is `near` when it is in the gateway's own region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Distance {
    Near,
    Far,
}

/// What workers saw of a node so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Stamp {
    /// When its last packet came.
    pub last_received: Option<Instant>,
    /// Packets that came from it, ever.
    pub received: u64,
    /// When something was last sent to it.
    pub last_sent: Option<Instant>,
}

/// What the evidence says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Finding {
    Well,
    Accused,
    Dead,
}

/// Evidence about one node.
#[derive(Debug)]
pub(crate) struct Detector {
    timings: Timings,
    distance: Distance,
    /// Since when each witness accuses, in the order of [`Witness::ALL`].
    accused: [Option<Instant>; 3],
    probes: Vec<Probe>,
    missed_in_a_row: u32,
    round_trip: Option<RoundTrip>,
    /// Probes unanswered, smoothed.
    loss_ppm: u32,
    stamp: Stamp,
    stamped: Option<Instant>,
    /// Packets per second from the node as a whole, smoothed over a second.
    rate: f64,
    /// Since when we have been sending without hearing anything.
    expecting_since: Option<Instant>,
    answered: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    sequence: u64,
    sent: Instant,
    /// Moves with our own stalls, where `sent` must not.
    deadline: Instant,
    missed: bool,
}

/// Smoothed as TCP does (RFC 6298, 2).
#[derive(Clone, Copy, Debug)]
struct RoundTrip {
    smoothed: Duration,
    variation: Duration,
}

impl Detector {
    pub(crate) fn new(timings: Timings, distance: Distance) -> Detector {
        Detector {
            timings,
            distance,
            accused: [None; 3],
            probes: Vec::with_capacity(PROBES_MAX),
            missed_in_a_row: 0,
            round_trip: None,
            loss_ppm: 0,
            stamp: Stamp::default(),
            stamped: None,
            rate: 0.0,
            expecting_since: None,
            answered: None,
        }
    }

    pub(crate) fn probe_every(&self) -> Duration {
        match self.distance {
            Distance::Near => self.timings.probe_every_near,
            Distance::Far => self.timings.probe_every_far,
        }
    }

    pub(crate) fn handle_probe_sent(&mut self, sequence: u64, now: Instant) {
        if self.probes.len() == PROBES_MAX {
            self.probes.remove(0);
        }
        let deadline = now + self.answer_within();
        self.probes.push(Probe { sequence, sent: now, deadline, missed: false });
    }

    /// An answer withdraws what probes and the kernel said: somebody listens there.
    pub(crate) fn handle_probe_answered(&mut self, sequence: u64, now: Instant) {
        let Some(at) = self.probes.iter().position(|probe| probe.sequence == sequence) else {
            return;
        };
        let probe = self.probes.remove(at);
        let sample = now.saturating_duration_since(probe.sent);
        self.round_trip = Some(match self.round_trip {
            None => RoundTrip { smoothed: sample, variation: sample / 2 },
            Some(RoundTrip { smoothed, variation }) => RoundTrip {
                smoothed: (smoothed * (SMOOTHING - 1) + sample) / SMOOTHING,
                variation: (variation * 3 + smoothed.abs_diff(sample)) / 4,
            },
        });
        self.loss_ppm -= self.loss_ppm / SMOOTHING;
        self.missed_in_a_row = 0;
        self.answered = Some(now);
        self.withdraw(Witness::Probe);
        self.withdraw(Witness::KernelError);
    }

    pub(crate) fn handle_kernel_error(&mut self, now: Instant) {
        self.accuse(Witness::KernelError, now);
    }

    /// What workers saw since the last stamp: arrivals withdraw silence, and the kernel's word with it.
    pub(crate) fn handle_stamp(&mut self, stamp: Stamp, now: Instant) {
        let elapsed = self.stamped.map_or(0.0, |before| (now - before).as_secs_f64());
        if elapsed > 0.0 {
            let arrived = stamp.received.saturating_sub(self.stamp.received) as f64;
            self.rate += (arrived / elapsed - self.rate) * elapsed.min(1.0);
        }
        if stamp.received > self.stamp.received {
            self.expecting_since = None;
            self.withdraw(Witness::Silence);
            if stamp.last_received > self.accused[Witness::KernelError as usize] {
                self.withdraw(Witness::KernelError);
            }
        }
        let sending = stamp.last_sent > stamp.last_received;
        if sending && self.expecting_since.is_none() {
            self.expecting_since = stamp.last_sent.map(|sent| sent.min(now));
        }
        self.stamp = stamp;
        self.stamped = Some(now);
    }

    /// We were late ourselves: every deadline moves by that much.
    pub(crate) fn excuse(&mut self, late: Duration) {
        for probe in &mut self.probes {
            probe.deadline += late;
        }
        for since in self.accused.iter_mut().chain([&mut self.expecting_since]) {
            *since = since.map(|since| since + late);
        }
    }

    /// Weighs the evidence.
    pub(crate) fn weigh(&mut self, now: Instant) -> Finding {
        self.weigh_probes(now);
        self.weigh_silence(now);
        let mut accusations = self.accused.iter().flatten();
        match (accusations.next(), accusations.next()) {
            (None, _) => Finding::Well,
            (Some(_), Some(_)) => Finding::Dead,
            (Some(&since), None)
                if now.saturating_duration_since(since) >= self.condemn_alone() =>
            {
                Finding::Dead
            }
            (Some(_), None) => Finding::Accused,
        }
    }

    fn weigh_probes(&mut self, now: Instant) {
        let mut missed = 0;
        for probe in self.probes.iter_mut().filter(|probe| !probe.missed && now >= probe.deadline) {
            probe.missed = true;
            missed += 1;
        }
        for _ in 0..missed {
            self.loss_ppm += (1_000_000 - self.loss_ppm) / SMOOTHING;
        }
        self.missed_in_a_row += missed;
        let enough = match self.distance {
            Distance::Near => 2,
            Distance::Far => 1,
        };
        if self.missed_in_a_row >= enough {
            self.accuse(Witness::Probe, now);
        }
    }

    fn weigh_silence(&mut self, now: Instant) {
        let (Some(since), Some(limit)) = (self.expecting_since, self.silence_limit()) else {
            return;
        };
        let still_sending =
            self.stamp.last_sent.is_some_and(|sent| now.saturating_duration_since(sent) < limit);
        if still_sending && now.saturating_duration_since(since) >= limit {
            self.accuse(Witness::Silence, now);
        }
    }

    /// How long the node as a whole may be silent; `None` where nothing is expected of it.
    fn silence_limit(&self) -> Option<Duration> {
        let interval = (self.rate >= 1.0).then(|| Duration::from_secs_f64(1.0 / self.rate))?;
        let limit = interval * self.timings.silence_arrivals;
        Some(limit.clamp(self.timings.silence_min, self.condemn_alone()))
    }

    /// Round trip, and slack for its variation within bounds: a machine under load answers late, a dead one never.
    fn answer_within(&self) -> Duration {
        let slack = self.timings.probe_slack;
        match self.round_trip {
            None => self.probe_every() + slack,
            Some(RoundTrip { smoothed, variation }) => {
                smoothed + (variation * 4).clamp(slack, slack * 3)
            }
        }
    }

    fn condemn_alone(&self) -> Duration {
        match self.distance {
            Distance::Near => self.timings.condemn_alone_near,
            Distance::Far => self.timings.condemn_alone_far,
        }
    }

    fn accuse(&mut self, witness: Witness, now: Instant) {
        self.accused[witness as usize].get_or_insert(now);
    }

    fn withdraw(&mut self, witness: Witness) {
        self.accused[witness as usize] = None;
    }

    /// Forgets what was said about an incarnation that is gone; what was measured of the way stays.
    pub(crate) fn absolve(&mut self) {
        self.accused = [None; 3];
        self.missed_in_a_row = 0;
        self.probes.clear();
        self.expecting_since = None;
        self.rate = 0.0;
        self.answered = None;
    }

    /// Who accuses the node, and since when.
    pub(crate) fn witnesses(&self) -> Vec<(Witness, Instant)> {
        Witness::ALL
            .into_iter()
            .filter_map(|witness| Some((witness, self.accused[witness as usize]?)))
            .collect()
    }

    /// When the node was last heard: a packet, or the answer to a probe.
    pub(crate) fn last_heard(&self) -> Option<Instant> {
        self.stamp.last_received.max(self.answered)
    }

    pub(crate) fn last_answer(&self) -> Option<Instant> {
        self.answered
    }

    pub(crate) fn round_trip(&self) -> Option<(Duration, Duration)> {
        self.round_trip.map(|trip| (trip.smoothed, trip.variation))
    }

    pub(crate) fn loss_ppm(&self) -> u32 {
        self.loss_ppm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A node that answers probes within 1 ms and sends 1,000 packets/s, seen every 2 ms for a second.
    struct Scene {
        detector: Detector,
        now: Instant,
        sequence: u64,
        received: u64,
    }

    impl Scene {
        fn busy() -> Scene {
            Scene::with(Distance::Near, 1_000)
        }

        fn with(distance: Distance, rate: u64) -> Scene {
            let detector = Detector::new(Timings::default(), distance);
            let mut scene = Scene { detector, now: Instant::now(), sequence: 0, received: 0 };
            for _ in 0..2_000 {
                scene.hear(rate * 2);
                scene.step(true);
            }
            assert_eq!(scene.detector.weigh(scene.now), Finding::Well);
            scene
        }

        /// Thousandths of a packet that arrive.
        fn hear(&mut self, thousandths: u64) {
            self.received += thousandths;
        }

        /// Two milliseconds pass; probes go out at their pace and are answered, or not.
        fn step(&mut self, answers: bool) -> Finding {
            self.step_late(answers, 2 * MS)
        }

        fn step_late(&mut self, answers: bool, by: Duration) -> Finding {
            self.now += by;
            self.sequence += 1;
            if self.sequence.is_multiple_of(5) {
                self.detector.handle_probe_sent(self.sequence, self.now - MS);
                if answers {
                    self.detector.handle_probe_answered(self.sequence, self.now);
                }
            }
            let received = self.received / 1_000;
            let heard = (received > self.detector.stamp.received).then(|| self.now - MS / 2);
            let last_received = heard.or(self.detector.stamp.last_received);
            let stamp = Stamp { last_received, received, last_sent: Some(self.now) };
            self.detector.handle_stamp(stamp, self.now);
            self.detector.weigh(self.now)
        }

        /// Milliseconds until the node is condemned, if it happens within `limit`.
        fn condemned_after(&mut self, answers: bool, limit: Duration) -> Option<Duration> {
            let start = self.now;
            while self.now - start < limit {
                if self.step(answers) == Finding::Dead {
                    return Some(self.now - start);
                }
            }
            None
        }
    }

    #[test]
    fn a_silent_death_is_known_within_forty_milliseconds() {
        let after = Scene::busy().condemned_after(false, 100 * MS).unwrap();
        assert!(after <= 40 * MS, "{after:?}");
    }

    #[test]
    fn a_death_that_the_kernel_tells_of_is_known_within_twenty_milliseconds() {
        let mut scene = Scene::busy();
        scene.detector.handle_kernel_error(scene.now);
        let after = scene.condemned_after(false, 100 * MS).unwrap();
        assert!(after <= 20 * MS, "{after:?}");
    }

    #[test]
    fn silence_alone_makes_suspect_and_condemns_when_it_lasts() {
        let mut scene = Scene::busy();
        assert_eq!(scene.step(true), Finding::Well);
        let after = scene.condemned_after(true, 400 * MS).unwrap();
        assert!((200 * MS..=216 * MS).contains(&after), "{after:?}");
    }

    #[test]
    fn a_packet_withdraws_silence() {
        let mut scene = Scene::busy();
        for _ in 0..10 {
            scene.step(true);
        }
        assert_eq!(scene.detector.weigh(scene.now), Finding::Accused);
        scene.hear(1_000);
        assert_eq!(scene.step(true), Finding::Well);
    }

    #[test]
    fn an_answer_withdraws_what_the_kernel_said() {
        let mut scene = Scene::busy();
        scene.detector.handle_kernel_error(scene.now);
        assert_eq!(scene.detector.weigh(scene.now), Finding::Accused);
        for _ in 0..5 {
            scene.hear(2_000);
            scene.step(true);
        }
        assert_eq!(scene.detector.weigh(scene.now), Finding::Well);
    }

    #[test]
    fn one_missed_probe_near_accuses_nobody_and_two_do() {
        let mut detector = Detector::new(Timings::default(), Distance::Near);
        let now = Instant::now();
        detector.handle_probe_sent(1, now);
        assert_eq!(detector.weigh(now + 100 * MS), Finding::Well);
        detector.handle_probe_sent(2, now + 10 * MS);
        assert_eq!(detector.weigh(now + 101 * MS), Finding::Accused);
        assert_eq!(detector.witnesses(), [(Witness::Probe, now + 101 * MS)]);
    }

    #[test]
    fn one_missed_probe_across_regions_accuses() {
        let mut detector = Detector::new(Timings::default(), Distance::Far);
        let now = Instant::now();
        detector.handle_probe_sent(1, now);
        assert_eq!(detector.weigh(now + 54 * MS), Finding::Well);
        assert_eq!(detector.weigh(now + 55 * MS), Finding::Accused);
    }

    #[test]
    fn silence_accuses_nobody_while_nothing_is_sent_or_expected() {
        let mut idle = Scene::busy();
        let last = Stamp { last_sent: idle.detector.stamp.last_received, ..idle.detector.stamp };
        idle.detector.handle_stamp(last, idle.now);
        idle.detector.expecting_since = None;
        idle.detector.handle_stamp(last, idle.now + 50 * MS);
        assert_eq!(idle.detector.weigh(idle.now + 50 * MS), Finding::Well);

        let mut mute = Detector::new(Timings::default(), Distance::Near);
        let now = Instant::now();
        for ms in 0..300 {
            let at = now + MS * ms;
            mute.handle_stamp(Stamp { last_sent: Some(at), ..Stamp::default() }, at);
            assert_eq!(mute.weigh(at), Finding::Well);
        }
    }

    #[test]
    fn a_slow_node_is_given_ten_arrivals() {
        let mut scene = Scene::with(Distance::Near, 100);
        for _ in 0..40 {
            assert_eq!(scene.step(true), Finding::Well);
        }
        for _ in 0..20 {
            scene.step(true);
        }
        assert_eq!(scene.detector.weigh(scene.now), Finding::Accused);
    }

    #[test]
    fn our_own_stall_condemns_nobody() {
        let mut scene = Scene::busy();
        scene.detector.handle_probe_sent(77, scene.now);
        scene.detector.handle_probe_sent(78, scene.now);
        let stall = 60 * MS;
        scene.detector.excuse(stall);
        scene.hear(1_000);
        assert_eq!(scene.step_late(true, stall), Finding::Well);

        let mut blamed = Scene::busy();
        blamed.detector.handle_probe_sent(77, blamed.now);
        blamed.detector.handle_probe_sent(78, blamed.now);
        assert_eq!(
            blamed.step_late(true, stall),
            Finding::Dead,
            "without the excuse it is condemned"
        );
    }
}
