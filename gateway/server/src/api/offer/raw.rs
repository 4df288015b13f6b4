//! The JSON shape of an offer before its values are checked.

use std::collections::BTreeSet;
use std::fmt;

use evenkeel_core as core;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Offer {
    pub(super) scenario: String,
    pub(super) room: String,
    #[serde(default)]
    pub(super) labels: Pairs,
    pub(super) ingress: Ingress,
    pub(super) media: Vec<Stream>,
    #[serde(default)]
    pub(super) rtcp: Rtcp,
    #[serde(default)]
    pub(super) srtp: bool,
    #[serde(default)]
    pub(super) nodes: Pairs,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Ingress {
    Udp(Udp),
    Quic(Quic),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Udp {
    pub(super) identity: Identity,
    pub(super) address: Option<String>,
    pub(super) rtcp: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Identity {
    Declared,
    DeclaredIp,
    Stun,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Quic {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stream {
    #[serde(with = "Kind")]
    pub(super) kind: core::Kind,
    pub(super) payload_types: Vec<PayloadType>,
    #[serde(default)]
    pub(super) feedback: Vec<Feedback>,
    pub(super) bitrate: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", remote = "core::Kind")]
enum Kind {
    Audio,
    Video,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PayloadType {
    pub(super) payload_type: u8,
    pub(super) codec: String,
    pub(super) clock_rate: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Feedback {
    Pli,
    Fir,
    Remb,
    Tmmbr,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Rtcp {
    #[default]
    Mux,
    OwnPort,
}

/// An object of strings in the given order; a repeated key is refused.
#[derive(Default)]
pub(super) struct Pairs(pub(super) Vec<(Box<str>, Box<str>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pairs, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object whose values are strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut seen = BTreeSet::new();
                let mut pairs = Vec::new();
                while let Some((key, value)) = map.next_entry::<Box<str>, Box<str>>()? {
                    if !seen.insert(key.clone()) {
                        return Err(A::Error::custom(format_args!("`{key}` is given twice")));
                    }
                    pairs.push((key, value));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}
