use super::*;
use crate::trunk::{OVERHEAD, entries, number};

fn address(port: u16) -> SocketAddr {
    ([192, 0, 2, 1], port).into()
}

/// Returns destination and number of packets of each bundle sent.
fn sent(act: impl FnOnce(&mut dyn FnMut(SocketAddr, &[u8]))) -> Vec<(u16, usize)> {
    let mut sent = Vec::new();
    act(&mut |to, bundle| sent.push((to.port(), entries(bundle).count())));
    sent
}

/// A datagram from address 1, not encrypted.
fn datagram(content: &[u8]) -> ReceivedDatagram<'_> {
    let length = content.len();
    ReceivedDatagram { content, length, source: address(1), is_sealed: false }
}

/// Receives a datagram, while nothing is queued.
fn receive(
    bundles: &mut Bundles,
    datagram: &ReceivedDatagram<'_>,
    reply_to: impl Fn(Tag) -> Option<SocketAddr>,
) -> ReceivedPackets {
    let mut received = ReceivedPackets::default();
    bundles.receive(datagram, reply_to, crate::tests::at(0), &mut received, &mut |_, _| {
        panic!("nothing is queued")
    });
    received
}

#[test]
fn packets_of_one_destination_share_a_bundle() {
    let mut bundles = Bundles::new(0);
    let sent = sent(|mut send| {
        for (port, tag) in [(1, 1), (2, 2), (1, 3)] {
            assert!(bundles.push(address(port), Tag(tag), b"packet", &mut send));
        }
        bundles.flush(&mut send);
        bundles.flush(&mut send);
    });
    assert_eq!(sent, [(1, 2), (2, 1)]);
}

#[test]
fn full_bundle_is_sent_and_the_next_begins() {
    let mut bundles = Bundles::new(0);
    let sent = sent(|mut send| {
        assert!(bundles.push(address(1), Tag(1), &[0; 800], &mut send));
        assert!(bundles.push(address(1), Tag(2), &[0; 800], &mut send));
        assert!(!bundles.push(address(1), Tag(3), &[0; 1_500], &mut send), "it never fits");
    });
    assert_eq!(sent, [(1, 1), (1, 1)]);
}

#[test]
fn path_takes_bundles_as_large_as_received() {
    let (mut bundles, mut bundle) = (Bundles::new(0), Bundle::new(100));
    assert!(bundle.push(Tag(1), b"packet"));
    let long = ReceivedDatagram { length: 2_000, ..datagram(bundle.as_bytes()) };
    let (mut received, now) = (ReceivedPackets::default(), crate::tests::at(0));
    let sent = sent(|mut send| {
        assert!(bundles.push(address(1), Tag(1), &[0; 100], &mut send));
        bundles.receive(&long, reply_to, now, &mut received, &mut send);
        assert!(bundles.push(address(1), Tag(1), &[0; 1_900], &mut send));
    });
    assert_eq!(sent, [(1, 1)]);
}

#[test]
fn shared_bundles_respect_the_path_limit() {
    let mut bundles = Bundles::new(0);
    bundles.limit(address(1), 500);
    let sent = sent(|mut send| {
        for length in [200, 200, 200, 700] {
            assert!(bundles.push(address(1), Tag(1), &vec![0; length], &mut send));
        }
        assert!(bundles.push(address(2), Tag(1), &[0; 600], &mut send), "another way");
        assert!(bundles.push(address(2), Tag(1), &[0; 600], &mut send));
        bundles.flush(&mut send);
    });
    assert_eq!(sent, [(1, 2), (1, 1), (1, 1), (2, 2)]);
}

#[test]
fn encrypted_bundles_leave_space() {
    let longest = |bundles: &mut Bundles, lengths: &[usize]| {
        let mut longest = 0;
        let mut send = |_, bundle: &[u8]| longest = longest.max(bundle.len() + seal::OVERHEAD);
        for &length in lengths {
            let _fits = bundles.push(address(1), Tag(1), &vec![0; length], &mut send);
        }
        bundles.flush(&mut send);
        longest
    };
    let mut bundles = Bundles::sealed(0);
    let fill = |size: usize| size - seal::OVERHEAD - OVERHEAD - ENTRY_OVERHEAD;
    assert_eq!(longest(&mut bundles, &[fill(BUNDLE_MAX)]), BUNDLE_MAX);
    assert_eq!(longest(&mut bundles, &[fill(BUNDLE_MAX) + 1]), 0);
    assert!((SHARED_MAX - 40..=SHARED_MAX).contains(&longest(&mut bundles, &[20; 200])));
    bundles.limit(address(1), 1_200);
    assert!((1_160..=1_200).contains(&longest(&mut bundles, &[20; 200])));
    bundles.handle_size(address(1), 2_000, &mut |_, _| {});
    assert_eq!(longest(&mut bundles, &[fill(2_000)]), 2_000);
}

#[test]
fn bundles_are_numbered_for_peers_that_read_numbers() {
    let (mut bundles, mut sent) = (Bundles::new(u16::MAX), Vec::new());
    let mut send = |to: SocketAddr, bundle: &[u8]| sent.push((to.port(), number(bundle)));
    bundles.set_numbered(address(1), true, &mut send);
    for port in [1, 2, 1, 2] {
        assert!(bundles.push(address(port), Tag(1), b"packet", &mut send));
        bundles.set_numbered(address(1), true, &mut send);
        bundles.flush(&mut send);
    }
    assert!(bundles.push(address(1), Tag(1), b"packet", &mut send));
    bundles.set_numbered(address(1), false, &mut send);
    assert!(bundles.push(address(1), Tag(1), b"packet", &mut send));
    bundles.flush(&mut send);
    let last = Some(u16::MAX);
    let numbers = [(1, last), (2, None), (1, Some(0)), (2, None), (1, Some(1)), (1, None)];
    assert_eq!(sent, numbers);
}

