//! RTP over QUIC: its load generator and its comparison.
//!
//! A packet arrives by QUIC and leaves by UDP; its echo arrives by UDP and leaves by QUIC. This equals quinn's cost to
//! echo one datagram (one in, one out) plus the floor's cost to forward one packet (one in, one out): each of the
//! gateway's socket calls occurs once in that sum. So on rows of both directions `ratio.quinn_echo` is the gateway's
//! cost per round trip (two packets: twice `cpu_ns.ours`) ÷ (quinn's per echoed datagram + the floor's per packet to
//! the node), all three with the same clients, packet rate, voice sizes and one node, in interleaved rounds. On rows of
//! one direction it is null.

mod clients;
mod echo;
mod load;
mod node;
mod rounds;
mod sessions;
mod singly;
mod voice;

pub(crate) use echo::run as echo;
pub(crate) use rounds::measure;

use crate::row::{Direction, Leg, Load, Path, Row};

/// Connections, each with a packet every 20 ms: 20,000 and 50,000 packets a second.
const CONNECTIONS: [usize; 2] = [400, 1_000];
/// Packets per second of each connection.
const RATE: u32 = 50;

/// Rows of all directions (to the node, to the clients, both) on both legs.
pub(crate) fn rows() -> Vec<Row> {
    let ways = [
        (Path::RoqUdp, Direction::ToNode),
        (Path::UdpRoq, Direction::ToClient),
        (Path::RoqUdp, Direction::Both),
    ];
    let mut rows = Vec::new();
    for leg in [Leg::Port, Leg::Trunk] {
        for sessions in CONNECTIONS {
            let load = Load::Paced(RATE * sessions as u32);
            rows.extend(ways.map(|(path, direction)| {
                let base = Row::base(leg);
                Row { path, direction, load, sessions, destinations: 1, ..base }
            }));
        }
    }
    rows
}
