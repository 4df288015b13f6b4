use super::super::*;

fn blobs(offsets: &[u32], bytes: usize) -> BlobsResult {
    BlobsResult { offsets: offsets.to_vec(), bytes: vec![7; bytes] }
}

fn state(plugin: &str, schema: u32) -> PluginState {
    PluginState { plugin: plugin.into(), schema, bytes: [1].into() }
}

#[test]
fn states_with_wrong_offsets_are_malformed() {
    assert_eq!(slices(&blobs(&[0, 2, 2], 2), 2, "keep").unwrap(), [&[7, 7][..], &[]]);
    assert!(slices(&blobs(&[], 0), 0, "keep").unwrap().is_empty());
    assert!(slices(&blobs(&[0], 0), 0, "keep").unwrap().is_empty());
    for (offsets, bytes, rows) in [
        (&[0, 2][..], 2, 2),
        (&[0, 1, 2], 2, 1),
        (&[], 0, 1),
        (&[1, 2], 2, 1),
        (&[0, 1], 2, 1),
        (&[0, 3], 2, 1),
        (&[0, 2, 1, 2], 2, 3),
        (&[0, u32::MAX, 2], 2, 2),
        (&[], 1, 0),
    ] {
        let fault = slices(&blobs(offsets, bytes), rows, "keep").unwrap_err();
        assert!(matches!(fault, PluginFault::Malformed(_)), "{offsets:?} of {bytes}");
    }
}

#[test]
fn state_size_is_bounded() {
    let max = STATE_BYTES_MAX;
    assert!(slices(&blobs(&[0, max as u32], max), 1, "keep").is_ok());
    assert!(slices(&blobs(&[0, max as u32 + 1], max + 1), 1, "keep").is_err());
}

#[test]
fn foreign_states_are_new_and_older_ones_migrate() {
    let rows =
        [None, Some(state("a", 2)), Some(state("b", 2)), Some(state("a", 3)), Some(state("a", 1))];
    let states = QuestionStates::of(&"a".into(), 2, rows.iter().map(Option::as_ref));
    assert_eq!(states.newcomers, [0, 2, 3]);
    assert_eq!(states.older, BTreeMap::from([(1, vec![4])]));
}
