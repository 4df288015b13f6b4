//! The secret behind the URLs of sessions by WHIP and WHEP, and behind the results of clients' probes.

use std::fmt;
use std::sync::Mutex;

use evenkeel_process::lock;
use evenkeel_process::random::fill;
use ring::hmac;
use serde::{Deserialize, Serialize};

/// Bytes of a code: 128 bits cannot be guessed.
const CODE_BYTES: usize = 16;

/// A secret that the processes share which continue the same sessions: a standby copies that of its owner.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionUrlSecret([u8; 32]);

/// Omits the secret.
impl fmt::Debug for SessionUrlSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionUrlSecret").finish_non_exhaustive()
    }
}

/// Makes the codes of sessions' URLs and of probes' results.
#[derive(Debug)]
pub struct SessionUrls(Mutex<SessionUrlSecret>);

impl Default for SessionUrls {
    /// Draws a secret.
    fn default() -> SessionUrls {
        let mut secret = [0; 32];
        fill(&mut secret);
        SessionUrls(Mutex::new(SessionUrlSecret(secret)))
    }
}

impl SessionUrls {
    /// The code of a URL, or of a result, with these parts.
    pub fn code(&self, parts: &[&str]) -> [u8; CODE_BYTES] {
        let SessionUrlSecret(secret) = self.secret();
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &secret));
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        *context.sign().as_ref().first_chunk().expect("a hash has 32 bytes")
    }

    pub(crate) fn secret(&self) -> SessionUrlSecret {
        *lock(&self.0)
    }

    /// Continues the URLs of another process.
    pub fn resume(&self, secret: SessionUrlSecret) {
        *lock(&self.0) = secret;
    }
}

#[cfg(test)]
mod tests;
