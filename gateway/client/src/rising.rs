//! A lock file beside the admin socket that tells commands to wait for a demo which is starting.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::geteuid;

/// Commands that probe the lock hold it briefly. A demo tries to lock this many times, [`RETRY_INTERVAL`] apart: for
/// one second.
const TRIES_MAX: usize = 1_000;

/// Interval of lock attempts, longer than a probe takes.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);

/// A lock file, held while the demo starts. The system releases the lock if the demo is killed.
#[derive(Debug)]
pub struct Rising {
    place: PathBuf,
    _locked: File,
}

impl Rising {
    /// Takes the lock until the result is dropped.
    ///
    /// # Errors
    /// The file cannot be created, or another demo is starting at this socket.
    pub fn begin(socket: &Path) -> io::Result<Rising> {
        let place = beside(socket);
        let options =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).clone();
        let file = options.open(&place)?;
        for _ in 0..TRIES_MAX {
            match file.try_lock() {
                Ok(()) => return Ok(Rising { place, _locked: file }),
                Err(TryLockError::Error(error)) => return Err(error),
                // Probes share the lock with one another; a demo shares it with no other.
                Err(TryLockError::WouldBlock) => file.try_lock_shared()?,
            }
            file.unlock()?;
            std::thread::sleep(RETRY_INTERVAL);
        }
        Err(TryLockError::WouldBlock.into())
    }

    /// Returns true while a demo of this user is starting at this socket.
    pub fn is_at(socket: &Path) -> bool {
        let place = beside(socket);
        // Another user could hold the lock forever, and opening a pipe waits for a writer.
        let own = |facts: fs::Metadata| facts.is_file() && facts.uid() == geteuid().as_raw();
        let tried = || File::open(&place).map(|file| file.try_lock_shared());
        fs::symlink_metadata(&place).is_ok_and(own)
            && matches!(tried(), Ok(Err(TryLockError::WouldBlock)))
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
mod tests;
