//! Evidence about one node, and the finding that follows from it.
//!
//! Two independent witnesses mark a node down at once. One witness alone makes it Suspect, and marks it down when the
//! accusation lasts. An agent's report that the node's process is gone marks it down at once by itself. A kernel error
//! on a trunk and a kernel error on a probe count as one witness; two refused probes count as another.
//! Silence during which the node answers probes is no witness against it: it keeps the node Suspect, and never marks it
//! down, alone or with another witness.

pub(crate) mod canary;
pub(crate) mod silence;

use std::time::{Duration, Instant};

use evenkeel_model::{EvidenceSource, NodeProbing, Since, Stamp, Timings};

use crate::detector::canary::CanaryPacket;
use crate::detector::silence::{Lateness, SilenceDetector, SilenceLimits, SilenceVerdict};

/// Number of probes in flight that are remembered. Older ones no longer matter.
const PROBES_MAX: usize = 64;

/// A sample changes a smoothed round trip by one part in this many (RFC 6298 uses 8).
const SMOOTHING: u32 = 8;

/// Factor by which the probe rate rises for a node that begins to be silent.
const HASTE: u32 = 2;

/// Once silence has lasted this long, an answer to a probe sent during it outlives the silence: two witnesses would
/// have marked a dead node down by then, and a gap between frames is over.
const OUTLIVED_AFTER: Duration = Duration::from_millis(100);

/// A node in the gateway's own region is `Near`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Distance {
    #[default]
    Near,
    Far,
}

/// Maximum delay of reports about delivered media, as long as there are few sessions.
const DELIVERED_TOLD_WITHIN: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DetectorFinding {
    Well,
    Accused,
    Dead,
}

#[derive(Default, Debug)]
pub struct Detector {
    timings: Timings,
    distance: Distance,
    /// The start of each witness's accusation, in the order of [`EvidenceSource::ALL`].
    accused: [Option<Since>; EvidenceSource::ALL.len()],
    /// Length of the silence when the node last answered a probe sent during it.
    alive_in_silence: Option<Duration>,
    probes: Vec<ProbeRecord>,
    missed_in_a_row: u32,
    round_trip: Option<RoundTrip>,
    lately: Lateness,
    loss: Loss,
    silence: SilenceDetector,
    /// The time of the agent's last report that the process is gone.
    reported_gone: Option<Instant>,
    canary: CanaryPacket,
    /// The time at which the node last delivered media to a session, by the workers' reports.
    delivered: Option<Instant>,
    answered: Option<Instant>,
    /// The time at which the latest answered probe was sent.
    answered_of: Option<Instant>,
    /// The node itself was heard, not only its agent.
    node_heard: bool,
}

#[derive(Clone, Copy, Debug)]
struct ProbeRecord {
    sequence: u64,
    sent: Since,
    within: Duration,
    /// Weight of the probe in the loss of the path: the time since the previous probe, limited to the regular interval,
    /// because extra probes are sent when loss is likely.
    stands_for: Duration,
    missed: bool,
}

/// A round trip smoothed as in TCP (RFC 6298, 2).
#[derive(Clone, Copy, Debug)]
struct RoundTrip {
    smoothed: Duration,
    variation: Duration,
    /// The variation without the value assumed for the first sample.
    seen: Duration,
    /// The mean deviation of the last 64 answers: as slow as the jitter of voice that it is compared with.
    deviation: Duration,
}

impl Detector {
    pub fn new(timings: Timings, distance: Distance) -> Detector {
        let probes = Vec::with_capacity(PROBES_MAX);
        Detector { timings, distance, probes, ..Detector::default() }
    }

    pub fn probe_every(&self) -> Duration {
        match self.distance {
            Distance::Near => self.timings.probe_every_near,
            Distance::Far => self.timings.probe_every_far,
        }
    }

    pub fn handle_probe_sent(&mut self, sequence: u64, now: Instant) {
        if self.probes.len() == PROBES_MAX {
            self.probes.remove(0);
        }
        let (within, turn) = (self.answer_within(), self.probe_every());
        let since = |last: &ProbeRecord| now.saturating_duration_since(last.sent.at);
        let stands_for = self.probes.last().map_or(turn, since).min(turn);
        let sent = Since::new(now);
        self.probes.push(ProbeRecord { sequence, sent, within, stands_for, missed: false });
    }

