use std::net::Ipv4Addr;

use super::*;

fn host(number: u32) -> Option<IpAddr> {
    Some(Ipv4Addr::from_bits(number).into())
}

#[test]
fn token_waits_after_its_burst() {
    let (mut rates, now) = (OfferRates::new(), Instant::now());
    for _ in 0..OF_TOKEN.burst {
        assert_eq!(rates.admit("t1", host(1), now), Ok(()));
    }
    assert_eq!(rates.admit("t1", host(1), now), Err(OF_TOKEN.interval));
    assert_eq!(rates.admit("t2", host(1), now), Ok(()));
    let next = now + OF_TOKEN.interval;
    assert_eq!(rates.admit("t1", host(1), next), Ok(()));
    assert_eq!(rates.admit("t1", host(1), next), Err(OF_TOKEN.interval));
}

#[test]
fn source_waits_after_its_burst() {
    let (mut rates, now) = (OfferRates::new(), Instant::now());
    let token = |number: u32| number.to_string();
    for number in 0..OF_SOURCE.burst {
        assert_eq!(rates.admit(&token(number), host(1), now), Ok(()));
    }
    assert_eq!(rates.admit("t1", host(1), now), Err(OF_SOURCE.interval));
    assert_eq!(rates.admit("t1", host(2), now), Ok(()));
    assert_eq!(rates.admit("t2", host(1), now + OF_SOURCE.interval), Ok(()));
    for number in 0..2 * OF_SOURCE.burst {
        assert_eq!(rates.admit(&token(1_000 + number), None, now), Ok(()), "of this host");
    }
}

#[test]
fn flood_of_a_token_does_not_count_for_its_source() {
    let (mut rates, now) = (OfferRates::new(), Instant::now());
    let admitted = (0..2 * OF_SOURCE.burst).filter(|_| rates.admit("t1", host(1), now).is_ok());
    assert_eq!(admitted.count(), OF_TOKEN.burst as usize);
    assert_eq!(rates.admit("t2", host(1), now), Ok(()));
}

#[test]
fn least_used_key_is_forgotten() {
    let (mut rates, now) = (RateTable::new(OF_TOKEN), Instant::now());
    while rates.admit(0, now).is_ok() {}
    for key in 1..2 * KEYS_MAX {
        assert_eq!(rates.admit(key, now), Ok(()));
    }
    assert_eq!(rates.restored.len(), KEYS_MAX);
    assert!(rates.admit(0, now).is_err(), "a flood does not renew its rate");
    let later = now + 2 * OF_TOKEN.interval;
    assert_eq!(rates.admit(2 * KEYS_MAX, later), Ok(()));
    assert_eq!(rates.restored.len(), 2, "unused ones are forgotten together");
}
