use evenkeel_control::SecretPem;
use tokio::sync::watch;

use super::*;

fn record(pem: &str) -> CertificatesRecord {
    CertificatesRecord { dtls: SecretPem(pem.to_owned().into()), webtransport: None }
}

#[test]
fn certificates_are_sent_once_and_after_each_change() {
    let (own, shown) = watch::channel(record("first"));
    let channels = CertificateChannels { own: shown, copied: watch::channel(None).0 };
    let mut exchange = CertificateExchange::new(channels);
    assert_eq!(exchange.next_part(), Some(record("first")));
    assert_eq!(exchange.next_part(), None);
    own.send_replace(record("second"));
    assert_eq!(exchange.next_part(), Some(record("second")));
    assert_eq!(exchange.next_part(), None);
    exchange.begin();
    assert_eq!(exchange.next_part(), Some(record("second")), "a new standby has none");
}

#[test]
fn certificates_of_the_owner_are_passed_on() {
    let (copied, received) = watch::channel(None);
    let channels = CertificateChannels { own: watch::channel(record("own")).1, copied };
    CertificateExchange::new(channels).take(record("owner's"));
    assert_eq!(*received.borrow(), Some(record("owner's")));
}
