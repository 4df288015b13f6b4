//! The board and the routes under every order of their threads' steps and every value that a load may return, as far as
//! `LOOM_MAX_PREEMPTIONS` allows. `make loom` runs these tests. One thread writes, as the core does.
#![cfg(loom)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_model::{
    Board, ForwardVerdict, Hop, HopGrant, Incarnation, MediaLimits, NodeId, RedundancyMode, Route,
    RouteCell,
};
use loom::thread;

const A: Hop = Hop { node: NodeId(0), incarnation: Incarnation(1) };
const B: Hop = Hop { node: NodeId(1), incarnation: Incarnation(1) };
const C: Hop = Hop { node: NodeId(2), incarnation: Incarnation(1) };
const D: Hop = Hop { node: NodeId(3), incarnation: Incarnation(1) };

fn route(version: u64, hops: &[(Hop, HopGrant)]) -> Route {
    Route::new(version, RedundancyMode::Hot, hops)
}

/// Runs the reader beside the writer. The reader is the spawned thread: loom then tries all values for its loads, whereas
/// it does not see that a load and a store of a writer that runs later depend on earlier loads of another thread.
fn beside(writer: impl FnOnce(), reader: impl FnOnce() + 'static) {
    let reader = thread::spawn(reader);
    writer();
    reader.join().unwrap();
}

/// A room moves from A to B: a client that heard B never hears A again.
#[test]
fn left_hop_is_never_heard_again() {
    loom::model(|| {
        let board = Arc::new(Board::new(2));
        let cell = Arc::new(RouteCell::holding(route(1, &[(A, HopGrant::Admitted)])));
        let written = Arc::clone(&cell);
        let (limits, now) = (MediaLimits::default(), Instant::now());
        let passes = move |from| {
            let verdict = cell.forward_to_client(from, None, &limits, &board, now);
            matches!(verdict, ForwardVerdict::Pass { .. })
        };
        beside(
            || written.publish(route(2, &[(B, HopGrant::Admitted)])),
            move || assert!(!passes(B) || !passes(A), "A after B"),
        );
    });
}

/// A room moves from A to B and then to C and D, which both carry it until C dies: a later packet never takes an earlier
/// hop.
#[test]
fn epoch_of_packets_never_decreases() {
    loom::model(|| {
        let board = Arc::new(Board::new(4));
        let cell = Arc::new(RouteCell::holding(route(1, &[(A, HopGrant::Admitted)])));
        let (written, marked) = (Arc::clone(&cell), Arc::clone(&board));
        let writer = || {
            written.publish(route(2, &[(B, HopGrant::Admitted)]));
            written.publish(route(3, &[(C, HopGrant::Admitted), (D, HopGrant::Admitted)]));
            marked.mark_down(C.node, Instant::now());
        };
        let epoch = move || match cell.forward_to_node(&board) {
            ForwardVerdict::Pass { hop, .. } | ForwardVerdict::Both([hop, _]) => hop,
            ForwardVerdict::Drop(reason) => panic!("{reason:?}"),
        };
        beside(writer, move || {
            let epochs = [epoch(), epoch(), epoch()];
            assert!(epochs.is_sorted(), "{epochs:?}");
        });
    });
}

/// A node dies, returns and dies again: the board shows its incarnations in order, each up before it is down, and the
/// death of one never as the death of the other.
#[test]
fn incarnation_is_up_then_down_with_its_death() {
    loom::model(|| {
        let board = Arc::new(Board::new(1));
        let marked = Arc::clone(&board);
        let first = Instant::now();
        let second = first + Duration::from_secs(1);
        let writer = || {
            marked.mark_down(A.node, first);
            marked.reincarnate(A.node);
            marked.mark_down(A.node, second);
        };
        beside(writer, move || {
            let cells = [(); 2].map(|()| board.cell(A.node).unwrap());
            let places = cells.map(|cell| (cell.incarnation, !cell.up));
            assert!(places.is_sorted(), "{cells:?}");
            let died = board.died(A);
            assert!(died.is_none_or(|died| died == first), "{:?}", died.map(|died| died - first));
        });
    });
}
