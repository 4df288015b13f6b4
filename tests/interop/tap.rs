//! A relay between a client program and the gateway, which records all packets. The gateway sees the relay's address.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use evenkeel_contract::offers::UdpAnswer;
use evenkeel_media::demux::{DatagramKind, classify};
use evenkeel_media::{rtcp, rtp};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use evenkeel_testkit::TIMEOUT;

/// Poll timeout of an idle tap.
const POLL_MS: u16 = 50;
const DATAGRAM: usize = 65_535;
/// The SSRC of the tap's own report.
const SSRC: u32 = 0x7a90;

/// The program's addresses for packets of one payload type and its RTCP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProgramAddresses {
    pub(crate) payload_type: u8,
    pub(crate) rtp: SocketAddr,
    pub(crate) rtcp: SocketAddr,
}

#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) at: Instant,
    pub(crate) header: rtp::RtpHeader,
    pub(crate) payload: Box<[u8]>,
}

/// A PLI or FIR from the gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyFrameRequest {
    pub(crate) at: Instant,
    pub(crate) ssrc: u32,
}

#[derive(Default)]
pub(crate) struct Books {
    /// RTP packets from the program, in order.
    pub(crate) sent: Vec<Packet>,
    /// RTP packets from the gateway, in order.
    pub(crate) came: Vec<Packet>,
    /// Those of them that the network loses on their way to the program.
    pub(crate) lost: u64,
    pub(crate) key_frame_requests: Vec<KeyFrameRequest>,
    /// Sender reports from the gateway.
    pub(crate) sender_reports: usize,
    /// RTCP packets from the program.
    pub(crate) feedback_sent: usize,
    /// Times of the program's own requests for key frames.
    pub(crate) key_frames_asked: Vec<Instant>,
    /// Packets that are neither RTP nor RTCP, or that come from another source than the gateway.
    pub(crate) strange: usize,
}

/// A client's sockets before the tap relays.
pub(crate) struct Tap {
    outside: UdpSocket,
    outside_rtcp: UdpSocket,
    inside: UdpSocket,
    /// The network loses one of this many packets of RTP to the program; 0: none.
    lost_each: u64,
}

#[derive(Default)]
struct Shared {
    books: Mutex<Books>,
    /// Signals new entries.
    more: Condvar,
}

/// A relaying tap, ended on drop.
pub(crate) struct Running {
    shared: Arc<Shared>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Line {
    tap: Tap,
    gateway: SocketAddr,
    gateway_rtcp: Option<SocketAddr>,
    lanes: Vec<ProgramAddresses>,
    shared: Arc<Shared>,
}

impl Tap {
    pub(crate) fn bind() -> Tap {
        let socket = || {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a port");
            socket.set_nonblocking(true).expect("a socket may be non-blocking");
            socket
        };
        Tap { outside: socket(), outside_rtcp: socket(), inside: socket(), lost_each: 0 }
    }

    /// Loses one of this many packets of RTP to the program.
    pub(crate) fn losing_each(self, lost_each: u64) -> Tap {
        Tap { lost_each, ..self }
    }

    /// The source of the client's RTP, and of muxed RTCP.
    pub(crate) fn rtp(&self) -> SocketAddr {
        address(&self.outside)
    }

    /// The source of RTCP that is not muxed.
    pub(crate) fn rtcp(&self) -> SocketAddr {
        address(&self.outside_rtcp)
    }

    /// The address to which the program sends everything.
    pub(crate) fn inside(&self) -> SocketAddr {
        address(&self.inside)
    }

    /// Starts to relay.
    pub(crate) fn run(self, gateway: &UdpAnswer, lanes: Vec<ProgramAddresses>) -> Running {
        let shared = Arc::<Shared>::default();
        let ending = Arc::<AtomicBool>::default();
        let line = Line {
            tap: self,
            gateway: gateway.addresses[0],
            gateway_rtcp: gateway.rtcp.first().copied(),
            lanes,
            shared: Arc::clone(&shared),
        };
        let end = Arc::clone(&ending);
        let thread = std::thread::spawn(move || line.run(&end));
        Running { shared, ending, thread: Some(thread) }
    }
}

impl Running {
    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.shared.open()
    }

