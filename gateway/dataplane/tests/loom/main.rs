//! The lease and the ring under every order of their threads' steps and every value that a load may return, as far as
//! `LOOM_MAX_PREEMPTIONS` allows. `make loom` runs these tests.
#![cfg(loom)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_dataplane::SendLease;
use evenkeel_dataplane::flows::Home;
use evenkeel_dataplane::ring::{self, Receiver, RingItem, RingMeta};
use evenkeel_model::{Board, Incarnation, NodeId};
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

const NODE: NodeId = NodeId(0);

/// A standby marks a node down and then renews the lease: a worker that may send sees the node down.
#[test]
fn renewed_lease_shows_earlier_decisions() {
    loom::model(|| {
        let (lease, board) = (Arc::new(SendLease::forever()), Arc::new(Board::new(1)));
        lease.end();
        let now = Instant::now();
        let worker = thread::spawn({
            let (lease, board) = (Arc::clone(&lease), Arc::clone(&board));
            move || assert!(!lease.is_held(|| now) || !board.is_up(NODE, Incarnation(1)))
        });
        board.mark_down(NODE, now);
        lease.renew(now + Duration::from_secs(1));
        worker.join().unwrap();
    });
}

/// The lease ends after a renewal, and the end is acknowledged: a worker that knows of it never sends again.
#[test]
fn ended_lease_is_not_held_after_acknowledgement() {
    loom::model(|| {
        let (lease, acknowledged) =
            (Arc::new(SendLease::forever()), Arc::new(AtomicBool::new(false)));
        let now = Instant::now();
        let worker = thread::spawn({
            let (lease, acknowledged) = (Arc::clone(&lease), Arc::clone(&acknowledged));
            move || {
                // The order of these three is that of a worker that handles commands between two passes.
                lease.is_held(|| now);
                let ended = acknowledged.load(Ordering::Acquire);
                assert!(!ended || !lease.is_held(|| now) && !lease.is_held(Instant::now));
            }
        });
        lease.renew(now + Duration::from_secs(3_600));
        lease.end();
        acknowledged.store(true, Ordering::Release);
        worker.join().unwrap();
    });
}

fn meta(flow: u64) -> RingMeta {
    RingMeta { home: Home { worker: 0, slot: 0, generation: 1 }, kind: RingItem::Rtp, flow }
}

/// Pops up to two packets, and checks that each is the next one with its own bytes.
fn pop(receiver: &mut Receiver, next: &mut u64) -> usize {
    receiver.pop_batch(2, |meta, bytes| {
        assert_eq!((meta.flow, bytes), (*next, &vec![*next as u8; *next as usize][..]));
        *next += 1;
    })
}

/// The receiver gets each packet once and in order, and never waits for ever.
#[test]
fn ring_loses_neither_packet_nor_wake_up() {
    const PACKETS: u64 = 3;
    loom::model(|| {
        let (mut sender, mut receiver) = ring::channel(0).unwrap();
        let receiving = thread::spawn(move || {
            let mut next = 1;
            while next <= PACKETS {
                if pop(&mut receiver, &mut next) < 2 && next <= PACKETS {
                    receiver.wait();
                }
            }
            assert_eq!(pop(&mut receiver, &mut next), 0);
        });
        for number in 1..=PACKETS {
            sender.push(meta(number), &vec![number as u8; number as usize]).unwrap();
            sender.wake();
        }
        receiving.join().unwrap();
    });
}

/// A ring that its receiver sees paused holds all that was pushed.
#[test]
fn paused_ring_holds_all_packets() {
    loom::model(|| {
        let (mut sender, mut receiver) = ring::channel(0).unwrap();
        let receiving = thread::spawn(move || {
            let mut next = 1;
            if receiver.is_paused() {
                assert_eq!(pop(&mut receiver, &mut next), 1);
            }
        });
        sender.push(meta(1), &[1]).unwrap();
        sender.pause(true);
        receiving.join().unwrap();
        // Else the receiver would see an abandoned ring instead.
        drop(sender);
    });
}
