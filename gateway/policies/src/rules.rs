//! The configured rules for plugins: accepted signers and grants per policy.

use std::collections::BTreeMap;

use evenkeel_config::{GatewayConfig, PluginLimits, TrustSettings};
use evenkeel_host::{PluginRefusal, PluginSeal, Provenance};
use evenkeel_model::PolicyName;

/// Each rollout reads the rules at its start.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct TrustRules {
    trust: TrustSettings,
    allowed: BTreeMap<PolicyName, PluginLimits>,
}

impl TrustRules {
    /// `[trust]` and the bindings of these settings.
    pub fn of(settings: &GatewayConfig) -> TrustRules {
        let allowed =
            settings.bindings().map(|(policy, binding)| (policy, binding.allowed.clone()));
        TrustRules { trust: settings.trust.clone(), allowed: allowed.collect() }
    }

    /// Checks the plugin's signature against the rules of this policy.
    pub fn judge(&self, policy: &PolicyName, plugin: &[u8]) -> Result<Provenance, PluginRefusal> {
        let allowed = self.allowed.get(policy).cloned().unwrap_or_default();
        self.trust.keys.judge(plugin, self.trust.unsigned(&allowed))
    }

    /// The refusal of an accepted plugin that has been revoked since.
    pub(super) fn revoked(&self, seal: &PluginSeal) -> Option<PluginRefusal> {
        self.trust.keys.spare(seal).err()
    }

    pub(crate) fn grant(&self, policy: &PolicyName) -> evenkeel_host::GrantLimits {
        self.allowed.get(policy).map(|allowed| allowed.grant.clone()).unwrap_or_default()
    }
}
