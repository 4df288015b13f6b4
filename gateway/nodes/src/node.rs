//! A node's health, from the detector's findings, and how trust in a returned node grows.

pub(crate) mod elastic;
pub(crate) mod process;
pub(crate) mod trust;

use std::time::{Duration, Instant};

use evenkeel_model::{
    EvidenceSource, Health, Hop, Incarnation, Measures, Metric, NodeId, NodeNeed, NodeProbing,
    NodeSettings, RoomId, Starts, Timings,
};

use crate::detector::{Detector, DetectorFinding, Distance};
use crate::node::process::{LastProcess, ProcessState};
use crate::node::trust::{ElasticState, HealthState, ImpairedPeriod, NodeTrust, Starting};

/// Relapses that still double the ejection; beyond them the maximum applies anyway.
const RELAPSES_MAX: u32 = 16;

/// Time Up after which one relapse is forgiven.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// Minimum time for which rooms avoid a node with more loss than others, even if no room is left there to measure it.
const WORSE_FOR: Duration = Duration::from_secs(10);

/// Number of rooms that must report closed ports to accuse the node.
const PORTS_ACCUSE: usize = 3;

/// Validity of a report that the node takes no new sessions. The agent repeats it with each answer to a probe.
const UNWILLING_FOR: Duration = Duration::from_secs(5);

/// Validity of a measured load. The agent repeats it with each answer to a probe.
const LOAD_FOR: Duration = Duration::from_secs(5);

/// Closed ports are counted within this time.
const PORTS_CLOSE_WITHIN: Duration = Duration::from_millis(20);

/// A node in its current incarnation.
#[derive(Debug)]
pub struct Node {
    /// The unique number.
    pub id: NodeId,
    /// Its settings in the list of nodes.
    pub settings: NodeSettings,
    /// Counts the lives of the node; grows with each return.
    pub incarnation: Incarnation,
    /// Evidence about the node.
    pub detector: Detector,
    /// Its health, and what operators and the node itself decided.
    pub trust: NodeTrust,
    /// The node takes no new sessions; valid until this time.
    unwilling: Option<Instant>,
    /// The node's own load measurement in thousandths, with its time.
    measured: Option<(u16, Instant)>,
    /// The node's process, by a recent report of its agent.
    pub process: LastProcess,
    /// Most rooms on the node lose much, whether or not other nodes are better. Region-wide loss shows at one node
    /// first.
    pub fares_badly: bool,
    /// The forecast that the node fails, in thousandths: 0 none; 500, its trend reaches its limit in an hour; 1,000, it has.
    pub decay_permille: u16,
    /// Ports that were recently found closed, by room.
    closed_ports: Vec<(RoomId, Instant)>,
    /// The reason why the node, which could be stopped, is not.
    pub need: Option<NodeNeed>,
    /// The time since which the node is not needed; while it drains to be stopped, that of the drain.
    quiet_since: Option<Instant>,
    /// The time since which no leg is open at the node that drains to be stopped.
    empty_since: Option<Instant>,
    timings: Timings,
}

/// A change of the state of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeTransition {
    /// The health changed while the incarnation goes on.
    Health {
        /// The health before.
        from: Health,
        /// The health after.
        to: Health,
    },
    /// A cold node answered and needs a new incarnation. `after` is the time since its hook was called, if it was.
    Started {
        /// The health after.
        to: Health,
        /// The time since its start was requested; `None` if it was not.
        after: Option<Duration>,
    },
    /// The node went down.
    Died {
        /// The health before.
        from: Health,
    },
    /// The node is back and needs a new incarnation.
    Returned,
}

