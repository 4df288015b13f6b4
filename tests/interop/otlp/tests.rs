use std::net::TcpStream;
use std::time::{Duration, Instant};

use evenkeel_testkit::TIMEOUT;
use evenkeel_testkit::http::HttpClient;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Wire;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{self as wire, ResourceSpans, ScopeSpans, Status};
use prost::Message;

use super::*;

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Wire::StringValue(value.into())) });
    KeyValue { key: key.into(), value, ..KeyValue::default() }
}

fn resource() -> Option<Resource> {
    Some(Resource { attributes: vec![text("service.name", "evenkeel")], ..Resource::default() })
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope { name: "evenkeel".into(), ..InstrumentationScope::default() })
}

fn good() -> wire::Span {
    wire::Span {
        name: "node.failover".into(),
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        parent_span_id: vec![3; 8],
        kind: 1,
        start_time_unix_nano: 10,
        end_time_unix_nano: 20,
        attributes: vec![text("evenkeel.node", "east-a1")],
        links: vec![wire::span::Link {
            trace_id: vec![4; 16],
            span_id: vec![5; 8],
            ..Default::default()
        }],
        status: Some(Status { code: 2, message: "node is down".into() }),
        ..wire::Span::default()
    }
}

fn request(span: wire::Span) -> ExportTraceServiceRequest {
    let scope_spans =
        vec![ScopeSpans { scope: scope(), spans: vec![span], ..ScopeSpans::default() }];
    let group = ResourceSpans { resource: resource(), scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![group] }
}

fn refusal(twist: impl FnOnce(&mut wire::Span)) -> Malformed {
    let mut span = good();
    twist(&mut span);
    check::spans(request(span)).unwrap_err()
}

fn receiver() -> Receiver {
    let any = "127.0.0.1:0".parse().unwrap();
    Receiver::start(Listen { grpc: any, http: any }).unwrap()
}

