//! The node: answers the gateway, and echoes, drops or sends packets.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use evenkeel_dataplane::mmsg::{BATCH, ReceiveBatch};
use evenkeel_media::demux::{self, DatagramKind};
use evenkeel_media::trunk::message::{
    NodeLoad, NodeSecret, OpenStatus, ServingState, TrunkAnswer, TrunkQuestion,
};
use evenkeel_media::trunk::{self, Bundle, Tag};

use super::singly::Singly;
use super::voice::{self, ReceivedVoice, Voice, since};

/// The destination of a session's packets.
#[derive(Clone, Copy)]
enum Leg {
    Trunk(Tag, SocketAddr),
    Port(SocketAddr),
}

/// A node on one socket.
pub(super) struct Node {
    socket: UdpSocket,
    secret: NodeSecret,
    voice: Voice,
    inbox: ReceiveBatch,
    outbox: Singly,
    /// Legs by session number.
    legs: Vec<Option<Leg>>,
    sent: Vec<u32>,
    /// The session to send to next.
    turn: usize,
    scratch: Vec<u8>,
    framed: Bundle,
    pub(super) echoes: bool,
    pub(super) seen: ReceivedVoice,
    /// Packets of the node's own streams.
    pub(super) spoken: u64,
}

impl Node {
    /// A node on this socket.
    ///
    /// # Errors
    /// The recording of packet lengths is incomplete.
    pub(super) fn new(socket: UdpSocket, secret: NodeSecret, sessions: usize) -> io::Result<Node> {
        Ok(Node {
            socket,
            secret,
            voice: Voice::new()?,
            inbox: ReceiveBatch::default(),
            outbox: Singly::default(),
            legs: vec![None; sessions],
            sent: vec![0; sessions],
            turn: 0,
            scratch: Vec::new(),
            framed: Bundle::new(1_400),
            echoes: false,
            seen: ReceivedVoice::default(),
            spoken: 0,
        })
    }

    /// Reads packets and answers them.
    pub(super) fn read(&mut self, beginning: Instant) {
        while let Ok(count) = self.inbox.receive(self.socket.as_fd()) {
            let now_ns = since(beginning, Instant::now());
            for place in 0..count {
                self.take(place, now_ns);
            }
            self.outbox.flush(&self.socket);
            if count < BATCH {
                return;
            }
        }
    }

    fn take(&mut self, place: usize, now_ns: u64) {
        let Node { inbox, outbox, secret, echoes, legs, seen, scratch, .. } = self;
        let Some((bytes, source)) = inbox.datagram(place) else { return };
        match demux::classify(bytes) {
            DatagramKind::Bundle => {
                for (tag, packet) in trunk::entries(bytes).flatten() {
                    note(legs, seen, packet, Leg::Trunk(tag, source), now_ns);
                }
                if *echoes {
                    outbox.push(source, bytes);
                }
            }
            DatagramKind::Rtp => {
                note(legs, seen, bytes, Leg::Port(source), now_ns);
                if *echoes {
                    outbox.push(source, bytes);
                }
            }
            DatagramKind::Echo => {
                outbox.push(source, bytes);
            }
            DatagramKind::Signed => {
                let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let unix_us = unix.as_micros() as u64;
                let Ok(asked) = TrunkQuestion::read(bytes, secret, unix_us) else { return };
                let load = NodeLoad {
                    permille: 0,
                    state: ServingState::Serving,
                    sessions: 0,
                    vouched: true,
                };
                let answer = match asked.message {
                    TrunkQuestion::Probe => TrunkAnswer::Probe(load),
                    TrunkQuestion::Open { tag, .. } => {
                        TrunkAnswer::Open { tag, status: OpenStatus::Ok }
                    }
                    TrunkQuestion::Close { tag } => {
                        TrunkAnswer::Close { tag, status: OpenStatus::Ok }
                    }
                    TrunkQuestion::Drain => TrunkAnswer::Drain(load),
                    TrunkQuestion::Keep { .. } => TrunkAnswer::Keep { unknown: [].into() },
                    TrunkQuestion::Noted { .. }
                    | TrunkQuestion::Start
                    | TrunkQuestion::Break(_)
                    | TrunkQuestion::Path { .. }
                    | TrunkQuestion::Vote { .. }
                    | TrunkQuestion::Process => return,
                };
                scratch.clear();
                answer.write(secret, asked.nonce, unix_us, scratch);
                outbox.push(source, scratch);
            }
            _ => {}
        }
    }

    /// Sends due packets of the node's own streams; `due` counts those of all sessions since the beginning.
    pub(super) fn speak(&mut self, beginning: Instant, due: u64) {
        while self.spoken < due {
            let session = self.turn;
            self.turn = (self.turn + 1) % self.legs.len();
            self.spoken += 1;
            let Some(leg) = self.legs[session] else { continue };
            let at_ns = since(beginning, Instant::now());
            self.voice.write(session as u32, self.sent[session], at_ns, &mut self.scratch);
            self.sent[session] += 1;
            match leg {
                Leg::Port(source) => self.outbox.push(source, &self.scratch),
                Leg::Trunk(tag, source) => {
                    self.framed.clear();
                    // The bundle is empty, so a voice packet fits.
                    let _fits = self.framed.push(tag, &self.scratch);
                    self.outbox.push(source, self.framed.as_bytes());
                }
            }
        }
        if !self.outbox.is_empty() {
            self.outbox.flush(&self.socket);
        }
    }
}

fn note(legs: &mut [Option<Leg>], seen: &mut ReceivedVoice, bytes: &[u8], leg: Leg, now_ns: u64) {
    let Some((session, _, sent_ns)) = voice::read(bytes) else { return };
    let Some(known) = legs.get_mut(session as usize) else { return };
    let own = match (*known, leg) {
        (None, _) => true,
        (Some(Leg::Trunk(before, _)), Leg::Trunk(now, _)) => before == now,
        (Some(Leg::Port(before)), Leg::Port(now)) => before == now,
        _ => false,
    };
    // The first leg is kept.
    known.get_or_insert(leg);
    seen.note(session, own, now_ns.saturating_sub(sent_ns));
}
