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
        assert!(attribute.key().starts_with("evenkeel."), "{attribute:?}");
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
    for metric in all() {
        // A node has one region and one zone: they make no more series.
        let of_node = metric.attributes.contains(&Attribute::Node);
        let place = [Attribute::Region, Attribute::Zone];
        let labels = metric.attributes.iter().filter(|it| !of_node || !place.contains(it));
        // There are three windows.
        let labels = labels.filter(|it| **it != Attribute::Window);
        assert!(labels.count() <= 2, "{}", metric.name);
        assert!(!metric.attributes.iter().any(|a| unbounded.contains(a)), "{}", metric.name);
    }
}

#[test]
fn buckets_increase() {
    for metric in Histogram::ALL {
        assert!(metric.bounds().is_sorted_by(|a, b| a < b), "{metric:?}");
    }
}