/// Evidence about a node, other than its packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeEvidence {
    /// The media port answered this probe.
    ProbeAnswered(u64),
    /// The agent at the end of the trunk answered this probe. It does not know the state of the media port behind it, so
    /// its answer does not refute silence.
    AgentAnswered(u64),
    /// The kernel reports that no process listens at the media port. The error quotes this probe.
    ProbeRefused(u64),
    /// The same. The caller has checked that the error quotes a packet that was sent there.
    KernelError,
    /// The packet that entered one canary session came out at the other.
    CanaryPassed(u64),
    /// Both canary sessions are open.
    CanaryOpen,
    /// The node accepts new sessions, or refuses them.
    Willing(bool),
    /// The agent reports on the process of the media server.
    Process(ProcessState),
}

impl Node {
    /// Takes evidence about the node.
    pub fn handle_evidence(&mut self, evidence: NodeEvidence, now: Instant) {
        match evidence {
            NodeEvidence::ProbeAnswered(sequence) => {
                self.detector.handle_probe_answered(sequence, now);
            }
            NodeEvidence::AgentAnswered(sequence) => {
                self.detector.handle_agent_answered(sequence, now);
            }
            NodeEvidence::ProbeRefused(sequence) => {
                self.detector.handle_probe_refused(sequence, now);
            }
            NodeEvidence::KernelError => self.detector.handle_kernel_error(now),
            NodeEvidence::CanaryPassed(sequence) => self.detector.handle_canary_passed(sequence),
            NodeEvidence::CanaryOpen => self.detector.handle_canary_open(now),
            NodeEvidence::Willing(willing) => self.handle_willing(willing, now),
            NodeEvidence::Process(process) => self.process.note(process, now),
        }
    }

    /// Adds a node that is Up, or Cold if a hook starts it.
    pub fn new(
        id: NodeId,
        settings: NodeSettings,
        distance: Distance,
        timings: Timings,
        now: Instant,
    ) -> Node {
        let standing = match settings.starts {
            Starts::ByItself => HealthState::Up { since: now },
            Starts::ByHook { .. } => HealthState::Cold { since: now },
        };
        Node {
            id,
            settings,
            incarnation: Incarnation(1),
            detector: Detector::new(timings, distance),
            trust: NodeTrust::new(standing),
            measured: None,
            process: LastProcess::default(),
            unwilling: None,
            fares_badly: false,
            decay_permille: 0,
            closed_ports: Vec::new(),
            need: None,
            quiet_since: None,
            empty_since: None,
            timings,
        }
    }

    /// A node added at runtime: Down until it answers, then admitted without an ejection.
    pub fn added(
        (id, incarnation): (NodeId, Incarnation),
        settings: NodeSettings,
        distance: Distance,
        timings: Timings,
        now: Instant,
    ) -> Node {
        let mut node = Node::new(id, settings, distance, timings, now);
        if let Starts::ByItself = node.settings.starts {
            node.trust.standing = HealthState::Down { since: now, answering_since: None };
        }
        (node.incarnation, node.trust.excused) = (incarnation, true);
        node
    }

    /// Returns the facts that another process continues. A node that is being started counts as started there.
    pub fn trust_record(&self) -> NodeTrust {
        let starting = Starting { called: None, ..self.trust.starting };
        let started = self.is_started();
        NodeTrust {
            starting,
            elastic: ElasticState { started, ..self.trust.elastic },
            ..self.trust
        }
    }

    /// Continues the trust of another process, unless this process has worse evidence. A call of the start hook in
    /// that process is unknown here.
    pub fn resume(&mut self, before: &NodeTrust) {
        // A node that was just added, or that a hook starts, is Down or Cold without any evidence.
        let without_evidence = match self.trust.standing {
            HealthState::Down { .. } => self.trust.excused && !self.trust.unknown,
            HealthState::Cold { .. } => true,
            HealthState::Up { .. } | HealthState::Suspect { .. } | HealthState::Wary { .. } => {
                false
            }
        };
        let holds = match before.standing {
            HealthState::Down { .. } => true,
            // The answers of a node that was told to stop say nothing.
            HealthState::Cold { .. } if before.elastic.stop_called.is_some() => true,
            HealthState::Cold { .. } => !self.runs() || !self.detector.was_heard(),
            HealthState::Up { .. } | HealthState::Suspect { .. } | HealthState::Wary { .. } => {
                self.runs() || without_evidence
            }
        };
        if holds {
            (self.trust.standing, self.trust.excused, self.trust.unknown) =
                (before.standing, before.excused, before.unknown);
        }
        if let Some(worse) = before.worse.filter(|_| self.runs()) {
            self.trust.worse = Some(worse);
            self.detector.handle_worse(Some(EvidenceSource::Cohort), worse.since);
        }
        self.trust.relapses = self.trust.relapses.max(before.relapses).min(RELAPSES_MAX);
        self.trust.starting = before.starting;
        self.trust.elastic = before.elastic;
        self.trust.ejected = before.ejected;
        self.trust.draining = before.draining;
        self.trust.leaving |= before.leaving;
    }

