//! Nodes of each driver, and the server of a webhook. Their threads end with the process.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

use evenkeel_media::rtp::ssrc_and_sequence;
use evenkeel_media::srtp::{CryptoAttribute, SrtpKey, SrtpProfile, SrtpReceiver, SrtpSender};
use evenkeel_media::trunk::message::{
    NodeLoad, NodeSecret, OpenStatus, ServingState, TrunkAnswer, TrunkQuestion,
};
use evenkeel_media::trunk::{Bundle, SHARED_MAX, entries};
use evenkeel_process::random;

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
    srtp: Arc<Mutex<SrtpCalls>>,
}

impl Rtpengine {
    pub(super) fn start(media: SocketAddr) -> Rtpengine {
        Rtpengine::with(media, Arc::default())
    }

    /// Legs have SRTP.
    pub(super) fn start_with_srtp() -> Rtpengine {
        let srtp: Arc<Mutex<SrtpCalls>> = Arc::default();
        Rtpengine::with(start_srtp_echo(Arc::clone(&srtp)), srtp)
    }

    fn with(media: SocketAddr, srtp: Arc<Mutex<SrtpCalls>>) -> Rtpengine {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (ng, calls) = (socket.local_addr().unwrap(), Arc::new(Mutex::new(0)));
        let (counting, keys) = (Arc::clone(&calls), Arc::clone(&srtp));
        let port = media.port();
        let sdp = format!("c=IN IP4 127.0.0.1\r\nm=audio {port} RTP/AVP 111\r\na=rtcp:{port}\r\n");
        std::thread::spawn(move || {
            let mut datagram = [0; 4_096];
            loop {
                let Ok((length, source)) = socket.recv_from(&mut datagram) else { continue };
                let text = String::from_utf8_lossy(&datagram[..length]);
                let Some((cookie, question)) = text.split_once(' ') else { continue };
                let is_ping = question.contains("4:ping");
                let crypto = keys.lock().unwrap_or_else(PoisonError::into_inner).answer(question);
                let sdp = format!("{sdp}{crypto}");
                let done = format!("d6:result2:ok3:sdp{}:{sdp}e", sdp.len());
                let answer = if is_ping { "d6:result4:ponge" } else { &*done };
                *counting.lock().unwrap_or_else(PoisonError::into_inner) += usize::from(!is_ping);
                let _ = socket.send_to(format!("{cookie} {answer}").as_bytes(), source);
            }
        });
        Rtpengine { ng, calls, srtp }
    }

    /// The number of calls with SRTP that began.
    pub(super) fn srtp_calls(&self) -> usize {
        self.srtp.lock().unwrap_or_else(PoisonError::into_inner).begun
    }

    /// The number of requests about calls.
    pub(super) fn requests(&self) -> usize {
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The calls at an rtpengine with SRTP, by their names.
#[derive(Default)]
pub(super) struct SrtpCalls {
    standing: BTreeMap<String, SrtpCall>,
    begun: usize,
}

/// A call with one session, on the first side.
struct SrtpCall {
    key: SrtpKey,
    sender: SrtpSender,
    receiver: SrtpReceiver,
}

impl SrtpCalls {
    /// Follows a request. Returns the lines of keys in the answer.
    fn answer(&mut self, question: &str) -> String {
        let name = question.split_once("evenkeel-").and_then(|(_, rest)| rest.get(..16));
        let Some(name) = name else { return String::new() };
        if question.contains("6:delete") {
            self.standing.remove(name);
            return String::new();
        }
        let key = question.split_once("a=crypto:").and_then(|(_, rest)| rest.split_once("\r\n"));
        let Some((key, _)) = key else { return String::new() };
        let offered: CryptoAttribute = key.parse().unwrap();
        let second = SrtpKey::generate(SrtpProfile::AeadAes256Gcm, |bytes| bytes.fill(7));
        let call = self.standing.entry(name.to_owned()).or_insert_with(|| {
            self.begun += 1;
            let key = SrtpKey::generate(SrtpProfile::AeadAes128Gcm, random::fill);
            let (sender, receiver) = (SrtpSender::new(&key), SrtpReceiver::new(&offered.key));
            SrtpCall { key, sender, receiver }
        });
        let line = |tag, key| format!("a=crypto:{}\r\n", *CryptoAttribute { tag, key }.to_value());
        match question.contains("7:command5:offer") {
            true => line(2, second),
            false => line(1, call.key.clone()),
        }
    }
}

/// Starts a media server that decrypts each packet and returns it, encrypted.
fn start_srtp_echo(calls: Arc<Mutex<SrtpCalls>>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut datagram = [0; 2_048];
        loop {
            let Ok((length, source)) = socket.recv_from(&mut datagram) else { continue };
            let mut calls = calls.lock().unwrap_or_else(PoisonError::into_inner);
            for call in calls.standing.values_mut() {
                let mut packet = datagram[..length].to_vec();
                let Ok(plain) = call.receiver.unprotect_rtp(&mut packet) else { continue };
                let length = plain.len();
                let (ssrc, _) = ssrc_and_sequence(plain).unwrap();
                call.sender.lease(ssrc, u64::MAX, u64::MAX).unwrap();
                let packet = call.sender.protect_rtp(&mut packet, length).unwrap();
                let _ = socket.send_to(packet, source);
            }
        }
    });
    address
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
