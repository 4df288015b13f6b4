//! The decisions of a gateway as they follow each other, and which of them were acknowledged.

use std::collections::{BTreeMap, BTreeSet};

/// Values by the names of what was decided about; none for a default.
pub(super) type Decisions = BTreeMap<String, String>;

/// The last acknowledged value of each decision, and the later ones.
#[derive(Default)]
pub(super) struct Journal {
    seen: u64,
    values: BTreeMap<String, Vec<(u64, Option<String>)>>,
    /// All values since the start, also those that were forgotten.
    ever: BTreeSet<(String, Option<String>)>,
}

impl Journal {
    /// Notes the decisions of the owner. Returns the number of this state.
    pub(super) fn observe(&mut self, decisions: &Decisions) -> u64 {
        self.seen += 1;
        for name in self.names(decisions) {
            let value = decisions.get(&name).cloned();
            self.ever.insert((name.clone(), value.clone()));
            let values = self.values.entry(name).or_insert_with(|| vec![(0, None)]);
            if values.last().is_none_or(|(_, last)| *last != value) {
                values.push((self.seen, value));
            }
        }
        self.seen
    }

    /// The decisions that this state had are acknowledged, as far as they concern `about`.
    pub(super) fn acknowledge(&mut self, state: u64, about: impl Fn(&str) -> bool) {
        for (_, values) in self.values.iter_mut().filter(|(name, _)| about(name)) {
            let last = values.iter().rposition(|(since, _)| *since <= state);
            values.drain(..last.unwrap_or(0));
        }
    }

    /// Another process continues with these decisions. Returns what it forgot. With `excused` an earlier state may return.
    pub(super) fn continue_with(&mut self, decisions: &Decisions, excused: bool) -> Vec<String> {
        let names = self.names(decisions);
        let forgotten = names.into_iter().filter_map(|name| {
            let value = decisions.get(&name).cloned();
            let none = vec![(0, None)];
            let values = self.values.get(&name).unwrap_or(&none);
            let was = value.is_none() || self.ever.contains(&(name.clone(), value.clone()));
            let is_known = values.iter().any(|(_, known)| *known == value) || excused && was;
            let later: Vec<_> = values.iter().skip(1).map(|(_, value)| value).collect();
            let acknowledged = values.first().and_then(|(_, value)| value.as_ref());
            (!is_known).then(|| {
                format!("{name}: {value:?}, acknowledged {acknowledged:?}, later {later:?}")
            })
        });
        let forgotten = forgotten.collect();
        self.values.clear();
        self.observe(decisions);
        forgotten
    }

    fn names(&self, decisions: &Decisions) -> BTreeSet<String> {
        self.values.keys().chain(decisions.keys()).cloned().collect()
    }
}
