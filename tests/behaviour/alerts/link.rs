//! A link to a node that delays and loses datagrams of both directions.

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Wait for datagrams if none is there.
const IDLE: Duration = Duration::from_micros(500);

const DATAGRAM: usize = 2_048;

/// Forwards datagrams between gateways and a node, which sees another port for each socket of a gateway.
pub(super) struct NodeLink {
    /// The address at which gateways find the node.
    pub(super) address: SocketAddr,
    conditions: Arc<LinkConditions>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct LinkConditions {
    lost_percent: AtomicU32,
    delay_ms: AtomicU32,
    is_ending: AtomicBool,
}

/// A datagram on its way.
struct Delayed {
    at: Instant,
    /// The gateway's socket.
    gateway: SocketAddr,
    is_to_node: bool,
    bytes: Vec<u8>,
}

impl NodeLink {
    /// A link to this node, in the network namespace of this thread.
    pub(super) fn start(node: SocketAddr) -> NodeLink {
        let socket = bind(node);
        let address = socket.local_addr().unwrap();
        let conditions = Arc::<LinkConditions>::default();
        let shared = Arc::clone(&conditions);
        let thread = std::thread::spawn(move || forward(&socket, node, &shared));
        NodeLink { address, conditions, thread: Some(thread) }
    }

    pub(super) fn set(&self, lost_percent: u32, delay: Duration) {
        self.conditions.lost_percent.store(lost_percent, Ordering::Relaxed);
        self.conditions.delay_ms.store(delay.as_millis() as u32, Ordering::Relaxed);
    }
}

impl Drop for NodeLink {
    fn drop(&mut self) {
        self.conditions.is_ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn bind(beside: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((beside.ip(), 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn forward(near: &UdpSocket, node: SocketAddr, conditions: &LinkConditions) {
    let mut far: BTreeMap<SocketAddr, UdpSocket> = BTreeMap::new();
    let (mut late, mut count) = (VecDeque::<Delayed>::new(), 0_u32);
    let mut buffer = [0; DATAGRAM];
    while !conditions.is_ending.load(Ordering::Relaxed) {
        let mut came = Vec::new();
        while let Ok((length, gateway)) = near.recv_from(&mut buffer) {
            far.entry(gateway).or_insert_with(|| bind(node));
            came.push((gateway, true, buffer[..length].to_vec()));
        }
        for (gateway, socket) in &far {
            while let Ok(length) = socket.recv(&mut buffer) {
                came.push((*gateway, false, buffer[..length].to_vec()));
            }
        }
        let is_idle = came.is_empty();
        let delay = Duration::from_millis(conditions.delay_ms.load(Ordering::Relaxed).into());
        for (gateway, is_to_node, bytes) in came {
            count = count.wrapping_add(1);
            // Spreads the losses evenly.
            if count.wrapping_mul(37) % 100 >= conditions.lost_percent.load(Ordering::Relaxed) {
                late.push_back(Delayed { at: Instant::now() + delay, gateway, is_to_node, bytes });
            }
        }
        let now = Instant::now();
        while let Some(Delayed { gateway, is_to_node, bytes, .. }) =
            late.pop_front_if(|next| next.at <= now)
        {
            // A datagram that cannot be sent is lost, as on any link.
            let _lost_at_worst = match is_to_node {
                true => far.get(&gateway).map(|socket| socket.send_to(&bytes, node)),
                false => Some(near.send_to(&bytes, gateway)),
            };
        }
        if is_idle {
            std::thread::park_timeout(IDLE);
        }
    }
}
