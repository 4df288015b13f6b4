//! `POST /v1/sessions`: parses and checks an offer, and answers each idempotency key once.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::State;
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use evenkeel_config::address::{self, ADDRESS_ALONE, ADDRESS_AND_PORT};
use evenkeel_config::read_duration;
use evenkeel_config::token::ClientDirection;
use evenkeel_contract::errors::ErrorCode;
use evenkeel_contract::offers::{
    AnswerSdp, CryptoAnswer, OfferAnswer, OfferCrypto, OfferDirection, OfferExtension,
    OfferFeedback, OfferIdentity, OfferIngress, OfferLayer, OfferMedia, OfferPayloadType,
    OfferQuic, OfferRequest, OfferRtcp, OfferSrtp, OfferStreamKind, OrderedPairs, QuicAnswer,
    UdpAnswer, WebtransportAnswer,
};
use evenkeel_contract::sessions::IceFragments;
use evenkeel_control::{
    CallerSpan, IngressAnswer, KeyError, NodeNames, OfferedSession, RequestTurn, SessionAnswer,
    StoredAnswer, TraceRegistry, is_first_packet_room,
};
use evenkeel_core::is_session_room_name;
use evenkeel_dataplane::quic::webtransport_url;
use evenkeel_dataplane::worker::SrtpKeying;
use evenkeel_index::ClaimRevision;
use evenkeel_media::roq;
use evenkeel_media::srtp::SrtpKeys;
use evenkeel_model::{
    ClientIdentity, DeviceLimits, ExtensionUri, FeedbackSupport, HeaderExtension, IngressProtocol,
    LAYERS_MAX, Labels, Latency, MediaDescription, MediaStream, OfferedLayer, PayloadType,
    RepairKind, RtcpPort, SessionId, Srtp, StreamKind,
};
use evenkeel_process::random::fill;

use self::client_media::ClientMedia;
use self::token_use::TokenUse;
use self::webrtc::WebrtcOffer;
use super::answers;
use super::context::{ApiContext, ApiState};
use super::error::{ApiError, note_retry};
use super::probe_results::{PROBE_FIELD, PROBE_LABELS};
use super::relay;
use super::request::{Share, caller, strict};

mod client_media;
pub(super) mod later;
pub(super) mod token_use;
pub(super) mod webrtc;

/// Time for a used token to be written; a slow disk delays no answer for longer.
const TOKEN_KEPT_WITHIN: Duration = Duration::from_millis(200);

/// Maximum labels of a session; policies read all of them with each decision.
const LABELS_MAX: usize = 32;
/// Maximum length in bytes of a name, a label's key or a label's value.
pub(super) const NAME_MAX: usize = 256;
/// Maximum streams of a session, and payload types of a stream. RTP has 32 dynamic numbers.
const STREAMS_MAX: usize = 16;
const PAYLOAD_TYPES_MAX: usize = 32;
/// Maximum header extensions of a session; browsers offer up to 14.
const EXTENSIONS_MAX: usize = 32;
/// Maximum length of a RID: the longest element of the one-byte form (RFC 8285, section 4.2).
const RID_MAX: usize = 16;
/// Maximum nodes for which an offer may give addresses.
const NODES_MAX: usize = 64;
/// Maximum attributes with keys; phones offer up to eight.
const CRYPTO_MAX: usize = 16;
/// Above all RTP clock rates in use.
const CLOCK_RATE_MAX: u32 = 1_000_000;
/// Packets are kept for a second at most, so that a longer jitter buffer gets no further repair.
const LATENCY_MAX: Duration = Duration::from_secs(1);

pub(super) async fn open(
    State(shared): ApiState,
    extensions: Extensions,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (body, share) = shared.read(body).await?;
    let is_private = relay::is_private(&extensions, &headers);
    let answer = match headers.get("idempotency-key") {
        None => answered(offer(&shared, &headers, &body, is_private).await),
        Some(key) => {
            let wrong = "found characters outside visible ASCII";
            let key =
                key.to_str().map_err(|_| ApiError::field("idempotency-key", wrong))?.to_owned();
            offer_once(&shared, key, headers, body, share, is_private).await?
        }
    };
    if answer.status == StatusCode::CREATED.as_u16() {
        shared.confirm().await?;
    }
    Ok(response(answer))
}

