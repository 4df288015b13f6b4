//! The engine of the process: configuration of compilation, and state shared by all instances.

use std::collections::HashMap;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::bindings::evenkeel::policy::diag;
use crate::component::Vetted;
use crate::guest::StoreData;
use crate::limits::{
    CallBudgets, MEMORY_BYTES_MAX, MODULES_MAX, POLICIES_MAX, TABLE_ENTRIES_MAX, TABLES_MAX,
};

/// Resolution of budgets.
const TICK: Duration = Duration::from_millis(1);

/// Compiles and runs plugins; one per process. Clones share it.
///
/// The engine has a thread that counts milliseconds while a plugin runs, and reserves the address space of
/// all instances: 774 GiB without memory behind it, or 3 GiB if the process may not reserve so much
/// ([`checks_accesses`](Engine::checks_accesses)).
#[derive(Clone)]
pub struct Engine(Arc<EngineParts>);

struct EngineParts {
    // Dropped before the engine that it ticks.
    ticker: Ticker,
    wasm: wasmtime::Engine,
    reach: MemoryReach,
    linker: Linker<StoreData>,
    budgets: CallBudgets,
    /// Plugins in use by digest: sets share plugins, and settings change without them.
    vetted: Mutex<HashMap<[u8; 32], Weak<Vetted>>>,
}

impl Engine {
    /// An engine with the contract's budgets.
    ///
    /// # Panics
    ///
    /// If the process cannot reserve 3 GiB of address space, or start a thread.
    pub fn new() -> Engine {
        Engine::with_budgets(CallBudgets::default())
    }

    /// An engine with other budgets. Panics as [`Engine::new`] does.
    pub fn with_budgets(budgets: CallBudgets) -> Engine {
        Engine::of(config, budgets)
    }

    /// An engine that counts the instructions of plugins, for
    /// [`BoundPlugin::instructions`](crate::BoundPlugin::instructions); its calls are slower. Panics as
    /// [`Engine::new`] does.
    pub fn counting(budgets: CallBudgets) -> Engine {
        let counting = |reach| {
            let mut config = config(reach);
            config.consume_fuel(true);
            config
        };
        Engine::of(counting, budgets)
    }

    fn of(config: impl Fn(MemoryReach) -> Config, budgets: CallBudgets) -> Engine {
        let wide =
            wasmtime::Engine::new(&config(MemoryReach::Wide)).map(|wasm| (wasm, MemoryReach::Wide));
        let (wasm, reach) = wide
            .or_else(|_| {
                wasmtime::Engine::new(&config(MemoryReach::Narrow)).map(|wasm| (wasm, MemoryReach::Narrow))
            })
            .expect(
                "the configuration is fixed, and a gateway may reserve 3 GiB of address space at its start",
            );
        let mut linker = Linker::new(&wasm);
        diag::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |inside| inside)
            .expect("each import is defined once");
        let ticker = Ticker::start(wasm.clone()).expect("a gateway may start threads at its start");
        Engine(Arc::new(EngineParts {
            ticker,
            wasm,
            reach,
            linker,
            budgets,
            vetted: Mutex::default(),
        }))
    }

    /// True if plugins check each memory access in code, which makes questions about many rows take
    /// half as long again: the process may not reserve 774 GiB of address space (`ulimit -v`).
    pub fn checks_accesses(&self) -> bool {
        self.0.reach == MemoryReach::Narrow
    }

    pub(crate) fn reach(&self) -> MemoryReach {
        self.0.reach
    }

    /// The plugin of this digest, if it is in use.
    pub(crate) fn recall(&self, digest: &[u8; 32]) -> Option<Arc<Vetted>> {
        // No code panics while it holds the lock.
        let vetted = self.0.vetted.lock().unwrap_or_else(PoisonError::into_inner);
        vetted.get(digest).and_then(Weak::upgrade)
    }

    pub(crate) fn remember(&self, digest: [u8; 32], plugin: &Arc<Vetted>) {
        let mut vetted = self.0.vetted.lock().unwrap_or_else(PoisonError::into_inner);
        vetted.retain(|_, held| held.strong_count() > 0);
        vetted.insert(digest, Arc::downgrade(plugin));
    }

    pub(crate) fn wasm(&self) -> &wasmtime::Engine {
        &self.0.wasm
    }

    pub(crate) fn linker(&self) -> &Linker<StoreData> {
        &self.0.linker
    }

    pub(crate) fn ticker(&self) -> &Ticker {
        &self.0.ticker
    }

    pub(crate) fn budgets(&self) -> &CallBudgets {
        &self.0.budgets
    }
}

impl Default for Engine {
    fn default() -> Self {
        Engine::new()
    }
}

/// Address space reserved for the memory of an instance. Code compiled for one reach does not run
/// with the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MemoryReach {
    /// All 32-bit addresses plus what an instruction may add: the MMU catches every access beyond
    /// the memory, so that no access needs a check.
    Wide,
    /// The memory limit of a plugin plus a small guard.
    Narrow,
}

