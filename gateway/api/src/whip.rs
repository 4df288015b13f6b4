//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep-03): sessions of WebRTC clients over HTTP, with tokens of an operator.
//!
//! A request becomes one of the API about `/v1/sessions`, which a standby relays to the owner of its group.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, response};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{patch, post};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use evenkeel_config::token::{ClientDirection, TokenClaims, TokenRefusal, Validity};
use evenkeel_config::{IceServer, WebrtcSettings};
use evenkeel_contract::errors::{ErrorAnswer, ErrorCode, ErrorFacts};
use evenkeel_contract::offers::{
    AnswerSdp, IceRestart, LaterAnswer, LaterRequest, LaterSdp, OfferAnswer, OfferDirection,
    OfferRequest, OfferSdp,
};
use evenkeel_contract::sessions::{Advice, IceFragments, Session};
use evenkeel_control::SessionUrls;
use evenkeel_group::{Group, GroupOwnership};
use evenkeel_model::SessionId;
use evenkeel_process::lock;
use evenkeel_process::random::draw;
use evenkeel_sdp::{IceCredentials, SDP_BYTES_MAX, SdpError, SdpFragment};
use evenkeel_telemetry::Instruments;
use evenkeel_telemetry::registry::{Attribute, Count};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use self::cors::AllowedOrigins;
use self::endpoint::{Endpoint, protocol};
use self::rates::OfferRates;
use super::advice_feed::AdviceFeed;
use super::error::{ApiError, unknown_path};
use super::listener::{ProvenCredential, TcpPlace};
use super::offer::token_use::{TOKEN_FIELD, TokenUse};
use super::offer::webrtc::WebrtcOffer;
use super::probe_results::PROBE_FIELD;
use super::request::{BodyBudget, bearer, session_id};
use super::secrets::ClientSecrets;

mod cors;
mod endpoint;
mod rates;
mod session_url;
pub(super) mod tls;

const SDP: &str = "application/sdp";
const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// Largest body with a rating: 500 bytes, each of which may be written as `\u0000`.
const FEEDBACK_MAX: usize = 4 << 10;

/// Bytes of all bodies that are held at the same time. Separate from operators' bodies, so that clients cannot keep these out.
const BODIES_MAX: usize = 256 * SDP_BYTES_MAX;

const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
/// The header of an offer with the signed result of its client's probe.
const PROBE: &str = "evenkeel-probe";

/// The state that all handlers share.
pub(super) struct WhipContext {
    /// Paths of the API about sessions.
    sessions: Router,
    bodies: Arc<BodyBudget>,
    secrets: ClientSecrets,
    urls: Arc<SessionUrls>,
    /// Headers `Link` of answers.
    links: Vec<HeaderValue>,
    rates: Mutex<OfferRates>,
    instruments: Option<Arc<Instruments>>,
    advice: Arc<AdviceFeed>,
    /// `None`: the gateway belongs to no group.
    group: Option<Group>,
}

/// A live session. Its URL is one that the gateway answered with.
struct ProvedSession {
    id: SessionId,
    ice: IceFragments,
    advice: Option<Advice>,
}

/// The strong entity tag of the ICE session (RFC 9725, section 4.3.1).
fn etag(ufrag: &str) -> String {
    format!("\"{ufrag}\"")
}

/// The router of `[webrtc]`. `sessions` has the paths of the API about sessions.
pub(super) fn router(
    sessions: Router,
    urls: Arc<SessionUrls>,
    settings: &WebrtcSettings,
    secrets: ClientSecrets,
    instruments: Option<Arc<Instruments>>,
    advice: Arc<AdviceFeed>,
    group: Option<Group>,
) -> Router {
    let links = settings.ice_servers.iter().map(link).collect();
    let (bodies, rates) = (BodyBudget::new(BODIES_MAX), Mutex::new(OfferRates::new()));
    let whip = Arc::new(WhipContext {
        sessions,
        bodies,
        secrets,
        urls,
        links,
        rates,
        instruments,
        advice,
        group,
    });
    let mut router = Router::new();
    for direction in [ClientDirection::Publish, ClientDirection::View] {
        let endpoint = format!("/{}/{{scenario}}/{{room}}", protocol(direction));
        let session = format!("{endpoint}/{{session}}");
        let nothing = async || StatusCode::NO_CONTENT;
        let posts = post(open).get(nothing).options(async || [(ACCEPT_POST, SDP)]);
        let patches = patch(trickle).delete(end).get(follow);
        let patches = patches.options(async || [(ACCEPT_PATCH, FRAGMENT)]);
        let feedback = format!("{session}/feedback");
        router = router
            .route(&endpoint, posts.layer(Extension(direction)))
            .route(&session, patches.layer(Extension(direction)))
            .route(&feedback, post(rate).layer(Extension(direction)));
    }
    let origins = Arc::new(AllowedOrigins::new(&settings.origins));
    router
        .fallback(async || unknown_path())
        .method_not_allowed_fallback(async || {
            ApiError::new(ErrorCode::MethodNotAllowed, "method not allowed at this path")
        })
        .layer(middleware::from_fn_with_state(origins, cors::pass))
        .with_state(whip)
}

