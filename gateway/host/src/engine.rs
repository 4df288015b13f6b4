//! The engine of the process, and the plugins that it compiles and loads.
//!
//! The only module of this crate with `unsafe`: the engine cannot tell compiled code from forged code. The bytes of
//! [`NativeCode`] come from this crate only: from a compiler in this process, from the pipe of one that this process
//! started ([`CompileOrder`](crate::CompileOrder)), or from a file with this host's MAC ([`Cache`](crate::Cache)).

use std::collections::HashMap;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{
    Config, Enabled, InstanceAllocationStrategy, Module, PoolingAllocationConfig, StoreContextMut,
};

use crate::component::LinkedComponent;
use crate::flat::FlatModule;
use crate::limits::{
    CallBudgets, MEMORY_BYTES_MAX, MODULES_MAX, POLICIES_MAX, TABLE_ENTRIES_MAX, TABLES_MAX,
};
use crate::manifest::Manifest;
use crate::observation::{OBSERVED_FUNCTION, OBSERVED_INTERFACE, ReachedPlaces, StackSamples};
use crate::plugin_file::{examine, read_manifest, sha256, wrapped, wrapped_observed};
use crate::refusal::PluginRefusal;
use crate::store::StoreData;
use crate::store::bindings::evenkeel::policy::{data, diag};

/// Resolution of budgets.
const TICK: Duration = Duration::from_millis(1);
const TICK_NANOS: u32 = TICK.subsec_nanos();
const TICKS_PER_SECOND: u64 = 1_000;

/// Compiles and runs plugins; one per process. Clones share it.
///
/// The engine has a thread that counts milliseconds while a plugin runs, and reserves the address space of
/// all instances: 774 GiB without memory behind it, or 3 GiB if the process may not reserve so much
/// ([`checks_accesses`](Engine::checks_accesses)).
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<EngineParts>);

pub(crate) struct EngineParts {
    // Dropped before the engine that it ticks.
    pub(crate) ticker: Ticker,
    pub(crate) wasm: wasmtime::Engine,
    pub(crate) reach: MemoryReach,
    linker: Linker<StoreData>,
    pub(crate) budgets: CallBudgets,
    /// The engine of an author's tool: a question that exceeds its budget gets as much processor time again.
    pub(crate) is_patient: bool,
    /// Takes the place of budgets: a sample of the stack each millisecond.
    pub(crate) samples: Option<StackSamples>,
    /// Plugins in use by digest: sets share plugins, and settings change without them.
    vetted: Mutex<HashMap<[u8; 32], Weak<VettedPlugin>>>,
}

