//! Alert rules for Prometheus in three tiers, made into `docs/alerts/rules.yml`.

use std::fmt::Write;

/// How urgent an alert is; the label `severity`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum AlertTier {
    /// Calls suffer now: it needs an answer at any hour.
    Page,
    /// Calls go on, and the next fault may end them: within a working day.
    Ticket,
    /// An event to know when others are looked at.
    Info,
}

impl AlertTier {
    /// All tiers, the most urgent first.
    pub const ALL: [AlertTier; 3] = [AlertTier::Page, AlertTier::Ticket, AlertTier::Info];

    /// The value of the label `severity`.
    pub fn name(self) -> &'static str {
        match self {
            AlertTier::Page => "page",
            AlertTier::Ticket => "ticket",
            AlertTier::Info => "info",
        }
    }
}

/// A rule of Prometheus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AlertRule {
    /// Such as `EvenkeelNodeDown`.
    pub name: &'static str,
    /// Its tier.
    pub tier: AlertTier,
    /// In PromQL.
    pub expression: &'static str,
    /// For how long the expression has to hold; `0s`: it fires at once.
    pub lasts: &'static str,
    /// One line, with the labels of the series in Prometheus' templates.
    pub summary: &'static str,
    /// The section that says what to do, in `docs/`.
    pub runbook: &'static str,
}

macro_rules! rules {
    ($($tier:ident $name:literal: $expression:literal for $lasts:literal, $summary:literal, $runbook:literal;)*) => {
        /// All rules, the most urgent first.
        pub const RULES: &[AlertRule] = &[$(AlertRule {
            name: $name,
            tier: AlertTier::$tier,
            expression: $expression,
            lasts: $lasts,
            summary: $summary,
            runbook: $runbook,
        },)*];
    };
}

