//! The thread with real receivers and dependencies.

use std::net::TcpListener;
use std::path::Path;

use evenkeel_config::Url;
use evenkeel_control::{AlertsRecord, ControlRequest, NodeNames};
use evenkeel_kept::Store;
use evenkeel_telemetry::Telemetry;
use evenkeel_telemetry::registry::Level;
use evenkeel_testkit::http::{http_answer, http_server};

use super::super::tests::receiver;
use super::*;

/// Control that keeps the last alerts in the store of the handle.
fn control(settings: &GatewayConfig) -> Handle {
    let names = Arc::new(NodeNames::of(&settings.core()));
    let (handle, mut requests) = Handle::new(names, Arc::default());
    let kept = handle.kept.documents::<AlertsRecord>();
    std::thread::spawn(move || {
        while let Some(request) = requests.blocking_recv() {
            match request {
                ControlRequest::KeptAlerts(reply) => _ = reply.send(kept.row("")),
                ControlRequest::KeepAlerts(alerts, reply) => {
                    kept.put_encoded(alerts);
                    let (done, written) = oneshot::channel();
                    let _ = (done.send(Ok(())), reply.send(written));
                }
                // The real control reads its own documents.
                ControlRequest::ReadLateKept => {}
                other => panic!("{other:?}"),
            }
        }
    });
    handle
}

/// A sender with an alert of `EvenkeelRoomsStranded` while `idp` is down, and the telemetry that has its metrics.
fn sender(receivers: &[AlertReceiver]) -> (AlertSender, Telemetry) {
    let settings = GatewayConfig::load(None, None, &[]).unwrap();
    let telemetry = Telemetry::start(&settings, "1").unwrap();
    let (instruments, metrics) = (telemetry.instruments(), telemetry.prometheus());
    let labels = [(Attribute::Cause, "node-down")];
    let mut alerts = Alerts::new(receivers);
    for stranded in [0, 1] {
        instruments.count(Count::RoomsStranded, stranded, &labels);
        alerts.evaluate(metrics.samples(&alerts.metrics()), Moment::now());
    }
    let (dependency, reason): (Arc<str>, _) = ("idp".into(), Some("status 500".to_owned()));
    let view = Dependency { dependency, up: false, since_us: 1, reason };
    let views = watch::Sender::new([(Arc::clone(&view.dependency), view)].into());
    let sender = AlertSender {
        alerts,
        control: control(&settings),
        earlier: EarlierRead::All,
        acknowledged: Vec::new(),
        gateway: "edge-1".to_owned(),
        is_owner: Box::new(|| true),
        metrics,
        checks: DependencyChecks::new(views, Arc::clone(&instruments)),
        instruments,
        client: Arc::default(),
        posts: JoinSet::new(),
    };
    (sender, telemetry)
}

fn receiver_at(name: &str, url: &str) -> AlertReceiver {
    let mut receiver = receiver(name, &evenkeel_config::AlertTier::ALL);
    receiver.target.url = url.parse().unwrap();
    receiver
}

#[tokio::test]
async fn hung_receiver_delays_no_other() {
    let hung = TcpListener::bind("127.0.0.1:0").unwrap();
    let hangs = format!("http://{}", hung.local_addr().unwrap());
    let (url, asked) = http_server(vec![http_answer("200 OK", "")]);
    let receivers = [receiver_at("hangs", &hangs), receiver_at("ops", &url)];
    let (mut sender, _telemetry) = sender(&receivers);
    sender.send().await.unwrap();
    assert_eq!(sender.posts.len(), 2);
    let posted = sender.posts.join_next().await.unwrap().unwrap();
    assert_eq!((&*posted.receiver, &posted.answer), ("ops", &Ok(())));
    sender.note(&posted);
    let request = asked.join().unwrap().remove(0);
    assert!(request.contains("\"alert\":\"EvenkeelRoomsStranded\""), "{request}");
    assert!(request.contains("\"gateway\":\"edge-1\""), "{request}");
    assert!(request.contains("\"dependencies_down\":[\"idp\"]"), "{request}");
    sender.send().await.unwrap();
    assert_eq!(sender.posts.len(), 1, "the one that hangs has one request at most");
}

#[tokio::test]
async fn standby_sends_once_it_is_the_owner() {
    let (url, _asked) = http_server(vec![http_answer("200 OK", "")]);
    let (mut sender, _telemetry) = sender(&[receiver_at("ops", &url)]);
    sender.is_owner = Box::new(|| false);
    sender.send().await.unwrap();
    assert!(sender.posts.is_empty());
    sender.is_owner = Box::new(|| true);
    sender.send().await.unwrap();
    assert_eq!(sender.posts.len(), 1);
}

