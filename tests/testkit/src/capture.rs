//! Datagrams in IPv4 that a host receives, or also those that it sends, with the kernel's times.

use std::io::IoSliceMut;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

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
/// The end of the capture is noticed within this time.
const NAP_US: i64 = 50_000;

/// The type of Ethernet frames with IPv4, and its place.
const IPV4: [u8; 2] = [8, 0];
const TYPE_AT: usize = 12;

/// A datagram that passed the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CapturedDatagram<'a> {
    pub source: SocketAddrV4,
    pub destination: SocketAddrV4,
    /// At most 2 KiB with the headers: the kernel splits what is sent together (UDP_SEGMENT) after the capture.
    pub payload: &'a [u8],
    /// Nanoseconds since the Unix epoch.
    pub at_ns: u64,
}

impl<'a> CapturedDatagram<'a> {
    /// The datagram in an Ethernet frame with IPv4.
    fn parse(frame: &'a [u8], at_ns: u64) -> Option<Self> {
        let ip = frame.get(14..).filter(|_| frame[TYPE_AT..].starts_with(&IPV4))?;
        let (first, protocol) = (*ip.first()?, *ip.get(9)?);
        let udp = ip.get(4 * usize::from(first & 0x0f)..).filter(|_| protocol == 17)?;
        let address = |ip_at: usize, port_at: usize| {
            let ip: [u8; 4] = *ip.get(ip_at..)?.first_chunk()?;
            let port = *udp.get(port_at..)?.first_chunk()?;
            Some(SocketAddrV4::new(ip.into(), u16::from_be_bytes(port)))
        };
        let (source, destination) = (address(12, 0)?, address(16, 2)?);
        let length = u16::from_be_bytes(*udp.get(4..)?.first_chunk()?);
        let payload = udp.get(8..udp.len().min(length.into()))?;
        Some(CapturedDatagram { source, destination, payload, at_ns })
    }
}

/// Keeps a record of datagrams until it is dropped.
pub struct Capture<T> {
    shared: Arc<Shared<T>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared<T> {
    records: Mutex<Vec<T>>,
    lost: AtomicU32,
    ending: AtomicBool,
}

impl<T> Shared<T> {
    fn records(&self) -> MutexGuard<'_, Vec<T>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + 'static> Capture<T> {
    /// Captures the datagrams that reach the network namespace of this thread, by any of its interfaces. `record` appends the part
    /// of a datagram that is kept.
    ///
    /// # Errors
    /// This process lacks CAP_NET_RAW.
    pub fn of_received(
        record: impl Fn(&CapturedDatagram<'_>, &mut Vec<T>) + Send + 'static,
    ) -> Result<Capture<T>, String> {
        // A packet socket of one protocol gets incoming frames only.
        Capture::open(SockProtocol::EthIp, record)
    }

    /// As [`of_received`](Self::of_received), also of datagrams that are sent. One over loopback is captured twice.
    ///
    /// # Errors
    /// This process lacks CAP_NET_RAW.
    pub fn of_all(
        record: impl Fn(&CapturedDatagram<'_>, &mut Vec<T>) + Send + 'static,
    ) -> Result<Capture<T>, String> {
        Capture::open(SockProtocol::EthAll, record)
    }

    fn open(
        protocol: SockProtocol,
        record: impl Fn(&CapturedDatagram<'_>, &mut Vec<T>) + Send + 'static,
    ) -> Result<Capture<T>, String> {
        let socket = listen(protocol).map_err(|errno| format!("no packet socket: {errno}"))?;
        let shared = Arc::new(Shared {
            records: Mutex::default(),
            lost: AtomicU32::new(0),
            ending: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut frames = vec![0; BATCH * FRAME];
            while !theirs.ending.load(Ordering::Relaxed) {
                if read(&socket, &mut frames, &theirs, &record) < BATCH {
                    std::thread::sleep(GATHER);
                }
            }
        });
        Ok(Capture { shared, thread: Some(thread) })
    }

    /// The records since the last call.
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.shared.records())
    }

    /// Evaluates the records so far, which stay.
    pub fn read<R>(&self, evaluate: impl FnOnce(&[T]) -> R) -> R {
        evaluate(&self.shared.records())
    }

    /// Frames that found no space in the socket's buffer.
    pub fn lost(&self) -> u32 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl<T> Drop for Capture<T> {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// A socket for frames of this protocol.
fn listen(protocol: SockProtocol) -> nix::Result<OwnedFd> {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    // Beyond the system's limit only with CAP_NET_ADMIN.
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)
        .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &BUFFER))?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    setsockopt(&socket, sockopt::RxqOvfl, &1)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, NAP_US))?;
    Ok(socket)
}

/// Reads one batch of frames, or none after a timeout. Returns the number of frames.
fn read<T>(
    socket: &OwnedFd,
    frames: &mut [u8],
    shared: &Shared<T>,
    record: &impl Fn(&CapturedDatagram<'_>, &mut Vec<T>),
) -> usize {
    let mut stamps = Vec::with_capacity(BATCH);
    {
        let space = nix::cmsg_space!(TimeSpec, u32);
        let mut headers = MultiHeaders::<()>::preallocate(BATCH, Some(space));
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            frames.chunks_exact_mut(FRAME).map(|frame| [IoSliceMut::new(frame)]).collect();
        let (socket, flags) = (socket.as_raw_fd(), MsgFlags::MSG_WAITFORONE);
        // An error is a timeout, or the interface has gone.
        let Ok(messages) = recvmmsg(socket, &mut headers, slices.iter_mut(), flags, None) else {
            return 0;
        };
        for message in messages {
            let mut at_ns = 0;
            for control in message.cmsgs().into_iter().flatten() {
                match control {
                    ControlMessageOwned::ScmTimestampns(time) => at_ns = unix_ns(time),
                    ControlMessageOwned::RxqOvfl(lost) => {
                        shared.lost.store(lost, Ordering::Relaxed);
                    }
                    _ => {}
                }
            }
            stamps.push((message.bytes, at_ns));
        }
    }
    let mut records = shared.records();
    for ((length, at_ns), frame) in stamps.iter().zip(frames.chunks_exact(FRAME)) {
        if let Some(datagram) = CapturedDatagram::parse(&frame[..FRAME.min(*length)], *at_ns) {
            record(&datagram, &mut records);
        }
    }
    stamps.len()
}

fn unix_ns(time: TimeSpec) -> u64 {
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagram_is_found_behind_options() {
        let mut frame = vec![0; 12];
        frame.extend(IPV4);
        frame.extend([0x46, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.resize(14 + 24, 0);
        frame.extend([0, 1, 1, 2, 0, 11, 0, 0, b'a', b'b', b'c', b'-']);
        let datagram = CapturedDatagram::parse(&frame, 7).unwrap();
        assert_eq!((datagram.payload, datagram.at_ns), (&b"abc"[..], 7), "without padding");
        let addresses = [datagram.source, datagram.destination].map(|at| at.to_string());
        assert_eq!(addresses, ["10.0.0.1:1", "10.0.0.2:258"]);
        assert_eq!(CapturedDatagram::parse(&frame[..20], 7), None);
        let cut = CapturedDatagram::parse(&frame[..14 + 24 + 10], 7).unwrap();
        assert_eq!(cut.payload, b"ab", "cut off by the capture");
        frame[14 + 9] = 6;
        assert_eq!(CapturedDatagram::parse(&frame, 7), None, "TCP");
        (frame[14 + 9], frame[13]) = (17, 6);
        assert_eq!(CapturedDatagram::parse(&frame, 7), None, "ARP");
    }
}
