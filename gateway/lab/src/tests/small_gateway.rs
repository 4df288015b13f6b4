//! A test gateway that opens a limited number of sessions, accepts node commands, and records requests.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

use evenkeel_client::{ApiClient, ApiEndpoint};

#[derive(Clone)]
pub(crate) struct SmallGateway {
    listener: std::net::SocketAddr,
    _media: Arc<UdpSocket>,
    state: Arc<Mutex<State>>,
    serving: Arc<Mutex<Option<AbortHandle>>>,
}

pub(crate) struct State {
    media: String,
    pub(crate) open: BTreeSet<String>,
    pub(crate) opened_ever: usize,
    opens_max: usize,
    pub(crate) offers: Vec<Value>,
    /// The explanation of every session, and how often it was asked for.
    pub(crate) explained: Value,
    pub(crate) explanations: usize,
    /// Explanations are asked for in vain.
    pub(crate) explains_nothing: bool,
    /// Orders to nodes: `wake east-a1`.
    pub(crate) orders: Vec<String>,
    /// The number of reports that show the breaker of the eastern region open.
    pub(crate) open_looks: usize,
    /// Commands, and endings of paths of explanations, that fail, and the status of the answer.
    pub(crate) unable: Vec<(&'static str, u16)>,
}

impl SmallGateway {
    pub(crate) async fn start(opens_max: usize) -> SmallGateway {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let media = UdpSocket::bind("127.0.0.1:0").unwrap();
        let state = State {
            media: media.local_addr().unwrap().to_string(),
            open: BTreeSet::new(),
            opened_ever: 0,
            opens_max,
            offers: Vec::new(),
            explained: json!({}),
            explanations: 0,
            explains_nothing: false,
            orders: Vec::new(),
            open_looks: 0,
            unable: Vec::new(),
        };
        let address = listener.local_addr().unwrap();
        let gateway = SmallGateway {
            listener: address,
            _media: Arc::new(media),
            state: Arc::new(Mutex::new(state)),
            serving: Arc::default(),
        };
        let own = gateway.clone();
        let serving = tokio::spawn(async move {
            // Dropped, and so ended, with this task.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let own = own.clone();
                let service = service_fn(move |request| {
                    let own = own.clone();
                    async move { own.answer(request).await }
                });
                let serving = hyper::server::conn::http1::Builder::new();
                connections.spawn(async move {
                    // The client may have gone.
                    let _ = serving.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        *gateway.serving.lock().unwrap() = Some(serving.abort_handle());
        gateway
    }

    /// Ends the API with its connections.
    pub(crate) fn die(&self) {
        self.serving.lock().unwrap().take().unwrap().abort();
    }

    pub(crate) fn admin(&self) -> ApiClient {
        ApiClient::new(ApiEndpoint::Tcp(self.listener))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `wanted` holds.
    pub(crate) async fn wait(&self, wanted: impl Fn(&State) -> bool) {
        while !wanted(&self.state()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        while head.uri.path().ends_with("/explain") && self.state().explains_nothing {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (status, said) = self.state().handle(&head.method, head.uri.path(), &body);
        let said = if said.is_null() { Bytes::new() } else { said.to_string().into() };
        let mut response = Response::new(Full::new(said));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        Ok(response)
    }
}

impl State {
    fn handle(&mut self, method: &Method, path: &str, body: &Value) -> (u16, Value) {
        let refusal = |status| (status, json!({"error": {"code": "no", "message": "as told"}}));
        if path == "/v1/events" {
            return (200, Value::Null);
        }
        if path == "/v1/sessions" {
            if self.opened_ever == self.opens_max {
                return refusal(503);
            }
            self.opened_ever += 1;
            self.offers.push(body.clone());
            let id = format!("s{}", self.opened_ever);
            self.open.insert(id.clone());
            let udp = json!({"addresses": [self.media]});
            let rest = json!({"id": id, "room": "r", "scenario": "call", "udp": udp, "route": [],
                "decided_by": {"routing": "native"}});
            return (201, rest);
        }
        if path.ends_with("/explain") {
            self.explanations += 1;
            return match self.unable.iter().find(|(unable, _)| path.ends_with(*unable)) {
                Some((_, status)) => refusal(*status),
                None => (200, self.explained.clone()),
            };
        }
        if let Some(id) = path.strip_prefix("/v1/sessions/") {
            assert_eq!(method, Method::DELETE);
            return if self.open.remove(id) { (204, Value::Null) } else { refusal(404) };
        }
        if path == "/v1/rooms" {
            let sessions: Vec<&String> = self.open.iter().collect();
            let hop = json!({"node": "east-a1"});
            return (200, json!({"rooms": [{"hop": hop, "sessions": sessions}]}));
        }
        if path == "/v1/regions" {
            let breaker = if self.open_looks > 0 { "open" } else { "closed" };
            self.open_looks = self.open_looks.saturating_sub(1);
            let region = |name, breaker| json!({"region": name, "breaker": breaker});
            return (200, json!({"regions": [region("west", "open"), region("east", breaker)]}));
        }
        if path == "/v1/nodes" {
            let node = |name, region, rooms| json!({"node": name, "region": region, "rooms": rooms, "health": "up"});
            // Each session adds a room there.
            let west = node("west-a1", "west", 1 + self.open.len());
            return (200, json!({"nodes": [node("east-a1", "east", 2), west]}));
        }
        let (node, verb) = path.strip_prefix("/v1/nodes/").unwrap().split_once(':').unwrap();
        let verb = body["how"].as_str().unwrap_or(verb);
        self.orders.push(format!("{verb} {node}"));
        match self.unable.iter().find(|(unable, _)| *unable == verb) {
            Some((_, status)) => refusal(*status),
            None => (204, Value::Null),
        }
    }
}
