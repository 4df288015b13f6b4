//! Routing: which node carries a room, and which stand by? Here the emptiest in the people's region, and a spare in
//! another zone. A room stays where it is while its node lives.

use evenkeel_plugin_sdk::prelude::*;

/// What an operator can set.
#[derive(Settings)]
pub struct Emptiest {
    /// From this load on a node is left alone.
    #[setting(default = 900, unit = "permille", min = 1, max = 1000)]
    full: u32,
}

/// Why a room is where it is.
#[derive(Reason)]
pub enum Why {
    /// The emptiest node took it.
    Emptiest = 1,
}

#[routing]
impl Routing for Emptiest {
    type Reason = Why;
    const READS: &'static [Metric] = &[Metric::Load, Metric::Health, Metric::Draining];

    fn place(&self, room: &NewRoom<'_>, nodes: &Nodes<'_>) -> Placement {
        let takes = |node: &Node<'_>| {
            let sound = node.health() == Some(Health::Up) && node.draining() != Some(true);
            sound && node.load_permille().is_some_and(|load| load < self.full)
        };
        let mut usable: Vec<_> = nodes.iter().filter(takes).collect();
        // Those of its own region come first; of them, the emptiest.
        usable.sort_by_key(|node| (node.region() != room.region(), node.load_permille()));
        let Some(first) = usable.first() else {
            // No opinion: the gateway's own routing decides.
            return Placement::abstain();
        };
        let spare = usable.iter().find(|node| node.zone() != first.zone());
        Placement::on([first.id()].into_iter().chain(spare.map(Node::id))).because(Why::Emptiest)
    }

    // Packets fail over by themselves, down the list that `place` gave; whoever wants to move rooms does it here.
    fn reroute(&self, _: &Rooms<'_>, _: &Nodes<'_>, _: &mut Moves) {}
}

#[cfg(test)]
mod tests {
    use evenkeel_plugin_sdk::trial::{Trial, World};

    use super::*;

    fn trial() -> Trial<Emptiest> {
        let up = |load| [(Metric::Load, load), (Metric::Health, 0), (Metric::Draining, 0)];
        let world = World::around("east")
            .node("east-a1", "east", "a", &up(200))
            .node("east-b1", "east", "b", &up(500))
            .node("west-a1", "west", "a", &up(0));
        Trial::of(Emptiest::default(), world)
    }

    #[test]
    fn a_room_goes_to_the_emptiest_node_near_it_and_its_spare_to_another_zone() {
        assert_eq!(trial().place(1, &[]).hops, ["east-a1", "east-b1"]);
        assert_eq!(trial().place(1, &[("region", "west")]).hops, ["west-a1", "east-a1"]);
    }

    #[test]
    fn a_node_that_is_full_or_not_sound_gets_nothing() {
        for (metric, value) in [(Metric::Load, 900), (Metric::Health, 1), (Metric::Draining, 1)] {
            let mut trial = trial();
            trial.world.measure("east-a1", metric, value);
            assert_eq!(trial.place(1, &[]).hops, ["east-b1", "west-a1"], "{metric:?}");
        }
    }
}
