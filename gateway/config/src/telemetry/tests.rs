use std::fs;

use super::super::check::source;
use super::*;

/// The form is checked only.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n";

/// Checks `[telemetry]` with these keys in this environment, beside a file of headers and one of certificates.
fn check(keys: &str, environment: &[(&str, &str)]) -> (TelemetrySettings, ConfigCheck) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("headers"), "Authorization: Bearer abc\n\nx-tenant: blue\n")
        .unwrap();
    fs::write(folder.path().join("ca.pem"), CERTIFICATE).unwrap();
    fs::write(folder.path().join("broken.pem"), &CERTIFICATE[..30]).unwrap();
    let source = source(Path::new("evenkeel.toml"), keys);
    let mut check = ConfigCheck::new(source, folder.path());
    let raw: TelemetryTable = toml::from_str(keys).unwrap();
    let read = |name: &str| {
        let found = environment.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let settings = TelemetrySettings::check(&raw, &read, &mut check);
    (settings, check)
}

fn endpoints(keys: &str, environment: &[(&str, &str)]) -> [Option<String>; 3] {
    let (settings, check) = check(keys, environment);
    assert!(check.invalid.is_empty() && check.warnings.is_empty());
    let TelemetrySettings { traces, metrics, logs, .. } = settings;
    [traces, metrics, logs]
        .map(|to| to.map(|Otlp { endpoint, protocol, .. }| format!("{protocol:?} {endpoint}")))
}

fn all(traces: &str, metrics: &str, logs: &str) -> [Option<String>; 3] {
    [traces, metrics, logs].map(|to| (!to.is_empty()).then(|| to.to_owned()))
}

const COMMON: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

#[test]
fn file_names_the_receiver_of_each_signal() {
    let grpc = "Grpc https://collector.example:4317";
    let keys = "otlp = \"https://collector.example:4317/\"\n";
    assert_eq!(endpoints(keys, &[]), all(grpc, grpc, grpc));
    let keys = &format!("{keys}signals = [\"logs\", \"traces\"]\n");
    assert_eq!(endpoints(keys, &[(COMMON, "http://other:1")]), all(grpc, "", grpc));
    let keys = "otlp = \"https://host/otlp/\"\nprotocol = \"http\"\n";
    let [traces, metrics, logs] =
        ["traces", "metrics", "logs"].map(|signal| format!("Http https://host/otlp/v1/{signal}"));
    assert_eq!(endpoints(keys, &[]), all(&traces, &metrics, &logs));
    assert_eq!(endpoints("", &[]), all("", "", ""));
}

#[test]
fn environment_names_the_receivers_that_the_file_does_not() {
    let base = (COMMON, "http://10.0.0.1:4318");
    let http = |signal: &str| format!("Http http://10.0.0.1:4318/v1/{signal}");
    let (traces, metrics, logs) = (http("traces"), http("metrics"), http("logs"));
    assert_eq!(endpoints("", &[base]), all(&traces, &metrics, &logs));
    let own = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://10.0.0.2:9000/in");
    let metrics = "Http http://10.0.0.2:9000/in";
    assert_eq!(endpoints("", &[base, own]), all(&traces, metrics, &logs));
    assert_eq!(endpoints("", &[own]), all("", metrics, ""));
    let off = ("OTEL_LOGS_EXPORTER", "none");
    assert_eq!(endpoints("", &[base, off]), all(&traces, &http("metrics"), ""));
    let grpc = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc");
    let traces = "Grpc http://10.0.0.1:4318";
    assert_eq!(endpoints("", &[base, grpc]), all(traces, &http("metrics"), &logs));
    assert_eq!(endpoints("", &[base, ("OTEL_SDK_DISABLED", "true")]), all("", "", ""));
    assert_eq!(endpoints("", &[(COMMON, "")]), all("", "", ""));
}

#[test]
fn environment_sets_what_the_file_leaves_out() {
    let environment = [
        (COMMON, "https://collector:4318"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "2500"),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
    ];
    let (settings, checked) = check("", &environment);
    assert!(checked.warnings.is_empty());
    assert_eq!(settings.metrics_interval, Duration::from_millis(2_500));
    assert_eq!(settings.sample_ratio, 0.25);
    let (settings, _) = check("sample_ratio = 0.5\nmetrics_interval = \"5s\"\n", &environment);
    assert_eq!(settings.metrics_interval, Duration::from_secs(5));
    assert_eq!(settings.sample_ratio, 0.5);
}

#[test]
fn unusable_variables_are_warned_of_and_ignored() {
    for (name, value) in [
        (COMMON, "collector:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "10s"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "missing.pem"),
    ] {
        let base = ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://10.0.0.1:4318");
        let (settings, check) = check("", &[base, (name, value)]);
        let [warning] = &check.warnings[..] else { panic!("{name}: {:?}", check.warnings) };
        assert_eq!(warning.file, name);
        assert!(warning.to_string().starts_with(&format!("found `{value}`, which is ignored")));
        assert_eq!((settings.sample_ratio, settings.logs.is_some()), (1.0, true));
    }
}

#[test]
fn headers_are_read_from_a_file_and_hidden() {
    let keys = "otlp = \"http://10.0.0.1:4317\"\nheaders_file = \"headers\"\n";
    let (settings, checked) = check(keys, &[]);
    assert!(!format!("{settings:?}").contains("abc"), "a secret shows");
    let headers = settings.traces.unwrap().headers;
    let headers: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str(), value.bytes())).collect();
    let expected: [(&str, &[u8]); 2] = [("authorization", b"Bearer abc"), ("x-tenant", b"blue")];
    assert_eq!(headers, expected);
    let warnings: Vec<_> = checked.warnings.iter().map(ToString::to_string).collect();
    let clear = |warning: &&String| warning.contains("cross the network in clear text");
    assert_eq!(warnings.iter().filter(clear).count(), 1, "{warnings:?}");
}

#[test]
fn unusable_keys_are_refused() {
    for (keys, found) in [
        ("otlp = \"collector:4317\"\n", "`collector:4317`"),
        ("otlp = \"http://host:4317/v1\"\n", "`http://host:4317/v1`"),
        ("headers_file = \"ca.pem\"\n", "`ca.pem`, whose line 1 is no header"),
        ("ca_file = \"headers\"\n", "headers` without a certificate, or with a broken one"),
        ("ca_file = \"broken.pem\"\n", "broken.pem` without a certificate, or with a broken one"),
    ] {
        let (_, check) = check(keys, &[]);
        assert!(check.invalid[0].found.ends_with(found), "{}", check.invalid[0].found);
    }
}

#[test]
fn certificates_and_secrets_of_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, CERTIFICATE).unwrap();
    let base = (COMMON, "https://collector:4318");
    let name = "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE";
    let (settings, checked) = check("", &[base, (name, ca.to_str().unwrap())]);
    assert!(checked.warnings.is_empty());
    assert!(settings.traces.unwrap().ca.is_some() && settings.logs.unwrap().ca.is_none());
    for secret in ["https://user:abc@collector", "https://collector/?token=abc"] {
        let (settings, checked) = check("", &[(COMMON, secret)]);
        assert!(!settings.exports());
        let warning = checked.warnings[0].to_string();
        assert!(!warning.contains("abc") && warning.contains("which is ignored"), "{warning}");
    }
}
