//! Binding requests: read by the gateway, written by probes and by the lab.

use super::attribute::{
    FINGERPRINT, ICE_CONTROLLED, ICE_CONTROLLING, MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256,
    Message, PRIORITY, USE_CANDIDATE, USERNAME, append, begin, end,
};
use super::{Key, Malformed, Transaction, Unverified};

const BINDING_REQUEST: u16 = 0x0001;

/// How many unknown attributes are named to who sent them: more would only make the answer long.
pub const UNKNOWN_MAX: usize = 4;

/// A binding request, in place.
///
/// Nothing it says may be acted on before [`verify`](Self::verify) said yes.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    message: Message<'a>,
}

/// Whom a connectivity check is for and from (RFC 8445, section 7.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Username<'a> {
    /// The fragment the receiver of the request chose.
    pub server_ufrag: &'a str,
    /// The fragment its sender chose.
    pub client_ufrag: &'a str,
}

/// Which side of ICE the sender takes, with the number that settles a conflict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It chooses the path; towards an ICE-lite agent always (RFC 8445, section 6.1.1).
    Controlling(u64),
    /// It follows the other's choice.
    Controlled(u64),
}

impl<'a> Request<'a> {
    /// Reads a binding request.
    ///
    /// # Errors
    /// Why it is none; then nothing is answered.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let message = Message::parse(datagram)?;
        if message.kind() != BINDING_REQUEST {
            return Err(Malformed::NotBinding);
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
                return Err(Malformed::Attribute(kind));
            }
        }
        Ok(Self { message })
    }

    /// What the response has to carry.
    #[must_use]
    pub fn transaction(&self) -> Transaction {
        self.message.transaction()
    }

    /// Whom the request is for; none if USERNAME is missing or has no colon: then error 400 is due.
    #[must_use]
    pub fn username(&self) -> Option<Username<'a>> {
        let value = std::str::from_utf8(self.message.attribute(USERNAME)?).ok()?;
        let (server_ufrag, client_ufrag) = value.split_once(':')?;
        Some(Username { server_ufrag, client_ufrag })
    }

    /// Whether the sender chose this path (USE-CANDIDATE).
    #[must_use]
    pub fn use_candidate(&self) -> bool {
        self.message.attribute(USE_CANDIDATE).is_some()
    }

    /// The priority a candidate found by this check would have.
    #[must_use]
    pub fn priority(&self) -> Option<u32> {
        let value = self.message.attribute(PRIORITY)?;
        value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// Which side of ICE the sender takes.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        let number = |kind| {
            let value = self.message.attribute(kind)?;
            value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
        };
        number(ICE_CONTROLLING)
            .map(Role::Controlling)
            .or_else(|| number(ICE_CONTROLLED).map(Role::Controlled))
    }

    /// Attributes that must be understood and are not (RFC 8489, section 6.3.1), at most
    /// [`UNKNOWN_MAX`] of them. If there is one, [`write_unknown`](super::write_unknown) is due.
    pub fn unknown(&self) -> impl Iterator<Item = u16> {
        let known =
            [USERNAME, MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256, PRIORITY, USE_CANDIDATE];
        self.message
            .attributes()
            .map(|(kind, _)| kind)
            .filter(move |kind| *kind < 0x8000 && !known.contains(kind))
            .take(UNKNOWN_MAX)
    }

    /// Checks that its sender knows the password.
    ///
    /// # Errors
    /// Missing: error 400 is due; wrong: 401 (RFC 8489, section 9.1.3).
    pub fn verify(&self, key: &Key) -> Result<(), Unverified> {
        self.message.verify(key)
    }

    /// Whether the request says that it is STUN and nothing else: ICE agents always do (RFC 8445,
    /// section 7.1.1). A wrong fingerprint is refused when parsing.
    #[must_use]
    pub fn has_fingerprint(&self) -> bool {
        let bytes = self.message.bytes;
        let at = bytes.len().saturating_sub(8);
        at >= super::HEADER_LEN && bytes[at..at + 4] == [(FINGERPRINT >> 8) as u8, 0x28, 0, 4]
    }
}

/// A binding request to be written.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// What the response will carry; random.
    pub transaction: Transaction,
    /// Whom the request is for; none for a plain probe.
    pub username: Option<Username<'a>>,
    /// The password of whom it is for.
    pub key: Option<&'a Key>,
    /// The priority a candidate found by this check would have.
    pub priority: Option<u32>,
    /// Which side of ICE the sender takes.
    pub role: Option<Role>,
    /// Whether this path is chosen.
    pub use_candidate: bool,
}

impl Binding<'_> {
    /// A plain request, as a probe sends it: only the transaction.
    #[must_use]
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
            Some(Role::Controlling(number)) => append(ICE_CONTROLLING, &number.to_be_bytes(), out),
            Some(Role::Controlled(number)) => append(ICE_CONTROLLED, &number.to_be_bytes(), out),
            None => {}
        }
        if self.use_candidate {
            append(USE_CANDIDATE, &[], out);
        }
        end(start, self.key, out);
    }
}