/// The answer to the first offer with this key.
async fn offer_once(
    shared: &Arc<ApiContext>,
    key: String,
    headers: HeaderMap,
    body: Vec<u8>,
    share: Share,
    is_private: bool,
) -> Result<StoredAnswer, ApiError> {
    let RequestTurn { is_first, mut answer } =
        shared.seen.begin(&key, &body).map_err(|error| refused_key(&error))?;
    if is_first {
        let working = Arc::clone(shared);
        // A separate task completes the answer even if the client disconnects.
        tokio::spawn(async move {
            let token = TokenUse::of_key(&key);
            let opened = match working.require_session(&key, token).await {
                Ok(()) => offer(&working, &headers, &body, is_private).await,
                Err(error) => Err(error),
            };
            if let (Some(index), Ok((session, _))) = (&working.index, &opened) {
                index.note_key(*session, &key);
            }
            if let Ok((session, _)) = &opened
                && let Some(kept) = working.seen.keep(&key, *session)
            {
                let _ = tokio::time::timeout(TOKEN_KEPT_WITHIN, kept).await;
            }
            let own = opened.as_ref().ok().map(|(session, _)| *session);
            // A result of a probe ages; its key may come again with another one, or with none.
            let is_passing = opened.as_ref().is_err_and(|error| {
                error.room_owner.is_some()
                    || error.field.as_deref() == Some(PROBE_FIELD)
                    || token != TokenUse::Once
            });
            working.seen.finish(&key, answered(opened), is_passing);
            if let Some(own) = own.filter(|_| token == TokenUse::Reuse) {
                working.end_replaced(&key, own).await;
            }
            drop(share);
        });
    }
    let answer = answer.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
    answer.ok_or_else(|| {
        ApiError::new(ErrorCode::Unavailable, "the first request with this key got no answer")
    })
}

/// The session, and the body of the answer. `is_private`: no other host than those of the group's gateways saw the offer.
async fn offer(
    shared: &ApiContext,
    headers: &HeaderMap,
    body: &[u8],
    is_private: bool,
) -> Result<(SessionId, Vec<u8>), ApiError> {
    let ParsedOffer { mut wanted, sdp, probe } = parse(body, caller(headers))?;
    if let Some(SrtpKeying::Sdes(_)) = wanted.srtp {
        check_keys(is_private)?;
    }
    if let Some(signed) = &probe {
        let (urls, now) = (&shared.handle.session_urls, SystemTime::now());
        let measured = shared.used_results.redeem(urls, signed, now)?;
        wanted.labels = wanted.labels.iter().chain(&*measured).cloned().collect();
    }
    let opened = open_session(shared, &wanted).await;
    if let (Some(signed), Err(_)) = (&probe, &opened) {
        shared.used_results.release(signed);
    }
    let opened = opened?;
    let session = opened.session;
    let view = view(opened, &wanted, sdp.as_ref(), &shared.names, &shared.handle.traces);
    let body = serde_json::to_vec(&view);
    Ok((session, body.expect("an answer is words and numbers")))
}

async fn open_session(
    shared: &ApiContext,
    wanted: &OfferedSession,
) -> Result<SessionAnswer, ApiError> {
    let claim = claim_room(shared, wanted).await?;
    let opened = shared.ask("", shared.handle.offer(wanted.clone())).await;
    if let (Some(index), Some(claim), Err(_)) = (&shared.index, claim, &opened) {
        index.note_unused(&wanted.room, claim);
    }
    opened
}

/// Keys are accepted only if no other host saw them (RFC 4568, section 8.3).
fn check_keys(is_private: bool) -> Result<(), ApiError> {
    if is_private {
        return Ok(());
    }
    let wrong = "has keys, and the offer came over TCP from another host; expected an offer on the Unix socket, or \
                 from this host";
    Err(ApiError::field("srtp.crypto", wrong))
}

/// Claims a new room in the shared index. Fails if another group has it.
async fn claim_room(
    shared: &ApiContext,
    wanted: &OfferedSession,
) -> Result<Option<ClaimRevision>, ApiError> {
    let Some(index) = &shared.index else { return Ok(None) };
    let (scenario, room) = (Arc::clone(&wanted.scenario), Arc::clone(&wanted.room));
    if !shared.ask("", shared.handle.creates_room(scenario, room)).await? {
        return Ok(None);
    }
    let claimed = index.claim(&wanted.room).await;
    claimed.map_err(|owner| ApiError::room_elsewhere(&wanted.room, owner))
}

