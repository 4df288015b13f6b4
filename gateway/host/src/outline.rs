//! Imports, exports and manifest of a plugin, read without compiling.

use wasmparser::{Parser, Payload};

use crate::limits::LINE_BYTES_MAX;
use crate::log::one_line;
use crate::refused::PluginRefusal;

pub(crate) const MANIFEST_SECTION: &str = "evenkeel:manifest";

/// Prefix of the section that describes the types of a core module's imports and exports.
const TYPES_SECTION: &str = "component-type";
const SIGNATURE_SECTION: &str = "evenkeel:signature";

pub(crate) struct Outline<'a> {
    pub(crate) form: Form,
    /// The interface of each import, and for a core module its function.
    pub(crate) imports: Vec<(Box<str>, Option<Box<str>>)>,
    pub(crate) exports: Vec<Box<str>>,
    /// Names and sizes of custom sections, in order.
    pub(crate) sections: Vec<(&'a str, usize)>,
    /// The manifest, at any place in the binary.
    pub(crate) manifest: Option<&'a [u8]>,
    /// Set if a core module describes the types of its imports and exports.
    pub(crate) typed: bool,
    /// Number of signatures, excluding those of modules inside a component.
    pub(crate) signatures: usize,
}

/// Format of a plugin file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// A core module, as `cargo build` for wasm32-unknown-unknown writes it.
    Module,
    /// A component with its types.
    Component,
}

impl<'a> Outline<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Outline<'a>, PluginRefusal> {
        match Outline::read_partly(bytes) {
            Ok((outline, None)) => Ok(outline),
            Ok((_, Some(said))) | Err(said) => Err(PluginRefusal::NotWasm { said }),
        }
    }

    /// The readable part of a file, and why reading stopped before its end.
    ///
    /// # Errors
    /// The file is not WebAssembly.
    pub(crate) fn read_partly(
        bytes: &'a [u8],
    ) -> Result<(Outline<'a>, Option<Box<str>>), Box<str>> {
        let form = if Parser::is_core_wasm(bytes) {
            Form::Module
        } else if Parser::is_component(bytes) {
            Form::Component
        } else {
            return Err("no WebAssembly header".into());
        };
        let (imports, exports, sections) = (Vec::new(), Vec::new(), Vec::new());
        let (manifest, typed, signatures) = (None, false, 0);
        let mut outline = Outline { form, imports, exports, sections, manifest, typed, signatures };
        let broken = match outline.walk(bytes) {
            Ok(end) if end <= bytes.len() => None,
            Ok(_) => Some("a module inside exceeds the file".into()),
            Err(error) => Some(one_line(&error.to_string(), LINE_BYTES_MAX)),
        };
        Ok((outline, broken))
    }

    /// Returns the end of the last module or component inside by its declared length, which the parser does not check.
    fn walk(&mut self, bytes: &'a [u8]) -> wasmparser::Result<usize> {
        let (mut depth, mut end) = (0_usize, 0);
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ModuleSection { unchecked_range, .. }
                | Payload::ComponentSection { unchecked_range, .. } => {
                    depth += 1;
                    end = end.max(unchecked_range.end);
                }
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ImportSection(section) if depth == 0 => {
                    for import in section.into_imports() {
                        let import = import?;
                        self.imports.push((import.module.into(), Some(import.name.into())));
                    }
                }
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        self.imports.push((import?.name.name.into(), None));
                    }
                }
                Payload::ExportSection(section) if depth == 0 => {
                    for export in section {
                        self.exports.push(export?.name.into());
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        self.exports.push(export?.name.name.into());
                    }
                }
                Payload::CustomSection(section) => {
                    let (name, data) = (section.name(), section.data());
                    self.sections.push((name, data.len()));
                    if name == MANIFEST_SECTION {
                        self.manifest = self.manifest.or(Some(data));
                    }
                    self.typed |= name.starts_with(TYPES_SECTION);
                    self.signatures += usize::from(depth == 0 && name == SIGNATURE_SECTION);
                }
                _ => {}
            }
        }
        Ok(end)
    }
}
