//! Parses and checks the body of `POST /v1/sessions`.

mod raw;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use evenkeel_config::address;
use evenkeel_config::address::{ADDRESS_ALONE, ADDRESS_AND_PORT};
use evenkeel_control::OfferedSession;
use evenkeel_core::is_session_room_name;
use evenkeel_model::{
    ClientIdentity, FeedbackSupport, IngressProtocol, Labels, MediaDescription, MediaStream,
    PayloadType, RtcpPort, Srtp,
};

use self::raw::OrderedPairs;
use super::error::{ApiError, strict};

/// Maximum labels of a session; policies read all of them with each decision.
const LABELS_MAX: usize = 32;
/// Maximum length in bytes of a name, a label's key or a label's value.
const NAME_MAX: usize = 256;
/// Maximum streams of a session, and payload types of a stream. RTP has 32 dynamic numbers.
const STREAMS_MAX: usize = 16;
const PAYLOAD_TYPES_MAX: usize = 32;
/// Maximum nodes for which an offer may give addresses.
const NODES_MAX: usize = 64;
/// Above all RTP clock rates in use.
const CLOCK_RATE_MAX: u32 = 1_000_000;

/// Parses an offer; `traceparent` is the request's header. The error names the first invalid field.
pub(super) fn parse(
    body: &[u8],
    traceparent: Option<Box<str>>,
) -> Result<OfferedSession, ApiError> {
    let raw: raw::OfferBody = strict(body)?;
    let rtcp = match raw.rtcp {
        raw::RtcpBody::Mux => RtcpPort::Mux,
        raw::RtcpBody::OwnPort => RtcpPort::Own,
    };
    let srtp = if raw.srtp { Srtp::Opaque } else { Srtp::Plain };
    Ok(OfferedSession {
        scenario: name("scenario", &raw.scenario)?.into(),
        room: room(&raw.room)?.into(),
        labels: labels(raw.labels)?,
        ingress: ingress(raw.ingress, rtcp)?,
        media: Arc::new(MediaDescription { streams: streams(raw.media)?, rtcp, srtp }),
        nodes: nodes(&raw.nodes, rtcp)?,
        traceparent,
    })
}

fn name<'a>(field: &str, text: &'a str) -> Result<&'a str, ApiError> {
    if text.is_empty() || text.len() > NAME_MAX {
        let found = text.len();
        return Err(ApiError::field(field, format!("{found} bytes, 1 to {NAME_MAX} are allowed")));
    }
    Ok(text)
}

fn room(text: &str) -> Result<&str, ApiError> {
    let room = name("room", text)?;
    if is_session_room_name(room) {
        let message = format!(
            "found `{room}`: sessions that are placed by themselves have names that end so"
        );
        return Err(ApiError::field("room", message));
    }
    Ok(room)
}

fn labels(OrderedPairs(pairs): OrderedPairs) -> Result<Labels, ApiError> {
    at_most("labels", pairs.len(), LABELS_MAX)?;
    for (key, value) in &pairs {
        name("labels", key)?;
        if value.len() > NAME_MAX {
            let found = value.len();
            let message = format!("{found} bytes, at most {NAME_MAX} are allowed");
            return Err(ApiError::field(format!("labels.{key}"), message));
        }
    }
    Ok(pairs.into())
}

fn nodes(
    OrderedPairs(pairs): &OrderedPairs,
    rtcp: RtcpPort,
) -> Result<Vec<(Arc<str>, SocketAddr)>, ApiError> {
    at_most("nodes", pairs.len(), NODES_MAX)?;
    let parse = |(node, address): &(Box<str>, Box<str>)| {
        let field = format!("nodes.{node}");
        let address = address_and_port(&field, address)?;
        if rtcp == RtcpPort::Own {
            next_port(&field, address)?;
        }
        Ok((Arc::from(&**node), address))
    };
    pairs.iter().map(parse).collect()
}

fn parsed<T: FromStr>(field: &str, text: &str, right: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| ApiError::field(field, format!("found `{text}`, expected {right}")))
}

