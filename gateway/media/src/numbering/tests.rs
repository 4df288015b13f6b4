use evenkeel_fuzz::Corpus;

use super::*;

#[test]
fn mapped_numbers_translate_both_ways() {
    let mut map = PayloadTypeMap::default();
    assert_eq!((map.room_number(96), map.client_number(96)), (None, None));
    map.insert(120, 96);
    map.insert(127, 0);
    assert_eq!((map.room_number(120), map.client_number(96)), (Some(96), Some(120)));
    assert_eq!((map.room_number(127), map.client_number(0)), (Some(0), Some(127)));
    assert_eq!((map.room_number(96), map.client_number(120)), (None, None));
    assert_eq!((map.room_number(128), map.client_number(255)), (None, None));
}

#[test]
fn number_keeps_its_meaning() {
    let mut map = PayloadTypeMap::default();
    map.insert(96, 98);
    assert!(map.admits(96, 98) && !map.admits(96, 100) && map.admits(97, 100));
    // A second number of the same format: packets of both are understood, the first is sent.
    map.insert(97, 98);
    assert_eq!((map.room_number(96), map.room_number(97)), (Some(98), Some(98)));
    assert_eq!(map.client_number(98), Some(96));
}

#[test]
fn only_ids_of_the_one_byte_form_are_admitted() {
    let mut map = ExtensionMap::default();
    for (client, room) in [(0, 1), (1, 0), (15, 1), (255, 1), (1, 15)] {
        assert!(!map.admits(client, room), "{client} {room}");
        map.insert(client, room);
        assert_eq!((map.room_number(client), map.client_number(room)), (None, None));
    }
    map.insert(14, 1);
    assert_eq!((map.room_number(14), map.client_number(1)), (Some(1), Some(14)));
}

#[test]
fn record_keeps_the_numbers_of_both_directions() {
    let mut map = PayloadTypeMap::default();
    for (client, room) in [(97, 98), (96, 98), (120, 96)] {
        map.insert(client, room);
    }
    assert_eq!(map.client_number(98), Some(97));
    let written = rmp_serde::to_vec(&map).unwrap();
    assert_eq!(rmp_serde::from_slice::<PayloadTypeMap>(&written).unwrap(), map);
    let other = rmp_serde::to_vec(&[(128, 1), (3, 200)]).unwrap();
    let read: PayloadTypeMap = rmp_serde::from_slice(&other).unwrap();
    assert_eq!(read, PayloadTypeMap::default(), "out of range");
}

/// A client with Opus as 109, its redundant blocks as 114, VP8 as 120, and three header extensions.
fn numbers() -> ClientNumbers {
    let payload_types = PayloadTypeMap::from(vec![(109, 111), (114, 63), (120, 96)]);
    let extensions = ExtensionMap::from(vec![(1, 1), (3, 2), (7, 12)]);
    ClientNumbers::new(&payload_types, &extensions, Some(63)).expect("numbers differ")
}

fn packet(payload_type: u8, profile: u16, elements: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x91, 0x80 | payload_type, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4];
    packet.extend(profile.to_be_bytes());
    packet.extend((elements.len() as u16 / 4).to_be_bytes());
    packet.extend_from_slice(elements);
    packet.extend_from_slice(payload);
    packet
}

/// Maps a packet there and back. Returns the packet of the room.
fn mapped(numbers: &ClientNumbers, client: &[u8]) -> Vec<u8> {
    let mut packet = client.to_vec();
    numbers.map_to_room(&mut packet).unwrap();
    let room = packet.clone();
    numbers.map_to_client(&mut packet).unwrap();
    assert_eq!(packet, client);
    room
}

#[test]
fn table_of_equal_numbers_is_not_needed() {
    let (payload_types, extensions) = (vec![(111, 111), (96, 96)].into(), vec![(1, 1)].into());
    assert_eq!(ClientNumbers::new(&payload_types, &extensions, None), None);
    let extensions = vec![(1, 1), (3, 2)].into();
    assert!(ClientNumbers::new(&payload_types, &extensions, None).is_some());
}

