//! Stands in for arc-swap, which loom cannot see into: one atomic cell that names a value, stored with Release and loaded
//! with Acquire. Arc-swap promises at least that. How it counts references is its own concern.

use std::sync::{Arc, Mutex, PoisonError};

use loom::sync::atomic::{AtomicUsize, Ordering};

pub(crate) type Guard<A> = A;

#[derive(Debug)]
pub(crate) struct ArcSwap<T> {
    /// All values so far. Loom runs one thread at a time, so this lock orders nothing.
    stored: Mutex<Vec<Arc<T>>>,
    current: AtomicUsize,
}

impl<T> ArcSwap<T> {
    pub(crate) fn from_pointee(value: T) -> ArcSwap<T> {
        ArcSwap { stored: Mutex::new(vec![Arc::new(value)]), current: AtomicUsize::new(0) }
    }

    pub(crate) fn store(&self, value: Arc<T>) {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        stored.push(value);
        let newest = stored.len() - 1;
        drop(stored);
        self.current.store(newest, Ordering::Release);
    }

    pub(crate) fn load(&self) -> Guard<Arc<T>> {
        let current = self.current.load(Ordering::Acquire);
        Arc::clone(&self.stored.lock().unwrap_or_else(PoisonError::into_inner)[current])
    }

    pub(crate) fn load_full(&self) -> Arc<T> {
        self.load()
    }
}
