//! Whose plugins a gateway takes for which policy, and what they may do: what is configured, as it is now.

use std::collections::BTreeMap;

use evenkeel_core::PolicyName;
use evenkeel_host::{Refused, Seal, Vouched};

use crate::settings::{Allowed, Settings, Trust};

/// Read by every rollout as it begins.
#[derive(Clone, Default, PartialEq, Debug)]
pub(crate) struct Rules {
    trust: Trust,
    allowed: BTreeMap<PolicyName, Allowed>,
}

impl Rules {
    pub(crate) fn of(settings: &Settings) -> Rules {
        let bindings = settings.sets.iter().flat_map(|set| {
            let policy = |hook| PolicyName { set: set.name.clone(), hook };
            set.bindings.iter().map(move |binding| (policy(binding.hook), binding.allowed.clone()))
        });
        Rules { trust: settings.trust.clone(), allowed: bindings.collect() }
    }

    /// Who vouches for a plugin that is to answer for this policy.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(crate) fn judge(&self, policy: &PolicyName, plugin: &[u8]) -> Result<Vouched, Refused> {
        let allowed = self.allowed.get(policy).cloned().unwrap_or_default();
        self.trust.keys.judge(plugin, self.trust.unsigned(&allowed))
    }

    /// What of a plugin that was taken is revoked by now, if anything is.
    pub(super) fn revoked(&self, seal: &Seal) -> Option<Refused> {
        self.trust.keys.spare(seal).err()
    }

    /// What it is granted of what it asks for.
    pub(crate) fn grant(&self, policy: &PolicyName) -> evenkeel_host::Allowed {
        self.allowed.get(policy).map(|allowed| allowed.grant.clone()).unwrap_or_default()
    }
}
