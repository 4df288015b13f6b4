//! An m-line of an offer with its attributes.

use std::net::{IpAddr, SocketAddr};

use evenkeel_media::fingerprint::{CertificateFingerprint, FingerprintError};
use evenkeel_media::srtp::{CryptoAttribute, SrtpKeyError};
use sdp_types::{Direction, ExtMap, GroupSemantics, Media, Rid, RidDirection};
use sdp_types::{RtpMap, Session, Setup, Ssrc, SsrcGroup};

use crate::codec::{Codec, CodecKind, Format, parameter};
use crate::description::Attributes;
use crate::error::{SdpError, excerpt};
use crate::extensions::room_extension;
use crate::ice::IceCredentials;
use crate::{CRYPTO_MAX, FINGERPRINTS_MAX, LAYERS_MAX, SOURCES_MAX};

/// Length limit of `a=mid` and of a RID: the longest element of a header extension of one-byte form is 16 bytes, of two-byte form
/// 255 (RFC 8285).
const ID_BYTES_MAX: usize = 255;

/// Limit of encodings that the rejection of an m-line names.
const NAMES_MAX: usize = 8;

/// Limit of `a=rid` lines that are read: those of layers in both directions, with alternatives.
const RIDS_MAX: usize = 4 * LAYERS_MAX;

/// The group of the SSRCs of layers. Not registered; libwebrtc wrote it before RIDs.
const SIMULCAST_GROUP: &str = "SIM";

/// Reserved in the one-byte form (RFC 8285, section 4.2).
const RESERVED_EXTENSION: u8 = 15;

/// An m-line of an offer. Attributes of the session level are filled in where RFC 8866 lets m-lines inherit them.
#[derive(Clone, Debug)]
pub(crate) struct OfferedSection {
    /// `None` for a kind that is neither audio nor video.
    pub(crate) kind: Option<CodecKind>,
    /// The first field of the m-line.
    pub(crate) media: String,
    /// 0 if the client removes the m-line, or with `bundle_only`.
    pub(crate) port: u16,
    /// The profile, such as `UDP/TLS/RTP/SAVPF`.
    pub(crate) profile: String,
    /// The formats of the m-line as offered.
    pub(crate) format_list: String,
    /// `a=mid` (RFC 5888).
    pub(crate) mid: Option<String>,
    /// The port is 0 unless the m-line is bundled (RFC 9143, section 6).
    pub(crate) bundle_only: bool,
    /// `a=rtcp-mux` (RFC 5761).
    pub(crate) rtcp_mux: bool,
    /// `a=rtcp-rsize` (RFC 5506).
    pub(crate) rtcp_reduced_size: bool,
    /// The direction as the client sees it.
    pub(crate) direction: Direction,
    pub(crate) ice: Option<IceCredentials>,
    /// Fingerprints of the client's certificate by sha-256, sha-384 and sha-512 (RFC 8122).
    pub(crate) fingerprints: Vec<CertificateFingerprint>,
    pub(crate) setup: Setup,
    /// The keys of SDES in the client's order of preference (RFC 4568).
    pub(crate) crypto: Vec<Result<CryptoAttribute, SrtpKeyError>>,
    /// The address of `c=` with the port of the m-line, for clients without ICE.
    pub(crate) address: Option<SocketAddr>,
    /// The address of RTCP, if it is not multiplexed with RTP; `None` if it is no other port of `address`.
    pub(crate) rtcp_address: Option<SocketAddr>,
    /// The supported formats in the client's order of preference.
    pub(crate) formats: Vec<MediaFormat>,
    /// Names of the encodings that are not supported, for a rejection.
    pub(crate) unsupported: Vec<String>,
    /// The supported header extensions.
    pub(crate) extensions: Vec<HeaderExtension>,
    /// The layers that the client sends (RFC 8853).
    pub(crate) layers: Vec<SimulcastLayer>,
    pub(crate) sources: Vec<MediaSource>,
    /// The SSRCs of layers without names, by `a=ssrc-group:SIM`.
    pub(crate) layer_ssrcs: Vec<u32>,
    /// The id of the `MediaStream` (RFC 8830).
    pub(crate) stream: Option<String>,
}

/// The attributes of the session level that m-lines inherit. They are read once: an offer may have many m-lines.
pub(crate) struct InheritedAttributes {
    direction: Option<Direction>,
    ice: Option<IceCredentials>,
    fingerprints: Vec<CertificateFingerprint>,
    setup: Setup,
    extensions: Vec<HeaderExtension>,
}

