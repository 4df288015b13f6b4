//! `[telemetry]`. A key that the file does not set has its value from the environment, as OpenTelemetry's specification
//! names the variables ("Environment Variable Specification", "OpenTelemetry Protocol Exporter").

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use evenkeel_process::setting_text::DurationText;
use serde::Deserialize;
use toml::Spanned;

use super::address::Url;
use super::check::{ConfigCheck, InvalidSetting, SecretFile};

const ENDPOINT: &str = "an `http` or `https` URL such as `http://127.0.0.1:4317`";

const CERTIFICATES: &str = "a file with certificates in PEM";

const HEADERS: &str = "a line for each header such as `authorization: Bearer TOKEN`";

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct TelemetryTable {
    otlp: Option<Spanned<String>>,
    protocol: Option<OtlpProtocol>,
    signals: Option<Vec<Signal>>,
    headers_file: Option<Spanned<String>>,
    ca_file: Option<Spanned<String>>,
    resource: BTreeMap<String, String>,
    sample_ratio: Option<Spanned<f64>>,
    metrics_interval: Option<Spanned<DurationText>>,
}

/// `[telemetry]`: receivers of spans, metrics and log lines.
#[derive(Clone, PartialEq, Debug)]
pub struct TelemetrySettings {
    /// Receiver of spans. Default: none.
    pub traces: Option<Otlp>,
    /// Receiver of metrics. Default: none; `/metrics` is always available.
    pub metrics: Option<Otlp>,
    /// Receiver of log lines. Default: none; standard error always has them.
    pub logs: Option<Otlp>,
    /// Attributes of the resource, which precede those of `OTEL_RESOURCE_ATTRIBUTES` with the same names.
    pub resource: BTreeMap<String, String>,
    /// Sampling ratio of the spans of sessions and decisions, 0 to 1. Default 1. Failovers, rollouts and refused
    /// sessions are always sampled.
    pub sample_ratio: f64,
    /// Export interval. Default 10 s.
    pub metrics_interval: Duration,
}

/// An OpenTelemetry receiver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Otlp {
    /// For HTTP with the path of the signal.
    pub endpoint: String,
    /// The encoding.
    pub protocol: OtlpProtocol,
    /// Headers of each request.
    pub headers: Vec<(String, SecretFile)>,
    /// Trusted certificates in PEM. Default: the system's.
    pub ca: Option<Arc<[u8]>>,
}

/// The encoding of OTLP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OtlpProtocol {
    /// gRPC, usually port 4317.
    #[default]
    Grpc,
    /// Protobuf over HTTP/1.1, usually port 4318.
    Http,
}

/// A kind of telemetry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// Spans.
    Traces,
    Metrics,
    /// Log lines.
    Logs,
}

impl Signal {
    const ALL: [Signal; 3] = [Signal::Traces, Signal::Metrics, Signal::Logs];

    /// The last part of the path of OTLP over HTTP.
    fn path(self) -> &'static str {
        match self {
            Signal::Traces => "traces",
            Signal::Metrics => "metrics",
            Signal::Logs => "logs",
        }
    }

    /// The part of names of environment variables.
    fn variable(self) -> String {
        self.path().to_ascii_uppercase()
    }
}

