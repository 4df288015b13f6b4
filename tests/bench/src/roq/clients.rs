//! Many QUIC clients on one socket, driven by one loop over quinn-proto, which is several times cheaper than a task for
//! each, so that the relay is measured.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use evenkeel_dataplane::mmsg::{BATCH, ReceiveBatch};
use evenkeel_media::roq;
use quinn_proto::{ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig, Event};

use super::singly::Singly;
use super::voice::{self, ReceivedVoice, Voice, since};

/// A client's connection parameters and flows.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) relay: SocketAddr,
    /// SHA-256 of the relay's certificate.
    pub(super) certificate_sha256: [u8; 32],
    pub(super) flow_out: roq::FlowId,
    pub(super) flow_in: roq::FlowId,
}

struct Client {
    way: Way,
    handle: ConnectionHandle,
    connection: quinn_proto::Connection,
    connected: bool,
    dirty: bool,
    /// The client's time in the timer heap, if any.
    waits: Option<Instant>,
    sent: u32,
}

pub(super) struct Clients {
    socket: UdpSocket,
    endpoint: Endpoint,
    clients: Vec<Client>,
    /// Client numbers by the endpoint's connection number.
    by_handle: Vec<usize>,
    dirty: Vec<usize>,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    inbox: ReceiveBatch,
    outbox: Singly,
    buffer: Vec<u8>,
    voice: Voice,
    packet: Vec<u8>,
    framed: Vec<u8>,
    turn: usize,
    pub(super) seen: ReceivedVoice,
    pub(super) spoken: u64,
}

impl Clients {
    /// Starts without clients, on this socket.
    ///
    /// # Errors
    /// The recording of packet lengths is incomplete.
    pub(super) fn new(socket: UdpSocket) -> io::Result<Clients> {
        let config = Arc::new(EndpointConfig::default());
        Ok(Clients {
            socket,
            endpoint: Endpoint::new(config, None, false, None),
            clients: Vec::new(),
            by_handle: Vec::new(),
            dirty: Vec::new(),
            timers: BinaryHeap::new(),
            inbox: ReceiveBatch::default(),
            outbox: Singly::default(),
            buffer: Vec::new(),
            voice: Voice::new()?,
            packet: Vec::new(),
            framed: Vec::new(),
            turn: 0,
            seen: ReceivedVoice::default(),
            spoken: 0,
        })
    }

    /// Starts the handshake of another client.
    ///
    /// # Errors
    /// The system refused the connection.
    pub(super) fn join(&mut self, way: Way) -> io::Result<()> {
        let config = evenkeel_lab::client::client_config(way.certificate_sha256);
        let (handle, connection) = self
            .endpoint
            .connect(Instant::now(), config, way.relay, "evenkeel")
            .map_err(io::Error::other)?;
        let number = self.clients.len();
        if self.by_handle.len() <= handle.0 {
            self.by_handle.resize(handle.0 + 1, usize::MAX);
        }
        self.by_handle[handle.0] = number;
        self.clients.push(Client {
            way,
            handle,
            connection,
            connected: false,
            dirty: false,
            waits: None,
            sent: 0,
        });
        self.touch(number);
        Ok(())
    }

    pub(super) fn count(&self) -> usize {
        self.clients.len()
    }

    pub(super) fn connected(&self) -> usize {
        self.clients.iter().filter(|client| client.connected).count()
    }

    /// Sends due packets; `due` is their number since the beginning, of all clients together.
    pub(super) fn speak(&mut self, beginning: Instant, due: u64) {
        while self.spoken < due {
            let number = self.turn;
            self.turn = (self.turn + 1) % self.clients.len();
            self.spoken += 1;
            self.say(number, beginning);
        }
        self.drive();
    }

    /// Sends the next packet of this client.
    pub(super) fn say(&mut self, number: usize, beginning: Instant) {
        let client = &mut self.clients[number];
        self.voice.write(
            number as u32,
            client.sent,
            since(beginning, Instant::now()),
            &mut self.packet,
        );
        client.sent += 1;
        self.framed.clear();
        roq::write_datagram(client.way.flow_out, &self.packet, &mut self.framed);
        // Packets that do not fit are lost and counted as missing.
        let _ = client.connection.datagrams().send(Bytes::copy_from_slice(&self.framed), true);
        self.touch(number);
    }

    /// Reads packets and sends the resulting ones.
    pub(super) fn read(&mut self, beginning: Instant) {
        while let Ok(count) = self.inbox.receive(self.socket.as_fd()) {
            let now = Instant::now();
            for place in 0..count {
                let Some((bytes, source)) = self.inbox.datagram(place) else { continue };
                let data = BytesMut::from(&*bytes);
                self.buffer.clear();
                let event = self.endpoint.handle(now, source, None, None, data, &mut self.buffer);
                if let Some(DatagramEvent::ConnectionEvent(handle, event)) = event {
                    let number = self.by_handle[handle.0];
                    self.clients[number].connection.handle_event(event);
                    self.touch(number);
                    self.hear(number, since(beginning, now));
                }
            }
            if count < BATCH {
                break;
            }
        }
        self.drive();
    }

    /// Serves timers that are due.
    pub(super) fn tick(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((at, number))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
            let client = &mut self.clients[number];
            client.waits = None;
            if client.connection.poll_timeout().is_some_and(|due| due <= now) {
                client.connection.handle_timeout(now);
            }
            self.touch(number);
        }
        self.drive();
    }

    fn hear(&mut self, number: usize, now_ns: u64) {
        let client = &mut self.clients[number];
        while let Some(datagram) = client.connection.datagrams().recv() {
            let Ok((flow, packet)) = roq::read_datagram(&datagram) else { continue };
            if let Some((session, _, sent_ns)) = voice::read(packet) {
                let own = session == number as u32 && flow == client.way.flow_in;
                self.seen.note(number as u32, own, now_ns.saturating_sub(sent_ns));
            }
        }
    }

    fn touch(&mut self, number: usize) {
        let client = &mut self.clients[number];
        if !std::mem::replace(&mut client.dirty, true) {
            self.dirty.push(number);
        }
    }

    fn drive(&mut self) {
        let now = Instant::now();
        while let Some(number) = self.dirty.pop() {
            let client = &mut self.clients[number];
            client.dirty = false;
            while let Some(event) = client.connection.poll() {
                match event {
                    Event::Connected => client.connected = true,
                    Event::ConnectionLost { .. } => client.connected = false,
                    _ => {}
                }
            }
            loop {
                self.buffer.clear();
                let Some(transmit) = client.connection.poll_transmit(now, 1, &mut self.buffer)
                else {
                    break;
                };
                self.outbox.push(transmit.destination, &self.buffer[..transmit.size]);
            }
            while let Some(event) = client.connection.poll_endpoint_events() {
                if let Some(event) = self.endpoint.handle_event(client.handle, event) {
                    client.connection.handle_event(event);
                }
            }
            if let Some(due) = client.connection.poll_timeout()
                && client.waits.is_none_or(|waits| due < waits)
            {
                client.waits = Some(due);
                self.timers.push(Reverse((due, number)));
            }
        }
        if !self.outbox.is_empty() {
            self.outbox.flush(&self.socket);
        }
    }
}
