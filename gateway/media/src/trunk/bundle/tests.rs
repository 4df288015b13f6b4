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
        match number(datagram) {
            None => assert_eq!(bundle.as_bytes(), datagram),
            Some(number) => assert_eq!(bundle.numbered(number), datagram),
        }
    });
}

#[test]
fn numbered_bundle_is_read_like_another() {
    let mut bundle = bundle(&[(7, b"aaa"), (8, b"bbb")]);
    let plain = bundle.as_bytes().to_vec();
    let numbered = bundle.numbered(0x1234).to_vec();
    assert_eq!(numbered, [&[demux::NUMBERED_BUNDLE, 0x12, 0x34][..], &plain[1..]].concat());
    assert_eq!([&numbered, &plain].map(|it| number(it)), [Some(0x1234), None]);
    assert!(entries(&numbered).eq(entries(&plain)));
    assert_eq!([&numbered[..], &numbered[..11]].map(first_tag), [Some(Tag(7)); 2]);
    assert_eq!(first_tag(&numbered[..10]), None);
    bundle.clear();
    assert!(bundle.is_empty() && bundle.push(Tag(7), b"aaa") && bundle.push(Tag(8), b"bbb"));
    assert_eq!(bundle.as_bytes(), plain);
    for length in 1..4 {
        assert_eq!(entries(&numbered[..length]).collect::<Vec<_>>(), [Err(BundleError::Mark)]);
    }
}
