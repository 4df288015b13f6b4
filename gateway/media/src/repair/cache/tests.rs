use super::*;
use crate::repair::tests::at;

/// A second of packets, in at most this many bytes.
fn cache(bytes_max: usize) -> PacketCache {
    PacketCache::new(bytes_max, Duration::from_secs(1))
}

/// Packet `number` of a stream: its bytes tell which one it is.
fn packet(number: u32, length: usize) -> Vec<u8> {
    (0..length).map(|place| (number as usize * 31 + place) as u8).collect()
}

fn bytes(cache: &PacketCache, sequence: u16, ms: u64) -> Option<Vec<u8>> {
    cache.find(7, sequence, at(ms)).map(|found| found.packet.to_vec())
}

#[test]
fn packets_are_found_while_the_ring_grows() {
    let mut cache = cache(2 << 20);
    assert_eq!(cache.allocated(), 0, "before the first packet");
    let mut allocated = Vec::new();
    for number in 0..500_u32 {
        let grows = cache.growth(1_200, at(u64::from(number)));
        let before = cache.allocated();
        cache.keep(7, number as u16, &packet(number, 1_200), at(number.into()));
        assert_eq!(cache.allocated(), before + grows);
        allocated.extend((grows > 0).then_some(cache.allocated()));
    }
    assert_eq!(allocated.len(), 9, "it doubles: {allocated:?}");
    for number in 0..500_u32 {
        assert_eq!(bytes(&cache, number as u16, 500), Some(packet(number, 1_200)), "{number}");
    }
}

#[test]
fn oldest_packets_give_way_at_the_bound() {
    let bound = 2 * allocation(RING_MIN);
    let mut cache = cache(bound);
    for number in 0..10_000_u32 {
        let length = 100 + number as usize * 37 % 1_100;
        cache.keep(7, number as u16, &packet(number, length), at(0));
        assert!(cache.allocated() <= bound);
        for kept in number.saturating_sub(4)..=number {
            let expected = packet(kept, 100 + kept as usize * 37 % 1_100);
            assert_eq!(bytes(&cache, kept as u16, 0), Some(expected), "{kept} at {number}");
        }
        assert_eq!(bytes(&cache, number.wrapping_sub(90) as u16, 0), None);
    }
}

#[test]
fn cleared_cache_keeps_its_ring() {
    let mut cache = cache(2 << 20);
    (0..20).for_each(|number| cache.keep(7, number, &packet(number.into(), 300), at(0)));
    let allocated = cache.allocated();
    cache.clear();
    assert!((0..20).all(|number| bytes(&cache, number, 0).is_none()));
    assert_eq!((cache.since(at(0)).count(), cache.last_at()), (0, None));
    cache.keep(7, 5, &packet(99, 300), at(1));
    assert_eq!(bytes(&cache, 5, 1), Some(packet(99, 300)));
    assert_eq!((bytes(&cache, 4, 1), cache.allocated()), (None, allocated));
}

#[test]
fn small_packets_are_bounded_by_the_index() {
    let mut cache = cache(allocation(RING_MIN));
    (0..100).for_each(|number| cache.keep(7, number, &[1], at(0)));
    let places = (RING_MIN / BYTES_PER_PACKET) as u16;
    assert_eq!(cache.since(at(0)).count(), usize::from(places));
    assert_eq!(bytes(&cache, 99 - places, 0), None);
    assert_eq!(bytes(&cache, 100 - places, 0), Some(vec![1]));
}

#[test]
fn numbers_are_found_across_the_wrap() {
    let mut cache = cache(1 << 20);
    for number in 65_500..65_600_u32 {
        cache.keep(7, number as u16, &packet(number, 80), at(0));
        cache.keep(8, number as u16, b"another stream", at(0));
    }
    for number in 65_500..65_600_u32 {
        assert_eq!(bytes(&cache, number as u16, 0), Some(packet(number, 80)), "{number}");
    }
    assert_eq!(bytes(&cache, 64, 0), None);
    assert!(cache.find(9, 0, at(0)).is_none(), "never sent");
}

