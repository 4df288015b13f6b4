//! Alerts, answered by the test in place of their thread.

use std::net::TcpListener;
use std::time::Instant;

use evenkeel_alerts::{AcknowledgeError, AlertChannels, AlertRequest};
use evenkeel_config::{DependencySettings, DependencyTarget, GatewayConfig};
use evenkeel_control::Inherited;
use evenkeel_handover::RequestGate;
use evenkeel_model::Health;
use evenkeel_telemetry::Telemetry;

use super::*;

#[test]
fn acknowledgement_names_its_user() {
    let channels = AlertChannels::default();
    let (handle, _requests, _events) = handle(8);
    let socket = socket_path();
    let mut api = bind(admin(socket.clone(), None), None, &mut Inherited::default()).unwrap();
    api.alerts = Some(channels.handle());
    let thread = api.serve(handle, Box::new(|_| String::new()), Vec::new()).unwrap();
    thread.open();
    let mut requests = channels.requests;
    let acknowledge = |requests: &mut mpsc::Receiver<AlertRequest>, answer| {
        let head = "POST /v1/alerts/EvenkeelNodeDown:acknowledge\nfrom: ann";
        let asking = Asking::at(UnixStream::connect(&socket).unwrap(), head, "");
        let Some(AlertRequest::Acknowledge { name, by, reply }) = requests.blocking_recv() else {
            panic!("not acknowledged")
        };
        assert_eq!((&*name, by.as_deref()), ("EvenkeelNodeDown", Some("ann")));
        reply.send(answer).unwrap();
        asking.answer().0
    };
    assert_eq!(acknowledge(&mut requests, Ok(())), 204);
    let silent = AcknowledgeError::Silent("EvenkeelNodeDown".to_owned());
    assert_eq!(acknowledge(&mut requests, Err(silent)), 409);
    assert_eq!(acknowledge(&mut requests, Err(AcknowledgeError::NoReceiver)), 404);
    let ask = |head| Asking::at(UnixStream::connect(&socket).unwrap(), head, "");
    let (status, changes) = ask("GET /v1/changes").answer();
    assert_eq!((status, changes["changes"].as_array().map(Vec::len)), (200, Some(1)));
    assert_eq!(changes["changes"][0]["user"], "ann");
}

#[test]
fn gateway_without_receivers_has_no_alerts() {
    let world = World::start();
    assert_eq!(world.ask("GET /v1/alerts", "").answer().0, 404);
    assert_eq!(world.ask("POST /v1/alerts/EvenkeelNodeDown:acknowledge", "").answer().0, 404);
}

#[test]
fn fault_names_the_dependencies_that_are_down() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let target = DependencyTarget::Tcp { host: "127.0.0.1".into(), port: closed.port() };
    let (every, timeout) = (Duration::from_secs(3_600), Duration::from_secs(30));
    let mut settings = GatewayConfig::load(None, None, &[]).unwrap();
    settings.dependencies = vec![DependencySettings { name: "idp".into(), target, every, timeout }];
    let telemetry = Telemetry::start(&settings, "1").unwrap();
    let (metrics, instruments) = (telemetry.prometheus(), telemetry.instruments());
    let channels = AlertChannels::default();
    let alerts = channels.handle();
    let (handle, _requests, events) = handle(8);
    let _checks = channels.start(&settings, handle.clone(), None, metrics, instruments).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while alerts.dependencies_down().is_none() {
        assert!(Instant::now() < deadline, "not checked");
        std::thread::park_timeout(Duration::from_millis(2));
    }

    let socket = socket_path();
    let mut api = bind(admin(socket.clone(), None), None, &mut Inherited::default()).unwrap();
    api.alerts = Some(alerts);
    let thread = api.serve(handle, Box::new(|_| String::new()), Vec::new()).unwrap();
    thread.open();
    let mut listening = Asking::at(UnixStream::connect(&socket).unwrap(), "GET /v1/events", "");
    assert_eq!(listening.status(), 200);
    let (from, to, last_heard) = (Health::Up, Health::Down, None);
    let down =
        CoreEvent::Node { hop: hop(0), from, to, witnesses: Vec::new(), last_heard, rooms: 1 };
    for (event, name) in
        [(down, "node"), (CoreEvent::Uplink { doubted: true, silent: 3, of: 4 }, "uplink")]
    {
        let event = GatewayEvent::Core(event);
        let record = EventRecord { at: SystemTime::now(), event, totals: None, caller: None };
        events.send(Arc::new(record)).unwrap();
        assert_eq!(listening.notice(name)["dependencies_down"], json!(["idp"]));
    }
}