fn view(
    opened: SessionAnswer,
    wanted: &OfferedSession,
    sdp: Option<&WebrtcOffer>,
    names: &NodeNames,
    traces: &TraceRegistry,
) -> OfferAnswer {
    let trace = traces.of(opened.session, wanted.caller.as_ref());
    let (mut webrtc, mut ice_view, mut webtransport) = (None, None, None);
    let (udp, quic) = match (opened.ingress, sdp) {
        (IngressAnswer::Udp { addresses, ice: Some(ice), .. }, Some(sdp)) => {
            let answer = sdp.answer(opened.session, &addresses, &ice);
            webrtc = Some(AnswerSdp { answer: answer.as_str().to_owned() });
            let (ufrag, client_ufrag) = (ice.ufrag.into(), sdp.ice.ufrag.clone());
            ice_view = Some(IceFragments { ufrag, client_ufrag });
            (None, None)
        }
        (IngressAnswer::Udp { addresses, rtcp, ice }, _) => {
            let (ufrag, password) = ice.map(|ice| (ice.ufrag.into(), ice.password.into())).unzip();
            (Some(UdpAnswer { addresses, rtcp, ufrag, password }), None)
        }
        (
            IngressAnswer::Quic {
                addresses,
                certificate_sha256,
                short_lived_sha256,
                flow_to_gateway,
                flow_from_gateway,
            },
            _,
        ) => {
            let [flow_to, flow_from] =
                [flow_to_gateway, flow_from_gateway].map(|it| it.to_string());
            if wanted.ingress == IngressProtocol::WebTransport {
                let urls = addresses.iter().map(|at| webtransport_url(*at, flow_to_gateway));
                let hashes = short_lived_sha256.iter().map(|sha256| HEXLOWER.encode(sha256));
                webtransport = Some(WebtransportAnswer {
                    urls: urls.collect(),
                    certificates_sha256: hashes.collect(),
                    flow_to_gateway: flow_to,
                    flow_from_gateway: flow_from,
                });
                (None, None)
            } else {
                let alpn = str::from_utf8(roq::ALPN).expect("a protocol's name is ASCII");
                let quic = QuicAnswer {
                    addresses,
                    alpn: alpn.to_owned(),
                    certificate_sha256: HEXLOWER.encode(&certificate_sha256),
                    flow_to_gateway: flow_to,
                    flow_from_gateway: flow_from,
                };
                (None, Some(quic))
            }
        }
    };
    let srtp = match &wanted.srtp {
        Some(SrtpKeying::Sdes(keys)) => {
            keys.answer().map(|answer| CryptoAnswer { crypto: vec![answer.to_value().to_string()] })
        }
        Some(SrtpKeying::Dtls { .. }) | None => None,
    };
    OfferAnswer {
        id: opened.session.to_string(),
        room: Arc::clone(&wanted.room),
        scenario: Arc::clone(&wanted.scenario),
        udp,
        quic,
        webtransport,
        webrtc,
        ice: ice_view,
        srtp,
        route: answers::route(&opened.route, names),
        decided_by: answers::decided_by(&opened.admitted_by, &opened.routed_by),
        trace_id: HEXLOWER.encode(&trace.trace_id),
    }
}

fn refused_key(error: &KeyError) -> ApiError {
    let field = ApiError::field("idempotency-key", error.to_string());
    match error {
        KeyError::Length(_) => field,
        KeyError::OtherBody(_) | KeyError::AnswerDropped { .. } => {
            ApiError { code: ErrorCode::Conflict, ..field }
        }
    }
}

fn answered(result: Result<(SessionId, Vec<u8>), ApiError>) -> StoredAnswer {
    match result {
        Ok((session, body)) => StoredAnswer {
            status: StatusCode::CREATED.as_u16(),
            // Without spare capacity, which the limits do not count.
            body: body.into_boxed_slice().into(),
            retry_after: None,
            session: Some(session),
        },
        Err(error) => StoredAnswer {
            status: error.status().as_u16(),
            retry_after: error.retry_after,
            body: error.body().into(),
            session: None,
        },
    }
}

fn response(answer: StoredAnswer) -> Response {
    let json = HeaderValue::from_static("application/json");
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, [(header::CONTENT_TYPE, json)], answer.body).into_response();
    if let Some(wait) = answer.retry_after {
        note_retry(response.headers_mut(), wait);
    }
    response
}

/// An offer, the SDP in it, and the result of a probe that it carries.
#[derive(Debug)]
struct ParsedOffer {
    wanted: OfferedSession,
    sdp: Option<WebrtcOffer>,
    probe: Option<String>,
}

