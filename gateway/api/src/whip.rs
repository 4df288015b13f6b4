//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep-03): sessions of WebRTC clients over HTTP, with tokens of an operator.
//!
//! A request becomes one of the API about `/v1/sessions`, which a standby relays to the owner of its group.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, response};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{patch, post};
use bytes::Bytes;
use evenkeel_config::{IceServer, WebrtcSettings};
use evenkeel_sdp::{SDP_BYTES_MAX, fragment_credentials};
use evenkeel_telemetry::Instruments;
use evenkeel_telemetry::registry::{Attribute, Count};
use evenkeel_token::{ClientDirection, TokenClaims, TokenKey, TokenRefusal, Validity};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};

use self::cors::AllowedOrigins;
use self::endpoint::{Endpoint, protocol};
use self::session_url::SessionUrl;
use super::error::{ApiError, ApiErrorCode, unknown_path};
use super::listener::TcpPlace;
use super::offer::webrtc::WebrtcOffer;
use super::request::{BodyBudget, bearer, session_id};

mod cors;
mod endpoint;
mod session_url;
pub(super) mod tls;

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");

/// The state that all handlers share.
pub(super) struct WhipContext {
    /// Paths of the API about sessions.
    sessions: Router,
    bodies: Arc<BodyBudget>,
    token_key: TokenKey,
    /// Headers `Link` of answers.
    links: Vec<HeaderValue>,
    instruments: Option<Arc<Instruments>>,
}

/// A live session. Its URL is one that the gateway answered with.
struct ProvedSession {
    url: SessionUrl,
    trace_id: String,
}

/// An error of WHIP, or the API's own.
enum WhipError {
    Api(ApiError),
    Answer(Box<Response>),
}

impl From<ApiError> for WhipError {
    fn from(error: ApiError) -> WhipError {
        WhipError::Api(error)
    }
}

impl IntoResponse for WhipError {
    fn into_response(self) -> Response {
        match self {
            WhipError::Api(error) => error.into_response(),
            WhipError::Answer(answer) => *answer,
        }
    }
}

