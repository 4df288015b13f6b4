//! Permissions and limits of the sockets.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn readiness_follows_the_gateway() {
    let mut world = World::start();
    for (state, right) in [("starting", 503), ("serving", 200), ("draining", 503)] {
        let asking = world.ask("GET /readyz", "");
        let ControlRequest::Status(reply) = world.request() else { panic!("status") };
        reply.send(status(state)).unwrap();
        let (ready, body) = asking.answer();
        let code = &body["error"]["code"];
        assert!(ready == right && (ready == 200 || code == state), "{state}: {ready} {code}");
    }
}

#[test]
fn silent_control_makes_the_api_unavailable() {
    let mut world = World::start();
    let asking = world.ask("GET /readyz", "");
    drop(world.request());
    assert_eq!(asking.answer().1["error"]["code"], "unavailable");
    drop(world.requests);
    let (_requests, none) = mpsc::channel(1);
    world.requests = none;
    assert_eq!(world.ask("POST /v1/sessions", OFFER).answer().0, 503);
    assert_eq!(world.ask("GET /livez", "").answer().0, 200);
}

#[test]
fn listener_slots_are_bounded_and_reused() {
    let world = World::start();
    let mut all: Vec<_> = (0..64).map(|_| world.ask("GET /v1/events", "")).collect();
    assert!(all.iter_mut().all(|listening| listening.status() == 200));
    let (status, body) = world.ask("GET /v1/events", "").answer();
    assert_eq!((status, &body["error"]["code"]), (503, &json!("unavailable")));
    drop(all);
    // Waits until the API has seen the disconnects.
    while world.ask("GET /v1/events", "").status() != 200 {}
}

#[test]
fn tcp_requires_the_token() {
    let mut world = World::start();
    let address = world.thread.address.unwrap();
    let tcp = |head: &str| Asking::at(TcpStream::connect(address).unwrap(), head, "");
    for wrong in ["", "\nauthorization: Bearer wrong", "\nauthorization: Basic secret"] {
        for path in ["GET /v1/nodes", "GET /livez", "GET /none", "GET /v1/blast"] {
            let (status, body) = tcp(&format!("{path}{wrong}")).answer();
            assert_eq!((status, &body["error"]["code"]), (401, &json!("unauthorized")));
            let message = body["error"]["message"].as_str().unwrap();
            assert!(message.ends_with("`token_file` or `read_token_file`"), "{path}: {message}");
        }
    }
    let counted = world.handle.tokens_refused.by_reason();
    assert_eq!(counted, [("missing", 8), ("wrong", 4)], "a Basic credential is no token");
    let asking = tcp("GET /v1/nodes\nauthorization: Bearer secret");
    let ControlRequest::Nodes(reply) = world.request() else { panic!("nodes") };
    reply.send(vec![]).unwrap();
    assert_eq!(asking.answer(), (200, json!({"nodes": []})));
}

#[test]
fn read_token_reads_only() {
    let mut world = World::start();
    let address = world.thread.address.unwrap();
    let tcp = |head: &str| {
        let head = format!("{head}\nauthorization: Bearer reader");
        Asking::at(TcpStream::connect(address).unwrap(), &head, "")
    };
    let asking = tcp("GET /v1/nodes");
    let ControlRequest::Nodes(reply) = world.request() else { panic!("nodes") };
    reply.send(vec![]).unwrap();
    assert_eq!(asking.answer().0, 200);
    for head in [
        "GET /v1/recording",
        "GET /v1/configuration",
        "GET /v1/blast?busiest=1",
        "GET /v1/policies/a/routing/data/list",
        "POST /v1/nodes/east-a1:drain",
        "DELETE /v1/sessions/s1",
        "PUT /v1/policies/a/routing",
    ] {
        let (status, body) = tcp(head).answer();
        assert_eq!((status, &body["error"]["code"]), (403, &json!("refused")), "{head}: {body}");
    }
    let counted = world.handle.tokens_refused.by_reason();
    assert_eq!(counted, [("missing", 0), ("wrong", 0)], "a known token");
}

