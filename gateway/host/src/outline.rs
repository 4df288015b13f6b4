//! Imports, exports and manifest of a plugin, read without compiling.

use wasmparser::{Parser, Payload};

use crate::refused::Refused;

/// The custom section of the manifest.
const MANIFEST_SECTION: &str = "evenkeel:manifest";

/// Prefix of the section that describes the types of a core module's imports and exports.
const TYPES_SECTION: &str = "component-type";
/// The custom section of a signature.
const SIGNATURE_SECTION: &str = "evenkeel:signature";

pub(crate) struct Outline<'a> {
    pub(crate) kind: Kind,
    /// The interface of each import, and for a core module its function.
    pub(crate) imports: Vec<(Box<str>, Option<Box<str>>)>,
    /// Names of a component's exports.
    pub(crate) exports: Vec<Box<str>>,
    /// The manifest, at any place in the binary.
    pub(crate) manifest: Option<&'a [u8]>,
    /// Set if a core module describes the types of its imports and exports.
    pub(crate) typed: bool,
    /// Number of signatures, excluding those of modules inside a component.
    pub(crate) signatures: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A core module, as `cargo build` for wasm32-unknown-unknown writes it.
    Module,
    Component,
}

impl<'a> Outline<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Outline<'a>, Refused> {
        let kind = if Parser::is_core_wasm(bytes) {
            Kind::Module
        } else if Parser::is_component(bytes) {
            Kind::Component
        } else {
            return Err(Refused::NotWasm { said: "no WebAssembly header".into() });
        };
        let (imports, exports) = (Vec::new(), Vec::new());
        let mut outline =
            Outline { kind, imports, exports, manifest: None, typed: false, signatures: 0 };
        outline.walk(bytes).map_err(|error| Refused::NotWasm { said: error.to_string().into() })?;
        Ok(outline)
    }

    fn walk(&mut self, bytes: &'a [u8]) -> wasmparser::Result<()> {
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
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
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        self.exports.push(export?.name.name.into());
                    }
                }
                Payload::CustomSection(section) if section.name() == MANIFEST_SECTION => {
                    self.manifest = self.manifest.or(Some(section.data()));
                }
                Payload::CustomSection(section) if section.name().starts_with(TYPES_SECTION) => {
                    self.typed = true;
                }
                Payload::CustomSection(section)
                    if depth == 0 && section.name() == SIGNATURE_SECTION =>
                {
                    self.signatures += 1;
                }
                _ => {}
            }
        }
        Ok(())
    }
}
