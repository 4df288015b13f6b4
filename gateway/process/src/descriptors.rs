//! File descriptors: the limit of the process, and the reserve that ports of sessions leave free.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors that ports of sessions leave free: 256 for connections over TCP that have carried no token, 160 for those
/// that have, 32 for POSTs of webhooks, the others for operators, telemetry, reloads and compilers.
const RESERVED: u64 = 512;

/// The open descriptors of this process.
const OPEN: &str = "/proc/self/fd";

/// Above the numbers of other descriptors, unless sessions have thousands of ports.
const EARLY: u64 = 16_384;

/// Raises the soft limit to the hard one, and returns the limit that holds. The soft limit is low for programs that use
/// select(2); the gateway does not.
pub fn raise_limit() -> u64 {
    let (soft, hard) = limits();
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            tracing::warn!(soft, hard, %error, "soft limit of descriptors not raised");
            soft
        }
    }
}

/// The limit to which a process without privileges may raise its own (getrlimit(2)).
pub fn hard_limit() -> u64 {
    limits().1
}

/// The soft and the hard limit.
fn limits() -> (u64, u64) {
    getrlimit(Resource::RLIMIT_NOFILE).expect("the kernel has this limit")
}

/// Descriptors that this process can still open. `None`: the kernel does not report those that are open.
pub fn left() -> Option<u64> {
    // Since Linux 6.2 the size of the folder is their number, earlier it is 0.
    let open = match fs::metadata(OPEN).ok()?.len() {
        0 => fs::read_dir(OPEN).ok()?.count() as u64,
        open => open,
    };
    Some(limits().0.saturating_sub(open))
}

/// Returns true if the descriptor is one that ports of sessions leave free. The kernel assigns the lowest free number,
/// so all numbers below it are in use.
pub fn is_reserved(socket: &impl AsFd) -> bool {
    let number = u64::try_from(socket.as_fd().as_raw_fd()).unwrap_or(0);
    // The limit of a running process may change (prlimit(1)).
    let (soft, _) = limits();
    number >= soft - reserve(soft)
}

/// A duplicate that the kernel closes at once if the process is killed: it closes the highest number first, and spends 10 to
/// 20 ms on one of inotify(7). Until its last duplicate is closed, a socket does not show that its process has ended.
pub fn closed_early(socket: &impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(socket, early())?)
}

/// The least number of a descriptor that is closed early.
pub fn early() -> RawFd {
    let (soft, _) = limits();
    EARLY.min(soft / 2) as RawFd
}

/// A low limit is shared equally between sessions and all else.
pub fn reserve(limit: u64) -> u64 {
    RESERVED.min(limit / 2)
}

#[cfg(test)]
mod tests;