/// The header `Link` of a server (RFC 9725, section 4.6).
fn link(server: &IceServer) -> HeaderValue {
    let mut link = format!("<{}>; rel=\"ice-server\"", server.url);
    if let Some(login) = &server.login {
        let credential = String::from_utf8_lossy(login.credential.bytes());
        link.push_str(&format!(
            "; username=\"{}\"; credential=\"{credential}\"; credential-type=\"password\"",
            login.username
        ));
    }
    let mut link = HeaderValue::try_from(link).expect("the configuration is visible ASCII");
    link.set_sensitive(true);
    link
}

/// `POST` of an offer.
async fn open(
    State(whip): State<Arc<WhipContext>>,
    Extension(direction): Extension<ClientDirection>,
    Extension(place): Extension<Arc<TcpPlace>>,
    Path((scenario, room)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let endpoint = Endpoint { direction, scenario, room };
    let claims = whip.authorize(&endpoint, &headers, Validity::Now)?;
    let admitted = lock(&whip.rates).admit(&claims.id, place.source, Instant::now());
    admitted.map_err(|wait| whip.refuse(&TokenRefusal::Rate).retry_after(wait))?;
    place.trust(ProvenCredential::ClientToken(claims.id.as_str().into()))?;
    require_type(&headers, SDP)?;
    require_sdp_accepted(&headers)?;
    let (sdp, _share) = whip.bodies.read(body, SDP_BYTES_MAX).await?;
    let wrong = |message: String| ApiError::new(ErrorCode::BadRequest, message);
    let sdp =
        String::from_utf8(sdp).map_err(|error| wrong(format!("the SDP is no UTF-8: {error}")))?;
    // An offer that is refused here does not use up the token.
    let parsed = WebrtcOffer::parse(&sdp, Some(direction));
    parsed.map_err(|error| ApiError { field: None, ..error })?;
    let probe = headers.get(PROBE).map(HeaderValue::to_str).transpose();
    let probe =
        probe.map_err(|_| ApiError::field(PROBE, "found characters outside visible ASCII"))?;
    let answer = whip.offer(&endpoint, &claims, &sdp, probe).await?;
    let OfferAnswer { id, webrtc: Some(AnswerSdp { answer: sdp }), ice: Some(ice), .. } = answer
    else {
        let message = "the owner of the group runs another version, which answers no SDP";
        return Err(ApiError::new(ErrorCode::Unavailable, message));
    };
    let segment = session_url::segment(&whip.urls, session_id(&id)?, &endpoint);
    let location = format!("{}/{segment}", uri.path());
    let value = |text: String| HeaderValue::try_from(text).expect("paths and tags are ASCII");
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(SDP)),
        (header::LOCATION, value(location)),
        (header::ETAG, value(etag(&ice.ufrag))),
        (ACCEPT_PATCH, HeaderValue::from_static(FRAGMENT)),
    ];
    let mut response = (StatusCode::CREATED, headers, sdp).into_response();
    for link in &whip.links {
        response.headers_mut().append(header::LINK, link.clone());
    }
    Ok(response)
}

/// `PATCH` with candidates of the client, which an ICE-lite agent does not need (RFC 8445, section 6.2), or with a restart of ICE.
async fn trickle(
    State(whip): State<Arc<WhipContext>>,
    Extension(direction): Extension<ClientDirection>,
    Extension(place): Extension<Arc<TcpPlace>>,
    Path((scenario, room, session)): Path<(String, String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let endpoint = Endpoint { direction, scenario, room };
    whip.authorize(&endpoint, &headers, Validity::Once)?;
    require_type(&headers, FRAGMENT)?;
    let ProvedSession { id, ice, .. } = whip.find(&endpoint, &session).await?;
    place.trust(ProvenCredential::SessionUrl(id))?;
    require_match(&headers, &etag(&ice.ufrag))?;
    let (fragment, _share) = whip.bodies.read(body, SDP_BYTES_MAX).await?;
    let wrong = |error: SdpError| ApiError::new(ErrorCode::BadRequest, error.to_string());
    let fragment = SdpFragment::new(&fragment).map_err(wrong)?;
    let offered = fragment.credentials().map_err(wrong)?;
    let Some(restart) = offered.filter(|offered| offered.ufrag != ice.client_ufrag) else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let IceRestart { ufrag, password, addresses } = whip.restart_ice(id, &restart.ufrag).await?;
    let local = IceCredentials::new(&ufrag, &password).map_err(wrong)?;
    let answer = fragment.restart(&local, &addresses).map_err(wrong)?;
    let tag = HeaderValue::try_from(etag(&ufrag)).expect("a user fragment is ASCII");
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(FRAGMENT)), (header::ETAG, tag)];
    Ok((StatusCode::OK, headers, answer.as_str().to_owned()).into_response())
}

