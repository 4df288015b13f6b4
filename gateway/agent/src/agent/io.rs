//! The time and the side effects of the state machine.

use std::net::SocketAddr;
use std::time::Instant;

use evenkeel_media::trunk::message::{NodeFault, ProcessReport};

use crate::sessions::SessionSlot;

/// Monotonic time and wall time, read once per batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchTime {
    pub(crate) instant: Instant,
    /// Microseconds since the Unix epoch; never decreases.
    pub(crate) unix_us: u64,
}

/// Side effects of the agent.
pub(crate) trait Io {
    fn send(&mut self, to: SocketAddr, datagram: &[u8]);
    /// Forwards a session's packet to the server. Returns whether the socket took the packet.
    fn forward(&mut self, slot: SessionSlot, kind: MediaPacket, packet: &[u8]) -> bool;
    fn open(&mut self, slot: SessionSlot, room: u64, session: u64) -> OpeningState;
    fn close(&mut self, slot: SessionSlot);
    /// Starts the server. Returns whether the agent has a way to start it.
    fn start(&mut self, now: Instant) -> bool;
    /// Kills, stops or wakes the server's process. Returns whether it is running.
    fn signal(&mut self, how: NodeFault) -> bool;
    /// Memory and age of the server's process, while it runs.
    fn process_report(&self) -> Option<ProcessReport>;
    fn log(&mut self, line: &str);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OpeningState {
    Open,
    /// A command is running; [`handle_opened`](super::AgentMachine::handle_opened) gets its result.
    Pending,
    Failed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MediaPacket {
    Rtp,
    Rtcp,
}
