//! Inspection of a plugin file without validating or compiling it.

use crate::outline::{Form, Outline};
use crate::signature::sha256;

/// Maximum imports, exports and sections listed for one file, as it may be hostile.
const LISTED_MAX: usize = 10_000;

/// A file as it is shown without being vetted.
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
    /// The bytes of the manifest, if there are any.
    pub manifest: Option<Vec<u8>>,
    /// The reason why parsing stopped before the end.
    pub broken: Option<Box<str>>,
}

impl PluginFile {
    /// Reads as much as the file has; no form is an error.
    pub fn parse(bytes: &[u8]) -> PluginFile {
        let digest = sha256(bytes);
        let (outline, broken) = match Outline::read_partly(bytes) {
            Ok(read) => read,
            Err(said) => return PluginFile { digest, broken: Some(said), ..PluginFile::default() },
        };
        let Outline { form, imports, exports, sections, manifest, .. } = outline;
        let import = |(interface, function): (Box<str>, Option<Box<str>>)| match function {
            Some(function) => format!("{interface}#{function}").into(),
            None => interface,
        };
        let sections = sections.into_iter().take(LISTED_MAX);
        PluginFile {
            digest,
            form: Some(form),
            imports: imports.into_iter().take(LISTED_MAX).map(import).collect(),
            exports: exports.into_iter().take(LISTED_MAX).collect(),
            sections: sections.map(|(name, bytes)| (name.into(), bytes)).collect(),
            manifest: manifest.map(<[u8]>::to_vec),
            broken,
        }
    }
}

#[cfg(test)]
mod tests;
