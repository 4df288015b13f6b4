use evenkeel_fuzz::Corpus;

use super::*;
use crate::trunk::entries;

fn bundle(packets: &[(u64, &[u8])]) -> Bundle {
    let mut bundle = Bundle::new(1_200);
    for (tag, packet) in packets {
        assert!(bundle.push(Tag(*tag), packet));
    }
    bundle
}

#[test]
fn packets_of_any_size_are_read_back_in_order() {
    let packets: [(u64, &[u8]); 3] = [(1, b"a"), (u64::MAX, &[2; 700]), (1, b"ccc")];
    let bytes = bundle(&packets);
    let read: Vec<_> = entries(bytes.as_bytes()).map(Result::unwrap).collect();
    assert_eq!(read, packets.map(|(tag, packet)| (Tag(tag), packet)));
}

#[test]
fn bundle_fills_to_the_byte() {
    let size_max = OVERHEAD + 2 * ENTRY_OVERHEAD + 30;
    let mut bundle = Bundle::new(size_max);
    assert!(bundle.push(Tag(1), &[0; 10]));
    assert!(!bundle.push(Tag(2), &[0; 21]));
    assert_eq!(bundle.as_bytes().len(), 21);
    assert!(bundle.push(Tag(2), &[0; 20]));
    assert_eq!(bundle.as_bytes().len(), size_max);
    assert!(!bundle.push(Tag(3), &[0]));
}

#[test]
fn cleared_bundle_keeps_its_memory() {
    let again = bundle(&[(2, b"b")]);
    let mut bundle = bundle(&[(1, b"a")]);
    let memory = bundle.as_bytes().as_ptr();
    bundle.clear();
    assert!(bundle.is_empty());
    assert!(bundle.push(Tag(2), b"b"));
    assert_eq!(bundle.as_bytes(), again.as_bytes());
    assert_eq!(bundle.as_bytes().as_ptr(), memory);
}

#[test]
fn packet_above_the_length_field_is_refused() {
    let mut bundle = Bundle::new(1 << 20);
    assert!(!bundle.push(Tag(1), &[]));
    assert!(!bundle.push(Tag(1), &vec![0; 65_536]));
    assert!(bundle.push(Tag(1), &vec![0; 65_535]));
}

#[test]
fn truncated_bundle_yields_whole_entries_then_error() {
    let whole = bundle(&[(1, b"aaa"), (2, b"bbb")]);
    let whole = whole.as_bytes();
    for length in 0..whole.len() {
        let expected = match length {
            0..2 => (0, Some(BundleError::Mark)),
            2..11 => (0, Some(BundleError::Entry)),
            11..14 => (0, Some(BundleError::Packet)),
            14 => (1, None),
            15..24 => (1, Some(BundleError::Entry)),
            _ => (1, Some(BundleError::Packet)),
        };
        let items: Vec<_> = entries(&whole[..length]).collect();
        assert_eq!(items.iter().filter(|item| item.is_ok()).count(), expected.0, "{length}");
        assert_eq!(items.iter().find_map(|item| item.err()), expected.1, "{length}");
    }
}

#[test]
fn empty_packet_and_wrong_mark_are_refused() {
    let mut bytes = vec![demux::BUNDLE];
    bytes.extend_from_slice(&[0; ENTRY_OVERHEAD]);
    assert_eq!(entries(&bytes).collect::<Vec<_>>(), [Err(BundleError::Empty)]);
    bytes[0] = demux::SIGNED;
    assert_eq!(entries(&bytes).collect::<Vec<_>>(), [Err(BundleError::Mark)]);
}

#[test]
fn first_tag_needs_no_whole_packet() {
    let whole = bundle(&[(7, b"aaa"), (8, b"bbb")]);
    let bytes = whole.as_bytes();
    assert_eq!([bytes, &bytes[..9]].map(first_tag), [Some(Tag(7)); 2]);
    assert_eq!([&bytes[..8], &bytes[1..], &[]].map(first_tag), [None; 3]);
}

#[test]
fn fuzz_bundle() {
    let seed = bundle(&[(1, b"one"), (u64::MAX, &[2; 100])]);
    Corpus::of("bundle").with(seed.as_bytes()).check(|datagram| {
        let read: Vec<_> = entries(datagram).collect();
        let first = read.first().and_then(|entry| entry.ok());
        assert!(first.is_none() || first.map(|(tag, _)| tag) == first_tag(datagram));
        let mut bundle = Bundle::new(datagram.len());
        for entry in &read {
            let Ok((tag, packet)) = entry else { return };
            assert!(bundle.push(*tag, packet));
        }
        assert_eq!(bundle.as_bytes(), datagram);
    });
}

fn address(port: u16) -> SocketAddr {
    ([192, 0, 2, 1], port).into()
}

/// Returns destination and number of packets of each bundle sent.
fn sent(act: impl FnOnce(&mut dyn FnMut(SocketAddr, &[u8]))) -> Vec<(u16, usize)> {
    let mut sent = Vec::new();
    act(&mut |to, bundle| sent.push((to.port(), entries(bundle).count())));
    sent
}

#[test]
fn packets_of_one_destination_share_a_bundle() {
    let mut bundles = Bundles::default();
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
    let mut bundles = Bundles::default();
    let sent = sent(|mut send| {
        assert!(bundles.push(address(1), Tag(1), &[0; 800], &mut send));
        assert!(bundles.push(address(1), Tag(2), &[0; 800], &mut send));
        assert!(!bundles.push(address(1), Tag(3), &[0; 1_500], &mut send), "it never fits");
    });
    assert_eq!(sent, [(1, 1), (1, 1)]);
}

#[test]
fn path_takes_bundles_as_large_as_received() {
    let mut bundles = Bundles::default();
    let sent = sent(|mut send| {
        assert!(bundles.push(address(1), Tag(1), &[0; 100], &mut send));
        bundles.handle_size(address(1), 2_000, &mut send);
        assert!(bundles.push(address(1), Tag(1), &[0; 1_900], &mut send));
    });
    assert_eq!(sent, [(1, 1)]);
}

#[test]
fn shared_bundles_respect_the_path_limit() {
    let mut bundles = Bundles::default();
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
    let mut bundles = Bundles::sealed();
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
fn unused_destinations_are_forgotten() {
    let mut bundles = Bundles::default();
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
