//! Refused beats and connections, counted and logged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use evenkeel_media::trunk::message;
use evenkeel_process::lock;
use evenkeel_telemetry::Instruments;
use evenkeel_telemetry::registry::{Attribute, Count};

/// Interval of log lines about one reason.
const LOGGED_EVERY: Duration = Duration::from_secs(60);

/// All reasons.
const REASONS: [&str; 11] = [
    "malformed",
    "version",
    "secret",
    "forged",
    "clock",
    "replayed",
    "same-name",
    "unknown-peer",
    "not-standby",
    "configuration",
    "difference",
];

/// Shared by the parts of a member.
#[derive(Clone, Debug)]
pub(crate) struct RefusalLog {
    instruments: Arc<Instruments>,
    /// When a reason was logged.
    logged: Arc<Mutex<BTreeMap<&'static str, Instant>>>,
}

impl RefusalLog {
    pub(crate) fn new(instruments: Arc<Instruments>) -> RefusalLog {
        // An alert sees the first refusal of a series that begins with 0.
        for reason in REASONS {
            instruments.count(Count::ClusterRefused, 0, &[(Attribute::Reason, reason)]);
        }
        RefusalLog { instruments, logged: Arc::default() }
    }

    pub(super) fn note_agent(&self, refused: message::MessageError) {
        let reason = match refused {
            message::MessageError::Version(_) => "version",
            message::MessageError::Key(_) => "secret",
            message::MessageError::Forged => "forged",
            message::MessageError::Time { .. } => "clock",
            message::MessageError::Replayed => "replayed",
            message::MessageError::Length
            | message::MessageError::Unknown
            | message::MessageError::Direction => "malformed",
        };
        if self.count(reason) {
            tracing::warn!("refused from the agent beside the group's other gateway: {refused}");
        }
    }

    pub(super) fn note_difference(&self, difference: &str) {
        if self.count("difference") {
            tracing::error!(
                "the configuration differs from that of the group's other gateway: {difference}"
            );
        }
    }

    /// Counts a refusal. True if it should be logged.
    pub(super) fn count(&self, reason: &'static str) -> bool {
        debug_assert!(REASONS.contains(&reason), "{reason} is not listed");
        self.instruments.count(Count::ClusterRefused, 1, &[(Attribute::Reason, reason)]);
        let mut logged = lock(&self.logged);
        let now = Instant::now();
        let due = logged.get(reason).is_none_or(|at| now.duration_since(*at) >= LOGGED_EVERY);
        if due {
            logged.insert(reason, now);
        }
        due
    }
}
