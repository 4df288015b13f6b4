//! Any order of events, from a seed: what must hold whatever happens.

use super::*;
use std::collections::BTreeMap;

/// What the client saw of one stream: packet by outgoing number.
#[derive(Default)]
struct Client {
    /// Outgoing number, its cycles counted, to the packet's own number and its timestamp.
    got: BTreeMap<i64, (u64, u32)>,
    highest: Option<i64>,
}

impl Client {
    fn receive(&mut self, sequence: u16, timestamp: u32, number: u64) {
        let highest = self.highest.unwrap_or(i64::from(sequence));
        let ahead = rtp::sequence_ahead(sequence, highest as u16);
        let extended = highest + i64::from(ahead);
        self.highest = Some(highest.max(extended));
        let before = self.got.insert(extended, (number, timestamp));
        assert_eq!(before, None, "number {extended} was used for another packet");
    }

    /// Packets stay in the order they were sent, and so do their timestamps.
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

/// One session of voice through nodes that number as they like, with loss, jitter, reordering,
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
            // Late by more than one frame: after the two that were sent behind it.
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
                Pass::Stale => panic!("seed {seed}: the present hop is not stale"),
            };
            assert_eq!(got.0, 1, "seed {seed}: the client knows one SSRC");
            client.receive(got.1, got.2, number);
        }
        epoch += 1;
        number += random.below(8);
        if random.below(2) == 0 {
            session.0.switched(Epoch(epoch), Switch::Planned { lead: Duration::from_millis(20) });
        }
        let ssrc = if random.below(3) == 0 { 1 } else { random.next() as u32 };
        sender = node(epoch, ssrc, random.next() as u16, random.next() as u32);
    }
    client.check(seed);
    assert!(client.got.len() > 300, "seed {seed}: {} packets", client.got.len());
}

#[test]
fn order_and_time_hold_whatever_happens() {
    for seed in 0..500 {
        live(seed);
    }
}
