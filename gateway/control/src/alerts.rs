//! The alerts that a gateway sends, as the process that continues it reads them. Control keeps them, and does not read them.

use std::collections::BTreeMap;
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
