use super::super::*;

const OLD: Hop = Hop { node: NodeId(0), incarnation: Incarnation(1) };
const NEW: Hop = Hop { node: NodeId(1), incarnation: Incarnation(1) };

fn on(hop: Hop, leaving: Option<(Hop, Instant)>) -> RouteCell {
    let left = leaving.map(|(hop, until)| Box::new(LeftHop { hop, until, lead: Duration::ZERO }));
    let route = Route::new(1, RedundancyMode::Hot, [(hop, HopGrant::Admitted)]);
    RouteCell::holding(Route { left, ..route })
}

#[test]
fn hitless_hops_carry_until_one_dies() {
    let (now, limits, board) = (Instant::now(), MediaLimits::default(), Board::new(3));
    let hops = [(OLD, HopGrant::Admitted), (NEW, HopGrant::Admitted)];
    let cell = RouteCell::holding(Route::new(1, RedundancyMode::Hitless, hops));
    let back = |from| cell.forward_to_client(from, Some(111), &limits, &board, now);
    assert_eq!(cell.forward_to_node(&board), ForwardVerdict::Both([OLD, NEW]));
    assert_eq!(
        [back(OLD), back(NEW)],
        [ForwardVerdict::Both([OLD, NEW]), ForwardVerdict::Both([NEW, OLD])]
    );
    let stranger = Hop { node: NodeId(2), incarnation: Incarnation(1) };
    assert_eq!(back(stranger), ForwardVerdict::Drop(DropReason::StaleHop));
    board.mark_down(OLD.node, Instant::now());
    assert_eq!(cell.forward_to_node(&board), ForwardVerdict::Pass { hop: NEW, leaving: false });
    assert_eq!(back(NEW), ForwardVerdict::Pass { hop: NEW, leaving: false });
    assert_eq!(back(OLD), ForwardVerdict::Drop(DropReason::StaleHop));
}

#[test]
fn packet_of_left_hop_never_reaches_client() {
    let (limits, board, now) = (MediaLimits::default(), Board::new(2), Instant::now());
    let verdict = on(NEW, None).forward_to_client(OLD, Some(111), &limits, &board, now);
    assert_eq!(verdict, ForwardVerdict::Drop(DropReason::StaleHop));
}

#[test]
fn planned_move_lets_old_hop_finish() {
    let now = Instant::now();
    let route = on(NEW, Some((OLD, now + Duration::from_millis(500))));
    let board = Board::new(2);
    let limits = MediaLimits::default();
    let at = |ms| {
        let at = now + Duration::from_millis(ms);
        route.forward_to_client(OLD, Some(111), &limits, &board, at)
    };
    assert!(matches!(at(499), ForwardVerdict::Pass { leaving: true, .. }));
    assert_eq!(at(500), ForwardVerdict::Drop(DropReason::StaleHop));
    board.mark_down(OLD.node, Instant::now());
    assert_eq!(at(1), ForwardVerdict::Drop(DropReason::StaleHop));
}

#[test]
fn shed_packets_are_dropped_others_pass() {
    let limits = MediaLimits { withheld: 1 << 96, ..MediaLimits::default() };
    let (route, board) = (on(NEW, None), Board::new(2));
    let with = |payload| route.forward_to_client(NEW, payload, &limits, &board, Instant::now());
    assert_eq!(with(Some(96)), ForwardVerdict::Drop(DropReason::Shed));
    assert!(matches!(with(Some(111)), ForwardVerdict::Pass { .. }));
    assert!(matches!(with(None), ForwardVerdict::Pass { .. }));
}
