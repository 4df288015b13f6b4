//! The page of `evenkeel demo --serve`: its files, which the binary embeds, and the requests of its script.
//!
//! It listens on loopback, and serves no other site: each request names this address, which a name that another site resolves to
//! loopback is not, and a request that changes something has the page's own origin (RFC 6454).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use evenkeel_client::{ApiClient, ApiEndpoint, ClientError, escape};
use evenkeel_contract::offers::{
    OfferAnswer, OfferFeedback, OfferIngress, OfferMedia, OfferPayloadType, OfferRequest, OfferSdp,
    OfferStreamKind,
};
use evenkeel_contract::operations::{BreakRequest, NodeFault};
use evenkeel_contract::probes::{ProbeIngress, ProbeRequest, ProbeRoundTrips};
use evenkeel_contract::sessions::Session;
use evenkeel_process::lock;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::http::serve;
use super::processes::REGIONS;
use crate::error::LabError;

/// Path, media type and text of each file; `make page` builds them.
const FILES: [(&str, &str, &str); 3] = [
    ("/", "text/html; charset=utf-8", include_str!("../../../web/dist/index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("../../../web/dist/page.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("../../../web/dist/page.js")),
];

const JSON: &str = "application/json";

/// Headers of every response. The page connects to its own origin and, for WebTransport, to a port of the gateway. It has no inline script or style, and no other
/// page frames it.
const HEADERS: [(HeaderName, &str); 4] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' https://127.0.0.1:*; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
];

/// The limit of the admin API.
const BODY_MAX: usize = 128 * 1_024;

/// Time from the kill of a node to its start, and between attempts: the gateway that forwards the order may be starting.
const START_AFTER: Duration = Duration::from_secs(5);
const START_ATTEMPTS: usize = 12;

/// The page and the gateway that it shows.
pub(super) struct DemoPage {
    address: SocketAddr,
    admin: ApiEndpoint,
    /// The process of the gateway; 0 while none runs.
    pub(super) gateway: AtomicU32,
    /// The order to kill the gateway.
    pub(super) gateway_kill: Notify,
    /// The nodes that pages have killed, by the numbers of the kills.
    killed: Mutex<BTreeMap<u32, String>>,
    kills: AtomicU32,
}

/// The part of a browser in a room.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PageRole {
    Call,
    Publish,
    Watch,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PageOffer {
    role: PageRole,
    room: String,
    /// SDP. Without it the session is one of WebTransport.
    offer: Option<String>,
    /// The signed result of a probe.
    probe: Option<String>,
}

/// A response without its headers.
struct PageAnswer {
    status: StatusCode,
    media_type: &'static str,
    body: Bytes,
}

impl PageAnswer {
    fn json(status: StatusCode, body: &impl Serialize) -> PageAnswer {
        let body = serde_json::to_vec(body).expect("texts and numbers");
        PageAnswer { status, media_type: JSON, body: body.into() }
    }

    fn done() -> PageAnswer {
        PageAnswer { status: StatusCode::NO_CONTENT, media_type: JSON, body: Bytes::new() }
    }

    fn error(status: StatusCode, message: &str) -> PageAnswer {
        PageAnswer::json(status, &json!({ "error": message }))
    }
}

impl From<ClientError> for PageAnswer {
    fn from(error: ClientError) -> PageAnswer {
        let status = match &error {
            ClientError::Refused { status, .. } => StatusCode::from_u16(*status).ok(),
            _ => None,
        };
        let status = status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        PageAnswer::error(status, &error.to_string())
    }
}

