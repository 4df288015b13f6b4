//! Nodes of each driver, and the server of a webhook. Their threads end with the process.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

use evenkeel_media::trunk::message::{
    NodeLoad, NodeSecret, OpenStatus, ServingState, TrunkAnswer, TrunkQuestion,
};
use evenkeel_media::trunk::{Bundle, SHARED_MAX, entries};

pub(super) const SECRET: &[u8] = b"what both ends know of each other";

/// Starts a media server that returns each packet to its source.
pub(super) fn start_echo() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut packet = [0; 2_048];
        loop {
            let Ok((length, source)) = socket.recv_from(&mut packet) else { continue };
            let _ = socket.send_to(&packet[..length], source);
        }
    });
    address
}

/// A node with trunk legs that returns each packet.
pub(super) struct Agent {
    pub(super) address: SocketAddr,
    /// The kinds of datagrams in the order of their arrival.
    came: Arc<Mutex<Vec<&'static str>>>,
}

impl Agent {
    pub(super) fn start(name: &str) -> Agent {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (address, secret) =
            (socket.local_addr().unwrap(), NodeSecret::new(SECRET, name).unwrap());
        let came: Arc<Mutex<Vec<&'static str>>> = Arc::default();
        let coming = Arc::clone(&came);
        std::thread::spawn(move || {
            let mut datagram = [0; 4_096];
            loop {
                let Ok((length, source)) = socket.recv_from(&mut datagram) else { continue };
                if let Some((kind, answer)) = answer(&datagram[..length], &secret) {
                    coming.lock().unwrap_or_else(PoisonError::into_inner).push(kind);
                    if !answer.is_empty() {
                        let _ = socket.send_to(&answer, source);
                    }
                }
            }
        });
        Agent { address, came }
    }

    pub(super) fn came(&self) -> Vec<&'static str> {
        self.came.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn count(&self, kind: &str) -> usize {
        self.came().iter().filter(|came| **came == kind).count()
    }
}

/// The kind of a datagram and the node's answer to it, which is empty for none.
fn answer(datagram: &[u8], secret: &NodeSecret) -> Option<(&'static str, Vec<u8>)> {
    let now_us = evenkeel_process::unix_us(std::time::SystemTime::now());
    let Ok(asked) = TrunkQuestion::read(datagram, secret, now_us) else {
        let mut bundle = Bundle::new(SHARED_MAX);
        for (tag, packet) in entries(datagram).filter_map(Result::ok) {
            assert!(bundle.push(tag, packet), "as long as it came");
        }
        return (!bundle.is_empty()).then(|| ("media", bundle.as_bytes().to_vec()));
    };
    let load = NodeLoad { permille: 0, state: ServingState::Serving, sessions: 0, vouched: true };
    let (kind, answer) = match asked.message {
        TrunkQuestion::Probe => ("probe", TrunkAnswer::Probe(load)),
        TrunkQuestion::Open { tag, .. } => {
            ("open", TrunkAnswer::Open { tag, status: OpenStatus::Ok })
        }
        TrunkQuestion::Close { tag } => {
            ("close", TrunkAnswer::Close { tag, status: OpenStatus::Ok })
        }
        TrunkQuestion::Keep { .. } => ("keep", TrunkAnswer::Keep { unknown: [].into() }),
        TrunkQuestion::Path { padding, .. } => ("path", TrunkAnswer::Path { padding }),
        TrunkQuestion::Start => return Some(("start", Vec::new())),
        TrunkQuestion::Drain
        | TrunkQuestion::Noted { .. }
        | TrunkQuestion::Break(_)
        | TrunkQuestion::Vote { .. }
        | TrunkQuestion::Process => {
            return None;
        }
    };
    let mut message = Vec::new();
    answer.write(secret, asked.nonce, now_us, &mut message);
    Some((kind, message))
}

/// An rtpengine that gives all sessions the address of one media server.
pub(super) struct Rtpengine {
    pub(super) ng: SocketAddr,
    calls: Arc<Mutex<usize>>,
}

impl Rtpengine {
    pub(super) fn start(media: SocketAddr) -> Rtpengine {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (ng, calls) = (socket.local_addr().unwrap(), Arc::new(Mutex::new(0)));
        let counting = Arc::clone(&calls);
        let port = media.port();
        let sdp = format!("c=IN IP4 127.0.0.1\r\nm=audio {port} RTP/AVP 111\r\na=rtcp:{port}\r\n");
        let done = format!("d6:result2:ok3:sdp{}:{sdp}e", sdp.len());
        std::thread::spawn(move || {
            let mut datagram = [0; 4_096];
            loop {
                let Ok((length, source)) = socket.recv_from(&mut datagram) else { continue };
                let text = String::from_utf8_lossy(&datagram[..length]);
                let Some((cookie, question)) = text.split_once(' ') else { continue };
                let is_ping = question.contains("4:ping");
                let answer = if is_ping { "d6:result4:ponge" } else { &*done };
                *counting.lock().unwrap_or_else(PoisonError::into_inner) += usize::from(!is_ping);
                let _ = socket.send_to(format!("{cookie} {answer}").as_bytes(), source);
            }
        });
        Rtpengine { ng, calls }
    }

    /// The number of requests about calls.
    pub(super) fn requests(&self) -> usize {
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server of a webhook, which answers with the address of a media server.
pub(super) struct Operator {
    pub(super) url: String,
    posts: Arc<Mutex<Vec<String>>>,
}

impl Operator {
    pub(super) fn start(media: SocketAddr) -> Operator {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let posts: Arc<Mutex<Vec<String>>> = Arc::default();
        let received = Arc::clone(&posts);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let Some(post) = post(&mut stream) else { continue };
                received.lock().unwrap_or_else(PoisonError::into_inner).push(post);
                let answer = format!("{{\"address\":\"{media}\"}}");
                let length = answer.len();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                let _ = write!(stream, "{head}{answer}");
            }
        });
        Operator { url, posts }
    }

    /// The verbs of all requests so far.
    pub(super) fn verbs(&self) -> Vec<String> {
        let posts = self.posts.lock().unwrap_or_else(PoisonError::into_inner);
        let verb = |post: &String| {
            let json: serde_json::Value = serde_json::from_str(post).unwrap();
            json["verb"].as_str().unwrap().to_owned()
        };
        posts.iter().map(verb).collect()
    }
}

/// The body of a request.
fn post(stream: &mut TcpStream) -> Option<String> {
    let (mut text, mut bytes) = (String::new(), [0; 4_096]);
    loop {
        let length = stream.read(&mut bytes).ok().filter(|length| *length > 0)?;
        text.push_str(std::str::from_utf8(&bytes[..length]).ok()?);
        if let Some((_, body)) = text.split_once("\r\n\r\n")
            && serde_json::from_str::<serde_json::Value>(body).is_ok()
        {
            return Some(body.to_owned());
        }
    }
}
