//! A module that reports the places that it reaches: the beginnings of its functions and branches.
//!
//! Functions that the host calls for memory may call no import (Canonical ABI, `may_leave`). They have no places, nor has any
//! function that they call directly.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use evenkeel_host::{OBSERVED_FUNCTION, OBSERVED_INTERFACE};
use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{
    CodeSection, EntityType, Function, ImportSection, Instruction, Module, SectionId, TypeSection,
    ValType,
};
use wasmparser::{
    BinaryReaderError, ExternalKind, FunctionBody, Operator, Parser, Payload, TypeRef,
};

type Reencoded<T> = Result<T, Error<Infallible>>;

/// The beginning of a function or a branch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CodePlace {
    /// Number of the function, imported ones included.
    pub(super) function: u32,
    /// Offset from the beginning of the code section, as in debug information.
    pub(super) offset: u64,
    /// It leads to a trap, such as a panic or a failed check of bounds.
    pub(super) traps: bool,
}

/// A core module that reports its places, and the places by number.
pub(super) struct InstrumentedModule {
    pub(super) module: Vec<u8>,
    pub(super) places: Vec<CodePlace>,
}

/// Makes the module report its places.
pub(super) fn instrument(module: &[u8]) -> Result<InstrumentedModule, String> {
    let of_memory = functions_of_memory(module).map_err(|error| error.to_string())?;
    let (mut observer, mut observed) =
        (Instrumenter { of_memory, ..Instrumenter::default() }, Module::new());
    observer
        .parse_core_module(&mut observed, Parser::new(0), module)
        .map_err(|error| error.to_string())?;
    Ok(InstrumentedModule { module: observed.finish(), places: observer.places })
}

/// The numbers of functions that allocate for the host or free for it, and of those that they call.
fn functions_of_memory(module: &[u8]) -> Result<BTreeSet<u32>, BinaryReaderError> {
    let (mut function, mut calls) = (0, BTreeMap::<u32, Vec<u32>>::new());
    let mut found = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    function += u32::from(matches!(import?.ty, TypeRef::Func(_)));
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    let is_of_memory = export.name.starts_with("cabi_");
                    if is_of_memory && export.kind == ExternalKind::Func {
                        found.push(export.index);
                    }
                }
            }
            Payload::CodeSectionEntry(body) => {
                let mut reader = body.get_operators_reader()?;
                while !reader.eof() {
                    if let Operator::Call { function_index: called }
                    | Operator::ReturnCall { function_index: called } = reader.read()?
                    {
                        calls.entry(function).or_default().push(called);
                    }
                }
                function += 1;
            }
            _ => {}
        }
    }
    let mut functions = BTreeSet::new();
    while let Some(function) = found.pop() {
        if functions.insert(function) {
            found.extend(calls.remove(&function).unwrap_or_default());
        }
    }
    Ok(functions)
}

#[derive(Default)]
struct Instrumenter {
    /// Functions without places.
    of_memory: BTreeSet<u32>,
    /// The type of the function that reports.
    report_type: u32,
    /// Functions that the module imports. The one that reports follows them.
    imported: u32,
    has_imports: bool,
    /// Number of the next function with a body.
    function: u32,
    code_begins: u64,
    places: Vec<CodePlace>,
}

impl Instrumenter {
    fn import_report(&mut self, imports: &mut ImportSection) {
        let report = EntityType::Function(self.report_type);
        imports.import(OBSERVED_INTERFACE, OBSERVED_FUNCTION, report);
        self.has_imports = true;
    }

    /// Reports a place, whatever is on the stack.
    fn report(&mut self, function: &mut Function, offset: usize) {
        function.instruction(&Instruction::I32Const(self.places.len() as i32));
        function.instruction(&Instruction::Call(self.imported));
        let offset = (offset as u64).saturating_sub(self.code_begins);
        self.places.push(CodePlace { function: self.function, offset, traps: false });
    }
}

impl Reencode for Instrumenter {
    type Error = Infallible;

    fn function_index(&mut self, function: u32) -> Reencoded<u32> {
        Ok(if function < self.imported { function } else { function + 1 })
    }

    fn parse_type_section(
        &mut self,
        types: &mut TypeSection,
        section: wasmparser::TypeSectionReader<'_>,
    ) -> Reencoded<()> {
        utils::parse_type_section(self, types, section)?;
        self.report_type = types.len();
        types.ty().function([ValType::I32], []);
        Ok(())
    }

    fn parse_import_section(
        &mut self,
        imports: &mut ImportSection,
        section: wasmparser::ImportSectionReader<'_>,
    ) -> Reencoded<()> {
        for import in section.clone().into_imports() {
            self.imported += u32::from(matches!(import?.ty, TypeRef::Func(_)));
        }
        utils::parse_import_section(self, imports, section)?;
        self.import_report(imports);
        Ok(())
    }

    /// Adds the import to a module without any.
    fn intersperse_section_hook(
        &mut self,
        module: &mut Module,
        _after: Option<SectionId>,
        before: Option<SectionId>,
    ) -> Reencoded<()> {
        if before == Some(SectionId::Function) && !self.has_imports {
            let mut imports = ImportSection::new();
            self.import_report(&mut imports);
            module.section(&imports);
        }
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: wasmparser::CodeSectionReader<'_>,
    ) -> Reencoded<()> {
        self.code_begins = section.range().start as u64;
        self.function = self.imported;
        utils::parse_code_section(self, code, section)
    }

    fn parse_function_body(
        &mut self,
        code: &mut CodeSection,
        body: FunctionBody<'_>,
    ) -> Reencoded<()> {
        let mut function = self.new_function_with_parsed_locals(&body)?;
        let mut reader = body.get_operators_reader()?;
        let has_places = !self.of_memory.contains(&self.function);
        let mut begins = true;
        while !reader.eof() {
            let (operator, offset) = reader.read_with_offset()?;
            // A branch without instructions has no place.
            if has_places && begins && !matches!(operator, Operator::End | Operator::Else) {
                self.report(&mut function, offset);
                begins = false;
            }
            match operator {
                Operator::Unreachable if has_places => {
                    if let Some(place) = self.places.last_mut() {
                        place.traps = true;
                    }
                }
                Operator::If { .. } | Operator::Else | Operator::End | Operator::BrIf { .. } => {
                    begins = true;
                }
                _ => {}
            }
            function.instruction(&self.instruction(operator)?);
        }
        code.function(&function);
        self.function += 1;
        Ok(())
    }
}