    /// The next probe should be sent before its turn: the node begins to be silent, and no probe sent since then was
    /// answered or is overdue. Detection time then does not depend on the phase of the probes. `beside`: the time since which
    /// another node of the zone is silent; a near node may have failed with it.
    pub fn hastens(&self, beside: Option<Instant>, now: Instant) -> bool {
        let beside = beside.filter(|_| self.distance == Distance::Near);
        let Some(since) = self.silence.begins(self.limits(), now).or(beside) else { return false };
        let idle = self.probes.last().is_none_or(|last| {
            now.saturating_duration_since(last.sent.at) >= self.probe_every() / HASTE
        });
        let answered = self.answered_of.is_some_and(|sent| sent >= since);
        idle && !answered && self.accused[EvidenceSource::Probe as usize].is_none()
    }

    /// A probe should have been answered by now, or probes accuse the node: an answer that waits unread would change the
    /// finding.
    pub fn is_overdue(&self, now: Instant) -> bool {
        let late = |probe: &ProbeRecord| probe.sent.lasted(now) >= probe.within;
        self.accused[EvidenceSource::Probe as usize].is_some()
            || self.probes.iter().any(|probe| !probe.missed && late(probe))
    }

    /// An answer withdraws the accusations by probes and by kernel errors, because a process listens. An answer of the
    /// media port also outlives silence.
    pub fn handle_probe_answered(&mut self, sequence: u64, now: Instant) {
        let silent = self.accused[EvidenceSource::Silence as usize];
        let answered = self.answered(sequence, now);
        self.node_heard |= answered.is_some();
        if let Some(probe) = answered
            && let Some(silent) = silent.filter(|silent| probe.sent.at >= silent.at)
        {
            self.alive_in_silence = Some(silent.lasted(now));
        }
    }

    /// Takes an answer of an agent that did not check the media port. It shows only that the path works.
    pub fn handle_agent_answered(&mut self, sequence: u64, now: Instant) {
        let _ = self.answered(sequence, now);
    }

    fn answered(&mut self, sequence: u64, now: Instant) -> Option<ProbeRecord> {
        let at = self.probes.iter().position(|probe| probe.sequence == sequence)?;
        let probe = self.probes.remove(at);
        let sample = now.saturating_duration_since(probe.sent.at);
        self.lately.note(sample, now);
        self.round_trip = Some(match self.round_trip {
            None => RoundTrip {
                smoothed: sample,
                variation: sample / 2,
                seen: Duration::ZERO,
                deviation: Duration::ZERO,
            },
            Some(RoundTrip { smoothed, variation, seen, deviation }) => {
                let off = smoothed.abs_diff(sample);
                RoundTrip {
                    smoothed: (smoothed * (SMOOTHING - 1) + sample) / SMOOTHING,
                    variation: (variation * 3 + off) / 4,
                    seen: (seen * 3 + off) / 4,
                    deviation: (deviation * 63 + off) / 64,
                }
            }
        });
        match probe.missed {
            true => self.loss.came_late(probe.stands_for),
            false => self.loss.answered(probe.stands_for),
        }
        self.missed_in_a_row = 0;
        self.answered = Some(now);
        self.answered_of = self.answered_of.max(Some(probe.sent.at));
        self.withdraw(EvidenceSource::Probe);
        self.withdraw(EvidenceSource::KernelError);
        Some(probe)
    }

    pub fn handle_kernel_error(&mut self, now: Instant) {
        self.accuse(EvidenceSource::KernelError, now);
    }

    /// Takes a kernel error that quotes this probe. If the probe was answered, the error is forged or out of date.
    pub fn handle_probe_refused(&mut self, sequence: u64, now: Instant) {
        if self.probes.iter().any(|probe| probe.sequence == sequence) {
            self.handle_kernel_error(now);
        }
    }

    /// Another process has served sessions at the node, so that media of so many is due, though none was heard here.
    pub fn expect_media(&mut self, sessions: u32) {
        self.silence.expect(sessions);
    }

    /// Takes the workers' stamp. Arrivals withdraw the accusations by silence and kernel error.
    pub fn handle_stamp(&mut self, stamp: Stamp, now: Instant) {
        if self.silence.handle_stamp(stamp, now) {
            self.node_heard = true;
            self.withdraw(EvidenceSource::Silence);
            let refused = self.accused[EvidenceSource::KernelError as usize].map(|since| since.at);
            if stamp.last_received > refused {
                self.withdraw(EvidenceSource::KernelError);
            }
        }
    }

    pub fn handle_canary_sent(&mut self, sequence: u64, now: Instant) {
        self.canary.send(sequence, now);
    }