    /// Returns true while rooms accuse the node of loss.
    pub fn loses_more_than_others(&self) -> bool {
        self.trust.worse.is_some()
    }

    /// The time since which the node does not run.
    pub fn absent_since(&self) -> Option<Instant> {
        match self.trust.standing {
            HealthState::Down { since, .. } | HealthState::Cold { since } => Some(since),
            HealthState::Up { .. } | HealthState::Suspect { .. } | HealthState::Wary { .. } => None,
        }
    }

    /// Returns the node in its current incarnation.
    pub fn hop(&self) -> Hop {
        Hop { node: self.id, incarnation: self.incarnation }
    }

    /// Returns the health of the node.
    pub fn health(&self) -> Health {
        match self.trust.standing {
            HealthState::Up { .. } => Health::Up,
            HealthState::Suspect { .. } => Health::Suspect,
            HealthState::Down { .. } => Health::Down,
            HealthState::Wary { .. } => Health::Wary,
            HealthState::Cold { .. } => Health::Cold,
        }
    }

    /// Rooms may be here; on a Suspect node only if no better node is left.
    pub fn takes_rooms(&self) -> bool {
        self.runs() && !self.drains()
    }

    /// The evidence says that the node is neither Down nor Cold.
    pub fn runs(&self) -> bool {
        !matches!(self.health(), Health::Down | Health::Cold)
    }

    /// The node's rooms should move away, because of an operator, the node list or the node's own request, or before the
    /// node is stopped.
    pub fn drains(&self) -> bool {
        let NodeTrust { draining, removed, leaving, elastic, .. } = self.trust;
        draining || removed || leaving || elastic.stopping
    }

    /// The node accepts rooms that have no session open there yet.
    pub fn welcomes_rooms(&self) -> bool {
        self.takes_rooms() && self.unwilling.is_none()
    }

    /// The node runs whether rooms need it or not.
    pub fn is_permanent(&self) -> bool {
        self.settings.starts == Starts::ByItself
    }

    /// Rooms prefer this node: it is Up and its path loses little.
    pub fn is_sound(&self) -> bool {
        self.health() == Health::Up && !self.loses()
    }

    /// The node is expected to fail.
    pub fn decays(&self) -> bool {
        self.decay_permille > 0
    }

    /// The path to the node loses much, by the votes of rooms or, since there may be no rooms to vote, by probes.
    pub fn loses(&self) -> bool {
        self.fares_badly || self.detector.loses()
    }

    /// The node accepts or refuses new sessions. Existing sessions stay.
    pub fn handle_willing(&mut self, willing: bool, now: Instant) {
        self.unwilling = (!willing).then(|| now + UNWILLING_FOR);
    }

    /// Takes the load that the node reports, in thousandths of its capacity.
    pub fn handle_load(&mut self, permille: u16, now: Instant) {
        self.measured = Some((permille, now));
    }

    /// The node's recent load measurement, in thousandths of its capacity.
    pub fn reported_permille(&self) -> Option<u16> {
        self.measured.map(|(permille, _)| permille)
    }

    /// The agent reports that the process is gone, which marks the node down at once.
    pub fn handle_gone(&mut self, now: Instant) -> Option<NodeTransition> {
        self.detector.handle_agent(false, now);
        self.runs().then(|| self.die(now))
    }

