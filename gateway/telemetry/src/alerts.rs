//! Alert rules in three tiers, and the alerts that others explain: made into `docs/alerts/rules.yml` for Prometheus and
//! `docs/alerts/alertmanager.yml` for Alertmanager, and evaluated by gateways that send alerts themselves.

pub mod condition;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use condition::{AlertCondition, changes, increase, last, rate, spell};
use evenkeel_config::AlertTier;

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AlertRule {
    /// Such as `EvenkeelNodeDown`.
    pub name: &'static str,
    pub tier: AlertTier,
    /// When it holds.
    pub condition: AlertCondition,
    /// For how long the condition has to hold. Zero: the alert fires at once.
    pub lasts: Duration,
    /// One line, with the labels of the series in Prometheus' templates.
    pub summary: &'static str,
    /// The section that says what to do, in `docs/`.
    pub runbook: &'static str,
}

impl AlertRule {
    /// The condition in PromQL.
    pub fn expression(&self) -> String {
        self.condition.promql()
    }

    /// [`AlertRule::lasts`] in PromQL: `1m`.
    pub fn lasts_text(&self) -> String {
        spell(self.lasts)
    }

    /// The rule is about the member of a group that evaluates it: other members may not know. Of other rules only the owner sends alerts.
    pub fn is_of_member(&self) -> bool {
        OF_MEMBERS.contains(&self.name)
    }

    /// The summary of one alert, with the values of its labels.
    pub fn summarize(&self, labels: &SeriesLabels, value: f64) -> String {
        let with_value = self.summary.replace("{{ $value }}", &value.to_string());
        labels.iter().fold(with_value, |text, (name, value)| {
            text.replace(&format!("{{{{ $labels.{name} }}}}"), value)
        })
    }
}

/// The labels of a series as Prometheus names them, with their values.
pub type SeriesLabels = BTreeMap<String, String>;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// Seconds.
const DAY: f64 = 86_400.0;

const fn burns(windows: [&'static [&'static str; 1]; 2], limit: f64) -> AlertCondition {
    let (metric, label) = ("evenkeel_slo_burn_rate", "evenkeel_window");
    AlertCondition::AboveInWindows { metric, label, windows, limit }
}

macro_rules! rules {
    ($($tier:ident $name:literal: $condition:expr, for $lasts:expr, $summary:literal, $runbook:literal;)*) => {
        /// All rules, the most urgent first.
        pub const RULES: &[AlertRule] = &[$(AlertRule {
            name: $name,
            tier: AlertTier::$tier,
            condition: $condition,
            lasts: $lasts,
            summary: $summary,
            runbook: $runbook,
        },)*];
    };
}

/// The labels of a node.
const PLACE: [&str; 3] = ["evenkeel_region", "evenkeel_zone", "evenkeel_node"];

/// Rules about one member of a group, see [`AlertRule::is_of_member`].
const OF_MEMBERS: [&str; 5] = [
    "EvenkeelTakeoverBlocked",
    "EvenkeelGroupWithoutOwner",
    "EvenkeelCredentialEndsSoon",
    "EvenkeelCredentialEnds",
    "EvenkeelDocumentUnwritten",
];

