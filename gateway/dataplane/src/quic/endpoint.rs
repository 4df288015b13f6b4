//! The endpoint: reads what came from clients and workers, drives quinn's state machines, sends what they want sent.
//!
//! quinn-proto under a loop of ours, not quinn's tasks: with a task, a queue and three locks for each connection, waking
//! up costs more than QUIC does (`docs/benchmarks.md`).

mod accept;
mod from_clients;
mod to_clients;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use evenkeel_media::roq;
use quinn_proto::{ConnectionHandle, EndpointConfig, Transmit};

use super::Settings;
use super::connections::Lines;
use super::counters::count;
use super::hub::Hub;
use super::round::Round;
use super::socket::{From, Sent, Socket};
use crate::ring;

pub(super) struct Endpoint {
    quinn: quinn_proto::Endpoint,
    socket: Socket,
    lines: Lines,
    hub: Hub,
    rings: Vec<ring::Receiver>,
    settings: Settings,
    round: Round,
    /// Datagrams read that have not had their turn.
    received: VecDeque<(From, BytesMut)>,
    /// What quinn writes a packet into.
    packet: Vec<u8>,
    /// What the kernel had no room for, and what it was; nothing else is sent before it.
    blocked: Option<(Transmit, Vec<u8>)>,
    framed: Vec<u8>,
}

/// What a look brought.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Look {
    /// Datagrams of clients and packets of workers.
    pub(super) packets: usize,
    /// There may be more.
    pub(super) more: bool,
}

impl Endpoint {
    pub(super) fn new(
        config: quinn_proto::ServerConfig,
        socket: Socket,
        settings: Settings,
        hub: Hub,
        rings: Vec<ring::Receiver>,
    ) -> Endpoint {
        let own = Arc::new(EndpointConfig::default());
        // Without it nothing is learned of a path's MTU: what is split on its way always arrives.
        let discovers_mtu = !socket.may_fragment();
        Endpoint {
            quinn: quinn_proto::Endpoint::new(own, Some(Arc::new(config)), discovers_mtu, None),
            socket,
            lines: Lines::default(),
            hub,
            rings,
            round: Round::new(settings.feedback_every, Instant::now()),
            settings,
            received: VecDeque::new(),
            packet: Vec::new(),
            blocked: None,
            framed: Vec::new(),
        }
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(super) fn rings(&self) -> &[ring::Receiver] {
        &self.rings
    }

    /// Whether it waits for the kernel to have room.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// When something is to be done though nothing comes.
    pub(super) fn next_due(&mut self) -> Instant {
        let round = self.round.due();
        self.lines.next_due().map_or(round, |due| due.min(round))
    }

    /// Whether all connections are over, and their clients have heard of it or cannot.
    pub(super) fn is_idle(&self) -> bool {
        self.lines.is_empty()
    }

    /// Takes what has come, does what is due, and sends what that makes necessary.
    pub(super) fn turn(&mut self, now: Instant) -> Look {
        let from_clients = self.read_socket(now);
        let from_workers = self.read_rings(now);
        while let Some(handle) = self.lines.take_due(now) {
            if let Some(line) = self.lines.get_mut(handle) {
                line.handle_timeout(now, &mut self.hub);
            }
            self.lines.touch(handle);
        }
        self.drive(now);
        self.hub.wake_workers();
        Look {
            packets: from_clients.packets + from_workers.packets,
            more: from_clients.more || from_workers.more,
        }
    }

    /// If it is time: looks after a share of the sessions, and once in a round closes connections without one.
    pub(super) fn look_round(&mut self, now: Instant) {
        if now < self.round.due() {
            return;
        }
        let Endpoint { hub, lines, settings, round, .. } = self;
        if round.is_over() {
            round.begin(hub.homes(), now);
            for handle in hub.flowless(settings.flowless_after, now) {
                if let Some(line) = lines.get_mut(handle) {
                    count(&hub.counters.flowless);
                    line.close(roq::ErrorCode::General, b"no flow of a session", now, hub);
                }
                lines.touch(handle);
            }
        }
        for home in round.share() {
            hub.look_after(*home, now, |handle| lines.get_mut(handle).map(|line| line.path()));
        }
    }

    /// Takes no new clients, and tells those there are.
    pub(super) fn close(&mut self, now: Instant) {
        self.quinn.set_server_config(None);
        for handle in self.lines.handles() {
            if let Some(line) = self.lines.get_mut(handle) {
                let why = b"the gateway is shutting down";
                line.close(roq::ErrorCode::NoError, why, now, &mut self.hub);
            }
            self.lines.touch(handle);
        }
        self.drive(now);
    }

    /// Looks after every connection that something happened on, while the kernel takes what they send.
    fn drive(&mut self, now: Instant) {
        if let Some((transmit, bytes)) = self.blocked.take()
            && self.socket.send(&transmit, &bytes) == Sent::Blocked
        {
            self.blocked = Some((transmit, bytes));
            return;
        }
        while let Some(handle) = self.lines.next_touched() {
            if self.settle(handle, now) {
                self.lines.remove(handle);
                continue;
            }
            if !self.transmit(handle, now) {
                self.lines.touch_first(handle);
                return;
            }
            self.lines.schedule(handle);
        }
    }

    /// Passes on what quinn tells of a connection. Whether it may be forgotten.
    fn settle(&mut self, handle: ConnectionHandle, now: Instant) -> bool {
        let Some(line) = self.lines.get_mut(handle) else { return true };
        line.handle_events(now, &mut self.hub);
        // What came with the end of the handshake.
        line.read_datagrams(now, &mut self.hub);
        while let Some(event) = line.connection.poll_endpoint_events() {
            let drained = event.is_drained();
            let answer = self.quinn.handle_event(handle, event);
            if drained {
                line.forgotten(&mut self.hub);
                return true;
            }
            if let Some(answer) = answer {
                line.connection.handle_event(answer);
            }
        }
        false
    }

    /// Sends all that a connection has to send. Whether the kernel had room for it.
    fn transmit(&mut self, handle: ConnectionHandle, now: Instant) -> bool {
        let Some(line) = self.lines.get_mut(handle) else { return true };
        let segments = self.socket.segments_max();
        loop {
            self.packet.clear();
            let Some(transmit) = line.connection.poll_transmit(now, segments, &mut self.packet)
            else {
                return true;
            };
            line.count_sent(&self.hub.counters);
            if self.socket.send(&transmit, &self.packet) == Sent::Blocked {
                self.blocked = Some((transmit, std::mem::take(&mut self.packet)));
                return false;
            }
        }
    }
}