fn address_and_port(field: &str, text: &str) -> Result<SocketAddr, ApiError> {
    let address = parsed(field, text, ADDRESS_AND_PORT)?;
    address::checked(address).map_err(|wrong| ApiError::field(field, wrong))
}

fn address_alone(field: &str, text: &str) -> Result<IpAddr, ApiError> {
    let ip = parsed(field, text, ADDRESS_ALONE)?;
    address::check_ip(ip).map_err(|reason| {
        ApiError::field(field, format!("found `{ip}`, {reason}; expected {ADDRESS_ALONE}"))
    })?;
    Ok(ip)
}

/// Checks that there is a port for RTCP: the next one (RFC 3550, section 11).
fn next_port(field: &str, address: SocketAddr) -> Result<(), ApiError> {
    match address.port().checked_add(1) {
        Some(_) => Ok(()),
        None => {
            let message = "found port 65535, expected at most 65534: RTCP uses the next port";
            Err(ApiError::field(field, message))
        }
    }
}

fn ingress(raw: raw::IngressBody, rtcp: RtcpPort) -> Result<IngressProtocol, ApiError> {
    let raw = match raw {
        raw::IngressBody::Quic(raw::QuicBody {}) if rtcp == RtcpPort::Own => {
            let message = "found `own-port`, expected `mux`: a QUIC flow carries RTP and RTCP";
            return Err(ApiError::field("rtcp", message));
        }
        raw::IngressBody::Quic(raw::QuicBody {}) => return Ok(IngressProtocol::Quic),
        raw::IngressBody::Udp(raw) => raw,
    };
    let needed = |right: &str| {
        let message = format!("is missing, expected {right}");
        raw.address.as_deref().ok_or_else(|| ApiError::field("ingress.udp.address", message))
    };
    let identity = match raw.identity {
        raw::IdentityBody::Declared => {
            let address = address_and_port("ingress.udp.address", needed(ADDRESS_AND_PORT)?)?;
            let own = raw.rtcp.as_deref().map(|text| rtcp_of(address, text)).transpose()?;
            if own.is_none() && rtcp == RtcpPort::Own {
                next_port("ingress.udp.address", address)?;
            }
            ClientIdentity::Declared { address, rtcp: own.map(Box::new) }
        }
        raw::IdentityBody::DeclaredIp => ClientIdentity::DeclaredIp(address_alone(
            "ingress.udp.address",
            needed(ADDRESS_ALONE)?,
        )?),
        raw::IdentityBody::Stun => ClientIdentity::Stun,
    };
    let unused = |field: &str, is: bool, of: &str| {
        let message = format!("is only for the identity {of}");
        if is { Err(ApiError::field(field, message)) } else { Ok(()) }
    };
    let stun = raw.identity == raw::IdentityBody::Stun;
    unused("ingress.udp.address", stun && raw.address.is_some(), "`declared` or `declared-ip`")?;
    let declared = raw.identity == raw::IdentityBody::Declared;
    unused("ingress.udp.rtcp", !declared && raw.rtcp.is_some(), "`declared`")?;
    if stun && rtcp == RtcpPort::Own {
        let message =
            "found `own-port`, expected `mux`: checks prove one address, for RTP and RTCP";
        return Err(ApiError::field("rtcp", message));
    }
    if raw.rtcp.is_some() && rtcp == RtcpPort::Mux {
        let message = "is given, but `rtcp` is `mux`; expected `rtcp` to be `own-port`";
        return Err(ApiError::field("ingress.udp.rtcp", message));
    }
    Ok(IngressProtocol::Udp(identity))
}

/// The RTCP address of a declared client. It is one host with the RTP address: a packet from either shows that the host
/// takes part.
fn rtcp_of(rtp: SocketAddr, text: &str) -> Result<SocketAddr, ApiError> {
    let field = "ingress.udp.rtcp";
    let rtcp = address_and_port(field, text)?;
    if rtcp.ip() != rtp.ip() {
        let message = format!("found `{rtcp}`, expected a port of `{}`, as in `address`", rtp.ip());
        return Err(ApiError::field(field, message));
    }
    Ok(rtcp)
}

