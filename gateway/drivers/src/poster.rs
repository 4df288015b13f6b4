//! POSTs of JSON to an operator's URL: bounded in time, size and number; and the client of HTTP under them, which registries of
//! plugins use too.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use evenkeel_config::{Url, WebhookTarget};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, USER_AGENT,
};
use hyper::http::request::Builder;
use hyper::rt::{Read, Write};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::tls;

/// Maximum size of an answer. An answer contains a few addresses; a longer one has another origin.
const ANSWER_MAX: usize = 64 << 10;

/// Maximum concurrent POSTs to a server: more would queue there. One that hangs delays those to no other server.
const AT_ONCE: usize = 32;

/// Maximum concurrent POSTs to all servers: each takes a descriptor.
const AT_ONCE_TO_ALL: usize = 512;

/// Maximum queued POSTs; further ones fail at once.
const WAITING_MAX: usize = 16_384;

/// Timeout of one attempt to open a session, since another attempt may reach a faster server.
const TRY_FOR: Duration = Duration::from_millis(800);

/// Pause before the second attempt; it doubles with each further one.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The response of a webhook.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpAnswer {
    /// The status code.
    pub status: u16,
    pub(crate) body: Bytes,
}

/// The response, or the reason why there is none.
pub type Posted = Result<HttpAnswer, String>;

/// A webhook was not answered.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection was made.
    #[error("no connection: {0}")]
    Connect(#[from] std::io::Error),
    /// The URL's host cannot be verified by TLS.
    #[error("`{0}` is not a valid TLS server name")]
    Name(Box<str>),
    /// The server breaks HTTP, or the connection ended.
    #[error("HTTP error: {0}")]
    Http(#[from] hyper::Error),
    /// The URL or a header is invalid.
    #[error("cannot build the request: {0}")]
    Request(#[from] hyper::http::Error),
    /// The body exceeds the limit.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// The time limit passed.
    #[error("no answer in time")]
    Late,
    /// The queue of requests is full.
    #[error("too many requests are queued")]
    Busy,
}

/// The retry policy of a POST.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Total time.
    within: Duration,
    /// Timeout of one attempt.
    each: Duration,
    /// The POST ends when its caller stops waiting.
    cancels: bool,
}

impl Effort {
    /// For opening a session: short attempts, completed even if the gateway ends.
    pub fn of_session(within: Duration) -> Effort {
        Effort { within, each: TRY_FOR, cancels: false }
    }

    /// For starting a node: the server may answer once the node runs, so only connection errors are retried.
    pub fn of_start(within: Duration) -> Effort {
        Effort { within, each: within, cancels: true }
    }
}

/// A request to a webhook.
#[derive(Clone, Debug)]
pub struct WebhookMessage {
    /// The receiver.
    pub hook: Arc<WebhookTarget>,
    /// JSON.
    pub body: Bytes,
    /// Its trace, if it belongs to one.
    pub trace: Option<TraceHeaders>,
}

/// The headers of a request that continues a trace (W3C Trace Context).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceHeaders {
    /// Trace, parent and flags.
    pub traceparent: String,
    /// Values of tracing systems.
    pub tracestate: Option<Arc<str>>,
}

struct WebhookJob {
    message: WebhookMessage,
    by: Instant,
    effort: Effort,
    reply: oneshot::Sender<Result<HttpAnswer, HttpError>>,
    /// One of [`WAITING_MAX`], until the POST has ended.
    place: OwnedSemaphorePermit,
}

/// POSTs on its own thread, so that name resolution and TLS handshakes delay nothing else.
#[derive(Clone, Debug)]
pub struct Poster {
    jobs: mpsc::UnboundedSender<WebhookJob>,
    places: Arc<Semaphore>,
}

