use super::*;

/// The smallest module: eight bytes.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";

fn found(plugin: &[u8]) -> &'static str {
    match signer(plugin) {
        Err(PluginRefusal::Signature(found)) => found,
        other => panic!("{other:?}"),
    }
}

#[test]
fn keys_round_trip_as_text() {
    let key = SecretKey::generate();
    assert_eq!(SecretKey::read(&format!("{}\n", key.text())).unwrap().public(), key.public());
    assert_eq!(key.public().to_string().parse(), Ok(key.public()));
    assert!(!format!("{key:?}").contains(&key.text()[SECRET.len()..]));
    for bad in ["", "ed25519:", "ed25519:00", &format!("{PUBLIC}{}", "g".repeat(64)), &key.text()] {
        assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
    }
    assert!(SecretKey::read(&key.public().to_string()).is_err(), "a public key cannot sign");
}

#[test]
fn signature_matches_rfc_8032() {
    // RFC 8032, section 7.1, test 1.
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let key = SecretKey::read(&format!("{SECRET}{seed}")).unwrap();
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    assert_eq!(key.public().to_string(), format!("{PUBLIC}{public}"));
    let signed = sign(MODULE, &key).unwrap();
    assert_eq!(signed.len(), MODULE.len() + SECTION_BYTES);
    assert_eq!(signed, sign(MODULE, &key).unwrap(), "deterministic");
    assert_eq!(signer(&signed), Ok(Some(key.public())));
    assert_eq!(signer(MODULE), Ok(None));
}

#[test]
fn any_changed_byte_is_detected() {
    let signed = sign(MODULE, &SecretKey::generate()).unwrap();
    for at in 0..signed.len() {
        let mut changed = signed.clone();
        changed[at] ^= 1;
        let seen = signer(&changed);
        let is_unsigned = seen == Ok(None);
        // A section of another kind or name is not a signature.
        let in_name = (MODULE.len()..MODULE.len() + 21).contains(&at);
        assert!(seen.is_err() || (is_unsigned && in_name), "byte {at}: {seen:?}");
    }
}

#[test]
fn signing_again_replaces_the_signature() {
    let (first, second) = (SecretKey::generate(), SecretKey::generate());
    let once = sign(MODULE, &first).unwrap();
    let again = sign(&once, &second).unwrap();
    assert_eq!(signer(&again), Ok(Some(second.public())));
    assert_eq!(again, sign(MODULE, &second).unwrap());
    assert_eq!(digests(&again).unwrap()[1], digests(MODULE).unwrap()[1]);
}

#[test]
fn second_signature_or_trailing_bytes_are_refused() {
    let signed = sign(MODULE, &SecretKey::generate()).unwrap();
    let section = &signed[MODULE.len()..];
    assert!(found(&[&signed, section].concat()).contains("more than one"));
    let after = [&signed[..], b"\0\x02\x01x"].concat();
    assert!(found(&after).contains("not at the end"));
    assert!(matches!(signer(&[&signed[..], b"\0"].concat()), Err(PluginRefusal::NotWasm(_))));
}

#[test]
fn signature_has_one_encoding() {
    let signed = sign(MODULE, &SecretKey::generate()).unwrap();
    let content = &signed[MODULE.len() + 2..];
    // The same number in two bytes, which LEB128 allows.
    let longer = [MODULE, b"\0\xf4\0", content].concat();
    assert!(found(&longer).contains("not at the end"));
    let mut version = signed.clone();
    version[MODULE.len() + HEAD.len() - 1] = 2;
    assert!(found(&version).contains("not at the end"));
}

#[test]
fn key_of_a_signature_cannot_be_replaced() {
    let signed = sign(MODULE, &SecretKey::generate()).unwrap();
    let other = SecretKey::generate().public();
    let at = MODULE.len() + HEAD.len();
    let mut changed = signed.clone();
    changed[at..at + KEY_BYTES].copy_from_slice(&other.0);
    assert!(found(&changed).contains("does not match"));
}

fn knowing(key: &SecretKey) -> TrustedKeys {
    let mut keys = TrustedKeys::default();
    keys.add("ops".into(), key.public());
    keys
}

#[test]
fn signature_by_a_known_key_is_accepted() {
    let (ours, theirs) = (SecretKey::generate(), SecretKey::generate());
    let keys = knowing(&ours);
    let signed = sign(MODULE, &ours).unwrap();
    assert_eq!(keys.judge(&signed, UnsignedPlugins::Refuse), Ok(Provenance::Signed("ops".into())));
    let by_another = sign(MODULE, &theirs).unwrap();
    let by = Some(theirs.public().to_string().into());
    assert_eq!(keys.judge(&by_another, UnsignedPlugins::Refuse), Err(PluginRefusal::Unsigned(by)));
    assert_eq!(keys.judge(&by_another, UnsignedPlugins::Allow), Ok(Provenance::Unsigned));
    assert_eq!(keys.judge(MODULE, UnsignedPlugins::Refuse), Err(PluginRefusal::Unsigned(None)));
    assert_eq!(keys.judge(MODULE, UnsignedPlugins::Allow), Ok(Provenance::Unsigned));
}

#[test]
fn invalid_signature_is_refused_even_if_optional() {
    let mut signed = sign(MODULE, &SecretKey::generate()).unwrap();
    *signed.last_mut().unwrap() ^= 1;
    let seen = TrustedKeys::default().judge(&signed, UnsignedPlugins::Allow);
    assert!(matches!(seen, Err(PluginRefusal::Signature(..))), "{seen:?}");
}

#[test]
fn revoked_plugin_is_refused_despite_trust() {
    let key = SecretKey::generate();
    let signed = sign(MODULE, &key).unwrap();
    let is_revoked = |keys: &TrustedKeys, plugin: &[u8]| {
        matches!(keys.judge(plugin, UnsignedPlugins::Allow), Err(PluginRefusal::Revoked(_)))
    };
    let mut keys = knowing(&key);
    assert!(!is_revoked(&keys, &signed));
    keys.revoke_key(key.public());
    assert!(is_revoked(&keys, &signed) && !is_revoked(&keys, MODULE));
    // A running plugin is checked as well.
    let refused = keys.judge(&signed, UnsignedPlugins::Allow).unwrap_err();
    assert_eq!(keys.check_revoked(&PluginSeal::of(&signed).unwrap()), Err(refused));
    assert_eq!(keys.check_revoked(&PluginSeal::of(MODULE).unwrap()), Ok(()));
    for digest in [sha256(MODULE), sha256(&signed)] {
        let mut keys = knowing(&key);
        keys.revoke_digest(digest);
        assert!(is_revoked(&keys, &signed));
        assert!(keys.check_revoked(&PluginSeal::of(&signed).unwrap()).is_err());
        assert_eq!(is_revoked(&keys, MODULE), digest == sha256(MODULE));
    }
    let shipped = shipped()[0].bytes;
    assert_eq!(TrustedKeys::default().check_revoked(&PluginSeal::of(shipped).unwrap()), Ok(()));
    let mut keys = TrustedKeys::default();
    assert_eq!(keys.judge(shipped, UnsignedPlugins::Refuse), Ok(Provenance::Shipped));
    keys.revoke_digest(sha256(shipped));
    assert!(is_revoked(&keys, shipped));
}
