use super::*;

#[test]
fn lying_node_alternates_its_load() {
    let active = Arc::new(AtomicBool::new(false));
    let mut conduct = FaultyNode::new(Misbehaviour::Lies, Arc::clone(&active));
    let start = Instant::now();
    assert_eq!(conduct.load(420, start), 420);
    active.store(true, Ordering::Relaxed);
    let says =
        [0, 900, 1_000, 2_000].map(|ms| conduct.load(420, start + Duration::from_millis(ms)));
    assert_eq!(says, [0, 0, 60_000, 0]);
}

#[test]
fn one_flow_in_64_is_dropped() {
    let active = Arc::new(AtomicBool::new(false));
    let mut conduct = FaultyNode::new(Misbehaviour::DropsFlows, Arc::clone(&active));
    let mut dropped = |sessions: u64, kind| {
        (0..sessions).filter(|session| conduct.drops(session * 7, kind)).collect::<Vec<_>>()
    };
    assert_eq!(dropped(160, DatagramKind::Rtp), [0_u64; 0]);
    active.store(true, Ordering::Relaxed);
    assert_eq!(dropped(160, DatagramKind::Rtcp), [0_u64; 0], "a receiver is no flow");
    assert_eq!(dropped(159, DatagramKind::Rtp), [31, 95]);
    assert_eq!(dropped(160, DatagramKind::Rtp), [31, 95, 159]);
    assert_eq!(dropped(160, DatagramKind::Rtcp), [31, 95, 159], "all of a flow is dropped");
}
