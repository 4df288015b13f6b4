use evenkeel_fuzz::Corpus;

use super::*;
use crate::rtp::{Fields, write};

const FIELDS: Fields =
    Fields { payload_type: 96, marker: true, sequence: 1, timestamp: 2, ssrc: 3 };

/// A packet with two CSRCs and padding. `extension`: its profile, and its elements.
fn packet(extension: Option<(u16, &[u8])>) -> Vec<u8> {
    let mut packet = Vec::new();
    write(&FIELDS, b"frame", &mut packet);
    let payload = packet.split_off(HEADER_LEN);
    packet[0] |= 0x20 | 2;
    packet.extend_from_slice(&[1, 1, 1, 1, 2, 2, 2, 2]);
    if let Some((profile, elements)) = extension {
        packet[0] |= EXTENSION;
        packet.extend(profile.to_be_bytes());
        packet.extend((elements.len() as u16 / 4).to_be_bytes());
        packet.extend_from_slice(elements);
    }
    packet.extend_from_slice(&payload);
    packet.extend_from_slice(&[0, 0, 3]);
    packet
}

fn read(packet: &[u8], id: u8) -> Option<&[u8]> {
    element(packet, &RtpHeader::parse(packet).unwrap(), id)
}

/// Sets an element. Returns the packet, if it can have the element.
fn set(packet: &[u8], id: u8, value: u16) -> Option<Vec<u8>> {
    let header = RtpHeader::parse(packet).unwrap();
    let mut out = b"a packet before".to_vec();
    let is_set = set_or_insert_u16(packet, &header, id, value, &mut out);
    assert!(is_set || out == packet, "unchanged");
    is_set.then_some(out)
}

#[test]
fn elements_of_both_forms_are_found() {
    let short = packet(Some((0xbede, &[0x10, 9, 0, 0x32, 1, 2, 3, 0xe0, 7, 0, 0, 0])));
    assert_eq!([1, 3, 14].map(|id| read(&short, id)), [&[9][..], &[1, 2, 3], &[7]].map(Some));
    let long = packet(Some((0x1005, &[3, 0, 0, 255, 2, 5, 6, 0])));
    assert_eq!([3, 255].map(|id| read(&long, id)), [&[][..], &[5, 6]].map(Some));
    for absent in [0, 2, 15] {
        assert_eq!([&short, &long].map(|packet| read(packet, absent)), [None, None]);
    }
    assert_eq!(read(&packet(None), 3), None);
}

#[test]
fn elements_behind_a_malformed_one_are_ignored() {
    for (profile, elements) in [
        (0xbede, [0xf0, 1, 0x30, 1]),
        (0xbede, [0x01, 1, 0x30, 1]),
        (0xbede, [0, 0x2f, 0x30, 1]),
        (0x1000, [9, 3, 3, 0]),
        (0x1000, [0, 0, 0, 3]),
        (0x2000, [0x30, 1, 3, 0]),
    ] {
        assert_eq!(read(&packet(Some((profile, &elements))), 3), None, "{profile:x} {elements:x?}");
    }
}

#[test]
fn element_of_the_packet_is_overwritten() {
    let before = packet(Some((0xbede, &[0x10, 9, 0x31, 1, 2, 0, 0, 0])));
    let after = packet(Some((0xbede, &[0x10, 9, 0x31, 0xab, 0xcd, 0, 0, 0])));
    assert_eq!(set(&before, 3, 0xabcd), Some(after));
    let before = packet(Some((0x1000, &[0, 200, 2, 1, 2, 7, 0, 0])));
    let after = packet(Some((0x1000, &[0, 200, 2, 0xab, 0xcd, 7, 0, 0])));
    assert_eq!(set(&before, 200, 0xabcd), Some(after));
}

#[test]
fn new_element_stands_before_the_others() {
    // The reserved id ends what receivers read.
    let before = packet(Some((0xbede, &[0xf0, 9, 0, 0])));
    let after = packet(Some((0xbede, &[0x31, 0xab, 0xcd, 0, 0xf0, 9, 0, 0])));
    assert_eq!(set(&before, 3, 0xabcd), Some(after));
    let before = packet(Some((0x1004, &[7, 1, 9, 0])));
    let after = packet(Some((0x1004, &[3, 2, 0xab, 0xcd, 7, 1, 9, 0])));
    assert_eq!(set(&before, 3, 0xabcd), Some(after));
    // An element of another length has another meaning.
    let before = packet(Some((0xbede, &[0x33, 1, 2, 3, 4, 0, 0, 0])));
    let after = packet(Some((0xbede, &[0x31, 0xab, 0xcd, 0, 0x33, 1, 2, 3, 4, 0, 0, 0])));
    assert_eq!(set(&before, 3, 0xabcd), Some(after));
}

