//! `srtp` of `[[node]]`.

use evenkeel_model::Srtp;
use serde::Deserialize;

/// SRTP between the gateway and a node (RFC 3711).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeSrtp {
    /// The gateway encrypts nothing for the node. SRTP of clients that does not end at the gateway passes unread.
    #[default]
    Off,
    /// The gateway encrypts the legs. The driver agrees with the node on keys for each leg (SDES, RFC 4568).
    Sdes,
    /// The node takes only SRTP of clients that passes unread.
    Passthrough,
}

impl NodeSrtp {
    /// The value of the key.
    pub fn name(self) -> &'static str {
        match self {
            NodeSrtp::Off => "off",
            NodeSrtp::Sdes => "sdes",
            NodeSrtp::Passthrough => "passthrough",
        }
    }

    /// Returns whether the node takes sessions of clients with this SRTP.
    pub fn takes(self, client: Srtp) -> bool {
        match self {
            NodeSrtp::Off => true,
            NodeSrtp::Sdes => client.is_readable(),
            NodeSrtp::Passthrough => !client.is_readable(),
        }
    }
}

#[cfg(test)]
mod tests;