/// Reads a variable of the environment.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl TelemetrySettings {
    /// Any signal has a receiver.
    pub fn exports(&self) -> bool {
        [&self.traces, &self.metrics, &self.logs].into_iter().any(Option::is_some)
    }

    pub(super) fn check(
        raw: &TelemetryTable,
        environment: Environment<'_>,
        check: &mut ConfigCheck,
    ) -> TelemetrySettings {
        // An empty variable is unset.
        let read = |name: &str| environment(name).filter(|value| !value.is_empty());
        let environment: Environment<'_> = &read;
        let headers = raw.headers_file.as_ref().map_or_else(Vec::new, |file| headers(file, check));
        let ca = raw.ca_file.as_ref().and_then(|file| {
            let ca = certificates(&check.path(file.get_ref()));
            ca.map_err(|found| _ = check.refuse(file.span(), found, CERTIFICATES)).ok()
        });
        let written = raw.otlp.as_ref();
        let written = written.map(|written| written_endpoint(written, raw, check));
        let is_disabled = environment("OTEL_SDK_DISABLED")
            .is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let [traces, metrics, logs] = Signal::ALL.map(|signal| {
            let is_chosen = match &raw.signals {
                Some(signals) => signals.contains(&signal),
                None => is_exported(signal, environment, check),
            };
            if is_disabled || !is_chosen {
                return None;
            }
            let (url, protocol, is_whole) = match &written {
                Some(url) => (url.clone()?, raw.protocol.unwrap_or_default(), false),
                None => environment_endpoint(signal, raw.protocol, environment, check)?,
            };
            let endpoint = match protocol {
                OtlpProtocol::Http if !is_whole => format!("{url}/v1/{}", signal.path()),
                _ => url,
            };
            if let Some(file) = &raw.headers_file {
                warn_of_clear_text(&endpoint, file, check);
            }
            let ca = ca.clone().or_else(|| environment_ca(signal, environment, check));
            Some(Otlp { endpoint, protocol, headers: headers.clone(), ca })
        });
        let allowed = Duration::from_secs(1)..=Duration::from_secs(3_600);
        let interval = environment_interval(environment, check);
        let interval = interval.unwrap_or(Duration::from_secs(10));
        let ratio = environment_ratio(environment, check);
        let mut resource = raw.resource.clone();
        if let Some(name) = environment("OTEL_SERVICE_NAME") {
            resource.entry("service.name".to_owned()).or_insert(name);
        }
        TelemetrySettings {
            traces,
            metrics,
            logs,
            resource,
            sample_ratio: check.share(&raw.sample_ratio, ratio),
            metrics_interval: check.duration(&raw.metrics_interval, interval, allowed),
        }
    }
}

fn written_endpoint(
    written: &Spanned<String>,
    raw: &TelemetryTable,
    check: &mut ConfigCheck,
) -> Option<String> {
    let Some(endpoint) = endpoint(written.get_ref(), raw.protocol.unwrap_or_default()) else {
        check.refuse_text(written, ENDPOINT);
        return None;
    };
    Some(endpoint)
}

/// Warns once, whatever the number of signals.
fn warn_of_clear_text(endpoint: &str, file: &Spanned<String>, check: &mut ConfigCheck) {
    let found = "headers that cross the network in clear text";
    let is_clear = endpoint.parse::<Url>().is_ok_and(|url| url.crosses_in_clear_text());
    if is_clear && !check.warnings.iter().any(|known| known.found == found) {
        check.warn(file.span(), found, "a receiver with `https`");
    }
}

/// The URL without a slash at its end. gRPC has paths of its own.
fn endpoint(written: &str, protocol: OtlpProtocol) -> Option<String> {
    let url: Url = written.parse().ok()?;
    let fits = url.path() == "/" || protocol == OtlpProtocol::Http && !url.path().contains('?');
    fits.then(|| url.to_string().trim_end_matches('/').to_owned())
}

fn headers(file: &Spanned<String>, check: &mut ConfigCheck) -> Vec<(String, SecretFile)> {
    let Some(bytes) = check.secret_file(file, 1) else { return Vec::new() };
    check.warn_of_readers(file);
    let mut headers = Vec::new();
    for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = std::str::from_utf8(line).map(str::trim);
        if line == Ok("") {
            continue;
        }
        let is_token = |name: &str| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !name.is_empty() && name.chars().all(is_plain)
        };
        let is_visible = |value: &str| value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let header = line.ok().and_then(|line| line.split_once(':'));
        match header.map(|(name, value)| (name.trim(), value.trim())) {
            Some((name, value)) if is_token(name) && is_visible(value) => {
                headers.push((name.to_ascii_lowercase(), SecretFile::new(value.into())));
            }
            // The line may contain a secret.
            _ => {
                let found = format!("`{}`, whose line {} is no header", file.get_ref(), number + 1);
                check.refuse(file.span(), found, HEADERS);
            }
        }
    }
    headers
}

/// The content of a file of certificates in PEM; the error says what was found.
fn certificates(path: &Path) -> Result<Arc<[u8]>, String> {
    let shown = path.display();
    let pem = std::fs::read_to_string(path).map_err(|error| format!("`{shown}`: {error}"))?;
    let parts = pem.split("-----BEGIN CERTIFICATE-----").skip(1);
    let is_certificate = |part: &str| {
        let body = part.split("-----END CERTIFICATE-----").next().unwrap_or_default();
        let digits: String = body.split_whitespace().collect();
        // A SEQUENCE (RFC 5280, 4.1).
        BASE64.decode(digits.as_bytes()).is_ok_and(|der| der.first() == Some(&0x30))
    };
    let all: Vec<bool> = parts.map(is_certificate).collect();
    if !all.is_empty() && all.iter().all(|it| *it) {
        Ok(pem.into_bytes().into())
    } else {
        Err(format!("`{shown}` without a certificate, or with a broken one"))
    }
}

