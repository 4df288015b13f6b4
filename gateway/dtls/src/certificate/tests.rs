use super::*;

#[test]
fn certificate_survives_its_file() {
    let certificate = DtlsCertificate::generate().unwrap();
    let again = DtlsCertificate::from_pem(certificate.to_pem()).unwrap();
    assert_eq!(again.fingerprint(), certificate.fingerprint());
    assert_eq!(again.to_pem(), certificate.to_pem());
    assert_ne!(DtlsCertificate::generate().unwrap().fingerprint(), certificate.fingerprint());
}

#[test]
fn sections_are_read_in_any_order() {
    let certificate = DtlsCertificate::generate().unwrap();
    let at = certificate.to_pem().find("-----BEGIN PRIVATE KEY").unwrap();
    let (first, second) = certificate.to_pem().split_at(at);
    let swapped = DtlsCertificate::from_pem(&format!("{second}{first}")).unwrap();
    assert_eq!(swapped.fingerprint(), certificate.fingerprint());
    let read = |pem| DtlsCertificate::from_pem(pem).unwrap_err();
    assert_eq!(read(first), CertificateError::NoKey);
    assert_eq!(read(second), CertificateError::NoCertificate);
    assert_eq!(read(""), CertificateError::NoCertificate);
}

#[test]
fn key_of_another_certificate_is_refused() {
    let [one, other] = [(); 2].map(|()| DtlsCertificate::generate().unwrap());
    let at = |pem: &str| pem.find("-----BEGIN PRIVATE KEY").unwrap();
    let mixed = one.to_pem()[..at(one.to_pem())].to_owned() + &other.to_pem()[at(other.to_pem())..];
    let error = DtlsCertificate::from_pem(&mixed).unwrap_err();
    assert_eq!(error, CertificateError::OtherKey);
}

#[test]
fn key_of_another_curve_is_refused() {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap();
    let pem = certificate.pem() + &key.serialize_pem();
    assert_eq!(DtlsCertificate::from_pem(&pem).unwrap_err(), CertificateError::KeyType);
}

#[test]
fn debug_omits_the_key() {
    let certificate = DtlsCertificate::generate().unwrap();
    let text = format!("{certificate:?}");
    assert!(text.starts_with("DtlsCertificate { sha256: ["), "{text}");
    assert!(text.ends_with("], .. }"), "{text}");
}
