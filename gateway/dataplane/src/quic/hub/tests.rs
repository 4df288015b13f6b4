//! What workers are told, and which connections serve nobody.

use super::*;
use crate::flows::Entry;

const LINE: ConnectionHandle = ConnectionHandle(3);

fn home(slot: u32) -> Home {
    Home { worker: 0, slot, generation: 1 }
}

fn path(lost: u64, sent: u64) -> Path {
    Path { rtt: Duration::from_millis(5), lost, sent }
}

/// A hub with these sessions on one connection, and the ring to their worker.
fn hub(sessions: u32, now: Instant) -> (Hub, ring::Receiver) {
    let flows = Arc::new(Flows::new(10));
    let (to_worker, ring) = ring::channel(5).unwrap();
    let mut hub = Hub::new(Arc::clone(&flows), Arc::default(), vec![to_worker]);
    hub.join(LINE, now);
    for slot in 0..sessions {
        flows.insert(Key::Roq(slot.into()), Entry::of(home(slot))).unwrap();
        hub.attach(LINE, home(slot), slot.into(), now);
    }
    (hub, ring)
}

/// Losses and packets that the worker was told of, by session.
fn told(ring: &mut ring::Receiver) -> Vec<(u32, u32, u32)> {
    let mut told = Vec::new();
    ring.pop_batch(10, |meta, _| {
        if let Kind::Feedback { rtt_us, lost, sent } = meta.kind {
            assert_eq!((rtt_us, meta.flow), (5_000, meta.home.slot.into()));
            told.push((meta.home.slot, lost, sent));
        }
    });
    told
}

#[test]
fn what_a_full_ring_did_not_take_of_a_path_is_told_later() {
    let now = Instant::now();
    let (mut hub, mut ring) = hub(2, now);
    // Beside the two that say which sessions came, there is room for three.
    hub.look_after(home(0), now, |_| Some(path(0, 4)));
    hub.look_after(home(0), now, |_| Some(path(1, 14)));
    hub.look_after(home(0), now, |_| Some(path(2, 19)));
    hub.look_after(home(0), now, |_| Some(path(4, 30)));
    hub.look_after(home(1), now, |_| Some(path(4, 30)));
    assert_eq!(told(&mut ring), [(0, 0, 4), (0, 1, 10), (0, 1, 5)]);
    hub.look_after(home(0), now, |_| Some(path(4, 40)));
    hub.look_after(home(1), now, |_| Some(path(4, 40)));
    assert_eq!(told(&mut ring), [(0, 2, 21), (1, 4, 40)]);
}

#[test]
fn a_session_that_comes_to_an_old_connection_is_not_told_of_its_past() {
    let now = Instant::now();
    let (mut hub, mut ring) = hub(1, now);
    hub.look_after(home(0), now, |_| Some(path(100, 1_000)));
    hub.flows.insert(Key::Roq(7), Entry::of(home(7))).unwrap();
    hub.attach(LINE, home(7), 7, now);
    hub.look_after(home(7), now, |_| Some(path(101, 1_003)));
    assert_eq!(told(&mut ring), [(0, 100, 1_000), (7, 1, 3)]);
}

#[test]
fn a_connection_is_flowless_so_long_after_its_last_session() {
    let (start, after) = (Instant::now(), Duration::from_secs(5));
    let (mut hub, _ring) = hub(1, start);
    let ended = start + after * 10;
    assert_eq!(hub.flowless(after, ended), []);
    hub.flows.remove(&Key::Roq(0), home(0));
    hub.look_after(home(0), ended, |_| None);
    assert_eq!(hub.line(home(0)), None);
    assert_eq!(hub.flowless(after, ended + after - Duration::from_nanos(1)), []);
    assert_eq!(hub.flowless(after, ended + after), [LINE]);
}
