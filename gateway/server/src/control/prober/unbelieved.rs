//! Why what a node says is not believed, or why it does not believe us: for people, and evidence of nothing.
//!
//! Only what echoes a nonce of ours counts, and comes from where we asked; so whoever forges it saw the question.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

use evenkeel_media::trunk::message::{Refusal, Refused, SKEW_MAX_US};

/// What was heard so long ago says nothing of now.
const HEARD_WITHIN: Duration = Duration::from_secs(10);

/// Why two ends do not believe each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unbelieved {
    /// They sign with different secrets.
    Secret,
    /// Their clocks differ by more than messages count for.
    Clock {
        /// By how much the node's is before ours, microseconds; less than 0 where it is behind.
        ahead_us: i64,
    },
}

impl Unbelieved {
    /// What a datagram that was refused so says of it.
    pub(super) fn of(datagram: &[u8], refused: Refused, now_us: u64) -> Option<Unbelieved> {
        if let Some(Refusal { sent_us, .. }) = Refusal::read(datagram) {
            let signed = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
            let ahead_us = signed(sent_us) - signed(now_us);
            return Some(Unbelieved::Clock { ahead_us });
        }
        match refused {
            Refused::Key(_) => Some(Unbelieved::Secret),
            Refused::Time { ahead_us } => Some(Unbelieved::Clock { ahead_us }),
            Refused::Length
            | Refused::Version(_)
            | Refused::Unknown
            | Refused::Direction
            | Refused::Forged
            | Refused::Replayed => None,
        }
    }

    /// The word in the API: `secret`.
    pub fn name(self) -> &'static str {
        match self {
            Unbelieved::Secret => "secret",
            Unbelieved::Clock { .. } => "clock",
        }
    }
}

impl fmt::Display for Unbelieved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unbelieved::Secret => f.write_str("answers, but signs with another secret"),
            Unbelieved::Clock { ahead_us } => {
                let by = ahead_us.unsigned_abs() as f64 / 1e6;
                let side = if *ahead_us < 0 { "behind" } else { "ahead of" };
                let most = SKEW_MAX_US / 1_000_000;
                write!(f, "answers, but its clock is {by:.1} s {side} ours; at most {most} s")
            }
        }
    }
}

/// What was heard last, and when.
#[derive(Default)]
pub(super) struct Doubts(Cell<Option<(Unbelieved, Instant)>>);

impl Doubts {
    pub(super) fn note(&self, unbelieved: Option<Unbelieved>, now: Instant) {
        self.0.set(unbelieved.map(|unbelieved| (unbelieved, now)));
    }

    pub(super) fn lately(&self, now: Instant) -> Option<Unbelieved> {
        let (unbelieved, at) = self.0.get()?;
        (now.saturating_duration_since(at) < HEARD_WITHIN).then_some(unbelieved)
    }
}

/// What people were told of one node last, and when.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct ToldOf(Option<(&'static str, Instant)>);

/// The same is told again after this, and nothing else sooner than the other.
const TOLD_AGAIN: Duration = Duration::from_secs(600);
const TOLD_EVERY: Duration = Duration::from_secs(10);

impl ToldOf {
    /// Whether people are to be told of this now.
    pub(crate) fn is_news(&mut self, unbelieved: Unbelieved, now: Instant) -> bool {
        let name = unbelieved.name();
        let waits = |(told, at): (&str, Instant)| {
            now.saturating_duration_since(at) < if told == name { TOLD_AGAIN } else { TOLD_EVERY }
        };
        let news = !self.0.is_some_and(waits);
        if news {
            self.0 = Some((name, now));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubt_is_told_once_for_each_change_and_not_too_often() {
        let (start, mut told) = (Instant::now(), ToldOf::default());
        let clock = |ahead_us| Unbelieved::Clock { ahead_us };
        assert!(told.is_news(Unbelieved::Secret, start));
        assert!(!told.is_news(Unbelieved::Secret, start + TOLD_EVERY));
        assert!(told.is_news(clock(6_000_000), start + TOLD_EVERY));
        assert!(!told.is_news(clock(7_000_000), start + 2 * TOLD_EVERY), "it is the same");
        assert!(!told.is_news(Unbelieved::Secret, start + TOLD_EVERY + TOLD_EVERY / 2));
        assert!(told.is_news(clock(7_000_000), start + TOLD_EVERY + TOLD_AGAIN));
    }

    #[test]
    fn a_doubt_says_what_differs_and_by_how_much() {
        assert!(Unbelieved::Secret.to_string().contains("another secret"));
        let ahead_us = -6_200_000;
        let words = Unbelieved::Clock { ahead_us }.to_string();
        assert!(words.contains("6.2 s behind ours; at most 5 s"), "{words}");
    }
}