#[test]
fn payload_type_is_mapped_and_the_marker_stays() {
    let client = packet(120, 0xbede, &[], b"frame");
    assert_eq!(mapped(&numbers(), &client), packet(96, 0xbede, &[], b"frame"));
    for number in [96, 111, 0] {
        let mut unknown = packet(number, 0xbede, &[], b"frame");
        let refused = Err(NumberError::PayloadType(number));
        assert_eq!(numbers().map_to_room(&mut unknown), refused);
    }
    let mut unknown = packet(98, 0xbede, &[], b"frame");
    assert_eq!(numbers().map_to_client(&mut unknown), Err(NumberError::PayloadType(98)));
}

#[test]
fn elements_of_the_one_byte_form_are_mapped() {
    let client = packet(120, 0xbede, &[0x10, 9, 0x32, 1, 2, 3, 0, 0x71, 5, 6, 0, 0], b"");
    let room = packet(96, 0xbede, &[0x10, 9, 0x22, 1, 2, 3, 0, 0xc1, 5, 6, 0, 0], b"");
    assert_eq!(mapped(&numbers(), &client), room);
}

#[test]
fn elements_of_the_two_byte_form_are_mapped() {
    let client = packet(120, 0x1003, &[3, 3, 1, 2, 3, 7, 0, 0], b"");
    let room = packet(96, 0x1003, &[2, 3, 1, 2, 3, 12, 0, 0], b"");
    assert_eq!(mapped(&numbers(), &client), room);
}

#[test]
fn unknown_elements_become_padding() {
    let mut one = packet(120, 0xbede, &[0x51, 8, 9, 0x30, 1, 0, 0, 0], b"x");
    numbers().map_to_room(&mut one).unwrap();
    assert_eq!(one, packet(96, 0xbede, &[0, 0, 0, 0x20, 1, 0, 0, 0], b"x"));
    let mut two = packet(96, 0x1000, &[5, 1, 8, 2, 1, 4, 0, 0], b"x");
    numbers().map_to_client(&mut two).unwrap();
    assert_eq!(two, packet(120, 0x1000, &[0, 0, 0, 3, 1, 4, 0, 0], b"x"));
}

#[test]
fn malformed_elements_and_other_profiles_remain() {
    for (profile, elements) in [
        (0xbede, [0xf0, 1, 0x30, 1]),
        (0xbede, [0x01, 1, 0x30, 1]),
        (0xbede, [0, 0x3f, 1, 1]),
        (0x1000, [0, 3, 9, 1]),
        (0x1000, [0, 0, 0, 3]),
        (0x2000, [0x30, 1, 3, 1]),
    ] {
        let client = packet(120, profile, &elements, b"x");
        assert_eq!(mapped(&numbers(), &client), packet(96, profile, &elements, b"x"));
    }
}

#[test]
fn redundant_blocks_have_the_numbers_of_the_room() {
    let client = packet(114, 0xbede, &[], &[0x80 | 109, 1, 2, 3, 109, 7, 8, 9]);
    let room = packet(63, 0xbede, &[], &[0x80 | 111, 1, 2, 3, 111, 7, 8, 9]);
    assert_eq!(mapped(&numbers(), &client), room);
    let cut = |payload: &[u8]| {
        let mut client = packet(114, 0xbede, &[], payload);
        numbers().map_to_room(&mut client)
    };
    assert_eq!(cut(&[0x80 | 109, 1, 2, 3]), Err(NumberError::Blocks));
    assert_eq!(cut(&[]), Err(NumberError::Blocks));
    assert_eq!(cut(&[0x80 | 109, 1, 2, 3, 8]), Err(NumberError::PayloadType(8)));
}

#[test]
fn malformed_packets_are_refused() {
    assert_eq!(numbers().map_to_room(&mut [0x80; 11]), Err(RtpError::Short.into()));
    let mut long = packet(120, 0xbede, &[0x30, 1, 0, 0], b"");
    long[19] = 9;
    assert_eq!(numbers().map_to_room(&mut long), Err(RtpError::Extension.into()));
    assert_eq!(numbers().map_to_client(&mut long), Err(RtpError::Extension.into()));
}

#[test]
fn fuzz_client_numbers() {
    let numbers = numbers();
    Corpus::of("rtp").check(|bytes| {
        let mut packet = bytes.to_vec();
        if numbers.map_to_room(&mut packet).is_ok() {
            let room = packet.clone();
            // Elements without a number have become padding.
            numbers.map_to_client(&mut packet).unwrap();
            numbers.map_to_room(&mut packet).unwrap();
            assert_eq!(packet, room);
        }
        let _refused = numbers.map_to_client(&mut bytes.to_vec());
    });
}
