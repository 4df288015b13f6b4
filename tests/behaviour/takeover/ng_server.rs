//! A media server that speaks rtpengine's NG protocol, for one client. It takes packets from the signalled address alone,
//! and echoes them.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

use evenkeel_media::rtp;

pub(super) struct NgServer {
    pub(super) ng: SocketAddr,
    seen: Arc<Mutex<NgRecord>>,
}

#[derive(Clone, Default)]
pub(super) struct NgRecord {
    /// The numbers of all calls.
    pub(super) calls: BTreeSet<String>,
    pub(super) deleted: usize,
    /// Signalled addresses of the client's session.
    pub(super) signalled: BTreeSet<SocketAddr>,
    source: Option<SocketAddr>,
    /// Packets from the signalled address: SSRC and sequence number.
    numbers: BTreeSet<(u32, u16)>,
    /// Packets with a number that came before.
    pub(super) repeated: usize,
}

impl NgServer {
    /// Starts at this address in the network namespace of this thread. The threads end with the process.
    pub(super) fn start(address: Ipv4Addr) -> NgServer {
        let (control, media) = (bind(address), bind(address));
        let ng = control.local_addr().unwrap();
        let media_at = media.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(NgRecord::default()));
        let [of_control, of_media] = [(); 2].map(|()| Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut buffer = [0; 8_192];
            loop {
                let (length, from) = control.recv_from(&mut buffer).unwrap();
                let question = String::from_utf8_lossy(&buffer[..length]);
                let answer = of_control.lock().unwrap().answer(&question, media_at);
                let cookie = question.split(' ').next().unwrap();
                // The gateway may be gone.
                let _sent = control.send_to(format!("{cookie} {answer}").as_bytes(), from);
            }
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 2_048];
            loop {
                let (length, from) = media.recv_from(&mut buffer).unwrap();
                if of_media.lock().unwrap().takes(&buffer[..length], from) {
                    let _sent = media.send_to(&buffer[..length], from);
                }
            }
        });
        NgServer { ng, seen }
    }

    pub(super) fn seen(&self) -> NgRecord {
        self.seen.lock().unwrap().clone()
    }
}

fn bind(address: Ipv4Addr) -> UdpSocket {
    UdpSocket::bind((address, 0)).unwrap()
}

impl NgRecord {
    fn answer(&mut self, question: &str, media: SocketAddr) -> String {
        if question.contains("7:command4:ping") {
            return "d6:result4:ponge".to_owned();
        }
        let (_, call) = question.split_once("7:call-id").unwrap();
        let (_, call) = call.split_once(':').unwrap();
        let call: String = call.chars().take("evenkeel-0123456789abcdef".len()).collect();
        if question.contains("7:command6:delete") {
            self.deleted += 1;
            return "d6:result2:oke".to_owned();
        }
        self.calls.insert(call);
        let line = |start: &str| question.lines().find_map(|line| line.strip_prefix(start));
        let ip = line("c=IN IP4 ").unwrap().parse().unwrap();
        let port: u16 = line("m=audio ").unwrap().split(' ').next().unwrap().parse().unwrap();
        // The other side of the call is empty.
        if !question.contains("a=inactive") {
            let client = SocketAddr::new(ip, port);
            self.source = Some(client);
            self.signalled.insert(client);
        }
        let sdp = format!("c=IN IP4 {}\r\nm=audio {} RTP/AVP 111\r\n", media.ip(), media.port());
        format!("d6:result2:ok3:sdp{}:{sdp}e", sdp.len())
    }

    fn takes(&mut self, packet: &[u8], from: SocketAddr) -> bool {
        let Some(header) = rtp::RtpHeader::parse(packet).ok().filter(|_| self.source == Some(from))
        else {
            return false;
        };
        if !self.numbers.insert((header.ssrc, header.sequence)) {
            self.repeated += 1;
        }
        true
    }
}
