//! A client that writes its first packet itself, with an endpoint under virtual time.

use std::net::UdpSocket;
use std::time::Instant;

use nix::sys::socket::{SetSockOpt, sockopt};
use rustls::Side;
use rustls::quic::Version;

use super::super::certificate::EndpointIdentity;
use super::super::endpoint::QuicEndpoint;
use super::super::hub::Hub;
use super::super::socket::QuicSocket;
use super::super::thread::configs;
use super::*;

/// Long header, version 1 and the packet types (RFC 9000, 17.2).
const INITIAL: u8 = 0xc0;
const RETRY: u8 = 0xf0;
const TYPE: u8 = 0xf0;
const VERSION: [u8; 4] = [0, 0, 0, 1];
const TAG: usize = 16;
/// The minimum size of a client's first datagram (RFC 9000, 14.1).
const DATAGRAM: usize = 1_200;

/// CONNECTION_CLOSE with NO_ERROR, frame type 0 and no reason phrase (RFC 9000, 19.19).
pub(super) const CLOSE: &[u8] = &[0x1c, 0, 0, 0];

pub(super) struct Raw {
    pub(super) endpoint: QuicEndpoint,
    pub(super) counters: Arc<Counters>,
    pub(super) now: Instant,
    address: SocketAddr,
    socket: UdpSocket,
}

/// The endpoint's answer to a first packet.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// The next first packet must carry this token and use this connection ID.
    Retry { id: Vec<u8>, token: Vec<u8> },
    /// An Initial packet: accepted or refused.
    Initial,
}

impl Raw {
    pub(super) fn start(settings: QuicSettings) -> Raw {
        let mut identity = EndpointIdentity::new().unwrap();
        let tls = identity.tls(&settings.certificate).unwrap();
        let configs = configs(&settings, &identity, tls.config(None));
        let listening = QuicSocket::listen(settings.listen, settings.moves).unwrap();
        let address = listening.socket.local_addr().unwrap();
        let socket = connected(Ipv4Addr::LOCALHOST, address);
        let counters = Arc::<Counters>::default();
        let hub = Hub::new(Arc::new(Flows::new(1)), Arc::clone(&counters), vec![]);
        let endpoint = QuicEndpoint::new(
            configs,
            listening,
            settings,
            hub,
            vec![],
            Arc::new(SendLease::forever()),
        );
        Raw { endpoint, counters, now: Instant::now(), address, socket }
    }

    /// Continues from another address of this host.
    pub(super) fn move_to(&mut self, address: Ipv4Addr) {
        self.socket = connected(address, self.address);
    }

    /// Sends a first packet with these frames to this connection ID and lets the endpoint handle it.
    pub(super) fn knock(&mut self, id: &[u8], token: &[u8], frames: &[u8]) {
        self.send(id, token, frames);
        // On loopback the packet arrives before `send` returns.
        assert_eq!(self.endpoint.turn(self.now).packets, 1);
    }

    /// Sends a first packet.
    pub(super) fn send(&self, id: &[u8], token: &[u8], frames: &[u8]) {
        self.socket.send(&initial(id, token, frames)).unwrap();
    }

    pub(super) fn answer(&self) -> Answer {
        let mut packet = [0; 2_048];
        let length = self.socket.recv(&mut packet).unwrap();
        let (first, rest) = packet[..length].split_first().unwrap();
        assert!(rest.starts_with(&VERSION));
        if first & TYPE != RETRY {
            assert_eq!(first & TYPE, INITIAL);
            return Answer::Initial;
        }
        let ours = usize::from(rest[4]);
        let rest = &rest[5 + ours..rest.len() - TAG];
        let (id, token) = rest[1..].split_at(usize::from(rest[0]));
        Answer::Retry { id: id.to_vec(), token: token.to_vec() }
    }

    /// Sends messages of 64 datagrams each that are no QUIC packets.
    pub(super) fn flood(&self, messages: usize) {
        const SIZE: usize = 20;
        sockopt::UdpGsoSegment.set(&self.socket, &(SIZE as i32)).unwrap();
        for _ in 0..messages {
            self.socket.send(&[0; 64 * SIZE]).unwrap();
        }
    }

    pub(super) fn later(&mut self, by: Duration) {
        self.now += by;
        self.endpoint.turn(self.now);
    }

    pub(super) fn count(&self, counter: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        counter(&self.counters).load(Ordering::Relaxed)
    }
}

fn connected(from: Ipv4Addr, to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

/// A client's first packet (RFC 9000, 17.2.2; RFC 9001, 5).
fn initial(id: &[u8], token: &[u8], frames: &[u8]) -> Vec<u8> {
    const NUMBER: usize = 4;
    let mut header = vec![INITIAL | (NUMBER - 1) as u8];
    header.extend(VERSION);
    header.push(id.len() as u8);
    header.extend(id);
    header.extend([8, 1, 2, 3, 4, 5, 6, 7, 8]);
    header.extend((0x4000 | token.len() as u16).to_be_bytes());
    header.extend(token);
    let length = DATAGRAM - header.len() - 2;
    header.extend((0x4000 | length as u16).to_be_bytes());
    let at = header.len();
    header.extend([0; NUMBER]);

    let mut payload = frames.to_vec();
    payload.resize(length - NUMBER - TAG, 0);
    let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let suite = suite.tls13().unwrap().quic_suite().unwrap();
    let keys = suite.keys(id, Side::Client, Version::V1).local;
    let tag = keys.packet.encrypt_in_place(0, &header, &mut payload).unwrap();
    payload.extend(tag.as_ref());
    let (first, rest) = header.split_first_mut().unwrap();
    keys.header.encrypt_in_place(&payload[..16], first, &mut rest[at - 1..]).unwrap();
    [header, payload].concat()
}