rules! {
    Page "EvenkeelRoomsStranded": "increase(evenkeel_rooms_stranded_total[5m]) > 0" for "0s",
        "rooms have no usable hop: {{ $labels.evenkeel_cause }}", "failover.md#after-a-node-died";
    Page "EvenkeelOffersRefused":
        "sum by (instance, evenkeel_reason) (rate(evenkeel_sessions_refused_total{evenkeel_reason=~\"full|no-node|not-opened|rejected\"}[2m])) > 1" for "1m",
        "offers are refused: {{ $labels.evenkeel_reason }}", "failover.md#capacity";
    Page "EvenkeelRegionBreakerOpen": "evenkeel_region_breaker == 1" for "10s",
        "region {{ $labels.evenkeel_region }} takes no new rooms", "failover.md#region-breaker";
    Page "EvenkeelUplinkSuspect": "evenkeel_uplink_suspect == 1" for "10s",
        "most nodes are silent at once: check the gateway's own network", "operations.md#look";
    Page "EvenkeelSloBurnsFast":
        "evenkeel_slo_burn_rate{evenkeel_window=\"5m\"} > 14.4 and ignoring (evenkeel_window) evenkeel_slo_burn_rate{evenkeel_window=\"1h\"} > 14.4" for "1m",
        "scenario {{ $labels.evenkeel_scenario }} misses its objective of {{ $labels.evenkeel_slo }}", "operations.md#objectives";
    Ticket "EvenkeelSloBurnsSlowly":
        "evenkeel_slo_burn_rate{evenkeel_window=\"1h\"} > 6 and ignoring (evenkeel_window) evenkeel_slo_burn_rate{evenkeel_window=\"6h\"} > 6" for "1m",
        "scenario {{ $labels.evenkeel_scenario }} has missed its objective of {{ $labels.evenkeel_slo }} for hours", "operations.md#objectives";
    Ticket "EvenkeelVoiceBad":
        "sum by (instance, evenkeel_scenario) (rate(evenkeel_session_r_factor_bucket{le=~\"70|70.0\"}[5m])) > 0.05 * sum by (instance, evenkeel_scenario) (rate(evenkeel_session_r_factor_count[5m]))" for "5m",
        "many users of scenario {{ $labels.evenkeel_scenario }} hear badly: `evenkeel session list --bad`", "operations.md#look";
    Ticket "EvenkeelSessionsImpaired":
        "sum by (instance, evenkeel_scenario, evenkeel_segment) (evenkeel_scenario_impaired{evenkeel_segment=~\"leg|node|gateway\"}) > on (instance, evenkeel_scenario) group_left () 0.05 * evenkeel_scenario_sessions" for "1m",
        "media of {{ $value }} sessions of scenario {{ $labels.evenkeel_scenario }} suffers at the {{ $labels.evenkeel_segment }}", "operations.md#impaired-media";
    Ticket "EvenkeelNodeDown": "evenkeel_node_health == 3" for "1m",
        "node {{ $labels.evenkeel_node }} is down", "failover.md#after-a-node-died";
    Ticket "EvenkeelNodeFlaps": "increase(evenkeel_node_failures_total[10m]) > 3" for "0s",
        "node {{ $labels.evenkeel_node }} fails again and again", "failover.md#detection";
    Ticket "EvenkeelNodeDelayRose":
        "evenkeel_node_round_trip_seconds > 0.05 + 2 * avg_over_time(evenkeel_node_round_trip_seconds[1h] offset 5m)" for "1m",
        "the round trip to node {{ $labels.evenkeel_node }} rose to {{ $value }} s", "failover.md#detection";
    Ticket "EvenkeelRedundancyLost": "evenkeel_group_warnings > 0" for "1m",
        "the next fault of a gateway may end calls: `evenkeel gateway list` has the reason", "operations.md#lost-redundancy";
    Ticket "EvenkeelLossUncovered": "evenkeel_loss_unplaced > 0" for "2m",
        "the loss of one {{ $labels.evenkeel_scope }} would leave {{ $value }} sessions without a node: `evenkeel blast` shows where", "failover.md#blast-radius";
    Ticket "EvenkeelCapacityRunsOut": "evenkeel_forecast_exhausted_seconds >= 0" for "2m",
        "the capacity of region {{ $labels.evenkeel_region }} is expected to be exhausted in {{ $value }} s: `evenkeel status` has the load", "operations.md#forecasts";
    Ticket "EvenkeelNodeDecays": "evenkeel_forecast_warnings{evenkeel_reason=~\"decay|flap\"} > 0" for "2m",
        "{{ $value }} nodes are expected to fail: `evenkeel status` names them", "operations.md#forecasts";
    Ticket "EvenkeelGroupRefused": "increase(evenkeel_cluster_refused_total[10m]) > 0" for "0s",
        "the members of a group do not agree: {{ $labels.evenkeel_reason }}", "operations.md#lost-redundancy";
    Ticket "EvenkeelPolicyFailing": "evenkeel_policy_failing == 1" for "1m",
        "policy {{ $labels.evenkeel_policy }} fails, and its on_fault applies", "rollouts.md#across-a-restart";
    Ticket "EvenkeelRevisionRolledBack":
        "increase(evenkeel_policy_rollouts_total{evenkeel_outcome=\"rolled-back\"}[10m]) > 0" for "0s",
        "a revision of {{ $labels.evenkeel_policy }} did harm", "rollouts.md#across-a-restart";
    Ticket "EvenkeelSessionPanicked":
        "increase(evenkeel_sessions_closed_total{evenkeel_reason=\"panicked\"}[1h]) > 0" for "0s",
        "a bug of the gateway closed a session: the log has the panic", "operations.md#look";
    Ticket "EvenkeelThreadsBehind":
        "rate(media_packets_dropped_total{evenkeel_reason=~\"ring-full|buffer-full|send-failed\"}[1m]) > 0" for "1m",
        "packets are dropped because threads do not keep up: {{ $labels.evenkeel_reason }}", "operations.md#look";
    Ticket "EvenkeelControlLate": "rate(evenkeel_event_loop_stalls_total[5m]) > 1" for "0s",
        "control runs late, which delays failover: give the gateway more processor time", "operations.md#look";
    Ticket "EvenkeelNodeMessagesRefused": "increase(evenkeel_node_messages_refused_total[10m]) > 0" for "0s",
        "gateway and agents do not agree: {{ $labels.evenkeel_reason }}", "operations.md#look";
    Ticket "EvenkeelIndexBehind": "evenkeel_index_current == 0" for "5m",
        "the shared index lacks sessions of this gateway", "operations.md#shared-index";
    Ticket "EvenkeelRoomDuplicate": "increase(evenkeel_index_duplicates_total[1h]) > 0" for "0s",
        "a room is at two groups: the log names it", "operations.md#shared-index";
    Info "EvenkeelNodeFailed": "increase(evenkeel_node_failures_total[5m]) > 0" for "0s",
        "node {{ $labels.evenkeel_node }} failed, and its rooms moved", "failover.md#after-a-node-died";
    Info "EvenkeelRoleChanged": "changes(evenkeel_group_role[5m]) > 0" for "0s",
        "a gateway of the group started, or its role changed by a hand-over or a takeover", "operations.md#a-group-of-gateways";
    Info "EvenkeelNodeStaysDrained": "evenkeel_node_draining == 1" for "1h",
        "node {{ $labels.evenkeel_node }} is drained for an hour", "operations.md#maintain";
    Info "EvenkeelTokensRefused": "increase(evenkeel_api_tokens_refused_total[10m]) > 0" for "0s",
        "requests without the token or with another one: {{ $labels.evenkeel_reason }}", "security.md#api";
    Info "EvenkeelTelemetryDropped": "increase(evenkeel_telemetry_dropped_total[10m]) > 0" for "0s",
        "telemetry is lost: {{ $labels.evenkeel_signal }}, {{ $labels.evenkeel_reason }}", "telemetry.md#alerts";
}

/// The file of rules, for `rule_files` of Prometheus.
pub fn rules_file() -> String {
    let mut text =
        "# Made by `make reference` from gateway/telemetry/src/alerts.rs.\ngroups:\n".to_owned();
    for tier in AlertTier::ALL {
        let severity = tier.name();
        writeln!(text, "- name: evenkeel-{severity}\n  rules:").expect("a string takes all text");
        for rule in RULES.iter().filter(|rule| rule.tier == tier) {
            let AlertRule { name, expression, lasts, summary, runbook, .. } = rule;
            writeln!(
                text,
                "  - alert: {name}\n    expr: {}\n    for: {lasts}\n    labels: {{severity: {severity}}}\n    \
                 annotations:\n      summary: {}\n      runbook: docs/{runbook}",
                quoted(expression),
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
