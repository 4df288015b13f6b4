use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::Duration;

use evenkeel_media::trunk::message::{NodeSecret, TrunkQuestion};
use evenkeel_media::trunk::{self, seal};

use super::*;

const TAG: Tag = Tag(7);

/// Sends packets of these lengths on a trunk. Returns the received lengths by datagram, and the number of drops.
fn travelled(lengths: &[usize]) -> (Vec<Vec<usize>>, u64) {
    travelled_on(None, lengths)
}

/// A connected socket, and its peer.
fn pair() -> (UdpSocket, UdpSocket) {
    let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let (here, there) = (bind(), bind());
    here.connect(there.local_addr().unwrap()).unwrap();
    there.set_nonblocking(true).unwrap();
    (here, there)
}

/// Like [`travelled`], on a path with this size limit.
fn travelled_on(size_max: Option<u16>, lengths: &[usize]) -> (Vec<Vec<usize>>, u64) {
    let (here, there) = pair();
    let stats = Arc::new(WorkerStats::new(Instant::now(), 1));
    let early_limits = EarlyLimits { packets: 1, wait: Duration::ZERO };
    let mut egress = Egress::new(mpsc::channel(1).0, Arc::clone(&stats), early_limits);
    let trunk = TrunkSocket { socket: here, seal: None, first_number: 0 };
    egress.trunks.push(Some(Trunk::new(trunk).unwrap()));
    if let Some(size_max) = size_max {
        trunk_to(&mut egress.trunks, NodeId(0)).unwrap().limit_bundles(size_max);
    }
    for &length in lengths {
        egress.queue_on_trunk(NodeId(0), TAG, &vec![128; length]);
    }
    egress.flush(Instant::now());
    let mut datagram = [0; 2 * DATAGRAM_MAX];
    let came = std::iter::from_fn(|| {
        let length = there.recv(&mut datagram).ok()?;
        Some(trunk::entries(&datagram[..length]).map(|entry| entry.unwrap().1.len()).collect())
    });
    (came.collect(), stats.drops(DropReason::Oversize))
}

#[test]
fn signed_message_does_not_count_as_sent_media() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(socket.local_addr().unwrap()).unwrap();
    let base = Instant::now();
    let stats = Arc::new(WorkerStats::new(base, 1));
    let early_limits = EarlyLimits { packets: 1, wait: Duration::ZERO };
    let mut egress = Egress::new(mpsc::channel(1).0, Arc::clone(&stats), early_limits);
    egress
        .trunks
        .push(Some(Trunk::new(TrunkSocket { socket, seal: None, first_number: 0 }).unwrap()));
    let sent = |stats: &WorkerStats| {
        let mut all = [evenkeel_model::Stamp::default()];
        stats.merge_into(&mut all);
        all[0].last_sent
    };
    let now = base + Duration::from_millis(1);
    egress.send_signed(NodeId(0), b"a lease", true);
    egress.flush(now);
    assert_eq!(sent(&stats), None);
    egress.queue_on_trunk(NodeId(0), TAG, &[128; 160]);
    egress.send_signed(NodeId(0), b"a lease", true);
    egress.flush(now);
    assert_eq!(sent(&stats), Some(now));
}

#[test]
fn emsgsize_is_counted_as_oversize() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut outbox = SendBatch::new(Family::V4);
    outbox.push(Some(address), 0, &vec![0; 65_536]);
    let outcome = outbox.flush(socket.as_fd());
    assert_eq!(outcome.failed.iter().map(reason).collect::<Vec<_>>(), [DropReason::Oversize]);
}

#[test]
fn packets_share_a_datagram_while_it_has_room() {
    assert_eq!(travelled(&[160, 160, 160]), (vec![vec![160, 160, 160]], 0));
    assert_eq!(travelled(&[900, 900]), (vec![vec![900], vec![900]], 0));
}

#[test]
fn shared_datagram_keeps_to_the_path_limit() {
    assert_eq!(travelled(&[600, 700]), (vec![vec![600, 700]], 0));
    let narrow = travelled_on(Some(1_200), &[600, 570, 600, 580, 1_300]);
    assert_eq!(narrow, (vec![vec![600, 570], vec![600], vec![580], vec![1_300]], 0));
}

