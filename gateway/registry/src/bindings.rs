//! The plugins that a configuration names in registries.

use evenkeel_config::{
    GatewayConfig, InvalidSetting, KeptPlugin, PluginLocation, PluginReference, PolicyBinding,
    RegistryPlugin, RegistrySettings,
};
use tokio::time::Instant;

use crate::cache::PluginCache;
use crate::error::RegistryError;
use crate::pull::{WITHIN, pull};

/// Pulls the plugins of all bindings that name one in a registry, and sets their files. Does nothing if there is none.
///
/// # Errors
/// The bindings without a plugin: it is not in the cache, and was not pulled within [`WITHIN`].
pub async fn pull_bindings(settings: &mut GatewayConfig) -> Result<(), Vec<InvalidSetting>> {
    let by = Instant::now() + WITHIN;
    let GatewayConfig { sets, registries, gateway, .. } = settings;
    let mut invalid = Vec::new();
    for binding in sets.iter_mut().flat_map(|set| &mut set.bindings) {
        let Some(reference) = reference(binding) else { continue };
        let pulled = async {
            let cache = PluginCache::open(&gateway.cache.candidates())?;
            let known = registries.iter().find(|known| *known.host == *reference.registry());
            let default = || RegistrySettings::of(reference.registry());
            let registry = known.cloned().unwrap_or_else(default);
            pull(&reference, &registry, Some(&cache), by).await
        };
        match pulled.await.map_err(|error: RegistryError| error.to_string()) {
            Ok(pulled) => {
                let content = pulled.content;
                let kept = pulled.path.map(|path| KeptPlugin { path, content });
                binding.plugin = PluginLocation::Registry(RegistryPlugin { reference, kept });
            }
            Err(found) => {
                invalid.push(binding.plugin_invalid(found, "a plugin that can be pulled"));
            }
        }
    }
    if invalid.is_empty() { Ok(()) } else { Err(invalid) }
}

fn reference(binding: &PolicyBinding) -> Option<PluginReference> {
    match &binding.plugin {
        PluginLocation::Registry(plugin) => Some(plugin.reference.clone()),
        PluginLocation::Shipped(_) | PluginLocation::File(_) => None,
    }
}
