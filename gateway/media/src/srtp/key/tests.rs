use super::*;

/// The key of RFC 4568, 6.1.
const INLINE: &str = "inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";
const BYTES: &[u8; 30] = b"wDfvg&T+)xG7@fb5jU,RaA}\\|p0%*#";
const PROFILE: SrtpProfile = SrtpProfile::Aes128CmHmacSha1Tag80;

fn refusal(parameters: &str) -> SrtpKeyError {
    SrtpKey::from_inline(PROFILE, parameters).unwrap_err()
}

#[test]
fn inline_key_is_read_and_written() {
    for lifetime in ["", "|2^20", "|2^48", "|1048576"] {
        let key = SrtpKey::from_inline(PROFILE, &format!("{INLINE}{lifetime}")).unwrap();
        assert_eq!((key.key(), key.salt()), (&BYTES[..16], &BYTES[16..]));
        assert_eq!(key.to_inline().as_str(), INLINE);
    }
    assert!(SrtpKey::from_inline(PROFILE, &INLINE.replace("inline", "INLINE")).is_ok());
}

#[test]
fn inline_key_of_each_profile_is_read_back() {
    for profile in SrtpProfile::ALL {
        let bytes: Vec<u8> = (100..).take(profile.key_len() + profile.salt_len()).collect();
        let (key, salt) = bytes.split_at(profile.key_len());
        let text = SrtpKey::new(profile, key, salt).unwrap().to_inline();
        for text in [text.as_str(), text.trim_end_matches('=')] {
            let read = SrtpKey::from_inline(profile, text).unwrap();
            assert_eq!((read.key(), read.salt()), (key, salt), "{text}");
        }
        assert_eq!(profile.name().parse(), Ok(profile));
        assert_eq!(profile.name().to_ascii_lowercase().parse(), Ok(profile));
    }
}

#[test]
fn mki_is_refused_by_name() {
    for fields in ["|1:4", "|2^20|1:4", "|2^20|1:1"] {
        let error = refusal(&format!("{INLINE}{fields}"));
        assert_eq!(error, SrtpKeyError::Mki);
        assert!(error.to_string().contains("MKI"));
    }
}

#[test]
fn several_keys_are_refused() {
    assert_eq!(refusal(&format!("{INLINE}|2^20|1:4;{INLINE}|2^20|2:4")), SrtpKeyError::Several);
}

#[test]
fn lifetime_must_be_a_number_of_packets() {
    for lifetime in
        ["", "0", "2^49", "2^", "2^64", "281474976710657", "x", "+5", "2^+5", "2^20|2^20"]
    {
        assert_eq!(refusal(&format!("{INLINE}|{lifetime}")), SrtpKeyError::Lifetime, "{lifetime}");
    }
}

#[test]
fn method_other_than_inline_is_refused() {
    for parameters in ["", "d0RmdmcmVCspeEc3", "uri:d0RmdmcmVCspeEc3", " inline:d0Rm"] {
        assert_eq!(refusal(parameters), SrtpKeyError::Method, "{parameters}");
    }
}

#[test]
fn key_must_be_base64_of_the_profiles_length() {
    assert_eq!(refusal(&INLINE.replace('R', "-")), SrtpKeyError::Base64);
    assert_eq!(refusal(&INLINE[..INLINE.len() - 3]), SrtpKeyError::Base64);
    let length =
        |key_bytes, salt_bytes| SrtpKeyError::Length { profile: PROFILE, key_bytes, salt_bytes };
    assert_eq!(refusal(&INLINE[..INLINE.len() - 4]), length(16, 11));
    assert_eq!(refusal(&format!("{INLINE}AAAA")), length(16, 17));
    assert_eq!(refusal("inline:"), length(0, 0));
    assert_eq!(SrtpKey::new(PROFILE, &[1; 16], &[1; 12]).unwrap_err(), length(16, 12));
}

#[test]
fn unknown_suites_are_refused() {
    for name in ["", "F8_128_HMAC_SHA1_80", "AES_256_CM_HMAC_SHA1_32", "AEAD_AES_128_GCM_8"] {
        assert_eq!(name.parse::<SrtpProfile>(), Err(SrtpKeyError::Suite), "{name}");
    }
    let error = SrtpKeyError::Suite.to_string();
    assert!(SrtpProfile::ALL.iter().all(|profile| error.contains(profile.name())));
}

#[test]
fn neither_errors_nor_debug_contain_a_key() {
    let key = SrtpKey::from_inline(PROFILE, INLINE).unwrap();
    assert_eq!(format!("{key:?}"), "SrtpKey { profile: Aes128CmHmacSha1Tag80, .. }");
    let secret = &INLINE["inline:".len()..];
    for parameters in [
        secret.into(),
        format!("{INLINE}AAAA"),
        format!("{INLINE}|1:4"),
        format!("{INLINE};{INLINE}"),
        format!("{INLINE}|{secret}"),
        INLINE.replace('R', "-"),
    ] {
        let error = refusal(&parameters);
        let text = format!("{error} {error:?}");
        assert!(!text.contains(&secret[..8]), "{text}");
    }
    let error = secret.parse::<SrtpProfile>().unwrap_err();
    assert!(!error.to_string().contains(&secret[..8]));
}
