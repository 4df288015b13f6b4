//! Alerts: the rules before Prometheus and Alertmanager, and what a gateway sends itself.

mod callers;
mod faults;
mod fleet;
mod link;
mod next_process;
mod servers;

use std::time::{Duration, Instant};

use evenkeel_report::AcceptanceRow;
use evenkeel_telemetry::alerts::RULES;
use evenkeel_testkit::required;
use serde_json::json;

use self::faults::{FaultPlay, NOT_PLAYED, PlayedFault, SENT};
use self::fleet::{Fleet, LATER, came};
use self::servers::{Noticed, Servers};
use crate::harness::{Hosts, acceptance_row, id_of_rule, limit_s, report};

/// A forecast and a check of losses come a minute after the start, also without a fault.
const CONTROL: Duration = Duration::from_secs(63);

/// A control run is not shorter, whatever the start took.
const CONTROL_MIN: Duration = Duration::from_secs(30);

/// Lets a healthy fleet run, and returns the row.
fn control(fleet: &Fleet<'_>, servers: &Servers<'_>) -> AcceptanceRow {
    let began = Instant::now();
    let until = (fleet.full_began + CONTROL).max(began + CONTROL_MIN);
    came(until - began, || false);
    let noticed = servers.noticed();
    let alerts: Vec<&Noticed> = noticed.iter().filter(|it| it.is_firing).collect();
    let labels: Vec<_> = alerts.iter().map(|it| &it.labels).collect();
    println!("alert.control: {:?}, {labels:?}", began.elapsed());
    let figures = json!({"seconds": began.elapsed().as_secs(), "alerts": alerts.len()});
    acceptance_row("alert.control", alerts.is_empty(), &figures, "alerts", "alerts")
}

/// The row of an alert that the gateway sends to Alertmanager's API, and of its end. `began`: that of its fault.
fn sent(servers: &Servers<'_>, began: Option<Instant>, sent_at: Option<Instant>) -> AcceptanceRow {
    let fired_s = began.zip(sent_at).map(|(began, at)| (at - began).as_secs());
    let ends = || !servers.sends(SENT) && servers.has_heard(SENT, false);
    let fires = sent_at.is_some() && servers.has_heard(SENT, true);
    let resolves = fires && came(limit_s("alert.sent", "resolved_within"), ends);
    let resolved_s = sent_at.filter(|_| resolves).map(|at| at.elapsed().as_secs());
    println!("alert.sent: {fired_s:?} s, ended: {resolves}, after {resolved_s:?} s");
    let figures = json!({"fired_s": fired_s, "resolved_s": resolved_s});
    acceptance_row("alert.sent", resolves, &figures, "resolved_s", "resolved_within")
}

/// The row of a rule.
fn row(rule: &str, faults: &[PlayedFault], noticed: &[Noticed]) -> AcceptanceRow {
    let id = id_of_rule(rule);
    if let Some((_, reason)) = NOT_PLAYED.into_iter().find(|(name, _)| *name == rule) {
        println!("{id} is not played: {reason}");
        return AcceptanceRow::skipped(id, reason);
    }
    let fault = faults.iter().find(|fault| fault.rule == rule);
    let after = fault.and_then(|fault| fault.noticed_after(noticed));
    println!("{id}: {after:?}");
    let figures = json!({"noticed_s": after.map(|after| after.as_secs_f64())});
    acceptance_row(&id, after.is_some(), &figures, "noticed_s", "noticed_within")
}

#[required(Namespaces, Nats, Prometheus, Alertmanager)]
#[test]
#[ignore = "takes minutes of a quiet machine; `make e2e-telemetry` runs it"]
fn rules_notice_their_faults_and_stay_silent_without() {
    let place = Hosts::lay();
    let mut fleet = Fleet::start(&place);
    let servers = Servers::start(&place, &Fleet::instances(), LATER.parse().unwrap());
    let mut rows = vec![control(&fleet, &servers)];
    let mut play = FaultPlay::new(&mut fleet, &servers);
    play.play();
    let (faults, sent_at) = (play.faults, play.sent_at);
    let noticed = servers.noticed();
    rows.extend(RULES.iter().map(|rule| row(rule.name, &faults, &noticed)));
    let of_sent = faults.iter().find(|fault| fault.rule == SENT);
    rows.push(sent(&servers, of_sent.map(|fault| fault.began), sent_at));
    report(&rows);
    let missed: Vec<&AcceptanceRow> = rows.iter().filter(|row| row.held == Some(false)).collect();
    assert!(missed.is_empty(), "{missed:#?}");
}