rules! {
    Page "EvenkeelRoomsStranded":
        increase("evenkeel_rooms_stranded_total", minutes(5)).above(0.0), for Duration::ZERO,
        "rooms have no usable hop: {{ $labels.evenkeel_cause }}", "failover.md#after-a-node-died";
    Page "EvenkeelOffersRefused":
        rate("evenkeel_sessions_refused_total", minutes(2))
            .only("evenkeel_reason", &["full", "no-node", "not-opened", "rejected"])
            .sum_by(&["evenkeel_reason"])
            .above(1.0), for minutes(1),
        "offers are refused: {{ $labels.evenkeel_reason }}", "failover.md#capacity";
    Page "EvenkeelRegionBreakerOpen": last("evenkeel_region_breaker").is(1.0), for seconds(10),
        "region {{ $labels.evenkeel_region }} takes no new rooms", "failover.md#breakers-of-regions-and-zones";
    Page "EvenkeelClientBreakerOpen": last("evenkeel_client_breaker").is(1.0), for seconds(10),
        "media of clients with {{ $labels.evenkeel_label }} {{ $labels.evenkeel_label_value }} is bad", "failover.md#client-breaker";
    Page "EvenkeelUplinkSuspect":
        increase("evenkeel_uplink_suspicions_total", minutes(5)).above(0.0), for Duration::ZERO,
        "most nodes fell silent at once: check the gateway's own network", "operations/daily.md#most-nodes-fell-silent-at-once";
    Page "EvenkeelTakeoverBlocked": last("evenkeel_group_blocked").is(1.0), for seconds(10),
        "the owner of the group is silent, and this gateway may not take over: `evenkeel gateway list` has the reason", "operations/disasters.md#both-gateways-lost-one-came-back";
    Page "EvenkeelGroupWithoutOwner": last("evenkeel_group_owned").is(0.0), for seconds(10),
        "this gateway knows none of the group that serves: `evenkeel gateway list` has the reason", "operations/disasters.md#both-gateways-lost-one-came-back";
    Page "EvenkeelCredentialEndsSoon": last("evenkeel_credential_expiry_seconds").below(DAY), for Duration::ZERO,
        "{{ $labels.evenkeel_credential }} ends on {{ $labels.evenkeel_ends }}", "operations/alerts.md#certificates-and-tokens";
    Page "EvenkeelSloBurnsFast": burns([&["5m"], &["1h"]], 14.4), for minutes(1),
        "scenario {{ $labels.evenkeel_scenario }} misses its objective of {{ $labels.evenkeel_slo }}", "operations/objectives.md#objectives";
    Ticket "EvenkeelZoneBreakerOpen": last("evenkeel_zone_breaker").is(1.0), for seconds(10),
        "zone {{ $labels.evenkeel_region }}/{{ $labels.evenkeel_zone }} takes no new rooms", "failover.md#breakers-of-regions-and-zones";
    Ticket "EvenkeelSloBurnsSlowly": burns([&["1h"], &["6h"]], 6.0), for minutes(1),
        "scenario {{ $labels.evenkeel_scenario }} misses its objective of {{ $labels.evenkeel_slo }} over the last 6 h, or since counting began", "operations/objectives.md#objectives";
    Ticket "EvenkeelVoiceBad":
        AlertCondition::AboveShare {
            part: rate("evenkeel_session_r_factor_bucket", minutes(5))
                .only("le", &["70", "70.0"])
                .sum_by(&["evenkeel_scenario"]),
            share: 0.05,
            whole: rate("evenkeel_session_r_factor_count", minutes(5)).sum_by(&["evenkeel_scenario"]),
            on: &[],
        }, for minutes(5),
        "many users of scenario {{ $labels.evenkeel_scenario }} hear badly: `evenkeel session list --bad`", "operations/daily.md#which-calls-are-bad";
    Ticket "EvenkeelSessionsImpaired":
        AlertCondition::AboveShare {
            part: last("evenkeel_scenario_impaired")
                .only("evenkeel_segment", &["leg", "node"])
                .sum_by(&["evenkeel_scenario", "evenkeel_segment", "evenkeel_region", "evenkeel_zone", "evenkeel_node"]),
            share: 0.05,
            whole: last("evenkeel_node_sessions").sum_by(&PLACE),
            on: &PLACE,
        }, for minutes(1),
        "media of {{ $value }} sessions of scenario {{ $labels.evenkeel_scenario }} suffers at the {{ $labels.evenkeel_segment }}: node {{ $labels.evenkeel_node }}, zone {{ $labels.evenkeel_region }}/{{ $labels.evenkeel_zone }}", "operations/daily.md#impaired-media";
    Ticket "EvenkeelOtherNodesImpair":
        AlertCondition::AboveShare {
            part: last("evenkeel_scenario_impaired")
                .only("evenkeel_node", &["other"])
                .sum_by(&["evenkeel_scenario", "evenkeel_segment"]),
            share: 0.05,
            whole: last("evenkeel_scenario_sessions").sum_by(&["evenkeel_scenario"]),
            on: &["evenkeel_scenario"],
        }, for minutes(1),
        "media of {{ $value }} sessions of scenario {{ $labels.evenkeel_scenario }} suffers at the {{ $labels.evenkeel_segment }} of nodes beyond the 32 that impair most: `evenkeel node list` counts them", "operations/daily.md#impaired-media";
    Ticket "EvenkeelGatewayImpairs":
        AlertCondition::AboveShare {
            part: last("evenkeel_scenario_impaired")
                .only("evenkeel_segment", &["gateway"])
                .sum_by(&["evenkeel_scenario"]),
            share: 0.05,
            whole: last("evenkeel_scenario_sessions").sum_by(&["evenkeel_scenario"]),
            on: &[],
        }, for minutes(1),
        "media of {{ $value }} sessions of scenario {{ $labels.evenkeel_scenario }} suffers at this gateway", "operations/daily.md#impaired-media";
    Ticket "EvenkeelNodeDown": last("evenkeel_node_health").is(3.0), for minutes(1),
        "node {{ $labels.evenkeel_node }} is down", "failover.md#after-a-node-died";
    Ticket "EvenkeelProviderBreakerOpen": last("evenkeel_provider_breaker").above(0.0), for minutes(1),
        "nodes of provider {{ $labels.evenkeel_provider }} do not start", "elastic.md#providers";
    Ticket "EvenkeelNodeFlaps":
        increase("evenkeel_node_failures_total", minutes(10)).above(3.0), for Duration::ZERO,
        "node {{ $labels.evenkeel_node }} fails again and again", "failover.md#detection";
    Ticket "EvenkeelNodeDelayRose":
        AlertCondition::AboveMean {
            metric: "evenkeel_node_round_trip_seconds",
            margin: 0.05,
            factor: 2.0,
            within: minutes(60),
            before: minutes(5),
        }, for minutes(1),
        "the round trip to node {{ $labels.evenkeel_node }} rose to {{ $value }} s", "failover.md#detection";
    Ticket "EvenkeelGatewayDown": last("evenkeel_group_member_up").is(0.0), for seconds(30),
        "gateway {{ $labels.evenkeel_gateway }} of the group is not heard", "operations/groups.md#lost-redundancy";
    Ticket "EvenkeelRedundancyLost": last("evenkeel_group_warnings").above(0.0), for minutes(1),
        "the next fault of a gateway may end calls: `evenkeel gateway list` has the reason", "operations/groups.md#lost-redundancy";
    Ticket "EvenkeelLossUncovered": last("evenkeel_loss_unplaced").above(0.0), for minutes(2),
        "the loss of one {{ $labels.evenkeel_scope }} would leave {{ $value }} sessions without a node: `evenkeel blast` shows where", "failover.md#blast-radius";
    Ticket "EvenkeelCapacityRunsOut": last("evenkeel_forecast_exhausted_seconds").above(-1.0), for minutes(2),
        "the capacity of region {{ $labels.evenkeel_region }} is expected to be exhausted in {{ $value }} s: `evenkeel status` has the load", "operations/objectives.md#forecasts";
    Ticket "EvenkeelNodeDecays":
        last("evenkeel_forecast_warnings").only("evenkeel_reason", &["decay"]).above(0.0), for minutes(2),
        "the delay or loss of {{ $value }} nodes rises: `evenkeel status` names them", "operations/objectives.md#forecasts";
    Ticket "EvenkeelGroupRefused":
        increase("evenkeel_cluster_refused_total", minutes(10)).above(0.0), for Duration::ZERO,
        "the members of a group do not agree: {{ $labels.evenkeel_reason }}", "operations/groups.md#lost-redundancy";
    Ticket "EvenkeelPolicyFailing": last("evenkeel_policy_failing").is(1.0), for minutes(1),
        "policy {{ $labels.evenkeel_policy }} fails, and its on_fault applies", "policies.md#when-a-policy-fails";
    Ticket "EvenkeelRevisionRolledBack":
        increase("evenkeel_policy_rollouts_total", minutes(10)).only("evenkeel_outcome", &["rolled-back"]).above(0.0), for Duration::ZERO,
        "a revision of {{ $labels.evenkeel_policy }} did harm", "rollouts.md#rollouts";
    Ticket "EvenkeelSessionPanicked":
        increase("evenkeel_sessions_closed_total", minutes(60)).only("evenkeel_reason", &["panicked"]).above(0.0), for Duration::ZERO,
        "a bug of the gateway closed a session: the log has the panic", "operations/daily.md#a-session-ended-by-a-panic";
    Ticket "EvenkeelHandshakesFail":
        increase("evenkeel_sessions_closed_total", minutes(10)).only("evenkeel_reason", &["handshake-failed"]).above(10.0), for Duration::ZERO,
        "handshakes of WebRTC clients fail: evenkeel_handshakes_total has the reasons", "webrtc.md#when-a-call-does-not-begin";
    Ticket "EvenkeelThreadsBehind":
        rate("media_packets_dropped_total", minutes(1)).only("evenkeel_reason", &["ring-full", "buffer-full", "send-failed"]).above(0.0), for minutes(1),
        "packets are dropped because threads do not keep up: {{ $labels.evenkeel_reason }}", "operations/daily.md#a-gateway-is-too-slow";
    Ticket "EvenkeelControlLate":
        rate("evenkeel_event_loop_stalls_total", minutes(5)).above(1.0), for Duration::ZERO,
        "control runs late, which delays failover: give the gateway more processor time", "operations/daily.md#a-gateway-is-too-slow";
    Ticket "EvenkeelNodeMessagesRefused":
        increase("evenkeel_node_messages_refused_total", minutes(10)).above(0.0), for Duration::ZERO,
        "gateway and agents do not agree: {{ $labels.evenkeel_reason }}", "operations/daily.md#a-node-is-down-though-it-runs";
    Ticket "EvenkeelIndexBehind": last("evenkeel_index_current").is(0.0), for minutes(5),
        "the shared index lacks sessions of this gateway", "operations/shared-index.md#the-index-is-not-current";
    Ticket "EvenkeelRoomDuplicate":
        increase("evenkeel_index_duplicates_total", minutes(60)).above(0.0), for Duration::ZERO,
        "a room is at two groups: the log names it", "operations/shared-index.md#a-room-is-at-two-groups";
    Ticket "EvenkeelDependencyDown": last("evenkeel_dependency_up").is(0.0), for minutes(1),
        "{{ $labels.evenkeel_dependency }}, which this gateway depends on, does not answer: `evenkeel status` has the reason", "operations/alerts.md#dependencies";
    Ticket "EvenkeelCredentialEnds": last("evenkeel_credential_expiry_seconds").below(14.0 * DAY), for Duration::ZERO,
        "{{ $labels.evenkeel_credential }} ends on {{ $labels.evenkeel_ends }}", "operations/alerts.md#certificates-and-tokens";
    Ticket "EvenkeelDocumentUnwritten": last("evenkeel_document_unwritten").is(1.0), for minutes(1),
        "{{ $labels.evenkeel_document }} cannot be written, and a restart would forget changes: `evenkeel status` has the reason", "operations/disk.md#the-disk-is-full-or-fails";
    Info "EvenkeelLossReduces": last("evenkeel_loss_reduced").above(0.0), for minutes(10),
        "the loss of one {{ $labels.evenkeel_scope }} would reduce the bit rate of {{ $value }} sessions: `evenkeel blast` shows where", "failover.md#blast-radius";
    Info "EvenkeelNodeFailed":
        increase("evenkeel_node_failures_total", minutes(5)).above(0.0), for Duration::ZERO,
        "node {{ $labels.evenkeel_node }} failed: the rooms that it carried, if any, moved", "failover.md#after-a-node-died";
    Info "EvenkeelRoleChanged": changes("evenkeel_group_role", minutes(5)).above(0.0), for Duration::ZERO,
        "a gateway of the group started, or its role changed by a hand-over or a takeover", "operations/groups.md#a-group-of-gateways";
    Info "EvenkeelNodeStaysDrained": last("evenkeel_node_draining").is(1.0), for minutes(60),
        "node {{ $labels.evenkeel_node }} is drained for an hour", "operations/maintain.md#take-a-node-out";
    Info "EvenkeelSrtpRefused":
        rate("media_packets_dropped_total", minutes(5)).only("evenkeel_reason", &["srtp-forged", "srtp-index"]).above(10.0), for minutes(5),
        "packets of SRTP are dropped: {{ $labels.evenkeel_reason }}", "webrtc.md#when-a-call-does-not-begin";
    Info "EvenkeelTokensRefused":
        increase("evenkeel_api_tokens_refused_total", minutes(10)).above(0.0), for Duration::ZERO,
        "requests without the token or with another one: {{ $labels.evenkeel_reason }}", "security.md#api";
    Info "EvenkeelTelemetryDropped":
        increase("evenkeel_telemetry_dropped_total", minutes(10)).above(0.0), for Duration::ZERO,
        "telemetry is lost: {{ $labels.evenkeel_signal }}, {{ $labels.evenkeel_reason }}", "telemetry.md#alerts";
}

