mod cases;
mod lies;
mod link;

use super::*;
use crate::rtcp::write_transport_feedback;
use link::{Flow, World};

fn at_us(us: i64) -> Instant {
    crate::tests::at(0) + Duration::from_micros(us.unsigned_abs())
}

/// A flow through a path that carries it.
fn unhindered() -> World {
    let mut world = World::new(100_000, vec![Flow::new(20).up_to(2_000.0)]);
    world.run_to(20);
    world
}

#[test]
fn nothing_is_known_without_feedback() {
    let mut estimate = RateEstimate::new();
    assert_eq!((estimate.kbps(at_us(0)), estimate.trend_us_per_s(at_us(0))), (None, None));
    (0..500).for_each(|number| estimate.note_sent(number, 1_200, at_us(i64::from(number) * 1_000)));
    assert_eq!(estimate.kbps(at_us(500_000)), None);
}

#[test]
fn estimate_ends_three_seconds_after_feedback() {
    let mut world = unhindered();
    let estimate = &mut world.flows[0].estimate;
    let heard_us = estimate.heard_us.unwrap();
    let origin = estimate.origin.unwrap();
    let after = |us: i64| origin + Duration::from_micros((heard_us + us).unsigned_abs());
    assert!(estimate.kbps(after(2_999_999)).is_some_and(|kbps| kbps > 2_000));
    assert_eq!(estimate.kbps(after(3_000_000)), None);
    // Until there are arrival times again, receiver reports count.
    estimate.note_report(0, None, 1_000, after(3_000_000));
    assert_eq!(estimate.kbps(after(3_000_000)), Some(1_500));
}

#[test]
fn reports_do_not_count_beside_arrival_times() {
    let mut world = unhindered();
    let estimate = &mut world.flows[0].estimate;
    let kbps = estimate.kbps(at_us(20_000_000));
    estimate.note_report(500_000, None, 1_000, at_us(20_000_000));
    assert_eq!(estimate.kbps(at_us(20_000_000)), kbps);
}

#[test]
fn packets_are_kept_with_the_first_one() {
    let mut estimate = RateEstimate::new();
    assert!(estimate.sent.find(0, 0).is_none());
    for number in 0..70_000_u32 {
        estimate.note_sent(number as u16, 1_200, at_us(i64::from(number) * 1_000));
    }
    // The last number is 4,463 of the second turn.
    let mut is_found = |number: u16, now_us: i64| estimate.sent.find(number, now_us).is_some();
    assert!(is_found(4_463, 70_000_000) && is_found(2_416, 70_000_000));
    assert!(!is_found(2_415, 70_000_000) && !is_found(4_464, 70_000_000));
    assert!(is_found(4_463, 79_998_999) && !is_found(4_463, 79_999_000), "10 s");
}

#[test]
fn estimate_is_bounded_by_what_arrives() {
    let mut world = unhindered();
    let kbps = world.flows[0].estimate.kbps(at_us(20_000_000)).unwrap();
    assert!((2_000..=3_200).contains(&kbps), "{kbps}");
    world.flows[0].kbps_max = 200.0;
    world.run_to(32);
    let kbps = world.flows[0].estimate.kbps(at_us(32_000_000)).unwrap();
    assert!((200..=320).contains(&kbps), "the application sends little: {kbps}");
}

#[test]
fn random_loss_without_a_queue_takes_its_share() {
    for loss in [1, 5, 8] {
        let mut world = World::new(100_000, vec![Flow::new(20).up_to(2_000.0)]);
        world.links[0].loss = loss;
        world.run_to(40);
        let kbps = world.arrived_kbps(0, 15, 40);
        assert!(kbps >= 1_960 * (100 - i64::from(loss)) / 100 - 40, "{loss} %: {kbps}");
    }
}

#[test]
fn heavy_loss_without_a_queue_lowers_the_rate() {
    // A queue of two packets drops a part of each frame, and is too short for a trend.
    let mut world = World::new(1_000, vec![Flow::new(20).up_to(3_000.0)]);
    world.links[0].queue_us = 15_000;
    world.run_to(40);
    let kbps = world.arrived_kbps(0, 15, 40);
    assert!(kbps >= 450, "{kbps}");
    assert!(world.flows[0].kbps < 1_000.0, "{}", world.flows[0].kbps);
}

#[test]
fn trend_is_the_growth_of_the_delay() {
    // Packets that are sent 20 ms apart arrive so many units of 250 µs apart.
    let trend = |ticks: i64| {
        let mut estimate = RateEstimate::new();
        (0..50).for_each(|number| {
            estimate.note_sent(number, 1_200, at_us(i64::from(number) * 20_000));
        });
        let arrivals: Vec<_> = (0..50).map(|number| Some(8_000 + number * ticks)).collect();
        let mut packet = Vec::new();
        write_transport_feedback(1, 2, 0, 0, &arrivals, &mut packet);
        estimate.note_feedback(&TransportFeedback::parse(&packet).unwrap(), at_us(1_100_000));
        assert_eq!(estimate.trend_us_per_s(at_us(1_100_000 + FEEDBACK_KEPT_US)), None);
        estimate.trend_us_per_s(at_us(1_100_000)).unwrap()
    };
    assert_eq!(trend(80), 0);
    // 1 ms of 21 ms, and of 19 ms.
    assert!((46_000..48_500).contains(&trend(84)), "{}", trend(84));
    assert!((-54_000..-51_000).contains(&trend(76)), "{}", trend(76));
}

#[test]
fn streams_are_told_in_the_order_of_sending() {
    use PacketArrival::{Before, Missing};
    let mut sent = SentPackets::default();
    // Two streams in turns, whose numbers wrap, over more packets than are remembered.
    for packet in 0..2_100_u16 {
        let (ssrc, sequence) = (u32::from(packet % 2), 65_000_u16.wrapping_add(packet / 2));
        sent.note_in_stream(ssrc, sequence, 100, i64::from(packet) * 1_000);
    }
    let told = |ssrc: u8, begin: u16, arrivals: &[u16]| {
        let mut stream = vec![0, 0, 0, ssrc];
        stream.extend_from_slice(&begin.to_be_bytes());
        stream.extend_from_slice(&(arrivals.len() as u16).to_be_bytes());
        arrivals.iter().for_each(|arrival| stream.extend_from_slice(&arrival.to_be_bytes()));
        stream
    };
    let mut bytes = vec![0x8b, 205, 0, 0, 0, 0, 0, 9];
    // The last numbers are 65,000 + 1,049, which is 513. Of stream 2 nothing was sent.
    bytes.extend(told(1, 512, &[0x8001, 0]));
    bytes.extend(told(2, 512, &[0x8001, 0x8001]));
    bytes.extend(told(0, 511, &[0x8003, 0x8002, 0x8001, 0x8001]));
    bytes.extend_from_slice(&[0, 1, 0, 0]);
    bytes[3] = (bytes.len() / 4 - 1) as u8;
    let feedback = CongestionFeedback::parse(&bytes).unwrap();
    let mut read = Vec::new();
    sent.for_each_told(&feedback, 2_100_000, |packet, arrival| {
        read.push((packet.at_us / 1_000, arrival));
    });
    let expected = [
        (2_094, Before(3)),
        (2_096, Before(2)),
        (2_097, Before(1)),
        (2_098, Before(1)),
        (2_099, Missing),
    ];
    assert_eq!(read, expected);
    let mut is_empty = true;
    sent.for_each_told(&feedback, 12_099_000, |_, _| is_empty = false);
    assert!(is_empty, "older than 10 s");
}
