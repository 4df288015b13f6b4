//! Receivers, their signals and headers.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_config::{GatewayConfig, Traceparent};
use evenkeel_control::{EventRecord, GatewayEvent, Handle, ListChange, ReloadReport, Reloaded};
use evenkeel_revisions::Actor;
use evenkeel_telemetry::registry::Attribute;
use evenkeel_telemetry::{LogLines, Telemetry};
use opentelemetry_proto::tonic::common::v1::any_value::Value;

use crate::receiver::Receiver;
use crate::telemetry::{
    SOON, check_registered, counted, down, hear, names, opened, recorder, said, start, word,
};

#[test]
fn http_export_carries_all_signals() {
    let receiver = Receiver::http();
    let (telemetry, mut recorder) = start("http", receiver.address, "http", 1.0);
    tracing::subscriber::with_default(
        telemetry.subscriber("off", LogLines::to(std::io::sink()).unwrap()).unwrap().0,
        || {
            hear(&mut recorder, &[opened(1, 1), down(0)]);
        },
    );
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    check_registered(&spans);
    assert_eq!(names(&spans).len(), 3, "{:?}", names(&spans));
    assert_eq!(receiver.log_lines().len(), 1);
    assert!(!receiver.metrics().is_empty());
    assert_eq!(counted(&telemetry, "evenkeel_telemetry_sent_total", "spans"), 3);
}

#[test]
fn log_level_of_operators_selects_lines_that_are_sent() {
    let receiver = Receiver::grpc();
    let (telemetry, _) = start("log-level", receiver.address, "grpc", 1.0);
    let people = LogLines::to(std::io::sink()).unwrap();
    let (subscriber, filter) = telemetry.subscriber("off", people).unwrap();
    let (handle, _requests) = Handle::new(Arc::default(), Arc::default());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    tracing::subscriber::with_default(subscriber, || {
        for chosen in [None, Some("warn"), Some("debug"), None] {
            handle.log_filter.send_replace(chosen.map(Into::into));
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = filter.follow(&handle) => panic!("it follows until control ends"),
                    () = std::future::ready(()) => {}
                }
            });
            tracing::debug!(chosen, "debug line");
            tracing::info!(chosen, "info line");
            tracing::warn!(chosen, "warning");
        }
    });
    assert!(telemetry.flush(SOON));
    let lines = receiver.log_lines().into_iter().map(|line| match line.body.unwrap().value {
        Some(Value::StringValue(text)) => text,
        other => panic!("{other:?}"),
    });
    let lines: Vec<String> = lines.filter(|line| line != "log filter in force").collect();
    let both = ["info line", "warning"];
    assert_eq!(lines, [&both[..], &["warning"], &both, &both].concat());
}

/// `[telemetry]` with these keys, beside files of a certificate and of headers.
fn settings_of(name: &str, keys: &str, certificate: &str) -> GatewayConfig {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).expect("the target folder can be written");
    let headers = "x-tenant: blue 100%25\n";
    for (name, text) in [("ca.pem", certificate), ("headers", headers)] {
        fs::write(folder.join(name), text).expect("the target folder can be written");
    }
    let file = folder.join("evenkeel.toml");
    fs::write(&file, format!("[telemetry]\n{keys}metrics_interval = \"1h\"\n"))
        .expect("the target folder can be written");
    GatewayConfig::load(Some(&file), None, &evenkeel_drivers::kinds(evenkeel_drivers::DRIVERS))
        .expect("these settings are right")
}

#[test]
fn receiver_with_tls_is_verified_and_gets_headers() {
    for protocol in ["grpc", "http"] {
        for trusts in [true, false] {
            let (certificate, receiver) = match protocol {
                "grpc" => Receiver::grpc_with_tls(),
                _ => Receiver::http_with_tls(),
            };
            let (name, port) = (format!("tls-{protocol}-{trusts}"), receiver.address.port());
            let ca = if trusts { "ca_file = \"ca.pem\"\n" } else { "" };
            let keys = format!(
                "otlp = \"https://localhost:{port}\"\nprotocol = \"{protocol}\"\n\
                 headers_file = \"headers\"\n{ca}"
            );
            let settings = settings_of(&name, &keys, &certificate);
            let telemetry = Telemetry::start(&settings, "test").unwrap();
            let mut recorder = recorder(&telemetry, &settings, Traceparent::Link);
            hear(&mut recorder, &[opened(1, 1)]);
            assert!(telemetry.flush(SOON));
            assert_eq!(receiver.spans().len(), if trusts { 2 } else { 0 }, "{name}");
            let tenants = receiver.tenants();
            assert!(tenants.iter().all(|tenant| tenant == "blue 100%25"), "{tenants:?}");
            assert_eq!(tenants.is_empty(), !trusts);
        }
    }
}

