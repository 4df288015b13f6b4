//! Binding requests: the gateway parses them; probes and the lab write them.

use super::attribute::{
    ICE_CONTROLLED, ICE_CONTROLLING, MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256, PRIORITY,
    StunMessage, USE_CANDIDATE, USERNAME, append, begin, end,
};
use super::{StunError, StunKey, Transaction, Unverified};

const BINDING_REQUEST: u16 = 0x0001;

/// Limit of unknown attributes listed in a response, to bound its length.
pub(crate) const UNKNOWN_MAX: usize = 4;

/// A binding request, parsed in place.
///
/// Do not act on its content before [`verify`](Self::verify) succeeds.
#[derive(Clone, Copy, Debug)]
pub struct BindingRequest<'a> {
    message: StunMessage<'a>,
}

/// The two parts of a USERNAME (RFC 8445, section 7.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Username<'a> {
    /// The fragment chosen by the receiver of the request.
    pub server_ufrag: &'a str,
    /// The fragment chosen by the sender of the request.
    pub client_ufrag: &'a str,
}

impl<'a> Username<'a> {
    /// Reads the USERNAME of a message without checking its fingerprint, so that a message for an
    /// unknown session costs little. `None` if USERNAME is missing or has no colon.
    ///
    /// # Errors
    /// Fails if the message is not STUN, or an attribute exceeds it.
    pub fn read(datagram: &'a [u8]) -> Result<Option<Self>, StunError> {
        StunMessage::scan(datagram).map(|message| Self::of(&message))
    }

    fn of(message: &StunMessage<'a>) -> Option<Self> {
        let value = std::str::from_utf8(message.attribute(USERNAME)?).ok()?;
        let (server_ufrag, client_ufrag) = value.split_once(':')?;
        Some(Self { server_ufrag, client_ufrag })
    }
}

/// The sender's ICE role, with its tie-breaker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IceRole {
    /// The sender selects the path; always the case towards an ICE-lite agent (RFC 8445, section
    /// 6.1.1).
    Controlling(u64),
    /// With the tie-breaker.
    Controlled(u64),
}

impl<'a> BindingRequest<'a> {
    /// Parses a binding request.
    ///
    /// # Errors
    /// Fails if the request is invalid; then send no response.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, StunError> {
        let message = StunMessage::parse(datagram)?;
        if message.kind() != BINDING_REQUEST {
            return Err(StunError::NotBinding);
        }
        for (kind, value) in message.attributes() {
            let length_fits = match kind {
                USERNAME => value.len() <= 512 && std::str::from_utf8(value).is_ok(),
                PRIORITY => value.len() == 4,
                USE_CANDIDATE => value.is_empty(),
                ICE_CONTROLLING | ICE_CONTROLLED => value.len() == 8,
                _ => true,
            };
            if !length_fits {
                return Err(StunError::Attribute(kind));
            }
        }
        Ok(Self { message })
    }

    /// To be repeated in the response.
    pub fn transaction(&self) -> Transaction {
        self.message.transaction()
    }

    /// Returns `None` if USERNAME is missing or has no colon: respond with error 400.
    pub fn username(&self) -> Option<Username<'a>> {
        Username::of(&self.message)
    }

    /// Returns whether the sender selects this path (USE-CANDIDATE).
    pub fn use_candidate(&self) -> bool {
        self.message.attribute(USE_CANDIDATE).is_some()
    }

    /// Returns the priority of a candidate discovered by this check.
    pub fn priority(&self) -> Option<u32> {
        let value = self.message.attribute(PRIORITY)?;
        value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// Returns the sender's role and tie-breaker (RFC 8445, section 7.1.1).
    pub fn role(&self) -> Option<IceRole> {
        let number = |kind| {
            let value = self.message.attribute(kind)?;
            value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
        };
        number(ICE_CONTROLLING)
            .map(IceRole::Controlling)
            .or_else(|| number(ICE_CONTROLLED).map(IceRole::Controlled))
    }

    /// Returns the unknown comprehension-required attributes (RFC 8489, section 6.3.1), at most
    /// `UNKNOWN_MAX`. If there is one, respond with [`write_unknown`](super::write_unknown).
    pub fn unknown(&self) -> impl Iterator<Item = u16> {
        let known =
            [USERNAME, MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256, PRIORITY, USE_CANDIDATE];
        self.message
            .attributes()
            .map(|(kind, _)| kind)
            .filter(move |kind| *kind < 0x8000 && !known.contains(kind))
            .take(UNKNOWN_MAX)
    }

    /// Checks that the sender knows the password.
    ///
    /// # Errors
    /// Fails if the integrity is missing (respond with error 400) or wrong (401; RFC 8489, section
    /// 9.1.3).
    pub fn verify(&self, key: &StunKey) -> Result<(), Unverified> {
        self.message.verify(key)
    }

    /// Returns whether FINGERPRINT is present, as in every ICE check (RFC 8445, section 7.1.1).
    /// Parsing refuses a wrong one.
    pub fn has_fingerprint(&self) -> bool {
        self.message.has_fingerprint
    }
}

/// The attributes of a binding request.
#[derive(Clone, Copy, Debug)]
pub struct BindingBuilder<'a> {
    /// A random transaction identifier.
    pub transaction: Transaction,
    /// `None` for a plain probe.
    pub username: Option<Username<'a>>,
    /// Key of the receiver's password.
    pub key: Option<&'a StunKey>,
    /// The priority of a candidate discovered by this check.
    pub priority: Option<u32>,
    /// ICE-CONTROLLING or ICE-CONTROLLED.
    pub role: Option<IceRole>,
    /// True if the request selects this path.
    pub use_candidate: bool,
}

impl BindingBuilder<'_> {
    /// Creates a plain request with only a transaction.
    pub fn probe(transaction: Transaction) -> Self {
        Self {
            transaction,
            username: None,
            key: None,
            priority: None,
            role: None,
            use_candidate: false,
        }
    }

    /// Appends the request to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = begin(BINDING_REQUEST, self.transaction, out);
        if let Some(Username { server_ufrag, client_ufrag }) = self.username {
            let mut value = Vec::with_capacity(server_ufrag.len() + 1 + client_ufrag.len());
            value.extend_from_slice(server_ufrag.as_bytes());
            value.push(b':');
            value.extend_from_slice(client_ufrag.as_bytes());
            append(USERNAME, &value, out);
        }
        if let Some(priority) = self.priority {
            append(PRIORITY, &priority.to_be_bytes(), out);
        }
        match self.role {
            Some(IceRole::Controlling(number)) => {
                append(ICE_CONTROLLING, &number.to_be_bytes(), out);
            }
            Some(IceRole::Controlled(number)) => append(ICE_CONTROLLED, &number.to_be_bytes(), out),
            None => {}
        }
        if self.use_candidate {
            append(USE_CANDIDATE, &[], out);
        }
        end(start, self.key, out);
    }
}