impl DemoPage {
    /// Serves the page of the gateway with this API until the process ends.
    pub(super) async fn start(admin: ApiEndpoint, gateway: u32) -> Result<Arc<DemoPage>, LabError> {
        let failed = || LabError::system("listening for the page");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed())?;
        let address = listener.local_addr().map_err(failed())?;
        let (gateway, gateway_kill) = (AtomicU32::new(gateway), Notify::new());
        let (killed, kills) = (Mutex::default(), AtomicU32::default());
        let page = DemoPage { address, admin, gateway, gateway_kill, killed, kills };
        let page = Arc::new(page);
        let served = Arc::clone(&page);
        tokio::spawn(serve(listener, move |request| Arc::clone(&served).respond(request)));
        Ok(page)
    }

    /// The page's origin.
    pub(super) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    async fn respond(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let answer = self.answer(&head, body).await.unwrap_or_else(|refusal| refusal);
        let mut response = Response::new(Full::new(answer.body));
        *response.status_mut() = answer.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.media_type));
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }

    async fn answer(&self, head: &Parts, body: Incoming) -> Result<PageAnswer, PageAnswer> {
        self.check_sender(head)?;
        let path = head.uri.path();
        let file = FILES.iter().find(|(at, ..)| *at == path && head.method == Method::GET);
        if let Some((_, media_type, text)) = file {
            let body = Bytes::from_static(text.as_bytes());
            return Ok(PageAnswer { status: StatusCode::OK, media_type, body });
        }
        let gateway = self.gateway.load(Ordering::Relaxed);
        if gateway == 0 {
            let message = "the gateway is starting; try again in a second";
            return Err(PageAnswer::error(StatusCode::SERVICE_UNAVAILABLE, message));
        }
        let mut admin = ApiClient::new(self.admin.clone());
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        match (head.method.as_str(), &parts[..]) {
            ("POST", ["sessions"]) => open(&mut admin, body).await,
            ("POST", ["probes"]) => {
                let request = ProbeRequest { ingress: ProbeIngress::Webtransport };
                Ok(PageAnswer::json(StatusCode::CREATED, &admin.open_probe(request).await?))
            }
            ("PUT", ["probes", id]) => {
                let round_trips: ProbeRoundTrips = read(body).await?;
                let report = admin.measure_probe(id, &round_trips).await?;
                Ok(PageAnswer::json(StatusCode::OK, &report))
            }
            ("GET", ["sessions", id]) => {
                let Session { hop, advice, .. } = admin.session(id).await?;
                let node = hop.map(|hop| hop.place.node);
                let latest = lock(&self.killed).last_key_value().map(|(at, of)| (*at, of.clone()));
                let (kills, killed) = latest.unzip();
                let carriers = json!({
                    "node": node, "gateway": gateway, "kills": kills.unwrap_or(0), "killed": killed,
                    "advice": advice,
                });
                Ok(PageAnswer::json(StatusCode::OK, &carriers))
            }
            ("DELETE", ["sessions", id]) => {
                admin.close(id).await?;
                Ok(PageAnswer::done())
            }
            ("POST", ["nodes", name, "kill"]) => {
                let node = format!("/v1/nodes/{}", escape(name));
                let how = NodeFault::Kill;
                // Before the node dies, so that each page sees the kill before its effect.
                let kill = self.kills.fetch_add(1, Ordering::Relaxed) + 1;
                lock(&self.killed).insert(kill, (*name).to_owned());
                let broken = admin.post(&format!("{node}:break"), &BreakRequest { how }).await;
                if broken.is_err() {
                    lock(&self.killed).remove(&kill);
                }
                broken?;
                tokio::spawn(start_again(admin, format!("{node}:start")));
                Ok(PageAnswer::done())
            }
            ("POST", ["gateway", "kill"]) => {
                self.gateway_kill.notify_one();
                Ok(PageAnswer::done())
            }
            _ => Err(PageAnswer::error(StatusCode::NOT_FOUND, "unknown path or method")),
        }
    }

    /// Refuses requests of other sites.
    fn check_sender(&self, head: &Parts) -> Result<(), PageAnswer> {
        let check = |name: HeaderName, expected: String| match head.headers.get(&name) {
            Some(found) if found.as_bytes() == expected.as_bytes() => Ok(()),
            found => {
                let found = found.map_or("none".into(), |value| format!("{value:?}"));
                let message = format!("{name}: found {found}, expected {expected}");
                Err(PageAnswer::error(StatusCode::FORBIDDEN, &message))
            }
        };
        check(HOST, self.address.to_string())?;
        if head.method == Method::GET { Ok(()) } else { check(ORIGIN, self.origin()) }
    }
}

/// Reads a body in JSON.
async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, PageAnswer> {
    let malformed =
        |error: &dyn ToString| PageAnswer::error(StatusCode::BAD_REQUEST, &error.to_string());
    let body = Limited::new(body, BODY_MAX).collect().await.map_err(|error| malformed(&error))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| malformed(&error))
}

/// Opens a session of a browser.
async fn open(admin: &mut ApiClient, body: Incoming) -> Result<PageAnswer, PageAnswer> {
    let PageOffer { role, room, offer, probe } = read(body).await?;
    let (scenario, role) = match role {
        PageRole::Call => ("call", "caller"),
        PageRole::Publish => ("live", "publisher"),
        PageRole::Watch => ("live", "viewer"),
    };
    let (webrtc, ingress, media) = match offer {
        Some(offer) => (Some(OfferSdp { offer, direction: None }), None, None),
        None => (None, Some(OfferIngress::webtransport()), Some(page_media())),
    };
    let request = OfferRequest {
        scenario: scenario.to_owned(),
        // Rooms of the demo's own sessions have packets that a browser cannot decode, and a room belongs to one scenario.
        room: format!("browser/{scenario}/{room}"),
        labels: [("region", REGIONS[0]), ("role", role)].into_iter().collect(),
        webrtc,
        ingress,
        media,
        probe,
        ..OfferRequest::default()
    };
    let OfferAnswer { id, webrtc, webtransport, .. } = admin.open(&request).await?;
    let answer = webrtc.map(|webrtc| webrtc.answer);
    let answer = json!({"id": id, "answer": answer, "webtransport": webtransport});
    Ok(PageAnswer::json(StatusCode::CREATED, &answer))
}

/// The streams that the page encodes itself, with the payload types of rooms.
fn page_media() -> Vec<OfferMedia> {
    let stream = |kind, payload_type, codec: &str, clock_rate, feedback| OfferMedia {
        kind,
        payload_types: vec![OfferPayloadType::new(payload_type, codec, clock_rate)],
        feedback,
        bitrate: None,
    };
    vec![
        stream(OfferStreamKind::Audio, 111, "opus", 48_000, Vec::new()),
        stream(OfferStreamKind::Video, 96, "vp8", 90_000, vec![OfferFeedback::Pli]),
    ]
}

/// Starts a killed node.
async fn start_again(mut admin: ApiClient, path: String) {
    for _ in 0..START_ATTEMPTS {
        tokio::time::sleep(START_AFTER).await;
        if admin.post(&path, &()).await.is_ok() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
