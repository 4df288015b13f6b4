//! A core module in the wrapping of the component model.

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::manifest::{CONTRACT, Manifest};
use crate::refused::Refused;

/// The contract as this gateway has it.
const WIT: &str = include_str!("../../../plugin-sdk/wit/policy.wit");

/// Wraps a core module by the types that its own section describes, as the Rust SDK writes one. A module without such
/// a section has the types of the contract: all that another language needs is the right names.
pub(crate) fn wrap(module: &[u8], typed: bool, manifest: &Manifest) -> Result<Vec<u8>, Refused> {
    let described = if typed { None } else { Some(describe(module, manifest)?) };
    ComponentEncoder::default()
        .module(described.as_deref().unwrap_or(module))
        .and_then(|encoder| encoder.validate(false).encode())
        .map_err(|error| Refused::NotAPlugin { said: format!("{error:#}").into() })
}

/// The module with a section that says which types the hooks of its manifest have.
fn describe(module: &[u8], manifest: &Manifest) -> Result<Vec<u8>, Refused> {
    let version = &manifest.contract;
    // What an older plugin exports is in the newer contract too, unchanged, and it names it by the version it knows.
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
        .map_err(|error| Refused::NotAPlugin { said: format!("{error:#}").into() })?;
    Ok(described)
}

fn package(version: &str) -> String {
    format!("package evenkeel:policy@{version};")
}
