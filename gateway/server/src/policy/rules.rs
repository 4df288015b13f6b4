//! The configured rules for plugins: accepted signers and grants per policy.

use std::collections::BTreeMap;

use evenkeel_core::PolicyName;
use evenkeel_host::{Provenance, Refused, Seal};

use crate::settings::{Allowed, Settings, Trust};

/// Each rollout reads the rules at its start.
#[derive(Clone, Default, PartialEq, Debug)]
pub(crate) struct Rules {
    trust: Trust,
    allowed: BTreeMap<PolicyName, Allowed>,
}

impl Rules {
    pub(crate) fn of(settings: &Settings) -> Rules {
        let allowed =
            settings.bindings().map(|(policy, binding)| (policy, binding.allowed.clone()));
        Rules { trust: settings.trust.clone(), allowed: allowed.collect() }
    }

    /// Checks the plugin's signature against the rules of this policy.
    pub(crate) fn judge(&self, policy: &PolicyName, plugin: &[u8]) -> Result<Provenance, Refused> {
        let allowed = self.allowed.get(policy).cloned().unwrap_or_default();
        self.trust.keys.judge(plugin, self.trust.unsigned(&allowed))
    }

    /// The refusal of an accepted plugin that has been revoked since.
    pub(super) fn revoked(&self, seal: &Seal) -> Option<Refused> {
        self.trust.keys.spare(seal).err()
    }

    pub(crate) fn grant(&self, policy: &PolicyName) -> evenkeel_host::Allowed {
        self.allowed.get(policy).map(|allowed| allowed.grant.clone()).unwrap_or_default()
    }
}
