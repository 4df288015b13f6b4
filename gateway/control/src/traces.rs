//! Traces of sessions (W3C Trace Context): their ids, which the process that continues the sessions computes again. Traces of starts
//! and stops of nodes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use data_encoding::HEXLOWER;
use evenkeel_config::Traceparent;
use evenkeel_http::TraceHeaders;
use evenkeel_model::{NodeId, SessionId};
use evenkeel_process::lock;
use evenkeel_process::random::draw;
use ring::digest;
use serde::{Deserialize, Serialize};

/// Longer ones are not passed on (W3C Trace Context, 3.3.1.5).
const TRACESTATE_MAX: usize = 512;

/// A span of the caller of a request, from its `traceparent` and `tracestate`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct CallerSpan {
    /// The caller's trace.
    pub trace_id: [u8; 16],
    /// The caller's span.
    pub span_id: [u8; 8],
    /// The caller records its trace.
    pub is_sampled: bool,
    /// Values of tracing systems, which are passed on unread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Arc<str>>,
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
        let is_sampled = flags & 1 != 0;
        is_valid.then_some(CallerSpan { trace_id, span_id, is_sampled, state: None })
    }

    /// The span with the values of `tracestate` headers, unless they are empty, too long or no visible ASCII.
    #[must_use]
    pub fn with_state<'a>(self, headers: impl Iterator<Item = &'a str>) -> CallerSpan {
        let state = headers.collect::<Vec<_>>().join(",");
        let is_visible = state.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
        let fits = is_visible && (1..=TRACESTATE_MAX).contains(&state.trim().len());
        CallerSpan { state: fits.then(|| state.trim().into()), ..self }
    }

    /// The headers of a request that this span is the parent of.
    fn headers(&self) -> TraceHeaders {
        let ids = TraceIds { trace_id: self.trace_id, span_id: self.span_id };
        ids.headers(self.is_sampled, self.state.clone())
    }
}

fn id<const N: usize>(digits: &str) -> Option<[u8; N]> {
    HEXLOWER.decode(digits.as_bytes()).ok()?.try_into().ok()
}

evenkeel_model::named! {
    /// A hook of a node.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
    pub enum NodeHook {
        /// It starts the node.
        Start = "start",
        /// It stops the node.
        Stop = "stop",
    }
}

/// The ids of the trace of a session, or of a node's start or stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceIds {
    /// The caller's if callers are trusted.
    pub trace_id: [u8; 16],
    /// The span of the session's life, or of the start or stop.
    pub span_id: [u8; 8],
}

impl TraceIds {
    /// The headers of a request that the span is the parent of.
    fn headers(self, is_sampled: bool, state: Option<Arc<str>>) -> TraceHeaders {
        let (trace, span) = (HEXLOWER.encode(&self.trace_id), HEXLOWER.encode(&self.span_id));
        let traceparent = format!("00-{trace}-{span}-{:02x}", u8::from(is_sampled));
        TraceHeaders { traceparent, tracestate: state }
    }
}

/// The share of traces to send, from 0 to 1. The trace id decides, as in OpenTelemetry's `TraceIdRatioBased`: other services with the
/// same share send the same traces.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TraceShare(pub f64);

impl TraceShare {
    /// The share contains this trace.
    pub fn contains(self, trace_id: [u8; 16]) -> bool {
        let [.., a, b, c, d, e, f, g, h] = trace_id;
        let number = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
        self.0 >= 1.0 || number < (self.0.max(0.0) * (1_u64 << 63) as f64) as u64
    }
}

/// Ids of the traces of sessions and of nodes' hooks. Ids of sessions are computed from a seed; the process that continues the
/// sessions gets the seed. Beside them the group's part of the sessions' own ids, for those that ask about a session of another group.
#[derive(Debug)]
pub struct TraceRegistry {
    seed: AtomicU64,
    group: AtomicU64,
    trust: Traceparent,
    /// `None` if no spans are sent.
    share: Option<TraceShare>,
    /// The last call of each hook, until its span is written.
    hooks: Mutex<BTreeMap<(NodeHook, NodeId), TraceIds>>,
}

impl TraceRegistry {
    /// Draws a seed.
    pub fn new(trust: Traceparent) -> TraceRegistry {
        let (seed, group) = (AtomicU64::new(draw()), AtomicU64::default());
        TraceRegistry { seed, group, trust, share: None, hooks: Mutex::default() }
    }

    /// The spans of this share of traces are sent.
    pub fn sending(self, share: TraceShare) -> TraceRegistry {
        TraceRegistry { share: Some(share), ..self }
    }

    /// The ids of the session's trace, which is the caller's if callers are trusted.
    pub fn of(&self, session: SessionId, caller: Option<&CallerSpan>) -> TraceIds {
        let own = self.ids(session.into());
        match self.parent(caller) {
            Some(caller) => TraceIds { trace_id: caller.trace_id, ..own },
            None => own,
        }
    }

    fn ids(&self, number: u64) -> TraceIds {
        let input = [self.seed().to_be_bytes(), number.to_be_bytes()];
        let hash = digest::digest(&digest::SHA256, input.as_flattened());
        let hash = hash.as_ref();
        TraceIds {
            trace_id: *hash.first_chunk().expect("a hash has 32 bytes"),
            span_id: *hash.last_chunk().expect("a hash has 32 bytes"),
        }
    }

    /// Begins the trace of a node's start or stop, and returns the headers for its hook. `None` if no spans are sent.
    pub fn begin_hook(&self, hook: NodeHook, node: NodeId) -> Option<TraceHeaders> {
        self.share?;
        let ids = self.ids(draw());
        lock(&self.hooks).insert((hook, node), ids);
        // Spans of hooks are sent whatever the share.
        Some(ids.headers(true, None))
    }

    /// The ids of the last call of the node's hook, once.
    pub fn take_hook(&self, hook: NodeHook, node: NodeId) -> Option<TraceIds> {
        lock(&self.hooks).remove(&(hook, node))
    }

    /// The caller's span if callers are trusted. It is the parent of the session's.
    pub fn parent<'a>(&self, caller: Option<&'a CallerSpan>) -> Option<&'a CallerSpan> {
        caller.filter(|_| self.trust == Traceparent::Parent)
    }

    /// The headers of a request about the session. If no spans are sent, they are those of a trusted caller.
    pub(crate) fn headers(
        &self,
        session: SessionId,
        caller: Option<&CallerSpan>,
    ) -> Option<TraceHeaders> {
        let caller = self.parent(caller);
        let Some(share) = self.share else { return caller.map(CallerSpan::headers) };
        let ids = self.of(session, caller);
        let is_sampled = caller.map_or(share.contains(ids.trace_id), |caller| caller.is_sampled);
        Some(ids.headers(is_sampled, caller.and_then(|caller| caller.state.clone())))
    }

    /// An id of a session of this group; whether it was given does not matter.
    pub fn group(&self) -> SessionId {
        SessionId(self.group.load(Ordering::Acquire))
    }

    /// Sessions get numbers of this one's group.
    pub fn set_group(&self, next: SessionId) {
        self.group.store(next.group().0, Ordering::Release);
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed.load(Ordering::Acquire)
    }

    /// Continues the ids of another process.
    pub(crate) fn resume(&self, seed: u64) {
        self.seed.store(seed, Ordering::Release);
    }
}

impl Default for TraceRegistry {
    fn default() -> TraceRegistry {
        TraceRegistry::new(Traceparent::default())
    }
}

#[cfg(test)]
mod tests;