/// `DELETE` of a session.
async fn end(
    State(whip): State<Arc<WhipContext>>,
    Extension(direction): Extension<ClientDirection>,
    Extension(place): Extension<Arc<TcpPlace>>,
    Path((scenario, room, session)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let endpoint = Endpoint { direction, scenario, room };
    whip.authorize(&endpoint, &headers, Validity::Once)?;
    let ProvedSession { id, .. } = whip.find(&endpoint, &session).await?;
    place.trust(ProvenCredential::SessionUrl(id))?;
    let path = format!("/v1/sessions/{id}");
    let (head, body) = whip.ask(Method::DELETE, &path, None, Vec::new()).await;
    if !head.status.is_success() {
        return Err(refused(head.status, &body));
    }
    Ok(StatusCode::OK)
}

/// `GET` of a session: its advice, if the client takes events. Otherwise the answer is empty.
async fn follow(
    State(whip): State<Arc<WhipContext>>,
    Extension(direction): Extension<ClientDirection>,
    Extension(place): Extension<Arc<TcpPlace>>,
    Path((scenario, room, session)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if !takes_events(&headers) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let endpoint = Endpoint { direction, scenario, room };
    whip.authorize(&endpoint, &headers, Validity::Once)?;
    let ProvedSession { id, .. } = whip.find(&endpoint, &session).await?;
    place.trust(ProvenCredential::SessionUrl(id))?;
    // The events of a session are at the gateway that has it.
    if whip.group.as_ref().is_some_and(|group| !matches!(group.owner(), GroupOwnership::Here)) {
        return Err(ApiError::new(ErrorCode::Standby, "the gateway does not serve at present"));
    }
    let stream = whip.advice.follow(id)?;
    let ProvedSession { advice, .. } = whip.find(&endpoint, &session).await?;
    stream.begin(advice);
    Ok(stream.answer())
}

/// `POST` of the user's rating, also soon after the end of the session.
async fn rate(
    State(whip): State<Arc<WhipContext>>,
    Extension(direction): Extension<ClientDirection>,
    Extension(place): Extension<Arc<TcpPlace>>,
    Path((scenario, room, session)): Path<(String, String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let endpoint = Endpoint { direction, scenario, room };
    whip.authorize(&endpoint, &headers, Validity::Once)?;
    require_type(&headers, JSON)?;
    let id = session_url::proved(&whip.urls, &session, &endpoint).ok_or_else(unknown_session)?;
    place.trust(ProvenCredential::SessionUrl(id))?;
    let (body, _share) = whip.bodies.read(body, FEEDBACK_MAX).await?;
    let path = format!("/v1/sessions/{id}/feedback");
    let (head, body) = whip.ask(Method::POST, &path, None, body).await;
    match head.status {
        status if status.is_success() => Ok(StatusCode::NO_CONTENT),
        StatusCode::CONFLICT => {
            Err(ApiError::new(ErrorCode::Conflict, "the session has another rating"))
        }
        status => Err(ApiError { field: error_of(&body).field, ..refused(status, &body) }),
    }
}

fn unknown_session() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "there is no such session, or it has ended")
}

impl WhipContext {
    /// The claims of the request's token, if it is for this endpoint.
    fn authorize(
        &self,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        validity: Validity,
    ) -> Result<TokenClaims, ApiError> {
        let token = bearer(headers).ok_or(TokenRefusal::Missing);
        let verified = token.and_then(|token| self.secrets.verify(token, validity));
        let checked = verified.and_then(|claims| {
            claims.check(endpoint.direction, &endpoint.scenario, &endpoint.room).map(|()| claims)
        });
        checked.map_err(|refusal| self.refuse(&refusal))
    }

    fn refuse(&self, refusal: &TokenRefusal) -> ApiError {
        let code = match refusal {
            TokenRefusal::Missing
            | TokenRefusal::Malformed(_)
            | TokenRefusal::Algorithm(_)
            | TokenRefusal::Signature
            | TokenRefusal::Expired
            | TokenRefusal::Early => ErrorCode::Unauthorized,
            TokenRefusal::Direction
            | TokenRefusal::Scenario
            | TokenRefusal::Room
            | TokenRefusal::Rate => ErrorCode::Refused,
            TokenRefusal::Replayed | TokenRefusal::Sessions => ErrorCode::Conflict,
        };
        if let Some(instruments) = &self.instruments {
            let reason = [(Attribute::Reason, refusal.name())];
            instruments.count(Count::WebrtcTokensRefused, 1, &reason);
        }
        ApiError::new(code, refusal.to_string())
    }

    /// Opens the session of a token. A repetition with the same offer gets the same answer.
    async fn offer(
        &self,
        Endpoint { direction, scenario, room }: &Endpoint,
        claims: &TokenClaims,
        sdp: &str,
        probe: Option<&str>,
    ) -> Result<OfferAnswer, ApiError> {
        let direction = match direction {
            ClientDirection::Publish => OfferDirection::Publish,
            ClientDirection::View => OfferDirection::View,
        };
        let offer = OfferRequest {
            scenario: scenario.clone(),
            room: room.clone(),
            labels: claims.labels.iter().collect(),
            latency: claims.latency.clone(),
            probe: probe.map(str::to_owned),
            webrtc: Some(OfferSdp { offer: sdp.to_owned(), direction: Some(direction) }),
            ..OfferRequest::default()
        };
        // A value sorts the members, as all versions do: the key has the digest of these bytes.
        let offer = serde_json::to_value(&offer).expect("texts");
        let offer = offer.to_string().into_bytes();
        let key = TokenUse::key(claims, &offer);
        let (head, body) = self.ask(Method::POST, "/v1/sessions", Some(&key), offer).await;
        let ErrorFacts { field, .. } = error_of(&body);
        match (head.status, field.as_deref()) {
            (StatusCode::CREATED, _) => Ok(serde_json::from_slice(&body).unwrap_or_default()),
            (StatusCode::CONFLICT, Some("idempotency-key")) => {
                Err(self.refuse(&TokenRefusal::Replayed))
            }
            (StatusCode::CONFLICT, Some(TOKEN_FIELD)) => Err(self.refuse(&TokenRefusal::Sessions)),
            (StatusCode::BAD_REQUEST, Some("scenario")) => {
                let message = format!("there is no scenario `{scenario}`");
                Err(ApiError::new(ErrorCode::NotFound, message))
            }
            (StatusCode::BAD_REQUEST, Some(PROBE_FIELD)) => {
                Err(ApiError { field: Some(PROBE.to_owned()), ..refused(head.status, &body) })
            }
            _ => Err(refused(head.status, &body)),
        }
    }

    /// The live session with this URL.
    async fn find(&self, endpoint: &Endpoint, segment: &str) -> Result<ProvedSession, ApiError> {
        let id = session_url::proved(&self.urls, segment, endpoint).ok_or_else(unknown_session)?;
        let path = format!("/v1/sessions/{id}");
        let (head, body) = self.ask(Method::GET, &path, None, Vec::new()).await;
        match head.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(unknown_session()),
            _ => return Err(refused(head.status, &body)),
        }
        let Session { ice, advice, .. } = serde_json::from_slice(&body).unwrap_or_default();
        Ok(ProvedSession { id, ice: ice.ok_or_else(unknown_session)?, advice })
    }

    async fn restart_ice(&self, id: SessionId, ufrag: &str) -> Result<IceRestart, ApiError> {
        let path = format!("/v1/sessions/{id}");
        let webrtc = LaterSdp { ufrag: Some(ufrag.to_owned()), ..LaterSdp::default() };
        let restart = serde_json::to_vec(&LaterRequest { webrtc }).expect("texts");
        let (head, body) = self.ask(Method::PUT, &path, None, restart).await;
        if head.status != StatusCode::OK {
            return Err(refused(head.status, &body));
        }
        let answer: LaterAnswer = serde_json::from_slice(&body).unwrap_or_default();
        answer.webrtc.ice.ok_or_else(|| {
            let message = "the owner of the group runs another version, which restarts no ICE";
            ApiError::new(ErrorCode::Unavailable, message)
        })
    }

    /// Asks the API. The client's other headers stay here.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Vec<u8>,
    ) -> (response::Parts, Bytes) {
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().expect("ids of sessions are letters, digits and hyphens");
        if let Some(key) = key {
            let key = HeaderValue::from_str(key).expect("ids of tokens are visible ASCII");
            request.headers_mut().insert("idempotency-key", key);
        }
        let api = TowerToHyperService::new(self.sessions.clone());
        let response = api.call(request).await.unwrap_or_else(|never| match never {});
        let (head, body) = response.into_parts();
        // Answers of the API are whole.
        let body = body.collect().await.map(http_body_util::Collected::to_bytes);
        (head, body.unwrap_or_default())
    }
}

