//! Changes by operators, files and rollouts.

use evenkeel_control::Operation;
use evenkeel_kept::Store;
use tempfile::tempdir;

use super::*;
use crate::change_log::ChangeLog;

fn drain(world: &mut World, answer: Result<(), ControlError>) {
    let asking = world.ask("POST /v1/nodes/east-a1:undrain\nfrom: ann", "");
    let ControlRequest::Operate(Operation::Drain { .. }, reply) = world.request() else {
        panic!("undrain")
    };
    reply.send(answer).unwrap();
    asking.answer();
}

#[test]
fn changes_have_time_author_and_request() {
    let mut world = World::start();
    let changes =
        |world: &World| world.ask("GET /v1/changes?since=1h", "").answer().1["changes"].take();
    drain(&mut world, Err(ControlError::Unavailable));
    assert_eq!(changes(&world), json!([]), "it changed nothing");
    drain(&mut world, Ok(()));
    let mut change = changes(&world)[0].take();
    assert!(change["at_us"].take().as_u64().unwrap() > 0);
    let right = json!({
        "at_us": null, "event": "request", "by": "operator", "user": "ann",
        "request": "POST /v1/nodes/east-a1:undrain",
    });
    assert_eq!(change, right);
    let report =
        ReloadReport { by: Actor::File, took: Duration::ZERO, outcome: Err("a word".into()) };
    world.happen(GatewayEvent::Reload(report), None);
    while changes(&world)[0]["event"] != "reload" {
        std::thread::yield_now();
    }
    let newest = changes(&world)[0].take();
    assert_eq!((&newest["by"], &newest["reason"]), (&json!("file"), &json!("a word")));
    assert_eq!(world.ask("GET /v1/changes?since=1", "").answer().0, 400);
}

#[test]
fn change_without_a_user_has_that_of_the_socket() {
    let mut world = World::start();
    let asking = world.ask("POST /v1/nodes/east-a1:undrain", "");
    let ControlRequest::Operate(Operation::Drain { .. }, reply) = world.request() else {
        panic!("undrain")
    };
    reply.send(Ok(())).unwrap();
    asking.answer();
    let change = world.ask("GET /v1/changes", "").answer().1["changes"][0].take();
    let uid = nix::unistd::geteuid();
    let user = nix::unistd::User::from_uid(uid).unwrap();
    let user = user.map_or_else(|| format!("uid {uid}"), |user| user.name);
    assert_eq!(change["user"], user, "{change}");
}

#[test]
fn changes_outlive_the_process() {
    let folder = tempdir().unwrap();
    let open = || {
        let store = Store::default();
        let log = ChangeLog::new(&store);
        let socket = std::path::Path::new("/admin.sock");
        let thread = store.open(Some(folder.path()), socket, &Default::default()).unwrap();
        store.begin(Duration::from_secs(20));
        (log, thread)
    };
    let (log, thread) = open();
    for number in 0..1_030 {
        let data = json!({"at_us": number, "by": "file"}).to_string();
        log.note_event("reload", &data);
    }
    log.note_event("moved", "{}");
    let newest = |log: &ChangeLog| log.since(0).first().map(|change| change.at_us);
    assert_eq!((log.since(0).len(), newest(&log)), (1_024, Some(1_029)));
    // The thread writes them before it ends.
    drop(thread);
    let (log, _thread) = open();
    assert_eq!((log.since(0).len(), newest(&log)), (1_024, Some(1_029)));
    let long = json!({"at_us": 2_000, "by": "file", "nodes": "x".repeat(5_000)}).to_string();
    log.note_event("reload", &long);
    let kept = serde_json::to_value(log.since(2_000)).unwrap();
    assert_eq!(kept, json!([{"at_us": 2_000, "by": "file", "event": "reload"}]));
}
