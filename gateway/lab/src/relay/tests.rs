use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::Duration;

use super::*;

/// A valid RTP packet: a header of twelve bytes, then the test header.
fn packet(session: u64, number: u64) -> Vec<u8> {
    let mut packet = vec![0x80, 111];
    packet.extend_from_slice(&u16::try_from(number).unwrap().to_be_bytes());
    packet.extend_from_slice(&[0; 8]);
    TestHeader { session, number, sent_ns: 1, node: 0, stream: 0 }.write(&mut packet);
    packet
}

fn patient() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

/// Impairs packets of this session that arrive from its client from now on.
fn set(relay: &ImpairmentRelay, session: u64, conditions: Conditions) {
    let mut world = relay.pump.world();
    let lane = world.lanes.iter_mut().find(|lane| lane.session == session).unwrap();
    lane.links[Direction::Up as usize].conditions = conditions;
}

/// The address at which the gateway sees the client of the first lane.
fn far(relay: &ImpairmentRelay) -> SocketAddr {
    relay.pump.world().lanes[0].far.local_addr().unwrap()
}

/// Sends `count` packets up, and one behind them that must cross; returns the numbers that crossed.
fn cross(
    relay: &ImpairmentRelay,
    session: u64,
    conditions: Conditions,
    count: u64,
) -> BTreeSet<u64> {
    let (client, gateway) = (patient(), patient());
    let near = relay.lane(session, gateway.local_addr().unwrap()).unwrap();
    set(relay, session, conditions);
    for number in 0..count {
        client.send_to(&packet(session, number), near).unwrap();
        // Sends one packet at a time, so that the receive buffer does not overflow.
        while relay.pump.world().tally.arrived < number + 1 {
            std::thread::yield_now();
        }
    }
    set(relay, session, Conditions::default());
    client.send_to(b"end", near).unwrap();
    let mut crossed = BTreeSet::new();
    let mut buffer = [0; 2_048];
    loop {
        let (length, source) = gateway.recv_from(&mut buffer).unwrap();
        assert_eq!(source, far(relay));
        if &buffer[..length] == b"end" {
            return crossed;
        }
        crossed.insert(TestHeader::read(&buffer[12..length]).unwrap().number);
    }
}

#[test]
fn reported_losses_match_missing_packets() {
    let relay = ImpairmentRelay::start(11).unwrap();
    let crossed = cross(&relay, 3, Conditions::loss_percent(25), 200);
    let dropped = relay.dropped();
    assert!(dropped.iter().all(|drop| drop.lane == 3
        && drop.direction == Direction::Up
        && drop.cause == ImpairmentCause::Loss));
    let reported: BTreeSet<u64> = dropped.iter().map(|drop| drop.mark.unwrap().number).collect();
    let missing: BTreeSet<u64> = (0..200).filter(|number| !crossed.contains(number)).collect();
    assert_eq!(reported, missing);
    assert!(reported.len() > 20);
    let tally = relay.pump.world().tally;
    assert_eq!((tally.arrived, tally.dropped), (201, reported.len() as u64));
    assert_eq!(tally.forwarded, 201 - tally.dropped);
}

#[test]
fn same_seed_loses_the_same_packets() {
    let run = || cross(&ImpairmentRelay::start(7).unwrap(), 5, Conditions::loss_percent(30), 200);
    assert_eq!(run(), run());
}

#[test]
fn answers_reach_the_client() {
    let relay = ImpairmentRelay::start(1).unwrap();
    let (client, gateway) = (patient(), patient());
    let near = relay.lane(1, gateway.local_addr().unwrap()).unwrap();
    client.send_to(b"question", near).unwrap();
    let mut buffer = [0; 64];
    let (length, source) = gateway.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], source), (&b"question"[..], far(&relay)));
    gateway.send_to(b"answer", source).unwrap();
    let (length, source) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], source), (&b"answer"[..], near));
}

#[test]
fn duplicates_arrive_twice_and_damage_is_reported() {
    let relay = ImpairmentRelay::start(1).unwrap();
    let (client, gateway) = (patient(), patient());
    let near = relay.lane(9, gateway.local_addr().unwrap()).unwrap();
    let conditions =
        Conditions { duplicate_ppm: 1_000_000, corrupt_ppm: 1_000_000, ..Conditions::default() };
    relay.set_all(conditions);
    let sent = packet(9, 4);
    client.send_to(&sent, near).unwrap();
    let mut buffer = [0; 64];
    for _ in 0..2 {
        let (length, _) = gateway.recv_from(&mut buffer).unwrap();
        let turned: u32 =
            sent.iter().zip(&buffer[..length]).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!((length, turned), (sent.len(), 1));
    }
    assert_eq!(
        relay.pump.world().tally,
        RelayTally { arrived: 1, forwarded: 1, copied: 1, dropped: 0, corrupted: 1 }
    );
    let [report] = relay.dropped()[..] else { panic!() };
    assert_eq!((report.cause, report.mark.unwrap().number), (ImpairmentCause::Corrupted, 4));
}

#[test]
fn rebound_lane_uses_another_port() {
    let relay = ImpairmentRelay::start(11).unwrap();
    let (client, gateway) = (patient(), patient());
    let near = relay.lane(1, gateway.local_addr().unwrap()).unwrap();
    let old = far(&relay);
    relay.rebind_all().unwrap();
    client.send_to(b"one", near).unwrap();
    let mut buffer = [0; 100];
    let (_, source) = gateway.recv_from(&mut buffer).unwrap();
    assert_ne!(source, old);
    // A packet to the old port is lost, so that the second packet arrives first.
    gateway.send_to(b"old", old).unwrap();
    gateway.send_to(b"new", source).unwrap();
    let (length, _) = client.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"new");
}
