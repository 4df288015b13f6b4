//! Invariants under random orders of events.

use super::*;
use std::collections::BTreeMap;

/// A stream as received by the client.
#[derive(Default)]
struct Client {
    /// Maps the extended outgoing number to the packet's number and timestamp.
    got: BTreeMap<i64, (u64, u32)>,
    highest: Option<i64>,
}

impl Client {
    fn receive(&mut self, sequence: u16, timestamp: u32, number: u64) {
        let highest = self.highest.unwrap_or(i64::from(sequence));
        let ahead = sequence_ahead(sequence, highest as u16);
        let extended = highest + i64::from(ahead);
        self.highest = Some(highest.max(extended));
        let before = self.got.insert(extended, (number, timestamp));
        assert_eq!(before, None, "number {extended} was used for another packet");
    }

    /// Checks that packets stay in sending order, and their timestamps too.
    fn check(&self, seed: u64) {
        let mut before: Option<(u64, u32)> = None;
        for (number, timestamp) in self.got.values() {
            if let Some((earlier, earlier_timestamp)) = before {
                assert!(earlier < *number, "seed {seed}: {earlier} and {number} changed places");
                let ahead = rtp::timestamp_ahead(*timestamp, earlier_timestamp);
                assert!(ahead > 0, "seed {seed}: time ran back by {ahead} at {number}");
            }
            before = Some((*number, *timestamp));
        }
    }
}

/// Runs a session of voice through nodes with arbitrary numbering, with loss, jitter, reordering,
/// duplication, failovers and planned moves.
fn live(seed: u64) {
    let mut random = Random(seed);
    let mut session = Session::new();
    let mut client = Client::default();
    let mut sender = node(1, 1, random.next() as u16, random.next() as u32);
    let (mut number, mut epoch) = (0, 1);
    for _ in 0..30 {
        let end = number + 5 + random.below(60);
        let mut arrivals = Vec::new();
        while number < end {
            let jitter_ms = random.below(90) as f64 / 10.0;
            // A packet late by more than one frame arrives after the two sent behind it.
            let late_ms = if random.below(20) == 0 { 45.0 } else { 0.0 };
            if random.below(20) != 0 {
                arrivals.push((20.0 * number as f64 + jitter_ms + late_ms, number));
            }
            if random.below(20) == 0 {
                arrivals.push((20.0 * number as f64 + jitter_ms + 1.0, number));
            }
            number += 1;
        }
        arrivals.sort_by(|one, other| one.0.total_cmp(&other.0));
        for (now_ms, number) in arrivals {
            let got = match session.pass(sender, voice(number), now_ms) {
                Pass::Untouched => numbers(sender, voice(number)),
                Pass::Rewrite { ssrc, sequence, timestamp } => (ssrc, sequence, timestamp),
                Pass::Duplicate => continue,
                Pass::Stale | Pass::Surplus => panic!("seed {seed}: the present hop is not stale"),
            };
            assert_eq!(got.0, 1, "seed {seed}: the client has one SSRC");
            client.receive(got.1, got.2, number);
        }
        epoch += 1;
        number += random.below(8);
        if random.below(2) == 0 {
            session.0.switched(
                StreamEpoch(epoch),
                SwitchCause::Planned { lead: Duration::from_millis(20) },
            );
        }
        let ssrc = if random.below(3) == 0 { 1 } else { random.next() as u32 };
        sender = node(epoch, ssrc, random.next() as u16, random.next() as u32);
    }
    client.check(seed);
    assert!(client.got.len() > 300, "seed {seed}: {} packets", client.got.len());
}

#[test]
fn order_and_timestamps_hold_under_any_events() {
    for seed in 0..500 {
        live(seed);
    }
}

/// A packet of a sender whose timestamps go back: sometimes by some packets, as from a node that
/// numbers late packets, and by seconds when its clock is reset.
fn unsteady(seed: u64, number: u64) -> Sent {
    let mut random = Random(seed ^ (number << 20));
    let late = if random.below(6) == 0 { random.below(4) as u32 * FRAME } else { 0 };
    let set_back = Random(seed ^ (number / 40)).below(12) as u32 * VOICE_HZ;
    let timestamp = (number as u32).wrapping_mul(FRAME).wrapping_sub(late + set_back);
    Sent { number, timestamp, marker: false }
}

/// Runs a session of unsteady voice, with failovers and planned moves after which the old hop still
/// delivers.
fn live_unsteadily(seed: u64) {
    let mut random = Random(seed);
    let mut session = Session::new();
    let mut clients: BTreeMap<u32, Client> = BTreeMap::new();
    let mut senders = vec![node(1, 1, random.next() as u16, random.next() as u32)];
    let mut arrivals: Vec<(f64, usize, u64)> = Vec::new();
    let mut number = 0;
    for epoch in 2..32 {
        let sender = senders.len() - 1;
        for _ in 0..5 + random.below(60) {
            let late_ms = if random.below(8) == 0 { random.below(60) as f64 } else { 0.0 };
            let copies = if random.below(20) == 0 { 2 } else { 1 };
            let lost = random.below(20) == 0;
            for copy in 0..if lost { 0 } else { copies } {
                let delay_ms = random.below(9) as f64 + late_ms + f64::from(copy);
                arrivals.push((20.0 * number as f64 + delay_ms, sender, number));
            }
            number += 1;
        }
        if random.below(3) == 0 {
            number += random.below(8);
        }
        let ssrc = if random.below(3) == 0 { 1 } else { random.next() as u32 };
        senders.push(node(epoch, ssrc, random.next() as u16, random.next() as u32));
    }
    arrivals.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut heard = 0;
    for (now_ms, sender, number) in arrivals {
        if sender > heard {
            heard = sender;
            let switch = match random.below(2) {
                0 => SwitchCause::Failover,
                _ => SwitchCause::Planned { lead: Duration::from_millis(random.below(40)) },
            };
            session.0.switched(senders[sender].epoch, switch);
            if switch == SwitchCause::Failover {
                session.0.close_previous();
            }
        }
        let sent = unsteady(seed, number);
        let got = match session.pass(senders[sender], sent, now_ms) {
            Pass::Untouched => numbers(senders[sender], sent),
            Pass::Rewrite { ssrc, sequence, timestamp } => (ssrc, sequence, timestamp),
            Pass::Duplicate | Pass::Stale | Pass::Surplus => continue,
        };
        clients.entry(got.0).or_default().receive(got.1, got.2, number);
    }
    let packets: usize = clients.values().map(|client| client.got.len()).sum();
    assert!(packets > 300, "seed {seed}: {packets} packets");
}

#[test]
fn backward_timestamps_never_reuse_a_number() {
    for seed in 0..500 {
        live_unsteadily(seed);
    }
}
