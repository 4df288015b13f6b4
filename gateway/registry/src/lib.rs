//! Plugins in OCI registries: publishes them, pulls them by tag or digest, and keeps those that were pulled by digest.
//!
//! A plugin is the only layer of an image manifest (OCI image-spec 1.1). Requests are those of the OCI distribution-spec 1.1; answers are
//! bounded, and compared with their digest before they are parsed. Trust comes from the signature inside the plugin, which the gateway
//! checks as it does for a plugin from a file.

mod bindings;
mod cache;
mod challenge;
mod client;
mod error;
mod manifest;
mod publish;
mod pull;

pub use bindings::pull_bindings;
pub use cache::{PluginCache, PulledPlugin};
pub use error::RegistryError;
pub use manifest::PluginTitle;
pub use publish::publish;
pub use pull::{WITHIN, pull};

#[cfg(test)]
mod tests;
