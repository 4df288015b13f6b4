//! Routing policy: the nearest node with capacity, with spares in other failure domains.
//!
//! Every node has a cost in milliseconds: its delay, plus weights for its loss, its load and its distance. A room goes
//! to the cheapest node. Among equivalent nodes the room's number selects one, in proportion to free capacity, so that
//! rooms spread and do not all follow one outdated measurement. Spares are in other zones, then in other regions. A
//! room moves for quality only if the gain is clear and after a minimum stay, or sooner if its participants can no
//! longer talk (delay, or the E-model's R). A room leaves a draining node at once, and a lost spare is replaced at
//! once.

mod choice;
mod cost;
mod lot;
mod route;
mod talk;
#[cfg(test)]
mod tests;

use evenkeel_plugin_sdk::prelude::*;
use evenkeel_plugin_sdk::unpack;

use crate::cost::{NodeSurvey, PreferredLocation};
use crate::route::RouteReview;

/// Differences in cost up to this value are noise, whatever their relative size. Milliseconds.
const NOISE: f64 = 2.0;

/// Settings.
#[derive(Settings, Debug)]
pub struct RouteNearest {
    /// Cost of one millisecond of one-way delay to the node.
    #[setting(default = 1.0, min = 0, max = 1000)]
    delay_weight: f64,
    /// Cost of one per cent of lost probes, in milliseconds.
    #[setting(default = 8.0, unit = "ms", min = 0, max = 1000)]
    loss_weight: f64,
    /// Cost of a fully loaded node, in milliseconds; it grows with the square of the load, so that
    /// half the load costs a quarter.
    #[setting(default = 20.0, unit = "ms", min = 0, max = 1000)]
    load_weight: f64,
    /// Cost of a node outside the zone of the room's `zone` label, in milliseconds.
    #[setting(default = 2.0, unit = "ms", min = 0, max = 1000)]
    zone_cost: f64,
    /// Cost of a node outside the region of the room's `region` label (else the gateway's), in
    /// milliseconds, on top of its delay.
    #[setting(default = 40.0, unit = "ms", min = 0, max = 1000)]
    region_cost: f64,
    /// Cost of a node that recovered recently, in milliseconds.
    #[setting(default = 10.0, unit = "ms", min = 0, max = 1000)]
    wary_cost: f64,
    /// Cost of a node with delay or loss at its limit, in milliseconds; half as much an hour before.
    /// 0: ignore forecasts.
    #[setting(default = 100.0, unit = "ms", min = 0, max = 1000)]
    decay_cost: f64,
    /// Load from which a node gets new rooms only if every other node is full too.
    #[setting(default = 0.95, min = 0.1, max = 1)]
    full_at: f64,
    /// Nodes are equivalent if their costs, with or without load, differ by at most this, in
    /// milliseconds: rooms spread over them by free capacity.
    #[setting(default = 1.0, unit = "ms", min = 0, max = 1000)]
    equal_cost_within: f64,
    /// A room moves for quality only to a node that is cheaper by this share.
    #[setting(default = 0.2, min = 0, max = 1)]
    hysteresis: f64,
    /// Minimum time on a node before a move for quality.
    #[setting(default = "30s", max = "1h")]
    min_stay: Duration,
    /// One-way delay between participants from which they cannot talk well (ITU-T G.114: 150 ms):
    /// the room moves sooner if a node would improve that. "0s": ignore the delay alone.
    #[setting(default = "0s", max = "5s")]
    max_delay: Duration,
    /// R-factor (ITU-T G.107; 70 is fair) below which the same applies. 0: ignore it.
    #[setting(default = 0, min = 0, max = 93)]
    min_r_factor: f64,
    /// Time in that condition, and on the node, before such a move.
    #[setting(default = "5s", max = "1h")]
    poor_for: Duration,
    /// Interval between reviews of a room; "0s": only when nodes change.
    #[setting(default = "10s", max = "1h")]
    review_interval: Duration,
    /// Number of spare nodes of a room.
    #[setting(default = 2, min = 1, max = 3)]
    spares: u8,
}

