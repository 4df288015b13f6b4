use std::collections::BTreeSet;

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
fn extension_ids_of_both_forms_are_mapped() {
    let mut map = ExtensionMap::default();
    map.insert(255, 14);
    map.insert(1, 4);
    assert_eq!((map.room_number(255), map.client_number(14)), (Some(14), Some(255)));
    assert_eq!((map.room_number(1), map.client_number(4)), (Some(4), Some(1)));
    assert_eq!(map.client_number(15), None, "reserved in the one-byte form");
}

#[test]
fn room_extensions_have_the_one_byte_form() {
    let ids: BTreeSet<u8> = EXTENSION_URIS.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids.len(), EXTENSION_URIS.len());
    for (id, uri) in EXTENSION_URIS {
        assert!((1..=14).contains(&id), "{id} {uri}");
        assert_eq!(room_extension(uri), Some((id, uri)));
    }
    assert_eq!(room_extension("urn:example:unknown"), None);
}
