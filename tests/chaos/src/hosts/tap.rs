//! Media packets that reach a host, with the kernel's receive times.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use evenkeel_lab::TestHeader;
use evenkeel_lab::network::Host;
use evenkeel_media::demux::{self, DatagramKind};
use evenkeel_media::{rtp, trunk};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, MultiHeaders, SockFlag, SockProtocol, SockType,
    recvmmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeSpec, TimeVal};

/// Frames per system call.
const BATCH: usize = 64;
/// The largest frame.
const FRAME: usize = 2_048;
const BUFFER: usize = 32 * 1_024 * 1_024;
/// Wait for further frames after a batch that is not full: the kernel stamps them, and each wake-up costs the senders.
const GATHER: Duration = Duration::from_millis(5);
/// The end of the tap is noticed within this time.
const NAP_US: i64 = 50_000;

/// A media packet that passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Passed {
    /// The sender, from the test header.
    session: u64,
    /// Nanoseconds since the Unix epoch.
    at_ns: u64,
}

type Passing = Arc<Mutex<Vec<Passed>>>;

/// Records packets until it is dropped.
pub(super) struct Tap {
    passing: Passing,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    /// Records the media that reaches this host in IPv4, on trunk legs without encryption and on port legs.
    pub(super) fn open(host: &Host) -> Result<Tap, String> {
        let _inside = host.enter()?;
        let socket = listen().map_err(|errno| format!("no packet socket: {errno}"))?;
        let (passing, ending) = (Passing::default(), Arc::<AtomicBool>::default());
        let (theirs, ends) = (Arc::clone(&passing), Arc::clone(&ending));
        let thread = std::thread::spawn(move || {
            let mut frames = vec![0; BATCH * FRAME];
            while !ends.load(Ordering::Relaxed) {
                if read(&socket, &mut frames, &theirs) < BATCH {
                    std::thread::sleep(GATHER);
                }
            }
        });
        Ok(Tap { passing, ending, thread: Some(thread) })
    }

    pub(super) fn take(&self) -> Vec<Passed> {
        std::mem::take(&mut *self.passing.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// A socket for incoming frames with IPv4. Frames that the host sends are not among them.
fn listen() -> nix::Result<OwnedFd> {
    let protocol = SockProtocol::EthIp;
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, NAP_US))?;
    Ok(socket)
}

/// Reads one batch of frames, or none after a timeout. Returns the number of frames.
fn read(socket: &OwnedFd, frames: &mut [u8], passing: &Passing) -> usize {
    let mut stamps = Vec::with_capacity(BATCH);
    {
        let mut headers = MultiHeaders::<()>::preallocate(BATCH, Some(nix::cmsg_space!(TimeSpec)));
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            frames.chunks_exact_mut(FRAME).map(|frame| [IoSliceMut::new(frame)]).collect();
        let (socket, flags) = (socket.as_raw_fd(), MsgFlags::MSG_WAITFORONE);
        match recvmmsg(socket, &mut headers, slices.iter_mut(), flags, None) {
            Ok(messages) => stamps.extend(messages.map(|message| {
                let stamp = message
                    .cmsgs()
                    .ok()
                    .and_then(|mut all| all.find_map(|control| stamp_ns(&control)));
                (message.bytes, stamp.unwrap_or(0))
            })),
            // A timeout, or the interface has gone.
            Err(_) => return 0,
        }
    }
    let read = stamps.len();
    let mut passing = passing.lock().unwrap_or_else(PoisonError::into_inner);
    for ((length, at_ns), frame) in stamps.into_iter().zip(frames.chunks_exact(FRAME)) {
        let Some(datagram) = datagram(&frame[..length.min(FRAME)]) else { continue };
        senders(datagram, |session| passing.push(Passed { session, at_ns }));
    }
    read
}

fn stamp_ns(control: &ControlMessageOwned) -> Option<u64> {
    let ControlMessageOwned::ScmTimestampns(time) = control else { return None };
    let seconds = u64::try_from(time.tv_sec()).ok()?;
    Some(seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).ok()?)
}

