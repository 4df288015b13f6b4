//! Plugins that the gateway must refuse or roll back: random bytes, and the shipped routing plugin with functions that
//! trap, never end or allocate all memory in every call.

use std::collections::BTreeSet;

use wasm_encoder::{BlockType, CodeSection, Function, Instruction, Module, RawSection, SectionId};
use wasmparser::{ExternalKind, Parser, Payload, TypeRef};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HostilePlugin {
    Broken,
    Traps,
    NeverEnds,
    Hoards,
}

impl HostilePlugin {
    pub(super) const ALL: [HostilePlugin; 4] = [
        HostilePlugin::Broken,
        HostilePlugin::Traps,
        HostilePlugin::NeverEnds,
        HostilePlugin::Hoards,
    ];

    /// The adjective in reports: `broken`.
    pub(super) fn name(self) -> &'static str {
        match self {
            HostilePlugin::Broken => "broken",
            HostilePlugin::Traps => "trapping",
            HostilePlugin::NeverEnds => "endless",
            HostilePlugin::Hoards => "memory-hungry",
        }
    }

    fn body(self) -> Function {
        let repeat = Instruction::Loop(BlockType::Empty);
        let mut instructions = match self {
            HostilePlugin::Broken | HostilePlugin::Traps => vec![],
            HostilePlugin::NeverEnds => vec![repeat, Instruction::Br(0), Instruction::End],
            HostilePlugin::Hoards => vec![
                repeat,
                Instruction::I32Const(16),
                Instruction::MemoryGrow(0),
                Instruction::I32Const(-1),
                Instruction::I32Ne,
                Instruction::BrIf(0),
                Instruction::End,
            ],
        };
        instructions.extend([Instruction::Unreachable, Instruction::End]);
        let mut body = Function::new([]);
        for instruction in &instructions {
            body.instruction(instruction);
        }
        body
    }
}

/// Returns random bytes from this seed, or this plugin with this misbehaviour in all exported functions of the contract except
/// `init` and `catalog`.
pub(super) fn plugin(kind: HostilePlugin, plugin: &[u8], seed: u64) -> wasmparser::Result<Vec<u8>> {
    if kind == HostilePlugin::Broken {
        let mut rng = fastrand::Rng::with_seed(seed);
        return Ok((0..4_096).map(|_| rng.u8(..)).collect());
    }
    let mut module = Module::new();
    let mut code = CodeSection::new();
    let mut replaced = BTreeSet::new();
    // Imported functions come first in the index space of functions.
    let (mut index, mut end) = (0, 0);
    for payload in Parser::new(0).parse_all(plugin) {
        let payload = payload?;
        match &payload {
            Payload::ImportSection(imports) => {
                for import in imports.clone().into_imports() {
                    index += u32::from(matches!(import?.ty, TypeRef::Func(_)));
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports.clone() {
                    let export = export?;
                    let function = export.name.split_once('#').map(|(_, function)| function);
                    let is_hostile =
                        function.is_some_and(|name| !["init", "catalog"].contains(&name));
                    if export.kind == ExternalKind::Func && is_hostile {
                        replaced.insert(export.index);
                    }
                }
            }
            Payload::CodeSectionStart { count, .. } => end = index + count,
            Payload::CodeSectionEntry(body) => {
                if replaced.contains(&index) {
                    code.function(&kind.body());
                } else {
                    code.raw(body.as_bytes());
                }
                index += 1;
                if index == end {
                    module.section(&code);
                }
            }
            _ => {}
        }
        match payload.as_section() {
            Some((id, range)) if id != SectionId::Code as u8 => {
                module.section(&RawSection { id, data: &plugin[range] });
            }
            _ => {}
        }
    }
    Ok(module.finish())
}

#[cfg(test)]
mod tests;
