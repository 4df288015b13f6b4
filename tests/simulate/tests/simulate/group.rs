//! Groups of gateways keep their promises, for more seeds than worlds with media.

use evenkeel_simulate::group::play;

#[test]
fn groups_keep_promises() {
    let broken: Vec<String> = (1_000..1_200)
        .filter_map(|seed| Some((seed, play(seed, false).violations.into_iter().next()?)))
        .map(|(seed, violation)| format!("make simulate SEED={seed}: {violation}"))
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn store_decides_takeovers() {
    let decided = |seed| play(seed, false).takeovers.contains_key("silence, by the store");
    assert!((0..100).any(decided));
}

#[test]
fn same_seed_gives_same_group() {
    let first = play(11, false);
    assert!(!first.takeovers.is_empty());
    assert_eq!(first, play(11, false));
}
