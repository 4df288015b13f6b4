//! Routing policy: a room goes to the least loaded near node, with spares in other zones.
//!
//! A complete example. Change its decisions, settings and tests.

use evenkeel_plugin_sdk::prelude::*;

/// Settings, validated against these bounds.
#[derive(Settings, Debug)]
pub struct LeastLoaded {
    /// Nodes with more delay are used only if no nearer one is left.
    #[setting(default = 50, unit = "ms", min = 1, max = 1000)]
    near: u32,
    /// Number of spare nodes of a room.
    #[setting(default = 2, min = 1, max = 3)]
    spares: u8,
}

/// Reasons, by name for people.
#[derive(Reason, Clone, Copy, PartialEq, Debug)]
pub enum Why {
    /// A new room went to the least loaded near node.
    LeastLoaded = 1,
    /// The room's node is Down, or is being drained.
    NodeLost = 2,
}

#[routing]
impl Routing for LeastLoaded {
    type Reason = Why;

    /// The gateway sends only these columns.
    const READS: &'static [Metric] =
        &[Metric::Delay, Metric::Load, Metric::Health, Metric::Draining];

    fn place(&self, _room: &NewRoom<'_>, nodes: &Nodes<'_>) -> Placement {
        // An empty route means no opinion: the gateway decides.
        Placement::on(self.route(nodes)).because(Why::LeastLoaded)
    }

    fn reroute(&self, rooms: &Rooms<'_>, nodes: &Nodes<'_>, out: &mut Moves) {
        for room in rooms.iter() {
            let first = room.standing().next().and_then(|node| nodes.node(node));
            if first.is_some_and(|node| is_usable(&node)) {
                continue;
            }
            let hops = self.route(nodes);
            if !hops.is_empty() {
                out.of(&room).to(hops, Duration::ZERO, Why::NodeLost);
            }
        }
    }
}

impl LeastLoaded {
    /// Returns the best node, then spares; spares in unused zones come first.
    fn route(&self, nodes: &Nodes<'_>) -> Vec<NodeId> {
        let mut left: Vec<Node<'_>> = nodes.iter().filter(is_usable).collect();
        left.sort_by_key(|node| {
            (self.is_far(node), node.load_permille().unwrap_or(0), node.id().0)
        });
        let mut route: Vec<Node<'_>> = Vec::new();
        while route.len() <= self.spares.into() && !left.is_empty() {
            let apart = |node: &Node<'_>| route.iter().all(|hop| hop.zone() != node.zone());
            let next = left.iter().position(apart).unwrap_or(0);
            route.push(left.remove(next));
        }
        route.iter().map(Node::id).collect()
    }

    /// A node with unmeasured delay counts as far.
    fn is_far(&self, node: &Node<'_>) -> bool {
        node.delay_us().is_none_or(|delay| delay > self.near * 1000)
    }
}

fn is_usable(node: &Node<'_>) -> bool {
    node.health() != Some(Health::Down) && node.draining() != Some(true)
}

#[cfg(test)]
mod tests {
    use evenkeel_plugin_sdk::trial::{Room, Trial, World};

    use super::*;

    /// Three nodes in two zones: `a` and `b` are near, `c` is far and idle.
    fn trial() -> Trial<LeastLoaded> {
        let world = World::around("east")
            .node("a", "east", "one", &[(Metric::Delay, 4_000), (Metric::Load, 300)])
            .node("b", "east", "one", &[(Metric::Delay, 50_000), (Metric::Load, 200)])
            .node("c", "east", "two", &[(Metric::Delay, 50_001), (Metric::Load, 0)]);
        Trial::of(LeastLoaded::default(), world)
    }

    fn room(standing: &[&str]) -> [Room<()>; 1] {
        let standing = standing.iter().map(|name| (*name).to_owned()).collect();
        [Room { room: 7, measured: vec![], standing, state: () }]
    }

    #[test]
    fn room_goes_to_least_loaded_near_node() {
        let placed = trial().place(7, &[]);
        assert_eq!(placed.hops, ["b", "c", "a"]);
        assert_eq!(placed.reason, Why::LeastLoaded as u32);
    }

    #[test]
    fn near_includes_the_setting() {
        let mut trial = trial();
        trial.world.measure("b", Metric::Delay, 50_001);
        assert_eq!(trial.place(7, &[]).hops[0], "a");
        trial.world.measure("a", Metric::Health, Health::Down as u32);
        assert_eq!(trial.place(7, &[]).hops[0], "c", "the less loaded of two far nodes");
    }

    #[test]
    fn room_moves_only_if_its_node_is_lost() {
        let mut trial = trial();
        let mut rooms = room(&["a", "c"]);
        assert_eq!(trial.reroute(&mut rooms), []);
        trial.world.measure("a", Metric::Draining, 1);
        assert_eq!(trial.reroute(&mut rooms), [(0, Why::NodeLost as u32)]);
        assert_eq!(rooms[0].standing, ["b", "c"]);
    }

    #[test]
    fn no_usable_node_means_abstention() {
        let mut trial = trial();
        for node in ["a", "b", "c"] {
            trial.world.measure(node, Metric::Health, Health::Down as u32);
        }
        assert!(trial.place(7, &[]).hops.is_empty());
        assert_eq!(trial.reroute(&mut room(&["a"])), []);
    }

    #[test]
    fn settings_outside_their_bounds_are_refused() {
        assert!(LeastLoaded::parse(r#"{"spares": 3}"#).is_ok());
        assert!(LeastLoaded::parse(r#"{"spares": 4}"#).is_err());
    }
}