#[test]
fn old_packets_are_forgotten() {
    let mut cache = cache(1 << 20);
    cache.keep(7, 1, b"old", at(0));
    cache.keep(7, 2, b"young", at(600));
    assert!(bytes(&cache, 1, 1_000).is_some());
    assert!(bytes(&cache, 1, 1_001).is_none());
    assert!(bytes(&cache, 2, 1_001).is_some());
    cache.set_kept_for(Duration::from_millis(100));
    assert!(bytes(&cache, 2, 1_001).is_none(), "a shorter latency");
    // Packets that are too old make room before the ring grows.
    let voice = [0; 128];
    (0..10_000).for_each(|ms| cache.keep(7, ms as u16, &voice, at(2_000 + 20 * ms)));
    assert_eq!(cache.allocated(), allocation(RING_MIN));
}

#[test]
fn later_packet_replaces_one_with_its_numbers() {
    let mut cache = cache(1 << 20);
    cache.keep(7, 1, b"first", at(0));
    cache.note_answered(7, 1, at(5));
    assert_eq!(cache.find(7, 1, at(5)).unwrap().answered, Some(at(5)));
    cache.keep(7, 1, b"second", at(10));
    let found = cache.find(7, 1, at(10)).unwrap();
    assert_eq!((found.packet, found.at, found.answered), (&b"second"[..], at(10), None));
}

#[test]
fn packets_since_a_time_are_in_order_of_arrival() {
    let mut cache = cache(1 << 20);
    for (sequence, ms) in [(5, 0), (4, 20), (6, 20), (7, 40)] {
        cache.keep(7, sequence, &[sequence as u8], at(ms));
    }
    let since = |ms| cache.since(at(ms)).map(|packet| packet.sequence).collect::<Vec<_>>();
    assert_eq!(since(0), [5, 4, 6, 7]);
    assert_eq!(since(20), [4, 6, 7]);
    assert_eq!(since(41), [0; 0]);
}

#[test]
fn packet_beyond_the_bound_is_not_kept() {
    let mut cache = cache(allocation(RING_MIN));
    cache.keep(7, 1, b"short", at(0));
    cache.keep(7, 2, &[0; RING_MIN + 1], at(0));
    assert!(bytes(&cache, 1, 0).is_some() && bytes(&cache, 2, 0).is_none());
    let mut nothing = PacketCache::new(0, Duration::from_secs(1));
    nothing.keep(7, 1, b"short", at(0));
    assert!(bytes(&nothing, 1, 0).is_none());
    assert_eq!(nothing.allocated(), 0);
    nothing.set_bytes_max(1 << 20);
    nothing.keep(7, 1, b"short", at(0));
    assert!(bytes(&nothing, 1, 0).is_some(), "the bound was raised");
}

struct KeptPacket {
    ssrc: u32,
    sequence: u16,
    ms: u64,
    packet: Vec<u8>,
}

/// Keeps packets as the bytes say, and compares the cache with a list.
#[test]
fn fuzz_packet_cache() {
    let seed: Vec<u8> = (0..200_u8).flat_map(|number| [number % 2, number, number, 30]).collect();
    evenkeel_fuzz::Corpus::of("packet_cache").with(seed).check(|input| {
        let bound = allocation(4 * RING_MIN);
        let mut cache = cache(bound);
        let (mut kept, mut ms) = (Vec::<KeptPacket>::new(), 0);
        for (number, &[ssrc, sequence, length, pause]) in (0..).zip(input.as_chunks::<4>().0) {
            ms += u64::from(pause);
            let (ssrc, sequence) = (u32::from(ssrc % 3), u16::from(sequence));
            let packet = packet(number, usize::from(length) * 6);
            cache.keep(ssrc, sequence, &packet, at(ms));
            kept.retain(|it| (it.ssrc, it.sequence) != (ssrc, sequence) || packet.is_empty());
            kept.extend((!packet.is_empty()).then_some(KeptPacket { ssrc, sequence, ms, packet }));
            assert!(cache.allocated() <= bound);
        }
        for KeptPacket { ssrc, sequence, ms: then, packet } in &kept {
            let found = cache.find(*ssrc, *sequence, at(ms));
            assert!(found.is_none_or(|found| found.packet == &packet[..]), "{ssrc} {sequence}");
            assert!(found.is_none() || ms - then <= 1_000);
        }
        if let Some(KeptPacket { ssrc, sequence, .. }) = kept.last() {
            assert!(cache.find(*ssrc, *sequence, at(ms)).is_some(), "{ssrc} {sequence}");
        }
    });
}
