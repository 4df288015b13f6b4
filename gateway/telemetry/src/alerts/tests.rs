use std::collections::BTreeSet;

use super::super::registry::{Count, Described, Level};
use super::*;

/// The labels of all series that a rule reads.
fn labels(rule: &AlertRule) -> BTreeSet<String> {
    let counts = Count::ALL.iter().map(|metric| metric.described());
    let counts = counts.map(|it| (it.prometheus_name() + "_total", it));
    let levels = Level::ALL.iter().map(|metric| metric.described());
    let levels = levels.map(|it| (it.prometheus_name(), it));
    let metric = rule.condition.values()[0].series.metric;
    let named = counts.chain(levels).find(|(name, _)| name == metric);
    let Described { attributes, .. } = named.unwrap_or_else(|| panic!("no {metric}")).1;
    attributes.iter().map(|attribute| attribute.prometheus_label()).collect()
}

#[test]
fn inhibitions_name_rules_and_their_labels() {
    let rule = |name: &str| {
        let at = RULES.iter().position(|rule| rule.name == name);
        at.unwrap_or_else(|| panic!("no rule {name}"))
    };
    for AlertInhibition { source, targets, equal } in INHIBITIONS {
        for target in *targets {
            let (source, target) = (rule(source), rule(target));
            // Otherwise two alerts could silence each other, or a page be silenced by a ticket.
            assert!(source < target, "{} stands after {}", RULES[source].name, RULES[target].name);
            let common = &labels(&RULES[source]) & &labels(&RULES[target]);
            assert!(equal.iter().all(|label| common.contains(*label)), "{equal:?}: {common:?}");
        }
    }
}

#[test]
fn slow_burn_is_no_claim_about_hours() {
    let rule = RULES.iter().find(|rule| rule.name == "EvenkeelSloBurnsSlowly").unwrap();
    // It fires a minute after the first sessions of a gateway.
    assert!(rule.lasts < minutes(60), "{}", rule.lasts_text());
    assert!(rule.summary.ends_with(" over the last 6 h, or since counting began"), "{rule:?}");
}

#[test]
fn file_has_a_rule_for_a_dead_gateway() {
    let rule = "  - alert: EvenkeelDown\n    expr: 'up{job=\"evenkeel\"} == 0'\n    for: 30s\n    \
                labels: {severity: page}\n    annotations:\n      \
                summary: 'gateway {{ $labels.instance }} does not answer Prometheus'\n      \
                runbook: docs/operations/daily.md#a-gateway-does-not-answer\n";
    let file = rules_file();
    let (pages, _) = file.split_once("evenkeel-ticket").unwrap();
    assert!(pages.contains(rule), "{pages}");
}

#[test]
fn failed_node_may_have_had_no_rooms() {
    let rule = RULES.iter().find(|rule| rule.name == "EvenkeelNodeFailed").unwrap();
    assert!(rule.summary.ends_with("the rooms that it carried, if any, moved"), "{rule:?}");
}

#[test]
fn rules_stand_by_tier() {
    assert!(RULES.is_sorted_by_key(|rule| rule.tier));
}

#[test]
fn rules_of_members_exist() {
    let found = RULES.iter().filter(|rule| rule.is_of_member());
    assert_eq!(found.count(), OF_MEMBERS.len());
}