#[test]
fn upgrade_over_tcp_names_no_program() {
    let world = World::start();
    let stream = TcpStream::connect(world.thread.address.unwrap()).unwrap();
    let head = "POST /v1/gateway:upgrade\nauthorization: Bearer secret";
    let (status, body) = Asking::at(stream, head, r#"{"binary": "/bin/sh"}"#).answer();
    assert_eq!((status, &body["error"]["field"]), (403, &json!("binary")));
    for (asked, status) in [
        (r#"{"binary": "sh"}"#, 400),
        (r#"{"deadline": "60s"}"#, 400),
        // A gateway within another program, as that of this test.
        (r#"{"binary": "/bin/sh", "deadline": "9s"}"#, 404),
    ] {
        assert_eq!(world.ask("POST /v1/gateway:upgrade", asked).answer().0, status, "{asked}");
    }
}

#[test]
fn oldest_idle_tcp_connection_gives_way() {
    let world = World::start();
    let address = world.thread.address.unwrap();
    let connect = || TcpStream::connect(address).unwrap();
    let idle: Vec<TcpStream> =
        (0..listener::ConnectionLimits::OF_API.strangers_per_source).map(|_| connect()).collect();
    let owner = Asking::at(connect(), "GET /livez\nauthorization: Bearer secret", "");
    assert_eq!(owner.answer().0, 200);
    assert_eq!(world.ask("GET /livez", "").answer().0, 200);
    let read = |mut stream: &TcpStream| stream.read(&mut [0]);
    assert!(read(&idle[0]).is_ok_and(|bytes| bytes == 0), "the oldest is closed");
    for kept in &idle[1..] {
        kept.set_nonblocking(true).unwrap();
        assert_eq!(read(kept).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }
}

#[test]
fn unknown_path_and_method_answer_json() {
    let world = World::start();
    let (status, body) = world.ask("GET /v2", "").answer();
    assert_eq!((status, &body["error"]["code"]), (404, &json!("not-found")));
    let (status, body) = world.ask("DELETE /v1/nodes", "").answer();
    assert_eq!((status, &body["error"]["code"]), (405, &json!("method-not-allowed")));
}

#[test]
fn metrics_are_rendered_by_telemetry() {
    let world = World::start();
    assert_eq!(world.ask("GET /metrics", "").text(), "evenkeel_sessions 3\n");
    let asked = |accept: &str| {
        let head = format!("GET /metrics\naccept: {accept}");
        (world.ask(&head, "").find("content-type:"), world.ask(&head, "").text())
    };
    let open = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    let scraper = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2";
    assert_eq!(asked(scraper), (open.to_owned(), "# EOF\n".to_owned()));
    let twice = "text/plain;q=0.1\r\naccept: application/openmetrics-text";
    assert_eq!(asked(twice).0, open);
    let text = "content-type: text/plain; version=0.0.4";
    assert_eq!(asked("*/*"), (text.to_owned(), "evenkeel_sessions 3\n".to_owned()));
    assert_eq!(world.ask("GET /metrics", "").find("vary:"), "vary: accept");
}

#[test]
fn socket_has_one_owner_and_one_gateway() {
    let world = World::start();
    let mode = std::fs::metadata(&world.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = || {
        let (handle, _requests, _events) = handle(1);
        start(admin(world.socket.clone(), None), handle, Box::new(|_| String::new()))
    };
    assert!(again().unwrap_err().to_string().contains("another gateway"));
    assert_eq!(
        world.ask("GET /livez", "").answer().0,
        200,
        "the first listener still owns the socket"
    );
}

#[test]
fn only_a_stale_socket_is_replaced() {
    let path = socket_path();
    let (handle, _requests, _events) = handle(1);
    let admin = admin(path.clone(), None);
    let begin = || start(admin.clone(), handle.clone(), Box::new(|_| String::new()));
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let thread = begin().unwrap();
    UnixStream::connect(&path).unwrap();
    thread.shut_down();
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    begin().unwrap_err();
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn folder_in_the_way_of_the_socket_is_named() {
    let path = socket_path();
    let (handle, _requests, _events) = handle(1);
    let in_the_way = format!("{}.{}", path.display(), std::process::id());
    std::fs::create_dir(&in_the_way).unwrap();
    let refused =
        start(admin(path, None), handle, Box::new(|_| String::new())).unwrap_err().to_string();
    std::fs::remove_dir(&in_the_way).unwrap();
    assert!(refused.contains(&format!("found `{in_the_way}`, which is in the way")), "{refused}");
}
