//! The memory of the caches from which sessions are repaired.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// The bytes that the caches of all sessions may have, `repair_memory` of `[limits]`. The workers share it.
#[derive(Clone, Debug)]
pub struct RepairMemory(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    limit: usize,
    reserved: AtomicUsize,
}

impl RepairMemory {
    pub fn new(limit: usize) -> RepairMemory {
        RepairMemory(Arc::new(Budget { limit, reserved: AtomicUsize::new(0) }))
    }

    /// Reserves bytes. Returns false, and reserves nothing, if they would exceed the limit.
    pub(crate) fn reserve(&self, bytes: usize) -> bool {
        let Budget { limit, reserved } = &*self.0;
        let more = |before: usize| before.checked_add(bytes).filter(|after| after <= limit);
        reserved.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    /// Returns bytes that were reserved.
    pub(crate) fn release(&self, bytes: usize) {
        self.0.reserved.fetch_sub(bytes, Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn reserved(&self) -> usize {
        self.0.reserved.load(Relaxed)
    }
}

/// The bytes of one cache, which are released with it.
#[derive(Default, Debug)]
pub(crate) struct ReservedMemory(Option<(RepairMemory, usize)>);

impl ReservedMemory {
    /// Reserves this many bytes in all. Returns false, and reserves no more than before, if they would exceed the limit.
    pub(crate) fn grow_to(&mut self, bytes: usize, memory: &RepairMemory) -> bool {
        let reserved = self.0.as_ref().map_or(0, |(_, reserved)| *reserved);
        let is_reserved = memory.reserve(bytes.saturating_sub(reserved));
        if is_reserved {
            self.0 = Some((memory.clone(), bytes.max(reserved)));
        }
        is_reserved
    }
}

impl Drop for ReservedMemory {
    fn drop(&mut self) {
        if let Some((memory, bytes)) = &self.0 {
            memory.release(*bytes);
        }
    }
}

#[cfg(test)]
mod tests;
