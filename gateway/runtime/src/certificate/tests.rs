use std::fs;
use std::os::unix::fs::MetadataExt;

use super::*;

#[test]
fn next_process_has_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let first = certificate(Some(folder.path())).unwrap();
    let next = certificate(Some(folder.path())).unwrap();
    assert_eq!(next.fingerprint(), first.fingerprint());
    let mode = fs::metadata(folder.path().join(FILE)).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600, "it contains the key");
    assert_ne!(certificate(None).unwrap().fingerprint(), first.fingerprint());
}

#[test]
fn unreadable_certificate_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(FILE), "-----BEGIN CERTIFICATE-----").unwrap();
    let first = certificate(Some(folder.path())).unwrap();
    assert_eq!(certificate(Some(folder.path())).unwrap().fingerprint(), first.fingerprint());
}

#[test]
fn gateway_without_a_writable_folder_has_a_certificate() {
    certificate(Some(Path::new("/nonexistent"))).unwrap();
}
