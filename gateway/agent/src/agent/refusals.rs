//! Refused signed messages. They are counted, and logged and answered at a bounded rate, because any host can send
//! them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use evenkeel_media::trunk::message::{ClockRefusal, MessageError};

use super::io::{BatchTime, Io};
use crate::AgentCounters;

/// Interval in which each reason is logged at most once.
const LOG_EVERY: Duration = Duration::from_secs(600);

/// Minimum interval between two refusals. It prevents the reflection of forgeries with a spoofed source.
const ANSWER_EVERY: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Default, Debug)]
pub(super) struct RefusedMessages {
    logged: [Option<Instant>; 7],
    answered: Option<Instant>,
}

impl RefusedMessages {
    /// Counts a datagram that is not encrypted with the key of this node, or should not be encrypted.
    pub(super) fn unreadable(
        &mut self,
        counters: &mut AgentCounters,
        source: SocketAddr,
        now: BatchTime,
        io: &mut impl Io,
    ) {
        counters.refused_unreadable += 1;
        if is_due(&mut self.logged[5], LOG_EVERY, now.instant) {
            io.log(&format!(
                "datagram refused: source={source} reason=\"not encrypted with this node's key\"; set `encrypt` at both ends or at none, and use one secret_file"
            ));
        }
    }

    /// Counts a question of a gateway that is not the newest owner of its group.
    pub(super) fn superseded(
        &mut self,
        counters: &mut AgentCounters,
        epoch: u64,
        source: SocketAddr,
        now: BatchTime,
        io: &mut impl Io,
    ) {
        counters.refused_superseded += 1;
        if is_due(&mut self.logged[6], LOG_EVERY, now.instant) {
            io.log(&format!(
                "message refused: source={source} reason=\"another gateway of its group is the owner since epoch {epoch}\""
            ));
        }
    }

    /// Counts a refused message. With `answers`, its sender learns of a wrong clock.
    pub(super) fn refuse(
        &mut self,
        refused: MessageError,
        (bytes, source): (&[u8], SocketAddr),
        answers: bool,
        counters: &mut AgentCounters,
        now: BatchTime,
        io: &mut impl Io,
    ) {
        let (kind, advice) = match refused {
            MessageError::Length
            | MessageError::Version(_)
            | MessageError::Unknown
            | MessageError::Direction => {
                counters.malformed += 1;
                (0, "")
            }
            MessageError::Key(_) => {
                counters.refused_forged += 1;
                (1, "; use one secret_file at both ends")
            }
            MessageError::Forged => {
                counters.refused_forged += 1;
                (2, "; `name` must be that of [[node]] or [cluster.peer] at the gateway")
            }
            MessageError::Time { .. } => {
                counters.refused_time += 1;
                (3, "; synchronize the clocks")
            }
            MessageError::Replayed => {
                counters.refused_replayed += 1;
                (4, "")
            }
        };
        if is_due(&mut self.logged[kind], LOG_EVERY, now.instant) {
            io.log(&format!("message refused: source={source} reason=\"{refused}\"{advice}"));
        }
        let refusal = ClockRefusal::of(bytes, refused, now.unix_us).filter(|_| answers);
        if let Some(refusal) = refusal
            && is_due(&mut self.answered, ANSWER_EVERY, now.instant)
        {
            let mut answer = Vec::new();
            refusal.write(&mut answer);
            io.send(source, &answer);
        }
    }
}

/// Returns whether `every` has passed since `last`. If so, sets `last` to `now`.
fn is_due(last: &mut Option<Instant>, every: Duration, now: Instant) -> bool {
    let due = last.is_none_or(|last| now.duration_since(last) >= every);
    if due {
        *last = Some(now);
    }
    due
}