/// A gateway that does not answer Prometheus. It evaluates nothing itself, so the rule is in the file alone.
pub const DOWN: AlertRule = AlertRule {
    name: "EvenkeelDown",
    tier: AlertTier::Page,
    condition: last("up").only("job", &["evenkeel"]).is(0.0),
    lasts: seconds(30),
    summary: "gateway {{ $labels.instance }} does not answer Prometheus",
    runbook: "operations/daily.md#a-gateway-does-not-answer",
};

/// An alert that explains others: while it fires, these are not sent, as Alertmanager's `inhibit_rules` have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AlertInhibition {
    /// The rule of the alert that explains.
    pub source: &'static str,
    /// Rules that stand after it in [`RULES`].
    pub targets: &'static [&'static str],
    /// Labels that have the same values at both alerts.
    pub equal: &'static [&'static str],
}

const fn explains(
    source: &'static str,
    targets: &'static [&'static str],
    equal: &'static [&'static str],
) -> AlertInhibition {
    AlertInhibition { source, targets, equal }
}

/// All inhibitions, of alerts of the same gateway.
pub const INHIBITIONS: &[AlertInhibition] = &[
    explains(
        "EvenkeelRegionBreakerOpen",
        &["EvenkeelZoneBreakerOpen", "EvenkeelNodeDown", "EvenkeelNodeDelayRose"],
        &["evenkeel_region"],
    ),
    explains(
        "EvenkeelUplinkSuspect",
        &[
            "EvenkeelNodeDown",
            "EvenkeelNodeFlaps",
            "EvenkeelNodeDelayRose",
            "EvenkeelDependencyDown",
            "EvenkeelNodeFailed",
        ],
        &[],
    ),
    explains(
        "EvenkeelTakeoverBlocked",
        &["EvenkeelGroupWithoutOwner", "EvenkeelGatewayDown", "EvenkeelRedundancyLost"],
        &[],
    ),
    explains(
        "EvenkeelGroupWithoutOwner",
        &["EvenkeelGatewayDown", "EvenkeelRedundancyLost", "EvenkeelRoleChanged"],
        &[],
    ),
    explains("EvenkeelCredentialEndsSoon", &["EvenkeelCredentialEnds"], &["evenkeel_credential"]),
    explains(
        "EvenkeelSloBurnsFast",
        &["EvenkeelSloBurnsSlowly"],
        &["evenkeel_scenario", "evenkeel_slo"],
    ),
    explains(
        "EvenkeelNodeDown",
        &["EvenkeelNodeFlaps", "EvenkeelNodeDelayRose", "EvenkeelNodeFailed"],
        &["evenkeel_node"],
    ),
    explains("EvenkeelGatewayDown", &["EvenkeelRedundancyLost"], &[]),
    explains("EvenkeelRedundancyLost", &["EvenkeelGroupRefused"], &[]),
];

