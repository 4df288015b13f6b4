//! What each node costs, and which stand where one failure cannot reach.

use evenkeel_plugin_sdk::prelude::*;

use crate::RouteNearest;
use crate::lot::lot;

/// A node whose delay nobody measured yet is taken for one in another region. Milliseconds.
const DELAY_UNMEASURED: f64 = 100.0;

/// Where a room would best be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) region: Option<RegionId>,
    pub(crate) zone: Option<ZoneId>,
}

/// A node that may carry a room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) id: NodeId,
    pub(crate) zone: Option<ZoneId>,
    pub(crate) region: Option<RegionId>,
    /// Suspect, or full: for new rooms only where nothing else is left.
    pub(crate) avoid: bool,
    pub(crate) suspect: bool,
    /// One-way delay to it, in milliseconds, if somebody measured it.
    pub(crate) delay: Option<f64>,
    /// Part of its probes that is lost.
    pub(crate) loss: f64,
    /// What it costs anyone but for its load, in milliseconds.
    lasting: f64,
    /// Part of its capacity that is taken.
    load: f64,
    /// What it can carry, kbit/s; 1 where nobody said.
    capacity: f64,
    /// Rooms on it.
    rooms: f64,
}

/// The nodes that may carry a room: neither Down nor draining.
#[derive(Debug)]
pub(crate) struct Survey<'a> {
    pub(crate) settings: &'a RouteNearest,
    usable: Vec<Seen>,
    /// They carry what they have until it moved.
    draining: Vec<NodeId>,
}

impl<'a> Survey<'a> {
    pub(crate) fn of(settings: &'a RouteNearest, nodes: &Nodes<'_>) -> Survey<'a> {
        let mut survey = Survey { settings, usable: Vec::new(), draining: Vec::new() };
        for node in nodes.iter() {
            if node.health() == Some(Health::Down) {
                continue;
            }
            if node.draining() == Some(true) {
                survey.draining.push(node.id());
            } else {
                survey.usable.push(Seen::of(settings, &node));
            }
        }
        survey
    }

    pub(crate) fn usable(&self, id: NodeId) -> Option<&Seen> {
        self.usable.iter().find(|seen| seen.id == id)
    }

    pub(crate) fn is_draining(&self, id: NodeId) -> bool {
        self.draining.contains(&id)
    }

    /// What a node costs a room with this wish, in milliseconds.
    pub(crate) fn cost(&self, seen: &Seen, wish: &Wish) -> f64 {
        self.lasting(seen, wish) + self.crowding(seen)
    }

    fn crowding(&self, seen: &Seen) -> f64 {
        seen.load * seen.load * self.settings.load_weight
    }

    /// The same but for its load, which changes from one moment to the next.
    fn lasting(&self, seen: &Seen, wish: &Wish) -> f64 {
        let far = if seen.region != wish.region {
            self.settings.region_cost
        } else if wish.zone.is_some() && seen.zone != wish.zone {
            self.settings.zone_cost
        } else {
            0.0
        };
        seen.lasting + far
    }

    /// A room moves: from now on both nodes have as much more and less load as a room of the first is on average.
    pub(crate) fn shift(&mut self, from: Option<NodeId>, to: Option<NodeId>) {
        let find = |id: NodeId| self.usable.iter().position(|seen| seen.id == id);
        let (Some(from), Some(to)) = (from.and_then(find), to.and_then(find)) else {
            return;
        };
        let source = &mut self.usable[from];
        if source.rooms < 1.0 || from == to {
            return;
        }
        let kbps = source.load * source.capacity / source.rooms;
        source.rooms -= 1.0;
        source.load -= kbps / source.capacity;
        let target = &mut self.usable[to];
        target.rooms += 1.0;
        target.load += kbps / target.capacity;
        target.avoid = target.suspect || target.load >= self.settings.full_at;
    }

    /// The node for a room's packets.
    pub(crate) fn best(&self, wish: &Wish, room: RoomId) -> Option<&Seen> {
        self.pick(wish, room, |seen| Some(u8::from(seen.avoid)))
    }

    /// `first` and its spares. Each stands in a zone that the route does not have yet, in the region of `first` while there
    /// is one, then in others; nodes in zones it has come last. Among nodes as good as each other those of `standing` stay.
    pub(crate) fn route(
        &self,
        first: &Seen,
        wish: &Wish,
        room: RoomId,
        standing: &[NodeId],
    ) -> Vec<NodeId> {
        let mut route = vec![*first];
        while route.len() <= usize::from(self.settings.spares) {
            let rank = |seen: &Seen| {
                if route.iter().any(|hop| hop.id == seen.id) {
                    return None;
                }
                let stands = standing.contains(&seen.id);
                // A spare that stands has its place reserved: that it is full, or under suspicion for a moment, is no
                // reason to open the room elsewhere.
                let avoid = seen.avoid && !stands;
                let zone_taken = route.iter().any(|hop| hop.zone == seen.zone);
                let far = seen.region != first.region;
                let bits = [avoid, zone_taken, far, !stands];
                Some(bits.into_iter().fold(0, |rank, bit| rank << 1 | u8::from(bit)))
            };
            match self.pick(wish, room, rank) {
                Some(&spare) => route.push(spare),
                None => break,
            }
        }
        route.iter().map(|hop| hop.id).collect()
    }

    /// Of the nodes with the lowest rank the cheapest, or one that is alike: the room's number chooses, each as often as it
    /// has capacity free.
    fn pick(&self, wish: &Wish, room: RoomId, rank: impl Fn(&Seen) -> Option<u8>) -> Option<&Seen> {
        let mut ranked = Vec::with_capacity(self.usable.len());
        ranked.extend(self.usable.iter().filter_map(|seen| {
            let lasting = self.lasting(seen, wish);
            Some(Ranked { rank: rank(seen)?, cost: lasting + self.crowding(seen), lasting, seen })
        }));
        let best = ranked
            .iter()
            .min_by(|a, b| a.rank.cmp(&b.rank).then(a.cost.total_cmp(&b.cost)))
            .copied()?;
        let within = self.settings.alike_within;
        let alike = ranked.iter().filter(|other| {
            let apart = (other.lasting - best.lasting).abs();
            other.rank == best.rank && (other.cost <= best.cost + within || apart <= within)
        });
        let lots = alike.map(|other| (lot(room, other.seen.id, other.seen.free()), other.seen));
        lots.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, seen)| seen)
    }
}

