use super::*;
use crate::signature::{SecretKey, sign};

const MODULE: &[u8] = b"\0asm\x01\0\0\0";

fn knowing(key: &SecretKey) -> TrustedKeys {
    let mut keys = TrustedKeys::default();
    keys.know("ops".into(), key.public());
    keys
}

#[test]
fn signature_by_a_known_key_is_accepted() {
    let (ours, theirs) = (SecretKey::generate(), SecretKey::generate());
    let keys = knowing(&ours);
    let signed = sign(MODULE, &ours).unwrap();
    assert_eq!(keys.judge(&signed, Unsigned::Refuse), Ok(Provenance::Signed("ops".into())));
    let by_another = sign(MODULE, &theirs).unwrap();
    let by = Some(theirs.public());
    assert_eq!(keys.judge(&by_another, Unsigned::Refuse), Err(PluginRefusal::Unsigned { by }));
    assert_eq!(keys.judge(&by_another, Unsigned::Allow), Ok(Provenance::Unsigned));
    assert_eq!(keys.judge(MODULE, Unsigned::Refuse), Err(PluginRefusal::Unsigned { by: None }));
    assert_eq!(keys.judge(MODULE, Unsigned::Allow), Ok(Provenance::Unsigned));
}

#[test]
fn invalid_signature_is_refused_even_if_optional() {
    let mut signed = sign(MODULE, &SecretKey::generate()).unwrap();
    *signed.last_mut().unwrap() ^= 1;
    let seen = TrustedKeys::default().judge(&signed, Unsigned::Allow);
    assert!(matches!(seen, Err(PluginRefusal::Signature(..))), "{seen:?}");
}

#[test]
fn revoked_plugin_is_refused_despite_trust() {
    let key = SecretKey::generate();
    let signed = sign(MODULE, &key).unwrap();
    let is_revoked = |keys: &TrustedKeys, plugin: &[u8]| {
        matches!(keys.judge(plugin, Unsigned::Allow), Err(PluginRefusal::Revoked { .. }))
    };
    let mut keys = knowing(&key);
    assert!(!is_revoked(&keys, &signed));
    keys.revoke_key(key.public());
    assert!(is_revoked(&keys, &signed) && !is_revoked(&keys, MODULE));
    // A running plugin is checked as well.
    let refused = keys.judge(&signed, Unsigned::Allow).unwrap_err();
    assert_eq!(keys.spare(&PluginSeal::of(&signed).unwrap()), Err(refused));
    assert_eq!(keys.spare(&PluginSeal::of(MODULE).unwrap()), Ok(()));
    for digest in [sha256(MODULE), sha256(&signed)] {
        let mut keys = knowing(&key);
        keys.revoke_digest(digest);
        assert!(is_revoked(&keys, &signed));
        assert!(keys.spare(&PluginSeal::of(&signed).unwrap()).is_err());
        assert_eq!(is_revoked(&keys, MODULE), digest == sha256(MODULE));
    }
    let shipped = shipped()[0].bytes;
    assert_eq!(TrustedKeys::default().spare(&PluginSeal::of(shipped).unwrap()), Ok(()));
    let mut keys = TrustedKeys::default();
    assert_eq!(keys.judge(shipped, Unsigned::Refuse), Ok(Provenance::Shipped));
    keys.revoke_digest(sha256(shipped));
    assert!(is_revoked(&keys, shipped));
}