/// The router of `[webrtc]`. `sessions` has the paths of the API about sessions.
pub(super) fn router(
    sessions: Router,
    bodies: Arc<BodyBudget>,
    settings: &WebrtcSettings,
    instruments: Option<Arc<Instruments>>,
) -> Router {
    let links = settings.ice_servers.iter().map(link).collect();
    let token_key = settings.token_key.clone();
    let whip = Arc::new(WhipContext { sessions, bodies, token_key, links, instruments });
    let mut router = Router::new();
    for direction in [ClientDirection::Publish, ClientDirection::View] {
        let endpoint = format!("/{}/{{scenario}}/{{room}}", protocol(direction));
        let session = format!("{endpoint}/{{session}}");
        let nothing = async || StatusCode::NO_CONTENT;
        let posts = post(open).get(nothing).options(async || [(ACCEPT_POST, SDP)]);
        let patches = patch(trickle).delete(end).get(nothing);
        let patches = patches.options(async || [(ACCEPT_PATCH, FRAGMENT)]);
        router = router
            .route(&endpoint, posts.layer(Extension(direction)))
            .route(&session, patches.layer(Extension(direction)));
    }
    let origins = Arc::new(AllowedOrigins::new(&settings.origins));
    router
        .fallback(async || unknown_path())
        .method_not_allowed_fallback(async || {
            ApiError::new(ApiErrorCode::MethodNotAllowed, "method not allowed at this path")
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
    Extension(connection): Extension<Arc<TcpPlace>>,
    Path((scenario, room)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, WhipError> {
    let endpoint = Endpoint { direction, scenario, room };
    let claims = whip.authorize(&endpoint, &headers, Validity::Now)?;
    connection.trust()?;
    require_type(&headers, SDP)?;
    require_sdp_accepted(&headers)?;
    let (sdp, _share) = whip.bodies.read(body, SDP_BYTES_MAX).await?;
    let wrong = |message: String| ApiError::new(ApiErrorCode::BadRequest, message);
    let sdp =
        String::from_utf8(sdp).map_err(|error| wrong(format!("the SDP is no UTF-8: {error}")))?;
    // An offer that is refused here does not use up the token.
    let parsed = WebrtcOffer::parse(&sdp, Some(direction));
    let ice = parsed.map_err(|error| ApiError { field: None, ..error })?.ice;
    let answer = whip.offer(&endpoint, &claims, &sdp).await?;
    let (id, trace_id) = (answer["id"].as_str(), answer["trace_id"].as_str());
    let (Some(id), Some(trace_id), Some(sdp)) = (id, trace_id, answer["webrtc"]["answer"].as_str())
    else {
        let message = "the owner of the group runs another version, which answers no SDP";
        return Err(ApiError::new(ApiErrorCode::Unavailable, message).into());
    };
    let url = SessionUrl::new(session_id(id)?, trace_id, &ice);
    let location = format!("{}/{}", uri.path(), url.segment(trace_id, &endpoint));
    let value = |text: String| HeaderValue::try_from(text).expect("paths and tags are ASCII");
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(SDP)),
        (header::LOCATION, value(location)),
        (header::ETAG, value(url.etag())),
        (ACCEPT_PATCH, HeaderValue::from_static(FRAGMENT)),
    ];
    let mut response = (StatusCode::CREATED, headers, sdp.to_owned()).into_response();
    for link in &whip.links {
        response.headers_mut().append(header::LINK, link.clone());
    }
    Ok(response)
}

/// `PATCH` with candidates of the client, which an ICE-lite agent does not need (RFC 8445, section 6.2).
async fn trickle(
    State(whip): State<Arc<WhipContext>>,
    Extension(direction): Extension<ClientDirection>,
    Extension(connection): Extension<Arc<TcpPlace>>,
    Path((scenario, room, session)): Path<(String, String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, WhipError> {
    let endpoint = Endpoint { direction, scenario, room };
    whip.authorize(&endpoint, &headers, Validity::Once)?;
    connection.trust()?;
    require_type(&headers, FRAGMENT)?;
    let ProvedSession { url, trace_id } = whip.find(&endpoint, &session).await?;
    require_match(&headers, &url.etag())?;
    let (fragment, _share) = whip.bodies.read(body, SDP_BYTES_MAX).await?;
    let credentials = fragment_credentials(&fragment);
    let credentials =
        credentials.map_err(|error| ApiError::new(ApiErrorCode::BadRequest, error.to_string()))?;
    if credentials.is_some_and(|ice| !url.is_of(&trace_id, &ice)) {
        let message = "the fragment restarts ICE, which is not supported; a session survives a change of the \
                       client's address without it, and otherwise a new offer opens a new session";
        return Err(ApiError::new(ApiErrorCode::Unprocessable, message).into());
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE` of a session.
async fn end(
    State(whip): State<Arc<WhipContext>>,
    Extension(direction): Extension<ClientDirection>,
    Extension(connection): Extension<Arc<TcpPlace>>,
    Path((scenario, room, session)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, WhipError> {
    let endpoint = Endpoint { direction, scenario, room };
    whip.authorize(&endpoint, &headers, Validity::Once)?;
    connection.trust()?;
    let ProvedSession { url, .. } = whip.find(&endpoint, &session).await?;
    let path = format!("/v1/sessions/{}", url.id);
    let (head, body) = whip.ask(Method::DELETE, &path, None, Vec::new()).await;
    if !head.status.is_success() {
        return Err(passed(head, body));
    }
    Ok(StatusCode::OK)
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
        let verified = token.and_then(|token| self.token_key.verify(token, validity));
        let checked = verified.and_then(|claims| {
            claims.check(endpoint.direction, &endpoint.scenario, &endpoint.room).map(|()| claims)
        });
        checked.map_err(|refusal| self.refuse(&refusal))
    }

    fn refuse(&self, refusal: &TokenRefusal) -> ApiError {
        let code = match refusal {
            TokenRefusal::Missing
            | TokenRefusal::Malformed(_)
            | TokenRefusal::Algorithm
            | TokenRefusal::Signature
            | TokenRefusal::Expired
            | TokenRefusal::Early => ApiErrorCode::Unauthorized,
            TokenRefusal::Direction | TokenRefusal::Scenario | TokenRefusal::Room => {
                ApiErrorCode::Refused
            }
            TokenRefusal::Replayed => ApiErrorCode::Conflict,
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
    ) -> Result<Value, WhipError> {
        let offer = json!({
            "scenario": scenario,
            "room": room,
            "labels": claims.labels,
            "webrtc": {"offer": sdp, "direction": direction},
        });
        let key = format!("token:{}", claims.id);
        let offer = offer.to_string().into_bytes();
        let (head, body) = self.ask(Method::POST, "/v1/sessions", Some(&key), offer).await;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        match (head.status, answer["error"]["field"].as_str()) {
            (StatusCode::CREATED, _) => Ok(answer),
            (StatusCode::CONFLICT, Some("idempotency-key")) => {
                Err(self.refuse(&TokenRefusal::Replayed).into())
            }
            (StatusCode::BAD_REQUEST, Some("scenario")) => {
                let message = format!("there is no scenario `{scenario}`");
                Err(ApiError::new(ApiErrorCode::NotFound, message).into())
            }
            _ => Err(passed(head, body)),
        }
    }

    /// The live session with this URL.
    async fn find(&self, endpoint: &Endpoint, segment: &str) -> Result<ProvedSession, WhipError> {
        let unknown = || {
            let message = "there is no such session, or it has ended";
            WhipError::Api(ApiError::new(ApiErrorCode::NotFound, message))
        };
        let url = SessionUrl::parse(segment).ok_or_else(unknown)?;
        let path = format!("/v1/sessions/{}", url.id);
        let (head, body) = self.ask(Method::GET, &path, None, Vec::new()).await;
        match head.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(unknown()),
            _ => return Err(passed(head, body)),
        }
        let session: Value = serde_json::from_slice(&body).unwrap_or_default();
        let trace_id = session["trace_id"].as_str().ok_or_else(unknown)?.to_owned();
        if !url.proves(segment, &trace_id, endpoint) {
            return Err(unknown());
        }
        Ok(ProvedSession { url, trace_id })
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
        *request.uri_mut() = path.parse().expect("ids of sessions are letters and digits");
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

/// An answer of the API that the client gets as it is.
fn passed(head: response::Parts, body: Bytes) -> WhipError {
    WhipError::Answer(Box::new(Response::from_parts(head, Body::from(body))))
}

fn require_type(headers: &HeaderMap, expected: &str) -> Result<(), ApiError> {
    let found = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let found = String::from_utf8_lossy(found);
    let media_type = found.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    let message = format!("found content type `{found}`, expected `{expected}`");
    Err(ApiError::new(ApiErrorCode::UnsupportedMediaType, message))
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
    Err(ApiError::new(ApiErrorCode::NotAcceptable, message))
}

/// Checks `If-Match` (RFC 9725, section 4.3.1).
fn require_match(headers: &HeaderMap, etag: &str) -> Result<(), ApiError> {
    let Some(wanted) = headers.get(header::IF_MATCH) else {
        let message =
            format!("expected the header `if-match` with {etag}, the `etag` of the answer");
        return Err(ApiError::new(ApiErrorCode::PreconditionRequired, message));
    };
    let wanted = String::from_utf8_lossy(wanted.as_bytes());
    if wanted.split(',').map(str::trim).any(|tag| tag == "*" || tag == etag) {
        return Ok(());
    }
    let message = format!("found `if-match` {wanted}, expected {etag}");
    Err(ApiError::new(ApiErrorCode::PreconditionFailed, message))
}

#[cfg(test)]
mod tests;
