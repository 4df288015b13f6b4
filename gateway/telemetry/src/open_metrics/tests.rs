use std::collections::BTreeMap;
use std::time::Duration;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::Resource;

use super::*;
use crate::exemplars::SampledSpan;
use crate::instruments::{Instruments, Meters, meters};
use crate::registry::{Attribute, Count, Level};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn rendered(record: impl FnOnce(&Instruments)) -> String {
    let Meters { providers: _providers, instruments, prometheus, .. } =
        meters(&Resource::builder_empty().build(), false).unwrap();
    record(&instruments);
    prometheus.render_as(MetricsFormat::OpenMetrics)
}

fn span(is_sampled: bool) -> Option<SampledSpan> {
    let flags = TraceFlags::default().with_sampled(is_sampled);
    let (trace, span) = (TraceId::from_hex(TRACE).unwrap(), SpanId::from_hex(SPAN).unwrap());
    SampledSpan::of(&SpanContext::new(trace, span, flags, false, TraceState::default()))
}

/// Reads a sample: its name, its labels as they are, its value and, if there is one, its exemplar.
fn sample(line: &str) -> (&str, &str, f64, Option<&str>) {
    let (line, exemplar) = match line.split_once(" # ") {
        Some((line, exemplar)) => (line, Some(exemplar)),
        None => (line, None),
    };
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    (name, labels.strip_suffix('}').unwrap(), value.parse().unwrap(), exemplar)
}

/// Checks the rules of OpenMetrics 1.0 that a reader may rely on.
fn assert_valid(text: &str) {
    let body = text.strip_suffix("# EOF\n").expect("the end");
    assert!(!body.contains("# EOF") && !body.contains("\n\n"), "{text}");
    let (mut kinds, mut family) = (BTreeMap::new(), "");
    let mut buckets: Option<(&str, f64, f64)> = None;
    for line in body.lines() {
        if let Some(metadata) = line.strip_prefix("# ") {
            let [keyword, name, rest] = metadata.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            match keyword {
                "TYPE" => assert!(kinds.insert(name, rest).is_none(), "{name} again"),
                "HELP" => assert_eq!(name, family),
                _ => panic!("{line}"),
            }
            (family, buckets) = (name, None);
            continue;
        }
        let (name, labels, value, exemplar) = sample(line);
        let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} in {family}"));
        let fits = match (kinds[family], suffix) {
            ("counter", "_total") => value >= 0.0,
            ("gauge", "") | ("histogram", "_bucket" | "_count" | "_sum") => true,
            _ => false,
        };
        assert!(fits, "{line}: a {}", kinds[family]);
        if let Some(exemplar) = exemplar {
            assert_eq!(suffix, "_bucket", "{line}");
            let (labels, rest) = exemplar.strip_prefix('{').unwrap().split_once("} ").unwrap();
            assert!(labels.chars().filter(|c| !"=\",".contains(*c)).count() <= 128);
            let numbers: Vec<f64> = rest.split(' ').map(|part| part.parse().unwrap()).collect();
            assert_eq!(numbers.len(), 2, "value and time: {line}");
        }
        let (others, bound) = labels.split_once("le=\"").unwrap_or((labels, ""));
        match (suffix, buckets) {
            ("_bucket", before) => {
                let bound = bound.trim_end_matches('"');
                assert!(bound.contains(['.', 'e', 'I']), "{line}: no canonical number");
                let bound = bound.parse().unwrap();
                if let Some((of, lower, below)) = before.filter(|(of, ..)| *of == others) {
                    assert!(bound > lower && value >= below, "{line} after {of}");
                }
                buckets = Some((others, bound, value));
            }
            ("_count", Some((_, bound, all))) => assert_eq!((bound, value), (f64::INFINITY, all)),
            _ => {}
        }
    }
}

