//! The client: requests, downloads and event streams, by Unix socket or TCP. It speaks only to processes that this user
//! trusts.

use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use bytes::{Buf, Bytes, BytesMut};
use evenkeel_contract::errors::ErrorAnswer;
use evenkeel_contract::events::{EventData, EventTime};
use evenkeel_contract::gateway::{GatewayList, Status};
use evenkeel_contract::nodes::{Node, NodeList, Region, RegionList};
use evenkeel_contract::offers::{OfferAnswer, OfferRequest};
use evenkeel_contract::policies::{Policy, PolicyList, PushRequest};
use evenkeel_contract::probes::{ProbeAnswer, ProbeReport, ProbeRequest, ProbeRoundTrips};
use evenkeel_contract::sessions::{Explanation, Room, RoomPage, Session};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, FROM, HOST, RETRY_AFTER};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use nix::unistd::geteuid;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::net::{TcpStream, UnixStream};

/// The address of an admin API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ApiEndpoint {
    /// A Unix socket.
    Unix(PathBuf),
    /// HTTP without TLS.
    Tcp(SocketAddr),
}

/// A client of the admin API. It keeps its connection and reconnects when needed.
pub struct ApiClient {
    place: ApiEndpoint,
    token: Option<String>,
    from: Option<String>,
    connection: Option<KeptConnection>,
}

/// A connection is used again within this time. The gateway closes one 5 s after its last answer, and a change that meets the end of its
/// connection may have been executed.
const KEPT_FOR: Duration = Duration::from_secs(3);

struct KeptConnection {
    requests: SendRequest<Full<Bytes>>,
    /// The time of the last answer.
    used: Instant,
}

/// A request to the API.
#[derive(Clone)]
pub struct ApiCall<'a> {
    /// GET, POST, PUT or DELETE.
    pub method: Method,
    /// Path and query.
    pub path: &'a str,
    /// Headers beside `host`, `content-type` and `authorization`.
    pub headers: &'a [(&'a str, &'a str)],
    /// JSON unless a header says otherwise; empty for no body.
    pub body: Bytes,
}

impl ApiCall<'_> {
    /// A GET request without headers.
    pub fn get(path: &str) -> ApiCall<'_> {
        ApiCall { method: Method::GET, path, headers: &[], body: Bytes::new() }
    }
}

/// A page of any list. Its rows stay JSON, so that a caller passes on the members of later versions.
#[derive(Deserialize)]
struct ListPage {
    next: Option<String>,
    #[serde(flatten)]
    members: Map<String, Value>,
}

/// The response to a request.
#[derive(Clone, PartialEq)]
pub struct ApiResponse {
    /// The status code.
    pub status: u16,
    /// The whole body.
    pub body: Bytes,
}

/// Omits the body, which may have keys.
impl fmt::Debug for ApiCall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiCall({} {}, {} bytes)", self.method, self.path, self.body.len())
    }
}

/// Omits the body, which may have passwords and keys.
impl fmt::Debug for ApiResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiResponse({}, {} bytes)", self.status, self.body.len())
    }
}

