use evenkeel_fuzz::Corpus;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaSigningAlgorithm,
};

use super::*;

struct Certified {
    der: Vec<u8>,
    key: EcdsaKeyPair,
}

fn certified(
    algorithm: &'static rcgen::SignatureAlgorithm,
    signing: &'static EcdsaSigningAlgorithm,
) -> Certified {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let der = CertificateParams::default().self_signed(&key).unwrap().der().to_vec();
    let key = EcdsaKeyPair::from_pkcs8(signing, &key.serialize_der(), &SystemRandom::new());
    Certified { der, key: key.unwrap() }
}

#[test]
fn signatures_verify_by_the_certificate() {
    let p256 = certified(&PKCS_ECDSA_P256_SHA256, &ECDSA_P256_SHA256_ASN1_SIGNING);
    let p384 = certified(&PKCS_ECDSA_P384_SHA384, &ECDSA_P384_SHA384_ASN1_SIGNING);
    for (own, other, hash) in
        [(&p256, &p384, HashAlgorithm::SHA256), (&p384, &p256, HashAlgorithm::SHA384)]
    {
        let signature = own.key.sign(&SystemRandom::new(), b"transcript").unwrap();
        let verify = |certificate: &Certified, data: &[u8], hash| {
            let algorithm = SignatureAlgorithm::ECDSA;
            Ring.verify_signature(&certificate.der, data, signature.as_ref(), hash, algorithm)
        };
        assert_eq!(verify(own, b"transcript", hash), Ok(()));
        for failed in [
            verify(own, b"another", hash),
            verify(other, b"transcript", hash),
            verify(own, b"transcript", HashAlgorithm::SHA1),
        ] {
            failed.unwrap_err();
        }
    }
}

#[test]
fn certificate_of_version_1_is_read() {
    let Certified { der, key } =
        certified(&PKCS_ECDSA_P256_SHA256, &ECDSA_P256_SHA256_ASN1_SIGNING);
    let point = signature::KeyPair::public_key(&key).as_ref();
    let group = NamedGroup::Secp256r1;
    assert_eq!(public_key(&der), Ok(PublicKey { group, point }));
    // Version 1 has no field for it.
    let (certificate, _) = element(&der, Some(SEQUENCE)).unwrap();
    let (fields, signature) = element(certificate, Some(SEQUENCE)).unwrap();
    let (_, fields) = element(fields, Some(VERSION)).unwrap();
    let sequence = |contents: &[u8]| {
        let length = u16::try_from(contents.len()).unwrap().to_be_bytes();
        [&[SEQUENCE, 0x82], &length[..], contents].concat()
    };
    let first = sequence(&[&sequence(fields), signature].concat());
    assert_eq!(public_key(&first), Ok(PublicKey { group, point }));
}

#[test]
fn certificate_of_another_key_type_is_refused() {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let der = CertificateParams::default().self_signed(&key).unwrap().der().to_vec();
    assert_eq!(public_key(&der), Err(CryptoError::UnsupportedPublicKeyAlgorithm));
}

#[test]
fn fuzz_certificate() {
    let Certified { der, .. } = certified(&PKCS_ECDSA_P256_SHA256, &ECDSA_P256_SHA256_ASN1_SIGNING);
    Corpus::of("dtls_certificate").with(der).check(|der| {
        if let Ok(key) = public_key(der) {
            assert!(key.point.len() < der.len());
        }
    });
}
