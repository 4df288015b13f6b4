//! Users are advised while repair and ladder cannot hold the quality of their sessions, and rate them.

use std::sync::mpsc;
use std::thread;

use evenkeel_testkit::http::{HttpClient, HttpSink};
use serde_json::{Value, json};

use crate::harness::whip::{Whip, claims, location, token};
use crate::harness::{GatewayProcess, Node, Phone, World, ids, talk, wait_until};
use crate::whip::client;

#[test]
fn lossy_call_is_advised_until_it_is_restored() {
    let node = Node::agent("east-a1");
    let webhook = HttpSink::start("127.0.0.1:0".parse().unwrap());
    let mut world = World::of(&[&node]);
    world.listens += &format!("[advice]\nurl = \"http://{}/advice\"\n", webhook.address());
    let mut gateway = GatewayProcess::start(&world);
    let mut ann = Phone::new(1);
    gateway.open("room", &mut ann);
    let path = format!("/v1/sessions/{}", ids(&mut gateway).remove(0));
    talk(&mut [&mut ann], "she hears herself", |phones| phones[0].audio_from(1) >= 50);
    assert_eq!(gateway.read(&path).get("advice"), None);
    // 20 %.
    ann.lost_each = 5;
    let mut advice = Value::Null;
    talk(&mut [&mut ann], "she is advised", |_| {
        advice = gateway.read(&path)["advice"].take();
        advice.is_object()
    });
    assert_eq!(advice, json!({"advice": "switch-network", "cause": "uplink"}));
    let explained = gateway.read(&format!("{path}/explain"));
    assert_eq!(explained["advice"], advice);
    ann.lost_each = 0;
    talk(&mut [&mut ann], "no loss is left", |_| gateway.read(&path).get("impairment").is_none());
    talk(&mut [&mut ann], "the advice is over", |_| gateway.read(&path).get("advice").is_none());
    wait_until("both changes are counted", || {
        let metrics = gateway.metrics();
        ["\"switch-network\"", "\"restored\""].iter().all(|advice| {
            metrics.lines().any(|line| {
                line.starts_with("evenkeel_advices_total{")
                    && line.contains(advice)
                    && line.contains("\"uplink\"")
                    && line.ends_with(" 1")
            })
        })
    });
    let posted = || -> Vec<Value> {
        let bodies = webhook.bodies().into_iter();
        let bodies = bodies.map(|body| serde_json::from_slice::<Value>(&body.bytes).unwrap());
        bodies.flat_map(|body| body["advices"].as_array().unwrap().clone()).collect()
    };
    wait_until("the webhook has the end", || {
        posted().last().is_some_and(|advice| advice["advice"] == "restored")
    });
    let first = posted().remove(0);
    let session = path.trim_start_matches("/v1/sessions/");
    assert_eq!((&first["session"], &first["room"]), (&json!(session), &json!("room")));
    assert_eq!((&first["scenario"], &first["cause"]), (&json!("call"), &json!("uplink")));
}

#[test]
fn publisher_follows_its_advice_and_rates_its_session() {
    let node = Node::agent("east-a1");
    let (mut gateway, whip) = Whip::of_process(&node);
    let (mut publisher, answer) = client(&whip, 1, "/whip/call/room", "publish");
    let (url, token) = (location(&answer).to_owned(), token(&claims("token-1")));
    let mut stream = HttpClient::over(whip.connect());
    let authorization = format!("authorization: Bearer {token}");
    stream.send(&format!("GET {url}"), &["accept: text/event-stream", &authorization], b"");
    let (told, advice) = mpsc::channel::<Value>();
    let reader = thread::spawn(move || {
        while let Some(line) = stream.line() {
            if let Some(data) = line.strip_prefix("data: ") {
                told.send(serde_json::from_str(data).unwrap()).unwrap();
            }
        }
    });
    let phone = &mut publisher.phone;
    talk(&mut [&mut *phone], "the stream begins", |_| {
        advice.try_recv().is_ok_and(|advice| advice == json!({"advice": "restored"}))
    });
    phone.lost_each = 5;
    talk(&mut [&mut *phone], "she is advised at the URL of her session", |_| {
        advice.try_recv().is_ok_and(|advice| advice["cause"] == "uplink")
    });
    assert_eq!(whip.ask(&format!("DELETE {url}"), &token, "").0, 200);
    reader.join().unwrap();

    let rating = json!({"rating": 2, "words": "choppy"}).to_string();
    let rate = || {
        let line = format!("POST {url}/feedback");
        whip.ask_of(&line, "content-type: application/json", &token, &rating).0
    };
    wait_until("the ended session is rated", || rate() == 204);
    let rated = gateway.read("/v1/sessions/history")["ratings"][0].take();
    assert_eq!((&rated["rating"], &rated["words"]), (&json!(2), &json!("choppy")));
    assert_eq!(rated["node"], "east-a1");
    assert!(rated["mean_r_centi"].as_u64().is_some_and(|r| r < 9_000), "{rated}");
    let compared = gateway.read("/v1/ratings");
    assert_eq!(compared["scenarios"][0]["mean_r_centi"], rated["mean_r_centi"], "{compared}");
    assert_eq!(compared["nodes"][0]["mean_rating_centi"], 200, "{compared}");
}
