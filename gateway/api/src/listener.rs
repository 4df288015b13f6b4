//! The API's listeners: sockets that only the owner may use, and a bounded number of connections.

use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use evenkeel_config::AdminSettings;
use socket2::{Domain, SockAddr, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// A connection without an answer for this time is closed. The time is longer than a rollout on a slow machine, and
/// longer than the interval of comments to event listeners.
const UNANSWERED_MAX: Duration = Duration::from_secs(60);

pub(super) struct ApiSocket {
    pub(super) listener: UnixListener,
    pub(super) file: SocketFile,
}

/// Removes the file when dropped.
pub(super) struct SocketFile(pub(super) PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The file may have been removed already.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl ApiSocket {
    /// Listens at this path; only the owner may connect. The socket of a process that ended is replaced.
    pub(super) fn bind(path: &Path) -> io::Result<ApiSocket> {
        AdminSettings::prepare_folder(path)?;
        require_free(path)?;
        // The file gets its name once its permissions are set.
        let mut unnamed = path.as_os_str().to_owned();
        unnamed.push(format!(".{}", std::process::id()));
        let unnamed = PathBuf::from(unnamed);
        let _ = std::fs::remove_file(&unnamed);
        let listener = UnixListener::bind(&unnamed)?;
        let file = SocketFile(unnamed.clone());
        std::fs::set_permissions(&unnamed, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&unnamed, path)?;
        std::mem::forget(file);
        Ok(ApiSocket { listener, file: SocketFile(path.to_owned()) })
    }
}

/// Requires that nothing is at the path but the socket of a process of this user that ended.
fn require_free(path: &Path) -> io::Result<()> {
    let facts = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        facts => facts?,
    };
    let kind = facts.file_type();
    let found = if kind.is_symlink() {
        "a symbolic link".to_owned()
    } else if kind.is_dir() {
        "a folder".to_owned()
    } else if !kind.is_socket() {
        "a file that is no socket".to_owned()
    } else if is_listening(path)? {
        return Err(io::ErrorKind::AddrInUse.into());
    } else if facts.uid() != nix::unistd::geteuid().as_raw() {
        format!("a socket of user {}", facts.uid())
    } else {
        return Ok(());
    };
    let found = format!("found {found}; remove it, or name another path by `socket` in [admin]");
    Err(io::Error::new(io::ErrorKind::AlreadyExists, found))
}

/// Returns true if a process listens at this socket. It may accept nothing, so this does not wait.
fn is_listening(path: &Path) -> io::Result<bool> {
    let probe = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        // Another user's socket, which is not replaced.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        Ok(()) | Err(_) => Ok(true),
    }
}

/// Accepts no more connections while the limit is reached.
pub(super) struct Bounded<L> {
    listener: L,
    places: Arc<Semaphore>,
}

impl<L> Bounded<L> {
    pub(super) fn new(listener: L, connections_max: usize) -> Bounded<L> {
        Bounded { listener, places: Arc::new(Semaphore::new(connections_max)) }
    }
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = CountedConnection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let (io, address) = self.listener.accept().await;
        (CountedConnection::new(io, place.expect("the semaphore is never closed")), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection with its place, closed after [`UNANSWERED_MAX`] without an answer.
pub(super) struct CountedConnection<Io, Place = OwnedSemaphorePermit> {
    io: Io,
    unanswered: Pin<Box<Sleep>>,
    _place: Place,
}

impl<Io, Place> CountedConnection<Io, Place> {
    pub(super) fn new(io: Io, place: Place) -> CountedConnection<Io, Place> {
        CountedConnection {
            io,
            unanswered: Box::pin(tokio::time::sleep(UNANSWERED_MAX)),
            _place: place,
        }
    }

    fn answered(&mut self, written: &Poll<io::Result<usize>>) {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.unanswered.as_mut().reset(Instant::now() + UNANSWERED_MAX);
        }
    }
}

impl<Io: AsyncRead + Unpin, Place: Unpin> AsyncRead for CountedConnection<Io, Place> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let ready @ Poll::Ready(_) = Pin::new(&mut self.io).poll_read(context, buffer) {
            return ready;
        }
        ready!(self.unanswered.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<Io: AsyncWrite + Unpin, Place: Unpin> AsyncWrite for CountedConnection<Io, Place> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.answered(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.answered(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
