//! Tokens of each kind of key, and forged ones.

use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use evenkeel_fuzz::Corpus;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use serde_json::{Value, json};

use crate::token::{ClientDirection, TokenClaims, TokenKeys, TokenRefusal, Validity};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims() -> Value {
    json!({
        "scenario": "live", "room": "stage", "direction": "publish", "exp": now() + 60, "jti": "id-1",
        "labels": {"region": "east"}, "latency": "200ms", "iss": "example",
    })
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    format!("{}.{}", part(header), part(claims))
}

fn joined(message: &str, signature: &[u8]) -> String {
    format!("{message}.{}", BASE64URL_NOPAD.encode(signature))
}

fn hs256(secret: &[u8], claims: &Value) -> String {
    let message = unsigned(&json!({"alg": "HS256", "typ": "JWT"}), claims);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    joined(&message, hmac::sign(&key, message.as_bytes()).as_ref())
}

fn shared() -> TokenKeys {
    TokenKeys::read(SECRET).unwrap()
}

#[test]
fn token_of_each_key_kind_is_verified() {
    let right = TokenClaims {
        scenario: "live".into(),
        room: "stage".into(),
        direction: ClientDirection::Publish,
        labels: [("region".into(), "east".into())].into(),
        latency: Some("200ms".into()),
        id: "id-1".into(),
        reuse: false,
        sessions: None,
    };
    let line = [SECRET, b"\n"].concat();
    let found = TokenKeys::read(&line).unwrap().verify(&hs256(SECRET, &claims()), Validity::Now);
    assert_eq!(found, Ok(right.clone()));

    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let message = unsigned(&json!({"alg": "ES256"}), &claims());
    let random = SystemRandom::new();
    let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pair = EcdsaKeyPair::from_pkcs8(kind, &key.serialize_der(), &random).unwrap();
    let token = joined(&message, pair.sign(&random, message.as_bytes()).unwrap().as_ref());
    let public = TokenKeys::read(key.public_key_pem().as_bytes()).unwrap();
    assert_eq!(public.verify(&token, Validity::Now), Ok(right.clone()));

    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let message = unsigned(&json!({"alg": "EdDSA"}), &claims());
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&key.serialize_der()).unwrap();
    let token = joined(&message, pair.sign(message.as_bytes()).as_ref());
    let public = TokenKeys::read(key.public_key_pem().as_bytes()).unwrap();
    assert_eq!(public.verify(&token, Validity::Now), Ok(right));
    let other = message.replace("EdDSA", "ES256");
    assert_ne!(public.verify(&joined(&other, &[0; 64]), Validity::Now).err(), None);
}

#[test]
fn token_of_either_key_is_verified() {
    let (new, old) = ([b'n'; 32], [b'o'; 32]);
    let keys = TokenKeys::read(&[&new[..], b"\r\n", &old, b"\n\n"].concat()).unwrap();
    let refusal = |token: &str| keys.verify(token, Validity::Now).err();
    for key in [new, old] {
        assert_eq!(refusal(&hs256(&key, &claims())), None);
    }
    assert_eq!(refusal(&hs256(SECRET, &claims())), Some(TokenRefusal::Signature));
    let mut past = claims();
    past["exp"] = 1.into();
    assert_eq!(
        refusal(&hs256(&old, &past)),
        Some(TokenRefusal::Expired),
        "its reason, not the other's"
    );

    let pairs =
        [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519].map(|kind| KeyPair::generate_for(kind).unwrap());
    let pem: String = pairs.iter().map(KeyPair::public_key_pem).collect();
    let keys = TokenKeys::read(pem.as_bytes()).unwrap();
    let message = unsigned(&json!({"alg": "EdDSA"}), &claims());
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pairs[1].serialize_der()).unwrap();
    let token = joined(&message, pair.sign(message.as_bytes()).as_ref());
    assert!(keys.verify(&token, Validity::Now).is_ok(), "a key of another kind");
    let forged = joined(&unsigned(&json!({"alg": "ES256"}), &claims()), &[0; 64]);
    let refusal = keys.verify(&forged, Validity::Now);
    assert_eq!(refusal, Err(TokenRefusal::Signature), "the first key has this algorithm");
}

