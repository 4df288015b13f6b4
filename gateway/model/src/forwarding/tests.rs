mod board;
mod verdict;

use super::*;

fn hop(node: u32) -> Hop {
    Hop { node: NodeId(node), incarnation: Incarnation(1) }
}

fn route() -> Route {
    let hops =
        vec![(hop(0), HopGrant::Admitted), (hop(1), HopGrant::Reserved), (hop(2), HopGrant::Gated)];
    Route::new(7, RedundancyMode::Hot, hops)
}

fn usable(route: &Route, board: &Board) -> Option<u32> {
    route.first_usable(board).map(|(hop, _)| hop.node.0)
}

#[test]
fn packets_use_reserved_hop_after_death() {
    let board = Board::new(3);
    assert_eq!(usable(&route(), &board), Some(0));
    board.mark_down(NodeId(0), Instant::now());
    let (hop, epoch) = route().first_usable(&board).unwrap();
    assert_eq!(hop.node, NodeId(1));
    assert_eq!(epoch, Epoch { version: 7, index: 1 });
}

#[test]
fn first_usable_hop_carries() {
    let (board, cell) = (Board::new(3), RouteCell::default());
    let first = || cell.first_if_usable(&board).map(|hop| hop.node.0);
    assert_eq!(first(), None, "nowhere yet");
    cell.publish(route());
    assert_eq!(first(), usable(&route(), &board));
    board.mark_down(NodeId(0), Instant::now());
    assert_eq!(first(), None);
    board.reincarnate(NodeId(0));
    assert_eq!(first(), None, "another incarnation");
    let gated = vec![(hop(1), HopGrant::Gated), (hop(2), HopGrant::Admitted)];
    cell.publish(Route { hops: gated.into(), ..route() });
    assert_eq!(first(), None);
}

#[test]
fn two_admitted_hops_carry_until_death() {
    let (board, cell) = (Board::new(3), RouteCell::default());
    let hops =
        vec![(hop(0), HopGrant::Admitted), (hop(1), HopGrant::Admitted), (hop(2), HopGrant::Gated)];
    let both = Route { mode: RedundancyMode::Hitless, hops: hops.into(), ..route() };
    cell.publish(both.clone());
    assert_eq!(cell.first_if_usable(&board), None, "there are two");
    assert_eq!(both.twin_of(hop(0), &board), Some(hop(1)));
    assert_eq!(both.twin_of(hop(1), &board), Some(hop(0)));
    assert_eq!(route().twin_of(hop(0), &board), None, "one, outside hitless");
    board.mark_down(NodeId(0), Instant::now());
    assert_eq!(usable(&both, &board), Some(1));
    assert_eq!(both.twin_of(hop(1), &board), None);
}

#[test]
fn second_hop_role_follows_mode() {
    use HopGrant::{Admitted, Gated, Reserved};
    let kept = |mode, second: Option<HopGrant>| {
        let grants = [Admitted].into_iter().chain(second);
        let hops = (0..).map(hop).zip(grants).collect();
        Route { mode, hops, ..route() }.effective_mode()
    };
    let of = |mode| [Some(Admitted), Some(Reserved), Some(Gated), None].map(|to| kept(mode, to));
    let [hitless, hot, cold] = [RedundancyMode::Hitless, RedundancyMode::Hot, RedundancyMode::Cold];
    assert_eq!(of(hitless), [hitless, hot, cold, cold]);
    assert_eq!(of(hot)[1..], [hot, cold, cold]);
    assert_eq!(of(RedundancyMode::ActiveActive)[1..], [RedundancyMode::ActiveActive, cold, cold]);
    assert_eq!(of(RedundancyMode::Regional)[2..], [RedundancyMode::Regional; 2]);
}

#[test]
fn gated_hop_is_never_used() {
    let board = Board::new(3);
    board.mark_down(NodeId(0), Instant::now());
    board.mark_down(NodeId(1), Instant::now());
    assert_eq!(usable(&route(), &board), None);
}

#[test]
fn returned_node_is_not_on_route() {
    let board = Board::new(3);
    board.mark_down(NodeId(0), Instant::now());
    board.reincarnate(NodeId(0));
    assert_eq!(usable(&route(), &board), Some(1));
}

#[test]
fn epoch_grows_with_route_and_version() {
    let early = Epoch { version: 7, index: 1 };
    assert!(early > Epoch { version: 7, index: 0 });
    assert!(early < Epoch { version: 8, index: 0 });
}
