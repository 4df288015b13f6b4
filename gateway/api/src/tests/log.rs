//! The log filter.

use evenkeel_control::Operation;

use super::*;

#[test]
fn log_filter_is_an_operation() {
    let mut world = World::start();
    assert_eq!(world.ask("GET /v1/log", "").answer(), (200, json!({"filter": null})));
    for filter in [Some("warn,evenkeel_group=debug"), None] {
        let body = json!({"filter": filter}).to_string();
        let asking = world.ask("POST /v1/log", &body);
        let ControlRequest::Operate(operation, reply) = world.request() else { panic!("{body}") };
        assert_eq!(operation, Operation::LogFilter(filter.map(Into::into)));
        reply.send(Ok(())).unwrap();
        assert_eq!(asking.answer().0, 204, "{body}");
    }
    world.handle.log_filter.send_replace(Some("debug".into()));
    assert_eq!(world.ask("GET /v1/log", "").answer().1, json!({"filter": "debug"}));
    for wrong in ["debgu", "", "evenkeel_group=loud"] {
        let body = json!({"filter": wrong}).to_string();
        let (status, answer) = world.ask("POST /v1/log", &body).answer();
        assert_eq!((status, &answer["error"]["field"]), (400, &json!("filter")), "{wrong}");
    }
}
