//! A client that sends each request on a connection of its own.

use std::sync::{Arc, OnceLock};

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
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::tls;

/// Maximum size of an answer. An answer contains a few addresses; a longer one has another origin.
pub(crate) const ANSWER_MAX: usize = 64 << 10;

/// The response of a webhook.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpAnswer {
    /// The status code.
    pub status: u16,
    /// At most 64 KiB.
    pub body: Bytes,
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
