//! Messages to the service manager (sd_notify(3)).

use std::ffi::OsStr;
use std::io::{self, IoSlice, PipeReader};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use nix::time::{ClockId, clock_gettime};
use rustix::cmsg_space;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

const VARIABLE: &str = "NOTIFY_SOCKET";

/// A manager that does not read for this time is not waited for.
const READ_WITHIN_MS: u16 = 2_000;

/// Reports that the gateway serves.
pub fn ready() {
    send("READY=1");
}

/// Reports that an upgrade has begun. It ends with [`ready`] or [`replaced_by`].
pub(super) fn reloading() {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    send(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
}

/// Reports that another process serves. Returns once the manager knows: a message of a process that has ended may be ignored.
pub(crate) fn replaced_by(process: u32) {
    send(&format!("MAINPID={process}\nREADY=1"));
    let Some(manager) = std::env::var_os(VARIABLE) else { return };
    match barrier(&manager) {
        Ok(read) => {
            let mut fds = [PollFd::new(read.as_fd(), PollFlags::empty())];
            // A signal only ends the wait.
            let _ = poll(&mut fds, READ_WITHIN_MS);
        }
        Err(error) => tracing::warn!(%error, "service manager not synchronised"),
    }
}

fn send(state: &str) {
    let Some(manager) = std::env::var_os(VARIABLE) else { return };
    let sent = connect(&manager).and_then(|socket| socket.send(state.as_bytes()));
    if let Err(error) = sent {
        tracing::warn!(%error, state, "service manager not notified");
    }
}

/// The manager's socket: a path, or a name in the abstract namespace after `@`.
fn connect(manager: &OsStr) -> io::Result<UnixDatagram> {
    let address = match manager.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(manager)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(Duration::from_millis(READ_WITHIN_MS.into())))?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// Sends `BARRIER=1`. The pipe hangs up once the manager has read it, and all messages before it.
fn barrier(manager: &OsStr) -> io::Result<PipeReader> {
    let (reader, writer) = io::pipe()?;
    let descriptors = [writer.as_fd()];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let socket = connect(manager)?;
    sendmsg(socket.as_fd(), &[IoSlice::new(b"BARRIER=1")], &mut control, SendFlags::NOSIGNAL)?;
    Ok(reader)
}

#[cfg(test)]
mod tests;