    /// Waits until the condition holds.
    pub(crate) fn wait_for(&self, what: &str, holds: impl Fn(&Books) -> bool) {
        let not_yet = |books: &mut Books| !holds(books);
        let waited = self.shared.more.wait_timeout_while(self.books(), TIMEOUT, not_yet);
        let (books, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        let Books { sent, came, sender_reports, feedback_sent, strange, .. } = &*books;
        assert!(
            !waited.timed_out(),
            "no {what} in time: {} packets out, {} in, {sender_reports} sender reports in, {feedback_sent} RTCP \
             out, {strange} strange",
            sent.len(),
            came.len(),
        );
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

impl Line {
    fn run(&self, ending: &AtomicBool) {
        let Tap { outside, outside_rtcp, inside, .. } = &self.tap;
        // The gateway sends nothing to a declared address before a packet came from there.
        let mut report = Vec::new();
        rtcp::write_receiver_report(SSRC, &[], &mut report);
        send(outside, &report, self.gateway);
        let mut datagram = vec![0; DATAGRAM];
        while !ending.load(Ordering::Relaxed) {
            let mut ready =
                [outside, outside_rtcp, inside].map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN));
            poll(&mut ready, PollTimeout::from(POLL_MS)).expect("sockets can be polled");
            while let Some((length, _)) = receive(inside, &mut datagram) {
                self.handle_inside(&datagram[..length]);
            }
            while let Some((length, source)) = receive(outside, &mut datagram) {
                self.handle_outside(&datagram[..length], source, Some(self.gateway));
            }
            while let Some((length, source)) = receive(outside_rtcp, &mut datagram) {
                self.handle_outside(&datagram[..length], source, self.gateway_rtcp);
            }
            self.shared.more.notify_all();
        }
    }

    fn handle_inside(&self, datagram: &[u8]) {
        let mut books = self.shared.open();
        match (classify(datagram), self.gateway_rtcp) {
            (DatagramKind::Rtp, _) => {
                books.sent.extend(packet(datagram));
                send(&self.tap.outside, datagram, self.gateway);
            }
            (DatagramKind::Rtcp, rtcp) => {
                books.feedback_sent += 1;
                if asks_for_key_frame(datagram) {
                    books.key_frames_asked.push(Instant::now());
                }
                match rtcp {
                    Some(rtcp) => send(&self.tap.outside_rtcp, datagram, rtcp),
                    None => send(&self.tap.outside, datagram, self.gateway),
                }
            }
            _ => books.strange += 1,
        }
    }

    fn handle_outside(&self, datagram: &[u8], source: SocketAddr, gateway: Option<SocketAddr>) {
        let mut books = self.shared.open();
        match classify(datagram) {
            _ if Some(source) != gateway => books.strange += 1,
            DatagramKind::Rtp => {
                let Some(packet) = packet(datagram) else { return books.strange += 1 };
                let is_its =
                    |lane: &&ProgramAddresses| lane.payload_type == packet.header.payload_type;
                let count = books.came.len() as u64 + 1;
                match self.lanes.iter().find(is_its) {
                    Some(_) if count.is_multiple_of(self.tap.lost_each) => books.lost += 1,
                    Some(lane) => send(&self.tap.inside, datagram, lane.rtp),
                    None => books.strange += 1,
                }
                books.came.push(packet);
            }
            DatagramKind::Rtcp => {
                note_feedback(&mut books, datagram);
                for lane in &self.lanes {
                    send(&self.tap.inside, datagram, lane.rtcp);
                }
            }
            _ => books.strange += 1,
        }
    }
}

fn note_feedback(books: &mut Books, compound: &[u8]) {
    let at = Instant::now();
    for packet in rtcp::packets(compound) {
        match packet {
            Ok(rtcp::RtcpPacket::Pli(pli)) => {
                books.key_frame_requests.push(KeyFrameRequest { at, ssrc: pli.media });
            }
            Ok(rtcp::RtcpPacket::Fir(fir)) => books
                .key_frame_requests
                .extend(fir.entries().map(|entry| KeyFrameRequest { at, ssrc: entry.media })),
            Ok(rtcp::RtcpPacket::SenderReport(_)) => books.sender_reports += 1,
            Ok(_) => {}
            Err(_) => books.strange += 1,
        }
    }
}

fn asks_for_key_frame(compound: &[u8]) -> bool {
    let mut packets = rtcp::packets(compound);
    packets.any(|packet| matches!(packet, Ok(rtcp::RtcpPacket::Pli(_) | rtcp::RtcpPacket::Fir(_))))
}

fn packet(datagram: &[u8]) -> Option<Packet> {
    let header = rtp::RtpHeader::parse(datagram).ok()?;
    let payload = datagram[header.payload_offset..header.payload_end].into();
    Some(Packet { at: Instant::now(), header, payload })
}

/// The next queued datagram. Errors of earlier sends to an ended program are ignored.
fn receive(socket: &UdpSocket, datagram: &mut [u8]) -> Option<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(datagram) {
            Ok(came) => return Some(came),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            Err(error) => panic!("a tap cannot read: {error}"),
        }
    }
}

fn send(socket: &UdpSocket, datagram: &[u8], to: SocketAddr) {
    // A program that has ended receives nothing, as on any network.
    let _gone = socket.send_to(datagram, to);
}

fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("a bound socket has an address")
}
