//! Either gateway of a group answers requests about its calls.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use evenkeel_client::{ApiCall, ApiClient, ApiResponse, ClientError};
use evenkeel_contract::offers::{OfferIngress, OfferRequest};
use evenkeel_testkit::required;
use hyper::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{
    GatewayProcess, Hosts, Phone, await_armed, await_replica, ids, offer_with_key, talk, wait_until,
};

fn offer(phone: &Phone) -> OfferRequest {
    let ingress = OfferIngress::declared(phone.address());
    GatewayProcess::offer("room", ingress)
}

/// The status and body of an answer.
fn answer(gateway: &mut GatewayProcess, method: Method, path: &str, body: &str) -> (u16, Value) {
    let body = body.to_owned().into();
    let call = ApiCall { method, path, headers: &[], body };
    let reply = gateway.ask(async |client| client.ask(call).await).unwrap();
    (reply.status, serde_json::from_slice(&reply.body).unwrap_or_default())
}

fn relayed(gateway: &mut GatewayProcess, outcome: &str) -> u64 {
    metric(gateway, "evenkeel_api_relayed_total", outcome).unwrap_or(0)
}

/// The value of the first series of this metric with this label.
pub(crate) fn metric(gateway: &mut GatewayProcess, name: &str, label: &str) -> Option<u64> {
    let call = ApiCall { method: Method::GET, path: "/metrics", headers: &[], body: "".into() };
    let reply = gateway.ask(async |client| client.ask(call).await).unwrap();
    let text = String::from_utf8(reply.body.into()).unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines.next().map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64)
}

