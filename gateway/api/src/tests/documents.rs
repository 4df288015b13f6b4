//! Pushes of data documents, and the documents of revisions.

use evenkeel_control::PushRequest;
use evenkeel_host::{DataDocument, DataDocuments};

use super::views::policy;
use super::*;

#[test]
fn push_of_documents_keeps_the_plugin() {
    let mut world = World::start();
    let json = |path: &str| format!("PUT /v1/policies/{path}\ncontent-type: application/json");
    let body = r#"{"documents": {"tenants": {"acme": {}}}, "settings": {"a": 1}}"#;
    let asking = world.ask(&json("call/routing?force=true"), body);
    let ControlRequest::Push { bytes, settings, push, reply, .. } = world.request() else {
        panic!("push")
    };
    let document = DataDocument::of("tenants", &json!({"acme": {}})).unwrap();
    let documents = DataDocuments::from([("tenants".into(), document)]);
    assert_eq!((bytes, settings), (None, Some(json!({"a": 1}))));
    assert_eq!(push, PushRequest { force: true, documents, ..PushRequest::default() });
    reply.send(Ok(rollout(RolloutOutcome::Activated))).unwrap();
    world.keep_policies();
    assert_eq!(asking.answer().0, 200);
    let asking = world.ask(&json("call/routing"), r#"{"plugin": "AGFzbQ=="}"#);
    let ControlRequest::Push { bytes, reply, .. } = world.request() else { panic!("push") };
    assert_eq!(bytes.as_deref(), Some(&b"\0asm"[..]));
    reply.send(Ok(rollout(RolloutOutcome::Unchanged))).unwrap();
    world.keep_policies();
    assert_eq!(asking.answer().0, 200);
    let long = format!(r#"{{"documents": {{"tenants": {{"a": "{}"}}}}}}"#, "x".repeat(1 << 20));
    for (wrong, field) in [
        ("{}", Value::Null),
        (r#"{"plugin": "?"}"#, json!("plugin")),
        (long.as_str(), json!("documents.tenants")),
    ] {
        let (status, body) = world.ask(&json("call/routing"), wrong).answer();
        assert_eq!((status, &body["error"]["field"]), (400, &field), "{body}");
    }
}

#[test]
fn documents_of_the_active_revision_are_shown() {
    let mut world = World::start();
    let mut shown = policy();
    let document = DataDocument::of("tenants", &json!({"acme": {}})).unwrap();
    shown.active.documents = [("tenants".into(), document)].into();
    let answer = |world: &mut World, path: &str| {
        let asking = world.ask(&format!("GET /v1/policies{path}"), "");
        let ControlRequest::Policies(reply) = world.request() else { panic!("policies") };
        reply.send(vec![shown.clone()]).unwrap();
        asking.answer()
    };
    let (_, all) = answer(&mut world, "");
    let row = &all["policies"][0]["documents"][0];
    assert_eq!((&row["name"], &row["bytes"]), (&json!("tenants"), &json!(11)));
    assert_eq!(row["sha256"].as_str().unwrap().len(), 64);
    let data = "/call/routing/data/";
    assert_eq!(answer(&mut world, &format!("{data}tenants")), (200, json!({"acme": {}})));
    assert_eq!(answer(&mut world, &format!("{data}devices")).0, 404);
}
