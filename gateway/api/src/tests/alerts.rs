//! Alerts, answered by the test in place of their thread.

use evenkeel_alerts::{AcknowledgeError, AlertChannels, AlertRequest};
use evenkeel_control::Inherited;
use evenkeel_handover::RequestGate;

use super::*;

#[test]
fn acknowledgement_names_its_user() {
    let channels = AlertChannels::default();
    let (handle, _requests, _events) = handle(8);
    let socket = socket_path();
    let mut api = bind(admin(socket.clone(), None), &mut Inherited::default()).unwrap();
    api.alerts = Some(channels.handle());
    let thread = api.serve(handle, Box::new(|_| String::new())).unwrap();
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