#[tokio::test]
async fn standby_sends_alerts_about_itself_without_a_record() {
    let (mut sender, _telemetry) = sender(&[receiver_at("ops", "http://127.0.0.1:1")]);
    sender.is_owner = Box::new(|| false);
    sender.earlier = EarlierRead::Nothing;
    let labels = [(Attribute::Credential, "quic-certificate")];
    sender.instruments.level(Level::CredentialExpiry, 60.0, &labels);
    sender.evaluate();
    let (reply, answer) = oneshot::channel();
    let name = "EvenkeelCredentialEndsSoon".to_owned();
    sender.execute(AlertRequest::Acknowledge { name, by: None, reply });
    sender.send().await.unwrap();
    assert_eq!(sender.posts.len(), 1);
    let not_kept = AcknowledgeError::NotWritten("this gateway does not own its group".into());
    assert_eq!(answer.await.unwrap(), Err(not_kept));
    assert_eq!(sender.control.kept_alerts().await, Ok(None));
}

#[tokio::test]
async fn new_owner_continues_the_alerts_of_the_old_one() {
    let (url, _asked) = http_server(vec![http_answer("200 OK", "")]);
    let receivers = [receiver_at("ops", &url)];
    let (mut old, _telemetry) = sender(&receivers);
    old.send().await.unwrap();
    let posted = old.posts.join_next().await.unwrap().unwrap();
    old.note(&posted);
    old.keep().await.unwrap();
    let (mut new, _telemetry) = sender(&receivers);
    (new.control, new.earlier) = (old.control.clone(), EarlierRead::Nothing);
    new.send().await.unwrap();
    assert!(new.posts.is_empty(), "the receiver has it");
    assert_eq!(new.alerts.view().receivers[0].waiting, 0);
}

#[tokio::test]
async fn alerts_of_a_late_disk_are_continued() {
    let folder = tempfile::tempdir().unwrap();
    let (database, away) = (folder.path().join("kept"), folder.path().join("away"));
    let open = |store: &Store| {
        let alerts = store.documents::<AlertsRecord>();
        let unwritten = Default::default();
        let thread = store.open(Some(folder.path()), Path::new("/admin.sock"), &unwritten).unwrap();
        store.begin(Duration::from_secs(20));
        (alerts, thread)
    };
    let (alerts, thread) = open(&Store::default());
    let (url, _asked) = http_server(vec![http_answer("200 OK", "")]);
    let receivers = [receiver_at("ops", &url)];
    let (mut before, _telemetry) = sender(&receivers);
    before.alerts.acknowledge("EvenkeelRoomsStranded", None, Instant::now()).unwrap();
    let mut record = before.alerts.take_changed_record(Moment::now()).unwrap();
    let mut other = record.alerts[0].clone();
    other.labels.insert("evenkeel_cause".to_owned(), "other".to_owned());
    record.alerts.push(other);
    alerts.put("", &record);
    // The thread writes them before it ends.
    drop(thread);
    std::fs::rename(&database, &away).unwrap();
    std::fs::write(&database, "a file").unwrap();
    let (mut sender, _telemetry) = sender(&receivers);
    let (kept, _thread) = open(&sender.control.kept);
    sender.earlier = EarlierRead::Nothing;
    sender.send().await.unwrap();
    assert_eq!((sender.alerts.view().alerts.len(), sender.posts.len()), (1, 1));
    let own = kept.get("").unwrap();
    std::fs::remove_file(&database).unwrap();
    std::fs::rename(&away, &database).unwrap();
    let name = "EvenkeelRoomsStranded";
    // A row with an acknowledgement is tried at once.
    let (done, written) = oneshot::channel();
    kept.put_and(Encoded::new("", &own), move |result| done.send(result).unwrap());
    written.await.unwrap().unwrap();
    sender.send().await.unwrap();
    let alerts = sender.alerts.view().alerts;
    assert_eq!(alerts.len(), 2);
    assert!(alerts.iter().all(|alert| alert.alert == name && alert.acknowledged));
    assert_eq!(sender.earlier, EarlierRead::All);
}

#[tokio::test]
async fn alerts_are_kept_before_they_are_posted() {
    let (mut sender, _telemetry) = sender(&[receiver_at("ops", "http://127.0.0.1:1")]);
    let ended = Handle::new(Arc::clone(&sender.control.names), Arc::default()).0;
    let control = std::mem::replace(&mut sender.control, ended);
    sender.send().await.unwrap_err();
    assert!(sender.posts.is_empty(), "another process may send them");
    assert_eq!(control.kept_alerts().await, Ok(None));
}

