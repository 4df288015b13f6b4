//! A server that accepts every request, and requests to other projects' servers.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Interval at which a server looks for clients.
const ACCEPTS_EVERY: Duration = Duration::from_millis(5);

/// A client sends the rest of its request within this time.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// The head of a request ends so.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// An HTTP server that answers each request with 200 and keeps its body. Dropped, it refuses connections.
pub(crate) struct HttpSink {
    pub(crate) address: SocketAddr,
    bodies: Arc<Mutex<Vec<KeptBody>>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The body of a request, and when it came.
#[derive(Clone)]
pub(crate) struct KeptBody {
    pub(crate) at: Instant,
    pub(crate) bytes: Vec<u8>,
}

impl HttpSink {
    /// Listens at this address, in the network namespace of this thread.
    pub(crate) fn start(address: SocketAddr) -> HttpSink {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (bodies, ending) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let (kept, ends) = (Arc::clone(&bodies), Arc::clone(&ending));
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    std::thread::park_timeout(ACCEPTS_EVERY);
                    continue;
                };
                if let Some(bytes) = answer(stream) {
                    let body = KeptBody { at: Instant::now(), bytes };
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(body);
                }
            }
        });
        HttpSink { address, bodies, ending, thread: Some(thread) }
    }

    /// The bodies so far.
    pub(crate) fn bodies(&self) -> Vec<KeptBody> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for HttpSink {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Reads a request, accepts it, and returns its body.
fn answer(mut stream: TcpStream) -> Option<Vec<u8>> {
    stream.set_read_timeout(Some(READ_WITHIN)).ok()?;
    let (mut bytes, mut buffer) = (Vec::new(), [0; 16_384]);
    let mut whole = None;
    while whole.is_none_or(|whole| bytes.len() < whole) {
        let length = stream.read(&mut buffer).ok().filter(|length| *length > 0)?;
        bytes.extend_from_slice(&buffer[..length]);
        whole = whole.or_else(|| {
            let end = bytes.windows(HEAD_END.len()).position(|part| part == HEAD_END)?;
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length = length.map_or(Some(0), |length| length.trim().parse::<usize>().ok())?;
            Some(end + HEAD_END.len() + length)
        });
    }
    let accepted = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    stream.write_all(accepted).ok()?;
    let end = bytes.windows(HEAD_END.len()).position(|part| part == HEAD_END)?;
    Some(bytes.split_off(end + HEAD_END.len()))
}

/// The status and body of the answer to a GET request with these header lines.
pub(crate) fn http_get(server: SocketAddr, path: &str, headers: &str) -> Option<(u16, String)> {
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
