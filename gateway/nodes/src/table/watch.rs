//! Evidence of node health: probes, canaries, workers' stamps, and reports of agents and the kernel.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evenkeel_model::{
    CoreEvent, EvidenceSource, FailureDomain, Health, Hop, NodeId, NodeProbing, NotStarted,
    RegionId, Stamp, StartPhase, ZoneId,
};

use crate::detector::{DetectorFinding, Distance};
use crate::node::trust::NodeTrust;
use crate::node::{Node, NodeTransition};
use crate::table::{NodeEffect, NodeOutput, NodeTable, NodeTimer};

/// Interval at which the workers' stamps are read.
pub const WATCH_EVERY: Duration = Duration::from_millis(2);

/// Maximum lateness of a worker that is excused. If the whole machine stalled, the control thread did too, and its own
/// lateness counts.
const WORKER_EXCUSED_MAX: Duration = Duration::from_secs(1);

/// Interval of canaries to one node.
const CANARY_EVERY: Duration = Duration::from_millis(100);

/// A node that misses its probes this soon after another node of its region died silently fell with it.
const FALLS_WITHIN: Duration = Duration::from_millis(50);

/// A node counts as fallen only if nothing came from it for two probes; one that still sends media did not fall.
const UNHEARD_FOR: Duration = Duration::from_millis(20);

/// An agent's report on its node, sent on each change and with each answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AgentWord {
    /// The process runs. Other evidence must show that it works.
    Serving,
    /// The node asks for its rooms to move away, and takes no new ones.
    Draining,
    /// The process died, or was never started.
    Gone,
}

/// A change of a node's health, with the evidence.
#[derive(Debug)]
pub struct NodeChange {
    /// The number of the node.
    pub node: NodeId,
    /// The change of its state.
    pub change: NodeTransition,
    /// Evidence against the node, with its time.
    pub witnesses: Vec<(EvidenceSource, Instant)>,
    /// The time of the death, by the evidence.
    pub since: Instant,
}

impl NodeTable {
    pub(super) fn distance(&self, zone: ZoneId) -> Distance {
        let region = self.zones[zone.0 as usize].region;
        if region == self.home { Distance::Near } else { Distance::Far }
    }

    /// Sets the timers of all probes and canaries.
    pub fn start_timers(&mut self, now: Instant) {
        let probed = self.slots.iter().flatten();
        let probed = probed.filter(|node| node.settings.probed == NodeProbing::Yes);
        let timers = probed.map(|node| NodeOutput::Set(NodeTimer::Probe(node.id), now));
        self.outputs.extend(timers);
        let canaries = self.slots.iter().flatten().filter(|node| node.settings.canary);
        let timers = canaries.map(|node| NodeOutput::Set(NodeTimer::Canary(node.id), now));
        self.outputs.extend(timers);
    }

    fn next_sequence(&mut self) -> u64 {
        let sequence = self.next_probe;
        self.next_probe += 1;
        sequence
    }

    /// Sends a probe and sets the timer of the next.
    pub fn probe(&mut self, id: NodeId, now: Instant) {
        let sequence = self.next_sequence();
        if let Some(node) = self.get_mut(id) {
            node.detector.handle_probe_sent(sequence, now);
            let next = now + node.probe_every();
            self.set(NodeTimer::Probe(id), next);
            self.push(NodeEffect::Probe { node: id, sequence });
        }
    }

    /// Sends a canary packet and sets the timer of the next.
    pub fn send_canary(&mut self, id: NodeId, now: Instant) {
        let sequence = self.next_sequence();
        if let Some(node) = self.get_mut(id) {
            node.detector.handle_canary_sent(sequence, now);
            self.set(NodeTimer::Canary(id), now + CANARY_EVERY);
            self.push(NodeEffect::Canary { node: id, sequence });
        }
    }

    /// The nodes with an overdue probe. Control reads the answers that wait before the next watch.
    pub fn overdue(&self, now: Instant) -> Vec<NodeId> {
        let overdue = |node: &&Node| node.runs() && node.detector.is_overdue(now);
        self.iter().filter(overdue).map(|node| node.id).collect()
    }

