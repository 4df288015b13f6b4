//! The JSON of an offer.

use std::collections::BTreeSet;
use std::fmt;

use evenkeel_config::token::ClientDirection;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfferBody {
    pub(super) scenario: String,
    pub(super) room: String,
    #[serde(default)]
    pub(super) labels: OrderedPairs,
    /// With SDP in place of `ingress`, `media`, `rtcp` and `srtp`.
    pub(super) webrtc: Option<WebrtcBody>,
    pub(super) ingress: Option<IngressBody>,
    pub(super) media: Option<Vec<StreamBody>>,
    pub(super) rtcp: Option<RtcpBody>,
    pub(super) srtp: Option<SrtpBody>,
    #[serde(default)]
    pub(super) nodes: OrderedPairs,
}

impl OfferBody {
    /// The first field that SDP determines and that is given beside it.
    pub(super) fn beside_sdp(&self) -> Option<&'static str> {
        let given = [
            ("ingress", self.ingress.is_some()),
            ("media", self.media.is_some()),
            ("rtcp", self.rtcp.is_some()),
            ("srtp", self.srtp.is_some()),
        ];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(field, _)| field)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WebrtcBody {
    /// SDP (RFC 8866).
    pub(super) offer: String,
    /// Default: both directions, as far as the offer has them.
    pub(super) direction: Option<ClientDirection>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "`true`, `false` or an object with `crypto`")]
pub(super) enum SrtpBody {
    /// The node has the keys.
    AtNode(bool),
    Terminated(CryptoBody),
}

impl Default for SrtpBody {
    fn default() -> SrtpBody {
        SrtpBody::AtNode(false)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CryptoBody {
    /// Values of `a=crypto` lines, which contain keys.
    pub(super) crypto: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum IngressBody {
    Udp(UdpBody),
    Quic(QuicBody),
    Webtransport(QuicBody),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UdpBody {
    pub(super) identity: IdentityBody,
    pub(super) address: Option<String>,
    pub(super) rtcp: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum IdentityBody {
    Declared,
    DeclaredIp,
    Stun,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QuicBody {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamBody {
    #[serde(with = "StreamKindBody")]
    pub(super) kind: evenkeel_model::StreamKind,
    pub(super) payload_types: Vec<PayloadTypeBody>,
    #[serde(default)]
    pub(super) feedback: Vec<FeedbackBody>,
    pub(super) bitrate: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", remote = "evenkeel_model::StreamKind")]
pub(super) enum StreamKindBody {
    Audio,
    Video,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PayloadTypeBody {
    pub(super) payload_type: u8,
    pub(super) codec: String,
    pub(super) clock_rate: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FeedbackBody {
    Pli,
    Fir,
    Remb,
    Tmmbr,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RtcpBody {
    #[default]
    Mux,
    OwnPort,
}

/// An object of strings in the given order; a repeated key is refused.
#[derive(Default)]
pub(super) struct OrderedPairs(pub(super) Vec<(Box<str>, Box<str>)>);

impl<'de> Deserialize<'de> for OrderedPairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OrderedPairs, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = OrderedPairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object whose values are strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OrderedPairs, A::Error> {
                let mut seen = BTreeSet::new();
                let mut pairs = Vec::new();
                while let Some((key, value)) = map.next_entry::<Box<str>, Box<str>>()? {
                    if !seen.insert(key.clone()) {
                        return Err(A::Error::custom(format_args!("`{key}` is given twice")));
                    }
                    pairs.push((key, value));
                }
                Ok(OrderedPairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor)
    }
}
