mod jitter;
mod loss;

use super::*;

const MS: Duration = Duration::from_millis(1);

/// A node that answers probes within 1 ms and sends 1,000 packets/s, observed every 2 ms for a second.
struct Scene {
    detector: Detector,
    now: Instant,
    sequence: u64,
    received: u64,
    last_received: Option<Instant>,
    /// The time at which the gateway last sent media; `None`: it sends all the time.
    hung_up: Option<Instant>,
    /// The node is probed.
    probed: bool,
    asked: Option<u64>,
}

impl Scene {
    fn busy() -> Scene {
        Scene::with(Distance::Near, 1_000)
    }

    fn with(distance: Distance, rate: u64) -> Scene {
        Scene::of(Detector::new(Timings::default(), distance), rate)
    }

    fn of(detector: Detector, rate: u64) -> Scene {
        let mut scene = Scene {
            detector,
            now: Instant::now(),
            sequence: 0,
            received: 0,
            last_received: None,
            hung_up: None,
            probed: true,
            asked: None,
        };
        for _ in 0..2_000 {
            scene.hear(rate * 2);
            scene.step(true);
        }
        assert_eq!(scene.detector.weigh(scene.now), DetectorFinding::Well);
        scene
    }

    /// Receives this many thousandths of a packet.
    fn hear(&mut self, thousandths: u64) {
        self.received += thousandths;
    }

    /// Lets 2 ms pass. Probes are sent at their interval, and answered if `answers`.
    fn step(&mut self, answers: bool) -> DetectorFinding {
        self.step_late(answers, 2 * MS)
    }

    fn step_late(&mut self, answers: bool, by: Duration) -> DetectorFinding {
        self.now += by;
        self.sequence += 1;
        if self.probed && (self.sequence.is_multiple_of(5) || self.detector.hastens(None, self.now))
        {
            self.asked = Some(self.sequence);
            self.detector.handle_probe_sent(self.sequence, self.now - MS);
            if answers {
                self.detector.handle_probe_answered(self.sequence, self.now);
            }
        }
        let received = self.received / 1_000;
        if received > self.detector.silence.stamp.received {
            self.last_received = Some(self.now - MS / 2);
        }
        let last_sent = self.hung_up.or(Some(self.now));
        let stamp = Stamp { last_received: self.last_received, received, last_sent };
        self.detector.handle_stamp(stamp, self.now);
        self.detector.weigh(self.now)
    }

    /// Milliseconds until the node is marked down, if within `limit`.
    fn down_after(&mut self, answers: bool, limit: Duration) -> Option<Duration> {
        let start = self.now;
        while self.now - start < limit {
            if self.step(answers) == DetectorFinding::Dead {
                return Some(self.now - start);
            }
        }
        None
    }
}

#[test]
fn silent_death_is_detected_within_40_ms() {
    let after = Scene::busy().down_after(false, 100 * MS).unwrap();
    assert!(after <= 40 * MS, "{after:?}");
}

#[test]
fn time_of_detection_is_known_before() {
    for (distance, probed, expected) in [
        (Distance::Near, NodeProbing::Yes, 16),
        (Distance::Far, NodeProbing::Yes, 11),
        (Distance::Near, NodeProbing::No, 210),
    ] {
        let mut scene = Scene::with(distance, 1_000);
        scene.probed = probed == NodeProbing::Yes;
        let known = scene.detector.detects_within(probed);
        assert_eq!(known.as_millis(), expected);
        let after = scene.down_after(false, 1_000 * MS).unwrap();
        assert!(after.abs_diff(known) <= 4 * MS, "{after:?}, {known:?} before");
    }
    let unheard = Detector::new(Timings::default(), Distance::Near);
    assert_eq!(unheard.detects_within(NodeProbing::Yes), 24 * MS, "no answer: an interval more");
}

#[test]
fn detection_is_independent_of_probe_phase() {
    for phase in 0..5 {
        let mut scene = Scene::busy();
        for _ in 0..phase {
            scene.hear(2_000);
            scene.step(true);
        }
        let known = scene.down_after(false, 100 * MS).expect("marked down");
        assert!(
            known <= 22 * MS,
            "{known:?}, where the next probe was due in its turn after {phase}"
        );
    }
}

