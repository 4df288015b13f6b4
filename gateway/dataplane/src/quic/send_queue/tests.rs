use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;

const BYTES_MAX: usize = 1_000;

struct Bench {
    queue: SendQueue,
    counters: Counters,
    start: Instant,
}

impl Bench {
    fn new() -> Bench {
        let (queue, counters) = (SendQueue::default(), Counters::default());
        Bench { queue, counters, start: Instant::now() }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn push(&mut self, name: &'static [u8], priority: PacketPriority, until_ms: u64) {
        let until = self.at(until_ms);
        let datagram = Bytes::from_static(name);
        self.queue.push(datagram, priority, until, BYTES_MAX, &self.counters);
    }

    /// Takes all packets.
    fn take(&mut self, ms: u64) -> Vec<Bytes> {
        let now = self.at(ms);
        std::iter::from_fn(|| self.queue.pop(now, &self.counters)).collect()
    }

    fn dropped(&self) -> (u64, u64) {
        let Counters { datagrams_late, datagrams_full, .. } = &self.counters;
        (datagrams_late.load(Ordering::Relaxed), datagrams_full.load(Ordering::Relaxed))
    }
}

#[test]
fn packets_leave_by_priority_and_in_order() {
    let mut bench = Bench::new();
    bench.push(b"again", PacketPriority::VideoRepair, 500);
    bench.push(b"video 1", PacketPriority::Video, 500);
    bench.push(b"voice 1", PacketPriority::Voice, 60);
    bench.push(b"video 2", PacketPriority::Video, 500);
    bench.push(b"voice 2", PacketPriority::Voice, 80);
    assert!(!bench.queue.is_empty());
    assert_eq!(
        bench.take(59),
        [&b"voice 1"[..], b"voice 2", b"video 1", b"video 2", b"again"],
        "in time"
    );
    assert!(bench.queue.is_empty());
    assert_eq!(bench.dropped(), (0, 0));
}

#[test]
fn late_packet_is_dropped_and_counted() {
    let mut bench = Bench::new();
    bench.push(b"voice 1", PacketPriority::Voice, 60);
    bench.push(b"voice 2", PacketPriority::Voice, 80);
    bench.push(b"video 1", PacketPriority::Video, 500);
    assert_eq!(bench.queue.due(), Some(bench.at(60)));
    assert_eq!(bench.take(60), [&b"voice 2"[..], b"video 1"]);
    assert_eq!(bench.dropped(), (1, 0));
    assert_eq!(bench.queue.due(), None);
    bench.push(b"voice 3", PacketPriority::Voice, 100);
    let now = bench.at(100);
    bench.queue.expire(now, &bench.counters);
    assert!(bench.queue.is_empty());
    assert_eq!(bench.dropped(), (2, 0));
}

#[test]
fn packet_behind_one_with_more_time_is_dropped_too() {
    let mut bench = Bench::new();
    bench.push(b"of another session", PacketPriority::Voice, 200);
    bench.push(b"voice", PacketPriority::Voice, 60);
    assert_eq!(bench.take(100), [&b"of another session"[..]]);
    assert_eq!(bench.dropped(), (1, 0));
}

#[test]
fn old_packet_of_least_priority_gives_way() {
    let mut bench = Bench::new();
    bench.push(&[1; 400], PacketPriority::VideoRepair, 500);
    bench.push(&[2; 400], PacketPriority::Video, 500);
    bench.push(&[3; 400], PacketPriority::Video, 500);
    assert_eq!(bench.dropped(), (0, 1), "repair of video");
    bench.push(&[4; 400], PacketPriority::Video, 500);
    assert_eq!(bench.dropped(), (0, 2), "the oldest video");
    bench.push(&[5; 900], PacketPriority::Voice, 500);
    assert_eq!(bench.dropped(), (0, 4));
    bench.push(&[6; 200], PacketPriority::Video, 500);
    assert_eq!(bench.dropped(), (0, 5), "voice does not give way to video");
    assert_eq!(bench.take(0), [&[5_u8; 900][..]]);
    bench.push(&[7; 1_000], PacketPriority::Video, 500);
    assert_eq!((bench.take(0).len(), bench.dropped()), (1, (0, 5)), "the whole queue");
}

#[test]
fn cleared_packets_are_counted() {
    let mut bench = Bench::new();
    bench.push(&[1; 600], PacketPriority::Video, 500);
    bench.push(b"voice", PacketPriority::Voice, 500);
    assert_eq!(bench.queue.clear(), 2);
    bench.push(&[2; 1_000], PacketPriority::Video, 500);
    assert_eq!((bench.queue.clear(), bench.dropped()), (1, (0, 0)));
}
