use super::*;

#[test]
fn record_travels_whole_and_shows_no_key() {
    let secret = |text: &str| SecretPem(text.to_owned().into());
    let record = CertificatesRecord { dtls: secret("first"), webtransport: Some(secret("second")) };
    let encoded = rmp_serde::to_vec_named(&record).unwrap();
    assert_eq!(rmp_serde::from_slice::<CertificatesRecord>(&encoded).unwrap(), record);
    let shown = format!("{record:?}");
    assert!(!shown.contains("first") && !shown.contains("second"), "{shown}");
}
