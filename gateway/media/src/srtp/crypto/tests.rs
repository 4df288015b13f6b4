use super::*;

const KEY: &str = "inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";

fn parse(value: &str) -> Result<CryptoAttribute, SrtpKeyError> {
    value.parse()
}

#[test]
fn attribute_of_rfc_4568_is_read_and_written() {
    let value = format!("1 AES_CM_128_HMAC_SHA1_80 {KEY}");
    let attribute = parse(&format!("{value}|2^20 -WSH=64")).unwrap();
    assert_eq!(attribute.tag, 1);
    assert_eq!(attribute.key.profile(), SrtpProfile::Aes128CmHmacSha1Tag80);
    assert_eq!(*attribute.to_value(), value);
    assert!(!format!("{attribute:?}").contains("d0Rm"));
}

#[test]
fn attributes_that_the_gateway_cannot_use_are_refused() {
    let refused = |value: &str| parse(value).unwrap_err();
    assert_eq!(refused("1 AES_CM_128_HMAC_SHA1_80"), SrtpKeyError::Attribute);
    assert_eq!(refused(&format!("+1 AES_CM_128_HMAC_SHA1_80 {KEY}")), SrtpKeyError::Attribute);
    assert_eq!(
        refused(&format!("1234567890 AES_CM_128_HMAC_SHA1_80 {KEY}")),
        SrtpKeyError::Attribute
    );
    assert_eq!(refused(&format!("1 F8_128_HMAC_SHA1_80 {KEY}")), SrtpKeyError::Suite);
    assert_eq!(refused(&format!("1 AES_CM_128_HMAC_SHA1_80 {KEY}|1:4")), SrtpKeyError::Mki);
    let parameter = format!("1 AES_CM_128_HMAC_SHA1_80 {KEY} UNENCRYPTED_SRTP");
    assert_eq!(refused(&parameter), SrtpKeyError::SessionParameter);
}

#[test]
fn first_supported_attribute_is_accepted() {
    let offered = [
        "1 F8_128_HMAC_SHA1_80 inline:AAAA".to_owned(),
        format!("7 AES_CM_128_HMAC_SHA1_32 {KEY}"),
    ];
    let keys = SrtpKeys::accept(offered.iter().map(|value| value.parse()), |bytes| bytes.fill(5));
    let keys = keys.unwrap();
    assert_eq!((keys.tag, keys.answer().unwrap().tag), (Some(7), 7));
    assert_eq!(keys.profile(), keys.gateway.profile());
    assert_eq!((keys.gateway.key(), keys.gateway.salt()), (&[5; 16][..], &[5; 14][..]));

    let none = SrtpKeys::accept(offered[..1].iter().map(|value| value.parse()), |_| {});
    assert_eq!(none, Err(SrtpKeyError::Suite));
    let with_mki = [offered[0].clone(), format!("7 AES_CM_128_HMAC_SHA1_32 {KEY}|1:4")];
    let none = SrtpKeys::accept(with_mki.iter().map(|value| value.parse()), |_| {});
    assert_eq!(none, Err(SrtpKeyError::Mki), "the suite is known");
}

#[test]
fn keys_in_a_record_are_the_same() {
    let offered = [format!("7 AES_CM_128_HMAC_SHA1_32 {KEY}")];
    let keys = SrtpKeys::accept(offered.iter().map(|value| value.parse()), |bytes| bytes.fill(5));
    let keys = keys.unwrap();
    let record = rmp_serde::to_vec_named(&keys).unwrap();
    assert_eq!(rmp_serde::from_slice::<SrtpKeys>(&record).unwrap(), keys);
}
