//! Routing plugins in WAT that follow the contract except for one behaviour.

use serde_json::json;
use wit_component::StringEncoding;
use wit_parser::abi::{AbiVariant, WasmType};
use wit_parser::{Resolve, WorldItem};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Behaviour {
    /// Places each room on this node.
    Places(u32),
    /// Places rooms with a smaller number than the second on the first, and traps on others.
    TrapsFromRoom(u32, u64),
    Traps,
    NeverEnds,
    /// Grows its memory until that fails.
    EatsMemory,
    /// Places each room on the first; starts only with a catalog of at most the second's length.
    StartsWithin(u32, u32),
}

impl Behaviour {
    /// The body of `place`; the room's number is the second parameter.
    fn place(self) -> String {
        let answer = |node| {
            format!(
                "(i32.store (i32.const 4096) (i32.const {node}))
                 (i32.store (i32.const 2048) (i32.const 4096))
                 (i32.store (i32.const 2052) (i32.const 1))
                 (i32.const 2048)"
            )
        };
        match self {
            Behaviour::Places(node) | Behaviour::StartsWithin(node, _) => answer(node),
            Behaviour::TrapsFromRoom(node, room) => format!(
                "(if (i64.ge_u (local.get 1) (i64.const {room})) (then unreachable)) {}",
                answer(node)
            ),
            Behaviour::Traps => "unreachable".into(),
            Behaviour::NeverEnds => "(loop $again br $again) unreachable".into(),
            Behaviour::EatsMemory => "(loop $again
                 (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable"
                .into(),
        }
    }
}

pub(crate) fn routing_plugin(behaviour: Behaviour) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let contract = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugin-sdk/wit/policy.wit");
    let package = resolve.push_file(contract).unwrap();
    let world = resolve.select_world(&[package], Some("routing-policy")).unwrap();
    let mut module = wat::parse_str(text(&resolve, world, behaviour)).unwrap();
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .unwrap();
    let manifest = json!({
        "name": "by-hand",
        "version": "1.0.0",
        "contract": "0.1.0",
        "hooks": ["routing"],
        "settings": {"type": "object"},
    });
    section(&mut module, b"evenkeel:manifest", manifest.to_string().as_bytes());
    module
}

/// A module with all exports of the world. Unwritten memory is zero, which encodes success and no change.
fn text(resolve: &Resolve, world: wit_parser::WorldId, behaviour: Behaviour) -> String {
    let mut text = String::from(
        r#"(module (memory (export "memory") 2)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 65536)"#,
    );
    for (key, item) in &resolve.worlds[world].exports {
        let WorldItem::Interface { id, .. } = item else { continue };
        for (name, function) in &resolve.interfaces[*id].functions {
            let signature = resolve.wasm_signature(AbiVariant::GuestExport, function);
            let types = |types: &[WasmType]| {
                types.iter().map(|&kind| wasm_type(kind)).collect::<Vec<_>>().join(" ")
            };
            let body = match (name.as_str(), behaviour) {
                ("catalog", Behaviour::StartsWithin(_, most)) => {
                    format!("(if (i32.gt_u (local.get 1) (i32.const {most})) (then unreachable))")
                }
                ("catalog", _) => String::new(),
                ("place", _) => behaviour.place(),
                ("init", _) => "(i32.const 3072)".into(),
                (_, Behaviour::Traps | Behaviour::NeverEnds | Behaviour::EatsMemory) => {
                    behaviour.place()
                }
                // No change for existing rooms.
                _ => "(i32.const 3072)".into(),
            };
            let export = format!("{}#{name}", resolve.name_world_key(key));
            let (params, results) = (types(&signature.params), types(&signature.results));
            text += &format!(
                "\n(func (export \"{export}\") (param {params}) (result {results}) {body})"
            );
        }
    }
    text.push(')');
    text
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
pub(super) fn section(module: &mut Vec<u8>, name: &[u8], data: &[u8]) {
    let mut content = Vec::new();
    number(name.len(), &mut content);
    content.extend_from_slice(name);
    content.extend_from_slice(data);
    module.push(0);
    number(content.len(), module);
    module.extend_from_slice(&content);
}

/// LEB128.
fn number(mut value: usize, out: &mut Vec<u8>) {
    while value >= 128 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}
