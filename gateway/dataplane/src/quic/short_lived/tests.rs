use super::*;
use crate::quic::x509::not_after;

const NAME: &str = "localhost";

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn certificates() -> ShortLivedCertificates {
    ShortLivedCertificates::generate(vec![NAME.into()], start()).unwrap()
}

#[test]
fn certificate_is_of_p256_and_valid_for_13_days() {
    let CertificatePair { current, next } = certificates().pair().clone();
    for certificate in [current, next] {
        let der = &certificate.key.cert[0];
        let (from, until) = (not_before(der).unwrap(), not_after(der).unwrap());
        assert_eq!(until.duration_since(from).unwrap(), 13 * DAY);
        assert_eq!(certificate.used_from.duration_since(from).unwrap(), DAY);
        assert!(certificate.used_from + USED_FOR < until);
        assert_eq!(certificate.key.key.algorithm(), rustls::SignatureAlgorithm::ECDSA);
        let schemes = [rustls::SignatureScheme::ECDSA_NISTP256_SHA256];
        assert!(certificate.key.key.choose_scheme(&schemes).is_some());
    }
}

#[test]
fn announced_certificate_replaces_the_first_after_7_days() {
    let certificates = certificates();
    let [first, second] = certificates.sha256();
    assert_ne!(first, second);
    let just_before = start() + 7 * DAY - Duration::from_secs(1);
    assert!(!certificates.renew(just_before).unwrap());
    assert_eq!(certificates.sha256(), [first, second]);

    assert!(certificates.renew(start() + 7 * DAY).unwrap());
    let [current, third] = certificates.sha256();
    assert_eq!(current, second);
    assert_ne!(third, first);
    assert!(!certificates.renew(start() + 14 * DAY - Duration::from_secs(1)).unwrap());
    assert_eq!(sha256(&certificates.current().cert[0]), second);
    assert!(certificates.renew(start() + 14 * DAY).unwrap());
    assert_eq!(certificates.sha256()[0], third);
}

#[test]
fn certificates_that_are_not_valid_are_replaced() {
    let before = certificates().to_pem();
    // A host was off for two weeks; the clock of another was set back by more than a day.
    for now in [start() + 14 * DAY, start() - DAY - Duration::from_secs(1)] {
        let certificates = ShortLivedCertificates::from_pem(vec![NAME.into()], &before).unwrap();
        let old = certificates.sha256();
        assert!(certificates.renew(now).unwrap());
        assert!(certificates.sha256().iter().all(|new| !old.contains(new)));
        assert_eq!(certificates.pair().current.used_from, now);
    }
    let certificates = ShortLivedCertificates::from_pem(vec![NAME.into()], &before).unwrap();
    assert!(!certificates.renew(start() - DAY).unwrap());
}

#[test]
fn pem_has_both_certificates() {
    let certificates = certificates();
    let pem = certificates.to_pem();
    let again = ShortLivedCertificates::from_pem(vec![NAME.into()], &pem).unwrap();
    assert_eq!(again.sha256(), certificates.sha256());
    assert_eq!(again.to_pem(), pem);
    let keyless = pem.replace("PRIVATE KEY", "OTHER KEY");
    for wrong in ["", "text", &keyless, &pem[..pem.len() / 2]] {
        let error = ShortLivedCertificates::from_pem(vec![NAME.into()], wrong).unwrap_err();
        assert!(matches!(error, ShortLivedError::Sections), "{error}");
    }
    // The keys of two certificates, swapped.
    let CertificatePair { current, next } = certificates.pair().clone();
    let (current, next) = (current.pem, next.pem);
    let key_of = |pem: &str| pem.find("-----BEGIN PRIVATE").unwrap();
    let mixed = [&current[..key_of(&current)], &next[key_of(&next)..], &next[..]].concat();
    let error = ShortLivedCertificates::from_pem(vec![NAME.into()], &mixed).unwrap_err();
    assert!(matches!(error, ShortLivedError::Certificate(_)), "{error}");
}

#[test]
fn certificates_of_another_process_replace_both() {
    let (own, other) = (certificates(), certificates());
    assert!(own.replace(&other.to_pem()).unwrap());
    assert_eq!(own.sha256(), other.sha256());
    assert_eq!(sha256(&own.current().cert[0]), other.sha256()[0]);
    assert!(!own.replace(&other.to_pem()).unwrap(), "they are equal");
    assert!(own.replace("text").is_err());
    assert_eq!(own.sha256(), other.sha256());
}

#[test]
fn debug_output_has_no_key() {
    let text = format!("{:?}", certificates());
    assert!(text.starts_with("ShortLivedCertificates { sha256: [["), "{text}");
    assert!(text.ends_with(", .. }"), "{text}");
}