/// State of a room.
#[derive(State, Clone, PartialEq, Debug)]
#[state(schema = 2, migrate = from_older)]
pub struct Stay {
    /// The room's preferred region.
    region: Option<u64>,
    /// The room's preferred zone.
    zone: Option<u64>,
    /// The room's node at the last review; `None` if another policy placed the room.
    node: Option<u32>,
    /// Gateway time when the room moved to that node.
    since: Duration,
    /// Start of the period in which the participants cannot talk well.
    poor_since: Option<Duration>,
}

/// The first schema.
#[derive(Pack)]
struct RoomStateV1 {
    region: Option<u64>,
    zone: Option<u64>,
    node: Option<u32>,
    since: Duration,
}

fn from_older(schema: u32, bytes: &[u8]) -> Option<Stay> {
    if schema != 1 {
        return None;
    }
    let RoomStateV1 { region, zone, node, since } = unpack(bytes)?;
    Some(Stay { region, zone, node, since, poor_since: None })
}

/// Reasons of placements.
#[derive(Reason, Clone, Copy, PartialEq, Debug)]
pub enum PlacementReason {
    /// A new room went to the cheapest node.
    Nearest = 1,
    /// The room's node stays; its spares changed.
    SpareRestored = 2,
    /// No node of the route was left.
    RouteLost = 3,
    /// The room's node is being drained.
    NodeDraining = 4,
    /// Another node is clearly better.
    Better = 5,
    /// The participants could not talk well over the room's node, and can over another.
    PoorQuality = 6,
}

#[routing]
impl Routing for RouteNearest {
    type State = Stay;
    type Reason = PlacementReason;

    const READS: &'static [Metric] = &[
        Metric::Age,
        Metric::LossUp,
        Metric::LossDown,
        Metric::RttClient,
        Metric::Delay,
        Metric::LossNode,
        Metric::Load,
        Metric::Health,
        Metric::Draining,
        Metric::Capacity,
        Metric::Rooms,
        Metric::Decay,
    ];

    fn place(&self, room: &NewRoom<'_>, nodes: &Nodes<'_>) -> Placement<Stay> {
        let survey = NodeSurvey::of(self, nodes);
        let mut stay = self.open(room);
        let choice = survey.choice(&stay.wish(), room.room);
        let Some(first) = choice.best() else {
            return Placement::abstain();
        };
        note(0, "cost_us", (survey.cost(first, &stay.wish()) * 1000.0) as i64);
        stay.node = Some(first.id().0);
        stay.since = nodes.now();
        let hops = choice.route(first, &[]);
        Placement::on(hops)
            .ask_again_after(self.review_interval)
            .because(PlacementReason::Nearest)
            .keep(stay)
    }

    fn open(&self, room: &NewRoom<'_>) -> Stay {
        let region = room.region();
        let named = room.labels.value(label::ZONE).zip(region);
        let zone = named.and_then(|(name, region)| room.catalog.zone(region, name));
        let (region, zone) = (region.map(|region| region.0), zone.map(|zone| zone.0));
        Stay { region, zone, node: None, since: Duration::ZERO, poor_since: None }
    }

    fn reroute(&self, rooms: &Rooms<'_, Stay>, nodes: &Nodes<'_>, out: &mut Moves<Stay>) {
        let mut survey = NodeSurvey::of(self, nodes);
        for room in rooms.iter() {
            let route = RouteReview { survey: &survey, room: &room, now: nodes.now() };
            let (stay, hops) = route.review();
            let mut out = out.of(&room);
            if let Some((hops, why)) = hops {
                let (from, to) = (room.standing().next(), hops.first().copied());
                // Later rooms of a batch take earlier moves into account: otherwise all would go to one node.
                survey.shift(from, to);
                out.to(hops, self.review_interval, why);
            }
            if stay != *room.state() {
                out.keep(&stay);
            }
        }
    }
}

impl Stay {
    fn wish(&self) -> PreferredLocation {
        PreferredLocation { region: self.region.map(RegionId), zone: self.zone.map(ZoneId) }
    }
}
