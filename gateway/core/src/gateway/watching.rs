//! What nodes show us, and what we make of it.

use std::time::{Duration, Instant};

use super::{Gateway, Output, WATCH_EVERY};
use crate::detector::{Distance, Finding, Stamp};
use crate::node::{Change, Node};
use crate::settings::{Probed, Settings};
use crate::timer::Timer;
use crate::{Event, Health, Measures, Metric, NodeId, NotStarted, RegionId, ZoneId};

/// A worker that comes back from one pass no sooner than this is no excuse: where the machine stood still, control did
/// too, and its own lateness counts.
const WORKER_EXCUSED_MAX: Duration = Duration::from_secs(1);

pub(super) fn nodes(settings: &Settings, now: Instant) -> Vec<Node> {
    let node = |(at, node): (usize, &crate::settings::NodeSettings)| {
        let distance = distance(settings, node.zone);
        Node::new(NodeId(at as u32), node.clone(), distance, settings.timings, now)
    };
    settings.nodes.iter().enumerate().map(node).collect()
}

pub(super) fn distance(settings: &Settings, zone: ZoneId) -> Distance {
    let region = settings.zones[zone.0 as usize].region;
    if region == settings.home { Distance::Near } else { Distance::Far }
}

impl Gateway {
    pub(super) fn start_probing(&mut self, now: Instant) {
        for node in self.nodes.iter().filter(|node| node.settings.probed == Probed::Yes) {
            self.effects.set(Timer::Probe(node.id), now);
        }
    }

    pub(super) fn probe(&mut self, id: NodeId, now: Instant) {
        let sequence = self.nodes.next_probe;
        self.nodes.next_probe += 1;
        if let Some(node) = self.nodes.get_mut(id.0 as usize) {
            node.detector.handle_probe_sent(sequence, now);
            self.effects.set(Timer::Probe(id), now + node.probe_every());
            self.effects.push(Output::Probe { node: id, sequence });
        }
    }

    /// Nodes that begin to be silent are asked at once.
    fn probe_out_of_turn(&mut self, now: Instant) {
        let is_due =
            |node: &&Node| node.settings.probed == Probed::Yes && node.detector.hastens(now);
        let due: Vec<_> = self.nodes.iter().filter(is_due).map(|node| node.id).collect();
        for id in due {
            self.probe(id, now);
        }
    }

    /// A node's media port answered.
    pub fn handle_probe_answered(&mut self, id: NodeId, sequence: u64, now: Instant) {
        if let Some(node) = self.nodes.get_mut(id.0 as usize) {
            node.detector.handle_probe_answered(sequence, now);
        }
    }

    /// A node said whether it takes new sessions: with the answer to a probe, or to an opening.
    pub fn handle_willing(&mut self, id: NodeId, willing: bool, now: Instant) {
        if let Some(node) = self.nodes.get_mut(id.0 as usize) {
            node.handle_willing(willing, now);
        }
    }

    /// The kernel says that nobody listens at a node's media port: on its trunk, or on a probe.
    pub fn handle_kernel_error(&mut self, id: NodeId, now: Instant) {
        if let Some(node) = self.nodes.get_mut(id.0 as usize) {
            node.detector.handle_kernel_error(now);
        }
    }

    /// What workers saw of each node, by its number, every [`WATCH_EVERY`]; and how late the latest of
    /// them was since the last watch. Tell of probes that were answered and errors that were read before.
    ///
    /// If we or a worker came late, whatever is waited for may take that much longer, and nobody is condemned on the
    /// first late watch. Where lateness has become the rule, its watches judge like others: what arrived was read.
    pub fn handle_stamps(&mut self, stamps: &[Stamp], workers_late: Duration, now: Instant) {
        let since =
            self.nodes.last_watch.map_or(WATCH_EVERY, |last| now.saturating_duration_since(last));
        self.nodes.last_watch = Some(now);
        let own_late = since.saturating_sub(WATCH_EVERY);
        let workers_late = workers_late.min(WORKER_EXCUSED_MAX);
        let late = own_late.max(workers_late);
        let stalled = late > self.settings.timings.own_stall;
        let before = std::mem::replace(&mut self.nodes.stalled, stalled);
        for node in self.nodes.iter_mut() {
            let Some(stamp) = stamps.get(node.id.0 as usize) else {
                continue;
            };
            node.detector.handle_stamp(*stamp, now);
            if stalled {
                node.detector.excuse(own_late, workers_late);
            }
        }
        if stalled {
            self.excuse_flows(late);
            self.effects.event(Event::OwnStall { late });
        }
        self.probe_out_of_turn(now);
        if stalled && !before {
            return;
        }
        let before: Vec<_> =
            self.nodes.iter().map(|node| (node.id, node.detector.witnesses())).collect();
        let mut found: Vec<Finding> = self.nodes.iter_mut().map(|node| node.look(now)).collect();
        self.doubt_uplink(&mut found, now);
        self.fall_together(&mut found, now);
        // Who died in the same watch is no place to go for rooms of another.
        let mut changed = Vec::new();
        for (found, (id, before)) in found.into_iter().zip(before) {
            let place = id.0 as usize;
            if let Some(change) = self.nodes[place].conclude(found, now) {
                if let Change::Died { .. } = change {
                    self.flip(self.nodes[place].hop(), now);
                }
                changed.push((place, change, before));
            }
        }
        for (place, change, before) in changed {
            self.node_changed(place, change, before, now);
        }
    }