#[tokio::test]
async fn acknowledgement_is_answered_once_it_is_kept() {
    let (mut sender, _telemetry) = sender(&[receiver_at("ops", "http://127.0.0.1:1")]);
    let (reply, mut answer) = oneshot::channel();
    let name = "EvenkeelRoomsStranded".to_owned();
    sender.execute(AlertRequest::Acknowledge { name, by: None, reply });
    answer.try_recv().unwrap_err();
    sender.keep().await.unwrap();
    assert_eq!(answer.await.unwrap(), Ok(()));
    let kept = sender.control.kept_alerts().await.unwrap().unwrap().decode().unwrap();
    assert!(kept.alerts[0].acknowledged.is_some());
}

#[test]
fn reload_replaces_receivers() {
    let (mut sender, _telemetry) = sender(&[]);
    let mut listed = |reload: Vec<AlertReceiver>| {
        sender.execute(AlertRequest::Reload(reload, Vec::new()));
        let (reply, mut answer) = oneshot::channel();
        sender.execute(AlertRequest::List(reply));
        let view = answer.try_recv().unwrap();
        view.map(|view| view.receivers.into_iter().map(|it| it.receiver).collect::<Vec<_>>())
    };
    assert_eq!(listed(vec![receiver_at("ops", "http://127.0.0.1:1")]), Some(vec!["ops".into()]));
    assert_eq!(listed(Vec::new()), None, "no receiver");
    let (reply, mut answer) = oneshot::channel();
    let name = "EvenkeelNodeDown".to_owned();
    sender.execute(AlertRequest::Acknowledge { name, by: None, reply });
    assert_eq!(answer.try_recv().unwrap(), Err(AcknowledgeError::NoReceiver));
}

#[tokio::test]
async fn failures_are_counted() {
    let (url, _asked) = http_server(vec![http_answer("503 Service Unavailable", "")]);
    let (mut sender, _telemetry) = sender(&[receiver_at("ops", &url)]);
    sender.send().await.unwrap();
    let posted = sender.posts.join_next().await.unwrap().unwrap();
    assert_eq!(posted.answer, Err("status 503".to_owned()));
    sender.note(&posted);
    let text = sender.metrics.render();
    let labels = "evenkeel_outcome=\"failed\",evenkeel_receiver=\"ops\"";
    let line = format!("evenkeel_alert_deliveries_total{{{labels}}} 1");
    assert!(text.lines().any(|found| found == line), "{text}");
}

#[tokio::test]
async fn dependencies_are_checked_by_themselves() {
    let (url, _asked) = http_server(vec![http_answer("500 Internal Server Error", "")]);
    let open = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = open.local_addr().unwrap().port();
    let dependency = |name: &str, target| DependencySettings {
        name: name.into(),
        target,
        every: Duration::from_secs(3_600),
        timeout: Duration::from_secs(30),
    };
    let parsed: Url = url.parse().unwrap();
    let http = |url, expect_status| evenkeel_config::DependencyTarget::Http { url, expect_status };
    // It accepts the connection, and answers nothing.
    let silent: Url = format!("http://127.0.0.1:{port}/").parse().unwrap();
    let tcp = evenkeel_config::DependencyTarget::Tcp { host: "127.0.0.1".into(), port };
    let (mut sender, _telemetry) = sender(&[]);
    let (views_in, mut views) = watch::channel(DependencyViews::new());
    sender.checks = DependencyChecks::new(views_in, Arc::clone(&sender.instruments));
    sender.checks.set(&[
        dependency("idp", http(parsed, None)),
        dependency("silent", http(silent, Some(200))),
        dependency("turn", tcp),
    ]);
    let two = views.wait_for(|views| views.len() == 2).await.unwrap().clone();
    let shown: Vec<_> =
        two.values().map(|it| (&*it.dependency, it.up, it.reason.as_deref())).collect();
    assert_eq!(shown, [("idp", false, Some("status 500")), ("turn", true, None)]);
    let text = sender.metrics.render();
    for line in ["{evenkeel_dependency=\"idp\"} 0", "{evenkeel_dependency=\"turn\"} 1"] {
        let line = format!("evenkeel_dependency_up{line}");
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    // A removed one is no fault.
    sender.checks.set(&[]);
    assert!(views.borrow().is_empty());
    let line = "evenkeel_dependency_up{evenkeel_dependency=\"idp\"} 1";
    assert!(sender.metrics.render().lines().any(|found| found == line));
}