#[test]
fn frame_sized_packet_has_its_own_datagram() {
    assert_eq!(travelled(&[160, 1_472, 200]), (vec![vec![160], vec![1_472], vec![200]], 0));
    assert_eq!(travelled(&[1_472, 1_472]), (vec![vec![1_472], vec![1_472]], 0));
    let largest = DATAGRAM_MAX - trunk::OVERHEAD - trunk::ENTRY_OVERHEAD;
    assert_eq!(travelled(&[largest]), (vec![vec![largest]], 0));
    assert_eq!(travelled(&[largest + 1, 160]), (vec![vec![160]], 1));
}

#[test]
fn encrypted_datagrams_keep_to_the_path_limit() {
    let (socket, there) = pair();
    let secret = NodeSecret::new(b"a secret of many bytes", "n").unwrap();
    let stats = Arc::new(WorkerStats::new(Instant::now(), 1));
    let early_limits = EarlyLimits { packets: 1, wait: Duration::ZERO };
    let mut egress = Egress::new(mpsc::channel(1).0, Arc::clone(&stats), early_limits);
    let seal = Some(Box::new(seal::GatewaySeal::new(secret.clone(), 1)));
    egress.trunks.push(Some(Trunk::new(TrunkSocket { socket, seal, first_number: 0 }).unwrap()));
    let largest = DATAGRAM_MAX - seal::OVERHEAD - trunk::OVERHEAD - trunk::ENTRY_OVERHEAD;
    let mut message = Vec::new();
    TrunkQuestion::Probe.write(&secret, 1, unix_us(), &mut message);
    egress.send_signed(NodeId(0), &message, true);
    egress.send_signed(NodeId(0), &message, false);
    (0..30).for_each(|_| egress.queue_on_trunk(NodeId(0), TAG, &[128; 100]));
    trunk_to(&mut egress.trunks, NodeId(0)).unwrap().limit_bundles(1_200);
    (0..30).for_each(|_| egress.queue_on_trunk(NodeId(0), TAG, &[128; 100]));
    egress.queue_on_trunk(NodeId(0), TAG, &vec![128; largest]);
    egress.queue_on_trunk(NodeId(0), TAG, &vec![128; largest + 1]);
    egress.flush(Instant::now());
    assert_eq!(stats.drops(DropReason::Oversize), 1);

    let mut node = seal::NodeSeal::new(secret, 2);
    let mut datagram = [0; 2 * DATAGRAM_MAX];
    let (mut lengths, mut packets) = (Vec::new(), 0);
    while let Ok(length) = there.recv(&mut datagram) {
        lengths.push(length);
        if datagram[..length] == message[..] {
            continue;
        }
        let from = ([127, 0, 0, 1], 1).into();
        let (content, sender) = node.open(&mut datagram[..length], from).unwrap();
        packets += trunk::entries(content).flatten().count();
        node.learn(sender);
    }
    assert_eq!((packets, lengths[1]), (61, message.len()), "a path probe is not encrypted");
    assert!(lengths.iter().any(|length| (1_290..=1_400).contains(length)), "{lengths:?}");
    assert!(lengths[5..].iter().all(|length| *length <= 1_200 || *length == DATAGRAM_MAX));
    assert_eq!(lengths.iter().max(), Some(&DATAGRAM_MAX));
}

#[test]
fn unreadable_datagram_is_counted_and_reported() {
    let (socket, _there) = pair();
    let secret = NodeSecret::new(b"a secret of many bytes", "n").unwrap();
    let stats = Arc::new(WorkerStats::new(Instant::now(), 1));
    let early_limits = EarlyLimits { packets: 1, wait: Duration::ZERO };
    let (reports, mut reported) = mpsc::channel(4);
    let mut egress = Egress::new(reports, Arc::clone(&stats), early_limits);
    let seal = Some(Box::new(seal::GatewaySeal::new(secret, 1)));
    egress.trunks.push(Some(Trunk::new(TrunkSocket { socket, seal, first_number: 0 }).unwrap()));
    for length in [0, 1, 17, 33, 200] {
        assert!(egress.open(NodeId(0), &mut vec![0xE3; length]).is_none());
    }
    egress.flush(Instant::now());
    assert_eq!(stats.drops(DropReason::BadIntegrity), 5);
    assert!(matches!(reported.try_recv(), Ok(WorkerReport::Unreadable(NodeId(0)))));
    assert!(reported.try_recv().is_err(), "once per pass");
}

#[test]
fn permit_notes_held_packets() {
    let lease = Arc::new(SendLease::forever());
    let permit = Permit::new(Arc::clone(&lease));
    assert!(permit.may_send() && !permit.held_back.get());
    lease.end();
    assert!(!permit.may_send() && permit.held_back.get());
}