    /// A port that served one room is closed. One call may have ended, but not calls of several rooms at once.
    pub fn handle_port_closed(&mut self, room: RoomId, now: Instant) {
        self.closed_ports.retain(|(other, at)| {
            *other != room && now.saturating_duration_since(*at) < PORTS_CLOSE_WITHIN
        });
        self.closed_ports.push((room, now));
        if self.closed_ports.len() >= PORTS_ACCUSE {
            self.closed_ports.clear();
            self.detector.handle_kernel_error(now);
        }
    }

    /// An operator marks the node Down. Returns the change if it was not Down.
    pub fn eject(&mut self, now: Instant) -> Option<NodeTransition> {
        self.trust.ejected = true;
        (self.health() != Health::Down).then(|| self.die(now))
    }

    /// An operator lets the node back as soon as it answers.
    pub fn let_back(&mut self) {
        (self.trust.ejected, self.trust.excused) = (false, true);
    }

    /// Rooms lose more here than elsewhere.
    pub fn found_worse(&mut self, witness: EvidenceSource, now: Instant) {
        if !self.runs() {
            return;
        }
        if self.trust.worse.is_none() {
            self.trust.relapses = (self.trust.relapses + 1).min(RELAPSES_MAX);
        }
        let until = now + self.ejection().max(WORSE_FOR);
        self.trust.worse = Some(ImpairedPeriod {
            since: self.trust.worse.map_or(now, |worse| worse.since),
            until,
        });
        self.detector.handle_worse(Some(witness), now);
    }

    /// Rooms on the node have little loss (`well`), or there is no room; then the accusation ends when its time is
    /// over, unless probes still show much loss.
    pub fn found_no_worse(&mut self, well: bool, now: Instant) {
        let over = |worse: ImpairedPeriod| now >= worse.until && !self.loses();
        if self.trust.worse.is_some_and(|worse| well || over(worse)) {
            self.trust.worse = None;
            self.detector.handle_worse(None, now);
        }
    }

    /// The time for which rooms have lost more here than elsewhere.
    pub fn worse_for(&self, now: Instant) -> Option<Duration> {
        self.trust.worse.map(|worse| now.saturating_duration_since(worse.since))
    }

    /// Weighs the evidence; always well for a node that does not run.
    pub fn look(&mut self, now: Instant) -> DetectorFinding {
        match self.trust.standing {
            HealthState::Down { .. } | HealthState::Cold { .. } => DetectorFinding::Well,
            HealthState::Up { .. } | HealthState::Suspect { .. } | HealthState::Wary { .. } => {
                self.detector.weigh(now)
            }
        }
    }

    /// Applies a finding of the detector. Returns the change of state, if any.
    pub fn conclude(&mut self, found: DetectorFinding, now: Instant) -> Option<NodeTransition> {
        self.unwilling = self.unwilling.filter(|until| now < *until);
        let fresh = |at: Instant| now.saturating_duration_since(at) < LOAD_FOR;
        self.measured = self.measured.filter(|(_, at)| fresh(*at));
        self.process.forget_old(now);
        if let HealthState::Down { since, answering_since } = self.trust.standing {
            return self.weigh_return(since, answering_since, now);
        }
        if let HealthState::Cold { since } = self.trust.standing {
            return self.weigh_start(since, now);
        }
        match (found, self.trust.standing) {
            (DetectorFinding::Dead, _) => Some(self.die(now)),
            (DetectorFinding::Accused, HealthState::Suspect { .. }) => None,
            (DetectorFinding::Accused, standing) => {
                let was_wary = matches!(standing, HealthState::Wary { .. });
                self.change_to(HealthState::Suspect { was_wary })
            }
            (DetectorFinding::Well, HealthState::Suspect { was_wary: false }) => {
                self.change_to(HealthState::Up { since: now })
            }
            // Trust starts over: an accusation must not shorten the Wary time.
            (DetectorFinding::Well, HealthState::Suspect { was_wary: true }) => {
                self.change_to(HealthState::Wary { since: now })
            }
            (DetectorFinding::Well, HealthState::Wary { since })
                if now - since >= self.timings.wary_for =>
            {
                self.change_to(HealthState::Up { since: now })
            }
            (DetectorFinding::Well, HealthState::Up { since }) if now - since >= FORGIVEN_AFTER => {
                self.trust.relapses = self.trust.relapses.saturating_sub(1);
                self.trust.standing = HealthState::Up { since: now };
                None
            }
            (
                DetectorFinding::Well,
                HealthState::Up { .. }
                | HealthState::Wary { .. }
                | HealthState::Down { .. }
                | HealthState::Cold { .. },
            ) => None,
        }
    }

