//! RTP over QUIC: what drives it, and what it is compared with.
//!
//! A packet comes in by QUIC and leaves by UDP; its echo comes in by UDP and leaves by QUIC. That is as much as quinn pays
//! to echo one datagram (one in, one out) and the floor to forward one packet (one in, one out): each socket call of ours
//! is in that sum once. So on rows of both directions `ratio.quinn_echo` is ours per round trip (two packets: twice
//! `cpu_ns.ours`) ÷ (quinn's echo per datagram echoed + the floor per packet to the node), all three with as many
//! clients, packets a second, voice sizes and one node, in interleaved rounds. On rows of one direction it is null.

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
/// Packets a second of each.
const RATE: u32 = 50;

/// To the node, to the clients, and there and back; on both legs.
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