#[test]
fn forged_token_is_refused() {
    let refused = |token: &str| shared().verify(token, Validity::Now).unwrap_err();
    assert_eq!(refused(&hs256(&[b'x'; 32], &claims())), TokenRefusal::Signature);
    let token = hs256(SECRET, &claims());
    let (message, signature) = token.rsplit_once('.').unwrap();
    let other = unsigned(&json!({"alg": "HS256", "typ": "JWT"}), &json!({"room": "other"}));
    assert_eq!(refused(&format!("{other}.{signature}")), TokenRefusal::Signature);
    assert_eq!(refused(&format!("{message}.")), TokenRefusal::Signature);
    for none in ["none", "None", "NONE"] {
        let message = unsigned(&json!({"alg": none}), &claims());
        for signature in ["", signature] {
            let refusal = refused(&format!("{message}.{signature}"));
            assert_eq!(refusal.name(), "malformed", "{none}: {refusal}");
        }
    }
    for broken in ["", "a", "a.b", "a.b.c", "..", &token[1..], &format!("{token}.{token}")] {
        assert_eq!(refused(broken).name(), "malformed", "{broken}");
    }
}

#[test]
fn refusal_names_what_is_expected() {
    let refused = |token: &str| shared().verify(token, Validity::Now).unwrap_err().to_string();
    let signature = BASE64URL_NOPAD.encode(&[0; 32]);
    let with = |header: Value| format!("{}.{signature}", unsigned(&header, &claims()));
    assert_eq!(
        refused(&with(json!({"alg": "RS256"}))),
        "the token is signed by another algorithm; expected `alg` HS256, by the key in `token_key_file`"
    );
    for token in [with(json!({"alg": "none"})), with(json!({"typ": "JWT"})), "secret".to_owned()] {
        let words = refused(&token);
        assert!(words.contains("expected a header with `alg` HS256, claims and a"), "{words}");
    }
    let token = hs256(SECRET, &claims());
    assert!(refused(&format!("{token}=")).contains("base64url without padding"));
    let mut claims = claims();
    claims["direction"] = "both".into();
    let words = refused(&hs256(SECRET, &claims));
    assert!(words.contains("claims: unknown variant `both`, expected `publish` or"), "{words}");
    claims["direction"] = "view".into();
    claims["nbf"] = "now".into();
    let words = refused(&hs256(SECRET, &claims));
    assert!(words.contains("`nbf` has another type"), "{words}");
    claims["exp"] = "tomorrow".into();
    let words = refused(&hs256(SECRET, &claims));
    assert!(words.contains("`exp` is missing, or no number of seconds"), "{words}");
}

#[test]
fn public_key_is_no_shared_secret() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let pem = key.public_key_pem();
    let verifier = TokenKeys::read(pem.as_bytes()).unwrap();
    let der = key.subject_public_key_info();
    for secret in [pem.as_bytes(), pem.trim_end().as_bytes(), &der, &der[26..]] {
        let refusal = verifier.verify(&hs256(secret, &claims()), Validity::Now);
        assert_eq!(refusal, Err(TokenRefusal::Algorithm("ES256")));
    }
}

#[test]
fn times_are_checked_with_slack() {
    let with = |key: &str, value: u64| {
        let mut claims = claims();
        claims[key] = value.into();
        hs256(SECRET, &claims)
    };
    let now = now();
    let verify = |token: &str, validity| shared().verify(token, validity).err();
    assert_eq!(verify(&with("exp", now - 30), Validity::Now), Some(TokenRefusal::Expired));
    assert_eq!(verify(&with("exp", now - 30), Validity::Once), None);
    assert_eq!(verify(&with("exp", now - 2), Validity::Now), None);
    assert_eq!(verify(&with("nbf", now + 60), Validity::Now), Some(TokenRefusal::Early));
    assert_eq!(verify(&with("nbf", now + 2), Validity::Now), None);
}

#[test]
fn missing_or_wrong_claim_is_refused() {
    for claim in ["scenario", "room", "direction", "exp", "jti"] {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(claim);
        let refusal = shared().verify(&hs256(SECRET, &claims), Validity::Once).unwrap_err();
        assert_eq!(refusal.name(), "malformed");
        assert!(refusal.to_string().contains(&format!("`{claim}`")), "{refusal}");
    }
    let wrong = [
        ("direction", json!("both")),
        ("exp", json!("tomorrow")),
        ("jti", json!("")),
        ("jti", json!("with space")),
        ("jti", json!("x".repeat(121))),
        ("labels", json!({"region": 1})),
        ("latency", json!(200)),
        ("aud", json!("another")),
        ("room", json!(null)),
    ];
    for (claim, value) in wrong {
        let mut claims = claims();
        claims[claim] = value;
        let refusal = shared().verify(&hs256(SECRET, &claims), Validity::Now).unwrap_err();
        assert_eq!(refusal.name(), "malformed", "{claim}: {refusal}");
    }
    let mut longest = claims();
    longest["jti"] = "x".repeat(120).into();
    assert!(shared().verify(&hs256(SECRET, &longest), Validity::Now).is_ok());
}

