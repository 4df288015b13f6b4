use std::process::Command;

use tempfile::tempdir;

use super::*;

#[test]
fn only_regular_files_are_read() {
    let folder = tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("file"), "text").unwrap();
    std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
    assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    assert_eq!(read(&at("file"), 4).unwrap(), b"text");
    assert_eq!(read(&at("link"), 4).unwrap(), b"text");
    let refused = |path: &Path| read(path, 4).unwrap_err().to_string();
    assert_eq!(refused(&at("pipe")), "a pipe, not a regular file");
    assert_eq!(refused(folder.path()), "a folder, not a regular file");
    assert_eq!(refused(Path::new("/dev/zero")), "a device, not a regular file");
    assert_eq!(read(&at("none"), 4).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn only_regular_files_are_appended_to() {
    let folder = tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    append(&at("file")).unwrap().write_all(b"one").unwrap();
    append(&at("file")).unwrap().write_all(b"two").unwrap();
    assert_eq!(std::fs::read(at("file")).unwrap(), b"onetwo");
    std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
    assert_eq!(append(&at("link")).unwrap_err().raw_os_error(), Some(libc::ELOOP));
    assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    assert_eq!(append(&at("pipe")).unwrap_err().raw_os_error(), Some(libc::ENXIO), "no reader");
    let _reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(at("pipe"));
    assert_eq!(append(&at("pipe")).unwrap_err().to_string(), "a pipe, not a regular file");
}

#[test]
fn longer_file_is_refused() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "12345").unwrap();
    assert_eq!(read(&path, 5).unwrap(), b"12345");
    assert_eq!(read(&path, 4).unwrap_err().to_string(), "more than 4 bytes");
    // A sparse file of a terabyte.
    OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(read(&path, 1 << 20).unwrap_err().to_string(), "more than 1048576 bytes");
    assert!(read(Path::new("/proc/self/maps"), 8).is_err(), "its length is unknown before");
}

#[test]
fn locked_replacement_has_its_name_and_lock() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "old").unwrap();
    let locked = replace_locked(&path, b"new").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    let other = File::open(&path).unwrap();
    assert!(other.try_lock_shared().is_err());
    drop(locked);
    other.try_lock_shared().unwrap();
}

#[test]
fn failed_replacement_leaves_no_new_file() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("folder");
    std::fs::create_dir(&path).unwrap();
    assert!(replace(&path, b"text").is_err());
    assert!(replace_locked(&path, b"text").is_err());
    assert_eq!(read_dir(folder.path()).unwrap().count(), 1);
}
