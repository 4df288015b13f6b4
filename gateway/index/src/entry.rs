//! Keys and values of the index. Other programs read them: `docs/operations/shared-index.md#shared-index` describes them.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use evenkeel_group::GroupRole;
use evenkeel_model::SessionId;
use serde::{Deserialize, Serialize};

/// Longest name of a group, bytes; it consists of the names of at most five members.
const GROUP_MAX: usize = 2_048;

/// The version of the values.
pub(super) const VERSION: u32 = 1;

/// `GROUP.session.s4k7mq2-17`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct IndexedSession {
    pub(super) v: u32,
    pub(crate) room: Arc<str>,
    pub(crate) scenario: Arc<str>,
    /// Unix time in microseconds.
    pub(crate) opened_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idempotency_key: Option<Arc<str>>,
}

/// `GROUP.owner`. A lower epoch never replaces a higher one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct OwnerEntry {
    pub(super) v: u32,
    pub(crate) gateway: Arc<str>,
    pub(crate) epoch: u64,
}

/// `room.claim.ROOM`: the group that has the room.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct RoomEntry {
    pub(super) v: u32,
    pub(super) group: String,
}

impl RoomEntry {
    /// `None` for a value that no gateway writes.
    pub(super) fn read(value: &[u8]) -> Option<RoomEntry> {
        let entry: RoomEntry = decode(value)?;
        (1..=GROUP_MAX).contains(&entry.group.len()).then_some(entry)
    }
}

/// `GROUP.member.NAME`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct MemberEntry {
    pub(super) v: u32,
    pub(crate) gateway: Arc<str>,
    pub(crate) role: GroupRole,
    pub(crate) epoch: u64,
    /// Unix time in microseconds.
    pub(crate) started_us: u64,
    /// The address of its API over TCP, if it listens on one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) api: Option<SocketAddr>,
}

pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("an entry is words and numbers")
}

/// `None` for a value of another version, or of another program.
pub(super) fn decode<T: for<'a> Deserialize<'a>>(value: &[u8]) -> Option<T> {
    #[derive(Deserialize)]
    struct Versioned {
        v: u32,
    }
    let Versioned { v } = serde_json::from_slice(value).ok()?;
    (v == VERSION).then(|| serde_json::from_slice(value).ok())?
}

#[derive(Clone, Debug)]
pub(super) struct IndexKeys {
    group: String,
}

impl IndexKeys {
    pub(super) fn new(group: &str) -> IndexKeys {
        IndexKeys { group: escape(group) }
    }

    /// The name of the group.
    pub(super) fn group(&self) -> String {
        unescape(&self.group)
    }

    pub(super) fn room(room: &str) -> String {
        format!("room.claim.{}", escape(room))
    }

    /// The room of a key that [`IndexKeys::room`] returned.
    pub(super) fn room_of(key: &str) -> Option<String> {
        let escaped = key.strip_prefix("room.claim.")?;
        let room = unescape(escaped);
        (escape(&room) == escaped).then_some(room)
    }

    /// The pattern of all rooms of all groups.
    pub(super) fn rooms() -> &'static str {
        "room.claim.*"
    }

    /// A key that no pattern of a group contains.
    pub(super) fn ballot(&self) -> String {
        format!("ballot.{}", self.group)
    }

    pub(super) fn owner(&self) -> String {
        format!("{}.owner", self.group)
    }

    pub(super) fn member(&self, name: &str) -> String {
        format!("{}.member.{}", self.group, escape(name))
    }

    /// The pattern of all members of the group.
    pub(super) fn members(&self) -> String {
        format!("{}.member.*", self.group)
    }

    pub(super) fn session(&self, session: SessionId) -> String {
        format!("{}.session.{session}", self.group)
    }

    /// The pattern of all sessions of the group.
    pub(super) fn sessions(&self) -> String {
        format!("{}.session.*", self.group)
    }
}

/// The group, as it was before it was escaped, and the last part of a key. `None` for a key that no gateway writes.
pub(super) fn split(key: &str) -> Option<(String, &str)> {
    let (escaped, rest) = key.split_once('.')?;
    let group = unescape(escaped);
    (escape(&group) == escaped).then_some((group, rest.rsplit('.').next()?))
}

/// Bytes that mean something in a key, or that a key cannot contain, become `=` and two digits.
fn escape(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'/' => {
                escaped.push(byte.into());
            }
            byte => write!(escaped, "={byte:02X}").expect("a string takes all text"),
        }
    }
    escaped
}

fn unescape(escaped: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = escaped.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<u8>| (byte? as char).to_digit(16);
        let byte = match byte {
            b'=' => match (digit(rest.next()), digit(rest.next())) {
                (Some(high), Some(low)) => (high * 16 + low) as u8,
                _ => b'?',
            },
            byte => byte,
        };
        bytes.push(byte);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests;
