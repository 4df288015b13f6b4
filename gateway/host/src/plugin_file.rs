//! A plugin's file: its imports, exports and manifest, read and checked without compiling it.

use std::borrow::Cow;

use ring::digest::{SHA256, digest};
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::flat;
use crate::limits::{BINARY_BYTES_MAX, LINE_BYTES_MAX, NAME_BYTES_MAX};
use crate::manifest::{CONTRACT, Manifest, same_contract};
use crate::observation::OBSERVED_WIT;
use crate::refusal::PluginRefusal;
use crate::store::one_line;

/// The only interfaces with functions that a policy may import.
const IMPORTS: [&str; 2] = ["diag", "data"];

/// The interfaces of [`IMPORTS`], for messages.
const ALLOWED: &str = "evenkeel:policy/diag` or `evenkeel:policy/data";

/// The contract's package, the prefix of its interface names.
const PACKAGE: &str = "evenkeel:policy/";

/// The WIT of this gateway's contract version.
const WIT: &str = include_str!("../../../plugin-sdk/wit/policy.wit");

const MANIFEST_SECTION: &str = "evenkeel:manifest";

/// Prefix of the section that describes the types of a core module's imports and exports.
const TYPES_SECTION: &str = "component-type";
const SIGNATURE_SECTION: &str = "evenkeel:signature";

pub(crate) struct Outline<'a> {
    pub(crate) form: PluginFormat,
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
pub enum PluginFormat {
    /// A core module, as `cargo build` for wasm32-unknown-unknown writes it.
    Module,
    /// A component with its types.
    Component,
}

impl<'a> Outline<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Outline<'a>, PluginRefusal> {
        match Outline::read_partly(bytes) {
            Ok((outline, None)) => Ok(outline),
            Ok((_, Some(said))) | Err(said) => Err(PluginRefusal::NotWasm(said)),
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
            PluginFormat::Module
        } else if Parser::is_component(bytes) {
            PluginFormat::Component
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

/// Maximum imports, exports and sections listed for one file, as it may be hostile.
const LISTED_MAX: usize = 10_000;

/// A file as it is shown without being vetted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PluginFile {
    /// SHA-256 of the file.
    pub digest: [u8; 32],
    /// `None` if the file is not WebAssembly.
    pub form: Option<PluginFormat>,
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

/// Reads the manifest, after all checks that need no compilation.
///
/// # Errors
/// The reason why this gateway refuses the plugin.
pub fn read_manifest(bytes: &[u8]) -> Result<Manifest, PluginRefusal> {
    examine(bytes).map(|(manifest, _)| manifest)
}

/// Reads the manifest as [`look`] does, and whether the plugin is called flat.
pub(crate) fn examine(bytes: &[u8]) -> Result<(Manifest, bool), PluginRefusal> {
    if bytes.len() > BINARY_BYTES_MAX {
        return Err(PluginRefusal::TooLarge { bytes: bytes.len(), max: BINARY_BYTES_MAX });
    }
    let outline = Outline::read(bytes)?;
    check_imports(&outline)?;
    let manifest = Manifest::read(outline.manifest.ok_or(PluginRefusal::NoManifest)?)?;
    let is_flat = is_flat(&outline, &manifest)?;
    Ok((manifest, is_flat))
}

/// True for a core module with the exports of the flat calling convention.
///
/// # Errors
/// It has a buffer for arguments, and a function of its hooks is not exported flat.
fn is_flat(outline: &Outline<'_>, manifest: &Manifest) -> Result<bool, PluginRefusal> {
    let has = |name: &str| outline.exports.iter().any(|export| **export == *name);
    // A module with `_initialize` expects that the component calls it.
    if outline.form == PluginFormat::Component || !has(flat::RESERVE) || has("_initialize") {
        return Ok(false);
    }
    let hooks = manifest.hooks.iter().map(|&hook| (hook.name(), flat::functions(hook)));
    for (interface, functions) in [("guest", &flat::GUEST[..])].into_iter().chain(hooks) {
        for function in functions {
            let name = flat::export(interface, &manifest.contract, function);
            if has(&name) {
                continue;
            }
            // A function that is missing altogether is named by its usual export.
            let is_only_flat_missing = name.strip_prefix(flat::PREFIX).is_some_and(has);
            return match is_only_flat_missing {
                true => Err(PluginRefusal::ExportMissing(name.into())),
                false => Ok(false),
            };
        }
    }
    Ok(true)
}

/// Wraps the plugin as a component with the exports of its manifest, if it is a core module.
pub(crate) fn wrapped<'a>(
    bytes: &'a [u8],
    manifest: &Manifest,
) -> Result<Cow<'a, [u8]>, PluginRefusal> {
    let outline = Outline::read(bytes)?;
    let binary = match outline.form {
        PluginFormat::Module => Cow::Owned(wrap(bytes, &outline, manifest)?),
        PluginFormat::Component => Cow::Borrowed(bytes),
    };
    check_exports(&binary, manifest)?;
    Ok(binary)
}