    /// A packet of one canary session came out at the other. If it was sent after a kernel error, it withdraws that
    /// error, because a process listens.
    pub fn handle_canary_passed(&mut self, sequence: u64) {
        let sent = self.canary.pass(sequence);
        self.withdraw(EvidenceSource::Canary);
        let refused = self.accused[EvidenceSource::KernelError as usize].map(|since| since.at);
        if refused.is_some_and(|refused| sent > Some(refused)) {
            self.withdraw(EvidenceSource::KernelError);
        }
    }

    /// Drops the canaries' evidence, because there are no canaries any more.
    pub fn forget_canaries(&mut self) {
        self.canary = CanaryPacket::default();
    }

    /// The node reports that both canary sessions are open.
    pub fn handle_canary_open(&mut self, now: Instant) {
        self.canary.confirm(now);
    }

    /// Workers report that the node recently delivered media to a session.
    pub fn handle_delivered(&mut self, now: Instant) {
        self.delivered = Some(now);
    }

    /// Sets or clears the accusation that rooms lose more there than elsewhere. It makes the node Suspect and never
    /// marks it down.
    pub fn handle_worse(&mut self, witness: Option<EvidenceSource>, now: Instant) {
        for worse in [EvidenceSource::Cohort, EvidenceSource::Feedback] {
            match witness == Some(worse) {
                true => self.accuse(worse, now),
                false => self.withdraw(worse),
            }
        }
    }

    /// Extends all waiting times by the gateway's own lateness. The control thread reads answers to probes, workers
    /// read media.
    pub fn excuse(&mut self, control: Duration, workers: Duration) {
        let late = control.max(workers);
        self.probes.iter_mut().for_each(|probe| probe.sent.excuse(control));
        for witness in EvidenceSource::ALL {
            let by_control = matches!(witness, EvidenceSource::Probe | EvidenceSource::Canary);
            let late = if by_control { control } else { late };
            if let Some(since) = &mut self.accused[witness as usize] {
                since.excuse(late);
            }
        }
        self.silence.excuse(late);
        self.canary.excuse(control);
    }

    pub fn weigh(&mut self, now: Instant) -> DetectorFinding {
        self.weigh_probes(now);
        self.weigh_silence(now);
        self.weigh_agent(now);
        let contradicted = self.weigh_canary(now);
        let accused = |witness: EvidenceSource| self.accused[witness as usize];
        let canary = accused(EvidenceSource::Canary).filter(|_| !contradicted);
        let silence = accused(EvidenceSource::Silence);
        let outlived = self.alive_in_silence.is_some_and(|lasted| lasted >= OUTLIVED_AFTER);
        // Silence that answers outlive is that of a node that forwards nothing, if canaries say so.
        let silent = silence.filter(|_| !outlived || canary.is_some());
        let hard =
            || [EvidenceSource::KernelError, EvidenceSource::Probe].into_iter().filter_map(accused);
        let together = hard().chain(canary).chain(silent).count();
        let mute = silence.filter(|_| self.alive_in_silence.is_none());
        let mut alone = hard().chain(canary).chain(mute);
        if self.is_gone()
            || together >= 2
            || alone.any(|since| since.lasted(now) >= self.down_after())
        {
            DetectorFinding::Dead
        } else if self.accused.iter().any(Option::is_some) {
            DetectorFinding::Accused
        } else {
            DetectorFinding::Well
        }
    }

    /// Tells whether media of other sessions contradicts the canaries: a node that forwards media is not dead.
    fn weigh_canary(&mut self, now: Instant) -> bool {
        let round_trip = self.round_trip.map_or(Duration::ZERO, |trip| trip.smoothed);
        let Some(missing_since) = self.canary.weigh(round_trip, now) else {
            self.withdraw(EvidenceSource::Canary);
            return false;
        };
        self.accuse(EvidenceSource::Canary, now);
        self.delivered.is_some_and(|at| at > missing_since + DELIVERED_TOLD_WITHIN)
    }

    fn weigh_probes(&mut self, now: Instant) {
        let mut missed = 0;
        let due =
            |probe: &&mut ProbeRecord| !probe.missed && probe.sent.lasted(now) >= probe.within;
        for probe in self.probes.iter_mut().filter(due) {
            probe.missed = true;
            missed += 1;
            self.loss.missed(probe.stands_for);
        }
        self.missed_in_a_row += missed;
        if self.missed_in_a_row >= self.misses_to_accuse() {
            self.accuse(EvidenceSource::Probe, now);
        }
    }

