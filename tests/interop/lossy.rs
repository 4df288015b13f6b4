//! A path between the gateway and a node that loses media.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use evenkeel_media::demux::{self, DatagramKind};

/// Each datagram with media of this number is lost: 3 %.
const LOST: u64 = 33;
/// Longest wait for a datagram, and so for the end.
const NAP: Duration = Duration::from_millis(50);

/// A path to a node: the gateway sends to its address. It loses nothing at first, and probes and orders never. Ends when dropped.
pub(crate) struct LossyPath {
    pub(crate) address: SocketAddr,
    state: Arc<PathState>,
}

#[derive(Default)]
struct PathState {
    loses: AtomicBool,
    lost: AtomicU64,
    has_ended: AtomicBool,
}

impl LossyPath {
    pub(crate) fn to(node: SocketAddr) -> LossyPath {
        let near = socket();
        let address = near.local_addr().expect("it is bound");
        let state = Arc::<PathState>::default();
        let path = LossyPath { address, state: Arc::clone(&state) };
        std::thread::spawn(move || {
            // A socket for each of the gateway's.
            let mut far: HashMap<SocketAddr, UdpSocket> = HashMap::new();
            state.receive(&near, |datagram, gateway| {
                let far = far.entry(gateway).or_insert_with(|| {
                    let (far, near) = (socket(), near.try_clone().expect("a descriptor"));
                    far.connect(node).expect("the node has an address");
                    let from_node = far.try_clone().expect("a descriptor");
                    let state = Arc::clone(&state);
                    std::thread::spawn(move || state.pass_on(&from_node, &near, gateway));
                    far
                });
                // A node that is gone refuses.
                let _lost_at_worst = far.send(datagram);
            });
        });
        path
    }

    /// Loses media from the node from now on.
    pub(crate) fn begin_to_lose(&self) {
        self.state.loses.store(true, Ordering::Relaxed);
    }

    /// The number of datagrams that were lost.
    pub(crate) fn lost(&self) -> u64 {
        self.state.lost.load(Ordering::Relaxed)
    }
}

impl Drop for LossyPath {
    fn drop(&mut self) {
        self.state.has_ended.store(true, Ordering::Relaxed);
    }
}

impl PathState {
    fn pass_on(&self, from_node: &UdpSocket, near: &UdpSocket, gateway: SocketAddr) {
        let mut media: u64 = 0;
        self.receive(from_node, |datagram, _| {
            let kind = demux::classify(datagram);
            // The leg's own repair is lost as well: the clients have to repair.
            if kind == DatagramKind::TrunkRepair {
                return;
            }
            let may_be_lost = kind == DatagramKind::Bundle && self.loses.load(Ordering::Relaxed);
            media += u64::from(may_be_lost);
            if may_be_lost && media.is_multiple_of(LOST) {
                self.lost.fetch_add(1, Ordering::Relaxed);
            } else {
                let _lost_at_worst = near.send_to(datagram, gateway);
            }
        });
    }

    /// Passes datagrams and their sources to `each` until the end.
    fn receive(&self, socket: &UdpSocket, mut each: impl FnMut(&[u8], SocketAddr)) {
        let mut buffer = vec![0; 65_536];
        while !self.has_ended.load(Ordering::Relaxed) {
            match socket.recv_from(&mut buffer) {
                Ok((length, source)) => each(&buffer[..length], source),
                // Also an ICMP error of an earlier datagram.
                Err(error) => assert!(
                    matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::TimedOut
                            | io::ErrorKind::ConnectionRefused
                    ),
                    "{error}"
                ),
            }
        }
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has a port");
    socket.set_read_timeout(Some(NAP)).expect("it is not zero");
    socket
}
