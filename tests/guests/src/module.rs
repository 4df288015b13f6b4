//! Modules in WAT that follow the contract except for the functions that are replaced.

use std::sync::LazyLock;

use evenkeel_model::Hook;
use serde_json::{Value, json};
use wit_component::StringEncoding;
use wit_parser::abi::{AbiVariant, WasmType};
use wit_parser::{Resolve, WorldId, WorldItem};

pub const ANSWER: u32 = 2_048;

/// 256 zero bytes, which encode success and no change in every answer.
const NOTHING: u32 = 3_072;

/// Memory for lists of answers, up to 60 KiB.
pub const SCRATCH: u32 = 4_096;

/// Zeroes up to [`ARGUMENTS`], for empty states.
pub(crate) const ZEROES: u32 = 65_536;

/// A common name, so that each guest is a revision of the one before.
pub(crate) const NAME: &str = "hostile";

/// The state schema of all guests except those that migrate a predecessor's state.
pub(crate) const SCHEMA: u32 = 1;

/// All arguments are written here, over one another, unless the module reads them.
const ARGUMENTS: u32 = 1 << 20;

/// Frees the arguments of the current and earlier calls; needs [`Module::reading_arguments`].
pub const FREE_ARGUMENTS: &str = "(global.set $top (i32.const 1048576))";

const REALLOC: &str = r#"(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)"#;

static CONTRACT: LazyLock<Resolve> = LazyLock::new(|| {
    let mut resolve = Resolve::default();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugin-sdk/wit/policy.wit");
    resolve.push_file(file).expect("the contract parses");
    resolve
});

/// A plugin under construction.
#[derive(Clone)]
pub struct Module {
    hook: Hook,
    memory: String,
    allocator: String,
    items: String,
    bodies: Vec<(&'static str, String)>,
    manifest: Value,
}

impl Module {
    /// A plugin that follows the contract and never changes anything.
    pub fn honest(hook: Hook) -> Module {
        let manifest = json!({
            "name": NAME,
            "version": "1.0.0",
            "contract": "0.1.0",
            "hooks": [hook.name()],
            "settings": {"type": "object"},
            "state_schema": SCHEMA,
            "subject_metrics": [1, 9],
            "node_metrics": [32, 35],
            "ops": [1],
        });
        // 2 MiB; the limit is 16 MiB.
        let memory = "(memory (export \"memory\") 32)".to_owned();
        let allocator = format!("{REALLOC} i32.const {ARGUMENTS})");
        Module { hook, memory, allocator, items: String::new(), bodies: Vec::new(), manifest }
    }

    /// Replaces the body of an exported function such as `place` or `init`.
    pub fn body(mut self, function: &'static str, body: impl Into<String>) -> Module {
        self.bodies.push((function, body.into()));
        self
    }

    /// Adds tables, functions or globals.
    pub fn item(mut self, items: &str) -> Module {
        self.items.push_str(items);
        self
    }

    pub(crate) fn with_memory(mut self, memory: &str) -> Module {
        memory.clone_into(&mut self.memory);
        self
    }

    /// Keeps arguments apart from one another. A function that reads many frees them by [`FREE_ARGUMENTS`].
    pub fn reading_arguments(mut self) -> Module {
        self.allocator = format!(
            "(global $top (mut i32) (i32.const {ARGUMENTS}))
            {REALLOC} (local $at i32)
                (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
                (global.set $top (i32.add (local.get $at) (local.get 3)))
                (local.get $at))"
        );
        self
    }

    /// Sets a key of the manifest.
    pub fn manifest_key(mut self, key: &str, value: Value) -> Module {
        self.manifest[key] = value;
        self
    }

    /// The module with its manifest.
    pub fn build(&self) -> Vec<u8> {
        let mut module = self.without_manifest();
        section(&mut module, "evenkeel:manifest", self.manifest.to_string().as_bytes());
        module
    }

    pub(crate) fn without_manifest(&self) -> Vec<u8> {
        let world = world(self.hook);
        let mut module = wat::parse_str(self.text(world)).expect("it is WebAssembly");
        let encoding = StringEncoding::UTF8;
        wit_component::embed_component_metadata(&mut module, &CONTRACT, world, encoding)
            .expect("it keeps the contract");
        module
    }