    /// Reads the workers' stamps. Returns by how much this watch was late, if too late to judge, and the nodes that
    /// changed.
    pub fn watch(
        &mut self,
        stamps: &[Stamp],
        workers_late: Duration,
        now: Instant,
    ) -> (Option<Duration>, Vec<NodeChange>) {
        let since = self.last_watch.map_or(WATCH_EVERY, |last| now.saturating_duration_since(last));
        self.last_watch = Some(now);
        let own_late = since.saturating_sub(WATCH_EVERY);
        let workers_late = workers_late.min(WORKER_EXCUSED_MAX);
        let late = Some(own_late.max(workers_late)).filter(|late| *late > self.timings.own_stall);
        let before = std::mem::replace(&mut self.stalled, late.is_some());
        for node in self.iter_mut() {
            let Some(stamp) = stamps.get(node.id.0 as usize) else { continue };
            node.detector.handle_stamp(*stamp, now);
            if late.is_some() {
                node.detector.excuse(own_late, workers_late);
            }
        }
        if let Some(late) = late {
            self.event(CoreEvent::OwnStall { late });
        }
        let silent = self.silent_zones();
        let is_due = |node: &&Node| {
            let beside = silent.get(&node.settings.zone).filter(|_| node.runs()).copied();
            node.settings.probed == NodeProbing::Yes && node.detector.hastens(beside, now)
        };
        let due: Vec<NodeId> = self.iter().filter(is_due).map(|node| node.id).collect();
        for id in due {
            self.probe(id, now);
        }
        if late.is_some() && !before {
            return (late, Vec::new());
        }
        let before: Vec<_> = self.iter().map(|node| (node.id, node.detector.witnesses())).collect();
        let mut found: Vec<DetectorFinding> = self.iter_mut().map(|node| node.look(now)).collect();
        self.doubt_uplink(&mut found, now);
        self.fall_together(&mut found, now);
        let mut changed = Vec::new();
        for (found, (id, before)) in found.into_iter().zip(before) {
            if let Some(change) = self[id].conclude(found, now) {
                let witnesses = self[id].detector.witnesses();
                let since = witnesses.iter().map(|(_, since)| *since).min();
                let (witnesses, since) =
                    (with_earlier(witnesses, before), since.unwrap_or(now).min(now));
                if let NodeTransition::Started { after: Some(_), .. } = change {
                    self.judge_provider(id, true, now);
                }
                changed.push(NodeChange { node: id, change, witnesses, since });
            }
        }
        (late, changed)
    }

    /// Zones with a node that is accused by silence, and the time at which the last of these fell silent. Nodes that carry
    /// little media are probed then, since a zone fails as a whole.
    fn silent_zones(&self) -> BTreeMap<ZoneId, Instant> {
        let mut silent = BTreeMap::new();
        for node in self.iter().filter(|node| node.runs()) {
            if node.detector.suspected_by()[EvidenceSource::Silence as usize]
                && let Some(since) = node.detector.fell_silent()
            {
                let newest = silent.entry(node.settings.zone).or_insert(since);
                *newest = since.max(*newest);
            }
        }
        silent
    }

    /// Detects a whole region going down: nodes accused only by their probes, such as standbys, are dead if they fell
    /// with a dead node. Reported deaths count separately. One lost probe of a far node is not enough. No node is
    /// judged this way while the uplink is suspected.
    fn fall_together(&mut self, found: &mut [DetectorFinding], now: Instant) {
        let fell: Vec<RegionId> = (self.iter().zip(&*found))
            .filter(|(node, found)| **found == DetectorFinding::Dead && !node.detector.is_told_of())
            .map(|(node, _)| self.region_of(node.id))
            .collect();
        self.fell.extend(fell.into_iter().map(|region| (region, now)));
        self.fell.retain(|_, at| now.saturating_duration_since(*at) < FALLS_WITHIN);
        if self.fell.is_empty() || self.uplink_suspect {
            return;
        }
        for (node, found) in self.iter().zip(found) {
            let falls = || self.fell.contains_key(&self.region_of(node.id));
            let unheard = || {
                let heard = node.detector.last_heard();
                heard.is_none_or(|at| now.saturating_duration_since(at) >= UNHEARD_FOR)
            };
            if *found == DetectorFinding::Accused
                && node.detector.misses_two()
                && unheard()
                && falls()
            {
                *found = DetectorFinding::Dead;
            }
        }
    }

    /// An agent reported that the process is gone, which suffices as evidence.
    pub fn handle_gone(&mut self, id: NodeId, now: Instant) -> Option<NodeChange> {
        let node = self.get_mut(id)?;
        let before = node.detector.witnesses();
        let change = node.handle_gone(now)?;
        let witnesses = with_earlier(node.detector.witnesses(), before);
        Some(NodeChange { node: id, change, witnesses, since: now })
    }

