//! Stands in for the eventfd: a counter that a thread waits for. Loom reports a thread that waits for ever.

use std::io;

use loom::sync::{Condvar, Mutex};

/// A counter that a thread waits for.
#[derive(Debug)]
pub struct Waker {
    count: Mutex<u64>,
    woken: Condvar,
}

impl Waker {
    /// # Errors
    /// Returns none; the eventfd may.
    pub fn new() -> io::Result<Waker> {
        Ok(Waker { count: Mutex::new(0), woken: Condvar::new() })
    }

    /// Adds one to the counter, and wakes the thread that waits.
    pub fn wake(&self) {
        *self.count.lock().unwrap() += 1;
        self.woken.notify_one();
    }

    /// Takes the counter.
    pub fn clear(&self) -> u64 {
        std::mem::take(&mut *self.count.lock().unwrap())
    }

    /// Waits as `epoll_wait` does: the counter remains.
    pub fn wait(&self) {
        let mut count = self.count.lock().unwrap();
        while *count == 0 {
            count = self.woken.wait(count).unwrap();
        }
    }
}
