//! Inspection of a plugin file without validating or compiling it.

use ring::digest::{SHA256, digest};
use wasmparser::{Parser, Payload};

/// The custom section of the manifest.
const MANIFEST_SECTION: &str = "evenkeel:manifest";

/// Maximum imports, exports and sections listed for one file, as it may be hostile.
const LISTED_MAX: usize = 10_000;

/// The readable parts of a plugin file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PluginFile {
    /// SHA-256 of the file.
    pub digest: [u8; 32],
    /// `None` if the file is not WebAssembly.
    pub form: Option<Form>,
    /// Imported interfaces; for a core module with the function after `#`.
    pub imports: Vec<Box<str>>,
    /// Exported interfaces; for a core module with the function after `#`.
    pub exports: Vec<Box<str>>,
    /// Names and sizes of custom sections, in order.
    pub sections: Vec<(Box<str>, usize)>,
    pub manifest: Option<Vec<u8>>,
    /// The reason why parsing stopped before the end.
    pub broken: Option<Box<str>>,
}

/// Format of a plugin file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// A core module, as `cargo build` for wasm32-unknown-unknown writes it.
    Module,
    Component,
}

impl PluginFile {
    pub fn parse(bytes: &[u8]) -> PluginFile {
        let sha = digest(&SHA256, bytes);
        let digest = sha.as_ref().try_into().expect("SHA-256 has 32 bytes");
        let mut file = PluginFile { digest, ..PluginFile::default() };
        file.form = match bytes {
            bytes if Parser::is_core_wasm(bytes) => Some(Form::Module),
            bytes if Parser::is_component(bytes) => Some(Form::Component),
            _ => {
                file.broken = Some("no WebAssembly header".into());
                return file;
            }
        };
        if let Err(error) = file.walk(bytes) {
            file.broken = Some(error.to_string().into());
        }
        file
    }

    fn walk(&mut self, bytes: &[u8]) -> wasmparser::Result<()> {
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ImportSection(section) if depth == 0 => {
                    for import in section.into_imports() {
                        let import = import?;
                        list(
                            &mut self.imports,
                            format!("{}#{}", import.module, import.name).into(),
                        );
                    }
                }
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        list(&mut self.imports, import?.name.name.into());
                    }
                }
                Payload::ExportSection(section) if depth == 0 => {
                    for export in section {
                        list(&mut self.exports, export?.name.into());
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        list(&mut self.exports, export?.name.name.into());
                    }
                }
                Payload::CustomSection(section) => {
                    list(&mut self.sections, (section.name().into(), section.data().len()));
                    if section.name() == MANIFEST_SECTION && self.manifest.is_none() {
                        self.manifest = Some(section.data().to_vec());
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn list<T>(all: &mut Vec<T>, one: T) {
    if all.len() < LISTED_MAX {
        all.push(one);
    }
}

#[cfg(test)]
mod tests;
