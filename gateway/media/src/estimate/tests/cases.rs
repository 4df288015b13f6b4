//! The test cases of RFC 8867, sections 5.1 to 5.8, and steps of the capacity, as far as estimators play them: encoders that follow at once, and
//! times that are shorter than those of the RFC in some.

use super::link::{Flow, SECOND_US, TcpFlow, World};

/// The share of the capacity that flows use once they have settled, in percent.
const USED_MIN: i64 = 85;

/// The delay in both directions of RFC 8867.
const DELAY_MS: i64 = 50;

/// The longest queue once flows have settled. With 500 kbit/s it is that of five packets of 1,200 bytes.
const QUEUE_MAX_MS: i64 = 100;

/// A time from which on a link has this capacity.
struct Capacity {
    from_s: i64,
    kbps: i64,
}

fn capacity(from_s: i64, kbps: i64) -> Capacity {
    Capacity { from_s, kbps }
}

fn flows(count: usize) -> Vec<Flow> {
    (0..).take(count).map(|index| Flow::new(DELAY_MS).starting_at(index * 3_000)).collect()
}

fn is_about(kbps: i64, expected: i64) -> bool {
    (expected / 2..=expected * 2).contains(&kbps)
}

#[test]
fn rate_falls_at_once_and_recovers() {
    let cases = [
        (2_500, 750, Flow::new(20)),
        (2_500, 750, Flow::new(50)),
        (1_000, 300, Flow::new(20)),
        (2_500, 750, Flow::new(20).with_congestion_feedback()),
    ];
    for (case, (from, to, flow)) in cases.into_iter().enumerate() {
        let mut world = World::new(from, vec![flow]);
        world.run_to(15);
        world.links[0].kbps = to;
        world.run_to(30);
        world.links[0].kbps = from;
        world.run_to(50);
        // 400 ms and the interval of feedback.
        let down_ms = world.first_ms(15, |kbps| kbps <= to as f64);
        assert!(down_ms <= 500, "{case}: down after {down_ms} ms");
        let up_ms = world.first_ms(30, |kbps| kbps >= from as f64 * 0.85);
        assert!(up_ms <= 8_000, "{case}: up after {up_ms} ms");
        for (begin_s, end_s, kbps) in [(10, 15, from), (23, 30, to), (40, 50, from)] {
            let used = world.arrived_kbps(0, begin_s, end_s) * 100 / kbps;
            assert!(used >= USED_MIN, "{case}: {used} % used from {begin_s} s on");
            let queue_ms = world.longest_queue_ms(0, begin_s, end_s);
            assert!(queue_ms < QUEUE_MAX_MS, "{case}: {queue_ms} ms from {begin_s} s on");
        }
    }
}

/// Plays capacities of the first link until the end, and checks all flows once they have settled in each.
fn assert_follows(world: &mut World, capacities: &[Capacity], end_s: i64, queue_max_ms: i64) {
    let ends = capacities[1..].iter().map(|next| next.from_s).chain([end_s]);
    for (&Capacity { from_s, kbps }, end_s) in capacities.iter().zip(ends) {
        world.links[0].kbps = kbps;
        world.run_to(end_s);
        let flows = world.flows.len();
        let rates: Vec<_> =
            (0..flows).map(|flow| world.arrived_kbps(flow, from_s + 8, end_s)).collect();
        let kbps_max: i64 = world.flows.iter().map(|flow| flow.kbps_max as i64).sum();
        let expected = kbps.min(kbps_max);
        let used = rates.iter().sum::<i64>() * 100 / expected;
        assert!(used >= USED_MIN, "{used} % used from {from_s} s on: {rates:?}");
        let share = expected / flows as i64;
        assert!(rates.iter().all(|&rate| is_about(rate, share)), "from {from_s} s on: {rates:?}");
        let queue_ms = world.longest_queue_ms(0, from_s + 8, end_s);
        assert!(queue_ms < queue_max_ms, "{queue_ms} ms from {from_s} s on");
    }
}

#[test]
fn case_5_1_variable_capacity_one_flow() {
    let mut world = World::new(1_000, flows(1));
    world.flows[0].kbps_max = 1_500.0;
    let capacities =
        [capacity(0, 1_000), capacity(40, 2_500), capacity(60, 600), capacity(80, 1_000)];
    assert_follows(&mut world, &capacities, 100, QUEUE_MAX_MS);
}

