//! Groups of clients by a label of their offers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ask::Labels;

crate::named! {
    /// A label of offers: clients with the same value share a network.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
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
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
pub struct ClientGroup {
    pub label: ClientLabel,
    pub value: Arc<str>,
}

impl std::fmt::Display for ClientGroup {
    /// `carrier ct`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.label.name(), self.value)
    }
}
