use std::collections::BTreeSet;

use super::*;

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
