//! The owner's forecasts at its standby: they are learned in weeks. They travel beside the records, in parts, so that no batch
//! delays a beat.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_control::ForecastPart;
use tokio::sync::watch;

/// Bytes of a part: the forecasts of three regions, or of ten nodes.
const PART_BYTES: usize = 16 << 10;

/// Interval of parts.
const PART_EVERY: Duration = Duration::from_secs(1);

/// Maximum size of all forecasts, bytes: more than of 1,024 nodes in 512 regions.
const BYTES_MAX: usize = 16 << 20;

/// Forecasts as text, once there are some.
pub(super) type ForecastText = Option<Arc<str>>;

/// The member's ends of the exchange.
#[derive(Clone, Debug)]
pub(super) struct ForecastExchange {
    own: watch::Receiver<ForecastText>,
    /// Own forecasts that are being sent, and how many bytes of them were.
    sending: ForecastText,
    sent: usize,
    sent_last: Option<Instant>,
    received: String,
    copied: watch::Sender<ForecastText>,
}

impl ForecastExchange {
    pub(super) fn new(
        own: watch::Receiver<ForecastText>,
        copied: watch::Sender<ForecastText>,
    ) -> ForecastExchange {
        let (sending, received) = (None, String::new());
        ForecastExchange { own, sending, sent: 0, sent_last: None, received, copied }
    }

    /// Another standby has no part yet.
    pub(super) fn begin(&mut self) {
        (self.sent, self.sent_last) = (0, None);
    }

    /// The next part for the standby, if it is due. Changed forecasts wait for the end of those that are being sent.
    pub(super) fn next_part(&mut self, now: Instant) -> Option<ForecastPart> {
        let is_early = |last: Instant| now.saturating_duration_since(last) < PART_EVERY;
        if self.sent_last.is_some_and(is_early) {
            return None;
        }
        let is_sent = self.sending.as_ref().is_none_or(|text| self.sent == text.len());
        if is_sent && self.own.has_changed().unwrap_or(false) {
            (self.sending, self.sent) = (self.own.borrow_and_update().clone(), 0);
        }
        let text = self.sending.as_deref()?;
        let rest = text.get(self.sent..).filter(|rest| !rest.is_empty())?;
        let (part, _) = rest.split_at(rest.floor_char_boundary(PART_BYTES));
        let (at, of) = (self.sent as u32, text.len() as u32);
        self.sent += part.len();
        self.sent_last = Some(now);
        Some(ForecastPart { at, of, text: part.into() })
    }

    /// Adds a part of the owner's forecasts to the copy, which is replaced once all parts came.
    pub(super) fn take(&mut self, part: ForecastPart) {
        let ForecastPart { at, of, text } = part;
        let (at, of) = (at as usize, of as usize);
        if at == 0 {
            self.received.clear();
        }
        let end = at + text.len();
        if at != self.received.len() || end > of || of > BYTES_MAX {
            return;
        }
        self.received.push_str(&text);
        if end == of {
            self.copied.send_replace(Some(std::mem::take(&mut self.received).into()));
        }
    }
}

#[cfg(test)]
mod tests;