/// A node in a choice.
#[derive(Clone, Copy)]
struct Ranked<'a> {
    /// The lower the better, whatever it costs.
    rank: u8,
    cost: f64,
    /// The cost but for its load.
    lasting: f64,
    seen: &'a Seen,
}

impl Seen {
    fn of(settings: &RouteNearest, node: &Node<'_>) -> Seen {
        let delay = node.delay_us().map(|us| f64::from(us) / 1000.0);
        let far = delay.unwrap_or(DELAY_UNMEASURED) * settings.delay_weight;
        let loss = f64::from(node.loss_node_ppm().unwrap_or(0)) / 1e6;
        let load = f64::from(node.load_permille().unwrap_or(0)) / 1000.0;
        let health = node.health();
        let wary = if health == Some(Health::Wary) { settings.wary_cost } else { 0.0 };
        let suspect = health == Some(Health::Suspect);
        Seen {
            id: node.id(),
            zone: node.zone(),
            region: node.region(),
            avoid: suspect || load >= settings.full_at,
            suspect,
            delay,
            loss,
            lasting: far + loss * 100.0 * settings.loss_weight + wary,
            load,
            capacity: f64::from(node.capacity_kbps().unwrap_or(1).max(1)),
            rooms: f64::from(node.rooms().unwrap_or(0)),
        }
    }

    /// Capacity that nobody has, kbit/s. What is full or more has a little, so that there is a choice among the full.
    fn free(&self) -> f64 {
        self.capacity * (1.0 - self.load).max(0.001)
    }
}
