//! Messages between the two processes, as JSON.

use std::fmt;

use evenkeel_control::SocketName;
use evenkeel_dataplane::quic;
use evenkeel_group::OwnershipState;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of the messages and of [`UpgradeOffer`]. The state has a version of its own.
const PROTOCOL: u32 = 1;

/// Maximum length of a reason in bytes, enough for the errors of a configuration. The rest is cut off: it goes into the
/// log and to the client of the API.
const REASON_MAX: usize = 8 << 10;

/// Both ends state theirs before anything else.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct ProtocolVersion {
    pub(super) protocol: u32,
    /// The version of the program.
    pub(super) program: String,
}

impl ProtocolVersion {
    pub(super) fn own() -> ProtocolVersion {
        ProtocolVersion { protocol: PROTOCOL, program: env!("CARGO_PKG_VERSION").to_owned() }
    }

    /// Refuses another version of the protocol. `self` is the running gateway's, `new` that of the new process.
    pub(super) fn require_same(&self, new: &ProtocolVersion) -> Result<(), String> {
        if self.protocol == new.protocol {
            return Ok(());
        }
        Err(format!(
            "the running gateway is {self}, the new process {new}: restart the gateway instead"
        ))
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProtocolVersion { protocol, program } = self;
        write!(f, "evenkeel {program} with hand-over version {protocol}")
    }
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "kebab-case")]
pub(super) enum HandoverMessage {
    /// Old → new, with duplicates of the sockets. The offer is an [`UpgradeOffer`] once the versions are known to be equal.
    Hello { version: ProtocolVersion, offer: Value },
    /// New → old: everything is there but packets and API requests.
    Ready {
        version: ProtocolVersion,
        /// The layout of last states that the new process reads besides MessagePack.
        #[serde(default)]
        states: Option<u32>,
    },
    /// Old → new, with records of sessions that go on.
    Records,
    /// Old → new, with the last records of sessions and their ports: the old process decides nothing.
    State,
    /// New → old: all sessions are there.
    Restored { sessions: usize },
    /// Old → new, with a part of the last states of media: the old process reads no packets.
    MediaPart,
    /// Old → new, with the last part.
    Media,
    /// New → old: the sessions have these states.
    Continued,
    /// Old → new: the new process serves from here on.
    Go,
    /// New → old, in place of any other message.
    Failed { reason: String },
}

impl HandoverMessage {
    /// The error for this message from `sender` out of turn. It names only the kind of the message: an offer contains keys.
    pub(super) fn unexpected(&self, sender: &str) -> String {
        let message = serde_json::to_value(self).expect("a message is words and numbers");
        let name = message["message"].as_str().unwrap_or_default();
        format!("the {sender} sent an unexpected `{name}`")
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a message is words and numbers")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<HandoverMessage, String> {
        let mut message = serde_json::from_slice(bytes)
            .map_err(|error| format!("a message is not understood: {error}"))?;
        if let HandoverMessage::Failed { reason } = &mut message {
            reason.truncate(reason.floor_char_boundary(REASON_MAX));
        }
        Ok(message)
    }
}

/// The part of `hello` that a process of another version need not understand.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct UpgradeOffer {
    /// The process is confined already; the new one inherits that.
    pub(super) confined: bool,
    pub(super) workers: usize,
    /// The sockets, in the order of the descriptors.
    pub(super) sockets: Vec<SocketName>,
    #[serde(default)]
    pub(super) quic: Option<quic::EndpointIdentity>,
    /// Set if the gateway owns the addresses of a group.
    #[serde(default)]
    pub(super) ownership: Option<OwnershipState>,
}

#[cfg(test)]
mod tests;