fn runtime() -> runtime::Runtime {
    runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// The status of the answer to a request with a body of this type.
fn ask(endpoint: &str, line: &str, content_type: &str, body: &[u8]) -> u16 {
    let stream = TcpStream::connect(endpoint.strip_prefix("http://").unwrap()).unwrap();
    let content_type = format!("content-type: {content_type}");
    HttpClient::over(stream).ask(line, &[&content_type], body).unwrap().status
}

#[test]
fn span_keeps_its_ids_links_and_attributes() {
    let [span] = &check::spans(request(good())).unwrap()[..] else { panic!() };
    assert_eq!(span.trace_id, "01010101010101010101010101010101");
    assert_eq!(
        (span.span_id.as_str(), span.parent.as_deref()),
        ("0202020202020202", Some("0303030303030303"))
    );
    assert_eq!(span.attributes["evenkeel.node"], Value::Text("east-a1".into()));
    assert_eq!(span.links[0].span_id, "0505050505050505");
    assert_eq!(span.error.as_deref(), Some("node is down"));
    assert_eq!(span.resource["service.name"], Value::Text("evenkeel".into()));
}

#[test]
fn malformed_span_is_refused_with_reason() {
    assert!(matches!(
        refusal(|span| span.trace_id = vec![0; 16]),
        Malformed::Id { what: "trace id", .. }
    ));
    assert!(matches!(refusal(|span| span.span_id = vec![1; 7]), Malformed::Id { length: 7, .. }));
    assert!(matches!(refusal(|span| span.parent_span_id = vec![0; 8]), Malformed::Id { .. }));
    assert!(matches!(
        refusal(|span| span.links[0].trace_id.clear()),
        Malformed::Id { what: "link's trace id", .. }
    ));
    assert_eq!(refusal(|span| span.name.clear()), Malformed::NoName("span"));
    assert!(matches!(
        refusal(|span| span.kind = 0),
        Malformed::Number { what: "span kind", number: 0, .. }
    ));
    assert!(matches!(refusal(|span| span.kind = 6), Malformed::Number { .. }));
    assert!(matches!(refusal(|span| span.end_time_unix_nano = 9), Malformed::Times { .. }));
    assert!(matches!(refusal(|span| span.start_time_unix_nano = 0), Malformed::Times { .. }));
    assert!(matches!(refusal(|span| span.attributes[0].value = None), Malformed::Attribute(_)));
    assert!(matches!(refusal(|span| span.attributes[0].key.clear()), Malformed::Attribute(_)));
    let twice = refusal(|span| span.attributes.push(text("evenkeel.node", "x")));
    assert_eq!(twice, Malformed::AttributeTwice("evenkeel.node".into()));
}

#[test]
fn resource_and_scope_need_names() {
    let refused = |twist: fn(&mut ResourceSpans)| {
        let mut request = request(good());
        twist(&mut request.resource_spans[0]);
        check::spans(request).unwrap_err()
    };
    assert_eq!(refused(|group| group.resource = None), Malformed::NoResource);
    assert_eq!(
        refused(|group| group.resource = Some(Resource::default())),
        Malformed::NoServiceName
    );
    assert_eq!(
        refused(|group| group.scope_spans[0].scope = None),
        Malformed::NoName("instrumentation scope")
    );
    assert_eq!(refused(|group| group.scope_spans[0].spans.clear()), Malformed::Empty);
}

#[test]
fn metric_without_points_is_refused() {
    let request = |data| {
        let metrics = vec![Metric { name: "media.loss".into(), data, ..Metric::default() }];
        let scope_metrics =
            vec![ScopeMetrics { scope: scope(), metrics, ..ScopeMetrics::default() }];
        let group =
            ResourceMetrics { resource: resource(), scope_metrics, ..ResourceMetrics::default() };
        check::points(ExportMetricsServiceRequest { resource_metrics: vec![group] })
    };
    let gauge = Gauge { data_points: vec![NumberDataPoint::default(); 2] };
    assert_eq!(request(Some(Data::Gauge(gauge))).unwrap(), [("media.loss".to_owned(), 2)]);
    assert_eq!(
        request(Some(Data::Gauge(Gauge::default()))),
        Err(Malformed::NoPoints("media.loss".into()))
    );
    assert_eq!(request(None), Err(Malformed::NoPoints("media.loss".into())));
}

#[test]
fn unknown_severity_is_refused() {
    let request = |severity_number| {
        let log_records = vec![LogRecord { severity_number, ..LogRecord::default() }];
        let scope_logs = vec![ScopeLogs { scope: scope(), log_records, ..ScopeLogs::default() }];
        let group = ResourceLogs { resource: resource(), scope_logs, ..ResourceLogs::default() };
        check::logs(ExportLogsServiceRequest { resource_logs: vec![group] })
    };
    assert_eq!(request(24), Ok(1));
    assert!(matches!(request(25), Err(Malformed::Number { what: "severity", number: 25, .. })));
}

#[test]
fn http_refuses_malformed_requests() {
    let receiver = receiver();
    let endpoint = receiver.http_endpoint();
    let post = |body: &[u8]| ask(&endpoint, "POST /v1/traces", http::PROTOBUF, body);
    assert_eq!(post(&request(good()).encode_to_vec()), 200);
    let mut bad = good();
    bad.trace_id.clear();
    assert_eq!(post(&request(bad).encode_to_vec()), 400);
    assert_eq!(post(b"\xff\xff\xff"), 400);
    assert_eq!(ask(&endpoint, "POST /v1/traces", "application/json", b"{}"), 415);
    assert_eq!(ask(&endpoint, "POST /v2/traces", http::PROTOBUF, b""), 404);
    assert_eq!(ask(&endpoint, "GET /v1/traces", http::PROTOBUF, b""), 405);
    let report = receiver.books().report();
    assert_eq!(
        (report.spans_received["node.failover"], report.requests, report.refused),
        (1, 1, 2)
    );
    assert_eq!(report.reasons.len(), 2);
    let id = "02".repeat(8);
    assert!(receiver.books().span(&"01".repeat(16), &id).is_some());
}

#[test]
fn grpc_refuses_malformed_requests() {
    let receiver = receiver();
    runtime().block_on(async {
        let mut client = TraceServiceClient::connect(receiver.grpc_endpoint()).await.unwrap();
        client.export(request(good())).await.unwrap();
        let mut bad = good();
        bad.span_id.clear();
        let refused = client.export(request(bad)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    });
    let report = receiver.books().report();
    assert_eq!((report.spans_received["node.failover"], report.refused), (1, 1));
    assert_eq!(receiver.books().spans_named("node.failover").count(), 1);
}

#[test]
fn dropped_receiver_is_a_dead_backend() {
    let receiver = receiver();
    let endpoint = receiver.http_endpoint();
    drop(receiver);
    let address = endpoint.strip_prefix("http://").unwrap();
    // A process that another test starts has the socket until it runs its program.
    let deadline = Instant::now() + TIMEOUT;
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < deadline, "the receiver still accepts");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
