//! The flat calling convention, by which a core module is called without the component model.
//!
//! A plugin exports each function twice: by the canonical ABI of the component model, and under the same name after
//! [`PREFIX`] as a function of one address. There lie the arguments, as one record in the layout of the canonical ABI, with
//! the lists that it points to, in a buffer that the plugin owns ([`RESERVE`]). The function returns the address of its
//! answer, a record of the same ABI that stays valid until the next call. So a question is one entry into the plugin, and
//! nothing is allocated for its arguments.
//!
//! Why a core module: an instance of a component does not give its memory to the host (wasmtime 48 looks up functions,
//! modules and resources in it), so that each list of an argument costs an entry into `cabi_realloc`, and each answer
//! one into `cabi_post_…`. A plugin of the SDKs is a core module anyway, which is wrapped as a component for the call. A
//! plugin that is a component, or exports the canonical ABI alone, is called as before.
//!
//! No address from the plugin is trusted: a record or list outside of its memory is a fault, and the lists of an answer
//! may have as many bytes as `wasmtime::Store::set_hostcall_fuel` allows to a component.

mod memory;

use std::collections::BTreeMap;

use evenkeel_model::Hook;
use wasmtime::{
    Caller, Extern, Instance, InstancePre, Linker, Memory, Module, ModuleExport, Store, Trap,
    TypedFunc,
};

use crate::arguments::{AdmitArguments, PlaceArguments, RerouteArguments, TickArguments};
use crate::calls::PluginCalls;
use crate::flat::memory::{AnswerReader, ArgumentWriter, FlatError};
use crate::limits::MEMORY_BYTES_MAX;
use crate::lookup::InvalidLookup;
use crate::manifest::Manifest;
use crate::store::StoreData;
use crate::store::bindings::evenkeel::policy::data;
use crate::store::bindings::evenkeel::policy::types::{
    BlobsParam, BlobsResult, Entry, Keep, Label,
};
use crate::store::bindings::exports::evenkeel::policy::{
    admission, degradation, guest, routing, scenario,
};

/// Stands before the name of a function's other export.
pub(crate) const PREFIX: &str = "flat_";

/// Takes a number of bytes, and returns the address of a buffer of that size in place of the previous one.
pub(crate) const RESERVE: &str = "flat_reserve";

/// The size of the first buffer: settings, a catalog, or a question about fifty nodes fit.
const FIRST_BYTES: usize = 16 << 10;

/// The buffer grows by no more at once, as its memory is missing for the answer.
const STEP_BYTES_MAX: usize = 1 << 20;

/// Alignment of the buffer: that of the widest number.
const ALIGNMENT: u32 = 8;

/// Allocates in the plugin (canonical ABI).
const REALLOC: &str = "cabi_realloc";

/// Address and length of a text.
const TEXT_BYTES: u32 = 8;

/// Functions that each plugin has, in the order of [`FlatCalls::guest`].
pub(crate) const GUEST: [&str; 4] = ["init", "catalog", "migrate", "migrate-memo"];

const INIT: usize = 0;
const CATALOG: usize = 1;
const MIGRATE: usize = 2;
const MIGRATE_MEMO: usize = 3;

/// Functions of a hook, in the order of [`FlatCalls::hook`].
pub(crate) fn functions(hook: Hook) -> &'static [&'static str] {
    match hook {
        Hook::Admission => &["admit"],
        Hook::Routing => &["place", "open", "reroute"],
        Hook::Degradation => &["tick", "open"],
        Hook::Scenario => &["resolve"],
    }
}

/// The first function of each hook.
const QUESTION: usize = 0;
const OPEN: usize = 1;
const REROUTE: usize = 2;

/// The name of the flat export of a function.
pub(crate) fn export(interface: &str, version: &str, function: &str) -> String {
    format!("{PREFIX}evenkeel:policy/{interface}@{version}#{function}")
}

/// A module that was compiled for flat calls, with its exports.
pub(crate) struct FlatModule {
    pub(crate) instance_pre: InstancePre<StoreData>,
    memory: ModuleExport,
    reserve: ModuleExport,
    guest: Vec<ModuleExport>,
    hooks: BTreeMap<Hook, Vec<ModuleExport>>,
}

