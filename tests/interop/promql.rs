//! Each PromQL expression of the documentation is put to a Prometheus that scrapes the gateway.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant, SystemTime};

use evenkeel_alerts::Alerts;
use evenkeel_client::{ApiClient, ApiEndpoint};
use evenkeel_contract::offers::OfferIngress;
use evenkeel_lab::process::ChildProcess;
use evenkeel_telemetry::alerts::{DOWN, INHIBITIONS, RULES, inhibit_rules_file, rules_file};
use evenkeel_telemetry::registry::{Attribute, Count, Described, Histogram, Level};
use evenkeel_telemetry::{MetricSample, Moment};
use evenkeel_testkit::TIMEOUT;
use evenkeel_testkit::required;
use evenkeel_tests::dashboards::dashboards;
use serde_json::Value;

use crate::stage::{CONFIGURATION, Stage, offer, voice};

/// Code on this page names metrics and labels also outside of expressions.
const PAGE: &str = "telemetry.md";

/// Names of metrics and labels begin so.
const PREFIXES: [&str; 2] = ["evenkeel_", "media_"];

/// The names that the registry's metrics have in Prometheus: of each series, and of each histogram as a whole.
fn exported() -> BTreeSet<String> {
    let name = Described::prometheus_name;
    let counts = Count::ALL.iter().map(|metric| name(metric.described()) + "_total");
    let levels = Level::ALL.iter().map(|metric| name(metric.described()));
    let times = Histogram::ALL.iter().flat_map(|metric| {
        ["", "_bucket", "_sum", "_count"].map(|part| name(metric.described()) + part)
    });
    counts.chain(levels).chain(times).collect()
}

/// Names of metrics and labels in an expression.
fn names(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| {
        PREFIXES.iter().any(|prefix| word.len() > prefix.len() && word.starts_with(prefix))
    })
}

/// The expressions of a page: lines of its `promql` blocks, and code that names a metric or label.
fn expressions(page: &str, text: &str) -> Vec<String> {
    let (mut found, mut fence) = (Vec::new(), None);
    for line in text.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            fence = if fence.is_some() { None } else { Some(language.starts_with("promql")) };
            continue;
        }
        match fence {
            Some(true) => found.push(line.trim().to_owned()),
            Some(false) => {}
            None => {
                let code = line.split('`').skip(1).step_by(2);
                let is_expression = |code: &&str| {
                    let operators = ["(", "{", " == ", " > ", " < "];
                    page == PAGE || operators.iter().any(|operator| code.contains(operator))
                };
                // A bar in a table is escaped.
                found.extend(code.filter(is_expression).map(|code| code.replace("\\|", "|")));
            }
        }
    }
    found.retain(|expression| names(expression).next().is_some());
    found
}

