use evenkeel_contract::errors::ErrorCode;
use evenkeel_media::probe::ProbeTransport;

use super::*;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

/// A path of 30 ms without loss.
fn path() -> PathMeasurement {
    let times = [Some(30_000); ProbeTransport::Udp.packets()];
    PathMeasurement::new(ProbeTransport::Udp, |_| true, &times)
}

/// The field and the message of an error.
fn refused(used: &UsedResults, urls: &SessionUrls, signed: &str, at: SystemTime) -> String {
    let error = used.redeem(urls, signed, at).unwrap_err();
    assert_eq!((error.code, error.field.as_deref()), (ErrorCode::BadRequest, Some("probe")));
    error.message
}

#[test]
fn result_becomes_labels_once() {
    let (urls, used) = (SessionUrls::default(), UsedResults::default());
    let signed = sign(&urls, "id-1", &path(), NOW);
    let labels = used.redeem(&urls, &signed, NOW).unwrap();
    let labels: Vec<(&str, &str)> =
        labels.iter().map(|(name, value)| (&**name, &**value)).collect();
    let right = [
        ("probe-r", "91"),
        ("probe-loss", "0"),
        ("probe-rtt", "30"),
        ("probe-rate", "4000"),
        ("probe-video", "1080"),
    ];
    assert_eq!(labels, right);
    assert!(refused(&used, &urls, &signed, NOW).contains("once"));
    let again = sign(&urls, "id-1", &path(), NOW + KEPT_FOR);
    let last = NOW + KEPT_FOR + VALID_FOR - Duration::from_secs(1);
    assert!(refused(&used, &urls, &again, last).contains("once"), "one probe, signed later");
    assert!(used.redeem(&urls, &sign(&urls, "id-2", &path(), NOW), NOW).is_ok());
    used.release(&signed);
    assert!(used.redeem(&urls, &signed, NOW).is_ok(), "its offer was refused");
}

#[test]
fn result_expires_after_a_minute() {
    let (urls, used) = (SessionUrls::default(), UsedResults::default());
    let signed = sign(&urls, "id-1", &path(), NOW);
    assert!(refused(&used, &urls, &signed, NOW + VALID_FOR).contains("expired"));
    assert!(used.redeem(&urls, &signed, NOW + VALID_FOR - Duration::from_secs(1)).is_ok());
}

#[test]
fn changed_result_is_refused() {
    let (urls, used) = (SessionUrls::default(), UsedResults::default());
    let signed = sign(&urls, "id-1", &path(), NOW);
    let better = signed.replace(".91.", ".93.");
    assert_ne!(better, signed);
    for forged in [&*better, &signed[..signed.len() - 1], "", "id-1.60", "a.b.c"] {
        assert!(refused(&used, &urls, forged, NOW).contains("signed"), "{forged}");
    }
    assert!(refused(&used, &SessionUrls::default(), &signed, NOW).contains("signed"));
    assert!(used.redeem(&urls, &signed, NOW).is_ok(), "forgeries do not use it up");
}

#[test]
fn used_results_are_forgotten_with_their_signatures() {
    let (urls, used) = (SessionUrls::default(), UsedResults::default());
    for minute in 0..10 {
        let now = NOW + 2 * minute * VALID_FOR;
        let signed = sign(&urls, &format!("id-{minute}"), &path(), now);
        assert!(used.redeem(&urls, &signed, now).is_ok());
    }
    assert_eq!(lock(&used.0).len(), 1);
}