impl Poster {
    /// Starts the thread; it ends when the last clone is dropped.
    pub fn start() -> std::io::Result<Poster> {
        let (jobs_in, jobs) = mpsc::unbounded_channel();
        let places = Arc::new(Semaphore::new(WAITING_MAX));
        let poster = Poster { jobs: jobs_in, places: Arc::clone(&places) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new()
            .name("webhooks".to_owned())
            .spawn(move || runtime.block_on(serve(jobs, places)))?;
        Ok(poster)
    }

    /// POSTs, with retries after connection errors, until there is an answer or the time is up.
    pub async fn post(
        &self,
        message: WebhookMessage,
        effort: Effort,
    ) -> Result<HttpAnswer, HttpError> {
        let (reply, answer) = oneshot::channel();
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| HttpError::Busy)?;
        let by = Instant::now() + effort.within;
        let job = WebhookJob { message, by, effort, reply, place };
        self.jobs.send(job).map_err(|_| HttpError::Busy)?;
        answer.await.unwrap_or(Err(HttpError::Busy))
    }
}

async fn serve(mut jobs: mpsc::UnboundedReceiver<WebhookJob>, places: Arc<Semaphore>) {
    let (all, client) = (Arc::new(Semaphore::new(AT_ONCE_TO_ALL)), Arc::new(HttpClient::default()));
    // As many as the configuration has named.
    let mut servers: BTreeMap<Box<str>, Arc<Semaphore>> = BTreeMap::new();
    while let Some(job) = jobs.recv().await {
        let server = servers.entry(job.message.hook.url.authority().into());
        let turns = server.or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE)));
        let (turns, all, client) = (Arc::clone(turns), Arc::clone(&all), Arc::clone(&client));
        tokio::spawn(async move {
            let WebhookJob { message, by, effort, mut reply, place: _place } = job;
            let posted = async {
                let turn = async { (turns.acquire().await, all.acquire().await) };
                match tokio::time::timeout_at(by, turn).await {
                    Ok(_turn) => post_until(&message, by, effort.each, &client).await,
                    Err(_late) => Err(HttpError::Late),
                }
            };
            let answer = tokio::select! {
                answer = posted => Some(answer),
                () = reply.closed(), if effort.cancels => None,
            };
            // The caller may have stopped waiting.
            answer.map(|answer| reply.send(answer));
        });
    }
    // All callers are gone. Queued POSTs are completed, each within its own time limit.
    let _ = places.acquire_many(WAITING_MAX as u32).await;
}

