use std::os::unix::fs::PermissionsExt;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(20);
const SOCKET: &str = "/run/evenkeel/admin.sock";

fn open_in(folder: &Path) -> ClientCertificates {
    ClientCertificates::open(Some(folder), Path::new(SOCKET), true, UnwrittenDocuments::default())
        .unwrap()
}

fn at(folder: &Path, name: &str) -> PathBuf {
    own_folder(folder, Path::new(SOCKET)).join(name)
}

fn fingerprint(certificates: &ClientCertificates) -> [u8; 32] {
    certificates.dtls.borrow().fingerprint()
}

fn hashes(certificates: &ClientCertificates) -> [[u8; 32]; 2] {
    certificates.webtransport.as_ref().unwrap().sha256()
}

fn assert_private(path: &Path) {
    let mode = fs::metadata(path).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600, "it contains keys");
}

#[test]
fn next_process_has_the_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let first = open_in(folder.path());
    let next = open_in(folder.path());
    assert_eq!((fingerprint(&next), hashes(&next)), (fingerprint(&first), hashes(&first)));
    for name in [DTLS_FILE, WEBTRANSPORT_FILE] {
        assert_private(&at(folder.path(), name));
    }
    let other =
        ClientCertificates::open(None, Path::new(SOCKET), true, UnwrittenDocuments::default())
            .unwrap();
    assert_ne!(fingerprint(&other), fingerprint(&first));
    assert_ne!(hashes(&other), hashes(&first));
}

#[test]
fn certificates_of_two_weeks_ago_are_renewed() {
    let folder = tempfile::tempdir().unwrap();
    let path = at(folder.path(), WEBTRANSPORT_FILE);
    open_in(folder.path());
    let ago = SystemTime::now() - Duration::from_secs(14 * 24 * 60 * 60);
    let old = ShortLivedCertificates::generate(vec!["localhost".into()], ago).unwrap();
    fs::write(&path, old.to_pem().as_bytes()).unwrap();
    let renewed = open_in(folder.path());
    assert_ne!(hashes(&renewed), old.sha256());
    let kept = fs::read_to_string(&path).unwrap();
    assert_eq!(*kept, **renewed.webtransport.as_ref().unwrap().to_pem());
    assert_eq!(*kept, **renewed.own.borrow().webtransport.as_ref().unwrap().0);
}

#[test]
fn damaged_file_is_renamed_and_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    open_in(folder.path());
    for damage in ["-----BEGIN CERTIFICATE-----".as_bytes(), b"", &[0xff]] {
        let before = open_in(folder.path());
        for name in [DTLS_FILE, WEBTRANSPORT_FILE] {
            fs::write(at(folder.path(), name), damage).unwrap();
        }
        let after = open_in(folder.path());
        assert_ne!(fingerprint(&after), fingerprint(&before));
        assert_ne!(hashes(&after), hashes(&before));
        for name in ["dtls.damaged", "webtransport.damaged"] {
            assert_eq!(fs::read(at(folder.path(), name)).unwrap(), damage);
            assert_private(&at(folder.path(), name));
        }
        assert_eq!(fingerprint(&open_in(folder.path())), fingerprint(&after));
    }
}

#[test]
fn file_that_others_can_read_is_an_error_and_stays() {
    for (name, subject) in
        [(DTLS_FILE, "DTLS certificate"), (WEBTRANSPORT_FILE, "WebTransport certificates")]
    {
        let folder = tempfile::tempdir().unwrap();
        open_in(folder.path());
        let path = at(folder.path(), name);
        let content = fs::read(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = ClientCertificates::open(
            Some(folder.path()),
            Path::new(SOCKET),
            true,
            UnwrittenDocuments::default(),
        )
        .unwrap_err()
        .to_string();
        let expected = format!("{subject} `{}`: found mode 640, expected 600", path.display());
        assert!(error.starts_with(&expected), "{error}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }
}

#[test]
fn gateway_without_a_writable_folder_has_certificates() {
    let opened = ClientCertificates::open(
        Some(Path::new("/nonexistent")),
        Path::new(SOCKET),
        false,
        UnwrittenDocuments::default(),
    )
    .unwrap();
    assert!(opened.webtransport.is_none() && opened.own.borrow().webtransport.is_none());
}

#[tokio::test]
async fn standby_keeps_the_certificates_of_the_owner() {
    let [owner_folder, folder] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let owner = open_in(owner_folder.path());
    let standby = open_in(folder.path());
    let (mut shown, CertificateChannels { mut own, copied }) = (standby.dtls(), standby.channels());
    assert_ne!(fingerprint(&standby), fingerprint(&owner));
    let record = owner.channels().own.borrow().clone();
    copied.send_replace(Some(record.clone()));
    let adopted = own.wait_for(|own| *own == record);
    tokio::select! {
        never = standby.follow() => match never {},
        adopted = tokio::time::timeout(TIMEOUT, adopted) => drop(adopted.unwrap().unwrap()),
    }
    assert_eq!((fingerprint(&standby), hashes(&standby)), (fingerprint(&owner), hashes(&owner)));
    assert_eq!(shown.borrow_and_update().fingerprint(), fingerprint(&owner));
    let restarted = open_in(folder.path());
    assert_eq!(
        (fingerprint(&restarted), hashes(&restarted)),
        (fingerprint(&owner), hashes(&owner))
    );
    for name in [DTLS_FILE, WEBTRANSPORT_FILE] {
        assert_private(&at(folder.path(), name));
    }
}

#[test]
fn unusable_certificates_of_an_owner_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let standby = open_in(folder.path());
    let before = (fingerprint(&standby), hashes(&standby));
    let unusable = || SecretPem("no PEM".to_owned().into());
    standby.adopt(&CertificatesRecord { dtls: unusable(), webtransport: Some(unusable()) });
    standby.adopt(&CertificatesRecord { dtls: unusable(), webtransport: None });
    assert_eq!((fingerprint(&standby), hashes(&standby)), before);
    let restarted = open_in(folder.path());
    assert_eq!((fingerprint(&restarted), hashes(&restarted)), before);
}

#[test]
fn gateways_that_share_a_folder_have_their_own_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let first = open_in(folder.path());
    let socket = Path::new("/run/other/admin.sock");
    let other =
        ClientCertificates::open(Some(folder.path()), socket, true, UnwrittenDocuments::default())
            .unwrap();
    assert_ne!(fingerprint(&other), fingerprint(&first));
    assert_eq!(fingerprint(&open_in(folder.path())), fingerprint(&first));
}