    fn text(&self, world: WorldId) -> String {
        let mut text = format!(
            r#"(module
            (import "evenkeel:policy/diag@0.1.1" "log" (func $log (param i32 i32 i32)))
            (import "evenkeel:policy/diag@0.1.1" "note" (func $note (param i32 i32 i32 i64)))
            {}
            {}
            {}"#,
            self.memory, self.allocator, self.items
        );
        for (key, item) in &CONTRACT.worlds[world].exports {
            let WorldItem::Interface { id, .. } = item else { continue };
            for (name, function) in &CONTRACT.interfaces[*id].functions {
                let signature = CONTRACT.wasm_signature(AbiVariant::GuestExport, function);
                let types = |types: &[WasmType]| {
                    types.iter().map(|&kind| wasm_type(kind)).collect::<Vec<_>>().join(" ")
                };
                let body = self.bodies.iter().find(|(of, _)| of == name).map(|(_, body)| &**body);
                let body = body.map_or_else(|| honest(name), ToOwned::to_owned);
                let export = format!("{}#{name}", CONTRACT.name_world_key(key));
                let (params, results) = (types(&signature.params), types(&signature.results));
                text += &format!(
                    "\n(func ${name} (export \"{export}\") (param {params}) (result {results}) {body})"
                );
            }
        }
        text.push(')');
        text
    }
}

fn world(hook: Hook) -> WorldId {
    let name = format!("{}-policy", hook.name());
    let found = CONTRACT.worlds.iter().find(|(_, world)| world.name == name);
    found.expect("every hook has a world").0
}

/// The default body of a function.
fn honest(function: &str) -> String {
    match function {
        "catalog" => String::new(),
        // A state without bytes for each new session; the second parameter is their number.
        "open" => format!(
            "(i32.store (i32.const {ANSWER}) (i32.const {ZEROES}))
             (i32.store (i32.const {}) (i32.add (local.get 1) (i32.const 1)))
             (i64.store (i32.const {}) (i64.const 0))
             (i32.const {ANSWER})",
            ANSWER + 4,
            ANSWER + 8
        ),
        // One empty state for each given state; the third parameter is the number of offsets, one more.
        "migrate" => answer(&[
            word_at(ANSWER, 0),
            word_at(ANSWER + 4, ZEROES),
            format!("(i32.store (i32.const {}) (local.get 2))", ANSWER + 8),
            list(12, ZEROES, 0),
        ]),
        _ => nothing(),
    }
}

/// Returns the zero answer.
pub(crate) fn nothing() -> String {
    format!("(i32.const {NOTHING})")
}

/// Writes a list at this offset of the answer.
pub fn list(at: u32, pointer: u32, length: u32) -> String {
    format!("{} {}", word_at(ANSWER + at, pointer), word_at(ANSWER + at + 4, length))
}

/// Writes 32 bits.
pub fn word_at(address: u32, value: u32) -> String {
    format!("(i32.store (i32.const {address}) (i32.const {}))", value as i32)
}

/// Writes 64 bits.
pub(crate) fn long_at(address: u32, value: u64) -> String {
    format!("(i64.store (i32.const {address}) (i64.const {}))", value as i64)
}

/// Returns the answer after these writes.
pub fn answer(writes: &[String]) -> String {
    format!("{} (i32.const {ANSWER})", writes.join(" "))
}

fn wasm_type(kind: WasmType) -> &'static str {
    match kind {
        WasmType::I32 | WasmType::Pointer | WasmType::Length => "i32",
        WasmType::I64 | WasmType::PointerOrI64 => "i64",
        WasmType::F32 => "f32",
        WasmType::F64 => "f64",
    }
}

/// Appends a custom section (WebAssembly core specification, 5.5.3).
pub(crate) fn section(module: &mut Vec<u8>, name: &str, data: &[u8]) {
    let mut content = Vec::new();
    number(name.len(), &mut content);
    content.extend_from_slice(name.as_bytes());
    content.extend_from_slice(data);
    module.push(0);
    number(content.len(), module);
    module.extend_from_slice(&content);
}

/// Appends an unsigned LEB128 number.
pub(crate) fn number(mut value: usize, out: &mut Vec<u8>) {
    while value >= 128 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}
