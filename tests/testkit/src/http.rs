//! HTTP servers for clients under test, and a client of servers under test.

use std::fmt;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Interval at which an [`HttpSink`] accepts clients.
const ACCEPTS_EVERY: Duration = Duration::from_millis(5);

/// A client sends the rest of its request within this time, and a server its answer.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// The head of a request ends so.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// Starts an HTTP server on loopback and returns its URL and the requests that it received. It answers each request in
/// turn; an empty answer closes the connection.
pub fn http_server(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let url = format!("http://{}/hook", listener.local_addr().expect("it is bound"));
    let asked = std::thread::spawn(move || {
        answers
            .into_iter()
            .map(|answer| {
                let (mut stream, _) = listener.accept().expect("a client connects");
                let (request, _) = read_request(&mut stream).expect("a request comes");
                let _gone = stream.write_all(answer.as_bytes());
                String::from_utf8(request).expect("a request is UTF-8")
            })
            .collect()
    });
    (url, asked)
}

/// The answer of an HTTP server.
pub fn http_answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Reads a request with its body. Returns it, and the place of the body; `None` if the client ends before.
fn read_request(stream: &mut TcpStream) -> Option<(Vec<u8>, usize)> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 16_384]);
    let mut head = None;
    loop {
        if let Some((body_at, length)) = head
            && bytes.len() >= body_at + length
        {
            return Some((bytes, body_at));
        }
        let length = stream.read(&mut buffer).ok().filter(|length| *length > 0)?;
        bytes.extend_from_slice(&buffer[..length]);
        head = head.or_else(|| {
            let end = bytes.windows(HEAD_END.len()).position(|part| part == HEAD_END)?;
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            // A request without a body has no length.
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length = length.map_or(Some(0), |length| length.trim().parse::<usize>().ok())?;
            Some((end + HEAD_END.len(), length))
        });
    }
}

/// An HTTP server that answers each request with 200 and keeps its body. Dropped, it refuses connections.
pub struct HttpSink {
    address: SocketAddr,
    bodies: Arc<Mutex<Vec<KeptBody>>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The body of a request, and when it came.
#[derive(Clone)]
pub struct KeptBody {
    pub at: Instant,
    pub bytes: Vec<u8>,
}

impl HttpSink {
    /// Listens at this address, in the network namespace of this thread.
    ///
    /// # Panics
    /// The address is not free.
    pub fn start(address: SocketAddr) -> HttpSink {
        let listener = TcpListener::bind(address).expect("the address is free");
        listener.set_nonblocking(true).expect("a listener can be non-blocking");
        let address = listener.local_addr().expect("it is bound");
        let (bodies, ending) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let (kept, ends) = (Arc::clone(&bodies), Arc::clone(&ending));
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = listener.accept() else {
                    std::thread::park_timeout(ACCEPTS_EVERY);
                    continue;
                };
                if let Some(bytes) = answer(&mut stream) {
                    let body = KeptBody { at: Instant::now(), bytes };
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(body);
                }
            }
        });
        HttpSink { address, bodies, ending, thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The bodies so far.
    pub fn bodies(&self) -> Vec<KeptBody> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for HttpSink {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// Reads a request, accepts it, and returns its body.
fn answer(stream: &mut TcpStream) -> Option<Vec<u8>> {
    stream.set_read_timeout(Some(READ_WITHIN)).ok()?;
    let (mut request, body_at) = read_request(stream)?;
    let accepted = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    stream.write_all(accepted).ok()?;
    Some(request.split_off(body_at))
}

/// The answer to a GET request with these headers.
pub fn http_get(server: SocketAddr, path: &str, headers: &[&str]) -> Option<HttpAnswer> {
    let stream = TcpStream::connect(server).ok()?;
    stream.set_read_timeout(Some(READ_WITHIN)).ok()?;
    HttpClient::over(stream).ask(&format!("GET {path}"), headers, b"")
}

/// A client of HTTP/1.1 on a connection of any kind. Clients of the admin API that need no special connection, head or body
/// use `evenkeel-client`.
pub struct HttpClient<S> {
    stream: BufReader<S>,
}

/// An answer of HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpAnswer {
    pub status: u16,
    /// The status line and the headers, without the empty line at their end.
    pub head: String,
    pub body: String,
}

impl HttpAnswer {
    /// The value of this header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let headers = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut named = headers.filter(|(found, _)| found.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value.trim())
    }
}

