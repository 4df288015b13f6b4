//! A plugin's binary seen from outside: what it imports and exports, and its manifest. Nothing is compiled here.

use wasmparser::{Parser, Payload};

use crate::refused::Refused;

/// The custom section that holds the manifest.
const MANIFEST_SECTION: &str = "evenkeel:manifest";

/// Where a core module says which types its imports and exports have, if it does: names begin so.
const TYPES_SECTION: &str = "component-type";
/// The custom section that holds a signature.
const SIGNATURE_SECTION: &str = "evenkeel:signature";

/// A binary from outside.
pub(crate) struct Outline<'a> {
    pub(crate) kind: Kind,
    /// Interface, and for a core module the function, of every import.
    pub(crate) imports: Vec<(Box<str>, Option<Box<str>>)>,
    /// Names of a component's exports.
    pub(crate) exports: Vec<Box<str>>,
    /// The manifest, wherever in the binary it is.
    pub(crate) manifest: Option<&'a [u8]>,
    /// Whether a core module describes the types of what it imports and exports.
    pub(crate) typed: bool,
    /// How many signatures it has; those of modules inside a component are of no matter.
    pub(crate) signatures: usize,
}

/// What a binary is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// As `cargo build` for wasm32-unknown-unknown writes it.
    Module,
    /// A module in the wrapping of the component model.
    Component,
}

impl<'a> Outline<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Outline<'a>, Refused> {
        let kind = if Parser::is_core_wasm(bytes) {
            Kind::Module
        } else if Parser::is_component(bytes) {
            Kind::Component
        } else {
            return Err(Refused::NotWasm { said: "it does not begin as WebAssembly does".into() });
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