#[required(Namespaces)]
#[test]
fn standby_answers_as_the_owner() {
    let place = Hosts::lay();
    let (node, mut ann, bob) = (place.node(), place.phone(), place.phone());
    let mut gateways = place.group(&node);
    await_replica(&mut gateways[0]);
    assert!(gateways.each_mut().iter_mut().all(|gateway| ids(gateway).is_empty()));

    gateways[1].open("room", &mut ann);
    talk(&mut [&mut ann], "her echo comes back", |phones| phones[0].heard.len() > 10);
    gateways[0].ask(async |client| client.open(&offer(&bob)).await).unwrap();
    let [all, same] = gateways.each_mut().map(ids);
    assert_eq!((all.len(), &same), (2, &all));
    let wrong = serde_json::to_string(&offer(&bob)).unwrap().replace("111", "128");
    let requests = [
        (Method::GET, "/v1/sessions?limit=1".to_owned(), ""),
        (Method::GET, format!("/v1/sessions?limit=1&after={}", all[0]), ""),
        (Method::GET, format!("/v1/sessions/{}", all[1]), ""),
        (Method::GET, format!("/v1/sessions/{}/explain", all[1]), ""),
        (Method::GET, "/v1/sessions/s99".to_owned(), ""),
        (Method::GET, "/v1/rooms".to_owned(), ""),
        (Method::POST, "/v1/rooms/room:move".to_owned(), r#"{"node": "none"}"#),
        (Method::POST, "/v1/nodes/none:drain".to_owned(), ""),
        (Method::POST, "/v1/regions/none:drain".to_owned(), ""),
        (Method::POST, "/v1/sessions".to_owned(), wrong.as_str()),
        (Method::GET, "/readyz".to_owned(), ""),
    ];
    for (method, path, body) in &requests {
        let answers =
            gateways.each_mut().map(|gateway| answer(gateway, method.clone(), path, body));
        let content = |(status, body): &(u16, Value)| {
            let sessions = body["sessions"].as_array().map(|all| all[0]["id"].clone());
            (*status, body["next"].clone(), sessions, body["id"].clone(), body["error"].clone())
        };
        let [owner, standby] = answers.each_ref().map(content);
        assert_eq!(standby, owner, "{path}: {answers:?}");
    }
    // A drain reaches the rooms of the owner.
    answer(&mut gateways[1], Method::POST, "/v1/nodes/east-a1:drain", r#"{"force": true}"#);
    let draining =
        gateways.each_mut().map(|it| it.read("/v1/nodes")["nodes"][0]["draining"].clone());
    assert_eq!(draining, [json!(true), json!(false)], "nodes are listed as each sees them");
    answer(&mut gateways[1], Method::POST, "/v1/nodes/east-a1:undrain", "");

    for id in &all {
        gateways[1].ask(async |client| client.close(id).await).unwrap();
    }
    assert!(ids(&mut gateways[0]).is_empty());
    let ended = |gateway: &mut GatewayProcess| {
        gateway.read("/v1/sessions/history")["sessions"].as_array().unwrap().len()
    };
    wait_until("the owner recorded both ends", || ended(&mut gateways[0]) == 2);
    wait_until("the standby has copies", || ended(&mut gateways[1]) == 2);
    let [owner, standby] = &mut gateways;
    assert_eq!(relayed(owner, "answered"), 0);
    assert!(relayed(standby, "answered") > requests.len() as u64);
    assert_eq!(relayed(standby, "failed"), 0);
}

#[required(Namespaces)]
#[test]
fn survivor_answers_what_it_relayed_before() {
    let place = Hosts::lay();
    let (node, mut ann, bob) = (place.node(), place.phone(), place.phone());
    let [mut owner, mut standby] = place.group(&node);
    await_replica(&mut owner);
    standby.open("room of ann", &mut ann);
    let first = offer_with_key(&mut standby, "bob", &bob);
    let opened = ids(&mut standby);
    assert_eq!(ids(&mut owner), opened);
    owner.process.signal(Signal::SIGKILL).unwrap();
    // Until a gateway owns, a request waits, and then fails with this code.
    wait_until("the survivor lists its sessions", || {
        match standby.ask(async |client| client.list("sessions").await) {
            Ok(sessions) => sessions.len() == opened.len(),
            Err(ClientError::Refused { code, .. })
                if code == "standby" || code == "unavailable" =>
            {
                false
            }
            Err(error) => panic!("{error}"),
        }
    });
    assert_eq!(ids(&mut standby), opened);
    assert_eq!(offer_with_key(&mut standby, "bob", &bob), first);
    assert_eq!(ids(&mut standby), opened, "the repetition opened nothing");
    let heard = ann.heard.len();
    talk(&mut [&mut ann], "packets arrive again", |phones| phones[0].heard.len() > heard);
    let explained = standby.read(&format!("/v1/sessions/{}/explain", opened[0]));
    assert_eq!(explained["id"], *opened[0]);
    for id in &opened {
        standby.ask(async |client| client.close(id).await).unwrap();
    }
    assert!(ids(&mut standby).is_empty());
}

/// Sends an offer on a thread of its own.
fn offering(
    mut client: ApiClient,
    key: Option<&'static str>,
    offer: &OfferRequest,
) -> std::thread::JoinHandle<ApiResponse> {
    let body = serde_json::to_vec(offer).unwrap();
    std::thread::spawn(move || {
        let headers: Vec<_> = key.map(|key| ("idempotency-key", key)).into_iter().collect();
        let path = "/v1/sessions";
        let call = ApiCall { method: Method::POST, path, headers: &headers, body: body.into() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(client.ask(call)).unwrap()
    })
}

#[required(Namespaces)]
#[test]
fn only_an_offer_with_a_key_is_repeated() {
    let place = Hosts::lay();
    let (node, ann, bob) = (place.node(), place.phone(), place.phone());
    let [mut owner, mut standby] = place.group(&node);
    await_replica(&mut owner);
    await_armed(&owner);
    // The connection to the owner is open.
    assert!(ids(&mut standby).is_empty());
    owner.process.signal(Signal::SIGSTOP).unwrap();
    let [without, with] = [(None, &ann), (Some("bob"), &bob)]
        .map(|(key, phone)| offering(standby.client(), key, &offer(phone)));
    let (without, with) = (without.join().unwrap(), with.join().unwrap());
    let mut sessions = 1;
    match without.status {
        // It arrived after the standby had noticed the silence, and waited.
        201 => sessions += 1,
        503 => {
            let refused: Value = serde_json::from_slice(&without.body).unwrap();
            assert_eq!(refused["error"]["code"], "unavailable");
            let message = refused["error"]["message"].as_str().unwrap();
            assert!(message.ends_with("the request may have been executed"), "{message}");
        }
        other => panic!("{other}: {without:?}"),
    }
    assert_eq!(with.status, 201, "{with:?}");
    assert_eq!(ids(&mut standby).len(), sessions);
}

/// The test ends also if its condition never holds.
const OFFERS_MAX: usize = 5_000;

/// Offers one session after the other without a key, and counts those that are opened.
fn offer_until(ended: &AtomicBool, opened: &AtomicUsize, place: &Hosts, client: &ApiClient) {
    let mut phones = Vec::new();
    while !ended.load(Ordering::Relaxed) && phones.len() < OFFERS_MAX {
        phones.push(place.phone());
        let offer = offer(phones.last().unwrap());
        let reply = offering(client.another(), None, &offer).join().unwrap();
        assert_eq!(reply.status, 201, "{reply:?}");
        opened.fetch_add(1, Ordering::Relaxed);
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

#[required(Namespaces)]
#[test]
fn upgrade_of_the_owner_fails_no_relayed_offer() {
    let place = Hosts::lay();
    let node = place.node();
    let [mut owner, standby] = place.group(&node);
    await_replica(&mut owner);
    let (ended, opened) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (place, client) = (&place, standby.client());
    std::thread::scope(|scope| {
        let (ended, opened) = (&ended, &opened);
        let offers = scope.spawn(move || offer_until(ended, opened, place, &client));
        let opens = |more: usize| {
            let before = opened.load(Ordering::Relaxed);
            wait_until("offers are answered", || {
                offers.is_finished() || opened.load(Ordering::Relaxed) >= before + more
            });
        };
        opens(5);
        let upgraded = owner.upgrade(json!({})).join().unwrap();
        opens(5);
        ended.store(true, Ordering::Relaxed);
        offers.join().unwrap();
        owner.note_successor(upgraded.unwrap()["pid"].as_i64().unwrap() as i32);
    });
    assert_eq!(ids(&mut owner).len(), opened.load(Ordering::Relaxed));
}