/// As it came.
impl fmt::Display for HttpAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\r\n\r\n{}", self.head, self.body)
    }
}

fn is_host(header: &str) -> bool {
    header.split(':').next().is_some_and(|name| name.eq_ignore_ascii_case("host"))
}

fn head(line: &str, headers: &[&str], body_length: usize) -> String {
    let host = if headers.iter().any(|it| is_host(it)) { "" } else { "host: x\r\n" };
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!("{line} HTTP/1.1\r\n{host}{headers}content-length: {body_length}\r\n\r\n")
}

impl<S: Read + Write> HttpClient<S> {
    /// A client on this connection.
    pub fn over(stream: S) -> HttpClient<S> {
        HttpClient { stream: BufReader::new(stream) }
    }

    /// Sends a request, such as `GET /v1/nodes`, and reads the answer. `headers` beside `content-length`; `host` is made up
    /// if they lack it. `None` if the connection ends before the answer does.
    pub fn ask(&mut self, line: &str, headers: &[&str], body: &[u8]) -> Option<HttpAnswer> {
        self.send(line, headers, body);
        self.answer()
    }

    /// Sends a request. A server that refuses it may close the connection before it has read the body, so that errors are ignored.
    pub fn send(&mut self, line: &str, headers: &[&str], body: &[u8]) {
        // In one piece, so that the body does not wait for the acknowledgement of the head.
        self.write(&[head(line, headers, body.len()).as_bytes(), body].concat());
    }

    /// Sends the head of a request with a body of this length, which the caller may write to the connection.
    pub fn send_head(&mut self, line: &str, headers: &[&str], body_length: usize) {
        self.write(head(line, headers, body_length).as_bytes());
    }

    fn write(&mut self, bytes: &[u8]) {
        let _closed = self.stream.get_mut().write_all(bytes);
    }

    /// Reads an answer. `None` if the connection ends, or reading fails, before the answer ends.
    pub fn answer(&mut self) -> Option<HttpAnswer> {
        let mut head = self.line()?;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            head.extend(["\r\n", &line]);
        }
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let mut answer = HttpAnswer { status, head, body: String::new() };
        let body = match answer.header("content-length") {
            _ if status == 204 => Vec::new(),
            Some(length) => self.whole(length.parse().ok()?)?,
            None if answer.header("transfer-encoding") == Some("chunked") => self.chunks()?,
            None => self.bytes(u64::MAX),
        };
        answer.body = String::from_utf8_lossy(&body).into_owned();
        Some(answer)
    }

    /// Reads a line, such as of an event. `None` at the end of the connection, or if reading fails.
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let length = self.stream.read_line(&mut line).ok()?;
        (length > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Reads to the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        self.bytes(u64::MAX)
    }

    /// Reads so many bytes, or those before the end of the connection. A server may reset a connection of which it did not read
    /// the whole request.
    fn bytes(&mut self, length: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _reset = self.stream.by_ref().take(length).read_to_end(&mut bytes);
        bytes
    }

    /// Reads so many bytes. `None` if fewer come.
    fn whole(&mut self, length: u64) -> Option<Vec<u8>> {
        let bytes = self.bytes(length);
        (bytes.len() as u64 == length).then_some(bytes)
    }

    /// Reads a body in chunks (RFC 9112, section 7.1).
    fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let (length, _extensions) = line.split_once(';').unwrap_or((&line, ""));
            let length = u64::from_str_radix(length.trim(), 16).ok()?;
            if length == 0 {
                // Trailers come before the empty line.
                while !self.line()?.is_empty() {}
                return Some(body);
            }
            body.append(&mut self.whole(length)?);
            self.line()?;
        }
    }
}

#[cfg(test)]
mod tests;
