//! No node that can answer is marked down, and a death is detected in time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_model::{
    CoreEvent, CoreSettings, EvidenceSource, Health, NodeId, NodeSettings, Timings,
};
use evenkeel_nodes::WATCH_EVERY;

use super::Scene;

type Found = Option<(&'static str, String)>;

/// Detection limit for a reported death, plus the path delay.
const TOLD_WITHIN: Duration = Duration::from_millis(20);

/// Detection limit with two witnesses for a busy node that dies silently, plus three round trips; its packet interval
/// counts twice.
const TWO_WITHIN: Duration = Duration::from_millis(60);

/// From this packet rate per second on, silence is a witness at once (`BUSY`) or soon (`STEADY`).
const BUSY: u64 = 1_000;
const STEADY: u64 = 300;

/// Packets are counted per interval of this length; the minimum of the last `TURNS` intervals is the rate.
const TURN: Duration = Duration::from_millis(100);
const TURNS: usize = 25;

/// A node to which no packet was sent for this long is not expected to send.
const IDLE: Duration = Duration::from_millis(30);

/// The delay that faults add to a round trip: 200 ms in each direction.
const SLOWED: Duration = Duration::from_millis(400);

/// A node that dies this soon after another silent death in its region belongs to a common failure: one witness suffices.
const FALLS_WITHIN: Duration = Duration::from_millis(50);

/// The source of a death report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Notice {
    /// The agent beside the node.
    Agent,
    /// The kernel, by ICMP errors.
    Kernel,
    /// No report is sent, or faults may drop it with all its repetitions.
    None,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Dying {
    pub(crate) since: Instant,
    pub(crate) notice: Notice,
}

/// The facts about a node that determine its detection limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeFacts {
    /// Set while the node cannot answer.
    pub(crate) dying: Option<Dying>,
    /// Round trip without faults.
    pub(crate) round_trip: Duration,
    /// The link loses packets without a fault, so a report may be lost.
    pub(crate) lossy: bool,
    /// Latency was irregular, or the node stalled, within ten seconds.
    pub(crate) irregular: bool,
    /// The delay that faults add to packets from the node, such as a report of its agent.
    pub(crate) slowed: Duration,
    /// The node sends without packets from the gateway, because meshed nodes forward to it.
    pub(crate) speaks_on: bool,
    /// Packets received from it in total.
    pub(crate) received: u64,
    /// The last packet sent to it.
    pub(crate) sent: Option<Instant>,
}

impl NodeFacts {
    fn is_idle(&self, now: Instant) -> bool {
        self.sent.is_none_or(|sent| now.saturating_duration_since(sent) > IDLE)
    }
}

