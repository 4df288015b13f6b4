//! Reads files that others may have put in place, replaces the files of this gateway, and names them in folders that gateways
//! share.

use std::fs::{
    DirBuilder, File, FileType, Metadata, OpenOptions, read_dir, remove_file, rename,
    symlink_metadata,
};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use data_encoding::HEXLOWER;

/// Opens a regular file to read it. Opening a pipe does not wait for its writer, and a device is not read.
pub fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    require_regular(&file)?;
    Ok(file)
}

/// Reads a regular file of at most `max` bytes, as [`open`] opens it.
pub fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let facts = file.metadata()?;
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

/// Opens a file of this gateway to write at its end, and creates it for this user alone. A link is not followed, and opening a pipe
/// does not wait for its reader.
pub fn append(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut options = OpenOptions::new();
    let file = options.append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
    require_regular(&file)?;
    Ok(file)
}

fn require_regular(file: &File) -> io::Result<Metadata> {
    let facts = file.metadata()?;
    if facts.is_file() {
        return Ok(facts);
    }
    let message = format!("{}, not a regular file", kind(facts.file_type()));
    Err(io::Error::other(message))
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

/// Creates a folder that only this user may enter, if it is missing.
pub fn create_private_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Replaces a file atomically. It is on the disk when this function returns.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_in_parts(path, |file| file.write_all(content))
}

/// As [`replace`], with content that is not in memory as a whole.
pub fn replace_in_parts(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>,
) -> io::Result<()> {
    replace_with(path, |file| {
        let mut buffer = BufWriter::new(&mut *file);
        write(&mut buffer)?;
        buffer.flush()?;
        drop(buffer);
        file.sync_all()
    })?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Replaces a file atomically, without waiting for the disk. The new one is locked (flock(2)) before it has its name.
pub fn replace_locked(path: &Path, content: &[u8]) -> io::Result<File> {
    replace_with(path, |file| {
        file.try_lock()?;
        file.write_all(content)
    })
}

/// Removes the new file after an error.
fn replace_with(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<File> {
    let unfinished = path.with_extension(format!("{}.new", std::process::id()));
    let mut options = OpenOptions::new();
    let opened = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished);
    let written = opened.and_then(|mut file| {
        write(&mut file)?;
        rename(&unfinished, path)?;
        Ok(file)
    });
    if written.is_err() {
        // The file may not exist.
        let _ = remove_file(&unfinished);
    }
    written
}

/// The name of this gateway's files, without an extension. Its admin socket stays the same across restarts.
pub fn name_of(socket: &Path) -> String {
    let socket = std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned());
    let digest = crate::sha256(socket.as_os_str().as_encoded_bytes());
    HEXLOWER.encode(&digest[..8])
}

/// Removes the least recently written of the other files in the folder, so that at most `max` are left.
pub fn trim(folder: &Path, own: &Path, max: usize) -> io::Result<()> {
    let mut others = Vec::new();
    for entry in read_dir(folder)? {
        let path = entry?.path();
        // Another gateway may have removed it.
        let Ok(facts) = symlink_metadata(&path) else { continue };
        if path != own && facts.is_file() {
            others.push((facts.modified()?, path));
        }
    }
    others.sort();
    let beyond = (others.len() + 1).saturating_sub(max);
    // Another gateway may have removed it.
    others.into_iter().take(beyond).for_each(|(_, path)| _ = remove_file(path));
    Ok(())
}

#[cfg(test)]
mod tests;