#[test]
fn packet_without_header_extension_gets_one() {
    let expected = packet(Some((0xbede, &[0xe1, 0xab, 0xcd, 0])));
    assert_eq!(set(&packet(None), 14, 0xabcd), Some(expected));
    let expected = packet(Some((0x1000, &[16, 2, 0xab, 0xcd])));
    assert_eq!(set(&packet(None), 16, 0xabcd), Some(expected));
}

#[test]
fn packet_that_cannot_have_the_element_remains() {
    assert_eq!(set(&packet(Some((0xbede, &[0x10, 9, 0, 0]))), 16, 1), None, "the one-byte form");
    assert_eq!(set(&packet(Some((0x2000, &[0x30, 9, 0, 0]))), 3, 1), None, "another form");
    let empty = packet(Some((0xbede, &[])));
    assert_eq!(set(&empty, 3, 1), Some(packet(Some((0xbede, &[0x31, 0, 1, 0])))));
}

#[test]
fn several_elements_share_their_padding() {
    let new = [NewElement { id: 4, data: b"abc" }, NewElement { id: 10, data: b"h" }];
    let insert = |before: &[u8], new: &[NewElement<'_>]| {
        let (header, mut out) = (RtpHeader::parse(before).unwrap(), Vec::new());
        let is_inserted = insert(before, &header, new, &mut out);
        assert!(is_inserted || out == before, "unchanged");
        is_inserted.then_some(out)
    };
    let short = [0x42, b'a', b'b', b'c', 0xa0, b'h', 0, 0];
    assert_eq!(insert(&packet(None), &new), Some(packet(Some((0xbede, &short)))));
    let before = packet(Some((0xbede, &[0x10, 9, 0, 0])));
    let after = [&short[..], &[0x10, 9, 0, 0]].concat();
    assert_eq!(insert(&before, &new), Some(packet(Some((0xbede, &after)))));
    let long = [4, 3, b'a', b'b', b'c', 10, 1, b'h', 7, 1, 9, 0];
    let before = packet(Some((0x1000, &[7, 1, 9, 0])));
    assert_eq!(insert(&before, &new), Some(packet(Some((0x1000, &long)))));
    let longest = [NewElement { id: 4, data: &[1; 17] }];
    assert_eq!(insert(&packet(Some((0xbede, &[0x10, 9, 0, 0]))), &longest), None);
    let two_bytes = insert(&packet(None), &longest).unwrap();
    assert_eq!(read(&two_bytes, 4), Some(&[1; 17][..]));
}

#[test]
fn cleared_elements_are_padding() {
    let mut short = packet(Some((0xbede, &[0x42, 1, 2, 3, 0x10, 9, 0xa0, 5])));
    clear(&mut short, &[4, 10]);
    assert_eq!(short, packet(Some((0xbede, &[0, 0, 0, 0, 0x10, 9, 0, 0]))));
    let mut long = packet(Some((0x1000, &[4, 1, 7, 1, 1, 9, 0, 0])));
    clear(&mut long, &[4]);
    assert_eq!(long, packet(Some((0x1000, &[0, 0, 0, 1, 1, 9, 0, 0]))));
}

#[test]
fn fuzz_extension() {
    let seeds = [packet(None), packet(Some((0xbede, &[0x31, 1, 2, 0])))];
    let corpus = seeds.into_iter().fold(Corpus::of("rtp"), Corpus::with);
    corpus.check(|bytes| {
        let Ok(header) = RtpHeader::parse(bytes) else { return };
        for id in [1, 3, 14, 16, 255] {
            let before = [2, 5, 13].map(|other| read(bytes, other));
            let Some(out) = set(bytes, id, 0xabcd) else { continue };
            assert!((bytes.len()..=bytes.len() + 8).contains(&out.len()));
            let after = RtpHeader::parse(&out).unwrap();
            assert_eq!(element(&out, &after, id), Some(&[0xab, 0xcd][..]));
            assert_eq!([2, 5, 13].map(|other| read(&out, other)), before);
            assert_eq!(after.payload(&out), header.payload(bytes));
            let (payload_offset, payload_end) = (header.payload_offset, header.payload_end);
            assert_eq!(RtpHeader { payload_offset, payload_end, ..after }, header);
            assert_eq!(set(&out, id, 0xabcd), Some(out.clone()), "again");
        }
    });
}
