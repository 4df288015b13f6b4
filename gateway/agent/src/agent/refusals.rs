//! Questions that are not believed: counted, and told to both ends, seldom, since anybody can send them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use evenkeel_media::trunk::message::{Refusal, Refused};

use super::{Agent, Hands, Now};

/// One of each kind is told to people in this time.
const TOLD_EVERY: Duration = Duration::from_secs(600);

/// One in all is answered in this time: a flood of forgeries gets next to nothing back, whoever it claims to be from.
const ANSWERED_EVERY: Duration = Duration::from_millis(100);

/// When which was told last.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Refusing {
    told: [Option<Instant>; 4],
    answered: Option<Instant>,
}

impl Agent {
    pub(super) fn refuse(
        &mut self,
        refused: Refused,
        (bytes, source): (&[u8], SocketAddr),
        now: Now,
        hands: &mut impl Hands,
    ) {
        self.counters.refuse(refused);
        let (kind, advice) = match refused {
            Refused::Length | Refused::Version(_) | Refused::Unknown | Refused::Direction => {
                (0, "")
            }
            Refused::Key(_) => (1, ": `secret_file` has to hold the same here and at the gateway"),
            Refused::Forged => (1, ""),
            Refused::Time { .. } => (2, ": set the clocks"),
            Refused::Replayed => (3, ""),
        };
        if is_due(&mut self.refusing.told[kind], TOLD_EVERY, now.instant) {
            hands.tell(&format!("a message from {source} is not believed: {refused}{advice}"));
        }
        let refusal = Refusal::of(bytes, refused, now.unix_us).filter(|_| !self.drilled.is_cut());
        if let Some(refusal) = refusal
            && is_due(&mut self.refusing.answered, ANSWERED_EVERY, now.instant)
        {
            self.answer.clear();
            refusal.write(&mut self.answer);
            hands.send(source, &self.answer);
        }
    }
}

/// Whether it is time again, which begins anew then.
fn is_due(last: &mut Option<Instant>, every: Duration, now: Instant) -> bool {
    let due = last.is_none_or(|last| now.duration_since(last) >= every);
    if due {
        *last = Some(now);
    }
    due
}
