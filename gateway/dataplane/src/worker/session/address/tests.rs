use super::*;

fn check(transaction: u64, source: u64) -> CheckHash {
    CheckHash(transaction << CheckHash::SOURCE_BITS | source)
}

#[test]
fn last_128_checks_are_remembered() {
    let mut address = Address::default();
    for transaction in 0..128 {
        assert_eq!(address.remember_check(check(transaction, 1)), Seen::Never);
    }
    assert_eq!(address.remember_check(check(0, 1)), Seen::Here);
    assert_eq!(address.remember_check(check(0, 2)), Seen::Elsewhere);
    assert_eq!(address.remember_check(check(128, 1)), Seen::Never);
    assert_eq!(address.remember_check(check(1, 2)), Seen::Elsewhere);
    assert_eq!(address.remember_check(check(0, 2)), Seen::Never, "forgotten");
}

#[test]
fn check_hash_depends_on_transaction_and_source() {
    let keys = RandomState::new();
    let source = |port| SourceKey { listener: 0, address: ([10, 0, 0, 1], port).into() };
    let hash = |id, port| CheckHash::new(&keys, stun::Transaction([id; 12]), source(port));
    assert_eq!(hash(1, 1), hash(1, 1));
    assert!(hash(1, 1) != hash(1, 2) && hash(1, 1).has_transaction_of(hash(1, 2)));
    assert!(!hash(1, 1).has_transaction_of(hash(2, 1)));
}
