//! Interns equal values: many sessions share the same deciders, requests and states.

use std::collections::VecDeque;
use std::sync::Arc;

const AT_HAND: usize = 16;

/// The most recently used values.
#[derive(Debug)]
pub(crate) struct Interner<T>(VecDeque<Arc<T>>);

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Interner(VecDeque::new())
    }
}

impl<T: PartialEq> Interner<T> {
    /// Returns a shared equal value if one was used recently, else this one.
    pub(crate) fn intern(&mut self, one: T) -> Arc<T> {
        if let Some(same) = self.0.iter().find(|kept| ***kept == one) {
            return Arc::clone(same);
        }
        if self.0.len() == AT_HAND {
            self.0.pop_front();
        }
        let one = Arc::new(one);
        self.0.push_back(Arc::clone(&one));
        one
    }
}

#[cfg(test)]
mod tests;