async fn post_until(
    message: &WebhookMessage,
    by: Instant,
    each: Duration,
    client: &HttpClient,
) -> Result<HttpAnswer, HttpError> {
    let (mut wait, mut last) = (AGAIN_AFTER, HttpError::Late);
    loop {
        let until = by.min(Instant::now() + each);
        match tokio::time::timeout_at(until, client.post(message)).await {
            // A proxy sends these statuses if it did not reach the server.
            Ok(Ok(answer)) if !matches!(answer.status, 502 | 504) => return Ok(answer),
            Ok(Ok(answer)) if Instant::now() + wait >= by => return Ok(answer),
            Ok(Ok(_)) => {}
            Ok(Err(failed @ (HttpError::TooLong(_) | HttpError::Name(_)))) => return Err(failed),
            Ok(Err(failed)) => last = failed,
            Err(_late) => {}
        }
        if Instant::now() + wait >= by {
            return Err(last);
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
}

/// A request with an answer that is read whole.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    pub method: Method,
    /// `http` or `https`.
    pub url: Url,
    /// Headers beside `Host`, `User-Agent` and `Connection`.
    pub headers: HeaderMap<HeaderValue>,
    /// Empty for none.
    pub body: Bytes,
    /// Maximum size of the answer's body.
    pub answer_max: usize,
}

/// Sends requests, each once and on a connection of its own. The caller limits the time.
#[derive(Default)]
pub struct HttpClient {
    /// The system's root certificates, read when the first certificate is verified.
    tls: OnceLock<TlsConnector>,
}

impl HttpClient {
    /// POSTs JSON.
    ///
    /// # Errors
    /// There is no answer, or a longer one than [`HttpError::TooLong`] says.
    pub async fn post(&self, message: &WebhookMessage) -> Result<HttpAnswer, HttpError> {
        let WebhookMessage { hook, body, trace } = message;
        let mut request =
            request_to(Method::POST, &hook.url).header(CONTENT_TYPE, "application/json");
        if let Some(token) = &hook.token {
            let bearer = [b"Bearer ", token.bytes()].concat();
            request = request.header(AUTHORIZATION, bearer);
        }
        if let Some(TraceHeaders { traceparent, tracestate }) = trace {
            request = request.header("traceparent", traceparent);
            if let Some(tracestate) = tracestate {
                request = request.header("tracestate", &**tracestate);
            }
        }
        let (response, _connection) =
            self.send(&hook.url, request.body(Full::new(body.clone()))?).await?;
        let status = response.status().as_u16();
        Ok(HttpAnswer { status, body: read_body(response.into_body(), ANSWER_MAX).await? })
    }

    /// Sends any request. An error status is not an error here, and a redirection is not followed.
    ///
    /// # Errors
    /// There is no whole answer, or a longer one than the request allows.
    pub async fn request(&self, request: HttpRequest) -> Result<Response<Bytes>, HttpError> {
        let HttpRequest { method, url, headers, body, answer_max } = request;
        let mut built = request_to(method, &url).body(Full::new(body))?;
        built.headers_mut().extend(headers);
        let (response, _connection) = self.send(&url, built).await?;
        let (head, body) = response.into_parts();
        Ok(Response::from_parts(head, read_body(body, answer_max).await?))
    }

    /// The status of the answer to a GET request. The body is not read.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn get_status(&self, url: &Url) -> Result<u16, HttpError> {
        let request = request_to(Method::GET, url).body(Full::default())?;
        let (response, _connection) = self.send(url, request).await?;
        Ok(response.status().as_u16())
    }

    async fn send(
        &self,
        url: &Url,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, HttpConnection), HttpError> {
        let stream = TcpStream::connect((url.host(), url.port())).await?;
        stream.set_nodelay(true)?;
        if url.is_https() {
            let name = ServerName::try_from(url.host().to_owned())
                .map_err(|_| HttpError::Name(url.host().into()))?;
            exchange(TokioIo::new(self.tls().connect(name, stream).await?), request).await
        } else {
            exchange(TokioIo::new(stream), request).await
        }
    }

    fn tls(&self) -> &TlsConnector {
        self.tls.get_or_init(|| TlsConnector::from(Arc::new(tls::client(tls::roots(None)))))
    }
}

async fn read_body(body: Incoming, max: usize) -> Result<Bytes, HttpError> {
    match Limited::new(body, max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(HttpError::TooLong(max)),
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(error) => Err(HttpError::Http(*error)),
            Err(_other) => Err(HttpError::TooLong(max)),
        },
    }
}

/// A request without further headers. The connection ends with the answer.
fn request_to(method: Method, url: &Url) -> Builder {
    Request::builder()
        .method(method)
        .uri(url.path())
        .header(HOST, url.authority())
        .header(USER_AGENT, concat!("evenkeel/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
}

/// Ends the connection when it is dropped.
struct HttpConnection {
    driving: JoinHandle<hyper::Result<()>>,
    sender: SendRequest<Full<Bytes>>,
}

impl Drop for HttpConnection {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

async fn exchange(
    io: impl Read + Write + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(Response<Incoming>, HttpConnection), HttpError> {
    let (sender, connection) = http1::handshake(io).await?;
    let mut connection = HttpConnection { driving: tokio::spawn(connection), sender };
    let response = connection.sender.send_request(request).await?;
    Ok((response, connection))
}

#[cfg(test)]
pub(crate) mod tests;
