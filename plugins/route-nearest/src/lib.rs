//! Routing policy: the nearest node that has room, with spares where one failure cannot reach.
//!
//! Every node has a cost in milliseconds: its delay, and what its loss, its load and its distance are worth in delay. A
//! room goes to the cheapest node; among nodes that are as near, its number chooses, each node as often as it has
//! capacity free, so that rooms spread and no herd follows a stale figure. Its spares stand in other zones, then in other
//! regions. A standing room moves for quality only where that is clearly better and it has stayed for a while; sooner where
//! its people can no longer talk (delay, or the E-model's R); off a draining node it moves at once, and a lost spare is
//! replaced at once.

mod choice;
mod cost;
mod lot;
mod route;
mod talk;
#[cfg(test)]
mod tests;

use evenkeel_plugin_sdk::prelude::*;
use evenkeel_plugin_sdk::unpack;

use crate::cost::{Survey, Wish};
use crate::route::Route;

/// A difference in cost below this is noise, however large a part of the cost it is. Milliseconds.
const NOISE: f64 = 2.0;

/// What an operator can set.
#[derive(Settings, Debug)]
pub struct RouteNearest {
    /// Cost of one millisecond of one-way delay to the node.
    #[setting(default = 1.0, min = 0, max = 1000)]
    delay_weight: f64,
    /// Cost of one per cent of probes lost, in milliseconds.
    #[setting(default = 8.0, unit = "ms", min = 0, max = 1000)]
    loss_weight: f64,
    /// Cost of a fully loaded node, in milliseconds; it grows with the square of the load, so that half the load costs a
    /// quarter.
    #[setting(default = 20.0, unit = "ms", min = 0, max = 1000)]
    load_weight: f64,
    /// Cost of a node in another zone than the room's `zone` label names, in milliseconds.
    #[setting(default = 2.0, unit = "ms", min = 0, max = 1000)]
    zone_cost: f64,
    /// Cost of a node in another region than the room's `region` label (else the gateway) is in, in milliseconds, on top
    /// of its delay.
    #[setting(default = 40.0, unit = "ms", min = 0, max = 1000)]
    region_cost: f64,
    /// Cost of a node that came back a short while ago, in milliseconds.
    #[setting(default = 10.0, unit = "ms", min = 0, max = 1000)]
    wary_cost: f64,
    /// From this part of its capacity on a node gets new rooms only where every other node is full too.
    #[setting(default = 0.95, min = 0.1, max = 1)]
    full_at: f64,
    /// Nodes whose costs, or whose costs but for their load, differ by no more than this are alike, in milliseconds: rooms
    /// spread over them by what each has free.
    #[setting(default = 1.0, unit = "ms", min = 0, max = 1000)]
    alike_within: f64,
    /// A room moves for quality only to a node that costs less than its own by this part.
    #[setting(default = 0.2, min = 0, max = 1)]
    stay_unless_better_by: f64,
    /// A room moves for quality only after so long on its node.
    #[setting(default = "30s", max = "1h")]
    min_stay: Duration,
    /// From this one-way delay on, from one to the other by way of the node, people cannot talk well (ITU-T G.114: 150 ms):
    /// their room moves sooner where a node would mend that. "0s": delay alone is never a reason.
    #[setting(default = "0s", max = "5s")]
    delay_most: Duration,
    /// Below this R-factor (ITU-T G.107; 70 is fair) of the way by the node the same holds. 0: never.
    #[setting(default = 0, min = 0, max = 93)]
    r_least: f64,
    /// How long it must have been so, and how long a room must have stayed, before it moves for that.
    #[setting(default = "5s", max = "1h")]
    poor_for: Duration,
    /// A room is looked at again after so long; "0s": only when nodes change.
    #[setting(default = "10s", max = "1h")]
    review_every: Duration,
    /// Nodes that stand by for a room.
    #[setting(default = 2, min = 1, max = 3)]
    spares: u8,
}

/// What is remembered of a room.
#[derive(State, Clone, PartialEq, Debug)]
#[state(schema = 2, migrate = from_older)]
pub struct Stay {
    /// Where it would best be.
    region: Option<u64>,
    /// The zone it named.
    zone: Option<u64>,
    /// The node that carried it when it was last looked at; none where another policy placed it.
    node: Option<u32>,
    /// Gateway time when that node began to.
    since: Duration,
    /// Since when its people cannot talk well.
    poor_since: Option<Duration>,
}

/// As it was before rooms moved sooner for people who cannot talk.
#[derive(Pack)]
struct First {
    region: Option<u64>,
    zone: Option<u64>,
    node: Option<u32>,
    since: Duration,
}

fn from_older(schema: u32, bytes: &[u8]) -> Option<Stay> {
    if schema != 1 {
        return None;
    }
    let First { region, zone, node, since } = unpack(bytes)?;
    Some(Stay { region, zone, node, since, poor_since: None })
}

/// Why a room is where it is.
#[derive(Reason, Clone, Copy, PartialEq, Debug)]
pub enum Why {
    /// A new room went to the cheapest node.
    Nearest = 1,
    /// Its node stays; its spares are others.
    SpareRestored = 2,
    /// No node of its route was left.
    RouteLost = 3,
    /// Its node is being drained.
    NodeDraining = 4,
    /// Another node is clearly better.
    Better = 5,
    /// Its people could not talk well by way of its node, and can by another.
    CannotTalk = 6,
}

#[routing]
impl Routing for RouteNearest {
    type State = Stay;
    type Reason = Why;

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
    ];

    fn place(&self, room: &NewRoom<'_>, nodes: &Nodes<'_>) -> Placement<Stay> {
        let survey = Survey::of(self, nodes);
        let mut stay = self.open(room);
        let choice = survey.choice(&stay.wish(), room.room);
        let Some(first) = choice.best() else {
            return Placement::abstain();
        };
        note(0, "cost_us", (survey.cost(first, &stay.wish()) * 1000.0) as i64);
        stay.node = Some(first.id().0);
        stay.since = nodes.now();
        let hops = choice.route(first, &[]);
        Placement::on(hops).ask_again_after(self.review_every).because(Why::Nearest).keep(stay)
    }

    fn open(&self, room: &NewRoom<'_>) -> Stay {
        let region = room.region();
        let named = room.labels.value(label::ZONE).zip(region);
        let zone = named.and_then(|(name, region)| room.catalog.zone(region, name));
        let (region, zone) = (region.map(|region| region.0), zone.map(|zone| zone.0));
        Stay { region, zone, node: None, since: Duration::ZERO, poor_since: None }
    }

    fn reroute(&self, rooms: &Rooms<'_, Stay>, nodes: &Nodes<'_>, out: &mut Moves<Stay>) {
        let mut survey = Survey::of(self, nodes);
        for room in rooms.iter() {
            let route = Route { survey: &survey, room: &room, now: nodes.now() };
            let (stay, hops) = route.review();
            let mut out = out.of(&room);
            if let Some((hops, why)) = hops {
                let (from, to) = (room.standing().next(), hops.first().copied());
                // Rooms of one look see what those before them moved: else all would go to the same node.
                survey.shift(from, to);
                out.to(hops, self.review_every, why);
            }
            if stay != *room.state() {
                out.keep(&stay);
            }
        }
    }
}

impl Stay {
    fn wish(&self) -> Wish {
        Wish { region: self.region.map(RegionId), zone: self.zone.map(ZoneId) }
    }
}
