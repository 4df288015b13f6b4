//! Reads files that others may have put in place.

use std::fs::{FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Reads a regular file of at most `max` bytes. Opening a pipe does not wait for its writer, and a device is not read.
pub(crate) fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let facts = file.metadata()?;
    if !facts.is_file() {
        let message = format!("{}, not a regular file", kind(facts.file_type()));
        return Err(io::Error::other(message));
    }
    let mut bytes = Vec::new();
    // The file may grow while it is read, and files of /proc have no length.
    if facts.len() <= max {
        file.take(max + 1).read_to_end(&mut bytes)?;
    }
    if facts.len().max(bytes.len() as u64) > max {
        return Err(io::Error::other(format!("more than {max} bytes")));
    }
    Ok(bytes)
}

fn kind(found: FileType) -> &'static str {
    if found.is_dir() {
        "a folder"
    } else if found.is_fifo() {
        "a pipe"
    } else {
        "a device"
    }
}

#[cfg(test)]
mod tests;
