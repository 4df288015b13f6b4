use std::path::Path;

use super::super::check::source;
use super::*;

#[derive(Deserialize)]
struct Tables {
    alert: Vec<Spanned<AlertTable>>,
}

/// The receivers of these tables, and the errors about them.
fn receivers(text: &str) -> (Vec<AlertReceiver>, Vec<String>) {
    let mut reading = ConfigCheck::new(source(Path::new("evenkeel.toml"), text), Path::new(""));
    let Tables { alert } = toml::from_str(text).unwrap();
    let receivers = check(&alert, &mut reading);
    (receivers, reading.into_invalid().iter().map(ToString::to_string).collect())
}

#[test]
fn receiver_is_a_webhook_of_all_tiers_by_default() {
    let (receivers, invalid) =
        receivers("[[alert]]\nname = \"ops\"\nurl = \"http://10.0.0.9:8080/hook?x=1\"\n");
    assert!(invalid.is_empty(), "{invalid:?}");
    let ops = &receivers[0];
    assert_eq!((ops.kind, &*ops.tiers), (AlertReceiverKind::Webhook, &AlertTier::ALL[..]));
    assert_eq!(ops.target.url.to_string(), "http://10.0.0.9:8080/hook?x=1");
    assert_eq!((&ops.target.token, &ops.escalation), (&None, &None));
}

#[test]
fn alertmanager_has_its_path_below_the_url() {
    let text = "[[alert]]\nname = \"am\"\nkind = \"alertmanager\"\nurl = \"https://am.example/prefix/\"\n\
                tiers = [\"page\"]\nescalate_to = \"late\"\n[[alert]]\nname = \"late\"\nurl = \"http://[::1]:1\"\n\
                tiers = []\n";
    let (receivers, invalid) = receivers(text);
    assert!(invalid.is_empty(), "{invalid:?}");
    let [manager, late] = &receivers[..] else { panic!("{receivers:?}") };
    assert_eq!(manager.target.url.to_string(), "https://am.example/prefix/api/v2/alerts");
    assert_eq!(manager.tiers, [AlertTier::Page]);
    let tiers = vec![AlertTier::Page, AlertTier::Ticket];
    let escalation = AlertEscalation { after: Duration::from_secs(300), tiers, to: "late".into() };
    assert_eq!((&manager.escalation, &late.escalation), (&Some(escalation), &None));
    assert!(late.tiers.is_empty());
}

#[test]
fn tiers_that_escalate_are_chosen() {
    let text = "[[alert]]\nname = \"a\"\nurl = \"http://[::1]:1\"\nescalate_to = \"b\"\n\
                escalate_tiers = [\"info\"]\n[[alert]]\nname = \"b\"\nurl = \"http://[::1]:1\"\n\
                escalate_tiers = [\"page\"]\n";
    let (receivers, invalid) = receivers(text);
    assert_eq!(receivers[0].escalation.as_ref().unwrap().tiers, [AlertTier::Info]);
    let right = "found `escalate_tiers` without `escalate_to`, expected `escalate_to`, the receiver that gets the alert then";
    assert_eq!(invalid, [right]);
}
