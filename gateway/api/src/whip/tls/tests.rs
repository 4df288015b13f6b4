use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use tempfile::{TempDir, tempdir};

use super::*;

/// X.509 version 1, as `openssl x509 -req` makes it without extensions, and its key.
const VERSION_1: &str = include_str!("version-1.pem");

struct Files {
    folder: TempDir,
    files: CertificateFiles,
}

impl Files {
    fn new(chain: &str, key: &str) -> Files {
        let folder = tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let files = CertificateFiles { chain: at("chain.pem"), key: at("key.pem") };
        std::fs::write(&files.chain, chain).unwrap();
        std::fs::write(&files.key, key).unwrap();
        Files { folder, files }
    }

    fn read(&self, host: Option<&str>) -> Result<WebrtcCertificate, String> {
        let read = read_files(&self.files, host).map(|tls| tls.certificate);
        read.map_err(|error| error.to_string().replace(self.folder.path().to_str().unwrap(), "."))
    }
}

/// A certificate of the year 2025.
fn issued(names: &[&str]) -> Files {
    issued_as(IsCa::NoCa, names)
}

fn issued_as(is_ca: IsCa, names: &[&str]) -> Files {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(2026, 1, 1));
    params.is_ca = is_ca;
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Files::new(&certificate.pem(), &key.serialize_pem())
}

fn on(days_of_2025: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_735_689_600 + days_of_2025 * 86_400)
}

#[test]
fn certificate_out_of_its_time_is_refused_with_the_date() {
    let certificate = issued(&["live.example.org"]).read(Some("live.example.org")).unwrap();
    assert_eq!(certificate.refused(on(1)), None);
    let before = SystemTime::UNIX_EPOCH + Duration::from_secs(1_735_689_599);
    let early = "the certificate is not valid before 2025-01-01 00:00 UTC";
    assert_eq!(certificate.refused(before).unwrap(), early);
    let late = "the certificate expired on 2026-01-01 00:00 UTC";
    assert_eq!(certificate.refused(on(366)).unwrap(), late);
    let ends = "the certificate of [webrtc], for live.example.org, ends on 2026-01-01 00:00 UTC";
    assert_eq!(certificate.summary(on(350)), ends);
    assert_eq!(certificate.summary(on(352)), format!("{ends}: renew it"));
}

#[test]
fn certificate_of_an_authority_has_its_end() {
    // As `openssl req -x509` writes it.
    let files = issued_as(IsCa::Ca(BasicConstraints::Unconstrained), &["live.example.org"]);
    let certificate = files.read(Some("live.example.org")).unwrap();
    assert_eq!((certificate.ends(), certificate.refused(on(1))), (Some(on(365)), None));
}

#[test]
fn unreadable_end_is_no_fault() {
    let names = vec!["live.example.org".to_owned()];
    let unknown = WebrtcCertificate { begins: None, ends: None, names, other_host: None };
    assert_eq!((unknown.ends(), unknown.refused(on(1))), (None, None));
    let summary =
        "the certificate of [webrtc], for live.example.org, has an end that cannot be read";
    assert_eq!(unknown.summary(on(1)), summary);
}

#[test]
fn certificate_for_an_address_or_wildcard_has_names() {
    for name in ["*.invalid", "*.live.invalid", "203.0.113.7"] {
        let certificate = issued(&[name]).read(None).unwrap();
        assert_eq!(certificate.refused(on(1)), None, "{name}");
        assert!(certificate.summary(on(1)).contains(&format!("for {name},")), "{name}");
    }
}

#[test]
fn certificate_of_another_host_is_refused() {
    let files = issued(&["live.example.org", "*.live.example.org", "203.0.113.7"]);
    for host in ["live.example.org", "a.live.example.org", "203.0.113.7"] {
        assert_eq!(files.read(Some(host)).unwrap().refused(on(1)), None, "{host}");
    }
    let other = files.read(Some("video.example.org")).unwrap().refused(on(1)).unwrap();
    assert_eq!(
        other,
        "the certificate is for live.example.org, *.live.example.org, 203.0.113.7, not for the `host` video.example.org"
    );
    let unnamed = issued(&[]).read(None).unwrap().refused(on(1)).unwrap();
    assert!(unnamed.contains("no subjectAltName"), "{unnamed}");
}

#[test]
fn unusable_certificate_is_named_with_its_file() {
    let (one, other) = (issued(&["a.example"]), issued(&["a.example"]));
    let read = |files: &CertificateFiles| std::fs::read_to_string(&files.chain).unwrap();
    let key = std::fs::read_to_string(&other.files.key).unwrap();
    let mixed = Files::new(&read(&one.files), &key).read(None).unwrap_err();
    assert_eq!(mixed, "the key ./key.pem is not that of the certificate ./chain.pem");
    let old = Files::new(VERSION_1, VERSION_1).read(None).unwrap_err();
    assert!(old.starts_with("the certificate ./chain.pem is of X.509 version 1 or 2"), "{old}");
    let empty = Files::new("", &key).read(None).unwrap_err();
    assert_eq!(empty, "found no certificate in ./chain.pem");
}
