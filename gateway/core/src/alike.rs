//! What many have alike is kept once: who let sessions in, and what a policy noted of those nothing happens to.

use std::collections::VecDeque;
use std::sync::Arc;

/// So many that differ are compared with; the one that came first gives way.
const AT_HAND: usize = 16;

/// Those that came lately.
#[derive(Debug)]
pub(crate) struct Alike<T>(VecDeque<Arc<T>>);

impl<T> Default for Alike<T> {
    fn default() -> Self {
        Alike(VecDeque::new())
    }
}

impl<T: PartialEq> Alike<T> {
    /// One that is equal, and shared where one came lately.
    pub(crate) fn share(&mut self, one: T) -> Arc<T> {
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