/// Why a request failed or was refused.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection, or it ended.
    #[error("the admin API is out of reach: {0}")]
    Unreached(#[from] io::Error),
    /// Another user's process listens at the socket. Nothing was sent to it.
    #[error(
        "the process at {} belongs to user {user}, neither to this user nor to root; nothing was sent to it",
        .path.display()
    )]
    Untrusted {
        /// The socket.
        path: PathBuf,
        /// The user id of its owner.
        user: u32,
    },
    /// The server breaks HTTP, or the connection ended before the answer.
    #[error("{}", http_error_text(.0))]
    Http(#[from] hyper::Error),
    /// The path or a header is invalid.
    #[error("not a request: {0}")]
    Request(#[from] hyper::http::Error),
    /// The body is not the expected JSON.
    #[error("not the answer expected: {0}")]
    Json(#[from] serde_json::Error),
    /// The API refused the request.
    #[error("{status} {code}: {message}")]
    Refused {
        /// The status code.
        status: u16,
        /// The `code` of the error object; empty without one.
        code: String,
        /// The `message` of the error object; the body if there is none.
        message: String,
    },
}

fn http_error_text(error: &hyper::Error) -> String {
    match error.is_parse() {
        true => format!("the admin API does not speak HTTP: {error}"),
        false => format!(
            "the connection ended before the answer ({error}), and the gateway may still execute a change"
        ),
    }
}

impl ApiResponse {
    /// Reads the body as JSON, whatever the status.
    pub fn json(&self) -> Result<Value, ClientError> {
        Ok(serde_json::from_slice(&self.body)?)
    }

    /// Returns the body of a successful reply as JSON.
    pub fn accepted(&self) -> Result<Value, ClientError> {
        if (200..300).contains(&self.status) {
            return if self.body.is_empty() { Ok(Value::Null) } else { self.json() };
        }
        let ErrorAnswer { error } = serde_json::from_slice(&self.body).unwrap_or_default();
        let message = match error.message.is_empty() {
            true => String::from_utf8_lossy(&self.body).into_owned(),
            false => error.message,
        };
        Err(ClientError::Refused { status: self.status, code: error.code.into(), message })
    }
}

impl ApiClient {
    /// Creates a client, which connects with the first request.
    pub fn new(place: ApiEndpoint) -> Self {
        Self { place, token: None, from: None, connection: None }
    }

    /// Creates another client of the same API, with a separate connection.
    pub fn another(&self) -> Self {
        let (place, token) = (self.place.clone(), self.token.clone());
        Self { place, token, from: self.from.clone(), connection: None }
    }

    /// Sends this bearer token with every request.
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Names the user in every request (RFC 9110, section 10.1.2).
    pub fn from_user(mut self, user: &str) -> Self {
        self.from = Some(user.to_owned());
        self
    }

    /// Sends a request and reads the whole reply. An error status is not an error here.
    pub async fn ask(&mut self, call: ApiCall<'_>) -> Result<ApiResponse, ClientError> {
        let response = self.send(&call).await?;
        let status = response.status().as_u16();
        Ok(ApiResponse { status, body: response.into_body().collect().await?.to_bytes() })
    }

    /// Sends a GET request for an answer of this type.
    pub async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, ClientError> {
        Ok(serde_json::from_value(self.read(path).await?)?)
    }

    /// The status of the gateway.
    pub async fn status(&mut self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// The gateways of the group.
    pub async fn gateways(&mut self) -> Result<GatewayList, ClientError> {
        self.get("/v1/gateways").await
    }

    /// All nodes.
    pub async fn nodes(&mut self) -> Result<Vec<Node>, ClientError> {
        Ok(self.get::<NodeList>("/v1/nodes").await?.nodes)
    }

    /// All regions.
    pub async fn regions(&mut self) -> Result<Vec<Region>, ClientError> {
        Ok(self.get::<RegionList>("/v1/regions").await?.regions)
    }

    /// All policies.
    pub async fn policies(&mut self) -> Result<Vec<Policy>, ClientError> {
        Ok(self.get::<PolicyList>("/v1/policies").await?.policies)
    }

    /// All rooms, of all pages.
    pub async fn rooms(&mut self) -> Result<Vec<Room>, ClientError> {
        let (mut rooms, mut path) = (Vec::new(), "/v1/rooms".to_owned());
        loop {
            let page: RoomPage = self.get(&path).await?;
            rooms.extend(page.rooms);
            match page.next {
                Some(next) => path = format!("/v1/rooms?after={next}"),
                None => return Ok(rooms),
            }
        }
    }

    /// The live session of this id.
    pub async fn session(&mut self, id: &str) -> Result<Session, ClientError> {
        self.get(&format!("/v1/sessions/{}", escape(id))).await
    }

    /// The explanation of the session of this id.
    pub async fn explain(&mut self, id: &str) -> Result<Explanation, ClientError> {
        self.get(&format!("/v1/sessions/{}/explain", escape(id))).await
    }

    /// Sends a GET request for JSON.
    pub async fn read(&mut self, path: &str) -> Result<Value, ClientError> {
        self.ask(ApiCall::get(path)).await?.accepted()
    }

    /// Reads all pages of a list, such as `sessions`.
    pub async fn list(&mut self, name: &str) -> Result<Vec<Value>, ClientError> {
        let (mut rows, mut path) = (Vec::new(), format!("/v1/{name}"));
        loop {
            let mut page: ListPage = self.get(&path).await?;
            if let Some(Value::Array(more)) = page.members.remove(name) {
                rows.extend(more);
            }
            match page.next {
                Some(next) => path = format!("/v1/{name}?after={next}"),
                None => return Ok(rows),
            }
        }
    }

    /// Returns true if the gateway takes new sessions: `/readyz` answers 200.
    pub async fn is_ready(&mut self) -> Result<bool, ClientError> {
        Ok(self.ask(ApiCall::get("/readyz")).await?.status == 200)
    }

    /// Posts JSON, or no body if it is null, such as `()`.
    pub async fn post(&mut self, path: &str, body: &impl Serialize) -> Result<Value, ClientError> {
        let body = serde_json::to_vec(body)?;
        let body = if body == b"null" { Bytes::new() } else { body.into() };
        self.ask(ApiCall { method: Method::POST, path, headers: &[], body }).await?.accepted()
    }

    /// Opens a session.
    pub async fn open(&mut self, offer: &OfferRequest) -> Result<OfferAnswer, ClientError> {
        Ok(serde_json::from_value(self.ask_to_open(offer).await?.accepted()?)?)
    }

    /// Offers a session and reads the whole reply. An error status is not an error here.
    pub async fn ask_to_open(&mut self, offer: &OfferRequest) -> Result<ApiResponse, ClientError> {
        let body = serde_json::to_vec(offer)?.into();
        self.ask(ApiCall { method: Method::POST, path: "/v1/sessions", headers: &[], body }).await
    }

    /// Opens a probe of the path to the gateway.
    pub async fn open_probe(&mut self, request: ProbeRequest) -> Result<ProbeAnswer, ClientError> {
        Ok(serde_json::from_value(self.post("/v1/probes", &request).await?)?)
    }

    /// Asks for the measurement of a probe, by its round trips.
    pub async fn measure_probe(
        &mut self,
        id: &str,
        round_trips: &ProbeRoundTrips,
    ) -> Result<ProbeReport, ClientError> {
        let path = format!("/v1/probes/{}", escape(id));
        let body = serde_json::to_vec(round_trips)?.into();
        let call = ApiCall { method: Method::PUT, path: &path, headers: &[], body };
        Ok(serde_json::from_value(self.ask(call).await?.accepted()?)?)
    }

    /// Closes the session of this id.
    pub async fn close(&mut self, id: &str) -> Result<(), ClientError> {
        let path = format!("/v1/sessions/{}", escape(id));
        let call = ApiCall { method: Method::DELETE, ..ApiCall::get(&path) };
        self.ask(call).await?.accepted().map(drop)
    }

    /// Pushes a plugin; `hook` may end with the query of the API. Returns the API's object, a
    /// [`RolloutAnswer`](evenkeel_contract::policies::RolloutAnswer), for a refusal too.
    pub async fn push(&mut self, set: &str, hook: &str, wasm: &[u8]) -> Result<Value, ClientError> {
        let path = format!("/v1/policies/{set}/{hook}");
        let headers = [("content-type", "application/wasm")];
        let body = Bytes::copy_from_slice(wasm);
        self.ask(ApiCall { method: Method::PUT, path: &path, headers: &headers, body })
            .await?
            .json()
    }

    /// Pushes parts of a revision. `hook` may have a query.
    pub async fn push_parts(
        &mut self,
        set: &str,
        hook: &str,
        parts: &PushRequest,
    ) -> Result<Value, ClientError> {
        let path = format!("/v1/policies/{set}/{hook}");
        let body = serde_json::to_vec(parts)?.into();
        self.ask(ApiCall { method: Method::PUT, path: &path, headers: &[], body }).await?.json()
    }

    /// Subscribes to events, on a separate connection.
    pub async fn events(&self) -> Result<Events, ClientError> {
        let stream = self.stream("/v1/events", &[("accept", "text/event-stream")]).await?;
        Ok(Events { stream, lines: EventLines::default() })
    }

    /// Reads a body of any type on a separate connection.
    pub async fn download(&self, path: &str) -> Result<Download, ClientError> {
        self.stream(path, &[]).await
    }

    async fn stream(&self, path: &str, headers: &[(&str, &str)]) -> Result<Download, ClientError> {
        let mut own = self.another();
        let response = own.send(&ApiCall { headers, ..ApiCall::get(path) }).await?;
        if response.status().is_success() {
            return Ok(Download { body: response.into_body(), _connection: own });
        }
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        let refused = ApiResponse { status, body }.accepted();
        Err(refused.err().unwrap_or_else(|| ClientError::Unreached(ErrorKind::InvalidData.into())))
    }

    /// Sends a request; again, if the gateway's process was replaced meanwhile.
    async fn send(&mut self, call: &ApiCall<'_>) -> Result<Response<Incoming>, ClientError> {
        let is_kept = self.connection.is_some();
        let response = match self.send_once(call).await {
            // A kept connection may have been closed by now, which shows only when it is used. A GET may be repeated.
            Err(ClientError::Http(_)) if is_kept && call.method == Method::GET => {
                self.send_once(call).await?
            }
            answered => answered?,
        };
        // Sent by a process that accepts no requests any more.
        if response.headers().get(RETRY_AFTER).is_none_or(|after| after != "0") {
            return Ok(response);
        }
        self.connection = None;
        self.send_once(call).await
    }

    async fn send_once(&mut self, call: &ApiCall<'_>) -> Result<Response<Incoming>, ClientError> {
        if let Some(KeptConnection { requests, used }) = &mut self.connection
            && (used.elapsed() >= KEPT_FOR || requests.ready().await.is_err())
        {
            self.connection = None;
        }
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                let requests = connect(&self.place).await?;
                self.connection.insert(KeptConnection { requests, used: Instant::now() })
            }
        };
        let mut request =
            Request::builder().method(call.method.clone()).uri(call.path).header(HOST, "evenkeel");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(user) = &self.from {
            request = request.header(FROM, user);
        }
        if !call.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"))
            && !call.body.is_empty()
        {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        for (name, value) in call.headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(call.body.clone()))?;
        let answered = connection.requests.send_request(request).await;
        connection.used = Instant::now();
        if answered.is_err() {
            self.connection = None;
        }
        Ok(answered?)
    }
}

async fn connect(place: &ApiEndpoint) -> Result<SendRequest<Full<Bytes>>, ClientError> {
    match place {
        ApiEndpoint::Unix(path) => shake(connect_unix(path).await?).await,
        ApiEndpoint::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            shake(stream).await
        }
    }
}

