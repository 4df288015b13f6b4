//! The secrets by which the API knows its clients. A reload replaces them; connections and sessions go on.

use std::sync::{Arc, Mutex};

use evenkeel_config::token::{TokenClaims, TokenKeys, TokenRefusal, Validity};
use evenkeel_config::{AdminTcp, GatewayConfig, SecretFile, WebrtcSettings};
use evenkeel_process::{lock, sha256};

use super::listener::ProvenCredential;

/// The secrets that are accepted. Clones share them.
#[derive(Clone, Default)]
pub struct ClientSecrets(Arc<Mutex<AcceptedSecrets>>);

#[derive(Default)]
struct AcceptedSecrets {
    /// Digests of the tokens of `token_file`, and of `read_token_file`.
    operators_sha256: Vec<[u8; 32]>,
    readers_sha256: Vec<[u8; 32]>,
    /// `None` without `[webrtc]`.
    webrtc: Option<TokenKeys>,
}

impl ClientSecrets {
    pub(super) fn of(tcp: Option<&AdminTcp>, webrtc: Option<&WebrtcSettings>) -> ClientSecrets {
        let secrets = ClientSecrets::default();
        secrets.accept(tcp, webrtc);
        secrets
    }

    /// Accepts the secrets of this configuration from now on, and no others. A listener that it lacks stays until a restart, with its
    /// secrets.
    pub fn reload(&self, settings: &GatewayConfig) {
        self.accept(settings.admin.tcp.as_ref(), settings.webrtc.as_ref());
    }

    fn accept(&self, tcp: Option<&AdminTcp>, webrtc: Option<&WebrtcSettings>) {
        let digests = |tokens: &[SecretFile]| {
            tokens.iter().map(|token| sha256(token.bytes())).collect::<Vec<_>>()
        };
        let mut accepted = lock(&self.0);
        if let Some(tcp) = tcp {
            accepted.operators_sha256 = digests(&tcp.tokens);
            accepted.readers_sha256 = digests(&tcp.read_tokens);
        }
        if let Some(webrtc) = webrtc {
            accepted.webrtc = Some(webrtc.token_keys.clone());
        }
    }

    /// The credential that a bearer token of the API proves. `None`: it is unknown.
    pub(super) fn credential(&self, token: &str) -> Option<ProvenCredential> {
        // The time to compare digests reveals nothing about the token.
        let digest = sha256(token.as_bytes());
        let accepted = lock(&self.0);
        if accepted.operators_sha256.contains(&digest) {
            Some(ProvenCredential::OperatorToken)
        } else if accepted.readers_sha256.contains(&digest) {
            Some(ProvenCredential::ReaderToken)
        } else {
            None
        }
    }

    /// The claims of a WebRTC client's token.
    pub(super) fn verify(
        &self,
        token: &str,
        validity: Validity,
    ) -> Result<TokenClaims, TokenRefusal> {
        let keys = lock(&self.0).webrtc.clone();
        keys.ok_or(TokenRefusal::Signature)?.verify(token, validity)
    }
}

#[cfg(test)]
mod tests;
