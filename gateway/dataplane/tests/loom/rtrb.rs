//! Stands in for rtrb, which loom cannot see into. It has the same two positions, with the same orderings and cached
//! copies, and keeps all values that were pushed. How rtrb reuses its memory is its own concern.

use std::sync::{Arc, Mutex, PoisonError};

use loom::sync::atomic::{AtomicUsize, Ordering};

pub(crate) struct RingBuffer<T> {
    /// Loom runs one thread at a time, so this lock orders nothing.
    pushed: Mutex<Vec<T>>,
    capacity: usize,
    head: AtomicUsize,
    tail: AtomicUsize,
}

impl<T: Copy> RingBuffer<T> {
    #[expect(clippy::new_ret_no_self)]
    pub(crate) fn new(capacity: usize) -> (Producer<T>, Consumer<T>) {
        let (head, tail) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let buffer = Arc::new(RingBuffer { pushed: Mutex::default(), capacity, head, tail });
        let consumer =
            Consumer { buffer: Arc::clone(&buffer), head: 0, cached_tail: 0, first: None };
        (Producer { buffer, cached_head: 0, tail: 0 }, consumer)
    }
}

pub(crate) struct Producer<T> {
    buffer: Arc<RingBuffer<T>>,
    cached_head: usize,
    tail: usize,
}

/// The value that did not fit.
#[derive(Debug)]
pub(crate) struct Full;

impl<T: Copy> Producer<T> {
    fn has_room(&mut self, count: usize) -> bool {
        let fits = |head: usize| self.tail + count <= head + self.buffer.capacity;
        if !fits(self.cached_head) {
            self.cached_head = self.buffer.head.load(Ordering::Acquire);
        }
        self.tail + count <= self.cached_head + self.buffer.capacity
    }

    pub(crate) fn is_full(&mut self) -> bool {
        !self.has_room(1)
    }

    pub(crate) fn push(&mut self, value: T) -> Result<(), Full> {
        self.push_entire_slice(&[value])
    }

    pub(crate) fn push_entire_slice(&mut self, values: &[T]) -> Result<(), Full> {
        if !self.has_room(values.len()) {
            return Err(Full);
        }
        let mut pushed = self.buffer.pushed.lock().unwrap_or_else(PoisonError::into_inner);
        pushed.extend_from_slice(values);
        self.tail = pushed.len();
        drop(pushed);
        self.buffer.tail.store(self.tail, Ordering::Release);
        Ok(())
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.buffer) < 2
    }
}

pub(crate) struct Consumer<T> {
    buffer: Arc<RingBuffer<T>>,
    head: usize,
    cached_tail: usize,
    first: Option<T>,
}

/// Less is there.
#[derive(Debug)]
pub(crate) struct TooFew;

impl<T: Copy> Consumer<T> {
    fn has(&mut self, count: usize) -> bool {
        if self.cached_tail < self.head + count {
            self.cached_tail = self.buffer.tail.load(Ordering::Acquire);
        }
        self.head + count <= self.cached_tail
    }

    pub(crate) fn is_empty(&mut self) -> bool {
        !self.has(1)
    }

    pub(crate) fn peek(&mut self) -> Result<&T, TooFew> {
        self.first = self.read_chunk(1)?.values.first().copied();
        self.first.as_ref().ok_or(TooFew)
    }

    pub(crate) fn pop(&mut self) -> Result<T, TooFew> {
        let first = *self.peek()?;
        self.commit(1);
        Ok(first)
    }

    pub(crate) fn read_chunk(&mut self, count: usize) -> Result<ReadChunk<'_, T>, TooFew> {
        if !self.has(count) {
            return Err(TooFew);
        }
        let pushed = self.buffer.pushed.lock().unwrap_or_else(PoisonError::into_inner);
        let values = pushed[self.head..][..count].to_vec();
        drop(pushed);
        Ok(ReadChunk { values, of: self })
    }

    fn commit(&mut self, count: usize) {
        self.head += count;
        self.buffer.head.store(self.head, Ordering::Release);
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.buffer) < 2
    }
}

pub(crate) struct ReadChunk<'a, T> {
    values: Vec<T>,
    of: &'a mut Consumer<T>,
}

impl<T: Copy> ReadChunk<'_, T> {
    pub(crate) fn as_slices(&self) -> (&[T], &[T]) {
        (&self.values, &[])
    }

    pub(crate) fn commit_all(self) {
        self.of.commit(self.values.len());
    }
}
