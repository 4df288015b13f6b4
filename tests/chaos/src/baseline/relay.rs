//! A UDP relay with a health check every 5 s, the setup without media-level detection.
//!
//! Each client is bound to a healthy node, round robin, and unbound when a check fails; its next packet binds it anew.
//! This is the best case: a client that has to detect the failure and reopen its session takes longer.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use clap::Args;
use evenkeel_lab::datagrams::DatagramInbox;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// Period of health checks.
const CHECKS_EVERY: Duration = Duration::from_secs(5);
/// A node without an answer by then is down until it answers a later check.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// The first byte of a packet that nodes echo.
const ECHO: u8 = 0xe2;
const DATAGRAM: usize = 9_216;
const BATCH: usize = 64;
const EVENTS: usize = 64;
const NAP_MS: u8 = 20;
/// The listener's place in the readiness list.
const NEAR: u64 = u64::MAX;

/// A relay.
#[derive(Args)]
pub(crate) struct Relay {
    /// Its nodes
    #[arg(long, value_delimiter = ',')]
    nodes: Vec<SocketAddr>,
}

struct World {
    near: UdpSocket,
    epoll: Epoll,
    nodes: Vec<Node>,
    by_client: HashMap<SocketAddr, u64>,
    flows: HashMap<u64, Flow>,
    flows_ever: u64,
}

struct Node {
    address: SocketAddr,
    check: UdpSocket,
    healthy: bool,
}

struct Flow {
    client: SocketAddr,
    node: usize,
    far: UdpSocket,
}

impl Relay {
    pub(crate) fn act(self) -> Result<(), String> {
        self.run().map_err(|error| format!("the relay ended: {error}"))
    }

    fn run(self) -> io::Result<()> {
        let near = open()?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&near, EpollEvent::new(EpollFlags::EPOLLIN, NEAR))?;
        writeln!(io::stdout(), "{}", serde_json::json!({"listening": near.local_addr()?}))?;
        let nodes = self.nodes.into_iter().map(|address| {
            let check = open()?;
            check.connect(address)?;
            Ok(Node { address, check, healthy: true })
        });
        let nodes = nodes.collect::<io::Result<_>>()?;
        let (by_client, flows) = (HashMap::new(), HashMap::new());
        World { near, epoll, nodes, by_client, flows, flows_ever: 0 }.serve()
    }
}

impl World {
    fn serve(&mut self) -> io::Result<()> {
        let mut inbox = DatagramInbox::new(DATAGRAM, BATCH);
        let mut events = [EpollEvent::empty(); EVENTS];
        let mut check_at = Instant::now() + CHECKS_EVERY;
        let mut judge_at = None;
        loop {
            let ready = self.epoll.wait(&mut events, EpollTimeout::from(NAP_MS)).unwrap_or(0);
            for event in &events[..ready] {
                match event.data() {
                    NEAR => self.read_near(&mut inbox)?,
                    flow => self.read_far(flow, &mut inbox),
                }
            }
            let now = Instant::now();
            if now >= check_at {
                check_at += CHECKS_EVERY;
                judge_at = Some(now + ANSWER_WITHIN);
                for node in &self.nodes {
                    // Answers to an earlier check are discarded.
                    while node.check.recv(&mut [0; 16]).is_ok() {}
                    let _refused = node.check.send(&[ECHO, 0]);
                }
            }
            if judge_at.is_some_and(|at| now >= at) {
                judge_at = None;
                self.judge();
            }
        }
    }

    fn judge(&mut self) {
        for (place, node) in self.nodes.iter_mut().enumerate() {
            node.healthy = node.check.recv(&mut [0; 16]).is_ok();
            if !node.healthy {
                self.flows.retain(|_, flow| flow.node != place);
            }
        }
        self.by_client.retain(|_, flow| self.flows.contains_key(flow));
    }

    fn read_near(&mut self, inbox: &mut DatagramInbox) -> io::Result<()> {
        if inbox.receive(&self.near).is_err() {
            return Ok(());
        }
        for datagram in inbox.iter() {
            if let Some(flow) = self.flow(datagram.source)? {
                let _lost_at_worst = self.flows[&flow].far.send(datagram.bytes);
            }
        }
        Ok(())
    }

    fn read_far(&mut self, flow: u64, inbox: &mut DatagramInbox) {
        let Some(flow) = self.flows.get(&flow) else { return };
        if inbox.receive(&flow.far).is_ok() {
            for datagram in inbox.iter() {
                let _lost_at_worst = self.near.send_to(datagram.bytes, flow.client);
            }
        }
    }

    /// The flow of a client, bound to the next healthy node if it has none.
    fn flow(&mut self, client: SocketAddr) -> io::Result<Option<u64>> {
        if let Some(&known) = self.by_client.get(&client) {
            return Ok(Some(known));
        }
        let number = self.flows_ever;
        let places = (0..self.nodes.len()).map(|i| (i + number as usize) % self.nodes.len());
        let Some(node) = places.into_iter().find(|&place| self.nodes[place].healthy) else {
            return Ok(None);
        };
        let far = open()?;
        far.connect(self.nodes[node].address)?;
        self.epoll.add(&far, EpollEvent::new(EpollFlags::EPOLLIN, number))?;
        self.flows_ever += 1;
        self.flows.insert(number, Flow { client, node, far });
        self.by_client.insert(client, number);
        Ok(Some(number))
    }
}

fn open() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
