//! The choice of the streams, keys and numbers that the gateway accepts.

use std::net::SocketAddr;

use evenkeel_media::fingerprint::CertificateFingerprint;
use evenkeel_media::numbering::{ExtensionMap, PayloadTypeMap};
use evenkeel_media::srtp::SrtpKeys;
use sdp_types::{Direction, Setup};

use crate::codec::{Codec, CodecKind};
use crate::error::{Rejection, SdpError, excerpt};
use crate::extensions::{RTP_STREAM_ID, TRANSPORT_WIDE_NUMBER};
use crate::ice::IceCredentials;
use crate::offer::SdpOffer;
use crate::section::{HeaderExtension, MediaFormat, MediaSource, OfferedSection, SimulcastLayer};

/// The choices of the gateway that do not depend on a session.
#[derive(Clone, Copy, Debug)]
pub struct AnswerPolicy {
    /// The gateway may send to the client.
    pub sends: bool,
    /// The gateway may receive from the client.
    pub receives: bool,
    /// The gateway has a port for RTCP alone, for phones that do not multiplex.
    pub has_rtcp_port: bool,
    /// Fills a buffer with bytes of a cryptographic generator, for the gateway's key of SDES.
    pub random: fn(&mut [u8]),
}

/// The streams, keys and numbers that the gateway accepts of an offer.
#[derive(Clone, Debug)]
pub struct Negotiation {
    /// The client's side of the transport.
    pub transport: PeerTransport,
    /// The m-lines in their order.
    pub sections: Vec<NegotiatedSection>,
    /// The payload types of all m-lines, for packets of the client.
    pub payload_types: PayloadTypeMap,
    /// The header extensions of all m-lines.
    pub extensions: ExtensionMap,
}

/// The client's side of the transport.
#[derive(Clone, Debug)]
pub struct PeerTransport {
    /// The mark of the client's packets.
    pub path: PeerPath,
    /// The source of the keys.
    pub keying: Keying,
}

/// The mark of the client's packets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerPath {
    /// The source passed a check with these credentials of the client (RFC 8445).
    Ice(IceCredentials),
    /// The source is the address in the offer of a client without ICE. The caller checks that it can belong to one host.
    Address {
        /// The address of RTP.
        rtp: SocketAddr,
        /// The address of RTCP, another port of the same host (RFC 3605); `None` if it is multiplexed with RTP (RFC 5761).
        rtcp: Option<SocketAddr>,
    },
}

/// The source of a session's SRTP keys.
#[derive(Clone, Debug)]
pub enum Keying {
    /// A DTLS handshake, which the client begins (RFC 5764).
    Dtls {
        /// The client's certificate matches at least one of these.
        fingerprints: Vec<CertificateFingerprint>,
    },
    /// The descriptions (RFC 4568).
    Sdes(SrtpKeys),
}

/// An m-line of the answer.
#[derive(Clone, Debug)]
pub struct NegotiatedSection {
    /// The stream, or the reason for port 0.
    pub outcome: Result<AcceptedMedia, Rejection>,
}

/// An accepted m-line.
#[derive(Clone, Debug)]
pub struct AcceptedMedia {
    /// The identification of the m-line (RFC 5888), if it has one: always in a BUNDLE group.
    pub mid: Option<String>,
    /// Audio or video.
    pub kind: CodecKind,
    /// The direction as the gateway sees it.
    pub direction: Direction,
    /// The accepted formats in the client's order of preference; at least one is a codec.
    pub formats: Vec<MediaFormat>,
    /// The payload types of this m-line, for packets to the client.
    pub payload_types: PayloadTypeMap,
    /// The accepted header extensions.
    pub extensions: Vec<HeaderExtension>,
    /// The simulcast layers that the client sends; empty without simulcast.
    pub layers: Vec<SimulcastLayer>,
    /// The sources that the client announced.
    pub sources: Vec<MediaSource>,
    /// The SSRCs of layers that the client sends without names.
    pub layer_ssrcs: Vec<u32>,
    /// The client's id of the `MediaStream` (RFC 8830): streams of one id are played in sync. `None` or `-` for none.
    pub stream: Option<String>,
}

impl PeerPath {
    pub(crate) fn has_ice(&self) -> bool {
        matches!(self, PeerPath::Ice(_))
    }
}

impl Negotiation {
    /// Returns the accepted m-lines in their order.
    pub fn accepted(&self) -> impl Iterator<Item = &AcceptedMedia> {
        self.sections.iter().filter_map(|section| section.outcome.as_ref().ok())
    }
}

