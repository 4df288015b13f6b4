//! The alerts that a gateway sends, as the process that continues it reads them. Control keeps them, and does not read them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use evenkeel_kept::{Document, FollowerCopy, Kind};
use serde::{Deserialize, Serialize};

/// The alerts that fire, ended alerts that receivers have not heard of, and the last notices. Times are Unix times in microseconds.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize, Debug)]
pub struct AlertsRecord {
    /// The most urgent first.
    pub alerts: Vec<AlertRecord>,
    /// The last delivered notice of each rule at each receiver.
    pub notices: Vec<NoticeRecord>,
}

impl Document for AlertsRecord {
    const KIND: Kind =
        Kind { name: "alerts", version: 1, rows_max: 1, copy: FollowerCopy::Replaces };

    /// This process told receivers of its own alerts; it does not know the others.
    fn merge(mut kept: AlertsRecord, own: AlertsRecord) -> AlertsRecord {
        for own in own.alerts {
            let is_same = |it: &AlertRecord| (&it.alert, &it.labels) == (&own.alert, &own.labels);
            match kept.alerts.iter_mut().find(|it| is_same(it)) {
                Some(kept) => *kept = kept.merged(own),
                None => kept.alerts.push(own),
            }
        }
        let notice = |it: &NoticeRecord| (it.receiver.clone(), it.alert.clone());
        let own_notices: BTreeSet<_> = own.notices.iter().map(notice).collect();
        kept.notices.retain(|it| !own_notices.contains(&notice(it)));
        kept.notices.extend(own.notices);
        kept
    }

    fn earlier_files(name: &str) -> Vec<PathBuf> {
        vec![Path::new("alerts").join(format!("{name}.json"))]
    }
}

/// An alert.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct AlertRecord {
    /// The name of its rule.
    pub alert: Box<str>,
    /// The labels of its series.
    pub labels: BTreeMap<String, String>,
    /// The value when it was recorded.
    pub value: f64,
    /// The time since when it fires; `None`: it has ended.
    pub fired_us: Option<u64>,
    /// An operator acknowledged it.
    pub acknowledged: Option<AcknowledgementRecord>,
    /// The receivers that take it for firing.
    pub sent: Vec<SentAlertRecord>,
}

impl AlertRecord {
    /// The alert as this process sent it, with what receivers were sent and operators acknowledged before.
    fn merged(&self, own: AlertRecord) -> AlertRecord {
        let mut sent = self.sent.clone();
        sent.retain(|before| own.sent.iter().all(|it| it.receiver != before.receiver));
        sent.extend(own.sent);
        let acknowledged = own.acknowledged.or_else(|| self.acknowledged.clone());
        AlertRecord { sent, acknowledged, ..own }
    }
}

/// An operator's acknowledgement of an alert.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct AcknowledgementRecord {
    /// The user of the request; `None`: it named none.
    pub by: Option<Box<str>>,
    /// The time of the request.
    pub at_us: u64,
}

/// An alert as a receiver was sent it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct SentAlertRecord {
    /// The name of the receiver.
    pub receiver: Box<str>,
    /// The beginning that it was sent.
    pub fired_us: u64,
    /// The time of the notice.
    pub at_us: u64,
    /// The receiver answered.
    pub is_delivered: bool,
    /// The end that it is to be sent.
    pub resolved_us: Option<u64>,
}

/// A delivered notice.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct NoticeRecord {
    /// The name of the receiver.
    pub receiver: Box<str>,
    /// The name of the rule.
    pub alert: Box<str>,
    /// The time at which it was sent.
    pub at_us: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(name: &str, receivers: &[&str]) -> AlertRecord {
        let sent = |receiver: &&str| SentAlertRecord {
            receiver: (*receiver).into(),
            fired_us: 1,
            at_us: 2,
            is_delivered: true,
            resolved_us: None,
        };
        AlertRecord {
            alert: name.into(),
            labels: BTreeMap::new(),
            value: 1.0,
            fired_us: Some(1),
            acknowledged: None,
            sent: receivers.iter().map(sent).collect(),
        }
    }

    #[test]
    fn late_alerts_are_added_to_own_ones() {
        let acknowledged = Some(AcknowledgementRecord { by: None, at_us: 3 });
        let notice = |receiver: &str, at_us| NoticeRecord {
            receiver: receiver.into(),
            alert: "A".into(),
            at_us,
        };
        let kept = AlertsRecord {
            alerts: vec![
                AlertRecord { acknowledged: acknowledged.clone(), ..alert("A", &["x", "y"]) },
                alert("B", &["x"]),
            ],
            notices: vec![notice("x", 4), notice("y", 4)],
        };
        let mut own_a = alert("A", &["x"]);
        own_a.fired_us = Some(9);
        let own = AlertsRecord {
            alerts: vec![own_a.clone(), alert("C", &[])],
            notices: vec![notice("x", 5)],
        };
        let AlertsRecord { alerts, notices } = AlertsRecord::merge(kept, own);
        let names: Vec<_> = alerts.iter().map(|it| &*it.alert).collect();
        assert_eq!(names, ["A", "B", "C"]);
        let receivers: Vec<_> = alerts[0].sent.iter().map(|it| &*it.receiver).collect();
        assert_eq!((receivers, &alerts[0].acknowledged), (vec!["y", "x"], &acknowledged));
        assert_eq!(alerts[0].fired_us, own_a.fired_us);
        assert_eq!(notices, [notice("y", 4), notice("x", 5)]);
    }
}