/// The UDP payload of an Ethernet frame with IPv4.
fn datagram(frame: &[u8]) -> Option<&[u8]> {
    let ip = frame.get(14..)?;
    let (first, protocol) = (*ip.first()?, *ip.get(9)?);
    let udp = ip.get(4 * usize::from(first & 0x0f)..).filter(|_| protocol == 17)?;
    let length = u16::from_be_bytes([*udp.get(4)?, *udp.get(5)?]);
    udp.get(8..usize::from(length))
}

/// The sessions of the media packets in a datagram.
fn senders(datagram: &[u8], mut found: impl FnMut(u64)) {
    let mut of_packet = |packet: &[u8]| {
        let header = rtp::RtpHeader::parse(packet).ok();
        let mark = header.and_then(|header| TestHeader::read(header.payload(packet)));
        mark.into_iter().for_each(|mark| found(mark.session));
    };
    match demux::classify(datagram) {
        DatagramKind::Rtp => of_packet(datagram),
        DatagramKind::Bundle => {
            let packets = trunk::entries(datagram).map_while(Result::ok).map(|(_, packet)| packet);
            packets
                .filter(|packet| demux::classify(packet) == DatagramKind::Rtp)
                .for_each(of_packet);
        }
        _ => {}
    }
}

/// The longest pause of each session between these times, nanoseconds. The end of the span ends the last pause.
pub(crate) fn longest_pauses(passed: &[Passed], from_ns: u64, until_ns: u64) -> Vec<u64> {
    let mut times: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for passed in passed.iter().filter(|passed| passed.at_ns < until_ns) {
        times.entry(passed.session).or_default().push(passed.at_ns);
    }
    let longest = |times: &Vec<u64>| {
        let ends = times[1..].iter().chain([&until_ns]);
        let pauses = times.iter().zip(ends).filter(|(_, end)| **end > from_ns);
        pauses.map(|(begin, end)| end - begin).max().unwrap_or(0)
    };
    times.values().map(longest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagram_is_found_behind_options() {
        let mut frame = vec![0; 14];
        frame.extend([0x46, 0, 0, 0, 0, 0, 0, 0, 64, 17]);
        frame.resize(14 + 24, 0);
        frame.extend([0, 1, 0, 2, 0, 11, 0, 0, b'a', b'b', b'c', b'-']);
        assert_eq!(datagram(&frame), Some(&b"abc"[..]), "without the padding of the frame");
        frame[14 + 9] = 6;
        assert_eq!(datagram(&frame), None, "TCP");
        assert_eq!(datagram(&frame[..20]), None);
    }

    #[test]
    fn senders_are_read_from_bundles_and_packets() {
        let packet = |session| {
            let mut payload = Vec::new();
            TestHeader { session, number: 0, sent_ns: 0, node: 0, stream: 0 }.write(&mut payload);
            let fields = rtp::Fields {
                payload_type: 111,
                marker: false,
                sequence: 1,
                timestamp: 1,
                ssrc: 1,
            };
            let mut packet = Vec::new();
            rtp::write(&fields, &payload, &mut packet);
            packet
        };
        let mut bundle = trunk::Bundle::new(1_200);
        assert!([7, 9].iter().all(|&session| bundle.push(trunk::Tag(1), &packet(session))));
        let found = |datagram: &[u8]| {
            let mut found = Vec::new();
            senders(datagram, |session| found.push(session));
            found
        };
        assert_eq!(found(bundle.as_bytes()), [7, 9]);
        assert_eq!(found(&packet(3)), [3]);
        assert_eq!(found(b"\xe1signed"), [0; 0]);
    }

    #[test]
    fn longest_pause_ends_after_the_fault() {
        let of = |session, times: &[u64]| -> Vec<Passed> {
            times.iter().map(|&at_ns| Passed { session, at_ns }).collect()
        };
        let passed = [of(1, &[0, 50, 60, 80]), of(2, &[0, 20, 90, 150])].concat();
        assert_eq!(longest_pauses(&passed, 55, 100), [20, 70]);
    }
}