impl SdpOffer {
    /// Chooses from an offer: the first of a session, or a later one. The client keeps the m-lines in their places and the meaning of
    /// its numbers (RFC 3264, section 8).
    ///
    /// # Errors
    /// If no m-line is acceptable, or the client is ICE-lite.
    pub fn negotiate(&self, policy: &AnswerPolicy) -> Result<Negotiation, SdpError> {
        if self.ice_lite {
            return Err(SdpError::IceLite);
        }
        let (mut payload_types, mut extensions) = Default::default();
        let mut sections: Vec<NegotiatedSection> = Vec::with_capacity(self.sections.len());
        for section in &self.sections {
            let is_first = sections.iter().all(|other| other.outcome.is_err());
            let outcome = self.transport(section, is_first, policy);
            let outcome =
                outcome.and_then(|_| accept(section, policy, &mut payload_types, &mut extensions));
            sections.push(NegotiatedSection { outcome });
        }
        let transport = match self.tag(&sections) {
            Some(tag) => self.transport(&self.sections[tag], true, policy),
            None => {
                let mut rejections =
                    sections.iter().filter_map(|other| other.outcome.clone().err());
                let first = rejections.find(|reason| *reason != Rejection::Removed);
                Err(first.unwrap_or(Rejection::Removed))
            }
        };
        let transport = transport.map_err(SdpError::NothingAccepted)?;
        Ok(Negotiation { transport, sections, payload_types, extensions })
    }

    /// Returns the m-line that has the transport: the accepted one that is first in the group (RFC 9143, section 7.3.1), or the only one.
    pub(crate) fn tag(&self, sections: &[NegotiatedSection]) -> Option<usize> {
        let place = |mid: &String| {
            let is_tagged = |media: &AcceptedMedia| media.mid.as_ref() == Some(mid);
            sections.iter().position(|section| section.outcome.as_ref().is_ok_and(is_tagged))
        };
        match &self.bundle {
            Some(mids) => mids.iter().find_map(place),
            None => sections.iter().position(|section| section.outcome.is_ok()),
        }
    }

    /// Returns the transport of an m-line. `is_first` is true if none is accepted before it.
    fn transport(
        &self,
        section: &OfferedSection,
        is_first: bool,
        policy: &AnswerPolicy,
    ) -> Result<PeerTransport, Rejection> {
        if section.is_removed() {
            return Err(Rejection::Removed);
        }
        if section.kind.is_none() {
            return Err(Rejection::Kind(excerpt(&section.media)));
        }
        let shares_transport = match self.bundle {
            Some(_) => self.is_bundled(section),
            None => is_first,
        };
        if !shares_transport {
            return Err(Rejection::NotBundled);
        }
        let source = self.transport_of(section);
        let keying = keying(source, policy)?;
        let is_muxed = section.rtcp_mux || source.rtcp_mux;
        let path = match (&source.ice, &keying) {
            (Some(credentials), _) if is_muxed => PeerPath::Ice(credentials.clone()),
            (Some(_), _) => return Err(Rejection::RtcpNotMuxed("ICE checks one address")),
            (None, Keying::Dtls { .. }) => return Err(Rejection::NoIce),
            (None, Keying::Sdes(_)) => {
                let rtp = source.address.ok_or(Rejection::NoAddress)?;
                let rtcp = if is_muxed { None } else { Some(self.own_rtcp(section, policy)?) };
                PeerPath::Address { rtp, rtcp }
            }
        };
        Ok(PeerTransport { path, keying })
    }

    /// Returns the client's address of RTCP, if it may differ from that of RTP.
    fn own_rtcp(
        &self,
        section: &OfferedSection,
        policy: &AnswerPolicy,
    ) -> Result<SocketAddr, Rejection> {
        let reason = match section.rtcp_address {
            _ if self.is_bundled(section) => "BUNDLE has one address",
            _ if !policy.has_rtcp_port => "the gateway has no port for RTCP alone",
            None => "its RTCP is not at another port of the address in c=",
            Some(address) => return Ok(address),
        };
        Err(Rejection::RtcpNotMuxed(reason))
    }
}