#[test]
fn lull_is_probed_once_and_not_at_low_rate() {
    let mut scene = Scene::busy();
    let out_of_turn = |scene: &mut Scene| {
        let hastened = |_: &u32| {
            scene.step(true);
            scene.asked.is_some_and(|asked| asked == scene.sequence && !asked.is_multiple_of(5))
        };
        (0..15).filter(hastened).count()
    };
    assert_eq!(out_of_turn(&mut scene), 1, "its answer says that the node lives");
    let mut seldom = Scene::with(Distance::Near, 50);
    assert_eq!(out_of_turn(&mut seldom), 0, "30 ms without one of 50 a second are no silence");
}

#[test]
fn probe_is_overdue_before_it_accuses() {
    let mut standby = Scene::busy();
    assert!(!standby.detector.is_overdue(standby.now));
    standby.hung_up = Some(standby.now);
    standby.detector.handle_probe_sent(9_999, standby.now);
    let within = standby.detector.answer_within();
    for (after, is_overdue) in [(within - MS, false), (within, true)] {
        assert_eq!(standby.detector.is_overdue(standby.now + after), is_overdue);
    }
    standby.detector.weigh(standby.now + within);
    assert!(!standby.detector.is_overdue(standby.now + within), "one probe may be lost");
    while standby.step(false) == DetectorFinding::Well {}
    assert!(standby.detector.is_overdue(standby.now), "an answer would withdraw the accusation");
}

#[test]
fn kernel_error_is_detected_within_20_ms() {
    let mut scene = Scene::busy();
    scene.detector.handle_kernel_error(scene.now);
    let after = scene.down_after(false, 100 * MS).unwrap();
    assert!(after <= 20 * MS, "{after:?}");
}

#[test]
fn refusal_of_an_answered_probe_is_ignored() {
    let (mut detector, start) = (Detector::new(Timings::default(), Distance::Near), Instant::now());
    detector.handle_probe_sent(1, start);
    detector.handle_probe_sent(2, start + 10 * MS);
    detector.handle_probe_answered(1, start + 11 * MS);
    for sequence in [0, 1, 3] {
        detector.handle_probe_refused(sequence, start + 12 * MS);
    }
    assert_eq!(detector.witnesses(), []);
    detector.handle_probe_refused(2, start + 12 * MS);
    assert_eq!(detector.witnesses(), [(EvidenceSource::KernelError, start + 12 * MS)]);
}

#[test]
fn kernel_errors_never_down_a_node_that_is_heard() {
    for media in [true, false] {
        let mut scene = Scene::busy();
        scene.probed = !media;
        if !media {
            scene.hung_up = Some(scene.now);
        }
        // A forger on the path quotes what it saw, every 2 ms.
        for _ in 0..2_000 {
            scene.detector.handle_kernel_error(scene.now);
            scene.hear(if media { 2_000 } else { 0 });
            assert_ne!(scene.step(true), DetectorFinding::Dead, "media: {media}");
        }
    }
}

#[test]
fn later_canary_withdraws_kernel_error() {
    let (mut detector, start) = (Detector::new(Timings::default(), Distance::Near), Instant::now());
    detector.handle_canary_sent(1, start);
    detector.handle_kernel_error(start + MS);
    detector.handle_canary_sent(2, start + 2 * MS);
    detector.handle_canary_passed(1);
    assert_eq!(
        detector.weigh(start + 3 * MS),
        DetectorFinding::Accused,
        "it was on its way before"
    );
    detector.handle_canary_passed(2);
    assert_eq!(detector.weigh(start + 300 * MS), DetectorFinding::Well);
}

#[test]
fn two_refused_probes_close_port_one_suspects() {
    for (refuses, expected) in [(1, DetectorFinding::Accused), (2, DetectorFinding::Dead)] {
        let mut scene = Scene::busy();
        // No packet goes there, so none is expected, and probes are the only evidence.
        scene.hung_up = Some(scene.now);
        for _ in 0..100 {
            scene.step(true);
        }
        let mut found = Vec::new();
        for step in 0..30 {
            // A probe is sent at every fifth step.
            let answers = step / 5 >= refuses;
            if !answers && scene.sequence.is_multiple_of(5) {
                scene.detector.handle_kernel_error(scene.now);
            }
            found.push(scene.step(answers));
        }
        assert!(found.contains(&expected), "{refuses}: {found:?}");
        assert!(
            expected == DetectorFinding::Dead || !found.contains(&DetectorFinding::Dead),
            "{refuses}"
        );
    }
}

#[test]
fn silence_alone_downs_unprobed_node() {
    let mut scene = Scene::busy();
    scene.probed = false;
    assert_eq!(scene.step(true), DetectorFinding::Well);
    let after = scene.down_after(true, 400 * MS).unwrap();
    assert!((200 * MS..=216 * MS).contains(&after), "{after:?}");
}