    /// An operator marks the node Down.
    pub fn eject(&mut self, id: NodeId, now: Instant) -> Option<NodeChange> {
        let node = self.get_mut(id)?;
        let change = node.eject(now)?;
        let operator = vec![(EvidenceSource::Operator, now)];
        let witnesses = with_earlier(node.detector.witnesses(), operator);
        Some(NodeChange { node: id, change, witnesses, since: now })
    }

    /// Marks a node down on the board, where packets take their second hops at once. No other code marks nodes down.
    pub fn mark_down(&self, dead: Hop, since: Instant) {
        if self.is_up(dead) {
            self.board.mark_down(dead.node, since);
        }
    }

    /// Marks the node up as a new incarnation.
    pub fn reincarnate(&mut self, id: NodeId) {
        if let Some(incarnation) = self.board.reincarnate(id) {
            self[id].incarnation = incarnation;
            self.opening_windows[id.0 as usize].renew();
        }
    }

    /// Continues the trust of another process in a node. A node that runs there and was not heard here yet gets a new
    /// incarnation.
    pub fn resume(&mut self, id: NodeId, before: &NodeTrust) {
        let node = &mut self[id];
        let (ran, hop) = (node.runs(), node.hop());
        node.resume(before);
        match node.absent_since() {
            Some(since) => self.mark_down(hop, since),
            None if !ran => self.reincarnate(id),
            None => {}
        }
    }

    /// Calls the start hook of the node nearest to the region, unless a node is being started already. Rooms that it
    /// cannot carry are tried when it runs. The room that needs it has no node, so the budget may be exceeded if the
    /// operator allows it.
    pub fn start_nearest(&mut self, region: RegionId, now: Instant) {
        let may = self.iter().filter(|node| node.may_start(now)).map(|node| node.id);
        let mut may: Vec<NodeId> = may.collect();
        may.sort_by_key(|node| (self.region_of(*node) != region, *node));
        self.start_first(&may, true, now);
    }

    /// Calls the start hook of a node of this region, unless a node is being started already: nodes elsewhere add no
    /// capacity to it.
    pub fn start_in_region(&mut self, region: RegionId, now: Instant) {
        let may = self
            .in_domain(FailureDomain::Region(region))
            .filter(|node| node.may_start(now))
            .map(|node| node.id);
        let may: Vec<NodeId> = may.collect();
        self.start_first(&may, false, now);
    }

    /// Starts no more nodes, since the gateway shuts down.
    pub fn start_no_more(&mut self) {
        self.shutting_down = true;
    }

    /// Ends a start under way, if any, as failed.
    pub fn start_failed(&mut self, id: NodeId, why: NotStarted, now: Instant) {
        let failed = self.get_mut(id).and_then(|node| node.start_failed(now));
        if let Some(again) = failed {
            if matches!(why, NotStarted::Hook | NotStarted::Late) {
                self.judge_provider(id, false, now);
            }
            self.cancel(NodeTimer::StartLate(id));
            self.push(NodeEffect::EndStart { node: id, why });
            self.event(CoreEvent::Start { node: id, step: StartPhase::Failed { why, again } });
        }
    }
}

/// Adds the evidence of other sources.
fn with_earlier(
    mut witnesses: Vec<(EvidenceSource, Instant)>,
    mut before: Vec<(EvidenceSource, Instant)>,
) -> Vec<(EvidenceSource, Instant)> {
    before.retain(|(old, _)| witnesses.iter().all(|(witness, _)| witness != old));
    witnesses.extend(before);
    witnesses
}

/// A node heard this much later than another fell silent outlived it: the last packets before a common loss arrive
/// within this time.
const TOGETHER: Duration = Duration::from_millis(5);

/// A node that had not been heard for this many probes when another fell silent failed earlier, for a separate reason.
const HEARD_WITHIN_PROBES: u32 = 3;

/// Nodes that fell silent together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct CommonSilence {
    silent: u32,
    /// Number of nodes that were heard until then.
    of: u32,
    /// Every node is accused by now. Nodes that are merely not due yet would be heard soon.
    total: bool,
}

impl NodeTable {
    /// Returns true while the gateway doubts its own uplink.
    pub fn doubts_uplink(&self) -> bool {
        self.uplink_suspect
    }

