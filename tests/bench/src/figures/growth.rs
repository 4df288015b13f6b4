//! The cost of a packet among 100,000 sessions divided by that among 1,000: processor time at one packet rate.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};

use super::crowd::{CLIENT_PORT, Crowd, Listener, client};
use super::{median, packet};
use crate::process::Metered;
use crate::relay::Places;

const FEW: u32 = 1_000;
const MANY: u32 = 100_000;

/// Packets a second, of all sessions in turn.
const RATE: u64 = 50_000;

/// Length of a window, in which each of `MANY` sessions sends twice.
const WINDOW: Duration = Duration::from_secs(4);

const ROUNDS: usize = 3;

/// Packets that leave together.
const BURST: u64 = 10;

/// # Errors
/// A measurement failed.
pub(crate) fn measure(places: &Places) -> Result<f64, String> {
    let mut crowds = Vec::new();
    for (name, sessions) in [("few", FEW), ("many", MANY)] {
        let mut crowd = Crowd::start(name, Listener::Declared, places)?;
        crowd.grow(sessions)?;
        crowds.push((Phones::new(sessions, crowd.udp)?, crowd));
    }
    let mut costs = [Vec::new(), Vec::new()];
    for round in 0..=ROUNDS {
        for ((phones, crowd), costs) in crowds.iter_mut().zip(&mut costs) {
            let (before, packets) = (crowd.process.processor_ns(), crowd.agents.packets());
            let sent = phones.talk()?;
            let came = crowd.agents.packets() - packets;
            let cost = (crowd.process.processor_ns() - before) as f64 / came.max(1) as f64;
            if came * 100 < sent * 99 {
                println!("growth: of {sent} packets {came} arrived");
            }
            crowd.process.must_run()?;
            // The first round warms up.
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    let [few, many] = costs.map(median);
    println!("growth: {few:.0} ns a packet among {FEW} sessions, {many:.0} among {MANY}");
    Ok(many / few)
}

/// Clients on one socket, distinguished by source address.
struct Phones {
    socket: UdpSocket,
    gateway: SockaddrIn,
    sessions: u32,
    next: u32,
    sequence: u16,
}

impl Phones {
    fn new(sessions: u32, gateway: SocketAddr) -> Result<Phones, String> {
        let SocketAddr::V4(gateway) = gateway else {
            return Err(format!("the gateway is at {gateway}"));
        };
        // Two sockets share the port: each belongs to one gateway's clients, which get no answers.
        let socket = socket().map_err(|error| format!("clients have no socket: {error}"))?;
        let gateway = SockaddrIn::from(SocketAddrV4::new(*gateway.ip(), gateway.port()));
        Ok(Phones { socket, gateway, sessions, next: 0, sequence: 0 })
    }

    /// Sends from every session in turn for one window, and returns the number of packets.
    fn talk(&mut self) -> Result<u64, String> {
        let began = Instant::now();
        let mut sent = 0;
        while began.elapsed() < WINDOW {
            let due = began.elapsed().as_micros() as u64 * RATE / 1_000_000;
            while sent < due {
                self.say().map_err(|errno| format!("clients cannot send: {errno}"))?;
                sent += 1;
            }
            std::thread::sleep(Duration::from_micros(BURST * 1_000_000 / RATE));
        }
        Ok(sent)
    }

    fn say(&mut self) -> nix::Result<()> {
        let source = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr { s_addr: client(self.next).to_bits().to_be() },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let packet = packet(self.next, self.sequence);
        sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(&packet)],
            &[ControlMessage::Ipv4PacketInfo(&source)],
            MsgFlags::empty(),
            Some(&self.gateway),
        )?;
        self.next += 1;
        if self.next == self.sessions {
            self.next = 0;
            self.sequence = self.sequence.wrapping_add(1);
        }
        Ok(())
    }
}

fn socket() -> nix::Result<UdpSocket> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, bind, setsockopt, socket, sockopt};
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::empty(), None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT);
    bind(socket.as_raw_fd(), &SockaddrIn::from(any))?;
    Ok(socket.into())
}