#[test]
fn answering_node_is_suspect_while_silent() {
    let mut scene = Scene::busy();
    let start = scene.now;
    assert_eq!(scene.down_after(true, 4_000 * MS), None, "its last listener may have left");
    assert_eq!(scene.detector.weigh(scene.now), DetectorFinding::Accused);
    // Silence that was outlived is no second witness: one lost probe or one closed port does not mark the node down.
    scene.detector.handle_kernel_error(scene.now);
    assert_eq!(scene.detector.weigh(scene.now), DetectorFinding::Accused);
    while scene.step(true) != DetectorFinding::Well {
        assert!(scene.now - start < 6_000 * MS);
    }
    assert_eq!(scene.down_after(true, 2_000 * MS), None);
    let after = scene.down_after(false, 400 * MS).unwrap();
    assert!(after <= 260 * MS, "{after:?}");
}

#[test]
fn lull_between_frames_keeps_silence_valid() {
    let mut scene = Scene::busy();
    for _ in 0..15 {
        scene.step(true);
    }
    assert_eq!(
        scene.detector.weigh(scene.now),
        DetectorFinding::Accused,
        "it answered all the while"
    );
    let after = scene.down_after(false, 100 * MS).unwrap();
    assert!(after <= 40 * MS, "{after:?}");
}

#[test]
fn hang_up_ends_expected_packets() {
    let mut scene = Scene::with(Distance::Near, 100);
    scene.probed = false;
    scene.hung_up = Some(scene.now);
    for _ in 0..500 {
        assert_eq!(scene.step(true), DetectorFinding::Well);
    }
    // A call that begins there does not expect media yet either.
    scene.hung_up = None;
    for _ in 0..500 {
        assert_eq!(scene.step(true), DetectorFinding::Well);
    }
}

#[test]
fn answering_node_is_not_down_for_silence() {
    let timings = Timings { down_after_near: 20 * MS, ..Timings::default() };
    let mut scene = Scene::of(Detector::new(timings, Distance::Near), 1_000);
    assert_eq!(scene.down_after(true, 1_000 * MS), None);
}

#[test]
fn late_worker_does_not_excuse_probe_loss() {
    let mut scene = Scene::busy();
    let start = scene.now;
    scene.hung_up = Some(start);
    while scene.step(false) != DetectorFinding::Dead {
        scene.detector.excuse(Duration::ZERO, 1_000 * MS);
        assert!(scene.now - start <= 260 * MS);
    }
}

#[test]
fn silence_with_senders_suspects_briefly() {
    let mut scene = Scene::busy();
    for _ in 0..10 {
        scene.step(true);
    }
    assert_eq!(scene.detector.weigh(scene.now), DetectorFinding::Accused);
    scene.hung_up = Some(scene.now);
    for _ in 0..110 {
        scene.step(true);
    }
    assert_eq!(scene.detector.weigh(scene.now), DetectorFinding::Well);
}

#[test]
fn one_lost_packet_is_no_death() {
    let mut scene = Scene::busy();
    scene.probed = false;
    // Comfort noise: a packet every 100 ms, then every 400 ms, of which one is lost.
    for (pause, packets) in [(50, 40), (200, 20), (400, 1), (200, 5)] {
        for _ in 0..packets {
            for _ in 0..pause {
                assert_ne!(scene.step(true), DetectorFinding::Dead);
            }
            scene.hear(1_000);
        }
    }
}

#[test]
fn a_packet_withdraws_silence() {
    let mut scene = Scene::busy();
    for _ in 0..10 {
        scene.step(true);
    }
    assert_eq!(scene.detector.weigh(scene.now), DetectorFinding::Accused);
    scene.hear(1_000);
    assert_eq!(scene.step(true), DetectorFinding::Well);
}

#[test]
fn answer_withdraws_kernel_error() {
    let mut scene = Scene::busy();
    scene.detector.handle_kernel_error(scene.now);
    assert_eq!(scene.detector.weigh(scene.now), DetectorFinding::Accused);
    for _ in 0..5 {
        scene.hear(2_000);
        scene.step(true);
    }
    assert_eq!(scene.detector.weigh(scene.now), DetectorFinding::Well);
}

#[test]
fn two_missed_probes_suspect_one_does_not() {
    let mut detector = Detector::new(Timings::default(), Distance::Near);
    let now = Instant::now();
    detector.handle_probe_sent(1, now);
    assert_eq!(detector.weigh(now + 100 * MS), DetectorFinding::Well);
    detector.handle_probe_sent(2, now + 10 * MS);
    assert_eq!(detector.weigh(now + 101 * MS), DetectorFinding::Accused);
    assert_eq!(detector.witnesses(), [(EvidenceSource::Probe, now + 101 * MS)]);
}