impl FlatModule {
    /// Links a module that has the exports of its manifest.
    ///
    /// # Errors
    /// An import has another type, or an export is missing.
    pub(crate) fn link(
        engine: &wasmtime::Engine,
        module: &Module,
        manifest: &Manifest,
    ) -> wasmtime::Result<FlatModule> {
        let mut linker = Linker::new(engine);
        linker.allow_shadowing(true);
        // The vetted module imports functions of `diag` and `data`, whatever the version.
        for import in module.imports() {
            match import.name() {
                "log" => linker.func_wrap(import.module(), "log", log)?,
                "note" => linker.func_wrap(import.module(), "note", note)?,
                "lookup" => linker.func_wrap(import.module(), "lookup", lookup)?,
                _ => continue,
            };
        }
        let index = |name: &str| -> wasmtime::Result<ModuleExport> {
            let missing = || FlatError::NoExport(name.into());
            Ok(module.get_export_index(name).ok_or_else(missing)?)
        };
        let version = &manifest.contract;
        let all = |interface: &str, functions: &[&str]| {
            let one = |function: &&str| index(&export(interface, version, function));
            functions.iter().map(one).collect::<wasmtime::Result<Vec<_>>>()
        };
        let mut hooks = BTreeMap::new();
        for &hook in &manifest.hooks {
            hooks.insert(hook, all(hook.name(), functions(hook))?);
        }
        Ok(FlatModule {
            memory: index("memory")?,
            reserve: index(RESERVE)?,
            guest: all("guest", &GUEST)?,
            hooks,
            instance_pre: linker.instantiate_pre(module)?,
        })
    }

    /// The functions of an instance that answers questions of this hook.
    pub(crate) fn load(
        &self,
        store: &mut Store<StoreData>,
        instance: &Instance,
        hook: Hook,
    ) -> wasmtime::Result<FlatCalls> {
        let memory = instance.get_module_export(&mut *store, &self.memory);
        let memory = memory.and_then(Extern::into_memory);
        let memory = memory.ok_or_else(|| FlatError::NoExport("memory".into()))?;
        store.data_mut().memory = Some(memory);
        let mut function = |export: &ModuleExport| -> wasmtime::Result<FlatFunction> {
            let function = instance.get_module_export(&mut *store, export);
            let function = function.and_then(Extern::into_func);
            function.ok_or(FlatError::NoFunction)?.typed(&*store)
        };
        let hook = self.hooks.get(&hook).into_iter().flatten();
        Ok(FlatCalls {
            memory,
            reserve: function(&self.reserve)?,
            guest: self.guest.iter().map(&mut function).collect::<wasmtime::Result<_>>()?,
            hook: hook.map(&mut function).collect::<wasmtime::Result<_>>()?,
            buffer: Buffer::default(),
        })
    }
}

fn log(mut caller: Caller<'_, StoreData>, level: u32, at: u32, size: u32) -> wasmtime::Result<()> {
    let (message, inside) = text(&mut caller, at, size)?;
    inside.count_diag()?;
    // The canonical ABI takes the lowest bits of a number.
    inside.log.log(level as u8, message);
    Ok(())
}

fn note(
    mut caller: Caller<'_, StoreData>,
    row: u32,
    at: u32,
    size: u32,
    value: i64,
) -> wasmtime::Result<()> {
    let (key, inside) = text(&mut caller, at, size)?;
    inside.count_diag()?;
    inside.log.note(row, key, value);
    Ok(())
}

/// Writes `option<string>` at `answer`; the plugin allocates the string.
fn lookup(
    mut caller: Caller<'_, StoreData>,
    document_at: u32,
    document_size: u32,
    path_at: u32,
    path_count: u32,
    answer: u32,
) -> wasmtime::Result<()> {
    let memory = caller.data().memory.ok_or(FlatError::OutOfBounds)?;
    let (bytes, inside) = memory.data_and_store_mut(&mut caller);
    let mut reader = AnswerReader::new(bytes, inside.answer_bytes);
    let document = reader.bytes_at(document_at, document_size as usize)?;
    let document = std::str::from_utf8(document)?.to_owned();
    InvalidLookup::check(path_count as usize, 0)?;
    let size = (path_count as usize).saturating_mul(TEXT_BYTES as usize);
    reader.bytes_at(path_at, size)?;
    let (mut path, mut path_bytes) = (Vec::new(), 0_usize);
    for part in 0..path_count {
        // The list lies within the memory; its addresses have 32 bits.
        let at = path_at + part * TEXT_BYTES;
        path_bytes = path_bytes.saturating_add(reader.word(at, 4)? as usize);
        InvalidLookup::check(path.len(), path_bytes)?;
        path.push(reader.text(at, 0)?);
    }
    let found = data::Host::lookup(inside, document, path)?;
    let mut written = [0; 12];
    if let Some(text) = found {
        let allocate = caller.get_export(REALLOC).and_then(Extern::into_func);
        let allocate = allocate.ok_or_else(|| FlatError::NoExport(REALLOC.into()))?;
        let allocate = allocate.typed::<(u32, u32, u32, u32), u32>(&caller)?;
        let size = text.len() as u32;
        let at = allocate.call(&mut caller, (0, 0, 1, size))?;
        memory.write(&mut caller, at as usize, text.as_bytes())?;
        written[0] = 1;
        written[4..8].copy_from_slice(&at.to_le_bytes());
        written[8..].copy_from_slice(&size.to_le_bytes());
    }
    Ok(memory.write(&mut caller, answer as usize, &written)?)
}

