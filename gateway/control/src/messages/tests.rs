use super::*;

/// Entries from 1 to `last`. An entry has an item if `is_live` accepts its id.
fn entries(last: u64, is_live: impl Fn(u64) -> bool) -> impl Iterator<Item = (u64, Option<u64>)> {
    (1..=last).map(move |id| (id, is_live(id).then_some(id)))
}

#[test]
fn slice_ends_at_its_cost() {
    let most = COST_MAX as u64;
    let slice = Slice::of(entries(most - 1, |_| true), |_| 1);
    assert_eq!((slice.items.len(), slice.last), (COST_MAX - 1, None));
    let slice = Slice::of(entries(10 * most, |_| true), |_| 1);
    assert_eq!((slice.items.len(), slice.last), (COST_MAX, Some(most)));
    let slice = Slice::of(entries(10, |_| true), |_| COST_MAX / 2);
    assert_eq!((slice.items, slice.last), (vec![1, 2], Some(2)));
}

#[test]
fn entries_without_item_count() {
    let slice = Slice::of(entries(10 * COST_MAX as u64, |_| false), |_| 1);
    assert_eq!((slice.items, slice.last), (vec![], Some(COST_MAX as u64)));
}