    fn die(&mut self, now: Instant) -> NodeTransition {
        let from = self.health();
        self.trust.unknown = self.settings.probed == NodeProbing::Yes && !self.detector.was_heard();
        self.trust.excused = self.trust.unknown;
        if !self.trust.unknown {
            self.trust.relapses = (self.trust.relapses + 1).min(RELAPSES_MAX);
        }
        (self.trust.worse, self.fares_badly) = (None, false);
        self.plan_replacement(now);
        self.trust.standing = HealthState::Down { since: now, answering_since: None };
        NodeTransition::Died { from }
    }

    /// A dead node returns once it has answered every probe for its ejection time. A node that was never heard before
    /// returns as soon as it answers. A node that cannot be probed returns after the ejection time, unless its agent
    /// reports that the process is gone.
    fn weigh_return(
        &mut self,
        since: Instant,
        before: Option<Instant>,
        now: Instant,
    ) -> Option<NodeTransition> {
        self.detector.weigh(now);
        let answering_since = match self.settings.probed {
            NodeProbing::No if self.detector.is_gone() => None,
            NodeProbing::No => Some(before.unwrap_or(now)),
            NodeProbing::Yes => {
                let answer = self.detector.last_answer().filter(|&answer| answer > since);
                let unbroken = self.detector.witnesses().is_empty();
                answer.filter(|_| unbroken).map(|answer| before.unwrap_or(answer))
            }
        };
        if before.is_none() && answering_since.is_some() {
            self.detector.forget_loss();
        }
        self.trust.standing = HealthState::Down { since, answering_since };
        let waits = if self.trust.excused { Duration::ZERO } else { self.ejection() };
        let waited = now.saturating_duration_since(since) >= waits;
        let by_hook = self.settings.starts != Starts::ByItself && !self.trust.ejected;
        if by_hook && answering_since.is_none() && waited {
            self.trust.excused = false;
            return self.change_to(HealthState::Cold { since: now });
        }
        if self.trust.ejected
            || answering_since.is_none_or(|start| now.saturating_duration_since(start) < waits)
        {
            return None;
        }
        self.trust.excused = false;
        self.trust.elastic.note_runs(false, now);
        self.detector.absolve();
        self.trust.standing = match std::mem::take(&mut self.trust.unknown) {
            true => HealthState::Up { since: now },
            false => HealthState::Wary { since: now },
        };
        Some(NodeTransition::Returned)
    }

    /// The ejection time, which doubles with each relapse.
    pub fn ejection(&self) -> Duration {
        let doublings = self.trust.relapses.saturating_sub(1);
        self.timings.ejection.saturating_mul(1 << doublings).min(self.timings.ejection_max)
    }

    fn change_to(&mut self, health: HealthState) -> Option<NodeTransition> {
        let from = self.health();
        self.trust.standing = health;
        Some(NodeTransition::Health { from, to: self.health() })
    }

