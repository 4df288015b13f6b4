//! Records of ended sessions.

use std::sync::Arc;
use std::time::Duration;

use evenkeel_client::ApiClient;
use evenkeel_contract::sessions::EndedSession;
use evenkeel_control::history::SessionHistory;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{
    Gateway, GatewayProcess, Node, Phone, TIMEOUT, World, declared, ids, offer, talk, talk_for,
    udp_of, wait_until,
};

/// The record of the session in this room, once there is one.
fn expect_record(history: &SessionHistory, room: &str) -> Arc<EndedSession> {
    let find = || history.list(u64::MAX, 1, |record| &*record.room == room).pop();
    wait_until("the session has a record", || find().is_some());
    find().unwrap().1
}

#[test]
fn ended_sessions_leave_records() {
    let nodes = ["east-a1", "east-b1"].map(Node::agent);
    let mut world = World::of(&nodes.each_ref());
    world.scenario += "close_after = \"1s\"\n";
    let mut gateway = world.start();
    let history = gateway.ask(gateway.handle.history()).unwrap();
    let (mut ann, mut bob, silent) = (Phone::new(1), Phone::new(2), Phone::new(3));
    gateway.open(offer("silent", declared(&silent)));
    let opened = gateway.open(offer("moved", declared(&ann)));
    ann.set_target(udp_of(&opened));
    let other = gateway.open(offer("panicked", declared(&bob)));
    bob.set_target(udp_of(&other));
    talk(&mut [&mut ann, &mut bob], "both hear themselves", |phones| {
        phones.iter().all(|phone| phone.heard.len() >= 10)
    });
    let there = &nodes[opened.route[1].node.0 as usize];
    gateway.ask(gateway.handle.move_room("moved".into(), there.name.clone().into())).unwrap();
    talk(&mut [&mut ann, &mut bob], "her room moved", |phones| {
        phones[0].last_heard_via(there.number())
    });
    ann.hear_rest();

    gateway.ask(gateway.handle.close(opened.session)).unwrap();
    let record = expect_record(&history, "moved");
    assert_eq!((&*record.reason, &*record.id), ("requested", &*opened.session.to_string()));
    assert_eq!((&*record.scenario, &*record.ingress, &*record.mode), ("call", "udp", "hot"));
    assert_eq!((&*record.admitted_by, record.moves["manual"]), ("native", 1));
    let [step] = &record.last_moves[..] else { panic!("{record:?}") };
    assert_eq!(
        (step.to.as_deref(), &*step.cause, &*step.by),
        (Some(&*there.name), "manual", "operator")
    );
    assert!(*step.from != *there.name && step.at_us <= record.ended_us, "{step:?}");
    let totals = record.totals.as_ref().unwrap();
    assert_eq!((totals.packets_up, totals.lost_up, totals.switches), (ann.voice.sent, 0, 1));
    assert_eq!(totals.packets_down, ann.heard.len() as u64);
    assert!(record.duration_ms > 0 && record.offered_us < record.ended_us, "{record:?}");

    gateway.ask(gateway.handle.panic_session(other.session)).unwrap();
    talk(&mut [&mut bob], "his session is gone", |_| gateway.session(&other).is_none());
    assert_eq!(&*expect_record(&history, "panicked").reason, "panicked");
    let record = expect_record(&history, "silent");
    assert_eq!((&*record.reason, record.totals.as_ref().unwrap().packets_up), ("media-timeout", 0));
    assert!(record.duration_ms >= 1_000, "{record:?}");

    let last = gateway.open(offer("last", declared(&ann)));
    assert!(gateway.session(&last).is_some());
    shut_down(&mut gateway);
    assert_eq!(&*expect_record(&history, "last").reason, "shutdown");
    assert_eq!(history.list(u64::MAX, usize::MAX, |_| true).len(), 4);
}

fn shut_down(gateway: &mut Gateway) {
    gateway.ask(gateway.handle.shut_down(Duration::ZERO)).unwrap();
    gateway.running.take().unwrap().join().unwrap();
}

/// Rooms and reasons of the listed sessions, newest first.
fn listed(gateway: &mut GatewayProcess) -> Vec<(String, String)> {
    let answer = gateway.read("/v1/sessions/history");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let sessions = answer["sessions"].as_array().unwrap().iter();
    sessions.map(|session| (text(&session["room"]), text(&session["reason"]))).collect()
}

