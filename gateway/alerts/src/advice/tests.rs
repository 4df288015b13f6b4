//! The queue in virtual time, and posts to a real server.

use std::time::Duration;

use evenkeel_config::GatewayConfig;
use evenkeel_model::{AdviceKind, PathSegment, SessionId};
use evenkeel_telemetry::Telemetry;
use evenkeel_testkit::http::{http_answer, http_server};
use serde_json::Value;

use super::*;

/// Advice at this time.
fn advice(at_us: u64) -> AdviceChanged {
    AdviceChanged { at_us, ..AdviceChanged::default() }
}

/// The times of the advices of the next post.
fn posted(queue: &mut AdviceQueue, now: Instant) -> Option<Vec<u64>> {
    queue.next_post(now).map(|advices| advices.iter().map(|it| it.at_us).collect())
}

#[test]
fn advice_is_posted_in_order_until_it_is_taken() {
    let (mut queue, start) = (AdviceQueue::default(), Instant::now());
    assert_eq!(posted(&mut queue, start), None, "nothing waits");
    assert!(queue.add(advice(1)) && queue.add(advice(2)));
    assert_eq!(posted(&mut queue, start), Some(vec![1, 2]));
    assert!(queue.add(advice(3)));
    assert_eq!(posted(&mut queue, start), None, "one post at a time");
    assert_eq!(queue.handle_answer(false, start), 2);
    let again = start + Duration::from_secs(1);
    assert_eq!(posted(&mut queue, again - Duration::from_millis(1)), None);
    assert_eq!(posted(&mut queue, again), Some(vec![1, 2, 3]));
    queue.handle_answer(false, again);
    let third = again + Duration::from_secs(2);
    assert_eq!(posted(&mut queue, third - Duration::from_millis(1)), None, "the pause doubles");
    assert_eq!(posted(&mut queue, third), Some(vec![1, 2, 3]));
    assert_eq!(queue.handle_answer(true, third), 3);
    assert_eq!((posted(&mut queue, third), queue.failures), (None, 0));
}

#[test]
fn full_queue_drops_the_oldest_that_is_not_posted() {
    let (mut queue, now) = (AdviceQueue::default(), Instant::now());
    let (waiting, first) = (WAITING_MAX as u64, ADVICES_PER_POST as u64);
    assert!((0..waiting).all(|at| queue.add(advice(at))));
    assert_eq!(posted(&mut queue, now), Some((0..first).collect()));
    assert!(!queue.add(advice(waiting)));
    assert_eq!(queue.waiting.len(), WAITING_MAX);
    queue.handle_answer(true, now);
    // The first after those that were being posted is the one that was dropped.
    assert_eq!(posted(&mut queue, now), Some((first + 1..2 * first + 1).collect()));
}

/// A poster, and what it is told.
struct Scene {
    targets: watch::Sender<Option<Arc<WebhookTarget>>>,
    events: broadcast::Sender<Arc<EventRecord>>,
    telemetry: Telemetry,
}

impl Scene {
    fn start() -> Scene {
        let (targets, events) = (watch::Sender::new(None), broadcast::channel(16).0);
        let settings = GatewayConfig::load(None, None, &[]).unwrap();
        let telemetry = Telemetry::start(&settings, "1").unwrap();
        let poster = AdvicePoster {
            gateway: "edge-1".to_owned(),
            targets: targets.subscribe(),
            events: events.clone(),
            instruments: telemetry.instruments(),
            client: Arc::default(),
        };
        tokio::spawn(poster.run());
        Scene { targets, events, telemetry }
    }

    /// Sets the webhook, and waits until the poster follows events.
    async fn follow(&self, url: &str) {
        let target = WebhookTarget { url: url.parse().unwrap(), token: None };
        self.targets.send_replace(Some(Arc::new(target)));
        until(|| self.events.receiver_count() == 1).await;
    }

    fn advise(&self, kind: AdviceKind) {
        let event = CoreEvent::Advised {
            session: SessionId(17),
            room_name: "stage".into(),
            scenario: "live".into(),
            advice: evenkeel_model::Advice { kind, cause: PathSegment::Downlink },
        };
        self.events.send(Arc::new(EventRecord::now(GatewayEvent::Core(event)))).unwrap();
    }

    /// Waits until this many advices had the outcome.
    async fn expect(&self, outcome: &str, advices: u64) {
        let labels = format!("{{evenkeel_outcome=\"{outcome}\"}}");
        let line = format!("evenkeel_advice_deliveries_total{labels} {advices}");
        until(|| self.telemetry.prometheus().render().lines().any(|found| found == line)).await;
    }
}

async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap();
}

#[tokio::test]
async fn advice_is_posted_again_after_a_failure() {
    let unavailable = http_answer("503 Service Unavailable", "");
    let (url, asked) = http_server(vec![unavailable, http_answer("200 OK", "")]);
    let scene = Scene::start();
    scene.follow(&url).await;
    scene.advise(AdviceKind::SwitchNetwork);
    scene.expect("failed", 1).await;
    scene.advise(AdviceKind::Restored);
    scene.expect("delivered", 2).await;
    let requests = asked.join().unwrap();
    let (head, body) = requests[1].split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /hook HTTP/1.1"), "{head}");
    let mut body: Value = serde_json::from_str(body).unwrap();
    let mut advices = body["advices"].take();
    for advice in advices.as_array_mut().unwrap() {
        assert!(advice["at_us"].take().as_u64().unwrap() > 0);
    }
    assert_eq!(body, json!({"version": 1, "gateway": "edge-1", "advices": null}));
    let session = SessionId(17).to_string();
    let right = ["switch-network", "restored"].map(|advice| {
        json!({
            "at_us": null, "session": session, "room": "stage", "scenario": "live", "advice": advice, "cause": "downlink",
        })
    });
    assert_eq!(advices, json!(right));
}

#[tokio::test]
async fn removed_webhook_drops_what_waits() {
    let (url, _asked) = http_server(vec![http_answer("503 Service Unavailable", "")]);
    let scene = Scene::start();
    assert_eq!(scene.events.receiver_count(), 0, "without a webhook no event is read");
    scene.follow(&url).await;
    scene.advise(AdviceKind::AudioOnly);
    scene.expect("failed", 1).await;
    scene.targets.send_replace(None);
    scene.expect("dropped", 1).await;
    assert_eq!(scene.events.receiver_count(), 0);
}