/// A text in the plugin's memory.
fn text<'a>(
    caller: &'a mut Caller<'_, StoreData>,
    at: u32,
    size: u32,
) -> wasmtime::Result<(&'a str, &'a mut StoreData)> {
    // Unset while the module's start function runs.
    let memory = caller.data().memory.ok_or(FlatError::OutOfBounds)?;
    let (memory, inside) = memory.data_and_store_mut(caller);
    let bytes = AnswerReader::new(memory, inside.answer_bytes).bytes_at(at, size as usize)?;
    Ok((std::str::from_utf8(bytes)?, inside))
}

/// A flat function: takes the address of its arguments, and returns that of its answer.
type FlatFunction = TypedFunc<u32, u32>;

/// The buffer for arguments in the plugin's memory.
#[derive(Clone, Copy, Default)]
struct Buffer {
    address: u32,
    size: usize,
}

/// The flat functions of an instance, one hook's among them.
pub(crate) struct FlatCalls {
    memory: Memory,
    reserve: FlatFunction,
    guest: Vec<FlatFunction>,
    hook: Vec<FlatFunction>,
    buffer: Buffer,
}

impl FlatCalls {
    /// Writes the arguments into the buffer, which grows until they fit.
    fn write(
        &mut self,
        store: &mut Store<StoreData>,
        write: impl Fn(&mut ArgumentWriter<'_>) -> Option<()>,
    ) -> wasmtime::Result<()> {
        loop {
            let Buffer { address, size } = self.buffer;
            let memory = self.memory.data_mut(&mut *store);
            let buffer = memory.get_mut(address as usize..).and_then(|from| from.get_mut(..size));
            let buffer = buffer.ok_or(FlatError::OutOfBounds)?;
            if write(&mut ArgumentWriter::new(buffer, address)).is_some() {
                return Ok(());
            }
            self.grow(store)?;
        }
    }

    /// Asks the plugin for a buffer of twice the size, or of [`STEP_BYTES_MAX`] more.
    fn grow(&mut self, store: &mut Store<StoreData>) -> wasmtime::Result<()> {
        let size = self.buffer.size + self.buffer.size.clamp(FIRST_BYTES, STEP_BYTES_MAX);
        if size > MEMORY_BYTES_MAX {
            return Err(Trap::AllocationTooLarge.into());
        }
        let address = self.reserve.call(&mut *store, size as u32)?;
        if address % ALIGNMENT != 0 {
            return Err(FlatError::Misaligned(address).into());
        }
        self.buffer = Buffer { address, size };
        Ok(())
    }

    /// The answer that was returned.
    fn answer<'a>(&self, store: &'a Store<StoreData>) -> AnswerReader<'a> {
        AnswerReader::new(self.memory.data(store), store.data().answer_bytes)
    }

    fn ask_guest(
        &mut self,
        store: &mut Store<StoreData>,
        function: usize,
        write: impl Fn(&mut ArgumentWriter<'_>) -> Option<()>,
    ) -> wasmtime::Result<u32> {
        self.write(store, write)?;
        let function = self.guest.get(function).ok_or(FlatError::NoFunction)?;
        function.call(&mut *store, self.buffer.address)
    }

    fn ask_hook(
        &mut self,
        store: &mut Store<StoreData>,
        function: usize,
        write: impl Fn(&mut ArgumentWriter<'_>) -> Option<()>,
    ) -> wasmtime::Result<u32> {
        self.write(store, write)?;
        let function = self.hook.get(function).ok_or(FlatError::NoFunction)?;
        function.call(&mut *store, self.buffer.address)
    }
}

impl PluginCalls for FlatCalls {
    fn init(
        &mut self,
        store: &mut Store<StoreData>,
        settings: &str,
        grant: guest::Grant<'_>,
    ) -> wasmtime::Result<Result<(), String>> {
        let at = self.ask_guest(store, INIT, |to| {
            to.take(40, 8)?;
            to.bytes(0, settings.as_bytes())?;
            to.words(8, grant.subject_metrics)?;
            to.words(16, grant.node_metrics)?;
            to.words(24, grant.ops)?;
            to.long(32, grant.seed)
        })?;
        let mut answer = self.answer(store);
        Ok(if answer.is_err(at)? { Err(answer.text(at, 4)?) } else { Ok(()) })
    }

    fn catalog(
        &mut self,
        store: &mut Store<StoreData>,
        entries: &[Entry<'_>],
    ) -> wasmtime::Result<()> {
        let write = |to: &mut ArgumentWriter<'_>| {
            to.take(8, 4)?;
            let list = to.list(0, entries.len(), 40, 8)?;
            for (at, entry) in (list..).step_by(40).zip(entries) {
                to.word(at, entry.kind)?;
                to.long(at + 8, entry.id)?;
                to.long(at + 16, entry.parent)?;
                to.bytes(at + 24, entry.name.as_bytes())?;
                to.labels(at + 32, entry.labels)?;
            }
            Some(())
        };
        self.ask_guest(store, CATALOG, write).map(|_| ())
    }

    fn migrate(
        &mut self,
        store: &mut Store<StoreData>,
        from: u32,
        states: BlobsParam<'_>,
    ) -> wasmtime::Result<Result<BlobsResult, String>> {
        let at = self.ask_guest(store, MIGRATE, |to| {
            to.take(20, 4)?;
            to.word(0, from)?;
            to.blobs(4, &states)
        })?;
        let mut answer = self.answer(store);
        Ok(if answer.is_err(at)? { Err(answer.text(at, 4)?) } else { Ok(answer.blobs(at, 4)?) })
    }

    fn migrate_memo(
        &mut self,
        store: &mut Store<StoreData>,
        from: u32,
        memo: &[u8],
    ) -> wasmtime::Result<Result<Vec<u8>, String>> {
        let at = self.ask_guest(store, MIGRATE_MEMO, |to| {
            to.take(12, 4)?;
            to.word(0, from)?;
            to.bytes(4, memo)
        })?;
        let mut answer = self.answer(store);
        Ok(if answer.is_err(at)? { Err(answer.text(at, 4)?) } else { Ok(answer.bytes(at, 4)?) })
    }

    fn resolve(
        &mut self,
        store: &mut Store<StoreData>,
        scenario: &str,
        labels: &[Label<'_>],
    ) -> wasmtime::Result<Vec<scenario::Param>> {
        let at = self.ask_hook(store, QUESTION, |to| {
            to.take(16, 4)?;
            to.bytes(0, scenario.as_bytes())?;
            to.labels(8, labels)
        })?;
        let mut answer = self.answer(store);
        let params = answer.records(at, 0, 16)?;
        let param = |at| -> wasmtime::Result<_> {
            Ok(scenario::Param { key: answer.text(at, 0)?, value: answer.long(at, 8)? as i64 })
        };
        params.map(param).collect()
    }

    fn admit(
        &mut self,
        store: &mut Store<StoreData>,
        asked: AdmitArguments<'_>,
    ) -> wasmtime::Result<admission::Answer> {
        let at = self.ask_hook(store, QUESTION, |to| {
            to.take(72, 8)?;
            to.long(0, asked.now_us)?;
            to.long(8, asked.session)?;
            to.long(16, asked.room)?;
            to.word(24, asked.standing.is_some().into())?;
            to.long(32, asked.standing.unwrap_or(0))?;
            to.bytes(40, asked.scenario.as_bytes())?;
            to.labels(48, asked.labels)?;
            to.frame(56, &asked.regions)
        })?;
        let answer = self.answer(store);
        let verdict = match answer.tag(at, 0)? {
            0 => admission::Verdict::Abstain,
            1 => admission::Verdict::Accept,
            2 => admission::Verdict::AcceptCapped(answer.word(at, 8)?),
            3 => admission::Verdict::Redirect(answer.long(at, 8)?),
            4 => admission::Verdict::Reject(answer.word(at, 8)?),
            tag => return Err(FlatError::Tag(tag).into()),
        };
        Ok(admission::Answer { verdict, reason: answer.word(at, 16)? })
    }

    fn place(
        &mut self,
        store: &mut Store<StoreData>,
        asked: PlaceArguments<'_>,
    ) -> wasmtime::Result<routing::Placement> {
        let at = self.ask_hook(store, QUESTION, |to| {
            to.take(48, 8)?;
            to.long(0, asked.now_us)?;
            to.long(8, asked.room)?;
            to.bytes(16, asked.scenario.as_bytes())?;
            to.labels(24, asked.labels)?;
            to.frame(32, &asked.nodes)
        })?;
        let mut answer = self.answer(store);
        Ok(routing::Placement {
            hops: answer.words(at, 0)?,
            ttl_ms: answer.word(at, 8)?,
            reason: answer.word(at, 12)?,
            state: answer.bytes(at, 16)?,
        })
    }

    fn open_rooms(
        &mut self,
        store: &mut Store<StoreData>,
        newcomers: &[routing::Newcomer<'_>],
    ) -> wasmtime::Result<BlobsResult> {
        let at = self.ask_hook(store, OPEN, |to| {
            to.take(8, 4)?;
            let list = to.list(0, newcomers.len(), 24, 8)?;
            for (at, newcomer) in (list..).step_by(24).zip(newcomers) {
                to.long(at, newcomer.room)?;
                to.bytes(at + 8, newcomer.scenario.as_bytes())?;
                to.labels(at + 16, newcomer.labels)?;
            }
            Some(())
        })?;
        self.answer(store).blobs(at, 0)
    }

    fn reroute(
        &mut self,
        store: &mut Store<StoreData>,
        asked: RerouteArguments<'_>,
    ) -> wasmtime::Result<routing::Answer> {
        let at = self.ask_hook(store, REROUTE, |to| {
            to.take(80, 8)?;
            to.long(0, asked.now_us)?;
            to.frame(8, &asked.nodes)?;
            to.frame(24, &asked.rooms)?;
            to.word(40, asked.width)?;
            to.words(44, asked.standing)?;
            to.blobs(52, &asked.states)?;
            to.bytes(68, asked.memo)
        })?;
        let mut answer = self.answer(store);
        let records = answer.records(at, 0, 20)?;
        let one = |at| -> wasmtime::Result<_> {
            Ok(routing::Move {
                row: answer.word(at, 0)?,
                hops: answer.words(at, 4)?,
                ttl_ms: answer.word(at, 12)?,
                reason: answer.word(at, 16)?,
            })
        };
        let moves = records.map(one).collect::<wasmtime::Result<_>>()?;
        Ok(routing::Answer { moves, keep: keep(&mut answer, at)? })
    }

    fn open_sessions(
        &mut self,
        store: &mut Store<StoreData>,
        newcomers: &[degradation::Newcomer<'_>],
    ) -> wasmtime::Result<BlobsResult> {
        let at = self.ask_hook(store, OPEN, |to| {
            to.take(8, 4)?;
            let list = to.list(0, newcomers.len(), 32, 8)?;
            for (at, newcomer) in (list..).step_by(32).zip(newcomers) {
                to.long(at, newcomer.session)?;
                to.long(at + 8, newcomer.room)?;
                to.bytes(at + 16, newcomer.scenario.as_bytes())?;
                to.labels(at + 24, newcomer.labels)?;
            }
            Some(())
        })?;
        self.answer(store).blobs(at, 0)
    }

    fn tick(
        &mut self,
        store: &mut Store<StoreData>,
        asked: TickArguments<'_>,
    ) -> wasmtime::Result<degradation::Answer> {
        let at = self.ask_hook(store, QUESTION, |to| {
            to.take(48, 8)?;
            to.long(0, asked.now_us)?;
            to.frame(8, &asked.sessions)?;
            to.blobs(24, &asked.states)?;
            to.bytes(40, asked.memo)
        })?;
        let mut answer = self.answer(store);
        let records = answer.records(at, 0, 24)?;
        let one = |at| -> wasmtime::Result<_> {
            Ok(degradation::Action {
                row: answer.word(at, 0)?,
                op: answer.word(at, 4)?,
                arg: answer.long(at, 8)?,
                reason: answer.word(at, 16)?,
            })
        };
        let actions = records.map(one).collect::<wasmtime::Result<_>>()?;
        Ok(degradation::Answer { actions, keep: keep(&mut answer, at)? })
    }
}

/// The second field of an answer about a batch.
fn keep(answer: &mut AnswerReader<'_>, at: u32) -> wasmtime::Result<Keep> {
    let (rows, states) = (answer.words(at, 8)?, answer.blobs(at, 16)?);
    let memo = match answer.tag(at, 32)? {
        0 => None,
        1 => Some(answer.bytes(at, 36)?),
        tag => return Err(FlatError::Tag(tag).into()),
    };
    Ok(Keep { rows, states, memo })
}

#[cfg(test)]
mod tests;