impl MemoryReach {
    const WIDE_BYTES: u64 = 4 << 30;

    /// Largest constant offset that an access may add to an address.
    const WIDE_GUARD_BYTES: u64 = 32 << 20;

    const NARROW_GUARD_BYTES: u64 = 64 << 10;
}

/// Memory of a dropped instance that is wiped and kept for the next one, which would otherwise
/// fault its pages in again; the same for its table. With all slots used once that is 48 MiB plus
/// tables; a gateway with ten policies uses thirty slots.
const KEPT_BYTES: usize = 256 << 10;

/// Slots kept for instances of the same plugin, before one is given to another plugin rather than a
/// new slot.
const WARM_MAX: u32 = 8;

/// Adds the configuration of the instance pool to that of code generation.
fn config(reach: MemoryReach) -> Config {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(POLICIES_MAX)
        .total_core_instances(POLICIES_MAX * 4)
        .total_memories(POLICIES_MAX)
        .total_tables(POLICIES_MAX * 2)
        .max_core_instances_per_component(MODULES_MAX)
        .max_memories_per_component(1)
        .max_memories_per_module(1)
        .max_tables_per_component(TABLES_MAX)
        .max_tables_per_module(TABLES_MAX)
        .table_elements(TABLE_ENTRIES_MAX)
        .max_memory_size(MEMORY_BYTES_MAX)
        .linear_memory_keep_resident(KEPT_BYTES)
        .table_keep_resident(KEPT_BYTES)
        .pagemap_scan(Enabled::Auto)
        .max_unused_warm_slots(WARM_MAX);

    let mut config = code_config(reach);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// Switches off every source of nondeterminism and every feature that no policy needs. Code
/// compiled with this configuration alone runs in every engine of this process with the same reach.
pub(crate) fn code_config(reach: MemoryReach) -> Config {
    let (reservation, guard) = match reach {
        MemoryReach::Wide => (MemoryReach::WIDE_BYTES, MemoryReach::WIDE_GUARD_BYTES),
        MemoryReach::Narrow => (MEMORY_BYTES_MAX as u64, MemoryReach::NARROW_GUARD_BYTES),
    };
    let mut config = Config::new();
    config
        .memory_reservation(reservation)
        .memory_guard_size(guard)
        .epoch_interruption(true)
        .cranelift_nan_canonicalization(true)
        .concurrency_support(false)
        .wasm_component_model(true)
        .wasm_gc(false)
        .wasm_memory64(false)
        .wasm_relaxed_simd(false)
        .wasm_tail_call(false)
        .wasm_multi_memory(false);
    config
}

#[derive(Default)]
struct TickerState {
    calls: AtomicUsize,
    asleep: AtomicBool,
    over: AtomicBool,
}

/// The thread that advances an engine's epoch.
pub(crate) struct Ticker {
    shared: Arc<TickerState>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts the thread, which sleeps until the first call.
    fn start(engine: wasmtime::Engine) -> std::io::Result<Ticker> {
        let shared = Arc::new(TickerState::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("policy-ticker".into())
            .spawn(move || tick(&theirs, &engine))?;
        Ok(Ticker { shared, thread: Some(thread) })
    }

    /// Ticks until the returned guard is dropped. Wakes the thread at most once per tick.
    pub(crate) fn run(&self) -> RunningCall<'_> {
        self.shared.calls.fetch_add(1, SeqCst);
        self.wake();
        RunningCall(&self.shared)
    }

    fn wake(&self) {
        if self.shared.asleep.load(SeqCst)
            && self.shared.asleep.swap(false, SeqCst)
            && let Some(thread) = &self.thread
        {
            thread.thread().unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.over.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread cannot panic.
            let _ = thread.join();
        }
    }
}

pub(crate) struct RunningCall<'a>(&'a TickerState);

impl Drop for RunningCall<'_> {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, SeqCst);
    }
}

/// Number of ticks that cover `budget`, wherever within a tick the call begins.
pub(crate) fn ticks(budget: Duration) -> u64 {
    let whole = budget.as_nanos().div_ceil(TICK.as_nanos());
    u64::try_from(whole).unwrap_or(u64::MAX >> 1).saturating_add(1).min(u64::MAX >> 1)
}

fn tick(shared: &TickerState, engine: &wasmtime::Engine) {
    while !shared.over.load(SeqCst) {
        if shared.calls.load(SeqCst) > 0 {
            thread::sleep(TICK);
            engine.increment_epoch();
            continue;
        }
        // A call that begins between the store and the second check finds `asleep` set and wakes this thread.
        shared.asleep.store(true, SeqCst);
        if shared.calls.load(SeqCst) == 0 && !shared.over.load(SeqCst) {
            thread::park();
        }
        shared.asleep.store(false, SeqCst);
    }
}

#[cfg(test)]
mod tests;