/// An error of the API, as a client may know it: the API's texts name gateways, nodes, regions, and reasons of drivers and policies. The log
/// has the text, by the id in the answer.
fn refused(status: StatusCode, body: &[u8]) -> ApiError {
    let ErrorFacts { code, message: reason, retry_after_ms, .. } = error_of(body);
    let (code, message) = match ErrorCode::of(&code) {
        // It is about the client's own offer, and about names and labels in its token.
        Some(ErrorCode::BadRequest) => (ErrorCode::BadRequest, &*reason),
        Some(ErrorCode::Refused) => (ErrorCode::Refused, "the gateway refuses the session"),
        Some(ErrorCode::NotFound) => {
            (ErrorCode::NotFound, "there is no such session, or it has ended")
        }
        Some(ErrorCode::Conflict) => (ErrorCode::Conflict, "the room cannot have the session here"),
        Some(ErrorCode::Full) => (ErrorCode::Full, "the gateway is full"),
        Some(ErrorCode::Draining) => (ErrorCode::Draining, "the gateway is shutting down"),
        Some(ErrorCode::Starting) => (ErrorCode::Starting, "the gateway is starting"),
        Some(ErrorCode::Standby) => (ErrorCode::Standby, "the gateway does not serve at present"),
        Some(ErrorCode::Unconfirmed) => (ErrorCode::Unconfirmed, "executed, and may be forgotten"),
        _ => (ErrorCode::Unavailable, "the gateway cannot execute the request at present"),
    };
    let request_id = HEXLOWER.encode(&draw().to_be_bytes());
    tracing::info!(request_id, status = status.as_u16(), reason, "WHIP request refused");
    let public = ApiError { request_id: Some(request_id), ..ApiError::new(code, message) };
    let retry_after = retry_after_ms.map(Duration::from_millis);
    ApiError { retry_after, ..public }
}