    /// Weakens findings of death by silence to accusations while the uplink is suspected.
    pub(super) fn doubt_uplink(&mut self, found: &mut [DetectorFinding], now: Instant) {
        let mut doubted: Option<CommonSilence> = None;
        let holds: Vec<bool> = (self.iter().zip(&*found))
            .map(|(node, found)| {
                let silence =
                    (*found == DetectorFinding::Dead).then(|| self.doubt(node, now)).flatten();
                doubted = silence.or(doubted);
                silence.is_some()
            })
            .collect();
        if doubted.is_some_and(|silence| silence.total) {
            self.none_heard = Some(now);
        }
        for id in self.unasked(&holds, now) {
            self.probe(id, now);
        }
        for (found, _) in found.iter_mut().zip(holds).filter(|(_, holds)| *holds) {
            *found = DetectorFinding::Accused;
        }
        let before = std::mem::replace(&mut self.uplink_suspect, doubted.is_some());
        if before != doubted.is_some() {
            let (silent, of) = doubted.map_or((0, 0), |silence| (silence.silent, silence.of));
            self.event(CoreEvent::Uplink { doubted: doubted.is_some(), silent, of });
        }
    }

    /// Nodes without a probe since the newest silence in doubt: no answer of theirs can show that they outlived it.
    ///
    /// A node gets at most one more probe per silence, since its last probe is then later than the silence. A near node
    /// is found dead 15 to 20 ms after it fell silent: if others follow, a far node is probed at most every 10 to
    /// 15 ms.
    fn unasked(&self, in_doubt: &[bool], now: Instant) -> Vec<NodeId> {
        let in_doubt = self.iter().zip(in_doubt).filter(|(_, in_doubt)| **in_doubt);
        let newest = in_doubt.filter_map(|(node, _)| node.detector.fell_silent()).max();
        let by = newest.map(|newest| newest + TOGETHER).filter(|by| *by < now);
        let Some((newest, by)) = newest.zip(by) else { return Vec::new() };
        let unasked = |node: &&Node| {
            let probed = node.detector.last_probed();
            node.settings.probed == NodeProbing::Yes
                && node.runs()
                && was_heard(node, newest)
                && probed.is_none_or(|at| at <= by)
        };
        self.iter().filter(unasked).map(|node| node.id).collect()
    }

    /// The nodes that fell silent together with this one, if they make the uplink suspect.
    fn doubt(&self, node: &Node, now: Instant) -> Option<CommonSilence> {
        if node.detector.is_told_of() {
            return None;
        }
        let fell_silent = node.detector.fell_silent()?;
        let others = self.iter().filter(|other| other.id != node.id && other.runs());
        let (heard, unheard): (Vec<&Node>, Vec<&Node>) =
            others.partition(|other| was_heard(other, fell_silent));
        let alive = heard.iter().filter(|other| is_alive(other, fell_silent)).count() as u32;
        let of = heard.len() as u32 + 1;
        let silent = of - alive;
        // Nodes that never send anything have an unknown state, and count as an alternative.
        let somewhere = unheard.iter().any(|other| other.takes_rooms());
        let alone = of == 1 && somewhere;
        let timings = &self.timings;
        let lasted = |since: Instant| now.saturating_duration_since(since);
        // A start in vain costs less than silence. One kind of evidence alone still needs all of `down_after`.
        let starts = heard.is_empty() && self.iter().any(|other| other.health() == Health::Cold);
        let within = node.detector.down_after() / if starts { 2 } else { 1 };
        // Nodes are heard again one by one.
        let returns = self.none_heard.is_some_and(|at| lasted(at) < within);
        let most = !alone && silent * 100 > of * timings.panic_percent;
        let flows = node.detector.last_received().is_some_and(|at| lasted(at) < within);
        let doubted_for = if starts { within } else { timings.panic_for };
        let holds = match alive {
            0 => most && (flows || lasted(fell_silent) < doubted_for),
            1.. => returns || (most && lasted(fell_silent) < within),
        };
        let accused = |other: &&Node| other.detector.fell_silent().is_some();
        let total = alive == 0 && heard.iter().all(accused);
        holds.then_some(CommonSilence { silent, of, total })
    }
}

fn was_heard(node: &Node, then: Instant) -> bool {
    let within = node.detector.probe_every() * HEARD_WITHIN_PROBES;
    node.detector.last_heard().is_some_and(|heard| heard + within >= then)
}

/// The node has been heard since `then`: by an answer, which proves both directions, or by media if it gives no
/// answers. A reported death also counts.
fn is_alive(node: &Node, then: Instant) -> bool {
    let proof = match node.settings.probed {
        NodeProbing::Yes => node.detector.last_answer(),
        NodeProbing::No => node.detector.last_received(),
    };
    node.detector.is_told_of() || proof.is_some_and(|at| at > then + TOGETHER)
}