/// Comparisons that have a value, in place of those that leave out what they do not hold for.
fn with_values(expression: &str) -> String {
    let operators = ["==", "!=", ">", "<", ">=", "<="].map(|operator| format!(" {operator} "));
    // Each second part is in quotes.
    let parts = expression.split('"').enumerate().map(|(number, part)| match number % 2 {
        0 => operators.iter().fold(part.to_owned(), |part, operator| {
            part.replace(operator, &format!("{operator}bool "))
        }),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("\"")
}

/// The last values of a history, and their distance.
const HISTORY_S: u64 = 70 * 60;
const HISTORY_EVERY_S: u64 = 15;

/// All series of the registry over 70 minutes up to this time, Unix seconds, as OpenMetrics. A label has each of the values that the
/// program knows.
fn history(until_s: u64) -> String {
    let mut text = String::new();
    let mut add = |name: &str, metric: Described, own: &str| {
        let words: Vec<Vec<&str>> = metric
            .attributes
            .iter()
            .map(|label| match (label, metric.words(*label)) {
                // The registry does not list kinds of forecasts.
                (Attribute::Reason, _) if metric.name == "evenkeel.forecast.warnings" => {
                    vec!["load", "decay", "flap", "delay"]
                }
                (_, Some(words)) => words,
                // `evenkeel.scenario.impaired` does not name all nodes.
                (Attribute::Node, None) => vec!["x", "other"],
                (_, None) => vec!["x"],
            })
            .collect();
        let most = words.iter().map(Vec::len).max().unwrap_or(1);
        for place in 0..most {
            let labels = metric.attributes.iter().zip(&words).map(|(label, words)| {
                format!("{}=\"{}\",", label.prometheus_label(), words[place % words.len()])
            });
            let labels: String = labels.collect();
            for step in 1..=HISTORY_S / HISTORY_EVERY_S {
                let at_s = until_s - HISTORY_S + step * HISTORY_EVERY_S;
                let value = step;
                writeln!(
                    text,
                    "{name}{{{labels}{own}instance=\"gateway\",job=\"evenkeel\"}} {value} {at_s}"
                )
                .expect("a string takes all text");
            }
        }
    };
    for metric in Count::ALL.iter().map(|metric| metric.described()) {
        add(&(metric.prometheus_name() + "_total"), metric, "");
    }
    for metric in Level::ALL.iter().map(|metric| metric.described()) {
        add(&metric.prometheus_name(), metric, "");
    }
    for metric in Histogram::ALL.iter().map(|metric| metric.described()) {
        let name = metric.prometheus_name();
        for le in ["70", "+Inf"] {
            add(&format!("{name}_bucket"), metric, &format!("le=\"{le}\","));
        }
        ["_sum", "_count"].into_iter().for_each(|part| add(&(name.clone() + part), metric, ""));
    }
    text + "# EOF\n"
}

struct Prometheus {
    address: SocketAddr,
    url: String,
    process: ChildProcess,
    /// The time of queries, Unix seconds; `None`: the present.
    at_s: Option<u64>,
}

impl Prometheus {
    /// Starts a server that scrapes the gateway.
    fn start(gateway: SocketAddr, folder: &Path) -> Prometheus {
        let config = format!(
            "global: {{scrape_interval: 500ms, scrape_timeout: 500ms}}\n\
             scrape_configs:\n- job_name: evenkeel\n  authorization: {{credentials_file: token}}\n  \
             static_configs: [{{targets: ['{gateway}']}}]\n"
        );
        Prometheus::with("prometheus", &config, folder)
    }

    /// Starts a server that has all series of the registry, and scrapes nothing.
    fn of_history(folder: &Path) -> Prometheus {
        let file = folder.join("history.om");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        fs::write(&file, history(now.as_secs())).expect("a file can be written");
        let mut command = Command::new("promtool");
        command.args(["tsdb", "create-blocks-from", "openmetrics"]);
        let output = command.arg(file).arg(folder.join("history")).output();
        let output = output.expect("promtool starts");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        let mut server = Prometheus::with("history", "global: {}\n", folder);
        server.at_s = Some(now.as_secs());
        let until = Instant::now() + TIMEOUT;
        while server.series().is_empty() {
            assert!(Instant::now() < until, "{}", server.process.log());
            std::thread::park_timeout(Duration::from_millis(50));
        }
        server
    }

    /// Starts a server with files of this name.
    fn with(name: &str, config: &str, folder: &Path) -> Prometheus {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|port| port.local_addr());
        let address = free.expect("loopback has a free port");
        let path = folder.join(format!("{name}.yml"));
        fs::write(&path, config).expect("a file can be written");
        let mut command = Command::new("prometheus");
        command.arg("--config.file").arg(path);
        command.arg("--storage.tsdb.path").arg(folder.join(name));
        command.arg(format!("--web.listen-address={address}"));
        command.arg("--enable-feature=exemplar-storage");
        let process = ChildProcess::start(&format!("{name}-server"), &mut command, folder);
        let process = process.expect("Prometheus starts");
        Prometheus { address, url: format!("http://{address}"), process, at_s: None }
    }

    fn query(&self, expression: &str) -> Output {
        let mut command = Command::new("promtool");
        command.args(["query", "instant", &self.url, expression]);
        command.args(self.at_s.map(|at_s| format!("--time={at_s}")));
        command.output().expect("promtool starts")
    }

    /// The lines of an answer. Without a sample promtool prints an empty one.
    fn samples(&self, expression: &str) -> Vec<String> {
        let output = self.query(expression);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// Waits for an exemplar of this metric with this trace.
    fn await_exemplar(&self, metric: &str, trace: &Value) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let mut client = ApiClient::new(ApiEndpoint::Tcp(self.address));
        let (path, until) =
            (format!("/api/v1/query_exemplars?query={metric}"), Instant::now() + TIMEOUT);
        loop {
            let found = runtime.block_on(client.read(&path)).expect("Prometheus answers");
            let series = found["data"].as_array().into_iter().flatten();
            let mut exemplars =
                series.flat_map(|series| series["exemplars"].as_array().into_iter().flatten());
            if exemplars.any(|exemplar| exemplar["labels"]["trace_id"] == *trace) {
                return;
            }
            assert!(Instant::now() < until, "no exemplar of {trace}: {found}");
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// The names of all series of the gateway.
    fn series(&self) -> BTreeSet<String> {
        let any = PREFIXES.map(|prefix| format!("{prefix}.+")).join("|");
        let samples = self.samples(&format!("{{__name__=~\"{any}\"}}"));
        let name = |line: &String| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
        samples.iter().map(name).collect()
    }
}

#[required(Prometheus)]
#[test]
fn prometheus_answers_each_documented_expression() {
    // Spans that are sent become exemplars, whether or not their receiver answers.
    let configuration = format!(
        "{CONFIGURATION}tcp = \"127.0.0.1:0\"\ntoken_file = \"token\"\n\
         [telemetry]\notlp = \"http://127.0.0.1:9\"\nsignals = [\"traces\"]\n"
    );
    let mut stage = Stage::of("promql", &configuration, |folder| {
        fs::write(folder.join("token"), "a token for Prometheus").expect("a file can be written");
    });
    let opened = stage.open(&offer("promql", OfferIngress::quic(), vec![voice()]));
    let prometheus = Prometheus::start(stage.api(), stage.folder());
    let until = Instant::now() + TIMEOUT;
    let series = loop {
        let series = prometheus.series();
        if series.contains("evenkeel_sessions_opened_total") {
            break series;
        }
        assert!(Instant::now() < until, "no metric is scraped: {series:?}");
        std::thread::park_timeout(Duration::from_millis(50));
    };
    let metric = Described::prometheus_name(Histogram::SessionOpen.described()) + "_bucket";
    let trace = stage.read(&format!("/v1/sessions/{}", opened.id))["trace_id"].clone();
    prometheus.await_exemplar(&metric, &trace);
    let exported = exported();
    let unknown: Vec<&String> = series.difference(&exported).collect();
    assert!(unknown.is_empty(), "the registry lacks {unknown:?}");

    let labels: BTreeSet<String> =
        Attribute::ALL.iter().map(|label| label.prometheus_label()).collect();
    // The series of a histogram have the names of its parts.
    let histograms: BTreeSet<String> =
        Histogram::ALL.iter().map(|metric| metric.described().prometheus_name()).collect();
    let history = Prometheus::of_history(stage.folder());
    let none = history.samples("evenkeel_node_health > 1e9");
    assert!(none.is_empty(), "an expression without a sample is noticed: {none:?}");
    let empty = RefCell::new(Vec::new());
    let check = |place: &str, expression: &str| {
        let unknown: Vec<&str> = names(expression)
            .filter(|name| !exported.contains(*name) && !labels.contains(*name))
            .collect();
        assert!(unknown.is_empty(), "{place}: `{expression}`: no metric or label {unknown:?}");
        let output = prometheus.query(expression);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{place}: `{expression}`: {error}");
        // A gateway that serves one session has few series.
        let is_name = labels.contains(expression) || histograms.contains(expression);
        // Sides that are matched need equal labels, which series of the history need not have.
        let matches = [" on (", " ignoring ("].iter().any(|by| expression.contains(by));
        let samples = history.samples(&with_values(expression));
        if !is_name && !matches && samples.is_empty() {
            empty.borrow_mut().push(format!("{place}: `{expression}`"));
        }
    };
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let mut asked = 0;
    let entries = [docs.clone(), docs.join("operations")]
        .into_iter()
        .flat_map(|folder| fs::read_dir(folder).expect("the folder is there"));
    for entry in entries {
        let path = entry.expect("the folder can be read").path();
        if path.extension().is_none_or(|ending| ending != "md") {
            continue;
        }
        let page = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).expect("a page is UTF-8");
        for expression in expressions(&page, &text) {
            check(&page, &expression);
            asked += 1;
        }
    }
    assert!(asked >= 13, "the alerts of {PAGE} are found: {asked}");
    for dashboard in dashboards() {
        let variables = dashboard.variables();
        for panel in &dashboard.panels {
            for query in &panel.queries {
                let expression = query.expression.replace("$__rate_interval", "5m");
                let all =
                    |text: String, name: &str| text.replace(&format!("\"${name}\""), "\".*\"");
                let expression = variables.iter().map(|it| it.name).fold(expression, all);
                check(&format!("{}: {}", dashboard.name, panel.title), &expression);
            }
        }
    }
    assert!(empty.borrow().is_empty(), "without a sample: {:#?}", empty.borrow());
}

/// Rules that last longer fire at the minute of their fault here, and not one before.
const EXACT_ABOVE: Duration = Duration::from_secs(300);

/// A fault of each rule: values of a series, a minute apart, and when the alert fires: of those beyond `EXACT_ABOVE`, the first minute.
/// Several series and their values are apart by `; `. The control run has the same series at their first value.
const FAULTS: &[(&str, &str, &str, &str)] = &[
    ("EvenkeelRoomsStranded", "evenkeel_rooms_stranded_total", "0 0 4", "2m"),
    (
        "EvenkeelOffersRefused",
        "evenkeel_sessions_refused_total{evenkeel_reason=\"no-node\"}",
        "0 0 120 240 360 480",
        "5m",
    ),
    ("EvenkeelRegionBreakerOpen", "evenkeel_region_breaker", "0 0 1 1", "3m"),
    ("EvenkeelZoneBreakerOpen", "evenkeel_zone_breaker", "0 0 1 1", "3m"),
    ("EvenkeelClientBreakerOpen", "evenkeel_client_breaker", "0 0 1 1", "3m"),
    ("EvenkeelUplinkSuspect", "evenkeel_uplink_suspicions_total", "0 0 1", "2m"),
    ("EvenkeelTakeoverBlocked", "evenkeel_group_blocked", "0 0 1 1", "3m"),
    ("EvenkeelGroupWithoutOwner", "evenkeel_group_owned", "1 1 0 0", "3m"),
    ("EvenkeelCredentialEndsSoon", "evenkeel_credential_expiry_seconds", "86400 86400 86399", "2m"),
    (
        "EvenkeelSloBurnsFast",
        "evenkeel_slo_burn_rate{evenkeel_window=\"5m\"}; evenkeel_slo_burn_rate{evenkeel_window=\"1h\"}",
        "0 0 20x5; 0 0 15x5",
        "5m",
    ),
    (
        "EvenkeelSloBurnsSlowly",
        "evenkeel_slo_burn_rate{evenkeel_window=\"1h\"}; evenkeel_slo_burn_rate{evenkeel_window=\"6h\"}",
        "0 0 7x5; 0 0 6.1x5",
        "5m",
    ),
    (
        "EvenkeelVoiceBad",
        "evenkeel_session_r_factor_bucket{le=\"70\"}; evenkeel_session_r_factor_count",
        "0+6x20; 0+60x20",
        "15m",
    ),
    (
        "EvenkeelSessionsImpaired",
        "evenkeel_scenario_impaired{evenkeel_segment=\"leg\",evenkeel_node=\"n1\"}; evenkeel_node_sessions{evenkeel_node=\"n1\"}",
        "0 0 6 6 6; 100x5",
        "4m",
    ),
    (
        "EvenkeelOtherNodesImpair",
        "evenkeel_scenario_impaired{evenkeel_node=\"other\"}; evenkeel_scenario_sessions",
        "0 0 6 6 6; 100x5",
        "4m",
    ),
    (
        "EvenkeelGatewayImpairs",
        "evenkeel_scenario_impaired{evenkeel_segment=\"gateway\"}; evenkeel_scenario_sessions",
        "0 0 6 6 6; 100x5",
        "4m",
    ),
    ("EvenkeelNodeDown", "evenkeel_node_health", "0 0 3 3", "3m"),
    ("EvenkeelProviderBreakerOpen", "evenkeel_provider_breaker", "0 0 1 2", "3m"),
    ("EvenkeelNodeFlaps", "evenkeel_node_failures_total", "0 1 3 4 5", "4m"),
    ("EvenkeelNodeDelayRose", "evenkeel_node_round_trip_seconds", "0.05x10 0.2x3", "13m"),
    ("EvenkeelGatewayDown", "evenkeel_group_member_up", "1 1 0 0", "3m"),
    ("EvenkeelRedundancyLost", "evenkeel_group_warnings", "0 0 1 1", "3m"),
    ("EvenkeelLossUncovered", "evenkeel_loss_unplaced{evenkeel_scope=\"zone\"}", "0 0 3 3 3", "4m"),
    ("EvenkeelLossReduces", "evenkeel_loss_reduced{evenkeel_scope=\"zone\"}", "0 0 3x12", "12m"),
    ("EvenkeelCapacityRunsOut", "evenkeel_forecast_exhausted_seconds", "-1 -1 900 600 300", "4m"),
    (
        "EvenkeelNodeDecays",
        "evenkeel_forecast_warnings{evenkeel_reason=\"decay\"}",
        "0 0 1 1 1",
        "4m",
    ),
    ("EvenkeelGroupRefused", "evenkeel_cluster_refused_total", "0 0 1", "2m"),
    ("EvenkeelPolicyFailing", "evenkeel_policy_failing", "0 0 1 1", "3m"),
    (
        "EvenkeelRevisionRolledBack",
        "evenkeel_policy_rollouts_total{evenkeel_outcome=\"rolled-back\"}",
        "0 0 1",
        "2m",
    ),
    (
        "EvenkeelSessionPanicked",
        "evenkeel_sessions_closed_total{evenkeel_reason=\"panicked\"}",
        "0 0 1",
        "2m",
    ),
    (
        "EvenkeelHandshakesFail",
        "evenkeel_sessions_closed_total{evenkeel_reason=\"handshake-failed\"}",
        "0 0 20",
        "2m",
    ),
    (
        "EvenkeelThreadsBehind",
        "media_packets_dropped_total{evenkeel_reason=\"buffer-full\"}",
        "0 0 50 100 150",
        "4m",
    ),
    ("EvenkeelControlLate", "evenkeel_event_loop_stalls_total", "0 0 400 800", "3m"),
    ("EvenkeelNodeMessagesRefused", "evenkeel_node_messages_refused_total", "0 0 1", "2m"),
    ("EvenkeelIndexBehind", "evenkeel_index_current", "1 0x8", "7m"),
    ("EvenkeelRoomDuplicate", "evenkeel_index_duplicates_total", "0 0 1", "2m"),
    ("EvenkeelDependencyDown", "evenkeel_dependency_up", "1 1 0 0", "3m"),
    (
        "EvenkeelCredentialEnds",
        "evenkeel_credential_expiry_seconds",
        "1209600 1209600 1209599",
        "2m",
    ),
    ("EvenkeelDocumentUnwritten", "evenkeel_document_unwritten", "0 0 1 1", "3m"),
    ("EvenkeelNodeFailed", "evenkeel_node_failures_total", "0 0 1", "2m"),
    ("EvenkeelRoleChanged", "evenkeel_group_role", "1 1 4", "2m"),
    ("EvenkeelNodeStaysDrained", "evenkeel_node_draining", "0 1x70", "61m"),
    (
        "EvenkeelSrtpRefused",
        "media_packets_dropped_total{evenkeel_reason=\"srtp-forged\"}",
        "0 0 3000 6000 9000 12000 15000 18000 21000 24000 27000",
        "10m",
    ),
    ("EvenkeelTokensRefused", "evenkeel_api_tokens_refused_total", "0 0 1", "2m"),
    ("EvenkeelTelemetryDropped", "evenkeel_telemetry_dropped_total", "0 0 1", "2m"),
];

/// A moment of a unit test of `promtool`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RuleMoment {
    Fires,
    /// A minute before it fires.
    Early,
    /// Without the fault.
    Control,
}

/// The file of a unit test of `promtool` in which this rule fires at this moment, or does not.
fn rule_test(fault: &(&str, &str, &str, &str), moment: RuleMoment) -> String {
    let (alert, series, values, at) = fault;
    let is_control = moment == RuleMoment::Control;
    let at = match moment {
        RuleMoment::Early => format!("{}m", minutes(at) - 1),
        RuleMoment::Fires | RuleMoment::Control => (*at).to_owned(),
    };
    let input = series.split("; ").zip(values.split("; ")).map(|(series, values)| {
        let quiet = values.split([' ', 'x', '+']).next().unwrap_or_default();
        let values = if is_control { format!("{quiet}x70") } else { values.to_owned() };
        format!("  - {{series: '{series}', values: '{values}'}}\n")
    });
    let input = input.collect::<String>();
    // Labels and annotations are those of the file: the count of alerts tells.
    let expression = format!("count(ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"}})");
    let samples = if moment == RuleMoment::Fires { "[{value: 1}]" } else { "[]" };
    format!(
        "rule_files: [rules.yml]\nevaluation_interval: 1m\ntests:\n- interval: 1m\n  input_series:\n\
         {input}  promql_expr_test:\n  \
         - {{expr: '{expression}', eval_time: {at}, exp_samples: {samples}}}\n"
    )
}