    /// A node refused a session since it is full: it takes no more than it has, for now. One that drains refuses them for
    /// that, and can take what it could.
    pub fn handle_full(&mut self, id: NodeId, now: Instant) {
        let Some(node) = self.node(id) else {
            return;
        };
        if !node.drains() {
            self.capacity.ledger.handle_full(id, now);
            self.gate_what_no_longer_fits(id, now);
        }
        self.handle_willing(id, false, now);
    }

    pub(super) fn node_changed(
        &mut self,
        place: usize,
        change: Change,
        before: Vec<(crate::Witness, Instant)>,
        now: Instant,
    ) {
        let node = &mut self.nodes[place];
        let mut witnesses = node.detector.witnesses();
        witnesses.extend(
            before
                .into_iter()
                .filter(|(old, _)| !node.detector.witnesses().iter().any(|(w, _)| w == old)),
        );
        let last_heard = node.detector.last_heard();
        let (from, to) = match change {
            Change::Health { from, to } => (from, to),
            Change::Died { from } => (from, Health::Down),
            Change::Returned => (Health::Down, node.health()),
            Change::Started { to, .. } => (Health::Cold, to),
        };
        let mut rooms = 0;
        match change {
            Change::Health { .. } => {}
            Change::Died { .. } => {
                let hop = node.hop();
                node.detector.absolve();
                // Only who is ejected dies before it ran.
                self.not_started(hop.node, NotStarted::Ejected, now);
                // The flip comes first: packets do not wait for our words.
                let after = self.effects.outputs.len();
                rooms = self.fail_over(hop, now);
                let event = Event::Node { hop, from, to, witnesses, last_heard, rooms };
                self.effects.outputs.insert(after, Output::Event(event));
                return;
            }
            Change::Returned | Change::Started { .. } => {
                let id = node.id;
                if let Some(incarnation) = self.nodes.board.reincarnate(id) {
                    self.nodes[place].incarnation = incarnation;
                    self.nodes.paces[place].renew();
                }
            }
        }
        let hop = self.nodes[place].hop();
        self.effects.event(Event::Node { hop, from, to, witnesses, last_heard, rooms });
        if let Change::Started { after, .. } = change {
            self.started(hop.node, after, now);
        }
        if matches!(change, Change::Returned | Change::Started { .. }) {
            // It wanted to be left in another life.
            self.decide_drain(hop.node, |node| node.leaving = false, now);
        }
        if matches!(to, Health::Wary | Health::Up) && from != Health::Suspect {
            self.want_reroute_of_short_rooms(now);
        }
    }

    pub(super) fn region_of(&self, node: NodeId) -> RegionId {
        let zone = self.node(node).map(|node| node.settings.zone);
        // Of one that is gone nobody can tell, and nothing leads there.
        zone.map_or(self.settings.home, |zone| self.settings.zones[zone.0 as usize].region)
    }

    pub(super) fn node_measures(&self, id: NodeId) -> Measures {
        let mut measures = Measures::default();
        if let Some(node) = self.node(id) {
            node.measure(&mut measures);
            measures.set(Metric::Capacity, self.capacity.ledger.capacity(id));
            // It knows better than our ledger that it is full.
            let least = if node.welcomes_rooms() { 0 } else { 1_000 };
            measures.set(Metric::Load, self.capacity.ledger.permille(id).max(least));
            measures.set(Metric::Rooms, u64::from(self.capacity.ledger.rooms(id)));
        }
        measures
    }

    /// A region's load is that of its nodes together.
    pub(super) fn region_measures(&self, region: RegionId) -> Measures {
        let takers = || {
            let welcomes =
                |node: &&Node| self.region_of(node.id) == region && node.welcomes_rooms();
            self.nodes.iter().filter(welcomes)
        };
        let capacity: u64 = takers().map(|node| self.capacity.ledger.capacity(node.id)).sum();
        let used: u64 = takers()
            .map(|node| {
                self.capacity.ledger.permille(node.id) * self.capacity.ledger.capacity(node.id)
            })
            .sum();
        let mut measures = Measures::default();
        measures.set(Metric::Load, used.checked_div(capacity).unwrap_or(1_000));
        measures.set(Metric::NodesUp, takers().count() as u64);
        let breaker = self.capacity.breakers[region.0 as usize].state();
        measures.set(Metric::Breaker, breaker as u64);
        measures.set(Metric::Capacity, capacity);
        measures
    }
}