    /// Adds the metrics of the node's path and health, for policies.
    pub fn measure(&self, measures: &mut Measures) {
        if let Some((smoothed, variation)) = self.detector.round_trip() {
            measures.set(Metric::Delay, smoothed.as_micros() as u64 / 2);
            measures.set(Metric::JitterNode, variation.as_micros() as u64);
        }
        measures.set(Metric::LossNode, u64::from(self.detector.loss_ppm()));
        // Policies see a node that does not run as Down.
        measures.set(Metric::Health, self.health().min(Health::Down) as u64);
        measures.set(Metric::Draining, u64::from(self.drains()));
        measures.set(Metric::Decay, u64::from(self.decay_permille));
        measures.set(Metric::Capacity, self.settings.capacity_kbps);
    }
}

/// Probe interval of a cold node that is not being started: it may run nevertheless.
const COLD_PROBE_EVERY: Duration = Duration::from_secs(1);

/// Delay after a failed start; it doubles with each further failure.
const START_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Maximum of that delay.
const START_AGAIN_AFTER_MAX: Duration = Duration::from_secs(60);

impl Node {
    /// A cold node that answers is running. It is trusted if the hook started it and it never died before; otherwise it
    /// is Wary like any returned node, because it may be unstable.
    pub(super) fn weigh_start(&mut self, since: Instant, now: Instant) -> Option<NodeTransition> {
        self.detector.weigh(now);
        if self.trust.elastic.stop_called.is_some() {
            return None;
        }
        // An agent may answer although the process does not run, and reports that.
        let answer = self.detector.last_answer().filter(|&answer| answer > since);
        answer.filter(|_| !self.detector.is_gone())?;
        self.detector.absolve();
        self.detector.forget_loss();
        let Starting { called, .. } = std::mem::take(&mut self.trust.starting);
        let trusted = called.is_some() && self.trust.relapses == 0;
        self.trust.elastic.note_runs(called.is_some(), now);
        self.trust.standing =
            if trusted { HealthState::Up { since: now } } else { HealthState::Wary { since: now } };
        let after = called.map(|at| now.saturating_duration_since(at));
        Some(NodeTransition::Started { to: self.health(), after })
    }

    /// Tells if the hook may be called. Right after the gateway's start it may not, because the node may be running
    /// already.
    pub fn may_start(&self, now: Instant) -> bool {
        let Starting { called, again, .. } = self.trust.starting;
        let idle = called.is_none() && again.is_none_or(|again| again <= now);
        let absent = self.detector.has_missed() || self.detector.is_gone();
        let idle = idle && self.trust.elastic.stop_called.is_none();
        self.health() == Health::Cold && !self.drains() && idle && absent
    }

    /// Returns true while a hook starts the node.
    pub fn is_starting(&self) -> bool {
        self.trust.starting.called.is_some()
    }

    /// Notes a call of the hook. Returns the number of this attempt and its time limit.
    pub fn start(&mut self, now: Instant) -> (u32, Duration) {
        self.trust.starting.called = Some(now);
        self.trust.starting.attempts = self.trust.starting.attempts.saturating_add(1);
        let within = match self.settings.starts {
            Starts::ByItself => Duration::ZERO,
            Starts::ByHook { within } => within,
        };
        (self.trust.starting.attempts, within)
    }

    /// Notes that the hook failed or the node did not answer in time. Returns the delay before the next attempt; `None`
    /// if the node was not being started.
    pub fn start_failed(&mut self, now: Instant) -> Option<Duration> {
        self.trust.starting.called.take()?;
        let doublings = (self.trust.starting.attempts - 1).min(RELAPSES_MAX);
        let again = START_AGAIN_AFTER.saturating_mul(1 << doublings).min(START_AGAIN_AFTER_MAX);
        self.trust.starting.again = Some(now + again);
        Some(again)
    }

    /// Returns the interval of probes.
    pub fn probe_every(&self) -> Duration {
        match self.trust.standing {
            HealthState::Cold { .. } if !self.is_starting() => COLD_PROBE_EVERY,
            HealthState::Up { .. }
            | HealthState::Suspect { .. }
            | HealthState::Down { .. }
            | HealthState::Wary { .. }
            | HealthState::Cold { .. } => self.detector.probe_every(),
        }
    }
}

#[cfg(test)]
mod tests;