async fn shake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, ClientError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // The task ends with the connection. The pending request gets a connection error.
    tokio::spawn(connection);
    Ok(sender)
}

/// A response that is read in pieces.
pub struct Download {
    body: Incoming,
    /// Keeps the connection open.
    _connection: ApiClient,
}

impl Download {
    /// Waits for the next chunk. Returns `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let Some(frame) = self.body.frame().await.transpose()? else { return Ok(None) };
            if let Ok(bytes) = frame.into_data() {
                return Ok(Some(bytes));
            }
        }
    }
}

/// The event stream of a gateway.
pub struct Events {
    stream: Download,
    lines: EventLines,
}

impl Events {
    /// Waits for the next event. Returns `None` when the gateway closes the stream.
    pub async fn next(&mut self) -> Result<Option<ServerEvent>, ClientError> {
        loop {
            if let Some(event) = self.lines.next()? {
                return Ok(Some(event));
            }
            let Some(bytes) = self.stream.next().await? else { return Ok(None) };
            self.lines.bytes.extend_from_slice(&bytes);
        }
    }
}

/// Connects without waiting for a process that accepts nothing, and checks the user of the process (SO_PEERCRED).
async fn connect_unix(path: &Path) -> Result<UnixStream, ClientError> {
    let stream = UnixStream::connect(path).await.map_err(|error| explain(path, error))?;
    let user = stream.peer_cred()?.uid();
    if is_trusted(user, geteuid().as_raw(), path) {
        Ok(stream)
    } else {
        Err(ClientError::Untrusted { path: path.to_owned(), user })
    }
}

