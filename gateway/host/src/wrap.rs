//! Wraps a core module as a component.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::manifest::{CONTRACT, Manifest};
use crate::refused::PluginRefusal;

/// The WIT of this gateway's contract version.
const WIT: &str = include_str!("../../../plugin-sdk/wit/policy.wit");

/// Wraps a core module as a component by the types in its own section, as written by the Rust SDK. A module without
/// such a section gets the contract's types, so that other languages only need the right names.
pub(crate) fn wrap(
    module: &[u8],
    typed: bool,
    manifest: &Manifest,
) -> Result<Vec<u8>, PluginRefusal> {
    let described = if typed { None } else { Some(describe(module, manifest)?) };
    ComponentEncoder::default()
        .module(described.as_deref().unwrap_or(module))
        .and_then(|encoder| encoder.validate(false).encode())
        .map_err(|error| PluginRefusal::NotAPlugin(format!("{error:#}").into()))
}

/// Adds a section with the types of the manifest's hooks.
fn describe(module: &[u8], manifest: &Manifest) -> Result<Vec<u8>, PluginRefusal> {
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
    let world = format!(
        "package evenkeel:host; world plugin {{ import {}; {exports} }}",
        interface("diag")
    );
    let mut resolve = Resolve::default();
    let mut described = module.to_vec();
    resolve
        .push_source("policy.wit", &wit)
        .and_then(|_| resolve.push_source("plugin.wit", &world))
        .and_then(|package| resolve.select_world(&[package], Some("plugin")))
        .and_then(|world| {
            embed_component_metadata(&mut described, &resolve, world, StringEncoding::UTF8)
        })
        .map_err(|error| PluginRefusal::NotAPlugin(format!("{error:#}").into()))?;
    Ok(described)
}

fn package(version: &str) -> String {
    format!("package evenkeel:policy@{version};")
}
