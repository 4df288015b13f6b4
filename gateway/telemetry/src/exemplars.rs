//! Exemplars: of each bucket of a histogram the last session that fell into it, by its trace.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use opentelemetry::trace::{SpanContext, SpanId, TraceId};

use super::alerts::SeriesLabels;
use super::registry::{Attribute, Histogram};

/// Maximum series with exemplars, as many as the SDK keeps of one metric.
const SERIES_MAX: usize = 2_000;

/// A span that is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SampledSpan {
    trace: TraceId,
    span: SpanId,
}

impl SampledSpan {
    /// `None` for a span that is not sent.
    pub(crate) fn of(context: &SpanContext) -> Option<SampledSpan> {
        let span = SampledSpan { trace: context.trace_id(), span: context.span_id() };
        context.is_sampled().then_some(span)
    }
}

/// A measured value, and the span of its session.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Exemplar {
    pub(super) value: f64,
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) at: SystemTime,
}

type SeriesExemplars = Vec<Option<Exemplar>>;

/// The exemplars of each series, by bucket.
#[derive(Default, Debug)]
pub(super) struct ExemplarTable(Mutex<BTreeMap<(Histogram, SeriesLabels), SeriesExemplars>>);

impl ExemplarTable {
    pub(super) fn note(
        &self,
        metric: Histogram,
        value: f64,
        labels: &[(Attribute, &str)],
        SampledSpan { trace, span }: SampledSpan,
    ) {
        let labels = labels.iter();
        let labels: SeriesLabels =
            labels.map(|(label, value)| (label.prometheus_label(), (*value).to_owned())).collect();
        let bounds = metric.described().bounds;
        let bucket = bounds.partition_point(|bound| *bound < value);
        let mut series = self.lock();
        let key = (metric, labels);
        if series.len() >= SERIES_MAX && !series.contains_key(&key) {
            return;
        }
        let buckets = series.entry(key).or_insert_with(|| vec![None; bounds.len() + 1]);
        buckets[bucket] = Some(Exemplar { value, trace, span, at: SystemTime::now() });
    }

    /// Of each bucket in the order of their bounds; empty without any.
    pub(super) fn of(&self, metric: Histogram, labels: &SeriesLabels) -> SeriesExemplars {
        self.lock().get(&(metric, labels.clone())).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Histogram, SeriesLabels), SeriesExemplars>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
