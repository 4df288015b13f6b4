//! Ended spans of sessions outside of the share. They are held until the session is affected, which sends them, or ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceId};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};

use crate::queue::ExportQueue;

/// Maximum held spans: of about 10,000 sessions, about 40 MiB. Of more, those of the oldest session are dropped.
const HELD_MAX: usize = 32_768;

/// In the context of a span: it is held unless it is sampled.
#[derive(Debug)]
pub(super) struct HeldTrace;

/// Takes ended spans: queues those that are sampled, and holds the others.
#[derive(Clone, Debug)]
pub(crate) struct SpanOutput {
    queue: Arc<ExportQueue<SpanData>>,
    held: Arc<Mutex<HeldSpans>>,
}

impl SpanOutput {
    pub(crate) fn new(queue: ExportQueue<SpanData>) -> SpanOutput {
        SpanOutput { queue: Arc::new(queue), held: Arc::default() }
    }

    /// Sends the held spans of this trace.
    pub(super) fn release(&self, trace: TraceId) {
        for span in self.take(trace) {
            let held = &span.span_context;
            let flags = held.trace_flags().with_sampled(true);
            let state = held.trace_state().clone();
            let span_context =
                SpanContext::new(trace, held.span_id(), flags, held.is_remote(), state);
            self.queue.push(SpanData { span_context, ..span });
        }
    }

    /// Drops the held spans of this trace.
    pub(super) fn forget(&self, trace: TraceId) {
        self.take(trace);
    }

    fn take(&self, trace: TraceId) -> Vec<SpanData> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).take(trace)
    }
}

impl SpanProcessor for SpanOutput {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.queue.push(span);
        } else {
            self.held.lock().unwrap_or_else(PoisonError::into_inner).hold(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[derive(Default, Debug)]
struct HeldSpans {
    /// Of each trace, with its number.
    traces: BTreeMap<[u8; 16], (u64, Vec<SpanData>)>,
    /// By their numbers, oldest first.
    oldest: BTreeMap<u64, [u8; 16]>,
    next: u64,
    spans: usize,
}

impl HeldSpans {
    fn hold(&mut self, span: SpanData) {
        while self.spans >= HELD_MAX
            && let Some(trace) = self.oldest.values().next().copied()
        {
            self.take(TraceId::from_bytes(trace));
        }
        let (trace, next) = (span.span_context.trace_id().to_bytes(), self.next);
        let (number, spans) = self.traces.entry(trace).or_insert((next, Vec::new()));
        if *number == next {
            self.oldest.insert(next, trace);
            self.next += 1;
        }
        spans.push(span);
        self.spans += 1;
    }

    fn take(&mut self, trace: TraceId) -> Vec<SpanData> {
        let Some((number, spans)) = self.traces.remove(&trace.to_bytes()) else {
            return Vec::new();
        };
        self.oldest.remove(&number);
        self.spans -= spans.len();
        spans
    }
}

#[cfg(test)]
mod tests;