/// A payload type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MediaFormat {
    /// The client's number: 0–63 or 96–127.
    pub number: u8,
    /// The number in rooms.
    pub room: u8,
    pub format: Format,
    /// The client's number of the payload type that this one repairs; `None` for a codec.
    pub repairs: Option<u8>,
    /// The value of `a=fmtp` in the answer without the payload type; empty if absent.
    pub parameters: String,
    /// The feedback that the client understands.
    pub feedback: FeedbackSet,
}

/// Feedback of RTCP (RFC 4585, RFC 5104).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FeedbackSet {
    /// `nack`.
    pub nack: bool,
    /// `nack pli`.
    pub pli: bool,
    /// `ccm fir`.
    pub fir: bool,
    /// `ccm tmmbr`.
    pub tmmbr: bool,
    /// `goog-remb` (draft-alvestrand-rmcat-remb-03).
    pub remb: bool,
    /// `transport-cc` (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    pub transport_cc: bool,
}

/// An RTP header extension (RFC 8285).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeaderExtension {
    /// The client's id: 1–14 or 16–255.
    pub id: u8,
    /// The id in rooms, by [`EXTENSION_URIS`](crate::EXTENSION_URIS).
    pub room: u8,
    pub uri: &'static str,
    /// The direction as the gateway sees it, if the offer named one.
    pub direction: Option<Direction>,
}

/// A simulcast layer that a client sends (RFC 8853).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SimulcastLayer {
    /// The value of the RTP stream id extension in its packets (RFC 8852).
    pub rid: String,
    /// The client's payload types of the layer; empty if any.
    pub payload_types: Vec<u8>,
    /// The other restrictions, such as `max-width=640` (RFC 8851, section 5).
    pub restrictions: Vec<String>,
}

/// A synchronisation source of a client (RFC 5576).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MediaSource {
    /// The SSRC of the media.
    pub ssrc: u32,
    /// The SSRC of its retransmissions, by `a=ssrc-group:FID`.
    pub retransmission: Option<u32>,
    /// The SSRC of its parity, by `a=ssrc-group:FEC-FR` (RFC 5956, section 4.3).
    pub parity: Option<u32>,
}

impl InheritedAttributes {
    pub(crate) fn read(all: Attributes<'_>) -> Result<InheritedAttributes, SdpError> {
        Ok(InheritedAttributes {
            direction: all.direction(),
            ice: IceCredentials::read([all])?,
            fingerprints: read_fingerprints(all)?.unwrap_or_default(),
            // An absent attribute means `active` (RFC 4145, section 4).
            setup: read_setup(all)?.unwrap_or(Setup::Active),
            extensions: read_extensions(Vec::new(), all),
        })
    }
}

impl OfferedSection {
    /// Reads an m-line with its own attributes.
    pub(crate) fn read(
        session: &Session,
        inherited: &InheritedAttributes,
        media: &Media,
        own: Attributes<'_>,
    ) -> Result<OfferedSection, SdpError> {
        let kinds = [CodecKind::Audio, CodecKind::Video];
        let address = read_address(session, media);
        let mut section = OfferedSection {
            kind: kinds.into_iter().find(|kind| kind.as_str() == media.media),
            media: media.media.clone(),
            port: media.port,
            profile: media.proto.clone(),
            format_list: media.fmt.clone(),
            mid: read_mid(own)?,
            bundle_only: own.has("bundle-only"),
            rtcp_mux: own.has("rtcp-mux") || own.has("rtcp-mux-only"),
            rtcp_reduced_size: own.has("rtcp-rsize"),
            direction: own.direction().or(inherited.direction).unwrap_or_default(),
            ice: IceCredentials::read([own])?.or_else(|| inherited.ice.clone()),
            fingerprints: read_fingerprints(own)?.unwrap_or_else(|| inherited.fingerprints.clone()),
            setup: read_setup(own)?.unwrap_or_else(|| inherited.setup.clone()),
            crypto: read_crypto(own)?,
            address,
            rtcp_address: address.and_then(|rtp| read_rtcp_address(own, rtp)),
            formats: Vec::new(),
            unsupported: Vec::new(),
            extensions: read_extensions(inherited.extensions.clone(), own),
            layers: read_layers(own),
            sources: read_sources(own),
            layer_ssrcs: read_layer_ssrcs(own),
            stream: own.values("msid").next().map(|msid| first_word(msid).to_owned()),
        };
        if let Some(kind) = section.kind {
            section.read_formats(kind, own)?;
        }
        Ok(section)
    }