#[test]
fn one_missed_probe_across_regions_accuses() {
    let mut detector = Detector::new(Timings::default(), Distance::Far);
    let now = Instant::now();
    detector.handle_probe_sent(1, now);
    assert_eq!(detector.weigh(now + 54 * MS), DetectorFinding::Well);
    assert_eq!(detector.weigh(now + 55 * MS), DetectorFinding::Accused);
}

#[test]
fn silence_needs_earlier_packets() {
    let mut mute = Detector::new(Timings::default(), Distance::Near);
    let now = Instant::now();
    for ms in 0..300 {
        let at = now + MS * ms;
        mute.handle_stamp(Stamp { last_sent: Some(at), ..Stamp::default() }, at);
        assert_eq!(mute.weigh(at), DetectorFinding::Well);
    }
}

#[test]
fn no_timings_are_too_odd_to_weigh() {
    for silence_min in [MS, 250 * MS, 10_000 * MS] {
        let timings = Timings { silence_min, down_after_near: 10 * MS, ..Timings::default() };
        let mut scene = Scene::of(Detector::new(timings, Distance::Near), 1_000);
        scene.down_after(true, 300 * MS);
    }
}

#[test]
fn constant_lateness_delays_by_one_stall() {
    let mut scene = Scene::busy();
    let start = scene.now;
    while scene.step(false) != DetectorFinding::Dead {
        scene.detector.excuse(6 * MS, 6 * MS);
        assert!(scene.now - start <= 46 * MS);
    }
}

#[test]
fn a_slow_node_is_given_ten_arrivals() {
    let mut scene = Scene::with(Distance::Near, 100);
    for _ in 0..40 {
        assert_eq!(scene.step(true), DetectorFinding::Well);
    }
    for _ in 0..20 {
        scene.step(true);
    }
    assert_eq!(scene.detector.weigh(scene.now), DetectorFinding::Accused);
}

#[test]
fn own_stall_marks_no_node_down() {
    let mut scene = Scene::busy();
    scene.detector.handle_probe_sent(77, scene.now);
    scene.detector.handle_probe_sent(78, scene.now);
    let stall = 60 * MS;
    scene.detector.excuse(stall, Duration::ZERO);
    scene.hear(1_000);
    assert_eq!(scene.step_late(true, stall), DetectorFinding::Well);

    let mut blamed = Scene::busy();
    blamed.detector.handle_probe_sent(77, blamed.now);
    blamed.detector.handle_probe_sent(78, blamed.now);
    assert_eq!(
        blamed.step_late(true, stall),
        DetectorFinding::Dead,
        "without the excuse it is marked down"
    );
}

#[test]
fn late_answer_is_no_loss() {
    let mut detector = Detector::new(Timings::default(), Distance::Near);
    let start = Instant::now();
    for sequence in 0..100 {
        let now = start + 10 * MS * sequence as u32;
        detector.handle_probe_sent(sequence, now);
        detector.weigh(now + 5 * MS);
        if sequence > 3 {
            detector.handle_probe_answered(sequence - 3, now + 5 * MS);
        }
    }
    assert!(detector.loss_ppm() < 10_000, "{}", detector.loss_ppm());
    for sequence in 100..200 {
        let now = start + 10 * MS * sequence as u32;
        detector.handle_probe_sent(sequence, now);
        detector.weigh(now + 5 * MS);
    }
    assert!(detector.loss_ppm() > 100_000, "{}", detector.loss_ppm());
}

#[test]
fn deviation_outlasts_a_burst_of_late_answers() {
    let late = 100 * MS;
    let mut detector = Detector::new(Timings::default(), Distance::Near);
    let start = Instant::now();
    for sequence in 0..70 {
        let sent = start + 200 * MS * sequence as u32;
        let is_late = sequence < 50 && sequence % 10 == 9;
        detector.handle_probe_sent(sequence, sent);
        let after = if is_late { MS + late } else { MS };
        detector.handle_probe_answered(sequence, sent + after);
    }
    let (_, deviation) = detector.round_trip_deviation().unwrap();
    // Five answers of 50.
    let mean = late / 10;
    assert!(deviation > mean / 4, "{deviation:?}");
    let (_, seen) = detector.round_trip_seen().unwrap();
    assert!(seen < mean / 4, "{seen:?} forgets them");
}
