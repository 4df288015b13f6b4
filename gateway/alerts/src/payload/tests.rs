use std::sync::Arc;

use evenkeel_config::{AlertReceiver, AlertTier, WebhookTarget};

use super::super::active::AlertId;
use super::super::outbox::AlertNotice;
use super::*;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// The body of a notice about one node that is down and one that is up again, while these dependencies are down.
fn body(kind: AlertReceiverKind, dependencies_down: &[Arc<str>]) -> Value {
    let rule = RULES.iter().position(|rule| rule.name == "EvenkeelNodeDown").unwrap();
    let alert = |node: &str, resolved| {
        let labels = [("evenkeel_node".to_owned(), node.to_owned())].into();
        let (id, value, fired) = (AlertId { rule, labels }, 3.0, at(1_700_000_000));
        NoticedAlert { id, value, fired, resolved }
    };
    let alerts = vec![alert("a1", None), alert("a2", Some(at(1_700_000_060)))];
    let target = WebhookTarget { url: "http://127.0.0.1:1".parse().unwrap(), token: None };
    let (name, tiers): (Arc<str>, _) = ("ops".into(), vec![AlertTier::Page]);
    let receiver = AlertReceiver { name, kind, target, tiers, escalation: None };
    let notice = AlertNotice { rule, is_escalated: true, firing_count: 7, alerts };
    let delivery = AlertDelivery { receiver, notice };
    let body = delivery.body("edge-1", dependencies_down, at(1_700_000_100));
    serde_json::from_slice(&body).unwrap()
}

#[test]
fn webhook_gets_an_object_of_one_rule() {
    let mut body = body(AlertReceiverKind::Webhook, &["idp".into()]);
    let alerts = body["alerts"].take();
    let right = json!({
        "version": 1, "gateway": "edge-1", "alert": "EvenkeelNodeDown", "severity": "ticket", "status": "firing",
        "firing": 7, "escalated": true, "runbook": "docs/failover.md#after-a-node-died",
        "dependencies_down": ["idp"], "alerts": null,
    });
    assert_eq!(body, right);
    let right = json!([
        {
            "status": "firing", "labels": {"evenkeel_node": "a1"}, "summary": "node a1 is down", "value": 3.0,
            "starts_at": "2023-11-14T22:13:20.000Z", "ends_at": null,
        },
        {
            "status": "resolved", "labels": {"evenkeel_node": "a2"}, "summary": "node a2 is down", "value": 3.0,
            "starts_at": "2023-11-14T22:13:20.000Z", "ends_at": "2023-11-14T22:14:20.000Z",
        },
    ]);
    assert_eq!(alerts, right);
}

#[test]
fn alertmanager_gets_its_list_of_alerts() {
    let alert = |node: &str, ends_at: &str| {
        json!({
            "labels": {
                "alertname": "EvenkeelNodeDown", "severity": "ticket", "gateway": "edge-1", "evenkeel_node": node,
            },
            "annotations": {
                "summary": format!("node {node} is down"), "runbook": "docs/failover.md#after-a-node-died",
            },
            "startsAt": "2023-11-14T22:13:20.000Z",
            "endsAt": ends_at,
        })
    };
    // One that fires ends four minutes later if nothing more is heard of it.
    let right =
        json!([alert("a1", "2023-11-14T22:19:00.000Z"), alert("a2", "2023-11-14T22:14:20.000Z"),]);
    assert_eq!(body(AlertReceiverKind::Alertmanager, &[]), right);
    let body = body(AlertReceiverKind::Alertmanager, &["idp".into(), "turn".into()]);
    assert_eq!(body[0]["annotations"]["dependencies_down"], "idp, turn");
}

#[test]
fn times_are_those_of_the_calendar() {
    for (seconds, right) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_827_696, "2000-02-29T12:34:56.000Z"),
        (1_704_067_199, "2023-12-31T23:59:59.000Z"),
        (4_107_542_400, "2100-03-01T00:00:00.000Z"),
    ] {
        assert_eq!(rfc3339(at(seconds)), right);
    }
    let end_of_a_minute = at(59) + Duration::from_micros(999_999);
    assert_eq!(rfc3339(end_of_a_minute), "1970-01-01T00:00:59.999Z", "not rounded to 60");
    assert_eq!(rfc3339(at(253_402_300_800)), "", "10000");
}
