//! A module that keeps the contract but for what is asked of it.

use std::sync::LazyLock;

use evenkeel_core::Hook;
use serde_json::{Value, json};
use wit_component::StringEncoding;
use wit_parser::abi::{AbiVariant, WasmType};
use wit_parser::{Resolve, WorldId, WorldItem};

/// Where answers are written.
pub(crate) const ANSWER: u32 = 2_048;

/// Zeroes, for an answer that says nothing: 256 bytes.
const NOTHING: u32 = 3_072;

/// Room for what answers point to: from here up to 60 KiB.
pub(crate) const SCRATCH: u32 = 4_096;

/// Zeroes without end, for states that are empty: up to [`GIVEN`].
pub(crate) const ZEROES: u32 = 65_536;

/// What all of them are called, so that each is a revision of the one before.
pub(crate) const NAME: &str = "hostile";

/// Of the states that they write, but for those that come after one of these.
pub(crate) const SCHEMA: u32 = 1;

/// Where what comes in lies, one thing over the other: nobody reads it.
const GIVEN: u32 = 1 << 20;

/// The contract, parsed once.
static CONTRACT: LazyLock<Resolve> = LazyLock::new(|| {
    let mut resolve = Resolve::default();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../plugin-sdk/wit/policy.wit");
    resolve.push_file(file).expect("the contract parses");
    resolve
});

/// A module in the making.
#[derive(Clone)]
pub(crate) struct Module {
    hook: Hook,
    memory: String,
    besides: String,
    bodies: Vec<(&'static str, String)>,
    manifest: Value,
}

impl Module {
    /// One that keeps the contract, and says nothing when it is asked.
    pub(crate) fn honest(hook: Hook) -> Module {
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
        // 2 MiB, to 16 MiB.
        let memory = "(memory (export \"memory\") 32)".to_owned();
        Module { hook, memory, besides: String::new(), bodies: Vec::new(), manifest }
    }

    /// It does this in one of its functions: `place`, `init`.
    pub(crate) fn doing(mut self, function: &'static str, body: impl Into<String>) -> Module {
        self.bodies.push((function, body.into()));
        self
    }

    /// With this in the module besides: tables, functions.
    pub(crate) fn with(mut self, besides: &str) -> Module {
        self.besides.push_str(besides);
        self
    }

    pub(crate) fn with_memory(mut self, memory: &str) -> Module {
        memory.clone_into(&mut self.memory);
        self
    }

    /// With another value at a key of the manifest.
    pub(crate) fn saying(mut self, key: &str, value: Value) -> Module {
        self.manifest[key] = value;
        self
    }

    pub(crate) fn build(&self) -> Vec<u8> {
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
            (import "evenkeel:policy/diag@0.1.0" "log" (func $log (param i32 i32 i32)))
            (import "evenkeel:policy/diag@0.1.0" "note" (func $note (param i32 i32 i32 i64)))
            {}
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const {GIVEN})
            {}"#,
            self.memory, self.besides
        );
        for (key, item) in &CONTRACT.worlds[world].exports {
            let WorldItem::Interface { id, .. } = item else { continue };
            for (name, function) in &CONTRACT.interfaces[*id].functions {
                let signature = CONTRACT.wasm_signature(AbiVariant::GuestExport, function);
                let types = |types: &[WasmType]| {
                    types.iter().map(|&kind| word(kind)).collect::<Vec<_>>().join(" ")
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

/// What a function does that means no harm.
fn honest(function: &str) -> String {
    match function {
        "catalog" => String::new(),
        // A state without bytes for each newcomer, whose number is the second parameter.
        "open" => format!(
            "(i32.store (i32.const {ANSWER}) (i32.const {ZEROES}))
             (i32.store (i32.const {}) (i32.add (local.get 1) (i32.const 1)))
             (i64.store (i32.const {}) (i64.const 0))
             (i32.const {ANSWER})",
            ANSWER + 4,
            ANSWER + 8
        ),
        // As many states without bytes as there are offsets but one, whose number is the third parameter.
        "migrate" => answer(&[
            word_at(ANSWER, 0),
            word_at(ANSWER + 4, ZEROES),
            format!("(i32.store (i32.const {}) (local.get 2))", ANSWER + 8),
            list(12, ZEROES, 0),
        ]),
        _ => nothing(),
    }
}

/// An answer of zeroes: all is well, and nothing is to change.
pub(crate) fn nothing() -> String {
    format!("(i32.const {NOTHING})")
}

/// Writes a list at this byte of the answer.
pub(crate) fn list(at: u32, pointer: u32, length: u32) -> String {
    format!("{} {}", word_at(ANSWER + at, pointer), word_at(ANSWER + at + 4, length))
}

/// Writes 32 bits.
pub(crate) fn word_at(address: u32, value: u32) -> String {
    format!("(i32.store (i32.const {address}) (i32.const {}))", value as i32)
}

/// Writes 64 bits.
pub(crate) fn long_at(address: u32, value: u64) -> String {
    format!("(i64.store (i32.const {address}) (i64.const {}))", value as i64)
}

/// Does this, and returns the answer.
pub(crate) fn answer(writes: &[String]) -> String {
    format!("{} (i32.const {ANSWER})", writes.join(" "))
}

fn word(kind: WasmType) -> &'static str {
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

/// LEB128.
pub(crate) fn number(mut value: usize, out: &mut Vec<u8>) {
    while value >= 128 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}