/// Parses an offer of this caller. The error names the first invalid field.
fn parse(body: &[u8], caller: Option<CallerSpan>) -> Result<ParsedOffer, ApiError> {
    let raw: OfferRequest = strict(body)?;
    let (client, sdp) = match &raw.webrtc {
        Some(webrtc) => {
            if let Some(field) = raw.beside_sdp() {
                return Err(ApiError::field(
                    field,
                    "is given beside `webrtc`, whose SDP determines it",
                ));
            }
            let sdp = WebrtcOffer::parse(&webrtc.offer, webrtc.direction.map(direction))?;
            (sdp.client(), Some(sdp))
        }
        None => {
            let mut client = described(raw.ingress, raw.media, raw.rtcp, raw.srtp)?;
            client.media.extensions = extensions(raw.extensions)?;
            client.media.simulcast = simulcast(raw.simulcast, &client.media)?;
            (client, None)
        }
    };
    let ClientMedia { ingress, mut media, keying } = client;
    if let Some(text) = &raw.latency {
        media.latency = latency(text)?;
    }
    let nodes = nodes(&raw.nodes, media.rtcp)?;
    let wanted = OfferedSession {
        scenario: name("scenario", &raw.scenario)?.into(),
        room: room(&raw.room)?.into(),
        labels: labels(raw.labels)?,
        ingress,
        media: Arc::new(media),
        srtp: keying,
        nodes,
        caller,
    };
    Ok(ParsedOffer { wanted, sdp, probe: raw.probe })
}

fn direction(direction: OfferDirection) -> ClientDirection {
    match direction {
        OfferDirection::Publish => ClientDirection::Publish,
        OfferDirection::View => ClientDirection::View,
    }
}

/// Reads a client that is described field by field.
fn described(
    ingress: Option<OfferIngress>,
    media: Option<Vec<OfferMedia>>,
    rtcp: Option<OfferRtcp>,
    srtp: Option<OfferSrtp>,
) -> Result<ClientMedia, ApiError> {
    let missing = |field: &str| ApiError::field(field, "is missing, and there is no `webrtc`");
    let (ingress, media) =
        (ingress.ok_or_else(|| missing("ingress"))?, media.ok_or_else(|| missing("media"))?);
    let rtcp = match rtcp.unwrap_or_default() {
        OfferRtcp::Mux => RtcpPort::Mux,
        OfferRtcp::OwnPort => RtcpPort::Own,
    };
    let (srtp, keying) = self::srtp(&srtp.unwrap_or_default(), &ingress)?;
    let media = MediaDescription::new(streams(media)?, rtcp, srtp);
    Ok(ClientMedia { ingress: self::ingress(ingress, rtcp)?, media, keying })
}

fn latency(text: &str) -> Result<Latency, ApiError> {
    let latency = read_duration(text).map_err(|wrong| ApiError::field("latency", wrong))?;
    if latency > LATENCY_MAX {
        let message = format!("found `{text}`, expected at most `1s`");
        return Err(ApiError::field("latency", message));
    }
    Ok(Latency(latency.as_millis() as u16))
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
    if is_session_room_name(room) || is_first_packet_room(room) {
        let message = format!(
            "found `{room}`: rooms of sessions that are placed by themselves, or opened by a packet, have such names"
        );
        return Err(ApiError::field("room", message));
    }
    Ok(room)
}

