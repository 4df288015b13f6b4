//! Groups of clients by a label of their offers, and the settings of their circuit breakers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ask::Labels;
use crate::settings::CircuitSettings;

crate::named! {
    /// A label of offers whose clients share a network.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Debug)]
    #[serde(rename_all = "kebab-case")]
    pub enum ClientLabel {
        /// The carrier of the client's access network.
        Carrier = "carrier",
        /// The region of the client.
        Region = "region",
    }
}

impl ClientLabel {
    /// The label's value in an offer. An empty one counts as none.
    pub fn value(self, labels: &Labels) -> Option<&str> {
        let found = labels.iter().find(|(name, _)| **name == *self.name());
        found.map(|(_, value)| &**value).filter(|value| !value.is_empty())
    }
}

/// The clients with one value of a label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Debug)]
pub struct ClientGroup {
    /// The label.
    pub label: ClientLabel,
    /// Its value.
    pub value: Arc<str>,
}

impl std::fmt::Display for ClientGroup {
    /// `carrier ct`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.label.name(), self.value)
    }
}

crate::named! {
    /// Treatment of newcomers of a group of clients whose breaker is open.
    #[derive(Clone, Copy, PartialEq, Eq, Default, Deserialize, Debug)]
    #[serde(rename_all = "kebab-case")]
    pub enum NewcomerAction {
        /// They are admitted as others are. The breaker is reported only.
        #[default]
        #[serde(rename = "none")]
        Admit = "none",
        /// They are sent no video until the breaker is closed.
        VoiceOnly = "voice-only",
        /// They are refused.
        Refuse = "refuse",
    }
}

/// Settings of the breakers of clients.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ClientBreakerSettings {
    /// Treatment of newcomers while a breaker is open.
    pub action: NewcomerAction,
    /// Thresholds: a session is bad while its uplink or downlink impairs it.
    pub circuit: CircuitSettings,
}
