//! Receive buffers while packets wait for the next process of an upgrade.

use std::fmt;
use std::os::fd::OwnedFd;
use std::time::Duration;

use evenkeel_control::{NamedSockets, SOCKET_BUFFER, SocketName};
use evenkeel_dataplane::buffers;
use socket2::{Domain, Socket, Type};

/// Receive buffer of a socket in bytes: 200 ms at 50,000 packets a second. Only for an upgrade, because packets of an
/// overloaded port would wait that long.
const WIDE: usize = 4 << 20;

/// Bytes of a millisecond at 50,000 packets a second.
const PER_MS: usize = WIDE / 200;

/// Time for which all buffers stay wide after an upgrade: threads of both processes compete for the processor.
const WIDE_FOR: Duration = Duration::from_secs(1);

/// Interval of checks whether packets wait in a socket. The kernel refuses new ones as long as more wait than the buffer
/// takes.
const CHECK_EVERY: Duration = Duration::from_millis(5);

/// Checks of a socket in which packets always wait: after 10 s its port counts as overloaded, and the buffer is narrowed.
const CHECKS_MAX: usize = 2_000;

/// The longest receive buffer that the kernel grants to this gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UpgradeBuffer {
    bytes: usize,
}

impl UpgradeBuffer {
    /// Asks the kernel, which counts in the namespace of this process.
    pub fn granted() -> UpgradeBuffer {
        let bytes = Socket::new(Domain::IPV4, Type::DGRAM, None).map_or(SOCKET_BUFFER, |socket| {
            buffers::set_receive_size(&socket, WIDE);
            buffers::receive_size(&socket)
        });
        UpgradeBuffer { bytes }
    }

    /// Returns true if packets may be lost during an upgrade of a busy gateway.
    pub fn is_short(&self) -> bool {
        self.bytes < WIDE
    }

    /// Lets packets wait in these sockets.
    pub fn widen(&self, sockets: &NamedSockets) {
        // The kernel may have granted more to a privileged process before.
        if self.bytes > SOCKET_BUFFER {
            of_packets(sockets).for_each(|socket| buffers::set_receive_size(socket, self.bytes));
        }
    }

    /// Ends [`UpgradeBuffer::widen`], at each socket once the packets that waited have been read.
    pub async fn narrow(&self, sockets: &NamedSockets) {
        let mut wide: Vec<_> = of_packets(sockets).filter(|_| self.bytes > SOCKET_BUFFER).collect();
        tokio::time::sleep(WIDE_FOR).await;
        for check in 1..=CHECKS_MAX {
            wide.retain(|socket| {
                let stays = check < CHECKS_MAX && buffers::has_waiting(socket);
                if !stays {
                    buffers::set_receive_size(socket, SOCKET_BUFFER);
                }
                stays
            });
            if wide.is_empty() {
                break;
            }
            tokio::time::sleep(CHECK_EVERY).await;
        }
    }
}

impl fmt::Display for UpgradeBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kib, ms) = (self.bytes >> 10, self.bytes / PER_MS);
        write!(
            f,
            "during an upgrade packets wait in {kib} KiB per socket: {ms} ms of 50,000 a second"
        )?;
        if self.is_short() {
            write!(f, "; set `net.core.rmem_max` to {WIDE} for {} ms", WIDE / PER_MS)?;
        }
        Ok(())
    }
}

/// Sessions' own ports carry few packets each.
fn of_packets(sockets: &NamedSockets) -> impl Iterator<Item = &OwnedFd> {
    let named = |name: &SocketName| {
        matches!(name, SocketName::Rtp { .. } | SocketName::Rtcp { .. } | SocketName::Trunk { .. })
    };
    sockets.iter().filter(move |(name, _)| named(name)).map(|(_, socket)| socket)
}

#[cfg(test)]
mod tests;
