//! Connections to a Unix socket, only to processes that this user trusts.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::{fs, io};

use nix::unistd::geteuid;
use tokio::net::UnixStream;

use super::ClientError;

/// Connects without waiting for a process that accepts nothing, and checks the user of the process (SO_PEERCRED).
pub(super) async fn connect(path: &Path) -> Result<UnixStream, ClientError> {
    let stream = UnixStream::connect(path).await.map_err(|error| explain(path, error))?;
    let user = stream.peer_cred()?.uid();
    if is_trusted(user, geteuid().as_raw(), path) {
        Ok(stream)
    } else {
        Err(ClientError::Untrusted { path: path.to_owned(), user })
    }
}

/// Trusts root and this user. Root also trusts the owner of the socket's folder if no other user may write there: the
/// account that the gateway runs under.
fn is_trusted(peer: u32, own: u32, path: &Path) -> bool {
    let owns_folder = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let facts = fs::metadata(folder.unwrap_or(Path::new(".")));
        facts.is_ok_and(|facts| facts.uid() == peer && facts.mode() & 0o022 == 0)
    };
    peer == 0 || peer == own || own == 0 && owns_folder()
}

/// Replaces the error by one that names the file at the path, if no process accepts connections there.
fn explain(path: &Path, error: io::Error) -> io::Error {
    let kind = fs::symlink_metadata(path).map(|facts| facts.file_type());
    let found = match (error.kind(), kind) {
        (io::ErrorKind::WouldBlock, _) => "found a process that accepts no connections",
        (io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused, Ok(kind)) => match kind {
            _ if kind.is_symlink() => "found a symbolic link that leads to no gateway",
            _ if kind.is_dir() => "found a folder, expected a socket",
            _ if kind.is_socket() => "found the socket of a process that has ended",
            _ => "found a file that is no socket",
        },
        _ => return error,
    };
    io::Error::new(error.kind(), found)
}

#[cfg(test)]
mod tests;
