use super::*;

/// Fingerprints of `abc`: FIPS 180-2, appendices B.1, D.1 and C.1.
const ABC: [&str; 3] = [
    "sha-256 BA:78:16:BF:8F:01:CF:EA:41:41:40:DE:5D:AE:22:23:B0:03:61:A3:96:17:7A:9C:B4:10:FF:61:F2:00:15:AD",
    "sha-384 CB:00:75:3F:45:A3:5E:8B:B5:A0:3D:69:9A:C6:50:07:27:2C:32:AB:0E:DE:D1:63:1A:8B:60:5A:43:FF:5B:ED:\
     80:86:07:2B:A1:E7:CC:23:58:BA:EC:A1:34:C8:25:A7",
    "sha-512 DD:AF:35:A1:93:61:7A:BA:CC:41:73:49:AE:20:41:31:12:E6:FA:4E:89:A9:7E:A2:0A:9E:EE:E6:4B:55:D3:9A:\
     21:92:99:2A:27:4F:C1:A8:36:BA:3C:23:A3:FE:EB:BD:45:4D:44:23:64:3C:E8:0E:2A:9A:C9:4F:A5:4C:A4:9F",
];

fn parse(value: &str) -> Result<CertificateFingerprint, FingerprintError> {
    value.parse()
}

#[test]
fn fingerprint_matches_its_certificate_alone() {
    for value in ABC {
        let fingerprint = parse(value).unwrap();
        assert!(fingerprint.matches(b"abc"), "{value}");
        assert!(!fingerprint.matches(b"abd") && !fingerprint.matches(b""), "{value}");
    }
}

#[test]
fn value_is_read_in_any_case_and_written() {
    for value in ABC {
        let fingerprint = parse(value).unwrap();
        assert_eq!(fingerprint.to_string(), value);
        assert_eq!(parse(&value.to_lowercase()), Ok(fingerprint.clone()));
        assert_eq!(parse(&value.to_uppercase()), Ok(fingerprint));
    }
}

#[test]
fn weak_hash_functions_are_refused() {
    for hash in ["sha-1", "sha-224", "md5", "sha256", ""] {
        let value = ABC[0].replace("sha-256", hash);
        assert_eq!(parse(&value), Err(FingerprintError::Hash), "{hash}");
    }
}

#[test]
fn malformed_values_are_refused() {
    let sha_256 = ABC[0];
    for (from, to) in [
        ("sha-256 ", ""),
        ("sha-256 ", "sha-256"),
        ("sha-256 ", "sha-256  "),
        ("BA:", ""),
        ("BA:", "BA:BA:"),
        ("BA:", "BA"),
        ("BA:", "BG:"),
        ("BA:", "+A:"),
        ("BA:", "A:"),
        ("BA:", "0BA:"),
        (":AD", ""),
        (":AD", ":AD:"),
        (":AD", ":AD "),
        ("sha-256", "sha-384"),
    ] {
        let value = sha_256.replacen(from, to, 1);
        assert_ne!(value, sha_256, "{from}");
        assert_eq!(parse(&value), Err(FingerprintError::Form), "{value}");
    }
    assert_eq!(parse(""), Err(FingerprintError::Form));
    assert_eq!(parse("sha-256 "), Err(FingerprintError::Form));
}

#[test]
fn fingerprint_survives_a_record_with_its_length() {
    for value in ABC {
        let fingerprint = parse(value).unwrap();
        let record = rmp_serde::to_vec_named(&fingerprint).unwrap();
        let read: CertificateFingerprint = rmp_serde::from_slice(&record).unwrap();
        assert_eq!(read, fingerprint);
    }
    let other = "Sha512".as_bytes();
    let mut record = rmp_serde::to_vec_named(&parse(ABC[0]).unwrap()).unwrap();
    let place = record.windows(other.len()).position(|name| name == b"Sha256").unwrap();
    record[place..place + other.len()].copy_from_slice(other);
    let error = rmp_serde::from_slice::<CertificateFingerprint>(&record).unwrap_err().to_string();
    assert!(error.contains("32") && error.contains("64 bytes"), "{error}");
}