/// Wraps a core module that imports the interface of an observing engine besides those of [`IMPORTS`].
pub(crate) fn wrapped_observed(
    module: &[u8],
    manifest: &Manifest,
) -> Result<Vec<u8>, PluginRefusal> {
    let outline = Outline::read(module)?;
    let mut described = match (outline.form, outline.typed) {
        (PluginFormat::Component, _) => {
            let said = "it is a component, and a core module alone can be observed";
            return Err(PluginRefusal::NotAPlugin(said.into()));
        }
        (PluginFormat::Module, true) => module.to_vec(),
        (PluginFormat::Module, false) => describe(module, &outline, manifest)?,
    };
    let mut resolve = Resolve::default();
    resolve
        .push_source("observed.wit", OBSERVED_WIT)
        .and_then(|package| resolve.select_world(&[package], Some("observed")))
        .and_then(|world| {
            embed_component_metadata(&mut described, &resolve, world, StringEncoding::UTF8)
        })
        .map_err(|error| PluginRefusal::NotAPlugin(format!("{error:#}").into()))?;
    encode(&described)
}

fn check_imports(outline: &Outline<'_>) -> Result<(), PluginRefusal> {
    for (interface, function) in &outline.imports {
        if let Some((name, version)) = of_contract(interface) {
            if !same_contract(version) {
                let found = one_line(version, NAME_BYTES_MAX);
                return Err(PluginRefusal::Contract { found, spoken: CONTRACT });
            }
            // `types` has no functions.
            if IMPORTS.contains(&name)
                || (name == "types" && outline.form == PluginFormat::Component)
            {
                continue;
            }
        }
        let function = function.as_deref().map(|name| format!("::{name}")).unwrap_or_default();
        return Err(PluginRefusal::Import {
            found: one_line(&format!("{interface}{function}"), LINE_BYTES_MAX),
            allowed: ALLOWED,
        });
    }
    Ok(())
}

/// Interface and version of a name of the contract: `evenkeel:policy/diag@0.1.1`.
fn of_contract(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(PACKAGE)?.split_once('@')
}

fn check_exports(component: &[u8], manifest: &Manifest) -> Result<(), PluginRefusal> {
    let exports = Outline::read(component)?.exports;
    let has = |interface: &str| {
        let mut ours = exports.iter().filter_map(|export| of_contract(export));
        ours.any(|(name, version)| name == interface && same_contract(version))
    };
    if !has("guest") {
        let said = format!("it does not export `{PACKAGE}guest@{CONTRACT}`");
        return Err(PluginRefusal::NotAPlugin(said.into()));
    }
    match manifest.hooks.iter().find(|hook| !has(hook.name())) {
        Some(&hook) => Err(PluginRefusal::HookMissing(hook)),
        None => Ok(()),
    }
}