fn labels(OrderedPairs(pairs): OrderedPairs) -> Result<Labels, ApiError> {
    at_most("labels", pairs.len(), LABELS_MAX)?;
    for (key, value) in &pairs {
        name("labels", key)?;
        if PROBE_LABELS.contains(&&**key) {
            return Err(ApiError::field(format!("labels.{key}"), "is set by `probe` alone"));
        }
        if value.len() > NAME_MAX {
            let found = value.len();
            let message = format!("{found} bytes, at most {NAME_MAX} are allowed");
            return Err(ApiError::field(format!("labels.{key}"), message));
        }
        DeviceLimits::check(key, value).map_err(|expected| {
            let message = format!("found `{value}`, expected {expected}");
            ApiError::field(format!("labels.{key}"), message)
        })?;
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

/// Accepts the first attribute that the gateway supports, and draws the gateway's own key. No error quotes a key.
fn srtp(raw: &OfferSrtp, ingress: &OfferIngress) -> Result<(Srtp, Option<SrtpKeying>), ApiError> {
    let crypto = match raw {
        OfferSrtp::AtNode(false) => return Ok((Srtp::Plain, None)),
        OfferSrtp::AtNode(true) => return Ok((Srtp::Opaque, None)),
        OfferSrtp::Terminated(OfferCrypto { crypto }) => crypto,
    };
    if matches!(ingress, OfferIngress::Quic(_) | OfferIngress::Webtransport(_)) {
        let message = "has keys, but QUIC encrypts the packets; expected no `srtp`";
        return Err(ApiError::field("srtp", message));
    }
    at_most("srtp.crypto", crypto.len(), CRYPTO_MAX)?;
    let offered = crypto.iter().map(|value| value.parse());
    let keys = SrtpKeys::accept(offered, fill);
    let keys = keys.map_err(|reason| ApiError::field("srtp.crypto", reason.to_string()))?;
    Ok((Srtp::Terminated, Some(SrtpKeying::Sdes(Arc::new(keys)))))
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

fn ingress(raw: OfferIngress, rtcp: RtcpPort) -> Result<IngressProtocol, ApiError> {
    let raw = match raw {
        OfferIngress::Quic(_) | OfferIngress::Webtransport(_) if rtcp == RtcpPort::Own => {
            let message = "found `own-port`, expected `mux`: a QUIC flow carries RTP and RTCP";
            return Err(ApiError::field("rtcp", message));
        }
        OfferIngress::Quic(OfferQuic {}) => return Ok(IngressProtocol::Quic),
        OfferIngress::Webtransport(OfferQuic {}) => return Ok(IngressProtocol::WebTransport),
        OfferIngress::Udp(raw) => raw,
    };
    let needed = |right: &str| {
        let message = format!("is missing, expected {right}");
        raw.address.as_deref().ok_or_else(|| ApiError::field("ingress.udp.address", message))
    };
    let identity = match raw.identity {
        OfferIdentity::Declared => {
            let address = address_and_port("ingress.udp.address", needed(ADDRESS_AND_PORT)?)?;
            let own = raw.rtcp.as_deref().map(|text| rtcp_of(address, text)).transpose()?;
            if own.is_none() && rtcp == RtcpPort::Own {
                next_port("ingress.udp.address", address)?;
            }
            ClientIdentity::Declared { address, rtcp: own.map(Box::new) }
        }
        OfferIdentity::DeclaredIp => ClientIdentity::DeclaredIp(address_alone(
            "ingress.udp.address",
            needed(ADDRESS_ALONE)?,
        )?),
        OfferIdentity::Stun => ClientIdentity::Stun,
    };
    let unused = |field: &str, is: bool, of: &str| {
        let message = format!("is only for the identity {of}");
        if is { Err(ApiError::field(field, message)) } else { Ok(()) }
    };
    let stun = raw.identity == OfferIdentity::Stun;
    unused("ingress.udp.address", stun && raw.address.is_some(), "`declared` or `declared-ip`")?;
    let declared = raw.identity == OfferIdentity::Declared;
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

fn streams(raw: Vec<OfferMedia>) -> Result<Vec<MediaStream>, ApiError> {
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
        for (at, payload_type) in payload_types.iter().enumerate() {
            check_apt(payload_type, &payload_types, &format!("{field}[{at}].apt"))?;
        }
        let rate = |text: &String| kbps(&format!("media[{at}].bitrate"), text);
        let bitrate_kbps = raw.bitrate.as_ref().map(rate).transpose()?;
        streams.push(MediaStream {
            kind: match raw.kind {
                OfferStreamKind::Audio => StreamKind::Audio,
                OfferStreamKind::Video => StreamKind::Video,
            },
            payload_types,
            feedback: feedback(&raw.feedback),
            bitrate_kbps,
        });
    }
    Ok(streams)
}

fn payload_type(raw: &OfferPayloadType, field: &str) -> Result<PayloadType, ApiError> {
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
    Ok(PayloadType { number, codec, clock_rate, repairs: raw.apt })
}

/// Checks that the `apt` of a payload type, if it has one, names another of its stream that it can carry.
fn check_apt(
    payload_type: &PayloadType,
    stream: &[PayloadType],
    field: &str,
) -> Result<(), ApiError> {
    let Some(apt) = payload_type.repairs else { return Ok(()) };
    let is_rtx = payload_type.repair() == Some(RepairKind::Retransmission);
    if !is_rtx && !payload_type.is_red() {
        let message = format!("is only for `rtx` and `red`, found codec `{}`", payload_type.codec);
        return Err(ApiError::field(field, message));
    }
    // Blocks of RED contain no blocks (RFC 2198), and retransmissions have the clock of the original (RFC 4588, section 4).
    let can_carry = |other: &&PayloadType| {
        let is_media = !other.is_repair() && (is_rtx || !other.is_red());
        is_media && other.clock_rate == payload_type.clock_rate
    };
    let right: Vec<u8> = stream.iter().filter(can_carry).map(|other| other.number).collect();
    if right.contains(&apt) {
        return Ok(());
    }
    let right: Vec<String> = right.iter().map(u8::to_string).collect();
    let right = if right.is_empty() { "there is none".to_owned() } else { right.join(", ") };
    let message = format!(
        "found {apt}, expected the payload type of a codec of this stream with the same clock rate: {right}"
    );
    Err(ApiError::field(field, message))
}

fn extensions(raw: Vec<OfferExtension>) -> Result<Vec<HeaderExtension>, ApiError> {
    at_most("extensions", raw.len(), EXTENSIONS_MAX)?;
    let mut seen = BTreeSet::new();
    let mut extensions = Vec::with_capacity(raw.len());
    for (at, OfferExtension { id, uri }) in raw.into_iter().enumerate() {
        let field = |name| format!("extensions[{at}].{name}");
        // RFC 8285, section 4.2, reserves 0 and 15.
        if matches!(id, 0 | 15) {
            let message = format!("found {id}, expected 1 to 14 or 16 to 255");
            return Err(ApiError::field(field("id"), message));
        }
        if !seen.insert(id) {
            let message = format!("found {id} a second time, expected each id once");
            return Err(ApiError::field(field("id"), message));
        }
        name(&field("uri"), &uri)?;
        if !uri.bytes().all(|byte| byte.is_ascii_graphic()) {
            let message = format!("found `{uri}`, expected a URI (RFC 3986)");
            return Err(ApiError::field(field("uri"), message));
        }
        let uri = ExtensionUri::from(uri.into_boxed_str());
        extensions.push(HeaderExtension { id, uri });
    }
    Ok(extensions)
}

fn simulcast(
    raw: Vec<OfferLayer>,
    media: &MediaDescription,
) -> Result<Vec<OfferedLayer>, ApiError> {
    at_most("simulcast", raw.len(), LAYERS_MAX)?;
    if !raw.is_empty() && !media.has_video() {
        return Err(ApiError::field("simulcast", "is given, but no stream in `media` is video"));
    }
    let (mut rids, mut ssrcs) = (BTreeSet::new(), BTreeSet::new());
    let mut layers = Vec::with_capacity(raw.len());
    for (at, OfferLayer { rid, ssrc, rtx }) in raw.into_iter().enumerate() {
        let field = |name| format!("simulcast[{at}].{name}");
        let is_name = (1..=RID_MAX).contains(&rid.len())
            && rid.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_name {
            let message = format!("found `{rid}`, expected 1 to {RID_MAX} letters and digits");
            return Err(ApiError::field(field("rid"), message));
        }
        if !rids.insert(rid.clone()) {
            let message = format!("found `{rid}` a second time, expected each name once");
            return Err(ApiError::field(field("rid"), message));
        }
        for (name, ssrc) in [("ssrc", ssrc), ("rtx", rtx)] {
            if let Some(ssrc) = ssrc
                && !ssrcs.insert(ssrc)
            {
                let message = format!("found {ssrc} a second time, expected each SSRC once");
                return Err(ApiError::field(field(name), message));
            }
        }
        layers.push(OfferedLayer { rid: rid.into(), ssrc, rtx_ssrc: rtx });
    }
    Ok(layers)
}

fn feedback(raw: &[OfferFeedback]) -> FeedbackSupport {
    let mut feedback = FeedbackSupport::default();
    for kind in raw {
        match kind {
            OfferFeedback::Pli => feedback.pli = true,
            OfferFeedback::Fir => feedback.fir = true,
            OfferFeedback::Remb => feedback.remb = true,
            OfferFeedback::Tmmbr => feedback.tmmbr = true,
            OfferFeedback::Nack => feedback.nack = true,
            OfferFeedback::TransportCc => feedback.transport_cc = true,
            OfferFeedback::Ccfb => feedback.ccfb = true,
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