    fn misses_to_accuse(&self) -> u32 {
        match self.distance {
            Distance::Near => 2,
            Distance::Far => 1,
        }
    }

    /// The usual time from the last packet of a node that carries media until it is marked down: by silence and unanswered
    /// probes together, or by silence alone if it is not probed.
    pub fn detects_within(&self, probed: NodeProbing) -> Duration {
        let limits = self.limits();
        let silence = self.silence.limit(limits).unwrap_or(limits.min);
        match probed {
            NodeProbing::No => silence + self.down_after(),
            NodeProbing::Yes => {
                // The first of them is sent about half of that time after the last packet, the others in haste.
                let others = self.probe_every() / HASTE * (self.misses_to_accuse() - 1);
                silence.max(silence / 2 + others + self.answer_within())
            }
        }
    }

    fn weigh_silence(&mut self, now: Instant) {
        match self.silence.weigh(self.limits(), now) {
            SilenceVerdict::Accuses => self.accuse(EvidenceSource::Silence, now),
            SilenceVerdict::Withdraws => self.withdraw(EvidenceSource::Silence),
            SilenceVerdict::Nothing => {}
        }
    }

    fn limits(&self) -> SilenceLimits {
        SilenceLimits {
            min: self.timings.silence_min,
            arrivals: self.timings.silence_arrivals,
            max: self.down_after(),
            is_reported: self.is_told_of(),
        }
    }

    /// The time to wait for an answer: the round trip plus bounded slack for its variation. If answers came later than
    /// that in more than one of the last ten seconds, as long as the latest of them.
    fn answer_within(&self) -> Duration {
        let slack = self.timings.probe_slack;
        match self.round_trip {
            None => self.probe_every() + slack,
            Some(RoundTrip { smoothed, variation, .. }) => {
                let usual = self.lately.usual() + slack;
                (smoothed + (variation * 4).clamp(slack, slack * 3))
                    .max(usual.min(self.down_after()))
            }
        }
    }

    pub fn down_after(&self) -> Duration {
        match self.distance {
            Distance::Near => self.timings.down_after_near,
            Distance::Far => self.timings.down_after_far,
        }
    }

    fn accuse(&mut self, witness: EvidenceSource, now: Instant) {
        self.accused[witness as usize].get_or_insert(Since::new(now));
    }

    fn withdraw(&mut self, witness: EvidenceSource) {
        self.accused[witness as usize] = None;
        if witness == EvidenceSource::Silence {
            self.alive_in_silence = None;
        }
    }

    /// Drops the evidence about the previous incarnation; measurements of the path stay.
    pub fn absolve(&mut self) {
        self.accused = [None; EvidenceSource::ALL.len()];
        self.alive_in_silence = None;
        self.missed_in_a_row = 0;
        self.probes.clear();
        self.silence.forget();
        self.answered = None;
        self.answered_of = None;
    }

    /// Drops loss measured while the node was dead: it was no loss of the path.
    pub fn forget_loss(&mut self) {
        self.loss = Loss::default();
    }

    /// The death was reported, not inferred from silence, so the uplink is not to blame.
    pub fn is_told_of(&self) -> bool {
        EvidenceSource::ALL.iter().any(|&w| w.speaks() && self.accused[w as usize].is_some())
    }

    /// The node is near and left two probes in a row unanswered.
    pub fn misses_two(&self) -> bool {
        self.distance == Distance::Near && self.accused[EvidenceSource::Probe as usize].is_some()
    }

    /// The time at which the node fell silent: it was last heard then or, if media still arrives, first accused.
    pub fn fell_silent(&self) -> Option<Instant> {
        let silences = EvidenceSource::ALL.iter().filter(|w| !w.speaks() && !w.is_of_loss());
        let accused = silences.filter_map(|&w| self.accused[w as usize]).map(|s| s.at).min()?;
        Some(self.last_heard().map_or(accused, |heard| heard.min(accused)))
    }

    pub fn witnesses(&self) -> Vec<(EvidenceSource, Instant)> {
        EvidenceSource::ALL
            .into_iter()
            .filter_map(|witness| Some((witness, self.accused[witness as usize]?.at)))
            .collect()
    }

    /// The current accusers, in the order of [`EvidenceSource::ALL`].
    pub fn suspected_by(&self) -> [bool; EvidenceSource::ALL.len()] {
        self.accused.map(|since| since.is_some())
    }

    /// Tells if any packet or answer to a probe has come from the node.
    pub fn was_heard(&self) -> bool {
        self.node_heard
    }