/// The purpose of an engine.
#[derive(Default)]
struct EngineUse {
    budgets: CallBudgets,
    is_patient: bool,
    samples: Option<StackSamples>,
    reports: Option<ReachedPlaces>,
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
        Engine::of(config, EngineUse { budgets, ..EngineUse::default() })
    }

    /// An engine for tools of authors. Their machines compile meanwhile: a question that exceeds its budget on the wall
    /// clock is stopped once it has used as much processor time. Panics as [`Engine::new`] does.
    pub fn patient(budgets: CallBudgets) -> Engine {
        Engine::of(config, EngineUse { budgets, is_patient: true, ..EngineUse::default() })
    }

    /// An engine that samples the stacks of running plugins each millisecond. It stops no call, so ask an engine that
    /// does first. Panics as [`Engine::new`] does.
    pub fn sampling() -> (Engine, StackSamples) {
        let samples = StackSamples::default();
        let purpose = EngineUse { samples: Some(samples.clone()), ..EngineUse::default() };
        (Engine::of(config, purpose), samples)
    }

    /// A patient engine for plugins of [`Component::vet_observed`], which report up to so many places that they reach.
    /// Panics as [`Engine::new`] does.
    pub fn observing(budgets: CallBudgets, places: usize) -> (Engine, ReachedPlaces) {
        let reached = ReachedPlaces::of(places);
        let reports = Some(reached.clone());
        let purpose = EngineUse { budgets, is_patient: true, reports, ..EngineUse::default() };
        (Engine::of(config, purpose), reached)
    }

    /// A patient engine that counts the instructions of plugins, for
    /// [`BoundPlugin::instructions`](crate::BoundPlugin::instructions); its calls are slower. Panics as
    /// [`Engine::new`] does.
    pub fn counting(budgets: CallBudgets) -> Engine {
        let counting = |reach| {
            let mut config = config(reach);
            config.consume_fuel(true);
            config
        };
        Engine::of(counting, EngineUse { budgets, is_patient: true, ..EngineUse::default() })
    }

    fn of(config: impl Fn(MemoryReach) -> Config, purpose: EngineUse) -> Engine {
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
        data::add_to_linker::<_, HasSelf<StoreData>>(&mut linker, |inside| inside)
            .expect("each import is defined once");
        let EngineUse { budgets, is_patient, samples, reports } = purpose;
        if let Some(reached) = reports {
            let report = move |_: StoreContextMut<'_, StoreData>, (place,): (u32,)| {
                reached.reach(place);
                Ok(())
            };
            linker
                .instance(OBSERVED_INTERFACE)
                .and_then(|mut interface| interface.func_wrap(OBSERVED_FUNCTION, report))
                .expect("each import is defined once");
        }
        let ticker = Ticker::start(wasm.clone()).expect("a gateway may start threads at its start");
        Engine(Arc::new(EngineParts {
            ticker,
            wasm,
            reach,
            linker,
            budgets,
            is_patient,
            samples,
            vetted: Mutex::default(),
        }))
    }

    /// True if plugins check each memory access in code, which makes questions about many rows take
    /// half as long again: the process may not reserve 774 GiB of address space (`ulimit -v`).
    pub fn checks_accesses(&self) -> bool {
        self.0.reach == MemoryReach::Narrow
    }

    /// The plugin of this digest, if it is in use.
    fn recall(&self, digest: &[u8; 32]) -> Option<Arc<VettedPlugin>> {
        // No code panics while it holds the lock.
        let vetted = self.0.vetted.lock().unwrap_or_else(PoisonError::into_inner);
        vetted.get(digest).and_then(Weak::upgrade)
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
    // Not by `as_nanos`: each call would divide 128 bits.
    let whole = budget.as_secs().saturating_mul(TICKS_PER_SECOND);
    let rest = u64::from(budget.subsec_nanos().div_ceil(TICK_NANOS));
    whole.saturating_add(rest).saturating_add(1).min(u64::MAX >> 1)
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

/// A validated and compiled plugin. Clones share it.
#[derive(Clone)]
pub struct Component(pub(crate) Arc<VettedPlugin>);

pub(crate) struct VettedPlugin {
    pub(crate) manifest: Manifest,
    pub(crate) digest: [u8; 32],
    pub(crate) code: LinkedCode,
}

/// Code with the host's functions, ready to make instances.
pub(crate) enum LinkedCode {
    Component(LinkedComponent),
    /// A core module that is called without the component model.
    Flat(FlatModule),
}

/// Code of this process's engine.
enum Compiled {
    Component(wasmtime::component::Component),
    Flat(Module),
}

impl Component {
    /// Validates a plugin, a core module or a component, and compiles it here.
    ///
    /// All checks that need no compilation come first. Compilation takes 10 to 20 ms for a typical
    /// policy, and is unbounded for a hostile one; a plugin already in use is not compiled again.
    pub fn vet(engine: &Engine, bytes: &[u8]) -> Result<Component, PluginRefusal> {
        if let Some(known) = Component::known(engine, bytes) {
            return Ok(known);
        }
        let (manifest, is_flat) = examine(bytes)?;
        let binary = wrapped(bytes, &manifest)?;
        let compiled = if is_flat {
            Module::from_binary(&engine.0.wasm, bytes).map(Compiled::Flat)
        } else {
            let compiled = wasmtime::component::Component::from_binary(&engine.0.wasm, &binary);
            compiled.map(Compiled::Component)
        };
        Component::of(engine, bytes, manifest, compiled)
    }

    /// Validates a plugin, and compiles in its place the core module that was made of it to report the places that it
    /// reaches. The engine is one of [`Engine::observing`].
    pub fn vet_observed(
        engine: &Engine,
        bytes: &[u8],
        observed: &[u8],
    ) -> Result<Component, PluginRefusal> {
        let manifest = read_manifest(bytes)?;
        let binary = wrapped_observed(observed, &manifest)?;
        let compiled = wasmtime::component::Component::from_binary(&engine.0.wasm, &binary);
        Component::of(engine, bytes, manifest, compiled.map(Compiled::Component))
    }

    /// Validates a plugin whose code was compiled elsewhere; takes 0.1 ms.
    pub fn vet_native(
        engine: &Engine,
        bytes: &[u8],
        code: &NativeCode,
    ) -> Result<Component, PluginRefusal> {
        if let Some(known) = Component::known(engine, bytes) {
            return Ok(known);
        }
        let (manifest, is_flat) = examine(bytes)?;
        Component::of(engine, bytes, manifest, load(&engine.0.wasm, code, is_flat))
    }

    /// The plugin with these bytes, if it is already in use.
    pub fn known(engine: &Engine, bytes: &[u8]) -> Option<Component> {
        engine.recall(&sha256(bytes)).map(Component)
    }

    fn of(
        engine: &Engine,
        bytes: &[u8],
        manifest: Manifest,
        compiled: wasmtime::Result<Compiled>,
    ) -> Result<Component, PluginRefusal> {
        let code = compiled
            .and_then(|compiled| link(engine, &compiled, &manifest))
            .map_err(|error| PluginRefusal::Engine(format!("{error:#}").into()))?;
        let digest = sha256(bytes);
        let vetted = Arc::new(VettedPlugin { manifest, digest, code });
        let mut known = engine.0.vetted.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, held| held.strong_count() > 0);
        known.insert(digest, Arc::downgrade(&vetted));
        Ok(Component(vetted))
    }

    /// The validated manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// SHA-256 of the plugin's bytes.
    pub fn digest(&self) -> &[u8; 32] {
        &self.0.digest
    }
}

