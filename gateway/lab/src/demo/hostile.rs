//! Plugins that the gateway must refuse or roll back: random bytes, and modules that trap, never end or allocate all
//! memory in every call.

use serde_json::json;
use wit_component::StringEncoding;
use wit_parser::abi::{AbiVariant, WasmType};
use wit_parser::{Resolve, WorldItem};

const CONTRACT: &str = include_str!("../../../../plugin-sdk/wit/policy.wit");

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Vice {
    Broken,
    Traps,
    NeverEnds,
    Hoards,
}

impl Vice {
    pub(super) const ALL: [Vice; 4] = [Vice::Broken, Vice::Traps, Vice::NeverEnds, Vice::Hoards];

    /// As an adjective.
    pub(super) fn name(self) -> &'static str {
        match self {
            Vice::Broken => "broken",
            Vice::Traps => "trapping",
            Vice::NeverEnds => "endless",
            Vice::Hoards => "memory-hungry",
        }
    }

    fn body(self) -> &'static str {
        match self {
            Vice::Broken | Vice::Traps => "unreachable",
            Vice::NeverEnds => "(loop $again br $again) unreachable",
            Vice::Hoards => {
                "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable"
            }
        }
    }
}

/// A routing plugin, or random bytes from this seed.
pub(super) fn plugin(vice: Vice, seed: u64) -> Result<Vec<u8>, String> {
    if vice == Vice::Broken {
        let mut rng = fastrand::Rng::with_seed(seed);
        return Ok((0..4_096).map(|_| rng.u8(..)).collect());
    }
    let mut resolve = Resolve::default();
    let package = resolve.push_str("policy.wit", CONTRACT).map_err(|error| error.to_string())?;
    let world = resolve
        .select_world(&[package], Some("routing-policy"))
        .map_err(|error| error.to_string())?;
    let mut module =
        wat::parse_str(text(&resolve, world, vice)).map_err(|error| error.to_string())?;
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .map_err(|error| error.to_string())?;
    let manifest = json!({
        "name": format!("unruly-{}", vice.name()),
        "version": "1.0.0",
        "contract": "0.1.0",
        "hooks": ["routing"],
        // Any settings of the replaced plugin are valid.
        "settings": {"type": "object"},
    });
    section(&mut module, b"evenkeel:manifest", manifest.to_string().as_bytes());
    Ok(module)
}

/// A module with the exports of the world. `init` and `catalog` succeed; all other functions have the vice.
fn text(resolve: &Resolve, world: wit_parser::WorldId, vice: Vice) -> String {
    let mut text = String::from(
        r#"(module (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)"#,
    );
    for (key, item) in &resolve.worlds[world].exports {
        let WorldItem::Interface { id, .. } = item else { continue };
        for (name, function) in &resolve.interfaces[*id].functions {
            let signature = resolve.wasm_signature(AbiVariant::GuestExport, function);
            let types = |types: &[WasmType]| {
                types.iter().map(|&kind| word(kind)).collect::<Vec<_>>().join(" ")
            };
            let body = match name.as_str() {
                // Zeroes, which encode success.
                "init" => "i32.const 2048",
                "catalog" => "",
                _ => vice.body(),
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

fn word(kind: WasmType) -> &'static str {
    match kind {
        WasmType::I32 | WasmType::Pointer | WasmType::Length => "i32",
        WasmType::I64 | WasmType::PointerOrI64 => "i64",
        WasmType::F32 => "f32",
        WasmType::F64 => "f64",
    }
}

/// Appends a custom section (WebAssembly core specification, 5.5.3).
fn section(module: &mut Vec<u8>, name: &[u8], data: &[u8]) {
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

#[cfg(test)]
mod tests;
