//! That a world is coming up, said beside the socket at which its gateway will answer: who comes early waits for it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Who only looks holds the lock for a moment, and is waited for so often, [`LOOKED_AGAIN`] each time: a second in all, as a
/// machine may take that does much besides.
const LOOKS_MAX: usize = 1_000;

/// Longer than a look takes.
const LOOKED_AGAIN: Duration = Duration::from_millis(1);

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
        for _ in 0..LOOKS_MAX {
            match file.try_lock() {
                Ok(()) => return Ok(Rising { place, _locked: file }),
                Err(TryLockError::Error(error)) => return Err(error),
                // Those who look share it with each other; a world shares it with nobody.
                Err(TryLockError::WouldBlock) => file.try_lock_shared()?,
            }
            file.unlock()?;
            std::thread::sleep(LOOKED_AGAIN);
        }
        Err(TryLockError::WouldBlock.into())
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
    use tempfile::tempdir;

    use super::*;

    #[test]
    fn who_looks_while_it_begins_keeps_nobody_from_saying_so() {
        let folder = tempdir().unwrap();
        let socket = folder.path().join("socket");
        let looked_at = File::create(beside(&socket)).unwrap();
        looked_at.lock_shared().unwrap();
        let (told, begun) = std::sync::mpsc::channel();
        let at = socket.clone();
        let begins = std::thread::spawn(move || told.send(Rising::begin(&at)).unwrap());
        let early = begun.recv_timeout(LOOKED_AGAIN * 20);
        assert!(early.is_err(), "it waits: {early:?}");
        drop(looked_at);
        let rising = begun.recv().unwrap().unwrap();
        assert!(Rising::is_at(&socket));
        drop(rising);
        begins.join().unwrap();
    }

    #[test]
    fn it_is_told_of_while_it_comes_up_and_not_when_who_said_so_is_gone() {
        let folder = tempdir().unwrap();
        let socket = folder.path().join("socket");
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
