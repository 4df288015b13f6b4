use std::collections::BTreeSet;

use super::*;

fn all() -> Vec<Described> {
    let counts = Count::ALL.iter().map(|metric| metric.described());
    let levels = Level::ALL.iter().map(|metric| metric.described());
    counts.chain(levels).chain(Histogram::ALL.iter().map(|metric| metric.described())).collect()
}

#[test]
fn names_are_unique_and_documented() {
    let metrics = all();
    let names: BTreeSet<_> = metrics.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), metrics.len());
    for metric in metrics {
        let Described { name, unit, doc, .. } = metric;
        assert!(name.starts_with("evenkeel.") || name.starts_with("media."), "{name}");
        assert!(!unit.is_empty() && doc.ends_with('.'), "{name}: {unit}: {doc}");
        let has_ending = metric.prometheus_name().len() > name.len();
        assert_ne!(has_ending, unit.starts_with('{'), "{name}: no name in Prometheus for {unit}");
    }
    let keys: BTreeSet<_> = Attribute::ALL.iter().map(|attribute| attribute.key()).collect();
    assert_eq!(keys.len(), Attribute::ALL.len());
    let spans: BTreeSet<_> = Span::ALL.iter().map(|span| span.name()).collect();
    assert_eq!(spans.len(), Span::ALL.len());
}

#[test]
fn attributes_are_used_and_prefixed() {
    let metrics = all();
    for attribute in Attribute::ALL {
        let in_metrics = metrics.iter().any(|metric| metric.attributes.contains(attribute));
        let in_spans = Span::ALL.iter().any(|span| span.attributes().contains(attribute));
        assert!(in_metrics || in_spans, "{attribute:?}");
        let is_conventional = ["error.type", "session.id"].contains(&attribute.key());
        assert!(is_conventional || attribute.key().starts_with("evenkeel."), "{attribute:?}");
    }
}

#[test]
fn metrics_have_few_labels() {
    let unbounded = [
        Attribute::Session,
        Attribute::Room,
        Attribute::RoomName,
        Attribute::Revision,
        Attribute::Previous,
    ];
    // Of two, three or seven values that the program knows.
    let fixed = [
        Attribute::Cause,
        Attribute::Direction,
        Attribute::Repair,
        Attribute::Rung,
        Attribute::Segment,
        Attribute::Window,
    ];
    for metric in all() {
        let has = |attribute| metric.attributes.contains(&attribute);
        // A node has one region and one zone, and a zone one region: they make no more series.
        let follows = |attribute: Attribute| match attribute {
            Attribute::Region => has(Attribute::Node) || has(Attribute::Zone),
            Attribute::Zone => has(Attribute::Node),
            // The series of a policy's former revisions end.
            Attribute::Revision => metric.name == Level::PolicyRevision.described().name,
            _ => fixed.contains(&attribute),
        };
        let labels: Vec<_> = metric.attributes.iter().filter(|it| !follows(**it)).collect();
        assert!(labels.len() <= 2, "{}: {labels:?}", metric.name);
        assert!(!labels.iter().any(|it| unbounded.contains(it)), "{}", metric.name);
    }
}

#[test]
fn buckets_increase() {
    for metric in Histogram::ALL {
        assert!(metric.described().bounds.is_sorted_by(|a, b| a < b), "{metric:?}");
    }
}
