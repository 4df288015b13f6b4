//! Alerts: the rules before Prometheus and Alertmanager, and what a gateway sends itself.

mod callers;
mod faults;
mod fleet;
mod link;
mod next_process;
mod servers;

use std::time::{Duration, Instant};

use evenkeel_report::AcceptanceRow;
use evenkeel_telemetry::alerts::rules_of_file;
use evenkeel_testkit::{not_measured, required};
use serde_json::json;

use self::faults::{FaultPlay, LEG_IMPAIRED, NOT_PLAYED, PlayedFault, SENT, SHORT, lasts};
use self::fleet::{Fleet, LATER, REMOTE, came};
use self::servers::{Noticed, Servers};
use crate::harness::{Hosts, acceptance_row, id_of_rule, limit_s, report};

/// A forecast and a check of losses come a minute after the start, also without a fault.
const CONTROL: Duration = Duration::from_secs(63);

/// A control run is not shorter, whatever the start took.
const CONTROL_MIN: Duration = Duration::from_secs(30);

/// A rule that holds for a moment of the control run does not hold this much later.
const MOMENT: Duration = Duration::from_secs(5);

/// `make test` judges that a rule notices its fault, not how soon.
const PATIENCE: u32 = 3;

/// Lets a healthy fleet run, and returns the row. A rule that would notice something if it did not have to hold for longer counts, too.
fn control(fleet: &Fleet<'_>, servers: &Servers<'_>) -> AcceptanceRow {
    let began = Instant::now();
    let until = (fleet.full_began + CONTROL).max(began + CONTROL_MIN);
    came(until - began, || false);
    came(MOMENT, || servers.pending().is_empty());
    let (noticed, pending) = (servers.noticed(), servers.pending());
    let alerts: Vec<&Noticed> = noticed.iter().filter(|it| it.is_firing).collect();
    let labels: Vec<_> = alerts.iter().map(|it| &it.labels).collect();
    println!("alert.control: {:?}, {labels:?}, {pending:?}", began.elapsed());
    let count = alerts.len() + pending.len();
    let figures = json!({"seconds": began.elapsed().as_secs(), "alerts": count});
    acceptance_row("alert.control", count == 0, &figures, "alerts", "alerts")
}

/// The row of an alert that the gateway sends to Alertmanager's API, and of its end. `began`: that of its fault.
fn sent(servers: &Servers<'_>, began: Option<Instant>, sent_at: Option<Instant>) -> AcceptanceRow {
    let fired_s = began.zip(sent_at).map(|(began, at)| (at - began).as_secs());
    let fires = began.and_then(|began| servers.heard_at(SENT, true, began)).is_some();
    let heard = || servers.heard_at(SENT, false, sent_at?);
    let ends = || !servers.sends(SENT) && heard().is_some();
    let resolves = fires && came(limit_s("alert.sent", "resolved_within"), ends);
    let resolved = sent_at.zip(heard()).filter(|_| resolves);
    let resolved_s = resolved.map(|(at, ended)| (ended - at).as_secs());
    println!("alert.sent: {fired_s:?} s, ended: {resolves}, after {resolved_s:?} s");
    let figures = json!({"fired_s": fired_s, "resolved_s": resolved_s});
    acceptance_row("alert.sent", resolves, &figures, "resolved_s", "resolved_within")
}

/// The row of a rule. Its figure is the time to the notice beyond that for which the rule has to hold.
fn row(rule: &str, faults: &[PlayedFault], noticed: &[Noticed]) -> AcceptanceRow {
    let id = id_of_rule(rule);
    if let Some((_, reason)) = NOT_PLAYED.into_iter().find(|(name, _)| *name == rule) {
        println!("{id} is not played: {reason}");
        return AcceptanceRow::skipped(id, reason);
    }
    let fault = faults.iter().find(|fault| fault.rule == rule);
    let after = fault.and_then(|fault| fault.noticed_after(noticed));
    let after = after.map(|after| after.saturating_sub(lasts(rule)));
    println!("{id}: {after:?}");
    let figures = json!({"noticed_s": after.map(|after| after.as_secs_f64())});
    acceptance_row(&id, after.is_some(), &figures, "noticed_s", "noticed_within")
}

#[required(Namespaces, Mounts, Nats, Prometheus, Alertmanager)]
#[test]
fn rules_of_a_minute_notice_their_faults() {
    let place = Hosts::lay();
    let mut fleet = Fleet::start(&place);
    let servers = Servers::start(&place, &Fleet::instances(), LATER.parse().unwrap());
    let mut play = FaultPlay::new(&mut fleet, &servers, PATIENCE);
    play.play_short();
    let noticed = servers.noticed();
    let short = play.faults.iter().filter(|fault| lasts(fault.rule) <= SHORT);
    let missed = short.filter(|fault| fault.noticed_after(&noticed).is_none());
    let missed: Vec<&str> = missed.map(|fault| fault.rule).collect();
    // The verdict of the leg needs a gateway that is in time itself.
    if missed == [LEG_IMPAIRED] && servers.impaired_itself(REMOTE) {
        not_measured("the gateway before the impaired leg was late itself, and said so");
    } else {
        assert!(missed.is_empty(), "{missed:?}");
    }
}

#[required(Namespaces, Mounts, Nats, Prometheus, Alertmanager)]
#[test]
#[ignore = "takes minutes of a quiet machine; `make e2e-telemetry` runs it"]
fn rules_notice_their_faults_and_stay_silent_without() {
    let place = Hosts::lay();
    let mut fleet = Fleet::start(&place);
    let servers = Servers::start(&place, &Fleet::instances(), LATER.parse().unwrap());
    let mut rows = vec![control(&fleet, &servers)];
    let mut play = FaultPlay::new(&mut fleet, &servers, 1);
    play.play();
    let (faults, sent_at) = (play.faults, play.sent_at);
    let noticed = servers.noticed();
    rows.extend(rules_of_file().map(|rule| row(rule.name, &faults, &noticed)));
    let of_sent = faults.iter().find(|fault| fault.rule == SENT);
    rows.push(sent(&servers, of_sent.map(|fault| fault.began), sent_at));
    report(&rows);
    let missed: Vec<&AcceptanceRow> = rows.iter().filter(|row| row.held == Some(false)).collect();
    assert!(missed.is_empty(), "{missed:#?}");
}
