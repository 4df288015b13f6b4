//! Slices of long lists.

/// Maximum cost of a slice, in views of one session. Copying that many takes about 100 µs, so lists delay failure
/// detection by no more than that.
const COST_MAX: usize = 100;

/// Part of a list, in order of its ids.
#[derive(Clone, PartialEq, Debug)]
pub struct Slice<Id, T> {
    pub items: Vec<T>,
    /// The id that the slice ends with; `None` at the end of the list.
    pub last: Option<Id>,
}

impl<Id, T> Slice<Id, T> {
    /// Takes entries until their cost reaches [`COST_MAX`]. An entry without an item costs one.
    pub(super) fn of(
        entries: impl Iterator<Item = (Id, Option<T>)>,
        cost: impl Fn(&T) -> usize,
    ) -> Slice<Id, T> {
        let (mut items, mut left) = (Vec::new(), COST_MAX);
        for (id, item) in entries {
            left = left.saturating_sub(item.as_ref().map_or(1, &cost));
            items.extend(item);
            if left == 0 {
                return Slice { items, last: Some(id) };
            }
        }
        Slice { items, last: None }
    }
}

#[cfg(test)]
mod tests;