    fn read_formats(&mut self, kind: CodecKind, own: Attributes<'_>) -> Result<(), SdpError> {
        let lines = read_format_lines(own)?;
        // Between 63 and 96, the packet types of RTCP would not be told apart (RFC 5761, section 4).
        let is_format = |number: &u8| *number < 128 && !(64..96).contains(number);
        let numbers = self.format_list.split(' ').filter_map(|text| text.parse().ok());
        let mut listed: Vec<u8> = Vec::new();
        for number in numbers.filter(is_format) {
            if !listed.contains(&number) {
                listed.push(number);
            }
        }
        let codec = |number: u8| {
            let line = lines.get(usize::from(number)).filter(|_| listed.contains(&number))?;
            Codec::read(line.map.as_ref()?, line.parameters).filter(|codec| codec.kind() == kind)
        };
        for number in &listed {
            let number = *number;
            let line = &lines[usize::from(number)];
            let media = codec(number).map(|codec| (Format::Media(codec), None));
            let format = media.or_else(|| line.repair(kind, codec));
            let in_room =
                format.and_then(|(format, base)| Some((format.room_number()?, format, base)));
            if let Some((room, format, repairs)) = in_room {
                let parameters = format.answered_parameters(line.parameters);
                let feedback = line.feedback;
                let format = MediaFormat { number, room, format, repairs, parameters, feedback };
                self.formats.push(format);
                continue;
            }
            let name = line.map.as_ref().map_or("unnamed", |map| map.encoding_name.as_str());
            let name = excerpt(name);
            if self.unsupported.len() < NAMES_MAX && !self.unsupported.contains(&name) {
                self.unsupported.push(name);
            }
        }
        Ok(())
    }

    /// Returns true if the client sets port 0 to remove the m-line.
    pub(crate) fn is_removed(&self) -> bool {
        self.port == 0 && !self.bundle_only
    }
}

/// The lines of a payload type.
#[derive(Default)]
struct FormatLines<'a> {
    map: Option<RtpMap>,
    parameters: &'a str,
    feedback: FeedbackSet,
}

fn read_format_lines(own: Attributes<'_>) -> Result<[FormatLines<'_>; 128], SdpError> {
    let mut lines: [FormatLines<'_>; 128] = std::array::from_fn(|_| FormatLines::default());
    // Static payload types need no a=rtpmap (RFC 3551, table 4).
    lines[0].map = Some(RtpMap::new(0, "PCMU", 8_000));
    lines[8].map = Some(RtpMap::new(8, "PCMA", 8_000));
    for value in own.values("rtpmap") {
        let expected = "PAYLOAD-TYPE NAME/CLOCK-RATE with a payload type up to 127";
        let malformed = |_| SdpError::attribute("rtpmap", value, expected);
        let map: RtpMap = value.parse().map_err(malformed)?;
        let number = usize::from(map.payload_type);
        lines[number].map = Some(map);
    }
    for (number, value) in own.values("fmtp").filter_map(numbered) {
        lines[number].parameters = value;
    }
    let mut of_all = FeedbackSet::default();
    for value in own.values("rtcp-fb") {
        if let Some(kind) = value.strip_prefix("* ") {
            of_all.add(kind);
        } else if let Some((number, kind)) = numbered(value) {
            lines[number].feedback.add(kind);
        }
    }
    for kind in of_all.names() {
        lines.iter_mut().for_each(|line| line.feedback.add(kind));
    }
    Ok(lines)
}

impl FormatLines<'_> {
    /// Returns the format of a payload type that repairs others of the m-line, and that other one if there is one.
    fn repair(
        &self,
        kind: CodecKind,
        codec: impl Fn(u8) -> Option<Codec>,
    ) -> Option<(Format, Option<u8>)> {
        let map = self.map.as_ref()?;
        if kind == CodecKind::Video && Format::is_parity(map) {
            return Some((Format::Parity, None));
        }
        let (base, repaired): (&str, fn(Codec) -> Format) =
            if map.encoding_name.eq_ignore_ascii_case("rtx") {
                (parameter(self.parameters, "apt")?, Format::Retransmission)
            } else if map.encoding_name.eq_ignore_ascii_case("red") {
                // Blocks of another codec would need a second mapping inside the payload.
                let mut blocks = self.parameters.split('/');
                let first = blocks.next()?;
                (blocks.all(|block| block == first).then_some(first)?, Format::Redundancy)
            } else {
                return None;
            };
        let base = base.trim().parse().ok()?;
        let codec = codec(base).filter(|codec| codec.clock_rate() == map.clock_rate)?;
        Some((repaired(codec), Some(base)))
    }
}

