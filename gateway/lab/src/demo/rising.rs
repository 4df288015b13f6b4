//! That a world is coming up, said beside the socket at which its gateway will answer: who comes early waits for it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file that is locked while its owner lives and is not up yet; a dead owner locks nothing.
#[derive(Debug)]
pub struct Rising {
    place: PathBuf,
    _locked: File,
}

impl Rising {
    /// Says so until it is dropped.
    ///
    /// # Errors
    /// What the system says where there can be no such file, or another world comes up at this socket.
    pub fn begin(socket: &Path) -> io::Result<Rising> {
        let place = beside(socket);
        let options =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).clone();
        let file = options.open(&place)?;
        file.try_lock()?;
        Ok(Rising { place, _locked: file })
    }

    /// Whether a world is coming up at this socket.
    pub fn is_at(socket: &Path) -> bool {
        let tried = File::open(beside(socket)).map(|file| file.try_lock_shared());
        matches!(tried, Ok(Err(TryLockError::WouldBlock)))
    }
}

impl Drop for Rising {
    fn drop(&mut self) {
        let _gone_already = fs::remove_file(&self.place);
    }
}

fn beside(socket: &Path) -> PathBuf {
    let mut place = socket.as_os_str().to_owned();
    place.push(".rising");
    place.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_of_while_it_comes_up_and_not_when_who_said_so_is_gone() {
        let socket = std::env::temp_dir().join(format!("rising-{}.sock", std::process::id()));
        assert!(!Rising::is_at(&socket));
        let rising = Rising::begin(&socket).unwrap();
        assert!(Rising::is_at(&socket));
        assert!(Rising::begin(&socket).is_err(), "one world at a socket");
        drop(rising);
        assert!(!Rising::is_at(&socket));
        // A process that was killed takes its lock along, and leaves its file.
        fs::write(beside(&socket), "").unwrap();
        assert!(!Rising::is_at(&socket));
        drop(Rising::begin(&socket).unwrap());
        assert!(!beside(&socket).exists());
    }
}