/// Returns the source of the keys. A certificate is preferred to keys that signalling servers have read.
fn keying(section: &OfferedSection, policy: &AnswerPolicy) -> Result<Keying, Rejection> {
    let profile = section.profile.as_str();
    let is_rtp = profile.split('/').any(|part| part == "RTP");
    if is_rtp && !section.fingerprints.is_empty() {
        return match section.setup {
            Setup::Active | Setup::ActPass => {
                Ok(Keying::Dtls { fingerprints: section.fingerprints.clone() })
            }
            Setup::Passive => Err(Rejection::Setup("passive")),
            Setup::HoldConn => Err(Rejection::Setup("holdconn")),
        };
    }
    match profile {
        "RTP/SAVP" | "RTP/SAVPF" if section.crypto.is_empty() => Err(Rejection::NoKeys),
        "RTP/SAVP" | "RTP/SAVPF" => {
            let keys = SrtpKeys::accept(section.crypto.iter().cloned(), policy.random);
            keys.map(Keying::Sdes).map_err(Rejection::Crypto)
        }
        "UDP/TLS/RTP/SAVP" | "UDP/TLS/RTP/SAVPF" => Err(Rejection::NoFingerprint),
        _ => Err(Rejection::Profile(excerpt(profile))),
    }
}

/// Chooses the formats, header extensions and layers of an m-line.
fn accept(
    section: &OfferedSection,
    policy: &AnswerPolicy,
    payload_types: &mut PayloadTypeMap,
    extensions: &mut ExtensionMap,
) -> Result<AcceptedMedia, Rejection> {
    let no_codec = || {
        let codecs = section.formats.iter().filter_map(|format| format.format.codec());
        let mut names: Vec<&str> = codecs.map(Codec::name).collect();
        names.extend(section.unsupported.iter().map(String::as_str));
        Rejection::NoCodec(names.join(", "))
    };
    let kind = section.kind.ok_or_else(no_codec)?;
    let mut own = PayloadTypeMap::default();
    // A payload type that repairs another may stand before it.
    for repairs in [false, true] {
        for format in section.formats.iter().filter(|format| format.repairs.is_some() == repairs) {
            let (number, room) = (format.number, format.room);
            let has_base = format.repairs.is_none_or(|base| own.room_number(base).is_some());
            if has_base && own.client_number(room).is_none() && payload_types.admits(number, room) {
                payload_types.insert(number, room);
                own.insert(number, room);
            }
        }
    }
    let is_accepted = |format: &&MediaFormat| own.room_number(format.number).is_some();
    let mut formats: Vec<MediaFormat> =
        section.formats.iter().filter(is_accepted).cloned().collect();
    if formats.iter().all(|format| format.format.codec().is_none_or(Codec::is_event)) {
        return Err(no_codec());
    }
    let allowed = match (policy.sends, policy.receives) {
        (true, true) => Direction::SendRecv,
        (true, false) => Direction::SendOnly,
        (false, true) => Direction::RecvOnly,
        (false, false) => Direction::Inactive,
    };
    let direction = allowed.intersect_with_remote(section.direction);
    let mut accepted = section.extensions.clone();
    accepted.retain(|extension| {
        let is_received =
            direction.has_recv() && extension.direction.is_none_or(Direction::has_recv);
        let is_written = extension.uri != TRANSPORT_WIDE_NUMBER || !is_received;
        is_written && extensions.admits(extension.id, extension.room)
    });
    accepted.iter().for_each(|extension| extensions.insert(extension.id, extension.room));
    let has_numbers = accepted.iter().any(|extension| extension.uri == TRANSPORT_WIDE_NUMBER);
    formats.iter_mut().for_each(|format| format.feedback.transport_cc &= has_numbers);
    let has_rid = accepted.iter().any(|extension| extension.uri == RTP_STREAM_ID);
    let layers = if has_rid && direction.has_recv() { layers(section, &own) } else { Vec::new() };
    Ok(AcceptedMedia {
        mid: section.mid.clone(),
        kind,
        direction,
        formats,
        payload_types: own,
        extensions: accepted,
        layers,
        sources: section.sources.clone(),
        layer_ssrcs: section.layer_ssrcs.clone(),
        stream: section.stream.clone(),
    })
}

/// Returns the layers of which some payload type is accepted.
fn layers(section: &OfferedSection, accepted: &PayloadTypeMap) -> Vec<SimulcastLayer> {
    let layers = section.layers.iter().cloned().filter_map(|mut layer| {
        let is_limited = !layer.payload_types.is_empty();
        layer.payload_types.retain(|number| accepted.room_number(*number).is_some());
        (!is_limited || !layer.payload_types.is_empty()).then_some(layer)
    });
    layers.collect()
}

#[cfg(test)]
mod tests;
