//! A routing policy with the fault that its settings name. Without one it spreads rooms by their numbers, with a standby in
//! another zone, and moves a room only off a node that is down or draining.

use std::sync::atomic::{AtomicU32, Ordering};

use evenkeel_plugin_sdk::prelude::*;

/// Answers about rooms that this instance gave: state that a policy must not have.
static ANSWERED: AtomicU32 = AtomicU32::new(0);

/// A number that no node has.
const NOWHERE: NodeId = NodeId(4_000_000);

#[derive(Settings, Debug)]
pub struct Misroute {
    /// The fault.
    #[setting(default = "none")]
    fault: RoutingFault,
    /// The answers that have the fault.
    #[setting(default = "all")]
    answers: FaultyAnswers,
    /// Number of answers about rooms before the first fault.
    #[setting(default = 0, min = 0, max = 1000000)]
    after: u32,
    /// The fault occurs with one of this many rooms.
    #[setting(default = 1, min = 1, max = 1000000)]
    every: u32,
    /// Interval between reviews of a room; "0s": only when nodes change.
    #[setting(default = "0s", max = "1h")]
    review_interval: Duration,
}

/// A fault of a routing policy.
#[derive(Settings, Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoutingFault {
    None,
    /// All rooms go to one node.
    OneNode,
    NoStandby,
    /// The standby is the room's own node.
    SameStandby,
    UnknownNode,
    UnknownStandby,
    /// The room moves with each second.
    Flap,
    Trap,
    Loop,
}

/// The answers that have the fault.
#[derive(Settings, Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultyAnswers {
    All,
    /// Placements of new rooms.
    Placements,
    /// Moves of placed rooms.
    Moves,
}

#[routing]
impl Routing for Misroute {
    const READS: &'static [Metric] = &[Metric::Health, Metric::Draining];

    fn place(&self, room: &NewRoom<'_>, nodes: &Nodes<'_>) -> Placement {
        let hops = route(room.room.0, nodes);
        let has_fault = self.answers != FaultyAnswers::Moves;
        let hops = self.spoil(room.room, hops, nodes, has_fault);
        Placement::on(hops).ask_again_after(self.review_interval)
    }

    fn reroute(&self, rooms: &Rooms<'_>, nodes: &Nodes<'_>, out: &mut Moves) {
        let has_fault = self.answers != FaultyAnswers::Placements;
        for room in rooms.iter() {
            let standing: Vec<NodeId> = room.standing().collect();
            let works = |node: &NodeId| nodes.node(*node).is_some_and(|node| is_usable(&node));
            let hops = match standing.first().is_some_and(works) {
                true => standing.clone(),
                false => route(room.id().0, nodes),
            };
            let hops = self.spoil(room.id(), hops, nodes, has_fault);
            if hops != standing && !hops.is_empty() {
                out.of(&room).to(hops, self.review_interval, ());
            }
        }
    }
}

impl Misroute {
    /// The route with the fault, if this answer has it.
    fn spoil(
        &self,
        room: RoomId,
        hops: Vec<NodeId>,
        nodes: &Nodes<'_>,
        has_fault: bool,
    ) -> Vec<NodeId> {
        if !has_fault {
            return hops;
        }
        let answered = ANSWERED.fetch_add(1, Ordering::Relaxed);
        let is_due = answered >= self.after && (answered - self.after).is_multiple_of(self.every);
        let first = hops.first().copied().filter(|_| is_due);
        match (self.fault, first) {
            (RoutingFault::None, _) | (_, None) => hops,
            (RoutingFault::OneNode, Some(_)) => route(0, nodes),
            (RoutingFault::NoStandby, Some(first)) => vec![first],
            (RoutingFault::SameStandby, Some(first)) => vec![first, first],
            (RoutingFault::UnknownNode, Some(first)) => vec![NOWHERE, first],
            (RoutingFault::UnknownStandby, Some(first)) => vec![first, NOWHERE],
            (RoutingFault::Flap, Some(_)) => route(room.0 + nodes.now().as_secs(), nodes),
            (RoutingFault::Trap, Some(_)) => panic!("asked to"),
            (RoutingFault::Loop, Some(_)) => loop {
                std::hint::spin_loop();
            },
        }
    }
}

/// The usable node with this number, counted cyclically, and the next one in another zone.
fn route(number: u64, nodes: &Nodes<'_>) -> Vec<NodeId> {
    let usable: Vec<Node<'_>> = nodes.iter().filter(is_usable).collect();
    let Some(at) = number.checked_rem(usable.len() as u64) else { return Vec::new() };
    let at = at as usize;
    let first = usable[at];
    let others = usable[at + 1..].iter().chain(&usable[..at]);
    let standby = others.clone().find(|node| node.zone() != first.zone());
    let standby = standby.or_else(|| others.clone().next());
    std::iter::once(first.id()).chain(standby.map(Node::id)).collect()
}

fn is_usable(node: &Node<'_>) -> bool {
    node.health() != Some(Health::Down) && node.draining() != Some(true)
}
