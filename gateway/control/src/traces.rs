//! Traces of sessions (W3C Trace Context): their ids, which the process that continues the sessions computes again.

use std::sync::atomic::{AtomicU64, Ordering};

use data_encoding::HEXLOWER;
use evenkeel_config::Traceparent;
use evenkeel_model::SessionId;
use evenkeel_process::random::draw;
use ring::digest;
use serde::{Deserialize, Serialize};

/// A span of the caller of a request, from its `traceparent`.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct CallerSpan {
    /// The caller's trace.
    pub trace_id: [u8; 16],
    /// The caller's span.
    pub span_id: [u8; 8],
    /// The caller records its trace.
    pub is_sampled: bool,
}

impl CallerSpan {
    /// Reads a `traceparent` (W3C Trace Context, 3.2). `None` if it is malformed.
    pub fn parse(header: &str) -> Option<CallerSpan> {
        let mut fields = header.split('-');
        let [version] = id(fields.next()?)?;
        let (trace_id, span_id) = (id(fields.next()?)?, id(fields.next()?)?);
        let [flags] = id(fields.next()?)?;
        // Later versions may append fields.
        let ends = fields.next().is_none() || version > 0;
        let is_valid = version < 0xff && ends && trace_id != [0; 16] && span_id != [0; 8];
        is_valid.then_some(CallerSpan { trace_id, span_id, is_sampled: flags & 1 != 0 })
    }
}

fn id<const N: usize>(digits: &str) -> Option<[u8; N]> {
    HEXLOWER.decode(digits.as_bytes()).ok()?.try_into().ok()
}

/// The ids of a session's trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionTrace {
    /// The caller's if callers are trusted.
    pub trace_id: [u8; 16],
    /// The span of the session's life.
    pub span_id: [u8; 8],
}

/// Ids of the traces of sessions. They are computed from a seed, which the process that continues the sessions gets.
#[derive(Debug)]
pub struct SessionTraces {
    seed: AtomicU64,
    trust: Traceparent,
}

impl SessionTraces {
    /// Draws a seed.
    pub fn new(trust: Traceparent) -> SessionTraces {
        SessionTraces { seed: AtomicU64::new(draw()), trust }
    }

    /// The ids of the session's trace, which is the caller's if callers are trusted.
    pub fn of(&self, session: SessionId, caller: Option<CallerSpan>) -> SessionTrace {
        let input = [self.seed().to_be_bytes(), u64::from(session).to_be_bytes()];
        let hash = digest::digest(&digest::SHA256, input.as_flattened());
        let hash = hash.as_ref();
        let own = SessionTrace {
            trace_id: *hash.first_chunk().expect("a hash has 32 bytes"),
            span_id: *hash.last_chunk().expect("a hash has 32 bytes"),
        };
        match self.parent(caller) {
            Some(caller) => SessionTrace { trace_id: caller.trace_id, ..own },
            None => own,
        }
    }

    /// The caller's span if callers are trusted. It is the parent of the session's.
    pub fn parent(&self, caller: Option<CallerSpan>) -> Option<CallerSpan> {
        caller.filter(|_| self.trust == Traceparent::Parent)
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed.load(Ordering::Acquire)
    }

    /// Continues the ids of another process.
    pub(crate) fn resume(&self, seed: u64) {
        self.seed.store(seed, Ordering::Release);
    }
}

impl Default for SessionTraces {
    fn default() -> SessionTraces {
        SessionTraces::new(Traceparent::default())
    }
}

#[cfg(test)]
mod tests;