    /// The time of the last packet or answer to a probe.
    pub fn last_heard(&self) -> Option<Instant> {
        self.silence.last_received().max(self.answered)
    }

    pub fn last_received(&self) -> Option<Instant> {
        self.silence.last_received()
    }

    pub fn last_answer(&self) -> Option<Instant> {
        self.answered
    }

    /// The time at which the newest probe was sent.
    pub fn last_probed(&self) -> Option<Instant> {
        self.probes.last().map(|probe| probe.sent.at).max(self.answered_of)
    }

    pub fn has_missed(&self) -> bool {
        self.missed_in_a_row > 0
    }

    pub fn round_trip(&self) -> Option<(Duration, Duration)> {
        self.round_trip.map(|trip| (trip.smoothed, trip.variation))
    }

    /// The smoothed round trip and its observed variation.
    pub fn round_trip_seen(&self) -> Option<(Duration, Duration)> {
        self.round_trip.map(|trip| (trip.smoothed, trip.seen))
    }

    /// The smoothed round trip and the mean deviation of the last 64 answers.
    pub fn round_trip_deviation(&self) -> Option<(Duration, Duration)> {
        self.round_trip.map(|trip| (trip.smoothed, trip.deviation))
    }

    /// The path loses so many probes that rooms should be elsewhere.
    pub fn loses(&self) -> bool {
        self.loss.is_much()
    }

    /// Recent share of unanswered probes in ppm.
    pub fn loss_ppm(&self) -> u32 {
        self.loss.ppm()
    }
}

/// Validity of a report that the process is gone. The agent repeats it with each answer.
const BELIEVED_FOR: Duration = Duration::from_secs(5);

impl Detector {
    /// The agent reports whether the process runs.
    pub fn handle_agent(&mut self, runs: bool, now: Instant) {
        if runs {
            self.reported_gone = None;
            self.withdraw(EvidenceSource::Agent);
        } else {
            self.reported_gone = Some(now);
            self.accuse(EvidenceSource::Agent, now);
        }
    }

    pub fn is_gone(&self) -> bool {
        self.accused[EvidenceSource::Agent as usize].is_some()
    }

    /// Drops a report that expired because the agent fell silent.
    pub(super) fn weigh_agent(&mut self, now: Instant) {
        let told = |at: Instant| now.saturating_duration_since(at) < BELIEVED_FOR;
        if !self.reported_gone.is_some_and(told) {
            self.withdraw(EvidenceSource::Agent);
        }
    }
}

/// Time constant of smoothing. One lost probe of a near node shows as 0.2 %, and 15 % loss as 15 ± 1 %.
const SMOOTHED_OVER: Duration = Duration::from_secs(5);

/// Loss of probes in both directions together, in ppm, from which rooms avoid the node while others can take them. It
/// equals 5 % loss in each direction, at which rooms on the node vote against it.
const MUCH_PPM: u32 = 97_500;

/// Loss in ppm below which the path is good again: 3 % in each direction. The measured loss of a near path that loses 5
/// % is off by up to a half, so a path at the threshold does not flap.
const STILL_MUCH_PPM: u32 = 59_100;

/// The share of lost probes. Each probe is weighted by its interval, so near and far nodes are smoothed over the same
/// time. A probe counts for no more than the regular interval, so a cold node, which is probed less often, is smoothed
/// over a longer time.
#[derive(Default, Debug)]
pub(super) struct Loss {
    share: f64,
    is_much: bool,
}

impl Loss {
    pub(super) fn answered(&mut self, every: Duration) {
        self.shows(self.share - self.share * weight(every));
    }

    /// A probe was not answered in time.
    pub(super) fn missed(&mut self, every: Duration) {
        self.shows(self.share + (1.0 - self.share) * weight(every));
    }

    /// A missed probe was answered after all: it was late, not lost.
    pub(super) fn came_late(&mut self, every: Duration) {
        self.shows((self.share - weight(every)).max(0.0));
    }

    fn shows(&mut self, share: f64) {
        self.share = share;
        self.is_much = self.ppm() >= if self.is_much { STILL_MUCH_PPM } else { MUCH_PPM };
    }

    pub(super) fn is_much(&self) -> bool {
        self.is_much
    }

    pub(super) fn ppm(&self) -> u32 {
        (self.share * 1e6) as u32
    }
}

fn weight(every: Duration) -> f64 {
    every.div_duration_f64(SMOOTHED_OVER).min(1.0)
}

#[cfg(test)]
mod tests;