/// Labels that tell gateways apart: of series that Prometheus scrapes, and of alerts that a gateway sends itself. An alert has one of them.
const OF_GATEWAY: [&str; 2] = ["instance", "gateway"];

/// The part of Alertmanager's configuration with `inhibit_rules`.
pub fn inhibit_rules_file() -> String {
    let mut text = "# Made by `make reference` from gateway/telemetry/src/alerts.rs. A part of Alertmanager's configuration.\n\
                    inhibit_rules:\n"
        .to_owned();
    for AlertInhibition { source, targets, equal } in INHIBITIONS {
        writeln!(
            text,
            "- source_matchers: ['alertname = \"{source}\"']\n  target_matchers: ['alertname =~ \"{}\"']\n  equal: [{}]",
            targets.join("|"),
            [&OF_GATEWAY[..], *equal].concat().join(", "),
        )
        .expect("a string takes all text");
    }
    text
}

/// The rules in the file, the most urgent first.
pub fn rules_of_file() -> impl Iterator<Item = &'static AlertRule> {
    let of_tier =
        |tier: AlertTier| RULES.iter().chain([&DOWN]).filter(move |rule| rule.tier == tier);
    AlertTier::ALL.into_iter().flat_map(of_tier)
}

/// The file of rules, for `rule_files` of Prometheus.
pub fn rules_file() -> String {
    let mut text =
        "# Made by `make reference` from gateway/telemetry/src/alerts.rs.\ngroups:\n".to_owned();
    for tier in AlertTier::ALL {
        let severity = tier.name();
        writeln!(text, "- name: evenkeel-{severity}\n  rules:").expect("a string takes all text");
        for rule in rules_of_file().filter(|rule| rule.tier == tier) {
            let AlertRule { name, summary, runbook, .. } = rule;
            let lasts = rule.lasts_text();
            writeln!(
                text,
                "  - alert: {name}\n    expr: {}\n    for: {lasts}\n    labels: {{severity: {severity}}}\n    \
                 annotations:\n      summary: {}\n      runbook: docs/{runbook}",
                quoted(&rule.expression()),
                quoted(summary),
            )
            .expect("a string takes all text");
        }
    }
    text
}

/// A scalar of YAML in single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests;
