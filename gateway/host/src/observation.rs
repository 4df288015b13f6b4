//! Observation of plugins by tools of authors: the functions in which a plugin spends its time, and the places that it
//! reaches.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use wasmtime::{AsContext, WasmBacktrace};

/// The interface that a plugin imports to report the places that it reaches. No gateway has it.
pub const OBSERVED_INTERFACE: &str = "evenkeel:author/coverage@0.1.0";

/// The function of the interface: it takes the number of the place.
pub const OBSERVED_FUNCTION: &str = "hit";

pub(crate) const OBSERVED_WIT: &str = "package evenkeel:author@0.1.0;
    interface coverage { hit: func(place: u32); }
    world observed { import coverage; }";

/// The places that a plugin has reached, by number.
#[derive(Clone, Debug)]
pub struct ReachedPlaces(Arc<[AtomicBool]>);

impl ReachedPlaces {
    pub(crate) fn of(places: usize) -> ReachedPlaces {
        ReachedPlaces((0..places).map(|_| AtomicBool::new(false)).collect())
    }

    pub(crate) fn reach(&self, place: u32) {
        if let Some(reached) = self.0.get(place as usize) {
            reached.store(true, Relaxed);
        }
    }

    /// True if the plugin was there.
    pub fn has(&self, place: usize) -> bool {
        self.0.get(place).is_some_and(|reached| reached.load(Relaxed))
    }
}

/// Call stacks of running plugins, the outermost function first, with the number of milliseconds in which each was seen.
#[derive(Clone, Default, Debug)]
pub struct StackSamples(Arc<Mutex<BTreeMap<Vec<Box<str>>, u64>>>);

impl StackSamples {
    pub(crate) fn take(&self, store: impl AsContext) {
        let trace = WasmBacktrace::force_capture(store);
        let name = |frame: &wasmtime::FrameInfo| match frame.func_name() {
            Some(name) => name.into(),
            None => format!("function {}", frame.func_index()).into(),
        };
        let stack: Vec<Box<str>> = trace.frames().iter().rev().map(name).collect();
        // No code panics while it holds the lock.
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *samples.entry(stack).or_default() += 1;
    }

    /// The stacks so far.
    pub fn stacks(&self) -> BTreeMap<Vec<Box<str>>, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The number of samples.
    pub fn count(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}
