//! The behaviour of a sample node.

use std::net::SocketAddr;
use std::time::Instant;

use evenkeel_media::demux::DatagramKind;
use evenkeel_media::trunk::message::NodeSecret;

/// The grouping of port legs, since their packets name no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PlainRoom {
    /// Every source has a separate room and gets its own packets back.
    #[default]
    Alone,
    /// All sources are in one room.
    Shared,
}

/// The payload types of retransmissions in rooms of WebRTC clients.
pub const WEBRTC_RETRANSMISSIONS: [u8; 5] = [97, 99, 107, 109, 46];

/// The behaviour of a sample node. [`SampleNodeOptions::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct SampleNodeOptions {
    /// The listen address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The name of the node in the gateway's `[[node]]`. Test headers get [`number_of`] it.
    pub name: String,
    /// The keys of this node, from its name and the secret shared with the gateway. Without a secret the node refuses
    /// all signed messages, and so has no trunk legs.
    pub secret: Option<NodeSecret>,
    /// Sequence numbers, timestamps and SSRCs pass unchanged. Otherwise each incoming stream is sent with a new SSRC and
    /// with random first sequence number and timestamp.
    pub untouched: bool,
    /// Payload types of retransmissions (RFC 4588). The sequence numbers in their payloads are rewritten too. Default: none.
    pub retransmissions: Vec<u8>,
    /// The node writes its number into the test headers of packets, so that a receiver sees which node carried them.
    /// Default: yes. Without it, two nodes that leave packets untouched deliver identical copies.
    pub stamps: bool,
    /// The room of sessions on port legs. Default: each alone.
    pub plain_room: PlainRoom,
    /// Maximum sessions, port legs included. Default 10,000.
    pub sessions_max: u32,
    /// Signed messages may cut the link of the node.
    pub drills: bool,
    /// Trunk legs are encrypted.
    pub encrypt: bool,
}

impl SampleNodeOptions {
    /// A rewriting node without trunk legs.
    pub fn new(listen: SocketAddr, name: &str) -> Self {
        Self {
            listen,
            name: name.to_owned(),
            secret: None,
            untouched: false,
            retransmissions: Vec::new(),
            stamps: true,
            plain_room: PlainRoom::default(),
            sessions_max: 10_000,
            drills: false,
            encrypt: false,
        }
    }
}

/// Changes the behaviour of a node in tests. The default methods change nothing.
pub trait NodeBehaviour: Send {
    /// Called 20 times a second.
    fn tick(&mut self) {}

    /// The node's clock, microseconds since the Unix epoch.
    fn unix_us(&self, unix_us: u64) -> u64 {
        unix_us
    }

    /// The reported load, thousandths.
    fn load(&mut self, permille: u16, _now: Instant) -> u16 {
        permille
    }

    /// Returns true if a packet of this kind from this session is dropped.
    fn drops(&mut self, _session: u64, _kind: DatagramKind) -> bool {
        false
    }
}

impl NodeBehaviour for () {}

/// The number that a node of this name writes into test headers: the first four bytes of the name's SHA-256, never 0.
pub fn number_of(name: &str) -> u32 {
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    digest.as_ref().first_chunk().map_or(1, |first| u32::from_be_bytes(*first).max(1))
}