fn error_of(body: &[u8]) -> ErrorFacts {
    serde_json::from_slice::<ErrorAnswer>(body).unwrap_or_default().error
}

fn require_type(headers: &HeaderMap, expected: &str) -> Result<(), ApiError> {
    let found = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let found = String::from_utf8_lossy(found);
    let media_type = found.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    let message = format!("found content type `{found}`, expected `{expected}`");
    Err(ApiError::new(ErrorCode::UnsupportedMediaType, message))
}

/// The client asks for server-sent events.
fn takes_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|text| text.split(',')).any(|range| {
        let media_type = range.split(';').next().unwrap_or_default().trim();
        media_type.eq_ignore_ascii_case(EVENTS)
    })
}

/// Checks that the client takes an answer in SDP (RFC 9110, section 12.5.1).
fn require_sdp_accepted(headers: &HeaderMap) -> Result<(), ApiError> {
    let mut values = headers.get_all(header::ACCEPT).iter().peekable();
    let has_sdp = |range: &str| {
        let (name, parameters) = range.split_once(';').unwrap_or((range, ""));
        let is_refused = parameters.split(';').any(|it| matches!(it.trim(), "q=0" | "q=0.0"));
        matches!(name.trim(), "*/*" | "application/*" | SDP) && !is_refused
    };
    let is_accepted = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| text.to_ascii_lowercase().split(',').any(has_sdp))
    };
    if values.peek().is_none() || values.any(is_accepted) {
        return Ok(());
    }
    let message = format!("the answer is `{SDP}`, which the header `accept` excludes");
    Err(ApiError::new(ErrorCode::NotAcceptable, message))
}

/// Checks `If-Match` (RFC 9725, section 4.3.1).
fn require_match(headers: &HeaderMap, etag: &str) -> Result<(), ApiError> {
    let Some(wanted) = headers.get(header::IF_MATCH) else {
        let message =
            format!("expected the header `if-match` with {etag}, the `etag` of the answer");
        return Err(ApiError::new(ErrorCode::PreconditionRequired, message));
    };
    let wanted = String::from_utf8_lossy(wanted.as_bytes());
    if wanted.split(',').map(str::trim).any(|tag| matches!(tag, "*" | "\"*\"") || tag == etag) {
        return Ok(());
    }
    let message = format!("found `if-match` {wanted}, expected {etag}");
    Err(ApiError::new(ErrorCode::PreconditionFailed, message))
}

#[cfg(test)]
mod tests;