#[test]
fn text_follows_the_rules_of_open_metrics() {
    let text = rendered(|instruments| {
        let scenario = [(Attribute::Scenario, "with \"quotes\", \\ and\na line")];
        instruments.count(Count::SessionsOpened, 2, &scenario);
        instruments.count(Count::OwnStalls, 0, &[]);
        instruments.level(Level::UplinkSuspect, 1.0, &[]);
        instruments.value(Histogram::SessionR, 71.0, &scenario);
        for micros in [1, 30, 5_000_000] {
            let policy = [(Attribute::Policy, "call/routing")];
            instruments.time(Histogram::PolicyCall, Duration::from_micros(micros), &policy);
        }
        for (ms, is_sampled) in [(3, true), (3, false), (9_000, true)] {
            let took = Duration::from_millis(ms);
            instruments.time_of(Histogram::SessionOpen, took, &scenario, span(is_sampled));
        }
    });
    assert_valid(&text);
    let scenario = r#"evenkeel_scenario="with \"quotes\", \\ and\na line""#;
    for line in [
        "# TYPE evenkeel_sessions_opened counter".to_owned(),
        format!("evenkeel_sessions_opened_total{{{scenario}}} 2"),
        "evenkeel_uplink_suspect 1".to_owned(),
        format!("evenkeel_session_r_factor_bucket{{{scenario},le=\"70.0\"}} 0"),
        "evenkeel_policy_call_duration_seconds_bucket{evenkeel_policy=\"call/routing\",le=\"1e-06\"} 1"
            .to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let exemplars: Vec<_> = text.lines().filter_map(|line| line.split_once(" # ")).collect();
    let reference = format!("{{trace_id=\"{TRACE}\",span_id=\"{SPAN}\"}}");
    let expected = [("0.005", "2", "0.003"), ("+Inf", "3", "9")];
    assert_eq!(exemplars.len(), expected.len(), "the span that is not sent is none: {exemplars:?}");
    for ((series, exemplar), (bound, below, value)) in exemplars.into_iter().zip(expected) {
        assert!(series.ends_with(&format!("le=\"{bound}\"}} {below}")), "{series}");
        assert!(exemplar.starts_with(&format!("{reference} {value} ")), "{exemplar}");
    }
}

#[test]
fn last_session_is_the_exemplar_of_its_bucket() {
    let text = rendered(|instruments| {
        let labels = [(Attribute::Cause, "node-down")];
        for ms in [11, 12] {
            let took = Duration::from_millis(ms);
            instruments.time_of(Histogram::RoomMove, took, &labels, span(true));
        }
    });
    let found: Vec<&str> = text.lines().filter(|line| line.contains(" # ")).collect();
    let [bucket] = found[..] else { panic!("{found:?}") };
    assert!(bucket.contains("le=\"0.02\"") && bucket.contains("} 0.012 "), "{bucket}");
}

#[test]
fn client_chooses_the_format() {
    let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                      application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    for (accept, expected) in [
        (prometheus, MetricsFormat::OpenMetrics),
        ("Application/OpenMetrics-Text; version=\"1.0.0\"", MetricsFormat::OpenMetrics),
        ("application/openmetrics-text, text/plain", MetricsFormat::OpenMetrics),
        ("text/plain, application/openmetrics-text", MetricsFormat::Prometheus),
        ("application/openmetrics-text; q=0", MetricsFormat::Prometheus),
        ("application/openmetrics-text; q=0.2, */*; q=0.3", MetricsFormat::Prometheus),
        ("application/openmetrics-text; version=2.0.0", MetricsFormat::Prometheus),
        ("*/*", MetricsFormat::Prometheus),
        ("", MetricsFormat::Prometheus),
    ] {
        assert_eq!(MetricsFormat::preferred(accept), expected, "{accept}");
    }
}

#[test]
fn bounds_are_canonical_numbers() {
    let bounds = [0.0, 1e-6, 5e-5, 1e-4, 0.02, 1.0, 70.0, 300.0, 1e6, 2.5e10, f64::INFINITY];
    let written = [
        "0.0", "1e-06", "5e-05", "0.0001", "0.02", "1.0", "70.0", "300.0", "1e+06", "2.5e+10",
        "+Inf",
    ];
    assert_eq!(bounds.map(canonical), written);
}
