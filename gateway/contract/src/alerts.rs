//! Alerts that the gateway sends itself, and checks of dependencies.

use std::collections::BTreeMap;
use std::sync::Arc;

#[cfg(feature = "openapi")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Word;

/// The answer to `GET /v1/alerts`.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct AlertList {
    /// Alerts that fire, the most urgent first.
    pub alerts: Vec<Alert>,
    /// All receivers.
    pub receivers: Vec<AlertReceiver>,
}

/// An alert that fires.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Alert {
    /// `EvenkeelNodeDown`.
    pub alert: Word,
    /// `page`, `ticket` or `info`.
    pub severity: Word,
    /// Labels of the series.
    pub labels: BTreeMap<String, String>,
    /// One line.
    pub summary: String,
    /// The value at the last evaluation.
    pub value: f64,
    /// Since when it fires.
    pub since_us: u64,
    /// An operator acknowledged it.
    pub acknowledged: bool,
    /// The user that the request named, unverified, or that of the process at the Unix socket.
    pub acknowledged_by: Option<Arc<str>>,
    /// Another alert that fires explains it, so that it is not sent.
    pub inhibited: bool,
    /// The section that says what to do.
    pub runbook: String,
}

/// A receiver of alerts.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct AlertReceiver {
    /// Its name.
    pub receiver: Arc<str>,
    /// Failed deliveries since the last success.
    pub failures: u32,
    /// Alerts that it was sent without an answer so far, and those that ended since it was sent them.
    pub waiting: usize,
}

/// The last check of a dependency.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(JsonSchema))]
#[serde(default)]
pub struct Dependency {
    /// Its name.
    pub dependency: Arc<str>,
    /// It answered.
    pub up: bool,
    /// Since when it is so.
    pub since_us: u64,
    /// Why it counts as down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