#[test]
fn shared_bundles_leave_space_for_repair() {
    let (mut bundles, mut longest) = (Bundles::new(0), 0);
    let mut send = |_, datagram: &[u8]| longest = longest.max(datagram.len());
    bundles.set_numbered(address(1), true, &mut send);
    let mut report = [0; 13];
    report[0] = demux::LOSS_REPORT;
    (report[10], report[12]) = (20, 1);
    let received = receive(&mut bundles, &datagram(&report), |_| Some(address(1)));
    assert_eq!((received.malformed, received.unknown_source), (0, 0));
    for length in (1..400).chain([1_382; 10]) {
        assert!(bundles.push(address(1), Tag(1), &vec![1; length], &mut send));
    }
    bundles.flush(&mut send);
    assert_eq!(longest, SHARED_MAX, "the repair datagram of the longest bundle");
}

/// The gateways of sessions 1 to 3.
fn reply_to(Tag(tag): Tag) -> Option<SocketAddr> {
    match tag {
        1 | 3 => Some(address(1)),
        2 => Some(address(2)),
        _ => None,
    }
}

fn refused(received: &ReceivedPackets) -> (u64, u64, u64) {
    (received.unknown_tag, received.unknown_source, received.malformed)
}

#[test]
fn packets_of_the_senders_sessions_are_received() {
    let (mut bundles, mut bundle) = (Bundles::new(0), Bundle::new(1_400));
    for (tag, packet) in [(1, b"one"), (4, b"all"), (2, b"two"), (3, b"six")] {
        assert!(bundle.push(Tag(tag), packet));
    }
    let mut received = receive(&mut bundles, &datagram(bundle.as_bytes()), reply_to);
    let packets: Vec<_> = received.packets().collect();
    assert_eq!(packets, [(Tag(1), &b"one"[..]), (Tag(3), &b"six"[..])]);
    assert_eq!(refused(&received), (1, 1, 0));
    let sealed = ReceivedDatagram { is_sealed: true, ..datagram(bundle.as_bytes()) };
    received = receive(&mut bundles, &sealed, reply_to);
    assert_eq!((received.packets().count(), refused(&received)), (3, (1, 0, 0)));
    let cut = &bundle.as_bytes()[..bundle.len() - 1];
    received = receive(&mut bundles, &datagram(cut), reply_to);
    assert_eq!((received.packets().count(), refused(&received)), (1, (1, 1, 1)));
}

#[test]
fn restored_bundle_is_received_once() {
    let (mut bundles, mut gateway) = (Bundles::new(0), TrunkRepair::new(0));
    bundles.set_numbered(address(1), true, &mut |_, _| {});
    let report = [&[demux::LOSS_REPORT][..], &1_u64.to_be_bytes(), &[0, 20, 0, 1]].concat();
    assert_eq!(gateway.handle_repair(&report, crate::tests::at(0)), Ok(()));
    let (mut lost, mut tags, mut restored) = (Vec::new(), Vec::new(), 0);
    for number in 0..25_u8 {
        let (mut bundle, mut sent) = (Bundle::new(1_200), Vec::new());
        assert!(bundle.push(Tag(1), &[number]));
        gateway.send(&mut bundle, |datagram| sent.push(datagram.to_vec()));
        if number == 7 {
            lost = sent.remove(0);
        }
        for content in &sent {
            let received = receive(&mut bundles, &datagram(content), reply_to);
            tags.extend(received.packets().map(|(_, packet)| packet[0]));
            restored += received.bundles_recovered;
        }
    }
    tags.sort_unstable();
    assert_eq!((tags, restored), ((0..25).collect::<Vec<_>>(), 1));
    let late = receive(&mut bundles, &datagram(&lost), reply_to);
    assert_eq!((late.packets().count(), refused(&late)), (0, (0, 0, 0)));
}

#[test]
fn reports_of_strangers_are_refused() {
    let mut bundles = Bundles::new(0);
    bundles.set_numbered(address(1), true, &mut |_, _| {});
    let report = |tag: u64| [&[demux::LOSS_REPORT][..], &tag.to_be_bytes(), &[0, 9, 0, 1]].concat();
    let mut refused_of =
        |content: &[u8]| refused(&receive(&mut bundles, &datagram(content), reply_to));
    assert_eq!(refused_of(&report(1)), (0, 0, 0));
    assert_eq!(refused_of(&report(2)), (0, 1, 0), "a session of another gateway");
    assert_eq!(refused_of(&report(4)), (0, 1, 0), "of no session");
    assert_eq!(refused_of(&report(1)[..12]), (0, 0, 1));
}

#[test]
fn unused_destinations_are_forgotten() {
    let mut bundles = Bundles::new(0);
    let _ = sent(|mut send| {
        bundles.handle_size(address(2), 1, &mut send);
        assert!(bundles.push(address(1), Tag(1), b"queued", &mut send));
        bundles.keep(|to| to == address(2));
        assert_eq!(bundles.destinations(), 2, "queued packets still go out");
        bundles.flush(&mut send);
    });
    bundles.keep(|to| to == address(2));
    assert_eq!(bundles.destinations(), 1);
}