/// The name of the detection limit, and the limit.
type Budget = (&'static str, Duration);

#[derive(Clone, Debug)]
struct Watched {
    region: u32,
    near: bool,
    /// Set while the node cannot answer. Stalls of the gateway restart the time.
    dying: Option<Dying>,
    /// The limit of the current death, as of its beginning.
    budget: Option<Budget>,
    /// The node was dead before its agent could report it: the report comes with the next repetition.
    repeats: bool,
    counted: Option<(Instant, u64)>,
    /// Packets in the last intervals.
    turns: [u64; TURNS],
}

pub(crate) struct Deaths {
    nodes: Vec<Watched>,
    timings: Timings,
    /// Deaths detected in time, by the name of the limit.
    pub(crate) known: BTreeMap<&'static str, u64>,
    /// The last silent death by region.
    silent: BTreeMap<u32, Instant>,
    /// Nodes marked down by probes alone, as part of a common failure: region and violation text. They are violations unless
    /// another node of the region is marked down in the same watch.
    alleged: Vec<(u32, String)>,
}

impl Deaths {
    pub(super) fn new(settings: &CoreSettings) -> Deaths {
        Deaths {
            nodes: settings.nodes.iter().map(|node| Watched::new(node, settings)).collect(),
            timings: settings.timings,
            known: BTreeMap::new(),
            silent: BTreeMap::new(),
            alleged: Vec::new(),
        }
    }

    /// A node is listed, possibly with a reused number.
    pub(super) fn listed(&mut self, id: NodeId, settings: &CoreSettings) {
        let place = id.0 as usize;
        let watched = Watched::new(&settings.nodes[place], settings);
        match self.nodes.get_mut(place) {
            Some(before) => *before = watched,
            None => self.nodes.push(watched),
        }
    }

    /// Checks that enough witnesses marked the node down: two, or one for the longer time of a single witness, or the
    /// agent. Witnesses of loss and quality never count. `right` holds the time until which each witness may accuse.
    pub(crate) fn check_down(
        &mut self,
        event: &CoreEvent,
        right: &[Option<Instant>; EvidenceSource::ALL.len()],
        now: Instant,
    ) -> Found {
        let CoreEvent::Node { hop, to: Health::Down, witnesses, .. } = event else { return None };
        let at = hop.node.0 as usize;
        let region = self.nodes[at].region;
        let rightly: Vec<_> = (witnesses.iter())
            .filter(|(witness, _)| !witness.is_of_loss())
            .filter(|(witness, _)| right[*witness as usize].is_some_and(|until| now < until))
            .collect();
        let alone = self.down_after(at);
        let lasted = |since: Instant| now.saturating_duration_since(since);
        let enough = rightly.len() >= 2
            || rightly.iter().any(|(witness, since)| {
                *witness == EvidenceSource::Agent || lasted(*since) >= alone
            });
        if enough {
            if !witnesses.iter().any(|(witness, _)| witness.speaks()) {
                self.silent.insert(region, now);
                self.alleged.retain(|(alleged, _)| *alleged != region);
            }
            return None;
        }
        let words: Vec<_> =
            witnesses.iter().map(|(witness, since)| (witness.name(), lasted(*since))).collect();
        let names: Vec<_> = rightly.iter().map(|(witness, _)| witness.name()).collect();
        let text =
            format!("{hop:?} was marked down by {words:?}, of which only {names:?} may accuse it");
        if self.nodes[at].near
            && rightly.iter().any(|(witness, _)| *witness == EvidenceSource::Probe)
        {
            let fell = self.silent.get(&region).is_some_and(|at| lasted(*at) <= FALLS_WITHIN);
            self.alleged.extend((!fell).then_some((region, text)));
            return None;
        }
        Some(("false death", text))
    }

    /// The watch ends: nodes that were marked down as part of a common failure, without another one, are violations.
    pub(crate) fn check_alleged(&mut self) -> Found {
        let text = self.alleged.drain(..).next().map(|(_, text)| text);
        text.map(|text| ("false death", text))
    }

    /// A node that does not answer is marked down within its limit. The gateway's own stalls and a suspected uplink extend it.
    /// Without a report, detection of an unprobed node needs traffic.
    pub(crate) fn check_detection(
        &mut self,
        facts: &[NodeFacts],
        scene: &Scene,
        (stalled, doubted): (bool, bool),
        now: Instant,
    ) -> Found {
        let mut found = None;
        for (at, (facts, node)) in facts.iter().zip(&scene.nodes).enumerate() {
            self.nodes[at].count(facts, now);
            let down = matches!(node.health, Health::Down | Health::Cold);
            let Some(dying) = facts.dying else {
                (self.nodes[at].dying, self.nodes[at].budget) = (None, None);
                self.nodes[at].repeats = false;
                continue;
            };
            let before = self.nodes[at].dying.filter(|before| before.notice == dying.notice);
            self.nodes[at].repeats |= before.is_none() && self.nodes[at].dying.is_some();
            if down {
                if let Some((name, _)) = self.nodes[at].budget.take() {
                    *self.known.entry(name).or_default() += 1;
                }
                self.nodes[at].dying = Some(Dying { since: now, ..dying });
                continue;
            }
            if !node.probed && dying.notice != Notice::Agent {
                // Its agent may be able to report the death later.
                self.nodes[at].dying = Some(dying);
                continue;
            }
            let since = match before {
                _ if stalled => now,
                Some(before) => before.since.max(dying.since),
                None if self.nodes[at].dying.is_some() => now,
                None => dying.since,
            };
            self.nodes[at].dying = Some(Dying { since, ..dying });
            let fresh = before.is_none() || self.nodes[at].budget.is_none() || facts.is_idle(now);
            if fresh {
                self.nodes[at].budget = Some(self.budget(at, facts, dying.notice, now));
            }
            let Some((name, within)) = self.nodes[at].budget else { continue };
            let doubt = if doubted { self.timings.panic_for } else { Duration::ZERO };
            let lasted = now.saturating_duration_since(since);
            if lasted > within + doubt {
                let health = node.health.name();
                let text = format!(
                    "n{at} has been dead for {lasted:?} and is still {health}; limit {name} is {within:?}"
                );
                found.get_or_insert(("late death", text));
            }
        }
        found
    }

    fn down_after(&self, at: usize) -> Duration {
        match self.nodes[at].near {
            true => self.timings.down_after_near,
            false => self.timings.down_after_far,
        }
    }

    fn budget(&self, at: usize, facts: &NodeFacts, notice: Notice, now: Instant) -> Budget {
        let Timings { probe_every_near, probe_every_far, probe_slack, .. } = self.timings;
        let (every, missed) =
            if self.nodes[at].near { (probe_every_near, 2) } else { (probe_every_far, 1) };
        let NodeFacts { round_trip, lossy, irregular, slowed, speaks_on, .. } = *facts;
        let alone = self.down_after(at);
        // The time until the probes of a witness are overdue and a watch notices it.
        let overdue = |within: Duration| every * missed + within + WATCH_EVERY * 2;
        let probes = overdue(round_trip + probe_slack * 3);
        // An answer is awaited for as long as answers took. If they took long now and then, for as long as the longest of
        // them, at most for the limit of one witness alone.
        let slow_probes = overdue((round_trip + SLOWED + probe_slack * 3).max(alone));
        let lost = if lossy { AGENT_REPEATS } else { Duration::ZERO };
        let repeated = if self.nodes[at].repeats { AGENT_REPEATS } else { Duration::ZERO };
        let rate = self.nodes[at].rate(facts, now);
        match notice {
            Notice::Agent => ("agent", TOLD_WITHIN + round_trip + slowed + lost + repeated),
            // Needs no packet of the node: probes accuse it once they are overdue, and mark it down `alone` later. It is
            // also the limit if faults drop the report and its repetitions; all faults that drop packets are irregular.
            Notice::None if irregular => ("irregular", alone + slow_probes),
            Notice::Kernel if irregular => ("kernel, irregular", alone + slow_probes),
            Notice::Kernel if rate >= BUSY => ("kernel, busy", TOLD_WITHIN + round_trip),
            Notice::Kernel => ("kernel", probes + lost),
            Notice::None if rate >= STEADY && !speaks_on => ("two", TWO_WITHIN + round_trip * 3),
            Notice::None => ("alone", alone + probes + every * 2 + round_trip),
        }
    }
}

/// Repetition interval of an agent's report.
const AGENT_REPEATS: Duration = Duration::from_millis(100);

impl Watched {
    fn new(node: &NodeSettings, settings: &CoreSettings) -> Watched {
        let region = settings.zones[node.zone.0 as usize].region;
        Watched {
            region: region.0,
            near: region == settings.home,
            dying: None,
            budget: None,
            repeats: false,
            counted: None,
            turns: [0; TURNS],
        }
    }

    fn count(&mut self, facts: &NodeFacts, now: Instant) {
        let (since, before) = *self.counted.get_or_insert((now, facts.received));
        if now.saturating_duration_since(since) < TURN || facts.dying.is_some() {
            return;
        }
        self.turns.rotate_right(1);
        self.turns[0] = facts.received.saturating_sub(before);
        self.counted = Some((now, facts.received));
    }

    /// The lowest rate in packets per second; the current interval counts after a fifth of its length, since rooms may have
    /// left.
    fn rate(&self, facts: &NodeFacts, now: Instant) -> u64 {
        let per_second = |count: u64, time: Duration| count * 1_000 / time.as_millis() as u64;
        if facts.is_idle(now) {
            return 0;
        }
        let current = self.counted.and_then(|(since, before)| {
            let lasted = now.saturating_duration_since(since);
            (lasted >= TURN / 5).then(|| per_second(facts.received.saturating_sub(before), lasted))
        });
        let turns = self.turns.iter().map(|count| per_second(*count, TURN));
        turns.chain(current).min().unwrap_or(0)
    }
}