fn minutes(at: &str) -> u64 {
    at.trim_end_matches('m').parse().expect("minutes")
}

/// The values of a series, as `promtool` expands them.
fn expanded(values: &str) -> Vec<f64> {
    let number = |text: &str| text.parse::<f64>().expect("a number");
    let terms = values.split(' ').flat_map(|term| match term.split_once('x') {
        None => vec![number(term)],
        Some((start, times)) => {
            let (start, growth) = start.split_once('+').unwrap_or((start, "0"));
            let times: u32 = times.parse().expect("a number");
            (0..=times).map(|n| number(start) + number(growth) * f64::from(n)).collect()
        }
    });
    terms.collect()
}

/// The series `name{label="value"}`.
fn sample(series: &'static str, value: f64) -> MetricSample {
    let (metric, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('='));
    let labels = labels.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()));
    MetricSample { metric, labels: labels.collect(), value }
}

/// Gateways without Prometheus evaluate the same rules.
#[test]
fn gateway_evaluates_rules_as_prometheus_does() {
    for (name, series, values, at) in FAULTS {
        let minutes = minutes(at);
        for is_control in [false, true] {
            let input: Vec<(&'static str, Vec<f64>)> =
                series.split("; ").zip(values.split("; ").map(expanded)).collect();
            let mut alerts = Alerts::new(&[]);
            let began = Moment::now();
            for minute in 0..=minutes {
                let value = |values: &[f64]| {
                    let index = if is_control { 0 } else { minute as usize };
                    values.get(index).copied()
                };
                let samples = input
                    .iter()
                    .filter_map(|&(series, ref values)| Some(sample(series, value(values)?)));
                let passed = Duration::from_secs(60 * minute);
                let at = Moment { now: began.now + passed, wall: began.wall + passed };
                alerts.evaluate(samples.collect(), at);
            }
            let fires = alerts.view().alerts.iter().any(|alert| alert.alert == *name);
            assert_eq!(fires, !is_control, "{name} after {minutes} minutes");
        }
    }
}

#[required(Prometheus)]
#[test]
fn each_alert_fires_at_its_fault_and_stays_silent_without() {
    let exported = exported();
    let named: BTreeSet<&str> = FAULTS.iter().map(|(alert, ..)| *alert).collect();
    let rules: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(named, rules, "each rule has a fault");
    let labels: BTreeSet<String> =
        Attribute::ALL.iter().map(|label| label.prometheus_label()).collect();
    for rule in RULES {
        let (name, expression, summary) = (rule.name, rule.expression(), rule.summary);
        let known = |word: &&str| exported.contains(*word) || labels.contains(*word);
        let unknown: Vec<&str> =
            names(&expression).chain(names(summary)).filter(|word| !known(word)).collect();
        assert!(unknown.is_empty(), "{name}: no metric or label {unknown:?}");
    }
    let folder = tempfile::tempdir().expect("a folder can be made");
    fs::write(folder.path().join("rules.yml"), rules_file()).expect("a file can be written");
    let promtool = |words: &[&str]| {
        let mut command = Command::new("promtool");
        let output = command.args(words).current_dir(folder.path()).output();
        let output = output.expect("promtool starts");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&said));
    };
    promtool(&["check", "rules", "rules.yml"]);
    let mut files = Vec::new();
    let dead = (DOWN.name, "up{job=\"evenkeel\"}", "1x3 0x10", "10m");
    for fault in FAULTS.iter().chain([&dead]) {
        let is_long = RULES.iter().any(|rule| rule.name == fault.0 && rule.lasts > EXACT_ABOVE);
        let early = is_long.then_some(RuleMoment::Early);
        for moment in [RuleMoment::Fires, RuleMoment::Control].into_iter().chain(early) {
            let file = format!("{}-{moment:?}.yml", fault.0);
            fs::write(folder.path().join(&file), rule_test(fault, moment))
                .expect("a file can be written");
            files.push(file);
        }
    }
    let files = files.iter().map(String::as_str);
    promtool(&["test", "rules"].into_iter().chain(files).collect::<Vec<_>>());
}

#[required(Alertmanager)]
#[test]
fn alertmanager_accepts_the_inhibitions() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("alertmanager.yml");
    let rest = "route: {receiver: ops}\nreceivers: [{name: ops}]\n";
    fs::write(&file, rest.to_owned() + &inhibit_rules_file()).expect("a file can be written");
    let output = Command::new("amtool").arg("check-config").arg(&file).output();
    let output = output.expect("amtool starts");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let count = format!("{} inhibit rules", INHIBITIONS.len());
    assert!(output.status.success() && said.contains(&count), "{said}");
}
