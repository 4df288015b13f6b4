use super::super::*;

const A: NodeId = NodeId(0);
const B: NodeId = NodeId(1);

#[test]
fn a_cell_survives_packing() {
    for up in [true, false] {
        let cell = Cell { incarnation: Incarnation(u32::MAX), up };
        assert_eq!(Cell::unpack(cell.pack()), cell);
    }
}

#[test]
fn a_down_incarnation_never_returns() {
    let board = Board::new(2);
    board.mark_down(A, Instant::now());
    assert!(!board.is_up(A, Incarnation(1)));
    assert!(board.is_up(B, Incarnation(1)));
    assert_eq!(board.reincarnate(A), Some(Incarnation(2)));
    assert!(!board.is_up(A, Incarnation(1)));
    assert!(board.is_up(A, Incarnation(2)));
}

#[test]
fn death_time_is_kept_until_node_returns() {
    let (board, now) = (Board::new(2), Instant::now());
    let hop = |node, incarnation| Hop { node, incarnation: Incarnation(incarnation) };
    assert_eq!(board.died(hop(A, 1)), None, "it lives");
    let later = now + Duration::from_secs(7);
    board.mark_down(B, later);
    board.mark_down(A, now);
    assert_eq!([A, B].map(|node| board.died(hop(node, 1))), [Some(now), Some(later)]);
    board.reincarnate(A);
    assert_eq!([1, 2].map(|incarnation| board.died(hop(A, incarnation))), [None; 2]);
}

#[test]
fn unknown_node_number_is_not_up() {
    assert!(!Board::new(1).is_up(B, Incarnation(1)));
}
