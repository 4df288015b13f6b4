//! The one engine of a process: how plugins are compiled and what every instance shares.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::bindings::evenkeel::policy::diag;
use crate::component::Vetted;
use crate::guest::Inside;
use crate::limits::{
    Budgets, MEMORY_BYTES_MAX, MODULES_MAX, POLICIES_MAX, TABLE_ENTRIES_MAX, TABLES_MAX,
};
use crate::ticker::Ticker;

/// Compiles plugins and runs them; one per process. Clones are the same engine.
///
/// It owns a thread that counts milliseconds while a plugin runs, and reserves the address space of all instances
/// at once.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    // Dropped before the engine that it ticks.
    ticker: Ticker,
    wasm: wasmtime::Engine,
    linker: Linker<Inside>,
    budgets: Budgets,
    /// By digest, what some policy still runs: sets share plugins, and settings change without them.
    vetted: Mutex<HashMap<[u8; 32], Weak<Vetted>>>,
}

impl Engine {
    /// An engine with the budgets of the contract.
    ///
    /// # Panics
    ///
    /// Where the process may not reserve address space (about 2 GiB, none of it used) or start a thread.
    pub fn new() -> Engine {
        Engine::with_budgets(Budgets::default())
    }

    /// An engine with other budgets. Panics as [`Engine::new`] does.
    pub fn with_budgets(budgets: Budgets) -> Engine {
        Engine::of(&config(), budgets)
    }

    /// An engine that counts what plugins execute, for [`Policy::instructions`](crate::Policy::instructions); calls take
    /// longer there. Panics as [`Engine::new`] does.
    pub fn counting(budgets: Budgets) -> Engine {
        let mut config = config();
        config.consume_fuel(true);
        Engine::of(&config, budgets)
    }

    fn of(config: &Config, budgets: Budgets) -> Engine {
        let wasm = wasmtime::Engine::new(config).expect(
            "the configuration is fixed, and a gateway may reserve address space at its start",
        );
        let mut linker = Linker::new(&wasm);
        diag::add_to_linker::<_, HasSelf<Inside>>(&mut linker, |inside| inside)
            .expect("each import is defined once");
        let ticker = Ticker::start(wasm.clone()).expect("a gateway may start threads at its start");
        Engine(Arc::new(Shared { ticker, wasm, linker, budgets, vetted: Mutex::default() }))
    }

    /// What was vetted before from bytes of this digest, while anybody holds it.
    pub(crate) fn recall(&self, digest: &[u8; 32]) -> Option<Arc<Vetted>> {
        // Nobody panics while holding it.
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

    pub(crate) fn linker(&self) -> &Linker<Inside> {
        &self.0.linker
    }

    pub(crate) fn ticker(&self) -> &Ticker {
        &self.0.ticker
    }

    pub(crate) fn budgets(&self) -> &Budgets {
        &self.0.budgets
    }
}

impl Default for Engine {
    fn default() -> Self {
        Engine::new()
    }
}

/// Where instances live, beside what decides what code they run.
fn config() -> Config {
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
        .max_memory_size(MEMORY_BYTES_MAX);

    let mut config = code_config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// Everything that could make one input give two outputs is off, and so is everything that no policy needs. Code that was
/// compiled by these words alone runs in every engine of this process.
pub(crate) fn code_config() -> Config {
    let mut config = Config::new();
    config
        .memory_reservation(MEMORY_BYTES_MAX as u64)
        .memory_guard_size(64 << 10)
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