/// Trusts root and this user. Root also trusts the owner of the socket's folder if no other user may write there: the
/// account that the gateway runs under.
fn is_trusted(peer: u32, own: u32, path: &Path) -> bool {
    let owns_folder = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let facts = fs::metadata(folder.unwrap_or(Path::new(".")));
        facts.is_ok_and(|facts| facts.uid() == peer && facts.mode() & 0o022 == 0)
    };
    peer == 0 || peer == own || own == 0 && owns_folder()
}

/// Replaces the error by one that names the file at the path, if no process accepts connections there.
fn explain(path: &Path, error: io::Error) -> io::Error {
    let kind = fs::symlink_metadata(path).map(|facts| facts.file_type());
    let found = match (error.kind(), kind) {
        (ErrorKind::WouldBlock, _) => "found a process that accepts no connections",
        (ErrorKind::NotFound | ErrorKind::ConnectionRefused, Ok(kind)) => match kind {
            _ if kind.is_symlink() => "found a symbolic link that leads to no gateway",
            _ if kind.is_dir() => "found a folder, expected a socket",
            _ if kind.is_socket() => "found the socket of a process that has ended",
            _ => "found a file that is no socket",
        },
        _ => return error,
    };
    io::Error::new(error.kind(), found)
}

/// All but the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Escapes text for a path segment or a value of the query (RFC 3986, sections 3.3 and 3.4).
pub fn escape(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// An event of `/v1/events` (server-sent events).
#[derive(Clone, PartialEq, Debug)]
pub struct ServerEvent {
    /// The event type; `message` if the stream names none.
    pub name: String,
    /// The event's object.
    pub data: Value,
}

impl ServerEvent {
    /// The time of the event, in microseconds since the Unix epoch; 0 if it has none.
    pub fn at_us(&self) -> u64 {
        EventTime::deserialize(&self.data).unwrap_or_default().at_us
    }

    /// The data of the event, if it is this one.
    pub fn data_of<E: EventData>(&self) -> Option<E> {
        (self.name == E::NAME).then(|| E::deserialize(&self.data).ok())?
    }
}

/// Received bytes and the event under construction.
#[derive(Default)]
struct EventLines {
    bytes: BytesMut,
    name: String,
    data: String,
}

impl EventLines {
    /// The next complete event.
    fn next(&mut self) -> Result<Option<ServerEvent>, serde_json::Error> {
        while let Some(end) = self.bytes.iter().position(|&byte| byte == b'\n') {
            let line =
                String::from_utf8_lossy(&self.bytes[..end]).trim_end_matches('\r').to_owned();
            self.bytes.advance(end + 1);
            if line.is_empty() {
                if self.data.is_empty() {
                    continue;
                }
                let name = match std::mem::take(&mut self.name) {
                    name if name.is_empty() => "message".to_owned(),
                    name => name,
                };
                let data = serde_json::from_str(&std::mem::take(&mut self.data))?;
                return Ok(Some(ServerEvent { name, data }));
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => self.name = value.to_owned(),
                "data" => {
                    if !self.data.is_empty() {
                        self.data.push('\n');
                    }
                    self.data.push_str(value);
                }
                // Comments keep the connection alive; unknown fields are ignored.
                _ => {}
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
