//! HTTP servers for clients under test, and a request to a server.

use std::io::{Read as _, Write as _};
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

/// The status and body of the answer to a GET request with these header lines.
pub fn http_get(server: SocketAddr, path: &str, headers: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(server).ok()?;
    stream.set_read_timeout(Some(READ_WITHIN)).ok()?;
    // By HTTP/1.0 no answer is in chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n{headers}\r\n", server.ip()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
