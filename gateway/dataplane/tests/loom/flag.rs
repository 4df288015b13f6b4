//! Loom's `AtomicBool`, with stores that exchange. A store follows all exchanges that followed an earlier exchange of its
//! thread, since nothing comes between the load and the store of an exchange. Loom does not know that of plain stores and
//! reports orders that cannot occur.

use loom::sync::atomic::{self, Ordering};

#[derive(Debug)]
pub(crate) struct AtomicBool(atomic::AtomicBool);

impl AtomicBool {
    pub(crate) fn new(value: bool) -> AtomicBool {
        AtomicBool(atomic::AtomicBool::new(value))
    }

    pub(crate) fn load(&self, order: Ordering) -> bool {
        self.0.load(order)
    }

    pub(crate) fn store(&self, value: bool, order: Ordering) {
        self.0.swap(value, order);
    }

    pub(crate) fn swap(&self, value: bool, order: Ordering) -> bool {
        self.0.swap(value, order)
    }
}
