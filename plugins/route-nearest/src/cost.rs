//! What each node costs, and which stand where one failure cannot reach.

use evenkeel_plugin_sdk::prelude::*;

use crate::RouteNearest;

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
    /// What it costs anyone, in milliseconds.
    cost: f64,
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
        let far = if seen.region != wish.region {
            self.settings.region_cost
        } else if wish.zone.is_some() && seen.zone != wish.zone {
            self.settings.zone_cost
        } else {
            0.0
        };
        seen.cost + far
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

    /// Of the nodes with the lowest rank the cheapest, or one that costs about the same: the room's number chooses.
    fn pick(&self, wish: &Wish, room: RoomId, rank: impl Fn(&Seen) -> Option<u8>) -> Option<&Seen> {
        let ranked = || {
            let ranked = self.usable.iter().filter_map(|seen| Some((rank(seen)?, seen)));
            ranked.map(|(rank, seen)| (rank, self.cost(seen, wish), seen))
        };
        let best = ranked().min_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)))?;
        let alike = ranked()
            .filter(|other| other.0 == best.0 && other.1 <= best.1 + self.settings.alike_within);
        alike.max_by_key(|other| lot(room, other.2.id)).map(|(.., seen)| seen)
    }
}

impl Seen {
    fn of(settings: &RouteNearest, node: &Node<'_>) -> Seen {
        let delay = node.delay_us().map_or(DELAY_UNMEASURED, |us| f64::from(us) / 1000.0);
        let loss = f64::from(node.loss_node_ppm().unwrap_or(0)) / 10_000.0;
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
            cost: delay * settings.delay_weight
                + loss * settings.loss_weight
                + load * load * settings.load_weight
                + wary,
        }
    }
}

/// The lot a room draws for a node: the same on every gateway, and a node that comes or goes changes no other's
/// (rendezvous hashing). The mixer is that of SplitMix64.
fn lot(room: RoomId, node: NodeId) -> u64 {
    mix(mix(room.0).wrapping_add(u64::from(node.0)))
}

fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