fn expect_listed(gateway: &mut GatewayProcess, sessions: &[(&str, &str)]) {
    let owned = |(room, reason): &(&str, &str)| ((*room).to_owned(), (*reason).to_owned());
    let sessions: Vec<_> = sessions.iter().map(owned).collect();
    wait_until("the sessions are listed", || listed(gateway) == sessions);
}

async fn close_all(client: &mut ApiClient) {
    for session in client.list("sessions").await.unwrap() {
        client.close(session["id"].as_str().unwrap()).await.unwrap();
    }
}

#[test]
fn restarted_gateway_lists_earlier_records() {
    let node = Node::agent("east-a1");
    let mut world = World::of(&[&node]);
    world.gateway += "drain_timeout = \"0s\"\n";
    let mut gateway = GatewayProcess::start(&world);
    gateway.open("first", &mut Phone::new(1));
    gateway.ask(close_all);
    expect_listed(&mut gateway, &[("first", "requested")]);

    gateway.await_written("requested");
    // No time to finish anything.
    gateway.process.kill();
    gateway.start_again();
    expect_listed(&mut gateway, &[("first", "requested")]);

    gateway.open("second", &mut Phone::new(2));
    gateway.process.signal(Signal::SIGTERM).unwrap();
    gateway.process.wait(TIMEOUT).unwrap();
    gateway.start_again();
    expect_listed(&mut gateway, &[("second", "shutdown"), ("first", "requested")]);
}

#[test]
fn session_over_an_upgrade_leaves_one_record() {
    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&World::of(&[&node]));
    gateway.open("first", &mut Phone::new(1));
    gateway.ask(close_all);
    let mut ann = Phone::new(2);
    gateway.open("second", &mut ann);
    talk_for(&mut [&mut ann], 10);
    let upgrading = gateway.upgrade(json!({}));
    talk(&mut [&mut ann], "the upgrade is answered", |_| upgrading.is_finished());
    let upgraded = upgrading.join().unwrap().unwrap();
    gateway.note_successor(upgraded["pid"].as_i64().unwrap() as i32);
    talk_for(&mut [&mut ann], 10);
    ann.hear_rest();
    gateway.process.wait(TIMEOUT).unwrap();
    // The connection to the old process has ended.
    gateway.move_api("admin.sock");
    gateway.ask(close_all);
    expect_listed(&mut gateway, &[("second", "requested"), ("first", "requested")]);
    let record = &gateway.read("/v1/sessions/history")["sessions"][0];
    assert_eq!(record["totals"]["packets_up"], ann.voice.sent, "{record}");
    let age = Duration::from_micros(record["ended_us"].as_u64().unwrap())
        .checked_sub(Duration::from_micros(record["offered_us"].as_u64().unwrap()));
    assert_eq!(age.unwrap().as_millis() as u64, record["duration_ms"]);
    assert!(age.unwrap() > Duration::from_micros(upgraded["paused_us"].as_u64().unwrap()));
}

#[test]
fn killed_gateway_leaves_records_of_its_sessions() {
    let node = Node::agent("east-a1");
    let mut gateway = GatewayProcess::start(&World::of(&[&node]));
    let (mut ann, mut bob) = (Phone::new(1), Phone::new(2));
    gateway.open("room", &mut ann);
    let [opened] = &ids(&mut gateway)[..] else { panic!("one session") };
    let opened = opened.clone();
    gateway.await_written(&opened);
    gateway.process.signal(Signal::SIGKILL).unwrap();
    gateway.process.wait(TIMEOUT).unwrap();
    gateway.start_again();
    wait_until("the session has a record", || {
        gateway.read("/v1/sessions/history")["sessions"][0]["id"] == *opened
    });
    let record = gateway.read("/v1/sessions/history")["sessions"][0].take();
    assert_eq!((&record["reason"], &record["room"]), (&json!("gateway-died"), &json!("room")));
    assert_eq!(record["totals"], Value::Null);
    gateway.open("room", &mut bob);
    assert_ne!(ids(&mut gateway)[0], opened, "no id comes twice");
}
