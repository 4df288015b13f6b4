//! What can be seen of a plugin's file from outside, whether or not it would be taken. Nothing is compiled or believed.

use ring::digest::{SHA256, digest};
use wasmparser::{Parser, Payload};

/// The custom section that holds the manifest.
const MANIFEST_SECTION: &str = "evenkeel:manifest";

/// Imports, exports and sections listed of one file: far more than any plugin has, so that a hostile one fills no screen.
const LISTED_MAX: usize = 10_000;

/// What can be seen of a plugin's file from outside, as far as it can be read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Glance {
    /// SHA-256 of the file.
    pub digest: [u8; 32],
    /// What it begins as; none where that is not WebAssembly.
    pub form: Option<Form>,
    /// Names of what it imports: an interface, and for a core module the function behind `#`.
    pub imports: Vec<Box<str>>,
    /// Names of what it exports: an interface, and for a core module the function behind `#`.
    pub exports: Vec<Box<str>>,
    /// Names and sizes of its custom sections, in order.
    pub sections: Vec<(Box<str>, usize)>,
    /// The manifest as it stands in the file.
    pub manifest: Option<Vec<u8>>,
    /// Why reading ended before the file did.
    pub broken: Option<Box<str>>,
}

/// What a plugin's file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// A core module, as `cargo build` for wasm32-unknown-unknown writes it.
    Module,
    /// A component.
    Component,
}

impl Glance {
    /// Looks at a file.
    pub fn at(bytes: &[u8]) -> Glance {
        let sha = digest(&SHA256, bytes);
        let digest = sha.as_ref().try_into().expect("SHA-256 has 32 bytes");
        let mut glance = Glance { digest, ..Glance::default() };
        glance.form = match bytes {
            bytes if Parser::is_core_wasm(bytes) => Some(Form::Module),
            bytes if Parser::is_component(bytes) => Some(Form::Component),
            _ => {
                glance.broken = Some("it does not begin as WebAssembly does".into());
                return glance;
            }
        };
        if let Err(error) = glance.walk(bytes) {
            glance.broken = Some(error.to_string().into());
        }
        glance
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
mod tests {
    use super::*;
    use crate::shipped;

    #[test]
    fn a_module_shows_what_it_wants_gives_and_says_of_itself() {
        let [plugin, ..] = shipped() else { panic!("plugins are shipped") };
        let glance = Glance::at(plugin.bytes);
        assert_eq!((glance.form, &glance.broken), (Some(Form::Module), &None));
        assert!(glance.imports.iter().all(|import| import.starts_with("evenkeel:policy/diag@")));
        assert!(glance.exports.iter().any(|export| export.ends_with("#init")));
        let manifest = String::from_utf8(glance.manifest.unwrap()).unwrap();
        assert!(manifest.starts_with(&format!("{{\"name\":\"{}\"", plugin.name)));
        let section = glance.sections.iter().find(|(name, _)| &**name == MANIFEST_SECTION);
        assert_eq!(section.map(|(_, bytes)| *bytes), Some(manifest.len()));
    }

    #[test]
    fn a_file_that_breaks_off_shows_what_came_before() {
        let [plugin, ..] = shipped() else { panic!("plugins are shipped") };
        let glance = Glance::at(&plugin.bytes[..plugin.bytes.len() / 2]);
        assert!(glance.broken.is_some() && !glance.imports.is_empty());
        assert_eq!(glance.manifest, None, "custom sections are last");
        let text = Glance::at(b"no plugin at all");
        assert_eq!((text.form, text.broken.is_some()), (None, true));
    }
}