#[test]
fn failed_export_says_why() {
    let (metrics, unauthorized) = (Receiver::grpc_of_metrics(), Receiver::http_unauthorized());
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (address, protocol, why) in [
        (metrics.address, "grpc", "gRPC status UNIMPLEMENTED"),
        (closed, "grpc", "Connection refused"),
        (closed, "http", "Connection refused"),
        (unauthorized.address, "http", "HTTP status 401"),
    ] {
        let (telemetry, mut recorder) = start(&format!("why-{protocol}"), address, protocol, 1.0);
        hear(&mut recorder, &[opened(1, 1)]);
        assert!(telemetry.flush(SOON));
        let failures = telemetry.export_failures().list();
        let spans = failures.iter().find(|failure| failure.signal == "spans").unwrap();
        assert!(spans.reason.contains(why), "{protocol}: {}", spans.reason);
    }
}

#[test]
fn signals_and_attributes_of_the_resource_are_chosen() {
    let receiver = Receiver::grpc();
    let keys = format!(
        "otlp = \"http://{}\"\nsignals = [\"traces\"]\n\
         resource = {{ \"service.name\" = \"calls\", \"deployment.environment.name\" = \"prod\" }}\n",
        receiver.address
    );
    let settings = settings_of("signals", &keys, "");
    let telemetry = Telemetry::start(&settings, "test").unwrap();
    let mut recorder = recorder(&telemetry, &settings, Traceparent::Link);
    tracing::subscriber::with_default(
        telemetry.subscriber("off", LogLines::to(std::io::sink()).unwrap()).unwrap().0,
        || hear(&mut recorder, &[opened(1, 1), down(0)]),
    );
    assert!(telemetry.flush(SOON));
    assert!(!receiver.spans().is_empty());
    assert!(receiver.metrics().is_empty() && receiver.log_lines().is_empty());
    let named = ["service.name", "deployment.environment.name", "service.instance.id"];
    assert_eq!(named.map(|key| receiver.resource(key)), ["calls", "prod", "test"]);
}

#[test]
fn reload_is_a_span_with_its_reason() {
    let receiver = Receiver::grpc();
    let (telemetry, mut recorder) = start("reload", receiver.address, "grpc", 0.0);
    let took = Duration::from_millis(3);
    let removed = (0..130).map(|node| format!("n{node}").into()).collect();
    let nodes = ListChange { removed, ..ListChange::default() };
    let reloaded = Reloaded { nodes, ..Reloaded::default() };
    for outcome in [Ok(reloaded), Err("evenkeel.toml:3:1: found nothing".into())] {
        let report = ReloadReport { by: Actor::Operator, took, outcome };
        recorder.record(&EventRecord::now(GatewayEvent::Reload(report)));
    }
    assert!(telemetry.flush(SOON));
    let spans = receiver.spans();
    check_registered(&spans);
    assert_eq!(names(&spans), ["gateway.reload", "gateway.reload"]);
    let outcomes: Vec<_> = spans.iter().map(|span| word(span, Attribute::Outcome)).collect();
    assert_eq!(outcomes, ["ok", "refused"]);
    assert_eq!(word(&spans[1], Attribute::Reason), "evenkeel.toml:3:1: found nothing");
    let Some(Value::ArrayValue(nodes)) = said(&spans[0], Attribute::Nodes) else { panic!() };
    assert_eq!(nodes.values.len(), 128);
    assert_eq!(said(&spans[0], Attribute::DroppedNodes), Some(Value::IntValue(2)));
}
