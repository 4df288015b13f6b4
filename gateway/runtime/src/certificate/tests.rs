use std::os::unix::fs::PermissionsExt;

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
fn unusable_certificate_is_an_error_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    certificate(Some(folder.path())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let error = certificate(Some(folder.path())).unwrap_err().to_string();
    assert!(error.contains("found mode 640, expected 600"), "{error}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, "-----BEGIN CERTIFICATE-----").unwrap();
    let error = certificate(Some(folder.path())).unwrap_err().to_string();
    assert!(error.contains("dtls.pem") && error.contains("no section"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"-----BEGIN CERTIFICATE-----");
}

#[test]
fn gateway_without_a_writable_folder_has_a_certificate() {
    certificate(Some(Path::new("/nonexistent"))).unwrap();
}

#[test]
fn next_process_has_the_certificates_of_webtransport() {
    let folder = tempfile::tempdir().unwrap();
    let first = KeptCertificates::open(Some(folder.path())).unwrap();
    let next = KeptCertificates::open(Some(folder.path())).unwrap();
    assert_eq!(next.certificates.sha256(), first.certificates.sha256());
    let path = folder.path().join(SHORT_LIVED_FILE);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600, "it contains keys");
    let other = KeptCertificates::open(None).unwrap();
    assert_ne!(other.certificates.sha256(), first.certificates.sha256());

    // A file of two weeks ago.
    let ago = SystemTime::now() - Duration::from_secs(14 * 24 * 60 * 60);
    let old = ShortLivedCertificates::generate(vec!["localhost".into()], ago).unwrap();
    fs::write(&path, old.to_pem().as_bytes()).unwrap();
    let renewed = KeptCertificates::open(Some(folder.path())).unwrap();
    assert_ne!(renewed.certificates.sha256(), old.sha256());
    let kept = fs::read_to_string(&path).unwrap();
    assert_eq!(*kept, **renewed.certificates.to_pem());

    fs::write(&path, "-----BEGIN CERTIFICATE-----").unwrap();
    let error = KeptCertificates::open(Some(folder.path())).unwrap_err().to_string();
    assert!(error.contains("webtransport.pem") && error.contains("found no"), "{error}");
}