fn streams(raw: Vec<raw::StreamBody>) -> Result<Vec<MediaStream>, ApiError> {
    at_least_one("media", raw.len(), "stream")?;
    at_most("media", raw.len(), STREAMS_MAX)?;
    let mut seen = BTreeSet::new();
    let mut streams = Vec::with_capacity(raw.len());
    for (at, raw) in raw.into_iter().enumerate() {
        let field = format!("media[{at}].payload_types");
        at_least_one(&field, raw.payload_types.len(), "payload type")?;
        at_most(&field, raw.payload_types.len(), PAYLOAD_TYPES_MAX)?;
        let mut payload_types = Vec::with_capacity(raw.payload_types.len());
        for (at, raw) in raw.payload_types.into_iter().enumerate() {
            let number = raw.payload_type;
            let payload_type = payload_type(&raw, &format!("{field}[{at}]"))?;
            if !seen.insert(number) {
                let message = format!("found {number} a second time, expected each number once");
                return Err(ApiError::field(format!("{field}[{at}].payload_type"), message));
            }
            payload_types.push(payload_type);
        }
        let rate = |text: &String| kbps(&format!("media[{at}].bitrate"), text);
        let bitrate_kbps = raw.bitrate.as_ref().map(rate).transpose()?;
        streams.push(MediaStream {
            kind: raw.kind,
            payload_types,
            feedback: feedback(&raw.feedback),
            bitrate_kbps,
        });
    }
    Ok(streams)
}

fn payload_type(raw: &raw::PayloadTypeBody, field: &str) -> Result<PayloadType, ApiError> {
    let number = raw.payload_type;
    if number > 127 {
        let message = format!("found {number}, expected 0 to 127");
        return Err(ApiError::field(format!("{field}.payload_type"), message));
    }
    // RFC 5761, section 4, reserves these numbers to tell RTCP from RTP on one port.
    if (64..=95).contains(&number) {
        let message =
            format!("found {number}, reserved for RTCP (RFC 5761); expected 0 to 63 or 96 to 127");
        return Err(ApiError::field(format!("{field}.payload_type"), message));
    }
    let codec = name(&format!("{field}.codec"), &raw.codec)?.into();
    let clock_rate = raw.clock_rate;
    if clock_rate == 0 || clock_rate > CLOCK_RATE_MAX {
        let message = format!("found {clock_rate}, expected 1 to {CLOCK_RATE_MAX}");
        return Err(ApiError::field(format!("{field}.clock_rate"), message));
    }
    Ok(PayloadType { number, codec, clock_rate })
}

fn feedback(raw: &[raw::FeedbackBody]) -> FeedbackSupport {
    let mut feedback = FeedbackSupport::default();
    for kind in raw {
        match kind {
            raw::FeedbackBody::Pli => feedback.pli = true,
            raw::FeedbackBody::Fir => feedback.fir = true,
            raw::FeedbackBody::Remb => feedback.remb = true,
            raw::FeedbackBody::Tmmbr => feedback.tmmbr = true,
        }
    }
    feedback
}

fn kbps(field: &str, text: &str) -> Result<u32, ApiError> {
    let wrong = || {
        let message = format!("found `{text}`, expected a rate such as `64 kbit/s` or `2 Mbit/s`");
        ApiError::field(field, message)
    };
    let (number, unit) = text.split_once(' ').ok_or_else(wrong)?;
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let kbps = match unit {
        "kbit/s" => number,
        "Mbit/s" => number * 1_000.0,
        "Gbit/s" => number * 1_000_000.0,
        _ => return Err(wrong()),
    };
    // NaN is refused too, because it compares false.
    if (1.0..=f64::from(u32::MAX)).contains(&kbps) { Ok(kbps as u32) } else { Err(wrong()) }
}

fn at_least_one(field: &str, found: usize, what: &str) -> Result<(), ApiError> {
    if found > 0 {
        return Ok(());
    }
    Err(ApiError::field(field, format!("is empty, expected at least one {what}")))
}

fn at_most(field: &str, found: usize, most: usize) -> Result<(), ApiError> {
    if found <= most {
        return Ok(());
    }
    Err(ApiError::field(field, format!("found {found}, at most {most} are allowed")))
}

#[cfg(test)]
mod tests;