fn link(engine: &Engine, compiled: &Compiled, manifest: &Manifest) -> wasmtime::Result<LinkedCode> {
    match compiled {
        Compiled::Component(component) => {
            LinkedComponent::link(&engine.0.linker, component, manifest).map(LinkedCode::Component)
        }
        Compiled::Flat(module) => {
            FlatModule::link(&engine.0.wasm, module, manifest).map(LinkedCode::Flat)
        }
    }
}

/// A plugin compiled for this machine and engine version.
pub struct NativeCode(Vec<u8>);

impl NativeCode {
    /// The caller vouches for the origin of the code.
    pub(crate) fn trusted(bytes: Vec<u8>) -> NativeCode {
        NativeCode(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for NativeCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NativeCode({} bytes)", self.0.len())
    }
}

/// Loads code. Code of another version, or for another configuration of the engine, is an error.
#[expect(unsafe_code, reason = "loading native code is unsafe")]
fn load(engine: &wasmtime::Engine, code: &NativeCode, is_flat: bool) -> wasmtime::Result<Compiled> {
    // SAFETY: a `NativeCode` is made by `trusted` alone. Its callers in this crate are the compiler
    // in this process, the reader of a compiler that this process started, and the cache, which
    // verified a MAC with a key known only to this host.
    unsafe {
        if is_flat {
            Module::deserialize(engine, &code.0).map(Compiled::Flat)
        } else {
            let component = wasmtime::component::Component::deserialize(engine, &code.0);
            component.map(Compiled::Component)
        }
    }
}

#[cfg(test)]
mod tests;