/// Splits a payload type from the rest of a value.
fn numbered(value: &str) -> Option<(usize, &str)> {
    let (number, rest) = value.split_once(' ')?;
    let number = number.parse().ok().filter(|number: &usize| *number < 128)?;
    Some((number, rest.trim()))
}

fn first_word(value: &str) -> &str {
    value.split(' ').next().unwrap_or_default()
}

fn read_mid(own: Attributes<'_>) -> Result<Option<String>, SdpError> {
    let Some(mid) = own.values("mid").next() else { return Ok(None) };
    let is_token = |byte: u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]".contains(&byte);
    if mid.is_empty() || mid.len() > ID_BYTES_MAX || !mid.bytes().all(is_token) {
        return Err(SdpError::attribute("mid", mid, "a token of 1 to 255 characters"));
    }
    Ok(Some(mid.to_owned()))
}

/// Returns `None` if the level has no line.
fn read_fingerprints(
    level: Attributes<'_>,
) -> Result<Option<Vec<CertificateFingerprint>>, SdpError> {
    let found = level.values("fingerprint").count();
    SdpError::require_at_most(FINGERPRINTS_MAX, "lines a=fingerprint at one level", found)?;
    let mut fingerprints = Vec::new();
    for value in level.values("fingerprint") {
        match value.parse() {
            Ok(fingerprint) => fingerprints.push(fingerprint),
            // A certificate with the same hash by one of the others can be made.
            Err(FingerprintError::Hash) => {}
            Err(FingerprintError::Form) => {
                let expected = "HASH followed by bytes in hexadecimal with colons between them";
                return Err(SdpError::attribute("fingerprint", value, expected));
            }
        }
    }
    Ok((found > 0).then_some(fingerprints))
}

fn read_setup(level: Attributes<'_>) -> Result<Option<Setup>, SdpError> {
    let Some(value) = level.values("setup").next() else { return Ok(None) };
    let malformed = |_| SdpError::attribute("setup", value, "active, passive, actpass or holdconn");
    value.parse().map(Some).map_err(malformed)
}

fn read_crypto(
    own: Attributes<'_>,
) -> Result<Vec<Result<CryptoAttribute, SrtpKeyError>>, SdpError> {
    let found = own.secrets("crypto").count();
    SdpError::require_at_most(CRYPTO_MAX, "lines a=crypto of one m-line", found)?;
    Ok(own.secrets("crypto").map(str::parse).collect())
}

fn read_address(session: &Session, media: &Media) -> Option<SocketAddr> {
    let connection = media.connections.first().or(session.connection.as_ref())?;
    let ip: IpAddr = connection.connection_address.parse().ok()?;
    (!ip.is_unspecified() && media.port != 0).then_some(SocketAddr::new(ip, media.port))
}

/// Reads `a=rtcp:PORT`, which an address may follow (RFC 3605, section 2.1). If absent, the port is the next one (RFC 3550, section 11).
fn read_rtcp_address(own: Attributes<'_>, rtp: SocketAddr) -> Option<SocketAddr> {
    let Some(value) = own.values("rtcp").next() else {
        return Some(SocketAddr::new(rtp.ip(), rtp.port().checked_add(1)?));
    };
    let mut words = value.split(' ');
    let port = words.next()?.parse().ok().filter(|port| *port != 0)?;
    // The network type and the address type are in between.
    let ip = words.nth(2).map_or(Ok(rtp.ip()), str::parse).ok()?;
    (ip == rtp.ip() && port != rtp.port()).then_some(SocketAddr::new(ip, port))
}

impl FeedbackSet {
    fn add(&mut self, kind: &str) {
        // Tmmbr may have a parameter (RFC 5104, section 7.1).
        let mut words = kind.split(' ');
        match (words.next().unwrap_or_default(), words.next()) {
            ("nack", None) => self.nack = true,
            ("nack", Some("pli")) => self.pli = true,
            ("ccm", Some("fir")) => self.fir = true,
            ("ccm", Some("tmmbr")) => self.tmmbr = true,
            ("goog-remb", None) => self.remb = true,
            ("transport-cc", None) => self.transport_cc = true,
            _ => {}
        }
    }

    /// Returns the values of `a=rtcp-fb`.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        let all = [
            (self.nack, "nack"),
            (self.pli, "nack pli"),
            (self.fir, "ccm fir"),
            (self.tmmbr, "ccm tmmbr"),
            (self.remb, "goog-remb"),
            (self.transport_cc, "transport-cc"),
        ];
        all.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name)
    }
}