#[test]
fn token_of_another_purpose_is_named() {
    let claims = shared().verify(&hs256(SECRET, &claims()), Validity::Now).unwrap();
    let check = |direction, scenario, room| claims.check(direction, scenario, room);
    let (publish, view) = (ClientDirection::Publish, ClientDirection::View);
    assert_eq!(check(publish, "live", "stage"), Ok(()));
    assert_eq!(check(view, "live", "stage"), Err(TokenRefusal::Direction));
    assert_eq!(check(publish, "call", "stage"), Err(TokenRefusal::Scenario));
    assert_eq!(check(publish, "live", "stage2"), Err(TokenRefusal::Room));
}

#[test]
fn unusable_key_is_refused() {
    let found = |file: &[u8]| TokenKeys::read(file).unwrap_err().found;
    assert_eq!(found(&SECRET[1..]), "a secret of 31 bytes");
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    assert_eq!(found(key.serialize_pem().as_bytes()), "a private key");
    let three = key.public_key_pem().repeat(3);
    assert_eq!(found(three.as_bytes()), "3 sections `PUBLIC KEY`");
    let secrets = |number: usize| [SECRET, b"\n"].concat().repeat(number);
    assert_eq!(found(&secrets(3)), "3 secrets");
    assert_eq!(found(&[&secrets(1)[..], &SECRET[1..]].concat()), "a secret of 31 bytes");
    assert_eq!(found(b"\n"), "0 secrets");
    assert_eq!(found(b"-----BEGIN CERTIFICATE REQUEST"), "PEM that cannot be read");
    let none = b"-----BEGIN X-----\nAAAA\n-----END X-----\n";
    assert_eq!(found(none), "0 sections `PUBLIC KEY`");
    let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    assert_eq!(found(other.public_key_pem().as_bytes()), "a public key of another kind");
}

#[test]
fn debug_output_omits_the_key() {
    let shown = format!("{:?}", shared());
    assert_eq!(shown, "TokenKeys([TokenKey { algorithm: HS256, .. }])");
}

#[test]
fn fuzz_token() {
    let mut claims = claims();
    claims["exp"] = 1.into();
    let (right, key) = (hs256(SECRET, &claims), shared());
    Corpus::of("token").with(right.clone()).check(|text| {
        let text = String::from_utf8_lossy(text);
        let verified = key.verify(&text, Validity::Once);
        assert_eq!(verified.is_ok(), text == right, "{verified:?}");
    });
}

#[test]
fn fuzz_token_claims() {
    let key = shared();
    Corpus::of("token_claims").with(claims().to_string()).check(|claims| {
        let header = BASE64URL_NOPAD.encode(b"{\"alg\":\"HS256\"}");
        let message = format!("{header}.{}", BASE64URL_NOPAD.encode(claims));
        let signer = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
        let token = joined(&message, hmac::sign(&signer, message.as_bytes()).as_ref());
        match key.verify(&token, Validity::Now) {
            Ok(claims) => {
                assert!((1..=120).contains(&claims.id.len()));
                assert!(claims.id.bytes().all(|byte| byte.is_ascii_graphic()));
            }
            Err(refusal) => assert_ne!(refusal, TokenRefusal::Signature),
        }
    });
}

#[test]
fn token_of_several_sessions_says_how_many() {
    let verified = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        shared().verify(&hs256(SECRET, &claims), Validity::Now)
    };
    assert!(verified("reuse", json!(true)).unwrap().reuse);
    assert_eq!(verified("sessions", json!(3)).unwrap().sessions, Some(3));
    for (found, named) in [(0, "found `sessions` 0"), (1_001, "found `sessions` 1001")] {
        let refused = verified("sessions", json!(found)).unwrap_err().to_string();
        assert!(refused.contains(named) && refused.contains("expected 1 to 1000"), "{refused}");
    }
    let mut both = claims();
    (both["reuse"], both["sessions"]) = (json!(true), json!(1));
    let refused = shared().verify(&hs256(SECRET, &both), Validity::Now).unwrap_err().to_string();
    assert!(refused.contains("found `reuse` and `sessions`"), "{refused}");
}