/// Warns that a variable has an unusable value, which is ignored: other programs may understand it.
fn ignore(name: &str, value: &str, expected: &str, check: &mut ConfigCheck) {
    let setting =
        InvalidSetting::whole(Path::new(name), format!("`{value}`, which is ignored"), expected);
    // A variable may be read for each signal.
    if !check.warnings.iter().any(|known| known.file == setting.file) {
        check.warnings.push(setting);
    }
}

fn is_exported(signal: Signal, environment: Environment<'_>, check: &mut ConfigCheck) -> bool {
    let name = format!("OTEL_{}_EXPORTER", signal.variable());
    match environment(&name).as_deref() {
        None | Some("otlp") => true,
        Some("none") => false,
        Some(other) => {
            ignore(&name, other, "`otlp` or `none`", check);
            true
        }
    }
}

/// The value of the signal's own variable, or of that for all signals, with the variable's name and whether it is the
/// signal's own.
fn of_signal(
    signal: Signal,
    last: &str,
    environment: Environment<'_>,
) -> Option<(String, String, bool)> {
    let own = format!("OTEL_EXPORTER_OTLP_{}_{last}", signal.variable());
    let common = format!("OTEL_EXPORTER_OTLP_{last}");
    let own = environment(&own).map(|value| (value, own, true));
    own.or_else(|| environment(&common).map(|value| (value, common, false)))
}

/// The endpoint, its protocol, and whether it already has the signal's path.
fn environment_endpoint(
    signal: Signal,
    protocol: Option<OtlpProtocol>,
    environment: Environment<'_>,
    check: &mut ConfigCheck,
) -> Option<(String, OtlpProtocol, bool)> {
    let protocol = protocol.unwrap_or_else(|| match of_signal(signal, "PROTOCOL", environment) {
        Some((value, ..)) if value == "grpc" => OtlpProtocol::Grpc,
        Some((value, name, _)) if value != "http/protobuf" => {
            ignore(&name, &value, "`grpc` or `http/protobuf`", check);
            OtlpProtocol::Http
        }
        _ => OtlpProtocol::Http,
    });
    let (value, name, is_own) = of_signal(signal, "ENDPOINT", environment)?;
    let Some(url) = endpoint(&value, protocol) else {
        // The rest may contain a secret.
        let shown =
            if value.contains(['@', '?']) { "a URL with a user or a query" } else { &value };
        ignore(&name, shown, ENDPOINT, check);
        return None;
    };
    Some((url, protocol, is_own))
}

fn environment_ca(
    signal: Signal,
    environment: Environment<'_>,
    check: &mut ConfigCheck,
) -> Option<Arc<[u8]>> {
    let (value, name, _) = of_signal(signal, "CERTIFICATE", environment)?;
    certificates(Path::new(&value)).map_err(|_| ignore(&name, &value, CERTIFICATES, check)).ok()
}

fn environment_interval(environment: Environment<'_>, check: &mut ConfigCheck) -> Option<Duration> {
    let name = "OTEL_METRIC_EXPORT_INTERVAL";
    let value = environment(name)?;
    match value.parse() {
        Ok(milliseconds @ 1_000..=3_600_000) => Some(Duration::from_millis(milliseconds)),
        _ => {
            ignore(name, &value, "1000 to 3600000 milliseconds", check);
            None
        }
    }
}

/// The sampling ratio; parents are always followed.
fn environment_ratio(environment: Environment<'_>, check: &mut ConfigCheck) -> f64 {
    let name = "OTEL_TRACES_SAMPLER";
    let Some(sampler) = environment(name) else { return 1.0 };
    match sampler.strip_prefix("parentbased_").unwrap_or(&sampler) {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => {
            let name = "OTEL_TRACES_SAMPLER_ARG";
            let Some(value) = environment(name) else { return 1.0 };
            match value.parse() {
                Ok(ratio @ 0.0..=1.0) => ratio,
                _ => {
                    ignore(name, &value, "a share from 0.0 to 1.0", check);
                    1.0
                }
            }
        }
        _ => {
            ignore(name, &sampler, "`always_on`, `always_off` or `traceidratio`", check);
            1.0
        }
    }
}

#[cfg(test)]
mod tests;