/// Adds the extensions of a level to those that it inherits.
fn read_extensions(
    mut extensions: Vec<HeaderExtension>,
    level: Attributes<'_>,
) -> Vec<HeaderExtension> {
    for value in level.values("extmap") {
        let Ok(ExtMap { id, direction, uri, .. }) = value.parse() else { continue };
        let Some((room, uri)) = room_extension(&uri) else { continue };
        let is_new = extensions.iter().all(|known| known.id != id && known.room != room);
        if is_new && id != 0 && id != RESERVED_EXTENSION {
            let direction = direction.map(Direction::reverse);
            extensions.push(HeaderExtension { id, room, uri, direction });
        }
    }
    extensions
}

/// Reads `a=simulcast:send A;B` with the `a=rid` lines that it names. The first of alternatives is taken; a layer that begins
/// paused (`~`) is a layer.
fn read_layers(own: Attributes<'_>) -> Vec<SimulcastLayer> {
    let mut words = own.values("simulcast").next().unwrap_or_default().split_whitespace();
    let Some(list) = words.find(|word| *word == "send").and_then(|_| words.next()) else {
        return Vec::new();
    };
    let rids: Vec<Rid> =
        own.values("rid").filter_map(|value| value.parse().ok()).take(RIDS_MAX).collect();
    let names = list.split(';').filter_map(|alternatives| alternatives.split(',').next());
    let mut layers: Vec<SimulcastLayer> = Vec::new();
    for name in names.map(|name| name.trim_start_matches('~')) {
        let is_layer = |rid: &&Rid| rid.id == name && rid.direction == RidDirection::Send;
        let Some(rid) = rids.iter().find(is_layer) else { continue };
        let is_new = layers.iter().all(|layer| layer.rid != name);
        if is_new && layers.len() < LAYERS_MAX && name.len() <= ID_BYTES_MAX {
            let mut restrictions = rid.params.clone();
            let numbers =
                restrictions.iter().position(|restriction| restriction.starts_with("pt="));
            let numbers = numbers.map(|index| restrictions.remove(index)).unwrap_or_default();
            let payload_types = numbers.trim_start_matches("pt=").split(',');
            let payload_types = payload_types.filter_map(|number| number.parse().ok()).collect();
            layers.push(SimulcastLayer { rid: name.to_owned(), payload_types, restrictions });
        }
    }
    layers
}

fn read_sources(own: Attributes<'_>) -> Vec<MediaSource> {
    let mut ssrcs: Vec<u32> = Vec::new();
    for source in own.values("ssrc").filter_map(|value| value.parse::<Ssrc>().ok()) {
        if ssrcs.len() < 3 * SOURCES_MAX && !ssrcs.contains(&source.ssrc_id) {
            ssrcs.push(source.ssrc_id);
        }
    }
    let (mut retransmissions, mut parities) = (Vec::new(), Vec::new());
    for group in own.values("ssrc-group").filter_map(|value| value.parse::<SsrcGroup>().ok()) {
        let pairs: &mut Vec<[u32; 2]> = match group.semantics {
            GroupSemantics::FID => &mut retransmissions,
            GroupSemantics::Other(name) if name == "FEC-FR" => &mut parities,
            _ => continue,
        };
        if let Ok(pair) = <[u32; 2]>::try_from(group.ssrc_ids)
            && pairs.len() < SOURCES_MAX
        {
            pairs.push(pair);
        }
    }
    let is_media =
        |ssrc: &u32| retransmissions.iter().chain(&parities).all(|[_, repair]| repair != ssrc);
    let repair = |pairs: &[[u32; 2]], ssrc: u32| {
        pairs.iter().find(|[media, _]| *media == ssrc).map(|[_, repair]| *repair)
    };
    let source = |ssrc| MediaSource {
        ssrc,
        retransmission: repair(&retransmissions, ssrc),
        parity: repair(&parities, ssrc),
    };
    ssrcs.into_iter().filter(is_media).map(source).take(SOURCES_MAX).collect()
}

/// Reads `a=ssrc-group:SIM`, which senders without RIDs write.
fn read_layer_ssrcs(own: Attributes<'_>) -> Vec<u32> {
    let groups = own.values("ssrc-group").filter_map(|value| value.parse::<SsrcGroup>().ok());
    let is_simulcast =
        |group: &SsrcGroup| group.semantics.as_str().eq_ignore_ascii_case(SIMULCAST_GROUP);
    let mut ssrcs = groups.filter(is_simulcast).take(1).flat_map(|group| group.ssrc_ids);
    let mut layers: Vec<u32> = Vec::new();
    while let Some(ssrc) = ssrcs.next().filter(|_| layers.len() < LAYERS_MAX) {
        if !layers.contains(&ssrc) {
            layers.push(ssrc);
        }
    }
    layers
}
