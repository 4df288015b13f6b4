//! Path reports to workers and their rounds, and connections without sessions.

use super::super::certificate::EndpointIdentity;
use super::super::process_link::MESSAGE_MAX;
use super::*;
use crate::flows::FlowEntry;

const CONNECTION: ConnectionHandle = ConnectionHandle(3);

fn home(slot: u32) -> Home {
    Home { worker: 0, slot, generation: 1 }
}

fn path(lost: u64, sent: u64) -> PathStatistics {
    PathStatistics { rtt: Duration::from_millis(5), lost, sent }
}

/// Creates a hub with these sessions on one connection, and the ring to their worker.
fn hub(sessions: u32, now: Instant) -> (Hub, ring::Receiver) {
    let flows = Arc::new(Flows::new(10));
    let (to_worker, ring) = ring::channel(5).unwrap();
    let mut hub = Hub::new(Arc::clone(&flows), Arc::default(), vec![to_worker]);
    hub.join(CONNECTION, now);
    for slot in 0..sessions {
        flows.insert(FlowKey::Roq(slot.into()), FlowEntry::of(home(slot))).unwrap();
        hub.attach(CONNECTION, home(slot), slot.into(), now);
    }
    (hub, ring)
}

/// Takes the reported sessions with their losses and packets.
fn told(ring: &mut ring::Receiver) -> Vec<(u32, u32, u32)> {
    let mut told = Vec::new();
    ring.pop_batch(10, |meta, _| {
        if let RingItem::Path(PathReport { rtt_us, lost, sent }) = meta.kind {
            assert_eq!((rtt_us, meta.flow), (5_000, meta.home.slot.into()));
            told.push((meta.home.slot, lost, sent));
        }
    });
    told
}

#[test]
fn path_report_after_a_full_ring_covers_both() {
    let now = Instant::now();
    let (mut hub, mut ring) = hub(2, now);
    // The ring holds three entries besides the two for attached sessions.
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
fn new_session_gets_no_earlier_path_counts() {
    let now = Instant::now();
    let (mut hub, mut ring) = hub(1, now);
    hub.look_after(home(0), now, |_| Some(path(100, 1_000)));
    hub.flows.insert(FlowKey::Roq(7), FlowEntry::of(home(7))).unwrap();
    hub.attach(CONNECTION, home(7), 7, now);
    hub.look_after(home(7), now, |_| Some(path(101, 1_003)));
    assert_eq!(told(&mut ring), [(0, 100, 1_000), (7, 1, 3)]);
}

#[test]
fn connection_is_flowless_after_its_last_session() {
    let (start, after) = (Instant::now(), Duration::from_secs(5));
    let (mut hub, _ring) = hub(1, start);
    let ended = start + after * 10;
    assert_eq!(hub.flowless(after, ended), []);
    hub.flows.remove(&FlowKey::Roq(0), home(0));
    hub.look_after(home(0), ended, |_| None);
    assert_eq!(hub.carrier(home(0)), None);
    assert_eq!(hub.flowless(after, ended + after - Duration::from_nanos(1)), []);
    assert_eq!(hub.flowless(after, ended + after), [CONNECTION]);
}

const EVERY: Duration = Duration::from_millis(100);

fn homes(count: u32) -> impl Iterator<Item = Home> {
    (0..count).map(|slot| Home { worker: 0, slot, generation: 1 })
}

#[test]
fn each_session_is_reported_once_per_round() {
    let start = Instant::now();
    let mut round = Round::new(EVERY, start);
    for number in 1..=3 {
        assert!(round.is_over());
        assert_eq!(round.due(), start + EVERY * number);
        round.begin(homes(1_000), round.due());
        let mut seen = Vec::new();
        while !round.is_over() {
            assert!(round.due() < start + EVERY * (number + 1));
            let (due, share) = (round.due(), round.share().to_vec());
            assert!((1..=128).contains(&share.len()));
            assert!(round.due() >= due + EVERY / 8);
            seen.extend(share);
        }
        assert_eq!(seen, homes(1_000).collect::<Vec<_>>());
    }
}

#[test]
fn empty_round_waits_and_missed_rounds_are_skipped() {
    let start = Instant::now();
    let mut round = Round::new(EVERY, start);
    round.begin(homes(0), round.due());
    assert!(round.is_over() && round.share().is_empty());
    assert_eq!(round.due(), start + EVERY * 2);
    let late = start + EVERY * 50;
    round.begin(homes(3), late);
    assert_eq!(round.share().len(), 3);
    assert_eq!(round.due(), late + EVERY);
}

/// The predecessor may have missed that the session uses another connection.
#[test]
fn report_of_a_session_elsewhere_is_answered() {
    let now = Instant::now();
    let (mut hub, mut ring) = hub(1, now);
    let identity = EndpointIdentity::of_secret(b"secret").successor();
    let (link, other) = ProcessLink::pair().unwrap();
    let handed = HandedConnections::new(0, other, &Predecessors::default(), vec![]).unwrap();
    let (predecessors, sessions) = handed.adopt(&identity.connection_id_keys(), identity.process());
    hub.adopt(predecessors, sessions);
    let kind = RingItem::Path(PathReport { rtt_us: 5_000, lost: 0, sent: 4 });
    let report = RingMeta { home: home(0), kind, flow: 0 };
    hub.take_item(0, report, &[], now);
    let mut buffer = [0; MESSAGE_MAX];
    let ended = RingMeta { kind: RingItem::Detached, ..report };
    assert_eq!(link.receive(&mut buffer), LinkRead::Item(ended, &[]));
    assert_eq!(told(&mut ring), [], "its worker has the reports of its connection");
}