#[test]
fn case_5_2_variable_capacity_two_flows() {
    let mut world = World::new(2_000, flows(2));
    world.flows.iter_mut().for_each(|flow| flow.kbps_max = 1_500.0);
    let capacities = [
        capacity(0, 2_000),
        capacity(25, 1_000),
        capacity(50, 1_750),
        capacity(75, 500),
        capacity(100, 1_000),
    ];
    assert_follows(&mut world, &capacities, 125, 2 * QUEUE_MAX_MS);
}

#[test]
fn case_5_3_congested_feedback() {
    let mut world = World::new(2_000, flows(2));
    world.links.push(super::link::Link::new(2_000));
    (world.flows[0].feedback_link, world.flows[1].link) = (Some(1), 1);
    world.flows[1].feedback_link = Some(0);
    world.flows.iter_mut().for_each(|flow| flow.kbps_max = 2_500.0);
    // The capacities of both links, and the time from which on the flows have settled.
    let capacities = [
        (20, 2_000, 2_000, 10),
        (35, 1_000, 2_000, 28),
        (40, 1_000, 800, 39),
        (60, 500, 800, 50),
        (70, 2_000, 800, 69),
        (100, 2_000, 2_000, 80),
    ];
    for (end_s, forward, backward, settled_s) in capacities {
        (world.links[0].kbps, world.links[1].kbps) = (forward, backward);
        world.run_to(end_s);
        for (flow, kbps) in [(0, forward), (1, backward)] {
            if end_s - settled_s < 5 {
                continue;
            }
            let used = world.arrived_kbps(flow, settled_s, end_s) * 100 / kbps;
            assert!(used >= USED_MIN, "flow {flow}: {used} % used from {settled_s} s on");
            let queue_ms = world.longest_queue_ms(flow, settled_s, end_s);
            assert!(queue_ms < 2 * QUEUE_MAX_MS, "link {flow}: {queue_ms} ms");
        }
    }
}

#[test]
fn case_5_4_competing_flows() {
    let mut world = World::new(3_500, flows(3));
    (world.flows[1].start_us, world.flows[2].start_us) = (10 * SECOND_US, 20 * SECOND_US);
    assert_follows(&mut world, &[capacity(52, 3_500)], 90, QUEUE_MAX_MS);
}

#[test]
fn case_5_5_round_trips_of_all_lengths() {
    let delays = [10, 25, 50, 100, 150];
    let mut world = World::new(4_000, delays.map(Flow::new).into());
    assert_follows(&mut world, &[capacity(42, 4_000)], 100, QUEUE_MAX_MS);
}

#[test]
fn case_5_6_long_tcp_flow() {
    let mut world = World::new(2_000, flows(1));
    world.tcp.push(TcpFlow::between(0, 100));
    world.run_to(40);
    let before = world.tcp[0].acknowledged_bytes;
    world.run_to(100);
    let media = world.arrived_kbps(0, 40, 100);
    let tcp = (world.tcp[0].acknowledged_bytes - before) * 8 / 1_000 / 60;
    assert!(is_about(media, 1_000) && is_about(tcp, 1_000), "media {media}, TCP {tcp}");
    // The queue is its own again.
    world.run_to(130);
    let (used, queue_ms) = (world.arrived_kbps(0, 110, 130), world.longest_queue_ms(0, 115, 130));
    assert!(used >= 1_700 && queue_ms < QUEUE_MAX_MS, "{used} kbit/s, {queue_ms} ms");
}

#[test]
fn case_5_7_short_tcp_flows() {
    let mut world = World::new(2_000, flows(1));
    world.flows[0].kbps_max = 1_500.0;
    world.tcp.extend([10, 16, 22, 28].map(|start_s| TcpFlow::between(start_s, start_s + 2)));
    world.run_to(50);
    let beside = world.arrived_kbps(0, 10, 30);
    assert!(beside >= 400, "{beside}");
    let up_ms = world.first_ms(31, |kbps| kbps >= 1_500.0 * 0.85);
    assert!(up_ms <= 7_000, "up after {up_ms} ms");
}

#[test]
fn case_5_8_pause_and_resume() {
    let mut world = World::new(3_500, flows(3));
    world.flows[1].paused_us = 40 * SECOND_US..60 * SECOND_US;
    world.run_to(60);
    let others: Vec<_> = [0, 2].map(|flow| world.arrived_kbps(flow, 50, 60)).into();
    assert!(others.iter().sum::<i64>() >= 3_500 * USED_MIN / 100, "{others:?}");
    assert!(others.iter().all(|&rate| is_about(rate, 1_750)), "{others:?}");
    assert_follows(&mut world, &[capacity(62, 3_500)], 100, QUEUE_MAX_MS);
}
