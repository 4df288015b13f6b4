//! ICE credentials of sessions (RFC 8839, section 5.4), and their restart.

use std::sync::Arc;

use evenkeel_dataplane::flows::{FlowEntry, FlowKey, Home, PackedKey, Ufrag};
use evenkeel_dataplane::worker::SrtpKeying;
use evenkeel_model::SessionId;
use serde::{Deserialize, Serialize};

use super::SessionRegistry;
use super::client_record::FlowPair;
use crate::messages::{ControlError, IceFragments};
use crate::offers::IceAnswer;

/// ICE characters for ufrags and passwords (RFC 8839, 5.4); 64, so that six random bits choose one.
const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// 48 random bits distinguish sessions. A guessed ufrag is useless without the password.
const UFRAG_LENGTH: usize = 8;

/// 144 random bits; RFC 8445, 5.3 requires 128.
const PASSWORD_LENGTH: usize = 24;

/// The gateway's credentials of a session. No `Debug`: the password is secret.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct IceSecret {
    pub(super) ufrag: Box<str>,
    pub(super) password: Box<str>,
}

impl IceSecret {
    pub(super) fn draw(random: &mut dyn FnMut(&mut [u8])) -> IceSecret {
        let mut text = |length| {
            let mut bytes = vec![0; length];
            random(&mut bytes);
            bytes.into_iter().map(|byte| char::from(ICE_CHARS[usize::from(byte & 63)])).collect()
        };
        IceSecret { ufrag: text(UFRAG_LENGTH), password: text(PASSWORD_LENGTH) }
    }

    /// The key and the entry in the flow table. `None` if the ufrag is too long.
    pub(super) fn pair(&self, home: Home) -> Option<FlowPair> {
        let key = FlowKey::Ufrag(Ufrag::new(self.ufrag.as_bytes())?);
        let password = Some(self.password.as_bytes().into());
        Some((key, FlowEntry { password, ..FlowEntry::of(home) }))
    }
}

impl SessionRegistry {
    pub(super) fn ice_answer(&self, IceSecret { ufrag, password }: &IceSecret) -> IceAnswer {
        let certificate = self.dtls_certificate.as_ref();
        let sha256 = certificate.map(|certificate| certificate.borrow().fingerprint());
        IceAnswer {
            ufrag: ufrag.clone(),
            password: password.clone(),
            certificate_sha256: sha256.unwrap_or_default(),
            announced: None,
        }
    }

    /// The credentials of this key of the flow table.
    pub(super) fn ice_secret(&self, key: &FlowKey) -> Option<IceSecret> {
        let FlowKey::Ufrag(ufrag) = key else { return None };
        let text = |bytes: &[u8]| str::from_utf8(bytes).ok().map(Box::from);
        let password = self.flows.entry(key)?.password?;
        Some(IceSecret { ufrag: text(ufrag.as_bytes())?, password: text(&password)? })
    }

    /// The gateway's part of the session's ICE; `None` if its client has none.
    pub(crate) fn ice_of(&self, session: SessionId) -> Option<IceAnswer> {
        let entry = self.get(session)?;
        let announced = match entry.srtp() {
            Some(SrtpKeying::Dtls { answered, .. }) => Some(Arc::clone(&answered.announced)),
            _ => None,
        };
        let answer = self.ice_answer(&self.ice_secret(&entry.key.key())?);
        Some(IceAnswer { announced, ..answer })
    }

    /// The user fragments of a WebRTC client.
    pub(crate) fn ice_fragments(&self, session: SessionId) -> Option<IceFragments> {
        let entry = self.get(session)?;
        let SrtpKeying::Dtls { answered, .. } = entry.srtp()? else { return None };
        let FlowKey::Ufrag(ufrag) = entry.key.key() else { return None };
        let gateway = str::from_utf8(ufrag.as_bytes()).ok()?.into();
        Some(IceFragments { gateway, client: answered.ufrag.clone() })
    }

    /// Draws new credentials (RFC 8445, section 9). The ones before remain valid until the next restart: the client checks the path
    /// in use with them until another is nominated.
    pub(crate) fn restart_ice(
        &mut self,
        session: SessionId,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), ControlError> {
        let entry = self.entries.get_mut(session).ok_or(ControlError::NotWebrtc)?;
        let (key, flow) = IceSecret::draw(random).pair(entry.home).ok_or(ControlError::Full)?;
        let packed = PackedKey::of(&key);
        self.flows.insert(key, flow).map_err(|_| ControlError::Full)?;
        let before = std::mem::replace(&mut entry.key, packed).key();
        let earlier = entry.more.get_or_insert_default().second_key.replace(before);
        if let Some(earlier) = earlier {
            self.flows.remove(&earlier, entry.home);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