/// Wraps a core module as a component by the types in its own section, as written by the Rust SDK. A module without
/// such a section gets the contract's types, so that other languages only need the right names.
fn wrap(
    module: &[u8],
    outline: &Outline<'_>,
    manifest: &Manifest,
) -> Result<Vec<u8>, PluginRefusal> {
    let described = if outline.typed { None } else { Some(describe(module, outline, manifest)?) };
    encode(described.as_deref().unwrap_or(module))
}

/// Encodes a core module with a section of its types as a component.
fn encode(module: &[u8]) -> Result<Vec<u8>, PluginRefusal> {
    ComponentEncoder::default()
        .module(module)
        .and_then(|encoder| encoder.validate(false).encode())
        .map_err(|error| PluginRefusal::NotAPlugin(format!("{error:#}").into()))
}

/// Adds a section with the types of the manifest's hooks.
fn describe(
    module: &[u8],
    outline: &Outline<'_>,
    manifest: &Manifest,
) -> Result<Vec<u8>, PluginRefusal> {
    let version = &manifest.contract;
    // The newer contract leaves the exports of an older plugin unchanged, but the plugin's export names contain the
    // older version.
    let wit = WIT.replace(&package(CONTRACT), &package(version));
    let interface = |name: &str| format!("evenkeel:policy/{name}@{version}");
    let hooks = manifest.hooks.iter().map(|hook| hook.name());
    let exports: String = ["guest"]
        .into_iter()
        .chain(hooks)
        .map(|name| format!("export {};", interface(name)))
        .collect();
    let imports: String =
        IMPORTS.into_iter().map(|name| format!("import {};", interface(name))).collect();
    let world = format!("package evenkeel:host; world plugin {{ {imports} {exports} }}");
    let mut resolve = Resolve::default();
    let mut described = module.to_vec();
    let contract = resolve
        .push_source("policy.wit", &wit)
        .map_err(|error| PluginRefusal::NotAPlugin(format!("{error:#}").into()))?;
    for name in ["guest"].into_iter().chain(manifest.hooks.iter().map(|hook| hook.name())) {
        let Some(&id) = resolve.packages[contract].interfaces.get(name) else { continue };
        let functions = resolve.interfaces[id].functions.keys();
        check_functions(outline, manifest, name, functions.map(String::as_str))?;
    }
    resolve
        .push_source("plugin.wit", &world)
        .and_then(|package| resolve.select_world(&[package], Some("plugin")))
        .and_then(|world| {
            embed_component_metadata(&mut described, &resolve, world, StringEncoding::UTF8)
        })
        .map_err(|error| PluginRefusal::NotAPlugin(format!("{error:#}").into()))?;
    Ok(described)
}

/// Checks that a module exports these functions of an interface.
fn check_functions<'a>(
    outline: &Outline<'_>,
    manifest: &Manifest,
    interface: &str,
    functions: impl Iterator<Item = &'a str>,
) -> Result<(), PluginRefusal> {
    let export = |function: &str| format!("{PACKAGE}{interface}@{}#{function}", manifest.contract);
    let (there, missing): (Vec<String>, Vec<String>) =
        functions.map(export).partition(|export| outline.exports.iter().any(|it| **it == **export));
    let hook = manifest.hooks.iter().find(|hook| hook.name() == interface);
    match (missing.into_iter().next(), hook) {
        (None, _) => Ok(()),
        (Some(_), Some(&hook)) if there.is_empty() => Err(PluginRefusal::HookMissing(hook)),
        (Some(_), None) if there.is_empty() => {
            let name = format!("{PACKAGE}{interface}@{}", manifest.contract);
            Err(PluginRefusal::NotAPlugin(format!("it exports no function of `{name}`").into()))
        }
        (Some(missing), _) => Err(PluginRefusal::ExportMissing(missing.into())),
    }
}

fn package(version: &str) -> String {
    format!("package evenkeel:policy@{version};")
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests;
